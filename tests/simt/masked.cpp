// Runs a case of images or volumes with a mask through the kernels (masked_case.h).
#include "masked_case.h"

int main(int argc, char** argv) {
  return run_program(argc, argv, [](const Case& c, auto storage) {
    using Storage = typename decltype(storage)::type;
    run_case<Storage>(
        c, [&](const auto& problem, const auto& windows, Objective, const auto& results,
               HostLauncher& launcher) { run_masked_case<Storage>(c, problem, windows, results, launcher); });
  });
}
