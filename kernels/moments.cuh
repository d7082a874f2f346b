/* moments.cuh - sums of leaves with their moments: by a thread, a warp and a block; and the finish.
 *
 * What entropy.cu and moments.cu share. */
#pragma once

#include "common.cuh"
#include "finish.cuh"
#include "kept.cuh"
#include "leaf.cuh"
#include "load.cuh"

/* ---- merging ------------------------------------------------------------------------------ */

/* Merges the moments of a warp's lanes; all lanes get the result. c is left alone. */
SB_DET void warp_merge_moments(sb_moments *m)
{
    sb_moments_rise(m, __reduce_max_sync(FULL, m->sum.J));
    for (int i = 0; i < 3; i++) {
        m->sum.l[i] = warp_sum(m->sum.l[i]);
        m->g[i] = warp_sum_signed(m->g[i]);
    }
    m->best = __reduce_max_sync(FULL, m->best);
    if (m->sum.J == SB_J_POISON) m->best = 0;
}

/* Merges the moments of a block's threads. The result is warp 0's; shared holds one a warp. */
SB_DET void block_merge_moments(sb_moments *m, sb_moments *shared)
{
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, warps = blockDim.x / WARP;
    warp_merge_moments(m);
    if (lane == 0) shared[warp] = *m;
    __syncthreads(); /* every warp's moments are in shared */
    if (warp != 0) return;
    if (lane < warps) *m = shared[lane];
    else sb_moments_init(m, 0);
    warp_merge_moments(m);
}

/* ---- leaves ------------------------------------------------------------------------------- */

/* Any leaf, by det/moments.h. Apart, so that its registers are not the loop's. */
template <int DTYPE>
static __device__ __noinline__ void add_any_leaf(sb_moments *m, const leaf_words<DTYPE> *x, float c,
                                                 float k64, float lim)
{
    sb_row row;
    sb_moment_leaf leaf;
    float y[SB_LEAF];
    row.c = c, row.k64 = k64, row.lim = lim, row.kappa = 0;
    for (int i = 0; i < SB_LEAF; i++) y[i] = unpack<DTYPE>(*x, i);
    switch (sb_moment_leaf_of(&leaf, y, &row)) {
    case SB_LEAF_PRESENT: sb_moments_add(m, &leaf); break;
    case SB_LEAF_POISON: sb_moments_poison(m); break;
    default: break;
    }
}

/* A leaf that is neither wide nor poisoned, by the same operations; others go the way above. */
template <int DTYPE>
SB_DET void add_moment_leaf(sb_moments *m, leaf_words<DTYPE> &x, const sb_row &row)
{
    const float most = leaf_max<DTYPE>(x);
    const float z0 = sb_fma32(most, row.c, SB_EVEN_MAGIC);
    if (!is_narrow(sb_bits32(z0))) {
        if (sb_is_absent(most)) return;
        const leaf_words<DTYPE> copy = x;
        sb_moments into = *m; /* whose address may be taken */
        add_any_leaf<DTYPE>(&into, &copy, row.c, row.k64, row.lim);
        *m = into;
        return;
    }
    const float A = z0 - SB_EVEN_MAGIC, magic = SB_INT_MAGIC - A;
    const float thr = sb_bf16_floor(most - row.k64);
    float v[SB_LEAF], h[SB_LEAF];
#pragma unroll
    for (int i = 0; i < SB_LEAF; i++) {
        const float y = fmaxf(unpack<DTYPE>(x, i), thr);
        v[i] = sb_leaf_term(y, row.c, magic);
        h[i] = v[i] * sb_fma32(y, row.c, -A);
    }
    sb_moment_leaf leaf;
    leaf.leaf.A = (int32_t)A;
    leaf.leaf.M = (uint32_t)(sb_leaf_tree(v) * 0x1p+24f);
    leaf.U = sb_moment_integer(sb_leaf_tree(h));
    leaf.best = sb_order_key(most);
    sb_moments_add(m, &leaf);
}

template <int DTYPE, int SHIFT>
SB_DET void add_moment_leaves(sb_moments *m, const part_of_row &part, const sb_row &row)
{
    constexpr int SIZE = DTYPE == SB_CUDA_F32 ? 4 : 2;
    for (int k = part.first + threadIdx.x; k < part.last; k += blockDim.x) {
        const char *p = part.logits + (int64_t)k * SB_LEAF * SIZE;
        leaf_words<DTYPE> x;
        load_at<DTYPE, SHIFT>(x, p, part.vocab - (int64_t)k * SB_LEAF);
        add_moment_leaf<DTYPE>(m, x, row);
    }
}

template <int DTYPE>
SB_DET void add_moment_row(sb_moments *m, const part_of_row &part, const sb_row &row)
{
    constexpr bool HALVES = DTYPE != SB_CUDA_F32;
    switch ((uint32_t)(uint64_t)part.logits & 15) {
    case 0: return add_moment_leaves<DTYPE, 0>(m, part, row);
    case 4: return add_moment_leaves<DTYPE, 4>(m, part, row);
    case 8: return add_moment_leaves<DTYPE, 8>(m, part, row);
    case 12: return add_moment_leaves<DTYPE, 12>(m, part, row);
    case 2: return add_moment_leaves < DTYPE, HALVES ? 2 : 0 > (m, part, row);
    case 6: return add_moment_leaves < DTYPE, HALVES ? 6 : 0 > (m, part, row);
    case 10: return add_moment_leaves < DTYPE, HALVES ? 10 : 0 > (m, part, row);
    default: return add_moment_leaves < DTYPE, HALVES ? 14 : 0 > (m, part, row);
    }
}

/* The leaves of a row with a kept set; before: as in read_kept. Apart, so that its registers are
 * not the others'. */
template <int DTYPE>
static __device__ __noinline__ void add_kept_moments(sb_moments *m, const sb_cuda_args *in,
                                                     int64_t number, part_of_row part,
                                                     int64_t before, sb_row row)
{
    for (int k = part.first + threadIdx.x; k < part.last; k += blockDim.x) {
        sb_moment_leaf leaf;
        float y[SB_LEAF];
        if (!read_kept<DTYPE>(y, *in, number, part, before, k)) continue;
        switch (sb_moment_leaf_of(&leaf, y, &row)) {
        case SB_LEAF_PRESENT: sb_moments_add(m, &leaf); break;
        case SB_LEAF_POISON: sb_moments_poison(m); break;
        default: break;
        }
    }
}

/* ---- rows --------------------------------------------------------------------------------- */

/* A piece of a row, by its block. The result is warp 0's. */
template <int DTYPE>
SB_DET void sum_moments(sb_moments *m, const sb_cuda_args &in, const block_row &mine,
                        const part_of_row &part, int64_t before, sb_moments *shared)
{
    sb_moments_init(m, mine.row.c);
    if (in.kept) {
        sb_moments into = *m; /* whose address may be taken */
        add_kept_moments<DTYPE>(&into, &in, mine.number, part, before, mine.row);
        *m = into;
    } else {
        add_moment_row<DTYPE>(m, part, mine.row);
    }
    block_merge_moments(m, shared);
    m->sum.c = sb_bits32(mine.row.c);
}

/* The pieces of a row, by a warp; all lanes get the result, but for c. */
SB_DET void merge_moment_pieces(sb_moments *m, const sb_moments *pieces, int split)
{
    sb_moments_init(m, 0);
    for (int p = threadIdx.x % WARP; p < split; p += WARP) sb_moments_merge(m, &pieces[p]);
    warp_merge_moments(m);
}

/* By a warp; its first lane writes the entropy, if it is wanted, and the saved row with it. */
SB_DET void finish_moments(const sb_cuda_args &in, int64_t r, const sb_moments &m, float x,
                           const sb_row &row)
{
    finish_row(in, r, m.sum, x, row);
    if (threadIdx.x % WARP != 0 || !in.entropy) return;
    sb_saved saved = sb_finish_saved_moments(&m, &row);
    if (in.saved) ((sb_saved *)in.saved)[r] = saved;
    ((float *)in.entropy)[r] = saved.kind == SB_SAVED_NAN ? sb_float(SB_NAN_BITS)
                                                          : sb_entropy_of(saved.h2);
}
