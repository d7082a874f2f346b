/* policy.h - policy losses of tokens: the loss, its gradient by the token's logprob, and the exact
 * sums that make a scalar and metrics of them. See docs/numerics.md, section "Policy losses".
 *
 * Each token's formulas are a pure function of the token's own numbers and of its sequence's
 * constants (sb_policy_sequence). Everything that crosses tokens is an exact sum (digits.h), an
 * integer count, a maximum or a flag, so a tally is the same for any division of the tokens into
 * calls, ranks and threads, and tallies merge in any order. */
#ifndef SB_DET_POLICY_H
#define SB_DET_POLICY_H

#include "digits.h"
#include "order.h"
#include "ratio.h"

/* sb_policy_loss_kind, sb_policy_norm, sb_policy_kl, sb_policy_weight and sb_policy_level. */
enum { SB_LOSS_CLIP = 1, SB_LOSS_GSPO = 2, SB_LOSS_CISPO = 3, SB_LOSS_REINFORCE = 4 };
enum { SB_NORM_TOKENS = 1, SB_NORM_MEANS = 2, SB_NORM_SUMS = 3, SB_NORM_CONSTANT = 4 };
enum { SB_KL_1 = 1, SB_KL_2 = 2, SB_KL_3 = 3, SB_KL_1_SLOPE_2 = 4, SB_KL_3_SLOPE_2 = 5 };
enum { SB_WEIGHT_OFF = 0, SB_WEIGHT_CUT = 1, SB_WEIGHT_DROP = 2 };
enum { SB_LEVEL_TOKEN = 0, SB_LEVEL_PRODUCT = 1, SB_LEVEL_MEAN = 2 };

/* Which inputs are given besides the new logprobs and the advantages. */
#define SB_HAS_OLD 1
#define SB_HAS_REF 2
#define SB_HAS_ROLLOUT 4
#define SB_HAS_ENTROPY 8

typedef struct sb_policy_rules {
    double constant; /* Z for SB_NORM_CONSTANT */
    int32_t loss, norm, kl, weight, level;
    int32_t has;     /* SB_HAS_* */
    float lo, hi;    /* 1 - eps_low, 1 + eps_high */
    float dual;      /* +inf: off */
    float beta, eta; /* the coefficients of KL and entropy; 0: off */
    float w_low, w_high;
    float upstream;                /* scales the gradients */
    int32_t adds_kl, adds_entropy; /* whether beta and eta are not 0 */
} sb_policy_rules;

/* Sets the bounds of the ratio, as torch.clamp gets them: rounded to fp32 once. */
SB_DET void sb_policy_bounds(sb_policy_rules *r, double eps_low, double eps_high)
{
    r->lo = (float)(1.0 - eps_low);
    r->hi = (float)(1.0 + eps_high);
}

/* Whether a token's formulas depend on the other tokens of its sequence, but for their number. */
SB_DET int sb_policy_is_joint(const sb_policy_rules *r)
{
    return r->loss == SB_LOSS_GSPO || (r->weight != SB_WEIGHT_OFF && r->level != SB_LEVEL_TOKEN);
}

/* Whether S adds the losses of sequences, not those of tokens. */
SB_DET int sb_policy_adds_sequences(const sb_policy_rules *r)
{
    return r->norm == SB_NORM_MEANS || r->norm == SB_NORM_SUMS;
}

/* ---- one token ---------------------------------------------------------------------------- */

/* What the tokens of a sequence share. ratio, drifted and weight are used only where they are of
 * the sequence: see sb_policy_sequence_of. */
typedef struct sb_policy_sequence {
    double scale;  /* s = upstream / Z */
    float ratio;   /* of gspo: exp_mean of new - old */
    float drifted; /* of gspo: exp_mean of new - rollout; 1 without a rollout */
    float weight;  /* before it is cut */
} sb_policy_sequence;

typedef struct sb_policy_token {
    float now, old, ref, rollout, entropy, advantage;
} sb_policy_token;

/* Marks of a token. */
#define SB_MARK_HIGH 1u
#define SB_MARK_LOW 2u
#define SB_MARK_DUAL 4u
#define SB_MARK_CUT 8u
#define SB_MARK_DRIFT 16u
#define SB_MARK_OUTSIDE 32u
#define SB_MARKS 6
#define SB_MARK_CLIPPED (SB_MARK_HIGH | SB_MARK_LOW | SB_MARK_DUAL)

/* The sums of a tally, and the value that a token adds to each of them. */
enum {
    SB_SUM_LOSS, /* a token's l, or a sequence's L_b */
    SB_SUM_PG,
    SB_SUM_KL,
    SB_SUM_ENTROPY,
    SB_SUM_RATIO,
    SB_SUM_K1,
    SB_SUM_K3,
    SB_SUM_WEIGHT,
    SB_POLICY_SUMS
};

typedef struct sb_policy_result {
    float value[SB_POLICY_SUMS]; /* without metrics, only the loss is set */
    float by_now, by_entropy;
    uint32_t marks;
} sb_policy_result;

/* One encoding for every NaN. */
SB_DET float sb_policy_float(double x)
{
    const float y = (float)x;
    return sb_is_nan(y) ? sb_float(SB_NAN_BITS) : y;
}

/* Which bound replaces the ratio, as a mark; 0: none. Comparisons with NaN are false. */
SB_DET uint32_t sb_policy_clip(const sb_policy_rules *r, float ratio, float advantage)
{
    if (r->loss == SB_LOSS_REINFORCE) return 0;
    if (r->loss == SB_LOSS_CISPO)
        return ratio > r->hi ? SB_MARK_HIGH : ratio < r->lo ? SB_MARK_LOW : 0;
    if (advantage > 0.0f && ratio > r->hi) return SB_MARK_HIGH;
    if (advantage < 0.0f && ratio < r->lo) return SB_MARK_LOW;
    return advantage < 0.0f && ratio > r->dual ? SB_MARK_DUAL : 0;
}

/* The loss's first term pg, and its derivative g by the new logprob. */
typedef struct sb_policy_gain {
    float pg, g;
} sb_policy_gain;

SB_DET sb_policy_gain sb_policy_gain_of(const sb_policy_rules *r, float k, float now,
                                        float advantage, uint32_t clipped)
{
    const int by_weight = r->loss == SB_LOSS_CISPO || r->loss == SB_LOSS_REINFORCE;
    float a = k * advantage;
    sb_policy_gain gain;
    if (sb_is_nan(a)) /* 0 times infinity, or NaN */
        a = sb_is_nan(k) || sb_is_nan(advantage) ? sb_float(SB_NAN_BITS) : 0.0f;
    gain.pg = a == 0.0f ? 0.0f : sb_is_nan(a) ? a : 0.0f - a;
    gain.g = gain.pg;
    if (by_weight) {
        /* where k is of the ratio, NaN of now is in a */
        if (sb_is_nan(now)) gain.g = sb_float(SB_NAN_BITS);
        if (gain.g != 0.0f) gain.pg = gain.g * now;
        if (sb_is_nan(gain.pg)) gain.g = gain.pg = sb_float(SB_NAN_BITS);
    } else if (clipped) {
        gain.g = 0.0f;
    }
    return gain;
}

/* Replaces a rollout weight outside its bounds. Returns whether it did. */
SB_DET int sb_policy_cut(const sb_policy_rules *r, float *w)
{
    if (!(*w > r->w_high) && !(*w < r->w_low)) return 0;
    *w = r->weight == SB_WEIGHT_DROP ? 0.0f : *w > r->w_high ? r->w_high : r->w_low;
    return 1;
}

SB_DET void sb_policy_weigh(sb_policy_gain *gain, float w)
{
    if (sb_is_nan(gain->pg) || sb_is_nan(w)) { /* w is finite otherwise */
        gain->pg = gain->g = sb_float(SB_NAN_BITS);
    } else if (w == 0.0f) {
        gain->pg = gain->g = 0.0f;
    } else {
        gain->pg = w * gain->pg;
        gain->g = w * gain->g;
    }
}

/* A difference of two logprobs, and its growth; all NaN where either is NaN. */
typedef struct sb_policy_move {
    double d;
    sb_growth g;
} sb_policy_move;

/* Of D(x, y). Nearly all are near, and are computed without a branch; others are computed again. */
SB_DET sb_policy_move sb_policy_move_of(float x, float y)
{
    sb_policy_move m;
    m.d = (double)x - (double)y;
    m.g = sb_growth_near(m.d);
    if (sb_is_near(m.d)) return m;
    m.d = sb_difference_of(x, y);
    if (m.d != m.d) m.g.e = m.g.rest = m.g.less = m.d;
    else m.g = sb_growth_of(m.d);
    return m;
}

typedef struct sb_policy_penalty {
    float kl;
    double slope; /* its derivative by the new logprob */
} sb_policy_penalty;

SB_DET sb_policy_penalty sb_policy_penalty_of(int32_t kind, float now, float ref)
{
    sb_policy_penalty p;
    double d;
    if (kind == SB_KL_3 || kind == SB_KL_3_SLOPE_2) {
        const sb_policy_move m = sb_policy_move_of(ref, now);
        p.kl = (float)m.g.rest;
        p.slope = 0.0 - (kind == SB_KL_3 ? m.g.less : m.d);
        return p;
    }
    d = sb_difference_of(ref, now);
    if (d != d) {
        p.kl = sb_float(SB_NAN_BITS);
        p.slope = d;
        return p;
    }
    p.slope = kind == SB_KL_1 ? 1.0 : 0.0 - d;
    p.kl = kind == SB_KL_2 ? (float)(0.5 * (d * d)) : (float)(0.0 - d);
    return p;
}

/* A token's loss and gradients. metrics: whether to set what only metrics need. */
SB_DET sb_policy_result sb_policy_token_of(const sb_policy_rules *r, const sb_policy_sequence *of,
                                           const sb_policy_token *t, int metrics)
{
    const float old = r->has & SB_HAS_OLD ? t->old : t->now;
    sb_policy_result result;
    sb_policy_penalty penalty = { 0.0f, 0.0 };
    sb_policy_move move = { 0.0, { 1.0, 0.0, 0.0 } };
    sb_policy_gain gain;
    float rho, k, w = 0.0f;
    double total, slope;
    uint32_t clipped;

    if (metrics || r->loss == SB_LOSS_CLIP || r->loss == SB_LOSS_CISPO)
        move = sb_policy_move_of(t->now, old);
    rho = r->loss == SB_LOSS_GSPO ? of->ratio : (float)move.g.e;
    clipped = sb_policy_clip(r, rho, t->advantage);
    k = clipped & SB_MARK_HIGH ? r->hi : clipped & SB_MARK_LOW ? r->lo : clipped ? r->dual : rho;
    if (r->loss == SB_LOSS_REINFORCE) k = 1.0f;
    gain = sb_policy_gain_of(r, k, t->now, t->advantage, clipped);
    result.marks = clipped;
    if (r->weight != SB_WEIGHT_OFF) {
        w = r->level == SB_LEVEL_TOKEN ? sb_ratio_of(sb_difference_of(old, t->rollout))
                                       : of->weight;
        if (sb_policy_cut(r, &w)) result.marks |= SB_MARK_CUT;
        sb_policy_weigh(&gain, w);
    }
    if ((r->has & SB_HAS_REF) && (metrics || r->adds_kl))
        penalty = sb_policy_penalty_of(r->kl, t->now, t->ref);

    total = (double)gain.pg;
    slope = (double)gain.g;
    if (r->adds_kl) {
        const double pull = (double)r->beta * penalty.slope;
        total = total + (double)r->beta * (double)penalty.kl;
        slope = slope + pull;
    }
    result.by_entropy = 0.0f;
    if (r->adds_entropy) {
        total = total - (double)r->eta * (double)t->entropy;
        result.by_entropy = sb_policy_float((0.0 - (double)r->eta) * of->scale + 0.0);
    }
    result.value[SB_SUM_LOSS] = sb_policy_float(total);
    result.by_now = sb_policy_float(slope * of->scale + 0.0);
    if (!metrics) return result;

    result.value[SB_SUM_PG] = gain.pg;
    result.value[SB_SUM_KL] = penalty.kl;
    result.value[SB_SUM_ENTROPY] = r->has & SB_HAS_ENTROPY ? t->entropy : 0.0f;
    result.value[SB_SUM_RATIO] = rho;
    result.value[SB_SUM_K1] = sb_policy_float(0.0 - move.d);
    result.value[SB_SUM_K3] = (float)move.g.rest;
    result.value[SB_SUM_WEIGHT] = w;
    if (sb_bits32(t->now) == SB_ABSENT_BITS) result.marks |= SB_MARK_OUTSIDE;
    if ((r->has & SB_HAS_ROLLOUT) && !clipped) {
        const float drifted = r->loss == SB_LOSS_GSPO
                                  ? of->drifted
                                  : sb_ratio_of(sb_difference_of(t->now, t->rollout));
        if (sb_policy_clip(r, drifted, t->advantage)) result.marks |= SB_MARK_DRIFT;
    }
    return result;
}

/* ---- one sequence ------------------------------------------------------------------------- */

/* The sums over a sequence's active tokens that its constants need; each is used only where the
 * rules ask for it. */
typedef struct sb_policy_joint {
    sb_digits moved;   /* new - old */
    sb_digits drifted; /* new - rollout */
    sb_digits weight;  /* old - rollout */
} sb_policy_joint;

/* Z of a sequence with `count` active tokens; tokens, sequences: of the step. */
SB_DET double sb_policy_divisor(const sb_policy_rules *r, int64_t count, int64_t tokens,
                                int64_t sequences)
{
    switch (r->norm) {
    case SB_NORM_TOKENS: return (double)tokens;
    case SB_NORM_MEANS: return (double)count * (double)sequences;
    case SB_NORM_SUMS: return (double)sequences;
    default: return r->constant;
    }
}

/* The constants of a sequence of count > 0 active tokens. joint: null if the rules need none. */
SB_DET sb_policy_sequence sb_policy_sequence_of(const sb_policy_rules *r,
                                                const sb_policy_joint *joint, int64_t count,
                                                int64_t tokens, int64_t sequences)
{
    sb_policy_sequence of;
    of.scale = (double)r->upstream / sb_policy_divisor(r, count, tokens, sequences);
    of.ratio = of.drifted = of.weight = 1.0f;
    if (!joint) return of;
    if (r->loss == SB_LOSS_GSPO) {
        of.ratio = sb_ratio_of(sb_digits_mean(&joint->moved, count));
        if (r->has & SB_HAS_ROLLOUT)
            of.drifted = sb_ratio_of(sb_digits_mean(&joint->drifted, count));
    }
    if (r->weight != SB_WEIGHT_OFF && r->level == SB_LEVEL_PRODUCT)
        of.weight = sb_ratio_of(sb_digits_sum64(&joint->weight));
    if (r->weight != SB_WEIGHT_OFF && r->level == SB_LEVEL_MEAN)
        of.weight = sb_ratio_of(sb_digits_mean(&joint->weight, count));
    return of;
}

/* L_b, from the exact sum of l. */
SB_DET float sb_policy_sequence_loss(const sb_policy_rules *r, const sb_digits *sum, int64_t count)
{
    return r->norm == SB_NORM_MEANS ? sb_mean32(sb_digits_mean(sum, count)) : sb_digits_sum(sum);
}

/* ---- tallies ------------------------------------------------------------------------------ */

enum { SB_TALLY_TOKENS, SB_TALLY_SEQUENCES, SB_TALLY_MARKS, SB_TALLY_COUNTS = 8 };

#define SB_TALLY_ALL 0xffu                     /* parts, with metrics; 1 without */
#define SB_TALLY_MOST ((int64_t)SB_DIGITS_MAX) /* tokens */

typedef struct sb_tally {
    uint32_t adds_sequences;         /* 1: the first sum adds losses of sequences; 0: of tokens */
    uint32_t parts;                  /* SB_TALLY_ALL or 1: which sums there are */
    int64_t counts[SB_TALLY_COUNTS]; /* tokens, sequences, and one for each mark */
    uint32_t most, least; /* the largest order key of a ratio, and of the complements; 0: none */
    sb_digits sums[SB_POLICY_SUMS];
} sb_tally;

SB_DET void sb_tally_init(sb_tally *t, int adds_sequences, int metrics)
{
    t->adds_sequences = adds_sequences ? 1 : 0;
    t->parts = metrics ? SB_TALLY_ALL : 1;
    for (int i = 0; i < SB_TALLY_COUNTS; i++) t->counts[i] = 0;
    t->most = t->least = 0;
    for (int i = 0; i < SB_POLICY_SUMS; i++) sb_digits_init(&t->sums[i]);
}

/* Adds what metrics need of a token. */
SB_DET void sb_tally_add(sb_tally *t, const sb_policy_result *result)
{
    const float rho = result->value[SB_SUM_RATIO];
    for (int i = 0; i < SB_MARKS; i++) t->counts[SB_TALLY_MARKS + i] += result->marks >> i & 1;
    for (int i = 1; i < SB_POLICY_SUMS; i++) sb_digits_add(&t->sums[i], result->value[i]);
    if (sb_is_nan(rho)) return;
    if (sb_order_key(rho) > t->most) t->most = sb_order_key(rho);
    if (~sb_order_key(rho) > t->least) t->least = ~sb_order_key(rho);
}

SB_DET void sb_tally_merge(sb_tally *t, const sb_tally *other)
{
    for (int i = 0; i < SB_TALLY_COUNTS; i++) t->counts[i] += other->counts[i];
    if (other->most > t->most) t->most = other->most;
    if (other->least > t->least) t->least = other->least;
    for (int i = 0; i < SB_POLICY_SUMS; i++) sb_digits_merge(&t->sums[i], &other->sums[i]);
}

/* Why a tally cannot be merged with the first one, or finished by the rules; 0: it can. */
typedef enum sb_tally_fault {
    SB_TALLY_WELL,
    SB_TALLY_MADE_BY_NO_CALL,
    SB_TALLY_OTHER_NORM,
    SB_TALLY_OTHER_PARTS,
    SB_TALLY_TOO_MANY
} sb_tally_fault;

/* before: the tokens of the tallies before this one, at most SB_TALLY_MOST. */
SB_DET sb_tally_fault sb_tally_fault_of(const sb_tally *t, uint32_t adds_sequences, uint32_t parts,
                                        int64_t before)
{
    const int64_t tokens = t->counts[SB_TALLY_TOKENS];
    if (t->adds_sequences > 1 || (t->parts != 1 && t->parts != SB_TALLY_ALL))
        return SB_TALLY_MADE_BY_NO_CALL;
    for (int i = 0; i < SB_TALLY_COUNTS; i++)
        if (t->counts[i] < 0 || t->counts[i] > tokens) return SB_TALLY_MADE_BY_NO_CALL;
    if (t->adds_sequences != adds_sequences) return SB_TALLY_OTHER_NORM;
    if (t->parts != parts) return SB_TALLY_OTHER_PARTS;
    if (tokens > SB_TALLY_MOST - before) return SB_TALLY_TOO_MANY;
    for (int i = 0; i < SB_POLICY_SUMS; i++)
        if (!sb_digits_are_well(&t->sums[i], tokens)) return SB_TALLY_MADE_BY_NO_CALL;
    return SB_TALLY_WELL;
}

/* The metrics, in the order of sb_policy_metrics: the loss and the other sums, the marks, the least
 * and the largest ratio. */
enum {
    SB_METRIC_MARKS = SB_POLICY_SUMS,
    SB_METRIC_LEAST = SB_METRIC_MARKS + SB_MARKS,
    SB_METRIC_MOST,
    SB_POLICY_METRICS
};

/* The scalar loss. tokens, sequences: of the step, or 0: the tally's own. */
SB_DET float sb_policy_loss_of(const sb_policy_rules *r, const sb_tally *t, int64_t tokens,
                               int64_t sequences)
{
    const int64_t n = tokens ? tokens : t->counts[SB_TALLY_TOKENS];
    const int64_t m = sequences ? sequences : t->counts[SB_TALLY_SEQUENCES];
    const double z = r->norm == SB_NORM_CONSTANT ? r->constant
                     : r->norm == SB_NORM_TOKENS ? (double)n
                                                 : (double)m;
    return z > 0.0 ? sb_mean32(sb_digits_sum64(&t->sums[SB_SUM_LOSS]) / z) : 0.0f;
}

/* An order key's number; NaN for 0, which stands for none. */
SB_DET float sb_policy_of_key(uint32_t key, int complement)
{
    if (key == 0) return sb_float(SB_NAN_BITS);
    if (complement) key = ~key;
    return sb_float(key >> 31 ? key & 0x7fffffffu : ~key);
}

/* Metric i. */
SB_DET float sb_policy_metric_at(const sb_policy_rules *r, const sb_tally *t, int64_t tokens,
                                 int64_t sequences, int i)
{
    const int64_t n = t->counts[SB_TALLY_TOKENS];
    if (i == SB_SUM_LOSS) return sb_policy_loss_of(r, t, tokens, sequences);
    if (i < SB_POLICY_SUMS) return sb_mean32(sb_digits_mean(&t->sums[i], n));
    if (i == SB_METRIC_LEAST) return sb_policy_of_key(t->least, 1);
    if (i == SB_METRIC_MOST) return sb_policy_of_key(t->most, 0);
    if (n == 0) return 0.0f;
    return (float)((double)t->counts[SB_TALLY_MARKS + i - SB_METRIC_MARKS] / (double)n);
}

#endif
