/* parts.cuh - sums a row in short parts, each by one warp, with the largest logit of each beside
 * its state. A part is a number of consecutive leaves, whole trips of a warp, so that prefix sums
 * over the parts find the one that holds a draw.
 *
 * A warp takes several parts in a row. What they cost beside the sum of the row is the merge of a
 * warp's states for each of them. */
#pragma once

#include "leaf.cuh"

/* Keeps the largest logit of a thread's leaves. NaN does not count: it makes the row NaN. */
struct sees_most {
    float most;
    __device__ __forceinline__ void operator()(float m) { most = fmaxf(most, m); }
};

/* Adds a lane's leaves of a part, as add_leaves of leaf.cuh does for a block. Returns whether it
 * left a leaf for add_left. */
template <int DTYPE, int SHIFT>
SB_DET bool add_lane_leaves(thread_state *t, const part_of_row &part, const leaf_row &row,
                            sees_most &see)
{
    constexpr int BYTES = SB_LEAF * size_of<DTYPE>();
    constexpr bool STAGED = DTYPE != SB_CUDA_F32 && SHIFT == 0;
    const int lane = threadIdx.x % WARP;
    const int whole = (int)((part.vocab - (SHIFT ? (16 - SHIFT) / size_of<DTYPE>() : 0)) / SB_LEAF);
    const int hot = min(part.last, whole) - WARP + lane + 1; /* in trips of whole leaves */
    int k = part.first + lane;
    const char *p = part.logits + (int64_t)k * BYTES;
    bool left = false;
    leaf_words<DTYPE> x;
    if (STAGED && k < hot) add_staged<DTYPE>(t, k, p, hot, WARP, row, &left, see);
    for (; k < part.last; k += WARP, p += WARP * BYTES) {
        load_at<DTYPE, SHIFT>(x, p, part.vocab - (int64_t)k * SB_LEAF);
        add_leaf<DTYPE>(t, x, row, &left, see);
    }
    return left;
}

/* The same of a row with a kept set, one leaf after the other. */
template <int DTYPE>
static __device__ __noinline__ float sum_kept_part(sb_state *s, const sb_cuda_args *in,
                                                   int64_t number, part_of_row part, sb_row row)
{
    float most = sb_float(SB_ABSENT_BITS);
    for (int k = part.first + (int)threadIdx.x % WARP; k < part.last; k += WARP) {
        float y[SB_LEAF];
        if (!read_kept<DTYPE>(y, *in, number, part, 0, k)) continue;
        add_any(s, y, row);
#pragma unroll
        for (int i = 0; i < SB_LEAF; i++) most = fmaxf(most, y[i]);
    }
    return most;
}

/* The leaves that add_lane_leaves left. */
template <int DTYPE>
static __device__ __noinline__ void add_left_of_part(sb_state *s, part_of_row part, sb_row row)
{
    for (int k = part.first + (int)threadIdx.x % WARP; k < part.last; k += WARP) {
        leaf_words<DTYPE> x;
        float y[SB_LEAF];
        load_part<DTYPE>(x, part.logits + (int64_t)k * SB_LEAF * size_of<DTYPE>(),
                         part.vocab - (int64_t)k * SB_LEAF);
        if (is_narrow(sb_bits32(sb_fma32(leaf_max<DTYPE>(x), row.c, SB_EVEN_MAGIC)))) continue;
        for (int i = 0; i < SB_LEAF; i++) y[i] = unpack<DTYPE>(x, i);
        add_any(s, y, row);
    }
}

/* The largest of the lanes' logits, in all lanes. */
SB_DET float warp_most(float most)
{
    const uint32_t key = __reduce_max_sync(FULL, sb_is_absent(most) ? 0 : sb_order_key(most));
    return key ? sb_place_logit((uint64_t)key << 32) : sb_float(SB_ABSENT_BITS);
}

/* Sums a warp's part. All lanes get its state; returns its largest logit, in all lanes. */
template <int DTYPE>
SB_DET float sum_warp_part(sb_state *s, const sb_cuda_args &in, const any_row &mine,
                           const part_of_row &part)
{
    sees_most see = { sb_float(SB_ABSENT_BITS) };
    if (in.kept) {
        sb_state into; /* whose address may be taken */
        sb_state_init(&into, mine.row.c);
        see.most = sum_kept_part<DTYPE>(&into, &in, mine.number, part, mine.row);
        *s = into;
    } else {
        const leaf_row constants = { mine.row.c, mine.row.k64 };
        thread_state t;
        t.base = NO_BASE;
        begin_sum(&t, mine.row.c);
        const auto add = [&](auto at) {
            return add_lane_leaves<DTYPE, decltype(at)::value>(&t, part, constants, see);
        };
        const uint32_t shift = (uint32_t)(uint64_t)part.logits & 15;
        /* aligned rows do not wait for the code that tells all alignments apart */
        const bool left = shift == 0 ? add(constant<0>()) : at_alignment<DTYPE>(shift, add);
        *s = t.s;
        if (left) {
            sb_state into = t.s; /* whose address may be taken */
            add_left_of_part<DTYPE>(&into, part, mine.row);
            *s = into;
        }
    }
    warp_merge(s);
    return warp_most(see.most);
}
