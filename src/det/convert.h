/* convert.h - logits from their containers to fp32, exactly, so that a value has the same bits here
 * whatever held it; and gradients from fp32 to theirs, rounded to nearest even. */
#ifndef SB_DET_CONVERT_H
#define SB_DET_CONVERT_H

#include "float.h"

SB_DET float sb_from_bf16(uint16_t b) { return sb_float((uint32_t)b << 16); }

/* binary16: 1 sign, 5 exponent, 10 fraction bits. With the exponent field moved to binary32's
 * place a product with 2^112 rebiases normal and subnormal numbers alike, exactly: the product of
 * a subnormal binary32 operand (a binary16 subnormal) is normal. */
SB_DET float sb_from_f16(uint16_t b)
{
    uint32_t sign = (uint32_t)(b & 0x8000u) << 16;
    uint32_t body = (uint32_t)(b & 0x7fffu) << 13;
    if (body >= 0x0f800000u) return sb_float(sign | 0x70000000u | body); /* inf, NaN */
    return sb_float(sign | sb_bits32(sb_float(body) * 0x1p112f));
}

/* Subnormals are kept, what is too large is infinite, and a NaN is 7fc0 or 7e00. */
SB_DET uint16_t sb_to_bf16(float x)
{
    uint32_t b = sb_bits32(x);
    uint32_t rounded = (b + 0x7fffu + (b >> 16 & 1)) >> 16;
    return (uint16_t)(sb_is_nan(x) ? 0x7fc0u : rounded);
}

/* Below 2^-14 a binary16 is a multiple of 2^-24, which is 0.5's last bit in binary32: adding 0.5
 * rounds there. */
SB_DET uint16_t sb_to_f16(float x)
{
    uint32_t b = sb_bits32(x), sign = b >> 16 & 0x8000u, body = b & 0x7fffffffu;
    uint32_t normal = (body - 0x38000000u + 0xfffu + (body >> 13 & 1)) >> 13;
    uint32_t small = sb_bits32(sb_float(body) + 0.5f) - 0x3f000000u;
    uint32_t half = body < 0x38800000u ? small : body < 0x477ff000u ? normal : 0x7c00u;
    return (uint16_t)(body > SB_INF_BITS ? 0x7e00u : sign | half);
}

#endif
