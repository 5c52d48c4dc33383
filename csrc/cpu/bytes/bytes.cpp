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
// and itself it gives x^2 + y^2; applied to a packed pixel and one with exchanged halves, 2 x y.
struct Avx2Rows {
  SSIM_TARGET_AVX2 static void pack(const uint8_t* x, const uint8_t* y, int64_t count, uint32_t* out) {
    cpu::pack(x, y, count, out);
  }
  SSIM_TARGET_AVX2 static void slide(const uint32_t* in, const uint32_t* out, int64_t count, uint32_t* s,
                                     uint32_t* p, uint32_t* q) {
    using V = Lanes<uint32_t, 32>;
    for (int64_t i = 0; i < count; i += 8) {
      const V a = load<V>(in + i), b = load<V>(out + i);
      store(s + i, load<V>(s + i) + a - b);
      store(p + i, load<V>(p + i) + dot(a, exchanged(a)) - dot(b, exchanged(b)));
      store(q + i, load<V>(q + i) + dot(a, a) - dot(b, b));
    }
  }

 private:
  SSIM_TARGET_AVX2 static Lanes<uint32_t, 32> exchanged(Lanes<uint32_t, 32> v) {
    using Halves = Lanes<uint16_t, 32>;
    const auto halves = reinterpret_cast<Halves>(v);
    return reinterpret_cast<Lanes<uint32_t, 32>>(
        __builtin_shufflevector(halves, halves, 1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14));
  }
  SSIM_TARGET_AVX2 static Lanes<uint32_t, 32> dot(Lanes<uint32_t, 32> a, Lanes<uint32_t, 32> b) {
    return reinterpret_cast<Lanes<uint32_t, 32>>(
        _mm256_madd_epi16(reinterpret_cast<__m256i>(a), reinterpret_cast<__m256i>(b)));
  }
};

struct Avx512Rows {
  SSIM_TARGET_AVX512 static void pack(const uint8_t* x, const uint8_t* y, int64_t count, uint32_t* out) {
    cpu::pack(x, y, count, out);
  }
  SSIM_TARGET_AVX512 static void slide(const uint32_t* in, const uint32_t* out, int64_t count, uint32_t* s,
                                       uint32_t* p, uint32_t* q) {
    using V = Lanes<uint32_t, 64>;
    for (int64_t i = 0; i < count; i += 16) {
      const V a = load<V>(in + i), b = load<V>(out + i);
      store(s + i, load<V>(s + i) + a - b);
      store(p + i, load<V>(p + i) + dot(a, exchanged(a)) - dot(b, exchanged(b)));
      store(q + i, load<V>(q + i) + dot(a, a) - dot(b, b));
    }
  }

 private:
  template <class V>
  SSIM_TARGET_AVX512 static V exchanged(V v) {
    return v << 16 | v >> 16;
  }
  SSIM_TARGET_AVX512 static Lanes<uint32_t, 64> dot(Lanes<uint32_t, 64> a, Lanes<uint32_t, 64> b) {
    return reinterpret_cast<Lanes<uint32_t, 64>>(
        _mm512_madd_epi16(reinterpret_cast<__m512i>(a), reinterpret_cast<__m512i>(b)));
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
