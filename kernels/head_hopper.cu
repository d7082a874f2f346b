/* head_hopper.cu - the products of head.cu on GPUs with wgmma: see head_hopper.cuh. For other GPUs
 * its kernels are empty, and are not launched.
 *
 *     head_many_a, head_many_b     any number of rows
 *     head_turns_a, head_turns_b   the same: the warpgroups take turns
 *     head_some_a, head_some_b     at most 64 rows
 *     ..._a_moments, ..._b_moments the same kernels with moments for the entropy
 *
 * One block of 384 threads for each of a.groups shares. */
#include "head_hopper.cuh"

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define MANY(PLANES, TURNS, STATE) head_many<PLANES, TURNS, STATE>(a)
#define SOME(PLANES, STATE) head_some<PLANES, STATE>(a)
#else
#define MANY(PLANES, TURNS, STATE) (void)a
#define SOME(PLANES, STATE) (void)a
#endif

#define PRODUCTS(name, PLANES, STATE)                                                              \
    extern "C" __global__ void __launch_bounds__(SB_CUDA_HEAD_HOPPER_THREADS, 1)                   \
        head_many_##name(const __grid_constant__ sb_cuda_head_args a)                              \
    {                                                                                              \
        MANY(PLANES, false, STATE);                                                                \
    }                                                                                              \
    extern "C" __global__ void __launch_bounds__(SB_CUDA_HEAD_HOPPER_THREADS, 1)                   \
        head_turns_##name(const __grid_constant__ sb_cuda_head_args a)                             \
    {                                                                                              \
        MANY(PLANES, true, STATE);                                                                 \
    }                                                                                              \
    extern "C" __global__ void __launch_bounds__(SB_CUDA_HEAD_HOPPER_THREADS, 1)                   \
        head_some_##name(const __grid_constant__ sb_cuda_head_args a)                              \
    {                                                                                              \
        SOME(PLANES, STATE);                                                                       \
    }
PRODUCTS(a, 2, sb_state)
PRODUCTS(b, 3, sb_state)
PRODUCTS(a_moments, 2, sb_moments)
PRODUCTS(b_moments, 3, sb_moments)
