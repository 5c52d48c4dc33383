// SSIM of images and volumes with windows of any length, by the kernels of wide_axis.cuh and wide_row.cuh.
// Slabs of whole volumes take these passes:
//
//   wide_moments    columns            preds, target -> moments
//   wide_filter     rows               moments -> moments
//   wide_formula    depth, formula     moments -> derivatives
//   wide_filter     depth, adjoint     derivatives -> derivatives
//   wide_filter     rows, adjoint      derivatives -> derivatives
//   wide_gradient   columns, adjoint   derivatives -> gradients
//
// An image is processed as a volume whose slices are the rows of the image, one row each, so the passes along
// rows are not needed.
//
// Scratch holds the fields of a slab, and `between`, at most about one field more, for data from one pass to
// the next. Passes along rows and columns need one slice at a time, passes along the depth one group of
// columns. Pairs of passes therefore process a slab in chunks: `between` stays in the L2 cache, and the
// results replace the fields.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <utility>
#include <vector>

#include "../kernels/wide_row.cuh"
#include "call.cuh"

namespace ssim_fused::cuda {

constexpr int64_t kWideSharedBytes = 48 << 10;  // available to a block on every device without opting in

// The window of an axis on the device, forward and in reverse.
template <class T>
struct DeviceTaps {
  const T *forward, *reverse;
  T sum;
  bool is_identity;
};

// Uploads all windows, forward and in reverse, each padded to whole kRun.
template <class T>
class TapsUpload {
 public:
  explicit TapsUpload(const WindowTaps<T>& windows) {
    const std::vector<T>* const axes[] = {&windows.depth, &windows.rows, &windows.columns};
    for (size_t d = 0; d < 3; ++d) {
      const std::vector<T>& taps = *axes[d];
      places_[d] = {append(taps.begin(), taps.end()), append(taps.rbegin(), taps.rend())};
      result_[d] = {nullptr, nullptr, std::accumulate(taps.begin(), taps.end(), T(0)),
                    taps.size() == 1 && taps[0] == T(1)};
    }
  }

  int64_t count() const { return static_cast<int64_t>(all_.size()); }
  // Returns the taps without their addresses on the device.
  const std::array<DeviceTaps<T>, 3>& taps() const { return result_; }

  // Copies the taps to device memory `out`, which has room for `count()` taps, and returns them with
  // addresses.
  template <class Launcher>
  std::array<DeviceTaps<T>, 3> to(T* out, Launcher& launcher) {
    for (size_t begin = 0; begin < all_.size(); begin += kTapsOfLaunch) {
      TapsParams<T> some{
          out + begin, static_cast<int>(std::min<size_t>(kTapsOfLaunch, all_.size() - begin)), {}};
      std::copy_n(all_.begin() + static_cast<std::ptrdiff_t>(begin), some.count, some.taps);
      launcher.template launch<set_taps_kernel<T>>(1, kTapsOfLaunch, 0, some);
    }
    for (size_t d = 0; d < 3; ++d) {
      result_[d].forward = out + places_[d].first;
      result_[d].reverse = out + places_[d].second;
    }
    return result_;
  }

 private:
  template <class Iterator>
  size_t append(Iterator begin, Iterator end) {
    const size_t place = all_.size();
    all_.insert(all_.end(), begin, end);
    all_.resize(static_cast<size_t>(ceil_div(static_cast<int64_t>(all_.size()), kRun)) * kRun, T(0));
    return place;
  }

  std::vector<T> all_;
  std::array<DeviceTaps<T>, 3> result_;
  std::array<std::pair<size_t, size_t>, 3> places_;
};

template <class T>
WideAxis<T> forward_pass(const DeviceAxis& axis, const DeviceTaps<T>& taps) {
  return {axis, taps.forward, false, axis, taps.forward};
}

template <class T>
WideAxis<T> adjoint_pass(const DeviceAxis& axis, const DeviceTaps<T>& taps) {
  const DeviceAxis back{axis.output_length(), axis.radius, 2 * axis.radius - axis.pad, false};
  return {back, taps.reverse, axis.reflects && axis.pad > 0, axis, taps.forward};
}

// Divides a pass along the columns into blocks: as many rows per block as fit the threads and shared memory.
// A row needs shared memory for `staged` rows of inputs and `results` rows of outputs.
template <class T>
RowShape row_shape(const WideAxis<T>& pass, int staged, int results) {
  const int64_t runs = ceil_div(pass.axis.output_length(), kRun);
  RowShape shape{};
  shape.segments = ceil_div(runs, kWideThreads);
  shape.threads = static_cast<int>(ceil_div(runs, shape.segments));
  const int taps = std::min(2 * pass.axis.radius + 1, kTapChunk);
  shape.staged = banked(static_cast<int>(ceil_div(shape.threads * kRun + taps - 1, kRun)) * kRun);
  const int64_t row = (staged * shape.staged + results * shape.results()) * static_cast<int64_t>(sizeof(T));
  shape.rows = static_cast<int>(std::clamp<int64_t>(kWideSharedBytes / row, 1, kWideThreads / shape.threads));
  return shape;
}

template <class T>
int shared_bytes(const RowShape& shape, int staged, int results) {
  return shape.rows * (staged * shape.staged + results * shape.results()) * static_cast<int>(sizeof(T));
}

// Calls each(begin, end) for about equal parts of [0, count), none longer than `most`.
template <class F>
void for_chunks(int64_t count, int64_t most, F&& each) {
  const int64_t chunk = ceil_div(count, ceil_div(count, std::max<int64_t>(most, 1)));
  for (int64_t begin = 0; begin < count; begin += chunk) each(begin, std::min(count, begin + chunk));
}

// Turns the rows of an image into slices of one row.
template <class Problem>
void rows_to_slices(Problem& problem) {
  std::swap(problem.depth, problem.rows);
  const auto exchange = [](auto& array) { std::swap(array.slice_stride, array.stride[2]); };
  exchange(problem.preds);
  exchange(problem.target);
  exchange(problem.grad_map);
  exchange(problem.map);
  exchange(problem.grad_preds);
  exchange(problem.grad_target);
  if constexpr (requires { problem.mask; }) exchange(problem.mask);
}

template <class Storage, bool Masked, class Launcher>
class WideRun {
  using T = ComputeOf<Storage>;
  static constexpr int kMomentFields = moment_fields(Masked);
  static constexpr int kStaged = Masked ? 3 : 2;  // rows in shared memory: preds, target and the mask

 public:
  WideRun(const ProblemOf<Storage, Masked>& problem, const WindowTaps<T>& windows, Launcher& launcher)
      : problem_(problem),
        launcher_(launcher),
        upload_(windows),
        moments_about_zero_(see_padding(problem, windows) ||
                            (!problem.columns.reflects && problem.columns.pad > problem.columns.radius)) {
    taps_ = upload_.taps();
    is_image_ = problem_.depth.n == 1 && taps_[0].is_identity;
    if (is_image_) {
      rows_to_slices(problem_);
      std::swap(taps_[0], taps_[1]);
    }
    gradients_ = problem_.grad_target.data  ? GradientsOf::both
                 : problem_.grad_preds.data ? GradientsOf::preds
                                            : GradientsOf::none;
    derivatives_ = derivative_fields(gradients_);
    has_rows_ = !taps_[1].is_identity;
    depth_ = problem_.depth.n;
    outputs_ = problem_.depth.output_length();
    length_ = problem_.columns.output_length();
    input_slice_ = problem_.rows.n * length_;
    slice_ = problem_.rows.output_length() * length_;
    groups_of_row_ = ceil_div(length_, kLanes);
    groups_ = ceil_div(slice_, kLanes);
  }

  void run(Results<T> results) {
    const int64_t volumes = problem_.batch * problem_.channels;
    const int sums = problem_.wants_constants ? int{kWithConstants} : int{kMeans};
    const int64_t blocks = groups_ * ceil_div(outputs_, kWideWarps * kRun);

    const int64_t field = depth_ * slice_, bytes = static_cast<int64_t>(sizeof(T));
    const int64_t slab = std::clamp<int64_t>(kSlabBytes / ((kMomentFields + 1) * field * bytes), 1, volumes);
    const int64_t least =
        std::max(has_rows_ ? kMomentFields * input_slice_ : 0, derivatives_ * outputs_ * kLanes);
    between_size_ = std::max(least, std::min(slab * field, launcher_.l2_bytes() * 2 / 3 / bytes));
    Scratch scratch, kept;
    const size_t moments = scratch.add<T>(slab * kMomentFields * field),
                 between = scratch.add<T>(least > 0 ? between_size_ : 0),
                 pivots = scratch.add<T>(moments_about_zero_ ? 0 : volumes),
                 taps = scratch.add<T>(upload_.count()),
                 block_sums = kept.add<double>(BlockSums::size(problem_.batch, volumes * blocks, sums)),
                 mask_sums = kept.add<double>(Masked ? problem_.batch * kMaskSums : 0);
    scratch.allocate(launcher_);
    kept.keep(launcher_);
    moments_ = scratch.at<T>(moments);
    between_ = scratch.at<T>(between);
    problem_.sums.scratch = kept.at<double>(block_sums);
    taps_ = upload_.to(scratch.at<T>(taps), launcher_);
    if (is_image_) std::swap(taps_[0], taps_[1]);
    if (!moments_about_zero_) {
      pivots_ = scratch.at<T>(pivots);
      find_pivots(problem_, scratch.at<T>(pivots), launcher_, mask());
    }
    if constexpr (Masked) {
      results.mask_sums = problem_.mask_sums = kept.at<double>(mask_sums);
      sum_masks<T>(MaskSumParams{problem_.mask, problem_.depth, problem_.rows, problem_.columns},
                   problem_.batch, problem_.channels, kept.at<double>(mask_sums), launcher_);
    }
    for (first_volume_ = 0; first_volume_ < volumes; first_volume_ += slab) {
      volumes_ = std::min(volumes - first_volume_, slab);
      make_moments();
      along_depth(sums);
      if (gradients_ == GradientsOf::preds) make_gradients<GradientsOf::preds>();
      if (gradients_ == GradientsOf::both) make_gradients<GradientsOf::both>();
    }
    reduce(problem_.sums, problem_.batch, problem_.channels * blocks, sums,
           with_pixel_term_sums<Masked>(problem_, results, launcher_, mask()), launcher_);
  }

 private:
  Weights mask() const {
    if constexpr (Masked) return problem_.mask;
    return {};
  }

  // Views of the slab's fields: as slices of rows of columns, and as columns of all slices.
  Lines<T> slab_rows() const {
    const int64_t field = depth_ * slice_;
    return {moments_, 0, kMomentFields * field, slice_, kLanes, field, length_};
  }
  Lines<T> slab_depth() const {
    const int64_t field = depth_ * slice_;
    return {moments_, 0, kMomentFields * field, 0, kLanes, field, slice_};
  }
  // Views of `between`, for the slices, or for the groups of columns, from `first` on.
  Lines<T> slices_between(int64_t fields, int64_t first) const {
    const int64_t slice = fields * input_slice_;
    return {between_, -first * slice, depth_ * slice, slice, kLanes, input_slice_, length_};
  }
  Lines<T> groups_between(int64_t first) const {
    const int64_t group = derivatives_ * outputs_ * kLanes;
    return {between_, -first * group, groups_ * group, 0, group, outputs_ * kLanes, kLanes};
  }
  static Lines<const T> readable(const Lines<T>& lines) {
    return {lines.data, lines.offset, lines.volume, lines.slice, lines.group, lines.field, lines.line};
  }

  int64_t slices_of_chunk(int64_t fields) const {
    return has_rows_ ? between_size_ / (fields * input_slice_) : volumes_ * depth_;
  }

  RowParams<Storage, Masked> row_params(const WideAxis<T>& pass, const RowShape& shape, const Lines<T>& lines,
                                        int64_t begin, int64_t end) const {
    return {problem_, shape, pass, lines, begin, end, first_volume_, pivots_};
  }
  int64_t row_blocks(const RowShape& shape, int64_t slices) const {
    return ceil_div(slices * problem_.rows.n, shape.rows) * shape.segments;
  }

  UnitParams<T> unit_params(const WideAxis<T>& pass, const Lines<T>& in, const Lines<T>& out, int64_t begin,
                            int64_t end, bool along_depth) const {
    UnitParams<T> params{pass, readable(in), out, begin, end, 0, 0, 0, first_volume_, nullptr, T(0)};
    params.slices = along_depth ? 1 : depth_;
    params.groups = along_depth ? groups_ : groups_of_row_;
    params.width = along_depth ? slice_ : length_;
    return params;
  }
  template <int Fields>
  void launch_filter(const UnitParams<T>& params) {
    const int64_t warps =
        (params.end_unit - params.first_unit) * ceil_div(params.pass.axis.output_length(), kRun);
    launcher_.template launch<wide_filter_kernel<T, Fields>>(ceil_div(warps, kWideWarps), kWideThreads, 0,
                                                             FilterParams<T, Fields>{params});
  }

  void make_moments() {
    const auto columns = forward_pass(problem_.columns, taps_[2]),
               rows = forward_pass(problem_.rows, taps_[1]);
    const RowShape shape = row_shape(columns, kStaged, 0);
    for_chunks(volumes_ * depth_, slices_of_chunk(kMomentFields), [&](int64_t begin, int64_t end) {
      const Lines<T> out = has_rows_ ? slices_between(kMomentFields, begin) : slab_rows();
      launcher_.template launch<wide_moments_kernel<Storage, Masked>>(
          row_blocks(shape, end - begin), kWideThreads, shared_bytes<T>(shape, kStaged, 0),
          row_params(columns, shape, out, begin, end));
      if (!has_rows_) return;
      auto params = unit_params(rows, out, slab_rows(), begin * groups_of_row_, end * groups_of_row_, false);
      params.pivots = pivots_;
      params.padding = taps_[2].sum;
      launch_filter<kMomentFields>(params);
    });
  }

  void along_depth(int sums) {
    const auto forward = forward_pass(problem_.depth, taps_[0]),
               adjoint = adjoint_pass(problem_.depth, taps_[0]);
    const int64_t units = volumes_ * groups_;
    const int64_t most = derivatives_ > 0 ? between_size_ / (derivatives_ * outputs_ * kLanes) : units;
    for_chunks(units, most, [&](int64_t begin, int64_t end) {
      const Lines<T> between = groups_between(begin);
      FormulaParams<Storage, Masked> formula{unit_params(forward, slab_depth(), between, begin, end, true),
                                             problem_, gradients_, sums};
      formula.pivots = pivots_;
      formula.padding = taps_[2].sum * taps_[1].sum;
      launcher_.template launch<wide_formula_kernel<Storage, Masked>>(
          (end - begin) * ceil_div(outputs_, kWideWarps * kRun), kWideThreads, kWideSumsShared, formula);
      const auto params = unit_params(adjoint, between, slab_depth(), begin, end, true);
      if (gradients_ == GradientsOf::preds) launch_filter<derivative_fields(GradientsOf::preds)>(params);
      if (gradients_ == GradientsOf::both) launch_filter<derivative_fields(GradientsOf::both)>(params);
    });
  }

  template <GradientsOf gradients>
  void make_gradients() {
    constexpr int kFields = derivative_fields(gradients);
    const auto columns = adjoint_pass(problem_.columns, taps_[2]),
               rows = adjoint_pass(problem_.rows, taps_[1]);
    const RowShape shape = row_shape(columns, 1, kFields);
    for_chunks(volumes_ * depth_, slices_of_chunk(kFields), [&](int64_t begin, int64_t end) {
      const Lines<T> in = has_rows_ ? slices_between(kFields, begin) : slab_rows();
      if (has_rows_) {
        launch_filter<kFields>(
            unit_params(rows, slab_rows(), in, begin * groups_of_row_, end * groups_of_row_, false));
      }
      launcher_.template launch<wide_gradient_kernel<Storage, gradients, Masked>>(
          row_blocks(shape, end - begin), kWideThreads, shared_bytes<T>(shape, 1, kFields),
          GradientParams<Storage, gradients, Masked>{row_params(columns, shape, in, begin, end)});
    });
  }

  ProblemOf<Storage, Masked> problem_;
  Launcher& launcher_;
  TapsUpload<T> upload_;
  const bool moments_about_zero_;      // the best pivot for windows that see mostly padding
  std::array<DeviceTaps<T>, 3> taps_;  // depth, rows, columns
  bool is_image_;                      // processed with its rows as slices
  GradientsOf gradients_;
  int derivatives_;              // number of fields
  bool has_rows_;                // false if the window along the rows is a single tap of weight one
  int64_t depth_, outputs_;      // positions and outputs along the depth
  int64_t length_;               // outputs along the columns
  int64_t input_slice_, slice_;  // pixels before and after the pass along the rows
  int64_t groups_of_row_, groups_;
  T *moments_ = nullptr, *between_ = nullptr;
  int64_t between_size_ = 0;
  const T* pivots_ = nullptr;
  int64_t first_volume_ = 0, volumes_ = 0;  // of the slab
};

template <class Storage, class Launcher>
void run_wide(const Problem<Storage>& problem, const WindowTaps<ComputeOf<Storage>>& windows,
              const Results<ComputeOf<Storage>>& results, Launcher& launcher) {
  WideRun<Storage, false, Launcher>(problem, windows, launcher).run(results);
}

// Like run_wide, for images or volumes with a mask and any windows.
template <class Storage, class Launcher>
void run_masked(const MaskedProblem<Storage>& problem, const WindowTaps<ComputeOf<Storage>>& windows,
                const Results<ComputeOf<Storage>>& results, Launcher& launcher) {
  WideRun<Storage, true, Launcher>(problem, windows, launcher).run(results);
}

}  // namespace ssim_fused::cuda
