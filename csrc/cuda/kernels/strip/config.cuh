// The variants of the strip march (march.cuh), and the parameters of a launch.
#pragma once

#include <cstdint>

#include "../../../math/pass.h"
#include "../fir.cuh"
#include "../problem.cuh"
#include "../reduce.cuh"

namespace ssim_fused::cuda {

constexpr int kStepRows = 8;  // rows per step
constexpr int kChunk = 8;     // columns per thread in the stages along a row

// A variant of the kernel. `Columns` is the width of a strip and the number of threads. `Single`: one strip
// covers the whole width of the image. `HasPixelTerm`: the slopes of a pixel term are added to the gradients,
// and its sum is the last sum of a block. `Radius` is the largest radius of the windows.
template <class Source_, int Columns_, GradientsOf gradients, Objective objective, bool Narrow_,
          bool Single_ = false, Pass pass = Pass::image, bool HasPixelTerm = false,
          int Radius_ = kMarchRadius>
struct StripConfig {
  using Source = Source_;          // the type of pixels in global memory
  using Storage = KeptAs<Source>;  // in shared memory, and of results
  using T = ComputeOf<Storage>;
  static constexpr int kColumns = Columns_, kThreads = Columns_;
  static constexpr GradientsOf kGradients = gradients;
  static constexpr int kDerivatives = derivative_fields(kGradients);
  static constexpr int kRadius = Radius_, kTaps = taps_of(kRadius);
  static constexpr bool kGeneral = objective == Objective::general, kNarrow = Narrow_, kSingle = Single_;
  static constexpr Objective kObjective = objective;
  static constexpr Pass kPass = pass;
  static constexpr bool kHasPixelTerm = HasPixelTerm, kSumsPixelTerm = kHasPixelTerm && kPass == Pass::image;
  static constexpr int kSumsOfOutputs = kGeneral ? int{kWithConstants} : int{kMeans};
  static constexpr int kSums = kSumsOfOutputs + int{kSumsPixelTerm};

  // Columns computed to the left of the first owned column, for the gradient of its neighbours.
  static constexpr int kLead = kDerivatives > 0 && !kSingle ? kRadius : 0;
  // A strip owns kOwned columns, in whole vectors. The last strip owns up to kLast, as it has no right
  // neighbour.
  static constexpr int kVector = Vector<Storage>::kSize;
  static constexpr int kOwned = kDerivatives > 0 ? (kColumns - 2 * kRadius) / kVector * kVector : kColumns;
  static constexpr int kLast = kColumns - kLead;

  // Raw rows in shared memory start with a whole vector, kRawShift columns before the first column that is
  // read. The windows of a chunk read kWindowed columns, which together with the shift are padded to whole
  // vectors.
  static constexpr int kRawLead = (kLead + kRadius + kVector - 1) / kVector * kVector;
  static constexpr int kRawShift = kRawLead - kLead - kRadius;
  static constexpr int kWindowed = kChunk + 2 * kRadius;
  static constexpr int kRawVectors = (kWindowed + kRawShift + kVector - 1) / kVector;
  static constexpr int kRawColumns = kColumns - kChunk + kRawVectors * kVector;

  // Rows of a step that are staged and read by the same warp, so that no other warp waits for it. 0 if rows
  // belong to several warps.
  static constexpr int kWarps = kThreads / kWarpSize;
  static constexpr int kRowsOfWarp = kStepRows % kWarps == 0 ? kStepRows / kWarps : 0;

  static_assert(kColumns % kWarpSize == 0 && kThreads == kStepRows * kColumns / kChunk,
                "one chunk a thread and step");
  static_assert(kRawVectors * kVector <= kWindowed + kRawShift + kVector - 1);
  static_assert(!kHasPixelTerm || kDerivatives > 0, "the pixels are those that the gradient multiplies by");
  static_assert(kPass == Pass::image || (kDerivatives > 0) == (kPass == Pass::gradient));
};

template <class Storage, int Radius = kMarchRadius>
struct StripParams : Problem<Storage> {
  using T = ComputeOf<Storage>;
  // The rows of all strips of all planes are numbered consecutively, `rows_of_strip` each; the last strip may
  // extend beyond the image. Each block marches down `rows_of_block` of them. If channels are interleaved,
  // `abreast` consecutive blocks process the same rows of different channels, and the numbered strips are
  // those of one channel of all images.
  int64_t rows_of_block, rows_of_strip, all_strips;
  int abreast;            // channels processed side by side; 1: plane after plane
  int strips;             // strips per plane
  int parts;              // the largest number of blocks that share a strip
  bool vectors;           // every row of every image consists of whole, aligned vectors
  bool dense;             // the pixels of a row are contiguous, in every image
  uint32_t row_bytes[4];  // distance of rows in bytes, if contiguous: preds, target, their gradients
  bool mirrors;           // along the columns, the adjoint of reflection mirrors the derivatives
  T row_taps[taps_of(Radius)], column_taps[taps_of(Radius)];
  // For volumes, whose planes are slices and which have no sums here:
  int64_t first_plane;   // the first plane of this launch
  int64_t first_volume;  // the first volume in `fields`
  const T* pivots;       // [B * C]
  T* fields;             // [volumes of the slab, D, groups, 4, kGroup]: moments or derivatives (slices.cuh)
};

template <class Config>
using StripParamsOf = StripParams<typename Config::Source, Config::kRadius>;

// Registers per thread: enough that nothing spills, and few enough that an SM holds many threads. Variants
// that training does not use may have more.
template <class Config>
constexpr int kRegistersOf =
    sizeof(typename Config::T) == 8            ? 255
    : Config::kRadius == kLongRadius           ? (Config::kGradients == GradientsOf::none ? 168 : 255)
    : Config::kRadius == kShortRadius          ? (Config::kGradients == GradientsOf::none ? 80 : 96)
    : Config::kPass == Pass::gradient          ? (Config::kGradients == GradientsOf::preds ? 80 : 128)
    : Config::kGradients == GradientsOf::none  ? (Config::kGeneral ? 128 : 96)
    : Config::kGradients == GradientsOf::preds ? (Config::kGeneral ? 168 : 128)
                                               : (Config::kGeneral ? 200 : 168);

// Blocks per SM, for the launch bounds, from which the compiler derives the number of registers. A quarter of
// an SM has 16384 registers, allocated to whole warps.
template <class Config>
constexpr int wanted_blocks() {
  constexpr int kWarps = 16384 / (kWarpSize * kRegistersOf<Config>)*4;
  constexpr int kBlocks = kWarps * kWarpSize / Config::kThreads;
  return kBlocks < 1 ? 1 : kBlocks;
}

}  // namespace ssim_fused::cuda
