/* moments.cuh - sums a thread's part of a row, with the moments for the entropy, into the thread's
 * sb_moments. The operations are those of det/moments.h. The loop handles leaves that are neither
 * wide nor poisoned; the others go through det/moments.h itself. */
#pragma once

#include "kept.cuh"
#include "leaf.cuh"

/* Adds any leaf. A function of its own, so that it takes no registers from the loop. */
template <int DTYPE>
static __device__ __noinline__ void add_any_words(sb_moments *m, const leaf_words<DTYPE> *x,
                                                  float c, float k64, float lim)
{
    sb_row row;
    float y[SB_LEAF];
    row.c = c, row.k64 = k64, row.lim = lim, row.kappa = 0;
    for (int i = 0; i < SB_LEAF; i++) y[i] = unpack<DTYPE>(*x, i);
    add_any(m, y, row);
}

template <int DTYPE>
SB_DET void add_moment_leaf(sb_moments *m, leaf_words<DTYPE> &x, const sb_row &row)
{
    const float most = leaf_max<DTYPE>(x);
    const float z0 = sb_fma32(most, row.c, SB_EVEN_MAGIC);
    if (!is_narrow(sb_bits32(z0))) {
        if (sb_is_absent(most)) return;
        const leaf_words<DTYPE> copy = x;
        sb_moments into = *m; /* whose address may be taken */
        add_any_words<DTYPE>(&into, &copy, row.c, row.k64, row.lim);
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

template <int DTYPE>
SB_DET void add_moment_leaves(sb_moments *m, const part_of_row &part, const sb_row &row)
{
    at_alignment<DTYPE>((uint32_t)(uint64_t)part.logits & 15, [&](auto shift) {
        for (int k = part.first + threadIdx.x; k < part.last; k += blockDim.x) {
            const char *p = part.logits + (int64_t)k * SB_LEAF * size_of<DTYPE>();
            leaf_words<DTYPE> x;
            load_at<DTYPE, decltype(shift)::value>(x, p, part.vocab - (int64_t)k * SB_LEAF);
            add_moment_leaf<DTYPE>(m, x, row);
        }
    });
}

/* Adds the leaves of a row with a kept set. A function of its own, so that other rows' code keeps
 * its registers. */
template <int DTYPE>
static __device__ __noinline__ void add_kept_moments(sb_moments *m, const sb_cuda_args *in,
                                                     int64_t number, part_of_row part,
                                                     int64_t before, sb_row row)
{
    add_kept<DTYPE>(m, *in, number, part, before, row);
}

/* Sums the calling thread's leaves of a part, with or without a kept set. before: as for
 * read_kept. */
template <int DTYPE>
SB_DET void sum_moments(sb_moments *m, const sb_cuda_args &in, const block_row &mine,
                        const part_of_row &part, int64_t before)
{
    sb_moments_init(m, mine.row.c);
    if (in.kept) {
        sb_moments into = *m; /* whose address may be taken */
        add_kept_moments<DTYPE>(&into, &in, mine.number, part, before, mine.row);
        *m = into;
    } else {
        add_moment_leaves<DTYPE>(m, part, mine.row);
    }
}
