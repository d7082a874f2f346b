/* cpu_moments.h - leaves with their moments into a row's state, one leaf at a time, by the text of
 * det/moments.h. Each instruction set includes it, and so has it compiled for its own: what the
 * compiler makes vectors of is the loops over a leaf. */
#ifndef SB_CPU_MOMENTS_H
#define SB_CPU_MOMENTS_H

#include <string.h>

#include "det/convert.h"
#include "det/moments.h"
#include "samebits.h"

static inline __attribute__((always_inline)) void reduce_moments(sb_moments *m, const void *logits,
                                                                 int64_t n, const sb_row *row,
                                                                 int dtype)
{
    const int64_t size = dtype == SB_F32 ? 4 : 2;
    if (m->sum.J == SB_J_POISON) return;
    for (int64_t first = 0; first < n; first += SB_LEAF) {
        const int64_t here = n - first < SB_LEAF ? n - first : SB_LEAF;
        const char *at = (const char *)logits + first * size;
        float x[SB_LEAF];
        uint16_t halves[SB_LEAF];
        sb_moment_leaf leaf;
        if (dtype == SB_F32) {
            memcpy(x, at, (size_t)(here * 4));
        } else {
            memcpy(halves, at, (size_t)(here * 2));
            for (int64_t i = here; i < SB_LEAF; i++) halves[i] = 0;
            for (int i = 0; i < SB_LEAF; i++)
                x[i] = dtype == SB_F16 ? sb_from_f16(halves[i]) : sb_from_bf16(halves[i]);
        }
        for (int64_t i = here; i < SB_LEAF; i++) x[i] = sb_float(0xff800000u);
        switch (sb_moment_leaf_of(&leaf, x, row)) {
        case SB_LEAF_PRESENT: sb_moments_add(m, &leaf); break;
        case SB_LEAF_POISON: sb_moments_poison(m); return;
        case SB_LEAF_ABSENT: break;
        }
    }
}

static void moments_f32(sb_moments *m, const void *logits, int64_t n, const sb_row *row)
{
    reduce_moments(m, logits, n, row, SB_F32);
}

static void moments_f16(sb_moments *m, const void *logits, int64_t n, const sb_row *row)
{
    reduce_moments(m, logits, n, row, SB_F16);
}

static void moments_bf16(sb_moments *m, const void *logits, int64_t n, const sb_row *row)
{
    reduce_moments(m, logits, n, row, SB_BF16);
}

#endif
