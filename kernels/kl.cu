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
 *     kl_bf16_bf16_table the same for many rows of one temperature: groups.cuh.
 *     kl_finish          one warp per item; the grid covers work * 32 threads. */
#include "../src/det/kl.h"
#include "groups.cuh"
#include "kept.cuh"
#include "leaf.cuh"
#include "merge.cuh"
#include "piece.cuh"
#include "row.cuh"
#include "share.cuh"

/* ---- divergences as a state of merge.cuh -------------------------------------------------- */

SB_DET void make_none(sb_divergence *s) { sb_kl_init(s, 0.0f, 0.0f); }
SB_DET sb_state *sum_in(sb_divergence *s) { return &s->p; }
SB_DET void merge_into(sb_divergence *into, const sb_divergence &from) { sb_kl_merge(into, &from); }

SB_DET void warp_merge(sb_divergence *s)
{
    sb_kl_rise(s, __reduce_max_sync(FULL, s->p.J));
    warp_merge(&s->p);
    warp_merge(&s->q);
    for (int k = 0; k < SB_KL_DIGITS; k++) s->x[k] = warp_sum_any(s->x[k]);
    s->outside = __reduce_max_sync(FULL, s->outside);
}

/* The two rows, of p and of q, that a block compares. */
struct row_pair {
    any_row p, q;
};

SB_DET const char *logits_in(const row_pair &mine) { return mine.p.logits; }
SB_DET const sb_row &constants_in(const row_pair &mine) { return mine.p.row; }

/* ---- leaves ------------------------------------------------------------------------------- */

/* The smallest logit of a leaf; it matters only where none is NaN. */
template <int DTYPE> SB_DET float leaf_min(const leaf_words<DTYPE> &x)
{
    if (DTYPE == SB_CUDA_F32) {
        float m = sb_float(x.w[0]);
#pragma unroll
        for (int i = 1; i < 16; i++) m = fminf(m, sb_float(x.w[i]));
        return m;
    }
    leaf_words<DTYPE> pair;
    pair.w[0] = x.w[0];
#pragma unroll
    for (int i = 1; i < 8; i++)
        pair.w[0] = DTYPE == SB_CUDA_BF16 ? min_pair_bf16(pair.w[0], x.w[i])
                                          : min_pair_f16(pair.w[0], x.w[i]);
    return fminf(unpack<DTYPE>(pair, 0), unpack<DTYPE>(pair, 1));
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

/* A thread's divergence. p and q: z0's encodings at the start of digit J of either sum, as
 * thread_state's base. */
struct thread_divergence {
    uint32_t p, q;
    sb_divergence s;
};

/* Adds M * 2^(2 u), a leaf's sum, to digits K and K + 1. */
template <int K> SB_DET void add_sum(sb_state *s, uint32_t M, uint32_t u)
{
    s->l[K] += __funnelshift_l(0, M, 2 * u); /* shifts are taken modulo 32 */
    s->l[K + 1] += __funnelshift_l(M, 0, 2 * u);
}

/* Adds R = r * 2^(2 u) to digits K .. K + 2. */
template <int K> SB_DET void add_distance(int64_t *x, int64_t r, uint32_t u)
{
    const uint32_t low = (uint32_t)r, high = (uint32_t)((uint64_t)r >> 32);
    x[K] += __funnelshift_l(0, low, 2 * u);
    x[K + 1] += __funnelshift_l(low, high, 2 * u);
    x[K + 2] += (int32_t)__funnelshift_l(high, (uint32_t)((int32_t)high >> 31), 2 * u);
}

/* What decides how a pair is added: the largest logits and their z0. */
struct pair_scale {
    float most_p, most_q, z_p, z_q;
};

template <int P, int Q>
SB_DET pair_scale scale_of(const leaf_words<P> &p, const leaf_words<Q> &q, const leaf_row &row_p,
                           const leaf_row &row_q)
{
    pair_scale s;
    s.most_p = leaf_max<P>(p);
    s.most_q = leaf_max<Q>(q);
    s.z_p = sb_fma32(s.most_p, row_p.c, SB_EVEN_MAGIC);
    s.z_q = sb_fma32(s.most_q, row_q.c, SB_EVEN_MAGIC);
    return s;
}

/* Whether no logit lies below thr, so that none is clamped. thr is not above m - k64. */
template <int P, int Q>
SB_DET bool is_level(const leaf_words<P> &p, const leaf_words<Q> &q, const pair_scale &s,
                     const leaf_row &row_p, const leaf_row &row_q)
{
    return leaf_min<P>(p) >= s.most_p - row_p.k64 && leaf_min<Q>(q) >= s.most_q - row_q.k64;
}

SB_DET bool are_narrow(const pair_scale &s)
{
    return is_narrow(sb_bits32(s.z_p)) && is_narrow(sb_bits32(s.z_q));
}

/* Whether the first loop takes such a pair if it is level: with a table or without. */
template <bool TABLE> SB_DET bool are_served(const pair_scale &s)
{
    if (TABLE) return is_served(sb_bits32(s.z_p)) && is_served(sb_bits32(s.z_q));
    return are_narrow(s);
}

SB_DET bool are_absent(const pair_scale &s)
{
    return sb_is_absent(s.most_p) && sb_is_absent(s.most_q);
}

/* Adds a pair whose leaves are narrow and level, of which at least one is not in digits J - 1 and J
 * of its sum. */
SB_DET void add_other_pair(thread_divergence *t, const pair_scale &s, uint32_t M_p, uint32_t M_q,
                           int64_t U)
{
    sb_kl_leaf leaf;
    leaf.p.A = (int32_t)(sb_bits32(s.z_p) - Z_ZERO) * 2;
    leaf.q.A = (int32_t)(sb_bits32(s.z_q) - Z_ZERO) * 2;
    leaf.p.M = M_p;
    leaf.q.M = M_q;
    leaf.U = U;
    leaf.outside = 0;
    sb_kl_add(&t->s, &leaf);
    t->p = base_of(t->s.p.J);
    t->q = base_of(t->s.q.J);
}

/* Adds a pair of leaves that are level, and narrow or, with a table, served by it. Sets *left if it
 * is not such a pair, and must go through the second loop. TERMS of a pair's 32 terms are looked
 * up. */
template <int P, int Q, int TERMS = 0>
SB_DET void add_pair(thread_divergence *t, const leaf_words<P> &p, const leaf_words<Q> &q,
                     const leaf_row &row_p, const leaf_row &row_q, bool *left,
                     shared_address table = 0)
{
    const pair_scale s = scale_of<P, Q>(p, q, row_p, row_q);
    if (!is_level<P, Q>(p, q, s, row_p, row_q) || (TERMS && !are_served<true>(s))) {
        if (!TERMS || !are_absent(s)) *left = true;
        return;
    }
    const uint32_t u_p = sb_bits32(s.z_p) - t->p, u_q = sb_bits32(s.z_q) - t->q;
    /* with a table, terms are 2^A times as large */
    const float magic_p = TERMS ? SB_INT_MAGIC + 24.0f : scaled_magic(s.z_p);
    const float magic_q = TERMS ? SB_INT_MAGIC + 24.0f : scaled_magic(s.z_q);
    const float scale_p = TERMS ? scale_down(sb_bits32(s.z_p)) : 1.0f;
    const float scale_q = TERMS ? scale_down(sb_bits32(s.z_q)) : 1.0f;
    const float minus_p = SB_EVEN_MAGIC - s.z_p, minus_q = SB_EVEN_MAGIC - s.z_q;
    float v[SB_LEAF], w[SB_LEAF], h[SB_LEAF];
#pragma unroll
    for (int i = 0; i < SB_LEAF; i++) {
        const float x = unpack<P>(p, i), y = unpack<Q>(q, i);
        const int place = i / 2 + i % 2 * 16; /* lower halves are looked up first */
        if (place < TERMS) v[i] = looked_up(table, p.w[i / 2], i % 2);
        else v[i] = sb_leaf_term(x, row_p.c, magic_p);
        if (place + 8 < TERMS) w[i] = looked_up(table, q.w[i / 2], i % 2);
        else w[i] = sb_leaf_term(y, row_q.c, magic_q);
        h[i] = v[i] * (sb_fma32(x, row_p.c, minus_p) - sb_fma32(y, row_q.c, minus_q));
    }
    /* all are 2^24 times as large */
    const uint32_t M_p = (uint32_t)(sb_leaf_tree(v) * scale_p);
    const uint32_t M_q = (uint32_t)(sb_leaf_tree(w) * scale_q);
    const int64_t U = sb_nearest64(sb_leaf_tree(h) * scale_p);
    if (u_p + DIGIT < 2 * DIGIT && u_q + DIGIT < 2 * DIGIT) {
        /* A is 2 * (z0 - Z_ZERO) */
        const int32_t apart = (int32_t)(sb_bits32(s.z_p) - sb_bits32(s.z_q)) * 2;
        const int64_t r = (int64_t)M_p * apart + U;
        if (u_p < DIGIT) {
            add_sum<1>(&t->s.p, M_p, u_p);
            add_distance<1>(t->s.x, r, u_p);
        } else {
            add_sum<0>(&t->s.p, M_p, u_p);
            add_distance<0>(t->s.x, r, u_p);
        }
        if (u_q < DIGIT) add_sum<1>(&t->s.q, M_q, u_q);
        else add_sum<0>(&t->s.q, M_q, u_q);
    } else if (are_narrow(s)) {
        add_other_pair(t, s, M_p, M_q, U);
    } else if (!are_absent(s)) {
        *left = true;
    }
}

/* The second loop: adds the pairs that the first one left, through det/kl.h. A function of its own,
 * so that it takes no registers from the first loop. */
template <int P, int Q, bool TABLE>
static __device__ __noinline__ void add_left_pairs(sb_divergence *s, part_of_row p, part_of_row q,
                                                   sb_row row_p, sb_row row_q, int first, int step)
{
    constexpr int P_BYTES = SB_LEAF * size_of<P>(), Q_BYTES = SB_LEAF * size_of<Q>();
    const leaf_row c_p = { row_p.c, row_p.k64 }, c_q = { row_q.c, row_q.k64 };
    for (int k = first; k < p.last; k += step) {
        const int64_t present = p.vocab - (int64_t)k * SB_LEAF;
        leaf_words<P> x;
        leaf_words<Q> y;
        load_any<P>(x, p.logits + (int64_t)k * P_BYTES, present);
        load_any<Q>(y, q.logits + (int64_t)k * Q_BYTES, present);
        const pair_scale scale = scale_of<P, Q>(x, y, c_p, c_q);
        const bool done = are_served<TABLE>(scale) && is_level<P, Q>(x, y, scale, c_p, c_q);
        /* with a table, the first loop does not come to a last leaf that lacks ids */
        if (are_absent(scale) || (done && !(TABLE && present < SB_LEAF))) continue;
        float xp[SB_LEAF], xq[SB_LEAF];
#pragma unroll
        for (int i = 0; i < SB_LEAF; i++) xp[i] = unpack<P>(x, i), xq[i] = unpack<Q>(y, i);
        if (are_narrow(scale)) {
            sb_kl_leaf leaf;
            sb_kl_terms(&leaf, xp, xq, narrow_scale(scale.most_p, scale.z_p, row_p),
                        narrow_scale(scale.most_q, scale.z_q, row_q), &row_p, &row_q);
            sb_kl_add(s, &leaf);
        } else {
            sb_kl_add_leaves(s, xp, xq, &row_p, &row_q);
        }
    }
}

/* The first loop for rows that begin at 16-byte boundaries, apart from leaves at the row's end.
 * Returns the thread's first leaf that it did not come to. */
template <int P, int Q>
SB_DET int add_aligned_pairs(thread_divergence *t, const part_of_row &p, const part_of_row &q,
                             const leaf_row &row_p, const leaf_row &row_q, bool *left)
{
    constexpr int P_BYTES = SB_LEAF * size_of<P>(), Q_BYTES = SB_LEAF * size_of<Q>();
    constexpr int BYTES = P_BYTES + Q_BYTES;
    const int end = min(p.last, (int)(p.vocab / SB_LEAF));
    const shared_address first = staging_slot<BYTES>(), both = 2 * first + WARP * BYTES;
    shared_address slot = first;
    int k = p.first + threadIdx.x;
    const char *at_p = p.logits + (int64_t)k * P_BYTES, *at_q = q.logits + (int64_t)k * Q_BYTES;
    bool more = k < end;
    auto fetch = [&](shared_address to) {
        fetch_leaf<P_BYTES>(to, at_p);
        fetch_leaf<Q_BYTES>(to + WARP * P_BYTES, at_q);
    };
    if (more) fetch(slot);
    end_copies();
    while (more) {
        leaf_words<P> x;
        leaf_words<Q> y;
        k += blockDim.x, at_p += blockDim.x * P_BYTES, at_q += blockDim.x * Q_BYTES;
        more = k < end;
        if (more) fetch(both - slot);
        end_copies();
        wait_for_copies<1>();
        load_staged<P>(x, slot);
        load_staged<Q>(y, slot + WARP * P_BYTES);
        add_pair<P, Q>(t, x, y, row_p, row_q, left);
        slot = both - slot;
    }
    return k;
}

/* The first loop. Returns whether it left a pair for the second one. */
template <int P, int Q>
SB_DET bool add_pairs(thread_divergence *t, const part_of_row &p, const part_of_row &q,
                      const leaf_row &row_p, const leaf_row &row_q)
{
    constexpr int P_BYTES = SB_LEAF * size_of<P>(), Q_BYTES = SB_LEAF * size_of<Q>();
    constexpr bool STAGED = P != SB_CUDA_F32 && Q != SB_CUDA_F32;
    int k = p.first + threadIdx.x;
    bool left = false;
    if (STAGED && (((uint64_t)p.logits | (uint64_t)q.logits) & 15) == 0)
        k = add_aligned_pairs<P, Q>(t, p, q, row_p, row_q, &left);
    for (; k < p.last; k += blockDim.x) {
        const int64_t present = p.vocab - (int64_t)k * SB_LEAF;
        leaf_words<P> x;
        leaf_words<Q> y;
        load_any<P>(x, p.logits + (int64_t)k * P_BYTES, present);
        load_any<Q>(y, q.logits + (int64_t)k * Q_BYTES, present);
        add_pair<P, Q>(t, x, y, row_p, row_q, &left);
    }
    return left;
}

/* Sums the calling thread's pairs of a part, by both loops. */
template <int P, int Q>
SB_DET void sum_pairs(sb_divergence *s, const part_of_row &p, const part_of_row &q,
                      const sb_row &row_p, const sb_row &row_q)
{
    const leaf_row c_p = { row_p.c, row_p.k64 }, c_q = { row_q.c, row_q.k64 };
    thread_divergence t;
    t.p = t.q = NO_BASE;
    sb_kl_init(&t.s, row_p.c, row_q.c);
    const bool left = add_pairs<P, Q>(&t, p, q, c_p, c_q);
    *s = t.s;
    if (left) {
        sb_divergence into = t.s; /* whose address may be taken */
        add_left_pairs<P, Q, false>(&into, p, q, row_p, row_q, p.first + (int)threadIdx.x,
                                    (int)blockDim.x);
        *s = into;
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
    if (is_refused(a.q, number)) {
        mine->p.fate = ROW_REFUSED;
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
        if (a.in.kept || a.q.kept) {
            sb_divergence into; /* whose address may be taken */
            sb_kl_init(&into, mine.p.row.c, mine.q.row.c);
            add_kept_pairs<P, Q>(&into, &a, mine.p.number, part, part_q, mine.p.row, mine.q.row);
            *s = into;
        } else {
            sum_pairs<P, Q>(s, part, part_q, mine.p.row, mine.q.row);
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

/* ---- many rows, with looked up terms ------------------------------------------------------ */

#define KL_TERMS 20 /* of a pair's 32 terms, how many are looked up: measured */

/* The policy of kl_bf16_bf16_table: see groups.cuh. Both batches have one temperature. kl_finish
 * finishes all rows. */
struct kl_groups {
    typedef sb_cuda_kl_args args;
    typedef sb_divergence state;
    static constexpr int THREADS = SB_CUDA_KL_GROUP, SLOTS = 8;
    static constexpr int GROUPS = SB_CUDA_KL_BLOCK / SB_CUDA_KL_GROUP;
    static constexpr size_t MEMORY = SB_CUDA_KL_SLOTS - SB_CUDA_BF16_TABLE_GAP;
    static constexpr int BYTES = SB_LEAF * 2; /* of a leaf */
    struct item {
        const char *p, *q; /* logits */
        int64_t place;     /* of the state, in in.states */
        int32_t first, last;
    };
    struct ahead { /* the thread's next pair, on its way to its slot */
        const char *p, *q;
        int trips;
    };
    SB_DET void find(const args &a, item *to, int64_t number)
    {
        const int64_t cut = number - a.in.single;
        const int64_t row = cut < 0 ? number : a.in.single + cut / a.in.split;
        const int piece = cut < 0 ? 0 : (int)(cut % a.in.split);
        row_pair rows;
        set_row_pair(a, &rows, row, piece == 0);
        to->place = number;
        to->first = (int)(piece * a.in.piece);
        to->last = leaves_in(a.in.vocab);
        if (cut >= 0) to->last = min(to->first + (int)a.in.piece, to->last);
        to->p = rows.p.logits;
        to->q = rows.q.logits;
        if (rows.p.fate == ROW_ACTIVE) return;
        to->last = to->first;
        if (piece == 0) kl_rows<SB_CUDA_BF16, SB_CUDA_BF16>::skip(a, rows, row);
    }
    static_assert(SB_CUDA_KL_SLOTS + SB_CUDA_KL_BLOCK * 2 * BYTES <= TABLE_NEGATIVE, "the gap");
    SB_DET shared_address slot()
    {
        return address_of(staging) + SB_CUDA_KL_SLOTS + threadIdx.x / WARP * (2 * WARP * BYTES) +
               threadIdx.x % WARP * 16;
    }
    SB_DET void fetch(const ahead &at, shared_address to)
    {
        fetch_leaf<BYTES>(to, at.p);
        fetch_leaf<BYTES>(to + WARP * BYTES, at.q);
    }
    SB_DET void begin(ahead *to, const args &a, const item &it)
    {
        const int first = it.first + threadIdx.x % THREADS;
        to->trips = trips_of(first, min(it.last, (int)(a.in.vocab / SB_LEAF)), THREADS);
        to->p = it.p + (int64_t)first * BYTES;
        to->q = it.q + (int64_t)first * BYTES;
        if (to->trips > 0) fetch(*to, slot());
    }
    SB_DET void sum(state *s, ahead *next, const args &a, const item &it, const item *after,
                    float c, shared_address table)
    {
        const leaf_row row = { c, a.in.row.k64 };
        const shared_address from = slot();
        thread_divergence t;
        bool left = false;
        t.p = t.q = NO_BASE;
        sb_kl_init(&t.s, c, c);
        int trips = next->trips;
        if (trips == 0 && after) begin(next, a, *after);
        while (trips > 0) {
            leaf_words<SB_CUDA_BF16> x, y;
            wait_for_all_copies();
            load_staged<SB_CUDA_BF16>(x, from);
            load_staged<SB_CUDA_BF16>(y, from + WARP * BYTES);
            /* the slot is free for the next pair */
            if (--trips > 0) {
                next->p += THREADS * BYTES;
                next->q += THREADS * BYTES;
                fetch(*next, from);
            } else if (after) {
                begin(next, a, *after);
            }
            add_pair<SB_CUDA_BF16, SB_CUDA_BF16, KL_TERMS>(&t, x, y, row, row, &left, table);
        }
        *s = t.s;
        if (left || has_ragged_leaf(it.first, it.last, a.in.vocab, THREADS)) {
            const part_of_row p = { it.p, a.in.vocab, it.first, it.last };
            const part_of_row q = { it.q, a.in.vocab, it.first, it.last };
            sb_divergence into = t.s; /* whose address may be taken */
            add_left_pairs<SB_CUDA_BF16, SB_CUDA_BF16, true>(
                &into, p, q, a.in.row, a.q.row, it.first + (int)(threadIdx.x % THREADS), THREADS);
            *s = into;
        }
    }
    SB_DET state *place_of(const args &a, const item &it)
    {
        return (state *)a.in.states + it.place;
    }
};

extern "C" __global__ void __launch_bounds__(SB_CUDA_KL_BLOCK, 1)
    kl_bf16_bf16_table(const __grid_constant__ sb_cuda_kl_args a)
{
    group_rows<kl_groups>(a);
}

/* Merges the pieces of a row and finishes it. */
extern "C" __global__ void __launch_bounds__(256)
    kl_finish(const __grid_constant__ sb_cuda_kl_args a)
{
    const int64_t item = warp_item();
    if (item >= a.in.work) return;
    const span_of_states span = states_of(a.in, item);
    const sb_divergence *pieces = (const sb_divergence *)a.in.states + span.first;
    if (pieces[0].p.c == 0) return; /* the row's token is written */
    sb_divergence s;
    merge_pieces(&s, pieces, span.count);
    if (threadIdx.x % WARP == 0) write_token(a, row_at(a.in, item), sb_kl_finish(&s));
}
