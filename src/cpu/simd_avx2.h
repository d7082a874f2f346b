/* simd_avx2.h - the vector operations that vector_block.h uses, for 8 lanes with AVX2, FMA and
 * F16C. All functions from here to the end of the including file are compiled for these
 * instructions. */
#ifndef SB_SIMD_AVX2_H
#define SB_SIMD_AVX2_H

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
#else
#pragma GCC target("avx2,fma,f16c")
#endif

#include <immintrin.h>
#include <string.h>

#include "det/convert.h"
#include "det/leaf.h"
#include "det/moments.h"

#define W 8
#define HALVES 2

typedef __m256 vf;
typedef __m256i vi, vq;

#define vf_splat _mm256_set1_ps
#define vf_max _mm256_max_ps
#define vf_add _mm256_add_ps
#define vf_sub _mm256_sub_ps
#define vf_mul _mm256_mul_ps
#define vf_fma _mm256_fmadd_ps
#define vf_fms _mm256_fmsub_ps
#define vf_store _mm256_store_ps
#define vf_as_vi _mm256_castps_si256
#define vi_as_vf _mm256_castsi256_ps
#define vf_to_vi _mm256_cvttps_epi32
#define vf_round_vi _mm256_cvtps_epi32
#define vi_splat _mm256_set1_epi32
#define vi_add _mm256_add_epi32
#define vi_sub _mm256_sub_epi32
#define vi_and _mm256_and_si256
#define vi_or _mm256_or_si256
#define vi_shl _mm256_sllv_epi32
#define vi_shr _mm256_srlv_epi32
#define vi_sar _mm256_srav_epi32
#define vi_pair_low _mm256_unpacklo_epi32
#define vi_pair_high _mm256_unpackhi_epi32
#define vq_zero _mm256_setzero_si256
#define vq_splat _mm256_set1_epi64x
#define vq_add _mm256_add_epi64
#define vq_and _mm256_and_si256
#define vq_shr _mm256_srlv_epi64
#define vq_mul32 _mm256_mul_epu32

static inline vi vi_shl23(vi x) { return _mm256_slli_epi32(x, 23); }
static inline vq vq_shl32(vq x) { return _mm256_slli_epi64(x, 32); }
static inline vq vq_shr32(vq x) { return _mm256_srli_epi64(x, 32); }

/* Sign-extended. */
static inline vq vi_low_half(vi x) { return _mm256_cvtepi32_epi64(_mm256_castsi256_si128(x)); }
static inline vq vi_high_half(vi x)
{
    return _mm256_cvtepi32_epi64(_mm256_extracti128_si256(x, 1));
}

/* Tests return a mask in which bit k is the result for lane k. */
static inline uint32_t mask_of(vf x) { return (uint32_t)_mm256_movemask_ps(x); }
static inline uint32_t vf_unordered(vf x, vf y)
{
    return mask_of(_mm256_cmp_ps(x, y, _CMP_UNORD_Q));
}
static inline uint32_t vf_equal(vf x, vf y) { return mask_of(_mm256_cmp_ps(x, y, _CMP_EQ_OQ)); }

/* Whether |x| is not below y: true for NaN and inf. */
static inline uint32_t vf_not_below(vf x, vf y)
{
    vf size = _mm256_andnot_ps(vf_splat(-0.0f), x);
    return mask_of(_mm256_cmp_ps(size, y, _CMP_NLT_UQ));
}

static inline uint32_t vi_not_below(vi x, vi y)
{
    return ~mask_of(vi_as_vf(_mm256_cmpgt_epi32(y, x))) & 0xff;
}

static inline vi lanes_of(uint32_t mask)
{
    const vi bit = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
    return _mm256_cmpeq_epi32(vq_and(vi_splat((int32_t)mask), bit), bit);
}

static inline vf vf_zero_where(vf x, uint32_t mask)
{
    return _mm256_andnot_ps(vi_as_vf(lanes_of(mask)), x);
}

static inline vi vi_zero_where(vi x, uint32_t mask)
{
    return _mm256_andnot_si256(lanes_of(mask), x);
}

static inline vi vi_where_equal(vi x, vi y, vi z) { return vi_and(x, _mm256_cmpeq_epi32(y, z)); }

static inline vf vf_bf16_floor(vf x)
{
    vi b = vf_as_vi(x), negative = _mm256_srai_epi32(b, 31);
    vi up = vi_add(b, vq_and(negative, vi_splat(0xffff)));
    return vi_as_vf(vq_and(up, vi_splat((int32_t)0xffff0000u)));
}

static inline int32_t vi_largest(vi x)
{
    int32_t lane[W], most;
    memcpy(lane, &x, sizeof lane);
    most = lane[0];
    for (int i = 1; i < W; i++) most = lane[i] > most ? lane[i] : most;
    return most;
}

static inline vf vf_load_f32(const void *logits, int64_t i)
{
    return _mm256_loadu_ps((const float *)((const char *)logits + i * 4));
}

static inline __m128i load_u16(const void *logits, int64_t i)
{
    return _mm_loadu_si128((const __m128i *)((const char *)logits + i * 2));
}

static inline vf vf_load_f16(const void *logits, int64_t i)
{
    return _mm256_cvtph_ps(load_u16(logits, i));
}

static inline vf vf_load_bf16(const void *logits, int64_t i)
{
    return vi_as_vf(_mm256_slli_epi32(_mm256_cvtepu16_epi32(load_u16(logits, i)), 16));
}

/* The steps of a fold. Each step combines two vectors of partial trees into one vector that holds
 * twice as many trees. The leaves enter in the order 0 4, 1 5, ... so that lane k of the final
 * vector belongs to leaf k. */
#define FOLD4(op, x, y) op(_mm256_permute2f128_ps(x, y, 0x20), _mm256_permute2f128_ps(x, y, 0x31))
#define PD _mm256_castps_pd
#define FOLD2(op, x, y)                                                                            \
    op(_mm256_castpd_ps(_mm256_unpacklo_pd(PD(x), PD(y))),                                         \
       _mm256_castpd_ps(_mm256_unpackhi_pd(PD(x), PD(y))))
#define FOLD1(op, x, y) op(_mm256_shuffle_ps(x, y, 0x88), _mm256_shuffle_ps(x, y, 0xdd))

#define FOLD(name, op)                                                                             \
    static inline vf name(const vf *v)                                                             \
    {                                                                                              \
        vf a = FOLD4(op, v[0], v[4]), b = FOLD4(op, v[1], v[5]);                                   \
        vf c = FOLD4(op, v[2], v[6]), d = FOLD4(op, v[3], v[7]);                                   \
        vf e = FOLD2(op, a, b), f = FOLD2(op, c, d);                                               \
        return FOLD1(op, e, f);                                                                    \
    }
FOLD(fold_max, vf_max)
FOLD(fold_add, vf_add)

#endif
