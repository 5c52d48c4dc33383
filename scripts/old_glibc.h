// Included before every source of a Linux wheel. It makes the code use only symbols that glibc 2.28 has, so
// that the wheel runs there, whatever glibc is on the build machine. In the image of manylinux_2_28 it
// changes nothing.
#pragma once

#include <features.h>

#if defined(__GLIBC__) && defined(__x86_64__) && !defined(__CUDA_ARCH__)
// Versions without SVID's error handling exist since 2.29. The results are the same.
__asm__(".symver exp, exp@GLIBC_2.2.5");
__asm__(".symver exp2, exp2@GLIBC_2.2.5");
__asm__(".symver log, log@GLIBC_2.2.5");
__asm__(".symver log2, log2@GLIBC_2.2.5");
__asm__(".symver pow, pow@GLIBC_2.2.5");
// In libc since 2.34; before, in libdl, which torch loads.
__asm__(".symver dlsym, dlsym@GLIBC_2.2.5");
#endif

#if defined(__GLIBC__) && defined(__cplusplus)
// glibc has this variable since 2.32. Zero means that there may be other threads, and libstdc++ then counts
// references with atomic operations.
extern "C" {
inline __attribute__((visibility("hidden"))) char __libc_single_threaded = 0;
}
#endif
