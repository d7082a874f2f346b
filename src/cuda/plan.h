/* plan.h - chooses how the CUDA backend launches a call. No bit depends on these choices; they only
 * affect the time, and come from measurements (docs/kernels.md). */
#ifndef SB_CUDA_PLAN_H
#define SB_CUDA_PLAN_H

#include "backend.h"

typedef enum sb_cuda_kind {
    SB_CUDA_STREAM,    /* logprob_<dtype>: one block per row; the last rows, or all, in pieces */
    SB_CUDA_LATENCY,   /* logprob_<dtype>_latency: pieces, their logits fetched all at once */
    SB_CUDA_CLUSTER,   /* logprob_<dtype>_cluster: the same; the pieces of a row form a cluster */
    SB_CUDA_DEEP,      /* logprob_<dtype>_table_deep: as SB_CUDA_TABLE, for very many rows */
    SB_CUDA_TABLE,     /* logprob_<dtype>_table: groups that take whole rows, and even shares of the
                        last ones */
    SB_CUDA_UNALIGNED, /* logprob_<dtype>_unaligned: the same by single warps; or a few warps of a
                          block take a row together */
    SB_CUDA_KEPT,      /* logprob_<dtype>_kept: every row in one or more pieces */
    SB_CUDA_LISTS      /* logprob_<dtype>_lists: a warp or a few per row, or pieces of lists */
} sb_cuda_kind;

typedef struct sb_cuda_plan {
    sb_cuda_kind kind;
    int eager;       /* logits are fetched before it is known whether their rows are active */
    int32_t threads; /* that sum leaves, per block */
    int32_t split;   /* pieces of a row that is cut; SB_CUDA_UNALIGNED: warps that take a row */
    int64_t work;    /* rows to visit */
    int64_t whole;   /* how many of these, from the first on, are not cut */
    int64_t piece;   /* leaves per piece */
    int64_t groups;  /* with a table: how many, or how many warps; else 0 */
    int64_t blocks;  /* and of how many blocks */
    int64_t single;  /* with moments, rows, from `whole` on, that are not cut */
    int64_t tail_each, tail_more; /* and how they share the rows that are not whole: see args.h */
    uint32_t table;               /* and the bytes of shared memory per block */
    uint64_t states, targets, tokens, strays; /* bytes of scratch, in this order */
} sb_cuda_plan;

#define SB_CUDA_MAX_BLOCK 512 /* the most threads per block that a call may request */
#define SB_CUDA_MAX_CLUSTER 16

/* The GPU, as far as plans depend on it. */
typedef struct sb_cuda_gpu {
    int multiprocessors;
    int clusters;            /* the most blocks per cluster; 0: the GPU has no clusters */
    int shared;              /* the most bytes of shared memory that a block may ask for */
    int clock, memory_clock; /* the highest, in kHz; 0: the driver does not say */
    int memory_bits;         /* the width of the memory's bus */
    int room[SB_CUDA_MAX_CLUSTER + 1]; /* [n]: how many clusters of n blocks run at once, with one
                                          block per multiprocessor. Groups of multiprocessors hold
                                          whole clusters, and differ in size from GPU to GPU */
} sb_cuda_gpu;

/* The bytes that memory delivers to each multiprocessor in a cycle: about 13 on an H100 and 18 on
 * an H200. Where it is higher, kernels are bound by their instructions sooner. 0: not known. */
double sb_cuda_bytes_per_cycle(const sb_cuda_gpu *gpu);

/* moments: whether they are summed as well, for the entropy. */
sb_cuda_plan sb_cuda_plan_of(const sb_cuda_gpu *gpu, const sb_logprob_out *out, const sb_call *call,
                             int moments);

/* Bytes of scratch for the tokens, which are kept there if only their sums are requested. */
uint64_t sb_cuda_token_bytes(const sb_logprob_out *out, int64_t rows);

/* Whether a call is to look terms up in a table, which the caller's kernels have for 16-bit logits;
 * and the table's bytes of shared memory per block. each: the rows per multiprocessor from which
 * that pays; 0: those from which it pays for logprobs of one id. */
int sb_cuda_takes_table(const sb_cuda_gpu *gpu, const sb_call *call, int64_t each);
uint32_t sb_cuda_table_bytes(const sb_batch *in);

/* How groups of threads share whole rows and pieces: each takes the same number of the first
 * `single` rows. The others are cut into pieces, as many as make the groups' shares of them most
 * even. */
typedef struct sb_cuda_shares {
    int64_t single;
    int32_t split;
    int64_t piece; /* leaves */
} sb_cuda_shares;

sb_cuda_shares sb_cuda_shares_of(int64_t work, int64_t groups, int64_t leaves);

/* The same without whole rows beside cut ones. */
void sb_cuda_plan_evenly(sb_cuda_plan *p, const sb_call *call);

/* How kernels/gradient.cu cuts rows of grad: elements per piece, a multiple of 8, and pieces per
 * row, with one block per piece. An empty row also has one piece, whose block checks the row. */
typedef struct sb_cuda_pieces {
    int64_t piece, pieces;
} sb_cuda_pieces;

/* rows of width elements, for logits of itemsize bytes and blocks of `threads` threads. split: the
 * most pieces, as the call requests; 0: short pieces if there are few rows, longer ones if there
 * are many. */
sb_cuda_pieces sb_cuda_pieces_of(int multiprocessors, int64_t rows, int64_t width, int32_t itemsize,
                                 int32_t split, int32_t threads);

/* After how many rows the alignment of rows of 16-bit logits repeats: 8, 4 or 2; 0: they are all
 * aligned alike, or not 16-bit. */
int sb_cuda_phases(const sb_call *call);

/* Blocks of the launch, threads per block, and bytes of dynamic shared memory per block. */
int64_t sb_cuda_blocks(const sb_cuda_plan *p);
int32_t sb_cuda_block(const sb_cuda_plan *p);
uint32_t sb_cuda_shared(const sb_cuda_plan *p, int32_t dtype);

/* The most dynamic shared memory that a latency or cluster kernel is launched with: 20 warps of
 * 16-bit logits. With what a cluster kernel declares itself, a GPU of 99 KiB has it. */
#define SB_CUDA_MAX_SHARED 83200

/* The share of shared memory, in percent, for kernels with a table of bf16 terms: the driver adds
 * what a larger table lacks. L1 must have the rest, or loads evict each other's sectors. */
#define SB_CUDA_TABLE_CARVEOUT 85

#endif
