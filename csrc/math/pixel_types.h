// The types that pixels may have in memory, each named once. Every switch, table and instantiation over
// types, on either device, is made from these two lists:
//
//     DO(name, type, scalar)      name: as PyTorch spells it; scalar: its torch ScalarType
//
// `Half` and `BFloat16` are those of the place where a list is expanded. docs/extending.md says what a new
// type needs beyond its line.
#pragma once

#include <cstdint>

// As DO: the names alone, for an enum.
#define SSIM_PIXEL_NAME(name, type, scalar) name,

// Pixels that have gradients, and in which maps and gradients are stored.
#define SSIM_FOR_FLOAT_PIXELS(DO)  \
  DO(float16, Half, Half)          \
  DO(bfloat16, BFloat16, BFloat16) \
  DO(float32, float, Float)        \
  DO(float64, double, Double)

// Pixels as decoders and scanners deliver them, which are read only. They are numbers as they stand, not
// scaled, and converted to the compute type as they are read.
#define SSIM_FOR_INTEGER_PIXELS(DO) \
  DO(uint8, uint8_t, Byte)          \
  DO(uint16, uint16_t, UInt16)      \
  DO(int8, int8_t, Char)            \
  DO(int16, int16_t, Short)
