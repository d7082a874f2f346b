/* one_read.h - logprobs and their gradient in one launch that reads the logits once:
 * kernels/one_read.cu. No bit depends on whether a call takes it. */
#ifndef SB_CUDA_ONE_READ_H
#define SB_CUDA_ONE_READ_H

#include "cuda/cuda.h"
#include "cuda/one_read_args.h"

/* The launch of a call. Scratch: the exchange areas of its teams, then tokens if only their sums
 * are requested. */
typedef struct sb_cuda_one_read {
    sb_cuda_one_read_policy_args a;
    int has_policy; /* if not, a.policy is not used */
    sb_cuda_grid grid;
    uint64_t exchange, tokens; /* bytes */
} sb_cuda_one_read;

/* Plans a call that computes a gradient. Returns whether it takes the launch: if the kernel serves
 * the call on this GPU, and launch.one_read asks for it or the call has enough rows. If not, *p is
 * not used. */
int sb_cuda_plan_one_read(sb_context *ctx, const sb_logprob_call *logprob, sb_cuda_one_read *p);

/* Makes it the gradient of a policy loss. logprob's token is not null; policy's arrays are set. */
void sb_cuda_set_one_read_policy(sb_cuda_one_read *p, const sb_logprob_call *logprob,
                                 const sb_cuda_policy_args *policy);

/* Makes the gradient NaN if the step's totals of the policy loss are too small, which is known
 * behind its kernels. */
sb_status sb_cuda_refuse_one_read(sb_context *ctx, const sb_policy_call *policy,
                                  sb_cuda_one_read *p, CUstream stream);

/* Launches it, and the sums of sequences. */
sb_status sb_cuda_launch_one_read(sb_context *ctx, const sb_logprob_call *logprob,
                                  sb_cuda_one_read *p, CUdeviceptr scratch);

#endif
