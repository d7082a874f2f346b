/* ratio.h - the importance ratio e^d and the KL estimators of two logprobs of a token, computed in
 * fp64 and rounded once to fp32. See docs/numerics.md, section "Ratios".
 *
 * e^d = 2^n * (1 + r + f), where r is in [-0.347, 0.347] and f = e^r - 1 - r is computed by its
 * series up to r^14; the first omitted term is below 2e-19. If n is 0, then e^d - 1 - d is f
 * itself, so it keeps its relative accuracy down to the smallest d. */
#ifndef SB_DET_RATIO_H
#define SB_DET_RATIO_H

#include "float.h"

/* e^d, e^d - 1 - d, and e^d - 1. */
typedef struct sb_growth {
    double e, rest, less;
} sb_growth;

/* Requires: -104 < d < 89. The conversion of n and the scaling by 2^n, which are exact, are done on
 * encodings, because GPUs convert and multiply fp64 slowly. */
SB_DET sb_growth sb_growth_near(double d)
{
    sb_growth g;
    const double z = sb_fma64(d, 0x1.71547652b82fep+0, 0x1.8p+52);
    const double n = z - 0x1.8p+52;
    double r, q, f;
    r = sb_fma64(-n, 0x1.62e42fefa39efp-1, d);
    r = sb_fma64(-n, 0x1.abc9e3b39803fp-56, r);
    q = 0x1.93974a8c07c9dp-37;
    q = sb_fma64(q, r, 0x1.6124613a86d09p-33);
    q = sb_fma64(q, r, 0x1.1eed8eff8d898p-29);
    q = sb_fma64(q, r, 0x1.ae64567f544e4p-26);
    q = sb_fma64(q, r, 0x1.27e4fb7789f5cp-22);
    q = sb_fma64(q, r, 0x1.71de3a556c734p-19);
    q = sb_fma64(q, r, 0x1.a01a01a01a01ap-16);
    q = sb_fma64(q, r, 0x1.a01a01a01a01ap-13);
    q = sb_fma64(q, r, 0x1.6c16c16c16c17p-10);
    q = sb_fma64(q, r, 0x1.1111111111111p-7);
    q = sb_fma64(q, r, 0x1.5555555555555p-5);
    q = sb_fma64(q, r, 0x1.5555555555555p-3);
    q = sb_fma64(q, r, 0x1p-1);
    f = (r * r) * q;
    /* 1 + (r + f) is in [0.7, 1.42], and -151 <= n <= 128 is in z's low bits: adding n to the
     * exponent keeps a normal number. */
    g.e = sb_double(sb_bits64(1.0 + (r + f)) + (sb_bits64(z) << 52));
    g.rest = n == 0.0 ? f : (g.e - 1.0) - d;
    g.less = n == 0.0 ? f + d : g.e - 1.0;
    return g;
}

/* Requires: d is not NaN. */
SB_DET sb_growth sb_growth_of(double d)
{
    sb_growth g;
    if (d >= 89.0) { /* beyond the largest fp32, or +inf */
        g.e = g.rest = g.less = sb_double(0x7ff0000000000000u);
        return g;
    }
    if (d <= -104.0) { /* e^d is below half the least fp32, and negligible beside 1 + d; or -inf */
        g.e = 0.0;
        g.rest = -1.0 - d;
        g.less = -1.0;
        return g;
    }
    return sb_growth_near(d);
}

/* Whether |d| is below 89; false for NaN. */
SB_DET int sb_is_near(double d) { return (sb_bits64(d) >> 32 & 0x7fffffffu) < 0x40564000u; }

/* The difference x - y in fp64: +0 if the bits are equal, even if both are infinite, and NaN if
 * either is NaN. */
SB_DET double sb_difference_of(float x, float y)
{
    if (sb_is_nan(x) || sb_is_nan(y)) return (double)sb_float(SB_NAN_BITS);
    return sb_bits32(x) == sb_bits32(y) ? 0.0 : (double)x - (double)y;
}

/* e^d as fp32. */
SB_DET float sb_ratio_of(double d)
{
    if (d != d) return sb_float(SB_NAN_BITS);
    return (float)sb_growth_of(d).e;
}

typedef struct sb_comparison {
    float ratio, k1, k2, k3;
} sb_comparison;

/* sampled is the logprob of a token under the policy that it was drawn from, other its logprob
 * under the other policy. */
SB_DET sb_comparison sb_compare_of(float sampled, float other)
{
    const double d = sb_difference_of(other, sampled);
    sb_comparison c;
    sb_growth g;
    if (d != d) {
        c.ratio = c.k1 = c.k2 = c.k3 = sb_float(SB_NAN_BITS);
        return c;
    }
    g = sb_growth_of(d);
    c.ratio = (float)g.e;
    c.k1 = (float)(0.0 - d);
    c.k2 = (float)(0.5 * (d * d));
    c.k3 = (float)g.rest;
    return c;
}

#endif
