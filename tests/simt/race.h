// Events that the scheduler (scheduler.h) and the kernels' device functions (simt.h) report to the race
// detector (race.cpp). Only programs compiled with SSIM_RACE have a detector; in others these functions do
// nothing.
#pragma once

#include <cstddef>

namespace race {

#if defined(SSIM_RACE)
// Turns the tracking of memory accesses on or off. Returns whether it was on.
bool set_tracking(bool is_on);

// Turns tracking off while it exists, since accesses of the harness are not accesses of a kernel.
class Untracked {
 public:
  Untracked() : was_on_(set_tracking(false)) {}
  Untracked(const Untracked&) = delete;
  ~Untracked() { set_tracking(was_on_); }

 private:
  const bool was_on_;
};

void begin_launch(int warp_size);
void begin_block(unsigned index, const void* shared, size_t shared_bytes);
void run_thread(unsigned thread);  // the following accesses are by this thread
void sync_warp(unsigned warp);
void sync_block();
void issue_copy(const void* to, const void* from, size_t bytes);
void finish_copy(const void* to, const void* from, size_t bytes);
void write(const void* to, size_t bytes);              // a write that the compiler does not instrument
void take_ticket(const void* counter, bool is_fence);  // an atomic addition; is_fence: between two fences
void add_private(const void* begin, size_t bytes);     // memory of a single thread, such as its stack
#else
class Untracked {
 public:
  Untracked() {}
};
inline void set_tracking(bool) {}
inline void begin_launch(int) {}
inline void begin_block(unsigned, const void*, size_t) {}
inline void run_thread(unsigned) {}
inline void sync_warp(unsigned) {}
inline void sync_block() {}
inline void issue_copy(const void*, const void*, size_t) {}
inline void finish_copy(const void*, const void*, size_t) {}
inline void write(const void*, size_t) {}
inline void take_ticket(const void*, bool) {}
inline void add_private(const void*, size_t) {}
#endif

}  // namespace race
