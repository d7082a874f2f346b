/* pick.cuh - the first k ids of a row whose parts are summed by other blocks (parts.cuh), picked by
 * one block from the largest logits of the parts.
 *
 * A key that k parts reach is a threshold: k ids reach it, so no id below it is among the first k.
 * Only the parts that reach it are read, a few more than k of them, and of their ids about k reach
 * it. Each warp lists those that it meets, and an id's position is the number of larger places:
 *
 *     largest logits of parts -> threshold -> ids of warps -> ids of the block -> the first k
 *
 * Where many ids reach the threshold (all logits equal, the large ones in few parts), a warp whose
 * list has no room for all keeps its first k, which only larger places may follow. The result
 * depends on places alone (det/order.h), never on an order of visits.
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
    /* The k-th place of a list, if it once had no room for all that reached the bound. */
    uint64_t least[PICK_WARPS];
    int32_t counts[PICK_WARPS];
    uint32_t threshold;
};

/* ---- sums --------------------------------------------------------------------------------- */

/* Merges a row's states by the block's warps but the first. Every lane of a warp gets what the warp
 * has merged. */
SB_DET sb_state merged_by_others(const pick_row &row)
{
    sb_state s;
    make_none(&s);
#pragma unroll 1
    for (int p = (int)threadIdx.x - WARP; p < row.parts; p += (int)blockDim.x - WARP)
        merge_into(&s, row.states[p]);
    warp_merge(&s);
    return s;
}

/* ---- places ------------------------------------------------------------------------------- */

/* The key of the least logit that is present. */
#define LEAST_KEY 0x00800000u

/* The place of a row's id; SB_NO_PLACE if it is not kept. */
template <int DTYPE>
SB_DET uint64_t place_in(const sb_cuda_args &in, const pick_row &row, int32_t id)
{
    if (!is_kept(in, row.number, id)) return SB_NO_PLACE;
    return sb_place_of(load_one<DTYPE>(row.logits, id), (uint32_t)id);
}

#define MERGED 4 /* places of each lane that are merged at once */

/* The k-th largest of the places of a warp's lanes, by halving; SB_NO_PLACE if there are fewer. */
SB_DET uint64_t kth_place(const uint64_t own[MERGED], int k)
{
    uint32_t present = 0, least = ~0u, most = 0;
#pragma unroll
    for (int i = 0; i < MERGED; i++) {
        if (own[i] == SB_NO_PLACE) continue;
        present++;
        least = min(least, (uint32_t)(own[i] >> 32));
        most = max(most, (uint32_t)(own[i] >> 32));
    }
    if ((int)__reduce_add_sync(FULL, present) < k) return SB_NO_PLACE;
    uint64_t low = (uint64_t)~__reduce_max_sync(FULL, ~least) << 32;
    uint64_t high = (uint64_t)(__reduce_max_sync(FULL, most) + 1) << 32;
#pragma unroll 1
    while (high - low > 1) {
        const uint64_t middle = low + (high - low) / 2;
        uint32_t n = 0;
#pragma unroll
        for (int i = 0; i < MERGED; i++) n += own[i] >= middle;
        n = __reduce_add_sync(FULL, n);
        if ((int)n < k) high = middle;
        else low = middle;
        if ((int)n == k) break;
    }
    return low;
}

/* Leaves the first k of the `count` places of a warp's list and of some ids: bit i of hits stands
 * for id mine + i * WARP. *least: the k-th, if there are as many. Returns how many there are. Each
 * step merges the two largest places of every lane. A function of its own, as this is rare. */
template <int DTYPE>
static __device__ __noinline__ int merge_ids(uint64_t *places, int count, uint64_t *least,
                                             const sb_cuda_args *in, const pick_row *row,
                                             int32_t mine, uint32_t hits, int k)
{
    const int lane = threadIdx.x % WARP;
    do {
        uint64_t own[MERGED], third = SB_NO_PLACE;
        __syncwarp(); /* the list is written */
        own[0] = lane < count ? places[lane] : SB_NO_PLACE;
        own[1] = lane + WARP < count ? places[lane + WARP] : SB_NO_PLACE;
        own[2] = own[3] = SB_NO_PLACE;
#pragma unroll 1
        for (uint32_t bits = hits; bits; bits &= bits - 1) {
            const int32_t id = mine + (__ffsll((long long)bits) - 1) * WARP;
            const uint64_t place = place_in<DTYPE>(*in, *row, id);
            third = max(third, min(own[3], place));
            own[3] = max(own[3], min(own[2], place));
            own[2] = max(own[2], place);
        }
        const uint64_t bound = kth_place(own, k);
        count = 0;
#pragma unroll
        for (int i = 0; i < MERGED; i++) {
            const bool stays = own[i] != SB_NO_PLACE && own[i] >= bound;
            const uint64_t lanes = __ballot_sync(FULL, stays);
            if (stays) places[count + lanes_before(lanes, lane)] = own[i];
            count += __popcll(lanes);
        }
        if (lane == 0 && bound != SB_NO_PLACE) *least = bound;
        if (third != SB_NO_PLACE && third >= bound)
            for (int i = 2; i < 4; i++) hits &= ~(1u << (sb_place_id(own[i]) - mine) / WARP);
        else hits = 0;
    } while (__any_sync(FULL, hits));
    __syncwarp(); /* the list is written, and its k-th place */
    return count;
}

/* Lists the places of a warp's next ids, `first` and those behind it that are below `end`, behind
 * `count` others. Returns how many there are then. The ids must be larger than all before, and
 * reach *bound, which may rise. */
template <int DTYPE>
SB_DET int list_ids(pick_room *room, int count, uint64_t *bound, const sb_cuda_args &in,
                    const pick_row &row, int32_t first, int32_t end, int k)
{
    uint64_t *const places = room->of_warps[threadIdx.x / WARP];
    const float least = sb_place_logit(*bound);
    const int32_t mine = first + (int32_t)threadIdx.x % WARP;
    uint32_t hits = 0;
#pragma unroll
    for (int i = 0; i < PICK_LANE_IDS; i++) {
        const int32_t id = mine + i * WARP;
        if (id < end) hits |= (uint32_t)(load_one<DTYPE>(row.logits, id) >= least) << i;
    }
    if (count + (int)__reduce_add_sync(FULL, (uint32_t)__popc(hits)) > PICK_LIST) {
        uint64_t *const kth = &room->least[threadIdx.x / WARP];
        count = merge_ids<DTYPE>(places, count, kth, &in, &row, mine, hits, k);
        /* an id that follows is larger, so with the logit of the k-th place it comes behind it */
        if (*kth != SB_NO_PLACE) *bound = ((*kth >> 32) + 1) << 32;
        return count;
    }
    while (__any_sync(FULL, hits)) {
        const int32_t id = mine + (__ffsll((long long)hits) - 1) * WARP;
        const uint64_t place = hits ? place_in<DTYPE>(in, row, id) : SB_NO_PLACE;
        const uint64_t lanes = __ballot_sync(FULL, place >= *bound);
        if (place >= *bound) places[count + lanes_before(lanes, threadIdx.x % WARP)] = place;
        count += __popcll(lanes);
        hits &= hits - 1;
    }
    return count;
}

/* Drops the places of a warp's list that come behind the k-th of any list, and writes what is left
 * of count. Called by a whole block, behind a barrier; the counts may be read behind it. A function
 * of its own, as this is rare. */
static __device__ __noinline__ int drop_places(int count, pick_room *room)
{
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, warps = blockDim.x / WARP;
    uint64_t *const places = room->of_warps[warp];
    uint64_t least = SB_NO_PLACE;
    int left = 0;
#pragma unroll 1
    for (int w = 0; w < warps; w++) least = max(least, room->least[w]);
#pragma unroll 1
    for (int i = lane; i - lane < count; i += WARP) {
        const uint64_t place = i < count ? places[i] : SB_NO_PLACE;
        const uint64_t lanes = __ballot_sync(FULL, place >= least);
        if (place >= least) places[left + lanes_before(lanes, lane)] = place;
        left += __popcll(lanes);
    }
    if (lane == 0) room->counts[warp] = left;
    __syncthreads(); /* the counts are written */
    return left;
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
        if (reaches) room->reached[before + lanes_before(lanes, lane)] = p;
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
 * many are present. Called by one warp, behind a barrier. */
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
    if (lane == 0) room->threshold = low;
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
    if (lane == 0) room->least[warp] = SB_NO_PLACE;
    if (warp == 0) {
        find_threshold(k, room);
    } else {
        const sb_state s = merged_by_others(row);
        if (lane == 0) states[warp - 1] = s;
    }
    __syncthreads(); /* the threshold is written */

    const int32_t ids = row.part * SB_LEAF; /* of a part */
    /* from the place of the last id with the threshold's logit on */
    uint64_t bound = (uint64_t)room->threshold << 32 | (0xffffffffu - (uint32_t)in.vocab);
    const int reached = list_parts(row, bound, room);
    int mine = 0;
#pragma unroll 1
    for (int i = warp; i < reached; i += warps) {
        int32_t first = room->reached[i] * ids;
        const int32_t end = min(first + ids, (int32_t)in.vocab);
#pragma unroll 1
        for (; first < end; first += WARP * PICK_LANE_IDS)
            mine = list_ids<DTYPE>(room, mine, &bound, in, row, first, end, k);
    }
    if (lane == 0) room->counts[warp] = mine;
    __syncthreads(); /* the lists and their counts are written; reached has been read */
    if (__any_sync(FULL, lane < warps && room->least[lane] != SB_NO_PLACE))
        mine = drop_places(mine, room);
    const uint32_t n = lane < warps ? room->counts[lane] : 0;
    const int total = (int)__reduce_add_sync(FULL, n);
    const int before = (int)__reduce_add_sync(FULL, lane < warp ? n : 0);
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
