// Runs the marches of a pass in parallel. Images take a single pass.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <vector>

#include "../api/request.h"
#include "division.h"
#include "march/pivot.h"
#include "march/select.h"
#include "march/workspace.h"
#include "parallel.h"

namespace ssim_fused::cpu {

// Returns the factor by which the sums of a uniform window along an axis are multiplied: 1 / its number of
// taps. Zero for another window, and for one of fewer than seven taps, whose outputs share too little.
inline double factor_of_sums(const Windows& windows, size_t axis) {
  return windows.is_uniform(axis) && windows.taps[axis].size() >= 7 ? windows.taps[axis][0] : 0;
}

template <class T>
MarchInstance<T> march_of(const PassSpec<T>& spec, Pass pass, GradientsOf gradients) {
  return spec.mask ? select_march<T, true>(pass, gradients) : select_march<T, false>(pass, gradients);
}

// Runs a pass over the planes. `complete(task, plane, strip)` sets the parts of a task that depend on its
// position: pivots, sums and, for volumes, the fields.
template <class T, class F>
void march_planes(const PassSpec<T>& spec, Pass pass, GradientsOf gradients, const Planes& planes,
                  const Division& division, F&& complete) {
  const MarchInstance<T> march = march_of(spec, pass, gradients);
  // Tasks are ordered by strip, so that a thread allocates a workspace only once per strip.
  const int64_t per_strip = planes.count() * division.tasks_down;
  parallel_for(0, division.strips * per_strip, 1, [&](int64_t begin, int64_t end) {
    std::optional<Workspace<T>> work;
    int64_t current = -1;
    for (int64_t task = begin; task < end; ++task) {
      const int64_t strip = task / per_strip;
      const int64_t plane = task % per_strip / division.tasks_down;
      StripTask<T> place{spec,
                         planes.plane(plane),
                         Columns(spec.columns, division.boundary(spec.columns, strip),
                                 division.boundary(spec.columns, strip + 1), gradients != GradientsOf::none,
                                 spec.mirrors(1)),
                         division.task(spec.rows, task % division.tasks_down, gradients != GradientsOf::none),
                         {},
                         nullptr};
      complete(place, plane, strip);
      if (strip != current) work.emplace(spec, place.columns, pass, gradients, march.lanes);
      current = strip;
      march.run(place, *work);
    }
  });
}

// Runs the single pass over a batch of images, and returns the sums of each image.
template <class T>
std::vector<Sums> march_images(const PassSpec<T>& spec, const Request& request, GradientsOf gradients) {
  const Planes planes{0, request.planes(), request.preds.channels(), 1};
  const Division division(spec.rows, spec.columns, planes.count(), thread_count());
  Partial partial(spec.rows, division, planes.count());
  march_planes(spec, Pass::image, gradients, planes, division,
               [&](StripTask<T>& place, int64_t plane, int64_t strip) {
                 place.pivots = choose_pivots(spec, place.plane, 1, place.columns.begin, place.columns.end);
                 place.sums = partial.of_task(plane, strip, place.rows);
               });
  return partial.of_images(request.preds.batch());
}

}  // namespace ssim_fused::cpu
