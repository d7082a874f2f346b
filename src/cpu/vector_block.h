/* vector_block.h - the leaf and the accumulator over W leaves at once, W the lanes of a vector of
 * floats. With vector_moments.h and vector_rows.h it is the path of an instruction set.
 *
 * Included by cpu_avx2.c and cpu_avx512.c after they define, for their instruction set:
 *
 *   W                      lanes: 8 or 16
 *   vf, vi, vq             vectors of W floats, W int32 and W / 2 int64
 *   HALVES                 vectors of a leaf: 16 / W
 *   vf_*, vi_*, vq_*       one instruction each, as named
 *   vf_load_f32/f16/bf16   W logits from anywhere, as fp32
 *   fold_max, fold_add     of W vectors, one for each leaf, one vector whose lane k is leaf k's
 *                          halving tree: lane i with lane i + W/2, then + W/4 ... + 1
 *
 * Each lane computes what det/leaf.h computes, operation for operation. What a vector can't do in
 * the same way (wide leaves) goes to det/leaf.h itself. The sum is exact integers, so that lanes
 * may add up on their own and meet at the end.
 *
 * A block is W leaves, 16 W logits. Two passes over it: the leaves' maxima, folded into one
 * vector, so that A and thr are computed for W leaves at once; then the terms, folded into one
 * vector of sums. */

#define BLOCK (SB_LEAF * W)

typedef struct block_state {
    sb_state *state;     /* J, and the digits that were flushed */
    sb_moments *moments; /* the same with its moments, where they are asked for, or null */
    const sb_row *row;
    vq l[3]; /* lanes' digits of the same window */
    vq g[3]; /* their moments about BACK octaves below the state's reference */
    vf best; /* the largest logits */
} block_state;

#define BACK 64 /* a leaf that adds to the window is never further below the reference */

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

/* Adds M[k] * 2^(a[k] - ...) for half of the lanes. With d = a - 32 (J - 1), digit k of M << d is
 * bits 32 (k + 1) - d and up of M << 32: shifts of 64 and more, negative ones taken as unsigned
 * among them, give the 0 that such digits hold. */
static inline void add_digits(block_state *b, vq M, vq first)
{
    vq top = vq_shl32(M), mask = vq_splat(0xffffffff), step = vq_splat(32);
    for (int k = 0; k < 3; k++) {
        b->l[k] = vq_add(b->l[k], vq_and(vq_shr(top, first), mask));
        first = vq_add(first, step);
    }
}

/* Wide leaves, one by one. m: the leaves' largest logits; logits: the block's, as fp32. */
static inline void add_wide(block_state *b, const float *m, uint32_t wide, const void *logits)
{
    flush(b);
    for (int k = 0; k < W; k++) {
        float x[SB_LEAF];
        sb_leaf leaf;
        sb_moment_leaf with;
        float A;
        if (!(wide >> k & 1)) continue;
        /* A leaf that starts 3 digits below the window adds nothing: finfo.min used as a mask. */
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

/* What the first pass over a block leaves for the second. */
typedef struct block_head {
    float thr[W] __attribute__((aligned(64)));   /* of each leaf */
    float magic[W] __attribute__((aligned(64))); /* SB_INT_MAGIC - A */
    vf A;
    uint32_t absent; /* leaves that add nothing in the second pass, a bit each */
    int checked;     /* no logit is NaN; else the second pass is to see */
    float x[BLOCK] __attribute__((aligned(64))); /* the logits as fp32, where they were not */
} block_head;

/* A vector of logits; kept for the second pass if that saves converting them again. */
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

/* First pass: the maxima, and from them what a leaf's terms need. Adds the wide leaves itself.
 * False: the block holds a NaN or +inf.
 *
 * Vector max loses NaN. In 16-bit logits a NaN is left to the second pass: its lowest 9 bits as
 * fp32 are 0, so that scaling does not touch it and the leaf's sum is NaN. */
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

/* W logits of a leaf, clamped; NaN stays. */
static inline vf clamped(const void *x, int i, vf thr) { return vf_max(thr, vf_load_f32(x, i)); }

/* Their terms. */
static inline __attribute__((always_inline)) vf terms_of(vf y, vf c, vf magic)
{
    vf z = vf_fma(y, c, magic);
    vf r = vf_fms(y, c, vf_sub(z, magic));
    vf p = SB_EXP2_HORNER(vf_fma, vf_splat, r);
    return vi_as_vf(vi_add(vf_as_vi(p), vi_shl23(vf_as_vi(z))));
}

/* Leaf k's terms, lanes i and i + W added where a leaf has more than W: its tree's first step. */
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

/* Leaves' sums as integers, and their places: 0 where a leaf adds nothing. */
static inline vi integers_of(const block_head *head, vf s)
{
    return vi_zero_where(vf_to_vi(vf_mul(s, vf_splat(0x1p+24f))), head->absent);
}

static inline vi places_of(const block_head *head)
{
    return vi_zero_where(vi_add(vf_to_vi(head->A), vi_splat(SB_BIAS)), head->absent);
}

/* Moves the window up to where all leaves fit. */
static inline void rise_over(block_state *b, vi a)
{
    if (vi_not_below(a, vi_splat((int32_t)(32 * (b->state->J + 1)))))
        rise_to(b, (uint32_t)vi_largest(a) >> 5);
}

/* Second pass: the terms, their trees, and the sums into the window. x: the logits as fp32. False:
 * one is NaN. */
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
