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

constexpr int64_t kMaxBlocks = 2147483647;               // CUDA's bound on grid.x
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

// Widths compiled for a kind of call. Calls that are not on the path of training make do with one.
template <class Storage, int Maps, Weights weights>
struct StripWidths {
#if defined(SSIM_SIMT)  // the host's compiler has no need of all
  using type = std::integer_sequence<int, 64, 96>;
#else
  using type = std::integer_sequence<int, 64, 96, 128, 256>;
#endif
};
template <class Storage, Weights weights>
  requires(weights != Weights::general)
struct StripWidths<Storage, 4, weights> {
#if defined(SSIM_SIMT)
  using type = std::integer_sequence<int, 64>;
#else
  using type = std::integer_sequence<int, 64, 128>;
#endif
};
template <class Storage, int Maps>
struct StripWidths<Storage, Maps, Weights::general> {
  using type = std::integer_sequence<int, 64>;
};

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
         std::abs(picture.stride[2]) < kMaxAxis &&  // eight rows of it fit 32 bits
         picture.stride[2] % kSize == 0 && picture.stride[1] % kSize == 0 && picture.stride[0] % kSize == 0;
}

template <class Storage, int Maps, Weights weights, bool Narrow, class Launcher, int... Widths>
void run_strips(const Problem<Storage>& problem, const Windows<ComputeOf<Storage>>& windows,
                const Results<ComputeOf<Storage>>& results, Launcher& launcher,
                std::integer_sequence<int, Widths...>) {
  StripParams<Storage> params{problem};
  params.vectors = is_vectors(problem.preds) && is_vectors(problem.target) &&
                   is_vectors(problem.grad_preds) && is_vectors(problem.grad_target) &&
                   problem.columns.n % Vector<Storage>::kSize == 0;
  const auto centre = [](auto& out, const auto& window) {
    std::fill(std::begin(out), std::end(out), 0);
    std::copy(window.begin(), window.end(), std::begin(out) + kRadius - window.size() / 2);
  };
  centre(params.row_taps, windows.rows);
  centre(params.column_taps, windows.columns);

  const int64_t planes = problem.batch * problem.channels;
  const PlanInput input{planes,  problem.rows.n, problem.columns.n, Maps > 0 ? 2 * kRadius : kRadius,
                        kRadius, kRows,          launcher.sms()};
  const auto variant = [&]<int Width>() {
    using Config = StripConfig<Storage, Width, Maps, weights, Narrow>;
    return StripVariant{
        Width, Config::kStep, Width - Config::kLead,
        launcher.template blocks_per_sm<strip_kernel<Config>>(Config::kThreads, Config::kSharedBytes)};
  };
  const Plan plan = launcher.choose(plan_strips(input, {variant.template operator()<Widths>()...}), input,
                                    {variant.template operator()<Widths>()...});
  params.strips = static_cast<int>(plan.strips);
  params.splits = static_cast<int>(plan.splits);
  params.rows_of_split = static_cast<int>(plan.rows);

  const int sums = weights == Weights::general ? kWithConstants : kMeans;
  const int64_t per_plane = plan.strips * plan.splits;
  params.partial = launcher.template scratch<double>(planes * per_plane * sums);
  const int64_t planes_of_launch = std::max<int64_t>(1, kMaxBlocks / per_plane);
  for (params.first_plane = 0; params.first_plane < planes; params.first_plane += planes_of_launch) {
    const int64_t blocks = std::min(planes - params.first_plane, planes_of_launch) * per_plane;
    int index = 0;
    const auto launch = [&]<int Width>() {
      if (index++ != plan.variant) return;
      using Config = StripConfig<Storage, Width, Maps, weights, Narrow>;
      launcher.template launch<strip_kernel<Config>>(blocks, Config::kThreads, Config::kSharedBytes, params);
    };
    (launch.template operator()<Widths>(), ...);
  }
  reduce(params.partial, problem.batch, problem.channels * per_plane, sums, results, launcher);
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
    using Widths = typename StripWidths<Storage, Maps, kWeights>::type;
    run_strips<Storage, Maps, kWeights, Narrow>(problem, windows, results, launcher, Widths{});
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
