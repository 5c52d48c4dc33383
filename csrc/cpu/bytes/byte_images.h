// SSIM of 8-bit images under a uniform window (byte_march.h): which requests it serves, and how images are
// divided into planes, strips and tasks of rows.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "../../api/request.h"
#include "../parallel.h"
#include "../pass_spec.h"
#include "../rows/read_write.h"
#include "select.h"

namespace ssim_fused::cpu {

// Whether march_byte_images serves a request. A uniform window has more than one tap along both axes
// (Windows::is_uniform).
inline bool is_of_bytes(const Request& request) {
  const auto& taps = request.windows.taps;
  const auto pixels = static_cast<int64_t>(taps[1].size() * taps[2].size());
  const Constants& constants = request.constants;
  return request.preds.type == ScalarType::Byte && request.target.type == ScalarType::Byte &&
         !request.is_volume && !request.mask && !request.pixels && !request.wants_gradients() &&
         request.windows.is_uniform(1) && request.windows.is_uniform(2) && pixels <= kMostBytesOfWindow &&
         !constants.data && are_ordinary(constants.c1, constants.c2, static_cast<double>(pixels));
}

// The memory layout of a batch: `planes` planes, each of `step` interleaved channels. Images of one channel
// can also be interleaved along the batch.
struct ByteLayout {
  enum Interleaved { nothing, channels, batch };
  Interleaved interleaved;
  int64_t step, planes;

  explicit ByteLayout(const Request& request) : interleaved(nothing), step(1), planes(request.planes()) {
    const View &x = request.preds, &y = request.target;
    const auto lies_side_by_side = [&](size_t dim) {
      const int64_t n = x.shape[dim];
      return n > 1 && n <= kMostInterleaved && x.stride[dim] == 1 && y.stride[dim] == 1 && x.stride[4] == n &&
             y.stride[4] == n;
    };
    if (lies_side_by_side(1)) {
      interleaved = channels;
    } else if (x.channels() == 1 && lies_side_by_side(0)) {
      interleaved = batch;
    } else {
      return;
    }
    step = interleaved == channels ? x.channels() : x.batch();
    planes /= step;
  }

  // Returns the position in the batch of channel c of a plane. `of_image` is the number of channels of an
  // image.
  Plane channel(int64_t plane, int64_t c, int64_t of_image) const {
    if (interleaved == channels) return {plane, c, 0};
    if (interleaved == batch) return {c, 0, 0};
    return {plane / of_image, plane % of_image, 0};
  }
};

// Computes the sums of each image, and the map, whose type is T.
template <class T>
std::vector<Sums> march_byte_images(const Request& request, bool wants_contrast) {
  constexpr int64_t kWidest = 768;  // columns of a strip, few enough that their sums fit the caches
  const Axis &rows = request.windows.axes[1], &columns = request.windows.axes[2];
  const ByteLayout layout(request);
  const int64_t step = layout.step, channels = request.preds.channels(), height = rows.output_length(),
                width = columns.output_length();
  const int64_t strips = std::max<int64_t>(1, (width * step + kWidest - 1) / kWidest),
                segments = (height + kByteSegment - 1) / kByteSegment;
  // There are enough tasks to keep the threads busy, but each has enough rows that the additional rows it
  // reads cost little. The division does not change the result.
  const int64_t wanted =
      std::max<int64_t>(1, 4 * thread_count() / std::max<int64_t>(1, layout.planes * strips));
  const int64_t least = (8 * rows.radius + kByteSegment - 1) / kByteSegment;
  const int64_t of_task = std::max({int64_t{1}, least, (segments + wanted - 1) / wanted}),
                down = (segments + of_task - 1) / of_task;
  const ImageRows<T> map = image_rows<T>(request.map);
  const auto plane_of = [&](const View& view, const Plane& first) {
    const int64_t offset = first.batch * view.stride[0] + first.channel * view.stride[1];
    return BytePlane{static_cast<const uint8_t*>(view.data) + offset, view.stride[3],
                     step > 1 ? 1 : view.stride[4]};
  };
  std::vector<ByteSums> sums(static_cast<size_t>(layout.planes * strips * segments));
  parallel_for(0, layout.planes * strips * down, 1, [&](int64_t begin, int64_t end) {
    for (int64_t k = begin; k < end; ++k) {
      const int64_t place = k / down, plane = place / strips, strip = place % strips,
                    first = k % down * of_task;
      const auto boundary = [&](int64_t s) { return s * width / strips * step; };
      ByteTask task{plane_of(request.preds, layout.channel(plane, 0, channels)),
                    plane_of(request.target, layout.channel(plane, 0, channels)),
                    rows,
                    columns,
                    step,
                    first * kByteSegment,
                    std::min(height, (first + of_task) * kByteSegment),
                    boundary(strip),
                    boundary(strip + 1),
                    request.constants.c1,
                    request.constants.c2,
                    wants_contrast,
                    {},
                    {},
                    {},
                    &sums[static_cast<size_t>(place * segments + first)]};
      if constexpr (std::is_same_v<T, double>) {
        task.map_in_double = map;
      } else {
        task.map = map;
      }
      for (int64_t c = 0; c < step; ++c) task.channel[c] = layout.channel(plane, c, channels);
      march_bytes(task);
    }
  });

  // Sums are added in the order of planes, strips and segments, not in that of the threads, so that results
  // repeat bit for bit.
  std::vector<Sums> of_images(static_cast<size_t>(request.preds.batch()));
  for (size_t i = 0; i < sums.size(); ++i) {
    const int64_t plane = static_cast<int64_t>(i) / (strips * segments);
    for (int64_t c = 0; c < step; ++c) {
      Sums& image = of_images[static_cast<size_t>(layout.channel(plane, c, channels).batch)];
      image.similarity_loss += sums[i].similarity_loss[c];
      image.contrast_loss += sums[i].contrast_loss[c];
    }
  }
  return of_images;
}

}  // namespace ssim_fused::cpu
