/* shards.cu - records of a shard of the vocabulary, their merge, and the finish of whole rows.
 *
 *   states[r], targets[r]: what docs/numerics.md, section "Shards and state bytes", says of row r
 *
 * Shapes: logits [B, T, n] or [N, n], as logprob.cu takes them; records [rows], those to merge
 * [shards][rows]; everything else in src/cuda_args.h.
 *
 * The reduction is logprob.cu's, and ends before its finish:
 *
 *     leaves -> thread's state -> warp -> block -> [pieces: partial_merge] -> record
 *     records of shards -> one thread a row -> record -> finish
 *
 *     partial_<dtype>, partial_<dtype>_kept
 *                        grid work * split, blocks of a multiple of 32 threads up to 512. split 1:
 *                        writes the records. Else pieces [work][split] and the targets.
 *     partial_merge      a warp an item; grid covers work * 32 threads.
 *     shards_merge       a thread a row.
 *     shards_finish      a warp an item; grid covers work * 32 threads. */
#include "../src/det/record.h"
#include "common.cuh"
#include "finish.cuh"
#include "kept.cuh"
#include "leaf.cuh"
#include "load.cuh"

/* A record that every later call refuses: for rows that were refused. */
SB_DET sb_state refused_state()
{
    sb_state s;
    sb_state_init(&s, 0.0f);
    s.J = 0xffffffffu;
    return s;
}

SB_DET void write_records(const sb_cuda_shard_args &a, int64_t row, const sb_state &s,
                          const sb_target &t)
{
    ((sb_state *)a.states)[row] = s;
    ((sb_target *)a.targets)[row] = t;
}

/* ---- partial ------------------------------------------------------------------------------ */

/* The records of a row that is ignored, or was refused and reported. */
SB_DET void write_done(const sb_cuda_shard_args &a, int64_t item)
{
    sb_target none = { 0, 0 };
    sb_state s;
    int64_t row;
    if (!listed_well(a.in, item)) return;
    row = row_at(a.in, item);
    sb_state_init(&s, 0.0f);
    if (resolve(a.in, row).bad) s = refused_state();
    write_records(a, row, s, none);
}

/* The bits of a logit as fp32. Not by an instruction that converts: it would change a NaN's. */
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
        t.x = is_kept(a.in, mine.number, mine.id) ? logit_bits<DTYPE>(mine.logits, i) : 0xff800000u;
        t.owners = 1;
    }
    ((sb_target *)a.targets)[mine.number] = t;
}

template <int DTYPE, bool KEPT> SB_DET void partial_block(const sb_cuda_shard_args &a)
{
    const sb_cuda_args &in = a.in;
    __shared__ block_row mine;
    __shared__ sb_state shared[32];
    const int leaves = (int)((a.held + SB_LEAF - 1) / SB_LEAF);
    const int piece = in.split == 1 ? 0 : (int)(blockIdx.x % in.split);
    part_of_row part;
    thread_state t;

    if (threadIdx.x == 0) set_block_row(in, &mine, blockIdx.x / (uint32_t)in.split, piece == 0);
    __syncthreads(); /* mine is written */
    if (mine.done) {
        if (threadIdx.x != 0) return;
        if (in.split != 1) /* c = 0: nothing for partial_merge */
            sb_state_init(&((sb_state *)in.states)[blockIdx.x], 0.0f);
        if (piece == 0) write_done(a, blockIdx.x / in.split);
        return;
    }

    part.logits = mine.logits;
    part.vocab = a.held;
    part.first = (int)(piece * in.piece);
    part.last = min(part.first + (int)in.piece, leaves);
    if (KEPT) sum_kept<DTYPE>(&t.s, in, mine.number, part, a.first / SB_LEAF, mine.row);
    else sum_part<DTYPE>(&t, part, mine.row);
    block_merge(&t.s, shared);
    if (threadIdx.x == blockDim.x - 1 && piece == 0) write_target_record<DTYPE>(a, mine);
    if (threadIdx.x != 0) return;
    t.s.c = sb_bits32(mine.row.c);
    if (in.split == 1) ((sb_state *)a.states)[mine.number] = t.s;
    else ((sb_state *)in.states)[blockIdx.x] = t.s;
}

/* As logprob_<dtype>: 40 registers, 48 warps a multiprocessor. */
#define PARTIAL(name, DTYPE)                                                                       \
    extern "C" __global__ void __launch_bounds__(512, 3)                                           \
        partial_##name(const __grid_constant__ sb_cuda_shard_args a)                               \
    {                                                                                              \
        partial_block<DTYPE, false>(a);                                                            \
    }                                                                                              \
    extern "C" __global__ void __launch_bounds__(512)                                              \
        partial_##name##_kept(const __grid_constant__ sb_cuda_shard_args a)                        \
    {                                                                                              \
        partial_block<DTYPE, true>(a);                                                             \
    }
PARTIAL(f32, SB_CUDA_F32)
PARTIAL(f16, SB_CUDA_F16)
PARTIAL(bf16, SB_CUDA_BF16)

/* Merges the pieces of a row: a warp a row. */
extern "C" __global__ void __launch_bounds__(256)
    partial_merge(const __grid_constant__ sb_cuda_shard_args a)
{
    const sb_cuda_args &in = a.in;
    int64_t item = (blockIdx.x * (int64_t)blockDim.x + threadIdx.x) / WARP;
    int lane = threadIdx.x % WARP;
    if (item >= in.work) return;
    const sb_state *pieces = (const sb_state *)in.states + item * in.split;
    const uint32_t c = pieces[0].c;
    if (c == 0) return; /* the row's records are written */
    sb_state s;
    sb_state_init(&s, 0.0f);
    for (int p = lane; p < in.split; p += WARP) sb_state_merge(&s, &pieces[p]);
    warp_merge(&s);
    s.c = c;
    if (lane == 0) ((sb_state *)a.states)[row_at(in, item)] = s;
}

/* ---- merge and finish --------------------------------------------------------------------- */

/* Merges the records of shards: a thread a row. The result may take the first shard's place. */
extern "C" __global__ void __launch_bounds__(256)
    shards_merge(const __grid_constant__ sb_cuda_shard_args a)
{
    const int64_t rows = a.in.rows, row = blockIdx.x * (int64_t)blockDim.x + threadIdx.x;
    const sb_state *states = (const sb_state *)a.from_states;
    const sb_target *targets = (const sb_target *)a.from_targets;
    if (row >= rows) return;
    sb_state s = states[row];
    sb_target t = targets[row];
    sb_fault fault = sb_merge_fault(&s, &t, s.c);
    for (int64_t shard = 1; shard < a.shards && fault == SB_RECORD_FINE; shard++) {
        const sb_state other = states[shard * rows + row];
        const sb_target its = targets[shard * rows + row];
        fault = sb_merge_fault(&other, &its, s.c);
        sb_state_merge(&s, &other);
        sb_target_merge(&t, &its);
    }
    if (fault != SB_RECORD_FINE) {
        report(a.in, SB_BAD_RECORD + fault, row);
        if (a.keep) return; /* for the host to look at */
        s = refused_state();
        t.x = t.owners = 0;
    }
    write_records(a, row, s, t);
}

/* Finishes whole rows: a warp a row. */
extern "C" __global__ void __launch_bounds__(256)
    shards_finish(const __grid_constant__ sb_cuda_shard_args a)
{
    const sb_cuda_args &in = a.in;
    int64_t item = (blockIdx.x * (int64_t)blockDim.x + threadIdx.x) / WARP;
    const bool writes = threadIdx.x % WARP == 0;
    if (item >= in.work) return;
    const visit v = visit_row(in, item, writes);
    if (v.done) return;
    const sb_row row = constants_of(in, v.r.tau);
    const sb_state s = ((const sb_state *)a.states)[v.number];
    const sb_target t = ((const sb_target *)a.targets)[v.number];
    const sb_fault fault = sb_finish_fault(&s, &t, sb_bits32(row.c));
    if (fault == SB_RECORD_FINE) {
        finish_row(in, v.number, s, sb_float(t.x), row);
    } else if (writes) {
        write_row(in, v.number, sb_float(SB_NAN_BITS));
        report(in, SB_BAD_RECORD + fault, v.number);
    }
}
