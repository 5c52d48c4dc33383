// The planner's answers (planned.h) for the variants of the strip kernel that ship (choose.cuh). Occupancy is
// computed as CUDA does it, from the shared memory, registers and threads of a block.
#define SSIM_DECLARED
#include "planned.h"

#include <algorithm>
#include <stdexcept>
#include <string>
#include <vector>

#include "choose.cuh"

namespace ssim_fused::cuda {
namespace {

constexpr int kReservedByCuda = 1024;  // bytes of shared memory that CUDA takes for each block

template <GradientsOf gradients, int Radius, class... Shapes>
std::optional<PlannedLaunch> plan_with(PlanInput input, const DeviceNumbers& device, StripShapes<Shapes...>) {
  const auto variant = [&]<class Shape>() {
    using Config = StripConfig<float, Shape::kColumns, gradients, Objective::mean_similarity, false,
                               Shape::kSingle, Pass::image, false, Radius>;
    // The launch bounds make the compiler use few enough registers for this number of blocks per SM.
    const int by_registers = wanted_blocks<Config>();
    const int by_shared = device.shared_bytes / (StripMarch<Config>::kSharedBytes + kReservedByCuda);
    return StripVariant{Config::kColumns, Config::kSingle ? 0 : Config::kOwned, Config::kLast,
                        std::min({by_registers, by_shared, device.max_threads / Config::kThreads})};
  };
  const std::vector<StripVariant> variants{variant.template operator()<Shapes>()...};
  input.halo = gradients != GradientsOf::none ? 2 * Radius : Radius;
  input.window_halo = Radius;
  const Plan plan = plan_strips(input, variants);
  if (plan.variant < 0) return std::nullopt;
  const StripVariant& v = variants[static_cast<size_t>(plan.variant)];
  return PlannedLaunch{v.columns,   v.owned,     v.last,    v.blocks_per_sm,
                       plan.strips, plan.blocks, plan.rows, plan.rows_of_strip,
                       plan.cost};
}

template <GradientsOf gradients>
std::optional<PlannedLaunch> plan_of_radius(const PlanInput& input, int radius, const DeviceNumbers& device) {
  if (radius == kMarchRadius)
    return plan_with<gradients, kMarchRadius>(input, device,
                                              ImageStrips<float, gradients, Objective::mean_similarity>{});
  if (radius == kShortRadius)
    return plan_with<gradients, kShortRadius>(input, device, ExactStrips<float, gradients, kShortRadius>{});
  if (radius == kLongRadius)
    return plan_with<gradients, kLongRadius>(input, device, ExactStrips<float, gradients, kLongRadius>{});
  throw std::invalid_argument("radius: " + std::to_string(radius) + ", expected " +
                              std::to_string(kShortRadius) + ", " + std::to_string(kMarchRadius) + " or " +
                              std::to_string(kLongRadius) + ": the strip kernels have no other");
}

}  // namespace

std::optional<PlannedLaunch> plan_images(int64_t planes, int64_t height, int64_t width, bool gradient,
                                         int radius, const DeviceNumbers& device) {
  const auto require = [](const char* name, int64_t value) {
    if (value < 1)
      throw std::invalid_argument(std::string(name) + ": " + std::to_string(value) +
                                  ", expected a positive number");
  };
  require("planes", planes);
  require("height", height);
  require("width", width);
  require("sms", device.sms);
  require("shared_bytes", device.shared_bytes);
  require("max_threads", device.max_threads);
  const PlanInput input{planes, height, width, 0, 0, kStepRows, kWarpSize, device.sms};
  return gradient ? plan_of_radius<GradientsOf::preds>(input, radius, device)
                  : plan_of_radius<GradientsOf::none>(input, radius, device);
}

}  // namespace ssim_fused::cuda
