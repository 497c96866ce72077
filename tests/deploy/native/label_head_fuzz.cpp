// Random shapes, strides, types and contents through every kernel, against a plain loop in double precision.
// Run under a sanitizer: the buffers are exactly as large as they must be.

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <vector>

#include "label_head.h"

namespace {

std::mt19937_64 source(20260101);

int64_t between(int64_t low, int64_t high) { return std::uniform_int_distribution<int64_t>(low, high)(source); }

double value_of(const sk_logits &logits, const std::vector<uint8_t> &bytes, int64_t index) {
  float value;
  if (logits.dtype == SK_FLOAT32) {
    std::memcpy(&value, &bytes[static_cast<size_t>(index * 4)], 4);
  } else {
    uint16_t half;
    std::memcpy(&half, &bytes[static_cast<size_t>(index * 2)], 2);
    if (logits.dtype == SK_BFLOAT16) {
      const uint32_t bits = static_cast<uint32_t>(half) << 16;
      std::memcpy(&value, &bits, 4);
    } else {
      const int exponent = half >> 10 & 31, fraction = half & 1023;
      const double magnitude = exponent == 31  ? (fraction ? NAN : INFINITY)
                               : exponent == 0 ? std::ldexp(fraction, -24)
                                               : std::ldexp(1024 + fraction, exponent - 25);
      value = static_cast<float>(half >> 15 ? -magnitude : magnitude);
    }
  }
  if (std::isnan(value)) return -1e37;
  return std::fmax(-1e37, std::fmin(1e37, static_cast<double>(value)));
}

double position(int64_t at, int64_t from, int64_t to, int corners) {
  if (corners == SK_ALIGN_CORNERS) return to > 1 ? static_cast<double>(at) * static_cast<double>(from - 1) / static_cast<double>(to - 1) : 0.0;
  return std::fmax(0.0, (static_cast<double>(at) + 0.5) * static_cast<double>(from) / static_cast<double>(to) - 0.5);
}

[[noreturn]] void fail(const char *what, long number) {
  std::fprintf(stderr, "case %ld: %s\n", number, what);
  std::exit(1);
}

void check_case(long number, long *pixels) {
  sk_logits logits{};
  logits.dtype = static_cast<int32_t>(between(0, 2));
  logits.classes = between(1, between(0, 9) ? 24 : 256);
  logits.height = between(1, 9);
  logits.width = between(1, 20);
  sk_label_map out{};
  out.height = between(1, 20);
  out.width = between(0, 9) ? between(1, 40) : between(250, 600);
  const bool last = between(0, 1);
  logits.class_stride = last ? 1 : logits.height * logits.width;
  logits.row_stride = last ? logits.width * logits.classes : logits.width;
  logits.column_stride = last ? logits.classes : 1;
  const int64_t items = logits.classes * logits.height * logits.width;
  const size_t item = logits.dtype == SK_FLOAT32 ? 4 : 2;
  std::vector<uint8_t> bytes(static_cast<size_t>(items) * item);
  const bool garbage = between(0, 2) == 0;
  for (int64_t i = 0; i < items; ++i) {
    uint32_t bits = static_cast<uint32_t>(source());
    if (!garbage) {
      const float plain = static_cast<float>(between(-4000, 4000)) / 500.0f;
      std::memcpy(&bits, &plain, 4);
      if (logits.dtype == SK_BFLOAT16) bits >>= 16;
      if (logits.dtype == SK_FLOAT16) bits = static_cast<uint32_t>(between(0, 1) << 15 | between(0x3000, 0x4800));
    }
    std::memcpy(&bytes[static_cast<size_t>(i) * item], &bits, item);
  }
  logits.data = bytes.data();
  if (between(0, 3) == 0) {  // Backwards.
    logits.data = bytes.data() + static_cast<size_t>(items - 1) * item;
    logits.class_stride = -logits.class_stride;
    logits.row_stride = -logits.row_stride;
    logits.column_stride = -logits.column_stride;
  }
  const int64_t origin = logits.class_stride < 0 ? items - 1 : 0;
  sk_label_head_options options{};
  options.corners = static_cast<int32_t>(between(0, 1));
  options.certainty = static_cast<int32_t>(between(0, 2));
  options.threads = static_cast<int32_t>(between(1, 4));
  const size_t area = static_cast<size_t>(out.height * out.width);
  for (options.isa = 0; sk_isa_name(options.isa); ++options.isa) {
    std::vector<uint8_t> labels(area, 0xee), certainty(area, 0xee);
    out.labels = labels.data();
    out.certainty = options.certainty ? certainty.data() : nullptr;
    const int status = sk_label_head(&logits, &out, &options);
    if (status != (sk_isa_runs(options.isa) ? SK_OK : SK_WRONG_CPU)) fail(sk_status_text(status), number);
    if (status != SK_OK) continue;
    for (int64_t y = 0; y < out.height; ++y) {
      const double sy = position(y, logits.height, out.height, options.corners);
      const int64_t y0 = static_cast<int64_t>(sy) < logits.height ? static_cast<int64_t>(sy) : logits.height - 1;
      const int64_t y1 = y0 + 1 < logits.height ? y0 + 1 : y0;
      for (int64_t x = 0; x < out.width; x += 7) {
        const double sx = position(x, logits.width, out.width, options.corners);
        const int64_t x0 = static_cast<int64_t>(sx) < logits.width ? static_cast<int64_t>(sx) : logits.width - 1;
        const int64_t x1 = x0 + 1 < logits.width ? x0 + 1 : x0;
        const double wy = sy - static_cast<double>(y0), wx = sx - static_cast<double>(x0);
        double best = -INFINITY, chosen = 0, largest = 1;
        const int64_t label = labels[static_cast<size_t>(y * out.width + x)];
        if (label >= logits.classes) fail("no such class", number);
        for (int64_t c = 0; c < logits.classes; ++c) {
          const auto at = [&](int64_t row, int64_t column) {
            const double v = value_of(logits, bytes, origin + c * logits.class_stride + row * logits.row_stride + column * logits.column_stride);
            largest = std::fmax(largest, std::fabs(v));
            return v;
          };
          const double value = (1 - wy) * ((1 - wx) * at(y0, x0) + wx * at(y0, x1)) + wy * ((1 - wx) * at(y1, x0) + wx * at(y1, x1));
          best = std::fmax(best, value);
          if (c == label) chosen = value;
        }
        if (!(best - chosen <= 4e-6 * largest)) fail("another class is better", number);
        ++*pixels;
      }
    }
  }
}

}  // namespace

int main(int count, char **arguments) {
  const long cases = count > 1 ? std::atol(arguments[1]) : 1000;
  long pixels = 0;
  for (long number = 0; number < cases; ++number) check_case(number, &pixels);
  std::printf("%ld cases, %ld pixels compared\n", cases, pixels);
}
