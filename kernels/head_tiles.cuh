/* head_tiles.cuh - logits of any number of rows by the tensor cores of every GPU from compute
 * capability 8.0 on, and by plain integers elsewhere.
 *
 * A block has 8 warps and takes tiles of 128 rows by 128 ids. A warp multiplies 16 ids by GROUP
 * rows at a time; blocks of 64 elements come by copies of consecutive bytes, two of them in turn.
 * The logits of 32 rows then go through shared memory, so that a thread has a leaf of a row. */
#pragma once

#include "head_digits.cuh"
#include "head_leaves.cuh"
#include "mma.cuh"

#define TILES_THREADS SB_CUDA_HEAD_TILES_THREADS
#define TILES_ROWS 32 /* whose logits lie in shared memory at once */
#define TILES_STRIDE (SB_CUDA_HEAD_TILE + 4)

/* Adds a leaf to the state of its row, which thread 0 of 8 keeps in device memory. fresh: nothing
 * is there yet. Called by whole warps; id0: the leaf's first id. */
template <class STATE>
SB_DET void add_leaf_of_tile(const sb_cuda_head_args &a, float *x, const leaf_lane &lane,
                             int64_t id0, STATE *place, bool fresh)
{
    typename sum_of<STATE>::thread t;
    begin_lane(&t, lane);
    finish_leaf(a, &t, x, lane, id0);
    if (a.logits) {
        for (int k = 0; lane.row && k < SB_LEAF; k += 4) store_four(a, lane.row, x + k, id0 + k);
        return;
    }
    STATE s = end_lane(&t);
    for (int step = 4; step > 0; step /= 2) merge_into(&s, state_across(s, step));
    if (threadIdx.x % 8 != 0 || !lane.row) return;
    if (!fresh) merge_into(&s, *place);
    *place = s;
}

/* The exact sum of a row and an id, from its levels: T, or S of h24w24. It is below 2^62. */
template <int LEVELS> SB_DET int64_t sum_of_levels(const int32_t (&L)[LEVELS])
{
    int64_t sum = (int32_t)((uint32_t)L[0] - (uint32_t)LEVEL_0_START);
#pragma unroll
    for (int i = 1; i < LEVELS; i++) sum = sum * 256 + L[i];
    return sum;
}

/* Calls f(walk) for each tile of the block's share. */
template <class F>
SB_DET void for_each_tile(const sb_cuda_head_args &a, const head_share &share, F f)
{
    if (share.tiles == 0) return;
    for (head_walk w = begin_walk(a, share); w.left > 0; next_tile(&w)) f(w);
}

#if defined(__HIPCC__)

/* One product of digits, as it is defined. */
template <int PLANES>
SB_DET void plain_levels(const sb_cuda_head_args &a, int64_t row, int64_t id,
                         int32_t (&L)[PLANES + 2])
{
    constexpr int TILE = SB_CUDA_HEAD_TILE;
    for (int i = 0; i < PLANES + 2; i++) L[i] = i == 0 ? LEVEL_0_START : 0;
    for (int block = 0; block < a.blocks; block++) {
        const int8_t *h = (const int8_t *)a.digits + block_place<3>(row / TILE, a.blocks, block);
        const int8_t *w = (const int8_t *)a.planes +
                          block_place<PLANES>(id / TILE, a.blocks, block);
        for (uint32_t k = 0; k < SB_CUDA_HEAD_DEPTH; k++) {
            const uint32_t in_h = chunk_place((uint32_t)(row % TILE), k / 16) + k % 16;
            const uint32_t in_w = chunk_place((uint32_t)(id % TILE), k / 16) + k % 16;
            for (int i = 0; i < 3; i++)
                for (int j = 0; j < PLANES; j++)
                    L[i + j] += h[i * SB_CUDA_HEAD_BLOCK + in_h] * w[j * SB_CUDA_HEAD_BLOCK + in_w];
        }
    }
}

template <int PLANES> SB_DET int64_t plain_sum(const sb_cuda_head_args &a, int64_t row, int64_t id)
{
    constexpr int LEVELS = PLANES == 2 ? 3 : 5;
    int32_t L[PLANES + 2], used[LEVELS];
    plain_levels<PLANES>(a, row, id, L);
    for (int i = 0; i < LEVELS; i++) used[i] = L[i];
    return sum_of_levels(used);
}

template <int PLANES> SB_DET float plain_logit(const sb_cuda_head_args &a, int64_t row, int64_t id)
{
    int32_t L[PLANES + 2];
    plain_levels<PLANES>(a, row, id, L);
    const int32_t L2 = PLANES == 2 ? L[2] : L[2] + sb_linear_carry(L[3], L[PLANES + 1]);
    uint32_t beyond = 0;
    float T = product_in_range(L[0], L[1], L2, &beyond);
    if (is_beyond(beyond)) T = product_of(L[0], L[1], L2);
    return T * ((const sb_cuda_head_row *)a.rows)[a.chunk + row].scale *
           scale_of_exponent(((const uint8_t *)a.exponents)[id]);
}

template <int PLANES, class STATE> SB_DET void head_tiles(const sb_cuda_head_args &a)
{
    const head_share share = share_of(a);
    for_each_tile(a, share, [&](const head_walk &walk) {
        for (int row = threadIdx.x / 8; row < SB_CUDA_HEAD_TILE; row += blockDim.x / 8) {
            const int64_t at = walk.row_tile * SB_CUDA_HEAD_TILE + row;
            const int64_t id0 = (int64_t)walk.id_tile * SB_CUDA_HEAD_TILE + threadIdx.x % 8 * 16;
            const bool there = at < share.rows;
            leaf_lane lane = there ? lane_of_row(a, a.chunk + at) : no_row();
            alignas(16) float x[SB_LEAF];
            if (a.sums) {
                for (int64_t id = max(id0, (int64_t)a.skip); id < min(id0 + SB_LEAF, a.held); id++)
                    if (lane.row)
                        ((int64_t *)a.sums)[lane.row->to + id - a.skip] = plain_sum<PLANES>(a, at,
                                                                                            id);
                continue;
            }
            for (int i = 0; i < SB_LEAF; i++)
                x[i] = lane.row && id0 < a.held ? plain_logit<PLANES>(a, at, id0 + i) : 0.0f;
            add_leaf_of_tile(a, x, lane, id0,
                             state_place<STATE>(a, share, blockIdx.x, walk.row_tile, row),
                             walk.begins);
        }
    });
}

#else

/* Sums of 8 * N rows by 16 ids on int8 units. */
template <int LEVELS, int N> struct int8_sums {
    static constexpr int GROUP = 8 * N;
    int32_t L[LEVELS][N][4];
    __device__ __forceinline__ void begin()
    {
#pragma unroll
        for (int i = 0; i < LEVELS; i++)
#pragma unroll
            for (int n = 0; n < N; n++)
#pragma unroll
                for (int k = 0; k < 4; k++) L[i][n][k] = i == 0 ? LEVEL_0_START : 0;
    }
    /* Adds the products of 64 elements per row. w: two chunks of rows g and g + 8; h: a chunk. */
    __device__ __forceinline__ void add(int level, int n, const uint4 (&w)[2], uint4 h)
    {
        const uint32_t low[4] = { w[0].x, w[1].x, w[0].y, w[1].y };
        const uint32_t high[4] = { w[0].z, w[1].z, w[0].w, w[1].w };
        mma_int8(L[level][n], low, h.x, h.y);
        mma_int8(L[level][n], high, h.z, h.w);
    }
    __device__ __forceinline__ void fold(int) {}
    __device__ __forceinline__ void end() {}
};

/* The same on bf16 units. fp32 sums are exact below 2^24, which holds 1024 products of digits: of
 * the at most three products per element of a level, those of five blocks of 64 elements. */
template <int LEVELS, int N> struct bf16_sums {
    static constexpr int GROUP = 8 * N, FOLD = 1024 / (3 * SB_CUDA_HEAD_DEPTH);
    int32_t L[LEVELS][N][4];
    float part[LEVELS][N][4];
    __device__ __forceinline__ void begin()
    {
#pragma unroll
        for (int i = 0; i < LEVELS; i++)
#pragma unroll
            for (int n = 0; n < N; n++)
#pragma unroll
                for (int k = 0; k < 4; k++) {
                    L[i][n][k] = i == 0 ? LEVEL_0_START : 0;
                    part[i][n][k] = 0.0f;
                }
    }
    __device__ __forceinline__ void add(int level, int n, const uint4 (&w)[2], uint4 h)
    {
        const uint32_t g[4] = { w[0].x, w[0].y, w[0].z, w[0].w };
        const uint32_t g8[4] = { w[1].x, w[1].y, w[1].z, w[1].w };
        const uint32_t b[4] = { h.x, h.y, h.z, h.w };
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const uint32_t of_a[4] = { pair_of_int8(g[i], false), pair_of_int8(g8[i], false),
                                       pair_of_int8(g[i], true), pair_of_int8(g8[i], true) };
            mma_bf16(part[level][n], of_a, pair_of_int8(b[i], false), pair_of_int8(b[i], true));
        }
    }
    __device__ __forceinline__ void end()
    {
#pragma unroll
        for (int i = 0; i < LEVELS; i++)
#pragma unroll
            for (int n = 0; n < N; n++)
#pragma unroll
                for (int k = 0; k < 4; k++) {
                    L[i][n][k] += __float2int_rn(part[i][n][k]);
                    part[i][n][k] = 0.0f;
                }
    }
    __device__ __forceinline__ void fold(int block)
    {
        if (block % FOLD == FOLD - 1) end();
    }
};

/* Writes the exact sums of 8 * N rows from row0 on, of `rows`, by 16 ids from id0 on: those of the
 * calling warp. */
template <int LEVELS, int N>
SB_DET void store_sums(const sb_cuda_head_args &a, const int32_t (&L)[LEVELS][N][4], int64_t row0,
                       int64_t rows, int64_t id0)
{
    const int lane = threadIdx.x % WARP, g = lane / 4, q = lane % 4;
#pragma unroll
    for (int n = 0; n < N; n++)
#pragma unroll
        for (int k = 0; k < 4; k++) {
            const int64_t at = row0 + n * 8 + 2 * q + k % 2, id = id0 + g + k / 2 * 8;
            if (at >= rows || id < a.skip || id >= a.held) continue;
            const sb_cuda_head_row *const row = (const sb_cuda_head_row *)a.rows + a.chunk + at;
            if (!row->hidden) continue;
            int32_t of[LEVELS];
#pragma unroll
            for (int i = 0; i < LEVELS; i++) of[i] = L[i][n][k];
            ((int64_t *)a.sums)[row->to + id - a.skip] = sum_of_levels(of);
        }
}

template <int PLANES, class SUMS, class STATE> SB_DET void head_tiles(const sb_cuda_head_args &a)
{
    constexpr int LEVELS = PLANES == 2 ? 3 : 5, GROUP = SUMS::GROUP, N = GROUP / 8;
    constexpr int OF_W = PLANES * SB_CUDA_HEAD_BLOCK, OF_H = 3 * GROUP * SB_CUDA_HEAD_DEPTH;
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, g = lane / 4, q = lane % 4;
    const shared_address stages = address_of(staging);
    float *const logits = (float *)((char *)staging + 2 * (OF_W + OF_H));

    const sb_cuda_head_row *const of_rows = (const sb_cuda_head_row *)a.rows + a.chunk;
    begin_dependents();
    wait_for_primary();
    const head_share share = share_of(a);
    for_each_tile(a, share, [&](const head_walk &walk) {
        const int64_t row_tile = walk.row_tile;
        const int id_tile = walk.id_tile;
        const int64_t left = share.rows - row_tile * SB_CUDA_HEAD_TILE;
        const char *const w = (const char *)a.planes + block_place<PLANES>(id_tile, a.blocks, 0);
        const char *const h = (const char *)a.digits + block_place<3>(row_tile, a.blocks, 0);
        for (int row0 = 0; row0 < SB_CUDA_HEAD_TILE && row0 < left; row0 += GROUP) {
            auto fetch = [&](int block) {
                const shared_address to = stages + block % 2 * (OF_W + OF_H);
                const char *const from_w = w + (int64_t)block * OF_W;
                const char *const from_h = h + (int64_t)block * (3 * SB_CUDA_HEAD_BLOCK) +
                                           row0 * SB_CUDA_HEAD_DEPTH;
                if (block >= a.blocks) return;
                for (int i = threadIdx.x; i < OF_W / 16; i += TILES_THREADS)
                    copy16_past_l1(to + i * 16, from_w + i * 16);
                for (int i = threadIdx.x; i < OF_H / 16; i += TILES_THREADS) {
                    const int plane = i / (GROUP * HEAD_CHUNKS), rest = i % (GROUP * HEAD_CHUNKS);
                    copy16_past_l1(to + OF_W + i * 16,
                                   from_h + plane * SB_CUDA_HEAD_BLOCK + rest * 16);
                }
            };
            SUMS sums;
            sums.begin();
            fetch(0);
            end_copies();
            for (int block = 0; block < a.blocks; block++) {
                wait_for_all_copies();
                __syncthreads(); /* the block has come, and nothing uses the other stage */
                fetch(block + 1);
                end_copies();
                const shared_address from = stages + block % 2 * (OF_W + OF_H);
                uint4 of_w[PLANES][2];
#pragma unroll
                for (int plane = 0; plane < PLANES; plane++)
#pragma unroll
                    for (int k = 0; k < 2; k++)
                        of_w[plane][k] = load16_shared(from + plane * SB_CUDA_HEAD_BLOCK +
                                                       chunk_place(warp * 16 + g + k * 8, q));
#pragma unroll
                for (int n = 0; n < N; n++)
#pragma unroll
                    for (int i = 0; i < 3; i++) {
                        const uint4 of_h = load16_shared(from + OF_W + i * GROUP * 64 +
                                                         chunk_place(n * 8 + g, q));
#pragma unroll
                        for (int j = 0; j < PLANES; j++)
                            if (i + j < LEVELS) sums.add(i + j, n, of_w[j], of_h);
                    }
                sums.fold(block);
            }
            sums.end();
            if (a.sums) {
                store_sums<LEVELS, N>(a, sums.L, row_tile * SB_CUDA_HEAD_TILE + row0, share.rows,
                                      (int64_t)id_tile * SB_CUDA_HEAD_TILE + warp * 16);
                __syncthreads(); /* nothing uses the stages */
                continue;
            }
            const uint8_t *const exponents = (const uint8_t *)a.exponents +
                                             (int64_t)id_tile * SB_CUDA_HEAD_TILE + warp * 16;
            const float of_low = scale_of_exponent(exponents[g]);
            const float of_high = scale_of_exponent(exponents[g + 8]);
#pragma unroll
            for (int part = 0; part < GROUP / TILES_ROWS; part++) {
                __syncthreads(); /* nothing uses the logits, or the stages */
                float x[16];
                const int n0 = part * (TILES_ROWS / 8); /* of groups of 8 rows */
                products_of_16(x, [&](int i, int level) {
                    const int n = n0 + i / 4, k = i % 4;
                    return level != 2 || LEVELS == 3
                               ? sums.L[level][n][k]
                               : sums.L[2][n][k] + sb_linear_carry(sums.L[LEVELS - 2][n][k],
                                                                   sums.L[LEVELS - 1][n][k]);
                });
#pragma unroll
                for (int i = 0; i < 16; i++) {
                    const int row = i / 4 * 8 + 2 * q + i % 2;
                    const int64_t at = row_tile * SB_CUDA_HEAD_TILE + row0 + part * TILES_ROWS +
                                       row;
                    const float of_row = at < share.rows ? of_rows[at].scale : 0.0f;
                    logits[row * TILES_STRIDE + warp * 16 + g + i % 4 / 2 * 8] =
                        x[i] * of_row * (i % 4 < 2 ? of_low : of_high);
                }
                __syncthreads(); /* the logits are in shared memory */
                const int row = threadIdx.x / 8, in_tile = row0 + part * TILES_ROWS + row;
                const int64_t at = row_tile * SB_CUDA_HEAD_TILE + in_tile;
                add_leaf_of_tile(a, logits + row * TILES_STRIDE + threadIdx.x % 8 * 16,
                                 at < share.rows ? lane_of_row(a, a.chunk + at) : no_row(),
                                 (int64_t)id_tile * SB_CUDA_HEAD_TILE + threadIdx.x % 8 * 16,
                                 state_place<STATE>(a, share, blockIdx.x, row_tile, in_tile),
                                 walk.begins);
            }
        }
        __syncthreads(); /* nothing uses the stages */
    });
}

#endif
