/* finish.cuh - what is done once a row: whether it is active, its constants and its target; then,
 * from the sum, logprob and lse. */
#pragma once

#include "common.cuh"
#include "leaf.cuh"
#include "load.cuh"

/* From the two logarithms to the outputs, by one thread. */
SB_DET void write_finished(const sb_cuda_args &in, int64_t r, bool nan, bool absent, sb_lg target,
                           sb_lg sum, const sb_row &row)
{
    if (in.tokens)
        ((float *)in.tokens)[r] = nan      ? sb_float(SB_NAN_BITS)
                                  : absent ? sb_float(0xff800000u)
                                           : sb_logprob_of(target, sum, &row);
    if (in.lse) ((float *)in.lse)[r] = nan ? sb_float(SB_NAN_BITS) : sb_lse_of(sum, &row);
    if (in.saved)
        ((sb_saved *)in.saved)[r] = nan ? sb_saved_of(SB_SAVED_NAN, &row) : sb_saved_sum(sum, &row);
}

/* By the first two lanes of a warp: lane 0 takes the sum's logarithm, lane 1 the target's, at the
 * same time; lane 0 writes. x: the target's logit. */
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

/* For logprob_finish: the target's logit, and whether there is anything to finish. */
SB_DET void write_target(const sb_cuda_args &in, int64_t item, float x, int32_t active)
{
    sb_cuda_target target = { x, active };
    ((sb_cuda_target *)in.targets)[item] = target;
}

/* What a row is to a block; done: nothing is left to sum. One thread writes and reports. */
struct visit {
    row_of_call r;
    int64_t number;
    bool done;
};

SB_DET visit visit_row(const sb_cuda_args &in, int64_t item, bool writes)
{
    visit v;
    v.done = true;
    if (in.simple) { /* the common case, short; a row that is not active goes the long way */
        v.number = row_at(in, item);
        v.r.id = int_at(in.ids, in.ids_dtype, v.number);
        v.r.logits = (const char *)in.logits + v.number * in.row_stride * in.itemsize;
        v.r.tau = 1.0f;
        v.done = v.r.id == in.ignore_index || (uint64_t)v.r.id >= (uint64_t)in.vocab;
        if (!v.done) return v;
    }
    if (!listed_well(in, item)) {
        if (writes) report(in, SB_BAD_ROW_LIST, item);
        return v;
    }
    v.number = row_at(in, item);
    v.r = resolve(in, v.number);
    if (!v.r.logits) {
        if (writes) write_row(in, v.number, 0.0f);
    } else if (v.r.bad) {
        if (writes) {
            bool id = v.r.id < 0 || v.r.id >= in.vocab;
            write_row(in, v.number, sb_float(SB_NAN_BITS));
            report(in, id ? SB_BAD_ID : SB_BAD_TEMPERATURE, v.number);
        }
    } else {
        v.done = false;
    }
    return v;
}

SB_DET sb_row constants_of(const sb_cuda_args &in, float tau)
{
    return in.temperatures ? sb_row_of(tau) : in.row;
}

/* What a block's first thread finds out about its row, for all of them: kept in shared memory, so
 * that no thread holds it in registers through the hot loop. */
struct block_row {
    sb_row row;
    const char *logits;
    int64_t number, id;
    int done;
};

/* The aligned 32-bit word that holds the logit at p, into shared memory, while other work goes on.
 * alone: the word's other half is not this row's, and is not read. */
SB_DET void fetch_word(uint32_t *shared, const char *p, bool alone)
{
    if (alone) {
        *shared = *(const uint16_t *)p * 0x10001u;
        return;
    }
    copy4(address_of(shared), (const char *)((uint64_t)p & ~(uint64_t)3));
}

template <int DTYPE> SB_DET float word_value(uint32_t word, const char *p)
{
    leaf_words<DTYPE> x;
    x.w[0] = word;
    return unpack<DTYPE>(x, DTYPE == SB_CUDA_F32 ? 0 : (int)((uint64_t)p >> 1 & 1));
}

/* By one thread. writes: whether it also writes what a row that is done gets. */
SB_DET void set_block_row(const sb_cuda_args &in, block_row *mine, int64_t item, bool writes)
{
    visit v = visit_row(in, item, writes);
    mine->done = v.done;
    if (v.done) return;
    mine->row = constants_of(in, v.r.tau);
    mine->logits = v.r.logits;
    mine->number = v.number;
    mine->id = v.r.id;
}

SB_DET bool owns_target(const block_row &mine, const part_of_row &part)
{
    const int64_t leaf = mine.id / SB_LEAF;
    return leaf >= part.first && leaf < part.last;
}

/* Begins to fetch the target's logit. */
template <int DTYPE> SB_DET void fetch_target(uint32_t *word, const block_row &mine, int64_t vocab)
{
    constexpr int SIZE = DTYPE == SB_CUDA_F32 ? 4 : 2;
    const char *p = mine.logits + mine.id * SIZE;
    int64_t other = mine.id + ((uint64_t)p & 2 ? -1 : 1);
    fetch_word(word, p, SIZE == 2 && (other < 0 || other >= vocab));
}

/* A thread's leaves of a part, both loops. */
template <int DTYPE>
SB_DET void sum_part(thread_state *t, const part_of_row &part, const sb_row &row)
{
    const leaf_row constants = { row.c, row.k64 };
    t->base = NO_BASE;
    sb_state_init(&t->s, row.c);
    if (add_row<DTYPE>(t, part, constants)) {
        sb_state s = t->s;
        add_left<DTYPE>(&s, part, row.c, row.k64, row.lim, blockDim.x);
        t->s = s;
    }
}
