// A case with a mask: mask.bin has its bytes, and fields have its type, strides and mode.
#pragma once

#include "driver.h"

template <class Storage>
void run_masked_case(const Case& c, Problem<Storage> problem, const WindowTaps<ComputeOf<Storage>>& windows,
                     const Results<ComputeOf<Storage>>& results, HostLauncher& launcher) {
  const std::vector<char> bytes = read<char>(c, "mask");
  const auto stride = c.list<int64_t>("mask_stride");  // batch, channel, slice, row, column
  const Weights mask{bytes.data(),
                     {stride.at(0), stride.at(1), stride.at(3), stride.at(4)},
                     stride.at(2),
                     weight_type(c, "mask_type")};
  // With a mask, the sum of its weights replaces the number of outputs in the means, so undo that divisor.
  problem.of_similarity.scale *= results.outputs;
  problem.of_contrast.scale *= results.cropped;
  run_masked(MaskedProblem<Storage>{problem, mask, c.one("weighs_windows", 1) != 0, nullptr}, windows,
             results, launcher);
}
