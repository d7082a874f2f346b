/* leaf.cuh - the hot loop, which sums a thread's part of a row into the thread's state. It repeats
 * det/leaf.h and det/accumulator.h in another form, in registers, without changing a rounding.
 *
 * A leaf's place in the window is kept as the encoding of z0 = fma(m, c, 1.5 * 2^24), which is
 * 4bc00000 + A / 2, so one subtraction gives digit and shift. Terms are computed 2^24 times as
 * large, so the tree's sum is M itself. Leaves that are not ordinary (wide ones, and those with NaN
 * or +inf) are left for a second loop, which goes through det/leaf.h. */
#pragma once

#include "kept.cuh"
#include "load.cuh"
#include "merge.cuh"

/* The largest logit of a leaf; NaN if any of them is NaN. */
template <int DTYPE> SB_DET float leaf_max(const leaf_words<DTYPE> &x)
{
    if (DTYPE == SB_CUDA_F32) {
        float m = sb_float(x.w[0]);
#pragma unroll
        for (int i = 1; i < 16; i++) m = max_nan(m, sb_float(x.w[i]));
        return m;
    }
    uint32_t m = x.w[0];
#pragma unroll
    for (int i = 1; i < 8; i++)
        m = DTYPE == SB_CUDA_BF16 ? max_nan_pair_bf16(m, x.w[i]) : max_nan_pair_f16(m, x.w[i]);
    leaf_words<DTYPE> pair;
    pair.w[0] = m;
    return max_nan(unpack<DTYPE>(pair, 0), unpack<DTYPE>(pair, 1));
}

/* z0 of a leaf that is not wide: Z_ZERO + A / 2 with |A| < 4096. */
#define Z_ZERO 0x4bc00000u
SB_DET bool is_narrow(uint32_t z0) { return z0 - (Z_ZERO - 2047u) < 4095u; }

/* The row constants that the hot loop needs. */
struct leaf_row {
    float c, k64;
};

/* thr of a leaf that is not wide and whose largest logit is m. bf16 logits are raised to it in
 * place: thr is a bf16, so pairs are clamped without unpacking. */
template <int DTYPE> SB_DET float raise_pairs(leaf_words<DTYPE> &x, float m, float k64)
{
    const uint32_t least = sb_bits32(m - k64);
    const uint32_t floor = least + half_of_sign(least); /* the upper half equals sb_bf16_floor's */
    if (DTYPE == SB_CUDA_BF16) {
        const uint32_t pair = __byte_perm(floor, 0, 0x3232);
#pragma unroll
        for (int i = 0; i < 8; i++) x.w[i] = max_nan_pair_bf16(x.w[i], pair);
    }
    return sb_float(floor & 0xffff0000u);
}

/* Logit i of a leaf that went through raise_pairs, raised to thr. */
template <int DTYPE> SB_DET float raised(const leaf_words<DTYPE> &x, int i, float thr)
{
    const float y = unpack<DTYPE>(x, i);
    return DTYPE == SB_CUDA_BF16 ? y : fmaxf(y, thr);
}

/* SB_INT_MAGIC - A + 24, exactly: with it, terms come out 2^24 times as large. */
SB_DET float scaled_magic(float z0) { return (SB_INT_MAGIC + 24.0f + SB_EVEN_MAGIC) - z0; }

/* M of a leaf that is not wide, from its largest logit m and z0 = fma(m, c, SB_EVEN_MAGIC). */
template <int DTYPE>
SB_DET uint32_t leaf_sum(leaf_words<DTYPE> &x, float m, float z0, const leaf_row &row)
{
    const float magic = scaled_magic(z0), thr = raise_pairs<DTYPE>(x, m, row.k64);
    float v[SB_LEAF];
#pragma unroll
    for (int i = 0; i < SB_LEAF; i++) v[i] = sb_leaf_term(raised<DTYPE>(x, i, thr), row.c, magic);
    return (uint32_t)sb_leaf_tree(v);
}

/* A thread's sum. base is the encoding of z0 at the start of digit J, so that one subtraction gives
 * a leaf's place. It is NO_BASE while that way is closed: before the first leaf, and while the
 * window reaches into the octaves of wide leaves. */
struct thread_state {
    static constexpr bool AHEAD = false;
    uint32_t base;
    sb_state s;
};

SB_DET void begin_sum(thread_state *t, float c) { sb_state_init(&t->s, c); }
SB_DET void end_sum(thread_state *) {}

#define DIGIT 16u           /* steps of z0's encoding in a digit: A / 2 */
#define NO_BASE 0x00400000u /* a subnormal: z0 is 0 or, as m * c has 48 bits, at least 2^-24 */

/* base for a window at J. */
SB_DET uint32_t base_of(uint32_t J)
{
    return J > SB_BIAS / 32 - 127 ? Z_ZERO + (J - SB_BIAS / 32) * DIGIT : NO_BASE;
}

/* Moves the window up to the digit of z, if that digit is above J. */
SB_DET void rise_to(thread_state *t, uint32_t z)
{
    uint32_t j = ((z - Z_ZERO) * 2u + SB_BIAS) >> 5;
    if (j <= t->s.J) return;
    sb_state_rise(&t->s, j);
    t->base = base_of(j);
}

/* Adds a leaf that is not in digits J - 1 and J. m is its largest logit, z the encoding of z0, and
 * M its sum, meaningless if the leaf is wide. Sets *left if the leaf must go through the second
 * loop. */
SB_DET void add_other(thread_state *t, float m, uint32_t z, uint32_t M, bool *left)
{
    sb_leaf leaf;
    if (!is_narrow(z)) {
        if (!sb_is_absent(m)) *left = true;
        return;
    }
    rise_to(t, z);
    leaf.A = (int32_t)(z - Z_ZERO) * 2;
    leaf.M = M;
    sb_state_add(&t->s, &leaf);
}

/* Adds one leaf to a thread's state. see is called with the leaf's largest logit. */
template <int DTYPE, class SEE>
SB_DET void add_leaf(thread_state *t, leaf_words<DTYPE> &x, const leaf_row &row, bool *left,
                     SEE &see)
{
    const float m = leaf_max<DTYPE>(x);
    see(m);
    const float z0 = sb_fma32(m, row.c, SB_EVEN_MAGIC);
    const uint32_t z = sb_bits32(z0), u = z - t->base;
    const uint32_t M = leaf_sum<DTYPE>(x, m, z0, row); /* meaningless if the leaf is wide */
    /* shifts are taken modulo 32; 2 * base is a multiple of 32, so it need not be subtracted */
    const uint32_t lo = __funnelshift_l(0, M, 2 * z), hi = __funnelshift_l(M, 0, 2 * z);
    if (u < DIGIT) { /* digit J */
        t->s.l[1] += lo;
        t->s.l[2] += hi;
    } else if (u + DIGIT < DIGIT) { /* digit J - 1 */
        t->s.l[0] += lo;
        t->s.l[1] += hi;
    } else {
        add_other(t, m, z, M, left);
    }
}

/* The same where nobody wants the largest logits. */
struct sees_nothing {
    __device__ __forceinline__ void operator()(float) {}
};

template <int DTYPE>
SB_DET void add_leaf(thread_state *t, leaf_words<DTYPE> &x, const leaf_row &row, bool *left)
{
    sees_nothing nothing;
    add_leaf<DTYPE>(t, x, row, left, nothing);
}

/* The second loop: adds the leaves that the first loop left, through det/leaf.h. A function of its
 * own, so that it takes no registers from the first loop. */
template <int DTYPE, class STATE>
static __device__ __noinline__ void add_left(STATE *s, part_of_row part, float c, float k64,
                                             float lim, int step)
{
    constexpr int BYTES = SB_LEAF * size_of<DTYPE>();
    sb_row row;
    row.c = c, row.k64 = k64, row.lim = lim, row.kappa = 0;
    for (int k = part.first + threadIdx.x; k < part.last; k += step) {
        leaf_words<DTYPE> x;
        float y[SB_LEAF];
        load_part<DTYPE>(x, part.logits + (int64_t)k * BYTES, part.vocab - (int64_t)k * SB_LEAF);
        if (is_narrow(sb_bits32(sb_fma32(leaf_max<DTYPE>(x), c, SB_EVEN_MAGIC)))) continue;
        for (int i = 0; i < SB_LEAF; i++) y[i] = unpack<DTYPE>(x, i);
        add_any(s, y, row);
    }
}

/* Adds whole aligned leaves from number k at p on while k < hot, as it is at first. Each is copied
 * to shared memory while the one before it is added. step: from leaf to leaf of a thread. */
template <int DTYPE, class THREAD, class SEE, class STEP>
SB_DET void add_staged(THREAD *t, int &k, const char *&p, int hot, STEP step, const leaf_row &row,
                       bool *left, SEE &see)
{
    constexpr int BYTES = SB_LEAF * size_of<DTYPE>();
    const shared_address first = staging_slot<BYTES>(), both = 2 * first + WARP * BYTES;
    shared_address slot = first;
    bool more = true;
    leaf_words<DTYPE> x;
    fetch_leaf<BYTES>(slot, p);
    end_copies();
    while (more) {
        k += step, p += step * BYTES;
        more = k < hot;
        if (more) fetch_leaf<BYTES>(both - slot, p);
        end_copies();
        wait_for_copies<1>();
        load_staged<DTYPE>(x, slot);
        add_leaf<DTYPE>(t, x, row, left, see);
        slot = both - slot;
    }
}

/* The first loop, which visits a thread's leaves in order. Returns whether it left a leaf for the
 * second one. THREAD is a thread's sum, such as thread_state, with overloads of begin_sum, add_leaf
 * and end_sum. AHEAD: aligned leaves are not staged; the next one is loaded into registers as soon
 * as a leaf's words are free, which THREAD's add_ahead finds out. */
template <int DTYPE, int SHIFT, class THREAD, class SEE>
SB_DET bool add_leaves(THREAD *t, const part_of_row &part, const leaf_row &row, SEE &see)
{
    constexpr int BYTES = SB_LEAF * size_of<DTYPE>();
    constexpr int SIZE = BYTES / SB_LEAF;
    /* leaves with all ids present and, if SHIFT is not 0, the rest of the last chunk, too */
    const int whole = (int)((part.vocab - (SHIFT ? (16 - SHIFT) / SIZE : 0)) / SB_LEAF);
    /* trips in which all of the block's threads have whole leaves go through the hot loop, the
     * others through a loop that checks ids */
    const int end = part.last < whole ? part.last : whole;
    const int hot = end - (int)blockDim.x + (int)threadIdx.x + 1;
    int k = part.first + threadIdx.x;
    bool left = false;
    leaf_words<DTYPE> x;
    const char *p = part.logits + (int64_t)k * BYTES;

    constexpr bool AHEAD = THREAD::AHEAD && DTYPE != SB_CUDA_F32 && SHIFT == 0;
    if constexpr (AHEAD) {
        if (k < hot) {
            load_leaf<DTYPE, SHIFT>(x, p);
            for (; k + (int)blockDim.x < hot; k += blockDim.x) {
                p += blockDim.x * BYTES;
                t->template add_ahead<DTYPE>(x, row, &left, [&] { load_leaf<DTYPE, SHIFT>(x, p); });
            }
            add_leaf<DTYPE>(t, x, row, &left, see);
            k += blockDim.x, p += blockDim.x * BYTES;
        }
    }
    constexpr bool STAGED = !AHEAD && DTYPE != SB_CUDA_F32 && SHIFT == 0;
    if (STAGED && k < hot) add_staged<DTYPE>(t, k, p, hot, blockDim.x, row, &left, see);
    /* These loads are not staged, so the thread waits for them. Meanwhile the next trip's leaves
     * are prefetched to L2. This makes fp32 slower. */
    constexpr bool FAR = DTYPE != SB_CUDA_F32 && SHIFT != 0;
    for (; !STAGED && k < hot; k += blockDim.x, p += blockDim.x * BYTES) {
        if (FAR && k + (int)blockDim.x < part.last) prefetch(p + blockDim.x * BYTES);
        load_leaf<DTYPE, SHIFT>(x, p);
        add_leaf<DTYPE>(t, x, row, &left, see);
    }
    for (; k < part.last; k += blockDim.x, p += blockDim.x * BYTES) {
        load_at<DTYPE, SHIFT>(x, p, part.vocab - (int64_t)k * SB_LEAF);
        add_leaf<DTYPE>(t, x, row, &left, see);
    }
    return left;
}

template <int DTYPE, class THREAD, class SEE>
SB_DET bool add_row(THREAD *t, const part_of_row &part, const leaf_row &row, SEE &see)
{
    return at_alignment<DTYPE>(
        (uint32_t)(uint64_t)part.logits & 15, [t, part, row, &see](auto shift) {
            return add_leaves<DTYPE, decltype(shift)::value>(t, part, row, see);
        });
}

/* Sums the calling thread's leaves of a part, by both loops. see, a function of a float, gets the
 * largest logit of each of these leaves, in order. */
template <int DTYPE, class THREAD, class SEE>
SB_DET void sum_part(THREAD *t, const part_of_row &part, const sb_row &row, SEE &see)
{
    const leaf_row constants = { row.c, row.k64 };
    t->base = NO_BASE;
    begin_sum(t, row.c);
    const bool left = add_row<DTYPE>(t, part, constants, see);
    end_sum(t);
    if (left) {
        auto s = t->s; /* whose address may be taken */
        add_left<DTYPE>(&s, part, row.c, row.k64, row.lim, blockDim.x);
        t->s = s;
    }
}

template <int DTYPE, class THREAD>
SB_DET void sum_part(THREAD *t, const part_of_row &part, const sb_row &row)
{
    sees_nothing nothing;
    sum_part<DTYPE>(t, part, row, nothing);
}
