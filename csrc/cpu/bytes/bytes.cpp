// The march of 8-bit images, compiled for each instruction set.
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "../simd/instruction_set.h"
#include "select.h"

namespace ssim_fused::cpu {
namespace {

SSIM_INLINE void pack(const uint8_t* x, const uint8_t* y, int64_t count, uint32_t* out) {
  for (int64_t i = 0; i < count; ++i)
    out[i] = static_cast<uint32_t>(x[i]) | static_cast<uint32_t>(y[i]) << 16;
}

struct BaselineRows {
  static void pack(const uint8_t* x, const uint8_t* y, int64_t count, uint32_t* out) {
    cpu::pack(x, y, count, out);
  }
  static void slide(const uint32_t* in, const uint32_t* out, int64_t count, uint32_t* s, uint32_t* p,
                    uint32_t* q) {
    for (int64_t i = 0; i < count; ++i) {
      const uint32_t a = in[i] & 0xffff, b = in[i] >> 16, c = out[i] & 0xffff, d = out[i] >> 16;
      s[i] += in[i] - out[i];
      p[i] += 2 * (a * b - c * d);
      q[i] += a * a + b * b - c * c - d * d;
    }
  }
};

#if defined(SSIM_X86_TARGETS)
// The instruction madd multiplies 16-bit numbers and adds the products in pairs. Applied to a packed pixel
// and itself it gives x^2 + y^2; applied to a packed pixel and one with exchanged halves, 2 x y. The loop is
// written in intrinsics for each instruction set, because Clang passes vectors only between functions that
// are compiled for the same one.
struct Avx2Rows {
  SSIM_TARGET_AVX2 static void pack(const uint8_t* x, const uint8_t* y, int64_t count, uint32_t* out) {
    cpu::pack(x, y, count, out);
  }
  SSIM_TARGET_AVX2 static void slide(const uint32_t* in, const uint32_t* out, int64_t count, uint32_t* s,
                                     uint32_t* p, uint32_t* q) {
    for (int64_t i = 0; i < count; i += 8) {
      const __m256i a = load(in + i), b = load(out + i);
      add(s + i, a, b);
      add(p + i, _mm256_madd_epi16(a, exchanged(a)), _mm256_madd_epi16(b, exchanged(b)));
      add(q + i, _mm256_madd_epi16(a, a), _mm256_madd_epi16(b, b));
    }
  }

 private:
  SSIM_TARGET_AVX2 static __m256i load(const uint32_t* from) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
  }
  SSIM_TARGET_AVX2 static __m256i exchanged(__m256i v) {
    const __m256i order = _mm256_setr_epi8(2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13,  //
                                           2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13);
    return _mm256_shuffle_epi8(v, order);
  }
  SSIM_TARGET_AVX2 static void add(uint32_t* sums, __m256i entering, __m256i leaving) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(sums),
                        _mm256_sub_epi32(_mm256_add_epi32(load(sums), entering), leaving));
  }
};

struct Avx512Rows {
  SSIM_TARGET_AVX512 static void pack(const uint8_t* x, const uint8_t* y, int64_t count, uint32_t* out) {
    cpu::pack(x, y, count, out);
  }
  SSIM_TARGET_AVX512 static void slide(const uint32_t* in, const uint32_t* out, int64_t count, uint32_t* s,
                                       uint32_t* p, uint32_t* q) {
    for (int64_t i = 0; i < count; i += 16) {
      const __m512i a = _mm512_loadu_si512(in + i), b = _mm512_loadu_si512(out + i);
      add(s + i, a, b);
      add(p + i, _mm512_madd_epi16(a, exchanged(a)), _mm512_madd_epi16(b, exchanged(b)));
      add(q + i, _mm512_madd_epi16(a, a), _mm512_madd_epi16(b, b));
    }
  }

 private:
  // Masked with all lanes, because GCC 12 warns of an undefined vector in the unmasked intrinsic.
  SSIM_TARGET_AVX512 static __m512i exchanged(__m512i v) { return _mm512_maskz_rol_epi32(0xffff, v, 16); }
  SSIM_TARGET_AVX512 static void add(uint32_t* sums, __m512i entering, __m512i leaving) {
    _mm512_storeu_si512(sums,
                        _mm512_sub_epi32(_mm512_add_epi32(_mm512_loadu_si512(sums), entering), leaving));
  }
};

SSIM_TARGET_AVX2 void march_avx2(const ByteTask& task) {
  ByteMarch<32>(task, {Avx2Rows::pack, Avx2Rows::slide}).run();
}
SSIM_TARGET_AVX512 void march_avx512(const ByteTask& task) {
  ByteMarch<64>(task, {Avx512Rows::pack, Avx512Rows::slide}).run();
}
#endif

}  // namespace

void march_bytes(const ByteTask& task) {
#if defined(SSIM_X86_TARGETS)
  if (chosen_instruction_set() == InstructionSet::avx512) return march_avx512(task);
  if (chosen_instruction_set() >= InstructionSet::avx2) return march_avx2(task);
#endif
  ByteMarch<16>(task, {BaselineRows::pack, BaselineRows::slide}).run();
}

}  // namespace ssim_fused::cpu
