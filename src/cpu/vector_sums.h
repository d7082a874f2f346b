/* vector_sums.h - adds products to sums in fp64, in a fixed order: the inner loop of
 * sb_head_backward. Each instruction-set file includes it and so compiles it for its own
 * instructions; the loops are written for the compiler to vectorise.
 *
 * The product of two fp32 numbers has at most 48 bits, so it is exact in fp64, and a fused
 * multiply-add gives the bits of a product and a sum. */
#ifndef SB_CPU_VECTOR_SUMS_H
#define SB_CPU_VECTOR_SUMS_H

#include "cpu/isa.h"
#include "det/float.h"

#if !defined(SUMS_ADD) /* a path with multiply-adds defines it */
#define SUMS_ADD(sum, a, b) ((sum) + (a) * (b))
#endif

static void sums(double (*restrict to)[SB_CPU_SUM_COLUMNS],
                 const double (*restrict a)[SB_CPU_SUM_TERMS],
                 const double (*restrict b)[SB_CPU_SUM_COLUMNS], int64_t rows)
{
    for (int64_t i = 0; i < rows; i++) {
        double *const sum = to[i];
        for (int k = 0; k < SB_CPU_SUM_TERMS; k += 8) {
            const double *const f = a[i] + k;
            const double f0 = f[0], f1 = f[1], f2 = f[2], f3 = f[3];
            const double f4 = f[4], f5 = f[5], f6 = f[6], f7 = f[7];
            for (int c = 0; c < SB_CPU_SUM_COLUMNS; c++) {
                double t = sum[c];
                t = SUMS_ADD(t, f0, b[k][c]);
                t = SUMS_ADD(t, f1, b[k + 1][c]);
                t = SUMS_ADD(t, f2, b[k + 2][c]);
                t = SUMS_ADD(t, f3, b[k + 3][c]);
                t = SUMS_ADD(t, f4, b[k + 4][c]);
                t = SUMS_ADD(t, f5, b[k + 5][c]);
                t = SUMS_ADD(t, f6, b[k + 6][c]);
                t = SUMS_ADD(t, f7, b[k + 7][c]);
                sum[c] = t;
            }
        }
    }
}

#endif
