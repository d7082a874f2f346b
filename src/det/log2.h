/* log2.h - the log2 of a positive double, as an integer and a fraction, in fp64.
 *
 * u = 2^e * g with g in (0.7071, 1.4142]. With f = (g - 1) / (g + 1), log2(g) = f * q(f^2), where q
 * is the odd series 2 / ln 2 * sum f^(2k) / (2k + 1), cut after k = 10. The fraction is rounded
 * separately from the integer. The difference of two logarithms subtracts integers and fractions
 * separately, so a part that is common to both cancels exactly. */
#ifndef SB_DET_LOG2_H
#define SB_DET_LOG2_H

#include "float.h"

typedef struct sb_lg {
    int32_t e; /* the integer part */
    double g;  /* the mantissa, halved if it was above sqrt(2) */
    double f;  /* log2(g), in about [-1/2, 1/2] */
} sb_lg;

/* The lg of the double (1 + m / 2^52) * 2^e. Requires: m < 2^52. */
SB_DET sb_lg sb_log2_parts(uint64_t m, int32_t e)
{
    sb_lg lg;
    double f, h, q;
    lg.e = e;
    lg.g = sb_double(0x3ff0000000000000u | m);
    if (lg.g > 0x1.6a09e667f3bcdp+0) {
        lg.g = lg.g * 0.5;
        lg.e = e + 1;
    }
    f = (lg.g - 1.0) / (lg.g + 1.0);
    h = f * f;
    q = 0x1.1964ec6fc9491p-3;
    q = sb_fma64(q, h, 0x1.3703c1f4d0ffep-3);
    q = sb_fma64(q, h, 0x1.5b9ac9b743f0dp-3);
    q = sb_fma64(q, h, 0x1.89f3b1694cffep-3);
    q = sb_fma64(q, h, 0x1.c68f568d31761p-3);
    q = sb_fma64(q, h, 0x1.0c9a84994022dp-2);
    q = sb_fma64(q, h, 0x1.484b13d7c02a9p-2);
    q = sb_fma64(q, h, 0x1.a61762a7adedap-2);
    q = sb_fma64(q, h, 0x1.2776c50ef9bfep-1);
    q = sb_fma64(q, h, 0x1.ec709dc3a03fep-1);
    q = sb_fma64(q, h, 0x1.71547652b82fep+1);
    lg.f = f * q;
    return lg;
}

/* The lg of a positive normal double. */
SB_DET sb_lg sb_log2(double u)
{
    uint64_t b = sb_bits64(u);
    return sb_log2_parts(b & 0x000fffffffffffffu, (int32_t)(b >> 52) - 1023);
}

#endif
