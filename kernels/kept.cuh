/* kept.cuh - rows whose kept sets leave ids out: their leaves, one by one through det/leaf.h. A
 * leaf of which nothing is kept is not read. */
#pragma once

#include "common.cuh"
#include "leaf.cuh"
#include "load.cuh"

/* A leaf's bits of row's kept set. leaf: counted in the whole row. */
SB_DET uint32_t kept_bits(const sb_cuda_args &in, int64_t row, int64_t leaf)
{
    if (!in.kept) return 0xffffu;
    return ((const uint32_t *)in.kept)[row * in.kept_stride + leaf / 2] >> (leaf % 2 * 16) & 0xffff;
}

/* The logits of leaf k of a part as fp32, -inf where they are not kept; before: leaves of the row
 * before those that the call holds. False: none is kept. */
template <int DTYPE>
SB_DET bool read_kept(float y[SB_LEAF], const sb_cuda_args &in, int64_t row,
                      const part_of_row &part, int64_t before, int k)
{
    constexpr int BYTES = SB_LEAF * (DTYPE == SB_CUDA_F32 ? 4 : 2);
    const uint32_t bits = kept_bits(in, row, before + k);
    const char *p = part.logits + (int64_t)k * BYTES;
    const int64_t present = part.vocab - (int64_t)k * SB_LEAF;
    leaf_words<DTYPE> x;
    if (bits == 0) return false;
    if (present >= SB_LEAF && ((uint64_t)p & 15) == 0) load_leaf<DTYPE, 0>(x, p);
    else load_part<DTYPE>(x, p, present);
#pragma unroll
    for (int i = 0; i < SB_LEAF; i++)
        y[i] = bits >> i & 1 ? unpack<DTYPE>(x, i) : sb_float(0xff800000u);
    return true;
}

SB_DET void add_kept(sb_state *s, const float y[SB_LEAF], const sb_row &row)
{
    sb_leaf leaf;
    switch (sb_leaf_of(&leaf, y, &row)) {
    case SB_LEAF_PRESENT: sb_state_add(s, &leaf); break;
    case SB_LEAF_POISON: sb_state_poison(s); break;
    default: break;
    }
}

/* A thread's leaves of a part: first + threadIdx, + blockDim .. */
template <int DTYPE>
SB_DET void sum_kept(sb_state *s, const sb_cuda_args &in, int64_t number, const part_of_row &part,
                     int64_t before, const sb_row &row)
{
    sb_state_init(s, row.c);
    for (int k = part.first + threadIdx.x; k < part.last; k += blockDim.x) {
        float y[SB_LEAF];
        if (read_kept<DTYPE>(y, in, number, part, before, k)) add_kept(s, y, row);
    }
}

/* The part of a row of held logits that a piece is. */
SB_DET part_of_row piece_of_row(const sb_cuda_args &in, const char *logits, int64_t held, int piece)
{
    const int leaves = (int)((held + SB_LEAF - 1) / SB_LEAF);
    part_of_row part;
    part.logits = logits;
    part.vocab = held;
    part.first = (int)(piece * in.piece);
    part.last = min(part.first + (int)in.piece, leaves);
    return part;
}

/* The logit of an id as row sees it. */
template <int DTYPE>
SB_DET float kept_logit(const sb_cuda_args &in, int64_t row, const char *logits, int64_t id)
{
    return is_kept(in, row, id) ? load_one<DTYPE>(logits, id) : sb_float(0xff800000u);
}
