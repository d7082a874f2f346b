/* stats.cu - ratios and KL estimates of tokens; exact sums and means of sequences.
 *
 *   compare_tokens      ratio[i] = e^d, k1 = -d, k2 = d^2 / 2, k3 = e^d - 1 - d,
 *                       d = other[i] - sampled[i]
 *   reduce_sequences    sum[b], mean[b], e^mean[b] and count[b] of values, or of values - minus
 *
 * Shapes: tokens [count]; values, minus and mask [B, T], or [N] if packed. The arguments are in
 * src/cuda/args.h, the arithmetic in src/det/ratio.h and src/det/digits.h.
 *
 * The reduction works on integers, ten digits and flags, so its order cannot matter:
 *
 *     values -> thread's digits -> warp (shuffles) -> block (shared memory) -> one thread rounds
 *
 *     compare_tokens      blocks of 256 threads, which stride over the tokens.
 *     reduce_sequences    one block of 512 threads per sequence. */
#include "../src/det/digits.h"
#include "../src/det/ratio.h"
#include "row.cuh"

#define COMPARE_BLOCK 256
#define REDUCE_WARPS (512 / 32) /* whatever their width */
#define REDUCE_BLOCK (REDUCE_WARPS * WARP)

SB_DET void put(uint64_t to, int64_t i, float x)
{
    if (to) ((float *)to)[i] = x;
}

extern "C" __global__ void __launch_bounds__(COMPARE_BLOCK)
    compare_tokens(const __grid_constant__ sb_cuda_stats_args a)
{
    const int64_t step = (int64_t)gridDim.x * blockDim.x;
    int64_t i = blockIdx.x * (int64_t)blockDim.x + threadIdx.x;
    for (; i < a.tokens; i += step) {
        const sb_comparison c = sb_compare_of(((const float *)a.sampled)[i],
                                              ((const float *)a.other)[i]);
        put(a.ratio, i, c.ratio);
        put(a.k1, i, c.k1);
        put(a.k2, i, c.k2);
        put(a.k3, i, c.k3);
    }
}

/* Merges the digits of a warp's lanes and adds up their counts; all lanes get both results. */
SB_DET void warp_merge_digits(sb_digits *s, int64_t *count)
{
    for (int step = WARP / 2; step > 0; step /= 2) {
        for (int k = 0; k < SB_DIGITS; k++) s->d[k] += __shfl_xor_sync(FULL, s->d[k], step);
        *count += __shfl_xor_sync(FULL, *count, step);
    }
    for (uint32_t flag = SB_SEEN_NAN; flag <= SB_SEEN_MINUS_INF; flag *= 2)
        if (__any_sync(FULL, s->seen & flag)) s->seen |= flag;
}

extern "C" __global__ void __launch_bounds__(REDUCE_BLOCK)
    reduce_sequences(const __grid_constant__ sb_cuda_stats_args a)
{
    __shared__ sb_digits shared[REDUCE_WARPS];
    __shared__ int64_t counts[REDUCE_WARPS];
    const int64_t b = blockIdx.x;
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    const uint8_t *mask = (const uint8_t *)a.in.mask;
    int64_t first, last, count = 0;
    const bool well = extent_of(a.in, b, &first, &last);
    sb_digits sum;

    sb_digits_init(&sum);
    for (int64_t i = first + threadIdx.x; i < last; i += REDUCE_BLOCK) {
        if (mask && !mask[i]) continue;
        const float x = ((const float *)a.values)[i];
        count++;
        if (a.minus) sb_digits_add_difference(&sum, x, ((const float *)a.minus)[i]);
        else sb_digits_add(&sum, x);
    }
    warp_merge_digits(&sum, &count);
    if (lane == 0) {
        shared[warp] = sum;
        counts[warp] = count;
    }
    __syncthreads(); /* every warp's digits are in shared */
    if (threadIdx.x != 0) return;
    for (int w = 1; w < REDUCE_WARPS; w++) {
        sb_digits_merge(&sum, &shared[w]);
        count += counts[w];
    }
    if (!well) {
        report(a.in, SB_BAD_CU_SEQLENS, b);
        sum.seen = SB_SEEN_NAN;
    }
    const double mean = well ? sb_digits_mean(&sum, count) : (double)sb_float(SB_NAN_BITS);
    put(a.sum, b, sb_digits_sum(&sum));
    put(a.mean, b, sb_mean32(mean));
    put(a.exp_mean, b, sb_ratio_of(mean));
    if (a.count) ((int64_t *)a.count)[b] = count;
}
