/* head_few.cuh - logits of at most 8 rows, bound by reading the weights (compute capability 8.0).
 *
 * A block has 16 warps. Warps w and w + 8 sum 16 ids of a tile of 128, each over every other block
 * of D, and then add up. The digits of the rows lie in shared memory; those of the weights come
 * once, by a ring of each warp's own, whose lanes copy what they themselves use.
 *
 * Shared memory: digits of the rows [3][8][D' + 64]; rings [16][HEAD_RING][planes][1024]; levels
 * [8][levels * 4][32]; logits [8][8][20]. */
#pragma once

#include "head_digits.cuh"
#include "head_leaves.cuh"
#include "mma.cuh"

#define FEW_ROWS 8
#define FEW_SLABS 8 /* of 16 ids: a tile */
#define FEW_STRIDE 20

#if !defined(__HIPCC__)

/* Copies 16 bytes past L1, and lets L2 fetch the 128 bytes around them. */
SB_DET void copy16_of_line(shared_address to, const char *from)
{
    asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16;"
                 :
                 : "r"(to), "l"(from)
                 : "memory");
}

/* Where a warp's ring fetches next. */
struct few_ahead {
    const char *p; /* of the lane's first chunk, in the first plane of the warp's next block */
    int block, left;
};

template <int PLANES, int RING, class STATE> SB_DET void head_few(const sb_cuda_head_args &a)
{
    constexpr int LEVELS = PLANES == 2 ? 3 : 5, SLOT = PLANES * 1024;
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, g = lane / 4, q = lane % 4;
    const int slab = warp % FEW_SLABS, half = warp / FEW_SLABS;
    const int stride = a.blocks * SB_CUDA_HEAD_DEPTH + 64; /* of a row's digits */
    char *const shared = (char *)staging;
    char *const rings = shared + 3 * FEW_ROWS * stride;
    int32_t *const levels = (int32_t *)(rings + 16 * RING * SLOT) + slab * LEVELS * 4 * WARP;
    float *const logits = (float *)(rings + 16 * RING * SLOT + FEW_SLABS * LEVELS * 512) +
                          slab * FEW_ROWS * FEW_STRIDE;
    const shared_address ring = address_of(rings) + warp * RING * SLOT + lane * 16;

    /* One row tile: every a.groups-th tile of ids, whatever the number of active rows. */
    const int tiles = ((int)a.tiles - (int)blockIdx.x + a.groups - 1) / a.groups;
    const int mine = (a.blocks - half + 1) / 2; /* blocks of D that this warp sums */

    few_ahead next;
    next.p = (const char *)a.planes + block_place<PLANES>(blockIdx.x, a.blocks, half) +
             chunk_place(slab * 16 + g, q);
    next.block = 0, next.left = max(tiles, 0) * mine;
    int put = 0;
    auto fetch = [&] {
        if (next.left > 0) {
#pragma unroll
            for (int plane = 0; plane < PLANES; plane++)
#pragma unroll
                for (int k = 0; k < 2; k++)
                    copy16_of_line(ring + put * SLOT + plane * 1024 + k * 512,
                                   next.p + plane * SB_CUDA_HEAD_BLOCK + k * 8 * 64);
            next.left--;
            next.p += 2 * PLANES * SB_CUDA_HEAD_BLOCK;
            if (++next.block == mine) {
                next.block = 0;
                next.p += block_place<PLANES>(a.groups, a.blocks, -2 * mine);
            }
            put = put + 1 == RING ? 0 : put + 1;
        }
        end_copies();
    };
#pragma unroll
    for (int i = 0; i < RING - 1; i++) fetch();
    begin_dependents();
    wait_for_primary();

    const int rows = (int)rows_of_chunk(a);
    for (int i = threadIdx.x; i < 3 * FEW_ROWS * a.blocks * HEAD_CHUNKS; i += blockDim.x) {
        const int chunk = i % HEAD_CHUNKS, row = i / HEAD_CHUNKS % FEW_ROWS;
        const int plane = i / (HEAD_CHUNKS * FEW_ROWS) % 3,
                  block = i / (HEAD_CHUNKS * FEW_ROWS * 3);
        uint4 v = { 0, 0, 0, 0 };
        if (row < rows)
            v = load16((const char *)a.digits + block_place<3>(0, a.blocks, block) +
                       plane * SB_CUDA_HEAD_BLOCK + chunk_place(row, chunk));
        *(uint4 *)(shared + (plane * FEW_ROWS + row) * stride + block * 64 + chunk * 16) = v;
    }
    __syncthreads(); /* the digits of the rows are in shared memory */

    const leaf_lane row = lane < rows ? lane_of_row(a, lane) : no_row();
    const float scale0 = 2 * q < rows ? ((const sb_cuda_head_row *)a.rows)[2 * q].scale : 0.0f;
    const float scale1 = 2 * q + 1 < rows ? ((const sb_cuda_head_row *)a.rows)[2 * q + 1].scale
                                          : 0.0f;
    typename sum_of<STATE>::thread t;
    begin_lane(&t, row);
    int take = 0;
    for (int tile = blockIdx.x; tile < a.tiles; tile += a.groups) {
        const int64_t id0 = (int64_t)tile * SB_CUDA_HEAD_TILE + slab * 16;
        const uint8_t *const of_slab = (const uint8_t *)a.exponents + id0;
        const uint32_t exponents = of_slab[g] | (uint32_t)of_slab[g + 8] << 8;
        int32_t L[LEVELS][4];
#pragma unroll
        for (int i = 0; i < LEVELS; i++)
#pragma unroll
            for (int k = 0; k < 4; k++) L[i][k] = i == 0 && half == 0 ? LEVEL_0_START : 0;
        for (int n = 0; n < mine; n++) {
            wait_for_copies<RING - 2>();
            fetch();
            const shared_address slot = ring + take * SLOT;
            const char *digits = shared + g * stride + (2 * n + half) * 64 + q * 16;
            uint4 w[PLANES][2], h[3];
#pragma unroll
            for (int plane = 0; plane < PLANES; plane++) {
                w[plane][0] = load16_shared(slot + plane * 1024);
                w[plane][1] = load16_shared(slot + plane * 1024 + 512);
            }
#pragma unroll
            for (int i = 0; i < 3; i++) h[i] = *(const uint4 *)(digits + i * FEW_ROWS * stride);
#pragma unroll
            for (int i = 0; i < 3; i++)
#pragma unroll
                for (int j = 0; j < PLANES; j++) {
                    if (i + j >= LEVELS) continue;
                    const uint32_t low[4] = { w[j][0].x, w[j][1].x, w[j][0].y, w[j][1].y };
                    const uint32_t high[4] = { w[j][0].z, w[j][1].z, w[j][0].w, w[j][1].w };
                    mma_int8(L[i + j], low, h[i].x, h[i].y);
                    mma_int8(L[i + j], high, h[i].z, h[i].w);
                }
            take = take + 1 == RING ? 0 : take + 1;
        }
        if (half == 1) {
#pragma unroll
            for (int i = 0; i < LEVELS; i++)
#pragma unroll
                for (int k = 0; k < 4; k++) levels[(i * 4 + k) * WARP + lane] = L[i][k];
        }
        group_barrier(1 + slab, 2 * WARP); /* the other half's levels are in shared memory */
        if (half == 0) {
            const float low = scale_of_exponent(exponents & 0xff);
            const float high = scale_of_exponent(exponents >> 8);
#pragma unroll
            for (int i = 0; i < LEVELS; i++)
#pragma unroll
                for (int k = 0; k < 4; k++) L[i][k] += levels[(i * 4 + k) * WARP + lane];
#pragma unroll
            for (int k = 0; k < 4; k++) {
                const int32_t L2 = LEVELS == 3 ? L[2][k]
                                               : L[2][k] + sb_linear_carry(L[LEVELS - 2][k],
                                                                           L[LEVELS - 1][k]);
                uint32_t beyond = 0;
                float T = product_in_range(L[0][k], L[1][k], L2, &beyond);
                if (is_beyond(beyond)) T = product_of(L[0][k], L[1][k], L2);
                logits[(2 * q + k % 2) * FEW_STRIDE + g + k / 2 * 8] = T *
                                                                       (k % 2 ? scale1 : scale0) *
                                                                       (k < 2 ? low : high);
            }
            __syncwarp(); /* the logits of the slab are in shared memory */
            if (lane < FEW_ROWS) finish_leaf(a, &t, logits + lane * FEW_STRIDE, row, id0);
            __syncwarp(); /* the logits have been read, or are to be stored */
            if (a.logits) {
                store_rows<FEW_ROWS, SB_LEAF>(a, logits, FEW_STRIDE, id0, [&](int r) {
                    return r < rows ? (const sb_cuda_head_row *)a.rows + r : nullptr;
                });
                __syncwarp(); /* the logits have been stored */
            }
        }
        group_barrier(1 + slab, 2 * WARP); /* the levels have been read */
    }
    wait_for_all_copies();
    __syncthreads();                      /* nothing uses the rings any more */
    STATE *const states = (STATE *)rings; /* [slab][row] */
    if (half == 0 && lane < FEW_ROWS) states[slab * FEW_ROWS + lane] = end_lane(&t);
    __syncthreads(); /* the states are in shared memory */
    if (threadIdx.x < rows && tiles > 0 && !a.logits) {
        STATE s = states[threadIdx.x];
        for (int i = 1; i < FEW_SLABS; i++) merge_into(&s, states[i * FEW_ROWS + threadIdx.x]);
        ((STATE *)a.states)[blockIdx.x * a.stride + threadIdx.x] = s;
    }
}

#endif
