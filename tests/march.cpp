// Runs the CPU kernel on small planes, some divided into several strips, and on volumes, with vectors of
// MARCH_BYTES bytes. Prints the losses and both gradients. It runs under AddressSanitizer, and in
// tests/compilers.sh to compare the results of several compilers.
#define SSIM_ONLY_BASELINE
#ifndef MARCH_BYTES
#define MARCH_BYTES 16
#endif
#include "cpu/march/march.h"

#include <cstdio>
#include <utility>
#include <vector>

#include "cpu/rows/read_write.h"

namespace {

using namespace ssim_fused;
using namespace ssim_fused::cpu;

// Wraps contiguous slices as an image.
ImageRows<float> slices_of(std::vector<float>& pixels, int64_t height, int64_t width) {
  const int64_t slices = static_cast<int64_t>(pixels.size()) / (height * width);
  return image_rows<float>(View::of(pixels.data(), ScalarType::Float, {1, 1, slices, height, width}));
}

// Two images of contiguous slices, and their gradients.
struct Pair {
  std::vector<float> preds, target, grad_preds, grad_target;

  explicit Pair(int64_t size) : preds(size), target(size), grad_preds(size), grad_target(size) {
    for (size_t i = 0; i < preds.size(); ++i) {
      preds[i] = static_cast<float>(i * 7919 % 1009) / 1009;
      target[i] = static_cast<float>(i * 6007 % 1013) / 1013;
    }
  }

  PassSpec<float> spec(const Axis& rows, const Axis& columns) {
    PassSpec<float> spec{};
    spec.preds = slices_of(preds, rows.n, columns.n);
    spec.target = slices_of(target, rows.n, columns.n);
    spec.grad_preds = slices_of(grad_preds, rows.n, columns.n);
    spec.grad_target = slices_of(grad_target, rows.n, columns.n);
    set_axes(spec, rows, columns);
    spec.c1 = {1e-4f};
    spec.c2 = {9e-4f};
    spec.grad_similarity = {1.0f};
    spec.grad_contrast = {0.5f};
    spec.wants_constants = true;
    return spec;
  }

  static void set_axes(PassSpec<float>& spec, const Axis& rows, const Axis& columns) {
    spec.rows = rows;
    spec.columns = columns;
    spec.crop_begin = columns.crop_begin();
    spec.crop_end = columns.crop_end();
    for (size_t axis = 0; axis < 2; ++axis) {
      const int64_t taps = 2 * (axis == 0 ? rows : columns).radius + 1;
      spec.taps[axis].assign(taps, 1.0f / static_cast<float>(taps));
    }
    spec.reversed = spec.taps;
  }

  void print() const {
    for (size_t i = 0; i < preds.size(); ++i) std::printf("%.9g %.9g\n", grad_preds[i], grad_target[i]);
  }
};

// Runs a pass over a plane that is divided into strips, and into tasks of `rows_of_task` rows, as Division
// does. Prints the sums of each segment.
template <int Bytes, GradientsOf gradients, Pass pass>
void march(const PassSpec<float>& spec, int64_t slice, int64_t strips, int64_t rows_of_task, float pivot) {
  const int64_t height = spec.rows.n, width = spec.columns.n;
  for (int64_t s = 0; s < strips; ++s) {
    const Columns place(spec.columns, s * width / strips, (s + 1) * width / strips,
                        gradients != GradientsOf::none, spec.mirrors(1));
    Workspace<float> work(spec, place, pass, gradients, Bytes / sizeof(float));
    const int64_t tasks = task_count(spec.rows, rows_of_task);
    for (int64_t k = 0; k < tasks; ++k) {
      const int64_t begin = k * rows_of_task, end = k + 1 == tasks ? height : begin + rows_of_task;
      std::vector<Sums> sums((end - begin + kSegment - 1) / kSegment);
      const StripTask<float> strip{spec,       {0, 0, slice},
                                   place,      {spec.rows, {begin, end}, gradients != GradientsOf::none},
                                   {pivot, 0}, sums.data()};
      March<float, Bytes, gradients, pass, false>(strip, work).run();
      for (const Sums& sum : sums) {
        std::printf("%.9g %.9g %.9g %.9g\n", sum.similarity_loss, sum.contrast_loss, sum.by_c1, sum.by_c2);
      }
    }
  }
}

constexpr int64_t kWhole = int64_t{1} << 20;  // rows_of_task for a single task

template <int Bytes>
void run(Axis rows, Axis columns, int64_t strips, int64_t rows_of_task) {
  Pair pair(rows.n * columns.n);
  const PassSpec<float> spec = pair.spec(rows, columns);
  march<Bytes, GradientsOf::both, Pass::image>(spec, 0, strips, rows_of_task, 0.5f);
  march<Bytes, GradientsOf::none, Pass::image>(spec, 0, strips, rows_of_task, 0.5f);
  pair.print();
}

// Runs the three passes over a volume, or two without gradients. The fields have no padding, so that
// AddressSanitizer notices any access beyond their end.
template <int Bytes, GradientsOf gradients = GradientsOf::both>
void run_volume(Axis depth, Axis rows, Axis columns, int64_t strips, bool in_lanes,
                int64_t rows_of_task = kWhole) {
  Pair pair(depth.n * rows.n * columns.n);
  PassSpec<float> slices = pair.spec(rows, columns);
  const int64_t height = rows.output_length(), width = columns.output_length();
  constexpr int kLanes = Bytes / sizeof(float);
  const int64_t of_row = in_lanes ? Positions::vectors_of(width, kLanes) * kLanes : width;
  std::vector<float> fields(height * depth.n * 4 * of_row);
  slices.fields = {fields.data(), 0, 4 * of_row, depth.n * 4 * of_row, of_row, in_lanes};
  PassSpec<float> across = slices;
  Pair::set_axes(across, depth, {width, 0, 0, false});
  across.crop_begin = columns.crop_begin();
  across.crop_end = columns.crop_end();
  across.slice_sum = 1;
  std::swap(across.fields.slice, across.fields.row);
  for (int64_t z = 0; z < depth.n; ++z)
    march<Bytes, GradientsOf::none, Pass::moments>(slices, z, strips, rows_of_task, 0.5f);
  for (int64_t y = 0; y < height; ++y)
    march<Bytes, gradients, Pass::depth>(across, y, strips,
                                         gradients != GradientsOf::none ? kWhole : kSegment, 0.5f);
  if constexpr (gradients != GradientsOf::none) {
    for (int64_t z = 0; z < depth.n; ++z)
      march<Bytes, gradients, Pass::gradient>(slices, z, strips, rows_of_task, 0.5f);
    pair.print();
  }
}

template <int Bytes>
void run_all() {
  run<Bytes>({21, 2, 2, true}, {37, 3, 3, true}, 1, kWhole);
  run<Bytes>({70, 6, 6, true}, {90, 8, 8, true}, 2, 32);
  run<Bytes>({9, 1, 0, true}, {100, 4, 2, false}, 3, kWhole);
  run<Bytes>({6, 5, 5, true}, {6, 5, 5, true}, 1, kWhole);
  run<Bytes>({75, 5, 5, false}, {61, 5, 0, true}, 2, 32);
  run<Bytes>({20, 3, 3, true}, {40, 1, 1, true}, 1, kWhole);  // the strip is a whole row of whole vectors
  run<Bytes>({20, 3, 3, true}, {64, 3, 3, true}, 1, kWhole);  // and of whole blocks of vectors
  for (int64_t more : {1, 4, 5, 6, 33}) run<Bytes>({64 + more, 5, 0, true}, {21, 5, 0, true}, 1, 32);
  run_volume<Bytes>({6, 5, 5, true}, {9, 5, 5, true}, {35, 5, 5, true}, 2, false);
  run_volume<Bytes>({11, 2, 1, false}, {7, 1, 1, false}, {18, 3, 5, false}, 1, false);
  run_volume<Bytes>({1, 0, 0, true}, {8, 2, 2, true}, {33, 6, 2, true}, 1, false);
  run_volume<Bytes>({12, 5, 5, true}, {19, 5, 5, true}, {27, 5, 5, true}, 1, true);
  // With "valid" padding no output is centred on the last rows, so that they must not form a task of their
  // own.
  for (int64_t more : {1, 4, 5, 6}) {
    const Axis depth{6, 1, 0, true}, rows{32 + more, 5, 0, true}, columns{30, 5, 0, true};
    run_volume<Bytes>(depth, rows, columns, 2, false, 32);
    run_volume<Bytes, GradientsOf::none>(depth, rows, columns, 1, true, 32);
    run_volume<Bytes, GradientsOf::none>({32 + more, 5, 0, true}, {5, 1, 0, true}, columns, 1, true, 32);
  }
}

}  // namespace

int main() { run_all<MARCH_BYTES>(); }
