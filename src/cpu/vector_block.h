/* vector_block.h - the leaf and the accumulator for W leaves at once, where W is the number of
 * lanes in a vector of floats. Together with vector_moments.h and vector_rows.h it makes up the
 * path of an instruction set.
 *
 * isa_avx2.c and isa_avx512.c include it after they define, for their instruction set:
 *
 *   W                      lanes: 8 or 16
 *   vf, vi, vq             vectors of W floats, W int32 and W / 2 int64
 *   HALVES                 vectors per leaf: 16 / W
 *   vf_*, vi_*, vq_*       operations on them, most of them a single instruction
 *   vf_load_f32/f16/bf16   loads W logits, at any alignment, as fp32
 *   fold_max, fold_add     reduces W vectors, one for each leaf, to one vector whose lane k is the
 *                          halving tree of leaf k: lane i with lane i + W/2, then + W/4 ... + 1
 *
 * Each lane computes exactly the operations of det/leaf.h, in the same order. Wide leaves, for
 * which vectors can't do that, are passed to det/leaf.h itself. The sum consists of exact integers,
 * so lanes may accumulate separately and be added at the end.
 *
 * A block is W leaves, which is 16 W logits, and takes two passes. The first folds the maxima of
 * the leaves into one vector, so that A and thr are computed for W leaves at once. The second folds
 * the terms into one vector of sums. */

#define BLOCK (SB_LEAF * W)

typedef struct block_state {
    sb_state *state;     /* J, and the digits flushed so far */
    sb_moments *moments; /* the sb_moments that contains state, or null without moments */
    const sb_row *row;
    vq l[3]; /* the lanes' digits, in the same window as state */
    vq g[3]; /* the lanes' moments, about a point BACK octaves below the state's reference */
    vf best; /* the largest logits of the lanes */
} block_state;

#define BACK 64 /* a leaf that adds to the window is at most this far below the reference */

static inline uint64_t sum_of_lanes(vq v)
{
    uint64_t lane[W / 2], sum = 0;
    memcpy(lane, &v, sizeof lane);
    for (int i = 0; i < W / 2; i++) sum += lane[i];
    return sum;
}

static inline void flush(block_state *b)
{
    for (int k = 0; k < 3; k++) {
        uint64_t l = sum_of_lanes(b->l[k]);
        b->state->l[k] += l;
        b->l[k] = vq_zero();
        if (!b->moments) continue;
        b->moments->g[k] += (int64_t)(sum_of_lanes(b->g[k]) - BACK * l);
        b->g[k] = vq_zero();
    }
}

static inline void rise_to(block_state *b, uint32_t J)
{
    if (J <= b->state->J) return;
    flush(b);
    if (b->moments) sb_moments_rise(b->moments, J);
    else sb_state_rise(b->state, J);
}

/* Adds M[k] * 2^(a[k] - ...) for half of the lanes. With d = a - 32 (J - 1), digit k of M << d
 * starts at bit 32 (k + 1) - d of M << 32. A shift count of 64 or more, or a negative one, which
 * the instruction takes as a large unsigned number, gives 0; that is the value of such a digit. */
static inline void add_digits(block_state *b, vq M, vq first)
{
    vq top = vq_shl32(M), mask = vq_splat(0xffffffff), step = vq_splat(32);
    for (int k = 0; k < 3; k++) {
        b->l[k] = vq_add(b->l[k], vq_and(vq_shr(top, first), mask));
        first = vq_add(first, step);
    }
}

/* Adds wide leaves one by one. m holds the largest logit of each leaf, logits the block's logits as
 * fp32, and bit k of wide is set if leaf k is wide. */
static inline void add_wide(block_state *b, const float *m, uint32_t wide, const void *logits)
{
    flush(b);
    for (int k = 0; k < W; k++) {
        float x[SB_LEAF];
        sb_leaf leaf;
        sb_moment_leaf with;
        float A;
        if (!(wide >> k & 1)) continue;
        /* A leaf that starts 3 or more digits below J adds nothing. Skipping it here makes rows
         * that are masked with finfo.min fast. */
        A = sb_leaf_octave(sb_clamp(m[k], b->row->lim), b->row->c);
        if (((uint32_t)((int32_t)A + SB_BIAS) >> 5) + 2 < b->state->J) continue;
        memcpy(x, (const char *)logits + sizeof x * (size_t)k, sizeof x);
        if (b->moments) {
            if (sb_moment_leaf_of(&with, x, b->row) == SB_LEAF_PRESENT)
                sb_moments_add(b->moments, &with);
        } else if (sb_leaf_of(&leaf, x, b->row) == SB_LEAF_PRESENT) {
            sb_state_add(b->state, &leaf);
        }
    }
}

typedef vf (*vector_load)(const void *logits, int64_t i);

/* The results of the first pass over a block, which the second pass needs. */
typedef struct block_head {
    float thr[W] __attribute__((aligned(64)));   /* of each leaf */
    float magic[W] __attribute__((aligned(64))); /* SB_INT_MAGIC - A */
    vf A;
    uint32_t absent; /* one bit for each leaf that adds nothing in the second pass */
    int checked;     /* no logit is NaN; if 0, the second pass has to detect NaN */
    float x[BLOCK] __attribute__((aligned(64))); /* 16-bit logits, converted to fp32 */
} block_head;

/* Loads a vector of logits. Stores 16-bit logits as fp32 for the second pass, so that they are
 * converted only once. */
static inline __attribute__((always_inline)) vf load_keep(block_head *head, const void *logits,
                                                          int i, vector_load load)
{
    vf x = load(logits, i);
    if (load != vf_load_f32) vf_store(head->x + i, x);
    return x;
}

/* Whether any of a block's logits is NaN. */
static inline int has_nan(const float *x)
{
    uint32_t nan = 0;
    for (int i = 0; i < BLOCK; i += W) nan |= vf_unordered(vf_load_f32(x, i), vf_load_f32(x, i));
    return nan != 0;
}

/* The first pass: computes the maxima, and from them the values that the terms of each leaf need.
 * Adds wide leaves to the state at once. Returns 0 if it finds a NaN or +inf in the block.
 *
 * A vector max can lose a NaN. For fp32 logits this pass tests for NaN; for 16-bit logits it leaves
 * the test to the second pass. The lowest 9 bits of such a NaN are 0 as fp32, so scaling does not
 * change it and the sum of its leaf is NaN. */
static inline __attribute__((always_inline)) int read_head(block_state *b, block_head *head,
                                                           const void *logits, vector_load load,
                                                           int moments)
{
    const int early = load == vf_load_f32;
    const vf c = vf_splat(b->row->c), even = vf_splat(SB_EVEN_MAGIC);
    uint32_t nan = 0, wide;
    vf v[W], m, A;

    for (int k = 0; k < W; k++) {
        vf x = load_keep(head, logits, SB_LEAF * k, load);
#if HALVES == 2
        vf y = load_keep(head, logits, SB_LEAF * k + W, load);
        if (early) nan |= vf_unordered(x, y);
        v[k] = vf_max(x, y);
#else
        if (early) nan |= vf_unordered(x, x);
        v[k] = x;
#endif
    }
    if (nan) return 0;
    m = fold_max(v);
    if (moments) b->best = vf_max(b->best, m);

    head->absent = vf_equal(m, vf_splat(-__builtin_inff()));
    m = vf_zero_where(m, head->absent);
    A = vf_sub(vf_fma(m, c, even), even);
    wide = vf_not_below(A, vf_splat(SB_WIDE));
    head->checked = early || wide;
    if (wide) {
        float each[W];
        memcpy(each, &m, sizeof each);
        if (!early && has_nan(head->x)) return 0;
        for (int k = 0; k < W; k++)
            if (sb_is_poison(each[k])) return 0;
        add_wide(b, each, wide, early ? logits : head->x);
        head->absent |= wide;
        A = vf_zero_where(A, wide);
        m = vf_zero_where(m, wide);
    }
    vf_store(head->thr, vf_bf16_floor(vf_sub(m, vf_splat(b->row->k64))));
    vf_store(head->magic, vf_sub(vf_splat(SB_INT_MAGIC), A));
    head->A = A;
    return 1;
}

/* W logits of a leaf, raised to at least thr; a NaN stays NaN. */
static inline vf clamped(const void *x, int i, vf thr) { return vf_max(thr, vf_load_f32(x, i)); }

/* The terms of W logits, as sb_leaf_term. */
static inline __attribute__((always_inline)) vf terms_of(vf y, vf c, vf magic)
{
    vf z = vf_fma(y, c, magic);
    vf r = vf_fms(y, c, vf_sub(z, magic));
    vf p = SB_EXP2_HORNER(vf_fma, vf_splat, r);
    return vi_as_vf(vi_add(vf_as_vi(p), vi_shl23(vf_as_vi(z))));
}

/* The terms of leaf k. If a leaf takes two vectors, terms i and i + W are already added, which is
 * the first step of its tree. */
static inline __attribute__((always_inline)) vf leaf_terms(const block_head *head, const void *x,
                                                           int k, vf c)
{
    const vf thr = vf_splat(head->thr[k]), magic = vf_splat(head->magic[k]);
    vf low = terms_of(clamped(x, SB_LEAF * k, thr), c, magic);
#if HALVES == 2
    return vf_add(low, terms_of(clamped(x, SB_LEAF * k + W, thr), c, magic));
#else
    return low;
#endif
}

/* The sums of the leaves as integers (M), and below it their positions (a); both are 0 where a leaf
 * adds nothing. */
static inline vi integers_of(const block_head *head, vf s)
{
    return vi_zero_where(vf_to_vi(vf_mul(s, vf_splat(0x1p+24f))), head->absent);
}

static inline vi places_of(const block_head *head)
{
    return vi_zero_where(vi_add(vf_to_vi(head->A), vi_splat(SB_BIAS)), head->absent);
}

/* Moves the window up until all leaves at positions a fit in it. */
static inline void rise_over(block_state *b, vi a)
{
    if (vi_not_below(a, vi_splat((int32_t)(32 * (b->state->J + 1)))))
        rise_to(b, (uint32_t)vi_largest(a) >> 5);
}

/* The second pass: computes the terms and their trees, and adds the sums to the window. x holds the
 * logits as fp32. Returns 0 if one of them is NaN. */
static inline __attribute__((always_inline)) int add_terms(block_state *b, const block_head *head,
                                                           const void *x)
{
    const vf c = vf_splat(b->row->c);
    vf v[W], s;
    vi a, M, first;

    for (int k = 0; k < W; k++) v[k] = leaf_terms(head, x, k, c);
    s = fold_add(v);
    if (!head->checked && vf_unordered(s, s)) return 0;
    M = integers_of(head, s);
    a = places_of(head);

    rise_over(b, a);
    first = vi_sub(vi_splat((int32_t)(32 * b->state->J)), a); /* 32 - d */
    add_digits(b, vi_low_half(M), vi_low_half(first));
    add_digits(b, vi_high_half(M), vi_high_half(first));
    return 1;
}
