// Selects the kernels for a call: the variant, by the same function for images and volumes, and the strips
// that are compiled for each. The tests on the host use the same lists.
#pragma once

#include <type_traits>

#include "call.cuh"

namespace ssim_fused::cuda {

// A strip is compiled if the planner (plan.h) would lose a tenth of the time or more without it on common
// shapes. docs/building.md has the cost of each.

// Strips of images, in one march. The general kernel has a single one.
template <class Storage, GradientsOf gradients, Objective objective>
constexpr auto image_strips() {
  constexpr bool kIsFloat = sizeof(Storage) == 4;
  if constexpr (objective == Objective::general) {
    return StripShapes<StripShape<64>>{};
  } else if constexpr (std::is_same_v<Storage, AnyPixel>) {
    return StripShapes<StripShape<64>>{};
  } else if constexpr (gradients == GradientsOf::none) {
    return StripShapes<StripShape<64>, StripShape<128>>{};
  } else if constexpr (gradients == GradientsOf::both && kIsFloat) {
    return StripShapes<StripShape<64>, StripShape<128>, StripShape<64, true>>{};
  } else if constexpr (gradients == GradientsOf::both) {
    return StripShapes<StripShape<128>>{};
  } else if constexpr (kIsFloat && objective == Objective::mean_similarity && kWarpSize == 64) {
    return StripShapes<StripShape<128>, StripShape<256>, StripShape<64, true>, StripShape<128, true>,
                       StripShape<256, true>>{};  // strips consist of whole warps
  } else if constexpr (kIsFloat && objective == Objective::mean_similarity) {
    // 96 columns serve devices with little shared memory: compute capability 7.5.
    return StripShapes<StripShape<96>, StripShape<128>, StripShape<256>, StripShape<64, true>,
                       StripShape<128, true>, StripShape<256, true>>{};
  } else if constexpr (kIsFloat || objective == Objective::mean_similarity) {
    return StripShapes<StripShape<128>, StripShape<256>, StripShape<64, true>, StripShape<256, true>>{};
  } else {  // only the finest level of MS-SSIM, at least 176 columns wide, has 16-bit pixels
    return StripShapes<StripShape<128>, StripShape<256, true>>{};
  }
}
template <class Storage, GradientsOf gradients, Objective objective>
using ImageStrips = decltype(image_strips<Storage, gradients, objective>());

// Whether there are strips that add a pixel term to the gradients. For both images in 16 bits there are none:
// the general kernel serves them.
template <class Storage, GradientsOf gradients>
constexpr bool kHasPixelTermStrips =
    gradients == GradientsOf::preds || (gradients == GradientsOf::both && sizeof(Storage) == 4);
template <class Storage, GradientsOf gradients>
using PixelTermStrips = std::conditional_t<
    gradients == GradientsOf::preds && sizeof(Storage) == 4,
    StripShapes<StripShape<128>, StripShape<256>, StripShape<64, true>, StripShape<256, true>>,
    StripShapes<StripShape<128>>>;

// Strips of images whose windows have exactly this radius: for values, and for the gradient of the mean
// similarity.
template <class Storage, GradientsOf gradients, int Radius>
constexpr auto exact_strips() {
  if constexpr (std::is_same_v<Storage, AnyPixel>) {
    return StripShapes<StripShape<64>>{};
  } else if constexpr (gradients == GradientsOf::none && Radius == kLongRadius && sizeof(Storage) == 2) {
    return StripShapes<StripShape<128>>{};
  } else if constexpr (gradients == GradientsOf::none) {
    return StripShapes<StripShape<64>, StripShape<128>>{};
  } else if constexpr (sizeof(Storage) == 2) {
    return StripShapes<StripShape<128>, StripShape<256>>{};
  } else if constexpr (Radius == kLongRadius) {
    return StripShapes<StripShape<128>, StripShape<256>, StripShape<64, true>, StripShape<128, true>,
                       StripShape<256, true>>{};
  } else {
    return StripShapes<StripShape<128>, StripShape<256>, StripShape<64, true>, StripShape<256, true>>{};
  }
}
template <class Storage, GradientsOf gradients, int Radius>
using ExactStrips = decltype(exact_strips<Storage, gradients, Radius>());
template <class Storage, GradientsOf gradients>
constexpr bool kHasExactStrips =
    std::is_same_v<Storage, AnyPixel> ? gradients == GradientsOf::none
                                      : sizeof(Storage) <= 4 && gradients != GradientsOf::both;

// Strips of slices, in the passes from pixels to moments and from derivatives to gradients. Sides of volumes
// are often powers of two. Shorter windows have a single strip.
template <bool Narrow>
using MomentStrips =
    std::conditional_t<Narrow, StripShapes<StripShape<64>>, StripShapes<StripShape<64>, StripShape<128>>>;

template <class Storage, GradientsOf gradients, bool Narrow>
constexpr auto gradient_strips() {
  if constexpr (Narrow) {
    return StripShapes<StripShape<64>>{};
  } else if constexpr (gradients == GradientsOf::preds && sizeof(Storage) == 4) {
    return StripShapes<StripShape<128>, StripShape<64, true>, StripShape<128, true>, StripShape<256, true>>{};
  } else {
    return StripShapes<StripShape<128>, StripShape<64, true>>{};
  }
}
template <class Storage, GradientsOf gradients, bool Narrow>
using GradientStrips = decltype(gradient_strips<Storage, gradients, Narrow>());
// With a pixel term, one strip serves all windows.
using PixelTermGradientStrips = StripShapes<StripShape<64>>;

// Calls f<gradients, objective, narrow>() for the results that a problem requests. `is_full`: every window
// has as many taps as the kernels. The general kernel for shorter windows, which tests each tap, serves all
// other calls.
template <class Storage, class F>
void choose_variant_of_floats(const Problem<Storage>& problem, Objective objective, bool is_full, F&& f) {
  constexpr bool kIsFloat = sizeof(Storage) == 4;
  const auto with = [&]<GradientsOf kGradients>() {
    if constexpr (sizeof(Storage) != 8) {
      const bool is_general = problem.map.data || problem.wants_constants ||
                              (kGradients != GradientsOf::none && objective == Objective::general);
      const bool serves_pixels = kHasPixelTermStrips<Storage, kGradients> ||
                                 kGradients == GradientsOf::none || !problem.pixel_term.adds_slopes();
      if (is_full && !is_general && serves_pixels) {
        if (kGradients == GradientsOf::none || objective == Objective::mean_similarity)
          return f.template operator()<kGradients, Objective::mean_similarity, false>();
        if constexpr (kGradients == GradientsOf::preds)
          return f.template operator()<kGradients, Objective::mean_contrast, false>();
      }
      if constexpr (kIsFloat && kGradients != GradientsOf::both) {
        if (is_full && is_general) return f.template operator()<kGradients, Objective::general, false>();
      }
    }
    f.template operator()<kGradients, Objective::general, true>();
  };
  if (problem.grad_target.data) return with.template operator()<GradientsOf::both>();
  if (problem.grad_preds.data) return with.template operator()<GradientsOf::preds>();
  with.template operator()<GradientsOf::none>();
}

// Like choose_variant_of_floats, for integers too.
template <class Storage, class F>
void choose_variant(const Problem<Storage>& problem, Objective objective, bool is_full, F&& f) {
  if constexpr (std::is_same_v<Storage, AnyPixel>) {
    // Values have their own kernel. At most one of the images has a gradient.
    if (is_full && !problem.map.data && !problem.wants_constants && !problem.grad_preds.data)
      return f.template operator()<GradientsOf::none, Objective::mean_similarity, false>();
    if (problem.grad_preds.data) return f.template operator()<GradientsOf::preds, Objective::general, true>();
    return f.template operator()<GradientsOf::none, Objective::general, true>();
  } else {
    choose_variant_of_floats(problem, objective, is_full, f);
  }
}

// Returns whether the kernels for windows of radius at most kMarchRadius serve the problem.
template <class Storage>
bool fits_strip(const Problem<Storage>& problem) {
  const auto fits = [](const DeviceAxis& axis) {
    return axis.radius <= kMarchRadius && axis.pad <= axis.radius;
  };
  return fits(problem.depth) && fits(problem.rows) && fits(problem.columns);
}

// Returns whether the kernels for windows of exactly this radius serve an image.
template <int Radius, class Storage>
bool fits_exactly(const Problem<Storage>& problem, Objective objective) {
  const auto fits = [](const DeviceAxis& axis) { return axis.radius == Radius && axis.pad <= axis.radius; };
  if (!fits(problem.rows) || !fits(problem.columns)) return false;
  if (problem.map.data || problem.wants_constants || problem.grad_target.data) return false;
  if (!problem.grad_preds.data) return kHasExactStrips<Storage, GradientsOf::none>;
  return kHasExactStrips<Storage, GradientsOf::preds> && objective == Objective::mean_similarity &&
         !problem.pixel_term.adds_slopes();
}

// Returns whether a march serves the problem and is faster than one axis at a time (wide.cuh). On small
// images most of what a march with the long radius computes is beyond the border.
template <class Storage>
bool marches(const Problem<Storage>& problem, bool is_volume, Objective objective) {
  constexpr int kLeastSide = sizeof(Storage) == 2 ? 128 : 64;  // of the narrowest strips
  const bool is_large = problem.rows.n >= kLeastSide && problem.columns.n >= kLeastSide;
  return fits_strip(problem) || (!is_volume && is_large && fits_exactly<kLongRadius>(problem, objective));
}

}  // namespace ssim_fused::cuda
