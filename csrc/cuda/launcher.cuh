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

#include "../args.h"
#include "picture.cuh"
#include "plan.h"

namespace ssim_fused {

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

  int sms() const {
    static std::array<std::atomic<int>, kMaxDevices> known{};
    int sms = known[device_].load(std::memory_order_relaxed);
    if (sms == 0) {
      STD_CUDA_CHECK(cudaDeviceGetAttribute(&sms, cudaDevAttrMultiProcessorCount, device_));
      known[device_].store(sms, std::memory_order_relaxed);
    }
    return sms;
  }

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
  const Tensor& like_;
  const int device_;
  cudaStream_t stream_;
  std::vector<Tensor> scratch_;
};

inline int axis_length(int64_t n) {
  STD_TORCH_CHECK(n <= kMaxAxis, "an axis has ", n, " elements, expected at most ", kMaxAxis);
  return static_cast<int>(n);
}

template <class Storage>
Picture<Storage> output_picture(const Tensor& tensor) {
  Picture<Storage> picture{static_cast<Storage*>(tensor.mutable_data_ptr()), {}};
  for (int64_t d = 0; d < 4; ++d) picture.stride[d] = tensor.stride(d);
  return picture;
}

template <class Storage>
Picture<const Storage> input_picture(const Tensor& tensor) {
  Picture<const Storage> picture{static_cast<const Storage*>(tensor.const_data_ptr()), {}};
  for (int64_t d = 0; d < 4; ++d) picture.stride[d] = tensor.stride(d);
  return picture;
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

}  // namespace ssim_fused
