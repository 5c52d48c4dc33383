// Views of LibTorch's stable-ABI tensors, and allocation of new tensors. Allocation uses the C interface,
// because calling an operator by name through the dispatcher costs more than a small image.
#pragma once

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/util/Exception.h>

#include <algorithm>
#include <cstdlib>
#include <exception>
#include <string>
#include <vector>

#include "request.h"

namespace ssim_fused {

using torch::stable::Tensor;

inline std::string to_text(torch::headeronly::IntHeaderOnlyArrayRef values) {
  std::string text = "[";
  for (size_t i = 0; i < values.size(); ++i) text += (i ? ", " : "") + std::to_string(values[i]);
  return text + "]";
}

inline View view_of(const Tensor& tensor, void* data) {
  View view{data, tensor.scalar_type(), {}, {}};
  const bool is_volume = tensor.dim() == 5;
  for (int64_t d = 0; d < 5; ++d) {
    if (d == 2 && !is_volume) {
      view.shape[2] = 1;
      continue;
    }
    const int64_t dim = d < 2 || is_volume ? d : d - 1;
    view.shape[static_cast<size_t>(d)] = tensor.size(dim);
    view.stride[static_cast<size_t>(d)] = tensor.stride(dim);
  }
  return view;
}
inline View input_view(const Tensor& tensor) {
  return view_of(tensor, const_cast<void*>(tensor.const_data_ptr()));
}
inline View output_view(const Tensor& tensor) { return view_of(tensor, tensor.mutable_data_ptr()); }

// Throws the error whose text training loops search for. The C interface does not pass on torch's own
// message.
[[noreturn]] inline void throw_out_of_memory(const Tensor& like, const std::vector<int64_t>& shape,
                                             ScalarType type) {
  STD_TORCH_CHECK(false,
                  like.is_cuda() ? "CUDA out of memory." : "DefaultCPUAllocator: can't allocate memory:",
                  " out of memory for a tensor of shape ", to_text(shape), " and dtype ",
                  torch::headeronly::toString(type));
  std::abort();  // not reached
}

// Fills the thread's cache of small blocks before an image is allocated, so that the heap does not fragment.
// glibc before 2.38 cuts an aligned block out of a larger one and puts the remainders on either side, of at
// most 112 bytes, into this cache. Cached blocks are not merged with their neighbour when it is freed, so the
// hole is too small for the next image of the same size. The heap would grow by an image each step if the
// last step's gradient outlives the next forward. If the cache is full, remainders go to bins whose blocks
// are merged.
inline void fill_cache_of_crumbs(const Tensor& like, int64_t bytes) {
  constexpr int64_t kFromHeap = int64_t{1} << 16;
  if (bytes < kFromHeap || !like.is_cpu()) return;
  constexpr size_t kPlaces = 7, kSizes = 6, kLeast = 24, kStep = 16;  // the shape of this cache
  void* volatile blocks[kSizes * kPlaces];  // volatile: the allocations are not removed
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

inline Tensor new_per_image(const Tensor& preds, Reduction reduction, ScalarType type) {
  return new_tensor(
      preds, reduction == Reduction::none ? std::vector<int64_t>{preds.size(0)} : std::vector<int64_t>{},
      type);
}

inline Tensor new_per_constant(const Tensor& preds) {
  return new_tensor(preds, {preds.size(0), 2}, compute_type(preds.scalar_type()));
}

}  // namespace ssim_fused
