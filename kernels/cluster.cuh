/* cluster.cuh - thread block clusters (compute capability 9.0), whose blocks can reach each other's
 * shared memory: their barrier, and sending a state to the first block.
 *
 * cluster_arrive and cluster_wait are the two halves of a barrier over all threads of the
 * cluster. */
#pragma once

#include "../src/det/accumulator.h"
#include "device.cuh"

#if __CUDA_ARCH__ >= 900

SB_DET void cluster_arrive()
{
    asm volatile("barrier.cluster.arrive.relaxed.aligned;" : : : "memory");
}
SB_DET void cluster_wait() { asm volatile("barrier.cluster.wait.acquire.aligned;" : : : "memory"); }

/* Sets up a barrier in the first block's shared memory. It counts the bytes that other blocks send
 * there. */
SB_DET void expect_bytes(uint64_t *barrier, uint32_t bytes)
{
    uint32_t here = (uint32_t)__cvta_generic_to_shared(barrier);
    asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" : : "r"(here) : "memory");
    asm volatile("fence.mbarrier_init.release.cluster;" : : : "memory");
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;"
                 :
                 : "r"(here), "r"(bytes)
                 : "memory");
}

SB_DET void wait_for_bytes(uint64_t *barrier)
{
    uint32_t here = (uint32_t)__cvta_generic_to_shared(barrier), there = 0;
    while (!there)
        asm volatile("{\n\t.reg .pred p;\n\t"
                     "mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 p, [%1], 0;\n\t"
                     "selp.u32 %0, 1, 0, p;\n\t}"
                     : "=r"(there)
                     : "r"(here)
                     : "memory");
}

/* Sends a state to the same place in the shared memory of the cluster's first block, and counts its
 * bytes at that block's barrier. Called by one warp. */
SB_DET void send_state(sb_state *shared, uint64_t *barrier, const sb_state &s)
{
    const int half = threadIdx.x % WARP;
    uint32_t to = (uint32_t)__cvta_generic_to_shared((char *)shared + 16 * half);
    uint32_t counted = (uint32_t)__cvta_generic_to_shared(barrier);
    if (half >= 2) return;
    const uint64_t a = half ? s.l[1] : (uint64_t)s.c << 32 | s.J, b = half ? s.l[2] : s.l[0];
    asm("mapa.shared::cluster.u32 %0, %0, 0;" : "+r"(to));
    asm("mapa.shared::cluster.u32 %0, %0, 0;" : "+r"(counted));
    asm volatile(
        "st.async.shared::cluster.mbarrier::complete_tx::bytes.v2.b64 [%0], {%1, %2}, [%3];"
        :
        : "r"(to), "l"(a), "l"(b), "r"(counted)
        : "memory");
}

#endif
