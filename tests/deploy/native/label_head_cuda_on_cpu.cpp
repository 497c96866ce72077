// The GPU's kernel as a library for the CPU: `run` is called as the launch of the kernel would be.
#include "cuda_on_cpu.h"
#include "label_head_cuda.cuh"

namespace {

template <typename Value, int CERTAINTY, typename... Arguments>
void grid_of(dim3 grid, dim3 block, const void *logits, Arguments... arguments) {
  for_each_thread(grid, block, [&] {
    sk::label_head<Value, uint8_t, CERTAINTY>(static_cast<const Value *>(logits), arguments...);
  });
}

template <typename Value, typename... Arguments>
void of_certainty(int certainty, Arguments... arguments) {
  if (certainty == sk::NO_CERTAINTY) grid_of<Value, sk::NO_CERTAINTY>(arguments...);
  if (certainty == sk::PROBABILITY) grid_of<Value, sk::PROBABILITY>(arguments...);
  if (certainty == sk::MARGIN) grid_of<Value, sk::MARGIN>(arguments...);
}

template <typename... Arguments>
void of_type(int dtype, int certainty, Arguments... arguments) {
  if (dtype == 0) of_certainty<float>(certainty, arguments...);
  if (dtype == 1) of_certainty<sk::Half>(certainty, arguments...);
  if (dtype == 2) of_certainty<sk::BFloat>(certainty, arguments...);
}

}  // namespace

extern "C" void run(int dtype, int certainty, const unsigned *grid, const unsigned *block, const void *logits,
                    uint8_t *labels, uint8_t *certainties, int classes, int height, int width, long long picture_stride,
                    long long class_stride, long long row_stride, long long column_stride, int out_height, int out_width,
                    int align_corners) {
  of_type(dtype, certainty, dim3(grid[0], grid[1], grid[2]), dim3(block[0], block[1]), logits, labels, certainties,
          classes, height, width, picture_stride, class_stride, row_stride, column_stride, out_height, out_width,
          align_corners);
}
