/* groups.cuh - sums many rows of bf16 logits, with moments or for a divergence, with terms from the
 * table of table.cuh. A leaf's products v * d scale as its terms do: by 2^A exactly, since d does
 * not change and nothing over- or underflows. So both trees are added up from unscaled terms, and
 * their sums scaled.
 *
 * Launch: one block per multiprocessor, in groups of OP::THREADS threads, each with a named barrier
 * of its own. Group g of W takes the items g, g + W, ... of the call: whole rows, then pieces of
 * rows. Their states go to memory, for a kernel that finishes the rows: a warp that finished a row
 * here would keep its group waiting. In the table's gap lies what the groups keep. An operation is
 * a policy OP:
 *
 *     args, state             types: the kernel's argument; a state of merge.cuh
 *     item, ahead             types: what a group works on; a thread's next leaf
 *     SLOTS                   items of a group that are known at a time, a power of two
 *     GROUPS, MEMORY          groups per block; the bytes of the gap that they may take
 *     find(a, &item, i)       by one thread: sets item i, whose row it reports if it is bad
 *     begin(&ahead, a, item)  begins to load the thread's first leaf of an item
 *     sum(&s, &ahead, a, item, after, c, table)   by every thread: sums its leaves into s, and
 *                             begins the item that comes after, if there is one
 *     place_of(a, item)       where the item's state goes */
#pragma once

#include "leaf.cuh"
#include "merge.cuh"
#include "piece.cuh"
#include "row.cuh"
#include "table.cuh"

/* Whether the table serves a leaf with this encoding of z0: A in [-64, 96). */
SB_DET bool is_served(uint32_t z) { return z - (Z_ZERO - 32) < 80; }

/* 2^-A of such a leaf: A is 2 * (z - Z_ZERO), and an exponent's place is bit 23. */
SB_DET float scale_down(uint32_t z) { return sb_float(0x3f800000u - (z << 24)); }

/* The term of the lower half of a word, or of the upper half, from the table. */
SB_DET float looked_up(shared_address table, uint32_t w, int upper)
{
    return load_shared(dot_halves(w, upper ? 0x0400u : 0x0004u, table));
}

/* A thread's trips through the leaves from first on. */
SB_DET int trips_of(int first, int end, int step)
{
    return end > first ? (end - first + step - 1) / step : 0;
}

/* Whether the calling thread's leaves, among those from first to last - 1, include one that lacks
 * ids. */
SB_DET bool has_ragged_leaf(int first, int last, int64_t vocab, int step)
{
    return last * (int64_t)SB_LEAF > vocab && last > first &&
           (last - 1 - first) % step == (int)threadIdx.x % step;
}

/* The memory of a group. The items are a ring: half of it is found while the group works on the
 * other half. */
template <class OP> struct group_memory {
    typename OP::item items[OP::SLOTS];
    typename OP::state states[2][OP::THREADS / WARP];
};

template <class OP> SB_DET void group_rows(const typename OP::args &a)
{
    static_assert(WARP * 4 + sizeof(group_memory<OP>) * OP::GROUPS <= OP::MEMORY, "the gap");
    constexpr int THREADS = OP::THREADS, WARPS = THREADS / WARP, SLOTS = OP::SLOTS;
    const sb_cuda_args &in = in_of(a);
    shared_address table = address_of(staging);
    char *const gap = (char *)staging + SB_CUDA_BF16_TABLE_GAP;
    const int g = threadIdx.x / THREADS, t = threadIdx.x % THREADS, lane = threadIdx.x % WARP;
    group_memory<OP> *const mine = (group_memory<OP> *)(gap + WARP * 4) + g;
    volatile float *const constants = (volatile float *)gap;
    const uint32_t step = gridDim.x * (blockDim.x / THREADS), first = g * gridDim.x + blockIdx.x;
    const int64_t whole = in.whole + in.single, all = whole + (in.work - whole) * in.split;
    const int items = all > first ? (int)((all - first + step - 1) / step) : 0;
    typename OP::ahead ahead;

    wait_for_primary();
    if (threadIdx.x < WARP) constants[lane] = in.row.c;
    if (t < SLOTS && t < items) OP::find(a, &mine->items[t], first + (int64_t)t * step);
    group_barrier(1 + g, THREADS); /* the first items are written */
    if (items > 0) OP::begin(&ahead, a, mine->items[0]);
    fill_table<SB_CUDA_BF16>(table, in.row.c);
    __syncthreads(); /* the table is written */
    hide(table);     /* so that ptxas keeps it, too, in a register */
    const float c =
        constants[lane]; /* not from the argument, so that ptxas keeps it in a register */

    for (int i = 0; i < items; i++) {
        const typename OP::item &it = mine->items[i % SLOTS];
        typename OP::state s;
        OP::sum(&s, &ahead, a, it, i + 1 < items ? &mine->items[(i + 1) % SLOTS] : nullptr, c,
                table);
        warp_merge(&s);
        typename OP::state *const to = OP::place_of(a, it);
        const uint32_t mark = it.last > it.first ? sb_bits32(c) : 0; /* 0: nothing to finish */
        if (lane == 0) mine->states[i % 2][t / WARP] = s;
        group_barrier(1 + g, THREADS); /* every warp's state is written, and items found before */
        if (t / WARP == i % WARPS) {
            merge_shared(&s, mine->states[i % 2], WARPS);
            sum_in(&s)->c = mark;
            if (lane == 0) *to = s;
        }
        /* Half of the ring is free again, for the items behind those in the other half. */
        const int next = i + 1 + SLOTS / 2 + t;
        if ((i + 1) % (SLOTS / 2) == 0 && t < SLOTS / 2 && next < items)
            OP::find(a, &mine->items[next % SLOTS], first + (int64_t)next * step);
    }
    begin_dependents();
}
