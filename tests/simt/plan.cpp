// Prints the launch planner's choice as JSON: `plan DERIVATIVES RADIUS PLANES HEIGHT WIDTH SMS SHARED_BYTES
// MAX_THREADS`, for float32, on SMs with SHARED_BYTES of shared memory and MAX_THREADS threads. The occupancy
// is computed as CUDA does.
#define SSIM_SIMT

#include <cstdlib>
#include <iostream>
#include <stdexcept>

#include "../../csrc/cuda/launch/choose.cuh"

namespace {

using namespace ssim_fused::cuda;
using ssim_fused::GradientsOf;
using ssim_fused::Objective;
using ssim_fused::Pass;

struct Sm {
  int shared_bytes, max_threads;
};

template <GradientsOf gradients, int Radius, class... Shapes>
void print_plan(const int64_t (&shape)[3], int sms, Sm sm, StripShapes<Shapes...>) {
  constexpr int kReservedByCuda = 1024;
  const auto variant = [&]<class Shape>() {
    using Config = StripConfig<float, Shape::kColumns, gradients, Objective::mean_similarity, false,
                               Shape::kSingle, Pass::image, false, Radius>;
    // The launch bounds leave registers for this many blocks. At least one block must fit.
    const int by_registers = wanted_blocks<Config>();
    const int by_shared = sm.shared_bytes / (StripMarch<Config>::kSharedBytes + kReservedByCuda);
    return StripVariant{Config::kColumns, Config::kSingle ? 0 : Config::kOwned, Config::kLast,
                        std::min({by_registers, by_shared, sm.max_threads / Config::kThreads})};
  };
  const std::vector<StripVariant> variants{variant.template operator()<Shapes>()...};
  const int halo = gradients != GradientsOf::none ? 2 * Radius : Radius;
  const PlanInput input{shape[0], shape[1], shape[2], halo, Radius, kStepRows, kWarpSize, sms};
  const Plan plan = plan_strips(input, variants);
  std::cout << "{\"variant\": " << plan.variant;
  if (plan.variant >= 0) {
    const StripVariant& v = variants[static_cast<size_t>(plan.variant)];
    std::cout << ", \"columns\": " << v.columns << ", \"owned\": " << v.owned << ", \"last\": " << v.last
              << ", \"blocks_per_sm\": " << v.blocks_per_sm << ", \"strips\": " << plan.strips
              << ", \"blocks\": " << plan.blocks << ", \"rows\": " << plan.rows
              << ", \"rows_of_strip\": " << plan.rows_of_strip << ", \"cost\": " << plan.cost;
  }
  std::cout << "}\n";
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 9)
    return std::cerr << "usage: plan DERIVATIVES RADIUS PLANES HEIGHT WIDTH SMS SHARED_BYTES MAX_THREADS\n",
           2;
  const auto number = [&](int i) { return std::atoll(argv[i]); };
  const int64_t shape[3] = {number(3), number(4), number(5)};
  const int sms = static_cast<int>(number(6));
  const Sm sm{static_cast<int>(number(7)), static_cast<int>(number(8))};
  const auto print = [&]<GradientsOf kGradients>() {
    if (number(2) == kMarchRadius)
      return print_plan<kGradients, kMarchRadius>(
          shape, sms, sm, ImageStrips<float, kGradients, Objective::mean_similarity>{});
    if (number(2) == kShortRadius)
      return print_plan<kGradients, kShortRadius>(shape, sms, sm,
                                                  ExactStrips<float, kGradients, kShortRadius>{});
    if (number(2) != kLongRadius) throw std::invalid_argument("no march has this radius");
    print_plan<kGradients, kLongRadius>(shape, sms, sm, ExactStrips<float, kGradients, kLongRadius>{});
  };
  number(1) == 0 ? print.template operator()<GradientsOf::none>()
                 : print.template operator()<GradientsOf::preds>();
}
