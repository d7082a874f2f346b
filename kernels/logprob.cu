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
 *     entropy_<dtype>, entropy_<dtype>_kept, entropy_finish
 *                                the same as those without _latency and _cluster, for logprob, lse
 *                                and entropy; the states are sb_moments.
 *     sequence_sums              one warp per sequence; the grid covers batch * WARP threads. */
#include "finish.cuh"
#include "groups.cuh"
#include "kept.cuh"
#include "latency.cuh"
#include "leaf.cuh"
#include "moments.cuh"
#include "piece.cuh"
#include "table_rows.cuh"
#include "unaligned.cuh"

/* ---- many rows ---------------------------------------------------------------------------- */

/* A block's part of the work: a whole row, or a piece of one. It is kept in shared memory, so that
 * no thread holds it in registers through the hot loop. */
struct block_part {
    int64_t place;  /* of the state, in in.states; -1: the block finishes the row itself */
    int32_t target; /* of the row, in in.targets */
    int first, last;
};

/* Sets the row and the part of it that block number `number`, or a group in its place, takes.
 * Called by one thread. */
SB_DET void set_block_part(const sb_cuda_args &in, block_row *mine, block_part *part,
                           int64_t number)
{
    const int64_t whole = in.whole + in.single;
    const int leaves = leaves_in(in.vocab);
    int64_t item = number;
    part->place = number < in.whole ? -1 : number - in.whole;
    part->first = 0;
    part->last = leaves;
    if (number >= whole) { /* a grid has fewer than 2^31 blocks */
        const uint32_t j = (uint32_t)(number - whole), split = (uint32_t)in.split;
        part->first = (int)(j % split * (uint32_t)in.piece);
        part->last = min(part->first + (int)in.piece, leaves);
        item = whole + j / split;
    }
    part->target = (int32_t)(item - in.whole);
    set_block_row(in, mine, item, part->first == 0);
}

/* THREAD is a thread's sum: thread_state, or thread_moments for the entropy. */
template <int DTYPE, class THREAD> SB_DET void logprob_block(const sb_cuda_args &in)
{
    constexpr int SIZE = size_of<DTYPE>();
    typedef decltype(THREAD::s) state;
    __shared__ block_row mine;
    __shared__ block_part piece;
    __shared__ state shared[32];
    __shared__ uint32_t word; /* holds the target's logit */
    part_of_row part;
    THREAD t;

    if (threadIdx.x == WARP && in.ahead && blockIdx.x + in.ahead < in.work && !in.row_list)
        prefetch((const char *)in.ids +
                 row_at(in, blockIdx.x + in.ahead) * (in.ids_dtype == SB_CUDA_I64 ? 8 : 4));
    if (threadIdx.x == 0) set_block_part(in, &mine, &piece, blockIdx.x);
    __syncthreads(); /* mine and piece are written */
    if (mine.done) {
        if (piece.place >= 0 && threadIdx.x == 0) { /* logprob_finish reads before it knows */
            make_none(&((state *)in.states)[piece.place]);
            if (piece.first == 0) write_target(in, piece.target, 0.0f, 0);
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
        ((state *)in.states)[piece.place] = t.s;
        if (owner) write_target(in, piece.target, x, 1);
    }
}

/* 40 registers allow 48 warps per multiprocessor, 64 with moments allow 32. */
#define KERNELS(name, DTYPE)                                                                       \
    extern "C" __global__ void __launch_bounds__(512, 3)                                           \
        logprob_##name(const __grid_constant__ sb_cuda_args in)                                    \
    {                                                                                              \
        logprob_block<DTYPE, thread_state>(in);                                                    \
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
    }                                                                                              \
    extern "C" __global__ void __launch_bounds__(512, 2)                                           \
        entropy_##name(const __grid_constant__ sb_cuda_args in)                                    \
    {                                                                                              \
        logprob_block<DTYPE, thread_moments>(in);                                                  \
    }
KERNELS(f32, SB_CUDA_F32)
KERNELS(f16, SB_CUDA_F16)
KERNELS(bf16, SB_CUDA_BF16)

/* ---- many rows, with a table -------------------------------------------------------------- */

/* Compute capability 9.0: earlier GPUs have too little shared memory. */
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
#define TABLE_KERNEL(name, DTYPE, SHAPE, AHEAD)                                                    \
    extern "C" __global__ void __launch_bounds__(SB_CUDA_##SHAPE##_BLOCK, 1)                       \
        logprob_##name(const __grid_constant__ sb_cuda_args in)                                    \
    {                                                                                              \
        logprob_table<DTYPE, SB_CUDA_##SHAPE##_GROUP, AHEAD>(in);                                  \
    }
#define UNALIGNED_KERNEL(name, DTYPE)                                                              \
    extern "C" __global__ void __launch_bounds__(SB_CUDA_TABLE_BLOCK, 1)                           \
        logprob_##name##_unaligned(const __grid_constant__ sb_cuda_args in)                        \
    {                                                                                              \
        logprob_unaligned<DTYPE>(in);                                                              \
    }
#else
#define TABLE_KERNEL(name, DTYPE, SHAPE, AHEAD)                                                    \
    extern "C" __global__ void logprob_##name(const __grid_constant__ sb_cuda_args) {}
#define UNALIGNED_KERNEL(name, DTYPE)                                                              \
    extern "C" __global__ void logprob_##name##_unaligned(const __grid_constant__ sb_cuda_args) {}
#endif
TABLE_KERNEL(f16_table, SB_CUDA_F16, TABLE, 1)
TABLE_KERNEL(bf16_table, SB_CUDA_BF16, TABLE, 1)
TABLE_KERNEL(bf16_table_deep, SB_CUDA_BF16, DEEP, 2)
UNALIGNED_KERNEL(f16, SB_CUDA_F16)
UNALIGNED_KERNEL(bf16, SB_CUDA_BF16)

/* The policy of entropy_bf16_table: see groups.cuh. entropy_finish finishes all rows. */
struct entropy_groups {
    typedef sb_cuda_args args;
    typedef sb_moments state;
    static constexpr int THREADS = SB_CUDA_TABLE_GROUP, SLOTS = 32;
    static constexpr int GROUPS = SB_CUDA_TABLE_BLOCK / THREADS;
    static constexpr size_t MEMORY = TABLE_NEGATIVE - SB_CUDA_BF16_TABLE_GAP;
    static constexpr int BYTES = SB_LEAF * 2; /* of a leaf */
    struct item {
        const char *logits;
        int64_t place; /* of the state, in in.states */
        int32_t first, last;
    };
    struct ahead { /* the thread's next leaf, and where it lies */
        leaf_words<SB_CUDA_BF16> x;
        const char *p;
        int trips;
    };
    SB_DET void find(const args &in, item *to, int64_t i)
    {
        block_row row;
        block_part part;
        set_block_part(in, &row, &part, i);
        to->place = part.place;
        to->first = part.first;
        to->last = row.done ? part.first : part.last;
        to->logits = row.logits;
        if (part.first != 0) return;
        if (row.done) write_target(in, part.target, 0.0f, 0);
        else write_target(in, part.target, load_one<SB_CUDA_BF16>(row.logits, row.id), 1);
    }
    SB_DET void begin(ahead *to, const args &in, const item &it)
    {
        const int first = it.first + threadIdx.x % THREADS;
        to->trips = trips_of(first, min(it.last, (int)(in.vocab / SB_LEAF)), THREADS);
        to->p = it.logits + (int64_t)first * BYTES;
        if (to->trips > 0) load_leaf<SB_CUDA_BF16, 0>(to->x, to->p);
    }
    SB_DET void sum(state *s, ahead *next, const args &in, const item &it, const item *after,
                    float c, shared_address table)
    {
        const leaf_row row = { c, in.row.k64 };
        thread_moments t;
        bool left = false;
        t.base = NO_BASE;
        begin_sum(&t, c);
        int trips = next->trips;
        const char *p = next->p;
        for (; trips > 1; trips--) {
            p += THREADS * BYTES;
            hide(p); /* so that no copy of the old address is kept */
            add_looked_up(&t, next->x, row, &left, table,
                          [&] { load_leaf<SB_CUDA_BF16, 0>(next->x, p); });
        }
        auto begin_after = [&] {
            if (after) begin(next, in, *after);
        };
        if (trips > 0) add_looked_up(&t, next->x, row, &left, table, begin_after);
        else begin_after();
        end_sum(&t);
        *s = t.s;
        if (left || has_ragged_leaf(it.first, it.last, in.vocab, THREADS)) {
            const part_of_row part = { it.logits, in.vocab, it.first, it.last };
            sb_moments into = t.s; /* whose address may be taken */
            add_not_looked_up(&into, part, in.row, it.first + (int)(threadIdx.x % THREADS),
                              THREADS);
            *s = into;
        }
    }
    SB_DET state *place_of(const args &in, const item &it) { return (state *)in.states + it.place; }
};

extern "C" __global__ void __launch_bounds__(SB_CUDA_TABLE_BLOCK, 1)
    entropy_bf16_table(const __grid_constant__ sb_cuda_args in)
{
    group_rows<entropy_groups>(in);
}

/* ---- kept sets ---------------------------------------------------------------------------- */

template <int DTYPE, class STATE> struct kept_rows {
    typedef sb_cuda_args args;
    typedef STATE state;
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
        make_none(s);
        sum_in(s)->c = sb_bits32(mine.row.c);
        add_kept<DTYPE>(s, in, mine.number, part, 0, mine.row);
    }
    SB_DET void beside(const args &in, const row &mine, int64_t item)
    {
        write_target(in, item, kept_logit<DTYPE>(in, mine.number, mine.logits, mine.id), 1);
    }
    SB_DET void finish(const args &, const row &, const state &) {}
};

#define KEPT(name, DTYPE)                                                                          \
    extern "C" __global__ void __launch_bounds__(512)                                              \
        logprob_##name##_kept(const __grid_constant__ sb_cuda_args in)                             \
    {                                                                                              \
        piece_block<kept_rows<DTYPE, sb_state>>(in);                                               \
    }                                                                                              \
    extern "C" __global__ void __launch_bounds__(512)                                              \
        entropy_##name##_kept(const __grid_constant__ sb_cuda_args in)                             \
    {                                                                                              \
        piece_block<kept_rows<DTYPE, sb_moments>>(in);                                             \
    }
KEPT(f32, SB_CUDA_F32)
KEPT(f16, SB_CUDA_F16)
KEPT(bf16, SB_CUDA_BF16)

/* ---- rows in pieces ----------------------------------------------------------------------- */

/* Merges the pieces of a row, of type STATE, and finishes it. */
template <class STATE> SB_DET void finish_item(const sb_cuda_args &in)
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
    const STATE *pieces = (const STATE *)in.states + span.first;
    STATE s;
    make_none(&s);
    for (int p = lane; p < span.count; p += WARP) merge_into(&s, pieces[p]);
    if (!target.active) return;
    const sb_row row = constants_of(in, in.temperatures ? ((const float *)in.temperatures)[number]
                                                        : 1.0f);
    warp_merge(&s);
    finish_row(in, number, s, target.x, row);
}

extern "C" __global__ void __launch_bounds__(256)
    logprob_finish(const __grid_constant__ sb_cuda_args in)
{
    finish_item<sb_state>(in);
}

extern "C" __global__ void __launch_bounds__(256)
    entropy_finish(const __grid_constant__ sb_cuda_args in)
{
    finish_item<sb_moments>(in);
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
        if (!in.outside || id < 0 || id >= in.vocab) continue;
        outside += in.strays ? ((const uint8_t *)in.strays)[row] : !is_kept(in, row, id);
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
