// New tensors, through the C interface: a call of the dispatcher by name costs more than a small image.
#pragma once

#include <torch/csrc/inductor/aoti_torch/c/shim.h>

#include <algorithm>
#include <cstdlib>
#include <exception>
#include <vector>

#include "request.h"

namespace ssim_fused {

// Torch's own reason does not come through the C interface. In the words that training loops look for.
[[noreturn]] inline void throw_out_of_memory(const Tensor& like, const std::vector<int64_t>& shape,
                                             ScalarType type) {
  STD_TORCH_CHECK(false,
                  like.is_cuda() ? "CUDA out of memory." : "DefaultCPUAllocator: can't allocate memory:",
                  " out of memory for a tensor of shape ", to_text(shape), " and dtype ",
                  torch::headeronly::toString(type));
  std::abort();  // not reached
}

// Before an image is allocated. glibc before 2.38 cuts an aligned block out of a larger one and puts the
// crumbs on either side, of at most 112 bytes, into the thread's cache, where they do not rejoin the block
// that is freed: its hole is a crumb too small for the next image of that size, and the heap grew by an image
// a step where the last step's gradient outlived the next forward. From a cache that is full crumbs go where
// they rejoin.
inline void fill_cache_of_crumbs(const Tensor& like, int64_t bytes) {
  constexpr int64_t kFromHeap = int64_t{1} << 16;
  if (bytes < kFromHeap || !like.is_cpu()) return;
  constexpr size_t kPlaces = 7, kSizes = 6, kLeast = 24, kStep = 16;  // of glibc's cache
  void* volatile blocks[kSizes * kPlaces];                            // volatile: else nothing is allocated
  for (size_t i = 0; i < kSizes * kPlaces; ++i) blocks[i] = std::malloc(kLeast + i / kPlaces * kStep);
  for (void* const block : blocks) std::free(block);
}

inline Tensor new_tensor(const Tensor& like, const std::vector<int64_t>& shape, ScalarType type) {
  std::vector<int64_t> strides(shape.size());
  int64_t stride = 1;
  for (size_t d = shape.size(); d-- > 0;) {
    strides[d] = stride;
    stride *= std::max<int64_t>(shape[d], 1);
  }
  int32_t device_type = 0, device_index = 0;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(like.get(), &device_type));
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_index(like.get(), &device_index));
  int32_t dtype = aoti_torch_dtype_float32();
#define SSIM_DTYPE(name, Stored, scalar) \
  if (type == ScalarType::scalar) dtype = aoti_torch_dtype_##name();
  SSIM_FOR_FLOAT_PIXELS(SSIM_DTYPE)
#undef SSIM_DTYPE
  fill_cache_of_crumbs(like, stride * bytes_of(type));
  AtenTensorHandle handle = nullptr;
  const bool is_made =
      aoti_torch_empty_strided(static_cast<int64_t>(shape.size()), shape.data(), strides.data(), dtype,
                               device_type, device_index, &handle) == AOTI_TORCH_SUCCESS;
  if (!is_made) throw_out_of_memory(like, shape, type);
  return Tensor(handle);
}

inline Tensor new_like(const Tensor& image) {
  const std::vector<int64_t> shape(image.sizes().begin(), image.sizes().end());
  if (image.is_contiguous()) return new_tensor(image, shape, image.scalar_type());
  fill_cache_of_crumbs(image, image.numel() * bytes_of(image.scalar_type()));
  try {
    return torch::stable::empty_like(image);
  } catch (const std::exception&) {
    throw_out_of_memory(image, shape, image.scalar_type());
  }
}

inline Tensor new_per_image(const Tensor& preds, Reduction reduction) {
  return new_tensor(
      preds, reduction == Reduction::none ? std::vector<int64_t>{preds.size(0)} : std::vector<int64_t>{},
      compute_type(preds.scalar_type()));
}

inline Tensor new_per_constant(const Tensor& preds) {
  return new_tensor(preds, {preds.size(0), 2}, compute_type(preds.scalar_type()));
}

}  // namespace ssim_fused
