/* merge.cuh - merges states of any kind by integer sums: in a warp, in a block, over a row's
 * pieces.
 *
 * A state is a row's sum (sb_state), the sum with its moments (sb_moments), or a divergence
 * (sb_divergence, in kl.cu). Each kind is a policy of four overloads:
 *
 *     make_none(s)          sets s to the state without leaves and without a row: its c is 0
 *     sum_in(s)             the part of s that holds the row's c and the window J
 *     merge_into(s, from)   merges one more state into s
 *     warp_merge(s)         merges the states of a warp's lanes; every lane gets the result and
 *                           keeps its c
 *
 * The templates below do the rest. No result depends on the order of merging (docs/numerics.md,
 * P2). */
#pragma once

#include "../src/det/accumulator.h"
#include "../src/det/moments.h"
#include "device.cuh"

/* ---- integers over a warp ----------------------------------------------------------------- */

/* The exact sum of 64-bit values over a warp, in two halves whose sums each fit 32 bits. A digit's
 * sum over a whole row is below 2^48 (2^16 leaves of less than 2^32), so two halves are enough. All
 * lanes get it. */
SB_DET uint64_t warp_sum(uint64_t x)
{
    constexpr int BITS = WARP == 32 ? 27 : 26;
    uint64_t low = __reduce_add_sync(FULL, (uint32_t)x & ((1u << BITS) - 1));
    uint64_t high = __reduce_add_sync(FULL, (uint32_t)(x >> BITS));
    return low + (high << BITS);
}

/* The sum of any 64-bit integers over a warp, modulo 2^64. All lanes get it. */
template <class T> SB_DET T warp_sum_any(T x)
{
    static_assert(sizeof(T) == 8, "a sum of fewer bits may overflow");
    for (int step = WARP / 2; step > 0; step /= 2) x += __shfl_xor_sync(FULL, x, step);
    return x;
}

/* How many of some lanes of a warp, given as bits, come before a lane. */
SB_DET int lanes_before(uint64_t lanes, int lane)
{
    return __popcll(lanes & (((uint64_t)1 << lane) - 1));
}

/* ---- sums --------------------------------------------------------------------------------- */

SB_DET void make_none(sb_state *s) { sb_state_init(s, 0.0f); }
SB_DET sb_state *sum_in(sb_state *s) { return s; }
SB_DET void merge_into(sb_state *into, const sb_state &from) { sb_state_merge(into, &from); }

SB_DET void warp_merge(sb_state *s)
{
    sb_state_rise(s, __reduce_max_sync(FULL, s->J));
    s->l[0] = warp_sum(s->l[0]);
    s->l[1] = warp_sum(s->l[1]);
    s->l[2] = warp_sum(s->l[2]);
}

/* ---- sums with moments -------------------------------------------------------------------- */

SB_DET void make_none(sb_moments *m) { sb_moments_init(m, 0.0f); }
SB_DET sb_state *sum_in(sb_moments *m) { return &m->sum; }
SB_DET void merge_into(sb_moments *into, const sb_moments &from) { sb_moments_merge(into, &from); }

SB_DET void warp_merge(sb_moments *m)
{
    sb_moments_rise(m, __reduce_max_sync(FULL, m->sum.J));
    for (int i = 0; i < 3; i++) {
        m->sum.l[i] = warp_sum(m->sum.l[i]);
        m->g[i] = warp_sum_any(m->g[i]);
    }
    m->best = __reduce_max_sync(FULL, m->best);
    if (m->sum.J == SB_J_POISON) m->best = 0;
}

/* ---- blocks and pieces -------------------------------------------------------------------- */

/* Merges count states in shared memory; all lanes of the calling warp get the result. count is at
 * most WARP, except in the overload for sb_state. */
template <class STATE> SB_DET void merge_shared(STATE *s, const STATE *shared, int count)
{
    const int lane = threadIdx.x % WARP;
    if (lane < count) *s = shared[lane];
    else make_none(s);
    warp_merge(s);
}

/* The overload for sums, for any count. It finds the largest J first and raises each state as it is
 * read, which takes fewer instructions. */
SB_DET void merge_shared(sb_state *s, const sb_state *shared, int count)
{
    uint32_t J = SB_J_EMPTY;
    make_none(s);
    for (int i = threadIdx.x % WARP; i < count; i += WARP) J = max(J, shared[i].J);
    s->J = __reduce_max_sync(FULL, J);
    for (int i = threadIdx.x % WARP; i < count; i += WARP) {
        const uint64_t a = shared[i].l[0], b = shared[i].l[1], c = shared[i].l[2];
        const uint32_t rise = s->J - shared[i].J;
        s->l[0] += rise == 0 ? a : rise == 1 ? b : rise == 2 ? c : 0;
        s->l[1] += rise == 0 ? b : rise == 1 ? c : 0;
        s->l[2] += rise == 0 ? c : 0;
    }
    for (int i = 0; i < 3; i++) s->l[i] = warp_sum(s->l[i]);
}

/* Merges the states of a block's threads. Warp 0 gets the result; shared holds one state per
 * warp. */
template <class STATE> SB_DET void block_merge(STATE *s, STATE *shared)
{
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, warps = blockDim.x / WARP;
    warp_merge(s);
    if (lane == 0) shared[warp] = *s;
    __syncthreads(); /* every warp's state is in shared */
    if (warp == 0) merge_shared(s, shared, warps);
}

/* Merges the states of a row's pieces. Called by one warp; every lane gets the result, whose c is
 * 0. */
template <class STATE> SB_DET void merge_pieces(STATE *s, const STATE *pieces, int split)
{
    make_none(s);
    for (int p = threadIdx.x % WARP; p < split; p += WARP) merge_into(s, pieces[p]);
    warp_merge(s);
}
