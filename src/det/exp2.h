/* exp2.h - 2^r for r in [-1/2, 1/2], in fp32.
 *
 * A polynomial of degree 6 in Horner form. Each step is one fused multiply-add, and the constant
 * term is exactly 1, so 2^0 is exactly 1. The relative error is at most 9.2e-9 in exact arithmetic
 * and 7.4e-8 as computed; the result lies in [0.70710, 1.41422]. It is not monotone in its last
 * bit.
 *
 * The polynomial is written once, as a macro for any type T that has fma(T, T, T) and a way to make
 * a T from a constant: float here, vectors of floats in the instruction-set paths. */
#ifndef SB_DET_EXP2_H
#define SB_DET_EXP2_H

#include "float.h"

#define SB_EXP2_C1 0x1.62e430p-1f
#define SB_EXP2_C2 0x1.ebfbe0p-3f
#define SB_EXP2_C3 0x1.c6af6cp-5f
#define SB_EXP2_C4 0x1.3b2a54p-7f
#define SB_EXP2_C5 0x1.5f0890p-10f
#define SB_EXP2_C6 0x1.44138ap-13f

#define SB_EXP2_HORNER(fma, of, r)                                                                 \
    fma(fma(fma(fma(fma(fma(of(SB_EXP2_C6), r, of(SB_EXP2_C5)), r, of(SB_EXP2_C4)), r,             \
                    of(SB_EXP2_C3)),                                                               \
                r, of(SB_EXP2_C2)),                                                                \
            r, of(SB_EXP2_C1)),                                                                    \
        r, of(1.0f))

#define SB_EXP2_SCALAR(x) (x)

SB_DET float sb_exp2(float r) { return SB_EXP2_HORNER(sb_fma32, SB_EXP2_SCALAR, r); }

#endif
