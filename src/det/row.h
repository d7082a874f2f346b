/* row.h - the constants a row gets from its temperature. */
#ifndef SB_DET_ROW_H
#define SB_DET_ROW_H

#include "float.h"

#define SB_TEMPERATURE_MIN 0x1p-10f
#define SB_TEMPERATURE_MAX 0x1p+10f

typedef struct sb_row {
    float c;      /* log2(e) / tau, rounded: t = x * c is the logit in octaves */
    float k64;    /* 64 octaves, in logits */
    float lim;    /* 2^21 octaves, in logits, cut to bf16: where logits saturate */
    double kappa; /* octaves back to nats, with c's rounding undone */
} sb_row;

/* tau is in [SB_TEMPERATURE_MIN, SB_TEMPERATURE_MAX]: false for NaN, too. */
SB_DET int sb_temperature_ok(float tau)
{
    return tau >= SB_TEMPERATURE_MIN && tau <= SB_TEMPERATURE_MAX;
}

SB_DET sb_row sb_row_of(float tau)
{
    sb_row row;
    row.c = (float)(0x1.71547652b82fep+0 / (double)tau);
    row.kappa = (1.0 / (double)tau) / (double)row.c;
    row.k64 = 64.0f / row.c;
    row.lim = sb_float(sb_bits32(0x1p+21f / row.c) & 0xffff0000u);
    return row;
}

#endif
