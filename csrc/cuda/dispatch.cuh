// From a problem to kernel launches, for any launcher: the CUDA stream of ssim_cuda.cu, or the host's fibers
// of the tests. A launcher has
//
//     int sms() const;
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
#include "wide.cuh"

namespace ssim_fused {

constexpr int64_t kWideScratchBytes = int64_t{1} << 28;  // the wide kernels' scratch, or one plane's

// Windows in the compute type, one for each axis, [2 radius + 1].
template <class T>
struct Windows {
  std::vector<T> rows, columns;
};

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
         picture.stride[2] % kSize == 0 && picture.stride[1] % kSize == 0 && picture.stride[0] % kSize == 0;
}

template <class Storage, int Maps, Weights weights, bool Narrow, class Launcher, class... Strips>
void run_strips(const Problem<Storage>& problem, const Windows<ComputeOf<Storage>>& windows,
                const Results<ComputeOf<Storage>>& results, Launcher& launcher, StripList<Strips...>) {
  StripParams<Storage> params{problem};
  params.vectors = is_vectors(problem.preds) && is_vectors(problem.target) &&
                   is_vectors(problem.grad_preds) && is_vectors(problem.grad_target) &&
                   problem.columns.n % Vector<Storage>::kSize == 0;
  const int64_t strides[] = {problem.preds.stride[2], problem.target.stride[2], problem.grad_preds.stride[2],
                             problem.grad_target.stride[2]};
  for (int i = 0; i < 4; ++i) {
    params.row_bytes[i] = params.vectors ? static_cast<uint32_t>(strides[i] * int64_t{sizeof(Storage)}) : 0;
  }
  const auto centre = [](auto& out, const auto& window) {
    std::fill(std::begin(out), std::end(out), 0);
    std::copy(window.begin(), window.end(), std::begin(out) + kRadius - window.size() / 2);
  };
  centre(params.row_taps, windows.rows);
  centre(params.column_taps, windows.columns);
  // Far from the other border, and by a window that is symmetric, mirroring is its own adjoint but for the
  // column it is about.
  params.mirrors = weights != Weights::general && problem.columns.reflects &&
                   problem.columns.pad == kRadius && problem.columns.radius == kRadius &&
                   problem.columns.n >= 2 * kTaps &&
                   std::equal(windows.columns.begin(), windows.columns.end(), windows.columns.rbegin());

  const int64_t planes = problem.batch * problem.channels;
  const PlanInput input{planes,  problem.rows.n, problem.columns.n, Maps > 0 ? 2 * kRadius : kRadius,
                        kRadius, kRows,          launcher.sms()};
  const auto variant = [&]<class Strip>() {
    using Config = StripConfig<Storage, Strip::kColumns, Maps, weights, Narrow, Strip::kSingle>;
    return StripVariant{
        Config::kColumns, Config::kSingle ? 0 : Config::kStep, Config::kLast,
        launcher.template blocks_per_sm<strip_kernel<Config>>(Config::kThreads, Config::kSharedBytes)};
  };
  const std::vector<StripVariant> variants{variant.template operator()<Strips>()...};
  const Plan plan = launcher.choose(plan_strips(input, variants), input, variants);
  params.strips = static_cast<int>(plan.strips);
  params.all_strips = planes * plan.strips;
  params.rows_of_strip = plan.rows_of_strip;
  params.rows_of_block = plan.rows;
  params.parts = static_cast<int>(plan.parts());
  const int sums = weights == Weights::general ? kWithConstants : kMeans;
  const int64_t parts = plan.strips * plan.parts();
  params.partial = launcher.template scratch<double>(planes * parts * sums);
  int index = 0;
  const auto launch = [&]<class Strip>() {
    if (index++ != plan.variant) return;
    using Config = StripConfig<Storage, Strip::kColumns, Maps, weights, Narrow, Strip::kSingle>;
    launcher.template launch<strip_kernel<Config>>(plan.blocks, Config::kThreads, Config::kSharedBytes,
                                                   params);
  };
  (launch.template operator()<Strips>(), ...);
  reduce(params.partial, problem.batch, problem.channels * parts, sums, results, launcher);
}

template <class Storage, class Launcher>
void run_wide(const Problem<Storage>& problem, const Windows<ComputeOf<Storage>>& windows, int maps,
              const Results<ComputeOf<Storage>>& results, Launcher& launcher) {
  using T = ComputeOf<Storage>;
  WideParams<Storage> params{problem};
  params.maps = maps;
  const auto upload = [&](const std::vector<T>& taps) {
    T* const out = launcher.template scratch<T>(static_cast<int64_t>(taps.size()));
    for (size_t begin = 0; begin < taps.size(); begin += kTapsOfLaunch) {
      TapsParams<T> some{
          out + begin, static_cast<int>(std::min<size_t>(kTapsOfLaunch, taps.size() - begin)), {}};
      std::copy_n(taps.begin() + begin, some.count, some.taps);
      launcher.template launch<set_taps_kernel<T>>(1, kTapsOfLaunch, 0, some);
    }
    return out;
  };
  params.row_taps = upload(windows.rows);
  params.column_taps = upload(windows.columns);
  params.column_sum = T(0);
  for (T tap : windows.columns) params.column_sum += tap;

  const int64_t planes = problem.batch * problem.channels;
  const int64_t height = problem.rows.n, rows = problem.rows.output_length(),
                length = problem.columns.output_length();
  const int64_t across = ceil_div(length, kWideThreads),
                input_across = ceil_div(problem.columns.n, kWideThreads);
  params.partial = launcher.template scratch<double>(planes * rows * across * kWithConstants);

  // Slabs of planes, so that scratch stays bounded.
  const int64_t moments = 4 * height * length, derivatives = maps * rows * length;
  const int64_t most_blocks = std::max({height * across, rows * across, height * input_across});
  const int64_t slab = std::clamp<int64_t>(
      std::min<int64_t>(kWideScratchBytes / ((moments + derivatives) * sizeof(T)), kMaxBlocks / most_blocks),
      1, planes);
  params.moments = launcher.template scratch<T>(slab * moments);
  params.derivatives = maps > 0 ? launcher.template scratch<T>(slab * derivatives) : nullptr;
  for (params.first_plane = 0; params.first_plane < planes; params.first_plane += slab) {
    const int64_t count = std::min(planes - params.first_plane, slab);
    launcher.template launch<wide_moments_kernel<Storage>>(count * height * across, kWideThreads, kWideShared,
                                                           params);
    launcher.template launch<wide_formula_kernel<Storage>>(count * rows * across, kWideThreads, kWideShared,
                                                           params);
    if (maps == 0) continue;
    launcher.template launch<wide_down_kernel<Storage>>(count * height * across, kWideThreads, kWideShared,
                                                        params);
    launcher.template launch<wide_gradient_kernel<Storage>>(count * height * input_across, kWideThreads,
                                                            kWideShared, params);
  }
  reduce(params.partial, problem.batch, problem.channels * rows * across, kWithConstants, results, launcher);
}

template <class Storage, int Maps, class Launcher>
void run_maps(const Problem<Storage>& problem, const Windows<ComputeOf<Storage>>& windows, Weights weights,
              const Results<ComputeOf<Storage>>& results, Launcher& launcher) {
  const auto run_variant = [&]<Weights kWeights, bool Narrow>() {
    using Strips = StripsFor<Maps, kWeights>;
    run_strips<Storage, Maps, kWeights, Narrow>(problem, windows, results, launcher, Strips{});
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

// Everything a call asks for. Where only target's gradient is wanted, the caller exchanges the images: SSIM
// is symmetric.
template <class Storage, class Launcher>
void run(const Problem<Storage>& problem, const Windows<ComputeOf<Storage>>& windows, Weights weights,
         const Results<ComputeOf<Storage>>& results, Launcher& launcher) {
  const int maps = problem.grad_target.data ? 4 : problem.grad_preds.data ? 3 : 0;
  const auto fits = [](const DeviceAxis& axis) { return axis.radius <= kRadius && axis.pad <= axis.radius; };
  if (!fits(problem.rows) || !fits(problem.columns))
    return run_wide(problem, windows, maps, results, launcher);
  switch (maps) {
    case 0:
      return run_maps<Storage, 0>(problem, windows, weights, results, launcher);
    case 3:
      return run_maps<Storage, 3>(problem, windows, weights, results, launcher);
    default:
      return run_maps<Storage, 4>(problem, windows, weights, results, launcher);
  }
}

}  // namespace ssim_fused
