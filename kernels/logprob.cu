/* logprob.cu - token logprob and lse from logits.
 *
 *   token[r] = ln p(id_r), as docs/numerics.md defines it
 *
 * Shapes: logits [B, T, V] or [N, V], fp32, fp16 or bf16, any alignment; everything else in
 * src/cuda_args.h.
 *
 * The reduction. A thread takes every blockDim-th leaf (16 ids) of its piece of a row into a state
 * of exact integers; states merge by integer sums:
 *
 *     leaves -> thread's state -> warp (redux) -> block (shared) -> [pieces] -> finish
 *
 * No order shows in the result, so the launch is free:
 *
 *     logprob_<dtype>            blocks of a multiple of WARP threads, to 512: one for each of the
 *                                first in.whole rows, which it finishes itself, then in.split for
 *                                each other row: these write states [row][piece] and targets
 *                                [row], for logprob_finish.
 *     logprob_<dtype>_few        the same, in.whole 0, with a warp more than sum leaves; few.cuh.
 *     logprob_<dtype>_cluster    the same in clusters of in.split blocks, 2 .. 16, which finish
 *                                rows themselves. Compute capability 9.0.
 *     logprob_finish             a warp an item; grid covers WARP threads a row.
 *     sequence_sums              a warp a sequence; grid covers batch * WARP threads. */
#include "common.cuh"
#include "few.cuh"
#include "finish.cuh"
#include "leaf.cuh"

/* ---- blocks ------------------------------------------------------------------------------- */

/* A block's part of the work: a whole row, or a piece of one. In shared memory, so that no thread
 * holds it in registers through the hot loop. */
struct block_part {
    int64_t place; /* of the piece, in in.states; -1: a whole row */
    int first, last;
};

/* By one thread: the row and the part of it that a block takes. */
SB_DET void set_block_part(const sb_cuda_args &in, block_row *mine, block_part *part)
{
    const uint32_t whole = (uint32_t)in.whole, split = in.split, j = blockIdx.x - whole;
    const int leaves = (int)((in.vocab + SB_LEAF - 1) / SB_LEAF);
    int64_t item = blockIdx.x;
    part->place = -1;
    part->first = 0;
    part->last = leaves;
    if (blockIdx.x >= whole) { /* a grid has fewer than 2^31 blocks */
        part->place = j;
        part->first = (int)(j % split * (uint32_t)in.piece);
        part->last = min(part->first + (int)in.piece, leaves);
        item = whole + j / split;
    }
    set_block_row(in, mine, item, part->first == 0);
}

template <int DTYPE> SB_DET void logprob_block(const sb_cuda_args &in)
{
    constexpr int SIZE = DTYPE == SB_CUDA_F32 ? 4 : 2;
    __shared__ block_row mine;
    __shared__ block_part piece;
    __shared__ sb_state shared[32];
    __shared__ uint32_t word; /* that holds the target's logit */
    part_of_row part;
    thread_state t;

    if (threadIdx.x == WARP && in.ahead && blockIdx.x + in.ahead < in.work && !in.row_list)
        prefetch((const char *)in.ids +
                 row_at(in, blockIdx.x + in.ahead) * (in.ids_dtype == SB_CUDA_I64 ? 8 : 4));
    if (threadIdx.x == 0) set_block_part(in, &mine, &piece);
    __syncthreads(); /* mine and piece are written */
    if (mine.done) {
        if (piece.place >= 0 && threadIdx.x == 0) { /* logprob_finish reads before it knows */
            sb_state_init(&((sb_state *)in.states)[piece.place], 0);
            if (piece.first == 0)
                write_target(in, (uint32_t)piece.place / (uint32_t)in.split, 0.0f, 0);
        }
        return;
    }

    part.logits = mine.logits;
    part.vocab = in.vocab;
    part.first = piece.first;
    part.last = piece.last;
    if (threadIdx.x == 0 && owns_target(mine, part)) fetch_target<DTYPE>(&word, mine, in.vocab);
    sum_part<DTYPE>(&t, part, mine.row);
    begin_dependents();
    if (threadIdx.x == 0) wait_for_all_copies();
    block_merge(&t.s, shared);
    if (threadIdx.x >= WARP) return;
    part.first = piece.first;
    part.last = piece.last;
    const bool owner = owns_target(mine, part);
    const float x = owner ? word_value<DTYPE>(word, mine.logits + mine.id * SIZE) : 0.0f;
    if (piece.place < 0) {
        finish_row(in, mine.number, t.s, x, mine.row);
    } else if (threadIdx.x == 0) {
        ((sb_state *)in.states)[piece.place] = t.s;
        if (owner) write_target(in, (uint32_t)piece.place / (uint32_t)in.split, x, 1);
    }
}

/* 40 registers: 48 warps a multiprocessor. */
#define KERNELS(name, DTYPE)                                                                       \
    extern "C" __global__ void __launch_bounds__(512, 3)                                           \
        logprob_##name(const __grid_constant__ sb_cuda_args in)                                    \
    {                                                                                              \
        logprob_block<DTYPE>(in);                                                                  \
    }                                                                                              \
    extern "C" __global__ void __launch_bounds__(1024, 1)                                          \
        logprob_##name##_few(const __grid_constant__ sb_cuda_args in)                              \
    {                                                                                              \
        logprob_few<DTYPE>(in);                                                                    \
    }                                                                                              \
    extern "C" __global__ void __launch_bounds__(1024, 1)                                          \
        logprob_##name##_cluster(const __grid_constant__ sb_cuda_args in)                          \
    {                                                                                              \
        logprob_cluster<DTYPE>(in);                                                                \
    }
KERNELS(f32, SB_CUDA_F32)
KERNELS(f16, SB_CUDA_F16)
KERNELS(bf16, SB_CUDA_BF16)

/* Merges the pieces of a row and finishes it: a warp a row. */
extern "C" __global__ void __launch_bounds__(256)
    logprob_finish(const __grid_constant__ sb_cuda_args in)
{
    int64_t item = (blockIdx.x * (int64_t)blockDim.x + threadIdx.x) / WARP;
    int lane = threadIdx.x % WARP;
    begin_dependents();
    wait_for_primary();
    if (in.whole + item >= in.work) return;

    /* all loads at once: none depends on another's value */
    const sb_cuda_target target = ((const sb_cuda_target *)in.targets)[item];
    const int64_t number = row_at(in, in.whole + item);
    sb_state s;
    sb_state_init(&s, 0);
    for (int p = lane; p < in.split; p += WARP)
        sb_state_merge(&s, &((const sb_state *)in.states)[item * in.split + p]);
    if (!target.active) return;
    const sb_row row = constants_of(in, in.temperatures ? ((const float *)in.temperatures)[number]
                                                        : 1.0f);
    warp_merge(&s);
    finish_row(in, number, s, target.x, row);
}

/* ---- sequences ---------------------------------------------------------------------------- */

/* Sums a sequence's tokens exactly, and counts its active ones: a warp a sequence. */
extern "C" __global__ void __launch_bounds__(256)
    sequence_sums(const __grid_constant__ sb_cuda_args in)
{
    int64_t b = (blockIdx.x * (int64_t)blockDim.x + threadIdx.x) / WARP;
    int lane = threadIdx.x % WARP;
    if (b >= in.batch) return;

    int64_t first, last, active = 0, outside = 0;
    bool well = extent_of(in, b, &first, &last);
    sb_sum sum;
    sb_sum_init(&sum);
    for (int64_t row = first + lane; row < last; row += WARP) {
        if (in.tokens) sb_sum_add(&sum, ((const float *)in.tokens)[row]);
        if (!in.count && !in.outside) continue;
        const int64_t id = int_at(in.ids, in.ids_dtype, row);
        if (!is_active(in, row, id) || !is_listed(in, row)) continue;
        active++;
        if (in.outside && id >= 0 && id < in.vocab) outside += !is_kept(in, row, id);
    }
    for (int step = WARP / 2; step > 0; step /= 2) {
        sb_u128 other = (sb_u128)__shfl_xor_sync(FULL, (uint64_t)(sum.magnitude >> 64), step) << 64;
        other |= __shfl_xor_sync(FULL, (uint64_t)sum.magnitude, step);
        sum.magnitude += other;
        active += __shfl_xor_sync(FULL, active, step);
        outside += __shfl_xor_sync(FULL, outside, step);
    }
    sum.nan = __any_sync(FULL, sum.nan);
    sum.inf = __any_sync(FULL, sum.inf);
    if (lane != 0) return;
    if (!well) report(in, SB_BAD_CU_SEQLENS, b);
    if (in.sequence) ((float *)in.sequence)[b] = well ? sb_sum_round(&sum) : sb_float(SB_NAN_BITS);
    if (in.count) ((int64_t *)in.count)[b] = active;
    if (in.outside) ((int64_t *)in.outside)[b] = outside;
}
