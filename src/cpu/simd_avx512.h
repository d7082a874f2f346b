/* simd_avx512.h - the vector operations that vector_block.h uses, for 16 lanes with AVX-512F. All
 * functions from here to the end of the including file are compiled for these instructions. */
#ifndef SB_SIMD_AVX512_H
#define SB_SIMD_AVX512_H

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f"))), apply_to = function)
#else
#pragma GCC target("avx512f")
#endif

#include <immintrin.h>
#include <string.h>

#include "det/convert.h"
#include "det/leaf.h"
#include "det/moments.h"

#define W 16
#define HALVES 1

typedef __m512 vf;
typedef __m512i vi, vq;

#define vf_splat _mm512_set1_ps
#define vf_max _mm512_max_ps
#define vf_add _mm512_add_ps
#define vf_sub _mm512_sub_ps
#define vf_mul _mm512_mul_ps
#define vf_fma _mm512_fmadd_ps
#define vf_fms _mm512_fmsub_ps
#define vf_store _mm512_store_ps
#define vf_as_vi _mm512_castps_si512
#define vi_as_vf _mm512_castsi512_ps
#define vf_to_vi _mm512_cvttps_epi32
#define vf_round_vi _mm512_cvtps_epi32
#define vi_splat _mm512_set1_epi32
#define vi_add _mm512_add_epi32
#define vi_sub _mm512_sub_epi32
#define vi_and _mm512_and_si512
#define vi_or _mm512_or_si512
#define vi_shl _mm512_sllv_epi32
#define vi_shr _mm512_srlv_epi32
#define vi_sar _mm512_srav_epi32
#define vi_pair_low _mm512_unpacklo_epi32
#define vi_pair_high _mm512_unpackhi_epi32
#define vq_zero _mm512_setzero_si512
#define vq_splat _mm512_set1_epi64
#define vq_add _mm512_add_epi64
#define vq_and _mm512_and_si512
#define vq_shr _mm512_srlv_epi64
#define vq_mul32 _mm512_mul_epu32
#define vi_largest _mm512_reduce_max_epi32

static inline vi vi_shl23(vi x) { return _mm512_slli_epi32(x, 23); }
static inline vq vq_shl32(vq x) { return _mm512_slli_epi64(x, 32); }
static inline vq vq_shr32(vq x) { return _mm512_srli_epi64(x, 32); }

/* Sign-extended. */
static inline vq vi_low_half(vi x) { return _mm512_cvtepi32_epi64(_mm512_castsi512_si256(x)); }
static inline vq vi_high_half(vi x)
{
    return _mm512_cvtepi32_epi64(_mm512_extracti64x4_epi64(x, 1));
}

/* Tests return a mask in which bit k is the result for lane k. */
static inline uint32_t vf_unordered(vf x, vf y) { return _mm512_cmp_ps_mask(x, y, _CMP_UNORD_Q); }
static inline uint32_t vf_equal(vf x, vf y) { return _mm512_cmp_ps_mask(x, y, _CMP_EQ_OQ); }

/* Whether |x| is not below y: true for NaN and inf. */
static inline uint32_t vf_not_below(vf x, vf y)
{
    return _mm512_cmp_ps_mask(_mm512_abs_ps(x), y, _CMP_NLT_UQ);
}

static inline uint32_t vi_not_below(vi x, vi y) { return _mm512_cmpge_epi32_mask(x, y); }

static inline vf vf_zero_where(vf x, uint32_t mask)
{
    return _mm512_maskz_mov_ps((__mmask16)~mask, x);
}

static inline vi vi_zero_where(vi x, uint32_t mask)
{
    return _mm512_maskz_mov_epi32((__mmask16)~mask, x);
}

static inline vi vi_where_equal(vi x, vi y, vi z)
{
    return _mm512_maskz_mov_epi32(_mm512_cmpeq_epi32_mask(y, z), x);
}

static inline vf vf_bf16_floor(vf x)
{
    vi b = vf_as_vi(x), negative = _mm512_srai_epi32(b, 31);
    vi up = vi_add(b, vq_and(negative, vi_splat(0xffff)));
    return vi_as_vf(vq_and(up, vi_splat((int32_t)0xffff0000u)));
}

static inline vf vf_load_f32(const void *logits, int64_t i)
{
    return _mm512_loadu_ps((const char *)logits + i * 4);
}

static inline __m256i load_u16(const void *logits, int64_t i)
{
    return _mm256_loadu_si256((const __m256i *)((const char *)logits + i * 2));
}

static inline vf vf_load_f16(const void *logits, int64_t i)
{
    return _mm512_cvtph_ps(load_u16(logits, i));
}

static inline vf vf_load_bf16(const void *logits, int64_t i)
{
    return vi_as_vf(_mm512_slli_epi32(_mm512_cvtepu16_epi32(load_u16(logits, i)), 16));
}

/* The steps of a fold. Each step combines two vectors of partial trees into one vector that holds
 * twice as many trees. The leaves enter in the order 0 4 8 12, 1 5 9 13, ... so that lane k of the
 * final vector belongs to leaf k. */
#define FOLD8(op, x, y) op(_mm512_shuffle_f32x4(x, y, 0x44), _mm512_shuffle_f32x4(x, y, 0xee))
#define FOLD4(op, x, y) op(_mm512_shuffle_f32x4(x, y, 0x88), _mm512_shuffle_f32x4(x, y, 0xdd))
#define PD _mm512_castps_pd
#define FOLD2(op, x, y)                                                                            \
    op(_mm512_castpd_ps(_mm512_unpacklo_pd(PD(x), PD(y))),                                         \
       _mm512_castpd_ps(_mm512_unpackhi_pd(PD(x), PD(y))))
#define FOLD1(op, x, y) op(_mm512_shuffle_ps(x, y, 0x88), _mm512_shuffle_ps(x, y, 0xdd))

#define FOLD(name, op)                                                                             \
    static inline vf name##_4(const vf *v)                                                         \
    {                                                                                              \
        vf a = FOLD8(op, v[0], v[4]), b = FOLD8(op, v[8], v[12]);                                  \
        return FOLD4(op, a, b);                                                                    \
    }                                                                                              \
    static inline vf name(const vf *v)                                                             \
    {                                                                                              \
        vf a = name##_4(v), b = name##_4(v + 1), c = name##_4(v + 2), d = name##_4(v + 3);         \
        vf e = FOLD2(op, a, b), f = FOLD2(op, c, d);                                               \
        return FOLD1(op, e, f);                                                                    \
    }
FOLD(fold_max, vf_max)
FOLD(fold_add, vf_add)

#endif
