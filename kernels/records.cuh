/* records.cuh - records of vocabulary shards, with moments (STATE is sb_moments) or without
 * (sb_state): records of rows that have no sum, target records, merging, and refusals. */
#pragma once

#include "../src/det/record.h"
#include "merge.cuh"
#include "row.cuh"
#include "target.cuh"

SB_DET sb_fault merge_fault(const sb_state &s, const sb_target &t, uint32_t c)
{
    return sb_merge_fault(&s, &t, c);
}
SB_DET sb_fault merge_fault(const sb_moments &m, const sb_target &t, uint32_t c)
{
    return sb_moments_merge_fault(&m, &t, c);
}

SB_DET sb_fault finish_fault(const sb_state &s, const sb_target &t, const sb_row &row)
{
    return sb_finish_fault(&s, &t, &row);
}
SB_DET sb_fault finish_fault(const sb_moments &m, const sb_target &t, const sb_row &row)
{
    return sb_moments_finish_fault(&m, &t, &row);
}

/* The record of a row that was refused. Every later call refuses it, because of its J. */
template <class STATE> SB_DET STATE refused_state()
{
    STATE s;
    make_none(&s);
    sum_in(&s)->J = 0xffffffffu;
    return s;
}

template <class STATE>
SB_DET void write_records(const sb_cuda_shard_args &a, int64_t row, const STATE &s,
                          const sb_target &t)
{
    ((STATE *)a.states)[row] = s;
    ((sb_target *)a.targets)[row] = t;
}

/* Writes the records of a row that is ignored, or that was refused and has been reported. */
template <class STATE> SB_DET void write_done(const sb_cuda_shard_args &a, int64_t item)
{
    sb_target none = { 0, 0 };
    STATE s;
    int64_t row;
    if (!listed_well(a.in, item)) return;
    row = row_at(a.in, item);
    make_none(&s);
    if (resolve(a.in, row).bad) s = refused_state<STATE>();
    write_records(a, row, s, none);
}

/* The bits of a logit as fp32. They are made without conversion instructions, which would change
 * the payload of a NaN. */
template <int DTYPE> SB_DET uint32_t logit_bits(const char *logits, int64_t i)
{
    if (DTYPE == SB_CUDA_F32) return ((const uint32_t *)logits)[i];
    uint16_t half = ((const uint16_t *)logits)[i];
    return sb_bits32(DTYPE == SB_CUDA_F16 ? sb_from_f16(half) : sb_from_bf16(half));
}

template <int DTYPE>
SB_DET void write_target_record(const sb_cuda_shard_args &a, const block_row &mine)
{
    int64_t i = mine.id - a.first;
    sb_target t = { 0, 0 };
    if (i >= 0 && i < a.held) {
        t.x = is_kept(a.in, mine.number, mine.id) ? logit_bits<DTYPE>(mine.logits, i)
                                                  : SB_ABSENT_BITS;
        t.owners = 1;
    }
    ((sb_target *)a.targets)[mine.number] = t;
}

/* Merges the records of shards, one thread per row. The result may take the first shard's place. */
template <class STATE> SB_DET void merge_records(const sb_cuda_shard_args &a)
{
    const int64_t rows = a.in.rows, row = blockIdx.x * (int64_t)blockDim.x + threadIdx.x;
    const STATE *states = (const STATE *)a.from_states;
    const sb_target *targets = (const sb_target *)a.from_targets;
    if (row >= rows) return;
    STATE s = states[row];
    sb_target t = targets[row];
    const uint32_t c = sum_in(&s)->c;
    sb_fault fault = merge_fault(s, t, c);
    for (int64_t shard = 1; shard < a.shards && fault == SB_RECORD_FINE; shard++) {
        const STATE other = states[shard * rows + row];
        const sb_target its = targets[shard * rows + row];
        fault = merge_fault(other, its, c);
        merge_into(&s, other);
        sb_target_merge(&t, &its);
    }
    if (fault != SB_RECORD_FINE) {
        report(a.in, SB_BAD_RECORD + fault, row);
        if (a.keep) return; /* the host will look at the records */
        s = refused_state<STATE>();
        t.x = t.owners = 0;
    }
    write_records(a, row, s, t);
}

/* Whether a row's records are at fault, so that the row must not be finished. writes: this thread
 * writes the outputs of such a row and reports it. */
SB_DET bool refused_at_finish(const sb_cuda_args &in, int64_t row, sb_fault fault, bool writes)
{
    if (fault == SB_RECORD_FINE) return false;
    if (writes) {
        write_row(in, row, sb_float(SB_NAN_BITS));
        report(in, SB_BAD_RECORD + fault, row);
    }
    return true;
}
