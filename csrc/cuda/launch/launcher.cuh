// Tensors as the kernels see them, and their launches on the current stream, through LibTorch's stable ABI.
#pragma once

#include <cuda_runtime.h>
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <array>
#include <atomic>
#include <vector>

#include "../../args.h"
#include "../kernels/picture.cuh"
#include "plan.h"

namespace ssim_fused::cuda {

using torch::headeronly::IntHeaderOnlyArrayRef;

constexpr int kMaxDevices = 64;

// Launches on the current stream of the current device; scratch is torch's, freed in the stream's order.
class CudaLauncher {
 public:
  explicit CudaLauncher(const Tensor& like) : like_(like), device_(like.get_device_index()) {
    STD_TORCH_CHECK(device_ < kMaxDevices, "device index is ", device_, ", expected less than ", kMaxDevices);
    void* stream = nullptr;
    STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(device_, &stream));
    stream_ = static_cast<cudaStream_t>(stream);
  }

  int sms() const { return attribute<cudaDevAttrMultiProcessorCount>(); }
  int64_t l2_bytes() const { return attribute<cudaDevAttrL2CacheSize>(); }

  // Asked once for each kernel and device. A kernel that needs more shared memory than the device has: 0.
  template <auto kernel>
  int blocks_per_sm(int threads, int shared_bytes) {
    static std::array<std::atomic<int>, kMaxDevices> known{};  // plus one: 0 is "not asked yet"
    int blocks = known[device_].load(std::memory_order_relaxed) - 1;
    if (blocks >= 0) return blocks;
    blocks = 0;
    int limit = 0;
    STD_CUDA_CHECK(cudaDeviceGetAttribute(&limit, cudaDevAttrMaxSharedMemoryPerBlockOptin, device_));
    if (shared_bytes <= limit) {
      STD_CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes));
      STD_CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout,
                                          cudaSharedmemCarveoutMaxShared));
      STD_CUDA_CHECK(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, kernel, threads,
                                                                   static_cast<size_t>(shared_bytes)));
    }
    known[device_].store(blocks + 1, std::memory_order_relaxed);
    return blocks;
  }

  Plan choose(const Plan& plan, const PlanInput&, const std::vector<StripVariant>&) const {
    STD_TORCH_CHECK(plan.variant >= 0,
                    "no kernel fits this device: each needs more shared memory than it has");
    return plan;
  }

  template <auto kernel, class Params>
  void launch(int64_t blocks, int threads, int shared_bytes, const Params& params) {
    kernel<<<static_cast<unsigned>(blocks), static_cast<unsigned>(threads), static_cast<size_t>(shared_bytes),
             stream_>>>(params);
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  }

  template <class T>
  T* scratch(int64_t count) {
    const int64_t shape[] = {count * static_cast<int64_t>(sizeof(T) / sizeof(float))};
    scratch_.push_back(torch::stable::new_empty(like_, IntHeaderOnlyArrayRef(shape, 1), ScalarType::Float));
    return static_cast<T*>(scratch_.back().mutable_data_ptr());
  }

 private:
  // Asked once for each device.
  template <cudaDeviceAttr name>
  int attribute() const {
    static std::array<std::atomic<int>, kMaxDevices> known{};  // plus one: 0 is "not asked yet"
    int value = known[device_].load(std::memory_order_relaxed) - 1;
    if (value < 0) {
      STD_CUDA_CHECK(cudaDeviceGetAttribute(&value, name, device_));
      known[device_].store(value + 1, std::memory_order_relaxed);
    }
    return value;
  }

  const Tensor& like_;
  const int device_;
  cudaStream_t stream_;
  std::vector<Tensor> scratch_;
};

inline int axis_length(int64_t n) {
  STD_TORCH_CHECK(n <= kMaxAxis, "an axis has ", n, " elements, expected at most ", kMaxAxis);
  return static_cast<int>(n);
}

// A tensor [B, C, H, W] or [B, C, D, H, W].
template <class Storage>
Picture<Storage> picture(Storage* data, const Tensor& tensor) {
  const auto stride = image_strides(tensor);
  return {data, {stride[0], stride[1], stride[3], stride[4]}, stride[2]};
}
template <class Storage>
Picture<Storage> output_picture(const Tensor& tensor) {
  return picture(static_cast<Storage*>(tensor.mutable_data_ptr()), tensor);
}
template <class Storage>
Picture<const Storage> input_picture(const Tensor& tensor) {
  return picture(static_cast<const Storage*>(tensor.const_data_ptr()), tensor);
}

// Runs f<Storage>() for the images' type.
template <class F>
auto with_storage(ScalarType type, F&& f) {
  switch (type) {
    case ScalarType::Double:
      return f.template operator()<double>();
    case ScalarType::Half:
      return f.template operator()<Half>();
    case ScalarType::BFloat16:
      return f.template operator()<BFloat16>();
    default:
      return f.template operator()<float>();
  }
}

}  // namespace ssim_fused::cuda
