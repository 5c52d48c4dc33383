// Stage 2 of the strip march, along the rows: each thread computes the four moments (math/ssim.h) of a chunk
// of 8 columns of one row.
#pragma once

#include "../../../math/ssim.h"
#include "exchange.cuh"
#include "stage.cuh"

namespace ssim_fused::cuda {

template <class Config>
class StripRow {
  using Storage = typename Config::Storage;
  using T = typename Config::T;
  using Exchange = StripExchange<Config>;
  using Stage = StripStage<Config>;

 public:
  static SSIM_DEVICE void moments(const StripBlock<Config>& at, const char* raw, char* exchange) {
    const Chunk<Config> chunk(at.thread());
    const T pivot = at.numbers[StripNumbers<Config>::kPivot];
    constexpr int kVector = Config::kVector, kVectorsOfChunk = kChunk / kVector > 0 ? kChunk / kVector : 1;
    static_assert(kVectorsOfChunk * kVector == kChunk);
    T sum[kPlainMoments][kChunk];
#pragma unroll
    for (int f = 0; f < kPlainMoments; ++f) {
#pragma unroll
      for (int j = 0; j < kChunk; ++j) sum[f][j] = T(0);
    }
#pragma unroll
    for (int v = 0; v < Config::kRawVectors; ++v) {
      const char* const from = raw +
                               chunk.template place<Storage, Stage::kRawRow>(v / kVectorsOfChunk * kChunk) +
                               v % kVectorsOfChunk * 16;
      const Vector<Storage> xs = *reinterpret_cast<const Vector<Storage>*>(from);
      const Vector<Storage> ys = *reinterpret_cast<const Vector<Storage>*>(from + Stage::kRawImage);
#pragma unroll
      for (int e = 0; e < kVector; ++e) {
        const int i = v * kVector + e - Config::kRawShift;
        if (i < 0 || i >= Config::kWindowed) continue;
        const Moments<T> pixel = pixel_moments(to_compute(xs.value[e]), to_compute(ys.value[e]), pivot);
#pragma unroll
        for (int j = 0; j < kChunk; ++j) {
          const int k = i - j;
          if (k < 0 || k >= Config::kTaps ||
              !has_tap<Config::kNarrow, Config::kRadius>(k, at.p.columns.radius))
            continue;
          const T tap = at.p.column_taps[k];
          to_fields(pixel, [&](int f, T value) { sum[f][j] += tap * value; });
        }
      }
    }
#pragma unroll
    for (int f = 0; f < kPlainMoments; ++f)
      store_chunk(exchange + Exchange::place(chunk, f, Exchange::kLeft), sum[f]);
  }

 private:
  static SSIM_DEVICE void store_chunk(char* to, const T (&values)[kChunk]) {
    constexpr int kSize = Vector<T>::kSize;
#pragma unroll
    for (int v = 0; v < kChunk / kSize; ++v) {
      Vector<T> out;
#pragma unroll
      for (int e = 0; e < kSize; ++e) out.value[e] = values[v * kSize + e];
      *reinterpret_cast<Vector<T>*>(to + v * 16) = out;
    }
  }
};

}  // namespace ssim_fused::cuda
