// Runs the CUDA kernels of csrc/cuda on the host, so that sanitizers, a race detector (race.cpp) and an
// oracle can check them without a GPU. scheduler.h runs the threads; this file defines the functions that
// kernels call. The harness is stricter than a GPU where that finds mistakes:
//
//   - Shared memory is NaN before each block, and AddressSanitizer guards the memory beyond its end.
//   - An asynchronous copy finishes as late as possible, when its thread waits for it, or as early as
//     possible.
//   - A barrier that only part of a block reaches, a shuffle that only part of a warp reaches, and threads
//     that wait for each other at different lines are errors.
//   - Warps, threads and blocks run in either order, and a warp runs as far ahead as barriers allow.
//
// csrc/cuda/kernels/device.cuh includes this file instead of the definitions for CUDA.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "scheduler.h"

#define SSIM_DEVICE inline
#define SSIM_KERNEL(threads, blocks) void
#define SSIM_PARAMS const
// A function that calls a barrier for its caller passes on the caller's location, which names the site.
#define SSIM_CALLER_PARAM simt::Place place = simt::Place::current()
#define SSIM_CALLER place

using std::max;
using std::min;

inline void __syncthreads(simt::Place place = simt::Place::current()) {
  const race::Untracked untracked;
  const simt::Change change = simt::reach(place);
  if (change == simt::Change::left_out) return;
  simt::wait_as(change == simt::Change::weakened ? simt::State::at_warp : simt::State::at_barrier, true,
                place);
}

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
    exponent = std::max(exponent, -13);  // below it the spacing is that of subnormals
    const auto steps = static_cast<uint32_t>(std::nearbyint(std::ldexp(size, 11 - exponent)));
    // Subnormals have steps < 1024 and exponent field 0. A carry increments the exponent by addition.
    out.bits = static_cast<uint16_t>(sign | (((exponent + 13) << 10) + steps));
  }
}

template <class Number>
inline Number opaque(Number number) {
  return number;
}

inline void sync_warp(simt::Place place = simt::Place::current()) {
  const race::Untracked untracked;
  if (simt::reach(place) != simt::Change::left_out) simt::wait_as(simt::State::at_warp, true, place);
}

template <class T>
T* global_memory(uint64_t address) {
  return reinterpret_cast<T*>(address);
}
inline char* shared_memory() { return simt::shared; }

template <int Bytes>
void store_vector(void* global, const void* values) {
  if (reinterpret_cast<uintptr_t>(global) % Bytes) simt::fail("a vector is not aligned");
  const race::Untracked untracked;
  race::write(global, Bytes);
  std::memcpy(global, values, Bytes);
}

inline void carry_out(const simt::Copy& copy) { std::memcpy(copy.to, copy.from, copy.bytes); }

template <int Bytes>
void copy_async(void* shared, const void* global) {
  if (reinterpret_cast<uintptr_t>(shared) % Bytes || reinterpret_cast<uintptr_t>(global) % Bytes) {
    simt::fail("a copy is not aligned");
  }
  const race::Untracked untracked;
  race::issue_copy(shared, global, Bytes);
  simt::current->copies.push_back({shared, global, Bytes});
  if (simt::order.early_copies) carry_out(simt::current->copies.back());
}

// Finishes the first `count` of the thread's copies.
inline void finish_copies(size_t count) {
  auto& copies = simt::current->copies;
  for (size_t i = 0; i < count; ++i) {
    if (!simt::order.early_copies) carry_out(copies[i]);
    race::finish_copy(copies[i].to, copies[i].from, copies[i].bytes);
  }
  copies.erase(copies.begin(), copies.begin() + static_cast<std::ptrdiff_t>(count));
}

inline void wait_for_copies(simt::Place place = simt::Place::current()) {
  const race::Untracked untracked;
  if (simt::reach(place) == simt::Change::left_out) return;
  finish_copies(simt::current->copies.size());
  simt::current->group_begin = simt::current->group_end = 0;
}

// Copies are waited for in groups. The last committed group is [group_begin, group_end).
inline void commit_copies(simt::Place place = simt::Place::current()) {
  const race::Untracked untracked;
  if (simt::reach(place) == simt::Change::left_out) return;
  simt::current->group_begin = simt::current->group_end;
  simt::current->group_end = simt::current->copies.size();
}
inline void wait_for_copies_before_last(simt::Place place = simt::Place::current()) {
  const race::Untracked untracked;
  if (simt::reach(place) == simt::Change::left_out) return;
  const size_t count = simt::current->group_begin;
  finish_copies(count);
  simt::current->group_begin -= count;
  simt::current->group_end -= count;
}

inline unsigned next_ticket(unsigned* counter, simt::Place place = simt::Place::current()) {
  const race::Untracked untracked;
  race::take_ticket(counter, simt::reach(place) != simt::Change::left_out);
  return (*counter)++;
}
inline double load_fresh(const double* place) { return *place; }

// Exchanges a value within the warp. Shuffles do not order memory.
inline double exchange(double value, int lane, const simt::Place& place) {
  const race::Untracked untracked;
  simt::current->exchanged = value;
  simt::wait_as(simt::State::at_warp, false, place);
  const double result = simt::fibers[threadIdx.x / kWarpSize * kWarpSize + lane].exchanged;
  simt::wait_as(simt::State::at_warp, false, place);
  return result;
}
template <class T>
T shuffle(T value, int lane, simt::Place place = simt::Place::current()) {
  return static_cast<T>(exchange(static_cast<double>(value), lane, place));
}
template <class T>
T shuffle_down(T value, int lanes, simt::Place place = simt::Place::current()) {
  const int lane = threadIdx.x % kWarpSize;
  return shuffle(value, lane + lanes < kWarpSize ? lane + lanes : lane, place);
}

}  // namespace ssim_fused::cuda
