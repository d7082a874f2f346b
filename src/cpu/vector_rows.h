/* vector_rows.h - reduces a row, or a part of one, with the blocks of vector_block.h and
 * vector_moments.h: the functions that isa.h asks for. */

/* Adds whole blocks. The first pass runs one block ahead of the second, so that the processor
 * always has independent work. Returns 0 if a logit is NaN or +inf. */
static inline __attribute__((always_inline)) int add_blocks(block_state *b, const void *logits,
                                                            int64_t blocks, vector_load load,
                                                            int itemsize, int moments)
{
    block_head heads[2];
    const char *at = logits;
    if (blocks == 0) return 1;
    if (!read_head(b, &heads[0], at, load, moments)) return 0;
    for (int64_t i = 0; i < blocks; i++, at += BLOCK * itemsize) {
        const block_head *head = &heads[i & 1];
        const void *x = load == vf_load_f32 ? (const void *)at : head->x;
        if (i + 1 < blocks &&
            !read_head(b, &heads[(i + 1) & 1], at + BLOCK * itemsize, load, moments))
            return 0;
        if (!(moments ? add_terms_and_moments(b, head, x) : add_terms(b, head, x))) return 0;
    }
    return 1;
}

typedef float (*scalar_load)(const void *logits, int64_t i);

static inline __attribute__((always_inline)) int add_logits(block_state *b, const void *logits,
                                                            int64_t n, vector_load load,
                                                            int itemsize, scalar_load load_one,
                                                            int moments)
{
    int64_t done = n / BLOCK * BLOCK;
    float last[BLOCK];
    if (!add_blocks(b, logits, n / BLOCK, load, itemsize, moments)) return 0;
    if (done == n) return 1;
    for (int k = 0; k < BLOCK; k++)
        last[k] = done + k < n ? load_one(logits, done + k) : -__builtin_inff();
    return add_blocks(b, last, 1, vf_load_f32, 4, moments);
}

static inline __attribute__((always_inline)) void reduce(sb_state *state, const void *logits,
                                                         int64_t n, const sb_row *row,
                                                         vector_load load, int itemsize,
                                                         scalar_load load_one)
{
    block_state b = { .state = state, .row = row, .l = { vq_zero(), vq_zero(), vq_zero() } };
    int fine;
    if (state->J == SB_J_POISON) return;
    fine = add_logits(&b, logits, n, load, itemsize, load_one, 0);
    flush(&b);
    if (!fine) sb_state_poison(state);
}

static inline __attribute__((always_inline)) void reduce_moments(sb_moments *m, const void *logits,
                                                                 int64_t n, const sb_row *row,
                                                                 vector_load load, int itemsize,
                                                                 scalar_load load_one)
{
    block_state b = { .state = &m->sum,
                      .moments = m,
                      .row = row,
                      .l = { vq_zero(), vq_zero(), vq_zero() },
                      .g = { vq_zero(), vq_zero(), vq_zero() },
                      .best = vf_splat(-__builtin_inff()) };
    int fine;
    if (m->sum.J == SB_J_POISON) return;
    fine = add_logits(&b, logits, n, load, itemsize, load_one, 1);
    flush(&b);
    take_best(&b);
    if (!fine) sb_moments_poison(m);
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

static void moments_f32(sb_moments *m, const void *logits, int64_t n, const sb_row *row)
{
    reduce_moments(m, logits, n, row, vf_load_f32, 4, one_f32);
}

static void moments_f16(sb_moments *m, const void *logits, int64_t n, const sb_row *row)
{
    reduce_moments(m, logits, n, row, vf_load_f16, 2, one_f16);
}

static void moments_bf16(sb_moments *m, const void *logits, int64_t n, const sb_row *row)
{
    reduce_moments(m, logits, n, row, vf_load_bf16, 2, one_bf16);
}
