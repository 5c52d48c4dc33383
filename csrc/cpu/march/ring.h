// A ring buffer of rows with several fields. For each vector of columns and each field, the rows are
// contiguous, so that a window down the rows reads consecutive vectors.
#pragma once

#include <cstdint>

#include "../simd/convolve.h"
#include "../simd/lanes.h"

namespace ssim_fused::cpu {

template <class T, int Bytes>
class Ring {
  using V = Lanes<T, Bytes>;
  static constexpr int64_t kLanes = Bytes / sizeof(T);

 public:
  // `data` has shape [vectors, fields, slots], in vectors. `slots` is a multiple of kStepRows.
  SSIM_INLINE Ring(T* data, int fields, int64_t vectors, int64_t slots)
      : data_(data), fields_(fields), vectors_(vectors), slots_(slots) {}

  // Returns the slot of place k, which holds the k-th row that the current step sees. `advance` moves on by
  // kStepRows rows.
  SSIM_INLINE int64_t slot(int64_t k) const {
    const int64_t slot = base_ + k;
    return slot < slots_ ? slot : slot - slots_;
  }
  SSIM_INLINE void advance() { base_ = slot(kStepRows); }

  // Returns the address of a slot of a field, at vector i of columns. `to_next_field` and `to_next_vector`
  // are the distances in elements to the same slot of the next field and vector.
  SSIM_INLINE T* at(int64_t i, int field, int64_t slot) const {
    return data_ + ((i * fields_ + field) * slots_ + slot) * kLanes;
  }
  SSIM_INLINE int64_t to_next_field() const { return slots_ * kLanes; }
  SSIM_INLINE int64_t to_next_vector() const { return fields_ * slots_ * kLanes; }

  // Returns the inputs and outputs of a window that moves down from place k, for `vectors` vectors of
  // columns from i on and their first `fields` fields. Sums go to `out`.
  SSIM_INLINE Passage<T> down(int64_t i, int64_t vectors, int fields, int64_t k, T* out, int64_t out_vector,
                              int64_t out_field, int64_t out_step) const {
    return {vectors,   fields,   at(i, 0, base_ + k), to_next_vector(), to_next_field(), out, out_vector,
            out_field, out_step, slots_ - base_ - k,  slots_ * kLanes};
  }

  SSIM_INLINE void clear(int64_t slot) const {
    for_rows([=](T* rows) SSIM_INLINE_LAMBDA { store(rows + slot * kLanes, V{}); });
  }
  SSIM_INLINE void copy(int64_t from, int64_t to) const {
    for_rows([=](T* rows) SSIM_INLINE_LAMBDA { store(rows + to * kLanes, load<V>(rows + from * kLanes)); });
  }
  SSIM_INLINE void multiply(int64_t slot, T factor) const {
    for_rows([=](T* rows)
                 SSIM_INLINE_LAMBDA { store(rows + slot * kLanes, load<V>(rows + slot * kLanes) * factor); });
  }

 private:
  template <class F>
  SSIM_INLINE void for_rows(F&& f) const {
    T* rows = data_;
    const int64_t next = to_next_field();
    for (int64_t n = vectors_ * fields_; n > 0; --n, rows += next) f(rows);
  }

  T* const data_;
  const int fields_;
  const int64_t vectors_, slots_;
  int64_t base_ = 0;
};

}  // namespace ssim_fused::cpu
