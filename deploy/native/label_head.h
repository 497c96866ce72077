/* The last two steps of a segmentation network in one pass: bilinear resize of the logits, and arg-max.
 *
 * Full-resolution logits are never written: each thread holds a few rows of a narrow strip of columns. The function
 * allocates nothing but that strip and keeps no state; it may be called from several threads at once.
 *
 * Results. A pixel's label is the lowest index among the classes with the largest interpolated logit. A NaN counts as
 * the lowest logit and can therefore not win over a number; logits beyond +-1e37, infinities included, count as
 * +-1e37. Interpolation is in float32, so where two classes are closer than its rounding either may win.
 */
#ifndef SEARCHKIT_LABEL_HEAD_H
#define SEARCHKIT_LABEL_HEAD_H

#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define SK_PUBLIC __attribute__((visibility("default")))
#else
#define SK_PUBLIC
#endif

#ifdef __cplusplus
extern "C" {
#endif

#define SK_LABEL_HEAD_ABI 1
#define SK_MAX_CLASSES 256
#define SK_MAX_SIDE 32768

enum sk_dtype { SK_FLOAT32 = 0, SK_FLOAT16 = 1, SK_BFLOAT16 = 2 };

/* Where the centres of pixels lie: HALF_PIXEL is align_corners=False of PyTorch and half_pixel of ONNX;
 * ALIGN_CORNERS is align_corners=True, align_corners of ONNX. */
enum sk_corners { SK_HALF_PIXEL = 0, SK_ALIGN_CORNERS = 1 };

/* What a second output says of the winner, as a byte. PROBABILITY is round(255 x softmax); MARGIN is the distance to the
 * second-best logit in steps of 1/16, at most 255 (with one class it is 255). */
enum sk_certainty { SK_NONE = 0, SK_PROBABILITY = 1, SK_MARGIN = 2 };

enum sk_status {
  SK_OK = 0,
  SK_NULL_POINTER = 1,
  SK_BAD_SHAPE = 2,
  SK_TOO_MANY_CLASSES = 3,
  SK_BAD_DTYPE = 4,
  SK_MISALIGNED = 5,
  SK_BAD_OPTION = 6,
  SK_NO_MEMORY = 7,
  SK_WRONG_CPU = 8
};

/* One picture's logits. Strides are in elements and may have any value, zero and negative ones included, as long as each
 * address is inside the caller's tensor; `data` is the element (0, 0, 0). NCHW and NHWC are two choices of strides. */
typedef struct {
  const void *data;
  int32_t dtype; /* enum sk_dtype */
  int64_t classes, height, width;
  ptrdiff_t class_stride, row_stride, column_stride;
} sk_logits;

/* Labels, height x width bytes, rows without gaps; `certainty` is null or as large. */
typedef struct {
  uint8_t *labels;
  uint8_t *certainty;
  int64_t height, width;
} sk_label_map;

typedef struct {
  int32_t corners;   /* enum sk_corners */
  int32_t certainty; /* enum sk_certainty; SK_NONE exactly where `sk_label_map.certainty` is null */
  int32_t threads;   /* at least 1, the caller's among them */
  int32_t isa;       /* index of `sk_isa_name`, or -1 for the best that this processor has */
} sk_label_head_options;

/* Returns an `sk_status`. On any other than SK_OK nothing has been written. */
SK_PUBLIC int sk_label_head(const sk_logits *logits, const sk_label_map *out, const sk_label_head_options *options);

/* Rows `first` to `last` - 1 of the output only, by the calling thread; for callers with a thread pool of their own. */
SK_PUBLIC int sk_label_head_rows(const sk_logits *logits, const sk_label_map *out, const sk_label_head_options *options,
                       int64_t first, int64_t last);

/* A status in words; never null. */
SK_PUBLIC const char *sk_status_text(int status);

/* The kernels in this library, best first, such as "avx512"; null behind the last. */
SK_PUBLIC const char *sk_isa_name(int index);

/* Whether this processor runs a kernel: 1 or 0. */
SK_PUBLIC int sk_isa_runs(int index);

/* SK_LABEL_HEAD_ABI of the library, to be compared with that of the header. */
SK_PUBLIC int sk_label_head_abi(void);

#ifdef __cplusplus
}
#endif
#endif
