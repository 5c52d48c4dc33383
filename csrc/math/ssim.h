// The SSIM formula and its partial derivatives, for one window position. Host and device; T is float, double,
// or a vector of either (cpu/simd/lanes.h).
//
// The moments are taken of x' = x - pivot and y' = y - pivot, with * the window (whose taps sum to one):
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
// which is the textbook formula rearranged so that nothing subtracts two large numbers when x is close to y:
// identical images give exactly 1 and a gradient of exactly 0, also with approximate reciprocals.
//
// The bounds hold without rounding: d - delta^2 is the variance of x - y, and p - ab + V/4 a quarter of that
// of x + y. With rounding, p - ab may be anything if a window's pixels lie far from the pivot. Then the
// bounds keep 1 - cs = V / B2 in [0, 2]: B2 >= c2 + V/2. Likewise 1 - l is at most 2, since B1 >= delta^2 / 2
// + c1. The derivatives are those of the formula without the bounds, at the bounded values.
//
// Where the images differ by about a constant, V is a small difference of two large numbers again. So the
// differences may have a pivot of their own, s (`Pivots`): delta' = w*(x-y) - s and d' = w*((x-y-s)^2) take
// the place of delta and d in the moments, V = max(d' - delta'^2, 0), and only the luminance wants delta =
// delta' + s. A plain number as pivot is one of the pixels alone, s = 0.
#pragma once

#include "arithmetic.h"
#include "pass.h"
#include "where.h"

namespace ssim_fused {

template <class T>
struct Moments {
  T m, delta, p, d;
};

// The order of moments wherever they are kept as fields of an array; with a mask, a window's weight comes
// last. The functions below convert between fields and moments.
enum Field { kMomentM, kMomentDelta, kMomentP, kMomentD, kPlainMoments, kWindowWeight = kPlainMoments };
SSIM_HOST_DEVICE constexpr int moment_fields(bool masked) {
  return masked ? kWindowWeight + 1 : int{kPlainMoments};
}

// Moments whose fields are at(field).
template <class T, class At>
SSIM_HOST_DEVICE Moments<T> moments_of_fields(At&& at) {
  return {at(kMomentM), at(kMomentDelta), at(kMomentP), at(kMomentD)};
}

// Calls to(field, value) for each of the moments.
template <class T, class To>
SSIM_HOST_DEVICE void to_fields(const Moments<T>& moments, To&& to) {
  to(kMomentM, moments.m);
  to(kMomentDelta, moments.delta);
  to(kMomentP, moments.p);
  to(kMomentD, moments.d);
}

// What pixels and their differences are taken about.
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

// Derivatives, by w*x', w*y', w*(x'y') and w*((x-y)^2).
template <class T>
struct Partials {
  T a, b, p, d;
};

// The order of derivatives wherever they are kept as fields, which take the place of moments: those of preds'
// gradient first; only target's has the last one.
enum DerivativeField { kByA, kByP, kByD, kByB, kMostDerivatives };

// Derivatives whose fields are at(field).
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

// What a pixel of either image adds to the moments, before the window weighs it.
template <class T, class Pivot>
SSIM_HOST_DEVICE Moments<T> pixel_moments(T x, T y, const Pivot& pivot) {
  const T difference = centred_difference<T>(x - y, pivot);
  const T centred_x = x - of_pixels(pivot), centred_y = y - of_pixels(pivot);
  return {centred_x + centred_y, difference, centred_x * centred_y, difference * difference};
}

// Those of windows that see nothing but zeros; `taps`: the sum of the window's taps.
template <class T, class Pivot>
SSIM_HOST_DEVICE Moments<T> moments_of_zeros(const Pivot& pivot, T taps) {
  const Moments<T> zero = pixel_moments<T>(T(0), T(0), pivot);
  return {taps * zero.m, taps * zero.delta, taps * zero.p, taps * zero.d};
}

// Masks give each pixel a weight. A window then has the sum `n` of its taps times weights, and sums of these
// times what the pixels add; its moments are those sums over n. The same weights, of the pixels that outputs
// are centred on, are those of the outputs in the means.
//
// Nothing is divided by n: the formula is homogeneous. With sums in the place of m and delta, n times those
// of p and d, n times the pivot and n^2 times the constants, a, b and delta come out n times as large, B1, B2
// and V n^2 times, the losses as they are; and of the partials, which by sums are one over n of those by
// moments, only those by p and d still want a factor n.

// What a pixel of this weight adds. What is masked is selected away: a NaN times zero would be a NaN.
template <class T, class Pivot>
SSIM_HOST_DEVICE Moments<T> masked_moments(T x, T y, const Pivot& pivot, T weight) {
  const T unseen = of_pixels(pivot);
  const Moments<T> pixel = pixel_moments<T>(weight > T{} ? x : unseen, weight > T{} ? y : unseen, pivot);
  return {weight * pixel.m, weight * pixel.delta, weight * pixel.p, weight * pixel.d};
}

// Windows of less weight see nothing, so that there is no output; n^2 times a constant has to be a number.
constexpr float kLeastWeight = 1e-15f;

template <class T>
struct LocalTerms {
  T a, b, mu_x, mu_y, delta;
  T centred_delta;  // delta'
  T by_a, by_b;     // by which 1 - cs enters the derivatives by a and b: delta' + b and a - delta'
  T inverse_b1, inverse_b2;
  T luminance_loss;  // 1 - l
  T contrast_loss;   // 1 - cs

  SSIM_HOST_DEVICE T luminance() const { return 1 - luminance_loss; }
  SSIM_HOST_DEVICE T contrast_sensitivity() const { return 1 - contrast_loss; }
  SSIM_HOST_DEVICE T similarity() const { return luminance() * contrast_sensitivity(); }
  // 1 - l cs, with digits where it is tiny.
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
  // Written so that a NaN stays one.
  const T variance = clamp_below(moments.d - t.centred_delta * t.centred_delta, T{});
  const T covariance = clamp_below(moments.p - t.a * t.b, variance * -0.25f);
  t.inverse_b1 = reciprocal(t.mu_x * t.mu_x + (t.mu_y * t.mu_y + c1));
  t.inverse_b2 = reciprocal(2 * covariance + (c2 + variance));
  t.luminance_loss = clamp_above(delta_squared * t.inverse_b1, T{} + 2);
  t.contrast_loss = variance * t.inverse_b2;
  return t;
}

// From a window's sums.
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

// Derivatives of  by_contrast / 2 * cs  by a, b, p and d; of d twice the derivative, which is what enters
// the gradients. x enters the moments as a, p and d, y as b, p and d; with * the adjoint of the window:
//     dL/dx = w*(f_a) + y' w*(f_p) + (x - y - s) w*(f_d)
//     dL/dy = w*(f_b) + x' w*(f_p) - (x - y - s) w*(f_d)
template <class T>
SSIM_HOST_DEVICE Partials<T> partials_of_doubled_contrast(const LocalTerms<T>& t, T by_contrast) {
  const T g2 = by_contrast * t.inverse_b2;
  Partials<T> f;
  f.a = g2 * (t.centred_delta - t.by_a * t.contrast_loss);
  f.b = -g2 * (t.centred_delta + t.by_b * t.contrast_loss);
  f.p = g2 * t.contrast_loss;
  f.d = f.p - g2;  // -g2 cs
  return f;
}

// The same of  by_luminance / 2 * l + by_contrast / 2 * cs.
template <class T>
SSIM_HOST_DEVICE Partials<T> partials_of_doubled(const LocalTerms<T>& t, T by_luminance, T by_contrast) {
  const T g1 = by_luminance * t.inverse_b1;
  Partials<T> f = partials_of_doubled_contrast(t, by_contrast);
  f.a = g1 * (t.mu_x * t.luminance_loss - t.delta) + f.a;
  f.b = g1 * (t.mu_y * t.luminance_loss + t.delta) + f.b;
  return f;
}

// The same of  grad_similarity * l * cs + grad_contrast * cs.
template <class T>
SSIM_HOST_DEVICE Partials<T> partials(const LocalTerms<T>& t, T grad_similarity, T grad_contrast) {
  const T by_luminance = grad_similarity * t.contrast_sensitivity();
  const T by_contrast = grad_similarity * t.luminance() + grad_contrast;
  return partials_of_doubled(t, by_luminance + by_luminance, by_contrast + by_contrast);
}

// The same of what `objective` is a mean of. Of a mean, `weight` is twice the weight of this output in it; in
// general, `weight` is that of its similarity and `of_contrast` that of its contrast sensitivity.
template <Objective objective, class T>
SSIM_HOST_DEVICE Partials<T> objective_partials(const LocalTerms<T>& t, T weight, T of_contrast) {
  if constexpr (objective == Objective::mean_contrast) return partials_of_doubled_contrast(t, weight);
  if constexpr (objective == Objective::mean_similarity)
    return partials_of_doubled(t, weight * t.contrast_sensitivity(), weight * t.luminance());
  return partials(t, weight, of_contrast);
}

// The same by the sums of a window of weight n; nothing where nothing is asked of the output, whatever it is.
template <class T>
SSIM_HOST_DEVICE Partials<T> masked_partials(const LocalTerms<T>& t, T grad_similarity, T grad_contrast,
                                             T n) {
  const Partials<T> f = partials(t, grad_similarity, grad_contrast);
  const auto counted = [&](T by) { return where_any(grad_similarity, grad_contrast, by, T{}); };
  return {counted(f.a), counted(f.b), counted(n * f.p), counted(n * f.d)};
}

// From w*(f_a), w*(f_b), w*(f_p), w*(f_d) at a pixel to the gradient of either image there.
template <class T>
struct PixelGradient {
  T by_x, by_y;
};

// What w*(f_p) adds to the gradient of one image where the other has the pixel `other`; and what w*(f_d) adds
// to that of x, and takes from that of y.
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

// The same of a pixel that has this weight in the windows. One that no output counts, whatever it is, has
// none.
template <class T, class Pivot>
SSIM_HOST_DEVICE PixelGradient<T> masked_pixel_gradient(T x, T y, const Pivot& pivot, const Partials<T>& f,
                                                        T weight) {
  const T uncounted = of_pixels(pivot);
  const PixelGradient<T> pixel =
      pixel_gradient<T>(where_any(f.p, f.d, x, uncounted), where_any(f.p, f.d, y, uncounted), pivot, f);
  return {weight > T{} ? weight * pixel.by_x : T{}, weight > T{} ? weight * pixel.by_y : T{}};
}

// Derivatives of the same by c1 and c2.
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
