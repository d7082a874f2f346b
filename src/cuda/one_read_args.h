/* one_read_args.h - the arguments of one_read.cu's kernel for policy losses: as args.h, for one
 * file of kernels. */
#ifndef SB_CUDA_ONE_READ_ARGS_H
#define SB_CUDA_ONE_READ_ARGS_H

#include "args.h"

#define SB_CUDA_ONE_READ_REFUSERS 256 /* threads per block of one_read_refuse */

/* once.gradient.token is not used: each row's derivative is that of policy by the row's logprob. */
typedef struct sb_cuda_one_read_policy_args {
    sb_cuda_one_read_args once;
    sb_cuda_policy_args policy;
} sb_cuda_one_read_policy_args;

#endif
