/* crew.cuh - the blocks that share a row: those of a cluster (compute capability 9.0), which read
 * each other's shared memory, or one block alone. Rank 0 is the block that finishes the row.
 *
 * Whatever a block publishes lies at the same place in the shared memory of each. It is complete
 * after crew_barrier, and may be written again behind the barrier after that. No block may end
 * while others read from it, so a crew meets once more at its end. */
#pragma once

#include "device.cuh"

struct crew {
    int rank, size;
};

/* The crew of the calling block, in a launch whose clusters have `size` blocks. */
SB_DET crew crew_of(int size)
{
    crew c = { 0, size };
#if __CUDA_ARCH__ >= 900
    if (size > 1) asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(c.rank));
#endif
    return c;
}

/* All threads of all blocks meet, and see what each of them has written. */
SB_DET void crew_barrier(const crew &c)
{
#if __CUDA_ARCH__ >= 900
    if (c.size > 1) {
        __syncwarp();
        asm volatile("barrier.cluster.arrive.release.aligned;" : : : "memory");
        asm volatile("barrier.cluster.wait.acquire.aligned;" : : : "memory");
        return;
    }
#endif
    __syncthreads(); /* the block is the crew */
}

/* Where block `rank` has what is at p, in shared memory, here. */
template <class T> SB_DET T *in_block(const crew &c, T *p, int rank)
{
#if __CUDA_ARCH__ >= 900
    if (c.size > 1) {
        uint64_t there;
        asm("mapa.u64 %0, %1, %2;" : "=l"(there) : "l"((uint64_t)p), "r"(rank));
        return (T *)there;
    }
#endif
    return p;
}
