#include "label_head.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <new>
#include <vector>

#include "parts.h"

namespace {

// Columns of the output that are done at a time: two stretched rows of 19 classes are 38 KiB, which stay in the
// nearest cache.
constexpr int64_t STRIP = 256;

// Whole vectors are written, up to 15 values beyond the end of a run. A multiple of the widest vector.
constexpr int64_t SLACK = 16;

// Where one output coordinate reads: value = v[low] + weight * (v[high] - v[low]).
struct Tap {
  int64_t low, high;
  float weight;
};

// Columns of the output that read the same two columns of logits.
struct Run {
  int64_t low, high, begin, end;
};

struct Work {
  const sk_logits *logits;
  const sk_label_map *out;
  const sk_label_head_options *options;
  const float *weights;     // of the higher column, indexed by the output's column
  const Run *runs;          // in order; none crosses from one strip into the next
  const int64_t *first_run; // of each strip
  const Tap *rows;          // indexed by the output's row
};

// What is too large to be blended, or no number, is replaced before it can spoil its neighbours.
inline float bounded(float value) {
  constexpr float LARGEST = 1e37f;
  if (!(value > -LARGEST)) return -LARGEST;  // NaN too
  return value < LARGEST ? value : LARGEST;
}

struct Half {
  uint16_t bits;
};

struct BFloat {
  uint16_t bits;
};

inline float from_bits(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

inline float load(float value) { return bounded(value); }

inline float load(BFloat value) { return bounded(from_bits(uint32_t{value.bits} << 16)); }

inline float load(Half value) {
  const uint32_t sign = uint32_t{value.bits & 0x8000u} << 16, magnitude = value.bits & 0x7fffu;
  if (magnitude >= 0x7c00u) return bounded(from_bits(sign | 0x7f800000u | (magnitude & 0x3ffu) << 13));
  // The bits of a float 2^112 times too small; the product is exact, for subnormal numbers too.
  return from_bits(sign | magnitude << 13) * 0x1p112f;
}

}  // namespace

// Every kernel has the same source and its own instruction set. The pragmas name only what the kernel may use: the rest
// of this file runs everywhere.
#define SK_BASE_ONLY 1
namespace {
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#undef SK_BASE_ONLY
#define SK_BASE_ONLY 0
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")
#define SK_ISA avx512
#define SK_LANES 16
#include "label_head_kernel.inc"
#undef SK_ISA
#undef SK_LANES
#pragma GCC pop_options
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#define SK_ISA avx2
#define SK_LANES 8
#include "label_head_kernel.inc"
#undef SK_ISA
#undef SK_LANES
#pragma GCC pop_options
#endif
#define SK_ISA plain
#define SK_LANES 4
#include "label_head_kernel.inc"
#undef SK_ISA
#undef SK_LANES

struct Kernel {
  const char *name;
  void (*run)(const Work &, int64_t, int64_t, float *);
};

constexpr Kernel KERNELS[] = {
#if !SK_BASE_ONLY
    {"avx512", avx512::run},
    {"avx2", avx2::run},
#endif
#if defined(__ARM_NEON)
    {"neon", plain::run},
#else
    {"plain", plain::run},
#endif
};
constexpr int KERNEL_COUNT = sizeof KERNELS / sizeof KERNELS[0];

bool runs_here(int index) {
#if !SK_BASE_ONLY
  if (index == 0)
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("fma");
  if (index == 1) return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#endif
  return index >= 0 && index < KERNEL_COUNT;
}

int chosen_kernel(int wanted) {
  if (wanted >= 0) return wanted;
  int index = 0;
  while (!runs_here(index)) ++index;
  return index;
}

Tap tap_at(int64_t position, int64_t from, int64_t to, int corners) {
  double source;
  if (corners == SK_ALIGN_CORNERS)
    source = to > 1 ? static_cast<double>(position) * static_cast<double>(from - 1) / static_cast<double>(to - 1) : 0.0;
  else
    source = (static_cast<double>(position) + 0.5) * static_cast<double>(from) / static_cast<double>(to) - 0.5;
  source = std::max(source, 0.0);
  const int64_t low = std::min(static_cast<int64_t>(source), from - 1);
  return {low, std::min(low + 1, from - 1), static_cast<float>(source - static_cast<double>(low))};
}

// What a thread keeps between calls, so that a frame allocates nothing after the first.
struct Scratch {
  int64_t from = 0, to = 0;  // of the columns that the first three belong to
  int32_t corners = 0;
  std::vector<float> weights;
  std::vector<Run> runs;
  std::vector<int64_t> first_run;
  std::vector<Tap> rows;
  std::vector<float> strip;
};

size_t item_bytes(int dtype) { return dtype == SK_FLOAT32 ? 4 : 2; }

int check(const sk_logits *logits, const sk_label_map *out, const sk_label_head_options *options) {
  if (!logits || !out || !options || !logits->data || !out->labels) return SK_NULL_POINTER;
  for (const int64_t side : {logits->height, logits->width, out->height, out->width})
    if (side < 1 || side > SK_MAX_SIDE) return SK_BAD_SHAPE;
  if (logits->classes < 1) return SK_BAD_SHAPE;
  if (logits->classes > SK_MAX_CLASSES) return SK_TOO_MANY_CLASSES;
  if (logits->dtype < SK_FLOAT32 || logits->dtype > SK_BFLOAT16) return SK_BAD_DTYPE;
  if (reinterpret_cast<uintptr_t>(logits->data) % item_bytes(logits->dtype)) return SK_MISALIGNED;
  if (options->corners != SK_HALF_PIXEL && options->corners != SK_ALIGN_CORNERS) return SK_BAD_OPTION;
  if (options->certainty < SK_NONE || options->certainty > SK_MARGIN) return SK_BAD_OPTION;
  if ((options->certainty == SK_NONE) != (out->certainty == nullptr)) return SK_BAD_OPTION;
  if (options->threads < 1 || options->isa < -1 || options->isa >= KERNEL_COUNT) return SK_BAD_OPTION;
  if (options->isa >= 0 && !runs_here(options->isa)) return SK_WRONG_CPU;
  return SK_OK;
}

// Throws std::bad_alloc.
void prepare(Scratch &scratch, const sk_logits &logits, const sk_label_map &out, const sk_label_head_options &options) {
  scratch.rows.resize(static_cast<size_t>(out.height));
  scratch.strip.resize(static_cast<size_t>(2 * logits.classes * STRIP + 3 * SLACK));
  if (scratch.from == logits.width && scratch.to == out.width && scratch.corners == options.corners) return;
  scratch.to = 0;  // until all is there
  scratch.weights.resize(static_cast<size_t>(out.width + SLACK));
  scratch.runs.clear();
  scratch.first_run.clear();
  for (int64_t x = 0; x < out.width; ++x) {
    const Tap tap = tap_at(x, logits.width, out.width, options.corners);
    scratch.weights[static_cast<size_t>(x)] = tap.weight;
    const bool starts_strip = x % STRIP == 0;
    if (starts_strip) scratch.first_run.push_back(static_cast<int64_t>(scratch.runs.size()));
    if (starts_strip || scratch.runs.back().low != tap.low) scratch.runs.push_back({tap.low, tap.high, x, x});
    scratch.runs.back().end = x + 1;
  }
  // Ends the last strip's search.
  scratch.runs.push_back({0, 0, out.width, out.width});
  scratch.from = logits.width;
  scratch.to = out.width;
  scratch.corners = options.corners;
}

int run_rows(const sk_logits &logits, const sk_label_map &out, const sk_label_head_options &options, int64_t first,
             int64_t last) noexcept {
  static thread_local Scratch scratch;
  try {
    prepare(scratch, logits, out, options);
  } catch (const std::bad_alloc &) {
    return SK_NO_MEMORY;
  }
  for (int64_t y = first; y < last; ++y)
    scratch.rows[static_cast<size_t>(y)] = tap_at(y, logits.height, out.height, options.corners);
  const uintptr_t address = reinterpret_cast<uintptr_t>(scratch.strip.data());
  float *aligned = reinterpret_cast<float *>((address + 63) / 64 * 64);
  const Work work{&logits, &out, &options, scratch.weights.data(), scratch.runs.data(), scratch.first_run.data(),
                  scratch.rows.data()};
  KERNELS[chosen_kernel(options.isa)].run(work, first, last, aligned);
  return SK_OK;
}

}  // namespace

extern "C" {

int sk_label_head_rows(const sk_logits *logits, const sk_label_map *out, const sk_label_head_options *options,
                       int64_t first, int64_t last) {
  const int status = check(logits, out, options);
  if (status != SK_OK) return status;
  if (first < 0 || last < first || last > out->height) return SK_BAD_SHAPE;
  return run_rows(*logits, *out, *options, first, last);
}

int sk_label_head(const sk_logits *logits, const sk_label_map *out, const sk_label_head_options *options) {
  const int status = check(logits, out, options);
  if (status != SK_OK) return status;
  const int64_t parts = std::min<int64_t>(options->threads, out->height);
  return in_parts(parts, [&](int64_t index) {
    return run_rows(*logits, *out, *options, out->height * index / parts, out->height * (index + 1) / parts);
  });
}

const char *sk_status_text(int status) {
  switch (status) {
    case SK_OK: return "done";
    case SK_NULL_POINTER: return "a pointer is null";
    case SK_BAD_SHAPE: return "a side is below 1 or above 32768, there is no class, or the rows are outside the map";
    case SK_TOO_MANY_CLASSES: return "more than 256 classes do not fit into a byte";
    case SK_BAD_DTYPE: return "logits are neither float32, float16 nor bfloat16";
    case SK_MISALIGNED: return "logits do not begin at a multiple of their item size";
    case SK_BAD_OPTION: return "an option is out of its range, or the certainty map does not fit the options";
    case SK_NO_MEMORY: return "no memory for the strip";
    case SK_WRONG_CPU: return "this processor does not run the kernel that was asked for";
    default: return "unknown status";
  }
}

const char *sk_isa_name(int index) { return index >= 0 && index < KERNEL_COUNT ? KERNELS[index].name : nullptr; }

int sk_isa_runs(int index) { return index >= 0 && index < KERNEL_COUNT && runs_here(index) ? 1 : 0; }

int sk_label_head_abi(void) { return SK_LABEL_HEAD_ABI; }
}
