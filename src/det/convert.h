/* convert.h - logits from their containers to fp32. Each conversion is exact, so a value has the
 * same bits here whatever held it. */
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

#endif
