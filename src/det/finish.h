/* finish.h - computes the logprob and the lse from a row's sum and its target's logit, once per
 * row, in fp64.
 *
 * The term of the target passes through the same exp2 and log2 as the sum that contains it, so
 * common parts cancel exactly: a token that is alone in its row gets 0, and no logprob is above
 * 0. */
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

/* Whether the row's results are NaN: it is poisoned, or no id is present. */
SB_DET int sb_state_is_nan(const sb_state *s) { return s->J == SB_J_EMPTY || s->J == SB_J_POISON; }

/* A positive number (1 + m / 2^52) * 2^e, ready for sb_log2_parts. */
typedef struct sb_mantissa {
    uint64_t m;
    int32_t e;
} sb_mantissa;

/* The 53 highest bits of the sum. Requires: not sb_state_is_nan(s). */
SB_DET sb_mantissa sb_sum_mantissa(const sb_state *s)
{
    sb_u128 t = (sb_u128)s->l[0] + ((sb_u128)s->l[1] << 32) + ((sb_u128)s->l[2] << 64);
    int32_t top = sb_top128(t);
    uint64_t m = (uint64_t)(top > 52 ? t >> (top - 52) : t << (52 - top));
    sb_mantissa sum;
    sum.m = m & 0x000fffffffffffffu;
    sum.e = top + 32 * ((int32_t)s->J - 1) - 24 - SB_BIAS;
    return sum;
}

/* The term of a target whose logit is x. Requires: x is finite. */
SB_DET sb_mantissa sb_target_mantissa(float x, const sb_row *row)
{
    float y = sb_clamp(x, row->lim);
    float z = sb_fma32(y, row->c, SB_INT_MAGIC);
    float n = z - SB_INT_MAGIC;
    uint32_t p = sb_bits32(sb_exp2(sb_fma32(y, row->c, -n))); /* positive and normal */
    sb_mantissa target;
    target.m = (uint64_t)(p & 0x7fffffu) << 29;
    target.e = (int32_t)(p >> 23) - 127 + (int32_t)n;
    return target;
}

/* Whether the term of a logit exceeds a sum. It never exceeds the sum of a row that contains the
 * logit, even though that sum is cut to 53 bits (docs/numerics.md, proof P3). */
SB_DET int sb_exceeds(sb_mantissa term, sb_mantissa sum)
{
    return term.e != sum.e ? term.e > sum.e : term.m > sum.m;
}

/* The logprob, from the logarithms of the target's term and of the sum. */
SB_DET float sb_logprob_of(sb_lg target, sb_lg sum, const sb_row *row)
{
    return (float)(row->kappa * ((double)(target.e - sum.e) + (target.f - sum.f)));
}

SB_DET float sb_lse_of(sb_lg sum, const sb_row *row)
{
    return (float)(row->kappa * ((double)sum.e + sum.f));
}

/* The logarithm of the sum. Requires: not sb_state_is_nan(s). */
SB_DET sb_lg sb_sum_log(const sb_state *s)
{
    sb_mantissa sum = sb_sum_mantissa(s);
    return sb_log2_parts(sum.m, sum.e);
}

/* The logprob of an id whose logit is x. Requires: x is not NaN or +inf. */
SB_DET float sb_logprob_beside(sb_lg sum, float x, const sb_row *row)
{
    sb_mantissa target;
    if (sb_is_absent(x)) return sb_float(SB_ABSENT_BITS);
    target = sb_target_mantissa(x, row);
    return sb_logprob_of(sb_log2_parts(target.m, target.e), sum, row);
}

SB_DET float sb_finish_logprob(const sb_state *s, float x, const sb_row *row)
{
    if (sb_state_is_nan(s)) return sb_float(SB_NAN_BITS);
    return sb_logprob_beside(sb_sum_log(s), x, row);
}

SB_DET float sb_finish_lse(const sb_state *s, const sb_row *row)
{
    if (sb_state_is_nan(s)) return sb_float(SB_NAN_BITS);
    return sb_lse_of(sb_sum_log(s), row);
}

#endif
