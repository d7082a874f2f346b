/* cpu_block.h - the leaf and the accumulator over W leaves at once, W the lanes of a vector of floats.
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
 * Each lane computes what det/leaf.h computes, operation for operation. What a vector can't do in the
 * same way (wide leaves) goes to det/leaf.h itself. The sum is exact integers, so that lanes may add
 * up on their own and meet at the end.
 *
 * A block is W leaves, 16 W logits. Two passes over it: the leaves' maxima, folded into one vector, so
 * that A and thr are computed for W leaves at once; then the terms, folded into one vector of sums. */

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
 * bits 32 (k + 1) - d and up of M << 32: shifts of 64 and more, negative ones taken as unsigned among
 * them, give the 0 that such digits hold. */
static inline void add_digits(block_state *b, vq M, vq first)
{
    vq top = vq_shl32(M), mask = vq_splat(0xffffffff), step = vq_splat(32);
    for (int k = 0; k < 3; k++) {
        b->l[k] = vq_add(b->l[k], vq_and(vq_shr(top, first), mask));
        first = vq_add(first, step);
    }
}

/* Wide leaves, one by one. m: the leaves' largest logits; load gives the block's logits. */
static inline void add_wide(block_state *b, const float *m, uint32_t wide, const float *logits)
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
        memcpy(x, logits + SB_LEAF * k, sizeof x);
        if (sb_leaf_of(&leaf, x, b->row) == SB_LEAF_PRESENT) sb_state_add(b->state, &leaf);
    }
}

typedef vf (*vector_load)(const void *logits, int64_t i);

/* One block. False: it holds a NaN or +inf. */
static inline __attribute__((always_inline)) int add_block(block_state *b, const void *logits,
                                                           vector_load load)
{
    const vf c = vf_splat(b->row->c), magic = vf_splat(SB_INT_MAGIC),
             even = vf_splat(SB_EVEN_MAGIC), absent_m = vf_splat(-__builtin_inff());
    float thrs[W] __attribute__((aligned(64))), magics[W] __attribute__((aligned(64)));
    vf v[W], m, A, thr;
    uint32_t nan, absent, wide;
    vi a, M;

    /* The maxima. Vector max loses NaN: it is looked for apart. */
    nan = 0;
    for (int k = 0; k < W; k++) {
        vf x = load(logits, SB_LEAF * k);
#if HALVES == 2
        vf y = load(logits, SB_LEAF * k + W);
        nan |= vf_unordered(x, y);
        v[k] = vf_max(x, y);
#else
        nan |= vf_unordered(x, x);
        v[k] = x;
#endif
    }
    if (nan) return 0;
    m = fold_max(v);

    absent = vf_equal(m, absent_m);
    A = vf_sub(vf_fma(vf_zero_where(m, absent), c, even), even);
    wide = vf_not_below(A, vf_splat(SB_WIDE));
    if (wide) {
        float each[W], x[BLOCK];
        memcpy(each, &m, sizeof each);
        for (int k = 0; k < W; k++)
            if (sb_is_poison(each[k])) return 0;
        for (int i = 0; i < BLOCK; i += W) {
            vf part = load(logits, i);
            memcpy(x + i, &part, sizeof part);
        }
        add_wide(b, each, wide, x);
        absent |= wide; /* done: nothing more from these lanes */
        if (absent == (uint32_t)((1ull << W) - 1)) return 1;
        A = vf_zero_where(A, wide);
        m = vf_zero_where(m, wide);
    }

    /* thr is rounded to bf16, down. */
    thr = vf_bf16_floor(vf_sub(vf_zero_where(m, absent), vf_splat(b->row->k64)));
    vf_store(thrs, thr);
    vf_store(magics, vf_sub(magic, A));

    /* The terms. */
    for (int k = 0; k < W; k++) {
        const vf low = vf_splat(thrs[k]), base = vf_splat(magics[k]);
        vf term[HALVES];
        for (int h = 0; h < HALVES; h++) {
            vf y = vf_max(load(logits, SB_LEAF * k + W * h), low);
            vf z = vf_fma(y, c, base);
            vf n = vf_sub(z, base);
            vf r = vf_fms(y, c, n);
            vf p = SB_EXP2_HORNER(vf_fma, vf_splat, r);
            term[h] = vi_as_vf(vi_add(vf_as_vi(p), vi_shl23(vf_as_vi(z))));
        }
#if HALVES == 2
        v[k] = vf_add(term[0], term[1]);
#else
        v[k] = term[0];
#endif
    }
    M = vi_zero_where(vf_to_vi(vf_mul(fold_add(v), vf_splat(0x1p+24f))), absent);
    a = vi_zero_where(vi_add(vf_to_vi(A), vi_splat(SB_BIAS)), absent);

    {
        int32_t over = (int32_t)(32 * (b->state->J + 1));
        vi first;
        if (vi_not_below(a, vi_splat(over))) rise_to(b, (uint32_t)vi_largest(a) >> 5);
        first = vi_sub(vi_splat((int32_t)(32 * b->state->J)), a); /* 32 - d */
        add_digits(b, vi_low_half(M), vi_low_half(first));
        add_digits(b, vi_high_half(M), vi_high_half(first));
    }
    return 1;
}

static inline __attribute__((always_inline)) void reduce(sb_state *state, const void *logits,
                                                         int64_t n, const sb_row *row,
                                                         vector_load load, int itemsize,
                                                         float (*load_one)(const void *, int64_t))
{
    block_state b = { state, { vq_zero(), vq_zero(), vq_zero() }, row };
    int64_t i = 0;
    int fine = 1;

    if (state->J == SB_J_POISON) return;
    for (; fine && n - i >= BLOCK; i += BLOCK)
        fine = add_block(&b, (const char *)logits + i * itemsize, load);
    if (fine && i < n) {
        float last[BLOCK];
        for (int k = 0; k < BLOCK; k++)
            last[k] = i + k < n ? load_one(logits, i + k) : -__builtin_inff();
        fine = add_block(&b, last, vf_load_f32);
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
