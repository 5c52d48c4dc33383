// Runs the CPU kernel on small planes, some of several strips, and prints the similarity and both gradients,
// to compare lanes.h's two implementations of a vector, under AddressSanitizer.
#include <cstdio>
#include <vector>

#include "cpu/strip.h"

namespace {

using namespace ssim_fused;

Image<float> image_of(std::vector<float>& pixels, int64_t width) {
  Image<float> image;
  image.data = pixels.data();
  image.element_size = sizeof(float);
  image.stride = {0, 0, width, 1};
  image.read = read_row<float, float>;
  image.write = write_row<float, float>;
  return image;
}

// The value, and with Maps both gradients, of a plane cut into strips and ranges of rows.
template <int Radius, int Maps>
void run(Axis rows, Axis columns, int64_t strips, int64_t splits) {
  const int64_t height = rows.n, width = columns.n;
  std::vector<float> preds(height * width), target(preds), grad_preds(preds), grad_target(preds);
  for (size_t i = 0; i < preds.size(); ++i) {
    preds[i] = static_cast<float>(i * 7919 % 1009) / 1009;
    target[i] = static_cast<float>(i * 6007 % 1013) / 1013;
  }
  Problem<float> problem{};
  problem.preds = image_of(preds, width);
  problem.target = image_of(target, width);
  problem.grad_preds = image_of(grad_preds, width);
  problem.grad_target = image_of(grad_target, width);
  problem.rows = rows;
  problem.columns = columns;
  for (size_t axis = 0; axis < 2; ++axis) {
    const int64_t taps = 2 * (axis == 0 ? rows : columns).radius + 1;
    problem.taps[axis].assign(taps, 1.0f / static_cast<float>(taps));
  }
  problem.reversed = problem.taps;
  problem.c1 = 1e-4f;
  problem.c2 = 9e-4f;
  problem.grad_similarity = {1.0f};
  problem.grad_contrast = {0.5f};
  problem.wants_constants = true;

  for (int64_t s = 0; s < strips; ++s) {
    const Columns place(columns, s * width / strips, (s + 1) * width / strips, Maps > 0);
    Workspace<float> work(problem, place, Maps);
    for (int64_t r = 0; r < splits; ++r) {
      const int64_t begin = r * height / splits / kSegment * kSegment;
      const int64_t end = r + 1 == splits ? height : (r + 1) * height / splits / kSegment * kSegment;
      std::vector<Sums> sums((end - begin + kSegment - 1) / kSegment);
      const Strip<float> strip{problem, 0, 0, place, begin, end, sums.data()};
      March<float, 16, Radius, Maps>(strip, work).run();
      for (const Sums& sum : sums) {
        std::printf("%.9g %.9g %.9g %.9g\n", sum.similarity, sum.contrast_sensitivity, sum.by_c1, sum.by_c2);
      }
    }
  }
  if (Maps == 0) return;
  for (size_t i = 0; i < preds.size(); ++i) std::printf("%.9g %.9g\n", grad_preds[i], grad_target[i]);
}

}  // namespace

int main() {
  run<-1, 4>({21, 2, 2, true}, {37, 3, 3, true}, 1, 1);
  run<-1, 4>({70, 6, 6, true}, {90, 8, 8, true}, 2, 2);
  run<-1, 4>({9, 1, 0, true}, {100, 4, 2, false}, 3, 1);
  run<5, 4>({6, 5, 5, true}, {6, 5, 5, true}, 1, 1);
  run<5, 4>({75, 5, 5, false}, {61, 5, 0, true}, 2, 2);
}
