/* head_error.cu - how far the logits of hidden states can be from the exact products: the norms of
 * weights and of hidden states, and the bounds that follow (docs/numerics.md, "Linear: a row's own
 * bound"). The sums are of integers, and norms only meet in maxima: no order can matter.
 *
 * Shapes: weights [V, D], hidden states [B, T, D] or [N, D]; everything else in src/cuda/args.h.
 *
 *     head_norms         a warp per row of weights, whose exponents are there; a block of 8 warps
 *                        takes the largest norms of its rows
 *     head_norms_all     one block: the largest of all
 *     head_error         a warp per row of the call
 */
#include "../src/det/linear_error.h"
#include "merge.cuh"
#include "row.cuh"

#define ROWS SB_CUDA_HEAD_NORMS_ROWS

/* Element k of a row. */
SB_DET float number_at(const char *row, int32_t dtype, int64_t k)
{
    if (dtype == SB_CUDA_F32) return ((const float *)row)[k];
    if (dtype == SB_CUDA_F16) return sb_from_f16(((const uint16_t *)row)[k]);
    return sb_from_bf16(((const uint16_t *)row)[k]);
}

/* The norms of a row that is not bad. Called by one warp; all lanes get them. The roots take long,
 * so each of three lanes takes one. */
static __device__ __noinline__ sb_linear_norms norms_of(const char *row, int32_t dtype,
                                                        int64_t depth, int32_t E, int32_t bits)
{
    const int lane = threadIdx.x % WARP;
    const float factor = sb_linear_factor(E, bits);
    sb_linear_sums sums = { 0, 0, 0 };
    for (int64_t k = lane; k < depth; k += WARP)
        sb_linear_sums_add(&sums, number_at(row, dtype, k), factor);
    sums.size = warp_sum_any(sums.size);
    sums.loss = warp_sum_any(sums.loss);
    sums.last = warp_sum_any(sums.last);
    const int32_t unit = E - bits + 1;
    const uint64_t mine = lane == 0 ? sums.size : lane == 1 ? sums.loss : sums.last;
    const double norm = sb_linear_norm(mine, lane == 1 ? unit - 16 : unit);
    sb_linear_norms norms;
    norms.size = __shfl_sync(FULL, norm, 0);
    norms.loss = __shfl_sync(FULL, norm, 1);
    norms.last = __shfl_sync(FULL, norm, 2);
    norms.E = E;
    norms.reserved = 0;
    return norms;
}

/* ---- weights ------------------------------------------------------------------------------ */

extern "C" __global__ void __launch_bounds__(256)
    head_norms(const __grid_constant__ sb_cuda_norms_args a)
{
    __shared__ sb_linear_norms of_rows[ROWS];
    const int64_t row = warp_item(), size = a.dtype == SB_CUDA_F32 ? 4 : 2;
    const int lane = threadIdx.x % WARP;
    sb_linear_norms norms = sb_linear_no_norms();
    const uint32_t exponent = row < a.held ? ((const uint8_t *)a.exponents)[row] : SB_CUDA_HEAD_BAD;
    if (exponent != SB_CUDA_HEAD_BAD)
        norms = norms_of((const char *)a.weights + row * a.row_stride * size, a.dtype, a.depth,
                         (int32_t)exponent - SB_CUDA_HEAD_EXPONENT, a.bits);
    if (lane == 0) of_rows[threadIdx.x / WARP] = norms;
    __syncthreads(); /* the rows' norms are written */
    if (threadIdx.x != 0) return;
    for (int i = 1; i < ROWS; i++) sb_linear_norms_merge(&norms, &of_rows[i]);
    ((sb_linear_norms *)a.parts)[blockIdx.x] = norms;
}

extern "C" __global__ void __launch_bounds__(512)
    head_norms_all(const __grid_constant__ sb_cuda_norms_args a)
{
    __shared__ sb_linear_norms of_threads[512];
    sb_linear_norms all = sb_linear_no_norms();
    for (int64_t i = threadIdx.x; i < a.count; i += blockDim.x)
        sb_linear_norms_merge(&all, &((const sb_linear_norms *)a.parts)[i]);
    of_threads[threadIdx.x] = all;
    __syncthreads(); /* the threads' norms are written */
    if (threadIdx.x != 0) return;
    for (int i = 1; i < (int)blockDim.x; i++) sb_linear_norms_merge(&all, &of_threads[i]);
    *(sb_linear_norms *)a.norms = all;
}

/* ---- rows --------------------------------------------------------------------------------- */

/* The largest magnitude of a row; all lanes of the warp get it. */
SB_DET uint32_t magnitude_of(const char *row, int32_t dtype, int64_t depth)
{
    uint32_t most = 0;
    for (int64_t k = threadIdx.x % WARP; k < depth; k += WARP)
        most = max(most, sb_linear_magnitude(number_at(row, dtype, k)));
    return __reduce_max_sync(FULL, most);
}

/* Every lane looks at the row, so that none waits for another; one reports. */
extern "C" __global__ void __launch_bounds__(256)
    head_error(const __grid_constant__ sb_cuda_error_args a)
{
    const int64_t item = warp_item();
    const bool writes = threadIdx.x % WARP == 0;
    any_row mine;
    if (item >= a.in.work) return;
    set_any_row(a.in, &mine, item, writes);
    if (mine.fate == ROW_UNKNOWN) return;
    float bound = nan_or_nothing(mine.fate);
    if (mine.fate == ROW_ACTIVE) {
        const int32_t dtype = a.in.logits_dtype;
        const uint32_t own = magnitude_of(mine.logits, dtype, a.depth);
        const uint32_t given = a.scales ? ((const uint32_t *)a.scales)[mine.number - a.in.shift]
                                        : own;
        const int32_t E = sb_linear_E(given < own ? 0x7fffffffu : given);
        bound = sb_float(SB_NAN_BITS);
        if (given < own && writes) report(a.in, SB_BAD_SCALE, mine.number);
        if (!sb_linear_is_bad(E)) {
            const sb_linear_norms its = norms_of(mine.logits, dtype, a.depth, E, 24);
            bound = sb_linear_bound(&its, (const sb_linear_norms *)a.norms, a.planes);
        }
    }
    if (writes) ((float *)a.error)[mine.number] = bound;
}
