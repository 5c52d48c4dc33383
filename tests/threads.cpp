// Runs the CPU kernels, from requests on, under sanitizers (tests/sanitizers.sh): images, volumes, 8-bit
// images, halved images and gathered gradients. Each runs on several threads from several concurrent
// callers, and on many threads, which divide planes into the smallest tasks.
//
// torch's parallel loop is OpenMP's, whose barriers ThreadSanitizer does not know, so this file replaces it
// with one of std::thread. Exits with status 1 if two callers, or two numbers of threads, get different
// bits.
#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstring>
#include <thread>

#include "cpu/device.cpp"

namespace {

constexpr int kThreads = 4, kManyThreads = 64, kCallers = 3, kRepeats = 2;

// The number of threads of a parallel loop, by which planes are also divided.
int number_of_threads = kThreads;

}  // namespace

// Replace libtorch's functions: an executable's own symbols take precedence.
extern "C" AOTITorchError torch_parallel_for(int64_t begin, int64_t end, int64_t, ParallelFunc task,
                                             void* context) {
  std::atomic<int64_t> next = begin;
  std::vector<std::thread> threads;
  for (int i = 0; i < number_of_threads; ++i)
    threads.emplace_back([&] {
      for (int64_t k = next++; k < end; k = next++) task(k, k + 1, context);
    });
  for (std::thread& thread : threads) thread.join();
  return 0;
}

extern "C" AOTITorchError torch_get_num_threads(uint32_t* count) {
  *count = static_cast<uint32_t>(number_of_threads);
  return 0;
}

namespace ssim_fused::cpu {
namespace {

template <class T>
constexpr ScalarType kType = sizeof(T) == 8 ? ScalarType::Double : ScalarType::Float;

template <class T>
std::vector<T> pixels(int64_t count, int64_t factor) {
  std::vector<T> values(static_cast<size_t>(count));
  for (size_t i = 0; i < values.size(); ++i)
    values[i] = static_cast<T>(static_cast<int64_t>(i) * factor % 1009) / 1009;
  return values;
}

// All results of a call. The buffers have no padding, so that AddressSanitizer notices any access beyond
// them.
template <class T>
struct Results {
  std::vector<T> similarity, contrast, map, grad_preds, grad_target, grad_constants, halves, value;

  bool operator==(const Results&) const = default;
};

template <class T>
struct Case {
  std::array<int64_t, 5> shape;
  std::vector<double> sigma;
  std::vector<int64_t> kernel_size;
  bool is_volume;
  std::string padding = "reflect";
  int64_t count = shape[0] * shape[1] * shape[2] * shape[3] * shape[4];
  std::vector<T> preds = pixels<T>(count, 7919), target = pixels<T>(count, 6007);

  View view(std::vector<T>& values) const { return View::of(values.data(), kType<T>, shape); }

  Results<T> run() {
    const Tensor like;
    Request request;
    request.preds = view(preds);
    request.target = view(target);
    request.is_volume = is_volume;
    const std::optional<std::vector<double>> taps;
    request.windows = check_windows(
        request.preds, is_volume,
        {sigma, kernel_size, taps, parse_name<Padding>("padding", padding, kPaddingNames), 1, 0.01, 0.03});
    request.constants = {1e-4, 9e-4};
    request.of_similarity.scale = 1 / request.outputs();
    const auto batch = static_cast<size_t>(shape[0]);
    const auto outputs = request.output_shape();
    int64_t size = 1;
    for (int64_t n : outputs) size *= n;
    const auto all = static_cast<size_t>(count);
    Results<T> results{std::vector<T>(batch),
                       std::vector<T>(batch),
                       std::vector<T>(static_cast<size_t>(size)),
                       std::vector<T>(all),
                       std::vector<T>(all),
                       std::vector<T>(2 * batch),
                       {},
                       {}};
    request.similarity = results.similarity.data();
    request.contrast = results.contrast.data();
    request.map = View::of(results.map.data(), kType<T>, outputs);
    request.grad_preds = view(results.grad_preds);
    request.grad_target = view(results.grad_target);
    request.grad_constants = results.grad_constants.data();
    request.pixels = check_pixels({"l1", 0.5, 1});
    request.pixels.slope_scale = 0.5 / request.pixels_of_image();
    Cpu::similarity(request, like);
    // Also computes the value alone, which takes other instances of the march.
    Request value = request;
    value.grad_preds = value.grad_target = value.map = View{};
    value.grad_constants = nullptr;
    results.value.resize(batch);
    value.similarity = results.value.data();
    Cpu::similarity(value, like);

    auto half = shape;
    int64_t half_count = 1;
    for (size_t d = is_volume ? 2 : 3; d < 5; ++d) half[d] /= 2;
    for (int64_t n : half) half_count *= n;
    results.halves.resize(static_cast<size_t>(2 * half_count));
    const View to[2] = {View::of(results.halves.data(), kType<T>, half),
                        View::of(results.halves.data() + half_count, kType<T>, half)};
    Cpu::downsample({{{request.preds, request.target}, {to[0], to[1]}, {}, {}}}, like);
    const std::vector<T> factors(2 * batch, T(0.5));
    GatherRequest gather;
    gather.finest = request.grad_preds;
    gather.coarse = {to[0]};
    gather.factors = factors.data();
    Cpu::gather(gather, like);
    return results;
  }

  // Whether all concurrent callers get the same bits as a first call.
  bool is_the_same_for_all() {
    const Results<T> first = run();
    std::atomic<int> others = 0;
    std::vector<std::thread> callers;
    for (int i = 0; i < kCallers; ++i)
      callers.emplace_back([&] {
        for (int k = 0; k < kRepeats; ++k) others += run() != first;
      });
    for (std::thread& caller : callers) caller.join();
    std::printf("%.9g %.9g: %d different\n", static_cast<double>(first.similarity[0]),
                static_cast<double>(first.grad_preds[0]), others.load());
    return others == 0;
  }

  // Whether one thread, some and many threads, which divide planes differently, give the same bits.
  bool is_the_same_on_any_number_of_threads() {
    const auto run_on = [&](int threads) {
      number_of_threads = threads;
      return run();
    };
    const Results<T> one = run_on(1), some = run_on(kThreads), many = run_on(kManyThreads);
    number_of_threads = kThreads;
    const bool same = one == some && one == many;
    std::printf("%lldx%lldx%lld %s: %s\n", static_cast<long long>(shape[2]), static_cast<long long>(shape[3]),
                static_cast<long long>(shape[4]), padding.c_str(), same ? "the same" : "DIFFERENT BITS");
    return same;
  }
};

// Whether any number of threads gives the same values, contrast sensitivities and map of 8-bit images under
// a uniform window. Interleaved pixels have the strides of a decoded image.
bool bytes_are_the_same(const std::array<int64_t, 5>& shape, bool is_interleaved, int64_t size) {
  const Tensor like;
  const auto batch = static_cast<size_t>(shape[0]);
  int64_t count = 1;
  for (int64_t n : shape) count *= n;
  std::vector<uint8_t> preds(static_cast<size_t>(count)), target(preds.size());
  for (size_t i = 0; i < preds.size(); ++i) {
    preds[i] = static_cast<uint8_t>(i * 7919 % 251);
    target[i] = static_cast<uint8_t>(i * 7919 % 251 / 2 + i % 13);
  }
  const auto view = [&](std::vector<uint8_t>& pixels) {
    View of = View::of(pixels.data(), ScalarType::Byte, shape);
    if (is_interleaved) of.stride = {shape[1] * shape[3] * shape[4], 1, count, shape[1] * shape[4], shape[1]};
    return of;
  };
  const auto run_on = [&](int threads) {
    number_of_threads = threads;
    Request request;
    request.preds = view(preds);
    request.target = view(target);
    request.windows =
        check_windows(request.preds, false, {{}, {size}, {}, Padding::reflect, 255, 0.01, 0.03});
    request.constants = {6.5025, 58.5225};
    std::vector<float> similarity(batch), contrast(batch), map(preds.size());
    request.similarity = similarity.data();
    request.contrast = contrast.data();
    request.map = View::of(map.data(), ScalarType::Float, shape);
    Cpu::similarity(request, like);
    Request value = request;
    value.map = View{};
    value.contrast = nullptr;
    std::vector<float> alone(batch);
    value.similarity = alone.data();
    Cpu::similarity(value, like);
    return std::array{similarity, contrast, map, alone};
  };
  const auto one = run_on(1);
  const bool same = one == run_on(kThreads) && one == run_on(kManyThreads);
  number_of_threads = kThreads;
  std::printf("bytes %lldx%lld %s: %s\n", static_cast<long long>(shape[3]), static_cast<long long>(shape[4]),
              is_interleaved ? "interleaved" : "planes", same ? "the same" : "DIFFERENT BITS");
  return same;
}

template <class T>
bool all_are_the_same() {
  bool same = true;
  for (const auto& sides :
       {std::array<int64_t, 5>{2, 2, 1, 45, 371}, std::array<int64_t, 5>{1, 1, 1, 70, 700}})
    for (double sigma : {1.5, 2.5}) same &= Case<T>{sides, {sigma}, {11}, false}.is_the_same_for_all();
  for (double sigma : {1.5, 0.6})
    same &= Case<T>{{2, 1, 12, 13, 90}, {sigma}, {11}, true}.is_the_same_for_all();
  // Heights at which the number of tasks changes. With "valid" padding, some are such that a last task
  // would have no output.
  for (const char* padding : {"valid", "zero"}) {
    for (int64_t height : {65, 66, 68, 69, 129, 132}) {
      same &=
          Case<T>{{1, 1, 1, height, 24}, {1.5}, {11}, false, padding}.is_the_same_on_any_number_of_threads();
      same &= Case<T>{{1, 1, 4, height, 20}, {0.4, 1.5, 1.5}, {11}, true, padding}
                  .is_the_same_on_any_number_of_threads();
    }
  }
  for (const std::array<int64_t, 5>& sides :
       {std::array<int64_t, 5>{2, 1, 12, 257, 20}, std::array<int64_t, 5>{1, 1, 48, 13, 24},
        std::array<int64_t, 5>{1, 1, 11, 513, 18}})
    same &= Case<T>{sides, {1.5}, {11}, true, "valid"}.is_the_same_on_any_number_of_threads();
  return same;
}

}  // namespace
}  // namespace ssim_fused::cpu

int main() {
  bool same = ssim_fused::cpu::all_are_the_same<float>() & ssim_fused::cpu::all_are_the_same<double>();
  for (const std::array<int64_t, 5>& shape :
       {std::array<int64_t, 5>{2, 3, 1, 45, 371}, std::array<int64_t, 5>{1, 4, 1, 70, 700},
        std::array<int64_t, 5>{1, 1, 1, 131, 24}}) {
    for (bool is_interleaved : {false, true}) {
      for (int64_t size : {7, 15}) same &= ssim_fused::cpu::bytes_are_the_same(shape, is_interleaved, size);
    }
  }
  return same ? 0 : 1;
}
