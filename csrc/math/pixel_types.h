// The types that pixels may have in memory. Every switch, table and instantiation over pixel types, on either
// device, is generated from these two lists:
//
//     DO(name, type, scalar)      name: as PyTorch spells it; type: in C++; scalar: the torch ScalarType
//
// `Half` and `BFloat16` are not defined here: they are the types of that name in the scope where a list is
// expanded. docs/extending.md says what a new type needs besides its line in a list.
#pragma once

#include <cstdint>

// A `DO` that expands to the name alone, for the enumerators of an enum.
#define SSIM_PIXEL_NAME(name, type, scalar) name,

// Types that have gradients. Maps and gradients are stored in one of these.
#define SSIM_FOR_FLOAT_PIXELS(DO)  \
  DO(float16, Half, Half)          \
  DO(bfloat16, BFloat16, BFloat16) \
  DO(float32, float, Float)        \
  DO(float64, double, Double)

// Types that decoders and scanners deliver, for inputs only. Their values are not scaled; they are converted
// to the compute type when they are read.
#define SSIM_FOR_INTEGER_PIXELS(DO) \
  DO(uint8, uint8_t, Byte)          \
  DO(uint16, uint16_t, UInt16)      \
  DO(int8, int8_t, Char)            \
  DO(int16, int16_t, Short)
