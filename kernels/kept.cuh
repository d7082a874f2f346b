/* kept.cuh - the leaves of rows with kept sets, one by one through det/leaf.h. An id outside its
 * row's kept set counts as absent, and a leaf without any kept id is not read. */
#pragma once

#include "load.cuh"
#include "merge.cuh"
#include "target.cuh"

/* The 16 bits of row's kept set for a leaf. Leaves are counted from the start of the whole row. */
SB_DET uint32_t kept_bits(const sb_cuda_args &in, int64_t row, int64_t leaf)
{
    if (!in.kept) return 0xffffu;
    return ((const uint32_t *)in.kept)[row * in.kept_stride + leaf / 2] >> (leaf % 2 * 16) & 0xffff;
}

/* Reads the logits of leaf k of a part as fp32; logits that are not kept become absent. before is
 * the number of the row's leaves in front of those that the call holds. Returns false if no id is
 * kept; y is then not written. */
template <int DTYPE>
SB_DET bool read_kept(float y[SB_LEAF], const sb_cuda_args &in, int64_t row,
                      const part_of_row &part, int64_t before, int k)
{
    constexpr int BYTES = SB_LEAF * size_of<DTYPE>();
    const uint32_t bits = kept_bits(in, row, before + k);
    const char *p = part.logits + (int64_t)k * BYTES;
    const int64_t present = part.vocab - (int64_t)k * SB_LEAF;
    leaf_words<DTYPE> x;
    if (bits == 0) return false;
    if (present >= SB_LEAF && ((uint64_t)p & 15) == 0) load_leaf<DTYPE, 0>(x, p);
    else load_part<DTYPE>(x, p, present);
#pragma unroll
    for (int i = 0; i < SB_LEAF; i++)
        y[i] = bits >> i & 1 ? unpack<DTYPE>(x, i) : sb_float(SB_ABSENT_BITS);
    return true;
}

/* Adds a leaf of any kind to s: ordinary, wide, poisoned or absent. */
SB_DET void add_any(sb_state *s, const float y[SB_LEAF], const sb_row &row)
{
    sb_leaf leaf;
    switch (sb_leaf_of(&leaf, y, &row)) {
    case SB_LEAF_PRESENT: sb_state_add(s, &leaf); break;
    case SB_LEAF_POISON: sb_state_poison(s); break;
    default: break;
    }
}

SB_DET void add_any(sb_moments *m, const float y[SB_LEAF], const sb_row &row)
{
    sb_moment_leaf leaf;
    switch (sb_moment_leaf_of(&leaf, y, &row)) {
    case SB_LEAF_PRESENT: sb_moments_add(m, &leaf); break;
    case SB_LEAF_POISON: sb_moments_poison(m); break;
    default: break;
    }
}

/* Adds the calling thread's leaves of a part to s. */
template <int DTYPE, class STATE>
SB_DET void add_kept(STATE *s, const sb_cuda_args &in, int64_t number, const part_of_row &part,
                     int64_t before, const sb_row &row)
{
    for (int k = part.first + threadIdx.x; k < part.last; k += blockDim.x) {
        float y[SB_LEAF];
        if (read_kept<DTYPE>(y, in, number, part, before, k)) add_any(s, y, row);
    }
}
