/* gradient.cu - the gradient of a loss with respect to the logits.
 *
 *   grad[r, i] of src/det/gradient.h, from logit i of row r and the row's saved 32 bytes
 *
 * Shapes: logits as logprob.cu takes them; grad [rows, width] with strides of its own; upstream
 * derivatives and saved rows [rows]; everything else in src/cuda/args.h. Nothing is reduced: every
 * element is read once and written once, and enters no other element. grad may be the same array as
 * the logits.
 *
 *     gradient_<from>_<to>_<loss>    grid rows * pieces, blocks of a multiple of 32 threads up to
 *                                   512. A block's groups of 8 elements lie on 16-byte boundaries
 *                                   of both arrays, if the arrays have such boundaries in common.
 */
#include "../src/det/gradient.h"
#include "load.cuh"
#include "row.cuh"

#define GROUP 8 /* elements that a thread loads and stores at once */
#define AHEAD 4 /* groups that a thread loads before it stores the first */

/* How a row's gradient is made: all zero, all NaN, or by the formula. */
typedef enum gradient_kind { GRADIENT_ZERO, GRADIENT_NAN, GRADIENT_FORMULA } gradient_kind;

struct gradient_block {
    sb_gradient_row g;
    const char *logits;
    char *grad;
    int64_t row;    /* whose id, kept set and saved record are used */
    int64_t target; /* among the logits held here; -1: not in this piece, or no token loss */
    float own;      /* the target's gradient */
    gradient_kind kind;
};

/* ---- containers --------------------------------------------------------------------------- */

template <int DTYPE> SB_DET uint32_t encoded(float x)
{
    if (DTYPE == SB_CUDA_F32) return sb_bits32(sb_gradient_nan(x));
    return DTYPE == SB_CUDA_F16 ? sb_to_f16(x) : sb_to_bf16(x);
}

template <int DTYPE> SB_DET void store_one(char *grad, int64_t i, float x)
{
    if (DTYPE == SB_CUDA_F32) ((uint32_t *)grad)[i] = encoded<DTYPE>(x);
    else ((uint16_t *)grad)[i] = (uint16_t)encoded<DTYPE>(x);
}

/* Two numbers, each rounded to nearest even; a goes to the lower half. Neither may be NaN. */
template <int DTYPE> SB_DET uint32_t pair_of(float a, float b)
{
    return DTYPE == SB_CUDA_F16 ? pair_of_f16(a, b) : pair_of_bf16(a, b);
}

template <int DTYPE> struct group_words {
    uint4 part[DTYPE == SB_CUDA_F32 ? 2 : 1];
};

/* Not through the read-only path, because grad may be the same array as the logits. */
template <int DTYPE> SB_DET void load_group(group_words<DTYPE> &x, const char *p)
{
#pragma unroll
    for (int k = 0; k < (DTYPE == SB_CUDA_F32 ? 2 : 1); k++) x.part[k] = load16_mutable(p + 16 * k);
}

template <int DTYPE> SB_DET void group_values(float v[GROUP], const group_words<DTYPE> &x)
{
    leaf_words<DTYPE> words;
#pragma unroll
    for (int k = 0; k < (DTYPE == SB_CUDA_F32 ? 2 : 1); k++) {
        words.w[4 * k] = x.part[k].x, words.w[4 * k + 1] = x.part[k].y;
        words.w[4 * k + 2] = x.part[k].z, words.w[4 * k + 3] = x.part[k].w;
    }
#pragma unroll
    for (int i = 0; i < GROUP; i++) v[i] = unpack<DTYPE>(words, i);
}

/* plain: no value is NaN, so the values need no check. */
template <int DTYPE, bool plain> SB_DET void store_group(char *p, const float v[GROUP])
{
    uint32_t w[GROUP];
    constexpr int WORDS = DTYPE == SB_CUDA_F32 ? GROUP : GROUP / 2;
#pragma unroll
    for (int k = 0; k < WORDS; k++) {
        if (DTYPE == SB_CUDA_F32) w[k] = plain ? sb_bits32(v[k]) : encoded<DTYPE>(v[k]);
        else if (plain) w[k] = pair_of<DTYPE>(v[2 * k], v[2 * k + 1]);
        else w[k] = encoded<DTYPE>(v[2 * k]) | encoded<DTYPE>(v[2 * k + 1]) << 16;
    }
#pragma unroll
    for (int k = 0; k < WORDS; k += 4) {
        uint4 part = { w[k], w[k + 1], w[k + 2], w[k + 3] };
        store16(p + 4 * k, part);
    }
}

/* ---- rows --------------------------------------------------------------------------------- */

/* Sets the kind and the constants of the row that row source of the logits scores. Called by one
 * thread. reports: this block reports bad values; one block per row does. */
template <int DTYPE, int OF>
SB_DET void set_gradient_block(const sb_cuda_gradient_args &a, gradient_block *b, int64_t source,
                               int64_t first, int64_t last, bool reports)
{
    const sb_cuda_args &in = a.in;
    const int64_t row = source + in.shift;
    const int64_t element = in.cu_seqlens ? source * a.row_stride
                                          : source / in.time * a.batch_stride +
                                                source % in.time * a.row_stride;
    b->grad = (char *)a.grad + element * a.grad_size;
    b->kind = GRADIENT_ZERO;
    b->logits = nullptr;
    b->row = row;
    b->target = -1;
    if (reports && in.row_list && source < in.row_count && !listed_well(in, source))
        report(in, SB_BAD_ROW_LIST, source);
    if (row >= in.rows || !is_listed(in, row)) return;
    const row_of_call r = resolve(in, row);
    if (!r.logits) return;
    b->kind = GRADIENT_NAN;
    if (r.bad) {
        bool id = r.id < 0 || r.id >= in.vocab;
        if (reports) report(in, id ? SB_BAD_ID : SB_BAD_TEMPERATURE, row);
        return;
    }
    const sb_row constants = constants_of(in, r.tau);
    const sb_saved saved = ((const sb_saved *)a.saved)[row];
    const sb_fault fault = sb_saved_fault(&saved, &constants, OF & SB_OF_ENTROPY);
    if (fault != SB_RECORD_FINE) {
        if (reports) report(in, SB_BAD_RECORD + fault, row);
        return;
    }
    if (saved.kind == SB_SAVED_NAN) return;
    const sb_upstream up = { OF & SB_OF_TOKEN ? ((const float *)a.token)[row] : 0.0f,
                             OF & SB_OF_ENTROPY ? ((const float *)a.entropy)[row] : 0.0f };
    b->kind = GRADIENT_FORMULA;
    b->logits = r.logits;
    b->g = sb_gradient_row_of(&saved, &constants, r.tau, up, OF);
    const int64_t target = r.id - a.first;
    if (!(OF & SB_OF_TOKEN) || target < first || target >= last || target >= a.held || target < 0)
        return;
    b->target = target;
    const float x = is_kept(in, row, r.id) ? load_one<DTYPE>(r.logits, target)
                                           : sb_float(SB_ABSENT_BITS);
    b->own = sb_gradient_at_target(x, &b->g, &saved, &constants, r.tau, up, OF);
}

/* Sets *before to the number of elements, modulo GROUP, in front of the first one that lies on a
 * 16-byte boundary of both arrays. Returns false if there is no such element. */
template <int FROM, int TO> SB_DET bool common_boundary(const char *logits, char *grad, int *before)
{
    constexpr int FROM_STEP = 16 / size_of<FROM>(), TO_STEP = 16 / size_of<TO>();
    const int from = (int)(-((uint64_t)logits / size_of<FROM>()) % FROM_STEP);
    const int to = (int)(-((uint64_t)grad / size_of<TO>()) % TO_STEP);
    *before = FROM_STEP > TO_STEP ? from : to;
    return *before % FROM_STEP == from && *before % TO_STEP == to;
}

/* Writes one element, at any address. */
template <int FROM, int TO, int OF>
SB_DET void gradient_one(const sb_cuda_gradient_args &a, const gradient_block &b,
                         const sb_gradient_row &g, int64_t i, int64_t held)
{
    float x = 0.0f;
    if (i < held && is_kept(a.in, b.row, a.first + i))
        x = i == b.target ? b.own : sb_gradient_at(load_one<FROM>(b.logits, i), &g, OF);
    store_one<TO>(b.grad, i, x);
}

/* The groups of a piece (elements first .. last - 1 of a row) that lie on 16-byte boundaries and
 * hold nothing but logits. The first one begins at start. There are none if the two arrays have no
 * boundary in common. */
struct group_span {
    int64_t start, count;
};

template <int FROM, int TO>
SB_DET group_span groups_of(const char *logits, char *grad, int64_t first, int64_t held)
{
    group_span s = { first, 0 };
    int before = 0;
    if (!common_boundary<FROM, TO>(logits, grad, &before)) return s;
    s.start = first + ((before - first) % GROUP + GROUP) % GROUP;
    s.count = held > s.start ? (held - s.start) / GROUP : 0;
    return s;
}

/* Loads the groups that a thread takes in one trip: k and every blockDim-th after it. */
template <int FROM>
SB_DET void load_groups(group_words<FROM> x[AHEAD], const char *logits, const group_span &s,
                        int64_t k)
{
#pragma unroll
    for (int n = 0; n < AHEAD; n++) {
        const int64_t at = k + (int64_t)n * blockDim.x;
        if (at < s.count) load_group<FROM>(x[n], logits + (s.start + at * GROUP) * size_of<FROM>());
    }
}

template <int FROM, int TO, int OF>
SB_DET void gradient_group(char *grad, float v[GROUP], const sb_gradient_row &g)
{
    if (g.plain) {
#pragma unroll
        for (int e = 0; e < GROUP; e++) v[e] = sb_gradient_plain(v[e], &g, OF);
        store_group<TO, true>(grad, v);
    } else {
#pragma unroll
        for (int e = 0; e < GROUP; e++) v[e] = sb_gradient_at(v[e], &g, OF);
        store_group<TO, false>(grad, v);
    }
}

/* Writes elements first .. last - 1 of a row. If fetched, x holds the groups of s that load_groups
 * loaded for the thread's first trip. */
template <int FROM, int TO, int OF>
SB_DET void gradient_piece(const sb_cuda_gradient_args &a, const gradient_block &b, int64_t first,
                           int64_t last, group_span s, group_words<FROM> x[AHEAD], bool fetched)
{
    const sb_gradient_row g = b.g;
    const int64_t held = a.held < last ? a.held : last;
    int64_t i = first;
    if (!fetched && !a.in.kept) s = groups_of<FROM, TO>(b.logits, b.grad, first, held);
    for (int64_t k = threadIdx.x; k < s.count; k += (int64_t)blockDim.x * AHEAD) {
        if (!fetched) load_groups<FROM>(x, b.logits, s, k);
        fetched = false;
#pragma unroll
        for (int n = 0; n < AHEAD; n++) {
            const int64_t at = k + (int64_t)n * blockDim.x, element = s.start + at * GROUP;
            float v[GROUP];
            if (at >= s.count) continue;
            group_values<FROM>(v, x[n]);
            gradient_group<FROM, TO, OF>(b.grad + element * size_of<TO>(), v, g);
            if ((uint64_t)(b.target - element) < GROUP) store_one<TO>(b.grad, b.target, b.own);
        }
    }
    if (s.count > 0) { /* the elements before and behind the groups */
        for (i = first + threadIdx.x; i < s.start; i += blockDim.x)
            gradient_one<FROM, TO, OF>(a, b, g, i, held);
        i = s.start + s.count * GROUP;
    }
    for (i += threadIdx.x; i < last; i += blockDim.x) gradient_one<FROM, TO, OF>(a, b, g, i, held);
}

/* Writes a piece of a row whose gradient is all zero or all NaN. */
template <int TO>
SB_DET void fill_piece(const gradient_block &b, int64_t first, int64_t last, int64_t held)
{
    constexpr int STEP = 16 / size_of<TO>();
    const float x = b.kind == GRADIENT_NAN ? sb_float(SB_NAN_BITS) : 0.0f;
    const uint32_t w = encoded<TO>(x) * (TO == SB_CUDA_F32 ? 1u : 0x10001u);
    const uint4 words = { w, w, w, w };
    const int to = (int)(-((uint64_t)b.grad / size_of<TO>() + first) % STEP);
    const int64_t start = min(first + to, last), alike = b.kind == GRADIENT_ZERO ? last : held;
    const int64_t full = alike > start ? start + (alike - start) / STEP * STEP : start;
    for (int64_t i = start + (int64_t)threadIdx.x * STEP; i < full; i += (int64_t)blockDim.x * STEP)
        store16(b.grad + i * size_of<TO>(), words);
    for (int64_t i = first + threadIdx.x; i < start; i += blockDim.x)
        store_one<TO>(b.grad, i, i < held ? x : 0.0f);
    for (int64_t i = full + threadIdx.x; i < last; i += blockDim.x)
        store_one<TO>(b.grad, i, i < held ? x : 0.0f);
}

/* Whether the id alone shows that a row's logits may be read. */
SB_DET bool may_fetch(const sb_cuda_gradient_args &a, int64_t row)
{
    if (!a.simple) return false;
    const int64_t id = int_at(a.in.ids, a.in.ids_dtype, row);
    return id != a.in.ignore_index && (uint64_t)id < (uint64_t)a.in.vocab;
}

/* Rows are taken from the last to the first, because the forward pass read the last ones last and
 * they may still be in L2. The logits are on their way while one thread works on the row's
 * constants. */
template <int FROM, int TO, int OF> SB_DET void gradient_rows(const sb_cuda_gradient_args &a)
{
    __shared__ gradient_block b;
    const uint32_t pieces = (uint32_t)a.pieces, back = gridDim.x - 1 - blockIdx.x;
    const int64_t source = back / pieces, piece = back % pieces;
    const int64_t first = piece * a.piece, last = min(first + a.piece, a.width);
    const bool fetched = may_fetch(a, source);
    group_span s = { first, 0 };
    group_words<FROM> x[AHEAD];
    if (threadIdx.x == 0)
        set_gradient_block<FROM, OF>(a, &b, source, first, last, piece == 0 && !a.reported);
    __syncwarp(); /* the first warp loads later, so the constants have its registers */
    if (fetched) {
        const char *logits = (const char *)a.in.logits + source * a.in.row_stride * size_of<FROM>();
        char *grad = (char *)a.grad + source * a.row_stride * size_of<TO>();
        s = groups_of<FROM, TO>(logits, grad, first, min(a.held, last));
        load_groups<FROM>(x, logits, s, threadIdx.x);
    }
    __syncthreads(); /* b is written, and the target's logit read */
    if (b.kind == GRADIENT_FORMULA) gradient_piece<FROM, TO, OF>(a, b, first, last, s, x, fetched);
    else fill_piece<TO>(b, first, last, min(a.held, last));
}

#define GRADIENT(from, FROM, to, TO, of, OF, BLOCKS)                                               \
    extern "C" __global__ void __launch_bounds__(512, BLOCKS)                                      \
        gradient_##from##_##to##_##of(const __grid_constant__ sb_cuda_gradient_args a)             \
    {                                                                                              \
        gradient_rows<FROM, TO, OF>(a);                                                            \
    }
#define GRADIENT_LOSSES(from, FROM, to, TO)                                                        \
    GRADIENT(from, FROM, to, TO, token, SB_OF_TOKEN, 3)                                            \
    GRADIENT(from, FROM, to, TO, entropy, SB_OF_ENTROPY, 2)                                        \
    GRADIENT(from, FROM, to, TO, both, SB_OF_TOKEN | SB_OF_ENTROPY, 2)
#define GRADIENTS(from, FROM)                                                                      \
    GRADIENT_LOSSES(from, FROM, f32, SB_CUDA_F32)                                                  \
    GRADIENT_LOSSES(from, FROM, f16, SB_CUDA_F16)                                                  \
    GRADIENT_LOSSES(from, FROM, bf16, SB_CUDA_BF16)
GRADIENTS(f32, SB_CUDA_F32)
GRADIENTS(f16, SB_CUDA_F16)
GRADIENTS(bf16, SB_CUDA_BF16)
