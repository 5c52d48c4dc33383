// From a problem to kernel launches, for any launcher: the CUDA stream of launcher.cuh, or the host's fibers
// of the tests. A launcher has
//
//     int sms() const;
//     int64_t l2_bytes() const;
//     template <auto kernel> int blocks_per_sm(int threads, int shared_bytes);
//     Plan choose(plan, input, variants);  // the tests may choose another
//     template <auto kernel> void launch(int64_t blocks, int threads, int shared_bytes, const Params&);
//     template <class T> T* scratch(int64_t count);  // device memory until the launches are done
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <utility>
#include <vector>

#include "picture.cuh"
#include "plan.h"
#include "strip.cuh"

namespace ssim_fused {

// Scratch between passes: for as many planes or volumes as fit, or for one.
constexpr int64_t kSlabBytes = int64_t{1} << 28;

// Windows in the compute type, one for each axis, [2 radius + 1].
template <class T>
struct Windows {
  std::vector<T> depth, rows, columns;
};

// In the middle of as many taps as the kernels have.
template <class T>
void centre(T (&out)[kTaps], const std::vector<T>& window) {
  std::fill(std::begin(out), std::end(out), T(0));
  std::copy(window.begin(), window.end(), std::begin(out) + kRadius - window.size() / 2);
}

template <class T>
struct Results {  // [B], [B], [B, 2]; null where not wanted
  T* similarity = nullptr;
  T* contrast_sensitivity = nullptr;
  T* grad_constants = nullptr;
  double outputs = 0, cropped = 0;  // of one image
};

// The strips compiled for a kind of call: their columns, and whether the picture has to be a single one.
// Calls that are not on the path of training make do with one.
template <int Columns, bool Single = false>
struct Strip {
  static constexpr int kColumns = Columns;
  static constexpr bool kSingle = Single;
};
template <class... Strips>
struct StripList {};

template <int Maps>  // of training and of the plain metric
using StripsOnDevice =
    std::conditional_t<Maps == 0, StripList<Strip<64>, Strip<128>, Strip<256>>,
                       std::conditional_t<Maps == 3,
                                          StripList<Strip<96>, Strip<128>, Strip<256>, Strip<64, true>,
                                                    Strip<128, true>, Strip<256, true>>,
                                          StripList<Strip<64>, Strip<128>, Strip<64, true>>>>;
template <int Maps>  // the host's compiler has no need of all
using StripsOnHost = std::conditional_t<
    Maps == 0, StripList<Strip<64>, Strip<96>, Strip<256>>,
    std::conditional_t<Maps == 3, StripList<Strip<64>, Strip<96>, Strip<64, true>, Strip<256, true>>,
                       StripList<Strip<64>, Strip<64, true>>>>;

template <int Maps, Weights weights>
#if defined(SSIM_SIMT)
using StripsFor = std::conditional_t<weights == Weights::general, StripList<Strip<64>>, StripsOnHost<Maps>>;
#else
using StripsFor = std::conditional_t<weights == Weights::general, StripList<Strip<64>>, StripsOnDevice<Maps>>;
#endif

template <class T, class Launcher>
void reduce(const double* partial, int64_t batch, int64_t blocks, int sums, const Results<T>& results,
            Launcher& launcher) {
  const ReduceParams<T> params{partial,
                               blocks,
                               sums,
                               results.outputs,
                               results.cropped,
                               results.similarity,
                               results.contrast_sensitivity,
                               results.grad_constants};
  launcher.template launch<reduce_kernel<T>>(batch, kReduceThreads, kReduceShared, params);
}

template <class Storage>
bool is_vectors(const Picture<Storage>& picture) {
  if (!picture.data) return true;
  constexpr int64_t kSize = Vector<std::remove_const_t<Storage>>::kSize;
  return reinterpret_cast<uintptr_t>(picture.data) % 16 == 0 && picture.stride[3] == 1 &&
         picture.stride[2] >= 0 && picture.stride[2] < kMaxAxis &&  // its bytes fit 32 bits
         picture.stride[2] % kSize == 0 && picture.stride[1] % kSize == 0 && picture.stride[0] % kSize == 0 &&
         picture.slice_stride % kSize == 0;
}

// What the strip kernel is told but for its plan. `mirrors`: where the padding permits it, the adjoint may
// mirror derivatives.
template <class Storage>
StripParams<Storage> strip_params(const Problem<Storage>& problem, const Windows<ComputeOf<Storage>>& windows,
                                  bool mirrors) {
  StripParams<Storage> params{problem};
  params.vectors = is_vectors(problem.preds) && is_vectors(problem.target) &&
                   is_vectors(problem.grad_preds) && is_vectors(problem.grad_target) &&
                   problem.columns.n % Vector<Storage>::kSize == 0;
  const int64_t strides[] = {problem.preds.stride[2], problem.target.stride[2], problem.grad_preds.stride[2],
                             problem.grad_target.stride[2]};
  for (int i = 0; i < 4; ++i) {
    params.row_bytes[i] = params.vectors ? static_cast<uint32_t>(strides[i] * int64_t{sizeof(Storage)}) : 0;
  }
  centre(params.row_taps, windows.rows);
  centre(params.column_taps, windows.columns);
  // Far from the other border, and by a window that is symmetric, mirroring is its own adjoint but for the
  // column it is about.
  params.mirrors = mirrors && problem.columns.reflects && problem.columns.pad == kRadius &&
                   problem.columns.radius == kRadius && problem.columns.n >= 2 * kTaps &&
                   std::equal(windows.columns.begin(), windows.columns.end(), windows.columns.rbegin());
  return params;
}

// One kind of call of the strip kernel, of whatever strips.
template <class Storage_, int Maps_, Weights weights, bool Narrow, Part part = Part::whole>
struct StripCall {
  using Storage = Storage_;
  static constexpr int kSums = weights == Weights::general ? int{kWithConstants} : int{kMeans};
  // Rows before and after the owned ones; the same at the top of the image.
  static constexpr int kHalo = part == Part::whole && Maps_ > 0 ? 2 * kRadius : kRadius;
  static constexpr int kWindowHalo = part == Part::gradient ? 0 : kRadius;
  template <class Strip>
  using Config = StripConfig<Storage, Strip::kColumns, Maps_, weights, Narrow, Strip::kSingle, part>;
};

template <class Call, class Launcher, class... Strips>
Plan plan_call(const StripParams<typename Call::Storage>& params, int64_t planes, Launcher& launcher,
               StripList<Strips...>) {
  const PlanInput input{planes, params.rows.n, params.columns.n, Call::kHalo, Call::kWindowHalo,
                        kRows,  launcher.sms()};
  const auto variant = [&]<class Strip>() {
    using Config = typename Call::template Config<Strip>;
    return StripVariant{
        Config::kColumns, Config::kSingle ? 0 : Config::kStep, Config::kLast,
        launcher.template blocks_per_sm<strip_kernel<Config>>(Config::kThreads, Config::kSharedBytes)};
  };
  const std::vector<StripVariant> variants{variant.template operator()<Strips>()...};
  return launcher.choose(plan_strips(input, variants), input, variants);
}

// Launches the plan for so many of the planes it was made for.
template <class Call, class Launcher, class... Strips>
void launch_call(const Plan& plan, StripParams<typename Call::Storage> params, int64_t planes,
                 Launcher& launcher, StripList<Strips...>) {
  params.strips = static_cast<int>(plan.strips);
  params.all_strips = planes * plan.strips;
  params.rows_of_strip = plan.rows_of_strip;
  params.rows_of_block = plan.rows;
  params.parts = static_cast<int>(plan.parts());
  const int64_t blocks = ceil_div(params.all_strips * plan.rows_of_strip, plan.rows);
  int index = 0;
  const auto launch = [&]<class Strip>() {
    if (index++ != plan.variant) return;
    using Config = typename Call::template Config<Strip>;
    launcher.template launch<strip_kernel<Config>>(blocks, Config::kThreads, Config::kSharedBytes, params);
  };
  (launch.template operator()<Strips>(), ...);
}

template <class Storage, int Maps, Weights weights, bool Narrow, class Launcher>
void run_strips(const Problem<Storage>& problem, const Windows<ComputeOf<Storage>>& windows,
                const Results<ComputeOf<Storage>>& results, Launcher& launcher) {
  using Call = StripCall<Storage, Maps, weights, Narrow>;
  using Strips = StripsFor<Maps, weights>;
  auto params = strip_params(problem, windows, weights != Weights::general);
  const int64_t planes = problem.batch * problem.channels;
  const Plan plan = plan_call<Call>(params, planes, launcher, Strips{});
  const int64_t parts = plan.strips * plan.parts();
  params.partial = launcher.template scratch<double>(planes * parts * Call::kSums);
  launch_call<Call>(plan, params, planes, launcher, Strips{});
  reduce(params.partial, problem.batch, problem.channels * parts, Call::kSums, results, launcher);
}

// Windows of any length, of images and volumes (wide_launch.cuh).
template <class Storage, class Launcher>
void run_wide(const Problem<Storage>& problem, const Windows<ComputeOf<Storage>>& windows,
              const Results<ComputeOf<Storage>>& results, Launcher& launcher);

template <class Storage, int Maps, class Launcher>
void run_maps(const Problem<Storage>& problem, const Windows<ComputeOf<Storage>>& windows, Weights weights,
              const Results<ComputeOf<Storage>>& results, Launcher& launcher) {
  const auto run_variant = [&]<Weights kWeights, bool Narrow>() {
    run_strips<Storage, Maps, kWeights, Narrow>(problem, windows, results, launcher);
  };
  // double makes do with the one kernel that does everything.
  if constexpr (!std::is_same_v<Storage, double>) {
    if (problem.rows.radius == kRadius && problem.columns.radius == kRadius) {
      if (problem.map.data || problem.wants_constants || (Maps > 0 && weights == Weights::general)) {
        return run_variant.template operator()<Weights::general, false>();
      }
      if constexpr (Maps > 0) {
        if (weights == Weights::mean_contrast) {
          return run_variant.template operator()<Weights::mean_contrast, false>();
        }
      }
      return run_variant.template operator()<Weights::mean_similarity, false>();
    }
  }
  run_variant.template operator()<Weights::general, true>();
}

// Whether the kernels for windows of radius at most kRadius serve an axis.
inline bool fits_strip(const DeviceAxis& axis) { return axis.radius <= kRadius && axis.pad <= axis.radius; }

// Everything a call asks for, of images. Where only target's gradient is wanted, the caller exchanges the
// images: SSIM is symmetric.
template <class Storage, class Launcher>
void run(const Problem<Storage>& problem, const Windows<ComputeOf<Storage>>& windows, Weights weights,
         const Results<ComputeOf<Storage>>& results, Launcher& launcher) {
  const int maps = problem.grad_target.data ? 4 : problem.grad_preds.data ? 3 : 0;
  if (!fits_strip(problem.rows) || !fits_strip(problem.columns))
    return run_wide(problem, windows, results, launcher);
  switch (maps) {
    case 0:
      return run_maps<Storage, 0>(problem, windows, weights, results, launcher);
    case 3:
      return run_maps<Storage, 3>(problem, windows, weights, results, launcher);
    default:
      return run_maps<Storage, 4>(problem, windows, weights, results, launcher);
  }
}

// The same of volumes (volumes.cuh).
template <class Storage, class Launcher>
void run_volumes(const Problem<Storage>& problem, const Windows<ComputeOf<Storage>>& windows, Weights weights,
                 const Results<ComputeOf<Storage>>& results, Launcher& launcher);

}  // namespace ssim_fused
