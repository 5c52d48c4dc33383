// Runs a case of images or volumes with a mask (driver.h): its bytes in a file, its type, strides and
// meaning.
#include "driver.h"

int main(int argc, char** argv) {
  return run_program(argc, argv, [](const Case& c, auto storage) {
    using Storage = typename decltype(storage)::type;
    run_case<Storage>(
        c, [&](auto problem, const auto& windows, Objective, const auto& results, HostLauncher& launcher) {
          const std::vector<char> bytes = read<char>(c, "mask");
          auto stride = c.list<int64_t>("mask_stride");  // batch, channel, slice, row, column
          const Weights mask{bytes.data(),
                             {stride.at(0), stride.at(1), stride.at(3), stride.at(4)},
                             stride.at(2),
                             weight_type(c, "mask_type")};
          // The mask's sums take the place of the outputs in the weights of the means.
          problem.of_similarity.scale *= results.outputs;
          problem.of_contrast.scale *= results.cropped;
          run_masked(MaskedProblem<Storage>{problem, mask, c.one("weighs_windows", 1) != 0, nullptr}, windows,
                     results, launcher);
        });
  });
}
