/* head_digits.cuh - rows of numbers as planes of int8 digits (docs/numerics.md, "The linear head"),
 * and where these lie in memory.
 *
 * A matrix of digits is cut into tiles of 128 rows, and a tile into blocks of 64 elements of each
 * row. A block holds its planes one behind the other, each 128 rows of 64 bytes, so that a copy of
 * consecutive bytes brings all that a step of a product needs:
 *
 *     [tile][block][plane][row of the tile][64 bytes]
 *
 * The four chunks of 16 bytes of a row lie in an order that depends on the row, so that the same
 * chunk of eight rows meets all banks of shared memory. This is the 64-byte swizzle of wgmma.
 * Rows behind the last one have digits 0 in weights, and anything in hidden states. */
#pragma once

#include "../src/det/linear.h"
#include "load.cuh"
#include "row.cuh"

#define HEAD_CHUNKS (SB_CUDA_HEAD_DEPTH / 16) /* of a row in a block */

/* Where chunk `chunk` of row `row` of a block's plane lies, in bytes from the plane's start. */
SB_DET uint32_t chunk_place(uint32_t row, uint32_t chunk)
{
    return row * SB_CUDA_HEAD_DEPTH + (chunk ^ (row >> 1 & 3)) * 16;
}

/* The planes of block `block` of a tile, in a matrix with so many blocks and planes. */
template <int PLANES> SB_DET int64_t block_place(int64_t tile, int blocks, int block)
{
    return (tile * blocks + block) * (PLANES * SB_CUDA_HEAD_BLOCK);
}

/* ---- making digits ------------------------------------------------------------------------ */

/* A row as it lies in memory. */
struct row_of_numbers {
    const char *p; /* its first element */
    int32_t depth; /* how many there are */
    int32_t dtype;
};

/* Where the chunks of a row's digits lie: those of row `row` of a matrix of so many blocks. */
template <int PLANES> struct place_of_digits {
    char *planes;
    uint32_t row;
    __device__ __forceinline__ place_of_digits(char *all, int64_t number, int blocks)
        : planes(all + block_place<PLANES>(number / SB_CUDA_HEAD_TILE, blocks, 0)),
          row((uint32_t)(number % SB_CUDA_HEAD_TILE))
    {
    }
    __device__ __forceinline__ char *of_chunk(int k) const
    {
        return planes + block_place<PLANES>(0, 0, k / HEAD_CHUNKS) +
               chunk_place(row, k % HEAD_CHUNKS);
    }
};

/* The largest magnitude of 16 elements. */
template <int DTYPE> SB_DET uint32_t chunk_magnitude(const leaf_words<DTYPE> &x)
{
    uint32_t a = 0;
#pragma unroll
    for (int i = 0; i < 16; i++) a = max(a, sb_linear_magnitude(unpack<DTYPE>(x, i)));
    return a;
}

/* Stores the digits of 16 elements; 0 if factor is 0. at: the place of the chunk in digit 0's
 * plane. */
template <int DTYPE, int PLANES>
SB_DET void store_digits(char *at, const leaf_words<DTYPE> &x, float factor)
{
    uint32_t d[PLANES][4];
#pragma unroll
    for (int k = 0; k < 4; k++) {
        uint32_t q[4];
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const float y = factor != 0.0f ? unpack<DTYPE>(x, 4 * k + i) : 0.0f;
            const int32_t integer = sb_linear_integer(y, factor);
            q[i] = PLANES == 2 ? sb_linear_digits16(integer) : sb_linear_digits24(integer);
        }
#pragma unroll
        for (int plane = 0; plane < PLANES; plane++) { /* digit 0 is the most significant byte */
            const uint32_t byte = PLANES - 1 - plane, pair = byte | (byte + 4) << 4;
            const uint32_t low = __byte_perm(q[0], q[1], pair);
            d[plane][k] = __byte_perm(low, __byte_perm(q[2], q[3], pair), 0x5410);
        }
    }
#pragma unroll
    for (int plane = 0; plane < PLANES; plane++)
        store16(at + plane * SB_CUDA_HEAD_BLOCK,
                { d[plane][0], d[plane][1], d[plane][2], d[plane][3] });
}

/* What decides the scale of a row with the largest magnitude own: the magnitude itself, or that of
 * a longer row of which it is a part. If that is smaller, the row is bad. */
SB_DET uint32_t deciding_magnitude(uint32_t own, const uint32_t *given)
{
    return !given ? own : own > *given ? 0x7fffffffu : *given;
}

/* The factor of a row; 0 if the row is bad. */
template <int PLANES> SB_DET float factor_of(uint32_t magnitude)
{
    const int32_t E = sb_linear_E(magnitude);
    return sb_linear_is_bad(E) ? 0.0f : sb_linear_factor(E, PLANES == 2 ? 16 : 24);
}

/* 16 elements of any row from element 16 k on, as fp32; what lies behind the row is 0, and not
 * read. */
SB_DET void load_chunk(leaf_words<SB_CUDA_F32> &x, const row_of_numbers &from, int k)
{
#pragma unroll
    for (int i = 0; i < 16; i++) {
        const int at = k * 16 + i;
        float y = 0.0f;
        if (at < from.depth) {
            if (from.dtype == SB_CUDA_F32) y = ((const float *)from.p)[at];
            else if (from.dtype == SB_CUDA_F16) y = sb_from_f16(((const uint16_t *)from.p)[at]);
            else y = sb_from_bf16(((const uint16_t *)from.p)[at]);
        }
        x.w[i] = sb_bits32(y);
    }
}

/* The functions below write the digits of one row, and return its deciding magnitude. They are
 * called by one warp, and are functions of their own because several kernels need them. */

/* Any row. */
template <int PLANES>
static __device__ __noinline__ uint32_t write_any_digits(place_of_digits<PLANES> to, int chunks,
                                                         row_of_numbers from, const uint32_t *given)
{
    const int lane = threadIdx.x % WARP;
    uint32_t a = 0;
    leaf_words<SB_CUDA_F32> x;
#pragma unroll 1
    for (int k = lane; k < chunks; k += WARP) {
        load_chunk(x, from, k);
        a = max(a, chunk_magnitude<SB_CUDA_F32>(x));
    }
    a = deciding_magnitude(__reduce_max_sync(FULL, a), given);
    const float factor = factor_of<PLANES>(a);
#pragma unroll 1
    for (int k = lane; k < chunks; k += WARP) {
        load_chunk(x, from, k);
        store_digits<SB_CUDA_F32, PLANES>(to.of_chunk(k), x, factor);
    }
    return a;
}

/* A row of whole chunks of bf16, aligned to 16 bytes, of which at most HELD are a lane's:
 * they are read once. */
#define HELD 8
template <int PLANES>
static __device__ __noinline__ uint32_t write_short_digits(place_of_digits<PLANES> to, int chunks,
                                                           const char *from, const uint32_t *given)
{
    const int lane = threadIdx.x % WARP;
    leaf_words<SB_CUDA_BF16> held[HELD];
    uint32_t a = 0;
#pragma unroll
    for (int i = 0; i < HELD; i++)
        if (lane + i * WARP < chunks)
            load_leaf<SB_CUDA_BF16, 0>(held[i], from + (lane + i * WARP) * 32);
#pragma unroll
    for (int i = 0; i < HELD; i++)
        if (lane + i * WARP < chunks) a = max(a, chunk_magnitude<SB_CUDA_BF16>(held[i]));
    a = deciding_magnitude(__reduce_max_sync(FULL, a), given);
    const float factor = factor_of<PLANES>(a);
#pragma unroll
    for (int i = 0; i < HELD; i++)
        if (lane + i * WARP < chunks)
            store_digits<SB_CUDA_BF16, PLANES>(to.of_chunk(lane + i * WARP), held[i], factor);
    return a;
}

/* Writes the digits of one row, number `row` of a matrix of so many blocks per row, and returns its
 * E. Called by one warp. given: the largest magnitude of a longer row of which this one is a part;
 * null: there is none. */
template <int PLANES>
SB_DET int32_t write_digits(char *planes, int64_t row, int blocks, const row_of_numbers &from,
                            const uint32_t *given)
{
    const int chunks = blocks * HEAD_CHUNKS;
    const place_of_digits<PLANES> to(planes, row, blocks);
    const bool is_short = chunks <= HELD * WARP && from.depth == chunks * 16 &&
                          ((uint64_t)from.p & 15) == 0;
    uint32_t a;
    if (is_short && from.dtype == SB_CUDA_BF16)
        a = write_short_digits<PLANES>(to, chunks, from.p, given);
    else a = write_any_digits<PLANES>(to, chunks, from, given);
    return sb_linear_E(a);
}
