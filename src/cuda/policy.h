/* policy.h - policy losses inside other operations: sb_logprob computes the gradient of one. */
#ifndef SB_CUDA_POLICY_H
#define SB_CUDA_POLICY_H

#include "cuda/cuda.h"

/* How a call is divided, and where its scratch memory has what. */
typedef struct sb_cuda_policy {
    sb_cuda_policy_args a; /* until the arrays are set, scratch is given by offsets + 1, or 0 */
    uint64_t bytes;        /* of scratch */
    int counted;           /* sequences' constants are made before the tokens are visited */
    int by_sequences;      /* by policy_count_sequences, which a->totals are not needed for */
} sb_cuda_policy;

/* Plans a call. early: another kernel takes derivatives before any token is visited. It does not
 * know whether the step's totals are below the call's own. */
sb_cuda_policy sb_cuda_plan_policy(const sb_context *ctx, const sb_policy_call *call, int early);

/* Checks the arrays of a call. */
sb_status sb_cuda_check_policy_arrays(sb_context *ctx, const sb_policy_call *call);

/* Puts the scratch memory in its place, and sets the arrays. */
void sb_cuda_set_policy(sb_cuda_policy *p, const sb_policy_call *call, CUdeviceptr scratch);

/* Launches what makes the constants of sequences; then the rest. */
sb_status sb_cuda_launch_policy_constants(sb_context *ctx, sb_cuda_policy *p, CUstream stream);
sb_status sb_cuda_launch_policy(sb_context *ctx, sb_cuda_policy *p, CUstream stream);

/* Names what a report of the kernels says, as the cpu backend would; SB_OK: the report is of
 * something else, or cannot be found again. */
sb_status sb_cuda_name_policy(sb_context *ctx, const sb_policy_call *call, int64_t report);

#endif
