/* pair_table.cuh - terms of bf16 logits from a table in shared memory.
 *
 * T(x) = 2^(x c), as sb_leaf_term makes it with A = 0, depends only on the 16 bits of x and on c. A
 * leaf's term is T(x) * 2^-A, exactly: A is even, so ties of the rounding to an integer fall alike.
 * Scaling by powers of two commutes with the tree's roundings, so the sum over terms T(x) * 2^24 is
 * M * 2^A. Likewise for a gradient's v = T(x) * 2^-eS, unless eS is odd and x c can be a tie.
 *
 * An entry is a pair, T(-x) * 2^24 and T(x) * 2^24. Entries lie in the order of falling x, from |x
 * c| of at least SB_CUDA_TABLE_OCTAVES down to the largest x whose T is exactly 1 for both signs,
 * and end with one more for all smaller x. An address takes three instructions and a load one,
 * where a term takes nine. For x beyond the table, the load finds anything in the shared memory in
 * front of it, of which there must be enough; the term is then wrong, and the caller has to see
 * that. */
#pragma once

#include "table.cuh"

#if __CUDA_ARCH__ >= 900

/* The bytes in front of a table that loads may reach, for bf16 patterns up to 7fff. */
#define BEFORE_TABLE (8 * (0x8000 - SB_CUDA_LEAST_PAIR - SB_CUDA_PAIRS))

/* Fills a table of SB_CUDA_PAIRS + 1 entries; thread t of threads. least: the bf16 pattern of the
 * smallest x that has an entry of its own. */
SB_DET void fill_pairs(float2 *table, uint32_t least, float c, int t, int threads)
{
    for (int i = t; i < SB_CUDA_PAIRS; i += threads) {
        const uint32_t b = (least + i) << 16;
        table[SB_CUDA_PAIRS - 1 - i] = make_float2(table_term(sb_float(b | 0x80000000u), c),
                                                   table_term(sb_float(b), c));
    }
    if (t == 0) table[SB_CUDA_PAIRS] = make_float2(0x1p+24f, 0x1p+24f);
}

/* A table as the loops use it: the address that +0 would have, and the highest one that there is.
 */
struct pair_table {
    shared_address zero, last;
};

SB_DET pair_table pairs_at(const float2 *table, uint32_t least)
{
    return { address_of(table) + 8 * (SB_CUDA_PAIRS - 1 + least) + 4,
             address_of(table) + 8 * SB_CUDA_PAIRS + 4 };
}

SB_DET float term_of(uint32_t signed_half, const pair_table &t)
{
    return load_shared(min(signed_pair_address(signed_half, t.zero), t.last));
}

/* T(x) * 2^24 of the 16 logits in 8 words; v[i] and v[i + 1] are those of word i / 2. The first LOW
 * lower and HIGH upper halves are looked up, all others are computed, so that the pipes of shared
 * memory and of arithmetic are both busy. */
template <int LOW, int HIGH>
SB_DET void pair_terms(float v[16], const uint32_t w[8], float c, const pair_table &t)
{
#pragma unroll
    for (int i = 0; i < 8; i++) {
        if (i < LOW) v[2 * i] = term_of(sign_extended_low(w[i]), t);
        if (i < HIGH) v[2 * i + 1] = term_of(sign_extended_high(w[i]), t);
    } /* the loads first, because no instruction of the warp passes one that waits */
#pragma unroll
    for (int i = 0; i < 8; i++) {
        if (i >= LOW) v[2 * i] = table_term(sb_float(__byte_perm(w[i], 0, 0x1044)), c);
        if (i >= HIGH) v[2 * i + 1] = table_term(sb_float(w[i] & 0xffff0000u), c);
    }
}

/* ---- leaves ------------------------------------------------------------------------------- */

/* A leaf by det/leaf.h, from shared memory. A function of its own, so that it takes no registers
 * from the hot loop. */
struct any_leaf {
    int32_t A;
    uint32_t M;
    int32_t kind;
};
static __device__ __noinline__ any_leaf leaf_at(shared_address at, float c, float k64, float lim)
{
    const uint4 a = load16_shared(at), b = load16_shared(at + 16);
    const leaf_words<SB_CUDA_BF16> x = { { a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w } };
    const sb_row row = { c, k64, lim, 0 };
    float y[SB_LEAF];
    sb_leaf leaf = { 0, 0 };
#pragma unroll
    for (int i = 0; i < SB_LEAF; i++) y[i] = unpack<SB_CUDA_BF16>(x, i);
    const int32_t kind = sb_leaf_of(&leaf, y, &row);
    return { leaf.A, leaf.M, kind };
}

/* Moves the window up to the digit of z. Returns whether the table serves it, after a move. */
SB_DET bool rise_to(table_state *t, uint32_t z)
{
    hide(z); /* keeps all of this out of the hot path */
    if (!is_narrow(z)) return false;
    const uint32_t j = ((z - Z_ZERO) * 2u + SB_BIAS) >> 5;
    if (j <= t->s.J) return false;
    sb_state_rise(&t->s, j);
    t->low = table_low(j);
    return t->low != NO_BASE;
}

/* Whether a leaf with z is so far below the window that it adds nothing. */
SB_DET bool is_below_window(const table_state &t, uint32_t z)
{
    return is_narrow(z) && (((z - Z_ZERO) * 2u + SB_BIAS) >> 5) + 3 <= t.s.J;
}

/* Adds a leaf that the table does not serve. m is its largest logit; the leaf lies at `at`. */
SB_DET void add_beside_table(table_state *t, float m, uint32_t z, shared_address at, float c,
                             float k64, float lim)
{
    if (sb_is_absent(m) || is_below_window(*t, z)) return;
    const any_leaf r = leaf_at(at, c, k64, lim);
    if (r.kind == SB_LEAF_POISON) {
        sb_state_poison(&t->s);
        t->low = NO_BASE;
    } else {
        const sb_leaf leaf = { r.A, r.M };
        sb_state_add(&t->s, &leaf);
        t->low = table_low(t->s.J);
    }
}

/* Adds the leaf in w, which also lies at `at` in shared memory. Its two halves may be swapped in w,
 * because the tree begins with the sums of elements 8 apart. */
template <int LOW, int HIGH>
SB_DET void add_leaf(table_state *t, leaf_words<SB_CUDA_BF16> &x, shared_address at, float c,
                     float k64, float lim, const pair_table &table)
{
    const leaf_place place = place_of<SB_CUDA_BF16>(x, c);
    const uint32_t z = place.z;
    raise_words<SB_CUDA_BF16>(x, place.m, k64);
    float v[16];
    pair_terms<LOW, HIGH>(v, x.w, c, table);
    /* less A = 2 (z - Z_ZERO) octaves: the low bits of Z_ZERO << 24 are zero. Meaningless if the
     * table does not serve z */
    const uint32_t M = (uint32_t)sb_float(sb_bits32(sb_leaf_tree(v)) - (z << 24));
    if (__builtin_expect(z - t->low >= 2 * DIGIT, 0) && !rise_to(t, z)) {
        add_beside_table(t, place.m, z, at, c, k64, lim);
        return;
    }
    const uint32_t shift = 2 * (z - t->low); /* below 64 */
    const uint64_t both = (uint64_t)M << shift;
    t->s.l[0] += (uint32_t)both;
    t->s.l[1] += (uint32_t)(both >> 32);
    t->s.l[2] += __funnelshift_rc(M, 0, 64 - shift);
}

#endif
