// How often a frame allocates on the heap once the segmenter is warm.
//
// Counted: every malloc, calloc, realloc, aligned_alloc, memalign and posix_memalign (operator new ends in malloc) of
// this thread between entering and leaving `skr_segment`. Not counted: what happens inside ONNX Runtime's own `Run`, its
// arena and its bookkeeping; to know when that is, this program stands between the library and `OrtGetApiBase`.

#include <dlfcn.h>
#include <onnxruntime_c_api.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "searchkit/runtime.hpp"

extern "C" {
void *__libc_malloc(std::size_t);
void *__libc_calloc(std::size_t, std::size_t);
void *__libc_realloc(void *, std::size_t);
void *__libc_memalign(std::size_t, std::size_t);
}

namespace {

thread_local bool counting = false;
thread_local long allocations = 0;
long runs = 0;

void count() { allocations += counting; }

const OrtApi *real_api = nullptr;
OrtApi watched_api;

OrtStatusPtr watched_run(OrtSession *session, const OrtRunOptions *options, const char *const *input_names,
                         const OrtValue *const *inputs, std::size_t input_count, const char *const *output_names,
                         std::size_t output_count, OrtValue **outputs) noexcept {
  const bool before = counting;
  counting = false;
  ++runs;
  OrtStatusPtr status =
      real_api->Run(session, options, input_names, inputs, input_count, output_names, output_count, outputs);
  counting = before;
  return status;
}

const OrtApiBase *real_base() {
  using Get = const OrtApiBase *(*)();
  static const Get get = reinterpret_cast<Get>(::dlsym(RTLD_NEXT, "OrtGetApiBase"));
  return get();
}

const OrtApi *watched(std::uint32_t) noexcept {
  real_api = real_base()->GetApi(ORT_API_VERSION);
  watched_api = *real_api;
  watched_api.Run = watched_run;
  return &watched_api;
}

const char *version() noexcept { return real_base()->GetVersionString(); }

const OrtApiBase watched_base = {watched, version};

// Allocations of one frame.
long of_one_frame(searchkit::Segmenter &segmenter, std::vector<std::uint8_t> &rgb, std::vector<std::uint8_t> &labels,
                  std::int64_t height, std::int64_t width) {
  allocations = 0;
  counting = true;
  segmenter.run({rgb.data(), height, width, 3 * width}, {labels.data(), height, width, width});
  counting = false;
  return allocations;
}

// That the counter counts. What is never looked at, the compiler may leave out.
long of_a_vector() {
  static const void *volatile seen;
  allocations = 0;
  counting = true;
  const std::vector<std::uint8_t> control(100);
  seen = control.data();
  counting = false;
  return seen ? allocations : -1;
}

}  // namespace

extern "C" {
void *malloc(std::size_t bytes) {
  count();
  return __libc_malloc(bytes);
}
void *calloc(std::size_t items, std::size_t bytes) {
  count();
  return __libc_calloc(items, bytes);
}
void *realloc(void *memory, std::size_t bytes) {
  count();
  return __libc_realloc(memory, bytes);
}
void *memalign(std::size_t alignment, std::size_t bytes) {
  count();
  return __libc_memalign(alignment, bytes);
}
void *aligned_alloc(std::size_t alignment, std::size_t bytes) {
  count();
  return __libc_memalign(alignment, bytes);
}
int posix_memalign(void **memory, std::size_t alignment, std::size_t bytes) {
  count();
  *memory = __libc_memalign(alignment, bytes);
  return *memory ? 0 : ENOMEM;
}
const OrtApiBase *ORT_API_CALL OrtGetApiBase(void) noexcept { return &watched_base; }
}

// usage: allocations BUNDLE HEIGHT WIDTH; prints those of the first frame from each of six buffers, and of 20 more.
int main(int argc, char **argv) {
  if (argc != 4) return 2;
  const std::int64_t height = std::atol(argv[2]), width = std::atol(argv[3]);
  searchkit::Options options;
  options.threads = 1;
  const searchkit::Model model(argv[1], options);
  searchkit::Segmenter segmenter(model);
  // More buffers than the library keeps tensors for.
  std::vector<std::vector<std::uint8_t>> rgb(6, std::vector<std::uint8_t>(static_cast<std::size_t>(height * width * 3), 50));
  std::vector<std::uint8_t> labels(static_cast<std::size_t>(height * width));
  long first = 0, later = 0;
  for (auto &buffer : rgb) first += of_one_frame(segmenter, buffer, labels, height, width);
  for (std::size_t i = 0; i < 20; ++i) later += of_one_frame(segmenter, rgb[i % rgb.size()], labels, height, width);
  std::printf("first %ld later %ld control %ld runs %ld\n", first, later, of_a_vector(), runs);
  return 0;
}
