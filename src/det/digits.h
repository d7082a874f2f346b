/* digits.h - the exact sum of any fp32 values, rounded once. It is the ten-digit form of
 * docs/numerics.md, section "Sums".
 *
 * A value adds less than 2^32 in magnitude to each of two digits, so 2^30 values keep every digit
 * below 2^62, and the sum below 2^158, which takes 307 of the 320 bits. The sum is made of
 * integers, so it does not depend on the order of the values. */
#ifndef SB_DET_DIGITS_H
#define SB_DET_DIGITS_H

#include "float.h"

#define SB_DIGITS 10
#define SB_DIGITS_MAX 1073741824 /* the number of values that a sum has room for: 2^30 */

/* Bits of `seen`: which special values were added to a sum. */
#define SB_SEEN_NAN 1u
#define SB_SEEN_PLUS_INF 2u
#define SB_SEEN_MINUS_INF 4u

typedef struct sb_digits {
    int64_t d[SB_DIGITS];    /* digit k weighs 2^(32 k - 149); the last receives only carries */
    uint32_t seen, reserved; /* reserved: 0 */
} sb_digits;

SB_DET void sb_digits_init(sb_digits *s)
{
    for (int k = 0; k < SB_DIGITS; k++) s->d[k] = 0;
    s->seen = s->reserved = 0;
}

SB_DET void sb_digits_add(sb_digits *s, float x)
{
    const uint32_t b = sb_bits32(x), minus = b >> 31;
    uint32_t E = b >> 23 & 0xffu, m = b & 0x7fffffu, k;
    int64_t low, high;
    uint64_t w;
    if (E == 0xff) {
        s->seen |= m ? SB_SEEN_NAN : minus ? SB_SEEN_MINUS_INF : SB_SEEN_PLUS_INF;
        return;
    }
    if (E > 0) m |= 0x800000u;
    else E = 1;
    k = (E - 1) >> 5; /* 0 .. 7 */
    w = (uint64_t)m << ((E - 1) & 31);
    low = (int64_t)(w & 0xffffffffu);
    high = (int64_t)(w >> 32);
    s->d[k] += minus ? -low : low;
    s->d[k + 1] += minus ? -high : high;
}

/* Adds the real number x - y, or nothing if x and y have equal bits, even if they are infinite.
 * Counts as two values. */
SB_DET void sb_digits_add_difference(sb_digits *s, float x, float y)
{
    if (sb_is_nan(x) || sb_is_nan(y)) {
        s->seen |= SB_SEEN_NAN;
    } else if (sb_bits32(x) != sb_bits32(y)) {
        sb_digits_add(s, x);
        sb_digits_add(s, sb_float(sb_bits32(y) ^ 0x80000000u));
    }
}

SB_DET void sb_digits_merge(sb_digits *s, const sb_digits *other)
{
    for (int k = 0; k < SB_DIGITS; k++) s->d[k] += other->d[k];
    s->seen |= other->seen;
}

/* Whether a sum of at most `values` values can have these digits; then any such sums of together
 * SB_DIGITS_MAX values may be merged. Requires: 0 <= values <= SB_DIGITS_MAX. */
SB_DET int sb_digits_are_well(const sb_digits *s, int64_t values)
{
    const int64_t most = values * 4294967296;
    if (s->seen >> 3 != 0 || s->reserved != 0) return 0;
    for (int k = 0; k < SB_DIGITS; k++)
        if (s->d[k] > most || s->d[k] < -most) return 0;
    return 1;
}

/* Writes the magnitude of the finite sum as 32-bit digits, and returns whether it is negative. */
SB_DET int sb_digits_magnitude(const sb_digits *s, uint32_t m[SB_DIGITS])
{
    int64_t carry = 0;
    uint32_t flip;
    for (int k = 0; k < SB_DIGITS; k++) {
        const int64_t t = s->d[k] + carry;
        m[k] = (uint32_t)(uint64_t)t;
        carry = (t - (int64_t)m[k]) / 4294967296; /* exact */
    }
    flip = m[SB_DIGITS - 1] >> 31;
    carry = flip;
    for (int k = 0; flip && k < SB_DIGITS; k++) { /* two's complement */
        carry += (int64_t)(uint32_t)~m[k];
        m[k] = (uint32_t)(uint64_t)carry;
        carry >>= 32;
    }
    return (int)flip;
}

/* A magnitude of `count` 32-bit words, the lowest first, whose bit 0 weighs 2^unit, rounded once to
 * `precision` bits, at most 53, to nearest even. Requires: it is below 2^1023, and 2^unit is not
 * subnormal. */
SB_DET double sb_round_words(const uint32_t *m, int32_t count, int32_t unit, int32_t precision)
{
    uint32_t half = 0, sticky = 0;
    int32_t last = count - 1, cut, k, shift;
    uint64_t q;
    while (last > 0 && m[last] == 0) last--;
    if (m[last] == 0) return 0.0;
    cut = 32 * last + sb_top64(m[last]) - precision + 1;
    if (cut < 0) cut = 0;
    k = cut / 32;
    shift = cut % 32;
    q = m[k];
    if (k + 1 < count) q |= (uint64_t)m[k + 1] << 32;
    q >>= shift;
    if (shift > 0 && k + 2 < count) q |= (uint64_t)m[k + 2] << (64 - shift);
    if (cut > 0) {
        const int32_t below = cut - 1;
        half = m[below / 32] >> (below % 32) & 1u;
        sticky = m[below / 32] & ((1u << (below % 32)) - 1u);
        for (int32_t i = 0; i < below / 32; i++) sticky |= m[i];
    }
    q += half & (sticky != 0 || (q & 1) != 0 ? 1u : 0u);
    /* q <= 2^53: both factors and the product are exact. */
    return (double)q * sb_double((uint64_t)(cut + unit + 1023) << 52);
}

/* The finite sum, rounded once to `precision` bits, at most 53, to nearest even; a zero sum gives
 * +0. */
SB_DET double sb_digits_round(const sb_digits *s, int32_t precision)
{
    uint32_t m[SB_DIGITS];
    const int minus = sb_digits_magnitude(s, m);
    const double value = sb_round_words(m, SB_DIGITS, -149, precision);
    return minus ? -value : value;
}

/* The bits of a sum that contains NaN or infinities; 0 if it contains none. */
SB_DET uint32_t sb_digits_special(const sb_digits *s)
{
    const uint32_t both = SB_SEEN_PLUS_INF | SB_SEEN_MINUS_INF;
    if ((s->seen & SB_SEEN_NAN) || (s->seen & both) == both) return SB_NAN_BITS;
    if (s->seen & SB_SEEN_PLUS_INF) return SB_INF_BITS;
    return s->seen & SB_SEEN_MINUS_INF ? 0x80000000u | SB_INF_BITS : 0;
}

SB_DET float sb_digits_sum(const sb_digits *s)
{
    const uint32_t special = sb_digits_special(s);
    double sum;
    if (special) return sb_float(special);
    sum = sb_digits_round(s, 24);
    if (sum >= 0x1p+128) return sb_float(SB_INF_BITS);
    if (sum <= -0x1p+128) return sb_float(0x80000000u | SB_INF_BITS);
    return (float)sum; /* exact */
}

/* The sum in fp64: rounded once to 53 bits. */
SB_DET double sb_digits_sum64(const sb_digits *s)
{
    const uint32_t special = sb_digits_special(s);
    return special ? (double)sb_float(special) : sb_digits_round(s, 53);
}

/* The mean of a sum of count terms, in fp64, before its last rounding; +0 if count is 0. */
SB_DET double sb_digits_mean(const sb_digits *s, int64_t count)
{
    return count == 0 ? 0.0 : sb_digits_sum64(s) / (double)count;
}

/* A mean rounded to fp32. Every NaN has the same encoding, and -0 becomes +0. */
SB_DET float sb_mean32(double mean)
{
    const float x = (float)mean;
    if (sb_is_nan(x)) return sb_float(SB_NAN_BITS);
    return x == 0.0f ? 0.0f : x;
}

#endif
