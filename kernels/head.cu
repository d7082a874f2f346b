/* head.cu - logprobs from hidden states and a prepared head: preparing weights and hidden states,
 * products of few rows and on every GPU, and the end of a row. head_hopper.cu has the products for
 * GPUs with wgmma.
 *
 *   logit[r][v] = the linear head of docs/numerics.md; then as logprob.cu
 *
 * Shapes: hidden states [B, T, D] or [N, D], weights [V, D], fp32, fp16 or bf16, any alignment;
 * everything else in src/cuda/args.h. The logits exist nowhere: a tile's become states.
 *
 *     head_weights_a, head_weights_b
 *                             a warp per row of weights, also of those that fill the last tile.
 *                             a: h24w16, two planes; b: h24w24, three planes
 *     head_count              counts the active rows of each block of head_list, if it has many
 *     head_list               finds the active rows, in order; a thread per work item
 *     head_hidden             a warp per row of a chunk, of which there may be fewer. Without
 *                             head_list, rows are work items, and it also looks at them
 *     head_few_a, head_few_b  at most 8 rows: head_few.cuh
 *     head_tiles_a, head_tiles_b, head_bf16_a, head_bf16_b
 *                             any number of rows: head_tiles.cuh
 *     head_finish             a warp per row of the chunk
 *     ..._moments             with moments for the entropy: the states are sb_moments
 *
 * In this order, one behind the other. Products: one block for each of a.groups shares. */
#include "finish.cuh"
#include "head_digits.cuh"
#include "head_few.cuh"
#include "head_leaves.cuh"
#include "head_tiles.cuh"
#include "records.cuh"

/* ---- weights ------------------------------------------------------------------------------ */

template <int PLANES> SB_DET void prepare_weights(const sb_cuda_weights_args &a)
{
    const int64_t size = a.dtype == SB_CUDA_F32 ? 4 : 2;
    const int64_t row = warp_item();
    const int lane = threadIdx.x % WARP;
    const row_of_numbers from = { (const char *)a.weights + row * a.row_stride * size,
                                  row < a.held ? (int32_t)a.depth : 0, a.dtype };
    const bool scaled = row < a.held && a.scales;
    const uint32_t given = scaled ? ((const uint32_t *)a.scales)[row] : 0;
    const int32_t E = write_digits<PLANES>((char *)a.planes, row, a.blocks, from,
                                           scaled ? &given : nullptr);
    if (row == 0 && a.form && lane < 32) ((uint64_t *)a.form)[lane] = a.head[lane];
    if (lane != 0) return;
    const bool bad = sb_linear_is_bad(E);
    float b = 0.0f;
    ((uint8_t *)a.exponents)[row] = bad ? SB_CUDA_HEAD_BAD : (uint8_t)(E + SB_CUDA_HEAD_EXPONENT);
    if (a.to_bias && row < a.held) {
        b = a.bias_dtype == SB_CUDA_F32   ? ((const float *)a.bias)[row]
            : a.bias_dtype == SB_CUDA_F16 ? sb_from_f16(((const uint16_t *)a.bias)[row])
                                          : sb_from_bf16(((const uint16_t *)a.bias)[row]);
        ((float *)a.to_bias)[row] = b;
    }
    if (bad && !a.keep_bad && !sb_is_absent(b)) report(a.in, SB_BAD_WEIGHTS, row);
}

extern "C" __global__ void __launch_bounds__(256)
    head_weights_a(const __grid_constant__ sb_cuda_weights_args a)
{
    prepare_weights<2>(a);
}

extern "C" __global__ void __launch_bounds__(256)
    head_weights_b(const __grid_constant__ sb_cuda_weights_args a)
{
    prepare_weights<3>(a);
}

/* ---- rows --------------------------------------------------------------------------------- */

/* Writes the records of a work item whose row is not active. */
SB_DET void write_no_record(const sb_cuda_head_args &a, int64_t item, bool refused)
{
    if (!a.to_states || !listed_well(a.in, item)) return;
    const int64_t row = row_at(a.in, item);
    sb_moments s; /* of which a record without moments is the beginning */
    make_none(&s);
    if (refused) s = refused_state<sb_moments>();
    if (has_moments(a)) ((sb_moments *)a.to_states)[row] = s;
    else ((sb_state *)a.to_states)[row] = s.sum;
    ((sb_target *)a.to_targets)[row] = { 0, 0 };
}

/* Where the logits of a row go. */
SB_DET int64_t place_of_logits(const sb_cuda_head_args &a, int64_t number)
{
    const int64_t source = number - a.in.shift;
    if (a.by_item) return (number - a.before) * a.logits_stride;
    if (a.in.cu_seqlens) return source * a.logits_stride;
    return source / a.in.time * a.logits_batch_stride + source % a.in.time * a.logits_stride;
}

/* Writes the results of a row with several ids that is not active, of which `fate` tells. */
SB_DET void write_no_ids(const sb_cuda_head_args &a, int64_t row, int32_t fate)
{
    const float x = nan_or_nothing(fate);
    if (fate == ROW_UNKNOWN) return;
    if (a.in.lse) ((float *)a.in.lse)[row] = x;
    for (int64_t i = row * a.in.width; a.logprobs && i < (row + 1) * a.in.width; i++)
        ((float *)a.logprobs)[i] = int_at(a.in.ids, a.in.ids_dtype, i) == a.in.ignore_index ? 0.0f
                                                                                            : x;
}

/* Finds a row of a call in which the products have no target. Returns whether it is active; what is
 * to be written or reported otherwise, this function does if `writes`. */
SB_DET bool find_any_row(const sb_cuda_head_args &a, any_row *any, int64_t item, bool writes)
{
    set_any_row(a.in, any, a.before + item, writes);
    if (any->fate == ROW_ACTIVE) return true;
    if (writes && a.of_ids) write_no_ids(a, any->number, any->fate);
    return false;
}

SB_DET bool has_no_targets(const sb_cuda_head_args &a) { return a.logits || a.sums || a.of_ids; }

/* Looks at a work item. If its row is not active, the result has no hidden state; what is to be
 * written or reported then, this function does if `writes`. Called by one thread. */
SB_DET sb_cuda_head_row find_row(const sb_cuda_head_args &a, int64_t item, bool writes)
{
    sb_cuda_head_row row;
    sb_row constants;
    memset(&row, 0, sizeof row);
    if (has_no_targets(a)) {
        any_row any;
        if (!find_any_row(a, &any, item, writes)) return row;
        row.id = -1;
        row.hidden = (uint64_t)any.logits;
        row.number = any.number;
        row.to = place_of_logits(a, any.number);
        constants = any.row;
    } else {
        const visit v = visit_row(a.in, item, writes);
        if (v.done && writes) write_no_record(a, item, v.r.bad);
        if (v.done) return row;
        row.hidden = (uint64_t)v.r.logits;
        row.number = v.number;
        row.id = v.r.id;
        constants = constants_of(a.in, v.r.tau);
    }
    row.c = constants.c, row.k64 = constants.k64, row.lim = constants.lim;
    return row;
}

/* Whether a work item's row is active. writes: as for visit_row. */
SB_DET bool is_active_item(const sb_cuda_head_args &a, int64_t item, bool writes)
{
    if (has_no_targets(a)) {
        any_row any;
        return find_any_row(a, &any, item, writes);
    }
    const visit v = visit_row(a.in, item, writes);
    if (v.done && writes) write_no_record(a, item, v.r.bad);
    return !v.done;
}

extern "C" __global__ void __launch_bounds__(1024)
    head_count(const __grid_constant__ sb_cuda_head_args a)
{
    __shared__ int32_t of_warp[32];
    const int64_t item = blockIdx.x * (int64_t)blockDim.x + threadIdx.x;
    wait_for_primary();
    begin_dependents();
    const bool active = item < a.in.work && is_active_item(a, item, false);
    const int32_t of_lanes = __popcll(__ballot_sync(FULL, active));
    int32_t sum = 0;
    if (threadIdx.x % WARP == 0) of_warp[threadIdx.x / WARP] = of_lanes;
    __syncthreads(); /* of_warp has the block's items */
    if (threadIdx.x != 0) return;
    for (int i = 0; i < (int)blockDim.x / WARP; i++) sum += of_warp[i];
    ((int32_t *)a.counts)[blockIdx.x] = sum;
}

/* A thread of a block lists a work item, behind those of the blocks before it. A block counts these
 * itself if there is no head_count. */
extern "C" __global__ void __launch_bounds__(1024)
    head_list(const __grid_constant__ sb_cuda_head_args a)
{
    __shared__ int32_t of_warp[32];
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    const int64_t first = blockIdx.x * (int64_t)blockDim.x, item = first + threadIdx.x;
    int32_t before = 0;
    wait_for_primary();
    begin_dependents();
    bool active = false;
    if (a.counts)
        for (int i = threadIdx.x; i < (int)blockIdx.x; i += blockDim.x)
            before += ((const int32_t *)a.counts)[i];
#pragma unroll 1
    for (int64_t i = a.counts ? item : threadIdx.x; i <= item; i += blockDim.x) {
        before += active;
        active = i < a.in.work && is_active_item(a, i, i == item);
    }
    int32_t up_to = active; /* how many of the warp's, up to this lane, are active */
    for (int step = 1; step < WARP; step *= 2) {
        const int32_t other = __shfl_up_sync(FULL, up_to, step);
        if (lane >= step) up_to += other;
    }
    const int32_t of_lanes = __shfl_sync(FULL, up_to, WARP - 1);
    before = (int32_t)__reduce_add_sync(FULL, (uint32_t)before);
    if (lane == 0) of_warp[warp] = before;
    __syncthreads(); /* of_warp has the items of the blocks before */
    int64_t place = up_to - 1;
    for (int i = 0; i < (int)blockDim.x / WARP; i++) place += of_warp[i];
    __syncthreads(); /* of_warp has been read */
    if (lane == 0) of_warp[warp] = of_lanes;
    __syncthreads(); /* of_warp has the block's items */
    for (int i = 0; i < warp; i++) place += of_warp[i];
    if (active) ((int64_t *)a.items)[place] = item;
    if (threadIdx.x == blockDim.x - 1 && blockIdx.x == gridDim.x - 1)
        *(int64_t *)a.count = place + 1;
}

extern "C" __global__ void __launch_bounds__(64)
    head_hidden(const __grid_constant__ sb_cuda_head_args a)
{
    const int64_t i = warp_item();
    const int lane = threadIdx.x % WARP;
    wait_for_primary();
    begin_dependents(); /* not before: head_few reads weights before it waits */
    if (i >= rows_of_chunk(a)) return;
    sb_cuda_head_row *const row = (sb_cuda_head_row *)a.rows + a.chunk + i;
    if (lane == 0)
        *row = find_row(a, a.count ? ((const int64_t *)a.items)[a.chunk + i] : i, !a.count);
    __syncwarp(); /* the record is written */
    const row_of_numbers from = { (const char *)*(const volatile uint64_t *)&row->hidden,
                                  (int32_t)a.depth, a.in.logits_dtype };
    if (!from.p) return;
    const int64_t source = *(const volatile int64_t *)&row->number - a.in.shift;
    const uint32_t given = a.scales ? ((const uint32_t *)a.scales)[source] : 0;
    const int32_t E = write_digits<3>((char *)a.digits, i, a.blocks, from,
                                      a.scales ? &given : nullptr);
    if (lane != 0) return;
    const bool bad = sb_linear_is_bad(E);
    row->scale = bad ? sb_float(SB_NAN_BITS)
                     : sb_float((uint32_t)(E + SB_CUDA_HEAD_EXPONENT) << 23);
    if (bad && a.scales && !sb_linear_is_bad(sb_linear_E(given)))
        report(a.in, SB_BAD_SCALE, row->number);
}

/* ---- products ----------------------------------------------------------------------------- */

#if defined(__HIPCC__)
#define FEW(PLANES, RING, STATE) head_tiles<PLANES, STATE>(a)
#define TILES(PLANES, SUMS, N, STATE) head_tiles<PLANES, STATE>(a)
#else
#define FEW(PLANES, RING, STATE) head_few<PLANES, RING, STATE>(a)
#define TILES(PLANES, SUMS, N, STATE) head_tiles<PLANES, SUMS<PLANES == 2 ? 3 : 5, N>, STATE>(a)
#endif

#define PRODUCTS(name, PLANES, RING, STATE)                                                        \
    extern "C" __global__ void __launch_bounds__(512, 1)                                           \
        head_few_##name(const __grid_constant__ sb_cuda_head_args a)                               \
    {                                                                                              \
        FEW(PLANES, RING, STATE);                                                                  \
    }                                                                                              \
    extern "C" __global__ void __launch_bounds__(TILES_THREADS, 1)                                 \
        head_tiles_##name(const __grid_constant__ sb_cuda_head_args a)                             \
    {                                                                                              \
        TILES(PLANES, int8_sums, 8, STATE);                                                        \
    }                                                                                              \
    extern "C" __global__ void __launch_bounds__(TILES_THREADS, 1)                                 \
        head_bf16_##name(const __grid_constant__ sb_cuda_head_args a)                              \
    {                                                                                              \
        TILES(PLANES, bf16_sums, 4, STATE);                                                        \
    }
PRODUCTS(a, 2, SB_CUDA_HEAD_RING(2), sb_state)
PRODUCTS(b, 3, SB_CUDA_HEAD_RING(3), sb_state)
PRODUCTS(a_moments, 2, SB_CUDA_HEAD_RING(2), sb_moments)
PRODUCTS(b_moments, 3, SB_CUDA_HEAD_RING(3), sb_moments)

/* ---- the end of a row --------------------------------------------------------------------- */

template <class STATE> SB_DET void finish_rows(const sb_cuda_head_args &a)
{
    const int64_t i = warp_item();
    begin_dependents();
    wait_for_primary();
    const head_share share = share_of(a);
    if (i >= share.rows) return;
    const sb_cuda_head_row row = ((const sb_cuda_head_row *)a.rows)[a.chunk + i];
    if (!row.hidden) return;
    const float tau = a.in.temperatures ? ((const float *)a.in.temperatures)[row.number] : 1.0f;
    STATE s = sum_of_row<STATE>(a, share, i);
    if (a.to_states) {
        if (threadIdx.x % WARP != 0) return;
        sum_in(&s)->c = sb_bits32(row.c);
        ((STATE *)a.to_states)[row.number] = s;
        ((sb_target *)a.to_targets)[row.number] = { row.x, row.owners };
        return;
    }
    finish_row(a.in, row.number, s, sb_float(row.x), constants_of(a.in, tau));
}

extern "C" __global__ void __launch_bounds__(256)
    head_finish(const __grid_constant__ sb_cuda_head_args a)
{
    finish_rows<sb_state>(a);
}

extern "C" __global__ void __launch_bounds__(256)
    head_finish_moments(const __grid_constant__ sb_cuda_head_args a)
{
    finish_rows<sb_moments>(a);
}

/* ---- beside logits ------------------------------------------------------------------------ */

/* Writes the logits of rows that are not active: +0, or NaN if the row is refused. A block per
 * row. */
extern "C" __global__ void __launch_bounds__(256)
    head_blank(const __grid_constant__ sb_cuda_head_args a)
{
    __shared__ any_row mine;
    const int64_t source = blockIdx.x; /* of hidden */
    if (threadIdx.x == 0) {
        sb_cuda_args in = a.in;
        in.row_list = 0;
        mine.fate = ROW_IGNORED;
        if (source + in.shift < in.rows && is_listed(a.in, source + in.shift))
            set_any_row(in, &mine, source + in.shift, false);
    }
    __syncthreads(); /* mine is written */
    if (mine.fate == ROW_ACTIVE) return;
    const int64_t to = place_of_logits(a, source + a.in.shift), ids = a.held - a.skip;
    const float x = nan_or_nothing(mine.fate);
    for (int64_t i = threadIdx.x; i < ids; i += blockDim.x) {
        if (a.sums) ((int64_t *)a.sums)[to + i] = 0;
        else if (a.logits_dtype == SB_CUDA_F32) ((float *)a.logits)[to + i] = x;
        else if (a.logits_dtype == SB_CUDA_F16) ((uint16_t *)a.logits)[to + i] = sb_to_f16(x);
        else ((uint16_t *)a.logits)[to + i] = sb_to_bf16(x);
    }
}

/* Writes which rows the mask, the row list and shift leave, as a mask, and reports bad entries of
 * the row list. A thread per row. */
extern "C" __global__ void __launch_bounds__(256)
    head_mask(const __grid_constant__ sb_cuda_head_args a)
{
    const int64_t row = blockIdx.x * (int64_t)blockDim.x + threadIdx.x;
    if (row < a.in.row_count && !listed_well(a.in, row)) report(a.in, SB_BAD_ROW_LIST, row);
    if (row >= a.in.rows) return;
    ((uint8_t *)a.logits)[row] = is_listed(a.in, row) &&
                                 !(a.in.mask && !((const uint8_t *)a.in.mask)[row]) &&
                                 !(a.in.shift && starts_sequence(a.in, row));
}

/* ---- columns of D ------------------------------------------------------------------------- */

/* The scales of the rows of a matrix. A warp per row. */
extern "C" __global__ void __launch_bounds__(256)
    head_scales(const __grid_constant__ sb_cuda_scales_args a)
{
    const int64_t row = warp_item(), first = row * a.row_stride;
    uint32_t most = 0;
    if (row >= a.rows) return;
    for (int64_t k = threadIdx.x % WARP; k < a.width; k += WARP) {
        const char *const from = (const char *)a.matrix;
        const float x = a.dtype == SB_CUDA_F32 ? ((const float *)from)[first + k]
                        : a.dtype == SB_CUDA_F16
                            ? sb_from_f16(((const uint16_t *)from)[first + k])
                            : sb_from_bf16(((const uint16_t *)from)[first + k]);
        most = max(most, sb_linear_magnitude(x));
    }
    most = __reduce_max_sync(FULL, most);
    if (threadIdx.x % WARP == 0) ((uint32_t *)a.scales)[row] = most;
}

/* The logits of whole sums. A thread per logit. */
extern "C" __global__ void __launch_bounds__(256)
    head_combine(const __grid_constant__ sb_cuda_combine_args a)
{
    const int64_t i = blockIdx.x * (int64_t)blockDim.x + threadIdx.x;
    if (i >= a.rows * a.held) return;
    const int64_t id = i % a.held, sum = ((const int64_t *)a.sums)[i];
    const uint32_t exponent = ((const uint8_t *)a.exponents)[id];
    const int32_t E_w = exponent == SB_CUDA_HEAD_BAD ? SB_LINEAR_E_BAD
                                                     : (int32_t)exponent - SB_CUDA_HEAD_EXPONENT;
    const int64_t T = a.planes == 3 ? sb_linear_T_of_sum(sum) : sum;
    const float x = sb_linear_logit(T, sb_linear_E(((const uint32_t *)a.scales)[i / a.held]), E_w);
    ((float *)a.logits)[i] = sb_linear_finish(x, a.bias ? ((const float *)a.bias)[id] : 0.0f,
                                              &a.steps);
}
