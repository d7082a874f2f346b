/* policy_args.h - which sums of differences kernels/policy.cu makes for the constants of sequences:
 * as args.h, for one file of kernels. */
#ifndef SB_CUDA_POLICY_ARGS_H
#define SB_CUDA_POLICY_ARGS_H

/* For sb_cuda_policy_args.joint: new - old, new - rollout, old - rollout. */
#define SB_CUDA_MOVED 1
#define SB_CUDA_DRIFTED 2
#define SB_CUDA_WEIGHT 4
#define SB_CUDA_ALL_SUMS (SB_CUDA_MOVED | SB_CUDA_DRIFTED | SB_CUDA_WEIGHT)

#endif
