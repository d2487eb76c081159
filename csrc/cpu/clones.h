// Vectorised code chosen at run time: the loader picks the AVX-512, AVX2 or portable copy of a function so marked.
// All copies give the same bits: they differ in width, not in the order of a sum, and contraction is off.
#pragma once

#if defined(__x86_64__) && defined(__gnu_linux__) && !defined(__clang__)
#define ISE_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define ISE_CLONES
#endif
