/* logprob.cu - token logprob and lse from logits, with or without a kept set or the entropy.
 *
 *   token[r] = ln p(id_r), entropy[r] = -sum_i p_i ln p_i, as docs/numerics.md defines them
 *
 * Shapes: logits [B, T, V] or [N, V], fp32, fp16 or bf16, any alignment; everything else in
 * src/cuda/args.h.
 *
 * The reduction. A thread adds every blockDim-th leaf (16 ids) of its piece of a row to a state of
 * exact integers. States merge by integer sums:
 *
 *     leaves -> thread's state -> warp (redux) -> block (shared) -> [pieces] -> finish
 *
 * The result does not depend on any order, so every launch gives the same bits:
 *
 *     logprob_<dtype>            blocks of a multiple of WARP threads, up to 512. Each of the first
 *                                in.whole rows has one block, which finishes the row itself. Each
 *                                other row has in.split blocks; they write states [row][piece] and
 *                                targets [row] for logprob_finish.
 *     logprob_<dtype>_latency    the same with in.whole 0, and with one warp that sums no leaves:
 *                                see latency.cuh.
 *     logprob_<dtype>_cluster    the same in clusters of in.split blocks, 2 .. 16, which finish
 *                                their rows themselves. Compute capability 9.0.
 *     logprob_<dtype>_kept       rows with kept sets: piece.cuh, always with logprob_finish.
 *     logprob_finish             one warp per item; the grid covers WARP threads per item.
 *     entropy_<dtype>            logprob, lse and entropy, with kept sets if there are any:
 *                                piece.cuh.
 *     entropy_finish             one warp per item, like logprob_finish.
 *     sequence_sums              one warp per sequence; the grid covers batch * WARP threads. */
#include "finish.cuh"
#include "kept.cuh"
#include "latency.cuh"
#include "leaf.cuh"
#include "moments.cuh"
#include "piece.cuh"
#include "table_rows.cuh"

/* ---- many rows ---------------------------------------------------------------------------- */

/* A block's part of the work: a whole row, or a piece of one. It is kept in shared memory, so that
 * no thread holds it in registers through the hot loop. */
struct block_part {
    int64_t place; /* of the piece, in in.states; -1: a whole row */
    int first, last;
};

/* Sets the row and the part of it that a block takes. Called by one thread. */
SB_DET void set_block_part(const sb_cuda_args &in, block_row *mine, block_part *part)
{
    const uint32_t whole = (uint32_t)in.whole, split = in.split, j = blockIdx.x - whole;
    const int leaves = leaves_in(in.vocab);
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
    constexpr int SIZE = size_of<DTYPE>();
    __shared__ block_row mine;
    __shared__ block_part piece;
    __shared__ sb_state shared[32];
    __shared__ uint32_t word; /* holds the target's logit */
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

/* 40 registers allow 48 warps per multiprocessor. */
#define KERNELS(name, DTYPE)                                                                       \
    extern "C" __global__ void __launch_bounds__(512, 3)                                           \
        logprob_##name(const __grid_constant__ sb_cuda_args in)                                    \
    {                                                                                              \
        logprob_block<DTYPE>(in);                                                                  \
    }                                                                                              \
    extern "C" __global__ void __launch_bounds__(1024, 1)                                          \
        logprob_##name##_latency(const __grid_constant__ sb_cuda_args in)                          \
    {                                                                                              \
        logprob_latency<DTYPE>(in);                                                                \
    }                                                                                              \
    extern "C" __global__ void __launch_bounds__(1024, 1)                                          \
        logprob_##name##_cluster(const __grid_constant__ sb_cuda_args in)                          \
    {                                                                                              \
        logprob_cluster<DTYPE>(in);                                                                \
    }
KERNELS(f32, SB_CUDA_F32)
KERNELS(f16, SB_CUDA_F16)
KERNELS(bf16, SB_CUDA_BF16)

/* ---- many rows, with a table -------------------------------------------------------------- */

/* Compute capability 9.0: earlier GPUs have too little shared memory. */
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
#define TABLE_KERNEL(name, DTYPE)                                                                  \
    extern "C" __global__ void __launch_bounds__(SB_CUDA_TABLE_BLOCK, 1)                           \
        logprob_##name##_table(const __grid_constant__ sb_cuda_args in)                            \
    {                                                                                              \
        logprob_table<DTYPE>(in);                                                                  \
    }
#else
#define TABLE_KERNEL(name, DTYPE)                                                                  \
    extern "C" __global__ void logprob_##name##_table(const __grid_constant__ sb_cuda_args) {}
#endif
TABLE_KERNEL(f16, SB_CUDA_F16)
TABLE_KERNEL(bf16, SB_CUDA_BF16)

/* ---- kept sets ---------------------------------------------------------------------------- */

template <int DTYPE> struct kept_rows {
    typedef sb_cuda_args args;
    typedef sb_state state;
    typedef block_row row;
    static constexpr bool FINISHES = false;
    SB_DET void find(const args &in, row *mine, int64_t item, bool writes)
    {
        set_block_row(in, mine, item, writes);
    }
    SB_DET bool done(const row &mine) { return mine.done; }
    SB_DET void skip(const args &in, const row &, int64_t item) { write_target(in, item, 0.0f, 0); }
    SB_DET int64_t held(const args &in) { return in.vocab; }
    SB_DET void sum(state *s, const args &in, const row &mine, const part_of_row &part)
    {
        sb_state_init(s, mine.row.c);
        add_kept<DTYPE>(s, in, mine.number, part, 0, mine.row);
    }
    SB_DET void beside(const args &in, const row &mine, int64_t item)
    {
        write_target(in, item, kept_logit<DTYPE>(in, mine.number, mine.logits, mine.id), 1);
    }
    SB_DET void finish(const args &, const row &, const state &) {}
};

/* ---- entropy ------------------------------------------------------------------------------ */

template <int DTYPE> struct entropy_rows {
    typedef sb_cuda_args args;
    typedef sb_moments state;
    typedef block_row row;
    static constexpr bool FINISHES = true;
    SB_DET void find(const args &in, row *mine, int64_t item, bool writes)
    {
        set_block_row(in, mine, item, writes);
    }
    SB_DET bool done(const row &mine) { return mine.done; }
    SB_DET void skip(const args &, const row &, int64_t) {}
    SB_DET int64_t held(const args &in) { return in.vocab; }
    SB_DET void sum(state *s, const args &in, const row &mine, const part_of_row &part)
    {
        sum_moments<DTYPE>(s, in, mine, part, 0);
    }
    SB_DET void beside(const args &, const row &, int64_t) {}
    SB_DET void finish(const args &in, const row &mine, const state &s)
    {
        finish_row(in, mine.number, s, kept_logit<DTYPE>(in, mine.number, mine.logits, mine.id),
                   mine.row);
    }
};

#define PIECES(name, DTYPE)                                                                        \
    extern "C" __global__ void __launch_bounds__(512)                                              \
        logprob_##name##_kept(const __grid_constant__ sb_cuda_args in)                             \
    {                                                                                              \
        piece_block<kept_rows<DTYPE>>(in);                                                         \
    }                                                                                              \
    extern "C" __global__ void __launch_bounds__(512, 1)                                           \
        entropy_##name(const __grid_constant__ sb_cuda_args in)                                    \
    {                                                                                              \
        piece_block<entropy_rows<DTYPE>>(in);                                                      \
    }
PIECES(f32, SB_CUDA_F32)
PIECES(f16, SB_CUDA_F16)
PIECES(bf16, SB_CUDA_BF16)

/* ---- rows in pieces ----------------------------------------------------------------------- */

/* Merges the pieces of a row and finishes it. */
extern "C" __global__ void __launch_bounds__(256)
    logprob_finish(const __grid_constant__ sb_cuda_args in)
{
    const int64_t item = warp_item();
    const int lane = threadIdx.x % WARP;
    begin_dependents();
    wait_for_primary();
    if (in.whole + item >= in.work) return;

    /* all loads at once: none depends on another's value */
    const sb_cuda_target target = ((const sb_cuda_target *)in.targets)[item];
    const int64_t number = row_at(in, in.whole + item);
    const span_of_states span = states_of(in, item);
    const sb_state *pieces = (const sb_state *)in.states + span.first;
    sb_state s;
    make_none(&s);
    for (int p = lane; p < span.count; p += WARP) merge_into(&s, pieces[p]);
    if (!target.active) return;
    const sb_row row = constants_of(in, in.temperatures ? ((const float *)in.temperatures)[number]
                                                        : 1.0f);
    warp_merge(&s);
    finish_row(in, number, s, target.x, row);
}

/* The same for entropy_<dtype>. */
extern "C" __global__ void __launch_bounds__(256)
    entropy_finish(const __grid_constant__ sb_cuda_args in)
{
    const int64_t item = warp_item();
    if (item >= in.work) return;
    const sb_moments *pieces = pieces_of<sb_moments>(in, item);
    if (pieces[0].sum.c == 0) return; /* the row's outputs are written */
    const int64_t number = row_at(in, item);
    const row_of_call r = resolve(in, number);
    const sb_row row = constants_of(in, r.tau);
    sb_moments m;
    merge_pieces(&m, pieces, in.split);
    finish_row(in, number, m, logit_of_id(in, number, r.logits, r.id), row);
}

/* ---- sequences ---------------------------------------------------------------------------- */

/* Sums a sequence's tokens exactly, and counts the active ones and those outside their kept
 * sets. */
extern "C" __global__ void __launch_bounds__(256)
    sequence_sums(const __grid_constant__ sb_cuda_args in)
{
    const int64_t b = warp_item();
    const int lane = threadIdx.x % WARP;
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
