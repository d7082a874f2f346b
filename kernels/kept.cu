/* kept.cu - logprob.cu's first half for rows with kept sets: the states of pieces, and the targets,
 * for logprob_finish.
 *
 * Shapes: kept [rows][kept_stride], a bit an id; everything else in src/cuda_args.h.
 *
 *     leaves -> thread's state -> warp -> block -> [work][split] -> logprob_finish
 *
 *     kept_<dtype>       grid work * split, in.whole 0, blocks of a multiple of 32 threads up to
 *                        512. */
#include "kept.cuh"

#include "finish.cuh"

template <int DTYPE> SB_DET void kept_block(const sb_cuda_args &in)
{
    __shared__ block_row mine;
    __shared__ sb_state shared[32];
    const int64_t item = blockIdx.x / (uint32_t)in.split;
    const int piece = (int)(blockIdx.x % (uint32_t)in.split);
    sb_state *to = (sb_state *)in.states + blockIdx.x;
    sb_state s;

    if (threadIdx.x == 0) set_block_row(in, &mine, item, piece == 0);
    __syncthreads(); /* mine is written */
    if (mine.done) {
        if (threadIdx.x != 0) return;
        sb_state_init(to, 0); /* logprob_finish reads before it knows */
        if (piece == 0) write_target(in, item, 0.0f, 0);
        return;
    }
    sum_kept<DTYPE>(&s, in, mine.number, piece_of_row(in, mine.logits, in.vocab, piece), 0,
                    mine.row);
    block_merge(&s, shared);
    if (threadIdx.x != 0) return;
    *to = s;
    if (piece == 0)
        write_target(in, item, kept_logit<DTYPE>(in, mine.number, mine.logits, mine.id), 1);
}

#define KEPT(name, DTYPE)                                                                          \
    extern "C" __global__ void __launch_bounds__(512)                                              \
        kept_##name(const __grid_constant__ sb_cuda_args in)                                       \
    {                                                                                              \
        kept_block<DTYPE>(in);                                                                     \
    }
KEPT(f32, SB_CUDA_F32)
KEPT(f16, SB_CUDA_F16)
KEPT(bf16, SB_CUDA_BF16)
