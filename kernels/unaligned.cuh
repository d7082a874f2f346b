/* unaligned.cuh - logprob of many rows of 16-bit logits that start at any address, at one
 * temperature, by a table: the kernels logprob_<dtype>_unaligned of logprob.cu.
 *
 *     leaves -> lane's state -> warp -> [block (shared)] -> finish, or in.states for logprob_finish
 *
 * One warp per row: rows are short, and what a row costs besides its leaves is paid once per warp.
 * In each trip a warp takes 32 leaves that lie side by side, one per lane. A lane loads the three
 * 16-byte chunks that its leaf lies in. Leaves near the row's end, whose chunks reach beyond it,
 * come from a copy of the end in shared memory. Each alignment has compiled code of its own; rows
 * are visited by alignment, so that the warps of a multiprocessor share code (row_at).
 *
 * Launch: one block of SB_CUDA_TABLE_BLOCK threads per multiprocessor, with the table in shared
 * memory. If in.split is 1, the W warps of the grid take the first in.whole rows in rounds of W, a
 * last round of fewer rows evenly over the blocks, and then their shares of the tail (share.cuh,
 * one warp per group). If in.split is 2 .. 16, in.work is at most W / in.split: that many warps of
 * a block take pieces of in.piece leaves of one row, and the first of them finishes it. */
#pragma once

#include "finish.cuh"
#include "share.cuh"
#include "table.cuh"
#include "target.cuh"

#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900

#define UNALIGNED_TERMS 7 /* TABLE_TERMS here, where a leaf takes three loads instead of two */
#define WARP_TRIP_BYTES (WARP * LEAF_BYTES) /* of logits that a warp takes in a trip */

/* ---- a warp's parts ----------------------------------------------------------------------- */

/* What a warp works on: a row, or a part of one. */
struct warp_part {
    const char *first; /* its first leaf */
    int64_t place;     /* in in.states; -1: the block finishes the row */
    int64_t item;      /* work item; -1: the warp has no more */
    int64_t number, id;
    int32_t leaves; /* 0: the row is done, or the part is empty */
    int32_t safe;   /* of them, the first so many lie in chunks that lie within the row */
    int32_t start;  /* the first leaf, counted in the row */
};

/* The distance of p, in bytes, from the 16-byte boundary below it. */
SB_DET int32_t shift_of(const char *p) { return (int32_t)((uint64_t)p & 15); }

/* Where in a part's row id lies. */
SB_DET const char *logit_of_part(const warp_part &it, int64_t id)
{
    return it.first + 2 * (id - (int64_t)it.start * SB_LEAF);
}

/* Sets the i-th part of the calling warp. Called by one thread, which also reports a bad row. */
SB_DET void set_warp_part(const sb_cuda_args &in, warp_part *to, uint32_t i)
{
    const uint32_t split = (uint32_t)in.split, rows = SB_CUDA_TABLE_BLOCK / WARP / split;
    const uint32_t warp = threadIdx.x / WARP, mine = warp / split, all = gridDim.x * rows;
    const uint32_t rounds = (uint32_t)in.whole / all, last = (uint32_t)in.whole % all;
    const uint32_t from_last = last * blockIdx.x / gridDim.x + mine;
    const bool has_last = from_last < last * (blockIdx.x + 1) / gridDim.x;
    const uint32_t leaves = leaves_in(in.vocab), w = blockIdx.x * rows + mine;
    uint32_t item = i * all + (i < rounds ? w : from_last);
    uint32_t start = warp % split * (uint32_t)in.piece, end = start + (uint32_t)in.piece;

    to->item = -1;
    to->place = -1;
    to->leaves = to->safe = 0;
    to->first = (const char *)in.logits;
    if (i >= rounds + has_last) { /* the next row of the tail that the warp has a share of */
        uint32_t from = tail_first(in, w);
        const uint32_t to_leaf = tail_first(in, w + 1);
        for (uint32_t j = i - (rounds + has_last); j > 0; j--) from = (from / leaves + 1) * leaves;
        if (from >= to_leaf) return;
        const uint32_t row = from / leaves;
        start = from - row * leaves;
        end = to_leaf - row * leaves;
        to->place = (int64_t)w + row;
        item = (uint32_t)in.whole + row;
    }
    to->start = (int32_t)start;
    const visit v = visit_row(in, item, start == 0);
    to->item = item;
    if (v.done) return;
    to->number = v.number;
    to->id = v.r.id;
    to->first = v.r.logits + (int64_t)start * LEAF_BYTES;
    end = min(end, leaves);
    if (start >= end) return;
    const int32_t behind = (16 - shift_of(to->first)) / 2; /* ids in a leaf's chunks, behind it */
    to->leaves = (int32_t)(end - start);
    to->safe = max(0, min(to->leaves, (int32_t)((in.vocab - behind) / SB_LEAF) - (int32_t)start));
}

/* ---- leaves ------------------------------------------------------------------------------- */

/* The three chunks that hold a leaf. */
struct leaf_chunks {
    uint4 a, b, c;
};

SB_DET void load_chunks(leaf_chunks &q, const char *p)
{
    q.a = load16(p);
    q.b = load16(p + 16);
    q.c = load16(p + 32);
}

/* The words of a leaf that begins SHIFT bytes into its chunks. If SHIFT is no multiple of 4, word 0
 * holds logits 15 and 0, and word i logits 2 i - 1 and 2 i, because only the sum asks for their
 * order. */
template <int DTYPE, int SHIFT>
SB_DET void words_of_chunks(leaf_words<DTYPE> &x, const leaf_chunks &q)
{
    constexpr int FIRST = SHIFT / 4;
    const uint32_t raw[12] = { q.a.x, q.a.y, q.a.z, q.a.w, q.b.x, q.b.y,
                               q.b.z, q.b.w, q.c.x, q.c.y, q.c.z, q.c.w };
#pragma unroll
    for (int i = 0; i < 8; i++) x.w[i] = raw[FIRST + i];
    if (SHIFT % 4 != 0) x.w[0] = __byte_perm(raw[FIRST], raw[FIRST + 8], 0x3254);
}

/* table_sum for these words. */
template <int DTYPE, int SHIFT>
SB_DET float table_sum_of(const leaf_words<DTYPE> &x, shared_address table, float c)
{
    constexpr bool ODD = SHIFT % 4 != 0;
    float v[SB_LEAF];
#pragma unroll
    for (int i = 0; i < 8; i++) {
        float &low = v[ODD ? (2 * i + 15) % 16 : 2 * i], &high = v[ODD ? 2 * i : 2 * i + 1];
        low = i < UNALIGNED_TERMS ? load_shared(table + dot_halves(x.w[i], 0x0004u, 0))
                                  : table_term(unpack<DTYPE>(x, 2 * i), c);
        high = table_term(unpack<DTYPE>(x, 2 * i + 1), c);
    }
    return sb_leaf_tree(v);
}

/* Adds a leaf that the table does not serve, or that moves the window: n of its ids exist, which
 * lie at p. Apart, so that its registers are not the hot loop's. */
template <int DTYPE>
static __device__ __noinline__ table_state plain_leaf_at(table_state t, const char *p, int32_t n,
                                                         sb_row row)
{
    leaf_words<DTYPE> x;
    load_part<DTYPE>(x, p, n);
    return add_plain<DTYPE>(t, x, p, n, row);
}

/* ---- a part's leaves ---------------------------------------------------------------------- */

/* A warp's memory, in the gap of the table. */
struct warp_memory {
    uint4 end[5]; /* of the part's row: the chunks of the leaves that are not safe */
    warp_part part[2];
    sb_state state; /* if the row is split */
    uint32_t word;  /* that holds the target's logit */
};

/* Copies the end of the row of a part, by a warp: from the first leaf that is not safe on, which is
 * at most 80 bytes. What lies outside the row is absent. */
template <int DTYPE>
SB_DET void copy_end(const sb_cuda_args &in, warp_memory *mine, const warp_part &it)
{
    const char *const p = it.first - shift_of(it.first) + it.safe * LEAF_BYTES;
    const char *const end = logit_of_part(it, in.vocab);
    if (it.safe == it.leaves) return;
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const int32_t k = threadIdx.x % WARP + i * WARP;
        if (k >= (int32_t)(sizeof mine->end / 2)) break;
        const char *const from = p + 2 * k;
        const bool is_there = from >= it.first && from < end;
        ((uint16_t *)mine->end)[k] = is_there ? *(const uint16_t *)from
                                              : (uint16_t)absent_word<DTYPE>();
    }
}

/* A part is taken in passes: 0: all trips of whole warps with safe leaves, except the last one; 1:
 * the last one; 2 and, rarely, 3: the leaves that are left. In each, the hot loop below adds the
 * leaf in q and begins to load the one that comes next, whatever that is. */
#define LAST_TRIP 1
#define RAGGED_TRIP 2

/* Adds a part's leaves to a lane's state. q holds, or waits for, the leaf of the first trip; at the
 * end that of the next part. */
template <int DTYPE, int SHIFT>
SB_DET void add_part(table_state *t, leaf_chunks &q, const warp_memory &mine, const warp_part &it,
                     const warp_part &next, shared_address table, float c, const sb_cuda_args &in)
{
    const int32_t lane = threadIdx.x % WARP, full = it.safe / WARP;
    const char *p = it.first - SHIFT + lane * LEAF_BYTES;
    if (full == 0 && lane < it.safe) load_chunks(q, p);
    if (full > 0) {
        leaf_words<DTYPE> x;
        words_of_chunks<DTYPE, SHIFT>(x, q);
        begin_window<DTYPE>(t, x, c);
    }
    for (int32_t pass = full > 1 ? 0 : full == 1 ? LAST_TRIP : RAGGED_TRIP;; pass++) {
        const int32_t now = (full + pass - RAGGED_TRIP) * WARP + lane; /* in ragged trips */
        int64_t step = WARP_TRIP_BYTES;
        uint32_t end = (uint32_t)(uint64_t)p + (full - 1) * WARP_TRIP_BYTES;
        int32_t ahead = 1; /* whether something is to be loaded */
        if (pass != 0) {
            const bool more = now - lane + WARP < it.leaves;
            const char *to = more ? it.first - SHIFT + (now + WARP) * LEAF_BYTES
                                  : next.first - shift_of(next.first) + lane * LEAF_BYTES;
            ahead = more ? now + WARP < it.safe : next.safe >= WARP;
            if (!ahead) to = p;
            step = to - p;
            end = (uint32_t)(uint64_t)to;
        }
        if (pass >= RAGGED_TRIP && now >= it.safe) {
            const uint32_t absent = absent_word<DTYPE>() * 0x10001u;
            q.a = q.b = q.c = { absent, absent, absent, absent };
            if (now < it.leaves) {
                const uint4 *from = mine.end + 2 * (now - it.safe);
                q.a = from[0], q.b = from[1], q.c = from[2];
            }
        }
        hide(step), hide(end); /* one loop for all passes */
        do {
            leaf_words<DTYPE> x;
            words_of_chunks<DTYPE, SHIFT>(x, q);
            const leaf_place at = place_of<DTYPE>(x, c);
            const uint32_t u = at.z - t->low;
            raise_words<DTYPE>(x, at.m, in.row.k64);
            p += step;
            hide(p); /* so that no copy of the old address is kept */
            if (ahead) load_chunks(q, p);
            if (__builtin_expect(u < 2 * DIGIT, 1)) {
                add_to_window(t, table_sum_of<DTYPE, SHIFT>(x, table, c), at.z);
            } else if (!sb_is_absent(at.m)) {
                const bool ragged = pass >= RAGGED_TRIP;
                const int64_t left = in.vocab - (int64_t)(it.start + now) * SB_LEAF;
                *t = plain_leaf_at<DTYPE>(
                    *t, ragged ? it.first + now * LEAF_BYTES : p - step + SHIFT,
                    ragged ? (int32_t)min(left, (int64_t)SB_LEAF) : SB_LEAF, in.row);
            }
        } while ((uint32_t)(uint64_t)p != end);
        if (pass != 0 && now - lane + WARP >= it.leaves) break;
    }
}

/* ---- rows --------------------------------------------------------------------------------- */

/* By one thread: the target's logit is on its way while the row is summed. */
SB_DET void fetch_part_target(const sb_cuda_args &in, const warp_part &it, uint32_t *word)
{
    const char *const p = logit_of_part(it, it.id);
    const int64_t other = it.id + ((uint64_t)p & 2 ? -1 : 1);
    fetch_word(word, p, other < 0 || other >= in.vocab);
}

/* By a warp: the end of a part that is a whole row, or a share of one. */
template <int DTYPE>
SB_DET void end_part(const sb_cuda_args &in, const warp_part &it, const sb_state &s, uint32_t word)
{
    const bool owner = owns_target(it);
    const float x = owner ? word_value<DTYPE>(word, logit_of_part(it, it.id)) : 0.0f;
    if (it.place < 0) {
        if (it.leaves > 0) finish_row(in, it.number, s, x, in.row);
        return;
    }
    if (threadIdx.x % WARP != 0) return;
    sb_state *const to = (sb_state *)in.states + it.place;
    if (it.leaves > 0) *to = s;
    else make_none(to);
    if (owner) write_target(in, it.item - in.whole, x, 1);
    else if (it.leaves == 0 && it.start == 0) write_target(in, it.item - in.whole, 0.0f, 0);
}

/* By a block: the end of rows that are split. */
template <int DTYPE>
SB_DET void end_split_rows(const sb_cuda_args &in, warp_memory *all, const warp_part &it)
{
    const int32_t warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    group_barrier(warp / in.split, in.split * WARP); /* the row's states are written */
    if (warp % in.split != 0 || it.item < 0 || it.leaves == 0) return;
    sb_state s;
    if (lane < in.split) s = all[warp + lane].state;
    else make_none(&s);
    warp_merge(&s);
    const float x = word_value<DTYPE>(all[warp].word, logit_of_part(it, it.id));
    finish_row(in, it.number, s, x, in.row);
}

template <int DTYPE> SB_DET void logprob_unaligned(const sb_cuda_args &in)
{
    const shared_address table = address_of(staging);
    const int32_t lane = threadIdx.x % WARP;
    volatile float *const constants = (volatile float *)((char *)staging + TABLE_GAP);
    warp_memory *const all = (warp_memory *)(constants + WARP);
    warp_memory *const mine = all + threadIdx.x / WARP;
    leaf_chunks q = {};

    begin_dependents(); /* whose blocks find no room before these have ended */
    fill_table<DTYPE>(table, in.row.c);
    wait_for_primary();
    if (threadIdx.x < WARP) constants[lane] = in.row.c;
    if (lane == 0) set_warp_part(in, &mine->part[0], 0);
    __syncwarp(); /* the part is written */
    if (mine->part[0].safe >= WARP)
        load_chunks(q, mine->part[0].first - shift_of(mine->part[0].first) + lane * LEAF_BYTES);
    __syncthreads();                 /* the table and the constants are written */
    const float c = constants[lane]; /* each lane's own, so that ptxas keeps it in a register */

    for (uint32_t i = 0; mine->part[i % 2].item >= 0; i++) {
        const warp_part &it = mine->part[i % 2], &next = mine->part[(i + 1) % 2];
        table_state s;
        s.low = NO_BASE;
        sb_state_init(&s.s, c);
        copy_end<DTYPE>(in, mine, it);
        if (lane == 0) {
            if (in.split > 1 ? it.start == 0 && it.leaves > 0 : owns_target(it))
                fetch_part_target(in, it, &mine->word);
            set_warp_part(in, &mine->part[(i + 1) % 2], i + 1);
        }
        __syncwarp(); /* the copy and the next part are written */
        if (it.leaves > 0)
            at_alignment<DTYPE>(shift_of(it.first), [&](auto shift) {
                add_part<DTYPE, decltype(shift)::value>(&s, q, *mine, it, next, table, c, in);
            });
        else if (next.safe >= WARP)
            load_chunks(q, next.first - shift_of(next.first) + lane * LEAF_BYTES);
        warp_merge(&s.s);
        if (lane == 0) wait_for_all_copies();
        if (lane == 0 && in.split > 1) mine->state = s.s;
        __syncwarp(); /* the word is written */
        if (in.split == 1) end_part<DTYPE>(in, it, s.s, mine->word);
        __syncwarp(); /* the part, the copy and the word are read */
    }
    if (in.split > 1) end_split_rows<DTYPE>(in, all, mine->part[0]);
}

#endif
