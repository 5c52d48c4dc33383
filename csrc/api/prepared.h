// Specs prepared for eager code, which passes a number instead of some twenty arguments: parsing those costs
// more than a small image. Each operators' library has its own table, under numbers that Python assigns.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <utility>

#include "checks.h"

namespace ssim_fused {

// An append-only table. A spec lives as long as the process, so its number keeps its meaning in all threads
// and in forked children. Lookup takes no lock.
class PreparedSpecs {
 public:
  static constexpr int64_t kCapacity = 4096;

  void add(int64_t number, Spec spec) {
    check_number(number);
    auto entry = std::make_unique<const Spec>(std::move(spec));
    const Spec* expected = nullptr;
    STD_TORCH_CHECK(specs_[number].compare_exchange_strong(expected, entry.get(), std::memory_order_release),
                    "number is ", number, ", which is in use");
    entry.release();  // never freed
  }
  const Spec& at(int64_t number) const {
    check_number(number);
    const Spec* spec = specs_[number].load(std::memory_order_acquire);
    STD_TORCH_CHECK(spec, "number is ", number, ", under which nothing was prepared; call prepare first");
    return *spec;
  }

 private:
  static void check_number(int64_t number) {
    STD_TORCH_CHECK(number >= 0 && number < kCapacity, "number is ", number, ", expected 0 to ",
                    kCapacity - 1);
  }

  std::atomic<const Spec*> specs_[kCapacity]{};
};

inline PreparedSpecs& prepared_specs() {
  static PreparedSpecs specs;
  return specs;
}

}  // namespace ssim_fused
