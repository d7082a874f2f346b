/* isa.h - what the instruction-set paths give the CPU backend. */
#ifndef SB_CPU_ISA_H
#define SB_CPU_ISA_H

#include <stdint.h>

#include "det/accumulator.h"

/* Adds the leaves of n >= 1 logits to state. The id of the first logit is a multiple of 16; if n is
 * not a multiple of 16, the row ends after them. logits need no alignment. Runs in the contract's
 * floating-point mode. */
typedef void (*sb_reduce)(sb_state *state, const void *logits, int64_t n, const sb_row *row);

/* The same, with moments. */
typedef struct sb_moments sb_moments;
typedef void (*sb_reduce_moments)(sb_moments *m, const void *logits, int64_t n, const sb_row *row);

/* Writes the gradient at n logits. Each of grad and logits is fp32, fp16 or bf16 (an sb_dtype);
 * grad may be the same memory as logits. of is a combination of SB_OF_* from det/gradient.h. Runs
 * in the contract's floating-point mode. */
typedef struct sb_gradient_row sb_gradient_row;
typedef void (*sb_spread)(void *grad, int32_t grad_dtype, const void *logits, int32_t logits_dtype,
                          int64_t n, const sb_gradient_row *g, int of);

/* Adds the leaves of n >= 1 fp32 logits of two rows. The conditions on ids and mode are those of
 * sb_reduce. */
typedef struct sb_divergence sb_divergence;
typedef void (*sb_reduce_kl)(sb_divergence *s, const float *p, const float *q, int64_t n,
                             const sb_row *row_p, const sb_row *row_q);

/* Adds a[i][t] * b[t] to to[i], for each of some rows i and for t in ascending order: one addition
 * in fp64 each, where the products are exact. */
#define SB_CPU_SUM_COLUMNS 64
#define SB_CPU_SUM_TERMS 32
typedef void (*sb_add_products)(double (*restrict to)[SB_CPU_SUM_COLUMNS],
                                const double (*restrict a)[SB_CPU_SUM_TERMS],
                                const double (*restrict b)[SB_CPU_SUM_COLUMNS], int64_t rows);

typedef struct sb_isa {
    const char *name;
    int (*available)(void); /* whether this processor and this build have it */
    sb_reduce f32, f16, bf16;
    sb_reduce_moments moments_f32, moments_f16, moments_bf16;
    sb_spread gradient;
    sb_reduce_kl kl;
    sb_add_products sums;
} sb_isa;

extern const sb_isa sb_isa_avx512, sb_isa_avx2, sb_isa_scalar;

#endif
