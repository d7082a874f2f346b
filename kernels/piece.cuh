/* piece.cuh - the form that most kernels share: one block sums one piece of a row. If the row is a
 * single piece, the block also finishes it.
 *
 *     leaves -> thread's state -> warp -> block -> [work][split] states -> a kernel that finishes
 *
 * An operation is a policy OP:
 *
 *     args, state, row        types: the kernel's argument; a state of merge.cuh; the row that a
 *                             block works on, such as block_row or any_row
 *     FINISHES                whether the block finishes a row of one piece. If not, the state of
 *                             every piece goes to in.states, even if there is only one piece
 *     find(a, &mine, item, writes)    by one thread: sets the row; writes: it also reports
 *     done(mine)              whether nothing is left to sum
 *     skip(a, mine, item)     by one thread, for piece 0 of a row that is done
 *     held(a)                 the number of ids that the call holds
 *     sum(&s, a, mine, part)  by every thread: sums the thread's leaves of the part into s
 *     beside(a, mine, item)   by one thread, for piece 0: writes the outputs beside the states
 *     finish(a, mine, s)      by warp 0, all lanes of which have the row's state
 *
 * Launch: grid work * split, blocks of a multiple of WARP threads up to 512. */
#pragma once

#include "merge.cuh"
#include "row.cuh"

SB_DET const sb_cuda_args &in_of(const sb_cuda_args &a) { return a; }
template <class ARGS> SB_DET const sb_cuda_args &in_of(const ARGS &a) { return a.in; }

SB_DET const char *logits_in(const block_row &mine) { return mine.logits; }
SB_DET const char *logits_in(const any_row &mine) { return mine.logits; }

/* The constants whose c marks a state as the row's. */
SB_DET const sb_row &constants_in(const block_row &mine) { return mine.row; }
SB_DET const sb_row &constants_in(const any_row &mine) { return mine.row; }

#define PIECE_WARPS 16 /* the largest number of warps in a block */

template <class OP> SB_DET void piece_block(const typename OP::args &a)
{
    typedef typename OP::state state;
    __shared__ typename OP::row mine;
    __shared__ state shared[PIECE_WARPS];
    const sb_cuda_args &in = in_of(a);
    const int64_t item = blockIdx.x / (uint32_t)in.split; /* a grid has fewer than 2^31 blocks */
    const int piece = in.split == 1 ? 0 : (int)(blockIdx.x % (uint32_t)in.split);
    const bool finishes = OP::FINISHES && in.split == 1;
    state s;

    if (threadIdx.x == 0) OP::find(a, &mine, item, piece == 0);
    __syncthreads(); /* mine is written */
    if (OP::done(mine)) {
        if (threadIdx.x != 0) return;
        if (!finishes) make_none(&((state *)in.states)[blockIdx.x]); /* c is 0: nothing to finish */
        if (piece == 0) OP::skip(a, mine, item);
        return;
    }
    OP::sum(&s, a, mine, piece_of_row(in, logits_in(mine), OP::held(a), piece));
    block_merge(&s, shared);
    if (threadIdx.x == blockDim.x - 1 && piece == 0) OP::beside(a, mine, item);
    if (threadIdx.x >= WARP) return;
    sum_in(&s)->c = sb_bits32(constants_in(mine).c);
    if (finishes) OP::finish(a, mine, s);
    else if (threadIdx.x == 0) ((state *)in.states)[blockIdx.x] = s;
}

/* The states of a work item's pieces, for the kernel that finishes the row. */
template <class STATE> SB_DET const STATE *pieces_of(const sb_cuda_args &in, int64_t item)
{
    return (const STATE *)in.states + item * in.split;
}
