// Prints the bytes of shared memory that each kind of call needs at least, for images of any size: a GPU whose
// blocks have less cannot serve such a call. The kinds are those that choose.cuh distinguishes.
#define SSIM_DECLARED
#include <algorithm>
#include <climits>
#include <cstdio>

#include "cuda/kernels/depth.cuh"
#include "cuda/launch/choose.cuh"

namespace {

using namespace ssim_fused;
using namespace ssim_fused::cuda;

// Strips that serve single strips alone do not count.
template <class Call, class... Shapes>
int least(StripShapes<Shapes...>) {
  return std::min(
      {(Shapes::kSingle ? INT_MAX : StripMarch<typename Call::template Config<Shapes>>::kSharedBytes)...});
}

void print(const char* kind, const char* storage, GradientsOf gradients, int bytes) {
  std::printf("%s %s gradients=%d %d\n", kind, storage, static_cast<int>(gradients), bytes);
}

template <class Storage, GradientsOf gradients, Objective objective, bool Narrow>
void print_variant(const char* name) {
  using T = ComputeOf<Storage>;
  print(
      "images", name, gradients,
      least<StripCall<Storage, gradients, objective, Narrow>>(ImageStrips<Storage, gradients, objective>{}));
  if constexpr (kHasPixelTermStrips<Storage, gradients> && objective == Objective::mean_similarity && !Narrow)
    print("images,pixel-term", name, gradients,
          least<StripCall<Storage, gradients, objective, Narrow, Pass::image, true>>(
              PixelTermStrips<Storage, gradients>{}));
  constexpr Objective kMean = Objective::mean_similarity;
  print("slices,moments", name, gradients,
        least<StripCall<Storage, GradientsOf::none, kMean, Narrow, Pass::moments>>(MomentStrips<Narrow>{}));
  if constexpr (gradients != GradientsOf::none) {
    print("slices,gradient", name, gradients,
          least<StripCall<Storage, gradients, kMean, Narrow, Pass::gradient>>(
              GradientStrips<Storage, gradients, Narrow>{}));
    print("slices,pixel-term", name, gradients,
          least<StripCall<Storage, gradients, kMean, true, Pass::gradient, true>>(PixelTermGradientStrips{}));
  }
  using DepthStorage = std::conditional_t<objective == Objective::general, Storage, T>;
  print("depth", name, gradients, DepthConfig<DepthStorage, gradients, objective, Narrow>::kSharedBytes);
}

template <class Storage, GradientsOf gradients, int Radius>
void print_exact(const char* name) {
  if constexpr (kHasExactStrips<Storage, gradients>)
    print(Radius == kShortRadius ? "images,radius-3" : "images,radius-11", name, gradients,
          least<StripCall<Storage, gradients, Objective::mean_similarity, false, Pass::image, false, Radius>>(
              ExactStrips<Storage, gradients, Radius>{}));
}

template <class Storage>
void print_storage(const char* name) {
  KeptAs<Storage> pixel{};
  for (int gradients = 0; gradients < (std::is_same_v<Storage, AnyPixel> ? 2 : 3); ++gradients)
    for (Objective objective : {Objective::mean_similarity, Objective::mean_contrast, Objective::general})
      for (bool is_full : {true, false}) {
        Problem<Storage> problem{};
        problem.grad_preds.data = gradients > 0 ? &pixel : nullptr;
        problem.grad_target.data = gradients > 1 ? &pixel : nullptr;
        choose_variant(problem, objective, is_full,
                       [&]<GradientsOf kGradients, Objective kObjective, bool kNarrow>() {
                         print_variant<Storage, kGradients, kObjective, kNarrow>(name);
                       });
      }
  print_exact<Storage, GradientsOf::none, kShortRadius>(name);
  print_exact<Storage, GradientsOf::preds, kShortRadius>(name);
  print_exact<Storage, GradientsOf::none, kLongRadius>(name);
  print_exact<Storage, GradientsOf::preds, kLongRadius>(name);
}

}  // namespace

int main() {
#define SSIM_PRINT(name, Storage, scalar) print_storage<Storage>(#Storage);
  SSIM_FOR_STORAGE_TYPES(SSIM_PRINT)
}
