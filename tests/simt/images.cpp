// Runs a case of images through the kernels (driver.h).
#include "driver.h"

int main(int argc, char** argv) {
  return run_program(argc, argv, [](const Case& c, auto storage) {
    run_case<typename decltype(storage)::type>(c, [](auto&&... call) { run_images(call...); });
  });
}
