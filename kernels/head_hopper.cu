/* head_hopper.cu - the products of head.cu on GPUs with wgmma: see head_hopper.cuh. For other GPUs
 * its kernels are empty, and are not launched.
 *
 *     head_many_a, head_many_b     any number of rows
 *     head_turns_a, head_turns_b   the same: the warpgroups take turns
 *     head_some_a, head_some_b     at most 64 rows
 *
 * One block of 384 threads for each of a.groups shares. */
#include "head_hopper.cuh"

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define MANY(PLANES, TURNS) head_many<PLANES, TURNS>(a)
#define SOME(PLANES) head_some<PLANES>(a)
#else
#define MANY(PLANES, TURNS) (void)a
#define SOME(PLANES) (void)a
#endif

#define PRODUCTS(name, PLANES)                                                                     \
    extern "C" __global__ void __launch_bounds__(SB_CUDA_HEAD_HOPPER_THREADS, 1)                   \
        head_many_##name(const __grid_constant__ sb_cuda_head_args a)                              \
    {                                                                                              \
        MANY(PLANES, false);                                                                       \
    }                                                                                              \
    extern "C" __global__ void __launch_bounds__(SB_CUDA_HEAD_HOPPER_THREADS, 1)                   \
        head_turns_##name(const __grid_constant__ sb_cuda_head_args a)                             \
    {                                                                                              \
        MANY(PLANES, true);                                                                        \
    }                                                                                              \
    extern "C" __global__ void __launch_bounds__(SB_CUDA_HEAD_HOPPER_THREADS, 1)                   \
        head_some_##name(const __grid_constant__ sb_cuda_head_args a)                              \
    {                                                                                              \
        SOME(PLANES);                                                                              \
    }
PRODUCTS(a, 2)
PRODUCTS(b, 3)
