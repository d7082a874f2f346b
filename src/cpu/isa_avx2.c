/* isa_avx2.c - the avx2 path: 8 leaves at a time, with AVX2, FMA and F16C. */
#include "cpu/isa.h"

#if defined(__x86_64__)

#include <cpuid.h>

#include "cpu/simd_avx2.h"

#include "cpu/vector_block.h"
#include "cpu/vector_gradient.h"
#include "cpu/vector_kl.h"
#include "cpu/vector_moments.h"
#include "cpu/vector_rows.h"
#define SUMS_ADD(sum, a, b) sb_fma64(a, b, sum)
#include "cpu/vector_sums.h"

static int available(void)
{
    unsigned a, b, c, d; /* cpuid: __builtin_cpu_supports of clang does not know f16c */
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
           __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
}

const sb_isa sb_isa_avx2 = { "avx2",      available,   reduce_f32,  reduce_f16,
                             reduce_bf16, moments_f32, moments_f16, moments_bf16,
                             gradient,    kl,          sums };

#if defined(__clang__)
#pragma clang attribute pop
#endif

#else /* another architecture */

static int available(void) { return 0; }

const sb_isa sb_isa_avx2 = { "avx2", available, 0, 0, 0, 0, 0, 0, 0, 0, 0 };

#endif
