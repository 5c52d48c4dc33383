// The three passes over volumes (`Pass` in math/pass.h), and the fields between them.
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

// The layout of the fields of one volume between the passes, in elements: [rows, slices, fields, columns].
// The slices of a row are consecutive, so that the depth pass, which moves the most data, walks memory in
// order.
struct VolumeLayout {
  bool in_lanes;        // Fields::in_lanes
  int64_t depth, rows;  // slices of a volume, rows of a slice
  int64_t field;        // elements of one field of a row
  int64_t row;          // from a row to that of the next slice

  template <class T>
  VolumeLayout(const PassSpec<T>& slices, const Request& request, GradientsOf gradients)
      : depth(request.windows.axes[0].n), rows(slices.rows.output_length()) {
    const int64_t width = slices.columns.output_length();
    // If a slice is a single strip, the marches of all passes have the same columns, unless gradients have
    // more columns than the outputs.
    in_lanes = Division(slices.rows, slices.columns, 1, 1).strips == 1 &&
               Division(request.windows.axes[0], {width, 0, 0, false}, 1, 1).strips == 1 &&
               (gradients == GradientsOf::none || slices.mirrors(1));
    const int lanes = march_of(slices, Pass::moments, GradientsOf::none).lanes;
    field = in_lanes ? Positions::vectors_of(width, lanes) * lanes : width;
    // A cache line of padding keeps the rows of a slice from mapping to the same cache sets.
    constexpr int64_t kPixelsOfLine = kLine / sizeof(T);
    row = slices.moment_fields() * field + (width >= 4 * kPixelsOfLine ? kPixelsOfLine : 0);
  }

  int64_t volume() const { return rows * depth * row; }

  template <class T>
  Fields<T> fields(T* data) const {
    return {data, volume(), row, depth * row, field, in_lanes};
  }
};

// Returns the number of volumes that are processed at a time, which bounds the memory between the passes: as
// many as fit the caches of all threads, at least one.
inline int64_t volumes_at_a_time(int64_t bytes_of_volume, int64_t volumes) {
  constexpr int64_t kBytesOfThread = int64_t{1} << 20;
  const int64_t affordable = kBytesOfThread * thread_count() / bytes_of_volume;
  return std::clamp<int64_t>(affordable, 1, std::max<int64_t>(1, volumes));
}

// Returns the sum of the window over a slice: the taps of the rows times those of the columns.
template <class T>
T sum_of_slice_window(const PassSpec<T>& slices) {
  double sum = 1;
  for (size_t d = 0; d < 2; ++d) {
    const std::vector<T>& window = slices.taps[d];
    sum *= slices.uniform[d] != 0 ? slices.uniform[d] * static_cast<double>(window.size())
                                  : static_cast<double>(std::accumulate(window.begin(), window.end(), T(0)));
  }
  return static_cast<T>(sum);
}

// Returns the parameters of the pass along the depth, from those of the pass over the slices. A plane of
// the depth pass has one row of each slice, so its rows are the slices.
template <class T>
PassSpec<T> depth_spec_of(const PassSpec<T>& slices, const Request& request) {
  PassSpec<T> across = slices;
  std::swap(across.fields.slice, across.fields.row);
  across.map = slices.map.across_rows();
  across.grad_map = slices.grad_map.across_rows();
  across.mask = slices.mask.across_rows();
  across.mask_slice = slices.rows.centre(0);
  across.rows = request.windows.axes[0];
  across.columns = {slices.columns.output_length(), 0, 0, false};
  const std::vector<T> taps = request.windows.taps_as<T>(0);
  across.taps[0].assign(taps.begin(), taps.end());
  across.reversed[0].assign(taps.rbegin(), taps.rend());
  across.uniform = {factor_of_sums(request.windows, 0), 0};
  if (across.uniform[0] != 0) across.taps[0].assign(taps.size(), static_cast<T>(across.uniform[0]));
  across.slice_sum = sum_of_slice_window(slices);
  return across;
}

// Runs the three passes over a batch of volumes, some volumes at a time, and returns the sums of each image.
template <class T>
std::vector<Sums> march_volumes(const PassSpec<T>& slices, const Request& request, GradientsOf gradients) {
  const VolumeLayout layout(slices, request, gradients);
  const int64_t depth = layout.depth, height = layout.rows;
  const int64_t slab = volumes_at_a_time(layout.volume() * static_cast<int64_t>(sizeof(T)), request.planes());
  const Scratch<T> scratch(slab * layout.volume());

  PassSpec<T> first = slices;
  first.fields = layout.fields(scratch.get());
  const PassSpec<T> across = depth_spec_of(first, request);
  // The pixel term is computed by a pass that reads both images: the last one if there are gradients, which
  // then receive its slopes, otherwise the first.
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
    // Derivatives overwrite moments that the same march has read, so each strip is a single task.
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
