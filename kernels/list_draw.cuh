/* list_draw.cuh - the draw of a token from a row's list of first ids, by a whole block. The warps
 * share what a warp alone does in draw_from_list (draw.cuh): a row alone waits for its longest
 * chain of steps.
 *
 * In the order of ids, the entries of a leaf are neighbours, and the leaf belongs to the first of
 * them, its head. SB_LEAF lanes sum a leaf. */
#pragma once

#include "draw.cuh"
#include "pick.cuh"

/* What a block knows, in shared memory. */
struct list_draw {
    sb_row row;
    uint64_t U;
    uint64_t places[SB_CUDA_LIST]; /* the list */
    uint64_t kept;                 /* bit e: the filters keep entry e */
    sb_state whole, model;         /* of the present ids; of the model */
    int32_t order[SB_CUDA_LIST];   /* the entries in the order of their ids */
    sb_leaf leaves[SB_CUDA_LIST];  /* of the heads, in that order; M is 0 if nothing is kept */
};

/* A row without a token, and without a kept set: see write_none. A function of its own, as this is
 * rare. */
static __device__ __noinline__ void write_no_token(const sb_cuda_sample_args *a, int64_t row,
                                                   int32_t fate)
{
    write_none(*a, row, fate, threadIdx.x, blockDim.x);
}

/* The places of a list. */
SB_DET int count_places(const uint64_t *places)
{
    const int lane = threadIdx.x % WARP;
    int count = 0;
#pragma unroll
    for (int e = 0; e < SB_CUDA_LIST; e += WARP)
        count += __popcll(__ballot_sync(FULL, places[e + lane] != SB_NO_PLACE));
    return count;
}

/* The i-th logit of the leaf of head r, of `count` entries: absent, unless it is kept. */
SB_DET float list_logit(const list_draw &d, int r, int count, int i)
{
    float y = sb_float(SB_ABSENT_BITS);
    const int32_t leaf = sb_place_id(d.places[d.order[r]]) / SB_LEAF;
#pragma unroll 1
    for (; r < count; r++) {
        const int e = d.order[r];
        const uint64_t place = d.places[e];
        if (sb_place_id(place) / SB_LEAF != leaf) break;
        if (sb_place_id(place) % SB_LEAF == i && (d.kept >> e & 1)) y = sb_place_logit(place);
    }
    return y;
}

/* Sums the leaves, each by SB_LEAF lanes, in the order of sb_leaf_tree, and writes the words of the
 * kept set, which are zero so far. */
SB_DET void sum_heads(const sb_cuda_sample_args &a, int64_t row, list_draw *d, int count)
{
    const int lane = threadIdx.x % WARP, i = lane % SB_LEAF;
#pragma unroll 1
    for (int r = threadIdx.x / SB_LEAF; r - lane / SB_LEAF < count; r += blockDim.x / SB_LEAF) {
        const int32_t leaf = r < count ? sb_place_id(d->places[d->order[r]]) / SB_LEAF : -1;
        const bool head = r < count &&
                          (r == 0 || sb_place_id(d->places[d->order[r - 1]]) / SB_LEAF != leaf);
        const float y = head ? list_logit(*d, r, count, i) : sb_float(SB_ABSENT_BITS);
        float m = y;
#pragma unroll
        for (int step = SB_LEAF / 2; step > 0; step /= 2)
            m = fmaxf(m, __shfl_xor_sync(FULL, m, step));
        const sb_leaf_scale scale = sb_leaf_scale_of(m, &d->row);
        const float x = scale.wide && !sb_is_absent(y) ? sb_clamp(y, d->row.lim) : y;
        float v = sb_leaf_term(x > scale.thr ? x : scale.thr, d->row.c, SB_INT_MAGIC - scale.A);
#pragma unroll
        for (int step = SB_LEAF / 2; step > 0; step /= 2) v += __shfl_xor_sync(FULL, v, step);
        const uint64_t present = __ballot_sync(FULL, !sb_is_absent(y));
        const uint32_t bits = (uint32_t)(present >> (lane - i)) & 0xffff;
        if (i == 0 && r < count) {
            d->leaves[r].A = (int32_t)scale.A;
            d->leaves[r].M = bits ? (uint32_t)(v * 0x1p+24f) : 0;
            if (a.kept && bits)
                ((uint16_t *)((uint32_t *)a.kept + row * kept_words(a)))[leaf] = (uint16_t)bits;
        }
    }
}

/* Finds the leaf of the draw by prefix sums over a warp, of which each lane has two leaves, then
 * the token, and writes it. Called by one warp. */
SB_DET void draw_from_heads(const sb_cuda_sample_args &a, int64_t row, const list_draw &d,
                            int count)
{
    const int lane = threadIdx.x % WARP;
    const sb_leaf none = { 0, 0 };
    const sb_leaf one = 2 * lane < count ? d.leaves[2 * lane] : none;
    const sb_leaf two = 2 * lane + 1 < count ? d.leaves[2 * lane + 1] : none;
    const uint32_t digit = max(one.M ? (uint32_t)(one.A + SB_BIAS) >> 5 : 0,
                               two.M ? (uint32_t)(two.A + SB_BIAS) >> 5 : 0);
    const uint32_t J = __reduce_max_sync(FULL, digit);
    const sb_u128 first = sb_leaf_share(&one, J), second = sb_leaf_share(&two, J);
    const sb_u128 end = warp_prefix(first + second), begin = end - second - first;
    const uint64_t low = __shfl_sync(FULL, (uint64_t)end, WARP - 1);
    const uint64_t high = __shfl_sync(FULL, (uint64_t)(end >> 64), WARP - 1);
    const sb_u128 T = (sb_u128)high << 64 | low, R = sb_drawn(d.U, T);
    const int owner = __ffsll((long long)__ballot_sync(FULL, R < end)) - 1;
    const bool in_second = R >= begin + first;
    const sb_u128 share = in_second ? second : first,
                  rest = in_second ? R - begin - first : R - begin;
    const int r = __shfl_sync(FULL, 2 * lane + in_second, owner);
    const uint64_t share_low = __shfl_sync(FULL, (uint64_t)share, owner),
                   share_high = __shfl_sync(FULL, (uint64_t)(share >> 64), owner),
                   rest_low = __shfl_sync(FULL, (uint64_t)rest, owner),
                   rest_high = __shfl_sync(FULL, (uint64_t)(rest >> 64), owner);
    const int32_t leaf = sb_place_id(d.places[d.order[r]]) / SB_LEAF;
    float x;
    const int i = warp_drawn_in(list_logit(d, r, count, lane), d.row,
                                (sb_u128)share_high << 64 | share_low,
                                (sb_u128)rest_high << 64 | rest_low, &x);
    sb_state kept; /* its sum is T */
    kept.J = J;
    kept.l[0] = low;
    kept.l[1] = 0;
    kept.l[2] = high;
    finish_token(a, row, leaf * SB_LEAF + i, x, kept, d.model, d.row);
}

/* Draws from the list in d->places, with d->row and d->U, and writes the token and the kept set,
 * whose words are zero so far. states: of all warps but the first, which together are the row's
 * state. Called by a whole block of at least three warps, behind a barrier. */
SB_DET void draw_by_block(const sb_cuda_sample_args &a, int64_t item, int64_t row, list_draw *d,
                          const sb_state *states)
{
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    const int count = count_places(d->places);
    if (warp == 0 && count > 0) {
        place_list list = load_list(d->places);
        filter_list(&list, filters_of(a, row), d->row);
        const uint64_t kept = __ballot_sync(FULL, list.low != SB_NO_PLACE),
                       more = __ballot_sync(FULL, list.high != SB_NO_PLACE);
        if (lane == 0) {
            d->kept = WARP < SB_CUDA_LIST ? kept | more << (WARP % SB_CUDA_LIST) : kept;
            if (a.count) ((int32_t *)a.count)[row] = __popcll(d->kept);
        }
    } else if (warp == 1) {
        sb_state s;
        merge_pieces(&s, states, blockDim.x / WARP - 1);
        if (lane == 0) d->whole = s;
        if (a.models)
            merge_pieces(&s, (const sb_state *)a.models + item * a.model_split, a.model_split);
        if (lane == 0) d->model = s;
    } else {
        const int teams = (blockDim.x - 2 * WARP) / PICK_TEAM;
#pragma unroll 1
        for (int e = (threadIdx.x - 2 * WARP) / PICK_TEAM; e - lane / PICK_TEAM < count;
             e += teams) {
            const int before = count_larger_by_team(d->places, count, e, 0xffffffffu);
            if (e < count && lane % PICK_TEAM == 0) d->order[before] = e;
        }
    }
    __syncthreads(); /* what is kept, the order, the states and U are written */
    if (sb_state_is_nan(&d->whole)) {
        write_no_token(&a, row, ROW_NAN);
        return;
    }
    sum_heads(a, row, d, count);
    __syncthreads(); /* the leaves are written */
    if (warp == 0) draw_from_heads(a, row, *d, count);
}
