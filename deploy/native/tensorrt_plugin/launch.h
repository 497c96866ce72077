// What the plugin asks of the GPU; apart from it, so that only launch.cu needs a compiler of CUDA.
#ifndef SEARCHKIT_TENSORRT_LAUNCH_H
#define SEARCHKIT_TENSORRT_LAUNCH_H

#include <cuda_runtime_api.h>

#include <cstdint>

namespace sk {

enum class LogitsType { FLOAT32, FLOAT16, BFLOAT16 };

// Pictures x classes x height x width logits without gaps, to pictures x out_height x out_width labels. Sides are at
// most 32768, classes 256 and pictures 65535.
struct LabelHead {
  LogitsType type;
  int32_t pictures, classes, height, width;
  int32_t out_height, out_width, align_corners;
};

// Puts the label head on a stream; returns what CUDA says of it.
cudaError_t launch(const LabelHead &head, const void *logits, int32_t *labels, cudaStream_t stream);

}  // namespace sk

#endif
