/* From a camera's bytes to a network's input in one pass: resize, letterbox, normalisation and layout.
 *
 * Nothing but the input itself is written at full size: each thread holds the few rows that its output row blends, of a
 * narrow strip of columns. After a thread's first call with given sizes nothing is allocated. The function may be called
 * from several threads at once.
 *
 * Convention. Bilinear with antialiasing, bit for bit that of Pillow: pixel centres at half coordinates; the triangle is
 * as wide as two source pixels, or two target pixels where the picture shrinks; weights in fixed point with 22 bits;
 * rows are resized first and rounded to bytes, then columns. A side that keeps its length keeps its pixels. Where the
 * height shrinks more than the width, Pillow 13 and later may take columns first; its bytes then differ by at most 1.
 */
#ifndef SEARCHKIT_PREPROCESS_H
#define SEARCHKIT_PREPROCESS_H

#include "label_head.h"

#ifdef __cplusplus
extern "C" {
#endif

/* What is written: float32 planes, float32 pixels (channels last), or bytes as they are (channels last). */
enum sk_layout { SK_NCHW_FLOAT32 = 0, SK_NHWC_FLOAT32 = 1, SK_NHWC_UINT8 = 2 };

/* Three channels of bytes. Strides are in bytes and may have any value, as long as each address is inside the caller's
 * picture; `data` is the first channel of the top left pixel. Reversed channels are a channel stride of -1. */
typedef struct {
  const uint8_t *data;
  int64_t height, width;
  ptrdiff_t row_stride, column_stride, channel_stride;
} sk_picture;

/* height x width, without gaps. The resized picture takes the top left inside_height x inside_width; what is beside it
 * is padded. */
typedef struct {
  void *data;
  int32_t layout; /* enum sk_layout */
  int64_t height, width;
  int64_t inside_height, inside_width;
} sk_network_input;

typedef struct {
  const float *levels; /* 3 x 256: what a byte of each channel becomes; unused for bytes, and may be null then */
  uint8_t pad[3];      /* a byte a channel, which becomes a level like any other */
  int32_t threads;     /* at least 1, the caller's among them */
  int32_t isa;         /* index of `sk_isa_name`, or -1 for the best that this processor has */
} sk_preprocess_options;

/* Returns an `sk_status`. On any other than SK_OK and SK_NO_MEMORY nothing has been written. */
SK_PUBLIC int sk_preprocess(const sk_picture *picture, const sk_network_input *out,
                            const sk_preprocess_options *options);

#ifdef __cplusplus
}
#endif
#endif
