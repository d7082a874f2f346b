/* cluster.cuh - thread block clusters (compute capability 9.0), whose blocks can reach each other's
 * shared memory: their barrier, sending a state to the first block, and merging the many states
 * that arrive there.
 *
 * cluster_arrive and cluster_wait are the two halves of a barrier over all threads of the
 * cluster. */
#pragma once

#include "../src/det/accumulator.h"
#include "merge.cuh"

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

/* As merge_shared, but faster if there are many states: each lane loads four at a time, which takes
 * about 30 registers more. shared is aligned to 16 bytes. */
SB_DET void merge_many(sb_state *s, const sb_state *shared, int count)
{
    constexpr int BATCH = 4;
    const int lane = threadIdx.x % WARP;
    uint32_t J = SB_J_EMPTY;
    make_none(s);
#pragma unroll 1
    for (int first = lane; first - lane < count; first += BATCH * WARP) {
        uint32_t j[BATCH];
#pragma unroll
        for (int k = 0; k < BATCH; k++)
            j[k] = first + k * WARP < count ? shared[first + k * WARP].J : SB_J_EMPTY;
#pragma unroll
        for (int k = 0; k < BATCH; k++) J = max(J, j[k]);
    }
    s->J = __reduce_max_sync(FULL, J);
#pragma unroll 1
    for (int first = lane; first - lane < count; first += BATCH * WARP) {
        uint4 low[BATCH], high[BATCH]; /* J, c and l[0]; l[1] and l[2] */
#pragma unroll
        for (int k = 0; k < BATCH; k++) {
            low[k] = high[k] = make_uint4(0, 0, 0, 0);
            if (first + k * WARP >= count) continue;
            low[k] = ((const uint4 *)&shared[first + k * WARP])[0];
            high[k] = ((const uint4 *)&shared[first + k * WARP])[1];
        }
#pragma unroll
        for (int k = 0; k < BATCH; k++) {
            const uint64_t a = (uint64_t)low[k].w << 32 | low[k].z;
            const uint64_t b = (uint64_t)high[k].y << 32 | high[k].x;
            const uint64_t c = (uint64_t)high[k].w << 32 | high[k].z;
            const uint32_t rise = s->J - low[k].x;
            s->l[0] += rise == 0 ? a : rise == 1 ? b : rise == 2 ? c : 0;
            s->l[1] += rise == 0 ? b : rise == 1 ? c : 0;
            s->l[2] += rise == 0 ? c : 0;
        }
    }
    for (int i = 0; i < 3; i++) s->l[i] = warp_sum(s->l[i]);
}

#endif
