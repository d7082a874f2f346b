/* cpu_block.h - the leaf and the accumulator over W leaves at once, W the lanes of a vector of
 * floats.
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
    sb_state *state; /* J, and the digits that were flushed */
    vq l[3];         /* lanes' digits of the same window */
    const sb_row *row;
} block_state;

static inline void flush(block_state *b)
{
    for (int k = 0; k < 3; k++) {
        uint64_t lane[W / 2];
        memcpy(lane, &b->l[k], sizeof lane);
        for (int i = 0; i < W / 2; i++) b->state->l[k] += lane[i];
        b->l[k] = vq_zero();
    }
}

static inline void rise_to(block_state *b, uint32_t J)
{
    if (J <= b->state->J) return;
    flush(b);
    sb_state_rise(b->state, J);
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
        float A;
        if (!(wide >> k & 1)) continue;
        /* A leaf that starts 3 digits below the window adds nothing: finfo.min used as a mask. */
        A = sb_leaf_octave(sb_clamp(m[k], b->row->lim), b->row->c);
        if (((uint32_t)((int32_t)A + SB_BIAS) >> 5) + 2 < b->state->J) continue;
        memcpy(x, (const char *)logits + sizeof x * (size_t)k, sizeof x);
        if (sb_leaf_of(&leaf, x, b->row) == SB_LEAF_PRESENT) sb_state_add(b->state, &leaf);
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
                                                           const void *logits, vector_load load)
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

/* W terms of a leaf. */
static inline __attribute__((always_inline)) vf terms_of(vf x, vf thr, vf c, vf magic)
{
    vf y = vf_max(thr, x); /* x, if that is NaN */
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
    vf low = terms_of(vf_load_f32(x, SB_LEAF * k), thr, c, magic);
#if HALVES == 2
    return vf_add(low, terms_of(vf_load_f32(x, SB_LEAF * k + W), thr, c, magic));
#else
    return low;
#endif
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
    M = vi_zero_where(vf_to_vi(vf_mul(s, vf_splat(0x1p+24f))), head->absent);
    a = vi_zero_where(vi_add(vf_to_vi(head->A), vi_splat(SB_BIAS)), head->absent);

    if (vi_not_below(a, vi_splat((int32_t)(32 * (b->state->J + 1)))))
        rise_to(b, (uint32_t)vi_largest(a) >> 5);
    first = vi_sub(vi_splat((int32_t)(32 * b->state->J)), a); /* 32 - d */
    add_digits(b, vi_low_half(M), vi_low_half(first));
    add_digits(b, vi_high_half(M), vi_high_half(first));
    return 1;
}

/* The first pass runs a block ahead, so that the processor always has independent work at hand. */
static inline __attribute__((always_inline)) int add_blocks(block_state *b, const void *logits,
                                                            int64_t blocks, vector_load load,
                                                            int itemsize)
{
    block_head heads[2];
    const char *at = logits;
    if (blocks == 0) return 1;
    if (!read_head(b, &heads[0], at, load)) return 0;
    for (int64_t i = 0; i < blocks; i++, at += BLOCK * itemsize) {
        if (i + 1 < blocks && !read_head(b, &heads[(i + 1) & 1], at + BLOCK * itemsize, load))
            return 0;
        if (!add_terms(b, &heads[i & 1], load == vf_load_f32 ? (const void *)at : heads[i & 1].x))
            return 0;
    }
    return 1;
}

static inline __attribute__((always_inline)) void reduce(sb_state *state, const void *logits,
                                                         int64_t n, const sb_row *row,
                                                         vector_load load, int itemsize,
                                                         float (*load_one)(const void *, int64_t))
{
    block_state b = { state, { vq_zero(), vq_zero(), vq_zero() }, row };
    int64_t done = n / BLOCK * BLOCK;
    int fine;

    if (state->J == SB_J_POISON) return;
    fine = add_blocks(&b, logits, n / BLOCK, load, itemsize);
    if (fine && done < n) {
        float last[BLOCK];
        for (int k = 0; k < BLOCK; k++)
            last[k] = done + k < n ? load_one(logits, done + k) : -__builtin_inff();
        fine = add_blocks(&b, last, 1, vf_load_f32, 4);
    }
    flush(&b);
    if (!fine) sb_state_poison(state);
}

static float one_f32(const void *logits, int64_t i)
{
    float x;
    memcpy(&x, (const char *)logits + i * 4, 4);
    return x;
}

static float one_f16(const void *logits, int64_t i)
{
    uint16_t x;
    memcpy(&x, (const char *)logits + i * 2, 2);
    return sb_from_f16(x);
}

static float one_bf16(const void *logits, int64_t i)
{
    uint16_t x;
    memcpy(&x, (const char *)logits + i * 2, 2);
    return sb_from_bf16(x);
}

static void reduce_f32(sb_state *state, const void *logits, int64_t n, const sb_row *row)
{
    reduce(state, logits, n, row, vf_load_f32, 4, one_f32);
}

static void reduce_f16(sb_state *state, const void *logits, int64_t n, const sb_row *row)
{
    reduce(state, logits, n, row, vf_load_f16, 2, one_f16);
}

static void reduce_bf16(sb_state *state, const void *logits, int64_t n, const sb_row *row)
{
    reduce(state, logits, n, row, vf_load_bf16, 2, one_bf16);
}
