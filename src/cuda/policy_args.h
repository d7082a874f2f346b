/* policy_args.h - what kernels/policy.cu and its launches share beside the arguments in args.h. */
#ifndef SB_CUDA_POLICY_ARGS_H
#define SB_CUDA_POLICY_ARGS_H

/* Threads per block of the kernels that come last, or have one block: at most half of what a block
 * may have, so that there is room where warps have 64 lanes. */
#define SB_CUDA_POLICY_LAST 512

/* For sb_cuda_policy_args.joint: new - old, new - rollout, old - rollout. */
#define SB_CUDA_MOVED 1
#define SB_CUDA_DRIFTED 2
#define SB_CUDA_WEIGHT 4
#define SB_CUDA_ALL_SUMS (SB_CUDA_MOVED | SB_CUDA_DRIFTED | SB_CUDA_WEIGHT)

#endif
