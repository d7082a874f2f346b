/* conventional.cu - the control group: token logprobs as frameworks compute them, with sums whose
 * order depends on the launch. src/samebits_conventional.h describes the model.
 *
 *   y_i = x_i / tau,  m = max y_i,  s = sum expf(y_i - m),  token = y_id - m - logf(s)
 *
 * Only these kernels may call expf and logf. There are no atomics, so the same launch gives the
 * same bits.
 *
 * The reduction. A piece is read twice, once for the maximum and once for the sum. From the first
 * aligned address on, each thread takes every blockDim-th 16-byte vector and adds up its own
 * logits. The logits before and behind the vectors are taken one per thread:
 *
 *     vectors -> thread's sum -> warp (shuffles) -> block (shared) -> [pieces] -> finish
 *
 * Launches (src/cuda/args.h; piece counts 16 logits):
 *
 *     conventional_<dtype>     grid work * split, blocks of a multiple of 32 threads up to 512.
 *                              With split 1 it finishes rows itself; otherwise it writes partials
 *                              [work][split] into states.
 *     conventional_finish      one warp per item; the grid covers work * 32 threads.
 *     conventional_sums        one warp per sequence; the grid covers batch * 32 threads. */
#include "load.cuh"
#include "row.cuh"

#define INFINITE __int_as_float(0x7f800000)

/* The maximum of a part of a row, and the sum of expf(y - reference(max)) over it. */
struct partial {
    float max, sum;
};

/* The value to subtract. If every logit is -inf it is 0: -inf - -inf would be NaN; the sum is then
 * 0. */
SB_DET float reference(float max) { return max == -INFINITE ? 0.0f : max; }

template <int DTYPE> SB_DET float value(uint32_t bits)
{
    if (DTYPE == SB_CUDA_F32) return __uint_as_float(bits);
    return DTYPE == SB_CUDA_F16 ? sb_from_f16((uint16_t)bits) : sb_from_bf16((uint16_t)bits);
}

template <int DTYPE> SB_DET float logit_at(const char *logits, int64_t i)
{
    return value<DTYPE>(DTYPE == SB_CUDA_F32 ? ((const uint32_t *)logits)[i]
                                             : ((const uint16_t *)logits)[i]);
}

/* ---- sums and maxima of a block ----------------------------------------------------------- */

SB_DET float larger(float a, float b) { return a > b ? a : b; }

struct add {
    SB_DET float of(float a, float b) { return a + b; }
};
struct most {
    SB_DET float of(float a, float b) { return larger(a, b); }
};

template <class OP> SB_DET float warp_fold(float x)
{
    for (int step = WARP / 2; step > 0; step /= 2) x = OP::of(x, __shfl_xor_sync(FULL, x, step));
    return x;
}

/* All threads get the result. shared has room for one value per warp. */
template <class OP> SB_DET float block_fold(float x, float none, float *shared)
{
    int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, warps = blockDim.x / WARP;
    x = warp_fold<OP>(x);
    __syncthreads(); /* the previous values in shared were read */
    if (lane == 0) shared[warp] = x;
    __syncthreads(); /* every warp's value is in shared */
    return warp_fold<OP>(lane < warps ? shared[lane] : none);
}

/* ---- a piece of a row --------------------------------------------------------------------- */

/* Calls f with each of the calling thread's logits, out of n, in the thread's order. */
template <int DTYPE, class F> SB_DET void each_logit(const char *logits, int64_t n, F f)
{
    constexpr int SIZE = size_of<DTYPE>(), WIDTH = 16 / SIZE;
    int64_t head = (int64_t)((16 - (uint64_t)logits % 16) % 16) / SIZE; /* to an aligned address */
    if (head > n) head = n;
    int64_t vectors = (n - head) / WIDTH;
    const uint4 *aligned = (const uint4 *)(logits + head * SIZE);

    for (int64_t i = threadIdx.x; i < head; i += blockDim.x) f(logit_at<DTYPE>(logits, i));
    for (int64_t i = threadIdx.x; i < vectors; i += blockDim.x) {
        const uint4 v = aligned[i];
        const uint32_t words[4] = { v.x, v.y, v.z, v.w };
#pragma unroll
        for (int k = 0; k < WIDTH; k++)
            f(value<DTYPE>(SIZE == 4 ? words[k % 4] : words[k / 2] >> (k % 2 * 16) & 0xffffu));
    }
    for (int64_t i = head + vectors * WIDTH + threadIdx.x; i < n; i += blockDim.x)
        f(logit_at<DTYPE>(logits, i));
}

/* Called by a whole block: takes the maximum, then the sum. All threads get both. */
template <int DTYPE> SB_DET partial reduce(const char *logits, int64_t n, float tau, float *shared)
{
    partial p;
    float max = -INFINITE, sum = 0.0f;
    each_logit<DTYPE>(logits, n, [&](float x) { max = larger(x / tau, max); });
    p.max = block_fold<most>(max, -INFINITE, shared);
    each_logit<DTYPE>(logits, n, [&](float x) { sum += expf(x / tau - reference(p.max)); });
    p.sum = block_fold<add>(sum, 0.0f, shared);
    return p;
}

SB_DET void finish_row(const sb_cuda_args &in, int64_t row, const row_of_call &r, partial all)
{
    float log_sum = logf(all.sum), x;
    if (in.logits_dtype == SB_CUDA_F32) x = logit_at<SB_CUDA_F32>(r.logits, r.id);
    else if (in.logits_dtype == SB_CUDA_F16) x = logit_at<SB_CUDA_F16>(r.logits, r.id);
    else x = logit_at<SB_CUDA_BF16>(r.logits, r.id);
    if (in.tokens) ((float *)in.tokens)[row] = x / r.tau - reference(all.max) - log_sum;
    if (in.lse) ((float *)in.lse)[row] = reference(all.max) + log_sum;
}

/* Writes the outputs of a row that has no sum (ignored: 0; refused: NaN), and reports a refused
 * one. */
SB_DET void refuse_row(const sb_cuda_args &in, int64_t row, const row_of_call &r)
{
    if (!r.logits) {
        write_row(in, row, 0.0f);
        return;
    }
    write_row(in, row, sb_float(SB_NAN_BITS));
    report(in, r.id < 0 || r.id >= in.vocab ? SB_BAD_ID : SB_BAD_TEMPERATURE, row);
}

template <int DTYPE> SB_DET void conventional_block(const sb_cuda_args &in)
{
    constexpr int SIZE = size_of<DTYPE>();
    __shared__ float shared[WARP];
    const int64_t item = blockIdx.x / in.split, piece = blockIdx.x % in.split;
    const bool writes = threadIdx.x == 0 && piece == 0;
    if (!listed_well(in, item)) {
        if (writes) report(in, SB_BAD_ROW_LIST, item);
        return;
    }
    const int64_t row = row_at(in, item);
    const row_of_call r = resolve(in, row);
    if (!r.logits || r.bad) {
        if (writes) refuse_row(in, row, r);
        return;
    }
    const int64_t first = piece * in.piece * SB_LEAF, left = in.vocab - first;
    const int64_t n = left < in.piece * SB_LEAF ? left : in.piece * SB_LEAF;
    partial p = reduce<DTYPE>(r.logits + first * SIZE, n > 0 ? n : 0, r.tau, shared);
    if (threadIdx.x != 0) return;
    if (in.split == 1) finish_row(in, row, r, p);
    else ((partial *)in.states)[blockIdx.x] = p;
}

#define KERNEL(name, DTYPE)                                                                        \
    extern "C" __global__ void __launch_bounds__(512)                                              \
        conventional_##name(const __grid_constant__ sb_cuda_args in)                               \
    {                                                                                              \
        conventional_block<DTYPE>(in);                                                             \
    }
KERNEL(f32, SB_CUDA_F32)
KERNEL(f16, SB_CUDA_F16)
KERNEL(bf16, SB_CUDA_BF16)

/* Merges the pieces of a row and finishes it, one warp per row. */
extern "C" __global__ void __launch_bounds__(256)
    conventional_finish(const __grid_constant__ sb_cuda_args in)
{
    const int64_t item = (blockIdx.x * (int64_t)blockDim.x + threadIdx.x) / WARP;
    const int lane = threadIdx.x % WARP;
    const partial *pieces = (const partial *)in.states + item * in.split;
    partial all = { -INFINITE, 0.0f };
    if (item >= in.work || !listed_well(in, item)) return;
    const int64_t row = row_at(in, item);
    const row_of_call r = resolve(in, row);
    if (!r.logits || r.bad) return;

    for (int p = lane; p < in.split; p += WARP) all.max = larger(pieces[p].max, all.max);
    all.max = warp_fold<most>(all.max);
    for (int p = lane; p < in.split; p += WARP) /* a piece of -inf alone adds its 0 or NaN */
        all.sum += pieces[p].max == -INFINITE ? pieces[p].sum
                                              : pieces[p].sum * expf(pieces[p].max - all.max);
    all.sum = warp_fold<add>(all.sum);
    if (lane == 0) finish_row(in, row, r, all);
}

/* Sums a sequence's tokens and counts the active ones, one warp per sequence. */
extern "C" __global__ void __launch_bounds__(256)
    conventional_sums(const __grid_constant__ sb_cuda_args in)
{
    const int64_t b = (blockIdx.x * (int64_t)blockDim.x + threadIdx.x) / WARP;
    const int lane = threadIdx.x % WARP;
    int64_t first, last, active = 0;
    float sum = 0.0f;
    if (b >= in.batch) return;
    const bool well = extent_of(in, b, &first, &last);

    for (int64_t row = first + lane; row < last; row += WARP) {
        if (in.tokens) sum += ((const float *)in.tokens)[row];
        active += is_active(in, row, int_at(in.ids, in.ids_dtype, row)) && is_listed(in, row);
    }
    sum = warp_fold<add>(sum);
    for (int step = WARP / 2; step > 0; step /= 2) active += __shfl_xor_sync(FULL, active, step);
    if (lane != 0) return;
    if (!well) report(in, SB_BAD_CU_SEQLENS, b);
    if (in.sequence) ((float *)in.sequence)[b] = well ? sum : sb_float(SB_NAN_BITS);
    if (in.count) ((int64_t *)in.count)[b] = active;
}
