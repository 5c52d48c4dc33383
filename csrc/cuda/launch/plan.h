// The launch planner: how an image is cut into strips and splits, for one launch of the strip kernel. Plain
// C++, no CUDA; the kernel's traits and the device's occupancy come in as numbers.
//
// A block marches down a split of a strip, kStepRows rows a step. Narrow strips waste columns, low splits
// waste rows (the warm-up), and few blocks leave the last wave of SMs idle; the planner weighs the three. Its
// model of time: the blocks an SM holds at once run together, and a step of all of them takes
//
//     warps per scheduler + kLatency
//
// turns, a turn being what one warp issues in a step. The constant stands for what barriers and latencies
// leave idle. A launch that fits one wave takes
//
//     (steps of a block + kStartUp) x (warps per scheduler + kLatency)
//
// and one that does not, that of a full SM times the number of waves, with kTail more for what the last one
// leaves idle: it lands on the SMs that are first to finish, all their blocks at once, and not on all SMs.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <vector>

namespace ssim_fused::cuda {

// A variant of the kernel that may be launched.
struct StripVariant {
  int columns;        // of the strip, and threads of a block
  int owned;          // columns of every strip but the last; 0: there is only one
  int last;           // columns the last strip may own
  int blocks_per_sm;  // that fit at once; 0 where it cannot run
};

struct PlanInput {
  int64_t planes, height, width;
  int halo;         // rows before, and after, the owned ones that have to be marched through
  int window_halo;  // the same at the top of the image, where only the window reaches out
  int step_rows;
  int warp_size;
  int sms;

  bool operator==(const PlanInput&) const = default;
};

// The rows of all strips of all planes are counted through, and every block has as many of them. A strip
// counts as many rows as the image has, or as the blocks have that share it.
struct Plan {
  int variant = -1;    // index; -1 where none fits
  int64_t strips = 0;  // of a plane
  int64_t blocks = 0, rows = 0, rows_of_strip = 0;
  double cost = 0;  // in turns

  // Blocks that share a strip, at most.
  int64_t parts() const {
    if (rows_of_strip % rows == 0) return rows_of_strip / rows;
    return rows % rows_of_strip == 0 ? 1 : (rows_of_strip - 2) / rows + 2;
  }
};

constexpr double kLatency = 1.5;            // in warps per scheduler
constexpr double kStartUp = 1.5;            // in steps: pivot, first rows, sums
constexpr double kTail = 0.5;               // of a wave, at least
constexpr int64_t kMaxBlocks = 2147483647;  // CUDA's bound on grid.x
constexpr double kMarginColumns = 12;       // what staging a strip's margins costs, in columns
constexpr int kSchedulers = 4;              // of an SM

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// 0: the image is too wide.
inline int64_t strip_count(int64_t width, const StripVariant& v) {
  if (width <= v.last) return 1;
  return v.owned > 0 ? 1 + ceil_div(width - v.last, v.owned) : 0;
}

// Steps of a block, at most.
inline double block_steps(const PlanInput& in, const Plan& plan) {
  const auto steps = [&](int64_t rows) { return static_cast<double>(ceil_div(rows, in.step_rows)); };
  if (plan.rows < plan.rows_of_strip && plan.rows_of_strip % plan.rows == 0)
    return steps(plan.rows + 2 * in.halo) + kStartUp;
  if (plan.rows == plan.rows_of_strip) return steps(in.height + in.window_halo + in.halo) + kStartUp;
  // Parts of several strips; of the first and the last, a step more where it is not filled.
  const auto strips = static_cast<double>(ceil_div(plan.rows - 1, plan.rows_of_strip) + 1);
  const double warm_up = static_cast<double>(in.window_halo + in.halo) / in.step_rows + 0.5;
  return steps(plan.rows) + strips * (warm_up + kStartUp);
}

inline double launch_cost(const PlanInput& in, const StripVariant& v, const Plan& plan) {
  const double steps = block_steps(in, plan);
  const double warps =
      (v.columns + kMarginColumns) / in.warp_size / kSchedulers;  // of one block, per scheduler
  const int64_t slots = static_cast<int64_t>(in.sms) * v.blocks_per_sm;
  if (plan.blocks <= slots)
    return steps * (static_cast<double>(ceil_div(plan.blocks, in.sms)) * warps + kLatency);
  const double waves = static_cast<double>(plan.blocks) / static_cast<double>(slots);
  return steps * std::max(std::ceil(waves), waves + kTail) * (v.blocks_per_sm * warps + kLatency);
}

inline Plan plan_strips(const PlanInput& in, const std::vector<StripVariant>& variants) {
  Plan best;
  for (size_t i = 0; i < variants.size(); ++i) {
    const StripVariant& v = variants[i];
    const int64_t strips = strip_count(in.width, v);
    if (v.blocks_per_sm <= 0 || strips == 0) continue;
    const int64_t all_strips = in.planes * strips;
    const auto consider = [&](int64_t blocks, int64_t rows, int64_t rows_of_strip) {
      if (blocks > kMaxBlocks) return;
      Plan plan{static_cast<int>(i), strips, blocks, rows, rows_of_strip};
      plan.cost = launch_cost(in, v, plan);
      if (best.variant < 0 || plan.cost < best.cost) best = plan;
    };
    const auto consider_splits = [&](int64_t splits) {
      splits = std::clamp<int64_t>(splits, 1, in.height);
      // Rows that fill the last step, too.
      const int64_t steps = ceil_div(ceil_div(in.height, splits) + 2 * in.halo, in.step_rows);
      const int64_t rows =
          splits == 1 ? in.height : std::min<int64_t>(in.height, steps * in.step_rows - 2 * in.halo);
      splits = ceil_div(in.height, rows);
      consider(all_strips * splits, rows, splits * rows);
    };
    const int64_t slots = static_cast<int64_t>(in.sms) * v.blocks_per_sm;
    // A few splits, and those that just fill some whole number of waves, or some blocks on every SM.
    for (int64_t splits = 1; splits <= 8; ++splits) consider_splits(splits);
    for (int64_t waves = 1; waves <= 6; ++waves) consider_splits(waves * slots / all_strips);
    for (int64_t blocks = 1; blocks < v.blocks_per_sm; ++blocks)
      consider_splits(blocks * in.sms / all_strips);
    // Or one wave, every block with as many rows, from strip to strip.
    for (int64_t waves = 1; waves <= 3; ++waves) {
      const int64_t rows = ceil_div(all_strips * in.height, waves * slots);
      if (4 * rows > in.height) consider(ceil_div(all_strips * in.height, rows), rows, in.height);
    }
    // Enough for a grid of any size.
    const int64_t some = ceil_div(all_strips, kMaxBlocks);
    consider(ceil_div(all_strips, some), some * in.height, in.height);
  }
  return best;
}

// The last plans of one list of variants, of one thread.
class PlanCache {
 public:
  template <class F>
  Plan get(int device, const PlanInput& input, F&& plan) {
    for (const Entry& entry : entries_) {
      if (device >= 0 && entry.device == device && entry.input == input) return entry.plan;
    }
    Entry& oldest = entries_[next_++ % entries_.size()];
    oldest.device = -1;  // where `plan` throws
    const Plan made = plan();
    oldest = {device, input, made};
    return made;
  }

 private:
  struct Entry {
    int device = -1;
    PlanInput input{};
    Plan plan;
  };
  std::array<Entry, 16> entries_;
  size_t next_ = 0;
};

}  // namespace ssim_fused::cuda
