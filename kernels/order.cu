/* order.cu - logprobs and ranks of several ids per row, and the first k ids of each row.
 *
 *   det/order.h gives each (logit, id) a place. The first k ids are those with the k largest
 *   places; the rank of an id is the number of larger places.
 *
 * Shapes: ids [rows][width]; lists [work][split][SB_CUDA_LIST]; everything else in src/cuda/args.h.
 *
 * The sum is reduced as in logprob_<dtype>_kept. Besides, each warp keeps the largest places that
 * it has met, in order, two per lane. It goes through a leaf a second time if the leaf's largest
 * logit may be among them:
 *
 *     leaves -> warp's list -> block's (shared) -> [pieces] -> topk_finish
 *
 *     ids_<dtype>        grid work * split, blocks of a multiple of 32 threads up to 512: writes
 *                        the states, and the fate of each row (ROW_* in row.cuh).
 *     ids_finish         one warp per item: writes logprobs and lse, and rank -1 for ids without a
 *                        rank.
 *     ids_ranks_<dtype>  after ids_finish; one block for each id of each item: counts the ranks.
 *     topk_<dtype>       like ids_<dtype>; also writes the lists.
 *     topk_finish        one warp per item: merges states and lists, and writes the outputs. */
#include "../src/det/order.h"
#include "finish.cuh"
#include "kept.cuh"
#include "merge.cuh"
#include "piece.cuh"

/* ---- lists -------------------------------------------------------------------------------- */

/* A list of places, the largest first, spread over a warp: each lane holds entries lane and lane +
 * WARP. Only the first SB_CUDA_LIST entries are stored. */
struct place_list {
    uint64_t low, high;
};

SB_DET uint64_t place_number(const place_list &l, int i)
{
    return __shfl_sync(FULL, i < WARP ? l.low : l.high, i % WARP);
}

/* Inserts a place. Called by a whole warp; place is the same in all lanes. */
SB_DET void insert_place(place_list *l, uint64_t place)
{
    const int lane = threadIdx.x % WARP;
    const int before = __popcll(__ballot_sync(FULL, l->low > place)) +
                       __popcll(__ballot_sync(FULL, l->high > place));
    const uint64_t low = __shfl_up_sync(FULL, l->low, 1),
                   last = __shfl_sync(FULL, l->low, WARP - 1);
    const uint64_t above = __shfl_up_sync(FULL, l->high, 1), high = lane == 0 ? last : above;
    if (lane >= before) l->low = lane == before ? place : low;
    if (lane + WARP >= before) l->high = lane + WARP == before ? place : high;
}

/* Inserts the first k places of another list, which lies in memory. */
SB_DET void insert_list(place_list *l, const uint64_t *other, int k)
{
    for (int i = 0; i < k; i++) {
        const uint64_t place = other[i];
        if (place <= place_number(*l, k - 1)) break; /* no later one is larger */
        insert_place(l, place);
    }
}

/* Inserts the places of a warp's leaves into its list. has: the lane has a leaf; first: the leaf's
 * first id. */
SB_DET void insert_leaves(place_list *l, const float y[SB_LEAF], uint32_t first, bool has, int k)
{
    uint64_t least = place_number(*l, k - 1);
    float m = sb_float(SB_ABSENT_BITS);
#pragma unroll
    for (int i = 0; i < SB_LEAF; i++) m = fmaxf(m, y[i]); /* drops NaN: such a row is NaN anyway */
    uint64_t leaves = __ballot_sync(FULL, has && !sb_is_absent(m) && sb_place_of(m, first) > least);
    while (leaves) {
        const int lane = __ffsll((long long)leaves) - 1;
        const uint32_t its = __shfl_sync(FULL, first, lane);
        leaves &= leaves - 1;
#pragma unroll
        for (int i = 0; i < SB_LEAF; i++) {
            const float x = __shfl_sync(FULL, y[i], lane);
            if (!(x > sb_float(SB_ABSENT_BITS))) continue;
            const uint64_t place = sb_place_of(x, its + i);
            if (place <= least) continue;
            insert_place(l, place);
            least = place_number(*l, k - 1);
        }
    }
}

SB_DET void store_list(uint64_t *to, const place_list &l)
{
    const int lane = threadIdx.x % WARP;
    to[lane] = l.low;
    if (lane + WARP < SB_CUDA_LIST) to[lane + WARP] = l.high;
}

SB_DET place_list load_list(const uint64_t *from)
{
    const int lane = threadIdx.x % WARP;
    place_list l = { from[lane], SB_NO_PLACE };
    if (lane + WARP < SB_CUDA_LIST) l.high = from[lane + WARP];
    return l;
}

/* ---- sums, and lists beside them ---------------------------------------------------------- */

template <int DTYPE, bool TOPK> SB_DET void order_block(const sb_cuda_order_args &a)
{
    const sb_cuda_args &in = a.in;
    __shared__ any_row mine;
    __shared__ sb_state shared[32];
    __shared__ uint64_t lists[TOPK ? 16 * SB_CUDA_LIST : 1];
    const int64_t item = blockIdx.x / (uint32_t)in.split;
    const int piece = (int)(blockIdx.x % (uint32_t)in.split);
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, k = a.k;
    place_list best = { SB_NO_PLACE, SB_NO_PLACE };
    sb_state s;

    if (threadIdx.x == 0) {
        set_any_row(in, &mine, item, piece == 0);
        if (piece == 0) write_target(in, item, 0.0f, mine.fate);
    }
    __syncthreads(); /* mine is written */
    if (mine.fate != ROW_ACTIVE) return;

    const part_of_row part = piece_of_row(in, mine.logits, in.vocab, piece);
    sb_state_init(&s, mine.row.c);
    /* each warp takes WARP leaves per trip, one per lane */
    for (int at = part.first + warp * WARP; at < part.last; at += blockDim.x) {
        const int leaf = at + lane;
        float y[SB_LEAF];
        const bool has = leaf < part.last && read_kept<DTYPE>(y, in, mine.number, part, 0, leaf);
        if (has) add_any(&s, y, mine.row);
        if (!TOPK) continue;
        if (!has) {
#pragma unroll
            for (int i = 0; i < SB_LEAF; i++) y[i] = sb_float(SB_ABSENT_BITS);
        }
        insert_leaves(&best, y, (uint32_t)leaf * SB_LEAF, has, k);
    }
    if (TOPK) store_list(lists + warp * SB_CUDA_LIST, best);
    block_merge(&s, shared); /* after its barrier every warp's list is in lists, too */
    if (threadIdx.x == 0) ((sb_state *)in.states)[blockIdx.x] = s;
    if constexpr (TOPK) {
        if (warp != 0) return;
        for (int w = 1; w < (int)blockDim.x / WARP; w++)
            insert_list(&best, lists + w * SB_CUDA_LIST, k);
        store_list((uint64_t *)a.lists + (int64_t)blockIdx.x * SB_CUDA_LIST, best);
    }
}

/* ---- several ids -------------------------------------------------------------------------- */

/* The number of ids of a leaf that come before id, whose logit is x. first: the leaf's first id. */
SB_DET int32_t count_before(const float y[SB_LEAF], int64_t first, int64_t id, float x)
{
    int32_t count = 0;
#pragma unroll
    for (int i = 0; i < SB_LEAF; i++)
        count += y[i] > x || (y[i] == x && first + i < id && !sb_is_absent(x));
    return count;
}

template <int DTYPE> SB_DET void count_ranks(const sb_cuda_order_args &a)
{
    const sb_cuda_args &in = a.in;
    __shared__ int32_t counts[32];
    const int64_t item = blockIdx.x / in.width, entry = blockIdx.x % in.width;
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    if (((const sb_cuda_target *)in.targets)[item].active != ROW_ACTIVE) return;
    const int64_t row = row_at(in, item), at = row * in.width + entry;
    const int64_t id = int_at(in.ids, in.ids_dtype, at);
    if (id == in.ignore_index) return;

    part_of_row part = piece_of_row(in, logits_of(in, row), in.vocab, 0);
    const float x = kept_logit<DTYPE>(in, row, part.logits, id);
    int32_t count = 0;
    part.last = leaves_in(in.vocab); /* the whole row, not only piece 0 */
    for (int leaf = threadIdx.x; leaf < part.last; leaf += blockDim.x) {
        float y[SB_LEAF];
        if (read_kept<DTYPE>(y, in, row, part, 0, leaf))
            count += count_before(y, (int64_t)leaf * SB_LEAF, id, x);
    }
    count = __reduce_add_sync(FULL, count);
    if (lane == 0) counts[warp] = count;
    __syncthreads(); /* every warp's count is in counts */
    if (warp != 0) return;
    count = __reduce_add_sync(FULL, lane < (int)blockDim.x / WARP ? counts[lane] : 0);
    if (lane == 0) ((int32_t *)a.integers)[at] = count;
}

/* Writes a row's logprobs and lse, and rank -1 for ids that have no rank. ids_ranks_<dtype> counts
 * the other ranks next. */
extern "C" __global__ void __launch_bounds__(256)
    ids_finish(const __grid_constant__ sb_cuda_order_args a)
{
    const sb_cuda_args &in = a.in;
    const int64_t item = warp_item();
    const int lane = threadIdx.x % WARP;
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

extern "C" __global__ void __launch_bounds__(256)
    topk_finish(const __grid_constant__ sb_cuda_order_args a)
{
    const sb_cuda_args &in = a.in;
    const int64_t item = warp_item();
    const int lane = threadIdx.x % WARP;
    if (item >= in.work) return;
    int32_t fate = ((const sb_cuda_target *)in.targets)[item].active;
    if (fate == ROW_UNKNOWN) return;
    const int64_t row = row_at(in, item);
    place_list best = { SB_NO_PLACE, SB_NO_PLACE };
    sb_row constants;
    sb_state s;
    sb_lg sum;
    if (fate == ROW_ACTIVE) {
        const uint64_t *lists = (const uint64_t *)a.lists + item * in.split * SB_CUDA_LIST;
        merge_pieces(&s, pieces_of<sb_state>(in, item), in.split);
        constants = constants_of(in,
                                 in.temperatures ? ((const float *)in.temperatures)[row] : 1.0f);
        if (sb_state_is_nan(&s)) fate = ROW_NAN;
        else sum = sb_sum_log(&s);
        best = load_list(lists);
        for (int p = 1; p < in.split; p++) insert_list(&best, lists + p * SB_CUDA_LIST, a.k);
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

#define ORDER(name, DTYPE)                                                                         \
    extern "C" __global__ void __launch_bounds__(512)                                              \
        ids_##name(const __grid_constant__ sb_cuda_order_args a)                                   \
    {                                                                                              \
        order_block<DTYPE, false>(a);                                                              \
    }                                                                                              \
    extern "C" __global__ void __launch_bounds__(512)                                              \
        ids_ranks_##name(const __grid_constant__ sb_cuda_order_args a)                             \
    {                                                                                              \
        count_ranks<DTYPE>(a);                                                                     \
    }                                                                                              \
    extern "C" __global__ void __launch_bounds__(512)                                              \
        topk_##name(const __grid_constant__ sb_cuda_order_args a)                                  \
    {                                                                                              \
        order_block<DTYPE, true>(a);                                                               \
    }
ORDER(f32, SB_CUDA_F32)
ORDER(f16, SB_CUDA_F16)
ORDER(bf16, SB_CUDA_BF16)
