/* sum.h - the exact sum of a sequence's logprobs, rounded once.
 *
 * A finite logprob is 0, or a negative fp32 with a magnitude in [2^-54, 2^22), which is a multiple
 * of 2^-77. The sum of 2^24 of them fits in a signed 128-bit integer in steps of 2^-80. It is
 * exact, so the order of the additions cannot matter. */
#ifndef SB_DET_SUM_H
#define SB_DET_SUM_H

#include "finish.h"

#define SB_SUM_MAX 16777216 /* the number of terms that a sum has room for: 2^24 */

typedef struct sb_sum {
    sb_u128 magnitude; /* of the sum, which is not positive, in steps of 2^-80 */
    int32_t nan, inf;  /* whether a NaN or an infinity was added */
} sb_sum;

SB_DET void sb_sum_init(sb_sum *s)
{
    s->magnitude = 0;
    s->nan = s->inf = 0;
}

/* lp is a token logprob: 0, negative, -inf or NaN. */
SB_DET void sb_sum_add(sb_sum *s, float lp)
{
    uint32_t b = sb_bits32(lp) & 0x7fffffffu;
    if (b > SB_INF_BITS) s->nan = 1;
    else if (b == SB_INF_BITS) s->inf = 1;
    else if (b != 0) s->magnitude += (sb_u128)((b & 0x7fffffu) | 0x800000u) << ((b >> 23) - 70);
}

SB_DET float sb_sum_round(const sb_sum *s)
{
    uint32_t q;
    int32_t cut;
    if (s->nan) return sb_float(SB_NAN_BITS);
    if (s->inf) return sb_float(SB_ABSENT_BITS);
    if (s->magnitude == 0) return 0.0f;
    cut = sb_top128(s->magnitude) - 23; /* positive, because the sum is at least 2^-54 */
    q = (uint32_t)(s->magnitude >> cut);
    if (s->magnitude >> (cut - 1) & 1) {
        sb_u128 below = s->magnitude & (((sb_u128)1 << (cut - 1)) - 1);
        if (below != 0 || (q & 1)) q += 1;
    }
    return -((float)q * sb_float((uint32_t)(cut - 80 + 127) << 23));
}

#endif
