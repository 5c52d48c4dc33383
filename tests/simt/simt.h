// Runs the CUDA kernels of csrc/cuda on the host, so that a compiler's sanitizers and an oracle can judge
// them without a GPU. The threads of a block are fibers (ucontext); one runs until it waits, at a barrier or
// for its warp, then the next. Stricter than a GPU where that finds mistakes:
//
//   - shared memory is NaN before each block, and memory behind its end belongs to AddressSanitizer;
//   - an asynchronous copy happens as late as it may, when its thread waits for copies;
//   - a barrier that only part of a block reaches, or a shuffle that only part of a warp reaches, is an
//   error;
//   - threads run in rising or in falling order, by SSIM_SIMT_REVERSE: a race between them shows as a
//     difference between the two.
//
// csrc/cuda/kernels/device.cuh includes this file in the place of CUDA's part.
#pragma once

#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

#define SSIM_DEVICE inline
#define SSIM_KERNEL(threads, blocks) void
#define SSIM_PARAMS const

struct Index3 {
  unsigned x = 0, y = 0, z = 0;
};
inline Index3 threadIdx, blockIdx, gridDim;

using std::max;
using std::min;

namespace simt {

using ssim_fused::cuda::kWarpSize;

[[noreturn]] inline void fail(const char* what) {
  std::fprintf(stderr, "simt: block %u: %s\n", blockIdx.x, what);
  std::abort();
}

enum class State { ready, at_barrier, at_warp, done };

struct Copy {
  void* to;
  const void* from;
  size_t bytes;
};

struct Fiber {
  ucontext_t context;
  std::unique_ptr<char[]> stack;
  State state = State::ready;
  std::vector<Copy> copies;               // started, not waited for
  size_t group_begin = 0, group_end = 0;  // the last group committed
  double exchanged = 0;                   // what a shuffle offers the rest of the warp
  void* fake_stack = nullptr;
};

constexpr size_t kStack = 256 * 1024;

inline std::vector<Fiber> fibers;
inline Fiber* current = nullptr;
inline ucontext_t scheduler;
inline std::function<void()> body;
inline char* shared = nullptr;

// Tells AddressSanitizer which stack is in use; without it these do nothing.
inline const void* scheduler_stack = nullptr;
inline size_t scheduler_stack_size = 0;
inline void before_switch([[maybe_unused]] void** save, [[maybe_unused]] const void* stack,
                          [[maybe_unused]] size_t size) {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(save, stack, size);
#endif
}
inline void after_switch([[maybe_unused]] void* saved, [[maybe_unused]] const void** stack,
                         [[maybe_unused]] size_t* size) {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(saved, stack, size);
#endif
}

inline void wait_as(State state) {
  Fiber* const self = current;
  self->state = state;
  before_switch(state == State::done ? nullptr : &self->fake_stack, scheduler_stack, scheduler_stack_size);
  swapcontext(&self->context, &scheduler);
  after_switch(self->fake_stack, nullptr, nullptr);
}

inline void enter() {
  after_switch(nullptr, &scheduler_stack, &scheduler_stack_size);
  body();
  if (!current->copies.empty()) fail("a thread ends with copies under way");
  wait_as(State::done);
}

inline void run_block(unsigned threads, bool reverse) {
  for (unsigned t = 0; t < threads; ++t) {
    Fiber& fiber = fibers[t];
    fiber.state = State::ready;
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.get();
    fiber.context.uc_stack.ss_size = kStack;
    fiber.context.uc_link = nullptr;
    makecontext(&fiber.context, enter, 0);
  }
  for (;;) {
    for (unsigned i = 0; i < threads; ++i) {
      const unsigned t = reverse ? threads - 1 - i : i;
      Fiber& fiber = fibers[t];
      if (fiber.state != State::ready) continue;
      current = &fiber;
      threadIdx.x = t;
      void* fake_stack = nullptr;
      before_switch(&fake_stack, fiber.stack.get(), kStack);
      swapcontext(&scheduler, &fiber.context);
      after_switch(fake_stack, nullptr, nullptr);
    }
    // Every thread waits or is done. Warps whose threads all wait for one another go on first.
    bool released = false;
    for (unsigned warp = 0; warp < threads; warp += kWarpSize) {
      const auto begin = fibers.begin() + warp, end = fibers.begin() + std::min(threads, warp + kWarpSize);
      const auto waiting =
          std::count_if(begin, end, [](const Fiber& f) { return f.state == State::at_warp; });
      if (waiting == 0) continue;
      if (waiting != end - begin) fail("a shuffle or barrier of a warp is reached by part of it");
      std::for_each(begin, end, [](Fiber& f) { f.state = State::ready; });
      released = true;
    }
    if (released) continue;
    const auto begin = fibers.begin(), end = begin + threads;
    const auto waiting =
        std::count_if(begin, end, [](const Fiber& f) { return f.state == State::at_barrier; });
    if (waiting == 0) return;
    if (waiting != threads) fail("a barrier is reached by part of the block");
    std::for_each(begin, end, [](Fiber& f) { f.state = State::ready; });
  }
}

template <class F>
void launch(int64_t blocks, unsigned threads, size_t shared_bytes, F&& kernel) {
  static const bool reverse = std::getenv("SSIM_SIMT_REVERSE") != nullptr;
  gridDim.x = static_cast<unsigned>(blocks);
  while (fibers.size() < threads) {
    fibers.emplace_back();
    fibers.back().stack = std::make_unique<char[]>(kStack);
  }
  body = kernel;
  // Bytes rounded to the alignment would hide an overrun; an exact allocation at its end does not.
  void* memory = nullptr;
  if (posix_memalign(&memory, 128, shared_bytes) != 0) fail("no memory");
  shared = static_cast<char*>(memory);
  for (int64_t block = 0; block < blocks; ++block) {
    std::memset(shared, 0xff, shared_bytes);  // a NaN in every floating type
    blockIdx.x = static_cast<unsigned>(block);
    run_block(threads, reverse);
  }
  std::free(memory);
}

}  // namespace simt

inline void __syncthreads() { simt::wait_as(simt::State::at_barrier); }

namespace ssim_fused::cuda {

struct Half {
  uint16_t bits;
};
struct BFloat16 {
  uint16_t bits;
};

inline float bits_to_float(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}
inline uint32_t float_to_bits(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return bits;
}

inline double to_compute(double value) { return value; }
inline float to_compute(float value) { return value; }
inline float to_compute(BFloat16 value) { return bits_to_float(static_cast<uint32_t>(value.bits) << 16); }
inline float to_compute(Half value) {
  const int exponent = value.bits >> 10 & 31, fraction = value.bits & 1023;
  const float sign = value.bits & 0x8000 ? -1.0f : 1.0f;
  if (exponent == 31) return fraction ? NAN : sign * INFINITY;
  return sign * (exponent ? std::ldexp(1024.0f + fraction, exponent - 25) : std::ldexp(1.0f * fraction, -24));
}

inline void store_as(double& out, double value) { out = value; }
inline void store_as(float& out, float value) { out = value; }
inline void store_as(BFloat16& out, float value) {
  const uint32_t bits = float_to_bits(value);
  out.bits = std::isnan(value) ? 0x7fff : static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}
inline void store_as(Half& out, float value) {
  const uint16_t sign = std::signbit(value) ? 0x8000 : 0;
  const float size = std::fabs(value);
  if (std::isnan(value)) {
    out.bits = 0x7fff;
  } else if (size >= 65520.0f) {
    out.bits = sign | 0x7c00;
  } else if (size == 0.0f) {
    out.bits = sign;
  } else {
    int exponent = 0;
    std::frexp(size, &exponent);
    exponent = std::max(exponent, -13);  // below it the spacing stays that of the subnormals
    const auto steps = static_cast<uint32_t>(std::nearbyint(std::ldexp(size, 11 - exponent)));
    // A subnormal has steps < 1024 and exponent field 0; a carry into the next exponent adds up by itself.
    out.bits = static_cast<uint16_t>(sign | (((exponent + 13) << 10) + steps));
  }
}

template <class Number>
inline Number opaque(Number number) {
  return number;
}
inline void sync_warp() { simt::wait_as(simt::State::at_warp); }

template <class T>
T* global_memory(uint64_t address) {
  return reinterpret_cast<T*>(address);
}
inline char* shared_memory() { return simt::shared; }

template <int Bytes>
void store_vector(void* global, const void* values) {
  if (reinterpret_cast<uintptr_t>(global) % Bytes) simt::fail("a vector is not aligned");
  std::memcpy(global, values, Bytes);
}

template <int Bytes>
void copy_async(void* shared, const void* global) {
  if (reinterpret_cast<uintptr_t>(shared) % Bytes || reinterpret_cast<uintptr_t>(global) % Bytes) {
    simt::fail("a copy is not aligned");
  }
  simt::current->copies.push_back({shared, global, Bytes});
}

inline void wait_for_copies() {
  for (const simt::Copy& copy : simt::current->copies) std::memcpy(copy.to, copy.from, copy.bytes);
  simt::current->copies.clear();
  simt::current->group_begin = simt::current->group_end = 0;
}

// Groups of copies, the last of which is [group_begin, group_end).
inline void commit_copies() {
  simt::current->group_begin = simt::current->group_end;
  simt::current->group_end = simt::current->copies.size();
}
inline void wait_for_copies_before_last() {
  auto& copies = simt::current->copies;
  const size_t done = simt::current->group_begin;
  for (size_t i = 0; i < done; ++i) std::memcpy(copies[i].to, copies[i].from, copies[i].bytes);
  copies.erase(copies.begin(), copies.begin() + static_cast<std::ptrdiff_t>(done));
  simt::current->group_begin -= done;
  simt::current->group_end -= done;
}

inline unsigned next_ticket(unsigned* counter) { return (*counter)++; }
inline double load_fresh(const double* place) { return *place; }

inline double exchange(double value, int lane) {
  simt::current->exchanged = value;
  simt::wait_as(simt::State::at_warp);
  const double result = simt::fibers[threadIdx.x / kWarpSize * kWarpSize + lane].exchanged;
  simt::wait_as(simt::State::at_warp);
  return result;
}
template <class T>
T shuffle(T value, int lane) {
  return static_cast<T>(exchange(static_cast<double>(value), lane));
}
template <class T>
T shuffle_down(T value, int lanes) {
  const int lane = threadIdx.x % kWarpSize;
  return shuffle(value, lane + lanes < kWarpSize ? lane + lanes : lane);
}

}  // namespace ssim_fused::cuda
