/* head_gather.cu - logits of single ids of rows of hidden states: for a few ids of a row they cost
 * less than the row's product with all weights.
 *
 *   logit[r][id] = that of head.cu, with the same bits: the same exact integer, then the same steps
 *
 * Shapes: ids and logprobs [rows][width]; everything else in src/cuda/args.h. A warp takes an id:
 * its lanes take turns at the chunks of 16 digits, whose products they add up by dp4a; the levels
 * of the lanes are then added up. A row of digits lies in pieces of 64 bytes.
 *
 *     head_ids_a, head_ids_b  behind the product of a chunk of rows, in place of head_finish: one
 *                             block for a.ids_each ids of a row, at most GATHER_IDS. Warp 0 merges
 *                             the row's states, and takes ids last. a: h24w16; b: h24w24
 *     head_lists_a, head_lists_b
 *                             the logits of lists of kept ids, [kept_count], in place of a product:
 *                             a.groups blocks for the list of each row of a chunk. The kernels of
 *                             lists.cu check the lists, and sum these logits. */
#include "finish.cuh"
#include "head_digits.cuh"
#include "head_leaves.cuh"
#include "lists.cuh"

/* ---- one logit ---------------------------------------------------------------------------- */

SB_DET int32_t dot_of_16(uint4 a, uint4 b, int32_t sum)
{
    sum = dot_bytes(a.x, b.x, sum);
    sum = dot_bytes(a.y, b.y, sum);
    sum = dot_bytes(a.z, b.z, sum);
    return dot_bytes(a.w, b.w, sum);
}

/* The product of row i of the chunk, whose scale is given, and an id, counted from the head's
 * first. Called by a warp, all lanes of which get it. */
template <int PLANES>
SB_DET float gathered_product(const sb_cuda_head_args &a, int64_t i, float scale, int64_t id)
{
    constexpr int LEVELS = PLANES == 2 ? 3 : 5, STEP = WARP / HEAD_CHUNKS; /* blocks */
    const int lane = threadIdx.x % WARP, first = lane / HEAD_CHUNKS;
    const char *h = (const char *)a.digits + block_place<3>(i / SB_CUDA_HEAD_TILE, a.blocks, first);
    const char *w = (const char *)a.planes +
                    block_place<PLANES>(id / SB_CUDA_HEAD_TILE, a.blocks, first);
    int32_t L[LEVELS] = { 0 };
    h += chunk_place((uint32_t)(i % SB_CUDA_HEAD_TILE), lane % HEAD_CHUNKS);
    w += chunk_place((uint32_t)(id % SB_CUDA_HEAD_TILE), lane % HEAD_CHUNKS);
#pragma unroll 4
    for (int block = first; block < a.blocks; block += STEP) {
        uint4 of_w[PLANES];
#pragma unroll
        for (int j = 0; j < PLANES; j++) of_w[j] = load16(w + j * SB_CUDA_HEAD_BLOCK);
#pragma unroll
        for (int n = 0; n < 3; n++) {
            const uint4 of_h = load16(h + n * SB_CUDA_HEAD_BLOCK);
#pragma unroll
            for (int j = 0; j < PLANES; j++)
                if (n + j < LEVELS) L[n + j] = dot_of_16(of_h, of_w[j], L[n + j]);
        }
        h += block_place<3>(0, 0, STEP);
        w += block_place<PLANES>(0, 0, STEP);
    }
#pragma unroll
    for (int n = 0; n < LEVELS; n++) L[n] = (int32_t)__reduce_add_sync(FULL, (uint32_t)L[n]);
    if (LEVELS == 5) L[2] += sb_linear_carry(L[LEVELS - 2], L[LEVELS - 1]);
    return (float)sb_linear_T16(L[0], L[1], L[2]) * scale *
           scale_of_exponent(((const uint8_t *)a.exponents)[id]);
}

/* The logit of a row's id: absent if it is not kept, or has a bias of -inf. Called by a warp. */
template <int PLANES>
SB_DET float gathered_logit(const sb_cuda_head_args &a, int64_t i, const sb_cuda_head_row &row,
                            int64_t id)
{
    const int64_t at = id - a.first; /* counted from the head's first */
    if (!is_kept(a.in, row.number, id)) return sb_float(SB_ABSENT_BITS);
    float x = gathered_product<PLANES>(a, i, row.scale, at);
    if (!a.plain) x = sb_linear_finish(x, a.bias ? ((const float *)a.bias)[at] : 0.0f, &a.steps);
    return sb_is_nan(x) ? sb_float(SB_NAN_BITS) : x;
}

/* ---- several ids of a row ----------------------------------------------------------------- */

#define GATHER_IDS SB_CUDA_GATHER_IDS
#define GATHER_WARPS (SB_CUDA_GATHER_THREADS / WARP)

/* What warp 0 finds out about a row. */
struct summed_row {
    sb_row constants;
    sb_lg sum;
    int32_t nan; /* poisoned or empty */
};

/* Merges the states of row i of the chunk. Called by one warp, whose lane 0 writes. */
SB_DET void find_sum(summed_row *to, const sb_cuda_head_args &a, const head_share &share, int64_t i,
                     int64_t number)
{
    const float tau = a.in.temperatures ? ((const float *)a.in.temperatures)[number] : 1.0f;
    const sb_state s = sum_of_row<sb_state>(a, share, i);
    if (threadIdx.x % WARP != 0) return;
    to->constants = constants_of(a.in, tau);
    to->nan = sb_state_is_nan(&s);
    if (!to->nan) to->sum = sb_sum_log(&s);
}

template <int PLANES> SB_DET void ids_of_row(const sb_cuda_head_args &a)
{
    __shared__ summed_row row;
    __shared__ float logits[GATHER_IDS];
    const sb_cuda_args &in = a.in;
    const uint32_t groups = (uint32_t)((in.width + a.ids_each - 1) / a.ids_each);
    const int64_t i = blockIdx.x / groups; /* a grid has fewer than 2^31 blocks */
    const int64_t first = blockIdx.x % groups * (int64_t)a.ids_each;
    const int ids = (int)min(in.width - first, (int64_t)a.ids_each), warp = threadIdx.x / WARP;
    begin_dependents();
    wait_for_primary();
    const head_share share = share_of(a);
    if (i >= share.rows) return;
    const sb_cuda_head_row of = ((const sb_cuda_head_row *)a.rows)[a.chunk + i];
    if (!of.hidden) return;
    const int64_t at = of.number * in.width + first;
    if (warp == 0) find_sum(&row, a, share, i, of.number);
    for (int k = (warp + GATHER_WARPS - 1) % GATHER_WARPS; a.logprobs && k < ids;
         k += GATHER_WARPS) {
        const int64_t id = int_at(in.ids, in.ids_dtype, at + k);
        if (id == in.ignore_index) continue;
        const float x = gathered_logit<PLANES>(a, i, of, id);
        if (threadIdx.x % WARP == 0) logits[k] = x;
    }
    __syncthreads(); /* the sum and the logits are in shared memory */
    if (threadIdx.x == 0 && first == 0 && in.lse)
        ((float *)in.lse)[of.number] = row.nan ? sb_float(SB_NAN_BITS)
                                               : sb_lse_of(row.sum, &row.constants);
    for (int k = threadIdx.x; a.logprobs && k < ids; k += blockDim.x)
        ((float *)a.logprobs)[at + k] = int_at(in.ids, in.ids_dtype, at + k) == in.ignore_index
                                            ? 0.0f
                                        : row.nan
                                            ? sb_float(SB_NAN_BITS)
                                            : sb_logprob_beside(row.sum, logits[k], &row.constants);
}

extern "C" __global__ void __launch_bounds__(SB_CUDA_GATHER_THREADS)
    head_ids_a(const __grid_constant__ sb_cuda_head_args a)
{
    ids_of_row<2>(a);
}

extern "C" __global__ void __launch_bounds__(SB_CUDA_GATHER_THREADS)
    head_ids_b(const __grid_constant__ sb_cuda_head_args a)
{
    ids_of_row<3>(a);
}

/* ---- lists of kept ids -------------------------------------------------------------------- */

/* An id outside [0, V), for which lists.cu refuses the row, is absent. */
template <int PLANES> SB_DET void lists_of_row(const sb_cuda_head_args &a)
{
    const sb_cuda_args &in = a.in;
    const uint32_t groups = (uint32_t)a.groups;
    const int64_t i = blockIdx.x / groups; /* a grid has fewer than 2^31 blocks */
    const int warp = (int)(blockIdx.x % groups) * GATHER_WARPS + threadIdx.x / WARP;
    begin_dependents();
    wait_for_primary();
    if (i >= rows_of_chunk(a)) return;
    const sb_cuda_head_row of = ((const sb_cuda_head_row *)a.rows)[a.chunk + i];
    if (!of.hidden) return;
    const id_list list = list_of(in, of.number, bounds_of(in, of.number));
    for (int64_t k = warp; k < list.count; k += (int64_t)groups * GATHER_WARPS) {
        const int64_t id = int_at(in.kept_ids, in.kept_ids_dtype, list.first + k);
        float x = sb_float(SB_ABSENT_BITS);
        if (id >= 0 && id < in.vocab) x = gathered_logit<PLANES>(a, i, of, id);
        if (threadIdx.x % WARP == 0) ((float *)a.gathered)[list.first + k] = x;
    }
}

extern "C" __global__ void __launch_bounds__(SB_CUDA_GATHER_THREADS)
    head_lists_a(const __grid_constant__ sb_cuda_head_args a)
{
    lists_of_row<2>(a);
}

extern "C" __global__ void __launch_bounds__(SB_CUDA_GATHER_THREADS)
    head_lists_b(const __grid_constant__ sb_cuda_head_args a)
{
    lists_of_row<3>(a);
}
