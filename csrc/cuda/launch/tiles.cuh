// Launches of the pyramid's kernels (kernels/pyramid.cuh): the size of a thread's patch, the number of
// blocks, and the levels that a launch computes. Templates over the launcher, so that the tests on the host
// share the code.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>

#include "../kernels/pyramid.cuh"
#include "call.cuh"

namespace ssim_fused::cuda {

constexpr int kHalvedRows = kPatch / 2;     // rows of the coarser level per thread
constexpr int64_t kMostBlocks = INT32_MAX;  // of a launch; with more tiles, blocks process several

inline Tiles tiles_of(int64_t batch, int64_t channels, const DeviceSize& size, int patch_rows,
                      int patch_columns) {
  Tiles tiles;
  tiles.channels = channels;
  tiles.depth = size.depth;
  tiles.rows = static_cast<int>(ceil_div(size.height, int64_t{patch_rows} * kTileHeight));
  tiles.columns = static_cast<int>(ceil_div(size.width, int64_t{patch_columns} * kTileWidth));
  tiles.patch_rows = patch_rows;
  tiles.patch_columns = patch_columns;
  tiles.count = batch * channels * tiles.depth * tiles.rows * tiles.columns;
  return tiles;
}

// Returns whether pixels in columns that are multiples of kCount begin whole, aligned packs. The stride of an
// axis with one element does not matter.
template <int kCount, class Storage>
bool is_packs(const DeviceImage<Storage>& array, int64_t batch, int64_t channels, int slices) {
  if constexpr (std::is_same_v<Storage, const AnyPixel>) {
    return false;
  } else {
    const auto is_whole = [](int64_t n, int64_t stride) { return n == 1 || stride % kCount == 0; };
    constexpr size_t kAlignment = alignof(Pack<std::remove_const_t<Storage>, kCount>);
    return reinterpret_cast<uintptr_t>(array.data) % kAlignment == 0 && array.stride[3] == 1 &&
           array.stride[2] % kCount == 0 && is_whole(slices, array.slice_stride) &&
           is_whole(channels, array.stride[1]) && is_whole(batch, array.stride[0]);
  }
}

// Chooses patches of vectors if rows consist of vectors. Otherwise the level after is not computed.
template <class Storage>
void choose_patches(int64_t batch, int64_t channels, DownsampleParams<Storage>& params) {
  constexpr int kHalf = kPatch / 2;
  bool vectors = params.size.width % kHalf == 0;
  for (int image = 0; image < 2; ++image) {
    vectors = vectors &&
              is_packs<kPatch>(params.from[image], batch, channels, params.slices * params.size.depth) &&
              is_packs<kHalf>(params.to[image], batch, channels, params.size.depth);
  }
  if (!vectors) params.after[0] = params.after[1] = {};
  DeviceSize size = params.size;
  if (params.after[0].data) size.depth = static_cast<int>(ceil_div(size.depth, params.slices));
  params.tiles = tiles_of(batch, channels, size, kHalvedRows, vectors ? kHalf : 1);
}

// Returns the tiles for gathering. With a pixel term patches are not vectors, because its formulas are
// compiled for one column only.
template <class Storage>
Tiles tiles_of(int64_t batch, int64_t channels, const GatherParams<Storage>& params) {
  const bool vectors =
      !params.term.adds_slopes() && !std::is_same_v<Storage, AnyPixel> &&
      params.size[0].width % kPatch == 0 &&
      is_packs<kPatch>(params.finest, batch, channels, params.size[0].depth) &&
      (params.count == 1 || is_packs<kPatch / 2>(params.levels[1], batch, channels, params.size[1].depth));
  return tiles_of(batch, channels, params.size[0], kPatch, vectors ? kPatch : 1);
}

template <auto kernel, class Params, class Launcher>
void launch_tiles(const Params& params, Launcher& launcher) {
  if (params.tiles.count == 0) return;
  launcher.template launch<kernel>(std::min(params.tiles.count, kMostBlocks), kPyramidThreads, 0, params);
}

// Both images of a level of the pyramid.
template <class Storage>
struct Level {
  DeviceImage<Storage> images[2];
  DeviceSize size;
};

template <class T>
Level<const T> readable(const Level<T>& level) {
  const auto of = [](const DeviceImage<T>& image) {
    const auto& stride = image.stride;
    return DeviceImage<const T>{image.data, {stride[0], stride[1], stride[2], stride[3]}, image.slice_stride};
  };
  return {{of(level.images[0]), of(level.images[1])}, level.size};
}

// Halves `from` into the first of `levels` and, if the same launch can, into the second. Returns the number
// of levels computed. `slices` slices are halved into one.
template <class Storage, class T, class Launcher>
size_t launch_halving(const Level<const Storage>& from, std::span<const Level<T>> levels, int slices,
                      int64_t batch, int64_t channels, Launcher& launcher) {
  DownsampleParams<Storage> params{};
  params.size = levels[0].size;
  params.slices = slices;
  const bool has_after = levels.size() > 1;
  if (has_after) params.after_size = levels[1].size;
  for (int image = 0; image < 2; ++image) {
    params.from[image] = from.images[image];
    params.to[image] = levels[0].images[image];
    if (has_after) params.after[image] = levels[1].images[image];
  }
  choose_patches(batch, channels, params);
  launch_tiles<downsample_kernel<Storage>>(params, launcher);
  return params.after[0].data ? 2 : 1;
}

// Computes all levels, each from the level above.
template <class Storage, class T, class Launcher>
void launch_halvings(const Level<const Storage>& finest, std::span<const Level<T>> levels, int slices,
                     int64_t batch, int64_t channels, Launcher& launcher) {
  size_t made = launch_halving(finest, levels, slices, batch, channels, launcher);
  while (made < levels.size())
    made +=
        launch_halving(readable(levels[made - 1]), levels.subspan(made), slices, batch, channels, launcher);
}

template <class T, class Launcher>
void launch_product(const ProductParams<T>& params, Launcher& launcher) {
  launcher.template launch<product_kernel<T>>(params.levels[0].batch, kReduceThreads,
                                              product_shared(params.level_weights.levels), params);
}

}  // namespace ssim_fused::cuda
