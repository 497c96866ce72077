// The label head for NVIDIA GPUs: bilinear resize of the logits and arg-max in one pass; results as in label_head.h.
//
// This file includes nothing, so that NVRTC compiles it where there is no CUDA toolkit. A thread decides ROWS pixels
// below one another, which mostly lie between the same two rows of logits and then read them once. Neighbouring threads
// read the same or neighbouring logits, so most reads are served by the nearest cache. Products and sums are rounded one
// by one, as in deploy/native/reference.py: the labels are the same. (AVX-512 and AVX2 round some together.)
#ifndef SEARCHKIT_LABEL_HEAD_CUDA_CUH
#define SEARCHKIT_LABEL_HEAD_CUDA_CUH

namespace sk {

// Pixels of a thread, below one another; and threads of a block, side by side and below one another.
constexpr int ROWS = 4;
constexpr int BLOCK_WIDTH = 32;
constexpr int BLOCK_HEIGHT = 4;

// As in label_head.h.
constexpr int NO_CERTAINTY = 0;
constexpr int PROBABILITY = 1;
constexpr int MARGIN = 2;

struct Half {
  unsigned short bits;
};

struct BFloat {
  unsigned short bits;
};

__device__ inline float from_bits(unsigned bits) {
  union {
    unsigned bits;
    float value;
  } both = {bits};
  return both.value;
}

__device__ inline float number(float value) { return value; }

__device__ inline float number(BFloat value) { return from_bits(static_cast<unsigned>(value.bits) << 16); }

__device__ inline float number(Half value) {
#if defined(__CUDA_ARCH__)
  float result;
  asm("cvt.f32.f16 %0, %1;" : "=f"(result) : "h"(value.bits));
  return result;
#else
  const unsigned sign = (value.bits & 0x8000u) << 16, magnitude = value.bits & 0x7fffu;
  if (magnitude >= 0x7c00u) return from_bits(sign | 0x7f800000u | (magnitude & 0x3ffu) << 13);
  // The bits of a float 2^112 times too small; the product is exact, for subnormal numbers too.
  return from_bits(sign | magnitude << 13) * from_bits(239u << 23);
#endif
}

// What is too large to be blended, or no number, is replaced before it can spoil its neighbours.
template <typename Value>
__device__ inline float load(const Value *address) {
  const float value = number(*address);
  if (!(value > -1e37f)) return -1e37f;  // NaN too, signalling ones included, which fmaxf may pass on
  return value < 1e37f ? value : 1e37f;
}

// Where one output coordinate reads: value = v[low] + weight * (v[high] - v[low]).
struct Tap {
  int low, high;
  float weight;
};

// The position among the logits is part / whole, exactly; sides of at most 32768 fit into 32 bits.
__device__ inline Tap tap_at(int position, int from, int to, int align_corners) {
  int whole = 2 * to, part = (2 * position + 1) * from - to;
  if (align_corners) {
    whole = to > 1 ? to - 1 : 1;
    part = position * (from - 1);
  }
  if (part < 0) part = 0;
  const int low = part / whole;
  return {low, low + 1 < from ? low + 1 : low, static_cast<float>(part - low * whole) / static_cast<float>(whole)};
}

// Rounded twice: the compiler fuses neither.
__device__ inline float between(float first, float second, float weight) {
  return __fadd_rn(first, __fmul_rn(weight, second - first));
}

// A row of logits at a column of the output.
template <typename Value>
__device__ inline float stretched(const Value *left, const Value *right, float weight) {
  return between(load(left), load(right), weight);
}

// Calls visit(c, r, value) for each class and each of the thread's rows, in order.
template <typename Value, typename Visit>
__device__ inline void blend(const Value *left, const Value *right, int classes, long long class_stride,
                             long long row_stride, float weight, const Tap *rows, const Visit &visit) {
  for (int c = 0; c < classes; ++c, left += class_stride, right += class_stride) {
    float above = 0, below = 0;
#pragma unroll
    for (int r = 0; r < ROWS; ++r) {
      if (r == 0 || rows[r].low != rows[r - 1].low) {
        const long long low = rows[r].low * row_stride, high = rows[r].high * row_stride;
        above = stretched(left + low, right + low, weight);
        below = stretched(left + high, right + high, weight);
      }
      visit(c, r, between(above, below, rows[r].weight));
    }
  }
}

// Pictures x classes x height x width logits, strides in elements, to pictures x out_height x out_width labels, and as
// many certainties unless CERTAINTY is NO_CERTAINTY. Grid: columns / BLOCK_WIDTH, rows / (BLOCK_HEIGHT * ROWS), pictures.
template <typename Value, typename Label, int CERTAINTY>
__global__ void label_head(const Value *logits, Label *labels, unsigned char *certainties, int classes, int height,
                           int width, long long picture_stride, long long class_stride, long long row_stride,
                           long long column_stride, int out_height, int out_width, int align_corners) {
  const int x = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  const int first = static_cast<int>(blockIdx.y * blockDim.y + threadIdx.y) * ROWS;
  if (x >= out_width || first >= out_height) return;
  const Tap column = tap_at(x, width, out_width, align_corners);
  Tap rows[ROWS];
  float best[ROWS], second[ROWS];
  int winner[ROWS];
#pragma unroll
  for (int r = 0; r < ROWS; ++r) {
    rows[r] = tap_at(first + r < out_height ? first + r : out_height - 1, height, out_height, align_corners);
    best[r] = second[r] = -3.4e38f;
    winner[r] = 0;
  }
  const Value *left = logits + blockIdx.z * picture_stride + column.low * column_stride;
  const Value *right = left + (column.high - column.low) * column_stride;
  blend(left, right, classes, class_stride, row_stride, column.weight, rows, [&](int c, int r, float value) {
    if (CERTAINTY == MARGIN) second[r] = fmaxf(second[r], fminf(best[r], value));
    if (value > best[r]) winner[r] = c;
    best[r] = fmaxf(best[r], value);
  });
  float sum[ROWS] = {};
  if (CERTAINTY == PROBABILITY)
    blend(left, right, classes, class_stride, row_stride, column.weight, rows,
          [&](int, int r, float value) { sum[r] += expf(value - best[r]); });
  const long long start = (static_cast<long long>(blockIdx.z) * out_height + first) * out_width + x;
#pragma unroll
  for (int r = 0; r < ROWS; ++r) {
    if (first + r >= out_height) break;
    const long long pixel = start + static_cast<long long>(r) * out_width;
    labels[pixel] = static_cast<Label>(winner[r]);
    if (CERTAINTY == NO_CERTAINTY) continue;
    const float level = CERTAINTY == MARGIN ? (best[r] - second[r]) * 16.0f : 255.0f / sum[r];
    certainties[pixel] = static_cast<unsigned char>(fminf(level, 255.0f) + 0.5f);
  }
}

}  // namespace sk

#endif
