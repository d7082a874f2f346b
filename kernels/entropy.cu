/* entropy.cu - logprob with the row's entropy, in one pass.
 *
 *   entropy[r] = -sum_i p_i ln p_i, and what logprob.cu writes, with the same bits
 *
 * Shapes: as logprob.cu; everything in src/cuda_args.h.
 *
 *     leaves -> thread's moments -> warp -> block -> [pieces: entropy_finish] -> finish
 *
 *     entropy_<dtype>    grid work * split, blocks of a multiple of 32 threads up to 512. split 1:
 *                        finishes rows. Else pieces [work][split] of sb_moments.
 *     entropy_finish     a warp an item; grid covers work * 32 threads. */
#include "moments.cuh"

template <int DTYPE> SB_DET void entropy_block(const sb_cuda_args &in)
{
    __shared__ block_row mine;
    __shared__ sb_moments shared[16];
    const int leaves = (int)((in.vocab + SB_LEAF - 1) / SB_LEAF);
    const int piece = in.split == 1 ? 0 : (int)(blockIdx.x % in.split);
    part_of_row part;
    sb_moments m;

    if (threadIdx.x == 0) set_block_row(in, &mine, blockIdx.x / (uint32_t)in.split, piece == 0);
    __syncthreads(); /* mine is written */
    if (mine.done) {
        if (threadIdx.x == 0 && in.split != 1) /* c = 0: nothing for entropy_finish */
            sb_moments_init(&((sb_moments *)in.states)[blockIdx.x], 0.0f);
        return;
    }
    part.logits = mine.logits;
    part.vocab = in.vocab;
    part.first = (int)(piece * in.piece);
    part.last = min(part.first + (int)in.piece, leaves);
    sum_moments<DTYPE>(&m, in, mine, part, 0, shared);
    if (threadIdx.x >= WARP) return;
    if (in.split != 1) {
        if (threadIdx.x == 0) ((sb_moments *)in.states)[blockIdx.x] = m;
        return;
    }
    finish_moments(in, mine.number, m, kept_logit<DTYPE>(in, mine.number, mine.logits, mine.id),
                   mine.row);
}

#define ENTROPY(name, DTYPE)                                                                       \
    extern "C" __global__ void __launch_bounds__(512, 1)                                           \
        entropy_##name(const __grid_constant__ sb_cuda_args in)                                    \
    {                                                                                              \
        entropy_block<DTYPE>(in);                                                                  \
    }
ENTROPY(f32, SB_CUDA_F32)
ENTROPY(f16, SB_CUDA_F16)
ENTROPY(bf16, SB_CUDA_BF16)

/* Merges the pieces of a row and finishes it: a warp a row. */
extern "C" __global__ void __launch_bounds__(256)
    entropy_finish(const __grid_constant__ sb_cuda_args in)
{
    const int64_t item = (blockIdx.x * (int64_t)blockDim.x + threadIdx.x) / WARP;
    if (item >= in.work) return;
    const sb_moments *pieces = (const sb_moments *)in.states + item * in.split;
    if (pieces[0].sum.c == 0) return; /* the row's outputs are written */
    const int64_t number = row_at(in, item);
    const row_of_call r = resolve(in, number);
    const sb_row row = constants_of(in, r.tau);
    sb_moments m;
    merge_moment_pieces(&m, pieces, in.split);
    float x = in.logits_dtype == SB_CUDA_F32 ? kept_logit<SB_CUDA_F32>(in, number, r.logits, r.id)
              : in.logits_dtype == SB_CUDA_F16
                  ? kept_logit<SB_CUDA_F16>(in, number, r.logits, r.id)
                  : kept_logit<SB_CUDA_BF16>(in, number, r.logits, r.id);
    finish_moments(in, number, m, x, row);
}
