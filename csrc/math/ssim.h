// The SSIM formula and its partial derivatives, for one window position. For host and device; T is float,
// double, or a vector of either (cpu/simd/lanes.h).
//
// Moments are those of x' = x - pivot and y' = y - pivot, where w* is the window, whose taps sum to one:
//
//     m = w*(x'+y')    delta = w*(x-y)    p = w*(x'y')    d = w*((x-y)^2)
//
// With a = w*x' = (m + delta)/2, b = w*y' = (m - delta)/2, mu_x = a + pivot, mu_y = b + pivot:
//
//     B1 = mu_x^2 + mu_y^2 + c1                luminance             l  = 1 - delta^2 / B1
//     V  = max(d - delta^2, 0)                 (variance of x - y)
//     C  = max(p - ab, -V/4)                   (covariance)
//     B2 = 2 C + c2 + V                        contrast sensitivity  cs = 1 - V / B2
//
// This is the textbook formula, rearranged so that no two large numbers are subtracted when x is close to y.
// Identical images give exactly 1 and a gradient of exactly 0, also with approximate reciprocals.
//
// In exact arithmetic the bounds always hold: d - delta^2 is the variance of x - y, and p - ab + V/4 is a
// quarter of the variance of x + y. With rounding, p - ab may have any value if the pixels of a window are
// far from the pivot. The bounds then keep 1 - cs = V / B2 in [0, 2], because B2 >= c2 + V/2. Likewise 1 - l
// is at most 2, because B1 >= delta^2 / 2 + c1. Derivatives are those of the formula without bounds,
// evaluated at the bounded values.
//
// If the images differ by nearly a constant, V is again a small difference of two large numbers. The
// differences may therefore have their own pivot s (`Pivots`). The moments then hold delta' = w*(x-y) - s and
// d' = w*((x-y-s)^2) in place of delta and d; V = max(d' - delta'^2, 0), and only the luminance uses delta =
// delta' + s. A plain number passed as pivot means the pivot of the pixels, with s = 0.
#pragma once

#include "arithmetic.h"
#include "pass.h"
#include "where.h"

namespace ssim_fused {

template <class T>
struct Moments {
  T m, delta, p, d;
};

// The order of moments where they are stored as the fields of an array. With a mask, the weight of the window
// is the last field. The functions below convert between fields and moments.
enum Field { kMomentM, kMomentDelta, kMomentP, kMomentD, kPlainMoments, kWindowWeight = kPlainMoments };
SSIM_HOST_DEVICE constexpr int moment_fields(bool masked) {
  return masked ? kWindowWeight + 1 : int{kPlainMoments};
}

// Returns the moments whose fields are at(field).
template <class T, class At>
SSIM_HOST_DEVICE Moments<T> moments_of_fields(At&& at) {
  return {at(kMomentM), at(kMomentDelta), at(kMomentP), at(kMomentD)};
}

// Calls to(field, value) for each of the four moments.
template <class T, class To>
SSIM_HOST_DEVICE void to_fields(const Moments<T>& moments, To&& to) {
  to(kMomentM, moments.m);
  to(kMomentDelta, moments.delta);
  to(kMomentP, moments.p);
  to(kMomentD, moments.d);
}

// The values that are subtracted from pixels and from differences of pixels before moments are computed.
template <class T>
struct Pivots {
  T pixels, differences;
};
template <class T>
SSIM_HOST_DEVICE T of_pixels(T pivot) {
  return pivot;
}
template <class T>
SSIM_HOST_DEVICE T of_pixels(const Pivots<T>& pivots) {
  return pivots.pixels;
}
template <class T>
SSIM_HOST_DEVICE T centred_difference(T difference, T) {
  return difference;
}
template <class T>
SSIM_HOST_DEVICE T centred_difference(T difference, const Pivots<T>& pivots) {
  return difference - pivots.differences;
}

// Derivatives with respect to w*x', w*y', w*(x'y') and w*((x-y)^2).
template <class T>
struct Partials {
  T a, b, p, d;
};

// The order of derivatives where they are stored as fields, often in place of moments. The first three serve
// the gradient of `preds`; only the gradient of `target` needs kByB.
enum DerivativeField { kByA, kByP, kByD, kByB, kMostDerivatives };

// Returns the derivatives whose fields are at(field). Those that these gradients do not need are zero.
template <GradientsOf gradients, class T, class At>
SSIM_HOST_DEVICE Partials<T> partials_of_fields(At&& at) {
  if constexpr (gradients == GradientsOf::both) return {at(kByA), at(kByB), at(kByP), at(kByD)};
  return {at(kByA), T{}, at(kByP), at(kByD)};
}

// Calls to(field, value) for each of the derivatives that these gradients need.
template <GradientsOf gradients, class T, class To>
SSIM_HOST_DEVICE void to_fields(const Partials<T>& f, To&& to) {
  to(kByA, f.a);
  to(kByP, f.p);
  to(kByD, f.d);
  if constexpr (gradients == GradientsOf::both) to(kByB, f.b);
}

// Returns the contribution of a pair of pixels to the moments, before it is multiplied by a tap.
template <class T, class Pivot>
SSIM_HOST_DEVICE Moments<T> pixel_moments(T x, T y, const Pivot& pivot) {
  const T difference = centred_difference<T>(x - y, pivot);
  const T centred_x = x - of_pixels(pivot), centred_y = y - of_pixels(pivot);
  return {centred_x + centred_y, difference, centred_x * centred_y, difference * difference};
}

// Returns the moments of a window that covers only zero padding. `taps` is the sum of its taps.
template <class T, class Pivot>
SSIM_HOST_DEVICE Moments<T> moments_of_zeros(const Pivot& pivot, T taps) {
  const Moments<T> zero = pixel_moments<T>(T(0), T(0), pivot);
  return {taps * zero.m, taps * zero.delta, taps * zero.p, taps * zero.d};
}

// A mask gives each pixel a weight. Let n = w*weight be the weight of a window. Its sums are the
// contributions of pixels times their weights, filtered by the window, and its moments are these sums over n.
// An output's weight in the means is the mask's at the pixel that the output is centred on.
//
// No sum is divided by n, because the formula is homogeneous. It is evaluated with the sums in place of m and
// delta, n times the sums in place of p and d, n times the pivot, and n^2 times the constants. It then gives
// a, b and delta times n, and B1, B2 and V times n^2; the losses are unchanged. Derivatives with respect to
// sums are 1/n times those with respect to moments. For a and b this evaluation includes the factor 1/n; the
// derivatives by p and d must still be multiplied by n.

// Returns the contribution of a pair of pixels with this weight. Masked pixels are replaced by the pivot,
// because a NaN times zero would be NaN.
template <class T, class Pivot>
SSIM_HOST_DEVICE Moments<T> masked_moments(T x, T y, const Pivot& pivot, T weight) {
  const T unseen = of_pixels(pivot);
  const Moments<T> pixel = pixel_moments<T>(weight > T{} ? x : unseen, weight > T{} ? y : unseen, pivot);
  return {weight * pixel.m, weight * pixel.delta, weight * pixel.p, weight * pixel.d};
}

// Windows of less weight have no output. The bound keeps n^2 times a constant from underflowing.
constexpr float kLeastWeight = 1e-15f;

template <class T>
struct LocalTerms {
  T a, b, mu_x, mu_y, delta;
  T centred_delta;  // delta', about the differences' pivot
  T by_a, by_b;     // factors of 1 - cs in the derivatives by a and b: delta' + b and a - delta'
  T inverse_b1, inverse_b2;
  T luminance_loss;  // 1 - l
  T contrast_loss;   // 1 - cs

  SSIM_HOST_DEVICE T luminance() const { return 1 - luminance_loss; }
  SSIM_HOST_DEVICE T contrast_sensitivity() const { return 1 - contrast_loss; }
  SSIM_HOST_DEVICE T similarity() const { return luminance() * contrast_sensitivity(); }
  // Returns 1 - l cs, without cancellation where it is tiny.
  SSIM_HOST_DEVICE T similarity_loss() const { return luminance_loss + luminance() * contrast_loss; }
};

template <class T>
SSIM_HOST_DEVICE void set_means(LocalTerms<T>& t, T m, T delta, T pivot) {
  t.a = t.by_a = (m + delta) / 2;
  t.b = t.by_b = (m - delta) / 2;
  t.mu_x = t.a + pivot;
  t.mu_y = t.b + pivot;
  t.delta = t.centred_delta = delta;
}
template <class T>
SSIM_HOST_DEVICE void set_means(LocalTerms<T>& t, T m, T centred_delta, const Pivots<T>& pivots) {
  set_means<T>(t, m, centred_delta + pivots.differences, pivots.pixels);
  t.centred_delta = centred_delta;
  t.by_a = centred_delta + t.b;
  t.by_b = t.a - centred_delta;
}

template <class T, class Pivot>
SSIM_HOST_DEVICE LocalTerms<T> local_terms(const Moments<T>& moments, const Pivot& pivot, T c1, T c2) {
  LocalTerms<T> t;
  set_means(t, moments.m, moments.delta, pivot);
  const T delta_squared = t.delta * t.delta;
  // The argument order of the clamps makes a NaN pass through.
  const T variance = clamp_below(moments.d - t.centred_delta * t.centred_delta, T{});
  const T covariance = clamp_below(moments.p - t.a * t.b, variance * -0.25f);
  t.inverse_b1 = reciprocal(t.mu_x * t.mu_x + (t.mu_y * t.mu_y + c1));
  t.inverse_b2 = reciprocal(2 * covariance + (c2 + variance));
  t.luminance_loss = clamp_above(delta_squared * t.inverse_b1, T{} + 2);
  t.contrast_loss = variance * t.inverse_b2;
  return t;
}

// Returns pivots times n, for `masked_terms`.
template <class T>
SSIM_HOST_DEVICE T times(T n, T pivot) {
  return n * pivot;
}
template <class T>
SSIM_HOST_DEVICE Pivots<T> times(T n, const Pivots<T>& pivots) {
  return {n * pivots.pixels, n * pivots.differences};
}
template <class T, class Pivot>
SSIM_HOST_DEVICE LocalTerms<T> masked_terms(const Moments<T>& sums, T n, const Pivot& pivot, T c1, T c2) {
  const T squared = n * n;
  return local_terms<T>({sums.m, sums.delta, n * sums.p, n * sums.d}, times(n, pivot), squared * c1,
                        squared * c2);
}

// Returns the derivatives of `by_contrast / 2 * cs` with respect to a, b and p, and twice the derivative with
// respect to d, since gradients need that. x enters the moments a, p and d, y enters b, p and d. With w* the
// adjoint of the window:
//     dL/dx = w*(f_a) + y' w*(f_p) + (x - y - s) w*(f_d)
//     dL/dy = w*(f_b) + x' w*(f_p) - (x - y - s) w*(f_d)
template <class T>
SSIM_HOST_DEVICE Partials<T> partials_of_doubled_contrast(const LocalTerms<T>& t, T by_contrast) {
  const T g2 = by_contrast * t.inverse_b2;
  Partials<T> f;
  f.a = g2 * (t.centred_delta - t.by_a * t.contrast_loss);
  f.b = -g2 * (t.centred_delta + t.by_b * t.contrast_loss);
  f.p = g2 * t.contrast_loss;
  f.d = f.p - g2;  // equals -g2 * cs
  return f;
}

// Returns the derivatives of `by_luminance / 2 * l + by_contrast / 2 * cs`, doubled for d.
template <class T>
SSIM_HOST_DEVICE Partials<T> partials_of_doubled(const LocalTerms<T>& t, T by_luminance, T by_contrast) {
  const T g1 = by_luminance * t.inverse_b1;
  Partials<T> f = partials_of_doubled_contrast(t, by_contrast);
  f.a = g1 * (t.mu_x * t.luminance_loss - t.delta) + f.a;
  f.b = g1 * (t.mu_y * t.luminance_loss + t.delta) + f.b;
  return f;
}

// Returns the derivatives of `grad_similarity * l * cs + grad_contrast * cs`, doubled for d.
template <class T>
SSIM_HOST_DEVICE Partials<T> partials(const LocalTerms<T>& t, T grad_similarity, T grad_contrast) {
  const T by_luminance = grad_similarity * t.contrast_sensitivity();
  const T by_contrast = grad_similarity * t.luminance() + grad_contrast;
  return partials_of_doubled(t, by_luminance + by_luminance, by_contrast + by_contrast);
}

// Returns the derivatives of the objective, doubled for d. For a mean, `weight` is twice the weight of this
// output in the mean. For Objective::general, `weight` is the upstream gradient of this output's similarity
// and `of_contrast` that of its contrast sensitivity.
template <Objective objective, class T>
SSIM_HOST_DEVICE Partials<T> objective_partials(const LocalTerms<T>& t, T weight, T of_contrast) {
  if constexpr (objective == Objective::mean_contrast) return partials_of_doubled_contrast(t, weight);
  if constexpr (objective == Objective::mean_similarity)
    return partials_of_doubled(t, weight * t.contrast_sensitivity(), weight * t.luminance());
  return partials(t, weight, of_contrast);
}

// Returns the derivatives with respect to the sums of a window of weight n, doubled for d. They are zero if
// both upstream gradients are zero, even if the output is NaN.
template <class T>
SSIM_HOST_DEVICE Partials<T> masked_partials(const LocalTerms<T>& t, T grad_similarity, T grad_contrast,
                                             T n) {
  const Partials<T> f = partials(t, grad_similarity, grad_contrast);
  const auto counted = [&](T by) { return where_any(grad_similarity, grad_contrast, by, T{}); };
  return {counted(f.a), counted(f.b), counted(n * f.p), counted(n * f.d)};
}

// The gradients with respect to the pixels of both images at one position.
template <class T>
struct PixelGradient {
  T by_x, by_y;
};

// The parts of a pixel's gradient due to p and d. `gradient_by_product` is added to the gradient of one
// image, where `other` is the pixel of the other image. `gradient_by_difference` is added to the gradient of
// x and subtracted from that of y.
template <class T>
SSIM_HOST_DEVICE T gradient_by_product(T other, T pivot, T f_p) {
  return (other - pivot) * f_p;
}
template <class T>
SSIM_HOST_DEVICE T gradient_by_difference(T difference, T f_d) {
  return difference * f_d;
}

template <class T, class Pivot>
SSIM_HOST_DEVICE PixelGradient<T> pixel_gradient(T x, T y, const Pivot& pivot, const Partials<T>& f) {
  const T by_difference = gradient_by_difference(centred_difference<T>(x - y, pivot), f.d);
  return {f.a + (gradient_by_product(y, of_pixels(pivot), f.p) + by_difference),
          f.b + (gradient_by_product(x, of_pixels(pivot), f.p) - by_difference)};
}

// Returns the gradient of pixels that have this weight in the windows. It is zero if the weight is zero.
// Pixels that no counted output sees are replaced, so that a NaN in them has no effect.
template <class T, class Pivot>
SSIM_HOST_DEVICE PixelGradient<T> masked_pixel_gradient(T x, T y, const Pivot& pivot, const Partials<T>& f,
                                                        T weight) {
  const T uncounted = of_pixels(pivot);
  const PixelGradient<T> pixel =
      pixel_gradient<T>(where_any(f.p, f.d, x, uncounted), where_any(f.p, f.d, y, uncounted), pivot, f);
  return {weight > T{} ? weight * pixel.by_x : T{}, weight > T{} ? weight * pixel.by_y : T{}};
}

// Derivatives with respect to c1 and c2.
template <class T>
struct ConstantPartials {
  T c1, c2;
};

template <class T>
SSIM_HOST_DEVICE ConstantPartials<T> constant_partials(const LocalTerms<T>& t, T grad_similarity,
                                                       T grad_contrast) {
  const T by_contrast = grad_similarity * t.luminance() + grad_contrast;
  return {grad_similarity * t.contrast_sensitivity() * t.luminance_loss * t.inverse_b1,
          by_contrast * t.contrast_loss * t.inverse_b2};
}

template <class T>
SSIM_HOST_DEVICE ConstantPartials<T> masked_constant_partials(const LocalTerms<T>& t, T grad_similarity,
                                                              T grad_contrast, T n) {
  const ConstantPartials<T> by = constant_partials(t, grad_similarity, grad_contrast);
  return {where_any(grad_similarity, grad_contrast, n * (n * by.c1), T{}),
          where_any(grad_similarity, grad_contrast, n * (n * by.c2), T{})};
}

}  // namespace ssim_fused
