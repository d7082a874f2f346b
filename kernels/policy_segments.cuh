/* policy_segments.cuh - segments: the tokens of one sequence in one of the units into which
 * policy.cu divides a call's tokens; how their arrays are loaded and stored; sums of digits over a
 * warp; totals of a call. */
#pragma once

#include "merge.cuh"
#include "policy_row.cuh"

/* ---- digits over a warp ------------------------------------------------------------------- */

SB_DET uint32_t warp_or(uint32_t flags)
{
    uint32_t all = 0;
    for (uint32_t flag = SB_SEEN_NAN; flag <= SB_SEEN_MINUS_INF; flag *= 2)
        if (__any_sync(FULL, flags & flag)) all |= flag;
    return all;
}

SB_DET void warp_merge(sb_digits *s)
{
    for (int k = 0; k < SB_DIGITS; k++) s->d[k] = warp_sum_any(s->d[k]);
    s->seen = warp_or(s->seen);
}

/* ---- segments ----------------------------------------------------------------------------- */

struct segment {
    int64_t b;           /* the sequence */
    int64_t first, last; /* rows */
};

/* The segment of a unit that begins at row. The offsets are good. */
SB_DET segment segment_at(const policy_args &a, int64_t unit, int64_t row)
{
    const int64_t end = (unit + 1) * a.unit;
    segment s;
    int64_t first;
    s.b = a.in.cu_seqlens ? sequence_of(a.in, row)
                          : (int64_t)((uint32_t)row / (uint32_t)a.in.time); /* rows <= 2^30 */
    extent_of(a.in, s.b, &first, &s.last);
    s.first = row;
    if (s.last > end) s.last = end;
    return s;
}

SB_DET int64_t unit_end(const policy_args &a, int64_t unit)
{
    return min((unit + 1) * (int64_t)a.unit, a.in.rows);
}

/* ---- floats, 4 or 2 at once --------------------------------------------------------------- */

template <int EACH> SB_DET void load_floats(const float *from, float to[EACH])
{
    if (EACH == 4) {
        const uint4 v = load16((const char *)from);
        to[0] = sb_float(v.x), to[1] = sb_float(v.y);
        to[EACH / 2] = sb_float(v.z), to[EACH - 1] = sb_float(v.w);
    } else {
        const uint2 v = *(const uint2 *)from;
        to[0] = sb_float(v.x), to[1] = sb_float(v.y);
    }
}

template <int EACH> SB_DET void store_floats(float *to, const float x[EACH])
{
    if (EACH == 4) {
        store16((char *)to, { sb_bits32(x[0]), sb_bits32(x[1]), sb_bits32(x[EACH / 2]),
                              sb_bits32(x[EACH - 1]) });
    } else {
        store8((char *)to, { sb_bits32(x[0]), sb_bits32(x[1]) });
    }
}

/* ---- a lane's rows ------------------------------------------------------------------------ */

/* Rows i .. i + EACH - 1 are a lane's; i is a multiple of EACH, which is 4 or 2. */

/* Their bytes of the mask, which is aligned to EACH bytes. */
template <int EACH> SB_DET uint32_t load_mask(const policy_args &a, int64_t i)
{
    const uint8_t *mask = (const uint8_t *)a.in.mask;
    if (!mask) return 0x01010101u;
    return EACH == 4 ? *(const uint32_t *)(mask + i) : *(const uint16_t *)(mask + i);
}

/* Which of the rows belong to a segment and are active, as bits. */
template <int EACH> SB_DET uint32_t active_rows(const segment &s, int64_t i, uint32_t mask)
{
    const int first = (int)max(min(s.first - i, (int64_t)EACH), (int64_t)0);
    const int last = (int)max(min(s.last - i, (int64_t)EACH), (int64_t)0);
    uint32_t active = 0;
    for (int k = 0; k < EACH; k++) active |= (mask >> (8 * k) & 0xff) ? 1u << k : 0u;
    return active & ((1u << last) - (1u << first));
}

/* The bytes of the mask one by one, without those outside the segment. */
template <int EACH> SB_DET uint32_t some_mask(const policy_args &a, const segment &s, int64_t i)
{
    const uint8_t *mask = (const uint8_t *)a.in.mask;
    uint32_t active = 0;
    for (int k = 0; k < EACH; k++) {
        const int64_t row = i + k;
        if (row >= s.first && row < s.last && (!mask || mask[row])) active |= 1u << (8 * k);
    }
    return active;
}

/* The rows of an array that some_mask has; others are 0. */
template <int EACH> SB_DET void load_rows(uint64_t from, int64_t i, uint32_t mask, float to[EACH])
{
    for (int k = 0; k < EACH; k++)
        to[k] = mask >> (8 * k) & 1 ? ((const float *)from)[i + k] : 0.0f;
}

/* Writes the rows that lie in the segment. vector: the array is aligned. */
template <int EACH>
SB_DET void store_rows(uint64_t to, const segment &s, int64_t i, bool vector, const float x[EACH])
{
    if (!to) return;
    if (vector && i >= s.first && i + EACH <= s.last) {
        store_floats<EACH>((float *)to + i, x);
        return;
    }
    for (int k = 0; k < EACH; k++)
        if (i + k >= s.first && i + k < s.last) ((float *)to)[i + k] = x[k];
}

/* ---- totals ------------------------------------------------------------------------------- */

/* Whether the scale of gradients depends on the call's own totals. */
SB_DET bool needs_totals(const policy_args &a)
{
    return a.rules.norm == SB_NORM_TOKENS ? a.tokens == 0
                                          : a.rules.norm != SB_NORM_CONSTANT && a.sequences == 0;
}

/* The tokens and sequences of a call, from the lengths of its sequences. Called by a whole block;
 * all its threads get where they are, in shared memory. */
template <int WARPS_OF_BLOCK>
SB_DET const int64_t *add_lengths(const policy_args &a, int64_t shared[2][WARPS_OF_BLOCK])
{
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    int64_t sums[2] = { 0, 0 };
    for (int64_t b = threadIdx.x; b < a.in.batch; b += WARPS_OF_BLOCK * WARP) {
        const int64_t count = ((const sb_cuda_policy_length *)a.lengths)[b].count;
        sums[0] += count;
        sums[1] += count > 0;
    }
    for (int i = 0; i < 2; i++) {
        const int64_t sum = warp_sum_any(sums[i]);
        if (lane == 0) shared[i][warp] = sum;
    }
    __syncthreads(); /* every warp's sums are in shared */
    for (int i = 0; i < 2; i++) {
        sums[i] = 0;
        for (int w = 0; w < WARPS_OF_BLOCK; w++) sums[i] += shared[i][w];
    }
    __syncthreads(); /* and have been read */
    if (threadIdx.x < 2) (&shared[0][0])[threadIdx.x] = sums[threadIdx.x];
    __syncthreads(); /* the totals are in shared */
    return &shared[0][0];
}
