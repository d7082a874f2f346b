/* lists.cuh - where a row's list of kept ids lies. */
#pragma once

#include "../src/cuda/lists_args.h"
#include "row.cuh"

/* A row's list. */
struct id_list {
    int64_t first; /* entry of kept_ids */
    int32_t count; /* at most V + 1: more ids cannot all rise */
    bool well;     /* its offsets are; if not, count is 0 */
};

/* A row's offsets, before they are looked at. */
struct list_bounds {
    int64_t first, last;
};

SB_DET list_bounds bounds_of(const sb_cuda_args &in, int64_t row)
{
    const list_bounds b = { int_at(in.kept_offsets, in.kept_offsets_dtype, row),
                            int_at(in.kept_offsets, in.kept_offsets_dtype, row + 1) };
    return b;
}

/* part: SB_LISTS_CONTINUE and SB_LISTS_UNFINISHED, if the call is about some of another's rows. */
SB_DET id_list list_of(const sb_cuda_args &in, int64_t row, list_bounds b, int32_t part = 0)
{
    id_list list;
    list.well = b.first >= 0 && b.first <= b.last && b.last <= in.kept_count &&
                (row > 0 || (part & SB_LISTS_CONTINUE) || b.first == 0) &&
                (row + 1 < in.rows || (part & SB_LISTS_UNFINISHED) || b.last == in.kept_count);
    list.first = list.well ? b.first : 0;
    list.count = list.well ? (int32_t)min(b.last - b.first, in.vocab + 1) : 0;
    return list;
}
