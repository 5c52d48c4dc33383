// A view as an image of the CPU kernels.
#pragma once

#include "../request.h"
#include "image.h"

namespace ssim_fused {

template <class T>
inline Image<T> image_of(const View& view) {
  Image<T> image;
  if (!view) return image;
  image.data = view.data;
  image.stride = view.stride;
  select_rows(view.type, image);
  return image;
}

}  // namespace ssim_fused
