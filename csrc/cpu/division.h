// How the planes of a call are divided into strips and tasks, and where their sums lie. Free of torch, so
// that tests/tasks.cpp can check it alone.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "pass_spec.h"

namespace ssim_fused::cpu {

// The division of a plane into strips of columns, and of each strip into tasks of rows.
struct Division {
  int64_t strips;  // strips of a plane
  int64_t rows;    // input rows of a task, whole segments; the last task may have fewer, or a few more
  int64_t tasks_down;

  // `whole_columns`: each strip is a single task, because the march overwrites the fields that it reads.
  Division(const Axis& rows_axis, const Axis& columns, int64_t planes, int64_t threads,
           bool whole_columns = false) {
    // A strip is wide enough that the columns computed twice, up to 4 radius, cost little, and narrow
    // enough for the cache.
    const int64_t reach = std::max(columns.radius, columns.pad);
    // Limits the width of strips for wide windows, because the rings of a strip hold six to eight arrays of
    // 2.5 radius rows.
    constexpr int64_t kWidest = 1024;
    const int64_t width = std::clamp<int64_t>(8 * reach, 320, kWidest);
    strips = std::max<int64_t>(1, (columns.n + width / 2) / width);
    // Columns that are reflected at an end of the row must only be seen by the strip at that end.
    while (strips > 1 && columns.n / strips - kBoundary <= reach) --strips;
    // There are enough tasks to keep the threads evenly busy, but each has at least 8 radius rows, because
    // its first 4 radius rows are computed twice. The division does not change the result.
    const int64_t wanted = 4 * threads;
    const int64_t places = std::max<int64_t>(1, planes * strips);
    const int64_t splits = whole_columns ? 1 : (wanted + places - 1) / places;
    const int64_t least = std::max<int64_t>(kSegment, 8 * rows_axis.radius);
    rows = std::max(least, (rows_axis.n + splits - 1) / splits);
    rows = (rows + kSegment - 1) / kSegment * kSegment;
    tasks_down = whole_columns ? 1 : task_count(rows_axis, rows);
  }

  // Returns the rows of task k of a strip.
  TaskRows task(const Axis& rows_axis, int64_t k, bool with_gradient) const {
    return {rows_axis, {k * rows, k + 1 == tasks_down ? rows_axis.n : (k + 1) * rows}, with_gradient};
  }

  // Returns the first input column of strip k.
  int64_t boundary(const Axis& columns, int64_t k) const {
    return k == strips ? columns.n : k * columns.n / strips / kBoundary * kBoundary;
  }

 private:
  static constexpr int64_t kBoundary = 16;  // strips begin at multiples of this many columns
};

// The sums of a call, for each segment of each strip of each plane: [planes, strips, segments].
struct Partial {
  int64_t segments, per_plane;
  std::vector<Sums> sums;

  Partial(const Axis& rows, const Division& division, int64_t planes)
      : segments((rows.n + kSegment - 1) / kSegment),
        per_plane(division.strips * segments),
        sums(planes * per_plane) {}

  // Returns the sums of a task's segments.
  Sums* of_task(int64_t plane, int64_t strip, const TaskRows& task) {
    return sums.data() + (plane * per_plane + strip * segments + task.rows.begin / kSegment);
  }

  // Returns the sums of each image. They are added in the order of planes, strips and segments, not in that
  // of the threads, so that results repeat bit for bit.
  std::vector<Sums> of_images(int64_t batch) const {
    std::vector<Sums> result(batch);
    const int64_t per_image = batch == 0 ? 1 : static_cast<int64_t>(sums.size()) / batch;
    for (size_t i = 0; i < sums.size(); ++i) {
      Sums& image = result[i / per_image];
      image.similarity_loss += sums[i].similarity_loss;
      image.contrast_loss += sums[i].contrast_loss;
      image.by_c1 += sums[i].by_c1;
      image.by_c2 += sums[i].by_c2;
      image.pixels += sums[i].pixels;
      image.weight += sums[i].weight;
      image.cropped_weight += sums[i].cropped_weight;
    }
    return result;
  }
};

// The planes of volumes [first, first + volumes), with `slices` planes each. A volume is one channel of an
// image of the batch.
struct Planes {
  int64_t first, volumes, channels, slices;

  int64_t count() const { return volumes * slices; }
  int64_t volume(int64_t plane) const { return first + plane / slices; }
  Plane plane(int64_t plane) const {
    return {volume(plane) / channels, volume(plane) % channels, plane % slices};
  }
};

}  // namespace ssim_fused::cpu
