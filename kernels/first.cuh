/* first.cuh - the first k ids of a block's part of a row, found beside its sum with little more
 * than the one read of the logits.
 *
 * While leaves are summed, each leaf's largest logit is stored in shared memory, and each thread
 * keeps the largest of its own. A key that k leaves of the block reach is then a threshold: k ids
 * reach it, so no id below it is among the first k. Only the leaves that reach it are read again, a
 * few more than k of them:
 *
 *     largest logits of leaves -> threshold -> candidate leaves -> warp's list -> block's list
 *
 * Where many leaves reach the threshold (all logits equal, the large ones in few threads' leaves),
 * only the time grows. The result depends on places alone (det/order.h), never on an order of
 * visits. */
#pragma once

#include "../src/det/order.h"
#include "kept.cuh"

/* ---- lists -------------------------------------------------------------------------------- */

/* A list of places, the largest first, spread over a warp: each lane holds entries lane and lane +
 * WARP. Only the first SB_CUDA_LIST entries are stored. */
struct place_list {
    uint64_t low, high;
};

SB_DET place_list empty_list() { return { SB_NO_PLACE, SB_NO_PLACE }; }

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

/* Inserts those of the lanes' places that are among the first k. *least: the list's k-th place. */
SB_DET void insert_places(place_list *l, uint64_t *least, uint64_t place, int k)
{
    uint64_t lanes = __ballot_sync(FULL, place > *least);
    while (lanes) {
        const int lane = __ffsll((long long)lanes) - 1;
        const uint64_t its = __shfl_sync(FULL, place, lane);
        lanes &= lanes - 1;
        if (its <= *least) continue;
        insert_place(l, its);
        *least = place_number(*l, k - 1);
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

/* ---- merging the lists of a block's warps ------------------------------------------------- */

#define LIST_WARPS 16 /* the largest number of warps in a block */
/* From one warp's list to the next: equal entries of different lists lie in different banks. */
#define LIST_STRIDE (SB_CUDA_LIST + 1)

/* How many of a list's first k places are larger than place. */
SB_DET int count_larger(const uint64_t *list, int k, uint64_t place)
{
    int low = 0, high = k;
    while (low < high) {
        const int middle = (low + high) / 2;
        if (list[middle] > place) low = middle + 1;
        else high = middle;
    }
    return low;
}

/* Writes the first k places of the lists of a block's warps to to. lists: in shared memory, one
 * list per warp, complete. A place's position is the number of larger places: LIST_WARPS lanes
 * count one list each. */
SB_DET void merge_lists(uint64_t *to, const uint64_t *lists, int k)
{
    constexpr int TEAMS = WARP / LIST_WARPS;
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, warps = blockDim.x / WARP;
    const int team = lane / LIST_WARPS, other = lane % LIST_WARPS;
    const uint64_t *mine = lists + warp * LIST_STRIDE;
    const int count = count_larger(mine, k, SB_NO_PLACE);
    for (int i = warp == 0 ? -TEAMS : 0; i < count; i += TEAMS) {
        /* the first trip of warp 0 counts all places */
        const uint64_t place = i >= 0 && i + team < count ? mine[i + team] : SB_NO_PLACE;
        int before = other < warps ? count_larger(lists + other * LIST_STRIDE, k, place) : 0;
        for (int step = LIST_WARPS / 2; step > 0; step /= 2)
            before += __shfl_xor_sync(FULL, before, step);
        if (i < 0)
            for (int p = min(before, k) + lane; p < SB_CUDA_LIST; p += WARP) to[p] = SB_NO_PLACE;
        else if (other == 0 && place != SB_NO_PLACE && before < k) to[before] = place;
    }
}

/* ---- the largest logits of leaves --------------------------------------------------------- */

/* A leaf's largest logit as it is kept in shared memory: in the logits' own container. */
template <int DTYPE> struct leaf_number {
    typedef uint16_t type;
};
template <> struct leaf_number<SB_CUDA_F32> {
    typedef uint32_t type;
};

template <int DTYPE> SB_DET typename leaf_number<DTYPE>::type number_of(float m)
{
    if (DTYPE == SB_CUDA_F32) return sb_bits32(m);
    return DTYPE == SB_CUDA_F16 ? pair_of_f16(m, 0.0f) : sb_bits32(m) >> 16;
}

/* Where a block keeps the numbers of its leaves: behind the staging slots, whose memory also holds
 * the lists of its warps once the leaves are summed. */
template <int DTYPE> SB_DET typename leaf_number<DTYPE>::type *leaf_numbers()
{
    char *from = (char *)staging + blockDim.x * SB_CUDA_TOPK_BYTES(size_of<DTYPE>());
    return (typename leaf_number<DTYPE>::type *)from;
}

/* Sees the largest logits of a thread's leaves, in order. */
template <int DTYPE> struct leaf_watch {
    typename leaf_number<DTYPE>::type *next;
    float most; /* the largest of all; NaN does not count, because it makes the row NaN */
    __device__ __forceinline__ void operator()(float m)
    {
        *next = number_of<DTYPE>(m);
        next += blockDim.x;
        most = fmaxf(most, m);
    }
};

template <int DTYPE> SB_DET leaf_watch<DTYPE> watch_leaves()
{
    return { leaf_numbers<DTYPE>() + threadIdx.x, sb_float(SB_ABSENT_BITS) };
}

/* ---- the threshold ------------------------------------------------------------------------ */

/* The n-th largest of the lanes' keys, the same in all lanes; 0 if there is none. */
SB_DET uint32_t nth_key(uint32_t key, int n)
{
    const int lane = threadIdx.x % WARP;
    uint32_t most = 0;
    for (int i = 0; i < n; i++) {
        most = __reduce_max_sync(FULL, key);
        if (lane == __ffsll((long long)__ballot_sync(FULL, key == most)) - 1) key = 0;
    }
    return most;
}

/* A key that at least k leaves of the block reach, if it has as many: each warp takes its each-th
 * largest key, and k / each warps, rounded up, reach the result. most: the largest logit of a
 * thread's leaves, of which no other thread has any. keys: shared, one per warp. */
SB_DET uint32_t least_key(float most, int k, uint32_t *keys)
{
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    const uint32_t warps = blockDim.x / WARP, each = (k + warps - 1) / warps;
    const uint32_t enough = (k + each - 1) / each;
    if (each > WARP) return 0;
    const uint32_t key = nth_key(sb_is_absent(most) ? 0 : sb_order_key(most), (int)each);
    if (lane == 0) keys[warp] = key;
    __syncthreads(); /* every warp's key is in keys */
    return nth_key(lane < (int)warps ? keys[lane] : 0, (int)enough);
}

/* ---- candidates --------------------------------------------------------------------------- */

/* Moves the numbers of a warp's leaves that reach key to the front, and puts the leaves' own
 * numbers in their place. Returns how many there are. mine: where the warp's first number lies; the
 * numbers of its next WARP leaves lie blockDim.x further on. Entry i of the result lies at
 * i / WARP * blockDim.x + i % WARP, where no number is left to be read. */
template <int DTYPE, class NUMBER>
SB_DET int list_candidates(NUMBER *mine, int leaves, uint32_t key)
{
    const int lane = threadIdx.x % WARP, step = blockDim.x;
    int count = 0;
    for (int at = 0; at < leaves; at += step) {
        bool reaches = false;
        if (at + lane < leaves) {
            leaf_words<DTYPE> x;
            x.w[0] = mine[at + lane];
            const float m = unpack<DTYPE>(x, 0);
            reaches = !sb_is_absent(m) && sb_order_key(m) >= key;
        }
        const uint64_t lanes = __ballot_sync(FULL, reaches);
        if (reaches) {
            const int i = count + lanes_before(lanes, lane);
            mine[i / WARP * step + i % WARP] = (NUMBER)(at + lane);
        }
        count += __popcll(lanes);
        __syncwarp(); /* the next trip may overwrite what this one has read */
    }
    return count;
}

/* The first k of a warp's leaves that reach key, as list_candidates left them. */
template <int DTYPE, class NUMBER>
SB_DET place_list list_places(const sb_cuda_args &in, int64_t row, const part_of_row &part,
                              const NUMBER *mine, int count, uint32_t key, int k)
{
    const int lane = threadIdx.x % WARP, first = part.first + threadIdx.x - lane;
    place_list best = empty_list();
    uint64_t least = SB_NO_PLACE;
    for (int i = lane; i - lane < count; i += WARP) {
        const int leaf = i < count ? first + (int)mine[i / WARP * blockDim.x + lane] : 0;
        float y[SB_LEAF];
        const bool has = i < count && read_kept<DTYPE>(y, in, row, part, 0, leaf);
#pragma unroll
        for (int e = 0; e < SB_LEAF; e++) {
            const bool reaches = has && y[e] > sb_float(SB_ABSENT_BITS) &&
                                 sb_order_key(y[e]) >= key;
            insert_places(&best, &least,
                          reaches ? sb_place_of(y[e], (uint32_t)leaf * SB_LEAF + e) : SB_NO_PLACE,
                          k);
        }
    }
    return best;
}

/* Writes the first k places of a block's part of a row to to, SB_CUDA_LIST of them. most: as for
 * least_key; the leaves' numbers are where leaf_numbers says. A function of its own, so that it
 * takes no registers from the hot loop. */
template <int DTYPE>
static __device__ __noinline__ void write_first(uint64_t *to, const sb_cuda_args *in, int64_t row,
                                                part_of_row part, float most, int k)
{
    __shared__ uint32_t keys[LIST_WARPS];
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    const uint32_t key = least_key(most, k, keys);
    uint64_t *lists = (uint64_t *)staging; /* nothing is staged any more */
    auto *mine = leaf_numbers<DTYPE>() + threadIdx.x - lane;
    place_list best = empty_list();
    if (__any_sync(FULL, !sb_is_absent(most) && sb_order_key(most) >= key)) {
        const int leaves = part.last - part.first - (int)(threadIdx.x - lane);
        const int count = list_candidates<DTYPE>(mine, leaves, key);
        best = list_places<DTYPE>(*in, row, part, mine, count, key, k);
    }
    store_list(lists + warp * LIST_STRIDE, best);
    __syncthreads(); /* every warp's list is in lists */
    merge_lists(to, lists, k);
}
