/* latency.cuh - logprobs of few rows, where a call's time is a chain of latencies: the kernels
 * logprob_<dtype>_latency and logprob_<dtype>_cluster of logprob.cu.
 *
 * A block's last warp, the row warp, handles the row itself: its id, its target's logit and, at the
 * end, the finish. The other warps, the leaf warps, sum a piece of the row, with several leaves per
 * thread in flight at once. In an eager call they start before the id is known; if the row turns
 * out to be ignored or refused, its sum is thrown away. */
#pragma once

#include "cluster.cuh"
#include "finish.cuh"
#include "leaf.cuh"
#include "target.cuh"

/* ---- a warp's ring of slots in shared memory: a slot holds one leaf of each lane ----------- */

template <int DTYPE> struct ring_of {
    static constexpr int SIZE = size_of<DTYPE>();
    static constexpr int BYTES = SB_LEAF * SIZE; /* of a leaf */
    static constexpr int SLOT = SB_CUDA_SLOT(WARP, SIZE);
    static constexpr int SLOTS = SB_CUDA_RING / SB_CUDA_LANE_BYTES(SIZE);
};

/* Begins to copy a slot's 16-byte chunks from the aligned address from on. Chunks lie side by side,
 * as in device memory, and neighbouring lanes copy neighbouring chunks. Nothing from end on is
 * read: of the chunk that end lies in, only the logits before end are copied. The chunk behind the
 * last lane's leaf is needed only if leaves are not aligned. */
template <int DTYPE>
SB_DET void fetch_slot(char *slot, const char *from, const char *end, bool aligned)
{
    constexpr int SIZE = ring_of<DTYPE>::SIZE, CHUNKS = ring_of<DTYPE>::SLOT / 16;
    const int lane = threadIdx.x % WARP, bytes = (int)(end - from);
    const int i = bytes / 16 * (16 / SIZE) + lane; /* a logit's place */
    const shared_address to = address_of(slot);
    if (bytes >= ring_of<DTYPE>::SLOT) { /* nearly always */
#pragma unroll
        for (int k = 0; k < ring_of<DTYPE>::BYTES / 16; k++)
            copy16_past_l1(to + (k * WARP + lane) * 16, from + (k * WARP + lane) * 16);
        if (!aligned && lane == 0) copy16_past_l1(to + (CHUNKS - 1) * 16, from + (CHUNKS - 1) * 16);
        return;
    }
#pragma unroll
    for (int k = 0; k <= ring_of<DTYPE>::BYTES / 16; k++) {
        const int chunk = k * WARP + lane;
        if (chunk < bytes / 16 && chunk < CHUNKS)
            copy16_past_l1(to + chunk * 16, from + chunk * 16);
    }
    if (i * SIZE < bytes && i * SIZE < ring_of<DTYPE>::SLOT) {
        if (SIZE == 4) ((uint32_t *)slot)[i] = ((const uint32_t *)from)[i];
        else ((uint16_t *)slot)[i] = ((const uint16_t *)from)[i];
    }
}

template <int DTYPE, int SHIFT> SB_DET void load_shared(leaf_words<DTYPE> &x, const uint4 *chunk)
{
    constexpr int CHUNKS = words_of<DTYPE>() / 4 + (SHIFT != 0);
    uint32_t raw[4 * CHUNKS];
#pragma unroll
    for (int k = 0; k < CHUNKS; k++) {
        uint4 v = chunk[k];
        raw[4 * k] = v.x, raw[4 * k + 1] = v.y, raw[4 * k + 2] = v.z, raw[4 * k + 3] = v.w;
    }
    take_words<DTYPE, SHIFT>(x, raw);
}

/* Loads a leaf whose first logit lies shift bytes into chunk. Ids from present on are absent. */
template <int DTYPE>
SB_DET void load_fetched(leaf_words<DTYPE> &x, const uint4 *chunk, uint32_t shift, int64_t present)
{
    at_alignment<DTYPE>(shift, [&](auto at) { load_shared<DTYPE, decltype(at)::value>(x, chunk); });
    keep_present<DTYPE>(x, present);
}

/* ---- leaf warps ------------------------------------------------------------------------- */

SB_DET int leaf_threads() { return (int)blockDim.x - WARP; }
SB_DET bool in_row_warp() { return (int)threadIdx.x >= leaf_threads(); }

/* Sums a part of a row into the states of the leaf warps' threads. Called by the leaf warps. */
template <int DTYPE>
SB_DET void sum_leaves(thread_state *t, const part_of_row &part, const sb_row &row)
{
    typedef ring_of<DTYPE> ring;
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, step = leaf_threads();
    const leaf_row constants = { row.c, row.k64 };
    const uint32_t shift = (uint32_t)(uint64_t)part.logits & 15;
    const int64_t ids = min((int64_t)part.last * SB_LEAF, part.vocab);
    const char *end = part.logits + ids * ring::SIZE;
    char *const slots = (char *)staging + warp * ring::SLOTS * ring::SLOT;
    int k = part.first + warp * WARP, ahead = k, slot = 0; /* the warp's first leaf of a trip */
    bool left = false;

    t->base = NO_BASE;
    sb_state_init(&t->s, row.c);
#pragma unroll
    for (int i = 0; i < ring::SLOTS; i++) {
        if (ahead < part.last)
            fetch_slot<DTYPE>(slots + i * ring::SLOT,
                              part.logits - shift + (int64_t)ahead * ring::BYTES, end, shift == 0);
        end_copies();
        ahead += step;
    }
    for (; k < part.last; k += step) {
        wait_for_copies<ring::SLOTS - 1>();
        __syncwarp();
        if (k + lane < part.last) {
            leaf_words<DTYPE> x;
            load_fetched<DTYPE>(x, (const uint4 *)(slots + slot * ring::SLOT + lane * ring::BYTES),
                                shift, part.vocab - (int64_t)(k + lane) * SB_LEAF);
            add_leaf<DTYPE>(t, x, constants, &left);
        }
        if (ahead < part.last) {
            __syncwarp(); /* the slot is free again */
            fetch_slot<DTYPE>(slots + slot * ring::SLOT,
                              part.logits - shift + (int64_t)ahead * ring::BYTES, end, shift == 0);
        }
        end_copies();
        ahead += step;
        slot = slot + 1 == ring::SLOTS ? 0 : slot + 1;
    }
    if (left) {
        sb_state copy = t->s;
        add_left<DTYPE>(&copy, part, row.c, row.k64, row.lim, step);
        t->s = copy;
    }
}

/* ---- the row warp ----------------------------------------------------------------------- */

/* Sets the row in shared memory, for all of the block's threads. Called by the row warp; the other
 * warps wait for it unless the call is eager. */
SB_DET void find_row(const sb_cuda_args &in, block_row *mine, int64_t item, bool writes)
{
    if (threadIdx.x % WARP == 0) set_block_row(in, mine, item, writes);
    __syncwarp();
}

template <int DTYPE> SB_DET float target_or_nothing(const block_row &mine)
{
    return mine.done ? 0.0f : load_one<DTYPE>(mine.logits, mine.id);
}

/* ---- kernels ---------------------------------------------------------------------------- */

SB_DET part_of_row part_for(const sb_cuda_args &in, int64_t item, int piece)
{
    return piece_of_row(in, (const char *)in.logits + item * in.row_stride * in.itemsize, in.vocab,
                        piece);
}

/* Leaves a piece's state in in.states, and a row's target, for logprob_finish. */
template <int DTYPE> SB_DET void logprob_latency(const sb_cuda_args &in)
{
    __shared__ block_row mine;
    __shared__ sb_state shared[WARP];
    const int64_t item = blockIdx.x / (uint32_t)in.split;
    const int piece = (int)(blockIdx.x % (uint32_t)in.split), warps = leaf_threads() / WARP;
    part_of_row part = part_for(in, item, piece);
    sb_row row = in.row;
    float x = 0;
    bool unread = false; /* mine.done; false in eager calls: leaf warps may not read it there */
    thread_state t;

    wait_for_primary();
    if (in_row_warp() && (piece == 0 || !in.eager)) find_row(in, &mine, item, piece == 0);
    if (!in.eager) {
        __syncthreads(); /* mine is written */
        part.logits = mine.logits;
        row = mine.row;
        unread = mine.done;
    }
    if (!in_row_warp()) {
        if (!unread) sum_leaves<DTYPE>(&t, part, row);
        else sb_state_init(&t.s, 0);
        warp_merge(&t.s);
        if (threadIdx.x % WARP == 0) shared[threadIdx.x / WARP] = t.s;
    } else if (piece == 0) {
        x = target_or_nothing<DTYPE>(mine);
    }
    begin_dependents();
    __syncthreads(); /* every leaf warp's state is in shared */
    if (!in_row_warp()) return;
    merge_shared(&t.s, shared, warps);
    if (threadIdx.x % WARP != 0) return;
    ((sb_state *)in.states)[blockIdx.x] = t.s;
    if (piece == 0) write_target(in, item, x, !mine.done);
}

#define MAX_CLUSTER 16
#define MAX_LEAF_WARPS 31

/* Finishes rows in the same launch: each block of a cluster sums one piece of the row. The leaf
 * warps send their states to the first block, whose row warp merges them and finishes the row. */
template <int DTYPE> SB_DET void logprob_cluster(const sb_cuda_args &in)
{
#if __CUDA_ARCH__ >= 900
    __shared__ block_row mine;
    __shared__ __align__(16) sb_state shared[MAX_CLUSTER * MAX_LEAF_WARPS];
    __shared__ uint64_t arrived;
    const int64_t item = blockIdx.x / (uint32_t)in.split;
    const int piece = (int)(blockIdx.x % (uint32_t)in.split), warps = leaf_threads() / WARP;
    part_of_row part = part_for(in, item, piece);
    sb_row row = in.row;

    if (piece == 0 && (int)threadIdx.x == leaf_threads())
        expect_bytes(&arrived, in.split * warps * (uint32_t)sizeof(sb_state));
    cluster_arrive(); /* nothing is sent to the first block before all blocks have started */
    wait_for_primary();
    if (in_row_warp() && (piece == 0 || !in.eager)) find_row(in, &mine, item, piece == 0);
    if (!in.eager) {
        __syncthreads(); /* mine is written */
        if (mine.done) {
            cluster_wait();
            return;
        }
        part.logits = mine.logits;
        row = mine.row;
    }
    if (!in_row_warp()) {
        thread_state t;
        sum_leaves<DTYPE>(&t, part, row);
        begin_dependents();
        warp_merge(&t.s);
        cluster_wait();
        send_state(&shared[piece * warps + threadIdx.x / WARP], &arrived, t.s);
        return;
    }
    cluster_wait();
    begin_dependents();
    if (piece != 0) return;
    const float x = target_or_nothing<DTYPE>(mine);
    const bool absent = mine.done || sb_is_absent(x);
    sb_mantissa part_of_log = { 0, 0 };
    sb_lg target, sum;
    sb_state s;
    /* Both logarithms use the same code. The target's is taken while the leaves are summed, so that
     * the instructions are in the cache when the sum's is due. */
    if (!absent) part_of_log = sb_target_mantissa(x, &mine.row);
#pragma unroll 1
    for (int pass = 0;; pass++) {
        if (pass == 1) {
            wait_for_bytes(&arrived);
            merge_many(&s, shared, in.split * warps);
            if (!sb_state_is_nan(&s)) part_of_log = sb_sum_mantissa(&s);
        }
        sum = sb_log2_parts(part_of_log.m, part_of_log.e);
        if (pass == 1) break;
        target = sum;
    }
    if (!mine.done && threadIdx.x % WARP == 0)
        write_finished(in, mine.number, sb_state_is_nan(&s), absent, target, sum, mine.row);
#endif
}
