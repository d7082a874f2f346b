/* policy_tokens.cuh - losses and gradients of tokens, and the exact sums of what they add to
 * records.
 *
 * A lane computes EACH tokens side by side by the steps of det/policy_plain.h. If a number of one
 * of them is not ordinary, it computes them one by one instead (any_tokens). It adds their values
 * to digits in registers, and those for which these have no room to whole sums in local memory. */
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
        for (int k = LOWEST; k <= SB_SPAN_TOP + 1; k++) sum.d[k] = warp_sum_signed(sum.d[k]);
    }
    return sum;
}

/* Adds x to a whole sum if spans had no room for it. */
template <int LOWEST> SB_DET void add_far(const spans<LOWEST> &, sb_digits *far, float x)
{
    if (!sb_span_fits(x, LOWEST)) sb_digits_add(far, x);
}

/* What metrics add up: a thread's values of all its tokens. */
struct token_tally {
    spans<2> pg, kl, entropy, k1, k3;
    spans<3> ratio, weight;
    uint32_t marks[SB_MARKS]; /* of at most 2^30 tokens */
    uint32_t most, least;
};

SB_DET void init(token_tally *t)
{
    init(&t->pg), init(&t->kl), init(&t->entropy), init(&t->ratio);
    init(&t->k1), init(&t->k3), init(&t->weight);
    for (int i = 0; i < SB_MARKS; i++) t->marks[i] = 0;
    t->most = t->least = 0;
}

/* What of a token is no sum. */
SB_DET void add_counts(token_tally *t, const sb_policy_result &r, bool active)
{
    const float ratio = r.value[SB_SUM_RATIO];
    const bool counts = active && !sb_is_nan(ratio);
    for (int i = 0; i < SB_MARKS; i++) t->marks[i] += r.marks >> i & 1;
    t->most = max(t->most, counts ? sb_order_key(ratio) : 0);
    t->least = max(t->least, counts ? ~sb_order_key(ratio) : 0);
}

SB_DET void add_values(token_tally *t, const float value[SB_POLICY_SUMS], bool *room)
{
    add(&t->pg, value[SB_SUM_PG], room), add(&t->kl, value[SB_SUM_KL], room);
    add(&t->entropy, value[SB_SUM_ENTROPY], room), add(&t->ratio, value[SB_SUM_RATIO], room);
    add(&t->k1, value[SB_SUM_K1], room), add(&t->k3, value[SB_SUM_K3], room);
    add(&t->weight, value[SB_SUM_WEIGHT], room);
}

SB_DET void add_near_values(token_tally *t, const float value[SB_POLICY_SUMS])
{
    add_near(&t->pg, value[SB_SUM_PG]), add_near(&t->kl, value[SB_SUM_KL]);
    add_near(&t->entropy, value[SB_SUM_ENTROPY]), add_near(&t->ratio, value[SB_SUM_RATIO]);
    add_near(&t->k1, value[SB_SUM_K1]), add_near(&t->k3, value[SB_SUM_K3]);
    add_near(&t->weight, value[SB_SUM_WEIGHT]);
}

/* A thread's whole sums, which exist once they are needed: of a segment the losses, and for metrics
 * the rest. */
struct whole_sums {
    sb_digits of[SB_POLICY_SUMS];
    bool has_loss, has_rest;
};

/* Adds the values of EACH tokens for which there was no room. */
template <bool METRICS, int EACH, class LOSSES>
static __device__ __noinline__ void add_whole(whole_sums *sums, const sb_policy_result r[EACH])
{
    const LOSSES losses = {};
    const token_tally t = {};
    if (!sums->has_loss) sb_digits_init(&sums->of[SB_SUM_LOSS]);
    sums->has_loss = true;
    for (int k = 0; k < EACH; k++) add_far(losses, &sums->of[SB_SUM_LOSS], r[k].value[SB_SUM_LOSS]);
    if (METRICS) {
        for (int i = 1; i < SB_POLICY_SUMS && !sums->has_rest; i++) sb_digits_init(&sums->of[i]);
        sums->has_rest = true;
        for (int k = 0; k < EACH; k++) {
            add_far(t.pg, &sums->of[SB_SUM_PG], r[k].value[SB_SUM_PG]);
            add_far(t.kl, &sums->of[SB_SUM_KL], r[k].value[SB_SUM_KL]);
            add_far(t.entropy, &sums->of[SB_SUM_ENTROPY], r[k].value[SB_SUM_ENTROPY]);
            add_far(t.ratio, &sums->of[SB_SUM_RATIO], r[k].value[SB_SUM_RATIO]);
            add_far(t.k1, &sums->of[SB_SUM_K1], r[k].value[SB_SUM_K1]);
            add_far(t.k3, &sums->of[SB_SUM_K3], r[k].value[SB_SUM_K3]);
            add_far(t.weight, &sums->of[SB_SUM_WEIGHT], r[k].value[SB_SUM_WEIGHT]);
        }
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
                        token_tally *tally, whole_sums *sums)
{
    typedef spans<KIND == RULES_CLIP || KIND == RULES_GSPO ? 3 : 2>
        losses;                       /* a KL beside an A of 0 is small */
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
    losses sum;
    init(&sum);
    sums->has_loss = false;
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
        if (!plain) {
            sb_policy_result single[EACH];
            any_tokens<METRICS, EACH>(a, &of, shared, i, active, single);
            for (int k = 0; k < EACH; k++) result[k] = single[k];
        }
        bool room = true, near = true;
        for (int k = 0; k < EACH; k++) {
            by_now[k] = result[k].by_now;
            for (int i = 0; i < (METRICS ? SB_POLICY_SUMS : 1); i++)
                near &= is_near(result[k].value[i]);
            if (METRICS) add_counts(tally, result[k], active >> k & 1);
        }
        if (near) { /* nearly always in all lanes */
            for (int k = 0; k < EACH; k++) {
                add_near(&sum, result[k].value[SB_SUM_LOSS]);
                if (METRICS) add_near_values(tally, result[k].value);
            }
        } else {
            for (int k = 0; k < EACH; k++) {
                add(&sum, result[k].value[SB_SUM_LOSS], &room);
                if (METRICS) add_values(tally, result[k].value, &room);
            }
        }
        if (!room) {
            sb_policy_result copies[EACH];
            for (int k = 0; k < EACH; k++) copies[k] = result[k];
            add_whole<METRICS, EACH, losses>(sums, copies);
        }
        store_rows<EACH>(a.token, s, i, a.vector, by_now);
        if (KIND == RULES_ANY) {
            for (int k = 0; k < EACH; k++) by_now[k] = active >> k & 1 ? by_entropy : 0.0f;
            store_rows<EACH>(a.entropy, s, i, a.vector, by_now);
        }
        if (more) rows = next;
    }
    sb_cuda_policy_part part;
    part.sum = warp_total(sum, sums->of[SB_SUM_LOSS], sums->has_loss);
    part.count = __reduce_add_sync(FULL, count);
    if (lane == 0) ((sb_cuda_policy_part *)a.parts)[unit + s.b] = part;
}

/* Writes a warp's tally, without the loss, tokens and sequences. */
SB_DET void write_warp_tally(const token_tally &t, const whole_sums &sums, sb_tally *to)
{
    const int lane = threadIdx.x % WARP;
    const auto write = [&](int i, const auto &own) {
        const sb_digits sum = warp_total(own, sums.of[i], sums.has_rest);
        if (lane == 0) to->sums[i] = sum;
    };
    write(SB_SUM_PG, t.pg), write(SB_SUM_KL, t.kl), write(SB_SUM_ENTROPY, t.entropy);
    write(SB_SUM_RATIO, t.ratio), write(SB_SUM_K1, t.k1), write(SB_SUM_K3, t.k3);
    write(SB_SUM_WEIGHT, t.weight);
    for (int i = 0; i < SB_MARKS; i++) {
        const int64_t count = warp_sum_signed(t.marks[i]);
        if (lane == 0) to->counts[SB_TALLY_MARKS + i] = count;
    }
    const uint32_t most = __reduce_max_sync(FULL, t.most);
    const uint32_t least = __reduce_max_sync(FULL, t.least);
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
    token_tally tally;
    whole_sums sums;
    sums.has_rest = false;
    if (METRICS) init(&tally);
    for (int64_t unit = warp_item(); unit < a.units && !refused;
         unit += (int64_t)gridDim.x * WARPS_OF_BLOCK) {
        for (int64_t row = unit * a.unit, end = unit_end(a, unit); row < end;) {
            const segment s = segment_at(a, unit, row);
            run_segment<KIND, METRICS, EACH>(a, known, unit, s, &tally, &sums);
            row = s.last;
        }
    }
    if (!METRICS) return;
    write_warp_tally(tally, sums, &shared[warp]);
    __syncthreads(); /* every warp's tally is in shared */
    sb_tally *to = (sb_tally *)a.tallies + blockIdx.x;
    for (int word = threadIdx.x; word < TALLY_WORDS; word += WARPS_OF_BLOCK * WARP)
        ((uint64_t *)to)[word] = merged_word((const uint64_t *)shared, WARPS_OF_BLOCK, word);
}
