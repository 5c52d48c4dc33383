// A data race detector for kernels that the scheduler (scheduler.h) runs. The program is compiled with
// -fsanitize=thread, so that the compiler inserts a call of __tsan_readN or __tsan_writeN for every access to
// memory, and linked with this file instead of libtsan. This file is compiled without sanitizers.
//
// Two accesses to a byte, at least one of them a write, are a race if nothing orders them. Within a launch,
// accesses are ordered by
//
//   - program order within a thread;
//   - a block barrier: accesses of the block before it precede those after it;
//   - a warp barrier: the same within the warp;
//   - a ticket (device.cuh: next_ticket), between blocks: accesses before a block's ticket precede accesses
//     after a later ticket of another block.
//
// Shuffles do not order memory. An asynchronous copy may read its source and write its destination at any
// time between its issue and the end of its thread's wait for it, so an access in between is a race even in
// the same thread. Launches run one at a time, in order.
//
// Vector clocks are not needed. Barriers join all threads of a block, or all of a warp, so one epoch counter
// for each is enough: an access precedes the current one if it is by the same thread, or in an earlier epoch
// of the block, or by the same warp in an earlier epoch of the warp. Each byte has a cell with its last write
// and, of the reads since the last block barrier, the warps that read it, and the lanes if it was a single
// warp. Within a block, a race is found in any order of the fibers.
#include "race.h"

#include <pthread.h>

#include <array>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <memory>
#include <set>
#include <tuple>
#include <unordered_map>
#include <utility>
#include <vector>

extern "C" char __data_start, _end;

namespace race {

namespace {

constexpr int kExitStatus = 66;

// An access, with the data that decides what precedes it.
struct Access {
  uint32_t block = 0;  // counted over all launches; 0: there was no access
  uint32_t block_epoch = 0, warp_epoch = 0;
  uint32_t thread = 0;
  uint64_t time = 0;
  const void* code = nullptr;
};

// The detector's state of one byte.
struct Cell {
  Access write;
  Access read;                                    // the last read of the block
  uint32_t reading_warps = 0;                     // warps that read the byte since the last block barrier
  uint64_t reading_lanes = 0;                     // lanes of the only reading warp, since its last barrier
  Access read_elsewhere;                          // the last read in an earlier block of the launch
  uint32_t copied_to_by = 0, copied_from_by = 0;  // 1 + thread of a copy in flight; 0: none
  const void* copy_code = nullptr;
};

// The cell of a byte of shared memory. Shared memory is new for each block: a cell of an earlier block is
// empty.
struct SharedCell {
  uint32_t block = 0;
  Cell cell;
};

struct Ticket {
  uint32_t block_epoch, warp_epoch, thread;
  uint64_t time;
  bool is_fence;
};

// The cells of global memory, allocated at the first access to their page.
class GlobalCells {
 public:
  Cell& of(const char* at) {
    const auto address = reinterpret_cast<uintptr_t>(at);
    const uintptr_t page = address / kPage;
    if (page != last_page_ || !last_) {
      auto& cells = pages_[page];
      if (!cells) cells = std::make_unique<Page>();
      last_page_ = page, last_ = cells.get();
    }
    return (*last_)[address % kPage];
  }
  void clear() { pages_.clear(), last_ = nullptr; }

 private:
  static constexpr uintptr_t kPage = 1024;
  using Page = std::array<Cell, kPage>;
  std::unordered_map<uintptr_t, std::unique_ptr<Page>> pages_;
  uintptr_t last_page_ = 0;
  Page* last_ = nullptr;
};

// The environment variable SSIM_RACE_OFF disables the detector, to see which faults other checks notice.
const bool is_disabled = std::getenv("SSIM_RACE_OFF") != nullptr;
bool is_tracking = false;

const char* shared_begin = nullptr;
size_t shared_size = 0;
std::vector<SharedCell> shared_cells;
GlobalCells global_cells;
std::vector<std::pair<const char*, const char*>> private_memory;

uint32_t last_epoch = 0;  // incremented for every epoch, so that each number is unique
uint64_t now = 0;
uint32_t warp_size = 32;
uint32_t block = 0, first_block = 1, block_index = 0;
uint32_t block_epoch = 0;
std::array<uint32_t, 32> warp_epochs{};
uint32_t thread = 0;
std::map<uint32_t, Ticket> tickets;  // of the blocks of this launch

// Reports each pair of code locations once.
struct Reports {
  std::set<std::tuple<const char*, const void*, const void*>> known;

  ~Reports() {
    if (known.empty()) return;
    std::fprintf(stderr, "race: %zu pairs of places\n", known.size());
    std::fflush(nullptr);
    std::_Exit(kExitStatus);
  }
} reports;

uint32_t warp_of(uint32_t of_thread) { return of_thread / warp_size; }

bool is_shared(const char* at) { return at >= shared_begin && at < shared_begin + shared_size; }

// Returns the cell of a byte, or null if only one thread can access it.
Cell* cell_of(const char* at) {
  if (is_shared(at)) {
    SharedCell& shared = shared_cells[static_cast<size_t>(at - shared_begin)];
    if (shared.block != block) shared = {block, {}};
    return &shared.cell;
  }
  if (at >= &__data_start && at < &_end) return nullptr;  // the harness's own variables
  for (const auto& [begin, end] : private_memory)
    if (at >= begin && at < end) return nullptr;
  return &global_cells.of(at);
}

void report(const char* what, const char* at, const void* code, uint32_t other_thread, uint32_t other_block,
            const void* other_code) {
  constexpr size_t kMost = 20;
  if (!reports.known.insert({what, code, other_code}).second || reports.known.size() > kMost) return;
  std::fprintf(stderr, "race: %s: ", what);
  is_shared(at) ? std::fprintf(stderr, "byte %td of shared memory", at - shared_begin)
                : std::fprintf(stderr, "global memory");
  std::fprintf(stderr, "; thread %u of block %u at %p, thread %u of %s block at %p\n", thread, block_index,
               code, other_thread, other_block == block ? "the same" : "another", other_code);
}
void report(const char* what, const char* at, const void* code, const Access& other) {
  report(what, at, code, other.thread, other.block, other.code);
}

Access access_at(const void* code) {
  return {block, block_epoch, warp_epochs[warp_of(thread)], thread, now, code};
}

// Returns whether an access precedes the current access of the current thread.
bool precedes(const Access& access) {
  if (access.block < first_block) return true;
  const uint32_t warp = warp_of(thread);
  if (access.block == block)
    return access.thread == thread || access.block_epoch != block_epoch ||
           (warp_of(access.thread) == warp && access.warp_epoch != warp_epochs[warp]);
  const auto from = tickets.find(access.block), to = tickets.find(block);
  if (from == tickets.end() || to == tickets.end()) return false;
  const Ticket &released = from->second, &acquired = to->second;
  const bool before_ticket =
      (access.thread == released.thread && access.time <= released.time) ||
      access.block_epoch < released.block_epoch ||
      (warp_of(access.thread) == warp_of(released.thread) && access.warp_epoch < released.warp_epoch);
  const bool after_ticket = thread == acquired.thread || block_epoch > acquired.block_epoch ||
                            (warp == warp_of(acquired.thread) && warp_epochs[warp] > acquired.warp_epoch);
  return released.is_fence && acquired.is_fence && before_ticket && after_ticket &&
         released.time < acquired.time;
}

void check_reads(const Cell& cell, const char* at, const void* code) {
  if (cell.read.block == block && cell.read.block_epoch == block_epoch) {
    const uint32_t warp = warp_of(thread);
    const bool other_warps = cell.reading_warps & ~(uint32_t{1} << warp);
    const bool other_lanes = cell.read.warp_epoch == warp_epochs[warp] &&
                             (cell.reading_lanes & ~(uint64_t{1} << thread % warp_size));
    if (other_warps || other_lanes) report("write after an unordered read", at, code, cell.read);
  } else if (!precedes(cell.read)) {
    report("write after an unordered read", at, code, cell.read);
  }
  if (!precedes(cell.read_elsewhere)) report("write after an unordered read", at, code, cell.read_elsewhere);
}

void add_read(Cell& cell, const void* code) {
  const uint32_t warp = uint32_t{1} << warp_of(thread);
  const uint64_t lane = uint64_t{1} << thread % warp_size;
  if (cell.read.block != block || cell.read.block_epoch != block_epoch) {
    if (cell.read.block != block && cell.read.block >= first_block) cell.read_elsewhere = cell.read;
    cell.reading_warps = warp, cell.reading_lanes = lane;
  } else if (cell.reading_warps != warp) {
    cell.reading_warps |= warp;
  } else {
    const bool is_of_epoch = cell.read.warp_epoch == warp_epochs[warp_of(thread)];
    cell.reading_lanes = is_of_epoch ? cell.reading_lanes | lane : lane;
  }
  cell.read = access_at(code);
}

template <bool kIsWrite>
__attribute__((noinline)) void track(const void* memory, size_t bytes, const void* code) {
  const char* const begin = static_cast<const char*>(memory);
  ++now;
  for (const char* at = begin; at < begin + bytes; ++at) {
    Cell* const cell = cell_of(at);
    if (!cell) {
      if (at == begin) return;
      continue;
    }
    if (cell->copied_to_by)
      report(kIsWrite ? "write during a copy to it" : "read before the wait for a copy to it", at, code,
             cell->copied_to_by - 1, block, cell->copy_code);
    if (kIsWrite && cell->copied_from_by)
      report("write during a copy from it", at, code, cell->copied_from_by - 1, block, cell->copy_code);
    if (!precedes(cell->write))
      report(kIsWrite ? "write after an unordered write" : "read after an unordered write", at, code,
             cell->write);
    if constexpr (kIsWrite) {
      check_reads(*cell, at, code);
      cell->write = access_at(code);
    } else {
      add_read(*cell, code);
    }
  }
}

template <class F>
void for_cells(const void* memory, size_t bytes, F&& f) {
  for (size_t i = 0; i < bytes; ++i)
    if (Cell* const cell = cell_of(static_cast<const char*>(memory) + i)) f(*cell);
}

}  // namespace

bool set_tracking(bool is_on) { return std::exchange(is_tracking, is_on && !is_disabled); }

void begin_launch(int size_of_warp) {
  static const bool once = [] {  // kernel parameters are on the main thread's stack
    pthread_attr_t attributes;
    void* begin = nullptr;
    size_t size = 0;
    pthread_getattr_np(pthread_self(), &attributes);
    pthread_attr_getstack(&attributes, &begin, &size);
    pthread_attr_destroy(&attributes);
    add_private(begin, size);
    return true;
  }();
  static_cast<void>(once);
  warp_size = static_cast<uint32_t>(size_of_warp);
  first_block = block + 1;
  tickets.clear();
  global_cells.clear();  // memory may have been reused for another array
}

void begin_block(unsigned index, const void* shared, size_t shared_bytes) {
  if (is_disabled) return;
  ++block;
  block_index = index;
  shared_begin = static_cast<const char*>(shared);
  shared_size = shared_bytes;
  if (shared_cells.size() < shared_bytes) shared_cells.resize(shared_bytes);
  block_epoch = ++last_epoch;
  for (uint32_t& epoch : warp_epochs) epoch = ++last_epoch;
}

void run_thread(unsigned of_block) { thread = of_block; }
void sync_warp(unsigned warp) { warp_epochs[warp] = ++last_epoch; }
void sync_block() { block_epoch = ++last_epoch; }

__attribute__((noinline)) void issue_copy(const void* to, const void* from, size_t bytes) {
  if (is_disabled) return;
  const void* const code = __builtin_return_address(0);
  track<false>(from, bytes, code);
  track<true>(to, bytes, code);
  for_cells(to, bytes, [&](Cell& cell) { cell.copied_to_by = thread + 1, cell.copy_code = code; });
  for_cells(from, bytes, [&](Cell& cell) { cell.copied_from_by = thread + 1, cell.copy_code = code; });
}

__attribute__((noinline)) void finish_copy(const void* to, const void* from, size_t bytes) {
  if (is_disabled) return;
  const void* const code = __builtin_return_address(0);
  for_cells(to, bytes, [](Cell& cell) { cell.copied_to_by = 0; });
  // Another thread's copy from the same byte may be in flight.
  for_cells(from, bytes, [](Cell& cell) {
    if (cell.copied_from_by == thread + 1) cell.copied_from_by = 0;
  });
  track<false>(from, bytes, code);
  track<true>(to, bytes, code);
}

__attribute__((noinline)) void write(const void* to, size_t bytes) {
  if (!is_disabled) track<true>(to, bytes, __builtin_return_address(0));
}

__attribute__((noinline)) void take_ticket(const void* counter, bool is_fence) {
  if (is_disabled) return;
  const auto* const at = static_cast<const char*>(counter);
  ++now;
  for_cells(counter, sizeof(unsigned), [&](const Cell& cell) {  // atomics race with plain writes only
    if (!precedes(cell.write))
      report("ticket after an unordered write", at, __builtin_return_address(0), cell.write);
  });
  tickets[block] = {block_epoch, warp_epochs[warp_of(thread)], thread, now, is_fence};
}

void add_private(const void* begin, size_t bytes) {
  private_memory.emplace_back(static_cast<const char*>(begin), static_cast<const char*>(begin) + bytes);
}

}  // namespace race

// ---------------------------------------------------------------------------------------------------------
// The functions that code compiled with -fsanitize=thread calls

#define SSIM_ACCESS(name, bytes, is_write)                                                \
  extern "C" void name(const void* at) {                                                  \
    if (race::is_tracking) race::track<is_write>(at, bytes, __builtin_return_address(0)); \
  }
#define SSIM_ACCESSES(bytes)                              \
  SSIM_ACCESS(__tsan_read##bytes, bytes, false)           \
  SSIM_ACCESS(__tsan_write##bytes, bytes, true)           \
  SSIM_ACCESS(__tsan_volatile_read##bytes, bytes, false)  \
  SSIM_ACCESS(__tsan_volatile_write##bytes, bytes, true)  \
  SSIM_ACCESS(__tsan_unaligned_read##bytes, bytes, false) \
  SSIM_ACCESS(__tsan_unaligned_write##bytes, bytes, true)
SSIM_ACCESSES(1)
SSIM_ACCESSES(2)
SSIM_ACCESSES(4)
SSIM_ACCESSES(8)
SSIM_ACCESSES(16)
#undef SSIM_ACCESSES
#undef SSIM_ACCESS

extern "C" {
void __tsan_read_range(const void* at, size_t bytes) {
  if (race::is_tracking) race::track<false>(at, bytes, __builtin_return_address(0));
}
void __tsan_write_range(const void* at, size_t bytes) {
  if (race::is_tracking) race::track<true>(at, bytes, __builtin_return_address(0));
}
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}
// Atomics in the harness's libraries. Kernels have no other atomics than tickets.
unsigned char __tsan_atomic8_load(const volatile unsigned char* at, int) {
  return __atomic_load_n(at, __ATOMIC_ACQUIRE);
}
int __tsan_atomic32_load(const volatile int* at, int) { return __atomic_load_n(at, __ATOMIC_ACQUIRE); }
int __tsan_atomic32_fetch_add(volatile int* at, int n, int) {
  return __atomic_fetch_add(at, n, __ATOMIC_ACQ_REL);
}
}
