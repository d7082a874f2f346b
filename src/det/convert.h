/* convert.h - converts logits from 16-bit formats to fp32, exactly, so that a value has the same
 * bits here whichever format held it; and converts gradients from fp32 to 16-bit formats, rounded
 * to nearest even. */
#ifndef SB_DET_CONVERT_H
#define SB_DET_CONVERT_H

#include "float.h"

SB_DET float sb_from_bf16(uint16_t b) { return sb_float((uint32_t)b << 16); }

/* binary16 has 1 sign, 5 exponent and 10 fraction bits. Once the exponent field is in the position
 * that binary32 gives it, a product with 2^112 corrects the bias of normal and subnormal numbers
 * alike. The product is exact: a binary16 subnormal is a subnormal binary32 operand, and its
 * product is normal. */
SB_DET float sb_from_f16(uint16_t b)
{
    uint32_t sign = (uint32_t)(b & 0x8000u) << 16;
    uint32_t body = (uint32_t)(b & 0x7fffu) << 13;
    if (body >= 0x0f800000u) return sb_float(sign | 0x70000000u | body); /* inf, NaN */
    return sb_float(sign | sb_bits32(sb_float(body) * 0x1p112f));
}

/* Both conversions keep subnormals and turn values that are too large into infinity. A NaN becomes
 * 7fc0 (bf16) or 7e00 (binary16). */
SB_DET uint16_t sb_to_bf16(float x)
{
    uint32_t b = sb_bits32(x);
    uint32_t rounded = (b + 0x7fffu + (b >> 16 & 1)) >> 16;
    return (uint16_t)(sb_is_nan(x) ? 0x7fc0u : rounded);
}

/* Below 2^-14, a binary16 is a multiple of 2^-24, which is the weight of the last bit of 0.5 in
 * binary32. Adding 0.5 therefore rounds at the right place. */
SB_DET uint16_t sb_to_f16(float x)
{
    uint32_t b = sb_bits32(x), sign = b >> 16 & 0x8000u, body = b & 0x7fffffffu;
    uint32_t normal = (body - 0x38000000u + 0xfffu + (body >> 13 & 1)) >> 13;
    uint32_t small = sb_bits32(sb_float(body) + 0.5f) - 0x3f000000u;
    uint32_t half = body < 0x38800000u ? small : body < 0x477ff000u ? normal : 0x7c00u;
    return (uint16_t)(body > SB_INF_BITS ? 0x7e00u : sign | half);
}

#endif
