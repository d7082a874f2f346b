/* head_hopper.cuh - logits by wgmma (compute capability 9.0, target sm_90a): of any number of rows,
 * and of at most 64, where the weights are read once and nearly bound the time.
 *
 * A block has two warpgroups that multiply and one thread that copies. Stages of 64 elements per
 * row go round in a ring; a stage is full once its bytes are there, and empty once both warpgroups
 * have multiplied it. The warpgroups do not wait for each other otherwise, so one of them often
 * makes leaves of its logits while the other one multiplies.
 *
 * Three levels of 64 sums per thread fit in registers. h24w24 therefore takes two passes over D:
 * the first one sums levels 3 and 4, whose carry the second one starts level 2 from. */
#pragma once

#include "head_digits.cuh"
#include "head_leaves.cuh"
#include "wgmma.cuh"

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

#define HOPPER_MULTIPLIERS 256 /* threads of the two warpgroups */
#define TURN_BARRIER 2         /* and 3: a warpgroup's turn begins. mbarrier.cuh has barrier 1 */

/* A ring of stages: two barriers for each. TAKERS: how many warpgroups multiply each stage. */
template <int STAGES, int TAKERS> struct head_ring {
    shared_address full, empty; /* of stage 0; 8 bytes each */
    int stage;
    uint32_t parity;

    __device__ __forceinline__ head_ring(uint64_t *barriers)
        : full(address_of(barriers)), empty(address_of(barriers + STAGES)), stage(0), parity(0)
    {
        if (threadIdx.x == 0) {
            for (int i = 0; i < STAGES; i++) {
                make_barrier(barriers + i, 1);
                make_barrier(barriers + STAGES + i, TAKERS);
            }
            publish_barriers();
        }
        __syncthreads(); /* the barriers exist */
    }
    __device__ __forceinline__ void next()
    {
        if (++stage == STAGES) stage = 0, parity ^= 1;
    }
    __device__ __forceinline__ void skip(int stages)
    {
        stage += stages;
        parity ^= stage / STAGES & 1;
        stage %= STAGES;
    }
    __device__ __forceinline__ void wait_full() { wait_for_phase(full + stage * 8, parity); }
    /* Of the copying thread; bytes: what it will copy into the stage. */
    __device__ __forceinline__ shared_address begin_copies(uint32_t bytes)
    {
        wait_for_phase(empty + stage * 8, parity ^ 1);
        expect_copy(full + stage * 8, bytes);
        return full + stage * 8;
    }
    __device__ __forceinline__ void end_of_copies() { arrive_at(full + stage * 8); }
    /* By a warpgroup: the stage before this one has been multiplied. */
    __device__ __forceinline__ void release_last()
    {
        if (threadIdx.x % 128 == 0) arrive_at(empty + (stage == 0 ? STAGES - 1 : stage - 1) * 8);
    }
};

/* The products of one pass over a stage: h and w are the addresses of the first planes. LOW: levels
 * 3 and 4 of h24w24, in L[1] and L[0]. */
template <int PLANES, bool LOW, int LEVELS, int N, bool IDS_ARE_ROWS>
SB_DET void multiply_stage(int32_t (&L)[LEVELS][N], shared_address h, uint32_t h_plane,
                           shared_address w, uint32_t w_plane)
{
#pragma unroll
    for (int half = 0; half < 2; half++)
#pragma unroll
        for (int i = 0; i < 3; i++)
#pragma unroll
            for (int k = 0; k < PLANES; k++) {
                const int j = i & 1 ? PLANES - 1 - k : k;
                if (LOW ? i + j < 3 : i + j >= LEVELS) continue;
                const uint64_t of_h = wgmma_operand(h + i * h_plane + half * 32);
                const uint64_t of_w = wgmma_operand(w + j * w_plane + half * 32);
                if (IDS_ARE_ROWS) wgmma_int8(L[LOW ? 4 - i - j : i + j], of_w, of_h);
                else wgmma_int8(L[LOW ? 4 - i - j : i + j], of_h, of_w);
            }
}

/* ---- any number of rows ------------------------------------------------------------------- */

/* A block's tile is 128 rows by 128 ids; a warpgroup has 64 of the rows. Either both warpgroups
 * multiply each stage, which has all rows and needs the weights once. Or they take turns: a stage
 * has the rows of one, and all stages of the first one's rows come before those of the second one.
 * One then multiplies while the other one makes leaves of its logits, which takes as long as about
 * nine stages. Shared memory: stages; logits of a warp's 16 rows and 32 ids; states; exponents of
 * the tile's ids, for each warp; barriers. */
template <int PLANES, bool TURNS, class STATE> struct many_shape {
    static constexpr int ROWS = TURNS ? 64 : 128, TAKERS = TURNS ? 1 : 2;
    static constexpr int WORDS = sum_of<STATE>::WORDS;
    static constexpr int LESS = PLANES == 2 && WORDS > 7; /* a stage less, with moments */
    static constexpr int STAGES = (PLANES == 2 ? (TURNS ? 7 : 5) : TURNS ? 5 : 4) - LESS;
    static constexpr uint32_t H_PLANE = ROWS * SB_CUDA_HEAD_DEPTH;
    static constexpr int OF_H = 3 * H_PLANE, OF_W = PLANES * SB_CUDA_HEAD_BLOCK;
    static constexpr int STRIDE = 36, LOGITS = (15 * STRIDE + 32) * 4, WARPS = 8;
    static constexpr int STATES = WORDS * WARP * 4, EXPONENTS = SB_CUDA_HEAD_TILE;
    static constexpr int AT_LOGITS = STAGES * (OF_H + OF_W);
    static constexpr int AT_STATES = AT_LOGITS + WARPS * LOGITS;
    static constexpr int AT_EXPONENTS = AT_STATES + WARPS * STATES;
    static constexpr int AT_BARRIERS = AT_EXPONENTS + WARPS * EXPONENTS;
    static_assert(AT_BARRIERS + 16 * STAGES <= SB_CUDA_HEAD_HOPPER_SHARED, "shared memory");
};

template <int PLANES, bool TURNS, class STATE>
using ring_of_many =
    head_ring<many_shape<PLANES, TURNS, STATE>::STAGES, many_shape<PLANES, TURNS, STATE>::TAKERS>;

/* How many warpgroups have rows in a tile, of those that take turns. */
SB_DET int turns_of(const head_share &share, const head_walk &walk)
{
    return share.rows - walk.row_tile * SB_CUDA_HEAD_TILE > 64 ? 2 : 1;
}

/* Copies all stages of the block's share. By one thread. */
template <int PLANES, bool TURNS, class STATE>
SB_DET void copy_many(const sb_cuda_head_args &a, const head_share &share,
                      ring_of_many<PLANES, TURNS, STATE> &ring)
{
    typedef many_shape<PLANES, TURNS, STATE> S;
    const shared_address stages = address_of(staging);
    for (head_walk walk = begin_walk(a, share); walk.left > 0; next_tile(&walk)) {
        const char *const h = (const char *)a.digits + block_place<3>(walk.row_tile, a.blocks, 0);
        const char *const w = (const char *)a.planes +
                              block_place<PLANES>(walk.id_tile, a.blocks, 0);
        const int turns = TURNS ? turns_of(share, walk) : 1;
        for (int pass = 0; pass < turns * (PLANES - 1); pass++) {
            const bool low = PLANES == 3 && pass % 2 == 0;
            const int first = low; /* digits 0 have no part in levels 3 and 4 */
            const char *const of_h = h + pass / (PLANES - 1) * S::H_PLANE;
            for (int block = 0; block < a.blocks; block++, ring.next()) {
                const shared_address to = stages + ring.stage * (S::OF_H + S::OF_W);
                const shared_address barrier = ring.begin_copies(
                    (3 - first) * S::H_PLANE + (PLANES - first) * SB_CUDA_HEAD_BLOCK);
                if (TURNS) {
                    for (int plane = first; plane < 3; plane++)
                        copy_bulk(to + plane * S::H_PLANE,
                                  of_h + (int64_t)(3 * block + plane) * SB_CUDA_HEAD_BLOCK,
                                  S::H_PLANE, barrier);
                } else {
                    copy_bulk(to + first * S::H_PLANE,
                              h + (int64_t)(3 * block + first) * SB_CUDA_HEAD_BLOCK,
                              (3 - first) * S::H_PLANE, barrier);
                }
                copy_bulk(to + S::OF_H + first * SB_CUDA_HEAD_BLOCK,
                          w + (int64_t)(PLANES * block + first) * SB_CUDA_HEAD_BLOCK,
                          (PLANES - first) * SB_CUDA_HEAD_BLOCK, barrier);
                ring.end_of_copies();
            }
        }
    }
}

template <int PLANES, bool TURNS, class STATE, bool LOW>
SB_DET void multiply_many(const sb_cuda_head_args &a, int32_t (&L)[3][64],
                          ring_of_many<PLANES, TURNS, STATE> &ring)
{
    typedef many_shape<PLANES, TURNS, STATE> S;
    const shared_address stages = address_of(staging);
    const uint32_t rows = TURNS ? 0 : threadIdx.x / 128 * 64 * SB_CUDA_HEAD_DEPTH;
    for (int block = 0; block < a.blocks; block++) {
        const shared_address from = stages + ring.stage * (S::OF_H + S::OF_W);
        ring.wait_full();
#pragma unroll
        for (int i = 0; i < 3; i++) pin(L[i]);
        wgmma_begin();
        multiply_stage<PLANES, LOW, 3, 64, false>(L, from + rows, S::H_PLANE, from + S::OF_H,
                                                  SB_CUDA_HEAD_BLOCK);
        wgmma_end();
        wgmma_wait<1>();
        if (block > 0) ring.release_last();
        ring.next();
    }
    /* The other warpgroup's stages come next. It must not wait for them before all of these have
     * come: a parity tells only the next phase of a barrier. */
    if (TURNS && !LOW) group_arrive(TURN_BARRIER + 1 - threadIdx.x / 128, HOPPER_MULTIPLIERS);
    wgmma_wait<0>();
#pragma unroll
    for (int i = 0; i < 3; i++) pin(L[i]);
    ring.release_last();
}

/* Makes leaves of a tile's logits. A warp has 16 rows; a lane takes leaves of row lane / 2. */
template <int PLANES, bool TURNS, class STATE>
SB_DET void leaves_of_many(const sb_cuda_head_args &a, int32_t (&L)[3][64], int64_t rows,
                           int64_t row0, int64_t id0, bool first, bool last, STATE *states)
{
    typedef many_shape<PLANES, TURNS, STATE> S;
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, g = lane / 4, q = lane % 4;
    float *const logits = (float *)((char *)staging + S::AT_LOGITS + warp * S::LOGITS);
    uint32_t *const words = (uint32_t *)((char *)staging + S::AT_STATES + warp * S::STATES) + lane;
    const uint16_t *const exponents = (const uint16_t *)((const char *)staging + S::AT_EXPONENTS +
                                                         warp * S::EXPONENTS);
    const sb_cuda_head_row *const of_rows = (const sb_cuda_head_row *)a.rows + a.chunk;
    const float scale = row0 + g < rows ? of_rows[row0 + g].scale : 0.0f;
    const float scale_8 = row0 + g + 8 < rows ? of_rows[row0 + g + 8].scale : 0.0f;
    const bool there = row0 + lane / 2 < rows;
    const leaf_lane mine = there ? lane_of_row(a, a.chunk + row0 + lane / 2) : no_row();
    typename sum_of<STATE>::thread t;
    if (first) begin_lane(&t, mine);
    else resume_sum(&t, words, mine);
    wait_for_all_copies();
    __syncwarp(); /* the exponents have come */
#pragma unroll
    for (int part = 0; part < 4; part++) {
        float x[16];
        products_of_16(x, [&](int i, int level) { return L[level][part * 16 + i]; });
#pragma unroll
        for (int j = 0; j < 4; j++) {
            const uint32_t pair = exponents[(part * 4 + j) * 4 + q];
            const float even = scale_of_exponent(pair & 0xff), odd = scale_of_exponent(pair >> 8);
            float2 *const to = (float2 *)(logits + g * S::STRIDE + j * 8 + 2 * q);
            to[0] = make_float2(x[4 * j] * scale * even, x[4 * j + 1] * scale * odd);
            to[4 * S::STRIDE] = make_float2(x[4 * j + 2] * scale_8 * even,
                                            x[4 * j + 3] * scale_8 * odd);
        }
        __syncwarp(); /* the logits of 32 ids are in shared memory */
        finish_leaf(a, &t, logits + lane / 2 * S::STRIDE + lane % 2 * SB_LEAF, mine,
                    id0 + part * 32 + lane % 2 * SB_LEAF);
        __syncwarp(); /* the logits have been read, or are to be stored */
        if (a.logits) {
            store_rows<16, 32>(a, logits, S::STRIDE, id0 + part * 32, [&](int r) {
                return row0 + r < rows ? of_rows + row0 + r : nullptr;
            });
            __syncwarp(); /* the logits have been stored */
        }
    }
    if (!last) {
        keep_sum(words, t);
        return;
    }
    STATE s = end_lane(&t);
    merge_into(&s, state_across(s, 1));
    if (lane % 2 == 0 && there && !a.logits) states[row0 % SB_CUDA_HEAD_TILE + lane / 2] = s;
}

template <int PLANES, bool TURNS, class STATE> SB_DET void head_many(const sb_cuda_head_args &a)
{
    typedef many_shape<PLANES, TURNS, STATE> S;
    ring_of_many<PLANES, TURNS, STATE> ring((uint64_t *)((char *)staging + S::AT_BARRIERS));
    begin_dependents();
    wait_for_primary();
    const head_share share = share_of(a);
    if (share.tiles == 0) return;
    if (threadIdx.x >= HOPPER_MULTIPLIERS) {
        fewer_registers<24>();
        if (threadIdx.x == HOPPER_MULTIPLIERS) copy_many<PLANES, TURNS, STATE>(a, share, ring);
        return;
    }
    more_registers<240>();
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    const shared_address exponents =
        address_of((char *)staging + S::AT_EXPONENTS + warp * S::EXPONENTS) + lane * 4;
    int tiles = 0; /* so far */
    for (head_walk walk = begin_walk(a, share); walk.left > 0; next_tile(&walk), tiles++) {
        const int64_t id0 = (int64_t)walk.id_tile * SB_CUDA_HEAD_TILE;
        int32_t L[3][64];
        const int stages = (PLANES - 1) * a.blocks; /* of a warpgroup's turn */
        const int turns = TURNS ? turns_of(share, walk) : 1, turn = TURNS ? warp / 4 : 0;
        if (TURNS && (turn == 1 || tiles > 0))
            group_barrier(TURN_BARRIER + turn, HOPPER_MULTIPLIERS);
        ring.skip(min(turn, turns) * stages);
        if (turn >= turns) {
            group_arrive(TURN_BARRIER, HOPPER_MULTIPLIERS);
            continue;
        }
        copy4(exponents, (const char *)a.exponents + id0 + lane * 4);
        end_copies();
        if constexpr (PLANES == 3) {
#pragma unroll
            for (int n = 0; n < 64; n++) L[0][n] = 32768, L[1][n] = 0, L[2][n] = 0;
            multiply_many<PLANES, TURNS, STATE, true>(a, L, ring);
#pragma unroll
            for (int n = 0; n < 64; n++) L[2][n] = (L[1][n] + (L[0][n] >> 8)) >> 8;
        } else {
#pragma unroll
            for (int n = 0; n < 64; n++) L[2][n] = 0;
        }
#pragma unroll
        for (int n = 0; n < 64; n++) L[0][n] = LEVEL_0_START, L[1][n] = 0;
        multiply_many<PLANES, TURNS, STATE, false>(a, L, ring);
        ring.skip((turns - 1 - turn) * stages);
        leaves_of_many<PLANES, TURNS>(
            a, L, share.rows, walk.row_tile * SB_CUDA_HEAD_TILE + warp * 16, id0, walk.begins,
            ends_row_tile(walk), state_place<STATE>(a, share, blockIdx.x, walk.row_tile, 0));
    }
}

/* ---- at most 64 rows ---------------------------------------------------------------------- */

/* A block's tile is 128 ids by 64 rows, and a warp has a leaf of each row. All levels of h24w24 fit
 * in registers. Shared memory: stages; logits of a warp's 32 rows and 16 ids; scales of the rows;
 * barriers. States of the warps take the place of the stages. */
template <int PLANES> struct some_shape {
    static constexpr int LEVELS = PLANES == 2 ? 3 : 5, STAGES = PLANES == 2 ? 7 : 5;
    static constexpr int ROWS = SB_CUDA_HEAD_FEW, OF_H = 3 * ROWS * SB_CUDA_HEAD_DEPTH;
    static constexpr int OF_W = PLANES * SB_CUDA_HEAD_BLOCK;
    static constexpr int STRIDE = 20, LOGITS = 32 * STRIDE * 4, WARPS = 8;
    static constexpr int AT_LOGITS = STAGES * (OF_H + OF_W);
    static constexpr int AT_SCALES = AT_LOGITS + WARPS * LOGITS;
    static constexpr int AT_BARRIERS = AT_SCALES + ROWS * 4;
    static_assert(AT_BARRIERS + 16 * STAGES <= SB_CUDA_HEAD_HOPPER_SHARED, "shared memory");
};

template <int PLANES>
SB_DET void copy_some(const sb_cuda_head_args &a, head_ring<some_shape<PLANES>::STAGES, 2> &ring)
{
    typedef some_shape<PLANES> S;
    constexpr int ROWS = S::ROWS * SB_CUDA_HEAD_DEPTH;
    const shared_address stages = address_of(staging);
    for (int tile = blockIdx.x; tile < a.tiles; tile += a.groups) {
        const char *w = (const char *)a.planes + block_place<PLANES>(tile, a.blocks, 0);
        const char *h = (const char *)a.digits;
        for (int block = 0; block < a.blocks; block++, ring.next()) {
            const shared_address to = stages + ring.stage * (S::OF_H + S::OF_W);
            const shared_address barrier = ring.begin_copies(S::OF_H + S::OF_W);
            copy_bulk(to, w, S::OF_W, barrier);
            for (int plane = 0; plane < 3; plane++)
                copy_bulk(to + S::OF_W + plane * ROWS, h + plane * SB_CUDA_HEAD_BLOCK, ROWS,
                          barrier);
            ring.end_of_copies();
            w += S::OF_W;
            h += 3 * SB_CUDA_HEAD_BLOCK;
        }
    }
}

template <int PLANES>
SB_DET void multiply_some(const sb_cuda_head_args &a, int32_t (&L)[some_shape<PLANES>::LEVELS][32],
                          head_ring<some_shape<PLANES>::STAGES, 2> &ring)
{
    typedef some_shape<PLANES> S;
    const shared_address stages = address_of(staging);
    const uint32_t ids = threadIdx.x / 128 * 64 * SB_CUDA_HEAD_DEPTH;
    for (int block = 0; block < a.blocks; block++) {
        const shared_address from = stages + ring.stage * (S::OF_H + S::OF_W);
        ring.wait_full();
#pragma unroll
        for (int i = 0; i < S::LEVELS; i++) pin(L[i]);
        wgmma_begin();
        multiply_stage<PLANES, false, S::LEVELS, 32, true>(
            L, from + S::OF_W, S::ROWS * SB_CUDA_HEAD_DEPTH, from + ids, SB_CUDA_HEAD_BLOCK);
        wgmma_end();
        wgmma_wait<1>();
        if (block > 0) ring.release_last();
        ring.next();
    }
    wgmma_wait<0>();
#pragma unroll
    for (int i = 0; i < S::LEVELS; i++) pin(L[i]);
    ring.release_last();
}

template <int PLANES, class STATE> SB_DET void head_some(const sb_cuda_head_args &a)
{
    typedef some_shape<PLANES> S;
    constexpr int LEVELS = S::LEVELS;
    head_ring<S::STAGES, 2> ring((uint64_t *)((char *)staging + S::AT_BARRIERS));
    begin_dependents();
    wait_for_primary();
    if (threadIdx.x >= HOPPER_MULTIPLIERS) {
        fewer_registers<24>();
        if (threadIdx.x == HOPPER_MULTIPLIERS) copy_some<PLANES>(a, ring);
        return;
    }
    more_registers<240>();
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, g = lane / 4, q = lane % 4;
    const int rows = (int)rows_of_chunk(a);
    float *const logits = (float *)((char *)staging + S::AT_LOGITS + warp * S::LOGITS);
    float *const scales = (float *)((char *)staging + S::AT_SCALES);
    if (threadIdx.x < S::ROWS)
        scales[threadIdx.x] = threadIdx.x < rows
                                  ? ((const sb_cuda_head_row *)a.rows)[threadIdx.x].scale
                                  : 0.0f;
    meet<HOPPER_MULTIPLIERS>(); /* the scales are in shared memory */
    typename sum_of<STATE>::thread t[2];
    leaf_lane mine[2];
#pragma unroll
    for (int part = 0; part < 2; part++) {
        mine[part] = part * WARP + lane < rows ? lane_of_row(a, part * WARP + lane) : no_row();
        begin_lane(&t[part], mine[part]);
    }
    for (int tile = blockIdx.x; tile < a.tiles; tile += a.groups) {
        const int64_t id0 = (int64_t)tile * SB_CUDA_HEAD_TILE + warp * SB_LEAF;
        const uint8_t *const exponents = (const uint8_t *)a.exponents + id0;
        const float low = scale_of_exponent(exponents[g]);
        const float high = scale_of_exponent(exponents[g + 8]);
        int32_t L[LEVELS][32];
#pragma unroll
        for (int i = 0; i < LEVELS; i++)
#pragma unroll
            for (int n = 0; n < 32; n++) L[i][n] = i == 0 ? LEVEL_0_START : 0;
        multiply_some<PLANES>(a, L, ring);
#pragma unroll
        for (int part = 0; part < 2; part++) {
            float x[16];
            products_of_16(x, [&](int i, int level) {
                const int n = part * 16 + i;
                return level != 2 || LEVELS == 3
                           ? L[level][n]
                           : L[2][n] + sb_linear_carry(L[LEVELS - 2][n], L[LEVELS - 1][n]);
            });
#pragma unroll
            for (int j = 0; j < 4; j++) {
                const float2 of_rows = *(const float2 *)(scales + part * 32 + j * 8 + 2 * q);
#pragma unroll
                for (int k = 0; k < 4; k++)
                    logits[(j * 8 + 2 * q + k % 2) * S::STRIDE + g + k / 2 * 8] =
                        x[4 * j + k] * (k % 2 ? of_rows.y : of_rows.x) * (k < 2 ? low : high);
            }
            __syncwarp(); /* the logits of 32 rows are in shared memory */
            finish_leaf(a, &t[part], logits + lane * S::STRIDE, mine[part], id0);
            __syncwarp(); /* the logits have been read, or are to be stored */
            if (a.logits) {
                store_rows<WARP, SB_LEAF>(a, logits, S::STRIDE, id0, [&](int r) {
                    const int at = part * WARP + r;
                    return at < rows ? (const sb_cuda_head_row *)a.rows + at : nullptr;
                });
                __syncwarp(); /* the logits have been stored */
            }
        }
    }
    meet<HOPPER_MULTIPLIERS>();             /* nothing uses the stages */
    STATE *const states = (STATE *)staging; /* [warp][row] */
#pragma unroll
    for (int part = 0; part < 2; part++)
        states[warp * S::ROWS + part * WARP + lane] = end_lane(&t[part]);
    meet<HOPPER_MULTIPLIERS>(); /* the states are in shared memory */
    if ((int)threadIdx.x >= rows || (int)blockIdx.x >= a.tiles || a.logits) return;
    STATE s = states[threadIdx.x];
    for (int i = 1; i < S::WARPS; i++) merge_into(&s, states[i * S::ROWS + threadIdx.x]);
    ((STATE *)a.states)[blockIdx.x * a.stride + threadIdx.x] = s;
}

#endif
