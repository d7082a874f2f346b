/* table.cuh - leaves of 16-bit logits, with some of their terms looked up.
 *
 * A term is v = T(y) * 2^-A, where T depends only on y's 16 bits and on the row constant c. Scaling
 * by 2^-A is exact and commutes with every addition of the leaf's tree, as nothing here over- or
 * underflows. So a leaf may add up T(y) * 2^24, taken from a table in shared memory or computed,
 * and scale the sum once: the bits are those of det/leaf.h. A look-up takes two instructions and
 * the arithmetic ten, but look-ups alone would be bound by shared memory: TABLE_TERMS of a leaf's
 * 16 terms come from the table and the rest are computed, which balances the two.
 *
 * The table holds the patterns 0 .. patterns - 1 of both signs at 4 * pattern, so that negative
 * numbers begin at TABLE_NEGATIVE. What lies between the two halves is the kernel's own, from
 * TABLE_GAP on.
 *
 * A leaf takes the table if its octave A is in [-64, 96), which one comparison finds out together
 * with its place in the window. The others, wide and poisoned ones among them, are computed. */
#pragma once

#include "leaf.cuh"

#define TABLE_TERMS 8
#define LEAF_BYTES (SB_LEAF * 2)

/* ---- the table ---------------------------------------------------------------------------- */

#define TABLE_NEGATIVE 131072u /* 4 * 0x8000: where -0 lies */
#define TABLE_GAP 102400u      /* above the positive patterns of any temperature and dtype */

/* T(y) * 2^24, by the operations of sb_leaf_term with A = 0. */
SB_DET float table_term(float y, float c) { return sb_leaf_term(y, c, SB_INT_MAGIC + 24.0f); }

/* By all of a block's threads. bf16 patterns below 2^-25 / c have T = 1, as |r| * ln 2 is below
 * half the spacing under 1; there are no such fp16 numbers. The last pattern lies beyond 131
 * octaves: a leaf whose A is at least -64 raises its logits to thr, and thr * c > -65 - 64.001 -
 * 1.02 (docs/numerics.md, P1). */
template <int DTYPE> SB_DET void fill_table(shared_address table, float c)
{
    const uint32_t bits = sb_bits32(SB_CUDA_TABLE_OCTAVES / c);
    const uint32_t patterns = SB_CUDA_TABLE_PATTERNS(bits, DTYPE);
    uint32_t ones = 0;
    if (DTYPE == SB_CUDA_BF16) {
        const uint4 one = { 0x4b800000u, 0x4b800000u, 0x4b800000u, 0x4b800000u }; /* 2^24 */
        ones = sb_bits32(0x1p-25f / c) >> 16 & ~3u; /* whole chunks of 16 bytes */
        for (uint32_t i = 4 * threadIdx.x; i < ones; i += 4 * blockDim.x) {
            store16_shared(table + 4 * i, one);
            store16_shared(table + TABLE_NEGATIVE + 4 * i, one);
        }
    }
    for (uint32_t i = ones + threadIdx.x; i < patterns; i += blockDim.x) {
        leaf_words<DTYPE> pair; /* the pattern, and the same with a sign */
        pair.w[0] = i | (i | 0x8000u) << 16;
        store_shared(table + 4 * i, table_term(unpack<DTYPE>(pair, 0), c));
        store_shared(table + TABLE_NEGATIVE + 4 * i, table_term(unpack<DTYPE>(pair, 1), c));
    }
}

/* The sum of a leaf's T(y) * 2^24, where each y has been raised to thr. The lower halves of the
 * words are looked up first, then the upper ones. */
template <int DTYPE>
SB_DET float table_sum(const leaf_words<DTYPE> &x, shared_address table, float c)
{
    float v[SB_LEAF];
#pragma unroll
    for (int i = 0; i < 8; i++) {
        if (i < TABLE_TERMS) v[2 * i] = load_shared(table + dot_halves(x.w[i], 0x0004u, 0));
        if (i < TABLE_TERMS - 8) v[2 * i + 1] = load_shared(table + dot_halves(x.w[i], 0x0400u, 0));
    }
#pragma unroll
    for (int i = 0; i < 8; i++) {
        if (i >= TABLE_TERMS) v[2 * i] = table_term(unpack<DTYPE>(x, 2 * i), c);
        if (i >= TABLE_TERMS - 8) v[2 * i + 1] = table_term(unpack<DTYPE>(x, 2 * i + 1), c);
    }
    return sb_leaf_tree(v);
}

/* ---- leaves ------------------------------------------------------------------------------- */

/* A thread's sum. low: z0's encoding at the start of digit J - 1, where the table serves digits
 * J - 1 and J; else NO_BASE. */
struct table_state {
    uint32_t low;
    sb_state s;
};

SB_DET uint32_t table_low(uint32_t J)
{
    const uint32_t digit = J - (SB_BIAS / 32 - 1); /* 0 .. 3: A of both digits is in [-64, 96) */
    return digit < 4 ? Z_ZERO + (digit - 2) * DIGIT : NO_BASE;
}

/* The largest logit of a leaf, and the encoding of its z0. */
struct leaf_place {
    float m;
    uint32_t z;
};

template <int DTYPE> SB_DET leaf_place place_of(const leaf_words<DTYPE> &x, float c)
{
    leaf_place at;
    at.m = leaf_max<DTYPE>(x);
    at.z = sb_bits32(sb_fma32(at.m, c, SB_EVEN_MAGIC));
    return at;
}

template <int DTYPE> SB_DET void words_of_leaf(leaf_words<DTYPE> &x, const uint4 q[2])
{
    x.w[0] = q[0].x, x.w[1] = q[0].y, x.w[2] = q[0].z, x.w[3] = q[0].w;
    x.w[4] = q[1].x, x.w[5] = q[1].y, x.w[6] = q[1].z, x.w[7] = q[1].w;
}

/* Begins the window of a state without leaves with its first one, if that leaf is narrow. */
template <int DTYPE> SB_DET void begin_window(table_state *t, const leaf_words<DTYPE> &x, float c)
{
    const leaf_place at = place_of<DTYPE>(x, c);
    if (!is_narrow(at.z)) return;
    t->s.J = ((at.z - Z_ZERO) * 2u + SB_BIAS) >> 5;
    t->low = table_low(t->s.J);
}

template <int DTYPE> SB_DET void begin_window(table_state *t, const uint4 q[2], float c)
{
    leaf_words<DTYPE> x;
    words_of_leaf<DTYPE>(x, q);
    begin_window<DTYPE>(t, x, c);
}

/* Adds a leaf that the table does not serve, or that moves the window. x holds its words, perhaps
 * raised to thr, if its largest logit is narrow; n of its ids exist, which lie at p. */
template <int DTYPE>
SB_DET table_state add_plain(table_state t, leaf_words<DTYPE> &x, const char *p, int32_t n,
                             const sb_row &row)
{
    const leaf_place at = place_of<DTYPE>(x, row.c);
    sb_leaf leaf;
    float y[SB_LEAF];
    if (is_narrow(at.z)) {
        const leaf_row constants = { row.c, row.k64 };
        leaf.A = (int32_t)(at.z - Z_ZERO) * 2;
        leaf.M = leaf_sum<DTYPE>(x, at.m, sb_float(at.z), constants);
        sb_state_add(&t.s, &leaf);
    } else {
        load_part<DTYPE>(x, p, n);
        for (int i = 0; i < SB_LEAF; i++) y[i] = unpack<DTYPE>(x, i);
        switch (sb_leaf_of(&leaf, y, &row)) {
        case SB_LEAF_PRESENT: sb_state_add(&t.s, &leaf); break;
        case SB_LEAF_POISON: sb_state_poison(&t.s); break;
        default: return t;
        }
    }
    t.low = table_low(t.s.J);
    return t;
}

/* The same apart, so that its registers are not the hot loop's. */
template <int DTYPE>
static __device__ __noinline__ table_state plain_leaf(table_state t, leaf_words<DTYPE> x,
                                                      const char *p, int32_t n, sb_row row)
{
    if (DTYPE == SB_CUDA_F16) load_at<DTYPE, 0>(x, p, n); /* its thr may be no fp16 */
    return add_plain<DTYPE>(t, x, p, n, row);
}

/* Raises the logits of a leaf, whose largest is m, to thr. thr is a bf16, and for a leaf that the
 * table serves an fp16 as well: m and k64, which is at least 1/2 (plan.c), are multiples of 2^-24,
 * so thr, which has 8 bits, is one, too; and its pattern is in the table. */
template <int DTYPE> SB_DET void raise_words(leaf_words<DTYPE> &x, float m, float k64)
{
    const uint32_t least = sb_bits32(m - k64), floor = least + half_of_sign(least);
    const float thr = sb_float(floor & 0xffff0000u);
    const bool is_bf16 = DTYPE == SB_CUDA_BF16;
    const uint32_t pair = is_bf16 ? __byte_perm(floor, 0, 0x3232) : pair_of_f16(thr, thr);
#pragma unroll
    for (int i = 0; i < 8; i++)
        x.w[i] = is_bf16 ? max_nan_pair_bf16(x.w[i], pair) : max_nan_pair_f16(x.w[i], pair);
}

/* Adds a leaf that lies in the window: sum is that of its T(y) * 2^24, z the encoding of its z0. */
SB_DET void add_to_window(table_state *t, float sum, uint32_t z)
{
    /* scaled by 2^-A: A is 2 * (z - Z_ZERO), and the exponent's place is bit 23 */
    const uint32_t M = (uint32_t)sb_float(sb_bits32(sum) - (z << 24)), u = z - t->low;
    const uint64_t low = (uint64_t)M << (2 * u); /* the window's digits, without a branch */
    t->s.l[0] += (uint32_t)low;
    t->s.l[1] += (uint32_t)(low >> 32);
    t->s.l[2] += __funnelshift_rc(M, 0, 64 - 2 * u);
}

/* Adds the leaf in q, which lies at p, to a thread's state. next() begins to load another leaf into
 * q, as soon as this one's words are taken. see is called with the leaf's largest logit. */
template <int DTYPE, class NEXT, class SEE>
SB_DET void add_table_leaf(table_state *t, const uint4 q[2], const char *p, shared_address table,
                           float c, const sb_row &row, NEXT next, SEE &see)
{
    leaf_words<DTYPE> x;
    words_of_leaf<DTYPE>(x, q);
    const leaf_place at = place_of<DTYPE>(x, c);
    const uint32_t u = at.z - t->low;
    see(at.m);
    raise_words<DTYPE>(x, at.m, row.k64);
    next();
    if (__builtin_expect(u < 2 * DIGIT, 1)) {
        add_to_window(t, table_sum<DTYPE>(x, table, c), at.z);
    } else if (!sb_is_absent(at.m)) {
        *t = plain_leaf<DTYPE>(*t, x, p, SB_LEAF, row);
    }
}

template <int DTYPE, class NEXT>
SB_DET void add_table_leaf(table_state *t, const uint4 q[2], const char *p, shared_address table,
                           float c, const sb_row &row, NEXT next)
{
    sees_nothing nothing;
    add_table_leaf<DTYPE>(t, q, p, table, c, row, next, nothing);
}
