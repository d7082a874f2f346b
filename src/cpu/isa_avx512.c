/* isa_avx512.c - the avx512 path: 16 leaves at a time, one vector per leaf, with AVX-512F. */
#include "cpu/isa.h"

#if defined(__x86_64__)

#include "cpu/simd_avx512.h"

#include "cpu/vector_block.h"
#include "cpu/vector_gradient.h"
#include "cpu/vector_kl.h"
#include "cpu/vector_moments.h"
#include "cpu/vector_rows.h"
#define SUMS_ADD(sum, a, b) sb_fma64(a, b, sum)
#include "cpu/vector_sums.h"

static int available(void) { return __builtin_cpu_supports("avx512f"); }

const sb_isa sb_isa_avx512 = { "avx512",    available,   reduce_f32,  reduce_f16,
                               reduce_bf16, moments_f32, moments_f16, moments_bf16,
                               gradient,    kl,          sums };

#if defined(__clang__)
#pragma clang attribute pop
#endif

#else /* another architecture */

static int available(void) { return 0; }

const sb_isa sb_isa_avx512 = { "avx512", available, 0, 0, 0, 0, 0, 0, 0, 0, 0 };

#endif
