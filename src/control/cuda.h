/* cuda.h - what the CUDA backend holds of the control group, and how it runs it. */
#ifndef SB_CONTROL_CUDA_H
#define SB_CONTROL_CUDA_H

#include "cuda/driver.h"

#define SB_CONVENTIONAL_KERNELS(X)                                                                 \
    X(conventional_f32)                                                                            \
    X(conventional_f16)                                                                            \
    X(conventional_bf16)                                                                           \
    X(conventional_finish)                                                                         \
    X(conventional_sums)

typedef struct sb_conventional_kernels {
    CUmodule module; /* null until a call asks for them */
#define SB_CONVENTIONAL_FUNCTION(name) CUfunction name;
    SB_CONVENTIONAL_KERNELS(SB_CONVENTIONAL_FUNCTION)
#undef SB_CONVENTIONAL_FUNCTION
} sb_conventional_kernels;

/* SB_OP_CONVENTIONAL, as sb_op_slot has it. */
sb_status sb_conventional_cuda(sb_context *ctx, const void *call);

#endif
