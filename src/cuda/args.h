/* args.h - what the host hands to a kernel, in one struct passed by value. Shared by
 * src/cuda and kernels/, so plain C with fixed-width fields. */
#ifndef SB_CUDA_ARGS_H
#define SB_CUDA_ARGS_H

#include <stdint.h>

#include "../det/row.h"

#define SB_CUDA_F32 1 /* as sb_dtype */
#define SB_CUDA_F16 2
#define SB_CUDA_BF16 3
#define SB_CUDA_I64 5

/* What a kernel reports of bad input, in the top byte; below it the row, list or sequence index +
 * 1. */
#define SB_BAD_ID 1
#define SB_BAD_TEMPERATURE 2
#define SB_BAD_ROW_LIST 3
#define SB_BAD_CU_SEQLENS 4
#define SB_BAD_Q_TEMPERATURE 5
#define SB_BAD_RECORD 16 /* + an sb_fault */
#define SB_BAD_SHIFT 56

/* Kernels for few rows: bytes of logits a thread has on their way, and what the slot of a warp of
 * so many lanes takes in shared memory, for logits of size bytes. */
#define SB_CUDA_RING 128
#define SB_CUDA_LANE_BYTES(size) (16 * (size))
#define SB_CUDA_SLOT(warp, size) ((warp)*SB_CUDA_LANE_BYTES(size) + 16)

/* What logprob_<dtype> leaves for logprob_finish beside the states, an item. */
typedef struct sb_cuda_target {
    float x;        /* the target's logit */
    int32_t active; /* 0: the row is done, ignored or refused */
} sb_cuda_target;

typedef struct sb_cuda_args {
    uint64_t logits, cu_seqlens, ids, mask, temperatures, row_list; /* device addresses, or 0 */
    uint64_t kept;                                                  /* likewise */
    uint64_t token, lse, sequence, count, outside, entropy, saved;  /* outputs, or 0 */
    uint64_t states;  /* sb_state [work][split], where split is not 1 */
    uint64_t targets; /* sb_cuda_target [work], likewise */
    uint64_t tokens;  /* float [rows]: token, or scratch where only sums are wanted, or 0 */
    uint64_t bad;     /* int64, in mapped host memory: report.h */
    int64_t work;     /* rows to visit: rows, or row_count */
    int64_t rows, batch, time, vocab;
    int64_t row_stride, batch_stride; /* in elements */
    int64_t row_count, ignore_index;
    int64_t kept_stride; /* in words */
    int64_t width;       /* ids a row: 1, but for kernels/order.cu */
    int64_t whole;       /* rows that a block sums and finishes; the rest are cut into pieces */
    int64_t piece;       /* leaves a piece */
    int64_t ahead;       /* rows whose ids are fetched early: about what runs at once; 0: none */
    int32_t split;
    int32_t cu_seqlens_dtype, ids_dtype, itemsize;
    int32_t shift;
    int32_t flat;   /* element of row r is r * row_stride: packed, or a contiguous batch */
    int32_t simple; /* flat; no mask, row list, temperatures or shift */
    int32_t eager;  /* simple, and logits are fetched before ids are known */
    int32_t phases; /* 16-bit rows whose alignment repeats every 8: visit rows by alignment */
    int32_t logits_dtype;
    float temperature;
    sb_row row; /* of temperature */
} sb_cuda_args;

/* kernels/shards.cu. in.vocab is that of whole rows; in.states are a row's pieces. */
typedef struct sb_cuda_shard_args {
    sb_cuda_args in;
    uint64_t states, targets;           /* sb_state, sb_target [rows] */
    uint64_t from_states, from_targets; /* merging: [shards][rows] */
    int64_t shards;
    int64_t first, held; /* the ids first .. first + held - 1 have logits */
    int32_t keep;        /* merging: leave a row that is refused as it is */
} sb_cuda_shard_args;

/* kernels/order.cu: places in a list, at least SB_MAX_TOPK; two a lane of a warp. */
#define SB_CUDA_LIST 64

typedef struct sb_cuda_order_args {
    sb_cuda_args in;
    uint64_t lists;              /* uint64 [work][split][SB_CUDA_LIST] */
    uint64_t integers, logprobs; /* int32 and float [rows][width] or [rows][k], or 0 */
    int32_t k;
} sb_cuda_order_args;
/* kernels/stats.cu. Of in: batch, time, rows, cu_seqlens and its dtype, mask, bad. */
typedef struct sb_cuda_stats_args {
    sb_cuda_args in;
    uint64_t sampled, other;             /* float [count]: what is compared */
    uint64_t ratio, k1, k2, k3;          /* float [count], or 0 */
    uint64_t values, minus;              /* float [rows], minus may be 0 */
    uint64_t sum, mean, exp_mean, count; /* float and int64 [batch], or 0 */
    int64_t tokens;                      /* to compare */
} sb_cuda_stats_args;
/* kernels/gradient.cu. in.vocab is that of whole rows. */
typedef struct sb_cuda_gradient_args {
    sb_cuda_args in;
    uint64_t grad, saved, token, entropy;    /* token, entropy: upstream, or 0 */
    int64_t width, row_stride, batch_stride; /* of grad, in elements */
    int64_t first, held;                     /* the ids first .. first + held - 1 have logits */
    int64_t piece, pieces;                   /* elements a block, a multiple of 8; blocks a row */
    int32_t grad_size;                       /* bytes of an element */
    int32_t of;                              /* SB_OF_* */
    int32_t simple; /* in.simple, no kept sets, and rows of grad follow each other at row_stride */
} sb_cuda_gradient_args;

/* kernels/kl.cu: the two batches. Of q: logits, their layout and dtype, kept, temperatures. in's
 * states are sb_divergence [work][split]. */
typedef struct sb_cuda_kl_args {
    sb_cuda_args in, q;
} sb_cuda_kl_args;

#endif
