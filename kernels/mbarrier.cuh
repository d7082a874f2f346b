/* mbarrier.cuh - barriers in shared memory that count arrivals and copied bytes, and the bulk
 * copies that they count (compute capability 9.0).
 *
 * A barrier has phases. A phase ends once all expected arrivals and bytes have come, and the next
 * one begins at once. A thread waits for the end of a phase by the phase's parity, so it must not
 * fall a whole phase behind. */
#pragma once

#include "device.cuh"

#if __CUDA_ARCH__ >= 900

/* By one thread; publish_barriers must follow, and a barrier of the block. */
SB_DET void make_barrier(uint64_t *barrier, uint32_t arrivals)
{
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;"
                 :
                 : "r"(address_of(barrier)), "r"(arrivals)
                 : "memory");
}

SB_DET void publish_barriers()
{
    asm volatile("fence.mbarrier_init.release.cluster;" : : : "memory");
    asm volatile("fence.proxy.async.shared::cta;" : : : "memory");
}

/* Arrives, after everything that the thread did before. */
SB_DET void arrive_at(shared_address barrier)
{
    asm volatile("mbarrier.arrive.release.cta.shared::cta.b64 _, [%0];"
                 :
                 : "r"(barrier)
                 : "memory");
}

/* Lanes that arrive for a warp. racecheck follows a barrier only for the threads that arrive, and
 * takes what the other lanes did before for a race: check a build with -DSB_EVERY_LANE_ARRIVES. */
#ifdef SB_EVERY_LANE_ARRIVES
#define ARRIVALS WARP
#else
#define ARRIVALS 1
#endif

/* Arrives for a warp, after everything that its lanes did before. Called by the whole warp. The
 * barrier expects ARRIVALS arrivals per warp. */
SB_DET void arrive_as_warp(shared_address barrier)
{
    __syncwarp();
    if (threadIdx.x % WARP < ARRIVALS) arrive_at(barrier);
}

/* Lets the current phase wait for so many bytes more. */
SB_DET void expect_copy(shared_address barrier, uint32_t bytes)
{
    asm volatile("mbarrier.expect_tx.relaxed.cta.shared::cta.b64 [%0], %1;"
                 :
                 : "r"(barrier), "r"(bytes)
                 : "memory");
}

SB_DET void wait_for_phase(shared_address barrier, uint32_t parity)
{
    const uint32_t long_time = 10000000; /* ns; meanwhile the thread issues nothing */
    uint32_t ended = 0;
    while (!ended)
        asm volatile("{\n\t.reg .pred p;\n\t"
                     "mbarrier.try_wait.parity.acquire.cta.shared::cta.b64 p, [%1], %2, %3;\n\t"
                     "selp.u32 %0, 1, 0, p;\n\t}"
                     : "=r"(ended)
                     : "r"(barrier), "r"(parity), "r"(long_time)
                     : "memory");
}

/* A barrier of the block's first THREADS threads. */
template <int THREADS> SB_DET void meet()
{
    asm volatile("bar.sync 1, %0;" : : "n"(THREADS) : "memory");
}

/* Begins to copy bytes, a multiple of 16, to shared memory. Both addresses are multiples of 16. */
SB_DET void copy_bulk(shared_address to, const char *from, uint32_t bytes, shared_address barrier)
{
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes "
                 "[%0], [%1], %2, [%3];"
                 :
                 : "r"(to), "l"(from), "r"(bytes), "r"(barrier)
                 : "memory");
}

/* The thread's writes to shared memory come before later bulk copies to the same place. */
SB_DET void order_before_copies() { asm volatile("fence.proxy.async.shared::cta;" : : : "memory"); }

#endif
