/* sample.h - the draw of a token: random bits, the id that they stand for by inverse CDF, and the
 * filters top-k, top-p and min-p. docs/numerics.md, section "Sampling", defines all of it.
 *
 * Everything is an exact integer or one comparison of fp32 numbers, so that no order of visits can
 * change a token. Filters are a cut: the ids are kept whose place (order.h) is at least the cut's,
 * and whose weight is at least the least weight. */
#ifndef SB_DET_SAMPLE_H
#define SB_DET_SAMPLE_H

#include "finish.h"
#include "gradient.h"
#include "order.h"

/* ---- random bits -------------------------------------------------------------------------- */

/* The first 64 bits of Philox4x32-10 with the key seed and the counter (position, stream). */
SB_DET uint64_t sb_random_bits(uint64_t seed, uint64_t stream, uint64_t position)
{
    uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
    uint32_t x0 = (uint32_t)position, x1 = (uint32_t)(position >> 32);
    uint32_t x2 = (uint32_t)stream, x3 = (uint32_t)(stream >> 32);
    int i;
    for (i = 0; i < 10; i++) {
        uint64_t a = (uint64_t)0xd2511f53u * x0, b = (uint64_t)0xcd9e8d57u * x2;
        x0 = (uint32_t)(b >> 32) ^ x1 ^ k0;
        x2 = (uint32_t)(a >> 32) ^ x3 ^ k1;
        x1 = (uint32_t)b;
        x3 = (uint32_t)a;
        k0 += 0x9e3779b9u;
        k1 += 0xbb67ae85u;
    }
    return (uint64_t)x1 << 32 | x0;
}

/* floor(u * 2^64). Requires: 0 <= u < 1. */
SB_DET uint64_t sb_bits_of_u(double u) { return (uint64_t)(u * 0x1p64); }
SB_DET int sb_u_ok(double u) { return u >= 0.0 && u < 1.0; } /* NaN is not */

/* ---- the draw ------------------------------------------------------------------------------ */

/* A row's total T, or that of a part of it, in units of digit J - 1. Requires: not
 * sb_state_is_nan(s). */
SB_DET sb_u128 sb_total(const sb_state *s)
{
    return (sb_u128)s->l[0] + ((sb_u128)s->l[1] << 32) + ((sb_u128)s->l[2] << 64);
}

/* The share of a part, which may be empty, in the total of a row whose window is at J. */
SB_DET sb_u128 sb_total_at(const sb_state *part, uint32_t J)
{
    sb_state s = *part;
    sb_state_rise(&s, J);
    return sb_total(&s);
}

/* R = floor(U * T / 2^64): 0 <= R < T. T is below 2^125. */
SB_DET sb_u128 sb_drawn(uint64_t U, sb_u128 T)
{
    sb_u128 low = (sb_u128)U * (uint64_t)T;
    return (sb_u128)U * (uint64_t)(T >> 64) + (uint64_t)(low >> 64);
}

/* W of a leaf: its share in that total. Requires: the window is not below the leaf. */
SB_DET sb_u128 sb_leaf_share(const sb_leaf *leaf, uint32_t J)
{
    int32_t shift = leaf->A + SB_BIAS - 32 * ((int32_t)J - 1);
    if (shift >= 0) return (sb_u128)leaf->M << shift;
    return shift > -32 ? leaf->M >> -shift : 0;
}

/* Whether a * x > b * y. Requires: a and b are below 2^47, x and y below 2^93. */
SB_DET int sb_product_exceeds(uint64_t a, sb_u128 x, uint64_t b, sb_u128 y)
{
    sb_u128 al = (sb_u128)a * (uint64_t)x, bl = (sb_u128)b * (uint64_t)y;
    sb_u128 ah = (sb_u128)a * (uint64_t)(x >> 64) + (uint64_t)(al >> 64);
    sb_u128 bh = (sb_u128)b * (uint64_t)(y >> 64) + (uint64_t)(bl >> 64);
    return ah != bh ? ah > bh : (uint64_t)al > (uint64_t)bl;
}

/* The term of a logit in its leaf, in units of 2^-40, rounded down; 0 if it is absent. */
SB_DET uint64_t sb_leaf_unit(float x, const sb_leaf_scale *scale, const sb_row *row)
{
    float y = scale->wide && !sb_is_absent(x) ? sb_clamp(x, row->lim) : x;
    float v = sb_leaf_term(y > scale->thr ? y : scale->thr, row->c, SB_INT_MAGIC - scale->A);
    return sb_is_absent(x) ? 0 : (uint64_t)(v * 0x1p40f);
}

/* The id of a leaf, 0 .. 15, that r stands for: the first whose share of W, together with those of
 * the ids before it, exceeds r. Requires: r < W, the leaf's share. */
SB_DET int sb_drawn_in_leaf(const float x[SB_LEAF], const sb_row *row, sb_u128 W, sb_u128 r)
{
    uint64_t q[SB_LEAF], all = 0, sum = 0;
    float m = sb_float(SB_ABSENT_BITS);
    sb_leaf_scale scale;
    int i, found = -1;
    for (i = 0; i < SB_LEAF; i++) m = x[i] > m ? x[i] : m;
    scale = sb_leaf_scale_of(m, row);
    for (i = 0; i < SB_LEAF; i++) all += q[i] = sb_leaf_unit(x[i], &scale, row);
    for (i = 0; i < SB_LEAF; i++) {
        sum += q[i];
        if (found < 0 && sb_product_exceeds(sum, W, all, r)) found = i;
    }
    return found;
}

/* ---- filters ------------------------------------------------------------------------------- */

/* The scale of a row's weights, which its largest logit sets. */
typedef struct sb_weights {
    float c, lim, magic;
} sb_weights;

SB_DET sb_weights sb_weights_of(float best, const sb_row *row)
{
    sb_weights w;
    w.c = row->c;
    w.lim = row->lim;
    w.magic = SB_INT_MAGIC - sb_leaf_octave(sb_clamp(best, row->lim), row->c);
    return w;
}

/* The weight of a logit y that is at most lim, and at least -lim or so small, maybe -inf, that its
 * weight is 0. */
SB_DET float sb_weight_within(float y, const sb_weights *w)
{
    float z = sb_fma32(y, w->c, w->magic);
    float n = z - w->magic;
    float r = sb_fma32(y, w->c, -n);
    if (z < SB_GRADIENT_LOW) return 0.0f;
    return sb_float(sb_bits32(sb_exp2(r)) + (sb_bits32(z) << 23));
}

/* The weight of a logit, 0 .. 2; that of the largest is at least 1/2. */
SB_DET float sb_weight(float x, const sb_weights *w)
{
    return sb_is_absent(x) ? 0.0f : sb_weight_within(sb_clamp(x, w->lim), w);
}

/* A weight in units of 2^-40, rounded down: below 2^42. */
SB_DET uint64_t sb_weight_units(float v) { return (uint64_t)(v * 0x1p40f); }

/* NaN is not ok. */
SB_DET int sb_top_p_ok(float p) { return p > 0.0f && p <= 1.0f; }
SB_DET int sb_min_p_ok(float p) { return p >= 0.0f && p <= 1.0f; }

/* ceil(p * Q). Requires: 0 < p <= 1, 0 < Q < 2^62. */
SB_DET uint64_t sb_top_p_goal(float p, uint64_t Q)
{
    uint32_t b = sb_bits32(p), e = b >> 23 ? b >> 23 : 1;
    sb_u128 product = (sb_u128)Q * ((b & 0x7fffffu) | (b >> 23 ? 0x800000u : 0));
    uint32_t shift = 150 - e; /* 23 or more */
    if (shift > 126) return 1;
    return (uint64_t)((product + (((sb_u128)1 << shift) - 1)) >> shift);
}

/* The least weight that min-p keeps: the least fp32 v with v >= minp * best. 0: any. */
SB_DET float sb_least_weight(float minp, float best)
{
    double bound = (double)minp * (double)best; /* exact */
    float least = (float)bound;
    return (double)least < bound ? sb_float(sb_bits32(least) + 1) : least;
}

/* What the filters of a row keep. */
typedef struct sb_cut {
    uint64_t place; /* the last place that is kept; 0: all places are */
    float least;    /* the least weight */
    sb_weights weights;
} sb_cut;

SB_DET int sb_is_cut(const sb_cut *cut, float x, uint32_t id)
{
    if (sb_is_absent(x) || sb_place_of(x, id) < cut->place) return 1;
    return cut->least > 0.0f && sb_weight(x, &cut->weights) < cut->least;
}

/* Whether all logits up to m are certain to be cut. The weight of a smaller logit may be the larger
 * by 2^-22 of it, because exp2 is not monotone in its last bit. */
SB_DET int sb_is_cut_up_to(const sb_cut *cut, float m)
{
    float v;
    if (sb_is_absent(m) || sb_order_key(m) < cut->place >> 32) return 1;
    if (!(cut->least > 0.0f)) return 0;
    v = sb_weight(m, &cut->weights);
    return sb_fma32(v, 0x1p-20f, v) < cut->least;
}

#endif
