/* entries.cuh - a row's ids in their order, by numbers that kernels can halve: entry numbers, edges
 * between leaves, brackets of entries; and the ids of a leaf that reach an edge, as bits.
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

/* best: the largest logit. plain: so many leaves, from the first one on, are whole, aligned and
 * without a kept set. segment: the room of each warp's list, in entries. The lists of a block lie
 * in staging, those of all blocks, merged, behind them, if there are several. */
struct cut_row {
    const sb_cuda_args *in;
    int64_t number;
    part_of_row all; /* the whole row */
    crew mates;
    float best;
    int plain, segment;
};

/* Sets what does not depend on filters. */
SB_DET void set_cut_row(cut_row *row, const sb_cuda_args &in, int64_t number)
{
    const char *logits = logits_of(in, number);
    row->in = &in;
    row->number = number;
    row->all = { logits, in.vocab, 0, leaves_in(in.vocab) };
    row->plain = ((uint64_t)logits & 15) == 0 && !in.kept ? (int)(in.vocab / SB_LEAF) : 0;
}

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

/* A row's leaves, as a thread's registers have them. */
template <int DTYPE> struct row_leaves {
    const char *logits;
    int plain;
    const cut_row *row;

    __device__ __forceinline__ explicit row_leaves(const cut_row &of)
        : logits(of.all.logits), plain(of.plain), row(&of)
    {
    }
    __device__ __forceinline__ void fetch(int k) const
    {
        prefetch(logits + (int64_t)k * (SB_LEAF * size_of<DTYPE>()));
    }
    __device__ __forceinline__ void load(leaf_words<DTYPE> &x, int k) const
    {
        if (k < plain) {
            load_leaf<DTYPE, 0>(x, logits + (int64_t)k * (SB_LEAF * size_of<DTYPE>()));
        } else {
            leaf_words<DTYPE> other; /* whose address may be taken */
            load_any_kept<DTYPE>(&other, row, k);
            x = other;
        }
    }
};

/* ---- the ids of a leaf, as bits ----------------------------------------------------------- */

/* Some ids of a leaf are a number of 32 bits. Those of two logits in one word are 16 bits apart,
 * as the word's halves are. */
template <int DTYPE> SB_DET constexpr int bit_of_id(int i)
{
    return DTYPE == SB_CUDA_F32 ? i : i / 2 + i % 2 * 16;
}

template <int DTYPE> SB_DET int id_of_bit(int b)
{
    return DTYPE == SB_CUDA_F32 ? b : b % 16 * 2 + b / 16;
}

/* These bits in the order of the ids. */
template <int DTYPE> SB_DET uint32_t bits_in_order(uint32_t bits)
{
    if (DTYPE == SB_CUDA_F32) return bits;
    uint32_t both = bits & 0x00ff00ffu; /* each bit moves to twice its place */
    both = (both | both << 4) & 0x0f0f0f0fu;
    both = (both | both << 2) & 0x33333333u;
    both = (both | both << 1) & 0x55555555u;
    return (both | both >> 15) & 0xffffu;
}

/* A logit which the same numbers of a container reach as x, and which is one of them if the
 * container is bf16. Requires: x is not NaN. */
template <int DTYPE> SB_DET float raised_to_container(float x)
{
    const uint32_t b = sb_bits32(x);
    if (DTYPE != SB_CUDA_BF16) return x;
    return sb_float((b >> 31 ? b : b + 0xffffu) & 0xffff0000u);
}

/* The ids whose logits reach `from`, for bf16 one of its numbers. NaN reaches nothing. */
template <int DTYPE> SB_DET uint32_t ids_from(const leaf_words<DTYPE> &x, float from)
{
    uint32_t bits = 0;
    if (DTYPE == SB_CUDA_BF16) {
        const uint32_t pair = __byte_perm(sb_bits32(from), 0, 0x3232);
#pragma unroll
        for (int i = 0; i < words_of<DTYPE>(); i++)
            bits |= at_least_pair_bf16(x.w[i], pair) & 0x10001u << i;
    } else {
#pragma unroll
        for (int i = 0; i < SB_LEAF; i++)
            bits |= (uint32_t)(unpack<DTYPE>(x, i) >= from) << bit_of_id<DTYPE>(i);
    }
    return bits;
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
