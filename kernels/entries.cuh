/* entries.cuh - a row's ids in their order, by numbers that kernels can halve: entry numbers, edges
 * between leaves, brackets of entries; and how a warp visits the leaves that reach an edge.
 *
 * Entry numbers order (logit, id) as the places of det/order.h do, without the bits that all logits
 * of a dtype have alike. */
#pragma once

#include "crew.cuh"
#include "leaf.cuh"

/* ---- entry numbers ------------------------------------------------------------------------ */

/* The low bits of keys that all logits of a dtype have alike, but for their sign. */
template <int DTYPE> SB_DET constexpr int spare_bits()
{
    return DTYPE == SB_CUDA_BF16 ? 16 : DTYPE == SB_CUDA_F16 ? 13 : 0;
}

#define ID_BITS 20
#define LAST_ID ((1u << ID_BITS) - 1)
#define KEY ((uint64_t)1 << ID_BITS) /* from a key to the next one */

/* The entry number of a logit and an id: the significant bits of the key, above the distance of the
 * id from the largest one. Multiples of 16 separate leaves, and are called edges. */
template <int DTYPE> SB_DET uint64_t entry_of(float x, uint32_t id)
{
    return (uint64_t)(sb_order_key(x) >> spare_bits<DTYPE>()) << ID_BITS | (LAST_ID - id);
}

/* The key that begins with these bits. */
template <int DTYPE> SB_DET uint32_t key_of(uint32_t bits)
{
    constexpr int SPARE = spare_bits<DTYPE>();
    const uint32_t key = bits << SPARE;
    return key >> 31 ? key : key | ((1u << SPARE) - 1);
}

template <int DTYPE> SB_DET uint64_t place_of_entry(uint64_t entry)
{
    return (uint64_t)key_of<DTYPE>((uint32_t)(entry >> ID_BITS)) << 32 |
           (0xffffffffu - (LAST_ID - (uint32_t)(entry & LAST_ID)));
}

template <int DTYPE> SB_DET uint64_t entry_of_place(uint64_t place)
{
    return entry_of<DTYPE>(sb_place_logit(place), (uint32_t)sb_place_id(place));
}

/* Above all entries. */
template <int DTYPE> SB_DET uint64_t top_edge()
{
    return (uint64_t)1 << (32 - spare_bits<DTYPE>() + ID_BITS);
}

/* An edge as logits see it: those of leaf k are at or above it if they reach at, for k up to leaf,
 * or above, for later ones. Absent logits reach nothing. */
struct edge {
    float at, above;
    int leaf;
};

SB_DET float logit_from(uint32_t key)
{
    if (key < 0x00800000u) return sb_float(0xff7fffffu); /* the least finite number */
    return key >= 0xff800000u ? sb_float(SB_INF_BITS) : sb_place_logit((uint64_t)key << 32);
}

template <int DTYPE> SB_DET edge edge_of(uint64_t entry)
{
    const uint32_t bits = (uint32_t)(entry >> ID_BITS);
    edge e;
    e.leaf = (int)((LAST_ID - (uint32_t)(entry & LAST_ID)) / SB_LEAF);
    e.at = entry >= top_edge<DTYPE>() ? sb_float(SB_INF_BITS) : logit_from(key_of<DTYPE>(bits));
    e.above = entry >= top_edge<DTYPE>() ? e.at : logit_from(key_of<DTYPE>(bits + 1));
    return e;
}

SB_DET float least_of(const edge &e, int leaf) { return leaf <= e.leaf ? e.at : e.above; }

/* The bracket of a pass: entries from low on, up to those below high, are inside; those from high
 * on, below end, are above. All are edges. */
struct bracket {
    uint64_t low, high, end;
};

/* ---- a row, as a crew works on it --------------------------------------------------------- */

/* segment: the room of each warp's list, in entries. The lists of a block lie in staging, those of
 * all blocks, merged, behind them, if there are several. */
struct cut_row {
    const sb_cuda_args *in;
    int64_t number;
    part_of_row all; /* the whole row */
    crew mates;
    int segment;
};

/* The words of leaf k of a row; ids that are not kept, and those behind the end, are absent. A
 * function of its own, so that its code for each alignment is in a kernel once. */
template <int DTYPE>
static __device__ __noinline__ void load_any_kept(leaf_words<DTYPE> *to, const cut_row *row, int k)
{
    constexpr int BYTES = SB_LEAF * size_of<DTYPE>();
    leaf_words<DTYPE> x;
    load_any<DTYPE>(x, row->all.logits + (int64_t)k * BYTES, row->all.vocab - (int64_t)k * SB_LEAF);
    const uint32_t bits = kept_bits(*row->in, row->number, k);
#pragma unroll
    for (int i = 0; i < words_of<DTYPE>(); i++) {
        if (DTYPE == SB_CUDA_F32) {
            if (!(bits >> i & 1)) x.w[i] = absent_word<DTYPE>();
        } else {
            const uint32_t mask = (bits >> 2 * i & 1 ? 0xffffu : 0) |
                                  (bits >> (2 * i + 1) & 1 ? 0xffff0000u : 0);
            x.w[i] = (x.w[i] & mask) | (absent_word<DTYPE>() * 0x10001u & ~mask);
        }
    }
    *to = x;
}

/* The same. Whole leaves of aligned rows without a kept set are loaded in place. */
template <int DTYPE> SB_DET void load_kept(leaf_words<DTYPE> &x, const cut_row &row, int k)
{
    const char *p = row.all.logits + (int64_t)k * (SB_LEAF * size_of<DTYPE>());
    if (((uint64_t)p & 15) == 0 && !row.in->kept && (int64_t)(k + 1) * SB_LEAF <= row.all.vocab) {
        load_leaf<DTYPE, 0>(x, p);
    } else {
        leaf_words<DTYPE> other; /* whose address may be taken */
        load_any_kept<DTYPE>(&other, &row, k);
        x = other;
    }
}

/* Calls see(k, passes) for each of a warp's leaves first + lane, stepping by step, where passes
 * tells whether the leaf's largest logit reaches the edge and may_pass(largest) holds; and
 * look(k, has) for those that pass, one per lane. Called by a whole warp with the same arguments;
 * lanes with has = false only keep the warp whole. */
template <int DTYPE, class PASS, class SEE, class LOOK>
SB_DET void visit_leaves(const cut_row &row, int first, int last, int step, const edge &least,
                         uint16_t *queue, PASS may_pass, SEE see, LOOK look)
{
    const int lane = threadIdx.x % WARP;
    int count = 0, base = first;
    leaf_words<DTYPE> next;
    if (first + lane < last) load_kept<DTYPE>(next, row, first + lane);
    while (base < last || count > 0) {
        if (base < last) {
            const int k = base + lane;
            bool passes = false;
            if (k < last) {
                const float m = leaf_max<DTYPE>(next);
                if (k + step < last) load_kept<DTYPE>(next, row, k + step);
                passes = m >= least_of(least, k) && may_pass(m);
                see(k, passes);
            }
            base += step;
            const uint64_t lanes = __ballot_sync(FULL, passes);
            if (passes) queue[count + __popcll(lanes & (((uint64_t)1 << lane) - 1))] = (uint16_t)k;
            count += __popcll(lanes);
            if (count < WARP && base < last) continue;
        }
        __syncwarp(); /* the queue is written */
        look(lane < count ? (int)queue[lane] : 0, lane < count);
        const uint16_t rest = queue[WARP + lane];
        __syncwarp(); /* the queue has been read */
        queue[lane] = rest;
        count = count > WARP ? count - WARP : 0;
        __syncwarp(); /* the rest is in front */
    }
}

/* The leaves of a crew's block: first .. last - 1, whole trips of its warps. */
SB_DET part_of_row share_of_crew(const cut_row &row)
{
    const int each = ((row.all.last + row.mates.size - 1) / row.mates.size + WARP - 1) / WARP *
                     WARP;
    part_of_row part = row.all;
    part.first = min(row.mates.rank * each, row.all.last);
    part.last = min(part.first + each, row.all.last);
    return part;
}
