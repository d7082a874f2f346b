/* head_leaves.cuh - what becomes of the integers of a product: levels to logits, the steps after
 * them, and leaves into states. It repeats det/linear.h in another form, without changing a
 * rounding. Also how blocks share the tiles of a chunk of rows. */
#pragma once

#include "../src/det/linear.h"
#include "kept.cuh"
#include "leaf.cuh"
#include "merge.cuh"

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

/* Writes the logits of a leaf. */
SB_DET void store_logits(const sb_cuda_head_args &a, const float *x, const leaf_lane &lane,
                         int64_t id0)
{
    const int64_t to = lane.row->to + id0 - a.skip;
    const int end = (int)min((int64_t)SB_LEAF, a.held - id0);
#pragma unroll 1
    for (int i = 0; i < end; i++) {
        const float y = sb_is_nan(x[i]) ? sb_float(SB_NAN_BITS) : x[i];
        if (a.logits_dtype == SB_CUDA_F32) ((float *)a.logits)[to + i] = y;
        else if (a.logits_dtype == SB_CUDA_F16) ((uint16_t *)a.logits)[to + i] = sb_to_f16(y);
        else ((uint16_t *)a.logits)[to + i] = sb_to_bf16(y);
    }
}

/* Adds a leaf of any kind, as add_any. x changes. */
SB_DET void add_rare_leaf(thread_state *t, float *x, const leaf_lane &lane)
{
    sb_row row;
    float m = sb_float(SB_ABSENT_BITS), v[SB_LEAF];
    row.c = lane.constants.c, row.k64 = lane.constants.k64, row.lim = lane.row->lim;
    row.kappa = 0;
#pragma unroll 1
    for (int i = 0; i < SB_LEAF; i++) {
        if (sb_is_poison(x[i])) {
            sb_state_poison(&t->s);
            t->base = NO_BASE;
            return;
        }
        m = x[i] > m ? x[i] : m;
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

/* Takes the logits of a leaf as the product gave them, and adds the leaf to t. x may change. */
SB_DET void finish_leaf(const sb_cuda_head_args &a, thread_state *t, float *x,
                        const leaf_lane &lane, int64_t id0)
{
    leaf_words<SB_CUDA_F32> leaf;
    bool left = false;
    if (!lane.row || id0 < a.skip || id0 >= a.held) return;
    if (!a.plain || id0 + SB_LEAF > a.held) take_steps(a, x, lane, id0);
    if (a.logits) {
        store_logits(a, x, lane, id0);
        return;
    }
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
    add_leaf<SB_CUDA_F32>(t, leaf, lane.constants, &left);
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
SB_DET sb_state *state_place(const sb_cuda_head_args &a, const head_share &share, int64_t block,
                             int64_t row_tile, int row)
{
    const int64_t later = block < share.lanes * share.tiles ? 0 : row_tile;
    return (sb_state *)a.states + (block + later) * a.stride + row;
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

/* ---- states between tiles ----------------------------------------------------------------- */

/* A lane's state in shared memory, word by word, so that a warp's states lie side by side. c is
 * not kept. */
#define STATE_WORDS 7

SB_DET void keep_state(uint32_t *shared, const sb_state &s)
{
    shared[0] = s.J;
#pragma unroll
    for (int i = 0; i < 3; i++) {
        shared[(1 + 2 * i) * WARP] = (uint32_t)s.l[i];
        shared[(2 + 2 * i) * WARP] = (uint32_t)(s.l[i] >> 32);
    }
}

SB_DET sb_state kept_state(const uint32_t *shared, float c)
{
    sb_state s;
    s.J = shared[0];
    s.c = sb_bits32(c);
#pragma unroll
    for (int i = 0; i < 3; i++)
        s.l[i] = (uint64_t)shared[(2 + 2 * i) * WARP] << 32 | shared[(1 + 2 * i) * WARP];
    return s;
}

/* Continues a sum from a state. */
SB_DET void resume_sum(thread_state *t, const sb_state &s)
{
    t->s = s;
    t->base = s.J == SB_J_EMPTY || s.J == SB_J_POISON ? NO_BASE : base_of(s.J);
}
