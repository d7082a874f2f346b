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
 *                                   512, with 16 * SB_CUDA_GRADIENT_AHEAD bytes of dynamic shared
 *                                   memory per thread. Groups of elements lie on boundaries of
 *                                   both arrays, if the arrays have such boundaries in common.
 */
#include "../src/det/gradient.h"
#include "load.cuh"
#include "row.cuh"

/* A group is the 16 bytes of logits that a thread loads at once: so many elements. */
template <int FROM> SB_DET constexpr int group_of() { return 16 / size_of<FROM>(); }

/* How a row's gradient is made: all zero, all NaN, or by the formula. */
typedef enum gradient_kind { GRADIENT_ZERO, GRADIENT_NAN, GRADIENT_FORMULA } gradient_kind;

struct gradient_block {
    sb_gradient_row g;
    const char *logits;
    char *grad;
    int64_t row;    /* whose id, kept set and saved record are used */
    int64_t target; /* among the logits held here; -1: not in this piece, or no token loss */
    float own;      /* the target's gradient */
    float least;    /* a gradient at a logit from here on does not count as 0 */
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

template <int DTYPE> SB_DET void group_values(float v[group_of<DTYPE>()], uint4 words)
{
    leaf_words<DTYPE> x;
    x.w[0] = words.x, x.w[1] = words.y, x.w[2] = words.z, x.w[3] = words.w;
#pragma unroll
    for (int i = 0; i < group_of<DTYPE>(); i++) v[i] = unpack<DTYPE>(x, i);
}

/* The smallest logit of a group; NaN does not count. */
template <int DTYPE> SB_DET float group_min(uint4 words)
{
    leaf_words<DTYPE> x;
    if (DTYPE == SB_CUDA_F32)
        return fminf(fminf(sb_float(words.x), sb_float(words.y)),
                     fminf(sb_float(words.z), sb_float(words.w)));
    if (DTYPE == SB_CUDA_BF16)
        x.w[0] = min_pair_bf16(min_pair_bf16(words.x, words.y), min_pair_bf16(words.z, words.w));
    else x.w[0] = min_pair_f16(min_pair_f16(words.x, words.y), min_pair_f16(words.z, words.w));
    return fminf(unpack<DTYPE>(x, 0), unpack<DTYPE>(x, 1));
}

/* Stores N gradients, 8 or 16 bytes at a time. plain: no value is NaN, so the values need no
 * check. */
template <int DTYPE, int N, bool plain> SB_DET void store_group(char *p, const float v[N])
{
    constexpr int WORDS = N * size_of<DTYPE>() / 4;
    uint32_t w[WORDS];
#pragma unroll
    for (int k = 0; k < WORDS; k++) {
        if (DTYPE == SB_CUDA_F32) w[k] = plain ? sb_bits32(v[k]) : encoded<DTYPE>(v[k]);
        else if (plain) w[k] = pair_of<DTYPE>(v[2 * k], v[2 * k + 1]);
        else w[k] = encoded<DTYPE>(v[2 * k]) | encoded<DTYPE>(v[2 * k + 1]) << 16;
    }
    if constexpr (WORDS == 2) {
        const uint2 part = { w[0], w[1] };
        store8(p, part);
    } else {
#pragma unroll
        for (int k = 0; k < WORDS; k += 4) {
            const uint4 part = { w[k], w[k + 1], w[k + 2], w[k + 3] };
            store16(p + 4 * k, part);
        }
    }
}

/* ---- rows --------------------------------------------------------------------------------- */

/* Sets the constants of a row. */
template <int OF>
SB_DET void set_constants(gradient_block *b, const sb_saved &saved, const sb_row &constants,
                          float tau, sb_upstream up)
{
    b->kind = GRADIENT_FORMULA;
    b->g = sb_gradient_row_of(&saved, &constants, tau, up, OF);
    /* if g.plain, e is below 2^19, so the roundings move least * c by less than 1 octave */
    b->least = b->g.plain ? (b->g.e - 124.0f) * (constants.k64 * 0x1p-6f) : sb_float(SB_INF_BITS);
}

/* What a row's constants are made of, besides those of the call. */
struct row_inputs {
    int64_t id;
    sb_saved saved;
    sb_upstream up;
};

template <int OF> SB_DET sb_upstream upstream_of(const sb_cuda_gradient_args &a, int64_t row)
{
    const sb_upstream up = { OF & SB_OF_TOKEN ? ((const float *)a.token)[row] : 0.0f,
                             OF & SB_OF_ENTROPY ? ((const float *)a.entropy)[row] : 0.0f };
    return up;
}

/* Sets the kind and the constants of the row that row source of the logits scores. Called by one
 * thread. reports: this block reports bad values; one block per row does. A function of its own,
 * because blocks of simple rows without the target do not need it. */
template <int DTYPE, int OF>
static __device__ __noinline__ void set_gradient_block(const sb_cuda_gradient_args &a,
                                                       gradient_block *b, int64_t source,
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
        if (reports) report_row(in, r, row);
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
    const sb_upstream up = upstream_of<OF>(a, row);
    b->logits = r.logits;
    set_constants<OF>(b, saved, constants, r.tau, up);
    const int64_t target = r.id - a.first;
    if (!(OF & SB_OF_TOKEN) || target < first || target >= last || target >= a.held || target < 0)
        return;
    b->target = target;
    const float x = is_kept(in, row, r.id) ? load_one<DTYPE>(r.logits, target)
                                           : sb_float(SB_ABSENT_BITS);
    b->own = sb_gradient_at_target(x, &b->g, &saved, &constants, r.tau, up, OF);
}

/* The same for a row of a simple call whose target is not in the piece, in few instructions, since
 * the whole block waits for them. Returns false if the row is not one of these. */
template <int DTYPE, int OF>
SB_DET bool set_simple_block(const sb_cuda_gradient_args &a, gradient_block *b,
                             const row_inputs &with, int64_t row, int64_t first, int64_t last)
{
    const sb_cuda_args &in = a.in;
    const int64_t target = with.id - a.first;
    if (sb_saved_fault(&with.saved, &in.row, OF & SB_OF_ENTROPY) != SB_RECORD_FINE ||
        with.saved.kind == SB_SAVED_NAN || (OF & SB_OF_TOKEN && target >= first && target < last))
        return false;
    b->row = row;
    b->target = -1;
    b->logits = (const char *)in.logits + row * in.row_stride * size_of<DTYPE>();
    b->grad = (char *)a.grad + row * a.row_stride * a.grad_size;
    set_constants<OF>(b, with.saved, in.row, in.temperature, with.up);
    return true;
}

/* Sets *before to the number of elements, modulo group_of<FROM>(), in front of the first one at
 * which a group may begin: one on a 16-byte boundary of the logits, and on a boundary of the words
 * that store_group stores. Returns false if there is no such element. */
template <int FROM, int TO> SB_DET bool common_boundary(const char *logits, char *grad, int *before)
{
    constexpr int GROUP = group_of<FROM>(), BYTES = GROUP * size_of<TO>();
    constexpr int STEP = (BYTES < 16 ? BYTES : 16) / size_of<TO>();
    const int to = (int)(-((uint64_t)grad / size_of<TO>()) % STEP);
    *before = (int)(-((uint64_t)logits / size_of<FROM>()) % GROUP);
    return *before % STEP == to;
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

/* The groups of a piece (elements first .. last - 1 of a row) that lie on boundaries and hold
 * nothing but logits. The first one begins at start. There are none if the two arrays have no
 * boundary in common. A row holds at most 2^20 logits. */
struct group_span {
    int64_t start;
    int count;
};

template <int FROM, int TO>
SB_DET group_span groups_of(const char *logits, char *grad, int64_t first, int64_t held)
{
    constexpr int GROUP = group_of<FROM>();
    group_span s = { first, 0 };
    int before = 0;
    if (!common_boundary<FROM, TO>(logits, grad, &before)) return s;
    s.start = first + ((before - first) % GROUP + GROUP) % GROUP;
    s.count = held > s.start ? (int)((held - s.start) / GROUP) : 0;
    return s;
}

/* ---- the ring -----------------------------------------------------------------------------
 *
 * A thread takes every blockDim-th group. Its next groups are on their way to slots of its own in
 * shared memory, so a thread waits for nothing but its own copies. The copies go through L1:
 * past it, sectors are fetched twice. */
#define AHEAD SB_CUDA_GRADIENT_AHEAD

SB_DET shared_address ring_slot(int n)
{
    return address_of(staging) + (n * blockDim.x + threadIdx.x) * 16;
}

/* Begins to fetch a thread's first groups. */
template <int FROM> SB_DET void begin_ring(const char *logits, const group_span &s)
{
    const char *from = logits + s.start * size_of<FROM>();
#pragma unroll
    for (int n = 0; n < AHEAD; n++) {
        const int at = threadIdx.x + n * blockDim.x;
        if (at < s.count) copy16(ring_slot(n), from + (int64_t)at * 16);
        end_copies();
    }
}

/* Writes the gradient of one group. least: as in gradient_block. */
template <int FROM, int TO, int OF>
SB_DET void gradient_group(char *grad, uint4 words, const sb_gradient_row &g, float least)
{
    constexpr int GROUP = group_of<FROM>();
    float v[GROUP];
    const bool high = group_min<FROM>(words) >= least;
    group_values<FROM>(v, words);
    if (high) {
#pragma unroll
        for (int e = 0; e < GROUP; e++)
            v[e] = sb_gradient_term(v[e], sb_fma32(v[e], g.c, g.magic), &g, OF);
        store_group<TO, GROUP, true>(grad, v);
    } else if (g.plain) {
#pragma unroll
        for (int e = 0; e < GROUP; e++) v[e] = sb_gradient_plain(v[e], &g, OF);
        store_group<TO, GROUP, true>(grad, v);
    } else {
#pragma unroll
        for (int e = 0; e < GROUP; e++) v[e] = sb_gradient_at(v[e], &g, OF);
        store_group<TO, GROUP, false>(grad, v);
    }
}

/* Writes the groups of a span, whose ring has begun. A slot is refilled once its group has been
 * stored, and so read. */
template <int FROM, int TO, int OF>
SB_DET void gradient_groups(const gradient_block &b, const group_span &s)
{
    constexpr int GROUP = group_of<FROM>();
    const sb_gradient_row g = b.g;
    const float least = b.least;
    const int step = blockDim.x;
    const shared_address end = ring_slot(AHEAD);
    const char *from = b.logits + s.start * size_of<FROM>() +
                       (int64_t)(threadIdx.x + AHEAD * step) * 16;
    char *to = b.grad + (s.start + (int64_t)threadIdx.x * GROUP) * size_of<TO>();
    shared_address slot = ring_slot(0);
    for (int at = threadIdx.x; at < s.count; at += step) {
        wait_for_copies<AHEAD - 1>();
        gradient_group<FROM, TO, OF>(to, load16_shared(slot), g, least);
        if (at + AHEAD * step < s.count) copy16(slot, from);
        end_copies();
        slot += step * 16;
        if (slot == end) slot = ring_slot(0);
        from += (int64_t)step * 16;
        to += step * GROUP * size_of<TO>();
    }
    /* the thread that has stored the target's group now stores the target */
    const int64_t target = b.target - s.start;
    if (target >= 0 && target < (int64_t)s.count * GROUP && target / GROUP % step == threadIdx.x)
        store_one<TO>(b.grad, b.target, b.own);
}

/* Writes elements first .. last - 1 of a row. fetched: the ring has begun. */
template <int FROM, int TO, int OF>
SB_DET void gradient_piece(const sb_cuda_gradient_args &a, const gradient_block &b, int64_t first,
                           int64_t last, bool fetched)
{
    const int64_t held = a.held < last ? a.held : last;
    const sb_gradient_row g = b.g;
    int64_t i = first;
    group_span s = { first, 0 };
    if (!a.in.kept) s = groups_of<FROM, TO>(b.logits, b.grad, first, held);
    if (!fetched) begin_ring<FROM>(b.logits, s);
    gradient_groups<FROM, TO, OF>(b, s);
    if (s.count > 0) { /* the elements before and behind the groups */
        for (i = first + threadIdx.x; i < s.start; i += blockDim.x)
            gradient_one<FROM, TO, OF>(a, b, g, i, held);
        i = s.start + (int64_t)s.count * group_of<FROM>();
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

/* Rows are taken from the last to the first, because the forward pass read the last ones last and
 * they may still be in L2. The logits are on their way while one thread works on the row's
 * constants, if the id alone shows that they may be read. */
template <int FROM, int TO, int OF> SB_DET void gradient_rows(const sb_cuda_gradient_args &a)
{
    __shared__ gradient_block b;
    const uint32_t pieces = (uint32_t)a.pieces, back = gridDim.x - 1 - blockIdx.x;
    const int64_t source = back / pieces, piece = back % pieces;
    const int64_t first = piece * a.piece, last = min(first + a.piece, a.width);
    bool fetched = false;
    row_inputs with;
    if (a.simple) {
        with.id = int_at(a.in.ids, a.in.ids_dtype, source);
        if (threadIdx.x == 0) {
            with.saved = ((const sb_saved *)a.saved)[source];
            with.up = upstream_of<OF>(a, source);
        }
        fetched = with.id != a.in.ignore_index && (uint64_t)with.id < (uint64_t)a.in.vocab;
    }
    if (fetched) {
        const char *logits = (const char *)a.in.logits + source * a.in.row_stride * size_of<FROM>();
        char *grad = (char *)a.grad + source * a.row_stride * size_of<TO>();
        begin_ring<FROM>(logits, groups_of<FROM, TO>(logits, grad, first, min(a.held, last)));
    }
    if (threadIdx.x == 0 &&
        !(fetched && set_simple_block<FROM, OF>(a, &b, with, source, first, last)))
        set_gradient_block<FROM, OF>(a, &b, source, first, last, piece == 0 && !a.reported);
    __syncthreads(); /* b is written, and the target's logit read */
    if (b.kind == GRADIENT_FORMULA) {
        gradient_piece<FROM, TO, OF>(a, b, first, last, fetched);
    } else {
        wait_for_all_copies();
        fill_piece<TO>(b, first, last, min(a.held, last));
    }
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
