/* isa_scalar.c - the scalar path: the contract as it is written, one leaf at a time. It serves
 * processors without AVX2, and it is the reference that the other paths are compared with. */
#include <string.h>

#include "cpu/isa.h"
#include "cpu/vector_gradient.h"
#include "cpu/vector_kl.h"
#include "cpu/vector_sums.h"
#include "det/convert.h"
#include "det/moments.h"

static float load_f32(const void *logits, int64_t i)
{
    float x;
    memcpy(&x, (const char *)logits + i * 4, 4);
    return x;
}

static uint16_t load_u16(const void *logits, int64_t i)
{
    uint16_t b;
    memcpy(&b, (const char *)logits + i * 2, 2);
    return b;
}

static float load_f16(const void *logits, int64_t i) { return sb_from_f16(load_u16(logits, i)); }
static float load_bf16(const void *logits, int64_t i) { return sb_from_bf16(load_u16(logits, i)); }

typedef float (*scalar_load)(const void *logits, int64_t i);

/* Loads the logits of a leaf. Past the end of the row, they are absent (-inf). */
static inline void load_leaf(float x[SB_LEAF], const void *logits, int64_t first, int64_t n,
                             scalar_load load)
{
    for (int64_t i = 0; i < SB_LEAF; i++)
        x[i] = first + i < n ? load(logits, first + i) : sb_float(SB_ABSENT_BITS);
}

static inline void reduce(sb_state *state, const void *logits, int64_t n, const sb_row *row,
                          scalar_load load)
{
    for (int64_t first = 0; first < n; first += SB_LEAF) {
        float x[SB_LEAF];
        sb_leaf leaf;
        load_leaf(x, logits, first, n, load);
        switch (sb_leaf_of(&leaf, x, row)) {
        case SB_LEAF_PRESENT: sb_state_add(state, &leaf); break;
        case SB_LEAF_POISON: sb_state_poison(state); return;
        case SB_LEAF_ABSENT: break;
        }
    }
}

static inline void reduce_moments(sb_moments *m, const void *logits, int64_t n, const sb_row *row,
                                  scalar_load load)
{
    if (m->sum.J == SB_J_POISON) return;
    for (int64_t first = 0; first < n; first += SB_LEAF) {
        float x[SB_LEAF];
        sb_moment_leaf leaf;
        load_leaf(x, logits, first, n, load);
        switch (sb_moment_leaf_of(&leaf, x, row)) {
        case SB_LEAF_PRESENT: sb_moments_add(m, &leaf); break;
        case SB_LEAF_POISON: sb_moments_poison(m); return;
        case SB_LEAF_ABSENT: break;
        }
    }
}

static void reduce_f32(sb_state *state, const void *logits, int64_t n, const sb_row *row)
{
    reduce(state, logits, n, row, load_f32);
}

static void reduce_f16(sb_state *state, const void *logits, int64_t n, const sb_row *row)
{
    reduce(state, logits, n, row, load_f16);
}

static void reduce_bf16(sb_state *state, const void *logits, int64_t n, const sb_row *row)
{
    reduce(state, logits, n, row, load_bf16);
}

static void moments_f32(sb_moments *m, const void *logits, int64_t n, const sb_row *row)
{
    reduce_moments(m, logits, n, row, load_f32);
}

static void moments_f16(sb_moments *m, const void *logits, int64_t n, const sb_row *row)
{
    reduce_moments(m, logits, n, row, load_f16);
}

static void moments_bf16(sb_moments *m, const void *logits, int64_t n, const sb_row *row)
{
    reduce_moments(m, logits, n, row, load_bf16);
}

static int available(void) { return 1; }

const sb_isa sb_isa_scalar = { "scalar",    available,   reduce_f32,  reduce_f16,
                               reduce_bf16, moments_f32, moments_f16, moments_bf16,
                               gradient,    kl,          sums };
