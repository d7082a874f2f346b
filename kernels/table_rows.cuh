/* table_rows.cuh - logprob of many rows of aligned 16-bit logits at one temperature, by a table:
 * the kernels logprob_<dtype>_table of logprob.cu.
 *
 *     leaves -> thread's state -> warp -> group (shared) -> finish, or in.states for logprob_finish
 *
 * Launch: one block per multiprocessor, which shared memory for the table allows, in groups, each
 * with a named barrier of its own; share.cuh says which rows a group takes. A thread's next leaves
 * are on their way to its registers while it works on one: as many bytes as fit into the L1 that
 * the table leaves. So there are two shapes:
 *
 *     logprob_<dtype>_table        1024 threads in groups of 256, one leaf ahead
 *     logprob_<dtype>_table_deep   896 threads in groups of 128, two leaves ahead
 *
 * A block stays until all rows are done, because its table takes a microsecond to fill. It is
 * filled before the block waits for the kernel in front, and the kernel behind may be set up from
 * the start: its blocks find no room before these have ended. */
#pragma once

#include "finish.cuh"
#include "share.cuh"
#include "table.cuh"
#include "target.cuh"

/* A group's memory, in the gap of the table. Item i is number i modulo 4, its word and states are
 * number i modulo 2. */
template <int WARPS> struct table_group {
    group_item item[4];
    uint32_t word[2]; /* that holds the target's logit */
    sb_state states[2][WARPS];
};

/* The leaves of an item that a thread takes: trips of them, the first at p. */
struct thread_leaves {
    const char *p;
    int32_t trips;
};

template <int GROUP> SB_DET thread_leaves leaves_of(const group_item &it, int32_t t)
{
    return { it.first + t * LEAF_BYTES, (it.whole - t + GROUP - 1) / GROUP };
}

SB_DET void load_table_leaf(uint4 q[2], const char *p)
{
    q[0] = load16(p);
    q[1] = load16(p + 16);
}

/* Begins to fetch the target's logit. Called by thread 0 of a group. */
SB_DET void fetch_group_target(const sb_cuda_args &in, const group_item &it, uint32_t *word)
{
    if (!owns_target(it)) return;
    fetch_word(word, it.first + 2 * (it.id - (int64_t)it.start * SB_LEAF), (it.id ^ 1) >= in.vocab);
}

/* The end of an item, from its warps' states. Called by a warp. */
template <int DTYPE>
SB_DET void end_group_item(const sb_cuda_args &in, const group_item &it, const sb_state *states,
                           int warps, uint32_t word)
{
    const bool owner = owns_target(it);
    sb_state s;
    if (it.leaves == 0 && it.place < 0) return; /* a whole row that is done */
    if (it.leaves > 0) merge_shared(&s, states, warps);
    else make_none(&s);
    const char *p = it.first + 2 * (it.id - (int64_t)it.start * SB_LEAF);
    const float x = owner ? word_value<DTYPE>(word, p) : 0.0f;
    if (it.place < 0) {
        finish_row(in, it.number, s, x, in.row);
        return;
    }
    if (threadIdx.x % WARP != 0) return;
    ((sb_state *)in.states)[it.place] = s;
    if (owner) write_target(in, it.item - in.whole, x, 1);
    else if (it.leaves == 0 && it.start == 0) write_target(in, it.item - in.whole, 0.0f, 0);
}

/* Adds the last leaf of an item's row, if the item holds it and some of its ids do not exist. */
template <int DTYPE>
SB_DET void add_ragged_leaf(const sb_cuda_args &in, const group_item &it, table_state *s)
{
    const char *const p = it.first + (int64_t)it.whole * LEAF_BYTES;
    const int32_t n = (int32_t)(in.vocab % SB_LEAF);
    leaf_words<DTYPE> x;
    if (it.whole == it.leaves) return;
    load_part<DTYPE>(x, p, n);
    *s = plain_leaf<DTYPE>(*s, x, p, n, in.row);
}

/* Adds a thread's leaves of an item, the first of which is in q. Then the first one of the item
 * after it is on its way to q. STEP: bytes from leaf to leaf. */
template <int DTYPE, int STEP>
SB_DET void add_leaves_near(table_state *s, uint4 q[1][2], thread_leaves x, thread_leaves after,
                            shared_address table, float c, const sb_row &row)
{
    const char *p = x.p, *const end = p + (x.trips - 1) * STEP;
    auto next = [&] {
        if (after.trips > 0) load_table_leaf(q[0], after.p);
    };
    if (x.trips == 0) {
        next();
        return;
    }
    while (p != end) {
        p += STEP;
        hide(p); /* so that no copy of the old address is kept */
        add_table_leaf<DTYPE>(s, q[0], p - STEP, table, c, row, [&] { load_table_leaf(q[0], p); });
    }
    add_table_leaf<DTYPE>(s, q[0], p, table, c, row, next);
}

/* The same with the first two leaves. */
template <int DTYPE, int STEP>
SB_DET void add_leaves_deep(table_state *s, uint4 q[2][2], thread_leaves x, thread_leaves after,
                            shared_address table, float c, const sb_row &row)
{
    const char *p = x.p;
    int32_t pairs = x.trips / 2;
    if (x.trips % 2) { /* one leaf, so that an even number is left */
        add_table_leaf<DTYPE>(s, q[0], p, table, c, row, [] {});
        q[0][0] = q[1][0], q[0][1] = q[1][1];
        if (pairs > 0) load_table_leaf(q[1], p + 2 * STEP);
        p += STEP;
    }
    if (pairs == 0) {
        if (after.trips > 0) load_table_leaf(q[0], after.p);
        if (after.trips > 1) load_table_leaf(q[1], after.p + STEP);
        return;
    }
    for (; --pairs > 0; p += 2 * STEP) {
        add_table_leaf<DTYPE>(s, q[0], p, table, c, row,
                              [&] { load_table_leaf(q[0], p + 2 * STEP); });
        add_table_leaf<DTYPE>(s, q[1], p + STEP, table, c, row,
                              [&] { load_table_leaf(q[1], p + 3 * STEP); });
    }
    add_table_leaf<DTYPE>(s, q[0], p, table, c, row, [&] {
        if (after.trips > 0) load_table_leaf(q[0], after.p);
    });
    add_table_leaf<DTYPE>(s, q[1], p + STEP, table, c, row, [&] {
        if (after.trips > 1) load_table_leaf(q[1], after.p + STEP);
    });
}

/* AHEAD: leaves. */
template <int DTYPE, int GROUP, int AHEAD> SB_DET void logprob_table(const sb_cuda_args &in)
{
    constexpr int WARPS = GROUP / WARP, STEP = GROUP * LEAF_BYTES;
    const shared_address table = address_of(staging);
    const int32_t g = threadIdx.x / GROUP, t = threadIdx.x % GROUP, lane = threadIdx.x % WARP;
    const uint32_t group = g * gridDim.x + blockIdx.x, groups = gridDim.x * (blockDim.x / GROUP);
    volatile float *const constants = (volatile float *)((char *)staging + TABLE_GAP);
    table_group<WARPS> *const mine = (table_group<WARPS> *)(constants + WARP) + g;
    uint4 q[AHEAD][2];

    begin_dependents();
    fill_table<DTYPE>(table, in.row.c);
    wait_for_primary();
    if (in.eager) prefetch_group(in, group, t, GROUP, 4);
    if (threadIdx.x < WARP) constants[lane] = in.row.c;
    if (t < 3) set_group_item(in, &mine->item[t], t, group, groups);
    group_barrier(1 + g, GROUP); /* items 0, 1 and 2 are written */
    thread_leaves x = leaves_of<GROUP>(mine->item[0], t);
#pragma unroll
    for (int i = 0; i < AHEAD; i++)
        if (i < x.trips) load_table_leaf(q[i], x.p + i * STEP);
    __syncthreads();                 /* the table and the constants are written */
    const float c = constants[lane]; /* each lane's own, so that ptxas keeps it in a register */

    for (int32_t i = 0; mine->item[i & 3].item >= 0; i++) {
        const group_item &it = mine->item[i & 3];
        const thread_leaves after = leaves_of<GROUP>(mine->item[(i + 1) & 3], t);
        table_state s;
        s.low = NO_BASE;
        sb_state_init(&s.s, c);
        if (t == 0) fetch_group_target(in, it, &mine->word[i & 1]);
        if (x.trips > 0) begin_window<DTYPE>(&s, q[0], c);
        if (t == 0) add_ragged_leaf<DTYPE>(in, it, &s);
        if constexpr (AHEAD == 1) add_leaves_near<DTYPE, STEP>(&s, q, x, after, table, c, in.row);
        else add_leaves_deep<DTYPE, STEP>(&s, q, x, after, table, c, in.row);
        x = after;

        warp_merge(&s.s);
        if (lane == 0) mine->states[i & 1][t / WARP] = s.s;
        if (t == 0) wait_for_all_copies();
        group_barrier(1 + g, GROUP); /* every warp's state and the word are written */
        /* meanwhile the others go on; the next barrier shows them the new item */
        if (t / WARP == i % WARPS)
            end_group_item<DTYPE>(in, it, mine->states[i & 1], WARPS, mine->word[i & 1]);
        else if (t == (i + WARPS / 2) % WARPS * WARP)
            set_group_item(in, &mine->item[(i + 3) & 3], i + 3, group, groups);
    }
}
