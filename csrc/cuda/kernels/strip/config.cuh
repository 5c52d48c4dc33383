// The variants of the strip march (march.cuh), and what a launch of it is told.
#pragma once

#include <cstdint>

#include "../../../math/pass.h"
#include "../fir.cuh"
#include "../problem.cuh"
#include "../reduce.cuh"

namespace ssim_fused::cuda {

constexpr int kStepRows = 8;  // rows of a step
constexpr int kChunk = 8;     // columns a thread takes along a row

// One variant of the kernel. `Columns` is the strip's width and the block's threads. `Single`: one strip
// holds the whole image. `HasPixelTerm`: the gradients have the slopes of a pixel term, and the sums of an
// image its own, as the last one. `Radius`: of the windows, at most.
template <class Source_, int Columns_, GradientsOf gradients, Objective objective, bool Narrow_,
          bool Single_ = false, Pass pass = Pass::image, bool HasPixelTerm = false,
          int Radius_ = kMarchRadius>
struct StripConfig {
  using Source = Source_;          // of the images in memory
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

  // Columns of outputs computed before the first owned column: the gradient needs its neighbours' too.
  static constexpr int kLead = kDerivatives > 0 && !kSingle ? kRadius : 0;
  // A strip owns kOwned columns, whole vectors; the last up to kLast, having nothing to its right.
  static constexpr int kVector = Vector<Storage>::kSize;
  static constexpr int kOwned = kDerivatives > 0 ? (kColumns - 2 * kRadius) / kVector * kVector : kColumns;
  static constexpr int kLast = kColumns - kLead;

  // Raw rows start at a whole vector: kRawShift columns before the first one that is read. A chunk's windows
  // read kWindowed columns, which together with the shift fill whole vectors.
  static constexpr int kRawLead = (kLead + kRadius + kVector - 1) / kVector * kVector;
  static constexpr int kRawShift = kRawLead - kLead - kRadius;
  static constexpr int kWindowed = kChunk + 2 * kRadius;
  static constexpr int kRawVectors = (kWindowed + kRawShift + kVector - 1) / kVector;
  static constexpr int kRawColumns = kColumns - kChunk + kRawVectors * kVector;

  // Rows of a step that one warp stages and reads, so that nobody else need wait for it; 0: they are not one
  // warp's.
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
  // The rows of all strips of all planes are counted through, `rows_of_strip` each, of which the last may lie
  // beyond the image; a block marches down `rows_of_block` of them. Where channels lie interleaved, so many
  // blocks march down as many channels side by side, and the strips are those of one channel of all images.
  int64_t rows_of_block, rows_of_strip, all_strips;
  int abreast;            // channels side by side; 1: a plane after the other
  int strips;             // of a plane
  int parts;              // of a strip, at most, in different blocks
  bool vectors;           // every row of every image is whole, aligned vectors
  bool dense;             // in every row of every image pixels lie next to one another
  uint32_t row_bytes[4];  // from one row to the next, where they are: preds, target, their gradients
  bool mirrors;           // columns: the adjoint of reflection is to mirror the derivatives
  T row_taps[taps_of(Radius)], column_taps[taps_of(Radius)];
  // Of volumes; planes are slices then, and there are no sums.
  int64_t first_plane;   // of this launch
  int64_t first_volume;  // with which `fields` begins
  const T* pivots;       // [B C]
  T* fields;             // [volumes of the slab, D, groups, 4, kGroup]: moments or derivatives (slices.cuh)
};

template <class Config>
using StripParamsOf = StripParams<typename Config::Source, Config::kRadius>;

// Registers a thread may have: enough that nothing spills, few enough that an SM holds many threads. Calls
// that are not on the path of training keep more in them.
template <class Config>
constexpr int kRegistersOf =
    sizeof(typename Config::T) == 8            ? 255
    : Config::kRadius == kLongRadius           ? (Config::kGradients == GradientsOf::none ? 168 : 255)
    : Config::kRadius == kShortRadius          ? (Config::kGradients == GradientsOf::none ? 80 : 96)
    : Config::kPass == Pass::gradient          ? (Config::kGradients == GradientsOf::preds ? 80 : 128)
    : Config::kGradients == GradientsOf::none  ? (Config::kGeneral ? 128 : 96)
    : Config::kGradients == GradientsOf::preds ? (Config::kGeneral ? 168 : 128)
                                               : (Config::kGeneral ? 200 : 168);

// Blocks an SM should hold, from which the compiler derives that number: a quarter of an SM has 16384
// registers for whole warps.
template <class Config>
constexpr int wanted_blocks() {
  constexpr int kWarps = 16384 / (kWarpSize * kRegistersOf<Config>)*4;
  constexpr int kBlocks = kWarps * kWarpSize / Config::kThreads;
  return kBlocks < 1 ? 1 : kBlocks;
}

}  // namespace ssim_fused::cuda
