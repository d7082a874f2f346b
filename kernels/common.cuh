/* common.cuh - what the kernels share: which row is active and where its logits lie, and the
 * merging of states in a warp and in a block.
 *
 * No atomics, no approximate instruction: src/det is the arithmetic, --fmad=false its rounding. */
#pragma once

#include <stdint.h>

#include "../src/cuda_args.h"
#include "../src/det/accumulator.h"
#include "../src/det/convert.h"
#include "../src/det/saved.h"
#include "../src/det/sum.h"
#include "device.cuh"

/* ---- rows --------------------------------------------------------------------------------- */

struct row_of_call {
    const char *logits; /* null: ignored */
    int64_t id;
    float tau;
    bool bad; /* its id or temperature: reported, and NaN */
};

SB_DET int64_t int_at(uint64_t data, int32_t dtype, int64_t i)
{
    return dtype == SB_CUDA_I64 ? ((const int64_t *)data)[i] : ((const int32_t *)data)[i];
}

/* The sequence that holds row, packed: the last that starts at or before it. */
SB_DET int64_t sequence_of(const sb_cuda_args &in, int64_t row)
{
    int64_t low = 0, high = in.batch;
    while (high - low > 1) {
        int64_t middle = low + (high - low) / 2;
        if (int_at(in.cu_seqlens, in.cu_seqlens_dtype, middle) <= row) low = middle;
        else high = middle;
    }
    return low;
}

SB_DET bool starts_sequence(const sb_cuda_args &in, int64_t row)
{
    if (!in.cu_seqlens) return row % in.time == 0;
    return int_at(in.cu_seqlens, in.cu_seqlens_dtype, sequence_of(in, row)) == row;
}

SB_DET bool is_active(const sb_cuda_args &in, int64_t row, int64_t id)
{
    return id != in.ignore_index && !(in.mask && !((const uint8_t *)in.mask)[row]) &&
           !(in.shift && starts_sequence(in, row));
}

/* The logits that score row. */
SB_DET const char *logits_of(const sb_cuda_args &in, int64_t row)
{
    int64_t source = row - in.shift, element;
    if (in.flat) element = source * in.row_stride;
    else element = source / in.time * in.batch_stride + source % in.time * in.row_stride;
    return (const char *)in.logits + element * in.itemsize;
}

/* Whether id, which is in range, is in row's kept set. */
SB_DET bool is_kept(const sb_cuda_args &in, int64_t row, int64_t id)
{
    const uint32_t *kept = (const uint32_t *)in.kept;
    return !kept || (kept[row * in.kept_stride + id / 32] >> (id % 32) & 1);
}

/* Whether row is active and where its logits lie; precedence as samebits.h states it. */
SB_DET row_of_call resolve(const sb_cuda_args &in, int64_t row)
{
    row_of_call r;
    r.logits = nullptr;
    r.bad = false;
    r.tau = 1.0f;
    r.id = int_at(in.ids, in.ids_dtype, row);
    if (!is_active(in, row, r.id)) return r;
    r.tau = in.temperatures ? ((const float *)in.temperatures)[row] : in.temperature;
    r.bad = r.id < 0 || r.id >= in.vocab || !sb_temperature_ok(r.tau);
    r.logits = logits_of(in, row);
    return r;
}

/* The row that work item i stands for. Rows of 16-bit logits that start at 8 different alignments
 * are visited by alignment, so that blocks that run together run the same code. */
SB_DET int64_t row_at(const sb_cuda_args &in, int64_t item)
{
    if (in.row_list) return ((const int64_t *)in.row_list)[item];
    if (!in.phases) return item;
    uint32_t i = (uint32_t)item, work = (uint32_t)in.work; /* a grid has fewer than 2^31 blocks */
    uint32_t each = work / 8, more = work % 8, longer = more * (each + 1);
    if (i < longer) return i / (each + 1) + i % (each + 1) * 8;
    i -= longer;
    return more + i / each + i % each * 8;
}

/* A row list must rise strictly and stay inside; a row that does not is reported and left alone. */
SB_DET bool listed_well(const sb_cuda_args &in, int64_t i)
{
    const int64_t *list = (const int64_t *)in.row_list;
    if (!list) return true;
    return list[i] >= 0 && list[i] < in.rows && (i == 0 || list[i] > list[i - 1]);
}

/* One number for a row that has no sum: ignored (0) or refused (NaN). */
SB_DET void write_row(const sb_cuda_args &in, int64_t r, float x)
{
    if (in.tokens) ((float *)in.tokens)[r] = x;
    if (in.lse) ((float *)in.lse)[r] = x;
    if (in.entropy) ((float *)in.entropy)[r] = x;
    if (in.saved) ((sb_saved *)in.saved)[r] = sb_saved_none();
}

/* Tells the host. Every writer's report is a whole one: 8 bytes in one store; the last one stays.
 */
SB_DET void report(const sb_cuda_args &in, int64_t kind, int64_t index)
{
    *(volatile int64_t *)in.bad = kind << SB_BAD_SHIFT | (index + 1);
}

SB_DET bool is_listed(const sb_cuda_args &in, int64_t row)
{
    const int64_t *list = (const int64_t *)in.row_list;
    int64_t low = 0, high = in.row_count;
    if (!list) return true;
    while (low < high) {
        int64_t middle = low + (high - low) / 2;
        if (list[middle] < row) low = middle + 1;
        else high = middle;
    }
    return low < in.row_count && list[low] == row;
}

/* The rows of sequence b, half open; false: its cu_seqlens are not as they must be, and it is taken
 * for empty. */
SB_DET bool extent_of(const sb_cuda_args &in, int64_t b, int64_t *first, int64_t *last)
{
    bool well;
    if (!in.cu_seqlens) {
        *first = b * in.time;
        *last = *first + in.time;
        return true;
    }
    *first = int_at(in.cu_seqlens, in.cu_seqlens_dtype, b);
    *last = int_at(in.cu_seqlens, in.cu_seqlens_dtype, b + 1);
    well = *first >= 0 && *first <= *last && *last <= in.rows && (b > 0 || *first == 0) &&
           (b + 1 < in.batch || *last == in.rows) && *last - *first <= SB_SUM_MAX;
    if (!well) *last = *first;
    return well;
}

/* ---- states ------------------------------------------------------------------------------- */

/* The sum over a warp of 64-bit values, exact: first of so many bits that a warp's sum of them fits
 * 32. A digit's sum over a whole row is below 2^48 (2^16 leaves of less than 2^32), so that two
 * times are enough. All lanes get it. */
SB_DET uint64_t warp_sum(uint64_t x)
{
    constexpr int BITS = WARP == 32 ? 27 : 26;
    uint64_t low = __reduce_add_sync(FULL, (uint32_t)x & ((1u << BITS) - 1));
    uint64_t high = __reduce_add_sync(FULL, (uint32_t)(x >> BITS));
    return low + (high << BITS);
}

SB_DET int64_t warp_sum_signed(int64_t x)
{
    for (int step = WARP / 2; step > 0; step /= 2) x += __shfl_xor_sync(FULL, x, step);
    return x;
}

/* Merges the states of a warp's lanes; all lanes get the result. c is left alone. */
SB_DET void warp_merge(sb_state *s)
{
    sb_state_rise(s, __reduce_max_sync(FULL, s->J));
    s->l[0] = warp_sum(s->l[0]);
    s->l[1] = warp_sum(s->l[1]);
    s->l[2] = warp_sum(s->l[2]);
}

/* Merges count states in shared memory; all lanes of the calling warp get the result. */
SB_DET void merge_shared(sb_state *s, const sb_state *shared, int count)
{
    uint32_t J = SB_J_EMPTY;
    sb_state_init(s, 0);
    for (int i = threadIdx.x % WARP; i < count; i += WARP) J = max(J, shared[i].J);
    s->J = __reduce_max_sync(FULL, J);
    for (int i = threadIdx.x % WARP; i < count; i += WARP) {
        const uint64_t a = shared[i].l[0], b = shared[i].l[1], c = shared[i].l[2];
        const uint32_t rise = s->J - shared[i].J;
        s->l[0] += rise == 0 ? a : rise == 1 ? b : rise == 2 ? c : 0;
        s->l[1] += rise == 0 ? b : rise == 1 ? c : 0;
        s->l[2] += rise == 0 ? c : 0;
    }
    for (int i = 0; i < 3; i++) s->l[i] = warp_sum(s->l[i]);
}

/* Merges the states of a block's threads. The result is warp 0's; shared holds a state a warp. */
SB_DET void block_merge(sb_state *s, sb_state *shared)
{
    int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, warps = blockDim.x / WARP;
    warp_merge(s);
    if (lane == 0) shared[warp] = *s;
    __syncthreads(); /* every warp's state is in shared */
    if (warp == 0) merge_shared(s, shared, warps);
}

#if __CUDA_ARCH__ >= 900

/* ---- clusters: blocks that can reach each other's shared memory ---------------------------------
 *
 * arrive and wait are the two halves of a barrier of all the cluster's threads. */

SB_DET void cluster_arrive()
{
    asm volatile("barrier.cluster.arrive.relaxed.aligned;" : : : "memory");
}
SB_DET void cluster_wait() { asm volatile("barrier.cluster.wait.acquire.aligned;" : : : "memory"); }

/* A barrier in the first block's shared memory that counts the bytes other blocks send there. */
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

/* By a warp: sends a state to the same place in the shared memory of the cluster's first block, and
 * its bytes to that block's barrier. */
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
