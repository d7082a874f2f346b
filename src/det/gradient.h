/* gradient.h - the gradients of a row's logprob and of its entropy with respect to its logits, in
 * fp32, from the row that the forward pass saved. The gradient at a logit depends only on that
 * logit and the saved row: it takes another exp2, but no other sum.
 *
 * See docs/numerics.md, section "Gradients". */
#ifndef SB_DET_GRADIENT_H
#define SB_DET_GRADIENT_H

#include "saved.h"

/* Which upstream gradients there are. */
#define SB_OF_TOKEN 1
#define SB_OF_ENTROPY 2

/* Terms below 2^-125 of the sum count as 0, so that all others are normal numbers. */
#define SB_GRADIENT_LOW (SB_INT_MAGIC - 125.0f)

/* The values that all elements of a row share. */
typedef struct sb_gradient_row {
    float c, lim;
    float magic;   /* SB_INT_MAGIC - eS, exact because eS is below 2^22 */
    float e;       /* eS */
    float token;   /* w of the logprob, negative for a positive upstream gradient */
    float entropy; /* w of the entropy */
    float s;       /* the shift of k: k + s is log2 p + H2 */
    int32_t plain; /* no element can be NaN or infinite, and only -inf needs the clamp */
} sb_gradient_row;

/* The upstream gradients of a row; 0 for one that is not given. */
typedef struct sb_upstream {
    float token, entropy;
} sb_upstream;

/* The logarithm of the term of x. Requires: x is finite. */
SB_DET sb_lg sb_term_log2(float x, const sb_row *row)
{
    sb_mantissa m = sb_target_mantissa(x, row);
    return sb_log2_parts(m.m, m.e);
}

SB_DET int sb_is_below(float w, float limit) { return w < limit && w > -limit; }

/* of is a combination of SB_OF_*. saved is of kind SB_SAVED_SUM or SB_SAVED_ENTROPY; entropy
 * requires the latter. */
SB_DET sb_gradient_row sb_gradient_row_of(const sb_saved *saved, const sb_row *row, float tau,
                                          sb_upstream up, int of)
{
    sb_gradient_row g;
    g.c = row->c;
    g.lim = row->lim;
    g.e = (float)saved->e;
    g.magic = SB_INT_MAGIC - g.e;
    g.token = g.entropy = g.s = 0.0f;
    if (of & SB_OF_TOKEN) g.token = (float)-(((double)up.token / (double)tau) / saved->g);
    if (of & SB_OF_ENTROPY) {
        float best = sb_clamp(sb_float(saved->best), row->lim);
        float k = sb_fma32(best, row->c, -g.e);
        sb_lg alone = sb_term_log2(best, row), sum = sb_log2(saved->g);
        double d = (double)(alone.e - saved->e) + (alone.f - sum.f);
        g.s = (float)((saved->h2 + d) - (double)k);
        g.entropy = (float)-((((double)up.entropy * SB_LN2) / (double)tau) / saved->g);
    }
    /* |v| < 2, |k + s| < 2^23. A logit that the clamp to +-2^21 / c would change lies far below e,
     * since no logit is much larger than the sum. */
    g.plain = sb_is_below(g.token, 0x1p+100f) && sb_is_below(g.entropy, 0x1p+100f) &&
              sb_is_below(g.e, 0x1p+19f);
    return g;
}

SB_DET float sb_gradient_nan(float x) { return sb_is_nan(x) ? sb_float(SB_NAN_BITS) : x; }

/* The gradient at the clamped logit y. z is fma(y, c, magic). */
SB_DET float sb_gradient_term(float y, float z, const sb_gradient_row *g, int of)
{
    float n = z - g->magic;
    float r = sb_fma32(y, g->c, -n);
    float v = sb_float(sb_bits32(sb_exp2(r)) + (sb_bits32(z) << 23));
    float sum = 0.0f;
    if (of & SB_OF_TOKEN) sum = sb_fma32(v, g->token, 0.0f);
    if (of & SB_OF_ENTROPY) {
        float k = sb_fma32(y, g->c, -g->e);
        float entropy = sb_fma32(v * (k + g->s), g->entropy, 0.0f);
        sum = of & SB_OF_TOKEN ? sum + entropy : entropy;
    }
    return sum;
}

/* The gradient at the logit x. Loops pass a constant for of, so that the compiler can remove the
 * tests of it. */
SB_DET float sb_gradient_at(float x, const sb_gradient_row *g, int of)
{
    float y = sb_clamp(x, g->lim);
    float z = sb_fma32(y, g->c, g->magic);
    float sum = sb_gradient_term(y, z, g, of);
    /* -inf needs a test of its own: if all logits are near the clamp, a clamped -inf is not far
     * enough below them */
    return sb_is_absent(x) || z < SB_GRADIENT_LOW ? 0.0f : sum;
}

/* The same. Requires: g->plain. */
SB_DET float sb_gradient_plain(float x, const sb_gradient_row *g, int of)
{
    float z = sb_fma32(x, g->c, g->magic);
    float sum = sb_gradient_term(x, z, g, of);
    return z < SB_GRADIENT_LOW ? 0.0f : sum;
}

/* The gradient at the target's logit x. Requires: of includes SB_OF_TOKEN. */
SB_DET float sb_gradient_at_target(float x, const sb_gradient_row *g, const sb_saved *saved,
                                   const sb_row *row, float tau, sb_upstream up, int of)
{
    sb_lg own;
    int64_t e;
    double p;
    float token;
    if (sb_is_absent(x)) return 0.0f;
    own = sb_term_log2(x, row);
    e = (int64_t)own.e - saved->e;
    e = e < -1000 ? -1000 : e > 1000 ? 1000 : e; /* above 0 only if saved is of other logits */
    p = own.g / saved->g * sb_double((uint64_t)(e + 1023) << 52);
    token = (float)(((double)up.token / (double)tau) * (1.0 - p) + 0.0);
    if (of & SB_OF_ENTROPY) token = token + sb_gradient_at(x, g, SB_OF_ENTROPY);
    return sb_gradient_nan(token);
}

#endif
