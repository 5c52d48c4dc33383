// Runs the CPU kernel on one small plane and prints the similarity and both gradients, to compare lanes.h's
// two implementations of a vector.
#include <cstdio>
#include <vector>

#include "cpu/strip.h"

using namespace ssim_fused;  // NOLINT: a test program

namespace {

constexpr int64_t kHeight = 21, kWidth = 37;

Image<float> image_of(std::vector<float>& pixels) {
  Image<float> image;
  image.data = pixels.data();
  image.stride = {0, 0, kWidth, 1};
  image.read = read_row<float, float>;
  image.write = write_row<float, float>;
  return image;
}

}  // namespace

int main() {
  std::vector<float> preds(kHeight * kWidth), target(preds), grad_preds(preds), grad_target(preds);
  for (size_t i = 0; i < preds.size(); ++i) {
    preds[i] = static_cast<float>(i * 7919 % 1009) / 1009;
    target[i] = static_cast<float>(i * 6007 % 1013) / 1013;
  }
  Problem<float> problem{};
  problem.preds = image_of(preds);
  problem.target = image_of(target);
  problem.grad_preds = image_of(grad_preds);
  problem.grad_target = image_of(grad_target);
  problem.rows = {kHeight, 2, 2, true};
  problem.columns = {kWidth, 3, 3, true};
  problem.taps = {std::vector<float>{0.1f, 0.2f, 0.4f, 0.2f, 0.1f}, std::vector<float>(7, 1.0f / 7)};
  problem.reversed = problem.taps;
  problem.c1 = 1e-4f;
  problem.c2 = 9e-4f;
  problem.grad_similarity = {1.0f};
  problem.grad_contrast = {0.5f};
  problem.wants_constants = true;

  const Columns columns(problem.columns, 0, kWidth, true);
  Workspace<float> work(problem, columns, 4);
  Sums sums;
  const Strip<float> strip{problem, 0, 0, columns, 0, kHeight, &sums};
  March<float, 16, -1, 4>(strip, work).run();
  std::printf("%.9g %.9g %.9g %.9g\n", sums.similarity, sums.contrast_sensitivity, sums.by_c1, sums.by_c2);
  for (size_t i = 0; i < preds.size(); ++i) std::printf("%.9g %.9g\n", grad_preds[i], grad_target[i]);
}
