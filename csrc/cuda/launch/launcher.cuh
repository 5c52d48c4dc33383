// Launches of kernels on the current CUDA stream, and the types of tensors in kernels, through LibTorch's
// stable ABI.
#pragma once

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/tensor.h>

#include <array>
#include <atomic>
#include <vector>

#include "../../api/pyramid_request.h"
#include "../../api/tensors.h"
#include "../kernels/mask.cuh"
#include "../kernels/problem.cuh"
#include "grid.h"
#include "plan.h"
#include "runtime.h"

namespace ssim_fused::cuda {

constexpr int kMaxDevices = 64;

// Clears the error before it is reported. torch clears the last error of its own CUDA runtime only. This
// library links another one statically, which would report the error again after the next kernel.
inline void check(cudaError_t code) {
  if (code != cudaSuccess) static_cast<void>(cudaGetLastError());
  STD_CUDA_CHECK(code);
}

// Launches kernels on the current stream of the device of `like`. Scratch is allocated by torch and freed in
// stream order. Memory from `kept()` is added to the vector `kept`, if given, and otherwise freed like
// scratch.
class CudaLauncher {
 public:
  explicit CudaLauncher(const Tensor& like, std::vector<Tensor>* kept = nullptr)
      : like_(like), device_(like.get_device_index()), kept_(kept ? kept : &scratch_) {
    STD_TORCH_CHECK(device_ < kMaxDevices, "device index is ", device_, ", expected less than ", kMaxDevices);
    // torch's guard sets the device of torch's CUDA runtime. The statically linked runtime of this library
    // has its own current device, to which occupancy, function attributes and launches refer.
    check(cudaSetDevice(device_));
    void* stream = nullptr;
    STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(device_, &stream));
    stream_ = static_cast<cudaStream_t>(stream);
  }

  int sms() const { return attribute<cudaDevAttrMultiProcessorCount>(); }
  int64_t l2_bytes() const { return attribute<cudaDevAttrL2CacheSize>(); }

  // Queried once per kernel and device. Returns 0 if the kernel needs more shared memory than the device has.
  template <auto kernel>
  int blocks_per_sm(int threads, int shared_bytes) {
    static std::array<std::atomic<int>, kMaxDevices> known{};  // the number plus one; 0: not queried yet
    int blocks = known[device_].load(std::memory_order_relaxed) - 1;
    if (blocks >= 0) return blocks;
    blocks = 0;
    int limit = 0;
    check(cudaDeviceGetAttribute(&limit, cudaDevAttrMaxSharedMemoryPerBlockOptin, device_));
    if (shared_bytes <= limit) {
      check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes));
      check(cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout,
                                 cudaSharedmemCarveoutMaxShared));
      check(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, kernel, threads,
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
    kernel<<<grid_of(blocks), static_cast<unsigned>(threads), static_cast<size_t>(shared_bytes), stream_>>>(
        params);
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  }

  std::vector<char*> scratch(const std::vector<int64_t>& bytes) { return pieces(bytes, scratch_); }
  std::vector<char*> kept(const std::vector<int64_t>& bytes) { return pieces(bytes, *kept_); }
  int device() const { return device_; }

 private:
  // Allocates all pieces as one tensor, which is appended to `of`.
  std::vector<char*> pieces(const std::vector<int64_t>& bytes, std::vector<Tensor>& of) const {
    constexpr int64_t kAlignment = 256;
    int64_t size = 0;
    for (int64_t piece : bytes) size += ceil_div(piece, kAlignment) * kAlignment;
    of.push_back(new_tensor(like_, {ceil_div(size, int64_t{sizeof(float)})}, ScalarType::Float));
    std::vector<char*> pieces;
    char* next = static_cast<char*>(of.back().mutable_data_ptr());
    for (int64_t piece : bytes) {
      pieces.push_back(next);
      next += ceil_div(piece, kAlignment) * kAlignment;
    }
    return pieces;
  }

  // Queried once per device.
  template <cudaDeviceAttr name>
  int attribute() const {
    static std::array<std::atomic<int>, kMaxDevices> known{};  // the value plus one; 0: not queried yet
    int value = known[device_].load(std::memory_order_relaxed) - 1;
    if (value < 0) {
      check(cudaDeviceGetAttribute(&value, name, device_));
      known[device_].store(value + 1, std::memory_order_relaxed);
    }
    return value;
  }

  const Tensor& like_;
  const int device_;
  cudaStream_t stream_;
  std::vector<Tensor> scratch_, *const kept_;
};

inline int axis_length(int64_t n) {
  STD_TORCH_CHECK(n <= kMaxAxis, "an axis has ", n, " elements, expected at most ", kMaxAxis);
  return static_cast<int>(n);
}

}  // namespace ssim_fused::cuda

namespace ssim_fused {

// The types of views in kernels, for from_request.cuh.
inline cuda::PixelType pixel_type_of(const View& view) {
#define SSIM_TYPE(name, Stored, scalar) \
  if (view.type == ScalarType::scalar) return cuda::PixelType::name;
  SSIM_FOR_INTEGER_PIXELS(SSIM_TYPE)
#undef SSIM_TYPE
  STD_TORCH_CHECK(view.type == ScalarType::Float, "an image has dtype ",
                  torch::headeronly::toString(view.type), ", expected float32 or integers");
  return cuda::PixelType::float32;
}

inline cuda::WeightType weight_type_of(const View& mask) {
#define SSIM_TYPE(name, Stored, scalar) \
  if (mask.type == ScalarType::scalar) return cuda::WeightType::name;
  SSIM_FOR_FLOAT_PIXELS(SSIM_TYPE)
#undef SSIM_TYPE
  STD_TORCH_CHECK(mask.type == ScalarType::Bool, "mask has dtype ", torch::headeronly::toString(mask.type),
                  ", expected bool or a float type");
  return cuda::WeightType::boolean;
}

}  // namespace ssim_fused

namespace ssim_fused::cuda {

// Calls f<Storage>() for the type of the images.
template <class F>
auto with_storage(ScalarType type, F&& f) {
#define SSIM_TYPE(name, Storage, scalar) \
  if (type == ScalarType::scalar) return f.template operator()<Storage>();
  SSIM_FOR_FLOAT_PIXELS(SSIM_TYPE)
#undef SSIM_TYPE
  STD_TORCH_CHECK(false, "an image has dtype ", torch::headeronly::toString(type), ", expected floats");
  return f.template operator()<float>();
}

// Calls f<Storage>() for two images, one or both of which may have integers.
template <class F>
auto with_storage(const View& preds, const View& target, F&& f) {
  if (preds.type != target.type || is_integer(preds.type)) {
    const ScalarType other = is_integer(preds.type) ? target.type : preds.type;
    STD_TORCH_CHECK(is_integer(other) || other == ScalarType::Float, "an image has dtype ",
                    torch::headeronly::toString(other),
                    " and the other one integers, expected float32 with integers, or one dtype");
    return f.template operator()<AnyPixel>();
  }
  return with_storage(preds.type, f);
}

}  // namespace ssim_fused::cuda
