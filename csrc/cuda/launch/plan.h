// The launch planner: divides images into strips, and strips into splits, for one launch of the strip kernel.
// Plain C++ without CUDA; the kernel's traits and the device's occupancy are numbers in its input.
//
// A block marches down a split of a strip, kStepRows rows per step. Narrow strips waste columns, short splits
// waste rows (the warm-up), and too few blocks leave SMs idle in the last wave. The planner minimizes their
// total in a model of time. All blocks on an SM run at the same time, and a step of all of them takes
//
//     warps per scheduler + kLatency
//
// turns, where a turn is the time in which one warp issues the instructions of a step. kLatency stands for
// the time lost to barriers and latencies. A launch that fits one wave takes
//
//     (steps of a block + kStartUp) x (warps per scheduler + kLatency)
//
// turns. A larger launch takes the time of a full SM times the number of waves plus kTail, because the blocks
// of the last wave start on the SMs that finish first instead of being spread over all of them.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <vector>

namespace ssim_fused::cuda {

// A variant of the kernel that may be launched.
struct StripVariant {
  int columns;        // columns of a strip, and threads of a block
  int owned;          // columns owned by every strip except the last; 0: there is only one strip
  int last;           // columns that the last strip may own
  int blocks_per_sm;  // that fit at the same time; 0: the kernel cannot run
};

struct PlanInput {
  int64_t planes, height, width;
  int halo;         // rows above and below the owned ones that a block also processes
  int window_halo;  // the same at the top of the image, where only the window extends beyond it
  int step_rows;
  int warp_size;
  int sms;

  bool operator==(const PlanInput&) const = default;
};

// A plan numbers the rows of all strips of all planes consecutively and gives each block an equal number of
// them. A strip has `rows_of_strip` rows: the image's, or the total of the blocks that share it.
struct Plan {
  int variant = -1;    // index of the variant; -1: none fits
  int64_t strips = 0;  // per plane
  int64_t blocks = 0, rows = 0, rows_of_strip = 0;
  double cost = 0;  // in turns

  // Returns the largest number of blocks that share a strip.
  int64_t parts() const {
    if (rows_of_strip % rows == 0) return rows_of_strip / rows;
    return rows % rows_of_strip == 0 ? 1 : (rows_of_strip - 2) / rows + 2;
  }
};

constexpr double kLatency = 1.5;            // warps per scheduler
constexpr double kStartUp = 1.5;            // steps: pivot, first rows, sums
constexpr double kTail = 0.5;               // waves: the least cost of a partial last one
constexpr int64_t kMaxBlocks = 2147483647;  // CUDA's bound on grid.x
constexpr double kMarginColumns = 12;       // columns by which margins increase the cost of a strip
constexpr int kSchedulers = 4;              // per SM

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Returns the number of strips per plane, or 0 if the image is too wide for the variant.
inline int64_t strip_count(int64_t width, const StripVariant& v) {
  if (width <= v.last) return 1;
  return v.owned > 0 ? 1 + ceil_div(width - v.last, v.owned) : 0;
}

// Returns the largest number of steps of a block.
inline double block_steps(const PlanInput& in, const Plan& plan) {
  const auto steps = [&](int64_t rows) { return static_cast<double>(ceil_div(rows, in.step_rows)); };
  if (plan.rows < plan.rows_of_strip && plan.rows_of_strip % plan.rows == 0)
    return steps(plan.rows + 2 * in.halo) + kStartUp;
  if (plan.rows == plan.rows_of_strip) return steps(in.height + in.window_halo + in.halo) + kStartUp;
  // A block has parts of several strips. The steps of its first and its last part may be partly empty.
  const auto strips = static_cast<double>(ceil_div(plan.rows - 1, plan.rows_of_strip) + 1);
  const double warm_up = static_cast<double>(in.window_halo + in.halo) / in.step_rows + 0.5;
  return steps(plan.rows) + strips * (warm_up + kStartUp);
}

// Returns the time of a launch in turns.
inline double launch_cost(const PlanInput& in, const StripVariant& v, const Plan& plan) {
  const double steps = block_steps(in, plan);
  const double warps = (v.columns + kMarginColumns) / in.warp_size / kSchedulers;  // per block and scheduler
  const int64_t slots = static_cast<int64_t>(in.sms) * v.blocks_per_sm;
  if (plan.blocks <= slots)
    return steps * (static_cast<double>(ceil_div(plan.blocks, in.sms)) * warps + kLatency);
  const double waves = static_cast<double>(plan.blocks) / static_cast<double>(slots);
  return steps * std::max(std::ceil(waves), waves + kTail) * (v.blocks_per_sm * warps + kLatency);
}

// Returns the plan of the lowest cost over all variants.
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
      // Use all rows of the last step.
      const int64_t steps = ceil_div(ceil_div(in.height, splits) + 2 * in.halo, in.step_rows);
      const int64_t rows =
          splits == 1 ? in.height : std::min<int64_t>(in.height, steps * in.step_rows - 2 * in.halo);
      splits = ceil_div(in.height, rows);
      consider(all_strips * splits, rows, splits * rows);
    };
    const int64_t slots = static_cast<int64_t>(in.sms) * v.blocks_per_sm;
    // Small numbers of splits, and those that fill whole waves, or give every SM the same number of blocks.
    for (int64_t splits = 1; splits <= 8; ++splits) consider_splits(splits);
    for (int64_t waves = 1; waves <= 6; ++waves) consider_splits(waves * slots / all_strips);
    for (int64_t blocks = 1; blocks < v.blocks_per_sm; ++blocks)
      consider_splits(blocks * in.sms / all_strips);
    // Whole waves of blocks that continue from strip to strip, each with the same number of rows.
    for (int64_t waves = 1; waves <= 3; ++waves) {
      const int64_t rows = ceil_div(all_strips * in.height, waves * slots);
      if (4 * rows > in.height) consider(ceil_div(all_strips * in.height, rows), rows, in.height);
    }
    // Whole strips, several per block if the grid would exceed kMaxBlocks: a plan for images of any size.
    const int64_t some = ceil_div(all_strips, kMaxBlocks);
    consider(ceil_div(all_strips, some), some * in.height, in.height);
  }
  return best;
}

// The most recent plans of one thread for one list of variants.
class PlanCache {
 public:
  template <class F>
  Plan get(int device, const PlanInput& input, F&& plan) {
    for (const Entry& entry : entries_) {
      if (device >= 0 && entry.device == device && entry.input == input) return entry.plan;
    }
    Entry& oldest = entries_[next_++ % entries_.size()];
    oldest.device = -1;  // stays so if `plan` throws
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
