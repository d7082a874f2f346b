/* order.cu - logprobs and ranks of several ids per row, and the first k ids of each row.
 *
 *   det/order.h gives each (logit, id) a place. The first k ids are those with the k largest
 *   places; the rank of an id is the number of larger places.
 *
 * Shapes: ids [rows][width]; lists [work][SB_CUDA_LIST]; everything else in src/cuda/args.h.
 *
 * The sum is reduced as in logprob_<dtype>_kept. Besides, each warp keeps the largest places that
 * it has met, in order, two per lane. It goes through a leaf a second time if the leaf's largest
 * logit may be among them:
 *
 *     leaves -> warp's list -> block's -> topk_finish
 *
 *     ids_<dtype>        grid work * split, blocks of a multiple of 32 threads up to 512: writes
 *                        the states, and the fate of each row (ROW_* in row.cuh).
 *     ids_finish         one warp per item: writes logprobs and lse, and rank -1 for ids without a
 *                        rank.
 *     ids_ranks_<dtype>  after ids_finish; one block for SB_CUDA_RANKS ids of an item: counts
 *                        their ranks in one read of the row.
 *     topk_<dtype>       one block per item, which also writes the list.
 *     topk_finish        one warp per item: writes the outputs.
 *
 * If rows are few, kernels/sample.cu sums them in parts instead:
 *
 *     topk_pick_<dtype>  one block of up to SB_CUDA_PICK threads per item: picks the first k ids
 *                        from the parts (pick.cuh), and writes the outputs. */
#include "finish.cuh"
#include "first.cuh"
#include "leaf.cuh"
#include "pick.cuh"
#include "piece.cuh"

/* ---- sums, and lists beside them ---------------------------------------------------------- */

/* Sums a thread's leaves of a row with a kept set, and returns what see returns at the end. A
 * function of its own, so that other rows' code keeps its registers. */
template <int DTYPE, class SEE>
static __device__ __noinline__ SEE sum_kept(sb_state *s, const sb_cuda_args *in, int64_t number,
                                            part_of_row part, sb_row row, SEE see)
{
    for (int k = part.first + threadIdx.x; k < part.last; k += blockDim.x) {
        float y[SB_LEAF], m = sb_float(SB_ABSENT_BITS);
        if (read_kept<DTYPE>(y, *in, number, part, 0, k)) {
            add_any(s, y, row);
#pragma unroll
            for (int i = 0; i < SB_LEAF; i++) m = fmaxf(m, y[i]);
        }
        see(m);
    }
    return see;
}

/* Sums a thread's leaves of a part; see gets the largest logit of each, in order. */
template <int DTYPE, class SEE>
SB_DET void sum_any(sb_state *s, const sb_cuda_args &in, const any_row &mine,
                    const part_of_row &part, SEE &see)
{
    if (in.kept) {
        sb_state into; /* whose address may be taken */
        sb_state_init(&into, mine.row.c);
        see = sum_kept<DTYPE>(&into, &in, mine.number, part, mine.row, see);
        *s = into;
    } else {
        thread_state t;
        sum_part<DTYPE>(&t, part, mine.row, see);
        *s = t.s;
    }
}

template <int DTYPE, bool TOPK> SB_DET void order_block(const sb_cuda_order_args &a)
{
    const sb_cuda_args &in = a.in;
    __shared__ any_row mine;
    __shared__ sb_state shared[32];
    const uint32_t split = (uint32_t)in.split;
    sb_state s;

    if (threadIdx.x == 0) {
        const int64_t item = blockIdx.x / split;
        const bool reports = blockIdx.x % split == 0;
        set_any_row(in, &mine, item, reports);
        if (reports) write_target(in, item, 0.0f, mine.fate);
    }
    __syncthreads(); /* mine is written */
    if (mine.fate != ROW_ACTIVE) return;

    part_of_row part = piece_of_row(in, mine.logits, in.vocab, (int)(blockIdx.x % split));
    if constexpr (TOPK) {
        auto see = watch_leaves<DTYPE>();
        sum_any<DTYPE>(&s, in, mine, part, see);
        begin_dependents();
        block_merge(&s, shared);
        if (threadIdx.x == 0) ((sb_state *)in.states)[blockIdx.x] = s;
        part = piece_of_row(in, mine.logits, in.vocab, (int)(blockIdx.x % split));
        write_first<DTYPE>((uint64_t *)a.lists + (int64_t)blockIdx.x * SB_CUDA_LIST, &in,
                           mine.number, part, see.most, a.k);
    } else {
        sees_nothing nothing;
        sum_any<DTYPE>(&s, in, mine, part, nothing);
        begin_dependents();
        block_merge(&s, shared);
        if (threadIdx.x == 0) ((sb_state *)in.states)[blockIdx.x] = s;
    }
}

/* ---- several ids -------------------------------------------------------------------------- */

#define RANKS SB_CUDA_RANKS

/* Ids whose ranks a block counts in one read of their row. A logit counts if it reaches a bound: at
 * in the leaves before the id's own, above in those behind it. Of the id's own leaf, logits count
 * as count_before says. */
struct ranked_ids {
    int64_t id[RANKS];
    float at[RANKS], above[RANKS]; /* +inf, which no logit reaches, if the entry has no rank */
    int32_t own[RANKS];            /* the id's leaf; -1 if the id is absent: all present count */
};

/* Sets entry i. x: the id's logit. */
SB_DET void set_ranked(ranked_ids *r, int i, int64_t id, float x, bool scored)
{
    const bool absent = sb_is_absent(x);
    r->id[i] = id;
    r->own[i] = scored && !absent ? (int32_t)(id / SB_LEAF) : -1;
    r->at[i] = scored ? x : sb_float(SB_INF_BITS);
    /* the next place's logit */
    r->above[i] = scored ? sb_place_logit((uint64_t)(sb_order_key(x) + 1) << 32)
                         : sb_float(SB_INF_BITS);
}

/* The number of ids of a leaf that come before id, whose logit is x. first: the leaf's first id. */
SB_DET int32_t count_before(const float y[SB_LEAF], int64_t first, int64_t id, float x)
{
    int32_t count = 0;
#pragma unroll
    for (int i = 0; i < SB_LEAF; i++) count += y[i] > x || (y[i] == x && first + i < id);
    return count;
}

/* Adds a leaf's ids to the counts. */
SB_DET void count_leaf(int32_t count[RANKS], const float y[SB_LEAF], int leaf, const ranked_ids &r)
{
    float m = y[0];
#pragma unroll
    for (int i = 1; i < SB_LEAF; i++) m = fmaxf(m, y[i]);
#pragma unroll
    for (int n = 0; n < RANKS; n++) {
        const float bound = leaf <= r.own[n] ? r.at[n] : r.above[n];
        if (!(m >= bound)) continue;
        if (leaf == r.own[n]) {
            count[n] += count_before(y, (int64_t)leaf * SB_LEAF, r.id[n], bound);
            continue;
        }
#pragma unroll
        for (int i = 0; i < SB_LEAF; i++) count[n] += y[i] >= bound;
    }
}

template <int DTYPE>
SB_DET void count_leaves(int32_t count[RANKS], const sb_cuda_args &in, int64_t row,
                         const part_of_row &part, const ranked_ids &r)
{
    if (in.kept) {
        for (int k = threadIdx.x; k < part.last; k += blockDim.x) {
            float y[SB_LEAF];
            if (read_kept<DTYPE>(y, in, row, part, 0, k)) count_leaf(count, y, k, r);
        }
        return;
    }
    at_alignment<DTYPE>((uint32_t)(uint64_t)part.logits & 15, [&](auto shift) {
        for (int k = threadIdx.x; k < part.last; k += blockDim.x) {
            const char *p = part.logits + (int64_t)k * SB_LEAF * size_of<DTYPE>();
            leaf_words<DTYPE> x;
            float y[SB_LEAF];
            load_at<DTYPE, decltype(shift)::value>(x, p, part.vocab - (int64_t)k * SB_LEAF);
#pragma unroll
            for (int i = 0; i < SB_LEAF; i++) y[i] = unpack<DTYPE>(x, i);
            count_leaf(count, y, k, r);
        }
    });
}

template <int DTYPE> SB_DET void count_ranks(const sb_cuda_order_args &a)
{
    const sb_cuda_args &in = a.in;
    __shared__ int32_t counts[32][RANKS];
    __shared__ ranked_ids ranked;
    const uint32_t groups = (uint32_t)((in.width + RANKS - 1) / RANKS);
    const int64_t item = blockIdx.x / groups, first = blockIdx.x % groups * RANKS;
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    if (((const sb_cuda_target *)in.targets)[item].active != ROW_ACTIVE) return;
    const int64_t row = row_at(in, item), at = row * in.width + first + threadIdx.x;

    part_of_row part = piece_of_row(in, logits_of(in, row), in.vocab, 0);
    part.first = 0;
    part.last = leaves_in(in.vocab); /* the whole row, not only piece 0 */
    bool scored = false;
    if (threadIdx.x < RANKS) {
        float x = 0.0f;
        int64_t id = in.ignore_index;
        if (first + threadIdx.x < in.width) id = int_at(in.ids, in.ids_dtype, at);
        scored = first + threadIdx.x < in.width && id != in.ignore_index;
        if (scored) x = kept_logit<DTYPE>(in, row, part.logits, id);
        set_ranked(&ranked, threadIdx.x, id, x, scored);
    }
    __syncthreads(); /* ranked is written */
    int32_t count[RANKS] = { 0 };
    count_leaves<DTYPE>(count, in, row, part, ranked);
#pragma unroll
    for (int n = 0; n < RANKS; n++) {
        count[n] = __reduce_add_sync(FULL, count[n]);
        if (lane == 0) counts[warp][n] = count[n];
    }
    __syncthreads(); /* every warp's counts are in counts */
    if (!scored) return;
    int32_t rank = 0;
    for (int w = 0; w < (int)blockDim.x / WARP; w++) rank += counts[w][threadIdx.x];
    ((int32_t *)a.integers)[at] = rank;
}

/* Writes a row's logprobs and lse, and rank -1 for ids that have no rank. ids_ranks_<dtype> counts
 * the other ranks next. */
extern "C" __global__ void __launch_bounds__(256)
    ids_finish(const __grid_constant__ sb_cuda_order_args a)
{
    const sb_cuda_args &in = a.in;
    const int64_t item = warp_item();
    const int lane = threadIdx.x % WARP;
    wait_for_primary();
    if (item >= in.work) return;
    sb_cuda_target *target = (sb_cuda_target *)in.targets + item;
    int32_t fate = target->active;
    if (fate == ROW_UNKNOWN) return;
    const int64_t row = row_at(in, item);
    sb_row constants;
    sb_state s;
    sb_lg sum;
    if (fate == ROW_ACTIVE) {
        merge_pieces(&s, pieces_of<sb_state>(in, item), in.split);
        constants = constants_of(in,
                                 in.temperatures ? ((const float *)in.temperatures)[row] : 1.0f);
        if (sb_state_is_nan(&s)) fate = ROW_NAN;
        else sum = sb_sum_log(&s);
    }
    __syncwarp(); /* every lane has read the target */
    if (lane == 0) {
        target->active = fate;
        if (in.lse)
            ((float *)in.lse)[row] = fate == ROW_ACTIVE ? sb_lse_of(sum, &constants)
                                                        : nan_or_nothing(fate);
    }
    for (int64_t i = lane; i < in.width; i += WARP) {
        const int64_t at = row * in.width + i, id = int_at(in.ids, in.ids_dtype, at);
        const bool scored = fate == ROW_ACTIVE && id != in.ignore_index;
        if (a.integers && !scored) ((int32_t *)a.integers)[at] = -1;
        if (!a.logprobs) continue;
        ((float *)a.logprobs)[at] =
            scored
                ? sb_logprob_beside(sum, logit_of_id(in, row, logits_of(in, row), id), &constants)
            : id == in.ignore_index ? 0.0f
                                    : nan_or_nothing(fate);
    }
}

/* ---- the first k -------------------------------------------------------------------------- */

/* Writes the outputs of a row, of which every lane of the calling warp has the sum and the list, if
 * it is active. */
SB_DET void write_topk(const sb_cuda_order_args &a, int64_t item, int32_t fate, const sb_state &s,
                       const place_list &best)
{
    const sb_cuda_args &in = a.in;
    const int lane = threadIdx.x % WARP;
    const int64_t row = row_at(in, item);
    sb_row constants;
    sb_lg sum;
    if (fate == ROW_ACTIVE) {
        constants = constants_of(in,
                                 in.temperatures ? ((const float *)in.temperatures)[row] : 1.0f);
        if (sb_state_is_nan(&s)) fate = ROW_NAN;
        else sum = sb_sum_log(&s);
    }
    if (lane == 0 && in.lse)
        ((float *)in.lse)[row] = fate == ROW_ACTIVE ? sb_lse_of(sum, &constants)
                                                    : nan_or_nothing(fate);
    for (int i = lane; i < a.k; i += WARP) {
        const uint64_t place = fate == ROW_ACTIVE ? (i < WARP ? best.low : best.high) : SB_NO_PLACE;
        const int64_t at = row * a.k + i;
        if (a.integers) ((int32_t *)a.integers)[at] = place ? sb_place_id(place) : -1;
        if (a.logprobs)
            ((float *)a.logprobs)[at] = place ? sb_logprob_beside(sum, sb_place_logit(place),
                                                                  &constants)
                                        : fate == ROW_ACTIVE ? sb_float(SB_ABSENT_BITS)
                                                             : nan_or_nothing(fate);
    }
}

extern "C" __global__ void __launch_bounds__(256)
    topk_finish(const __grid_constant__ sb_cuda_order_args a)
{
    const sb_cuda_args &in = a.in;
    const int64_t item = warp_item();
    place_list best = empty_list();
    sb_state s;
    wait_for_primary();
    if (item >= in.work) return;
    const int32_t fate = ((const sb_cuda_target *)in.targets)[item].active;
    if (fate == ROW_UNKNOWN) return;
    if (fate == ROW_ACTIVE) {
        s = ((const sb_state *)in.states)[item];
        best = load_list((const uint64_t *)a.lists + item * SB_CUDA_LIST);
    }
    write_topk(a, item, fate, s, best);
}

template <int DTYPE> SB_DET void pick_block(const sb_cuda_order_args &a)
{
    const sb_cuda_args &in = a.in;
    __shared__ pick_room room;
    __shared__ uint64_t places[SB_CUDA_LIST];
    __shared__ sb_state states[PICK_WARPS];
    __shared__ pick_row row;
    const int64_t item = blockIdx.x;
    place_list best = empty_list();
    sb_state s;
    wait_for_primary();
    const int32_t fate = ((const sb_cuda_target *)in.targets)[item].active;
    if (fate == ROW_UNKNOWN) return;
    if (fate == ROW_ACTIVE) {
        const float *mosts = (const float *)a.mosts + item * a.parts;
        if (threadIdx.x == blockDim.x - 1) {
            const int64_t number = row_at(in, item);
            row = { logits_of(in, number),
                    number,
                    a.parts,
                    a.part,
                    mosts,
                    (const sb_state *)in.states + item * a.parts };
        }
        write_keys(mosts, a.parts, &room);
        __syncthreads(); /* the row and the keys are written */
        pick_first<DTYPE>(places, states, in, row, a.k, &room);
    }
    if (threadIdx.x >= WARP) return;
    if (fate == ROW_ACTIVE) {
        merge_pieces(&s, states, blockDim.x / WARP - 1);
        best = load_list(places);
    }
    write_topk(a, item, fate, s, best);
}

#define ORDER(name, DTYPE)                                                                         \
    extern "C" __global__ void __launch_bounds__(512, 3)                                           \
        ids_##name(const __grid_constant__ sb_cuda_order_args a)                                   \
    {                                                                                              \
        order_block<DTYPE, false>(a);                                                              \
    }                                                                                              \
    extern "C" __global__ void __launch_bounds__(512)                                              \
        ids_ranks_##name(const __grid_constant__ sb_cuda_order_args a)                             \
    {                                                                                              \
        count_ranks<DTYPE>(a);                                                                     \
    }                                                                                              \
    extern "C" __global__ void __launch_bounds__(512, 3)                                           \
        topk_##name(const __grid_constant__ sb_cuda_order_args a)                                  \
    {                                                                                              \
        order_block<DTYPE, true>(a);                                                               \
    }                                                                                              \
    extern "C" __global__ void __launch_bounds__(SB_CUDA_PICK)                                     \
        topk_pick_##name(const __grid_constant__ sb_cuda_order_args a)                             \
    {                                                                                              \
        pick_block<DTYPE>(a);                                                                      \
    }
ORDER(f32, SB_CUDA_F32)
ORDER(f16, SB_CUDA_F16)
ORDER(bf16, SB_CUDA_BF16)
