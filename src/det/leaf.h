/* leaf.h - the leaf: 16 logits with consecutive ids, the first of which is a multiple of 16, become
 * one number M * 2^(A - 24), where M is an integer. docs/numerics.md, section "Leaf", proves the
 * bounds quoted here.
 *
 * Inside a leaf, the order of operations is fixed. Above the leaf, everything is exact
 * (accumulator.h). */
#ifndef SB_DET_LEAF_H
#define SB_DET_LEAF_H

#include "exp2.h"
#include "float.h"
#include "row.h"

#define SB_LEAF 16
#define SB_EVEN_MAGIC 0x1.8p+24f /* fma(m, c, this) rounds m * c to an even integer */
#define SB_INT_MAGIC 0x1.8p+23f  /* fma(y, c, this) rounds y * c to an integer */
#define SB_WIDE 4096.0f          /* a leaf is wide unless |A| is below this */

typedef enum sb_leaf_kind {
    SB_LEAF_ABSENT, /* no logit is above -inf; the leaf adds nothing */
    SB_LEAF_PRESENT,
    SB_LEAF_POISON /* contains a NaN or +inf, which poisons the row */
} sb_leaf_kind;

typedef struct sb_leaf {
    int32_t A;  /* even, |A| <= 2^21 */
    uint32_t M; /* 2^23 .. 2^29 */
} sb_leaf;

SB_DET float sb_clamp(float x, float lim) { return x > lim ? lim : x < -lim ? -lim : x; }

/* A, as a float, of a leaf whose largest logit is m; NaN or inf if m is. */
SB_DET float sb_leaf_octave(float m, float c)
{
    return sb_fma32(m, c, SB_EVEN_MAGIC) - SB_EVEN_MAGIC;
}

SB_DET int sb_leaf_is_wide(float A) { return !(A < SB_WIDE && A > -SB_WIDE); }

/* The largest bf16 not above x. */
SB_DET float sb_bf16_floor(float x)
{
    uint32_t b = sb_bits32(x);
    return sb_float((b + (b >> 31) * 0xffffu) & 0xffff0000u);
}

/* The term of one logit: 2^(y * c), scaled by 2^-A. magic is SB_INT_MAGIC - A. */
SB_DET float sb_leaf_term(float y, float c, float magic)
{
    float z = sb_fma32(y, c, magic);
    float n = z - magic;
    float r = sb_fma32(y, c, -n);
    return sb_float(sb_bits32(sb_exp2(r)) + (sb_bits32(z) << 23));
}

/* The halving tree: adds v[i] and v[i + 8], then those 4, 2 and 1 apart. It is written out so that
 * every compiler keeps v in registers. */
SB_DET float sb_leaf_tree(float v[SB_LEAF])
{
    float a = (v[0] + v[8]) + (v[4] + v[12]), b = (v[2] + v[10]) + (v[6] + v[14]);
    float c = (v[1] + v[9]) + (v[5] + v[13]), d = (v[3] + v[11]) + (v[7] + v[15]);
    return (a + b) + (c + d);
}

/* The reference points of a leaf: the octave A, and the logit thr that smaller logits are raised
 * to. */
typedef struct sb_leaf_scale {
    float A, thr;
    int wide;
} sb_leaf_scale;

/* m is the largest logit of the leaf. Requires: m is finite. */
SB_DET sb_leaf_scale sb_leaf_scale_of(float m, const sb_row *row)
{
    sb_leaf_scale scale;
    scale.A = sb_leaf_octave(m, row->c);
    scale.wide = sb_leaf_is_wide(scale.A);
    if (scale.wide) {
        m = sb_clamp(m, row->lim);
        scale.A = sb_leaf_octave(m, row->c);
    }
    scale.thr = m - row->k64;
    if (!scale.wide) /* rounding down in a wide leaf would take n - A out of range */
        scale.thr = sb_bf16_floor(scale.thr);
    return scale;
}

/* x[i] is the logit of the i-th id of the leaf, as fp32; -inf means absent. Writes *leaf only if it
 * returns SB_LEAF_PRESENT. */
SB_DET sb_leaf_kind sb_leaf_of(sb_leaf *leaf, const float x[SB_LEAF], const sb_row *row)
{
    float v[SB_LEAF];
    float m = sb_float(SB_ABSENT_BITS);
    sb_leaf_scale scale;
    int i;

    for (i = 0; i < SB_LEAF; i++) {
        if (sb_is_poison(x[i])) return SB_LEAF_POISON;
        m = x[i] > m ? x[i] : m;
    }
    if (sb_is_absent(m)) return SB_LEAF_ABSENT;

    scale = sb_leaf_scale_of(m, row);
    for (i = 0; i < SB_LEAF; i++) {
        float y = scale.wide && !sb_is_absent(x[i]) ? sb_clamp(x[i], row->lim) : x[i];
        v[i] = sb_leaf_term(y > scale.thr ? y : scale.thr, row->c, SB_INT_MAGIC - scale.A);
    }
    leaf->A = (int32_t)scale.A;
    leaf->M = (uint32_t)(sb_leaf_tree(v) * 0x1p+24f);
    return SB_LEAF_PRESENT;
}

#endif
