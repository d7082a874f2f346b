/* moments.cu - records with moments of a shard of the vocabulary, their merge, and the finish of
 * whole rows, entropy included.
 *
 *   moments[r], targets[r]: what docs/numerics.md, section "Shards and state bytes", says of row r
 *
 * Shapes and the reduction: as shards.cu, with sb_moments for sb_state.
 *
 *     moments_<dtype>      grid work * split, blocks of a multiple of 32 threads up to 512. split
 *                          1: writes the records. Else pieces [work][split] and the targets.
 *     moments_merge_pieces a warp an item; grid covers work * 32 threads.
 *     moments_merge        a thread a row.
 *     moments_finish       a warp an item; grid covers work * 32 threads. */
#include "moments.cuh"
#include "records.cuh"

template <int DTYPE> SB_DET void moments_block(const sb_cuda_shard_args &a)
{
    const sb_cuda_args &in = a.in;
    __shared__ block_row mine;
    __shared__ sb_moments shared[16];
    const int piece = in.split == 1 ? 0 : (int)(blockIdx.x % in.split);
    sb_moments m;

    if (threadIdx.x == 0) set_block_row(in, &mine, blockIdx.x / (uint32_t)in.split, piece == 0);
    __syncthreads(); /* mine is written */
    if (mine.done) {
        if (threadIdx.x != 0) return;
        if (in.split != 1) /* c = 0: nothing for moments_merge_pieces */
            make_none(&((sb_moments *)in.states)[blockIdx.x]);
        if (piece == 0) write_done<sb_moments>(a, blockIdx.x / in.split);
        return;
    }
    const part_of_row part = piece_of_row(in, mine.logits, a.held, piece);
    sum_moments<DTYPE>(&m, in, mine, part, a.first / SB_LEAF, shared);
    if (threadIdx.x != 0) return;
    if (piece == 0) write_target_record<DTYPE>(a, mine);
    if (in.split == 1) ((sb_moments *)a.states)[mine.number] = m;
    else ((sb_moments *)in.states)[blockIdx.x] = m;
}

/* As entropy_<dtype>. */
#define MOMENTS(name, DTYPE)                                                                       \
    extern "C" __global__ void __launch_bounds__(512, 1)                                           \
        moments_##name(const __grid_constant__ sb_cuda_shard_args a)                               \
    {                                                                                              \
        moments_block<DTYPE>(a);                                                                   \
    }
MOMENTS(f32, SB_CUDA_F32)
MOMENTS(f16, SB_CUDA_F16)
MOMENTS(bf16, SB_CUDA_BF16)

/* Merges the pieces of a row: a warp a row. */
extern "C" __global__ void __launch_bounds__(256)
    moments_merge_pieces(const __grid_constant__ sb_cuda_shard_args a)
{
    const sb_cuda_args &in = a.in;
    const int64_t item = (blockIdx.x * (int64_t)blockDim.x + threadIdx.x) / WARP;
    if (item >= in.work) return;
    const sb_moments *pieces = (const sb_moments *)in.states + item * in.split;
    const uint32_t c = pieces[0].sum.c;
    if (c == 0) return; /* the row's records are written */
    sb_moments m;
    merge_moment_pieces(&m, pieces, in.split);
    m.sum.c = c;
    if (threadIdx.x % WARP == 0) ((sb_moments *)a.states)[row_at(in, item)] = m;
}

extern "C" __global__ void __launch_bounds__(256)
    moments_merge(const __grid_constant__ sb_cuda_shard_args a)
{
    merge_records<sb_moments>(a);
}

extern "C" __global__ void __launch_bounds__(256)
    moments_finish(const __grid_constant__ sb_cuda_shard_args a)
{
    const sb_cuda_args &in = a.in;
    const int64_t item = (blockIdx.x * (int64_t)blockDim.x + threadIdx.x) / WARP;
    const bool writes = threadIdx.x % WARP == 0;
    if (item >= in.work) return;
    const visit v = visit_row(in, item, writes);
    if (v.done) return;
    const sb_row row = constants_of(in, v.r.tau);
    const sb_moments m = ((const sb_moments *)a.states)[v.number];
    const sb_target t = ((const sb_target *)a.targets)[v.number];
    if (refused_at_finish(in, v.number, finish_fault(m, t, row), writes)) return;
    finish_moments(in, v.number, m, sb_float(t.x), row);
}
