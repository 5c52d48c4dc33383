// The launch planner: how an image is cut into strips and splits, for one launch of the strip kernel. Plain
// C++, no CUDA; the kernel's traits and the device's occupancy come in as numbers.
//
// A block marches down a split of a strip, kRows rows a step. Narrow strips waste columns, low splits waste
// rows (the warm-up), and few blocks leave the last wave of SMs idle; the planner weighs the three. Its model
// of time: the blocks an SM holds at once run together, and a step of all of them takes
//
//     warps per scheduler + kLatency
//
// turns, a turn being what one warp issues in a step. The constant stands for what barriers and latencies
// leave idle: 4 warps per scheduler keep it 80 % busy, as was measured. A launch then takes
//
//     sum over waves of (steps of a block + kStartUp) x (warps per scheduler of that wave + kLatency)
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

namespace ssim_fused {

// A variant of the kernel that may be launched.
struct StripVariant {
  int columns;        // of the strip, and threads of a block
  int step;           // columns owned by every strip but the last
  int last;           // columns the last strip may own
  int blocks_per_sm;  // that fit at once; 0 where it cannot run
};

struct PlanInput {
  int64_t planes, height, width;
  int halo;         // rows before, and after, the owned ones that have to be marched through
  int window_halo;  // the same at the top of the image, where only the window reaches out
  int rows_of_step;
  int sms;
};

struct Plan {
  int variant = -1;  // index; -1 where none fits
  int64_t strips = 0, splits = 0, rows = 0;
  double cost = 0;  // in turns
};

constexpr double kLatency = 1.0;  // in warps per scheduler
constexpr double kStartUp = 1.5;  // in steps: pivot, first rows, sums
constexpr int kSchedulers = 4;    // of an SM

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

inline int64_t strip_count(int64_t width, const StripVariant& v) {
  return width <= v.last ? 1 : 1 + ceil_div(width - v.last, v.step);
}

// Rows a block marches through, at most.
inline int64_t marched_rows(const PlanInput& in, int64_t splits, int64_t rows) {
  return splits == 1 ? in.height + in.window_halo + in.halo : rows + 2 * in.halo;
}

inline double launch_cost(const PlanInput& in, const StripVariant& v, int64_t blocks, int64_t marched) {
  const double steps = static_cast<double>(ceil_div(marched, in.rows_of_step)) + kStartUp;
  const double warps = v.columns / 32.0 / kSchedulers;  // of one block, per scheduler
  const int64_t slots = static_cast<int64_t>(in.sms) * v.blocks_per_sm;
  const int64_t waves = blocks / slots;
  const double full = static_cast<double>(waves) * (v.blocks_per_sm * warps + kLatency);
  const int64_t rest = ceil_div(blocks % slots, in.sms);
  const double last = rest > 0 ? static_cast<double>(rest) * warps + kLatency : 0;
  return steps * (full + last);
}

inline Plan plan_strips(const PlanInput& in, const std::vector<StripVariant>& variants) {
  Plan best;
  for (size_t i = 0; i < variants.size(); ++i) {
    const StripVariant& v = variants[i];
    if (v.blocks_per_sm <= 0) continue;
    const int64_t strips = strip_count(in.width, v);
    const auto consider = [&](int64_t splits) {
      splits = std::clamp<int64_t>(splits, 1, in.height);
      // Rows that fill the last step, too.
      const int64_t steps = ceil_div(ceil_div(in.height, splits) + 2 * in.halo, in.rows_of_step);
      const int64_t rows =
          splits == 1 ? in.height : std::min<int64_t>(in.height, steps * in.rows_of_step - 2 * in.halo);
      splits = ceil_div(in.height, rows);
      const double cost = launch_cost(in, v, in.planes * strips * splits, marched_rows(in, splits, rows));
      if (best.variant < 0 || cost < best.cost) {
        best = {static_cast<int>(i), strips, splits, rows, cost};
      }
    };
    // A few splits, and those that just fill some whole number of waves.
    const int64_t slots = static_cast<int64_t>(in.sms) * v.blocks_per_sm;
    for (int64_t splits = 1; splits <= 4; ++splits) consider(splits);
    for (int64_t waves = 1; waves <= 6; ++waves) consider(waves * slots / (in.planes * strips));
    for (int64_t blocks = 1; blocks < v.blocks_per_sm; ++blocks)
      consider(blocks * in.sms / (in.planes * strips));
  }
  return best;
}

}  // namespace ssim_fused
