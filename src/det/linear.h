/* linear.h - logits from hidden vectors and weights: every operand is rounded once to an integer
 * under a power of two of its own row, the product is an exact integer, and one rounding makes it
 * an fp32 logit. See docs/numerics.md, section "The linear head", for the proofs of the bounds
 * quoted here.
 *
 * Since the product is a sum of integers, it does not depend on tiles, on the order of D, or on how
 * D is cut over ranks. A backend may compute the levels below with any instruction that is exact:
 * what follows a level is written here, once.
 *
 * Two formats. h24w16: hidden as integers of 24 bits, weights of 16 bits. h24w24: both of 24 bits.
 * An integer is cut into signed digits of 8 bits, numbered from the most significant, and level n
 * is the sum, over D, of the products of hidden digit i and weight digit j with i + j = n:
 *
 *     h24w16   L0 = h0w0   L1 = h0w1 + h1w0   L2 = h1w1 + h2w0
 *     h24w24   L0 = h0w0   L1 = h0w1 + h1w0   L2 = h0w2 + h1w1 + h2w0   L3 = h1w2 + h2w1
 *              L4 = h2w2
 *
 * Each level is below 2^31 in magnitude for every D up to SB_LINEAR_MAX_D. */
#ifndef SB_DET_LINEAR_H
#define SB_DET_LINEAR_H

#include "exp2.h"
#include "float.h"
#include "leaf.h"

#define SB_LINEAR_MAX_D 32768
#define SB_LINEAR_E_MIN (-40)
#define SB_LINEAR_E_MAX 48
#define SB_LINEAR_E_BAD 127 /* the E of a bad row, whose digits are all 0 */

/* The magnitude of an element as an unsigned integer: the largest one of a row gives its E. NaN and
 * infinity exceed every number. */
SB_DET uint32_t sb_linear_magnitude(float x) { return sb_bits32(x) & 0x7fffffffu; }

/* E of a row whose largest magnitude is a: every |x| is below 2^E, and rounds to an integer whose
 * top digit is in -127 .. 127. SB_LINEAR_E_BAD if the row holds NaN, infinity or a number of nearly
 * 2^48 or more. The sum is unsigned: that of a NaN exceeds 2^31. */
SB_DET int32_t sb_linear_E(uint32_t a)
{
    const int32_t E = (int32_t)((a + 0x10200u) >> 23) - 126;
    return E > SB_LINEAR_E_MAX ? SB_LINEAR_E_BAD : E < SB_LINEAR_E_MIN ? SB_LINEAR_E_MIN : E;
}

SB_DET int sb_linear_is_bad(int32_t E) { return E > SB_LINEAR_E_MAX; }

/* 2^(bits - 1 - E): what an element is multiplied by before it is rounded to an integer of `bits`
 * bits, 16 or 24. Requires: the row is not bad. */
SB_DET float sb_linear_factor(int32_t E, int32_t bits)
{
    return sb_float((uint32_t)(bits - 1 - E + 127) << 23);
}

/* The integer of an element: x * factor to nearest, ties to even; at most 8355584 in magnitude for
 * 24 bits, 32639 for 16. The product is exact, or too small to matter. Adding 2^23 to a magnitude
 * rounds all of these right, while 1.5 * 2^23 would round those above 2^22 to even. */
SB_DET int32_t sb_linear_integer(float x, float factor)
{
    const float u = x * factor;
    const int32_t sign = (int32_t)(sb_bits32(u) >> 31);
    const float z = sb_float(sb_bits32(u) & 0x7fffffffu) + 0x1p+23f;
    const int32_t n = (int32_t)(sb_bits32(z) - 0x4b000000u);
    return (n ^ -sign) + sign;
}

/* The digits of an integer of 24 bits: byte 2 is digit 0, byte 1 digit 1 and byte 0 digit 2, each
 * signed. Byte 3 repeats the sign. */
SB_DET uint32_t sb_linear_digits24(int32_t q) { return ((uint32_t)q + 0x808080u) ^ 0x808080u; }

/* The digits of an integer of 16 bits: byte 1 is digit 0, byte 0 digit 1. */
SB_DET uint32_t sb_linear_digits16(int32_t w) { return ((uint32_t)w + 0x8080u) ^ 0x8080u; }

/* Digit k, counted from the least significant, of what the two functions above return. */
SB_DET int32_t sb_linear_digit(uint32_t digits, int32_t k)
{
    return (int32_t)(digits >> (8 * k) & 0xffu) - (int32_t)(digits >> (8 * k + 7) & 1u) * 256;
}

/* H of an integer q of hidden: its two upper digits, as one number. A product of h24w16 is
 * H * w + h2 * w0. */
SB_DET int32_t sb_linear_upper(int32_t q) { return (q + 128) >> 8; }

/* T, the product in steps of 2^(E_h + E_w - 30), |T| <= 2^30 D. */
SB_DET int64_t sb_linear_T16(int32_t L0, int32_t L1, int32_t L2)
{
    return (int64_t)L0 * 65536 + (int64_t)L1 * 256 + L2;
}

/* The carry from L3 and L4 into L2 of h24w24: the shift of sb_linear_T24 on the two last levels
 * alone. An accumulator of L2 may start from it. */
SB_DET int32_t sb_linear_carry(int32_t L3, int32_t L4) { return (L3 + ((L4 + 32768) >> 8)) >> 8; }

SB_DET int64_t sb_linear_T24(int32_t L0, int32_t L1, int32_t L2, int32_t L3, int32_t L4)
{
    return sb_linear_T16(L0, L1, L2) + sb_linear_carry(L3, L4);
}

/* The same T from the sum S of the products of both integers: what ranks add up that hold a part of
 * D each. |S| < 2^61. */
SB_DET int64_t sb_linear_T_of_sum(int64_t S) { return (S + 32768) >> 16; }

/* The logit of a product, rounded once: T has at most 46 bits, and the power of two keeps the
 * logit normal and below 2^111. NaN if either row is bad. */
SB_DET float sb_linear_logit(int64_t T, int32_t E_h, int32_t E_w)
{
    if (sb_linear_is_bad(E_h) || sb_linear_is_bad(E_w)) return sb_float(SB_NAN_BITS);
    return (float)T * sb_float((uint32_t)(E_h + E_w - 30 + 127) << 23);
}

/* What follows the product: scale, then softcap. */
typedef struct sb_linear_steps {
    float scale;   /* 1: none */
    float cap;     /* 0: none */
    float k;       /* octaves of e^(-2 x / cap) for each unit of x */
    float inverse; /* 1 / cap */
    float bend;    /* below this magnitude the cap is a polynomial */
} sb_linear_steps;

#define SB_LINEAR_SCALE_MIN 0x1p-32f
#define SB_LINEAR_SCALE_MAX 0x1p+32f
#define SB_LINEAR_CAP_MIN 0x1p-10f
#define SB_LINEAR_CAP_MAX 0x1p+20f

SB_DET int sb_linear_scale_ok(float scale)
{
    return scale >= SB_LINEAR_SCALE_MIN && scale <= SB_LINEAR_SCALE_MAX;
}

SB_DET int sb_linear_cap_ok(float cap)
{
    return cap >= SB_LINEAR_CAP_MIN && cap <= SB_LINEAR_CAP_MAX;
}

/* Requires: sb_linear_scale_ok(scale), and sb_linear_cap_ok(cap) or cap = 0. */
SB_DET sb_linear_steps sb_linear_steps_of(float scale, float cap)
{
    sb_linear_steps steps;
    steps.scale = scale;
    steps.cap = cap;
    steps.k = steps.inverse = steps.bend = 0.0f;
    if (cap != 0.0f) {
        steps.k = (float)(0x1.71547652b82fep+1 / (double)cap);
        steps.inverse = 1.0f / cap;
        steps.bend = 0.625f * cap;
    }
    return steps;
}

/* cap * tanh(y / cap) for 0 <= y < bend: y + y w P(w), w = (y / cap)^2. */
SB_DET float sb_linear_cap_low(float y, const sb_linear_steps *steps)
{
    const float u = y * steps->inverse;
    const float w = u * u;
    float P = -0x1.75e1c6p-8f;
    P = sb_fma32(P, w, 0x1.52269ap-6f);
    P = sb_fma32(P, w, -0x1.b83c5ap-5f);
    P = sb_fma32(P, w, 0x1.110726p-3f);
    P = sb_fma32(P, w, -0x1.555532p-2f);
    return sb_fma32(y * w, P, y);
}

/* The same for y >= bend: cap - cap * 2 e / (1 + e), e = e^(-2 y / cap). From 16 cap on it is cap
 * itself. */
SB_DET float sb_linear_cap_high(float y, const sb_linear_steps *steps)
{
    const float most = 16.0f * steps->cap;
    float z, n, r, e;
    y = y < most ? y : most;
    z = sb_fma32(y, -steps->k, SB_INT_MAGIC);
    n = z - SB_INT_MAGIC;
    r = sb_fma32(y, -steps->k, -n);
    e = sb_float(sb_bits32(sb_exp2(r)) + (sb_bits32(z) << 23));
    return sb_fma32(-steps->cap, (e + e) / (1.0f + e), steps->cap);
}

/* cap * tanh(x / cap). Requires: x is finite, steps->cap is not 0. */
SB_DET float sb_linear_cap(float x, const sb_linear_steps *steps)
{
    const uint32_t sign = sb_bits32(x) & 0x80000000u;
    const float y = sb_float(sb_bits32(x) ^ sign);
    const float v = y < steps->bend ? sb_linear_cap_low(y, steps) : sb_linear_cap_high(y, steps);
    return sb_float(sb_bits32(v) | sign);
}

/* The logit x of an id, after its bias b (+0 if there is none), the scale and the cap. A bias of
 * -inf makes the id absent, whatever x is. Any other infinity becomes NaN, as does NaN. An id that
 * is absent for another reason must not get here. */
SB_DET float sb_linear_finish(float x, float b, const sb_linear_steps *steps)
{
    if (sb_is_absent(b)) return b;
    x = (x + b) * steps->scale;
    if (sb_linear_magnitude(x) >= SB_INF_BITS) return sb_float(SB_NAN_BITS);
    return steps->cap != 0.0f ? sb_linear_cap(x, steps) : x;
}

#endif
