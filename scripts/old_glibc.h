// Included before every source of a wheel for Linux: asks for names that glibc 2.28 has, too, so that the
// wheel runs there, whatever glibc it was compiled beside. In the image of manylinux_2_28 it changes nothing.
#pragma once

#include <features.h>

#if defined(__GLIBC__) && defined(__x86_64__) && !defined(__CUDA_ARCH__)
// Since 2.29 there are versions without SVID's error handling. The results are the same.
__asm__(".symver exp, exp@GLIBC_2.2.5");
__asm__(".symver exp2, exp2@GLIBC_2.2.5");
__asm__(".symver log, log@GLIBC_2.2.5");
__asm__(".symver log2, log2@GLIBC_2.2.5");
__asm__(".symver pow, pow@GLIBC_2.2.5");
// Since 2.34 in libc; before it in libdl, which torch loads.
__asm__(".symver dlsym, dlsym@GLIBC_2.2.5");
#endif

#if defined(__GLIBC__) && defined(__cplusplus)
// Since 2.32 glibc has it. Zero: there may be other threads, and libstdc++ counts references by atomic
// operations.
extern "C" {
inline __attribute__((visibility("hidden"))) char __libc_single_threaded = 0;
}
#endif
