// Small kernels with and without a race, to test the race detector: `race_selftest NAME` runs one on blocks
// of two warps. test_simt_races.py has the expected reports.
#define SSIM_SIMT

#include <cstdlib>
#include <functional>
#include <iostream>
#include <map>
#include <string>
#include <vector>

#include "../../csrc/cuda/kernels/device.cuh"

namespace {

using namespace ssim_fused::cuda;
constexpr int kThreads = 2 * kWarpSize;

std::vector<float> global(1 << 16, 1.0f);
std::vector<double> sums(64, 0.0);
std::vector<unsigned> counter(1);

float* shared() { return reinterpret_cast<float*>(shared_memory()); }
// Returns an element of global memory that no other thread accesses.
float& own(int thread) { return global[4096 + blockIdx.x * kThreads + static_cast<unsigned>(thread)]; }

void copy(int to, int from) { copy_async<4>(shared() + to, global.data() + from); }

// Threads of different warps write two sums per block, and the last block reads the sums of all blocks.
struct LastBlock {
  bool barrier_before = true, barrier_after = true, ticket = true;

  void operator()(int t) const {
    float* const s = shared();
    if (t == 0) sums[2 * blockIdx.x] = 1;
    if (t == kWarpSize + 1) sums[2 * blockIdx.x + 1] = 1;
    if (barrier_before) __syncthreads();
    if (t == 0)
      *s = ticket ? static_cast<float>(next_ticket(counter.data())) : static_cast<float>(blockIdx.x);
    if (barrier_after) __syncthreads();
    if (*s != static_cast<float>(gridDim.x - 1)) return;
    for (unsigned i = 0; i < 2 * gridDim.x; ++i) own(t) += static_cast<float>(load_fresh(&sums[i]));
  }
};

struct Program {
  int blocks;
  std::function<void(int thread)> run;
};

const std::map<std::string, Program> programs{
    // ---- Barriers
    {"block_barrier",
     {2,
      [](int t) {
        shared()[t] = 1;
        __syncthreads();
        own(t) = shared()[(t + 1) % kThreads];
      }}},
    {"no_block_barrier",
     {2,
      [](int t) {
        shared()[t] = 1;
        own(t) = shared()[(t + 1) % kThreads];
      }}},
    {"warp_barrier",
     {1,
      [](int t) {
        shared()[t] = 1;
        sync_warp();
        own(t) = shared()[t ^ 1];
      }}},
    {"no_warp_barrier",
     {1,
      [](int t) {
        shared()[t] = 1;
        own(t) = shared()[t ^ 1];
      }}},
    {"warp_barrier_between_warps",
     {1,
      [](int t) {
        shared()[t] = 1;
        sync_warp();
        own(t) = shared()[(t + kWarpSize) % kThreads];
      }}},
    {"shuffle_as_barrier",
     {1,
      [](int t) {
        shared()[t] = 1;
        shuffle(1.0f, 0);
        own(t) = shared()[t ^ 1];
      }}},
    {"write_after_read",
     {1,
      [](int t) {
        shared()[t] = 1;
        __syncthreads();
        own(t) = shared()[(t + 1) % kThreads];
        shared()[t] = 2;
      }}},
    {"barrier_before_write",
     {1,
      [](int t) {
        shared()[t] = 1;
        __syncthreads();
        own(t) = shared()[(t + 1) % kThreads];
        __syncthreads();
        shared()[t] = 2;
      }}},
    {"write_after_read_of_two_warps",
     {1,
      [](int t) {
        shared()[t] = 1;
        __syncthreads();
        own(t) = shared()[0];
        sync_warp();
        if (t == 0) shared()[0] = 2;
      }}},
    {"written_twice",
     {1,
      [](int t) {
        if (t < 2) global[0] = static_cast<float>(t);
      }}},
    {"same_value_written_twice",
     {1,
      [](int t) {
        if (t < 2) global[0] = 3;
      }}},
    {"neighbouring_bytes", {1, [](int t) { reinterpret_cast<char*>(shared())[t] = 1; }}},
    {"different_lines",
     {1,
      [](int t) {
        if (t % 2) {
          sync_warp();
        } else {
          sync_warp();
        }
      }}},
    {"part_of_a_warp",
     {1,
      [](int t) {
        if (t % 2) sync_warp();
      }}},
    {"part_of_a_block",
     {1,
      [](int t) {
        if (t < kWarpSize) __syncthreads();
      }}},
    // ---- Asynchronous copies
    {"copy",
     {1,
      [](int t) {
        copy(t, t);
        wait_for_copies();
        own(t) = shared()[t];
      }}},
    {"copy_shared_after_barrier",
     {1,
      [](int t) {
        copy(t, t);
        wait_for_copies();
        __syncthreads();
        own(t) = shared()[(t + 1) % kThreads];
      }}},
    {"no_wait",
     {1,
      [](int t) {
        copy(t, t);
        own(t) = shared()[t];
        wait_for_copies();
      }}},
    {"no_barrier_after_wait",
     {1,
      [](int t) {
        copy(t, t);
        wait_for_copies();
        own(t) = shared()[(t + 1) % kThreads];
      }}},
    {"wait_after_barrier",
     {1,
      [](int t) {
        copy(t, t);
        __syncthreads();
        own(t) = shared()[(t + 1) % kThreads];
        wait_for_copies();
      }}},
    {"destination_written",
     {1,
      [](int t) {
        copy(t, t);
        shared()[t] = 2;
        wait_for_copies();
      }}},
    {"source_written",
     {1,
      [](int t) {
        copy(t, t);
        __syncthreads();
        global[static_cast<size_t>(t)] = 2;
        wait_for_copies();
      }}},
    {"group",
     {1,
      [](int t) {
        copy(t, t);
        commit_copies();
        copy(kThreads + t, kThreads + t);
        commit_copies();
        wait_for_copies_before_last();
        own(t) = shared()[t];
        wait_for_copies();
      }}},
    {"last_group",
     {1,
      [](int t) {
        copy(t, t);
        commit_copies();
        copy(kThreads + t, kThreads + t);
        commit_copies();
        wait_for_copies_before_last();
        own(t) = shared()[kThreads + t];
        wait_for_copies();
      }}},
    {"no_commit",
     {1,
      [](int t) {
        copy(t, t);
        copy(kThreads + t, kThreads + t);
        commit_copies();
        wait_for_copies_before_last();
        own(t) = shared()[t];
        wait_for_copies();
      }}},
    // ---- Blocks
    {"elements_of_blocks", {4, [](int t) { own(t) = 1; }}},
    {"element_of_two_blocks",
     {2,
      [](int t) {
        if (t == 0) global[0] = static_cast<float>(blockIdx.x);
      }}},
    {"read_by_another_block",
     {2,
      [](int t) {
        if (t == 0 && blockIdx.x == 0) own(t) = global[0];
        if (t == 0 && blockIdx.x == 1) global[0] = 2;
      }}},
    {"ticket", {4, LastBlock{}}},
    {"no_barrier_before_ticket", {4, LastBlock{.barrier_before = false}}},
    {"no_barrier_after_ticket", {4, LastBlock{.barrier_after = false}}},
    {"no_ticket", {4, LastBlock{.ticket = false}}},
};

}  // namespace

int main(int argc, char** argv) {
  const auto program = argc == 2 ? programs.find(argv[1]) : programs.end();
  if (program == programs.end()) {
    for (const auto& [name, value] : programs) std::cout << name << "\n";
    return argc == 1 ? 0 : 2;
  }
  simt::launch(program->second.blocks, kThreads, 2048, [&] { program->second.run(threadIdx.x); });
}
