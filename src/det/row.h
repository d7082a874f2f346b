/* row.h - the constants of a row, all of which follow from its temperature. */
#ifndef SB_DET_ROW_H
#define SB_DET_ROW_H

#include "float.h"

#define SB_TEMPERATURE_MIN 0x1p-10f
#define SB_TEMPERATURE_MAX 0x1p+10f

typedef struct sb_row {
    float c;      /* log2(e) / tau, rounded: t = x * c is the logit x in octaves */
    float k64;    /* 64 octaves, in units of logits */
    float lim;    /* 2^21 octaves, in units of logits, cut to bf16; larger logits saturate */
    double kappa; /* converts octaves to nats, and undoes the rounding of c */
} sb_row;

/* Whether tau is in [SB_TEMPERATURE_MIN, SB_TEMPERATURE_MAX]; NaN is not. */
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
