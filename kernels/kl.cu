/* kl.cu - the divergence between corresponding rows of two batches, in one pass over both.
 *
 *   token[r] = KL(p || q) = sum_i p_i (ln p_i - ln q_i), of src/det/kl.h
 *
 * Shapes: p's and q's logits as logprob.cu takes them, each in its own layout; token [rows];
 * everything else in src/cuda/args.h.
 *
 *     pairs of leaves -> thread's divergence -> warp -> block -> [pieces: kl_finish] -> token
 *
 *     kl_<p>_<q>         piece.cuh, with pieces of sb_divergence.
 *     kl_finish          one warp per item; the grid covers work * 32 threads. */
#include "../src/det/kl.h"
#include "kept.cuh"
#include "leaf.cuh"
#include "merge.cuh"
#include "piece.cuh"
#include "row.cuh"

/* ---- divergences as a state of merge.cuh -------------------------------------------------- */

SB_DET void make_none(sb_divergence *s) { sb_kl_init(s, 0.0f, 0.0f); }
SB_DET sb_state *sum_in(sb_divergence *s) { return &s->p; }
SB_DET void merge_into(sb_divergence *into, const sb_divergence &from) { sb_kl_merge(into, &from); }

SB_DET void warp_merge(sb_divergence *s)
{
    sb_kl_rise(s, __reduce_max_sync(FULL, s->p.J));
    warp_merge(&s->p);
    warp_merge(&s->q);
    for (int k = 0; k < SB_KL_DIGITS; k++) s->x[k] = warp_sum_signed(s->x[k]);
    s->outside = __reduce_max_sync(FULL, s->outside);
}

/* The two rows, of p and of q, that a block compares. */
struct row_pair {
    any_row p, q;
};

SB_DET const char *logits_in(const row_pair &mine) { return mine.p.logits; }
SB_DET const sb_row &constants_in(const row_pair &mine) { return mine.p.row; }

/* ---- leaves ------------------------------------------------------------------------------- */

/* Adds any pair of leaves. A function of its own, so that it takes no registers from the loop. */
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

/* The scale of a leaf that is not wide, from its largest logit m and z0. */
SB_DET sb_leaf_scale narrow_scale(float m, float z0, const sb_row &row)
{
    sb_leaf_scale scale;
    scale.A = z0 - SB_EVEN_MAGIC;
    scale.thr = sb_bf16_floor(m - row.k64);
    scale.wide = 0;
    return scale;
}

/* Adds a pair of leaves. If either is wide, poisoned or absent, add_any_pair takes the pair. */
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
    constexpr int P_BYTES = SB_LEAF * size_of<P>(), Q_BYTES = SB_LEAF * size_of<Q>();
    const uint32_t p_shift = (uint32_t)(uint64_t)p.logits & 15;
    const uint32_t q_shift = (uint32_t)(uint64_t)q.logits & 15;
    for (int k = p.first + threadIdx.x; k < p.last; k += blockDim.x) {
        const int64_t left = p.vocab - (int64_t)k * SB_LEAF;
        leaf_words<P> x;
        leaf_words<Q> y;
        at_alignment<P>(p_shift, [&](auto shift) {
            load_at<P, decltype(shift)::value>(x, p.logits + (int64_t)k * P_BYTES, left);
        });
        at_alignment<Q>(q_shift, [&](auto shift) {
            load_at<Q, decltype(shift)::value>(y, q.logits + (int64_t)k * Q_BYTES, left);
        });
        add_pair<P, Q>(s, x, y, row_p, row_q);
    }
}

/* add_pairs for rows with kept sets. A function of its own, so that other rows' code keeps its
 * registers. */
template <int P, int Q>
static __device__ __noinline__ void add_kept_pairs(sb_divergence *s, const sb_cuda_kl_args *a,
                                                   int64_t number, part_of_row p, part_of_row q,
                                                   sb_row row_p, sb_row row_q)
{
    for (int k = p.first + threadIdx.x; k < p.last; k += blockDim.x) {
        float xp[SB_LEAF], xq[SB_LEAF];
        for (int i = 0; i < SB_LEAF; i++) xp[i] = xq[i] = sb_float(SB_ABSENT_BITS);
        const bool any_p = read_kept<P>(xp, a->in, number, p, 0, k);
        const bool any_q = read_kept<Q>(xq, a->q, number, q, 0, k);
        if (any_p || any_q) sb_kl_add_leaves(s, xp, xq, &row_p, &row_q);
    }
}

/* ---- rows --------------------------------------------------------------------------------- */

/* Sets both rows. Called by one thread. p alone decides which rows are active; of q, only the
 * temperature is checked. */
SB_DET void set_row_pair(const sb_cuda_kl_args &a, row_pair *mine, int64_t item, bool writes)
{
    set_any_row(a.in, &mine->p, item, writes);
    if (mine->p.fate != ROW_ACTIVE) return;
    const int64_t number = mine->p.number;
    const float tau = temperature_of(a.q, number);
    if (!sb_temperature_ok(tau)) {
        mine->p.fate = ROW_REFUSED;
        if (writes) report(a.in, SB_BAD_Q_TEMPERATURE, number);
        return;
    }
    mine->q.row = constants_of(a.q, tau);
    mine->q.logits = logits_of(a.q, number);
}

SB_DET void write_token(const sb_cuda_kl_args &a, int64_t row, float x)
{
    if (a.in.tokens) ((float *)a.in.tokens)[row] = x;
}

template <int P, int Q> struct kl_rows {
    typedef sb_cuda_kl_args args;
    typedef sb_divergence state;
    typedef row_pair row;
    static constexpr bool FINISHES = true;
    SB_DET void find(const args &a, row *mine, int64_t item, bool writes)
    {
        set_row_pair(a, mine, item, writes);
    }
    SB_DET bool done(const row &mine) { return mine.p.fate != ROW_ACTIVE; }
    SB_DET void skip(const args &a, const row &mine, int64_t)
    {
        if (mine.p.fate != ROW_UNKNOWN) write_token(a, mine.p.number, nan_or_nothing(mine.p.fate));
    }
    SB_DET int64_t held(const args &a) { return a.in.vocab; }
    SB_DET void sum(state *s, const args &a, const row &mine, const part_of_row &part)
    {
        part_of_row part_q = part;
        part_q.logits = mine.q.logits;
        sb_kl_init(s, mine.p.row.c, mine.q.row.c);
        if (a.in.kept || a.q.kept) {
            sb_divergence into = *s; /* whose address may be taken */
            add_kept_pairs<P, Q>(&into, &a, mine.p.number, part, part_q, mine.p.row, mine.q.row);
            *s = into;
        } else {
            add_pairs<P, Q>(s, part, part_q, mine.p.row, mine.q.row);
        }
    }
    SB_DET void beside(const args &, const row &, int64_t) {}
    SB_DET void finish(const args &a, const row &mine, const state &s)
    {
        if (threadIdx.x == 0) write_token(a, mine.p.number, sb_kl_finish(&s));
    }
};

#define KL(p, P, q, Q)                                                                             \
    extern "C" __global__ void __launch_bounds__(512, 1)                                           \
        kl_##p##_##q(const __grid_constant__ sb_cuda_kl_args a)                                    \
    {                                                                                              \
        piece_block<kl_rows<P, Q>>(a);                                                             \
    }
#define KLS(p, P)                                                                                  \
    KL(p, P, f32, SB_CUDA_F32)                                                                     \
    KL(p, P, f16, SB_CUDA_F16)                                                                     \
    KL(p, P, bf16, SB_CUDA_BF16)
KLS(f32, SB_CUDA_F32)
KLS(f16, SB_CUDA_F16)
KLS(bf16, SB_CUDA_BF16)

/* Merges the pieces of a row and finishes it. */
extern "C" __global__ void __launch_bounds__(256)
    kl_finish(const __grid_constant__ sb_cuda_kl_args a)
{
    const int64_t item = warp_item();
    if (item >= a.in.work) return;
    const sb_divergence *pieces = pieces_of<sb_divergence>(a.in, item);
    if (pieces[0].p.c == 0) return; /* the row's token is written */
    sb_divergence s;
    merge_pieces(&s, pieces, a.in.split);
    if (threadIdx.x % WARP == 0) write_token(a, row_at(a.in, item), sb_kl_finish(&s));
}
