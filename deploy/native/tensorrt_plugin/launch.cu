#include "launch.h"

#include "label_head_cuda.cuh"

// The tests define it otherwise, to run the kernel on a CPU.
#ifndef SK_LAUNCH
#define SK_LAUNCH(kernel, grid, block, stream, ...) kernel<<<grid, block, 0, stream>>>(__VA_ARGS__)
#endif

namespace sk {
namespace {

template <typename Value>
void put(const LabelHead &head, const void *logits, int32_t *labels, cudaStream_t stream) {
  const auto blocks = [](int32_t pixels, int32_t of_block) {
    return static_cast<unsigned>((pixels + of_block - 1) / of_block);
  };
  const dim3 grid(blocks(head.out_width, BLOCK_WIDTH), blocks(head.out_height, BLOCK_HEIGHT * ROWS),
                  static_cast<unsigned>(head.pictures));
  const dim3 block(BLOCK_WIDTH, BLOCK_HEIGHT);
  const long long plane = static_cast<long long>(head.height) * head.width;
  SK_LAUNCH((label_head<Value, int32_t, NO_CERTAINTY>), grid, block, stream, static_cast<const Value *>(logits), labels,
            nullptr, head.classes, head.height, head.width, head.classes * plane, plane,
            static_cast<long long>(head.width), 1LL, head.out_height, head.out_width, head.align_corners);
}

}  // namespace

cudaError_t launch(const LabelHead &head, const void *logits, int32_t *labels, cudaStream_t stream) {
  switch (head.type) {
    case LogitsType::FLOAT32: put<float>(head, logits, labels, stream); break;
    case LogitsType::FLOAT16: put<Half>(head, logits, labels, stream); break;
    case LogitsType::BFLOAT16: put<BFloat>(head, logits, labels, stream); break;
  }
  return cudaGetLastError();
}

}  // namespace sk
