// All marches of a call, in parallel: how planes are divided into strips and rows, and for volumes the
// passes.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <optional>
#include <vector>

#include "../request.h"
#include "march.h"
#include "scratch.h"

namespace ssim_fused {

// How a plane is divided.
struct Division {
  int64_t strips;  // of one plane
  int64_t rows;    // input rows of one task, whole segments
  int64_t tasks_down;

  Division(const Axis& rows_axis, const Axis& columns, int64_t planes, bool whole_columns = false) {
    // Wide enough that the columns computed twice, up to 4 radius, cost little; narrow enough for the cache.
    const int64_t reach = std::max(columns.radius, columns.pad);
    const int64_t width = std::max<int64_t>(320, 8 * reach);
    strips = std::max<int64_t>(1, (columns.n + width / 2) / width);
    // Enough tasks to keep the threads evenly busy, but each at least 8 radius rows: its first 4 radius rows
    // are computed twice. The division does not change the result.
    const int64_t wanted = 4 * static_cast<int64_t>(torch::stable::get_num_threads());
    const int64_t places = std::max<int64_t>(1, planes * strips);
    const int64_t splits = whole_columns ? 1 : (wanted + places - 1) / places;
    const int64_t least = std::max<int64_t>(kSegment, 8 * rows_axis.radius);
    rows = std::max(least, (rows_axis.n + splits - 1) / splits);
    rows = (rows + kSegment - 1) / kSegment * kSegment;
    tasks_down = (rows_axis.n + rows - 1) / rows;
  }

  // First input column of strip k.
  int64_t boundary(const Axis& columns, int64_t k) const {
    constexpr int64_t lanes = 16;
    return k == strips ? columns.n : k * columns.n / strips / lanes * lanes;
  }
};

// The sums of all planes: for each its strips', for each of these its segments'.
struct Partial {
  int64_t segments, per_plane;
  std::vector<Sums> sums;

  Partial(const Axis& rows, const Division& division, int64_t planes)
      : segments((rows.n + kSegment - 1) / kSegment),
        per_plane(division.strips * segments),
        sums(planes * per_plane) {}

  // Added up over the planes of each image, in the order of the places, whatever the threads did.
  std::vector<Sums> of_images(int64_t batch) const {
    std::vector<Sums> result(batch);
    const int64_t per_image = batch == 0 ? 1 : static_cast<int64_t>(sums.size()) / batch;
    for (size_t i = 0; i < sums.size(); ++i) {
      Sums& image = result[i / per_image];
      image.similarity_loss += sums[i].similarity_loss;
      image.contrast_loss += sums[i].contrast_loss;
      image.by_c1 += sums[i].by_c1;
      image.by_c2 += sums[i].by_c2;
    }
    return result;
  }
};

// Planes `slices` of each of the volumes [first, first + volumes), a volume being a channel of an image of
// the batch.
struct Planes {
  int64_t first, volumes, channels, slices;

  int64_t count() const { return volumes * slices; }
  int64_t volume(int64_t plane) const { return first + plane / slices; }
  Plane plane(int64_t plane) const {
    return {volume(plane) / channels, volume(plane) % channels, plane % slices};
  }
};

// One pass over the planes. `complete(strip)` sets what depends on the place: pivot, maps, sums.
template <class T, class F>
void march_planes(const Problem<T>& problem, Pass pass, int maps, const Planes& planes,
                  const Division& division, F&& complete) {
  const MarchFunction<T> march = select_march<T>(problem, pass, maps);
  // Strips of one place lie together, so that a thread allocates a workspace once for each place.
  const int64_t per_strip = planes.count() * division.tasks_down;
  torch::stable::parallel_for(0, division.strips * per_strip, 1, [&](int64_t begin, int64_t end) {
    std::optional<Workspace<T>> work;
    int64_t current = -1;
    for (int64_t task = begin; task < end; ++task) {
      const int64_t strip = task / per_strip;
      const int64_t plane = task % per_strip / division.tasks_down;
      const int64_t row = task % division.tasks_down * division.rows;
      Strip<T> place{problem,
                     planes.plane(plane),
                     Columns(problem.columns, division.boundary(problem.columns, strip),
                             division.boundary(problem.columns, strip + 1), maps > 0),
                     row,
                     std::min(row + division.rows, problem.rows.n),
                     T(0),
                     nullptr};
      complete(place, plane, strip);
      if (strip != current) work.emplace(problem, place.columns, pass, maps);
      current = strip;
      march(place, *work);
    }
  });
}

template <class T>
std::vector<Sums> march_images(const Problem<T>& problem, const Request& request, int maps) {
  const Planes planes{0, request.planes(), request.preds.channels(), 1};
  const Division division(problem.rows, problem.columns, planes.count());
  Partial partial(problem.rows, division, planes.count());
  march_planes(
      problem, Pass::image, maps, planes, division, [&](Strip<T>& place, int64_t plane, int64_t strip) {
        place.pivot = choose_pivot(problem, place.plane, 1, place.columns.begin, place.columns.end);
        place.sums =
            &partial.sums[plane * partial.per_plane + strip * partial.segments + place.row_begin / kSegment];
      });
  return partial.of_images(request.preds.batch());
}

// Volumes, some at a time, so that what lies between the passes is bounded: four maps of one volume, or of as
// many as fit the caches.
template <class T>
std::vector<Sums> march_volumes(const Problem<T>& slices, const Request& request, int maps) {
  constexpr int64_t kBytesOfThread = int64_t{1} << 20;
  constexpr int64_t kLanes = kLine / sizeof(T);
  const int64_t depth = request.windows.axes[0].n, height = slices.rows.output_length(),
                width = slices.columns.output_length();
  // A line after the maps of a row, so that the rows of a slice do not meet in the same sets of the caches.
  const int64_t row_of_maps = 4 * width + (width >= 4 * kLanes ? kLanes : 0);
  const int64_t volume = height * depth * row_of_maps;
  const int64_t affordable = kBytesOfThread * torch::stable::get_num_threads() / (volume * sizeof(T));
  const int64_t slab = std::clamp<int64_t>(affordable, 1, std::max<int64_t>(1, request.planes()));
  const Scratch<T> scratch(slab * volume);

  // Between the passes lie the slices one below the other, of each row: the depth pass reads them in order.
  Problem<T> first = slices;
  first.maps = {scratch.get(), volume, row_of_maps, depth * row_of_maps, width};
  Problem<T> across = first;
  std::swap(across.maps.slice, across.maps.row);
  across.map = slices.map.across_rows();
  across.grad_map = slices.grad_map.across_rows();
  across.rows = request.windows.axes[0];
  across.columns = {width, 0, 0, false};
  const std::vector<T> taps = request.windows.taps_as<T>(0);
  across.taps[0].assign(taps.begin(), taps.end());
  across.reversed[0].assign(taps.rbegin(), taps.rend());
  across.crop_rows = request.windows.axes[0].pad;
  across.slice_sum = T(1);
  for (const auto& window : slices.taps) {
    across.slice_sum *= std::accumulate(window.begin(), window.end(), T(0));
  }

  std::optional<Partial> partial;
  for (int64_t begin = 0; begin < request.planes(); begin += slab) {
    const int64_t count = std::min(slab, request.planes() - begin);
    const Planes of_slices{begin, count, request.preds.channels(), depth};
    const Planes across_rows{begin, count, request.preds.channels(), height};
    std::vector<T> pivots(count);
    for (int64_t v = 0; v < count; ++v) {
      pivots[v] = choose_pivot(slices, of_slices.plane(v * depth), depth, 0, slices.columns.n);
    }
    const auto place_in_maps = [&](Strip<T>& place, int64_t volume) {
      place.volume = volume;
      place.pivot = pivots[volume];
    };

    const Division division(slices.rows, slices.columns, of_slices.count());
    march_planes(first, Pass::moments, 0, of_slices, division,
                 [&](Strip<T>& place, int64_t plane, int64_t) { place_in_maps(place, plane / depth); });
    // Derivatives take the place of moments that the same march has read: one march from end to end.
    const Division down(across.rows, across.columns, across_rows.count(), maps > 0);
    if (!partial) partial.emplace(across.rows, down, request.planes() * height);
    march_planes(across, Pass::depth, maps, across_rows, down,
                 [&](Strip<T>& place, int64_t plane, int64_t strip) {
                   place_in_maps(place, plane / height);
                   place.slice_counts =
                       place.plane.slice >= slices.crop_rows && place.plane.slice < height - slices.crop_rows;
                   place.sums = &partial->sums[(begin * height + plane) * partial->per_plane +
                                               strip * partial->segments + place.row_begin / kSegment];
                 });
    if (maps == 0) continue;
    march_planes(first, Pass::gradient, maps, of_slices, division,
                 [&](Strip<T>& place, int64_t plane, int64_t) { place_in_maps(place, plane / depth); });
  }
  return partial ? partial->of_images(request.preds.batch()) : std::vector<Sums>(request.preds.batch());
}

}  // namespace ssim_fused
