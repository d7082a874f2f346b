/* policy_plain.h - policy losses of tokens whose numbers are ordinary: the steps of
 * sb_policy_token_of without branches that depend on numbers, so that a GPU thread computes several
 * tokens side by side.
 *
 * Each step clears *plain if a number is not ordinary: NaN, infinite, or beyond what the step's
 * comment says. Its results, and those of later steps, then mean nothing, and the token is left to
 * sb_policy_token_of. Where *plain stays set to the end, all results have the bits of
 * sb_policy_token_of, but that a loss may be another NaN. */
#ifndef SB_DET_POLICY_PLAIN_H
#define SB_DET_POLICY_PLAIN_H

#include "policy.h"

/* ---- sums --------------------------------------------------------------------------------- */

/* A few digits of a sum, of values that have bits in no others: those below SB_SPAN_END whose last
 * bit lies in digit `lowest` or above it. A value's bits lie in two neighbouring digits, of which
 * the lower one is at most SB_SPAN_TOP. */
#define SB_SPAN_TOP 3
#define SB_SPAN_END 0x1p+10f

/* The least magnitude but 0 whose bits lie in digit k and above. Requires: k is in 1 .. 3. */
SB_DET float sb_span_least(int k) { return k == 3 ? 0x1p-30f : k == 2 ? 0x1p-62f : 0x1p-94f; }

/* Whether digits from `lowest` on have room for x. */
SB_DET int sb_span_fits(float x, int lowest)
{
    const uint32_t b = sb_bits32(x);
    /* 0 becomes the largest integer */
    return b + b - 1 >= 2 * sb_bits32(sb_span_least(lowest)) - 1 && x < SB_SPAN_END &&
           x > -SB_SPAN_END;
}

/* t / 2^32, rounded towards 0: what of t steps of digit k belongs to the next digit. */
SB_DET int32_t sb_span_high(int64_t t)
{
    return (int32_t)((t + (int64_t)(uint32_t)(t >> 63)) >> 32);
}

/* What sb_digits_add adds to digit k (low) and to the next one (high). */
typedef struct sb_span_part {
    int64_t low;
    int32_t high;
} sb_span_part;

/* Requires: digits from k on have room for x, and |x| is below sb_span_least(k + 1) unless k is
 * SB_SPAN_TOP. */
SB_DET sb_span_part sb_span_part_of(float x, int k)
{
    const float scale = k == 3 ? 0x1p+53f : k == 2 ? 0x1p+85f : 0x1p+117f;
    const int64_t t = (int64_t)(x * scale); /* exact, and below 2^63 */
    sb_span_part part;
    part.high = sb_span_high(t);
    part.low = t - (int64_t)((uint64_t)part.high << 32);
    return part;
}

/* A sum of at most SB_CLOSE_VALUES values that are close: 0, or from sb_span_least(SB_SPAN_TOP) to
 * below 2^6 in magnitude. Neither number overflows. */
#define SB_CLOSE_END 0x1p+6f
#define SB_CLOSE_VALUES 16
typedef struct sb_close_sum {
    int64_t steps; /* of digit SB_SPAN_TOP, each value's in both digits */
    int32_t high;  /* what the next digit has of them */
} sb_close_sum;

SB_DET int sb_is_close(float x)
{
    return sb_span_fits(x, SB_SPAN_TOP) && x < SB_CLOSE_END && x > -SB_CLOSE_END;
}

SB_DET void sb_close_add(sb_close_sum *s, float x)
{
    const int64_t t = (int64_t)(x * 0x1p+53f); /* exact, and below 2^59 */
    s->steps += t;
    s->high += sb_span_high(t);
}

SB_DET sb_span_part sb_close_part(const sb_close_sum *s)
{
    sb_span_part part;
    part.high = s->high;
    part.low = s->steps - (int64_t)((uint64_t)s->high << 32);
    return part;
}

/* Whether several values are close, by their encodings without the sign. */
typedef struct sb_close_range {
    uint32_t most, least; /* encodings times 2; the least minus 1, which makes 0 the largest */
} sb_close_range;

SB_DET void sb_close_see(sb_close_range *r, float x)
{
    const uint32_t b = 2 * sb_bits32(x);
    r->most = b > r->most ? b : r->most;
    r->least = b - 1 < r->least ? b - 1 : r->least;
}

SB_DET int sb_are_close(sb_close_range r)
{
    return r.most < 2 * sb_bits32(SB_CLOSE_END) &&
           r.least >= 2 * sb_bits32(sb_span_least(SB_SPAN_TOP)) - 1;
}

/* ---- a sequence --------------------------------------------------------------------------- */

/* Whether a sequence's constants are ordinary. Then s * slope has no underflow in fp64. */
SB_DET int sb_plain_sequence(const sb_policy_sequence *of)
{
    const double s = of->scale;
    return (s == 0.0 || (s > 0x1p-600 && s < 0x1p+600) || (s < -0x1p-600 && s > -0x1p+600)) &&
           of->ratio < sb_float(SB_INF_BITS) && of->drifted < sb_float(SB_INF_BITS) &&
           of->weight < sb_float(SB_INF_BITS);
}

/* A ratio below `down` or above `up` is replaced by that bound. */
typedef struct sb_plain_bounds {
    float down, up;
} sb_plain_bounds;

SB_DET sb_plain_bounds sb_plain_bounds_of(const sb_policy_rules *r, float advantage)
{
    sb_plain_bounds b;
    b.down = -1.0f; /* no ratio is */
    b.up = sb_float(SB_INF_BITS);
    if (r->loss == SB_LOSS_REINFORCE) return b;
    if (r->loss == SB_LOSS_CISPO || advantage < 0.0f) b.down = r->lo;
    if (r->loss == SB_LOSS_CISPO || advantage > 0.0f) b.up = r->hi;
    else if (advantage < 0.0f) b.up = r->dual;
    return b;
}

/* The derivative by an active token's entropy. */
SB_DET float sb_plain_by_entropy(const sb_policy_rules *r, const sb_policy_sequence *of)
{
    return r->adds_entropy ? sb_policy_float((0.0 - (double)r->eta) * of->scale + 0.0) : 0.0f;
}

SB_DET int sb_is_finite(float x) { return x - x == 0.0f; }

/* ---- tokens ------------------------------------------------------------------------------- */

/* Of D(x, y). Ordinary: |x - y| is below 89. */
SB_DET sb_policy_move sb_plain_move(float x, float y, int *plain)
{
    sb_policy_move m;
    m.d = (double)x - (double)y;
    m.g = sb_growth_near(m.d);
    *plain &= sb_is_near(m.d);
    return m;
}

/* The mark of a ratio's clip; 0: none. */
SB_DET uint32_t sb_plain_clip(const sb_policy_rules *r, sb_plain_bounds b, float ratio,
                              float advantage)
{
    const uint32_t above = r->loss != SB_LOSS_CISPO && advantage < 0.0f ? SB_MARK_DUAL
                                                                        : SB_MARK_HIGH;
    return ratio > b.up ? above : ratio < b.down ? SB_MARK_LOW : 0;
}

/* The loss's first term and its derivative, for a ratio. */
SB_DET sb_policy_gain sb_plain_gain(const sb_policy_rules *r, sb_plain_bounds b, float ratio,
                                    float now, float advantage, int *plain)
{
    sb_policy_gain gain;
    float k = ratio > b.up ? b.up : ratio;
    k = k < b.down ? b.down : k;
    if (r->loss == SB_LOSS_REINFORCE) k = 1.0f;
    gain.pg = gain.g = 0.0f - k * advantage;
    *plain &= sb_is_finite(gain.g);
    if (r->loss == SB_LOSS_CISPO || r->loss == SB_LOSS_REINFORCE) {
        *plain &= !sb_is_nan(now);
        gain.pg = gain.g != 0.0f ? gain.g * now : 0.0f;
    } else if (k != ratio) {
        gain.g = 0.0f;
    }
    return gain;
}

/* Weighs a gain by w, which is not NaN. */
SB_DET void sb_plain_weigh(sb_policy_gain *gain, float w, int *plain)
{
    gain->pg = w == 0.0f ? 0.0f : w * gain->pg;
    gain->g = w == 0.0f ? 0.0f : w * gain->g;
    *plain &= sb_is_finite(gain->g);
}

SB_DET sb_policy_penalty sb_plain_penalty(int32_t kind, float now, float ref, int *plain)
{
    sb_policy_penalty p;
    if (kind == SB_KL_3 || kind == SB_KL_3_SLOPE_2) {
        const sb_policy_move m = sb_plain_move(ref, now, plain);
        p.kl = (float)m.g.rest;
        p.slope = 0.0 - (kind == SB_KL_3 ? m.g.less : m.d);
    } else {
        const double d = (double)ref - (double)now;
        *plain &= sb_is_near(d);
        p.slope = kind == SB_KL_1 ? 1.0 : 0.0 - d;
        p.kl = kind == SB_KL_2 ? (float)(0.5 * (d * d)) : (float)(0.0 - d);
    }
    return p;
}

/* The loss, and its derivative by the new logprob; penalty: null if beta is 0. Products of two fp32
 * numbers are exact in fp64, so one rounding less is none less. */
SB_DET void sb_plain_total(const sb_policy_rules *r, const sb_policy_sequence *of,
                           const sb_policy_gain *gain, const sb_policy_penalty *penalty,
                           float entropy, float *loss, float *by_now)
{
    double total = (double)gain->pg, slope = (double)gain->g;
    if (penalty) {
        total = sb_fma64((double)r->beta, (double)penalty->kl, total);
        slope = slope + (double)r->beta * penalty->slope;
    }
    if (r->adds_entropy) total = sb_fma64(-(double)r->eta, (double)entropy, total);
    *loss = (float)total;
    *by_now = (float)sb_fma64(slope, of->scale, 0.0);
}

#endif
