/* moments.h - the two quantities that the entropy needs in addition to the sum: the moment, which
 * is the sum of the terms, each multiplied by its distance in octaves, and the largest logit. The
 * moment is kept as exact integers, in the same window as the sum.
 *
 * A leaf adds U = sum of v_i * (t_i - A), in steps of 2^-24. Together with the leaf's position, U
 * gives the moment of the terms about the reference t = 32 J - 2^22, which the g hold digit by
 * digit. Moving that reference when J rises is exact, and linear in the digits that remain, so
 * merging stays associative and commutative (docs/numerics.md, section "Entropy"). */
#ifndef SB_DET_MOMENTS_H
#define SB_DET_MOMENTS_H

#include "finish.h"
#include "order.h"

/* ln 2, rounded. kappa in its place would put the rounding of c into the entropy of a uniform
 * row. */
#define SB_LN2 0x1.62e42fefa39efp-1

/* 64 bytes. */
typedef struct sb_moments {
    sb_state sum;
    int64_t g[3];      /* |g| < 2^63 for up to 2^28 logits */
    uint32_t best;     /* the order key of the largest logit; 0 if no id is present */
    uint32_t reserved; /* 0 */
} sb_moments;

typedef struct sb_moment_leaf {
    sb_leaf leaf;
    int32_t U; /* |U| <= 2^29 */
    uint32_t best;
} sb_moment_leaf;

#define SB_KEY_ABSENT 0x007fffffu /* sb_order_key of -inf; every finite logit has a larger key */

SB_DET float sb_of_order_key(uint32_t key)
{
    return sb_float(key >> 31 ? key & 0x7fffffffu : ~key);
}

/* x rounded to the nearest integer, for |x| <= 2^29. */
SB_DET int32_t sb_nearest(float x)
{
#if defined(__CUDACC__)
    return __float2int_rn(x);
#else
    return (int32_t)(((double)x + 0x1.8p+52) - 0x1.8p+52);
#endif
}

/* The terms of a leaf whose largest logit has the order key best. This loop and the next one always
 * cover all 16 ids, so that compilers can vectorise them. */
SB_DET void sb_moment_terms(sb_moment_leaf *to, const float x[SB_LEAF], uint32_t best,
                            const sb_row *row)
{
    const sb_leaf_scale scale = sb_leaf_scale_of(sb_of_order_key(best), row);
    const float A = scale.A, thr = scale.thr, magic = SB_INT_MAGIC - A;
    /* a leaf that is not wide is not clamped to lim */
    const float high = scale.wide ? row->lim : sb_float(SB_INF_BITS);
    float v[SB_LEAF], h[SB_LEAF];
    int i;
    for (i = 0; i < SB_LEAF; i++) {
        float y = sb_is_absent(x[i]) ? thr : sb_clamp(x[i], high);
        y = y > thr ? y : thr;
        v[i] = sb_leaf_term(y, row->c, magic);
        h[i] = v[i] * sb_fma32(y, row->c, -A);
    }
    to->leaf.A = (int32_t)A;
    to->leaf.M = (uint32_t)(sb_leaf_tree(v) * 0x1p+24f);
    to->U = sb_nearest(sb_leaf_tree(h) * 0x1p+24f);
    to->best = best;
}

/* As sb_leaf_of, with U and the largest logit. */
SB_DET sb_leaf_kind sb_moment_leaf_of(sb_moment_leaf *to, const float x[SB_LEAF], const sb_row *row)
{
    uint32_t best = 0;
    int poison = 0, i;
    for (i = 0; i < SB_LEAF; i++) {
        uint32_t key = sb_order_key(x[i]);
        poison |= sb_is_poison(x[i]);
        best = key > best ? key : best;
    }
    if (poison) return SB_LEAF_POISON;
    if (best == SB_KEY_ABSENT) return SB_LEAF_ABSENT;
    sb_moment_terms(to, x, best, row);
    return SB_LEAF_PRESENT;
}

SB_DET void sb_moments_init(sb_moments *m, float c)
{
    sb_state_init(&m->sum, c);
    m->g[0] = m->g[1] = m->g[2] = 0;
    m->best = m->reserved = 0;
}

/* a + b modulo 2^64. Overflow must be defined, since a record from another process may hold
 * anything. */
SB_DET int64_t sb_wrapped_sum(int64_t a, int64_t b) { return (int64_t)((uint64_t)a + (uint64_t)b); }

/* Moves the window and the reference up to J. Digits remain only if the rise is 1 or 2; the
 * reference then moves by 32 or 64 octaves. */
SB_DET void sb_moments_rise(sb_moments *m, uint32_t J)
{
    uint32_t rise = J - m->sum.J;
    const uint64_t *l = m->sum.l;
    if (rise == 0) return;
    if (rise == 1) {
        m->g[0] = sb_wrapped_sum(m->g[1], (int64_t)(0 - l[1] * 32));
        m->g[1] = sb_wrapped_sum(m->g[2], (int64_t)(0 - l[2] * 32));
    } else {
        m->g[0] = rise == 2 ? sb_wrapped_sum(m->g[2], (int64_t)(0 - l[2] * 64)) : 0;
        m->g[1] = 0;
    }
    m->g[2] = 0;
    sb_state_rise(&m->sum, J);
}

SB_DET void sb_moments_poison(sb_moments *m)
{
    sb_moments_rise(m, SB_J_POISON);
    m->best = 0;
}

SB_DET void sb_moments_add(sb_moments *m, const sb_moment_leaf *leaf)
{
    uint32_t a = (uint32_t)(leaf->leaf.A + SB_BIAS), j = a >> 5;
    uint64_t w = (uint64_t)leaf->leaf.M << (a & 31);
    int64_t q = (int64_t)leaf->U * (int64_t)((uint64_t)1 << (a & 31));
    uint64_t lo = w & 0xffffffffu, hi = w >> 32;
    int64_t e, glo, ghi;

    if (m->sum.J != SB_J_POISON && leaf->best > m->best) m->best = leaf->best;
    if (j > m->sum.J) sb_moments_rise(m, j);
    if (m->sum.J - j > 2) return;
    e = (int64_t)a - 32 * (int64_t)m->sum.J;
    glo = e * (int64_t)lo + (int64_t)((uint64_t)q & 0xffffffffu);
    ghi = e * (int64_t)hi + (q >> 32);
    switch (m->sum.J - j) {
    case 0:
        m->sum.l[1] += lo;
        m->sum.l[2] += hi;
        m->g[1] += glo;
        m->g[2] += ghi;
        break;
    case 1:
        m->sum.l[0] += lo;
        m->sum.l[1] += hi;
        m->g[0] += glo;
        m->g[1] += ghi;
        break;
    default:
        m->sum.l[0] += hi;
        m->g[0] += ghi;
        break;
    }
}

/* into += from, as in sb_state_merge. */
SB_DET void sb_moments_merge(sb_moments *into, const sb_moments *from)
{
    sb_moments f = *from;
    uint32_t J = into->sum.J > f.sum.J ? into->sum.J : f.sum.J;
    int i;
    sb_moments_rise(into, J);
    sb_moments_rise(&f, J);
    for (i = 0; i < 3; i++) {
        into->sum.l[i] += f.sum.l[i];
        into->g[i] = sb_wrapped_sum(into->g[i], f.g[i]);
    }
    into->best = J == SB_J_POISON ? 0 : into->best > f.best ? into->best : f.best;
}

/* The id with the largest logit, alone in a leaf: the logarithm of its term, in the form that the
 * sum holds, and its moment divided by its term. */
typedef struct sb_alone {
    sb_lg lg;
    double q;
} sb_alone;

SB_DET double sb_double_of(uint64_t m, int32_t e) /* (1 + m / 2^52) * 2^e, normal */
{
    return sb_double((uint64_t)(e + 1023) << 52 | m);
}

SB_DET sb_alone sb_alone_of(const sb_moments *m, const sb_row *row)
{
    sb_moment_leaf leaf;
    sb_alone alone;
    float x[SB_LEAF];
    int64_t moment;
    int32_t top;
    int i;
    x[0] = sb_of_order_key(m->best);
    for (i = 1; i < SB_LEAF; i++) x[i] = sb_float(SB_ABSENT_BITS);
    sb_moment_terms(&leaf, x, m->best, row);
    top = sb_top64(leaf.leaf.M);
    alone.lg = sb_log2_parts(((uint64_t)leaf.leaf.M << (52 - top)) & 0x000fffffffffffffu,
                             leaf.leaf.A - 24 + top);
    moment = (int64_t)leaf.leaf.M * (leaf.leaf.A + SB_BIAS - 32 * (int64_t)m->sum.J) + leaf.U;
    alone.q = (double)moment / (double)leaf.leaf.M; /* both are exact, q is below 2^36 */
    return alone;
}

/* The mean of t over the row's distribution, relative to the reference. */
SB_DET double sb_mean_moment(const sb_moments *m)
{
    const uint64_t *l = m->sum.l;
    sb_u128 t = (sb_u128)l[0] + ((sb_u128)l[1] << 32) + ((sb_u128)l[2] << 64);
    sb_u128 s = (sb_u128)(sb_i128)m->g[0] + ((sb_u128)(sb_i128)m->g[1] << 32) +
                ((sb_u128)(sb_i128)m->g[2] << 64);
    int negative = (int)(s >> 127);
    int32_t top_t, top_s;
    uint64_t mt, ms;
    double q;
    if (s == 0) return 0.0;
    if (negative) s = -s;
    top_t = sb_top128(t);
    top_s = sb_top128(s);
    mt = (uint64_t)(top_t > 52 ? t >> (top_t - 52) : t << (52 - top_t)) & 0x000fffffffffffffu;
    ms = (uint64_t)(top_s > 52 ? s >> (top_s - 52) : s << (52 - top_s)) & 0x000fffffffffffffu;
    q = sb_double_of(ms, top_s) / sb_double_of(mt, top_t);
    return negative ? -q : q;
}

/* The entropy in octaves, at least 0. sum is the logarithm of the row's sum. Requires: not
 * sb_state_is_nan. */
SB_DET double sb_entropy_octaves(const sb_moments *m, sb_lg sum, const sb_row *row)
{
    sb_alone alone = sb_alone_of(m, row);
    double h = ((double)(sum.e - alone.lg.e) + (sum.f - alone.lg.f)) +
               (alone.q - sb_mean_moment(m));
    return h > 0.0 ? h : 0.0;
}

SB_DET float sb_entropy_of(double octaves) { return (float)(SB_LN2 * octaves); }

SB_DET float sb_finish_entropy(const sb_moments *m, const sb_row *row)
{
    sb_mantissa sum;
    if (sb_state_is_nan(&m->sum)) return sb_float(SB_NAN_BITS);
    sum = sb_sum_mantissa(&m->sum);
    return sb_entropy_of(sb_entropy_octaves(m, sb_log2_parts(sum.m, sum.e), row));
}

#endif
