/* draw.cuh - the draw of a row's token (det/sample.h), by a block that searches prefix sums, or by
 * a warp from a list of places; and what both write.
 *
 * All sums are of integers: which threads add what, and how a row is cut up, cannot change a token.
 * R is found among the shares of a row's parts, then among those of the part's leaves, then among
 * the ids of one leaf. */
#pragma once

#include "../src/cuda/sample_args.h"
#include "../src/det/sample.h"
#include "finish.cuh"
#include "first.cuh"
#include "leaf.cuh"
#include "parts.cuh"

#define DRAW_WARPS 16 /* the largest number of warps in a block */

/* ---- a row's values ----------------------------------------------------------------------- */

struct row_filters {
    int32_t top_k;
    float top_p, min_p;
};

SB_DET row_filters filters_of(const sb_cuda_sample_args &a, int64_t row)
{
    row_filters f = { a.top_k, a.top_p, a.min_p };
    if (a.top_ks) f.top_k = ((const int32_t *)a.top_ks)[row];
    if (a.top_ps) f.top_p = ((const float *)a.top_ps)[row];
    if (a.min_ps) f.min_p = ((const float *)a.min_ps)[row];
    return f;
}

/* Whether a row's values are in range. */
SB_DET bool samples_well(const sb_cuda_sample_args &a, int64_t row)
{
    const row_filters f = filters_of(a, row);
    return f.top_k >= 0 && sb_top_p_ok(f.top_p) && sb_min_p_ok(f.min_p) &&
           (!a.u || sb_u_ok(((const double *)a.u)[row]));
}

SB_DET uint64_t draw_bits(const sb_cuda_sample_args &a, int64_t row)
{
    if (a.u) return sb_bits_of_u(((const double *)a.u)[row]);
    if (a.bits) return ((const uint64_t *)a.bits)[row];
    return sb_random_bits(a.seeds ? ((const uint64_t *)a.seeds)[row] : a.seed,
                          a.streams ? ((const uint64_t *)a.streams)[row] : a.stream,
                          a.positions ? ((const uint64_t *)a.positions)[row] : a.position);
}

/* The fate of a row whose values are looked at now. writes: this thread reports bad ones. */
SB_DET int32_t fate_of(const sb_cuda_sample_args &a, int64_t item, bool writes)
{
    const int32_t fate = ((const sb_cuda_target *)a.in.targets)[item].active;
    if (fate != ROW_ACTIVE || samples_well(a, row_at(a.in, item))) return fate;
    if (writes) report(a.in, SB_BAD_SAMPLING, row_at(a.in, item));
    return ROW_REFUSED;
}

/* ---- results ------------------------------------------------------------------------------ */

SB_DET void write_token(const sb_cuda_sample_args &a, int64_t row, int32_t token, float logprob,
                        float kept_logprob)
{
    if (a.token) ((int32_t *)a.token)[row] = token;
    if (a.logprob) ((float *)a.logprob)[row] = logprob;
    if (a.kept_logprob) ((float *)a.kept_logprob)[row] = kept_logprob;
}

SB_DET int64_t kept_words(const sb_cuda_sample_args &a) { return (a.in.vocab + 31) / 32; }

/* Empties a row's kept set. Called by `threads` threads, of which this is number t. */
SB_DET void empty_kept(const sb_cuda_sample_args &a, int64_t row, int t, int threads)
{
    uint32_t *kept = (uint32_t *)a.kept + row * kept_words(a);
    if (t == 0 && a.count) ((int32_t *)a.count)[row] = 0;
    for (int64_t i = t; a.kept && i < kept_words(a); i += threads) kept[i] = 0;
}

/* Writes a row that has no token. Called by `threads` threads. */
SB_DET void write_none(const sb_cuda_sample_args &a, int64_t row, int32_t fate, int t, int threads)
{
    const float x = nan_or_nothing(fate);
    if (t == 0) write_token(a, row, -1, x, x);
    empty_kept(a, row, t, threads);
}

/* Writes a row's token, whose logit is x. kept, model: the sums of the kept set and of the model,
 * in all lanes. Called by a whole warp: lane 0 takes the logarithm of kept, lane 1 that of the
 * token's term, lane 2 that of model. */
SB_DET void finish_token(const sb_cuda_sample_args &a, int64_t row, int32_t token, float x,
                         const sb_state &kept, const sb_state &model, const sb_row &constants)
{
    const int lane = threadIdx.x % WARP;
    const bool nan = sb_state_is_nan(&model); /* a NaN outside the batch's kept set */
    sb_mantissa part = { 0, 0 };
    if (lane == 0) part = sb_sum_mantissa(&kept);
    if (lane == 1) part = sb_target_mantissa(x, &constants);
    if (lane == 2 && !nan) part = sb_sum_mantissa(&model);
    const sb_lg mine = sb_log2_parts(part.m, part.e);
    sb_lg target, whole;
    target.e = __shfl_sync(FULL, mine.e, 1);
    target.f = __shfl_sync(FULL, mine.f, 1);
    whole.e = __shfl_sync(FULL, mine.e, 2);
    whole.f = __shfl_sync(FULL, mine.f, 2);
    if (lane != 0) return;
    write_token(a, row, token,
                nan ? sb_float(SB_NAN_BITS) : sb_logprob_of(target, whole, &constants),
                sb_logprob_of(target, mine, &constants));
}

/* ---- a block searches --------------------------------------------------------------------- */

/* Where a search stands, in shared memory: R, less the shares of all items before `item`. */
struct search {
    sb_u128 R, share; /* share: that of the item */
    sb_u128 total;    /* of all items, where the search draws R itself */
    uint64_t U;       /* the bits from which it does so */
    int item;
};

SB_DET sb_u128 shuffle(sb_u128 x, int lane)
{
    const uint64_t low = __shfl_sync(FULL, (uint64_t)x, lane);
    const uint64_t high = __shfl_sync(FULL, (uint64_t)(x >> 64), lane);
    return (sb_u128)high << 64 | low;
}

SB_DET sb_u128 shuffle_up(sb_u128 x, int step)
{
    const uint64_t low = __shfl_up_sync(FULL, (uint64_t)x, step);
    const uint64_t high = __shfl_up_sync(FULL, (uint64_t)(x >> 64), step);
    return (sb_u128)high << 64 | low;
}

/* The sum over a warp's lanes up to this one, for the first LANES of them. */
template <int LANES = WARP> SB_DET sb_u128 warp_prefix(sb_u128 x)
{
    for (int step = 1; step < LANES; step *= 2) {
        const sb_u128 other = shuffle_up(x, step);
        if ((int)threadIdx.x % WARP >= step) x += other;
    }
    return x;
}

#define FEW_WARPS 4 /* whose sums a thread adds up sooner than the lanes of its warp do together */

/* A step of find_item: over the block's threads, of which this one has item k and its share, and
 * the first `left` have items. draws: these are all items, and R is drawn from their total. Returns
 * whether it was the last. A function of its own, so that a kernel has its code once. */
static __device__ __noinline__ bool find_among(search *at, int k, sb_u128 share, int left,
                                               bool draws)
{
    __shared__ sb_u128 sums[DRAW_WARPS];
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    const int warps = min((int)blockDim.x, left + WARP - 1) / WARP; /* that have items */
    const bool alone = warps == 1 && !draws;
    const sb_u128 own = warp_prefix(share);
    sb_u128 before = 0, all = 0;
    if (!alone && lane == WARP - 1) sums[warp] = own;
    __syncthreads(); /* at has been read, and every warp's sum is in sums */
    if (alone && warp > 0) return true;
    if (warps > FEW_WARPS) {
        const sb_u128 sum = warp_prefix<DRAW_WARPS>(lane < warps ? sums[lane] : 0);
        all = shuffle(sum, warps - 1);
        before = warp > 0 ? shuffle(sum, warp - 1) : 0;
    } else {
        for (int w = 0; w < warps && !alone; w++) {
            if (w == warp) before = all;
            all += sums[w];
        }
    }
    const sb_u128 R = draws ? sb_drawn(at->U, all) : at->R;
    if (alone) __syncwarp(); /* R has been read */
    else __syncthreads();    /* likewise, and sums */
    const sb_u128 end = before + own;
    if (R < end && R >= end - share) { /* one thread */
        at->item = k;
        at->share = share;
        at->R = R - (end - share);
        if (draws) at->total = all;
    }
    if (R < all || (int)blockDim.x >= left) return true;
    if (threadIdx.x == 0) at->R = R - all;
    __syncthreads(); /* R is written */
    return false;
}

/* Finds the first of `count` items at which the sum of shares exceeds at->R. Called by a whole
 * block, after a barrier behind the write of at->R; share_of(k) is called for items in order, the
 * block's threads side by side. Behind it, at may be read, and a next search may begin at once:
 * nothing is written there before all threads have met again. Requires: R is below the sum of
 * all. */
template <class SHARE> SB_DET void find_item(search *at, int count, SHARE share_of)
{
    for (int base = 0;; base += blockDim.x) {
        const int k = base + threadIdx.x;
        if (find_among(at, k, k < count ? share_of(k) : 0, count - base, false)) break;
    }
    __syncthreads(); /* the result is written */
}

/* The sum over a warp's lanes before this one; *all: over all lanes. Requires: it fits T. */
template <class T> SB_DET T warp_before(T x, T *all)
{
    T sum = x;
    for (int step = 1; step < WARP; step *= 2) {
        const T other = __shfl_up_sync(FULL, sum, step);
        if ((int)threadIdx.x % WARP >= step) sum += other;
    }
    *all = __shfl_sync(FULL, sum, WARP - 1);
    return sum - x;
}

/* ---- leaves as the filters leave them ----------------------------------------------------- */

/* The share of a leaf that is not ordinary: wide, or with nothing kept. A function of its own, as
 * this is rare. */
template <int DTYPE>
static __device__ __noinline__ sb_u128 share_of_other(const leaf_words<DTYPE> *x, const sb_row *row,
                                                      uint32_t J)
{
    float y[SB_LEAF];
    sb_leaf leaf;
#pragma unroll 1
    for (int i = 0; i < SB_LEAF; i++) y[i] = unpack<DTYPE>(*x, i);
    if (sb_leaf_of(&leaf, y, row) != SB_LEAF_PRESENT) return 0;
    return sb_leaf_share(&leaf, J);
}

template <int DTYPE>
SB_DET sb_u128 share_of_leaf(leaf_words<DTYPE> &x, const sb_row &row, uint32_t J)
{
    const float m = leaf_max<DTYPE>(x), z0 = sb_fma32(m, row.c, SB_EVEN_MAGIC);
    if (!is_narrow(sb_bits32(z0))) {
        const leaf_words<DTYPE> other = x; /* whose address may be taken */
        return share_of_other<DTYPE>(&other, &row, J);
    }
    sb_leaf leaf;
    leaf.A = (int32_t)(sb_bits32(z0) - Z_ZERO) * 2;
    leaf.M = leaf_sum<DTYPE>(x, m, z0, { row.c, row.k64 });
    return sb_leaf_share(&leaf, J);
}

/* sb_drawn_in_leaf by a whole warp: lane i has logit i of the leaf, for i < SB_LEAF, and all have
 * the rest. *x: the logit that was drawn. */
SB_DET int warp_drawn_in(float y, const sb_row &row, sb_u128 share, sb_u128 R, float *x)
{
    const int lane = threadIdx.x % WARP;
    if (lane >= SB_LEAF) y = sb_float(SB_ABSENT_BITS);
    const sb_leaf_scale scale = sb_leaf_scale_of(warp_most(y), &row);
    const uint64_t q = sb_leaf_unit(y, &scale, &row);
    uint64_t all;
    const uint64_t sum = q + warp_before(q, &all);
    const bool passes = sb_product_exceeds(sum, share, all, R);
    const int found = __ffsll((long long)__ballot_sync(FULL, passes)) - 1;
    *x = __shfl_sync(FULL, y, found);
    return found;
}

/* The logprobs of an id, before it is known which id of its leaf it is. */
struct id_logprobs {
    float model, kept;
};

/* Those of the ids of a leaf, of which lane i < SB_LEAF has the logit y of the i-th, and gets its
 * logprobs. kept, model: as for finish_token. Called by a whole warp. */
SB_DET id_logprobs logprobs_of_leaf(float y, const sb_state &kept, const sb_state &model,
                                    const sb_row &constants)
{
    const int lane = threadIdx.x % WARP;
    const bool nan = sb_state_is_nan(&model); /* a NaN outside the batch's kept set */
    sb_mantissa part = sb_target_mantissa(y, &constants);
    if (lane >= SB_LEAF) {
        const sb_state s = lane == SB_LEAF || nan ? kept : model;
        part = sb_sum_mantissa(&s);
    }
    const sb_lg mine = sb_log2_parts(part.m, part.e);
    sb_lg all, whole;
    all.e = __shfl_sync(FULL, mine.e, SB_LEAF);
    all.f = __shfl_sync(FULL, mine.f, SB_LEAF);
    whole.e = __shfl_sync(FULL, mine.e, SB_LEAF + 1);
    whole.f = __shfl_sync(FULL, mine.f, SB_LEAF + 1);
    return { nan ? sb_float(SB_NAN_BITS) : sb_logprob_of(mine, whole, &constants),
             sb_logprob_of(mine, all, &constants) };
}

/* Finds the token of a part of a row, and writes it. load(x, k) loads leaf k as its filters leave
 * it. Called by a whole block, after a barrier; kept, model: as for finish_token. While one warp
 * finds the id in its leaf, another one takes the logprobs of all ids of the leaf. */
template <int DTYPE, class LOAD>
SB_DET void draw_in_part(const sb_cuda_sample_args &a, int64_t row, const part_of_row &part,
                         const sb_cut &cut, search *at, uint32_t J, const sb_state &kept,
                         const sb_state &model, const sb_row &constants, LOAD load)
{
    __shared__ int drawn; /* the token's place in its leaf */
    const sb_cuda_args &in = a.in;
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    const int finisher = blockDim.x > WARP ? 1 : 0;
    find_item(at, part.last - part.first, [&](int k) {
        leaf_words<DTYPE> x;
        load(x, part.first + k);
        return share_of_leaf<DTYPE>(x, constants, J);
    });
    const int leaf = part.first + at->item;
    id_logprobs of = { 0.0f, 0.0f };
    if (warp <= finisher) {
        const int64_t id = (int64_t)leaf * SB_LEAF + lane;
        float y = sb_float(SB_ABSENT_BITS), x;
        if (lane < SB_LEAF && id < in.vocab) y = kept_logit<DTYPE>(in, row, part.logits, id);
        if (sb_is_cut(&cut, y, (uint32_t)id)) y = sb_float(SB_ABSENT_BITS);
        if (warp == 0) {
            const int i = warp_drawn_in(y, constants, at->share, at->R, &x);
            if (lane == 0) drawn = i;
        }
        if (warp == finisher) of = logprobs_of_leaf(y, kept, model, constants);
    }
    __syncthreads(); /* the token's place is written */
    if (warp == finisher && lane == drawn)
        write_token(a, row, leaf * SB_LEAF + lane, of.model, of.kept);
}

/* ---- a warp draws from a list ------------------------------------------------------------- */

/* A warp's room in shared memory: the kept places of a list, by entry, and their leaves. The first
 * entry of each leaf holds its logits and its share. */
struct list_room {
    int32_t leaf[SB_CUDA_LIST]; /* -1: the entry is not kept */
    float y[SB_CUDA_LIST][SB_LEAF + 1];
    sb_u128 share[SB_CUDA_LIST]; /* 0: not the first entry of its leaf */
};

/* Which of a list's places top-p and min-p leave: the others become SB_NO_PLACE. */
SB_DET void filter_list(place_list *l, const row_filters &f, const sb_row &row)
{
    const float best = sb_place_logit(place_number(*l, 0));
    const sb_weights w = sb_weights_of(best, &row);
    const float least = sb_least_weight(f.min_p, sb_weight(best, &w));
    const float low = l->low ? sb_weight(sb_place_logit(l->low), &w) : 0.0f;
    const float high = l->high ? sb_weight(sb_place_logit(l->high), &w) : 0.0f;
    uint64_t first, second, goal = ~(uint64_t)0;
    const uint64_t before_low = warp_before(sb_weight_units(low), &first);
    const uint64_t before_high = first + warp_before(sb_weight_units(high), &second);
    if (f.top_p < 1.0f) goal = sb_top_p_goal(f.top_p, first + second);
    if (before_low >= goal || low < least) l->low = SB_NO_PLACE;
    if (before_high >= goal || high < least) l->high = SB_NO_PLACE;
}

/* The entry that is the first of an entry's leaf. */
SB_DET int first_of_leaf(const list_room *room, int32_t leaf)
{
    int first = 0;
#pragma unroll 16
    for (int e = SB_CUDA_LIST - 1; e >= 0; e--)
        if (room->leaf[e] == leaf) first = e;
    return first;
}

/* Draws from a list of kept places, and writes the token and the kept set, whose words are zero so
 * far. Called by a whole warp. */
SB_DET void draw_from_list(const sb_cuda_sample_args &a, int64_t row, const place_list &l,
                           list_room *room, const sb_state &model, const sb_row &constants)
{
    const int lane = threadIdx.x % WARP;
    const uint64_t places[2] = { l.low, l.high };
    int first[2] = { -1, -1 };
    sb_state s;
    sb_state_init(&s, constants.c);
#pragma unroll
    for (int h = 0; h < 2; h++) {
        const int e = lane + h * WARP;
        if (e >= SB_CUDA_LIST) continue;
        room->leaf[e] = places[h] ? sb_place_id(places[h]) / SB_LEAF : -1;
        room->share[e] = 0;
#pragma unroll
        for (int i = 0; i < SB_LEAF; i++) room->y[e][i] = sb_float(SB_ABSENT_BITS);
    }
    __syncwarp(); /* the entries' leaves are written */
#pragma unroll
    for (int h = 0; h < 2; h++) {
        if (!places[h]) continue;
        const int32_t id = sb_place_id(places[h]);
        first[h] = first_of_leaf(room, id / SB_LEAF);
        room->y[first[h]][id % SB_LEAF] = sb_place_logit(places[h]);
    }
    __syncwarp(); /* the logits are written */
    sb_leaf leaves[2];
#pragma unroll
    for (int h = 0; h < 2; h++) {
        const int e = lane + h * WARP;
        if (first[h] != e) continue;
        sb_leaf_of(&leaves[h], room->y[e], &constants);
        sb_state_add(&s, &leaves[h]);
    }
    warp_merge(&s);
#pragma unroll
    for (int h = 0; h < 2; h++)
        if (first[h] == lane + h * WARP)
            room->share[lane + h * WARP] = sb_leaf_share(&leaves[h], s.J);
    __syncwarp(); /* the shares are written */
    const sb_u128 R = sb_drawn(draw_bits(a, row), sb_total(&s));
    int mine = -1; /* the entry whose leaf has R; one lane has it */
    sb_u128 rest = 0;
    float x;
#pragma unroll
    for (int h = 0; h < 2; h++) {
        const int e = lane + h * WARP;
        if (first[h] != e) continue;
        const int32_t leaf = room->leaf[e];
        sb_u128 before = 0;
#pragma unroll 8
        for (int i = 0; i < SB_CUDA_LIST; i++)
            before += room->leaf[i] < leaf ? room->share[i] : (sb_u128)0;
        if (R >= before && R < before + room->share[e]) mine = e, rest = R - before;
        if (a.kept) {
            uint16_t *kept = (uint16_t *)((uint32_t *)a.kept + row * kept_words(a));
            uint32_t bits = 0;
            for (int i = 0; i < SB_LEAF; i++) bits |= !sb_is_absent(room->y[e][i]) << i;
            kept[leaf] = (uint16_t)bits;
        }
    }
    const uint32_t kept = __popcll(__ballot_sync(FULL, l.low != SB_NO_PLACE)) +
                          __popcll(__ballot_sync(FULL, l.high != SB_NO_PLACE));
    if (lane == 0 && a.count) ((int32_t *)a.count)[row] = (int32_t)kept;
    const int owner = __ffsll((long long)__ballot_sync(FULL, mine >= 0)) - 1;
    const int e = __shfl_sync(FULL, mine, owner);
    const uint64_t low = __shfl_sync(FULL, (uint64_t)rest, owner);
    const uint64_t high = __shfl_sync(FULL, (uint64_t)(rest >> 64), owner);
    const int i = warp_drawn_in(room->y[e][lane % SB_LEAF], constants, room->share[e],
                                (sb_u128)high << 64 | low, &x);
    finish_token(a, row, room->leaf[e] * SB_LEAF + i, x, s, model, constants);
}
