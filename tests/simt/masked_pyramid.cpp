// Runs the kernels of the masked pyramid on the host: `masked_pyramid CASE_DIRECTORY`, like pyramid.cpp. The
// mask is contiguous, [B, C or 1, D, H, W], of type `mask_type`.
#define SSIM_SIMT

#include "../../csrc/cuda/kernels/masked_pyramid.cuh"

#include <cstdint>
#include <deque>
#include <string>
#include <vector>

#include "../../csrc/cuda/launch/tiles.cuh"
#include "files.h"
#include "placed.h"

namespace {

using namespace ssim_fused::cuda;

template <class Storage>
void run_case(const Case& c) {
  using T = ComputeOf<Storage>;
  const auto shape = c.list<int64_t>("shape");
  const int64_t batch = shape[0], channels = shape[1], mask_channels = c.one<int64_t>("mask_channels", 1);
  const DeviceSize size = size_of(shape);
  const auto layout = c.one<std::string>("layout", "contiguous");
  const int slices = shape.size() == 5 ? 2 : 1;
  const std::vector<char> mask_bytes = read<char>(c, "mask");
  const int64_t slice = int64_t{size.height} * size.width, plane = size.depth * slice;
  const Weights mask{mask_bytes.data(),
                     {mask_channels * plane, mask_channels == 1 ? 0 : plane, size.width, 1},
                     slice,
                     weight_type(c, "mask_type")};
  const auto placed = [&](const char* name) {
    return Placed(layout, batch, channels, size, image_bytes<Storage>(c, name), read<char>(c, name));
  };
  const Placed preds = placed("preds"), target = placed("target");
  TileLauncher launcher;

  const DeviceSize half = halved(size, slices);
  Placed half_mask("contiguous", batch, mask_channels, half, sizeof(T), {});
  HalfMaskParams<T> of_mask{mask, reinterpret_cast<T*>(half_mask.data()), half, slices, {}};
  of_mask.tiles = tiles_of(batch, mask_channels, half, kHalvedRows, 1);
  launch_tiles<half_mask_kernel<T>>(of_mask, launcher);
  write(c, "half_mask", half_mask.values());

  Placed half_preds("contiguous", batch, channels, half, sizeof(T), {}),
      half_target("contiguous", batch, channels, half, sizeof(T), {});
  MaskedDownsampleParams<Storage> down{};
  down.from[0] = image_of<Storage>(c, "preds", preds);
  down.from[1] = image_of<Storage>(c, "target", target);
  down.to[0] = half_preds.device_image<T>();
  down.to[1] = half_target.device_image<T>();
  down.size = half;
  down.slices = slices;
  down.mask = mask;
  down.tiles = tiles_of(batch, channels, half, kHalvedRows, 1);
  launch_tiles<masked_downsample_kernel<Storage>>(down, launcher);
  write(c, "half_preds", half_preds.values());
  write(c, "half_target", half_target.values());

  MaskedGatherParams<Storage> gather{};
  gather.count = c.one("levels", 1);
  gather.share = T(0.25) / slices;
  Placed finest(layout, batch, channels, size, sizeof(KeptAs<Storage>), read<char>(c, "level0"));
  gather.finest = finest.device_image<KeptAs<Storage>>();
  std::deque<Placed> levels;
  std::vector<std::vector<T>> masks(1);
  gather.size[0] = size;
  for (int l = 1; l < gather.count; ++l) {
    const std::string number = std::to_string(l);
    gather.size[l] = halved(gather.size[l - 1], slices);
    levels.emplace_back("contiguous", batch, channels, gather.size[l], sizeof(T),
                        read<char>(c, "level" + number));
    gather.levels[l] = levels.back().template device_image<const T>();
    masks.push_back(read<T>(c, "coarse_mask" + number));
    if (c.one("weighs_windows", 1) != 0) gather.coarse_masks[l] = masks.back().data();
  }
  const std::vector<T> factors = read<T>(c, "factors");
  const std::vector<double> sums = read<double>(c, "mask_sums");
  gather.factors = factors.data();
  gather.batch = batch;
  gather.image = down.from[0];
  gather.other = down.from[1];
  gather.term = {pixel_term(c), T(0.01), T(c.one("slope", 0.0))};
  gather.mask = mask;
  gather.mask_channels = mask_channels;
  gather.mask_sums = sums.data();
  gather.tiles = tiles_of(batch, channels, size, kPatch, 1);
  launch_tiles<masked_gather_kernel<Storage>>(gather, launcher);
  write(c, "gradient", finest.values());
}

}  // namespace

int main(int argc, char** argv) {
  return run_program(argc, argv,
                     [](const Case& c, auto storage) { run_case<typename decltype(storage)::type>(c); });
}
