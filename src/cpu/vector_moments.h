/* vector_moments.h - the second pass over a block when moments are wanted, too. Each lane computes
 * exactly the operations of det/moments.h. */

/* As leaf_terms; *h receives the terms multiplied by their distances from A in octaves. */
static inline __attribute__((always_inline)) vf leaf_moments(const block_head *head, const void *x,
                                                             int k, vf c, vf *h)
{
    const vf thr = vf_splat(head->thr[k]), magic = vf_splat(head->magic[k]);
    const vf minus_A = vf_sub(magic, vf_splat(SB_INT_MAGIC)); /* exact */
    const vf y = clamped(x, SB_LEAF * k, thr);
    const vf v = terms_of(y, c, magic);
    *h = vf_mul(v, vf_fma(y, c, minus_A));
#if HALVES == 2
    const vf y2 = clamped(x, SB_LEAF * k + W, thr);
    const vf v2 = terms_of(y2, c, magic);
    *h = vf_add(*h, vf_mul(v2, vf_fma(y2, c, minus_A)));
    return vf_add(v, v2);
#else
    return v;
#endif
}

/* w = M << (a & 31) and q = U << (a & 31) each consist of two 32-bit digits; the upper digit of q
 * is signed. A leaf that starts in digit j adds its lower digits to digit j of the window and its
 * upper ones to digit j + 1. Requires: rise_over was called with a. The choice of the 64-bit lane
 * that receives a leaf has no effect on the sum. */
static inline void add_moments(block_state *b, vi M, vi U, vi a)
{
    const int32_t J = (int32_t)b->state->J;
    const vi up = vi_and(a, vi_splat(31)), down = vi_sub(vi_splat(32), up);
    const vi j = vi_shr(a, vi_splat(5));
    const vi lo = vi_shl(M, up), hi = vi_shr(M, down); /* a shift by 32 gives 0 */
    const vi qlo = vi_shl(U, up), qhi = vi_sar(U, down);
    /* The height above the lanes' reference; not negative if the window has a digit of the leaf. */
    const vi e = vi_add(vi_sub(a, vi_splat(32 * J)), vi_splat(BACK));
    const vq low = vq_splat(0xffffffff);

    for (int k = 0; k < 3; k++) {
        const vi here = vi_splat(J - 1 + k), below = vi_splat(J - 2 + k);
        const vi w = vi_or(vi_where_equal(lo, j, here), vi_where_equal(hi, j, below));
        const vi top = vi_where_equal(qhi, j, below), sign = vi_sar(top, vi_splat(31));
        const vi q = vi_or(vi_where_equal(qlo, j, here), top);
        const vq w_odd = vq_shr32(w);
        b->l[k] = vq_add(b->l[k], vq_add(vq_and(w, low), w_odd));
        b->g[k] = vq_add(b->g[k], vq_add(vq_mul32(w, e), vq_mul32(w_odd, vq_shr32(e))));
        b->g[k] = vq_add(b->g[k], vq_add(vi_pair_low(q, sign), vi_pair_high(q, sign)));
    }
}

/* As add_terms, with moments. */
static inline __attribute__((always_inline)) int add_terms_and_moments(block_state *b,
                                                                       const block_head *head,
                                                                       const void *x)
{
    const vf c = vf_splat(b->row->c);
    vf v[W], h[W], s;
    vi a, U;

    for (int k = 0; k < W; k++) v[k] = leaf_moments(head, x, k, c, &h[k]);
    s = fold_add(v);
    if (!head->checked && vf_unordered(s, s)) return 0;
    a = places_of(head);
    U = vi_zero_where(vf_round_vi(vf_mul(fold_add(h), vf_splat(0x1p+24f))), head->absent);
    rise_over(b, a);
    add_moments(b, integers_of(head, s), U, a);
    return 1;
}

/* Adds the largest logit of all blocks to the moments. A lane that has met none holds -inf. */
static inline void take_best(block_state *b)
{
    float best[W];
    memcpy(best, &b->best, sizeof best);
    for (int k = 0; k < W; k++) {
        uint32_t key = sb_order_key(best[k]);
        if (!sb_is_absent(best[k]) && key > b->moments->best) b->moments->best = key;
    }
}
