// Compares the CPU kernel with the machine's rate of fused multiply-adds. Prints, for one thread, the rate of
// a loop of only FMAs, of the window alone over data in L1, and of whole marches, in billions of lanes per
// second. For marches, it counts the FMAs that the separable convolutions need. benchmarks/peak.py compiles
// and runs it.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "cpu/march/march_float.cpp"
#include "cpu/rows/read_write.h"

namespace {

using namespace ssim_fused;
using namespace ssim_fused::cpu;

constexpr int kChains = 12;  // more than latency times rate, and few enough for the registers
constexpr int64_t kSize = 256;

constexpr int kRounds = 200;

template <class F>
double best_seconds(F&& f, int rounds = kRounds) {
  double best = 1e9;
  for (int round = 0; round < rounds; ++round) {
    const auto start = std::chrono::steady_clock::now();
    f();
    best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  return best;
}

template <int Bytes>
double multiply_adds() {
  constexpr int64_t kRepeats = 100'000;
  const double seconds = best_seconds([&] {
    outlined<Bytes>([]() SSIM_INLINE_LAMBDA {
      using V = Lanes<float, Bytes>;
      V chain[kChains] = {}, factor = broadcast<V>(0.999f), term = broadcast<V>(1e-3f);
      for (int64_t i = 0; i < kRepeats; ++i) {
        unrolled<kChains>([&](auto k) SSIM_INLINE_LAMBDA {
          chain[k] = chain[k] * factor + term;
#if defined(SSIM_X86_TARGETS)
          asm volatile("" : "+v"(chain[k]));  // keeps each chain separate and in a register
#else
          asm volatile("" : "+w"(chain[k]));
#endif
        });
      }
    });
  });
  return static_cast<double>(kRepeats * kChains * (Bytes / sizeof(float))) / seconds;
}

template <int Bytes>
double windows(bool is_default) {
  constexpr int64_t kLanes = Bytes / sizeof(float), kCount = 4, kVectors = 40, kRepeats = 50;
  std::vector<float> in(kCount * (kVectors + 16) * kLanes, 0.5f), out(kCount * kVectors * kLanes);
  std::vector<float> taps(kDefaultSize * kLanes, 0.0909f);
  const double seconds = best_seconds([&] {
    for (int64_t repeat = 0; repeat < kRepeats; ++repeat) {
      convolve_all<float, Bytes>(
          {kVectors / kOutputs, kCount, in.data(), kOutputs * kLanes, (kVectors + 16) * kLanes, out.data(),
           kOutputs * kLanes, kVectors * kLanes, kLanes},
          {taps.data(), kDefaultSize, is_default});
    }
  });
  return static_cast<double>(kRepeats * kCount * kVectors * kLanes * kDefaultSize) / seconds;
}

ImageRows<float> plane_of(std::vector<float>& pixels) {
  return image_rows<float>(View::of(pixels.data(), ScalarType::Float, {1, 1, 1, kSize, kSize}));
}

double march(GradientsOf gradients, int rounds = kRounds) {
  std::vector<float> x(kSize * kSize), y(kSize * kSize), gradient(kSize * kSize);
  for (size_t i = 0; i < x.size(); ++i) {
    x[i] = static_cast<float>(i * 7919 % 1009) / 1009;
    y[i] = static_cast<float>(i * 6007 % 1013) / 1013;
  }
  PassSpec<float> spec{};
  spec.preds = plane_of(x);
  spec.target = plane_of(y);
  if (gradients != GradientsOf::none) spec.grad_preds = plane_of(gradient);
  spec.rows = spec.columns = {kSize, kDefaultSize / 2, kDefaultSize / 2, true};
  spec.crop_begin = spec.columns.crop_begin();
  spec.crop_end = spec.columns.crop_end();
  for (size_t axis = 0; axis < 2; ++axis)
    spec.taps[axis] = spec.reversed[axis] = std::vector<float>(kDefaultSize, 1.0f / kDefaultSize);
  spec.c1 = {1e-4f};
  spec.c2 = {9e-4f};
  spec.grad_similarity = {-1.0f};
  spec.grad_contrast = {0.0f};
  spec.wants_contrast = false;
  const MarchInstance<float> instance = select_march<float, false>(Pass::image, gradients);
  const Columns columns(spec.columns, 0, kSize, gradients != GradientsOf::none, spec.mirrors(1));
  std::vector<Sums> sums(kSize / kSegment);
  const TaskRows rows(spec.rows, {0, kSize}, gradients != GradientsOf::none);
  const StripTask<float> strip{spec, {0, 0, 0}, columns, rows, {0.5f, 0}, sums.data()};
  const double seconds = best_seconds(
      [&] {
        Workspace<float> work(spec, columns, Pass::image, gradients, instance.lanes);
        instance.run(strip, work);
      },
      rounds);
  // Separable convolutions of four moments and as many fields of derivatives.
  return static_cast<double>(kSize * kSize * (kPlainMoments + derivative_fields(gradients)) * 2 *
                             kDefaultSize) /
         seconds;
}

template <int Bytes>
void print() {
  std::printf("a loop of multiply-adds,%.4g\n", multiply_adds<Bytes>() / 1e9);
  std::printf("the default window over data in L1,%.4g\n", windows<Bytes>(true) / 1e9);
  std::printf("any window over data in L1,%.4g\n", windows<Bytes>(false) / 1e9);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc > 1) {
    march(GradientsOf::preds, std::atoi(argv[1]));
    return 0;
  }
#if defined(SSIM_X86_TARGETS)
  if (chosen_instruction_set() == InstructionSet::avx512) {
    print<64>();
  } else if (chosen_instruction_set() == InstructionSet::avx2) {
    print<32>();
  } else {
    print<16>();
  }
#else
  print<16>();
#endif
  std::printf("the march of 256x256: value,%.4g\n", march(GradientsOf::none) / 1e9);
  std::printf("the march of 256x256: value and gradient,%.4g\n", march(GradientsOf::preds) / 1e9);
}
