// Random shapes, strides, types and contents through the GPU's kernel, run on the CPU, against the CPU's own kernel.
// Run under a sanitizer: the buffers are exactly as large as they must be.

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <vector>

#include "label_head.h"
#include "label_head_cuda_on_cpu.cpp"

namespace {

std::mt19937_64 source(20260102);

int64_t between(int64_t low, int64_t high) { return std::uniform_int_distribution<int64_t>(low, high)(source); }

[[noreturn]] void fail(const char *what, long number) {
  std::fprintf(stderr, "case %ld: %s\n", number, what);
  std::exit(1);
}

std::vector<uint8_t> contents(int64_t items, int32_t dtype, bool garbage) {
  const size_t item = dtype == SK_FLOAT32 ? 4 : 2;
  std::vector<uint8_t> bytes(static_cast<size_t>(items) * item);
  for (size_t i = 0; i < static_cast<size_t>(items); ++i) {
    uint32_t bits = static_cast<uint32_t>(source());
    if (!garbage) {
      const float plain = static_cast<float>(between(-4000, 4000)) / 500.0f;
      std::memcpy(&bits, &plain, 4);
      if (dtype == SK_BFLOAT16) bits >>= 16;
      if (dtype == SK_FLOAT16) bits = static_cast<uint32_t>(between(0, 1) << 15 | between(0x3000, 0x4800));
    }
    std::memcpy(&bytes[i * item], &bits, item);
  }
  return bytes;
}

void launch(const sk_logits &logits, const sk_label_map &out, const sk_label_head_options &options) {
  const unsigned grid[] = {static_cast<unsigned>((out.width + sk::BLOCK_WIDTH - 1) / sk::BLOCK_WIDTH),
                           static_cast<unsigned>((out.height + sk::BLOCK_HEIGHT * sk::ROWS - 1) / (sk::BLOCK_HEIGHT * sk::ROWS)), 1};
  const unsigned block[] = {sk::BLOCK_WIDTH, sk::BLOCK_HEIGHT};
  run(logits.dtype, options.certainty, grid, block, logits.data, out.labels, out.certainty, static_cast<int>(logits.classes),
      static_cast<int>(logits.height), static_cast<int>(logits.width), 0, logits.class_stride, logits.row_stride,
      logits.column_stride, static_cast<int>(out.height), static_cast<int>(out.width), options.corners);
}

void check_case(long number, long *pixels) {
  sk_logits logits{};
  logits.dtype = static_cast<int32_t>(between(0, 2));
  logits.classes = between(1, between(0, 9) ? 24 : 256);
  logits.height = between(1, 9);
  logits.width = between(1, 20);
  sk_label_map out{};
  out.height = between(1, 20);
  out.width = between(0, 9) ? between(1, 40) : between(100, 200);
  const bool last = between(0, 1);
  logits.class_stride = last ? 1 : logits.height * logits.width;
  logits.row_stride = last ? logits.width * logits.classes : logits.width;
  logits.column_stride = last ? logits.classes : 1;
  const int64_t items = logits.classes * logits.height * logits.width;
  const bool garbage = between(0, 2) == 0;
  const std::vector<uint8_t> bytes = contents(items, logits.dtype, garbage);
  logits.data = bytes.data();
  if (between(0, 3) == 0) {  // Backwards.
    logits.data = bytes.data() + bytes.size() - bytes.size() / static_cast<size_t>(items);
    logits.class_stride = -logits.class_stride;
    logits.row_stride = -logits.row_stride;
    logits.column_stride = -logits.column_stride;
  }
  const sk_label_head_options options{static_cast<int32_t>(between(0, 1)), static_cast<int32_t>(between(0, 2)), 1, -1};
  const size_t area = static_cast<size_t>(out.height * out.width);
  std::vector<uint8_t> labels[2], levels[2];
  for (int i = 0; i < 2; ++i) {
    labels[i].assign(area, 0xee);
    levels[i].assign(area, 0xee);
    out.labels = labels[i].data();
    out.certainty = options.certainty ? levels[i].data() : nullptr;
    if (i == 0)
      launch(logits, out, options);
    else if (sk_label_head(&logits, &out, &options) != SK_OK)
      fail("the CPU's kernel refuses", number);
  }
  if (labels[0] != labels[1]) fail("other labels than the CPU's kernel", number);
  // The exponential functions round differently.
  for (size_t i = 0; i < area; ++i)
    if (std::abs(int{levels[0][i]} - int{levels[1][i]}) > (options.certainty == SK_PROBABILITY)) fail("another certainty", number);
  *pixels += static_cast<long>(area);
}

}  // namespace

int main(int count, char **arguments) {
  const long cases = count > 1 ? std::atol(arguments[1]) : 1000;
  long pixels = 0;
  for (long number = 0; number < cases; ++number) check_case(number, &pixels);
  std::printf("%ld cases, %ld pixels compared\n", cases, pixels);
}
