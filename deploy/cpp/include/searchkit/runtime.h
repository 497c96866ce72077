/* searchkit runtime, C interface: a bundle in, label maps out, over ONNX Runtime.
 *
 * A bundle is the folder that `searchkit export --io labels` writes. `skr_open` checks its manifest, the size and SHA-256
 * of every file in it, and the model's graph, before any of it reaches ONNX Runtime. The labels are those of the Python
 * package, bit for bit, where both use the same ONNX Runtime with the same number of threads.
 *
 * The graph's last operators (resize, arg-max, cast) are done in one pass by the native label head, on the CPU, unless
 * SKR_PLAIN_GRAPH asks for the graph as it is. The labels are the same but where two classes are closer than float32 can
 * tell.
 *
 * Errors. Every function that can fail returns an `skr_code` and, where `error` is not null, says why in it. On any other
 * code than SKR_OK no handle is made and no label is written. No C++ exception leaves the library.
 *
 * Threads. An `skr_model` never changes: any number of threads may use it. An `skr_segmenter` holds the buffers of one
 * stream of pictures: make one for each thread. A call that finds it in use by another thread returns SKR_USAGE.
 *
 * Memory. `skr_segment` makes no heap allocation after a thread's first call for a size of picture and for each of its
 * buffers; what ONNX Runtime allocates for itself is its own. When the size changes, or a segmenter its thread, tables are
 * made anew once. Pictures of the model's size without gaps are read where they are, from up to four buffers; from more
 * they are copied.
 */
#ifndef SEARCHKIT_RUNTIME_H
#define SEARCHKIT_RUNTIME_H

#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define SKR_PUBLIC __attribute__((visibility("default")))
#else
#define SKR_PUBLIC
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* Of this header; `skr_abi` gives that of the library. */
#define SKR_ABI 2
#define SKR_MAX_SIDE_PX 8192
#define SKR_MESSAGE_BYTES 1024

enum skr_code {
  SKR_OK = 0,
  SKR_USAGE = 1,       /* the caller's mistake: a null pointer, a size out of range, no bundle at this path */
  SKR_DAMAGED = 2,     /* a file is not what the manifest says, or not what searchkit writes */
  SKR_UNSUPPORTED = 3, /* a bundle, or a provider, that this build of the runtime cannot run */
  SKR_STORAGE = 4,     /* the disk refused */
  SKR_RUNTIME = 5,     /* ONNX Runtime refused; the message is its own */
  SKR_NO_MEMORY = 6,
  SKR_INTERNAL = 7 /* a fault of this library */
};

/* Filled where a call fails; left alone where it does not. */
typedef struct {
  int32_t code;                    /* enum skr_code */
  char message[SKR_MESSAGE_BYTES]; /* one line of UTF-8, ends with a zero byte */
} skr_error;

enum skr_provider {
  SKR_CPU = 0,
  SKR_TENSORRT = 1 /* only in a build with the CMake option SEARCHKIT_TENSORRT */
};

enum skr_flag {
  SKR_PLAIN_GRAPH = 1 /* run the exported graph as it is, without the native label head at its end */
};

typedef struct {
  size_t struct_bytes; /* sizeof(skr_options) */
  int32_t threads;     /* of the CPU for one picture; 0 is ONNX Runtime's own default */
  int32_t provider;    /* enum skr_provider */
  int32_t device;      /* index of the GPU; 0 for the CPU */
  uint64_t flags;      /* enum skr_flag, added up */
} skr_options;

/* What a bundle says of itself. */
typedef struct {
  int32_t height, width; /* of the model's input: a picture of this size is not resized */
  int32_t classes;
  int32_t ignore;     /* the label that stands for no class */
  int32_t trained;    /* 0 where the bundle was exported without weights; its labels then mean nothing */
  int32_t letterbox;  /* 0: pictures are stretched to the model's size; 1: they keep their proportions */
  uint8_t pad_rgb[3]; /* beside a letterboxed picture */
  int32_t label_head; /* 1 where the native label head stands for the graph's last operators */
} skr_info;

/* uint8 RGB, three bytes a pixel; rows may have a gap between them. Sides are from 1 to SKR_MAX_SIDE_PX. */
typedef struct {
  const uint8_t *data;
  int64_t height, width;
  int64_t row_bytes; /* from one row to the next, at least 3 x width */
} skr_picture;

/* Where labels are written, one byte a pixel; of the picture's own size. Must not overlap the picture. */
typedef struct {
  uint8_t *data;
  int64_t height, width;
  int64_t row_bytes; /* at least width */
} skr_label_map;

/* Where the time of a segmenter's last picture went, in nanoseconds. */
typedef struct {
  int64_t fit_ns;     /* the picture to the model's input */
  int64_t session_ns; /* ONNX Runtime */
  int64_t restore_ns; /* the model's labels to the picture's size */
} skr_times;

typedef struct skr_model skr_model;
typedef struct skr_segmenter skr_segmenter;

/* Open the bundle in the folder `path`; null `options` are the CPU and ONNX Runtime's own number of threads.
 * `*model` is to be freed with `skr_close`. */
SKR_PUBLIC int skr_open(const char *path, const skr_options *options, skr_model **model, skr_error *error);

/* Null is allowed. Segmenters of the model go on working. */
SKR_PUBLIC void skr_close(skr_model *model);

SKR_PUBLIC int skr_describe(const skr_model *model, skr_info *info, skr_error *error);

/* UTF-8, lives as long as the model; null where there is no such class. */
SKR_PUBLIC const char *skr_class_name(const skr_model *model, int32_t label);

/* The colour of a class; black where it has none or there is no such class. */
SKR_PUBLIC void skr_class_colour(const skr_model *model, int32_t label, uint8_t rgb[3]);

/* Buffers for one stream of pictures. `*segmenter` is to be freed with `skr_free`. */
SKR_PUBLIC int skr_new_segmenter(const skr_model *model, skr_segmenter **segmenter, skr_error *error);

/* Null is allowed. */
SKR_PUBLIC void skr_free(skr_segmenter *segmenter);

/* The label of every pixel of one picture. */
SKR_PUBLIC int skr_segment(skr_segmenter *segmenter, const skr_picture *picture, const skr_label_map *labels,
                           skr_error *error);

/* Zeros before the first picture and for a null segmenter. */
SKR_PUBLIC skr_times skr_last_times(const skr_segmenter *segmenter);

/* A code in words, and the version of ONNX Runtime in use; never null. */
SKR_PUBLIC const char *skr_code_text(int code);
SKR_PUBLIC const char *skr_onnxruntime_version(void);

/* SKR_ABI of the library. */
SKR_PUBLIC int skr_abi(void);

#ifdef __cplusplus
}
#endif
#endif
