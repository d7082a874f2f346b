/* float.h - the primitives that all of det/ uses: one function attribute, bit casts, fused
 * multiply-add, and the encoding of NaN.
 *
 * Both a C compiler and nvcc compile these headers. In det/, a plain + - * / means one IEEE
 * operation, rounded to nearest even: build with the options of premake5.lua and tools/kernel.sh,
 * which include -ffp-contract=off and --fmad=false, and never with fast math, FTZ or DAZ. A fused
 * multiply-add is always written as sb_fma32 or sb_fma64. */
#ifndef SB_DET_FLOAT_H
#define SB_DET_FLOAT_H

#include <stdint.h>

#if defined(__HIPCC__)
#include <hip/hip_runtime.h>
#endif

#if defined(__CUDACC__) || defined(__HIPCC__)
#define SB_DET static __device__ __forceinline__
#else
#include <string.h>
#define SB_DET static inline
#if defined(__clang__)
#pragma STDC FP_CONTRACT OFF
#endif
/* Refuses options that would change values, as far as the compiler reveals them in macros. The
 * makefiles override such options where they can. Other builds must take care themselves: clang
 * reveals only few of them. */
#if defined(__FAST_MATH__) || defined(__ASSOCIATIVE_MATH__) || defined(__RECIPROCAL_MATH__) ||     \
    defined(__NO_SIGNED_ZEROS__) || (defined(__FINITE_MATH_ONLY__) && __FINITE_MATH_ONLY__)
#error "samebits needs IEEE arithmetic: compile it without fast math, or any part of it"
#endif
#if defined(__FLT_EVAL_METHOD__) && __FLT_EVAL_METHOD__ != 0
#error "samebits needs IEEE arithmetic: compile it without excess precision (x87)"
#endif
_Static_assert(sizeof(1.0) == 8 && sizeof(1.0f) == 4,
               "samebits needs IEEE arithmetic: compile it without single-precision constants");
#endif

/* The encoding of every NaN result. */
#define SB_NAN_BITS 0x7fc00000u
#define SB_INF_BITS 0x7f800000u
/* The logit of an absent id: -inf. */
#define SB_ABSENT_BITS 0xff800000u

#if defined(__CUDACC__) || defined(__HIPCC__)

SB_DET uint32_t sb_bits32(float x) { return __float_as_uint(x); }
SB_DET float sb_float(uint32_t b) { return __uint_as_float(b); }
SB_DET uint64_t sb_bits64(double x) { return (uint64_t)__double_as_longlong(x); }
SB_DET double sb_double(uint64_t b) { return __longlong_as_double((long long)b); }
SB_DET float sb_fma32(float a, float b, float c) { return __fmaf_rn(a, b, c); }
SB_DET double sb_fma64(double a, double b, double c) { return __fma_rn(a, b, c); }
/* The position of the highest set bit. Requires: b != 0. */
SB_DET int32_t sb_top64(uint64_t b) { return 63 - __clzll((long long)b); }

#else

SB_DET uint32_t sb_bits32(float x)
{
    uint32_t b;
    memcpy(&b, &x, sizeof b);
    return b;
}

SB_DET float sb_float(uint32_t b)
{
    float x;
    memcpy(&x, &b, sizeof x);
    return x;
}

SB_DET uint64_t sb_bits64(double x)
{
    uint64_t b;
    memcpy(&b, &x, sizeof b);
    return b;
}

SB_DET double sb_double(uint64_t b)
{
    double x;
    memcpy(&x, &b, sizeof x);
    return x;
}

SB_DET float sb_fma32(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
SB_DET double sb_fma64(double a, double b, double c) { return __builtin_fma(a, b, c); }
/* The position of the highest set bit. Requires: b != 0. */
SB_DET int32_t sb_top64(uint64_t b) { return 63 - __builtin_clzll(b); }

#endif

/* These tests look at the encoding, so they hold in any floating-point mode. */
SB_DET int sb_is_absent(float x) { return sb_bits32(x) == SB_ABSENT_BITS; }
SB_DET int sb_is_nan(float x) { return (sb_bits32(x) & 0x7fffffffu) > SB_INF_BITS; }
SB_DET int sb_is_poison(float x) { return sb_bits32(x) == SB_INF_BITS || sb_is_nan(x); }

#endif
