/* linear_backward.h - derivatives through the linear head. See docs/numerics.md, section "Linear:
 * derivatives". Their sums are in fp64, where a product of two fp32 numbers is exact. */
#ifndef SB_DET_LINEAR_BACKWARD_H
#define SB_DET_LINEAR_BACKWARD_H

#include "float.h"

#define SB_NAN64_BITS 0x7ff8000000000000u

/* The derivative by the product of a hidden state and a row of weights from d, that by their logit
 * x, which is used if there is a cap. */
SB_DET float sb_linear_derivative(float d, float x, float scale, float cap)
{
    const double t = cap != 0.0f ? (double)x / (double)cap : 0.0;
    return (float)((double)d * (1.0 - t * t) * (double)scale);
}

/* A sum with the one encoding of NaN. */
SB_DET double sb_canonical64(double x) { return x == x ? x : sb_double(SB_NAN64_BITS); }

#endif
