/* logits.h - random logits for the C checks: ordinary rows, and rows that reach every special case
 * (absent and wide leaves, ties, poison, a window that moves). */
#ifndef SB_LOGITS_H
#define SB_LOGITS_H

#include "det/float.h"
#include "spec.h"

enum { LOGIT_KINDS = 13 };

static inline float uniform(uint64_t *seed) { return (float)(next_random(seed) >> 40) * 0x1p-24f; }

/* kind is below LOGIT_KINDS, and the same for all logits of a row. */
static inline float make_logit(uint64_t *seed, int kind)
{
    float u = uniform(seed) + uniform(seed) + uniform(seed) + uniform(seed) - 2.0f;
    switch (kind) {
    case 0: return u * 5.0f;
    case 1: return u * 100.0f + 1000.0f;
    case 2: return next_random(seed) % 4 ? -__builtin_inff() : u * 5.0f;
    case 3: return next_random(seed) % 64 ? -3.4028234663852886e38f : u;
    case 4: return u * 3e6f;
    case 5: return next_random(seed) % 1000 ? u * 8.0f : 30.0f * (float)(next_random(seed) % 40);
    case 6: return sb_float((uint32_t)next_random(seed)); /* any encoding: NaN within some rows */
    case 7: {
        float x = sb_float((uint32_t)next_random(seed));
        return sb_is_poison(x) ? -0.0f : x;
    }
    case 8: return next_random(seed) % 3000 ? u : __builtin_inff();
    case 9: return -__builtin_inff();
    case 10: return next_random(seed) % 3000 ? u * 5.0f : sb_float(0xffc00000u);
    case 11: return next_random(seed) % 800 ? -__builtin_inff() : sb_float(0x7fc00000u);
    default: return u * 1e-3f - 4000.0f;
    }
}

#endif
