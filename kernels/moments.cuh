/* moments.cuh - sums a thread's part of a row together with its moments, for the entropy: a
 * thread's sum for the loops of leaf.cuh. It repeats det/moments.h in another form, in registers,
 * without changing a rounding. */
#pragma once

#include "groups.cuh"
#include "leaf.cuh"

/* As thread_state. In the first loop, most is the largest logit so far, instead of s.best. */
struct thread_moments {
    static constexpr bool AHEAD = true;
    uint32_t base;
    float most;
    sb_moments s;

    /* Adds a leaf. next() is called as soon as x's words are no longer needed. */
    template <int DTYPE, class NEXT>
    __device__ __forceinline__ void add_ahead(leaf_words<DTYPE> &x, const leaf_row &row, bool *left,
                                              NEXT next);
};

SB_DET void begin_sum(thread_moments *t, float c)
{
    sb_moments_init(&t->s, c);
    t->most = sb_float(SB_ABSENT_BITS);
}

/* The second loop follows: it adds the leaves that were left, and poisons. */
SB_DET void end_sum(thread_moments *t)
{
    if (!sb_is_absent(t->most)) t->s.best = sb_order_key(t->most);
}

struct leaf_moments {
    uint32_t M;
    int32_t U;
};

/* M and U of a leaf that is not wide, as leaf_sum's M: v and h are 2^24 times as large. next() is
 * called when words are no longer needed. */
template <int DTYPE, class NEXT>
SB_DET leaf_moments moments_of(leaf_words<DTYPE> &words, float m, float z0, const leaf_row &row,
                               NEXT next)
{
    const float magic = scaled_magic(z0), minus_A = SB_EVEN_MAGIC - z0;
    const float thr = raise_pairs<DTYPE>(words, m, row.k64);
    const leaf_words<DTYPE> x = words;
    float v[SB_LEAF], h[SB_LEAF];
    next();
#pragma unroll
    for (int i = 0; i < SB_LEAF; i++) {
        const float y = raised<DTYPE>(x, i, thr);
        v[i] = sb_leaf_term(y, row.c, magic);
        h[i] = v[i] * sb_fma32(y, row.c, minus_A);
    }
    return { (uint32_t)sb_leaf_tree(v), sb_nearest(sb_leaf_tree(h)) };
}

/* Adds a leaf to digits K and K + 1 of the window. e = a - 32 J is negative if and only if K is
 * 0. */
template <int K> SB_DET void add_at(sb_moments *m, leaf_moments leaf, uint32_t e)
{
    /* shifts are taken modulo 32 */
    const uint32_t lo = __funnelshift_l(0, leaf.M, e), hi = __funnelshift_l(leaf.M, 0, e);
    const uint32_t low = __funnelshift_l(0, (uint32_t)leaf.U, e);
    const int32_t high = (int32_t)__funnelshift_l((uint32_t)leaf.U, (uint32_t)(leaf.U >> 31), e);
    uint64_t g = (uint64_t)e * lo + (uint64_t)m->g[K] + low;
    uint64_t above = (uint64_t)e * hi + (uint64_t)m->g[K + 1] + (uint64_t)(int64_t)high;
    if (K == 0) { /* e stands for e - 2^32 */
        g -= (uint64_t)lo << 32;
        above -= (uint64_t)hi << 32;
    }
    m->g[K] = (int64_t)g;
    m->g[K + 1] = (int64_t)above;
    m->sum.l[K] += lo;
    m->sum.l[K + 1] += hi;
}

/* As add_other of leaf.cuh. */
SB_DET void add_other(thread_moments *t, float m, uint32_t z, leaf_moments sums, bool *left)
{
    sb_moment_leaf leaf;
    if (!is_narrow(z)) {
        if (!sb_is_absent(m)) *left = true;
        return;
    }
    leaf.leaf.A = (int32_t)(z - Z_ZERO) * 2;
    leaf.leaf.M = sums.M;
    leaf.U = sums.U;
    leaf.best = 0; /* most has it */
    sb_moments_add(&t->s, &leaf);
    t->base = base_of(t->s.sum.J);
}

template <int DTYPE, class NEXT>
__device__ __forceinline__ void thread_moments::add_ahead(leaf_words<DTYPE> &x, const leaf_row &row,
                                                          bool *left, NEXT next)
{
    const float m = leaf_max<DTYPE>(x);
    const float z0 = sb_fma32(m, row.c, SB_EVEN_MAGIC);
    const uint32_t z = sb_bits32(z0), u = z - base;
    const leaf_moments leaf = moments_of<DTYPE>(x, m, z0, row,
                                                next); /* meaningless if it is wide */
    most = fmaxf(most, m);                             /* NaN poisons the row in the second loop */
    if (u < DIGIT) add_at<1>(&s, leaf, 2 * u);
    else if (u + DIGIT < DIGIT) add_at<0>(&s, leaf, 2 * u);
    else add_other(this, m, z, leaf, left);
}

template <int DTYPE, class SEE>
SB_DET void add_leaf(thread_moments *t, leaf_words<DTYPE> &x, const leaf_row &row, bool *left,
                     SEE &)
{
    t->add_ahead<DTYPE>(x, row, left, [] {});
}

#define MOMENT_TERMS 12 /* of a leaf's 16 terms, how many are looked up: measured */

/* As add_leaf, with looked up terms: see groups.cuh. Leaves that the table does not serve are
 * left. */
template <class NEXT>
SB_DET void add_looked_up(thread_moments *t, leaf_words<SB_CUDA_BF16> &x, const leaf_row &row,
                          bool *left, shared_address table, NEXT next)
{
    const float m = leaf_max<SB_CUDA_BF16>(x);
    const float z0 = sb_fma32(m, row.c, SB_EVEN_MAGIC);
    const uint32_t z = sb_bits32(z0), u = z - t->base;
    leaf_words<SB_CUDA_BF16> y = x;
    raise_pairs<SB_CUDA_BF16>(y, m, row.k64);
    next();
    t->most = fmaxf(t->most, m);
    if (!is_served(z)) {
        if (!sb_is_absent(m)) *left = true;
        return;
    }
    const float minus_A = SB_EVEN_MAGIC - z0, scale = scale_down(z);
    float v[SB_LEAF], h[SB_LEAF];
#pragma unroll
    for (int i = 0; i < 8; i++) {
        const float low = unpack<SB_CUDA_BF16>(y, 2 * i), high = unpack<SB_CUDA_BF16>(y, 2 * i + 1);
        if (i < MOMENT_TERMS) v[2 * i] = looked_up(table, y.w[i], 0);
        else v[2 * i] = table_term(low, row.c);
        if (i < MOMENT_TERMS - 8) v[2 * i + 1] = looked_up(table, y.w[i], 1);
        else v[2 * i + 1] = table_term(high, row.c);
        h[2 * i] = v[2 * i] * sb_fma32(low, row.c, minus_A);
        h[2 * i + 1] = v[2 * i + 1] * sb_fma32(high, row.c, minus_A);
    }
    const leaf_moments leaf = { (uint32_t)(sb_leaf_tree(v) * scale),
                                sb_nearest(sb_leaf_tree(h) * scale) };
    if (u < DIGIT) add_at<1>(&t->s, leaf, 2 * u);
    else if (u + DIGIT < DIGIT) add_at<0>(&t->s, leaf, 2 * u);
    else add_other(t, m, z, leaf, left);
}

/* Adds the leaves that add_looked_up left, and the row's last leaf if some of its ids do not
 * exist. */
static __device__ __noinline__ void add_not_looked_up(sb_moments *s, part_of_row part, sb_row row,
                                                      int first, int step)
{
    for (int k = first; k < part.last; k += step) {
        leaf_words<SB_CUDA_BF16> x;
        const char *p = part.logits + (int64_t)k * (SB_LEAF * 2);
        const int64_t present = part.vocab - (int64_t)k * SB_LEAF;
        load_at<SB_CUDA_BF16, 0>(x, p, present);
        const float m = leaf_max<SB_CUDA_BF16>(x);
        const float z0 = sb_fma32(m, row.c, SB_EVEN_MAGIC);
        const uint32_t z = sb_bits32(z0);
        if (present >= SB_LEAF && is_served(z)) continue;
        if (is_narrow(z)) {
            const leaf_row constants = { row.c, row.k64 };
            const leaf_moments sums = moments_of<SB_CUDA_BF16>(x, m, z0, constants, [] {});
            sb_moment_leaf leaf;
            leaf.leaf.A = (int32_t)(z - Z_ZERO) * 2;
            leaf.leaf.M = sums.M;
            leaf.U = sums.U;
            leaf.best = sb_order_key(m);
            sb_moments_add(s, &leaf);
        } else {
            float y[SB_LEAF];
            for (int i = 0; i < SB_LEAF; i++) y[i] = unpack<SB_CUDA_BF16>(x, i);
            add_any(s, y, row);
        }
    }
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
    if (in.kept) {
        sb_moments into; /* whose address may be taken */
        sb_moments_init(&into, mine.row.c);
        add_kept_moments<DTYPE>(&into, &in, mine.number, part, before, mine.row);
        *m = into;
    } else {
        thread_moments t;
        sum_part<DTYPE>(&t, part, mine.row);
        *m = t.s;
    }
}
