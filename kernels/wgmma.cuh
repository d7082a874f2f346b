/* wgmma.cuh - products of a warpgroup's tiles by the tensor cores of compute capability 9.0 (target
 * sm_90a): int8, both operands in shared memory in rows of 64 bytes with the 64-byte swizzle, sums
 * in int32 registers.
 *
 * Warp w of a warpgroup has rows 16 w .. 16 w + 15 of the sums. In groups of 8 columns n, lane
 * 4 g + q holds, as numbers 4 n .. 4 n + 3: (g, 8 n + 2q), (g, 8 n + 2q + 1), (g + 8, 8 n + 2q) and
 * (g + 8, 8 n + 2q + 1). */
#pragma once

#include "mbarrier.cuh"

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

/* Describes rows of 64 bytes from an address on, which is a multiple of 512, plus 0 or 32 for the
 * first or the second half of each row. */
SB_DET uint64_t wgmma_operand(shared_address rows)
{
    const uint64_t swizzle_64 = (uint64_t)2 << 62, eight_rows = (uint64_t)(512 / 16) << 32;
    return (uint64_t)(rows >> 4) | (uint64_t)1 << 16 | eight_rows | swizzle_64;
}

/* Between other uses of sums and wgmma; then, after some of these, and to wait for all but the last
 * GROUPS ends. */
SB_DET void wgmma_begin() { asm volatile("wgmma.fence.sync.aligned;" : : : "memory"); }
SB_DET void wgmma_end() { asm volatile("wgmma.commit_group.sync.aligned;" : : : "memory"); }
template <int GROUPS> SB_DET void wgmma_wait()
{
    asm volatile("wgmma.wait_group.sync.aligned %0;" : : "n"(GROUPS) : "memory");
}

/* Keeps the compiler from moving sums over this point. */
template <int N> SB_DET void pin(int32_t (&s)[N])
{
#pragma unroll
    for (int i = 0; i < N; i++) asm volatile("" : "+r"(s[i]) : : "memory");
}

/* Registers per thread: of the calling warpgroup, from now on. */
template <int N> SB_DET void fewer_registers()
{
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" : : "n"(N));
}
template <int N> SB_DET void more_registers()
{
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" : : "n"(N));
}

/* Arrives at a barrier of device.cuh's group_barrier, without waiting. */
SB_DET void group_arrive(int number, int threads)
{
    asm volatile("bar.arrive %0, %1;" : : "r"(number), "r"(threads) : "memory");
}

#define SUMS_4(s, i) "+r"(s[i]), "+r"(s[i + 1]), "+r"(s[i + 2]), "+r"(s[i + 3])
#define SUMS_16(s, i) SUMS_4(s, i), SUMS_4(s, i + 4), SUMS_4(s, i + 8), SUMS_4(s, i + 12)

/* sum [64][128] += a [64][32] * b [128][32]. */
SB_DET void wgmma_int8(int32_t (&s)[64], uint64_t a, uint64_t b)
{
    asm volatile("wgmma.mma_async.sync.aligned.m64n128k32.s32.s8.s8 {"
                 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
                 "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
                 "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
                 "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
                 "}, %64, %65, 1;"
                 : SUMS_16(s, 0), SUMS_16(s, 16), SUMS_16(s, 32), SUMS_16(s, 48)
                 : "l"(a), "l"(b));
}

/* sum [64][64] += a [64][32] * b [64][32]. */
SB_DET void wgmma_int8(int32_t (&s)[32], uint64_t a, uint64_t b)
{
    asm volatile("wgmma.mma_async.sync.aligned.m64n64k32.s32.s8.s8 {"
                 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
                 "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
                 "}, %32, %33, 1;"
                 : SUMS_16(s, 0), SUMS_16(s, 16)
                 : "l"(a), "l"(b));
}

#undef SUMS_16
#undef SUMS_4

#endif
