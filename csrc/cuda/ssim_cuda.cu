// The operators on CUDA: check, allocate, launch on the current stream, reduce. Nothing waits for the device.
// A library of its own, without pybind11, which Python loads where torch has CUDA.
#include <cuda_runtime.h>
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <array>
#include <atomic>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "../args.h"
#include "dispatch.cuh"

namespace ssim_fused {
namespace {

using torch::headeronly::IntHeaderOnlyArrayRef;

// ---------------------------------------------------------------------------------------------------------
// Launching

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

// ---------------------------------------------------------------------------------------------------------
// From tensors to a problem

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

DeviceAxis device_axis(const Axis& axis) {
  STD_TORCH_CHECK(axis.n <= kMaxAxis, "an axis has ", axis.n, " elements, expected at most ", kMaxAxis);
  STD_TORCH_CHECK(axis.radius <= kMaxAxis, "a window has radius ", axis.radius, ", expected at most ",
                  kMaxAxis);
  STD_TORCH_CHECK(axis.pad <= kMaxAxis, "pad is ", axis.pad, ", expected at most ", kMaxAxis);
  return {static_cast<int>(axis.n), static_cast<int>(axis.radius), static_cast<int>(axis.pad), axis.reflects};
}

// What both operators are given.
struct Call {
  const Tensor& preds;
  const Tensor& target;
  const Arguments& arguments;
  double c1, c2;
  const std::optional<Tensor>& constants;
  bool wants_grad_preds, wants_grad_target, wants_grad_constants;

  double outputs() const {  // of one image, over which the similarity is averaged
    return static_cast<double>(arguments.channels * arguments.output_pixels());
  }
  double cropped() const { return static_cast<double>(arguments.channels * arguments.cropped_pixels()); }
};

template <class Storage>
Problem<Storage> problem_of(const Call& call, const Tensor& grad_preds, const Tensor& grad_target) {
  using T = ComputeOf<Storage>;
  Problem<Storage> problem{};
  problem.preds = input_picture<Storage>(call.preds);
  problem.target = input_picture<Storage>(call.target);
  if (call.wants_grad_preds) {
    problem.grad_preds = output_picture<Storage>(grad_preds);
    if (call.wants_grad_target) problem.grad_target = output_picture<Storage>(grad_target);
  } else if (call.wants_grad_target) {  // the gradient for preds with the images exchanged
    std::swap(problem.preds, problem.target);
    problem.grad_preds = output_picture<Storage>(grad_target);
  }
  problem.rows = device_axis(call.arguments.axes[0]);
  problem.columns = device_axis(call.arguments.axes[1]);
  problem.batch = call.arguments.batch;
  problem.channels = call.arguments.channels;
  problem.c1 = static_cast<T>(call.c1);
  problem.c2 = static_cast<T>(call.c2);
  if (call.constants) problem.constants = static_cast<const T*>(call.constants->const_data_ptr());
  problem.wants_constants = call.wants_grad_constants;
  return problem;
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

// [B] or, for derivatives by the constants, [B, 2], in the compute type.
Tensor per_image(const Call& call, int64_t values) {
  const int64_t shape[] = {call.arguments.batch, values};
  return torch::stable::new_empty(call.preds, IntHeaderOnlyArrayRef(shape, values == 1 ? 1 : 2),
                                  compute_type(call.preds.scalar_type()));
}

template <class Storage>
void run_on_device(const Call& call, const Problem<Storage>& problem, bool is_of_mean_similarity,
                   Results<ComputeOf<Storage>> results, const Tensor& grad_constants) {
  using T = ComputeOf<Storage>;
  if (call.arguments.batch == 0) return;
  const auto& taps = call.arguments.taps;
  const Windows<T> windows{{taps[0].begin(), taps[0].end()}, {taps[1].begin(), taps[1].end()}};
  results.outputs = call.outputs();
  results.cropped = call.cropped();
  if (call.wants_grad_constants) results.grad_constants = static_cast<T*>(grad_constants.mutable_data_ptr());
  CudaLauncher launcher(call.preds);
  run(problem, windows, is_of_mean_similarity, results, launcher);
}

// ---------------------------------------------------------------------------------------------------------
// Operators

SimilarityOutputs similarity(const Tensor& preds, const Tensor& target, const std::vector<double>& taps,
                             const std::vector<int64_t>& sizes, const std::vector<int64_t>& pad,
                             const std::string& padding_mode, double c1, double c2,
                             const std::optional<Tensor>& constants, const std::string& objective,
                             bool want_map, bool want_grad_preds, bool want_grad_target,
                             bool want_grad_constants) {
  const Arguments arguments = check_arguments(preds, target, taps, sizes, pad, padding_mode, constants);
  const bool of_similarity = parse_objective(objective) == Objective::similarity;
  const torch::stable::accelerator::DeviceGuard guard(preds.get_device_index());
  const Call call{preds,           target,           arguments,          c1, c2, constants,
                  want_grad_preds, want_grad_target, want_grad_constants};
  const Tensor similarity = per_image(call, 1), contrast = per_image(call, 1);
  const Tensor grad_preds = empty_if(want_grad_preds, preds),
               grad_target = empty_if(want_grad_target, target);
  const Tensor grad_constants = want_grad_constants ? per_image(call, 2) : absent(preds);
  const int64_t shape[] = {arguments.batch, arguments.channels, arguments.axes[0].output_length(),
                           arguments.axes[1].output_length()};
  const Tensor map =
      want_map ? torch::stable::new_empty(preds, IntHeaderOnlyArrayRef(shape, 4)) : absent(preds);

  with_storage(preds.scalar_type(), [&]<class Storage>() {
    using T = ComputeOf<Storage>;
    Problem<Storage> problem = problem_of<Storage>(call, grad_preds, grad_target);
    if (of_similarity) problem.of_similarity.scale = 1 / call.outputs();
    if (!of_similarity) problem.of_contrast.scale = 1 / call.cropped();
    if (want_map) problem.map = output_picture<Storage>(map);
    Results<T> results;
    results.similarity = static_cast<T*>(similarity.mutable_data_ptr());
    results.contrast_sensitivity = static_cast<T*>(contrast.mutable_data_ptr());
    run_on_device(call, problem, of_similarity, results, grad_constants);
  });
  return {similarity, contrast, map, grad_preds, grad_target, grad_constants};
}

BackwardOutputs similarity_backward(const Tensor& preds, const Tensor& target,
                                    const std::vector<double>& taps, const std::vector<int64_t>& sizes,
                                    const std::vector<int64_t>& pad, const std::string& padding_mode,
                                    double c1, double c2, const std::optional<Tensor>& constants,
                                    const std::optional<Tensor>& grad_similarity,
                                    const std::optional<Tensor>& grad_contrast,
                                    const std::optional<Tensor>& grad_map, bool want_grad_preds,
                                    bool want_grad_target, bool want_grad_constants) {
  const Arguments arguments = check_arguments(preds, target, taps, sizes, pad, padding_mode, constants);
  check_upstream(arguments, preds, grad_similarity, grad_contrast, grad_map);
  const torch::stable::accelerator::DeviceGuard guard(preds.get_device_index());
  const Call call{preds,           target,           arguments,          c1, c2, constants,
                  want_grad_preds, want_grad_target, want_grad_constants};
  const Tensor grad_preds = empty_if(want_grad_preds, preds),
               grad_target = empty_if(want_grad_target, target);
  const Tensor grad_constants = want_grad_constants ? per_image(call, 2) : absent(preds);

  with_storage(preds.scalar_type(), [&]<class Storage>() {
    using T = ComputeOf<Storage>;
    Problem<Storage> problem = problem_of<Storage>(call, grad_preds, grad_target);
    const auto weight = [](const std::optional<Tensor>& gradient, double count) {
      if (!gradient) return Weight<T>{};
      return Weight<T>{static_cast<const T*>(gradient->const_data_ptr()), gradient->stride(0), 1 / count};
    };
    problem.of_similarity = weight(grad_similarity, call.outputs());
    problem.of_contrast = weight(grad_contrast, call.cropped());
    if (grad_map) problem.grad_map = input_picture<Storage>(*grad_map);
    run_on_device(call, problem, !grad_contrast && !grad_map, Results<T>{}, grad_constants);
  });
  return {grad_preds, grad_target, grad_constants};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(ssim_fused, CUDA, m) {
  m.impl("similarity", TORCH_BOX(&similarity));
  m.impl("similarity_backward", TORCH_BOX(&similarity_backward));
}

}  // namespace ssim_fused
