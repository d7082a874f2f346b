/* policy_row.cuh - a row's derivative by its token logprob, if the loss is a policy loss: for
 * policy.cu, and for one_read_row.cuh, where it follows from the row's own logprob. */
#pragma once

#include "../src/det/policy_plain.h"
#include "merge.cuh"
#include "row.cuh"

typedef sb_cuda_policy_args policy_args;

SB_DET bool is_refused(const policy_args &a) { return a.refused && *(const int32_t *)a.refused; }

/* The constants of a segment's sequence. totals: tokens and sequences of the call, or null: not
 * needed. */
SB_DET sb_policy_sequence constants_of(const policy_args &a, int64_t b, const int64_t *totals)
{
    int64_t tokens = a.tokens, sequences = a.sequences, count = 1;
    sb_policy_sequence of;
    of.ratio = of.drifted = of.weight = 1.0f;
    if (a.lengths) {
        const sb_cuda_policy_length *length = (const sb_cuda_policy_length *)a.lengths + b;
        of = length->of;
        count = length->count;
    }
    if (totals && !tokens) tokens = totals[0];
    if (totals && !sequences) sequences = totals[1];
    of.scale = (double)a.rules.upstream / sb_policy_divisor(&a.rules, count, tokens, sequences);
    return of;
}

/* Whether the step's totals are below the call's own, which policy_sequences has summed. Called by
 * the whole warp. */
SB_DET bool are_totals_short(const policy_args &a)
{
    int64_t tokens = 0, sequences = 0;
    for (int64_t i = threadIdx.x % WARP; i < a.sequence_blocks; i += WARP) {
        const sb_cuda_policy_total *total = (const sb_cuda_policy_total *)a.sums + i;
        tokens += total->tokens;
        sequences += total->sequences;
    }
    tokens = warp_sum_any(tokens);
    sequences = warp_sum_any(sequences);
    return (a.tokens && a.tokens < tokens) || (a.sequences && a.sequences < sequences);
}

/* What a row's derivative needs besides its logprob. */
struct policy_row {
    sb_policy_sequence of;
    sb_policy_token t;
    bool active, refused;
};

/* Everything comes from memory that the kernel does not write, so it can be loaded early. */
SB_DET policy_row policy_row_of(const policy_args &a, int64_t row)
{
    policy_row p;
    p.refused = is_refused(a);
    p.active = !p.refused && (!a.in.mask || ((const uint8_t *)a.in.mask)[row]);
    if (!p.active) return p;
    const int64_t b = a.in.cu_seqlens ? sequence_of(a.in, row)
                                      : (int64_t)((uint32_t)row / (uint32_t)a.in.time);
    p.of = constants_of(a, b, (const int64_t *)a.totals);
    p.t.old = a.old ? ((const float *)a.old)[row] : 0.0f;
    p.t.ref = a.ref ? ((const float *)a.ref)[row] : 0.0f;
    p.t.rollout = a.rollout ? ((const float *)a.rollout)[row] : 0.0f;
    p.t.entropy = 0.0f; /* eta is 0 */
    p.t.advantage = ((const float *)a.advantages)[a.per_token ? row : b];
    return p;
}

/* The losses that have code of their own, with fewer steps between a logprob and its derivative. */
enum rules_kind { RULES_NONE, RULES_ANY, RULES_CLIP, RULES_CLIP_K3, RULES_GSPO };

/* A call's rules, with what is known of a kind as constants. old is there, or is the logprob. */
template <rules_kind KIND> SB_DET sb_policy_rules rules_of(const policy_args &a)
{
    sb_policy_rules r = a.rules;
    if (KIND == RULES_ANY) return r;
    r.loss = KIND == RULES_GSPO ? SB_LOSS_GSPO : SB_LOSS_CLIP;
    r.kl = SB_KL_3;
    r.weight = SB_WEIGHT_OFF;
    r.has = KIND == RULES_CLIP_K3 ? SB_HAS_OLD | SB_HAS_REF : SB_HAS_OLD;
    r.adds_kl = KIND == RULES_CLIP_K3;
    r.adds_entropy = 0;
    return r;
}

/* The derivative of a token whose numbers are not all ordinary. A function of its own, so that the
 * code of nearly all rows is short. */
template <rules_kind KIND>
static __device__ __noinline__ float rare_derivative_of(sb_policy_rules rules,
                                                        sb_policy_sequence of, sb_policy_token t)
{
    return sb_policy_token_of(&rules, &of, &t, 0).by_now;
}

/* The derivative by the row's logprob, which is `now`. For the losses that have code of their own
 * by the steps of det/policy_plain.h. */
template <rules_kind KIND>
SB_DET float derivative_of(const policy_args &a, policy_row &p, float now)
{
    const sb_policy_rules rules = rules_of<KIND>(a);
    if (p.refused) return sb_float(SB_NAN_BITS);
    if (!p.active) return 0.0f;
    p.t.now = now;
    if (!a.old) p.t.old = now;
    if (KIND == RULES_ANY) return sb_policy_token_of(&rules, &p.of, &p.t, 0).by_now;
    int plain = sb_plain_sequence(&p.of);
    sb_policy_penalty penalty;
    float loss, by_now;
    const sb_plain_bounds bounds = sb_plain_bounds_of(&rules, p.t.advantage);
    const sb_policy_move move = sb_plain_move(now, p.t.old, &plain);
    if (rules.adds_kl) penalty = sb_plain_penalty(rules.kl, now, p.t.ref, &plain);
    const sb_policy_gain gain = sb_plain_gain(&rules, bounds, (float)move.g.e, now, p.t.advantage,
                                              &plain);
    sb_plain_total(&rules, &p.of, &gain, rules.adds_kl ? &penalty : nullptr, 0.0f, &loss, &by_now);
    return __builtin_expect(plain, 1) ? by_now : rare_derivative_of<KIND>(rules, p.of, p.t);
}
