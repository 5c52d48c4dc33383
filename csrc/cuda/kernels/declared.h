// The names of device.cuh, declared for a host compiler that reads the kernels' constants (shared memory,
// columns, registers) and runs none of them: csrc/cuda/launch/planned.cpp. A function without a body here is
// never called there.
#pragma once

#include <algorithm>
#include <cstdint>

#define SSIM_DEVICE inline
#define SSIM_KERNEL(threads, blocks) void
#define SSIM_PARAMS const
#define SSIM_CALLER_PARAM
#define SSIM_CALLER

namespace ssim_fused::cuda {

using std::max;
using std::min;

struct Index {
  unsigned x, y, z;
};
extern const Index blockIdx, threadIdx;
void __syncthreads();

struct Half {
  uint16_t bits;
};
struct BFloat16 {
  uint16_t bits;
};
double to_compute(double value);
float to_compute(float value);
float to_compute(Half value);
float to_compute(BFloat16 value);
template <class T, class Value>
void store_as(T& out, Value value);

unsigned opaque(unsigned number);
uint64_t opaque(uint64_t number);
template <class T>
T* global_memory(uint64_t address);
char* shared_memory();
template <int Bytes>
void store_vector(void* global, const void* values);
template <int Bytes>
void copy_async(void* shared, const void* global);
void sync_warp();
void wait_for_copies();
void commit_copies();
void wait_for_copies_before_last();
unsigned next_ticket(unsigned* counter);
double load_fresh(const double* place);
template <class T>
T shuffle(T value, int lane);
template <class T>
T shuffle_down(T value, int lanes);

}  // namespace ssim_fused::cuda
