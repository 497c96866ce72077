#include "preprocess.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <new>
#include <vector>

#include "parts.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "pixels are taken apart as little-endian words");

namespace {

// Bytes of resized source rows that a thread holds, as far as one row of the narrowest strip allows. They stay in its
// cache; a strip as wide as the picture lets the processor read the source ahead.
constexpr int64_t HELD_BYTES = 1 << 18;
constexpr int64_t NARROWEST = 256;

// Whole vectors are read and written, up to 15 values beyond the end.
constexpr int64_t SLACK = 16;

// Pixels are held as four bytes, of which the last has no meaning.
constexpr int64_t PIXEL = 4;

// Weights have 22 bits: the sum of 8-bit values, weighted, fits into 32.
constexpr int BITS = 22;

// How one side is resized. Output i is the sum over t < size[i] of source[start[i] + t] * weight[i * taps + t].
struct Axis {
  int64_t from = 0, to = 0;
  int64_t taps = 0;     // a multiple of four; weights beyond size[i] are zero
  int64_t longest = 0;  // the greatest size
  std::vector<int32_t> start, size, weight;
};

struct Work {
  const sk_picture *picture;
  const sk_network_input *out;
  const sk_preprocess_options *options;
  const Axis *columns, *rows;
  int64_t strip;  // columns of the output that are done at a time
};

// Resized source rows of a strip; row r lies at r modulo their number.
struct Ring {
  uint8_t *data;
  int64_t stride;
  uint8_t *row(int64_t slot) const { return data + slot * stride; }
};

// What a thread keeps between calls.
struct Scratch {
  std::vector<uint8_t> source;  // columns of one source row, as far as a strip reads them
  std::vector<int32_t> sums;    // of a strip, four a pixel
  std::vector<uint8_t> ring;
};

// Weights as Pillow has them: the same operations on doubles in the same order, then rounded to fixed point.
void set_weights(Axis &axis, int64_t i, double scale, std::vector<double> &values) {
  const double spread = std::max(scale, 1.0);
  // Volatile: a multiplication fused with the subtraction that follows would round another way.
  const volatile double centre = (static_cast<double>(i) + 0.5) * scale;
  const int64_t first = std::max<int64_t>(static_cast<int64_t>(centre - spread + 0.5), 0);
  const int64_t last = std::min<int64_t>(static_cast<int64_t>(centre + spread + 0.5), axis.from);
  const double inverse = 1.0 / spread;
  double sum = 0.0;
  values.clear();
  for (int64_t x = first; x < last; ++x) {
    const double distance = std::fabs((static_cast<double>(x) - centre + 0.5) * inverse);
    values.push_back(distance < 1.0 ? 1.0 - distance : 0.0);
    sum += values.back();
  }
  axis.start[static_cast<size_t>(i)] = static_cast<int32_t>(first);
  axis.size[static_cast<size_t>(i)] = static_cast<int32_t>(last - first);
  int32_t *weight = axis.weight.data() + i * axis.taps;
  for (const double value : values) *weight++ = static_cast<int32_t>(value / sum * (1 << BITS) + 0.5);
}

// Throws std::bad_alloc.
void prepare(Axis &axis, int64_t from, int64_t to) {
  if (axis.from == from && axis.to == to) return;
  axis.from = from;
  axis.to = 0;  // until all is there
  const double scale = static_cast<double>(from) / static_cast<double>(to);
  const int64_t most = std::min(static_cast<int64_t>(std::ceil(std::max(scale, 1.0))) * 2 + 1, from);
  axis.taps = (most + 3) / 4 * 4;
  axis.start.resize(static_cast<size_t>(to));
  axis.size.resize(static_cast<size_t>(to));
  axis.weight.assign(static_cast<size_t>(to * axis.taps + SLACK), 0);
  std::vector<double> values;
  values.reserve(static_cast<size_t>(most));
  for (int64_t i = 0; i < to; ++i) {
    set_weights(axis, i, scale, values);
    // A last weight of zero would only cost time; of several the first stay.
    int32_t &size = axis.size[static_cast<size_t>(i)];
    while (size > 1 && axis.weight[static_cast<size_t>(i * axis.taps + size - 1)] == 0) --size;
  }
  axis.longest = *std::max_element(axis.size.begin(), axis.size.end());
  axis.to = to;
}

// Source columns that the output columns `first` to `first + count` - 1 read, padded ones included.
int64_t reach(const Axis &columns, int64_t first, int64_t count) {
  return columns.start[static_cast<size_t>(first + count - 1)] + columns.taps - columns.start[static_cast<size_t>(first)];
}

// Throws std::bad_alloc.
void prepare(Scratch &scratch, const Work &work) {
  const Axis &columns = *work.columns;
  int64_t widest = 0;
  for (int64_t first = 0; first < columns.to; first += work.strip)
    widest = std::max(widest, reach(columns, first, std::min(work.strip, columns.to - first)));
  scratch.source.resize(static_cast<size_t>((widest + SLACK) * PIXEL));
  scratch.sums.resize(static_cast<size_t>((work.strip + SLACK) * PIXEL));
  scratch.ring.resize(static_cast<size_t>(work.rows->longest * (work.strip + SLACK) * PIXEL));
}

// Columns `first` to `last` - 1 of a source row as four-byte pixels. The fourth byte is whatever follows.
void widen(const sk_picture &picture, int64_t row, int64_t first, int64_t last, uint8_t *target) {
  const uint8_t *source = picture.data + row * picture.row_stride;
  int64_t x = first;
  if (picture.column_stride == 3 && picture.channel_stride == 1)
    for (; x < last - 1; ++x, target += PIXEL) std::memcpy(target, source + x * 3, 4);
  for (; x < last; ++x, target += PIXEL)
    for (int c = 0; c < 3; ++c) target[c] = source[x * picture.column_stride + c * picture.channel_stride];
}

// What is beside the picture in output row `y`.
void pad(const Work &work, int64_t y) {
  const sk_network_input &out = *work.out;
  const int64_t first = y < out.inside_height ? out.inside_width : 0;
  const uint8_t *colour = work.options->pad;
  for (int c = 0; c < 3; ++c) {
    if (out.layout == SK_NHWC_UINT8) {
      uint8_t *row = static_cast<uint8_t *>(out.data) + y * out.width * 3;
      for (int64_t x = first; x < out.width; ++x) row[x * 3 + c] = colour[c];
      continue;
    }
    const float level = work.options->levels[c * 256 + colour[c]];
    float *data = static_cast<float *>(out.data);
    if (out.layout == SK_NCHW_FLOAT32)
      std::fill(data + (c * out.height + y) * out.width + first, data + (c * out.height + y + 1) * out.width, level);
    else
      for (int64_t x = first; x < out.width; ++x) data[(y * out.width + x) * 3 + c] = level;
  }
}

}  // namespace

// Every kernel has the same source and its own instruction set, in the order of `sk_isa_name`.
#define SK_BASE_ONLY 1
namespace {
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#undef SK_BASE_ONLY
#define SK_BASE_ONLY 0
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")
#define SK_ISA avx512
#define SK_LANES 16
#include "preprocess_kernel.inc"
#undef SK_ISA
#undef SK_LANES
#pragma GCC pop_options
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#define SK_ISA avx2
#define SK_LANES 8
#include "preprocess_kernel.inc"
#undef SK_ISA
#undef SK_LANES
#pragma GCC pop_options
#endif
#define SK_ISA plain
#define SK_LANES 4
#include "preprocess_kernel.inc"
#undef SK_ISA
#undef SK_LANES

typedef void (*Kernel)(const Work &, int64_t, int64_t, Scratch &);

constexpr Kernel KERNELS[] = {
#if !SK_BASE_ONLY
    avx512::run,
    avx2::run,
#endif
    plain::run,
};
constexpr int KERNEL_COUNT = sizeof KERNELS / sizeof KERNELS[0];

bool is_side(int64_t side) { return side >= 1 && side <= SK_MAX_SIDE; }

int check(const sk_picture *picture, const sk_network_input *out, const sk_preprocess_options *options) {
  if (!picture || !out || !options || !picture->data || !out->data) return SK_NULL_POINTER;
  for (const int64_t side : {picture->height, picture->width, out->height, out->width, out->inside_height, out->inside_width})
    if (!is_side(side)) return SK_BAD_SHAPE;
  if (out->inside_height > out->height || out->inside_width > out->width) return SK_BAD_SHAPE;
  if (out->layout < SK_NCHW_FLOAT32 || out->layout > SK_NHWC_UINT8) return SK_BAD_OPTION;
  if (out->layout != SK_NHWC_UINT8) {
    if (!options->levels) return SK_NULL_POINTER;
    if (reinterpret_cast<uintptr_t>(out->data) % sizeof(float)) return SK_MISALIGNED;
  }
  if (options->threads < 1 || options->isa < -1 || options->isa >= KERNEL_COUNT) return SK_BAD_OPTION;
  if (options->isa >= 0 && !sk_isa_runs(options->isa)) return SK_WRONG_CPU;
  return SK_OK;
}

int chosen_kernel(int wanted) {
  int index = std::max(wanted, 0);
  while (!sk_isa_runs(index)) ++index;
  return index;
}

int run_rows(const Work &work, int64_t first, int64_t last) noexcept {
  static thread_local Scratch scratch;
  try {
    prepare(scratch, work);
  } catch (const std::bad_alloc &) {
    return SK_NO_MEMORY;
  }
  const int64_t inside = std::min(last, work.out->inside_height);
  if (first < inside) KERNELS[chosen_kernel(work.options->isa)](work, first, inside, scratch);
  for (int64_t y = first; y < last; ++y) pad(work, y);
  return SK_OK;
}

}  // namespace

extern "C" int sk_preprocess(const sk_picture *picture, const sk_network_input *out,
                             const sk_preprocess_options *options) {
  const int status = check(picture, out, options);
  if (status != SK_OK) return status;
  static thread_local Axis columns, rows;
  try {
    prepare(columns, picture->width, out->inside_width);
    prepare(rows, picture->height, out->inside_height);
  } catch (const std::bad_alloc &) {
    return SK_NO_MEMORY;
  }
  const int64_t widest = HELD_BYTES / PIXEL / rows.longest / SLACK * SLACK;
  const Work work{picture, out, options, &columns, &rows, std::min(std::max(widest, NARROWEST), out->inside_width)};
  const int64_t parts = std::min<int64_t>(options->threads, out->height);
  return in_parts(parts, [&](int64_t index) {
    return run_rows(work, out->height * index / parts, out->height * (index + 1) / parts);
  });
}
