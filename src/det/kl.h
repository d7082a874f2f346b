/* kl.h - the divergence KL(p || q) of the distributions of two rows, sum_i p_i (ln p_i - ln q_i),
 * from one pass over both rows. The pass computes the states of p and q, and a third sum: the terms
 * of p, each multiplied by its distance in octaves from q's term. The digits of the third sum move
 * with the window of p.
 *
 * A leaf adds R = (M_p (A_p - A_q) + U) * 2^(a_p & 31), where U = sum of
 * v_i (t^p_i - A_p - t^q_i + A_q) in steps of 2^-24. |R| < 2^84 takes three digits, so the third
 * sum has one digit more than the window of p. Merging remains associative and commutative
 * (docs/numerics.md, section "Divergence"). */
#ifndef SB_DET_KL_H
#define SB_DET_KL_H

#include "digits.h"
#include "moments.h"

#define SB_KL_DIGITS 4

/* 104 bytes. */
typedef struct sb_divergence {
    sb_state p, q;
    int64_t x[SB_KL_DIGITS]; /* digits J - 1 .. J + 2, for the J of p; below 2^48 for V <= 2^20 */
    uint32_t outside;        /* whether an id is present in p and absent in q */
    uint32_t reserved;       /* 0 */
} sb_divergence;

typedef struct sb_kl_leaf {
    sb_leaf p, q;
    int64_t U; /* |U| < 2^52 */
    uint32_t outside;
} sb_kl_leaf;

/* x rounded to the nearest integer, for |x| < 2^52. A float of 2^24 or more is already an
 * integer. */
SB_DET int64_t sb_nearest64(float x)
{
#if defined(__CUDACC__)
    return __float2ll_rn(x);
#else
    return (int64_t)(((double)x + 0x1.8p+52) - 0x1.8p+52);
#endif
}

/* The terms of two leaves. Requires: neither leaf is absent or poisoned. The loop always covers all
 * 16 ids, so that compilers can vectorise it. */
SB_DET void sb_kl_terms(sb_kl_leaf *to, const float xp[SB_LEAF], const float xq[SB_LEAF],
                        sb_leaf_scale p, sb_leaf_scale q, const sb_row *row_p, const sb_row *row_q)
{
    const float magic_p = SB_INT_MAGIC - p.A, magic_q = SB_INT_MAGIC - q.A;
    /* a leaf that is not wide is not clamped to lim */
    const float high_p = p.wide ? row_p->lim : sb_float(SB_INF_BITS);
    float v[SB_LEAF], w[SB_LEAF], h[SB_LEAF];
    uint32_t outside = 0;
    int i;
    for (i = 0; i < SB_LEAF; i++) {
        const uint32_t p_absent = sb_is_absent(xp[i]), q_absent = sb_is_absent(xq[i]);
        const float clamped = sb_clamp(xq[i], row_q->lim); /* not raised to q.thr */
        float yp = p_absent ? p.thr : sb_clamp(xp[i], high_p);
        /* in a leaf that is not wide, a logit that the clamp changes lies below thr */
        float yq = q_absent ? q.thr : clamped, distance;
        yp = yp > p.thr ? yp : p.thr;
        yq = yq > q.thr ? yq : q.thr;
        v[i] = sb_leaf_term(yp, row_p->c, magic_p);
        w[i] = sb_leaf_term(yq, row_q->c, magic_q);
        distance = sb_fma32(yp, row_p->c, -p.A) - sb_fma32(clamped, row_q->c, -q.A);
        h[i] = p_absent ? 0.0f : v[i] * distance;
        outside |= q_absent & ~p_absent;
    }
    to->p.A = (int32_t)p.A;
    to->p.M = (uint32_t)(sb_leaf_tree(v) * 0x1p+24f);
    to->q.A = (int32_t)q.A;
    to->q.M = (uint32_t)(sb_leaf_tree(w) * 0x1p+24f);
    to->U = sb_nearest64(sb_leaf_tree(h) * 0x1p+24f);
    to->outside = outside & 1u;
}

SB_DET void sb_kl_init(sb_divergence *s, float c_p, float c_q)
{
    int k;
    sb_state_init(&s->p, c_p);
    sb_state_init(&s->q, c_q);
    for (k = 0; k < SB_KL_DIGITS; k++) s->x[k] = 0;
    s->outside = s->reserved = 0;
}

/* Moves the window of p, and the digits x with it, up to J. Requires: J >= s->p.J. */
SB_DET void sb_kl_rise(sb_divergence *s, uint32_t J)
{
    const uint32_t rise = J - s->p.J;
    if (rise == 0) return;
    s->x[0] = rise == 1 ? s->x[1] : rise == 2 ? s->x[2] : rise == 3 ? s->x[3] : 0;
    s->x[1] = rise == 1 ? s->x[2] : rise == 2 ? s->x[3] : 0;
    s->x[2] = rise == 1 ? s->x[3] : 0;
    s->x[3] = 0;
    sb_state_rise(&s->p, J);
}

SB_DET void sb_kl_add(sb_divergence *s, const sb_kl_leaf *leaf)
{
    const uint32_t a = (uint32_t)(leaf->p.A + SB_BIAS), j = a >> 5, shift = a & 31;
    if (j > s->p.J) sb_kl_rise(s, j);
    sb_state_add(&s->p, &leaf->p);
    sb_state_add(&s->q, &leaf->q);
    s->outside |= leaf->outside;
    if (!leaf->outside) {
        const int64_t r = (int64_t)leaf->p.M * (leaf->p.A - leaf->q.A) + leaf->U;
        const int64_t high = r >> (32 - shift); /* floor(R / 2^32) */
        const int64_t d0 = (int64_t)(((uint64_t)r << shift) & 0xffffffffu);
        const int64_t d1 = (int64_t)((uint64_t)high & 0xffffffffu), d2 = high >> 32;
        const uint32_t below = s->p.J - j;
        if (below == 0) {
            s->x[1] += d0;
            s->x[2] += d1;
            s->x[3] += d2;
        } else if (below == 1) {
            s->x[0] += d0;
            s->x[1] += d1;
            s->x[2] += d2;
        } else if (below == 2) {
            s->x[0] += d1;
            s->x[1] += d2;
        } else if (below == 3) {
            s->x[0] += d2;
        }
    }
}

/* The largest logit of a leaf. *poison becomes 1 if the leaf contains a NaN or +inf, else 0. */
SB_DET float sb_kl_largest(const float x[SB_LEAF], int *poison)
{
    float m = sb_float(SB_ABSENT_BITS);
    int i, bad = 0;
    for (i = 0; i < SB_LEAF; i++) {
        bad |= sb_is_poison(x[i]);
        m = x[i] > m ? x[i] : m;
    }
    *poison = bad;
    return m;
}

/* Adds a leaf of p whose ids are all absent in q. */
SB_DET void sb_kl_add_outside(sb_divergence *s, const float xp[SB_LEAF], const sb_row *row_p)
{
    sb_leaf leaf;
    uint32_t j;
    if (sb_leaf_of(&leaf, xp, row_p) != SB_LEAF_PRESENT) return;
    j = (uint32_t)(leaf.A + SB_BIAS) >> 5;
    if (j > s->p.J) sb_kl_rise(s, j);
    sb_state_add(&s->p, &leaf);
    s->outside = 1;
}

/* Adds the same leaf of both rows. A logit of -inf means that the id is absent. */
SB_DET void sb_kl_add_leaves(sb_divergence *s, const float xp[SB_LEAF], const float xq[SB_LEAF],
                             const sb_row *row_p, const sb_row *row_q)
{
    int p_poison, q_poison;
    const float p = sb_kl_largest(xp, &p_poison), q = sb_kl_largest(xq, &q_poison);
    if (p_poison) sb_kl_rise(s, SB_J_POISON);
    if (q_poison) sb_state_poison(&s->q);
    if (p_poison || q_poison) return; /* the result is NaN, whatever the other leaves are */
    if (sb_is_absent(p)) {
        sb_leaf leaf;
        if (sb_leaf_of(&leaf, xq, row_q) == SB_LEAF_PRESENT) sb_state_add(&s->q, &leaf);
    } else if (sb_is_absent(q)) {
        sb_kl_add_outside(s, xp, row_p);
    } else {
        sb_kl_leaf leaf;
        sb_kl_terms(&leaf, xp, xq, sb_leaf_scale_of(p, row_p), sb_leaf_scale_of(q, row_q), row_p,
                    row_q);
        sb_kl_add(s, &leaf);
    }
}

/* into += from, as in sb_state_merge. */
SB_DET void sb_kl_merge(sb_divergence *into, const sb_divergence *from)
{
    sb_divergence f = *from;
    const uint32_t J = into->p.J > f.p.J ? into->p.J : f.p.J;
    int k;
    sb_kl_rise(into, J);
    sb_kl_rise(&f, J);
    for (k = 0; k < SB_KL_DIGITS; k++) into->x[k] += f.x[k];
    sb_state_merge(&into->p, &f.p);
    sb_state_merge(&into->q, &f.q);
    into->outside |= f.outside;
}

/* The sum of the digits x divided by the sum of p, each cut to 53 bits. Their units cancel. */
SB_DET double sb_kl_mean(const sb_divergence *s)
{
    const uint64_t *l = s->p.l;
    const sb_u128 t = (sb_u128)l[0] + ((sb_u128)l[1] << 32) + ((sb_u128)l[2] << 64);
    const int32_t top_t = sb_top128(t);
    const uint64_t mt = (uint64_t)(top_t > 52 ? t >> (top_t - 52) : t << (52 - top_t));
    sb_digits all;
    uint32_t m[SB_DIGITS];
    sb_u128 high;
    int32_t last = SB_DIGITS - 1, top;
    uint64_t mx;
    double mean;
    int minus, k;
    sb_digits_init(&all);
    for (k = 0; k < SB_KL_DIGITS; k++) all.d[k] = s->x[k];
    minus = sb_digits_magnitude(&all, m);
    while (last > 2 && m[last] == 0) last--;
    high = (sb_u128)m[last] << 64 | (sb_u128)m[last - 1] << 32 | m[last - 2];
    if (high == 0) return 0.0;
    top = sb_top128(high); /* >= 64 if digits below are ignored: they hold none of the 53 bits */
    mx = (uint64_t)(top > 52 ? high >> (top - 52) : high << (52 - top));
    mean = sb_double_of(mx & 0x000fffffffffffffu, top + 32 * (last - 2)) /
           sb_double_of(mt & 0x000fffffffffffffu, top_t);
    return minus ? -mean : mean;
}

/* The divergence in nats; never negative, never -0. */
SB_DET float sb_kl_finish(const sb_divergence *s)
{
    sb_lg p, q;
    double octaves;
    if (sb_state_is_nan(&s->p) || sb_state_is_nan(&s->q)) return sb_float(SB_NAN_BITS);
    if (s->outside) return sb_float(SB_INF_BITS);
    p = sb_sum_log(&s->p);
    q = sb_sum_log(&s->q);
    octaves = sb_kl_mean(s) - ((double)(p.e - q.e) + (p.f - q.f));
    return octaves > 0.0 ? (float)(SB_LN2 * octaves) : 0.0f;
}

#endif
