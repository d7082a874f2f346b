/* finish.cuh - the end of a row, in fp64: the sum and the target's logit become logprob and lse,
 * and the moments become the entropy. One warp finishes a row; its lane 0 writes. */
#pragma once

#include "row.cuh"

/* Writes the outputs from the two logarithms. Called by one thread. */
SB_DET void write_finished(const sb_cuda_args &in, int64_t r, bool nan, bool absent, sb_lg target,
                           sb_lg sum, const sb_row &row)
{
    if (in.tokens)
        ((float *)in.tokens)[r] = nan      ? sb_float(SB_NAN_BITS)
                                  : absent ? sb_float(SB_ABSENT_BITS)
                                           : sb_logprob_of(target, sum, &row);
    if (in.lse) ((float *)in.lse)[r] = nan ? sb_float(SB_NAN_BITS) : sb_lse_of(sum, &row);
    if (in.saved)
        ((sb_saved *)in.saved)[r] = nan ? sb_saved_of(SB_SAVED_NAN, &row) : sb_saved_sum(sum, &row);
}

/* Finishes a row. Called by a whole warp: lane 0 takes the logarithm of the sum while lane 1 takes
 * that of the target's term, and lane 0 writes. x is the target's logit. */
SB_DET void finish_row(const sb_cuda_args &in, int64_t r, const sb_state &s, float x,
                       const sb_row &row)
{
    int lane = threadIdx.x % WARP;
    bool nan = sb_state_is_nan(&s), absent = sb_is_absent(x);
    sb_mantissa part;
    sb_lg mine, target;

    part.m = 0;
    part.e = 0;
    if (!nan && lane == 0) part = sb_sum_mantissa(&s);
    if (!nan && lane == 1 && !absent) part = sb_target_mantissa(x, &row);
    mine = sb_log2_parts(part.m, part.e);
    target.e = __shfl_sync(FULL, mine.e, 1);
    target.f = __shfl_sync(FULL, mine.f, 1);
    if (lane != 0) return;
    write_finished(in, r, nan, absent, target, mine, row);
}

/* The same from a row's moments. If the entropy is wanted, lane 0 also writes it, and the saved row
 * that goes with it. */
SB_DET void finish_row(const sb_cuda_args &in, int64_t r, const sb_moments &m, float x,
                       const sb_row &row)
{
    finish_row(in, r, m.sum, x, row);
    if (threadIdx.x % WARP != 0 || !in.entropy) return;
    sb_saved saved = sb_finish_saved_moments(&m, &row);
    if (in.saved) ((sb_saved *)in.saved)[r] = saved;
    ((float *)in.entropy)[r] = saved.kind == SB_SAVED_NAN ? sb_float(SB_NAN_BITS)
                                                          : sb_entropy_of(saved.h2);
}
