/* plan.h - how the CUDA backend launches a call. Bits do not depend on it; every choice is
 * about time, measured (docs/kernels.md). */
#ifndef SB_CUDA_PLAN_H
#define SB_CUDA_PLAN_H

#include "backend.h"

typedef enum sb_cuda_kind {
    SB_CUDA_STREAM,  /* logprob_<dtype>: a block a row; the last rows, or all, in pieces */
    SB_CUDA_LATENCY, /* logprob_<dtype>_latency: pieces, their logits fetched all at once */
    SB_CUDA_CLUSTER, /* logprob_<dtype>_cluster: the same, a row's pieces a cluster */
    SB_CUDA_KEPT     /* logprob_<dtype>_kept: every row in pieces, if only one */
} sb_cuda_kind;

typedef struct sb_cuda_plan {
    sb_cuda_kind kind;
    int eager;       /* logits are fetched before it is known whether their rows are active */
    int32_t threads; /* that sum leaves, a block */
    int32_t split;   /* pieces of a row that is cut */
    int64_t work;    /* rows to visit */
    int64_t whole;   /* of them, the first so many are not cut */
    int64_t piece;   /* leaves */
    uint64_t states, targets, tokens; /* bytes of scratch, in this order */
} sb_cuda_plan;

#define SB_CUDA_MAX_BLOCK 512 /* threads that a call may ask for */

/* multiprocessors: the GPU's; clusters: the most blocks that one holds there, 0 without. */
sb_cuda_plan sb_cuda_plan_of(int multiprocessors, int clusters, const sb_logprob_out *out,
                             const sb_call *call);

/* The same without whole rows beside cut ones. */
void sb_cuda_plan_evenly(sb_cuda_plan *p, const sb_call *call);

/* How kernels/gradient.cu cuts rows of grad: elements of a piece, a multiple of 8; pieces of a row,
 * a block each. An empty row is one piece, too: its block checks the row. */
typedef struct sb_cuda_pieces {
    int64_t piece, pieces;
} sb_cuda_pieces;

/* split: pieces that the call asks for, at most; 0: one trip of a block of so many threads each. */
sb_cuda_pieces sb_cuda_pieces_of(int64_t width, int32_t split, int32_t threads);

/* Rows of 16-bit logits whose alignment repeats every 8. */
int sb_cuda_has_phases(const sb_call *call);

/* Blocks of the launch, threads of a block and bytes of its dynamic shared memory. */
int64_t sb_cuda_blocks(const sb_cuda_plan *p);
int32_t sb_cuda_block(const sb_cuda_plan *p);
uint32_t sb_cuda_shared(const sb_cuda_plan *p, int32_t dtype);

/* The most dynamic shared memory that a latency or cluster kernel is launched with. */
#define SB_CUDA_MAX_SHARED (80 * 1024)

#endif
