// Parts that all launches share: windows, results, scratch and the reduction; and launches of the strip
// kernel. They are templates over a launcher: that for a CUDA stream (launcher.cuh), or that for the host's
// fibers in the tests. A launcher has
//
//     int sms() const;
//     int64_t l2_bytes() const;
//     template <auto kernel> int blocks_per_sm(int threads, int shared_bytes);
//     Plan choose(plan, input, variants);  // returns `plan`; the tests may return another one
//     template <auto kernel> void launch(int64_t blocks, int threads, int shared_bytes, const Params&);
//     // Memory in pieces aligned to 256 bytes. It is valid until the launches of this launcher are done.
//     std::vector<char*> scratch(const std::vector<int64_t>& bytes);
//     // Memory that outlives this launcher if it runs a level of MS-SSIM; otherwise like `scratch`.
//     std::vector<char*> kept(const std::vector<int64_t>& bytes);
//     int device() const;  // the device for which plans are cached; negative: they are not cached
#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>
#include <vector>

#include "../kernels/pivot.cuh"
#include "../kernels/pixel_term_sums.cuh"
#include "../kernels/reduce.cuh"
#include "../kernels/strip/march.cuh"
#include "plan.h"

namespace ssim_fused::cuda {

// The size of scratch between passes. It holds as many planes or volumes as fit, at least one.
constexpr int64_t kSlabBytes = int64_t{1} << 28;
constexpr int64_t kMostAbreast = 8;  // channels whose pixels of 4 bytes fill a sector of 32 bytes

// The window of each axis in the compute type, [2 radius + 1].
template <class T>
struct WindowTaps {
  std::vector<T> depth, rows, columns;
};

// Returns whether the windows of a problem see mostly zero padding.
template <class Problem, class T>
bool see_padding(const Problem& problem, const WindowTaps<T>& windows) {
  return is_mostly_padding(weight_of_image(problem.depth, windows.depth) *
                           weight_of_image(problem.rows, windows.rows) *
                           weight_of_image(problem.columns, windows.columns));
}

template <class T>
struct Results {                  // null: not requested
  T* similarity = nullptr;        // [B]
  T* batch_similarity = nullptr;  // [1]: the sum of `similarity`, times `scale`
  T* contrast = nullptr;          // [B]
  T* grad_constants = nullptr;    // [B, 2]
  double scale = 1;
  bool as_distance = false;
  double outputs = 0, cropped = 0;    // outputs per image, and those in the crop
  const double* mask_sums = nullptr;  // [B, kMaskSums], set by the launches of a call
  PixelTermSums pixel_term_sums;      // set by the launches of a call, if there is a pixel term
  PixelTermResults<T> pixel_term;
  // Where the pass leaves its sums, in kept memory, instead of computing the results above.
  PassSums* sums_to = nullptr;
};

// Computes the requested results from the sums of `blocks` blocks per image, or stores the sums in
// `results.sums_to`.
template <class T, class Launcher>
void reduce(const BlockSums& sums, int64_t batch, int64_t blocks, int count, const Results<T>& results,
            Launcher& launcher) {
  const PassSums pass{sums,
                      batch,
                      blocks,
                      count,
                      results.outputs,
                      results.cropped,
                      results.pixel_term_sums,
                      results.mask_sums};
  if (results.sums_to) {
    *results.sums_to = pass;
    return;
  }
  if (!results.similarity && !results.batch_similarity && !results.contrast && !results.grad_constants)
    return;
  const ReduceParams<T> params{pass,
                               results.as_distance,
                               results.scale,
                               results.similarity,
                               results.batch_similarity,
                               results.contrast,
                               results.grad_constants,
                               results.pixel_term};
  launcher.template launch<reduce_kernel<T>>(batch, kReduceThreads, kReduceShared, params);
}

// Pieces of device memory from one allocation: first `add` all pieces, then `allocate` them, then use `at`.
class Scratch {
 public:
  template <class T>
  size_t add(int64_t count) {
    bytes_.push_back(count * static_cast<int64_t>(sizeof(T)));
    return bytes_.size() - 1;
  }
  template <class Launcher>
  void allocate(Launcher& launcher) {
    pieces_ = launcher.scratch(bytes_);
  }
  // Like `allocate`, for memory from which results are computed, possibly after the launcher is gone.
  template <class Launcher>
  void keep(Launcher& launcher) {
    pieces_ = launcher.kept(bytes_);
  }
  template <class T>
  T* at(size_t piece) const {
    return reinterpret_cast<T*>(pieces_[piece]);
  }

 private:
  std::vector<int64_t> bytes_;
  std::vector<char*> pieces_;
};

// Sums the mask's weights of each image over its channels, into totals [B, kMaskSums].
template <class T, class Launcher>
void sum_masks(MaskSumParams params, int64_t batch, int64_t channels, double* totals, Launcher& launcher) {
  const int64_t of_mask = params.mask.stride[1] == 0 ? 1 : channels;
  params.rows_of_image = of_mask * params.depth.n * params.rows.n;
  const int64_t fill = ceil_div(int64_t{8} * launcher.sms(), batch);  // blocks that fill the device
  params.blocks = std::clamp<int64_t>(ceil_div(params.rows_of_image, kReduceThreads / kWarpSize), 1, fill);
  Scratch scratch;
  const size_t sums = scratch.add<double>(batch * params.blocks * kMaskSums);
  scratch.allocate(launcher);
  params.sums = scratch.at<double>(sums);
  launcher.template launch<mask_sums_kernel<T>>(batch * params.blocks, kReduceThreads, kMaskSumsShared,
                                                params);
  launcher.template launch<mask_totals_kernel<kReduceThreads>>(
      batch, kReduceThreads, kMaskSumsShared,
      MaskTotalParams{params.sums, params.blocks, static_cast<double>(channels / of_mask), totals});
}

// Returns `results` with the sums of the pixel term, which a separate pass computes if there is one.
template <bool Masked = false, class Storage, class Launcher>
Results<ComputeOf<Storage>> with_pixel_term_sums(const Problem<Storage>& problem,
                                                 Results<ComputeOf<Storage>> results, Launcher& launcher,
                                                 const Weights& mask = {}) {
  if (problem.pixel_term.term == PixelTerm::none) return results;
  PixelTermSumParams<Storage, Masked> params{problem.preds, problem.target, problem.pixel_term};
  params.mask = mask;
  params.depth = problem.depth.n;
  params.rows = problem.rows.n;
  params.columns = problem.columns.n;
  params.rows_of_image = problem.channels * params.depth * params.rows;
  const int64_t fill = ceil_div(int64_t{8} * launcher.sms(), problem.batch);  // blocks that fill the device
  params.blocks = std::clamp<int64_t>(ceil_div(params.rows_of_image, kReduceThreads / kWarpSize), 1, fill);
  Scratch scratch;
  const size_t sums = scratch.add<double>(problem.batch * params.blocks);
  scratch.keep(launcher);
  params.sums = scratch.at<double>(sums);
  launcher.template launch<pixel_term_sums_kernel<Storage, Masked>>(
      problem.batch * params.blocks, kReduceThreads, kPixelTermSumsShared, params);
  results.pixel_term_sums.sums = params.sums;
  results.pixel_term_sums.blocks = params.blocks;
  results.pixel_term_sums.stride = 1;
  return results;
}

// Chooses one pivot per volume or plane, into pivots [B * C].
template <class Storage, class Launcher>
void find_pivots(const Problem<Storage>& problem, ComputeOf<Storage>* pivots, Launcher& launcher,
                 const Weights& mask = {}) {
  launcher.template launch<pivot_kernel<Storage>>(
      problem.batch * problem.channels, kWarpSize, 0,
      PivotParams<Storage>{problem.target, problem.channels, problem.depth.n, problem.rows.n,
                           problem.columns.n, pivots, mask});
}

// -----------------------------------------------------------------------------------------------------------
// Launches of the strip kernel

// Copies a window to the middle of an array of kTaps taps, and zeros to the rest.
template <class T, size_t kTaps>
void centre(T (&out)[kTaps], const std::vector<T>& window) {
  std::fill(std::begin(out), std::end(out), T(0));
  std::copy(window.begin(), window.end(), std::begin(out) + kTaps / 2 - window.size() / 2);
}

template <class Storage>
bool is_vectors(const DeviceImage<Storage>& array) {
  if (!array.data) return true;
  if constexpr (std::is_same_v<Storage, const AnyPixel>) return false;
  constexpr int64_t kSize = Vector<KeptAs<std::remove_const_t<Storage>>>::kSize;
  return reinterpret_cast<uintptr_t>(array.data) % 16 == 0 && array.stride[3] == 1 && array.stride[2] >= 0 &&
         array.stride[2] < kMaxAxis &&  // row strides in bytes fit 32 bits
         array.stride[2] % kSize == 0 && array.stride[1] % kSize == 0 && array.stride[0] % kSize == 0 &&
         array.slice_stride % kSize == 0;
}

// Returns the parameters of the strip kernel, except for the plan. `mirrors`: the adjoint may mirror
// derivatives if the padding permits it.
template <int Radius = kMarchRadius, class Storage>
StripParams<Storage, Radius> strip_params(const Problem<Storage>& problem,
                                          const WindowTaps<ComputeOf<Storage>>& windows, bool mirrors) {
  StripParams<Storage, Radius> params{problem};
  params.vectors = is_vectors(problem.preds) && is_vectors(problem.target) &&
                   is_vectors(problem.grad_preds) && is_vectors(problem.grad_target) &&
                   problem.columns.n % Vector<KeptAs<Storage>>::kSize == 0;
  const auto is_dense = [](const auto& array) { return !array.data || array.stride[3] == 1; };
  params.dense = is_dense(problem.preds) && is_dense(problem.target) && is_dense(problem.grad_preds) &&
                 is_dense(problem.grad_target);
  const int64_t strides[] = {problem.preds.stride[2], problem.target.stride[2], problem.grad_preds.stride[2],
                             problem.grad_target.stride[2]};
  for (int i = 0; i < 4; ++i) {
    params.row_bytes[i] = params.vectors ? static_cast<uint32_t>(strides[i] * int64_t{sizeof(Storage)}) : 0;
  }
  centre(params.row_taps, windows.rows);
  centre(params.column_taps, windows.columns);
  // If the window is symmetric, mirroring is its own adjoint far from the other border, except for the column
  // that it is about.
  params.mirrors = mirrors && problem.columns.reflects && problem.columns.pad == Radius &&
                   problem.columns.radius == Radius && problem.columns.n >= 2 * taps_of(Radius) &&
                   std::equal(windows.columns.begin(), windows.columns.end(), windows.columns.rbegin());
  return params;
}

// A strip that is compiled for a kind of call: its number of columns, and whether it must cover the whole
// image.
template <int Columns, bool Single = false>
struct StripShape {
  static constexpr int kColumns = Columns;
  static constexpr bool kSingle = Single;
};
template <class... Shapes>
struct StripShapes {};

// A kind of call of the strip kernel, without the shape of the strips.
template <class Storage_, GradientsOf gradients, Objective objective, bool Narrow, Pass pass = Pass::image,
          bool HasPixelTerm = false, int Radius = kMarchRadius>
struct StripCall {
  using Storage = Storage_;
  using Params = StripParams<Storage, Radius>;
  // Rows above and below the owned ones that a march also processes. kWindowHalo applies at the top of the
  // image.
  static constexpr int kHalo = pass == Pass::image && gradients != GradientsOf::none ? 2 * Radius : Radius;
  static constexpr int kWindowHalo = pass == Pass::gradient ? 0 : Radius;
  template <class Shape>
  using Config = StripConfig<Storage, Shape::kColumns, gradients, objective, Narrow, Shape::kSingle, pass,
                             HasPixelTerm, Radius>;
  static constexpr int kSums = Config<StripShape<64>>::kSums;
};

template <class Call, class Launcher, class... Shapes>
Plan plan_call(const typename Call::Params& params, int64_t planes, Launcher& launcher,
               StripShapes<Shapes...>) {
  const PlanInput input{planes,    params.rows.n, params.columns.n, Call::kHalo, Call::kWindowHalo,
                        kStepRows, kWarpSize,     launcher.sms()};
  const auto variant = [&]<class Shape>() {
    using Config = typename Call::template Config<Shape>;
    return StripVariant{Config::kColumns, Config::kSingle ? 0 : Config::kOwned, Config::kLast,
                        launcher.template blocks_per_sm<strip_kernel<Config>>(
                            Config::kThreads, StripMarch<Config>::kSharedBytes)};
  };
  thread_local PlanCache cache;
  return cache.get(launcher.device(), input, [&] {
    const std::vector<StripVariant> variants{variant.template operator()<Shapes>()...};
    return launcher.choose(plan_strips(input, variants), input, variants);
  });
}

// Returns the number of channels that are interleaved in both images, or 1 if they are not. Reading
// one channel of such an image fetches the sectors of all channels. So blocks that start together process the
// same rows of different channels: sectors that one block reads, or writes in part, are then in L2 for the
// others.
template <class Storage>
int channels_abreast(const Problem<Storage>& problem) {
  const auto is_interleaved = [&](const auto& array) {
    return array.stride[1] == 1 && array.stride[3] == problem.channels;
  };
  const bool all = is_interleaved(problem.preds) && is_interleaved(problem.target);
  return all && problem.channels <= kMostAbreast ? static_cast<int>(problem.channels) : 1;
}

// Returns the plan for `abreast` channels side by side, with the same number of blocks for each.
inline Plan plan_abreast(Plan plan, int64_t planes, int abreast) {
  if (abreast == 1) return plan;
  const int64_t rows_of_channel = planes / abreast * plan.strips * plan.rows_of_strip;
  if (plan.rows_of_strip % plan.rows != 0)  // blocks continue from strip to strip
    plan.rows = ceil_div(rows_of_channel, std::max<int64_t>(1, plan.blocks / abreast));
  plan.blocks = abreast * ceil_div(rows_of_channel, plan.rows);
  return plan;
}

// Launches the plan for `planes` planes, which may be fewer than it was made for.
template <class Call, class Launcher, class... Shapes>
void launch_call(const Plan& plan, typename Call::Params params, int64_t planes, Launcher& launcher,
                 StripShapes<Shapes...>, int abreast = 1) {
  params.strips = static_cast<int>(plan.strips);
  params.abreast = abreast;
  params.all_strips = planes / abreast * plan.strips;
  params.rows_of_strip = plan.rows_of_strip;
  params.rows_of_block = plan.rows;
  params.parts = static_cast<int>(plan.parts());
  const int64_t blocks = abreast * ceil_div(params.all_strips * plan.rows_of_strip, plan.rows);
  int index = 0;
  const auto launch = [&]<class Shape>() {
    if (index++ != plan.variant) return;
    using Config = typename Call::template Config<Shape>;
    launcher.template launch<strip_kernel<Config>>(blocks, Config::kThreads, StripMarch<Config>::kSharedBytes,
                                                   params);
  };
  (launch.template operator()<Shapes>(), ...);
}

}  // namespace ssim_fused::cuda
