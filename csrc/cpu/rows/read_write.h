// Readers and writers of rows for each stored type. 16-bit pixels and integers are converted a vector at a
// time, in the instruction set that the marches use. Conversions to 16 bits round to nearest even, and NaN
// stays NaN.
#pragma once

#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>
#include <torch/headeronly/util/Half.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <cstring>
#include <type_traits>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "../../api/request.h"
#include "../../math/pixel_types.h"
#include "../simd/instruction_set.h"
#include "../simd/lanes.h"
#include "image_rows.h"

namespace ssim_fused::cpu {

template <class T>
void read_row(const void* base, int64_t offset, int64_t stride, int64_t count, T* out) {
  const T* in = static_cast<const T*>(base) + offset;
  if (stride == 1) {
    std::memcpy(out, in, static_cast<size_t>(count) * sizeof(T));
  } else {
    for (int64_t i = 0; i < count; ++i) out[i] = in[i * stride];
  }
}

template <class T>
void write_row(void* base, int64_t offset, int64_t stride, int64_t count, const T* in) {
  T* out = static_cast<T*>(base) + offset;
  if (stride == 1) {
    std::memcpy(out, in, static_cast<size_t>(count) * sizeof(T));
  } else {
    for (int64_t i = 0; i < count; ++i) out[i * stride] = in[i];
  }
}

// ---------------------------------------------------------------------------------------------------------------------
// Strided pixels of 8 or 16 bits, copied to contiguous memory

struct StridedPixels {
  // Copies `count` pixels to `out`. `available` is the number of pixels from `in` to the end of the row; no
  // read goes beyond them.
  template <class Stored>
  static void gather(const Stored* in, int64_t stride, int64_t count, int64_t, Stored* out) {
    for (int64_t i = 0; i < count; ++i) out[i] = in[i * stride];
  }
};

#if defined(SSIM_X86_TARGETS)
struct StridedPixelsAvx2 {
  // Interleaved images have strides of 2 to 4. The pixels of one vector of results are spread over that
  // many vectors, and a shuffle picks them from each.
  template <class Stored>
  SSIM_TARGET_AVX2 static void gather(const Stored* in, int64_t stride, int64_t count, int64_t available,
                                      Stored* out) {
    const int64_t done = stride == 2   ? gather_vectors<2>(in, count, available, out)
                         : stride == 3 ? gather_vectors<3>(in, count, available, out)
                         : stride == 4 ? gather_vectors<4>(in, count, available, out)
                                       : 0;
    StridedPixels::gather(in + done * stride, stride, count - done, available - done, out + done);
  }

 private:
  // Returns the number of pixels that are copied as whole vectors. Loads include the elements between the
  // last copied pixel and the next one, so that pixel must be available.
  template <int stride, class Stored>
  SSIM_TARGET_AVX2 static int64_t gather_vectors(const Stored* in, int64_t count, int64_t available,
                                                 Stored* out) {
    constexpr int64_t kPixels = 16 / sizeof(Stored);
    int64_t i = 0;
    for (; i + kPixels <= count && i + kPixels < available; i += kPixels) {
      __m128i pixels = _mm_setzero_si128();
      for (int k = 0; k < stride; ++k) {
        const __m128i vector = _mm_loadu_si128(reinterpret_cast<const __m128i*>(in + i * stride) + k);
        const auto* const order =
            reinterpret_cast<const __m128i*>(kOrders<stride, sizeof(Stored)>[static_cast<size_t>(k)].data());
        pixels = _mm_or_si128(pixels, _mm_shuffle_epi8(vector, _mm_load_si128(order)));
      }
      _mm_storeu_si128(reinterpret_cast<__m128i*>(out + i), pixels);
    }
    return i;
  }

 private:
  struct alignas(16) Order : std::array<uint8_t, 16> {};

  // For each source vector, the shuffle that moves its pixels to their bytes of the result. 0x80 shuffles
  // in a zero, for bytes that come from another source vector.
  template <size_t stride, size_t size>
  static constexpr std::array<Order, stride> kOrders = [] {
    std::array<Order, stride> orders{};
    for (size_t k = 0; k < stride; ++k) {
      for (size_t byte = 0; byte < 16; ++byte) {
        const size_t at = byte / size * size * stride + byte % size;
        orders[k][byte] = at / 16 == k ? static_cast<uint8_t>(at % 16) : 0x80;
      }
    }
    return orders;
  }();
};
#endif

// ---------------------------------------------------------------------------------------------------------------------
// Conversion of contiguous 16-bit pixels to float and back

struct BFloat16Rows : StridedPixels {
  static SSIM_INLINE void widen(const uint16_t* in, int64_t count, float* out) {
    for (int64_t i = 0; i < count; ++i) out[i] = std::bit_cast<float>(uint32_t{in[i]} << 16);
  }
  static SSIM_INLINE void narrow(const float* in, int64_t count, uint16_t* out) {
    for (int64_t i = 0; i < count; ++i) {
      const uint32_t bits = std::bit_cast<uint32_t>(in[i]);
      const uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
      out[i] = static_cast<uint16_t>((bits & 0x7fffffff) > 0x7f800000 ? 0x7fc0 : rounded);
    }
  }
};

struct HalfRows : StridedPixels {
  static SSIM_INLINE void widen(const uint16_t* in, int64_t count, float* out) {
    for (int64_t i = 0; i < count; ++i)
      out[i] = torch::headeronly::Half(in[i], torch::headeronly::Half::from_bits());
  }
  static SSIM_INLINE void narrow(const float* in, int64_t count, uint16_t* out) {
    for (int64_t i = 0; i < count; ++i) out[i] = torch::headeronly::Half(in[i]).x;
  }
};

#if defined(SSIM_X86_TARGETS)
struct BFloat16RowsAvx2 : StridedPixelsAvx2 {
  SSIM_TARGET_AVX2 static void widen(const uint16_t* in, int64_t count, float* out) {
    BFloat16Rows::widen(in, count, out);
  }
  SSIM_TARGET_AVX2 static void narrow(const float* in, int64_t count, uint16_t* out) {
    BFloat16Rows::narrow(in, count, out);
  }
};

struct HalfRowsAvx2 : StridedPixelsAvx2 {
  SSIM_TARGET_AVX2 static void widen(const uint16_t* in, int64_t count, float* out) {
    int64_t i = 0;
    for (; i + 8 <= count; i += 8)
      _mm256_storeu_ps(out + i, _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(in + i))));
    for (; i < count; ++i) out[i] = _cvtsh_ss(in[i]);
  }
  SSIM_TARGET_AVX2 static void narrow(const float* in, int64_t count, uint16_t* out) {
    int64_t i = 0;
    for (; i + 8 <= count; i += 8)
      _mm_storeu_si128(reinterpret_cast<__m128i*>(out + i),
                       _mm256_cvtps_ph(_mm256_loadu_ps(in + i), _MM_FROUND_TO_NEAREST_INT));
    for (; i < count; ++i) out[i] = _cvtss_sh(in[i], _MM_FROUND_TO_NEAREST_INT);
  }
};
#endif

constexpr int64_t kConverted = 64;  // strided pixels that are converted at a time

// Converts integers to T. Integer images are only read, never written.
struct IntegerRows : StridedPixels {
  template <class Integer, class T>
  static SSIM_INLINE void widen(const Integer* in, int64_t count, T* out) {
    for (int64_t i = 0; i < count; ++i) out[i] = static_cast<T>(static_cast<int32_t>(in[i]));
  }
};

#if defined(SSIM_X86_TARGETS)
struct IntegerRowsAvx2 : StridedPixelsAvx2 {
  template <class Integer, class T>
  SSIM_TARGET_AVX2 static void widen(const Integer* in, int64_t count, T* out) {
    IntegerRows::widen(in, count, out);
  }
};
#endif

template <class Rows, class Stored = uint16_t, class T = float>
void widen_row(const void* base, int64_t offset, int64_t stride, int64_t count, T* out) {
  const Stored* const in = static_cast<const Stored*>(base) + offset;
  if (stride == 1) return Rows::widen(in, count, out);
  Stored together[kConverted];
  for (int64_t i = 0; i < count; i += kConverted) {
    const int64_t some = std::min(kConverted, count - i);
    Rows::gather(in + i * stride, stride, some, count - i, together);
    Rows::widen(together, some, out + i);
  }
}

template <class Rows>
void narrow_row(void* base, int64_t offset, int64_t stride, int64_t count, const float* in) {
  uint16_t* const out = static_cast<uint16_t*>(base) + offset;
  if (stride == 1) return Rows::narrow(in, count, out);
  uint16_t together[kConverted];
  for (int64_t i = 0; i < count; i += kConverted) {
    const int64_t some = std::min(kConverted, count - i);
    Rows::narrow(in + i, some, together);
    for (int64_t k = 0; k < some; ++k) out[(i + k) * stride] = together[k];
  }
}

// ---------------------------------------------------------------------------------------------------------------------
// Images

template <class Rows>
void select_conversion(ImageRows<float>& image) {
  image.read = widen_row<Rows>;
  image.write = narrow_row<Rows>;
}

template <class Rows, class T>
void select_integers(ScalarType type, ImageRows<T>& image) {
#define SSIM_READER(name, Stored, scalar) \
  if (type == ScalarType::scalar) image.read = widen_row<Rows, Stored, T>;
  SSIM_FOR_INTEGER_PIXELS(SSIM_READER)
#undef SSIM_READER
}

// Selects the reader and writer for a stored type. T is double for float64 and float for any other floating
// type. Integers can be read as either.
template <class T>
void select_rows(ScalarType type, ImageRows<T>& image) {
  image.element_size = bytes_of(type);
  if (is_integer(type)) {
#if defined(SSIM_X86_TARGETS)
    if (chosen_instruction_set() >= InstructionSet::avx2)
      return select_integers<IntegerRowsAvx2>(type, image);
#endif
    return select_integers<IntegerRows>(type, image);
  }
  if constexpr (std::is_same_v<T, double>) {
    STD_TORCH_CHECK(type == ScalarType::Double, "expected float64 rows");
    image.read = read_row<double>;
    image.write = write_row<double>;
    image.is_plain = image.stride[4] == 1;
  } else if (type == ScalarType::Half) {
#if defined(SSIM_X86_TARGETS)
    if (chosen_instruction_set() >= InstructionSet::avx2) return select_conversion<HalfRowsAvx2>(image);
#endif
    select_conversion<HalfRows>(image);
  } else if (type == ScalarType::BFloat16) {
#if defined(SSIM_X86_TARGETS)
    if (chosen_instruction_set() >= InstructionSet::avx2) return select_conversion<BFloat16RowsAvx2>(image);
#endif
    select_conversion<BFloat16Rows>(image);
  } else {
    STD_TORCH_CHECK(type == ScalarType::Float, "expected float32 rows");
    image.read = read_row<float>;
    image.write = write_row<float>;
    image.is_plain = image.stride[4] == 1;
  }
}

// Wraps a view as an image.
template <class T>
ImageRows<T> image_rows(const View& view) {
  ImageRows<T> image;
  if (!view) return image;
  image.data = view.data;
  image.stride = view.stride;
  select_rows(view.type, image);
  return image;
}

}  // namespace ssim_fused::cpu
