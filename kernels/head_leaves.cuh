/* head_leaves.cuh - what becomes of the integers of a product: levels to logits, the steps after
 * them, and leaves into states. It repeats det/linear.h in another form, without changing a
 * rounding. Also how blocks share the tiles of a chunk of rows. */
#pragma once

#include "../src/cuda/head_records.h"
#include "../src/det/linear.h"
#include "kept.cuh"
#include "leaf.cuh"
#include "merge.cuh"
#include "moments.cuh"

/* ---- levels to logits --------------------------------------------------------------------- */

/* Accumulators of level 0 start here, so that with its carries they are the encoding of the fp32
 * number 1.5 * 2^23 + T / 2^16, rounded down, if that is small enough. */
#define LEVEL_0_START 0x4b400000

/* T as fp32, rounded once, from level 0 (which began at LEVEL_0_START), 1 and 2, if |T| is below
 * 2^38. Otherwise `beyond` gets a bit above the lowest 23, and the result means nothing.
 *
 * With hi = floor(T / 2^16) and the lowest 16 bits lo of T, both fp32 numbers below are exact:
 * hi - 128, and 2^23 + lo. */
SB_DET float product_in_range(int32_t L0, int32_t L1, int32_t L2, uint32_t *beyond)
{
    const int32_t middle = L1 + (L2 >> 8);
    const uint32_t hi = (uint32_t)(L0 + (middle >> 8));
    const uint32_t lo = (__byte_perm((uint32_t)L2, (uint32_t)middle, 0x0040) & 0xffffu) |
                        0x4b000000u;
    *beyond |= hi ^ 0x4b000000u;
    return sb_fma32(sb_float(hi) - (0x1.8p+23f + 128.0f), 65536.0f, sb_float(lo));
}

SB_DET bool is_beyond(uint32_t beyond) { return beyond >> 23 != 0; }

/* The same for every T. */
SB_DET float product_of(int32_t L0, int32_t L1, int32_t L2)
{
    return (float)sb_linear_T16((int32_t)((uint32_t)L0 - (uint32_t)LEVEL_0_START), L1, L2);
}

/* The products of 16 sums. level(i, n) is level n of sum i. */
template <class LEVEL> SB_DET void products_of_16(float (&x)[16], LEVEL level)
{
    uint32_t beyond = 0;
#pragma unroll
    for (int i = 0; i < 16; i++)
        x[i] = product_in_range(level(i, 0), level(i, 1), level(i, 2), &beyond);
    if (!is_beyond(beyond)) return;
#pragma unroll
    for (int i = 0; i < 16; i++) x[i] = product_of(level(i, 0), level(i, 1), level(i, 2));
}

/* 2^(E - 15) of a row of weights from its byte; infinity if the row is bad, so that its product 0
 * becomes NaN. */
SB_DET float scale_of_exponent(uint32_t byte) { return sb_float(byte << 23); }

/* Whether states are sb_moments. Of records, logits_dtype tells: it has no other meaning then. */
SB_DET bool has_moments(const sb_cuda_head_args &a)
{
    return a.to_states ? a.logits_dtype == SB_CUDA_HEAD_MOMENTS : a.in.entropy != 0;
}

/* ---- one leaf ----------------------------------------------------------------------------- */

/* A lane's row, as far as its leaves need it. */
struct leaf_lane {
    leaf_row constants;
    const sb_cuda_head_row *row; /* null: none */
    int64_t id;                  /* the target's, counted from the head's first id */
};

SB_DET leaf_lane lane_of_row(const sb_cuda_head_args &a, int64_t row)
{
    const sb_cuda_head_row *r = (const sb_cuda_head_row *)a.rows + row;
    leaf_lane lane = { { r->c, r->k64 }, r, r->id - a.first };
    if (!r->hidden) lane.row = nullptr;
    return lane;
}

SB_DET leaf_lane no_row() { return { { 1.0f, 64.0f }, nullptr, -1 }; }

/* The functions below have a lane's leaf in memory, aligned to 16 bytes, mostly shared memory. What
 * is rare is in rolled loops there: code that is not small makes the rest slow. */

/* The steps after the product, and the ids that are absent: those behind the last one, outside the
 * kept set, or with a bias of -inf. id0: the leaf's first id, counted from the head's. */
SB_DET void take_steps(const sb_cuda_head_args &a, float *x, const leaf_lane &lane, int64_t id0)
{
    const uint32_t kept = kept_bits(a.in, lane.row->number, (a.first + id0) / SB_LEAF);
#pragma unroll 1
    for (int i = 0; i < SB_LEAF; i++) {
        const bool absent = id0 + i >= a.held || !(kept >> i & 1);
        float b = absent ? sb_float(SB_ABSENT_BITS) : 0.0f;
        if (!absent && a.bias) b = ((const float *)a.bias)[id0 + i];
        x[i] = sb_linear_finish(x[i], b, &a.steps);
    }
}

/* Writes four logits of a row, from id `id` on, counted from the head's, as far as the call is
 * about them. x is aligned to 16 bytes, id a multiple of 4. */
SB_DET void store_four(const sb_cuda_head_args &a, const sb_cuda_head_row *row, const float *x,
                       int64_t id)
{
    const int64_t left = a.held - id;
    const int32_t size = a.logits_dtype == SB_CUDA_F32 ? 4 : 2;
    char *const to = (char *)a.logits + (row->to + id - a.skip) * size;
    const uint4 four = *(const uint4 *)x;
    uint32_t y[4] = { four.x, four.y, four.z, four.w };
    if (id < a.skip || left <= 0) return;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const float z = sb_is_nan(sb_float(y[i])) ? sb_float(SB_NAN_BITS) : sb_float(y[i]);
        y[i] = size == 4                       ? sb_bits32(z)
               : a.logits_dtype == SB_CUDA_F16 ? sb_to_f16(z)
                                               : sb_to_bf16(z);
    }
    if (left >= 4 && ((uint64_t)to & (4 * size - 1)) == 0) {
        if (size == 4) store16(to, { y[0], y[1], y[2], y[3] });
        else store8(to, { y[0] | y[1] << 16, y[2] | y[3] << 16 });
        return;
    }
#pragma unroll
    for (int i = 0; i < 4; i++) {
        if (i >= left) continue;
        if (size == 4) ((uint32_t *)to)[i] = y[i];
        else ((uint16_t *)to)[i] = (uint16_t)y[i];
    }
}

/* Writes the logits of a warp's ROWS rows, IDS each, which lie in memory `stride` numbers apart: so
 * that the lanes of a store write consecutive bytes. row_of(r): the row's record, or null. */
template <int ROWS, int IDS, class ROW>
SB_DET void store_rows(const sb_cuda_head_args &a, const float *x, int stride, int64_t id0,
                       ROW row_of)
{
    constexpr int LANES = IDS / 4;
    const int lane = threadIdx.x % WARP, k = lane % LANES * 4;
#pragma unroll 1
    for (int r = lane / LANES; r < ROWS; r += WARP / LANES) {
        const sb_cuda_head_row *const row = row_of(r);
        if (row && row->hidden) store_four(a, row, x + r * stride + k, id0 + k);
    }
}

/* A lane's row constants, and its leaf's largest logit: NaN if the leaf is poison. */
SB_DET sb_row rare_row(const leaf_lane &lane)
{
    sb_row row;
    row.c = lane.constants.c, row.k64 = lane.constants.k64, row.lim = lane.row->lim;
    row.kappa = 0;
    return row;
}

SB_DET float rare_largest(const float *x)
{
    float m = sb_float(SB_ABSENT_BITS);
#pragma unroll 1
    for (int i = 0; i < SB_LEAF; i++) {
        if (sb_is_poison(x[i])) return sb_float(SB_NAN_BITS);
        m = x[i] > m ? x[i] : m;
    }
    return m;
}

/* Adds a leaf of any kind, as add_any. x changes. */
SB_DET void add_rare_leaf(thread_state *t, float *x, const leaf_lane &lane)
{
    const sb_row row = rare_row(lane);
    const float m = rare_largest(x);
    float v[SB_LEAF];
    if (sb_is_nan(m)) {
        sb_state_poison(&t->s);
        t->base = NO_BASE;
        return;
    }
    if (sb_is_absent(m)) return;
    const sb_leaf_scale scale = sb_leaf_scale_of(m, &row);
#pragma unroll 1
    for (int i = 0; i < SB_LEAF; i++) {
        const float y = scale.wide && !sb_is_absent(x[i]) ? sb_clamp(x[i], row.lim) : x[i];
        x[i] = sb_leaf_term(y > scale.thr ? y : scale.thr, row.c, SB_INT_MAGIC - scale.A);
    }
#pragma unroll
    for (int i = 0; i < SB_LEAF; i++) v[i] = x[i];
    const sb_leaf leaf = { (int32_t)scale.A, (uint32_t)(sb_leaf_tree(v) * 0x1p+24f) };
    sb_state_add(&t->s, &leaf);
    t->base = t->s.J == SB_J_POISON ? NO_BASE : base_of(t->s.J);
}

/* The same with moments. The halving tree's first step is in place: x[i] becomes the sum of terms i
 * and i + 8, and x[i + 8] that of their products. */
SB_DET void add_rare_leaf(thread_moments *t, float *x, const leaf_lane &lane)
{
    const sb_row row = rare_row(lane);
    const float m = rare_largest(x);
    if (sb_is_nan(m)) {
        sb_moments_poison(&t->s);
        t->base = NO_BASE;
        return;
    }
    if (sb_is_absent(m)) return;
    const sb_leaf_scale scale = sb_leaf_scale_of(m, &row);
#pragma unroll 1
    for (int i = 0; i < SB_LEAF / 2; i++) {
        float v[2], h[2];
#pragma unroll
        for (int k = 0; k < 2; k++) {
            float y = x[i + 8 * k];
            y = scale.wide && !sb_is_absent(y) ? sb_clamp(y, row.lim) : y;
            y = y > scale.thr ? y : scale.thr;
            v[k] = sb_leaf_term(y, row.c, SB_INT_MAGIC - scale.A);
            h[k] = v[k] * sb_fma32(y, row.c, -scale.A);
        }
        x[i] = v[0] + v[1];
        x[i + 8] = h[0] + h[1];
    }
    float sums[2];
#pragma unroll
    for (int k = 0; k < 2; k++) {
        const float *const y = x + 8 * k;
        sums[k] = (((y[0] + y[4]) + (y[2] + y[6])) + ((y[1] + y[5]) + (y[3] + y[7]))) * 0x1p+24f;
    }
    sb_moment_leaf leaf;
    leaf.leaf.A = (int32_t)scale.A;
    leaf.leaf.M = (uint32_t)sums[0];
    leaf.U = sb_nearest(sums[1]);
    leaf.best = 0; /* most has it */
    sb_moments_add(&t->s, &leaf);
    t->most = fmaxf(t->most, m);
    t->base = t->s.sum.J == SB_J_POISON ? NO_BASE : base_of(t->s.sum.J);
}

/* After poison, add_other of moments.cuh sets base to base_of(SB_J_POISON), from which every leaf
 * that is not wide is far away. */
static_assert((uint32_t)(SB_BIAS / 32 - SB_J_POISON) * DIGIT - 2048 > 2 * DIGIT &&
                  (uint32_t)(SB_J_POISON - SB_BIAS / 32) * DIGIT - 2048 > 2 * DIGIT,
              "no leaf is added to a poisoned window");

/* Takes the logits of a leaf as the product gave them, and adds the leaf to t; x may change. If
 * logits are wanted, x becomes what is to be stored. */
template <class THREAD>
SB_DET void finish_leaf(const sb_cuda_head_args &a, THREAD *t, float *x, const leaf_lane &lane,
                        int64_t id0)
{
    leaf_words<SB_CUDA_F32> leaf;
    bool left = false;
    if (!lane.row || id0 < a.skip || id0 >= a.held) return;
    if (!a.plain || id0 + SB_LEAF > a.held) take_steps(a, x, lane, id0);
    if (a.logits) return;
    if ((uint64_t)(lane.id - id0) < SB_LEAF) {
        sb_cuda_head_row *const row = (sb_cuda_head_row *)lane.row;
        const float y = x[lane.id - id0];
        row->x = sb_is_nan(y) ? SB_NAN_BITS : sb_bits32(y);
        row->owners = 1;
    }
#pragma unroll
    for (int k = 0; k < 4; k++) {
        const uint4 v = *(const uint4 *)(x + 4 * k);
        leaf.w[4 * k] = v.x, leaf.w[4 * k + 1] = v.y;
        leaf.w[4 * k + 2] = v.z, leaf.w[4 * k + 3] = v.w;
    }
    sees_nothing nothing;
    add_leaf<SB_CUDA_F32>(t, leaf, lane.constants, &left, nothing);
    if (left) add_rare_leaf(t, x, lane);
}

/* ---- sharing the tiles of a chunk --------------------------------------------------------- */

/* How a.groups blocks share the tiles of a chunk, an equal number each. Every row tile has `lanes`
 * blocks of its own, which take its tiles of ids in turn; so at any time all row tiles need about
 * the same weights, and a block has one row tile. The blocks that are left take the last tiles of
 * ids, `ends` of each row tile. */
struct head_share {
    int64_t rows;  /* of the chunk */
    int64_t tiles; /* of rows */
    int64_t lanes;
    int64_t each; /* tiles of a block, at most */
    int64_t ends;
};

/* How many rows of the chunk are active, or may be. */
SB_DET int64_t rows_of_chunk(const sb_cuda_head_args &a)
{
    int64_t count = a.in.work;
    hide(count); /* or the compiler may load from one of two addresses, one of them a parameter's */
    if (a.count) count = *(const volatile int64_t *)a.count;
    const int64_t left = count - a.chunk;
    return left < 0 ? 0 : left < a.most ? left : a.most;
}

SB_DET head_share share_of(const sb_cuda_head_args &a)
{
    head_share share;
    share.rows = rows_of_chunk(a);
    share.tiles = (share.rows + SB_CUDA_HEAD_TILE - 1) / SB_CUDA_HEAD_TILE;
    share.lanes = share.tiles ? a.groups / share.tiles : 0;
    share.each = (share.tiles * a.tiles + a.groups - 1) / a.groups;
    share.ends = max(a.tiles - share.lanes * share.each, (int64_t)0);
    return share;
}

/* A block's way through its tiles. */
struct head_walk {
    int64_t row_tile;
    int32_t id_tile, step;
    int32_t first, end; /* of the ids' tiles in each row tile */
    int64_t left;       /* tiles */
    bool begins;        /* the tile is the first of its row tile */
};

SB_DET head_walk begin_walk(const sb_cuda_head_args &a, const head_share &share)
{
    const int64_t own = share.lanes * share.tiles, rest = (int64_t)blockIdx.x - own;
    head_walk w;
    w.begins = true;
    if (rest < 0) {
        w.row_tile = blockIdx.x % share.tiles;
        w.id_tile = w.first = (int32_t)(blockIdx.x / share.tiles);
        w.step = (int32_t)share.lanes;
        w.end = a.tiles - (int32_t)share.ends;
        w.left = w.id_tile < w.end ? (w.end - w.id_tile - 1) / w.step + 1 : 0;
    } else {
        const int64_t i = rest * share.each, all = share.tiles * share.ends;
        w.step = 1;
        w.end = a.tiles;
        w.first = a.tiles - (int32_t)share.ends;
        w.row_tile = share.ends ? i / share.ends : 0;
        w.id_tile = w.first + (share.ends ? (int32_t)(i % share.ends) : 0);
        w.left = i < all ? min(share.each, all - i) : 0;
    }
    return w;
}

SB_DET void next_tile(head_walk *w)
{
    w->left--;
    w->id_tile += w->step;
    w->begins = w->id_tile >= w->end;
    if (!w->begins) return;
    w->id_tile = w->first;
    w->row_tile++;
}

/* Whether the tile is the last of its row tile for this block. */
SB_DET bool ends_row_tile(const head_walk &w) { return w.left == 1 || w.id_tile + w.step >= w.end; }

/* The state of row `row` of the walk's row tile. Blocks that have one row tile come first; behind
 * them, both the block's and the row tile's number grow, so no two pairs share a state. */
template <class STATE>
SB_DET STATE *state_place(const sb_cuda_head_args &a, const head_share &share, int64_t block,
                          int64_t row_tile, int row)
{
    const int64_t later = block < share.lanes * share.tiles ? 0 : row_tile;
    return (STATE *)a.states + (block + later) * a.stride + row;
}

/* Calls f(block, row tile) for each block that has a state for rows of a row tile; of these, for
 * every WARP-th one, from the calling lane's on. */
template <class F>
SB_DET void for_blocks_of(const sb_cuda_head_args &a, const head_share &share, int64_t tile, F f)
{
    const int64_t own = min(share.lanes, a.tiles - share.ends), lane = threadIdx.x % WARP;
    for (int64_t i = lane; i < own; i += WARP) f(i * share.tiles + tile);
    if (share.ends == 0) return;
    const int64_t first = tile * share.ends / share.each;
    const int64_t last = ((tile + 1) * share.ends - 1) / share.each;
    for (int64_t i = first + lane; i <= last; i += WARP) f(share.lanes * share.tiles + i);
}

/* Merges the states of a row of the chunk. Called by one warp; every lane gets the result. */
template <class STATE>
SB_DET STATE sum_of_row(const sb_cuda_head_args &a, const head_share &share, int64_t i)
{
    const int64_t tile = i / SB_CUDA_HEAD_TILE;
    const int row = (int)(i % SB_CUDA_HEAD_TILE);
    STATE s;
    make_none(&s);
    for_blocks_of(a, share, tile, [&](int64_t block) {
        merge_into(&s, *state_place<STATE>(a, share, block, tile, row));
    });
    warp_merge(&s);
    return s;
}

/* ---- sums and their states ---------------------------------------------------------------- */

/* What the kernels sum is STATE: sb_state, or sb_moments if entropies are wanted. A lane keeps its
 * sum between tiles in shared memory, word by word, so that a warp's sums lie side by side. c is
 * not kept. */
template <class STATE> struct sum_of;
template <> struct sum_of<sb_state> {
    typedef thread_state thread;
    static constexpr int WORDS = 7;
};
template <> struct sum_of<sb_moments> {
    typedef thread_moments thread;
    static constexpr int WORDS = 14;
};

template <class THREAD> SB_DET void begin_lane(THREAD *t, const leaf_lane &lane)
{
    t->base = NO_BASE;
    begin_sum(t, lane.constants.c);
}

SB_DET const sb_state &end_lane(thread_state *t) { return t->s; }
SB_DET const sb_moments &end_lane(thread_moments *t)
{
    end_sum(t); /* best means nothing if the sum is poisoned, until it is merged */
    return t->s;
}

SB_DET void keep_word(uint32_t *shared, int i, uint64_t x)
{
    shared[i * WARP] = (uint32_t)x;
    shared[(i + 1) * WARP] = (uint32_t)(x >> 32);
}

SB_DET uint64_t kept_word(const uint32_t *shared, int i)
{
    return (uint64_t)shared[(i + 1) * WARP] << 32 | shared[i * WARP];
}

SB_DET void keep_state(uint32_t *shared, const sb_state &s)
{
    shared[0] = s.J;
#pragma unroll
    for (int i = 0; i < 3; i++) keep_word(shared, 1 + 2 * i, s.l[i]);
}

SB_DET sb_state kept_state(const uint32_t *shared, const leaf_lane &lane)
{
    sb_state s;
    s.J = shared[0];
    s.c = sb_bits32(lane.constants.c);
#pragma unroll
    for (int i = 0; i < 3; i++) s.l[i] = kept_word(shared, 1 + 2 * i);
    return s;
}

/* base of a sum that continues from a window at J. */
SB_DET uint32_t base_from(uint32_t J)
{
    return J == SB_J_EMPTY || J == SB_J_POISON ? NO_BASE : base_of(J);
}

SB_DET void keep_sum(uint32_t *shared, const thread_state &t) { keep_state(shared, t.s); }
SB_DET void keep_sum(uint32_t *shared, const thread_moments &t)
{
    keep_state(shared, t.s.sum);
#pragma unroll
    for (int i = 0; i < 3; i++) keep_word(shared, 7 + 2 * i, (uint64_t)t.s.g[i]);
    shared[13 * WARP] = sb_bits32(t.most);
}

SB_DET void resume_sum(thread_state *t, const uint32_t *shared, const leaf_lane &lane)
{
    t->s = kept_state(shared, lane);
    t->base = base_from(t->s.J);
}
SB_DET void resume_sum(thread_moments *t, const uint32_t *shared, const leaf_lane &lane)
{
    sb_moments_init(&t->s, lane.constants.c);
    t->s.sum = kept_state(shared, lane);
    t->base = base_from(t->s.sum.J);
#pragma unroll
    for (int i = 0; i < 3; i++) t->s.g[i] = (int64_t)kept_word(shared, 7 + 2 * i);
    t->most = sb_float(shared[13 * WARP]);
}

/* The state of the lane `step` away. */
SB_DET sb_state state_across(const sb_state &s, int step)
{
    sb_state other;
    other.c = s.c;
    other.J = __shfl_xor_sync(FULL, s.J, step);
#pragma unroll
    for (int i = 0; i < 3; i++) other.l[i] = __shfl_xor_sync(FULL, s.l[i], step);
    return other;
}
SB_DET sb_moments state_across(const sb_moments &m, int step)
{
    sb_moments other;
    other.sum = state_across(m.sum, step);
    other.reserved = 0;
    other.best = __shfl_xor_sync(FULL, m.best, step);
#pragma unroll
    for (int i = 0; i < 3; i++) other.g[i] = __shfl_xor_sync(FULL, m.g[i], step);
    return other;
}
