/* policy_row.cuh - a row's derivative by its token logprob, if the loss is a policy loss: for
 * policy.cu, and for one_read_row.cuh, where it follows from the row's own logprob. */
#pragma once

#include "../src/det/policy.h"
#include "row.cuh"

typedef sb_cuda_policy_args policy_args;

SB_DET bool is_refused(const policy_args &a) { return a.refused && *(const int32_t *)a.refused; }

/* The constants of a segment's sequence. */
SB_DET sb_policy_sequence constants_of(const policy_args &a, int64_t b)
{
    int64_t tokens = a.tokens, sequences = a.sequences, count = 1;
    sb_policy_sequence of;
    of.ratio = of.drifted = of.weight = 1.0f;
    if (a.lengths) {
        const sb_cuda_policy_length *length = (const sb_cuda_policy_length *)a.lengths + b;
        of = length->of;
        count = length->count;
    }
    if (a.totals && !tokens) tokens = ((const int64_t *)a.totals)[0];
    if (a.totals && !sequences) sequences = ((const int64_t *)a.totals)[1];
    /* the step's totals are below the call's own: policy_finish reports it */
    if (a.totals && ((a.tokens && a.tokens < ((const int64_t *)a.totals)[0]) ||
                     (a.sequences && a.sequences < ((const int64_t *)a.totals)[1])))
        of.scale = (double)sb_float(SB_NAN_BITS);
    else
        of.scale = (double)a.rules.upstream / sb_policy_divisor(&a.rules, count, tokens, sequences);
    return of;
}

/* The derivative by the logprob of a row, which is `now`. */
SB_DET float derivative_of(const policy_args &a, int64_t row, float now)
{
    if (is_refused(a)) return sb_float(SB_NAN_BITS);
    if (a.in.mask && !((const uint8_t *)a.in.mask)[row]) return 0.0f;
    const int64_t b = a.in.cu_seqlens ? sequence_of(a.in, row) : row / a.in.time;
    const sb_policy_sequence of = constants_of(a, b);
    sb_policy_token t;
    t.now = now;
    t.old = a.old ? ((const float *)a.old)[row] : now;
    t.ref = a.ref ? ((const float *)a.ref)[row] : 0.0f;
    t.rollout = a.rollout ? ((const float *)a.rollout)[row] : 0.0f;
    t.entropy = 0.0f; /* eta is 0 */
    t.advantage = ((const float *)a.advantages)[a.per_token ? row : b];
    return sb_policy_token_of(&a.rules, &of, &t, 0).by_now;
}
