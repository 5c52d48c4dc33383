// A tensor [B, C, H, W] or [B, C, D, H, W] as an image of the CPU kernels.
#pragma once

#include <torch/csrc/stable/tensor.h>

#include "../args.h"
#include "image.h"

namespace ssim_fused {

template <class T>
inline Image<T> image_of(const torch::stable::Tensor& tensor, bool is_output) {
  Image<T> image;
  image.data = is_output ? tensor.mutable_data_ptr() : const_cast<void*>(tensor.const_data_ptr());
  image.stride = image_strides(tensor);
  select_rows(tensor.scalar_type(), image);
  return image;
}

}  // namespace ssim_fused
