/* share.cuh - how the groups of a persistent kernel share a call's rows. Group g of W takes the
 * whole rows g, g + W, .. below in.whole. The rows that are left, laid end to end, are the tail:
 * each group takes in.tail_each of its leaves, and the first in.tail_more groups one more. A
 * group's states of the tail go to in.states, for logprob_finish. */
#pragma once

#include "row.cuh"

/* The first leaf of the tail that group g takes. */
SB_DET uint32_t tail_first(const sb_cuda_args &in, uint32_t g)
{
    return g * (uint32_t)in.tail_each + min(g, (uint32_t)in.tail_more);
}

/* The group that takes a leaf of the tail. */
SB_DET uint32_t tail_group(const sb_cuda_args &in, uint32_t leaf)
{
    const uint32_t each = (uint32_t)in.tail_each, more = (uint32_t)in.tail_more;
    const uint32_t longer = more * (each + 1);
    return leaf < longer ? leaf / (each + 1) : more + (leaf - longer) / each;
}

/* Where the states of work item in.whole + item lie in in.states: of its in.split pieces (the first
 * in.single items have one state each), or of the groups that share it. Group g's state of tail row
 * r is number g + r: from one state to the next one of the two rises, or both do, so the states of
 * a row lie side by side. */
struct span_of_states {
    int64_t first;
    int32_t count;
};

SB_DET span_of_states states_of(const sb_cuda_args &in, int64_t item)
{
    const int64_t cut = item - in.single;
    span_of_states s = { in.single + cut * in.split, in.split };
    if (cut < 0) s.first = item, s.count = 1;
    if (in.tail_each == 0 && in.tail_more == 0) return s;
    const uint32_t leaves = (uint32_t)leaves_in(in.vocab), first = (uint32_t)item * leaves;
    const uint32_t from = tail_group(in, first), to = tail_group(in, first + leaves - 1);
    s.first = (int64_t)from + item;
    s.count = (int32_t)(to - from) + 1;
    return s;
}

/* ---- a group's items ---------------------------------------------------------------------- */

/* What a group works on: a row, or its share of one. */
struct group_item {
    const char *first; /* its first leaf */
    int32_t leaves;    /* 0: the row is done */
    int32_t whole;     /* of them, those whose 16 ids all exist */
    int64_t place;     /* in in.states; -1: a whole row */
    int64_t item;      /* the work item; -1: the group has no more */
    int64_t number, id;
    int32_t start; /* the first leaf, counted in the row */
};

/* Sets the i-th item of a group of `groups`. Called by one thread, which also reports a bad row. */
SB_DET void set_group_item(const sb_cuda_args &in, group_item *to, int32_t i, uint32_t group,
                           uint32_t groups)
{
    const int32_t leaves = leaves_in(in.vocab);
    int64_t item = (int64_t)i * groups + group;
    int32_t count = leaves;
    to->item = -1;
    to->leaves = to->whole = 0;
    to->first = (const char *)in.logits;
    to->place = -1;
    to->start = 0;
    if (item >= in.whole) { /* the j-th row of the tail that the group has a share of */
        int32_t j = i -
                    (in.whole > group ? (int32_t)((in.whole - group + groups - 1) / groups) : 0);
        uint32_t from = tail_first(in, group);
        const uint32_t end = tail_first(in, group + 1);
        for (; j > 0; j--) from = (from / leaves + 1) * leaves;
        if (from >= end) return;
        const uint32_t row = from / leaves;
        to->start = (int32_t)(from - row * leaves);
        count = min(leaves - to->start, (int32_t)(end - from));
        to->place = (int64_t)group + row;
        item = in.whole + row;
    }
    const visit v = visit_row(in, item, to->start == 0);
    to->item = item;
    if (v.done) return;
    to->number = v.number;
    to->id = v.r.id;
    to->first = v.r.logits + (int64_t)to->start * SB_LEAF * in.itemsize;
    to->leaves = count;
    to->whole = min(count, (int32_t)(in.vocab / SB_LEAF) - to->start);
}

/* Whether an item holds the leaf of its row's target. */
template <class ITEM> SB_DET bool owns_target(const ITEM &it)
{
    const int64_t leaf = it.id / SB_LEAF - it.start;
    return it.leaves > 0 && leaf >= 0 && leaf < it.leaves;
}

/* Prefetches the first leaves of a group's first item to L2, before its row's id is known. Called
 * by each of the group's `threads` threads; t: the thread's number. At most `most` leaves each. */
SB_DET void prefetch_group(const sb_cuda_args &in, uint32_t group, uint32_t t, uint32_t threads,
                           uint32_t most)
{
    const uint32_t leaves = leaves_in(in.vocab), tail = tail_first(in, group);
    const bool is_whole = group < in.whole;
    const int64_t row = is_whole ? group : in.whole + tail / leaves;
    const uint32_t from = is_whole ? 0 : tail % leaves;
    const uint32_t left = is_whole ? leaves : tail_first(in, group + 1) - tail;
    const uint32_t bytes = SB_LEAF * in.itemsize,
                   count = min(min(left, leaves - from), most * threads);
    const char *p = (const char *)in.logits + row * in.row_stride * in.itemsize +
                    from * (int64_t)bytes;
    for (uint32_t k = t; k < count; k += threads) prefetch(p + (int64_t)k * bytes);
}
