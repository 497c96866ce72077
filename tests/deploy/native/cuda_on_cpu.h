/* Enough of CUDA's C++ to compile a kernel for the CPU and to run its grid thread by thread. */
#ifndef SEARCHKIT_TESTS_CUDA_ON_CPU_H
#define SEARCHKIT_TESTS_CUDA_ON_CPU_H

#include <cmath>
#include <cstdint>

#define __global__
#define __device__

struct Index {
  unsigned x, y, z;
};

struct dim3 {
  unsigned x, y, z;
  dim3(unsigned x, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

inline thread_local Index blockIdx, threadIdx;
inline thread_local Index blockDim;

/* Not contracted as long as the compiler is told so. */
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float fminf(float a, float b) { return std::fmin(a, b); }
inline float fmaxf(float a, float b) { return std::fmax(a, b); }
inline float expf(float a) { return std::exp(a); }

/* Calls `kernel` once for each thread of a grid. */
template <typename Kernel>
void for_each_thread(dim3 grid, dim3 block, const Kernel &kernel) {
  blockDim = {block.x, block.y, block.z};
  for (blockIdx.z = 0; blockIdx.z < grid.z; ++blockIdx.z)
    for (blockIdx.y = 0; blockIdx.y < grid.y; ++blockIdx.y)
      for (blockIdx.x = 0; blockIdx.x < grid.x; ++blockIdx.x)
        for (threadIdx.z = 0; threadIdx.z < block.z; ++threadIdx.z)
          for (threadIdx.y = 0; threadIdx.y < block.y; ++threadIdx.y)
            for (threadIdx.x = 0; threadIdx.x < block.x; ++threadIdx.x) kernel();
}

/* For sources that launch a kernel by this name. */
#define SK_LAUNCH(kernel, grid, block, stream, ...) \
  ((void)(stream), for_each_thread(grid, block, [&] { kernel(__VA_ARGS__); }))

#endif
