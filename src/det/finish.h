/* finish.h - from a row's sum and its target's logit to logprob and lse: once per row, in fp64.
 *
 * The target's term is taken through the same exp2 and log2 as the sum that contains it, so what is
 * common cancels exactly: a token that stands alone gets 0, and no logprob is above 0. */
#ifndef SB_DET_FINISH_H
#define SB_DET_FINISH_H

#include "accumulator.h"
#include "log2.h"

__extension__ typedef unsigned __int128 sb_u128;
__extension__ typedef __int128 sb_i128;

SB_DET int32_t sb_top128(sb_u128 t)
{
    uint64_t high = (uint64_t)(t >> 64);
    return high ? 64 + sb_top64(high) : sb_top64((uint64_t)t);
}

/* NaN rows: poisoned, or nothing present. */
SB_DET int sb_state_is_nan(const sb_state *s) { return s->J == SB_J_EMPTY || s->J == SB_J_POISON; }

/* log2 of the sum, its 53 highest bits taken. Requires: not sb_state_is_nan(s). */
SB_DET sb_lg sb_state_log2(const sb_state *s)
{
    sb_u128 t = (sb_u128)s->l[0] + ((sb_u128)s->l[1] << 32) + ((sb_u128)s->l[2] << 64);
    int32_t top = sb_top128(t);
    uint64_t m = (uint64_t)(top > 52 ? t >> (top - 52) : t << (52 - top));
    return sb_log2_parts(m & 0x000fffffffffffffu, top + 32 * ((int32_t)s->J - 1) - 24 - SB_BIAS);
}

/* log2 of the target's term. Requires: x finite. */
SB_DET sb_lg sb_target_log2(float x, const sb_row *row)
{
    float y = sb_clamp(x, row->lim);
    float z = sb_fma32(y, row->c, SB_INT_MAGIC);
    float n = z - SB_INT_MAGIC;
    float r = sb_fma32(y, row->c, -n);
    sb_lg lg = sb_log2((double)sb_exp2(r));
    lg.e += (int32_t)n;
    return lg;
}

SB_DET float sb_finish_logprob(const sb_state *s, float x, const sb_row *row)
{
    sb_lg sum, target;
    if (sb_state_is_nan(s)) return sb_float(SB_NAN_BITS);
    if (sb_is_absent(x)) return sb_float(0xff800000u);
    sum = sb_state_log2(s);
    target = sb_target_log2(x, row);
    return (float)(row->kappa * ((double)(target.e - sum.e) + (target.f - sum.f)));
}

SB_DET float sb_finish_lse(const sb_state *s, const sb_row *row)
{
    sb_lg sum;
    if (sb_state_is_nan(s)) return sb_float(SB_NAN_BITS);
    sum = sb_state_log2(s);
    return (float)(row->kappa * ((double)sum.e + sum.f));
}

#endif
