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
#include "kept.cuh"
#include "leaf.cuh"
#include "load.cuh"
#include "records.cuh"

/* ---- partial ------------------------------------------------------------------------------ */

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
        if (piece == 0) write_done<sb_state>(a, blockIdx.x / in.split);
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
    merge_records<sb_state>(a);
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
    if (refused_at_finish(in, v.number, finish_fault(s, t, row), writes)) return;
    finish_row(in, v.number, s, sb_float(t.x), row);
}
