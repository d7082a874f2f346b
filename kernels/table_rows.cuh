/* table_rows.cuh - logprob of many rows of aligned 16-bit logits at one temperature, by a table:
 * the kernels logprob_<dtype>_table of logprob.cu.
 *
 *     leaves -> thread's state -> warp -> group (shared) -> finish, or in.states for logprob_finish
 *
 * Launch: one block of SB_CUDA_TABLE_BLOCK threads per multiprocessor, which shared memory for the
 * table allows, in groups of SB_CUDA_TABLE_GROUP, each with a named barrier of its own; share.cuh
 * says which rows a group takes. A block stays until all rows are done, because its table takes a
 * microsecond to fill. It is filled before the block waits for the kernel in front, and the kernel
 * behind may be set up from the start: its blocks find no room before these have ended. */
#pragma once

#include "finish.cuh"
#include "share.cuh"
#include "table.cuh"
#include "target.cuh"

#define GROUP SB_CUDA_TABLE_GROUP
#define GROUP_WARPS (GROUP / WARP)
#define LEAF_BYTES (SB_LEAF * 2)
#define TRIP_BYTES (GROUP * LEAF_BYTES) /* of logits that a group takes in a trip */

/* A group's memory, in the gap of the table. Item i is number i modulo 4, its word and states are
 * number i modulo 2. */
struct table_group {
    group_item item[4];
    uint32_t word[2]; /* that holds the target's logit */
    sb_state states[2][GROUP_WARPS];
};

/* A thread's trips through count leaves. */
SB_DET int32_t trips_of(int32_t count, int32_t t) { return (count - t + GROUP - 1) / GROUP; }

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
                           uint32_t word)
{
    const bool owner = owns_target(it);
    sb_state s;
    if (it.leaves == 0 && it.place < 0) return; /* a whole row that is done */
    if (it.leaves > 0) merge_shared(&s, states, GROUP_WARPS);
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

template <int DTYPE> SB_DET void logprob_table(const sb_cuda_args &in)
{
    const shared_address table = address_of(staging);
    const int32_t g = threadIdx.x / GROUP, t = threadIdx.x % GROUP, lane = threadIdx.x % WARP;
    const uint32_t group = g * gridDim.x + blockIdx.x, groups = gridDim.x * SB_CUDA_TABLE_GROUPS;
    volatile float *const constants = (volatile float *)((char *)staging + TABLE_GAP);
    table_group *const mine = (table_group *)(constants + WARP) + g;
    uint4 q[2] = { { 0, 0, 0, 0 }, { 0, 0, 0, 0 } };

    begin_dependents();
    fill_table<DTYPE>(table, in.row.c);
    wait_for_primary();
    prefetch_group(in, group, t, GROUP, 4);
    if (threadIdx.x < WARP) constants[lane] = in.row.c;
    if (t < 3) set_group_item(in, &mine->item[t], t, group, groups);
    group_barrier(1 + g, GROUP); /* items 0, 1 and 2 are written */
    const char *p = mine->item[0].first + t * LEAF_BYTES;
    int32_t trips = trips_of(mine->item[0].whole, t);
    if (trips > 0) load_table_leaf(q, p);
    __syncthreads();                 /* the table and the constants are written */
    const float c = constants[lane]; /* each lane's own, so that ptxas keeps it in a register */

    for (int32_t i = 0; mine->item[i & 3].item >= 0; i++) {
        const group_item &it = mine->item[i & 3], &after = mine->item[(i + 1) & 3];
        table_state s;
        s.low = NO_BASE;
        sb_state_init(&s.s, c);
        if (t == 0) fetch_group_target(in, it, &mine->word[i & 1]);
        if (trips > 0) begin_window<DTYPE>(&s, q, c);
        if (t == 0) add_ragged_leaf<DTYPE>(in, it, &s);
        const char *const first = after.first + t * LEAF_BYTES;
        const int32_t more = trips_of(after.whole, t);
        auto next = [&] {
            if (more > 0) load_table_leaf(q, first);
        };
        if (trips > 0) {
            const char *const end = p + (trips - 1) * TRIP_BYTES;
            while (p != end) {
                p += TRIP_BYTES;
                hide(p); /* so that no copy of the old address is kept */
                add_table_leaf<DTYPE>(&s, q, p - TRIP_BYTES, table, c, in.row,
                                      [&] { load_table_leaf(q, p); });
            }
            /* the last leaf, while the first one of the next item is loaded */
            add_table_leaf<DTYPE>(&s, q, p, table, c, in.row, next);
        } else {
            next();
        }
        p = first;
        trips = more;

        warp_merge(&s.s);
        if (lane == 0) mine->states[i & 1][t / WARP] = s.s;
        if (t == 0) wait_for_all_copies();
        group_barrier(1 + g, GROUP); /* every warp's state and the word are written */
        /* meanwhile the others go on; the next barrier shows them the new item */
        if (t / WARP == i % GROUP_WARPS)
            end_group_item<DTYPE>(in, mine->item[i & 3], mine->states[i & 1], mine->word[i & 1]);
        else if (t == (i + GROUP_WARPS / 2) % GROUP_WARPS * WARP)
            set_group_item(in, &mine->item[(i + 3) & 3], i + 3, group, groups);
    }
}
