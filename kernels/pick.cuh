/* pick.cuh - the first k ids of a row whose parts are summed by other blocks (parts.cuh), picked by
 * one block from the largest logits of the parts.
 *
 * A key that k parts reach is a threshold: k ids reach it, so no id below it is among the first k.
 * Only the parts that reach it are read, a few more than k of them, and of their ids about k reach
 * it. Each warp lists those that it meets, and an id's position is the number of larger places:
 *
 *     largest logits of parts -> threshold -> ids of warps -> ids of the block -> the first k
 *
 * Where more ids reach the threshold than the lists hold (all logits equal, the large ones in few
 * parts), a larger place is searched that still k ids reach, by halving. The result depends on
 * places alone (det/order.h), never on an order of visits.
 *
 * A block goes through this once, in one row, so the code is short: loops are not unrolled. */
#pragma once

#include "../src/det/order.h"
#include "first.cuh"
#include "load.cuh"
#include "merge.cuh"

#define PICK_WARPS (SB_CUDA_PICK / WARP) /* the largest number of warps in a block */
#define PICK_LIST (2 * WARP)             /* entries of a warp's list, at least SB_CUDA_LIST */
#define PICK_GROUPS 512                  /* of parts, at most; a multiple of WARP */
#define PICK_LANE_IDS 16                 /* that a lane looks at in one go */

/* A row whose parts are summed. */
struct pick_row {
    const char *logits;
    int64_t number;      /* of the row in the batch */
    int32_t parts, part; /* parts, and leaves of each */
    const float *mosts;  /* the largest logit of each */
    const sb_state *states;
};

struct pick_room {
    uint64_t of_warps[PICK_WARPS][PICK_LIST];
    union {
        uint64_t all[PICK_WARPS * PICK_LIST];
        int32_t reached[SB_CUDA_PICK_PARTS]; /* parts that reach the bound */
        uint32_t keys[PICK_GROUPS];          /* the largest of each group's parts */
    };
    int32_t counts[PICK_WARPS];
    uint32_t threshold, most;
};

/* ---- sums --------------------------------------------------------------------------------- */

/* As merge_pieces, in a function of its own, which a kernel holds once. */
static __device__ __noinline__ sb_state merged_lanes(sb_state s)
{
    warp_merge(&s);
    return s;
}

/* Merges states by the threads of a block, or of a warp: by `threads` threads, of which this is
 * number t. All lanes of a warp get what its threads have merged. */
SB_DET sb_state merged_states(const sb_state *states, int count, int t, int threads)
{
    sb_state s;
    make_none(&s);
#pragma unroll 1
    for (; t < count; t += threads) merge_into(&s, states[t]);
    return merged_lanes(s);
}

SB_DET sb_state merged_by_warp(const sb_state *states, int count)
{
    return merged_states(states, count, threadIdx.x % WARP, WARP);
}

/* ---- places ------------------------------------------------------------------------------- */

/* The key of the least logit that is present. */
#define LEAST_KEY 0x00800000u

/* Lists the places of a warp's next ids, `first` and those behind it that are below `end`, that
 * reach bound, behind `count` others. Returns how many there are then. */
template <int DTYPE>
SB_DET int list_ids(uint64_t *list, int count, const sb_cuda_args &in, const pick_row &row,
                    int32_t first, int32_t end, uint64_t bound)
{
    const float least = sb_place_logit(bound);
    const int32_t mine = first + (int32_t)threadIdx.x % WARP;
    uint32_t hits = 0;
#pragma unroll
    for (int i = 0; i < PICK_LANE_IDS; i++) {
        const int32_t id = mine + i * WARP;
        if (id < end) hits |= (uint32_t)(load_one<DTYPE>(row.logits, id) >= least) << i;
    }
    while (__any_sync(FULL, hits)) {
        const int32_t id = mine + (__ffsll((long long)hits) - 1) * WARP;
        uint64_t place = SB_NO_PLACE;
        if (hits && is_kept(in, row.number, id))
            place = sb_place_of(load_one<DTYPE>(row.logits, id), (uint32_t)id);
        const uint64_t lanes = __ballot_sync(FULL, place >= bound);
        const int at = count + __popcll(lanes & (((uint64_t)1 << (threadIdx.x % WARP)) - 1));
        if (place >= bound && at < PICK_LIST) list[at] = place;
        count += __popcll(lanes);
        hits &= hits - 1;
    }
    return count;
}

/* Lists the numbers of the parts whose largest logit reaches bound. Returns how many there are. */
SB_DET int list_parts(const pick_row &row, uint64_t bound, pick_room *room)
{
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, warps = blockDim.x / WARP;
    const float least = sb_place_logit(bound);
    int count = 0;
#pragma unroll 1
    for (int base = 0; base < row.parts; base += blockDim.x) {
        const int p = base + threadIdx.x;
        const bool reaches = p < row.parts && row.mosts[p] >= least;
        const uint64_t lanes = __ballot_sync(FULL, reaches);
        if (lane == 0) room->counts[warp] = __popcll(lanes);
        __syncthreads(); /* every warp's count is in counts */
        const uint32_t n = lane < warps ? room->counts[lane] : 0;
        const int before = count + (int)__reduce_add_sync(FULL, lane < warp ? n : 0);
        count += (int)__reduce_add_sync(FULL, n);
        if (reaches) room->reached[before + __popcll(lanes & (((uint64_t)1 << lane) - 1))] = p;
        __syncthreads(); /* the list is written, and counts have been read */
    }
    return count;
}

/* Writes the largest keys of a row's parts, by groups. Called by a whole block. */
SB_DET void write_keys(const float *mosts, int parts, pick_room *room)
{
#pragma unroll 1
    for (int g = threadIdx.x; g < PICK_GROUPS; g += blockDim.x) {
        uint32_t key = 0;
#pragma unroll 1
        for (int p = g; p < parts; p += PICK_GROUPS) {
            const float m = mosts[p];
            if (!sb_is_absent(m)) key = max(key, sb_order_key(m));
        }
        room->keys[g] = key;
    }
}

/* Sets room->threshold to a key that k groups of parts reach, but few more; LEAST_KEY, if not as
 * many are present. room->most: at least the largest key. Called by one warp, behind a barrier. */
SB_DET void find_threshold(int k, pick_room *room)
{
    const int lane = threadIdx.x % WARP;
    uint32_t keys[PICK_GROUPS / WARP], most = LEAST_KEY, second = LEAST_KEY; /* of the lane */
#pragma unroll
    for (int i = 0; i < PICK_GROUPS / WARP; i++) {
        keys[i] = room->keys[lane + i * WARP];
        second = max(second, min(most, keys[i]));
        most = max(most, keys[i]);
    }
    most = __reduce_max_sync(FULL, most);
    /* two keys of each lane, SB_MAX_TOPK or more in all, reach the least second one */
    uint32_t low = ~__reduce_max_sync(FULL, ~second), high = most + 1;
#pragma unroll 1
    while (high - low > 1) {
        const uint32_t middle = low + (high - low) / 2;
        uint32_t n = 0;
#pragma unroll
        for (int i = 0; i < PICK_GROUPS / WARP; i++) n += keys[i] >= middle;
        n = __reduce_add_sync(FULL, n);
        if ((int)n < k) high = middle;
        else low = middle;
        if ((int)n >= k && (int)n <= k + k / 8) break;
    }
    if (lane == 0) room->threshold = low, room->most = most;
}

#define PICK_TEAM 16 /* lanes that count together */

/* How many of `count` values in shared memory are larger than the i-th, by the bits of mask. All
 * lanes of a team get it. Called by whole warps. A function of its own, which a kernel holds
 * once. */
static __device__ __noinline__ int count_larger_by_team(const uint64_t *values, int count, int i,
                                                        uint64_t mask)
{
    const uint64_t value = i < count ? values[i] & mask : 0;
    int larger = 0;
#pragma unroll 1
    for (int e = threadIdx.x % PICK_TEAM; e < count; e += PICK_TEAM)
        larger += (values[e] & mask) > value;
    for (int step = PICK_TEAM / 2; step > 0; step /= 2)
        larger += __shfl_xor_sync(FULL, larger, step);
    return larger;
}

/* Writes the first k places of a row to to, SB_CUDA_LIST of them, and the row's state, by all warps
 * but the first, to states: in shared memory. Called by a whole block, behind a barrier, with the
 * keys; the results may be read behind it. */
template <int DTYPE>
SB_DET void pick_first(uint64_t *to, sb_state *states, const sb_cuda_args &in, const pick_row &row,
                       int k, pick_room *room)
{
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, warps = blockDim.x / WARP;
    if (warp == 0) {
        find_threshold(k, room);
    } else {
        const sb_state s = merged_states(row.states, row.parts, threadIdx.x - WARP,
                                         blockDim.x - WARP);
        if (lane == 0) states[warp - 1] = s;
    }
    __syncthreads(); /* the threshold is written */

    const int32_t ids = row.part * SB_LEAF; /* of a part */
    /* from the place of the last id with the threshold's logit on, below that of the next logit */
    uint64_t low = (uint64_t)room->threshold << 32 | (0xffffffffu - (uint32_t)in.vocab);
    uint64_t high = (uint64_t)(room->most + 1) << 32, bound = low;
    int total, before, mine;
#pragma unroll 1
    for (;;) {
        const int reached = list_parts(row, bound, room);
        mine = 0;
#pragma unroll 1
        for (int i = warp; i < reached; i += warps) {
            int32_t first = room->reached[i] * ids;
            const int32_t end = min(first + ids, (int32_t)in.vocab);
#pragma unroll 1
            for (; first < end; first += WARP * PICK_LANE_IDS)
                mine = list_ids<DTYPE>(room->of_warps[warp], mine, in, row, first, end, bound);
        }
        if (lane == 0) room->counts[warp] = mine;
        __syncthreads(); /* the lists and their counts are written; reached has been read */
        const uint32_t n = lane < warps ? room->counts[lane] : 0;
        total = (int)__reduce_add_sync(FULL, n);
        before = (int)__reduce_add_sync(FULL, lane < warp ? n : 0);
        /* k ids reach low, if there are as many; fewer reach high */
        if (__all_sync(FULL, n <= PICK_LIST) && (total >= k || bound == low)) break;
        if (total >= k) low = bound;
        else high = bound;
        bound = low + (high - low) / 2;
        __syncthreads(); /* the counts have been read */
    }
#pragma unroll 1
    for (int i = lane; i < mine; i += WARP) room->all[before + i] = room->of_warps[warp][i];
    if (threadIdx.x < SB_CUDA_LIST && (int)threadIdx.x >= min(total, k))
        to[threadIdx.x] = SB_NO_PLACE;
    __syncthreads(); /* all places are in all */
#pragma unroll 1
    for (int i = threadIdx.x / PICK_TEAM; i - lane / PICK_TEAM < total;
         i += blockDim.x / PICK_TEAM) {
        const int larger = count_larger_by_team(room->all, total, i, ~(uint64_t)0);
        if (i < total && larger < k && lane % PICK_TEAM == 0) to[larger] = room->all[i];
    }
    __syncthreads(); /* the first places are written */
}
