/* vector_kl.h - adds the leaves of two rows to the state of their divergence, one pair at a time,
 * with the arithmetic of det/kl.h. Each instruction-set file includes it and so compiles it for its
 * own instructions; the compiler vectorises the loop over a leaf. */
#ifndef SB_CPU_KL_H
#define SB_CPU_KL_H

#include <string.h>

#include "det/kl.h"

static void kl(sb_divergence *s, const float *p, const float *q, int64_t n, const sb_row *row_p,
               const sb_row *row_q)
{
    for (int64_t first = 0; first < n; first += SB_LEAF) {
        const size_t here = (size_t)(n - first < SB_LEAF ? n - first : SB_LEAF);
        float xp[SB_LEAF], xq[SB_LEAF];
        for (size_t i = here; i < SB_LEAF; i++) xp[i] = xq[i] = sb_float(SB_ABSENT_BITS);
        memcpy(xp, p + first, here * sizeof *xp);
        memcpy(xq, q + first, here * sizeof *xq);
        sb_kl_add_leaves(s, xp, xq, row_p, row_q);
    }
}

#endif
