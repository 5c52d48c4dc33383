// The three passes over volumes, and the fields between them.
#pragma once

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <optional>
#include <vector>

#include "../api/request.h"
#include "planes.h"
#include "scratch.h"

namespace ssim_fused::cpu {

// Volumes, some at a time, so that what lies between the passes is bounded: the fields of one volume, or of
// as many as fit the caches.
template <class T>
std::vector<Sums> march_volumes(const PassSpec<T>& slices, const Request& request, GradientsOf gradients) {
  constexpr int64_t kBytesOfThread = int64_t{1} << 20;
  constexpr int64_t kLanes = kLine / sizeof(T);
  const int64_t depth = request.windows.axes[0].n, height = slices.rows.output_length(),
                width = slices.columns.output_length();
  const Axis across_columns{width, 0, 0, false};
  // A single strip has the same columns in every pass, unless gradients have more than the outputs.
  const bool in_lanes = Division(slices.rows, slices.columns, 1, 1).strips == 1 &&
                        Division(request.windows.axes[0], across_columns, 1, 1).strips == 1 &&
                        (gradients == GradientsOf::none || slices.mirrors(1));
  const int lanes = march_of(slices, Pass::moments, GradientsOf::none).lanes;
  const int64_t of_row = in_lanes ? Positions::vectors_of(width, lanes) * lanes : width;
  // A line after the fields of a row, so that the rows of a slice do not meet in the same sets of the caches.
  const int64_t row_of_fields = slices.moment_fields() * of_row + (width >= 4 * kLanes ? kLanes : 0);
  const int64_t volume = height * depth * row_of_fields;
  const int64_t affordable = kBytesOfThread * thread_count() / (volume * static_cast<int64_t>(sizeof(T)));
  const int64_t slab = std::clamp<int64_t>(affordable, 1, std::max<int64_t>(1, request.planes()));
  const Scratch<T> scratch(slab * volume);

  // Between the passes lie the slices one below the other, of each row: the depth pass reads them in order.
  PassSpec<T> first = slices;
  first.fields = {scratch.get(), volume, row_of_fields, depth * row_of_fields, of_row, in_lanes};
  PassSpec<T> across = first;
  std::swap(across.fields.slice, across.fields.row);
  across.map = slices.map.across_rows();
  across.grad_map = slices.grad_map.across_rows();
  across.mask = slices.mask.across_rows();
  across.mask_slice = slices.rows.centre(0);
  across.rows = request.windows.axes[0];
  across.columns = across_columns;
  const std::vector<T> taps = request.windows.taps_as<T>(0);
  across.taps[0].assign(taps.begin(), taps.end());
  across.reversed[0].assign(taps.rbegin(), taps.rend());
  across.uniform = {request.windows.is_uniform(0) ? request.windows.taps[0][0] : 0, 0};
  if (across.uniform[0] != 0) across.taps[0].assign(taps.size(), static_cast<T>(across.uniform[0]));
  double slice_sum = 1;
  for (size_t d = 0; d < 2; ++d) {
    const std::vector<T>& window = slices.taps[d];
    slice_sum *= slices.uniform[d] != 0
                     ? slices.uniform[d] * static_cast<double>(window.size())
                     : static_cast<double>(std::accumulate(window.begin(), window.end(), T(0)));
  }
  across.slice_sum = static_cast<T>(slice_sum);

  // The pixels' sums: with the gradients, where their march has both images, else with the moments.
  first.pixel_term = gradients != GradientsOf::none ? PixelTermParams<T>{} : slices.pixel_term;
  PassSpec<T> last = first;
  last.pixel_term = slices.pixel_term;

  std::optional<Partial> partial, of_pixels;
  for (int64_t begin = 0; begin < request.planes(); begin += slab) {
    const int64_t count = std::min(slab, request.planes() - begin);
    const Planes of_slices{begin, count, request.preds.channels(), depth};
    const Planes across_rows{begin, count, request.preds.channels(), height};
    std::vector<Pivots<T>> pivots(count);
    for (int64_t v = 0; v < count; ++v) {
      pivots[v] = choose_pivots(slices, of_slices.plane(v * depth), depth, 0, slices.columns.n);
    }
    const auto place_in_fields = [&](StripTask<T>& place, int64_t volume) {
      place.volume = volume;
      place.pivots = pivots[volume];
    };

    const Division division(slices.rows, slices.columns, of_slices.count(), thread_count());
    if (!of_pixels && slices.pixel_term) of_pixels.emplace(slices.rows, division, request.planes() * depth);
    const auto place_slice = [&](StripTask<T>& place, int64_t plane, int64_t strip) {
      place_in_fields(place, plane / depth);
      if (of_pixels) place.sums = of_pixels->of_task(begin * depth + plane, strip, place.rows);
    };
    march_planes(first, Pass::moments, GradientsOf::none, of_slices, division, place_slice);
    // Derivatives take the place of moments that the same march has read: one march from end to end.
    const Division down(across.rows, across.columns, across_rows.count(), thread_count(),
                        gradients != GradientsOf::none);
    if (!partial) partial.emplace(across.rows, down, request.planes() * height);
    march_planes(across, Pass::depth, gradients, across_rows, down,
                 [&](StripTask<T>& place, int64_t plane, int64_t strip) {
                   place_in_fields(place, plane / height);
                   place.slice_counts = slices.rows.is_in_crop(place.plane.slice);
                   place.sums = partial->of_task(begin * height + plane, strip, place.rows);
                 });
    if (gradients == GradientsOf::none) continue;
    march_planes(last, Pass::gradient, gradients, of_slices, division, place_slice);
  }
  if (!partial) return std::vector<Sums>(request.preds.batch());
  std::vector<Sums> sums = partial->of_images(request.preds.batch());
  if (of_pixels) {
    const std::vector<Sums> pixels = of_pixels->of_images(request.preds.batch());
    for (size_t b = 0; b < sums.size(); ++b) sums[b].pixels = pixels[b].pixels;
  }
  return sums;
}

}  // namespace ssim_fused::cpu
