/* group.h - advantages of rewards within their group: the exact sums of rewards and of their
 * squares, and the mean and the standard deviation that follow. See docs/numerics.md, section
 * "Group advantages".
 *
 * Of n < 2^26 rewards, X is the exact sum in units of 2^-149, Y that of the squares in units of
 * 2^-298. n Y - X^2 is computed as an integer of 640 bits, so that the variance has one rounding
 * and equal rewards have variance 0. */
#ifndef SB_DET_GROUP_H
#define SB_DET_GROUP_H

#include "digits.h"
#include "root.h"

#define SB_SQUARES 18
#define SB_GROUP_MAX ((uint64_t)1 << 26) /* rewards: fewer than this */
#define SB_GROUP_WORDS 20                /* 32-bit words of n Y - X^2 */

typedef struct sb_group {
    uint64_t n;
    sb_digits sum;
    uint64_t squares[SB_SQUARES]; /* digit k weighs 2^(32 k - 298) */
} sb_group;

SB_DET void sb_group_init(sb_group *g)
{
    g->n = 0;
    sb_digits_init(&g->sum);
    for (int k = 0; k < SB_SQUARES; k++) g->squares[k] = 0;
}

SB_DET void sb_group_add(sb_group *g, float reward)
{
    const uint32_t b = sb_bits32(reward);
    uint32_t E = b >> 23 & 0xffu, m = b & 0x7fffffu, at, shift;
    uint64_t square;
    g->n++;
    sb_digits_add(&g->sum, reward);
    if (E == 0xff) return;
    if (E > 0) m |= 0x800000u;
    else E = 1;
    square = (uint64_t)m * m; /* below 2^48 */
    at = (2 * E - 2) >> 5;    /* 0 .. 15 */
    shift = (2 * E - 2) & 31;
    g->squares[at] += square << shift & 0xffffffffu;
    g->squares[at + 1] += square << shift >> 32;
    /* the bits that the shift moves out of 64 */
    g->squares[at + 2] += shift > 16 ? square >> (64 - shift) : 0;
}

SB_DET void sb_group_merge(sb_group *g, const sb_group *other)
{
    g->n += other->n;
    sb_digits_merge(&g->sum, &other->sum);
    for (int k = 0; k < SB_SQUARES; k++) g->squares[k] += other->squares[k];
}

/* Whether a call can have made the record; before: the rewards of the records that it is merged
 * with, fewer than SB_GROUP_MAX. */
SB_DET int sb_group_is_well(const sb_group *g, uint64_t before)
{
    return g->n < SB_GROUP_MAX - before && sb_digits_are_well(&g->sum, (int64_t)g->n);
}

/* n Y - X^2, in words of 32 bits; never negative. */
SB_DET void sb_group_spread(const sb_group *g, uint32_t spread[SB_GROUP_WORDS])
{
    uint32_t x[SB_DIGITS], y[SB_GROUP_WORDS];
    uint64_t carry = 0;
    (void)sb_digits_magnitude(&g->sum, x);
    for (int k = 0; k < SB_GROUP_WORDS; k++) { /* the digits, carried */
        const uint64_t digit = k < SB_SQUARES ? g->squares[k] : 0, t = digit + carry;
        y[k] = (uint32_t)t;
        carry = t >> 32;
    }
    carry = 0;
    for (int k = 0; k < SB_GROUP_WORDS; k++) { /* times n */
        const uint64_t t = (uint64_t)y[k] * g->n + carry;
        spread[k] = (uint32_t)t;
        carry = t >> 32;
    }
    for (int i = 0; i < SB_DIGITS; i++) { /* minus x[i] times x, at word i */
        uint64_t borrow = 0;
        carry = 0;
        for (int k = i; k < SB_GROUP_WORDS; k++) {
            const uint64_t t = (k - i < SB_DIGITS ? (uint64_t)x[i] * x[k - i] : 0) + carry;
            const uint64_t less = (uint64_t)(uint32_t)t + borrow;
            carry = t >> 32;
            borrow = spread[k] < less ? 1 : 0;
            spread[k] = (uint32_t)(spread[k] - less);
        }
    }
}

/* The standard deviation; population: of the group itself, not of what it was drawn from. +0 for
 * one reward or none; NaN if a reward is NaN or infinite. */
SB_DET double sb_group_std(const sb_group *g, int population)
{
    uint32_t spread[SB_GROUP_WORDS];
    const double n = (double)g->n;
    double v;
    if (g->sum.seen) return (double)sb_float(SB_NAN_BITS);
    if (g->n <= 1) return 0.0;
    sb_group_spread(g, spread);
    v = sb_round_words(spread, SB_GROUP_WORDS, -298, 53);
    v = v / (population ? n * n : n * (n - 1.0));
    return sb_root64(v);
}

SB_DET double sb_group_mean(const sb_group *g)
{
    if (g->sum.seen) return (double)sb_float(SB_NAN_BITS);
    return sb_digits_mean(&g->sum, (int64_t)g->n);
}

/* The advantage of a reward of the group. std: NaN if any of its rewards is NaN or infinite; not
 * used without scaled. */
SB_DET float sb_group_advantage(float reward, double mean, double std, float eps, int scaled)
{
    double e = (double)reward - mean;
    if (mean != mean || (scaled && std != std)) return sb_float(SB_NAN_BITS);
    if (e == 0.0) return 0.0f;
    if (scaled) e = e / (std + (double)eps);
    return sb_mean32(e);
}

#endif
