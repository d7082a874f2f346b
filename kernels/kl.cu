/* kl.cu - the divergence of the same rows of two batches, in one pass over both.
 *
 *   token[r] = KL(p || q) = sum_i p_i (ln p_i - ln q_i), of src/det/kl.h
 *
 * Shapes: p's logits and q's as logprob.cu takes them, each in its own layout; token [rows];
 * everything else in src/cuda_args.h.
 *
 *     pairs of leaves -> thread's divergence -> warp -> block -> [pieces: kl_finish] -> token
 *
 *     kl_<p>_<q>         grid work * split, blocks of a multiple of 32 threads up to 512. split 1:
 *                        finishes rows. Else pieces [work][split] of sb_divergence.
 *     kl_finish          a warp an item; grid covers work * 32 threads. */
#include "../src/det/kl.h"
#include "kept.cuh"
#include "leaf.cuh"
#include "rows.cuh"

/* ---- merging ------------------------------------------------------------------------------ */

/* Merges the divergences of a warp's lanes; all lanes get the result. */
SB_DET void warp_merge_kl(sb_divergence *s)
{
    sb_kl_rise(s, __reduce_max_sync(FULL, s->p.J));
    warp_merge(&s->p);
    warp_merge(&s->q);
    for (int k = 0; k < SB_KL_DIGITS; k++) s->x[k] = warp_sum_signed(s->x[k]);
    s->outside = __reduce_max_sync(FULL, s->outside);
}

/* Merges the divergences of a block's threads. The result is warp 0's; shared holds one a warp. */
SB_DET void block_merge_kl(sb_divergence *s, sb_divergence *shared)
{
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, warps = blockDim.x / WARP;
    warp_merge_kl(s);
    if (lane == 0) shared[warp] = *s;
    __syncthreads(); /* every warp's divergence is in shared */
    if (warp != 0) return;
    if (lane < warps) *s = shared[lane];
    else sb_kl_init(s, 0, 0);
    warp_merge_kl(s);
}

/* ---- leaves ------------------------------------------------------------------------------- */

/* shift: p's distance from the 16-byte boundary below. */
template <int DTYPE>
SB_DET void load_any(leaf_words<DTYPE> &x, const char *p, int64_t n, uint32_t shift)
{
    constexpr bool HALVES = DTYPE != SB_CUDA_F32;
    switch (shift) {
    case 0: return load_at<DTYPE, 0>(x, p, n);
    case 4: return load_at<DTYPE, 4>(x, p, n);
    case 8: return load_at<DTYPE, 8>(x, p, n);
    case 12: return load_at<DTYPE, 12>(x, p, n);
    case 2: return load_at < DTYPE, HALVES ? 2 : 0 > (x, p, n);
    case 6: return load_at < DTYPE, HALVES ? 6 : 0 > (x, p, n);
    case 10: return load_at < DTYPE, HALVES ? 10 : 0 > (x, p, n);
    default: return load_at < DTYPE, HALVES ? 14 : 0 > (x, p, n);
    }
}

/* Any pair of leaves. Apart, so that its registers are not the loop's. */
template <int P, int Q>
static __device__ __noinline__ void add_any_pair(sb_divergence *s, const leaf_words<P> *p,
                                                 const leaf_words<Q> *q, const sb_row *row_p,
                                                 const sb_row *row_q)
{
    float xp[SB_LEAF], xq[SB_LEAF];
    for (int i = 0; i < SB_LEAF; i++) xp[i] = unpack<P>(*p, i);
    for (int i = 0; i < SB_LEAF; i++) xq[i] = unpack<Q>(*q, i);
    sb_kl_add_leaves(s, xp, xq, row_p, row_q);
}

/* What a leaf that is not wide is taken relative to, by its largest logit m and z0. */
SB_DET sb_leaf_scale narrow_scale(float m, float z0, const sb_row &row)
{
    sb_leaf_scale scale;
    scale.A = z0 - SB_EVEN_MAGIC;
    scale.thr = sb_bf16_floor(m - row.k64);
    scale.wide = 0;
    return scale;
}

/* A pair of which neither is wide, poisoned or absent; others go the way above. */
template <int P, int Q>
SB_DET void add_pair(sb_divergence *s, const leaf_words<P> &p, const leaf_words<Q> &q,
                     const sb_row &row_p, const sb_row &row_q)
{
    const float most_p = leaf_max<P>(p), most_q = leaf_max<Q>(q);
    const float z_p = sb_fma32(most_p, row_p.c, SB_EVEN_MAGIC);
    const float z_q = sb_fma32(most_q, row_q.c, SB_EVEN_MAGIC);
    if (is_narrow(sb_bits32(z_p)) && is_narrow(sb_bits32(z_q))) {
        float xp[SB_LEAF], xq[SB_LEAF];
        sb_kl_leaf leaf;
#pragma unroll
        for (int i = 0; i < SB_LEAF; i++) xp[i] = unpack<P>(p, i);
#pragma unroll
        for (int i = 0; i < SB_LEAF; i++) xq[i] = unpack<Q>(q, i);
        sb_kl_terms(&leaf, xp, xq, narrow_scale(most_p, z_p, row_p),
                    narrow_scale(most_q, z_q, row_q), &row_p, &row_q);
        sb_kl_add(s, &leaf);
    } else if (!sb_is_absent(most_p) || !sb_is_absent(most_q)) {
        const leaf_words<P> copy_p = p;
        const leaf_words<Q> copy_q = q;
        const sb_row own_p = row_p, own_q = row_q;
        sb_divergence into = *s; /* whose address may be taken */
        add_any_pair<P, Q>(&into, &copy_p, &copy_q, &own_p, &own_q);
        *s = into;
    }
}

template <int P, int Q>
SB_DET void add_pairs(sb_divergence *s, const part_of_row &p, const part_of_row &q,
                      const sb_row &row_p, const sb_row &row_q)
{
    constexpr int P_BYTES = SB_LEAF * (P == SB_CUDA_F32 ? 4 : 2);
    constexpr int Q_BYTES = SB_LEAF * (Q == SB_CUDA_F32 ? 4 : 2);
    const uint32_t p_shift = (uint32_t)(uint64_t)p.logits & 15;
    const uint32_t q_shift = (uint32_t)(uint64_t)q.logits & 15;
    for (int k = p.first + threadIdx.x; k < p.last; k += blockDim.x) {
        const int64_t left = p.vocab - (int64_t)k * SB_LEAF;
        leaf_words<P> x;
        leaf_words<Q> y;
        load_any<P>(x, p.logits + (int64_t)k * P_BYTES, left, p_shift);
        load_any<Q>(y, q.logits + (int64_t)k * Q_BYTES, left, q_shift);
        add_pair<P, Q>(s, x, y, row_p, row_q);
    }
}

/* Of rows with kept sets. Apart, so that its registers are not the others'. */
template <int P, int Q>
static __device__ __noinline__ void add_kept_pairs(sb_divergence *s, const sb_cuda_kl_args *a,
                                                   int64_t number, part_of_row p, part_of_row q,
                                                   sb_row row_p, sb_row row_q)
{
    for (int k = p.first + threadIdx.x; k < p.last; k += blockDim.x) {
        float xp[SB_LEAF], xq[SB_LEAF];
        for (int i = 0; i < SB_LEAF; i++) xp[i] = xq[i] = sb_float(0xff800000u);
        const bool any_p = read_kept<P>(xp, a->in, number, p, 0, k);
        const bool any_q = read_kept<Q>(xq, a->q, number, q, 0, k);
        if (any_p || any_q) sb_kl_add_leaves(s, xp, xq, &row_p, &row_q);
    }
}

/* ---- rows --------------------------------------------------------------------------------- */

/* By one thread: both rows. What p says of a row holds for q; of q, its temperature is looked at.
 */
SB_DET void set_rows(const sb_cuda_kl_args &a, order_row *p, order_row *q, int64_t item,
                     bool writes)
{
    set_order_row(a.in, p, item, writes);
    if (p->fate != ROW_ACTIVE) return;
    const float tau = a.q.temperatures ? ((const float *)a.q.temperatures)[p->number]
                                       : a.q.temperature;
    if (!sb_temperature_ok(tau)) {
        p->fate = ROW_REFUSED;
        if (writes) report(a.in, SB_BAD_Q_TEMPERATURE, p->number);
        return;
    }
    q->row = constants_of(a.q, tau);
    q->logits = logits_of(a.q, p->number);
}

SB_DET void write_token(const sb_cuda_kl_args &a, int64_t row, float x)
{
    if (a.in.tokens) ((float *)a.in.tokens)[row] = x;
}

template <int P, int Q> SB_DET void kl_block(const sb_cuda_kl_args &a)
{
    __shared__ order_row p, q;
    __shared__ sb_divergence shared[16];
    const sb_cuda_args &in = a.in;
    const int piece = in.split == 1 ? 0 : (int)(blockIdx.x % (uint32_t)in.split);
    sb_divergence s;

    if (threadIdx.x == 0) set_rows(a, &p, &q, blockIdx.x / (uint32_t)in.split, piece == 0);
    __syncthreads(); /* p and q are written */
    if (p.fate != ROW_ACTIVE) {
        if (threadIdx.x != 0) return;
        if (in.split != 1) /* c = 0: nothing for kl_finish */
            sb_kl_init(&((sb_divergence *)in.states)[blockIdx.x], 0.0f, 0.0f);
        if (piece == 0 && p.fate != ROW_UNKNOWN) write_token(a, p.number, nan_or_nothing(p.fate));
        return;
    }
    const part_of_row part_p = piece_of_row(in, p.logits, in.vocab, piece);
    part_of_row part_q = part_p;
    part_q.logits = q.logits;
    sb_kl_init(&s, p.row.c, q.row.c);
    if (in.kept || a.q.kept) {
        sb_divergence into = s; /* whose address may be taken */
        add_kept_pairs<P, Q>(&into, &a, p.number, part_p, part_q, p.row, q.row);
        s = into;
    } else {
        add_pairs<P, Q>(&s, part_p, part_q, p.row, q.row);
    }
    block_merge_kl(&s, shared);
    if (threadIdx.x != 0) return;
    s.p.c = sb_bits32(p.row.c);
    if (in.split != 1) ((sb_divergence *)in.states)[blockIdx.x] = s;
    else write_token(a, p.number, sb_kl_finish(&s));
}

#define KL(p, P, q, Q)                                                                             \
    extern "C" __global__ void __launch_bounds__(512, 1)                                           \
        kl_##p##_##q(const __grid_constant__ sb_cuda_kl_args a)                                    \
    {                                                                                              \
        kl_block<P, Q>(a);                                                                         \
    }
#define KLS(p, P)                                                                                  \
    KL(p, P, f32, SB_CUDA_F32)                                                                     \
    KL(p, P, f16, SB_CUDA_F16)                                                                     \
    KL(p, P, bf16, SB_CUDA_BF16)
KLS(f32, SB_CUDA_F32)
KLS(f16, SB_CUDA_F16)
KLS(bf16, SB_CUDA_BF16)

/* Merges the pieces of a row and finishes it: a warp a row. */
extern "C" __global__ void __launch_bounds__(256)
    kl_finish(const __grid_constant__ sb_cuda_kl_args a)
{
    const int64_t item = warp_item();
    if (item >= a.in.work) return;
    const sb_divergence *pieces = (const sb_divergence *)a.in.states + item * a.in.split;
    if (pieces[0].p.c == 0) return; /* the row's token is written */
    sb_divergence s;
    sb_kl_init(&s, 0.0f, 0.0f);
    for (int k = threadIdx.x % WARP; k < a.in.split; k += WARP) sb_kl_merge(&s, &pieces[k]);
    warp_merge_kl(&s);
    if (threadIdx.x % WARP == 0) write_token(a, row_at(a.in, item), sb_kl_finish(&s));
}
