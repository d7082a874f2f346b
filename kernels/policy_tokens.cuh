/* policy_tokens.cuh - losses and gradients of tokens, and the exact sums of what they add to
 * records.
 *
 * A lane computes EACH tokens side by side by the steps of det/policy_plain.h. If a number of one
 * of them is not ordinary, it computes them one by one instead (any_tokens). It adds their values
 * to digits in registers, and those for which these have no room to whole sums in local memory. For
 * metrics, which have up to 8 sums, the digits in registers are those of 16 tokens, which take less
 * room and fewer steps, and are added to local memory then. */
#pragma once

#include "../src/det/policy_plain.h"
#include "policy_segments.cuh"
#include "policy_tallies.cuh"

/* ---- a thread's sums ---------------------------------------------------------------------- */

/* Digits LOWEST .. SB_SPAN_TOP + 1 of a sum. */
template <int LOWEST> struct spans {
    int64_t d[SB_SPAN_TOP + 2 - LOWEST];
};

template <int LOWEST> SB_DET void init(spans<LOWEST> *s)
{
    for (int k = LOWEST; k <= SB_SPAN_TOP + 1; k++) s->d[k - LOWEST] = 0;
}

/* Adds x; clears *room, and adds nothing, if there is none. Without branches, so that digits stay
 * in registers. */
template <int LOWEST> SB_DET void add(spans<LOWEST> *s, float x, bool *room)
{
    const bool fits = sb_span_fits(x, LOWEST);
    const float size = sb_float(sb_bits32(x) & 0x7fffffffu);
    int digit = SB_SPAN_TOP;
    for (int k = SB_SPAN_TOP; k > LOWEST; k--)
        if (size < sb_span_least(k)) digit = k - 1;
    const sb_span_part part = sb_span_part_of(fits ? x : 0.0f, digit);
    *room &= fits;
#pragma unroll
    for (int k = LOWEST; k <= SB_SPAN_TOP + 1; k++)
        s->d[k - LOWEST] += k == digit ? part.low : k == digit + 1 ? part.high : 0;
}

/* Whether the highest two digits have room for x; then add_near adds it, in fewer steps. */
SB_DET bool is_near(float x) { return sb_span_fits(x, SB_SPAN_TOP); }

template <int LOWEST> SB_DET void add_near(spans<LOWEST> *s, float x)
{
    const sb_span_part part = sb_span_part_of(x, SB_SPAN_TOP);
    s->d[SB_SPAN_TOP - LOWEST] += part.low;
    s->d[SB_SPAN_TOP + 1 - LOWEST] += part.high;
}

/* The sum of a warp's lanes, in all lanes. far: a whole sum, used in some lanes. */
template <int LOWEST>
SB_DET sb_digits warp_total(const spans<LOWEST> &s, const sb_digits &far, bool used)
{
    sb_digits sum;
    sb_digits_init(&sum);
    for (int k = LOWEST; k <= SB_SPAN_TOP + 1; k++) sum.d[k] = s.d[k - LOWEST];
    if (__any_sync(FULL, used)) {
        if (used) sb_digits_merge(&sum, &far);
        warp_merge(&sum);
    } else {
        for (int k = LOWEST; k <= SB_SPAN_TOP + 1; k++) sum.d[k] = warp_sum_any(sum.d[k]);
    }
    return sum;
}

/* Adds x to a whole sum if spans had no room for it. */
template <int LOWEST> SB_DET void add_far(const spans<LOWEST> &, sb_digits *far, float x)
{
    if (!sb_span_fits(x, LOWEST)) sb_digits_add(far, x);
}

/* ---- a thread's tally --------------------------------------------------------------------- */

/* Whether metrics of a kind have a sum; otherwise nothing is ever added to it. */
template <rules_kind KIND> SB_DET constexpr bool has_sum(int i)
{
    return KIND == RULES_ANY || (i != SB_SUM_ENTROPY && i != SB_SUM_WEIGHT);
}

/* What metrics add up of ordinary tokens, in registers. */
struct close_tally {
    sb_close_sum sums[SB_POLICY_SUMS]; /* of values that are close, until they are added up */
    uint32_t marks[SB_MARKS];          /* of at most 2^30 tokens */
    uint32_t most, least;              /* encodings of ratios, which are not negative */
};

/* A thread's whole sums, in local memory: of a segment the losses, and for metrics the rest. */
struct whole_sums {
    spans<2> close[SB_POLICY_SUMS];        /* of values that are close, or smaller */
    sb_digits of[SB_POLICY_SUMS];          /* of other values; as far as used */
    uint32_t used;                         /* bit i: of[i] is */
    uint32_t marks[SB_MARKS], most, least; /* of tokens that are not ordinary, as in a tally */
};

SB_DET bool is_used(const whole_sums &s, int i) { return s.used >> i & 1; }

/* Adds a value that is not close, or for which spans have no room. */
SB_DET void add_to_whole(whole_sums *s, int i, float x)
{
    if (!is_used(*s, i)) sb_digits_init(&s->of[i]);
    s->used |= 1u << i;
    sb_digits_add(&s->of[i], x);
}

SB_DET void init(close_tally *t)
{
    for (int i = 0; i < SB_POLICY_SUMS; i++) t->sums[i] = { 0, 0 };
    for (int i = 0; i < SB_MARKS; i++) t->marks[i] = 0;
    t->most = 0;
    t->least = UINT32_MAX;
}

/* Adds a token, whose values are close; of what is not active, all are 0. ratio: the encoding of
 * its ratio, close or not. */
template <rules_kind KIND>
SB_DET void add_close(close_tally *t, const sb_policy_result &r, uint32_t ratio, bool active)
{
#pragma unroll
    for (int i = 0; i < SB_POLICY_SUMS; i++)
        if (has_sum<KIND>(i)) sb_close_add(&t->sums[i], r.value[i]);
#pragma unroll
    for (int i = 0; i < SB_MARKS; i++)
        if (KIND == RULES_ANY || (SB_MARK_CLIPPED >> i & 1)) t->marks[i] += r.marks >> i & 1;
    t->most = max(t->most, ratio);
    t->least = min(t->least, active ? ratio : UINT32_MAX);
}

/* Adds the sums of a close tally to whole ones, and empties them. */
template <rules_kind KIND> SB_DET void add_up(whole_sums *sums, close_tally *t)
{
#pragma unroll
    for (int i = 0; i < SB_POLICY_SUMS; i++) {
        if (!has_sum<KIND>(i)) continue;
        const sb_span_part part = sb_close_part(&t->sums[i]);
        sums->close[i].d[SB_SPAN_TOP - 2] += part.low;
        sums->close[i].d[SB_SPAN_TOP - 1] += part.high;
        t->sums[i] = { 0, 0 };
    }
}

/* Adds those of n losses for which spans have no room. */
template <int LOWEST>
static __device__ __noinline__ void add_losses(whole_sums *sums, int n, const float *x)
{
#pragma unroll 1
    for (int k = 0; k < n; k++)
        if (!sb_span_fits(x[k], LOWEST)) add_to_whole(sums, SB_SUM_LOSS, x[k]);
}

/* Adds those of n values that are not close; sum i's are values i, i + SB_POLICY_SUMS, .. */
static __device__ __noinline__ void add_not_close(whole_sums *sums, int n, const float *x)
{
#pragma unroll 1
    for (int k = 0; k < n; k++) {
        if (sb_is_close(x[k])) continue;
        bool room = true;
        add(&sums->close[k % SB_POLICY_SUMS], x[k], &room);
        if (!room) add_to_whole(sums, k % SB_POLICY_SUMS, x[k]);
    }
}

/* Adds EACH ordinary tokens; of what is not active, all values are 0. */
template <rules_kind KIND, int EACH>
SB_DET void add_plain(whole_sums *sums, close_tally *t, sb_policy_result r[EACH], uint32_t active)
{
    sb_close_range range = { 0, UINT32_MAX };
    uint32_t ratio[EACH];
#pragma unroll
    for (int k = 0; k < EACH; k++) {
        ratio[k] = sb_bits32(r[k].value[SB_SUM_RATIO]);
#pragma unroll
        for (int i = 0; i < SB_POLICY_SUMS; i++)
            if (has_sum<KIND>(i)) sb_close_see(&range, r[k].value[i]);
    }
    if (!sb_are_close(range)) { /* in few lanes */
        float copies[EACH * SB_POLICY_SUMS];
#pragma unroll
        for (int k = 0; k < EACH; k++) {
#pragma unroll
            for (int i = 0; i < SB_POLICY_SUMS; i++) {
                float *x = &r[k].value[i];
                copies[k * SB_POLICY_SUMS + i] = has_sum<KIND>(i) ? *x : 0.0f;
                if (!sb_is_close(*x)) *x = 0.0f;
            }
        }
        add_not_close(sums, EACH * SB_POLICY_SUMS, copies);
    }
#pragma unroll
    for (int k = 0; k < EACH; k++) add_close<KIND>(t, r[k], ratio[k], active >> k & 1);
}

/* Adds EACH tokens that are not ordinary. */
template <int EACH>
static __device__ __noinline__ void add_any(whole_sums *sums, const sb_policy_result r[EACH],
                                            uint32_t active)
{
#pragma unroll 1
    for (int k = 0; k < EACH; k++) {
        const float ratio = r[k].value[SB_SUM_RATIO];
        for (int i = 0; i < SB_POLICY_SUMS; i++) add_to_whole(sums, i, r[k].value[i]);
        for (int i = 0; i < SB_MARKS; i++) sums->marks[i] += r[k].marks >> i & 1;
        if (!(active >> k & 1) || sb_is_nan(ratio)) continue;
        sums->most = max(sums->most, sb_order_key(ratio));
        sums->least = max(sums->least, ~sb_order_key(ratio));
    }
}

/* ---- ordinary tokens ---------------------------------------------------------------------- */

/* Computes a lane's tokens; what is not active is 0. Returns whether all were ordinary. One step
 * after the other, each for all tokens, so that the steps of different tokens overlap. */
template <rules_kind KIND, bool METRICS, int EACH>
SB_DET bool plain_tokens(const sb_policy_rules &r, const sb_policy_sequence &of,
                         const sb_plain_bounds bounds[EACH], const sb_policy_token t[EACH],
                         uint32_t active, sb_policy_result to[EACH])
{
    const bool has_ref = (r.has & SB_HAS_REF) && (METRICS || r.adds_kl);
    const bool has_ratio = METRICS || r.loss == SB_LOSS_CLIP || r.loss == SB_LOSS_CISPO;
    sb_policy_move move[EACH];
    sb_policy_gain gain[EACH];
    sb_policy_penalty penalty[EACH];
    float ratio[EACH], w[EACH];
    int plain = 1;
#pragma unroll
    for (int k = 0; k < EACH; k++) {
        move[k] = { 0.0, { 1.0, 0.0, 0.0 } };
        penalty[k] = { 0.0f, 0.0 };
        w[k] = 0.0f;
        to[k].marks = 0;
    }
    if (has_ratio) {
#pragma unroll
        for (int k = 0; k < EACH; k++) move[k] = sb_plain_move(t[k].now, t[k].old, &plain);
    }
    if (has_ref) {
#pragma unroll
        for (int k = 0; k < EACH; k++)
            penalty[k] = sb_plain_penalty(r.kl, t[k].now, t[k].ref, &plain);
    }
#pragma unroll
    for (int k = 0; k < EACH; k++) {
        ratio[k] = r.loss == SB_LOSS_GSPO ? of.ratio : (float)move[k].g.e;
        gain[k] = sb_plain_gain(&r, bounds[k], ratio[k], t[k].now, t[k].advantage, &plain);
        if (METRICS) to[k].marks = sb_plain_clip(&r, bounds[k], ratio[k], t[k].advantage);
    }
    if (METRICS && (r.has & SB_HAS_ROLLOUT)) {
#pragma unroll
        for (int k = 0; k < EACH; k++) {
            float drifted = of.drifted;
            if (r.loss != SB_LOSS_GSPO)
                drifted = (float)sb_plain_move(t[k].now, t[k].rollout, &plain).g.e;
            if (to[k].marks == 0 && sb_plain_clip(&r, bounds[k], drifted, t[k].advantage))
                to[k].marks = SB_MARK_DRIFT;
        }
    }
    if (r.weight != SB_WEIGHT_OFF) {
#pragma unroll
        for (int k = 0; k < EACH; k++) {
            w[k] = r.level == SB_LEVEL_TOKEN
                       ? (float)sb_plain_move(t[k].old, t[k].rollout, &plain).g.e
                       : of.weight;
            if (sb_policy_cut(&r, &w[k])) to[k].marks |= SB_MARK_CUT;
            sb_plain_weigh(&gain[k], w[k], &plain);
        }
    }
#pragma unroll
    for (int k = 0; k < EACH; k++) {
        float loss, by_now;
        const bool is_active = active >> k & 1;
        sb_plain_total(&r, &of, &gain[k], r.adds_kl ? &penalty[k] : nullptr, t[k].entropy, &loss,
                       &by_now);
        /* What is not active has no loss. In KL kinds other than k3 it has a slope. */
        to[k].value[SB_SUM_LOSS] = loss;
        to[k].by_now = KIND != RULES_ANY || is_active ? by_now : 0.0f;
        if (!METRICS) continue;
        to[k].value[SB_SUM_PG] = gain[k].pg;
        to[k].value[SB_SUM_KL] = penalty[k].kl;
        to[k].value[SB_SUM_ENTROPY] = r.has & SB_HAS_ENTROPY ? t[k].entropy : 0.0f;
        to[k].value[SB_SUM_RATIO] = is_active ? ratio[k] : 0.0f;
        to[k].value[SB_SUM_K1] = (float)(0.0 - move[k].d);
        to[k].value[SB_SUM_K3] = (float)move[k].g.rest;
        to[k].value[SB_SUM_WEIGHT] = is_active ? w[k] : 0.0f;
        if (!is_active) to[k].marks = 0;
    }
    return plain;
}

/* ---- any tokens --------------------------------------------------------------------------- */

SB_DET float float_at(uint64_t from, int64_t row)
{
    return from ? ((const float *)from)[row] : 0.0f;
}

/* Computes a lane's tokens one by one, from row i on; of what is not active, all is 0. Its own
 * function, which loads the tokens again, so that the loop needs no registers for this. */
template <bool METRICS, int EACH>
static __device__ __noinline__ void any_tokens(const policy_args &a, const sb_policy_sequence *of,
                                               float advantage, int64_t i, uint32_t active,
                                               sb_policy_result to[EACH])
{
    for (int k = 0; k < EACH; k++) {
        if (active >> k & 1) {
            sb_policy_token t;
            t.now = float_at(a.now, i + k);
            t.old = a.old ? float_at(a.old, i + k) : t.now;
            t.ref = float_at(a.ref, i + k);
            t.rollout = float_at(a.rollout, i + k);
            t.entropy = float_at(a.given_entropy, i + k);
            t.advantage = a.per_token ? float_at(a.advantages, i + k) : advantage;
            to[k] = sb_policy_token_of(&a.rules, of, &t, METRICS);
        } else {
            for (int n = 0; n < SB_POLICY_SUMS; n++) to[k].value[n] = 0.0f;
            to[k].by_now = 0.0f;
            to[k].marks = 0;
        }
    }
}

/* ---- a warp's units ----------------------------------------------------------------------- */

/* A lane's rows from i on as they lie in the arrays, of those that the rules need. */
template <int EACH> struct token_rows {
    uint32_t mask; /* a byte for each */
    float now[EACH], old[EACH], ref[EACH], rollout[EACH], entropy[EACH], advantages[EACH];
};

/* vector: arrays are aligned, and have rows for all lanes; then all loads are on their way before
 * the first one is used. Otherwise, what is not active in the segment is not loaded. */
template <rules_kind KIND, bool METRICS, int EACH>
SB_DET token_rows<EACH> rows_at(const policy_args &a, const sb_policy_rules &r, const segment &s,
                                int64_t i, bool vector)
{
    const bool has_old = KIND != RULES_ANY || a.old;
    const bool has_ref = (r.has & SB_HAS_REF) && (METRICS || r.adds_kl);
    const bool has_rollout = (r.has & SB_HAS_ROLLOUT) && (METRICS || r.weight != SB_WEIGHT_OFF);
    const bool has_entropy = (r.has & SB_HAS_ENTROPY) && (METRICS || r.adds_entropy);
    token_rows<EACH> x;
#pragma unroll
    for (int k = 0; k < EACH; k++) x.ref[k] = x.rollout[k] = x.entropy[k] = 0.0f;
    if (KIND == RULES_GSPO) { /* a ratio is the sequence's, so no token's numbers are needed */
        x.mask = vector ? load_mask<EACH>(a, i) : some_mask<EACH>(a, s, i);
#pragma unroll
        for (int k = 0; k < EACH; k++) x.now[k] = x.old[k] = 0.0f;
        if (!a.per_token) return x;
        if (vector) load_floats<EACH>((const float *)a.advantages + i, x.advantages);
        else load_rows<EACH>(a.advantages, i, x.mask, x.advantages);
        return x;
    }
    if (vector) {
        x.mask = load_mask<EACH>(a, i);
        load_floats<EACH>((const float *)a.now + i, x.now);
        if (has_old) load_floats<EACH>((const float *)a.old + i, x.old);
        if (has_ref) load_floats<EACH>((const float *)a.ref + i, x.ref);
        if (has_rollout) load_floats<EACH>((const float *)a.rollout + i, x.rollout);
        if (has_entropy) load_floats<EACH>((const float *)a.given_entropy + i, x.entropy);
        if (a.per_token) load_floats<EACH>((const float *)a.advantages + i, x.advantages);
    } else {
        x.mask = some_mask<EACH>(a, s, i);
        load_rows<EACH>(a.now, i, x.mask, x.now);
        if (has_old) load_rows<EACH>(a.old, i, x.mask, x.old);
        if (has_ref) load_rows<EACH>(a.ref, i, x.mask, x.ref);
        if (has_rollout) load_rows<EACH>(a.rollout, i, x.mask, x.rollout);
        if (has_entropy) load_rows<EACH>(a.given_entropy, i, x.mask, x.entropy);
        if (a.per_token) load_rows<EACH>(a.advantages, i, x.mask, x.advantages);
    }
    if (!has_old)
        for (int k = 0; k < EACH; k++) x.old[k] = x.now[k];
    return x;
}

/* A lane's tokens; of what is not active, 0. */
template <int EACH>
SB_DET void tokens_of(const policy_args &a, const token_rows<EACH> &x, float advantage,
                      uint32_t active, sb_policy_token t[EACH])
{
#pragma unroll
    for (int k = 0; k < EACH; k++) {
        const bool is_active = active >> k & 1;
        t[k].now = is_active ? x.now[k] : 0.0f;
        t[k].old = is_active ? x.old[k] : 0.0f;
        t[k].ref = is_active ? x.ref[k] : 0.0f;
        t[k].rollout = is_active ? x.rollout[k] : 0.0f;
        t[k].entropy = is_active ? x.entropy[k] : 0.0f;
        t[k].advantage = is_active ? a.per_token ? x.advantages[k] : advantage : 0.0f;
    }
}

/* The tokens of a segment: writes their gradients, and the segment's sum. totals: as of
 * constants_of. */
template <rules_kind KIND, bool METRICS, int EACH>
SB_DET void run_segment(const policy_args &a, const int64_t *totals, int64_t unit, const segment &s,
                        close_tally *tally, whole_sums *sums)
{
    /* a KL beside an A of 0 is small */
    constexpr int LOWEST = KIND == RULES_CLIP || KIND == RULES_GSPO ? 3 : 2;
    constexpr int SLAB = EACH * WARP; /* rows that a warp visits at a time */
    static_assert(SB_CUDA_POLICY_SLAB % SLAB == 0, "units end where slabs do");
    const int lane = threadIdx.x % WARP;
    const sb_policy_rules rules = rules_of<KIND>(a);
    const sb_policy_sequence of = constants_of(a, s.b, totals);
    const float shared = a.per_token ? 0.0f : ((const float *)a.advantages)[s.b];
    const sb_plain_bounds shared_bounds = sb_plain_bounds_of(&rules, shared);
    const float by_entropy = sb_plain_by_entropy(&rules, &of);
    const bool plain_sequence = sb_plain_sequence(&of);
    uint32_t count = 0;
    int room_for = SB_CLOSE_VALUES / EACH; /* the times that tally can be added to */
    spans<LOWEST> sum;
    init(&sum);
    sums->used &= ~(1u << SB_SUM_LOSS);
    if (METRICS) init(&sums->close[SB_SUM_LOSS]);
    int64_t i = s.first / SLAB * SLAB + lane * EACH; /* the lane's first row in a slab */
    const auto load =
        [&](int64_t at) { /* a slab that begins in the segment */
                          const bool vector = a.vector && at - lane * EACH + SLAB <= a.in.rows;
                          return rows_at<KIND, METRICS, EACH>(a, rules, s, at, vector);
        };
    token_rows<EACH> rows = load(i);
    for (; i - lane * EACH < s.last; i += SLAB) {
        token_rows<EACH> next;
        const bool more = i - lane * EACH + SLAB < s.last;
        if (more) next = load(i + SLAB);
        sb_policy_token t[EACH];
        sb_policy_result result[EACH];
        sb_plain_bounds bounds[EACH];
        float by_now[EACH];
        const uint32_t active = active_rows<EACH>(s, i, rows.mask);
        tokens_of<EACH>(a, rows, shared, active, t);
        count += __popc(active);
        for (int k = 0; k < EACH; k++)
            bounds[k] = a.per_token ? sb_plain_bounds_of(&rules, t[k].advantage) : shared_bounds;
        bool plain = plain_tokens<KIND, METRICS, EACH>(rules, of, bounds, t, active, result);
        plain &= plain_sequence;
        if (METRICS) {
            sb_policy_result copies[EACH];
            for (int k = 0; k < EACH; k++) by_now[k] = result[k].by_now;
            if (plain) { /* nearly always in all lanes */
                add_plain<KIND, EACH>(sums, tally, result, active);
            } else {
                any_tokens<METRICS, EACH>(a, &of, shared, i, active, copies);
                for (int k = 0; k < EACH; k++) by_now[k] = copies[k].by_now;
                add_any<EACH>(sums, copies, active);
            }
            if (--room_for == 0) {
                add_up<KIND>(sums, tally);
                room_for = SB_CLOSE_VALUES / EACH;
            }
        } else {
            if (!plain) {
                sb_policy_result single[EACH];
                any_tokens<METRICS, EACH>(a, &of, shared, i, active, single);
                for (int k = 0; k < EACH; k++) result[k] = single[k];
            }
            bool room = true, near = true;
            for (int k = 0; k < EACH; k++) {
                by_now[k] = result[k].by_now;
                near &= is_near(result[k].value[SB_SUM_LOSS]);
            }
            if (near) { /* nearly always in all lanes */
                for (int k = 0; k < EACH; k++) add_near(&sum, result[k].value[SB_SUM_LOSS]);
            } else {
                for (int k = 0; k < EACH; k++) add(&sum, result[k].value[SB_SUM_LOSS], &room);
            }
            if (!room) {
                float copies[EACH];
                for (int k = 0; k < EACH; k++) copies[k] = result[k].value[SB_SUM_LOSS];
                add_losses<LOWEST>(sums, EACH, copies);
            }
        }
        store_rows<EACH>(a.token, s, i, a.vector, by_now);
        if (KIND == RULES_ANY) {
            for (int k = 0; k < EACH; k++) by_now[k] = active >> k & 1 ? by_entropy : 0.0f;
            store_rows<EACH>(a.entropy, s, i, a.vector, by_now);
        }
        if (more) rows = next;
    }
    sb_cuda_policy_part part;
    if (METRICS) {
        add_up<KIND>(sums, tally);
        part.sum = warp_total(sums->close[SB_SUM_LOSS], sums->of[SB_SUM_LOSS],
                              is_used(*sums, SB_SUM_LOSS));
    } else {
        part.sum = warp_total(sum, sums->of[SB_SUM_LOSS], is_used(*sums, SB_SUM_LOSS));
    }
    part.count = __reduce_add_sync(FULL, count);
    if (lane == 0) ((sb_cuda_policy_part *)a.parts)[unit + s.b] = part;
}

/* Writes a warp's tally, without the loss, tokens and sequences. */
template <rules_kind KIND>
SB_DET void write_warp_tally(const close_tally &t, const whole_sums &sums, sb_tally *to)
{
    /* one sum after the other takes 6 us more with k3, and 2 us less with any rules */
    constexpr int TOGETHER = KIND == RULES_ANY ? 1 : SB_POLICY_SUMS;
    const int lane = threadIdx.x % WARP;
#pragma unroll TOGETHER
    for (int i = 1; i < SB_POLICY_SUMS; i++) {
        sb_digits sum;
        sb_digits_init(&sum);
        if (has_sum<KIND>(i)) sum = warp_total(sums.close[i], sums.of[i], is_used(sums, i));
        if (lane == 0) to->sums[i] = sum;
    }
    for (int i = 0; i < SB_MARKS; i++) {
        const int64_t count = warp_sum_any((int64_t)(t.marks[i] + sums.marks[i]));
        if (lane == 0) to->counts[SB_TALLY_MARKS + i] = count;
    }
    const bool none = t.least == UINT32_MAX;
    const uint32_t sign = sb_order_key(0.0f); /* a key is an encoding with this bit */
    const uint32_t own_most = none ? 0 : t.most | sign, own_least = none ? 0 : ~(t.least | sign);
    const uint32_t most = __reduce_max_sync(FULL, max(own_most, sums.most));
    const uint32_t least = __reduce_max_sync(FULL, max(own_least, sums.least));
    if (lane != 0) return;
    to->adds_sequences = to->parts = 0;
    to->counts[SB_TALLY_TOKENS] = to->counts[SB_TALLY_SEQUENCES] = 0;
    to->most = most;
    to->least = least;
    sb_digits_init(&to->sums[SB_SUM_LOSS]);
}

/* A warp's units, of any segments. */
template <rules_kind KIND, bool METRICS, int EACH> SB_DET void run_tokens(const policy_args &a)
{
    constexpr int WARPS_OF_BLOCK = SB_CUDA_POLICY_BLOCK / 32; /* whatever their width */
    __shared__ sb_tally shared[METRICS ? WARPS_OF_BLOCK : 1];
    __shared__ int64_t totals[2][WARPS_OF_BLOCK];
    const int warp = threadIdx.x / WARP;
    wait_for_primary();
    begin_dependents();
    const bool refused = is_refused(a);
    const int64_t *known = (const int64_t *)a.totals;
    if (!known && needs_totals(a)) known = add_lengths<WARPS_OF_BLOCK>(a, totals);
    close_tally tally;
    whole_sums sums;
    sums.used = 0;
    if (METRICS) {
        init(&tally);
        for (int i = 0; i < SB_MARKS; i++) sums.marks[i] = 0;
        sums.most = sums.least = 0;
        for (int i = 0; i < SB_POLICY_SUMS; i++) init(&sums.close[i]);
    }
    for (int64_t unit = warp_item(); unit < a.units && !refused;
         unit += (int64_t)gridDim.x * WARPS_OF_BLOCK) {
        for (int64_t row = unit * a.unit, end = unit_end(a, unit); row < end;) {
            const segment s = segment_at(a, unit, row);
            run_segment<KIND, METRICS, EACH>(a, known, unit, s, &tally, &sums);
            row = s.last;
        }
    }
    if (!METRICS) return;
    write_warp_tally<KIND>(tally, sums, &shared[warp]);
    __syncthreads(); /* every warp's tally is in shared */
    sb_tally *to = (sb_tally *)a.tallies + blockIdx.x;
    for (int word = threadIdx.x; word < TALLY_WORDS; word += WARPS_OF_BLOCK * WARP)
        ((uint64_t *)to)[word] = merged_word((const uint64_t *)shared, WARPS_OF_BLOCK, word);
}
