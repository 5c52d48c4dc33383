// Runs the blocks of a launch on the host. The threads of a block are fibers (ucontext). A warp runs until
// all its threads wait for the block or have ended; then the next warp runs. A warp is thus as far ahead of
// the others as the block's barriers allow, and warp barriers and shuffles order nothing beyond their warp.
//
// The environment variable SSIM_SIMT_ORDER lists changes of the order, which must not change results:
//
//   reverse           threads and warps run in descending order
//   last_block_first  blocks run in descending order
//   early_copies      asynchronous copies finish when they are issued, not when their thread waits for them
#pragma once

#include <sys/mman.h>
#include <ucontext.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <vector>

#include "race.h"
#include "sites.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

struct Index3 {
  unsigned x = 0, y = 0, z = 0;
};
inline Index3 threadIdx, blockIdx, gridDim;

namespace simt {

using ssim_fused::cuda::kWarpSize;
constexpr unsigned kLanes = kWarpSize;

[[noreturn]] inline void fail(const char* what) {
  std::fprintf(stderr, "simt: block %u: %s\n", blockIdx.x, what);
  std::abort();
}

struct Order {
  bool reverse = false, last_block_first = false, early_copies = false;

  Order() {
    const char* const words = std::getenv("SSIM_SIMT_ORDER");
    if (!words) return;
    reverse = std::strstr(words, "reverse");
    last_block_first = std::strstr(words, "last_block_first");
    early_copies = std::strstr(words, "early_copies");
  }
};
inline const Order order;

enum class State { ready, at_barrier, at_warp, done };

struct Copy {
  void* to;
  const void* from;
  size_t bytes;
};

struct Fiber {
  ucontext_t context;
  char* stack = nullptr;
  State state = State::ready;
  bool orders_memory = false;             // waits at a barrier of its warp, not at a shuffle
  Place place;                            // the call site at which it waits
  std::vector<Copy> copies;               // issued and not yet waited for
  size_t group_begin = 0, group_end = 0;  // the last committed group
  double exchanged = 0;                   // the value that a shuffle offers to the warp
  void* fake_stack = nullptr;
};

constexpr size_t kStack = 256 * 1024, kMostThreads = 1024;

inline std::vector<Fiber> fibers;
inline Fiber* current = nullptr;
inline ucontext_t scheduler;
inline std::function<void()> body;
inline char* shared = nullptr;

// Tells AddressSanitizer which stack is in use. Without AddressSanitizer these functions do nothing.
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

// Suspends the current thread until the rest of its warp or block also waits.
inline void wait_as(State state, bool orders_memory = false, const Place& place = {}) {
  const race::Untracked untracked;
  Fiber* const self = current;
  self->state = state;
  self->orders_memory = orders_memory;
  self->place = place;
  before_switch(state == State::done ? nullptr : &self->fake_stack, scheduler_stack, scheduler_stack_size);
  swapcontext(&self->context, &scheduler);
  after_switch(self->fake_stack, nullptr, nullptr);
}

inline void enter() {
  after_switch(nullptr, &scheduler_stack, &scheduler_stack_size);
  race::set_tracking(true);
  body();
  race::set_tracking(false);
  if (!current->copies.empty()) fail("a thread ends with copies under way");
  wait_as(State::done);
}

inline void resume(unsigned thread) {
  Fiber& fiber = fibers[thread];
  current = &fiber;
  threadIdx.x = thread;
  race::run_thread(thread);
  void* fake_stack = nullptr;
  before_switch(&fake_stack, fiber.stack, kStack);
  swapcontext(&scheduler, &fiber.context);
  after_switch(fake_stack, nullptr, nullptr);
}

// Returns whether the threads [begin, end) wait in this state. Fails if only some do, or at different call
// sites.
inline bool all_wait(unsigned begin, unsigned end, State state, const char* message) {
  const Fiber& first = fibers[begin];
  unsigned waiting = 0;
  for (unsigned t = begin; t < end; ++t) waiting += fibers[t].state == state;
  if (waiting == 0) return false;
  if (waiting != end - begin) fail(message);
  for (unsigned t = begin; t < end; ++t) {
    if (fibers[t].orders_memory == first.orders_memory && is_same(fibers[t].place, first.place)) continue;
    std::fprintf(stderr, "simt: threads wait at %s and at %s\n", name_of(first.place).c_str(),
                 name_of(fibers[t].place).c_str());
    fail("threads wait for one another at different lines");
  }
  return true;
}

inline void release(unsigned begin, unsigned end) {
  for (unsigned t = begin; t < end; ++t) fibers[t].state = State::ready;
}

// Runs the threads [begin, end) of a warp until each waits for the block or has ended.
inline void run_warp(unsigned begin, unsigned end) {
  for (;;) {
    for (unsigned i = 0; i < end - begin; ++i) {
      const unsigned t = order.reverse ? end - 1 - i : begin + i;
      if (fibers[t].state == State::ready) resume(t);
    }
    if (!all_wait(begin, end, State::at_warp, "a shuffle or barrier of a warp is reached by part of it"))
      return;
    if (fibers[begin].orders_memory) race::sync_warp(begin / kLanes);
    release(begin, end);
  }
}

inline void run_block(unsigned threads) {
  for (unsigned t = 0; t < threads; ++t) {
    Fiber& fiber = fibers[t];
    fiber.state = State::ready;
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack;
    fiber.context.uc_stack.ss_size = kStack;
    fiber.context.uc_link = nullptr;
    makecontext(&fiber.context, enter, 0);
  }
  const unsigned warps = (threads + kLanes - 1) / kLanes;
  for (;;) {
    for (unsigned i = 0; i < warps; ++i) {
      const unsigned begin = (order.reverse ? warps - 1 - i : i) * kLanes;
      run_warp(begin, std::min(threads, begin + kLanes));
    }
    if (!all_wait(0, threads, State::at_barrier, "a barrier is reached by part of the block")) return;
    race::sync_block();
    release(0, threads);
  }
}

// Provides fibers with stacks. The system allocates the pages of a stack when they are touched.
inline void provide_fibers(unsigned threads) {
  if (threads > kMostThreads) fail("too many threads");
  static char* const stacks = [] {
    void* const memory = mmap(nullptr, kMostThreads * kStack, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) fail("no memory for stacks");
    race::add_private(memory, kMostThreads * kStack);
    return static_cast<char*>(memory);
  }();
  while (fibers.size() < threads) {
    fibers.emplace_back();
    fibers.back().stack = stacks + (fibers.size() - 1) * kStack;
  }
}

template <class F>
void launch(int64_t blocks, unsigned threads, size_t shared_bytes, F&& kernel) {
  gridDim.x = static_cast<unsigned>(blocks);
  provide_fibers(threads);
  body = kernel;
  race::begin_launch(kWarpSize);
  // An allocation of exactly the requested size, so that AddressSanitizer detects any access beyond the end.
  void* memory = nullptr;
  if (posix_memalign(&memory, 128, shared_bytes) != 0) fail("no memory");
  shared = static_cast<char*>(memory);
  for (int64_t i = 0; i < blocks; ++i) {
    const int64_t block = order.last_block_first ? blocks - 1 - i : i;
    std::memset(shared, 0xff, shared_bytes);  // NaN in every floating-point type
    blockIdx.x = static_cast<unsigned>(block);
    race::begin_block(blockIdx.x, shared, shared_bytes);
    run_block(threads);
  }
  std::free(memory);
}

}  // namespace simt
