/* args.h - the arguments of the kernels, one struct per kernel, passed by value. src/cuda and
 * kernels/ share this file, so it is plain C with fields of fixed width. */
#ifndef SB_CUDA_ARGS_H
#define SB_CUDA_ARGS_H

#include <stdint.h>

#include "../det/linear_error.h"
#include "../det/policy.h"
#include "../det/row.h"

#define SB_CUDA_F32 1 /* the values of sb_dtype */
#define SB_CUDA_F16 2
#define SB_CUDA_BF16 3
#define SB_CUDA_I64 5

/* A kernel's report of bad input: one of these in the top byte; the bytes below hold the index of
 * the row, list entry or sequence, plus 1. */
#define SB_BAD_ID 1
#define SB_BAD_TEMPERATURE 2
#define SB_BAD_ROW_LIST 3
#define SB_BAD_CU_SEQLENS 4
#define SB_BAD_Q_TEMPERATURE 5
#define SB_BAD_KEPT_ID 6
#define SB_BAD_KEPT_OFFSETS 7
#define SB_BAD_Q_KEPT_ID 8
#define SB_BAD_Q_KEPT_OFFSETS 9
#define SB_BAD_WEIGHTS 10
#define SB_BAD_SCALE 11
#define SB_BAD_TOKENS 12    /* the index below is how many there are */
#define SB_BAD_SEQUENCES 13 /* likewise */
#define SB_BAD_TALLY 14
#define SB_BAD_OFFSETS 15
#define SB_BAD_GROUP 16
#define SB_BAD_RECORD 32 /* + an sb_fault */
#define SB_BAD_SHIFT 56

/* For the kernels for few rows: bytes of logits in flight per thread, and bytes of shared memory
 * for the slot of a warp with `warp` lanes, for logits of `size` bytes. */
#define SB_CUDA_RING 128
#define SB_CUDA_LANE_BYTES(size) (16 * (size))
#define SB_CUDA_SLOT(warp, size) ((warp)*SB_CUDA_LANE_BYTES(size) + 16)

/* For the kernels with a table (kernels/table_rows.cuh): threads per block and per group. For
 * unaligned rows: the most warps that take one together (kernels/unaligned.cuh). */
#define SB_CUDA_MOST_WARPS 16
#define SB_CUDA_TABLE_BLOCK 1024
#define SB_CUDA_TABLE_GROUP 256
#define SB_CUDA_DEEP_BLOCK 896
#define SB_CUDA_DEEP_GROUP 128

/* How far from 0 logits reach, in octaves, whose terms may be looked up; and how many patterns of
 * either sign that makes, from the bits of SB_CUDA_TABLE_OCTAVES / c as fp32, which must lie in the
 * range of normal fp16 numbers if the logits are fp16. The bytes of shared memory for the table and
 * what lies in its gap. */
#define SB_CUDA_TABLE_OCTAVES 131.0f
#define SB_CUDA_TABLE_PATTERNS(bits, dtype)                                                        \
    (((dtype) == SB_CUDA_F16 ? ((bits) - (112u << 23)) >> 13 : (bits) >> 16) + 1)
#define SB_CUDA_TABLE_BYTES(bits, dtype)                                                           \
    (131072 + 16 * ((SB_CUDA_TABLE_PATTERNS(bits, dtype) + 3) / 4))

/* From where on the gap of a table of bf16 terms may be used, which is larger than that of any
 * table (kernels/table.cuh): c is at least 2^-10 * log2(e). */
#define SB_CUDA_BF16_TABLE_GAP (76 * 1024)

/* For kl_bf16_bf16_table: threads per block and per group, and where the slots of pairs lie in
 * shared memory. */
#define SB_CUDA_KL_BLOCK 640
#define SB_CUDA_KL_GROUP 128
#define SB_CUDA_KL_SLOTS (SB_CUDA_BF16_TABLE_GAP + 12 * 1024)

/* What logprob_<dtype> passes to logprob_finish besides the states: one element per row. */
typedef struct sb_cuda_target {
    float x;        /* the target's logit */
    int32_t active; /* 0: the row is finished, ignored or refused */
} sb_cuda_target;

typedef struct sb_cuda_args {
    uint64_t logits, cu_seqlens, ids, mask, temperatures, row_list; /* device addresses, or 0 */
    uint64_t kept;                                                  /* likewise */
    uint64_t kept_ids, kept_offsets; /* lists, for kernels/lists.cu alone; or 0 */
    uint64_t refused; /* uint8 [rows]: the row's list is bad, and has been reported; or 0 */
    uint64_t strays;  /* uint8 [rows]: the row's target is not in its list; or 0 */
    uint64_t token, lse, sequence, count, outside, entropy, saved; /* outputs, or 0 */
    uint64_t states;  /* sb_state [work][split], if split is not 1 */
    uint64_t targets; /* sb_cuda_target [work], likewise */
    uint64_t tokens;  /* float [rows]: token, or scratch if only sums are requested, or 0 */
    uint64_t bad;     /* int64, in mapped host memory: see report.h */
    int64_t before;   /* rows in front of the call's first one, in reports */
    int64_t work;     /* rows to visit: rows, or row_count */
    int64_t rows, batch, time, vocab;
    int64_t row_stride, batch_stride; /* in elements */
    int64_t row_count, ignore_index;
    int64_t kept_stride; /* in words */
    int64_t kept_count;  /* ids in all lists */
    int64_t width;       /* ids per row: 1, except for kernels/order.cu */
    int64_t whole; /* the first rows, each summed and finished by one block; others are in pieces */
    int64_t single; /* rows behind these that have one state; those after them have split pieces */
    int64_t piece;  /* leaves per piece */
    int64_t ahead;  /* how many rows ahead ids are fetched: about as many as run at once; 0: none */
    int64_t tail_each; /* leaves of the cut rows that each group with a table takes; 0: no table */
    int64_t tail_more; /* the first so many groups take one more */
    int32_t split;
    int32_t cu_seqlens_dtype, ids_dtype, itemsize;
    int32_t kept_ids_dtype, kept_offsets_dtype;
    int32_t shift;
    int32_t flat;   /* row r starts at element r * row_stride: packed, or a contiguous batch */
    int32_t simple; /* flat; no mask, row list, temperatures or shift */
    int32_t eager;  /* simple, and logits are fetched before the ids are known */
    int32_t phases; /* 8, 4 or 2: 16-bit rows are aligned alike every so many rows; visit them by
                       alignment */
    int32_t logits_dtype;
    float temperature;
    sb_row row; /* the row constants of temperature */
} sb_cuda_args;

/* kernels/lists.cu: shared memory per thread, of the kernels that sum lists. */
#define SB_CUDA_LIST_BYTES 8

/* For lists_words of kernels/lists.cu, which writes in.kept, if it is not 0, refused and
 * in.strays. in.refused is 0. */
typedef struct sb_cuda_lists_args {
    sb_cuda_args in;
    uint64_t refused; /* uint8 [rows] */
    int32_t of_q;     /* the batch is the q of a divergence */
} sb_cuda_lists_args;

/* For kernels/shards.cu. in.vocab is the V of whole rows; in.states holds the pieces of rows. */
typedef struct sb_cuda_shard_args {
    sb_cuda_args in;
    uint64_t states, targets;           /* sb_state, sb_target [rows] */
    uint64_t from_states, from_targets; /* merging: [shards][rows] */
    int64_t shards;
    int64_t first, held; /* the ids first .. first + held - 1 have logits */
    int32_t keep;        /* merging: do not change a row that is refused */
} sb_cuda_shard_args;

/* kernels/order.cu: entries of a list, at least SB_MAX_TOPK; two per lane of a warp. */
#define SB_CUDA_LIST 64
/* Shared memory per thread for logits of `size` bytes, of the kernels that find the first k: 16-bit
 * logits are staged (load.cuh), and later each warp has a list. */
#define SB_CUDA_TOPK_BYTES(size) ((size) == 2 ? 64 : 20)
#define SB_CUDA_TOPK_LEAVES 16384 /* the most that such a kernel sees of a row */
#define SB_CUDA_PICK 1024         /* threads of a block that picks them from parts of a row */
#define SB_CUDA_PICK_PARTS 2048   /* the most such parts: each has 32 leaves or more */
#define SB_CUDA_RANKS 4           /* ids of a row whose ranks one block counts */

typedef struct sb_cuda_order_args {
    sb_cuda_args in;
    uint64_t lists;              /* uint64 [work][SB_CUDA_LIST] */
    uint64_t integers, logprobs; /* int32 and float [rows][width] or [rows][k], or 0 */
    uint64_t mosts;              /* as in sample_args.h, if the first k are picked; or 0 */
    int32_t parts, part;         /* likewise; in.states are then [work][parts] */
    int32_t k;
} sb_cuda_order_args;
/* For kernels/stats.cu. The fields of in that are used: batch, time, rows, cu_seqlens and its
 * dtype, mask, bad. */
typedef struct sb_cuda_stats_args {
    sb_cuda_args in;
    uint64_t sampled, other;             /* float [count]: the logprobs to compare */
    uint64_t ratio, k1, k2, k3;          /* float [count], or 0 */
    uint64_t values, minus;              /* float [rows]; minus may be 0 */
    uint64_t sum, mean, exp_mean, count; /* float and int64 [batch], or 0 */
    int64_t tokens;                      /* the number of tokens to compare */
} sb_cuda_stats_args;

/* kernels/policy.cu: threads per block; rows per unit are a multiple of SLAB. */
#define SB_CUDA_POLICY_BLOCK 256
#define SB_CUDA_POLICY_SLAB 256
#define SB_CUDA_GROUP_BLOCK 128

/* Of a sequence: its active tokens, and its constants but for the scale. */
typedef struct sb_cuda_policy_length {
    int64_t count;
    sb_policy_sequence of;
} sb_cuda_policy_length;

/* Of a segment: the sum of its losses, and its active tokens. */
typedef struct sb_cuda_policy_part {
    sb_digits sum;
    int64_t count;
} sb_cuda_policy_part;

/* Of a block of policy_sequences. */
typedef struct sb_cuda_policy_total {
    sb_digits sum; /* what its sequences add to S */
    int64_t tokens, sequences;
} sb_cuda_policy_total;

/* The fields of in that are used: batch, time, rows, cu_seqlens and its dtype, mask, sequence, bad.
 */
typedef struct sb_cuda_policy_args {
    sb_cuda_args in;
    uint64_t now, old, ref, rollout, given_entropy, advantages; /* float; 0: not given */
    uint64_t loss, token, entropy, record, metrics;             /* outputs, or 0 */
    uint64_t refused; /* int32: cu_seqlens is bad; or 0: padded */
    uint64_t counts;  /* int64 [segments], or 0: no sequence's constants need them */
    uint64_t joints;  /* sb_policy_joint [segments] */
    uint64_t lengths; /* sb_cuda_policy_length [batch], or 0 with counts */
    uint64_t totals;  /* int64 [2]: tokens and sequences of the call; or 0 */
    uint64_t parts;   /* sb_cuda_policy_part [segments] */
    uint64_t sums;    /* sb_cuda_policy_total [sequence_blocks] */
    uint64_t tallies; /* sb_tally [token_blocks], with metrics; when merging, [units] */
    sb_policy_rules rules;
    int64_t tokens, sequences; /* of the step; 0: of the call */
    int64_t units;
    int64_t sequence_blocks, token_blocks;
    int32_t unit; /* rows */
    int32_t per_token;
    int32_t joint;  /* sums of differences are needed */
    int32_t vector; /* arrays are aligned to 16 bytes, the mask to 4 */
} sb_cuda_policy_args;

/* Of in, only bad is used. */
typedef struct sb_cuda_group_args {
    sb_cuda_args in;
    uint64_t rewards, offsets, from;         /* from: sb_group [shards][groups]; or 0 */
    uint64_t advantages, records, mean, std; /* outputs, or 0 */
    uint64_t own;                            /* sb_group [groups] */
    uint64_t refused;                        /* int32: offsets are bad; or 0: there are none */
    uint64_t step;                           /* double: the step's deviation; or 0 */
    int64_t groups, each, rows, shards;
    int32_t offsets_dtype, population, scaled;
    float eps;
} sb_cuda_group_args;

/* kernels/gradient.cu: how many 16-byte groups of logits a thread fetches ahead. */
#define SB_CUDA_GRADIENT_AHEAD 4

/* For kernels/gradient.cu. in.vocab is the V of whole rows. */
typedef struct sb_cuda_gradient_args {
    sb_cuda_args in;
    uint64_t grad, saved, token, entropy;    /* token, entropy: the loss's derivatives, or 0 */
    int64_t width, row_stride, batch_stride; /* of grad, in elements */
    int64_t first, held;                     /* the ids first .. first + held - 1 have logits */
    int64_t piece, pieces; /* elements per block, a multiple of 8; blocks per row */
    int32_t grad_size;     /* bytes per element of grad */
    int32_t of;            /* SB_OF_* */
    int32_t simple;        /* in.simple, no kept sets, and row r of grad starts at r * row_stride */
    int32_t reported;      /* the kernels before this one have reported every bad row */
} sb_cuda_gradient_args;

/* kernels/one_read.cu. A trip is what a warp works on at once; a block's ring in shared memory
 * holds so many trips. Its table has so many pairs, up to SB_CUDA_TABLE_OCTAVES; no temperature
 * needs a least pair below that bf16 pattern. */
#define SB_CUDA_TRIP 512 /* logits */
#define SB_CUDA_RING_TRIPS 184
#define SB_CUDA_PAIRS 4096
#define SB_CUDA_LEAST_PAIR 0x2c00
#define SB_CUDA_TRIP_WARPS 16
#define SB_CUDA_ROW_WARPS 2
#define SB_CUDA_COPY_WARPS 2
#define SB_CUDA_ONE_READ_THREADS                                                                   \
    (32 * (SB_CUDA_TRIP_WARPS + SB_CUDA_ROW_WARPS + SB_CUDA_COPY_WARPS))
#define SB_CUDA_ONE_READ_SHARED 227328 /* bytes per block */

/* A team's exchange area: for each row warp of its blocks, a message of 64 bytes from each block
 * for each of two rows. */
#define SB_CUDA_MAX_TEAM 8
#define SB_CUDA_MAILBOX(team) (2 * 64 * (team))
#define SB_CUDA_TEAM_BYTES(team) (SB_CUDA_ROW_WARPS * SB_CUDA_MAILBOX(team))

/* in.saved, if any, receives saved rows; gradient.saved is not used. */
typedef struct sb_cuda_one_read_args {
    sb_cuda_gradient_args gradient; /* .in.split is 1 */
    uint64_t exchange;              /* a team's area for each team; all zero */
    int32_t teams, team;            /* teams, and blocks in each */
    int32_t trips;                  /* of a row; the last one may be shorter */
    uint32_t least;                 /* the bf16 pattern of the table's least pair */
    int32_t ties; /* a logit in the table's range may be a tie: (k + 1/2) / c for an integer k */
} sb_cuda_one_read_args;

/* kernels/head*.cu: rows in a tile of digits, bytes of each of them in a block of the tile, and
 * bytes of a plane's block. */
#define SB_CUDA_HEAD_NORMS_ROWS 8 /* whose norms a block of head_norms takes together */
#define SB_CUDA_HEAD_TILE 128
#define SB_CUDA_HEAD_DEPTH 64
#define SB_CUDA_HEAD_BLOCK (SB_CUDA_HEAD_TILE * SB_CUDA_HEAD_DEPTH)

/* head_few: the most rows, threads, the slots of a warp's ring, and bytes of shared memory. */
#define SB_CUDA_HEAD_FEWEST 8
#define SB_CUDA_HEAD_FEW_THREADS 512
#define SB_CUDA_HEAD_RING(planes) ((planes) == 2 ? 3 : 2)
#define SB_CUDA_HEAD_FEW_SHARED(planes, blocks)                                                    \
    (24 * (64 * (blocks) + 64) + 16 * SB_CUDA_HEAD_RING(planes) * (planes)*1024 +                  \
     8 * ((planes) == 2 ? 3 : 5) * 512 + 8 * 8 * 20 * 4)

/* head_tiles, head_bf16: threads, and bytes of shared memory. group: rows that a block sums at
 * once. */
#define SB_CUDA_HEAD_TILES_THREADS 256
#define SB_CUDA_HEAD_TILES_SHARED(planes, group)                                                   \
    (2 * ((planes)*SB_CUDA_HEAD_BLOCK + 3 * (group)*SB_CUDA_HEAD_DEPTH) +                          \
     32 * (SB_CUDA_HEAD_TILE + 4) * 4)

/* kernels/head_hopper.cu: threads, and bytes of shared memory. */
#define SB_CUDA_HEAD_HOPPER_THREADS 384
#define SB_CUDA_HEAD_HOPPER_SHARED 232448

/* kernels/head_gather.cu: threads, and the most ids of a row that a block takes; of a list it takes
 * more, if the list is longer than most. */
#define SB_CUDA_GATHER_THREADS 256
#define SB_CUDA_GATHER_IDS 32

/* The most rows whose items are not searched for active rows first. */
#define SB_CUDA_HEAD_FEW 64

/* The exponent of a row of weights, as a byte: E + 112, so that the byte is the exponent of the
 * fp32 number 2^(E - 15); 255 if the row is bad. */
#define SB_CUDA_HEAD_EXPONENT 112
#define SB_CUDA_HEAD_BAD 255

/* An active row of hidden states. */
typedef struct sb_cuda_head_row {
    uint64_t hidden;    /* its address; 0: the row is not active */
    int64_t number, id; /* in the batch */
    int64_t to;         /* where its logits go, in elements */
    float c, k64, lim;  /* of sb_row */
    float scale;        /* 2^(E - 15); NaN if the row is bad */
    uint32_t x, owners; /* the target's logit, as in sb_target */
} sb_cuda_head_row;

/* in.logits is the address of the hidden states, and in's strides and dtype are theirs; in.vocab is
 * the V of whole rows. The tiles of a chunk of rows are numbered row tile by row tile; block b of
 * `groups` takes the same number of tiles from b times this number on, and has a state for each row
 * of each row tile that it meets.
 *
 * The tiles of ids begin at id `first`, and the call is about the leaves from id first + skip on,
 * up to id first + held - 1. */
typedef struct sb_cuda_head_args {
    sb_cuda_args in;
    uint64_t planes, exponents, bias; /* of the weights: digits; bytes; float [held], or 0 */
    uint64_t rows;   /* sb_cuda_head_row [work]: the active rows, one behind the other */
    uint64_t items;  /* int64 [work]: their work items */
    uint64_t count;  /* int64: how many these are; 0: rows has an entry for each work item */
    uint64_t counts; /* int32 [blocks of head_list]: how many of them each has, or 0 */
    uint64_t digits; /* of the hidden states of a chunk of rows */
    uint64_t states; /* sb_state [groups + row tiles][stride] */
    uint64_t scales; /* uint32: those of whole rows, by the row of hidden; 0: the rows' own */
    uint64_t to_states, to_targets; /* records of a shard, by row, instead of results; or 0 */
    uint64_t logits;                /* where logits go; 0: they are summed */
    uint64_t sums;                  /* int64: where exact products go, likewise */
    uint64_t logprobs;              /* float [rows][in.width]: with of_ids, of each id; or 0 */
    uint64_t gathered;              /* float [in.kept_count]: where the logits of lists go; or 0 */
    int64_t logits_stride, logits_batch_stride; /* in elements */
    int64_t before;                             /* of the first work item: its number */
    int64_t first, skip, held;
    int64_t depth;       /* D */
    int64_t chunk, most; /* the chunk's first row, and how many it may have */
    sb_linear_steps steps;
    int32_t blocks; /* of a row: ceil(D / SB_CUDA_HEAD_DEPTH) */
    int32_t tiles;  /* of ids */
    int32_t groups;
    int32_t stride; /* rows of a tile that have states: SB_CUDA_HEAD_TILE or fewer */
    int32_t logits_dtype;
    int32_t by_item;      /* logits go to the row of the work item, not to that of hidden */
    int32_t ids_each;     /* of a row's ids, for a block of head_ids */
    int32_t of_ids;       /* rows have any number of ids, in.width, and no target in products */
    int32_t planes_count; /* digits per weight */
    int32_t plain; /* no bias, scale, cap or kept set: logits are as the product gives them */
} sb_cuda_head_args;

/* Preparing weights. */
typedef struct sb_cuda_weights_args {
    sb_cuda_args in;                           /* only for reports */
    uint64_t weights;                          /* [held][depth], row_stride elements apart */
    uint64_t bias, scales;                     /* [held], or 0 */
    uint64_t form, planes, exponents, to_bias; /* where they go */
    int64_t held, depth, row_stride;
    int32_t dtype, bias_dtype, blocks;
    int32_t keep_bad;  /* do not report bad rows */
    uint64_t head[32]; /* the head's first bytes */
} sb_cuda_weights_args;

/* For kernels/head_error.cu: the norms of weights, and the bounds of rows. */
typedef struct sb_cuda_norms_args {
    sb_cuda_args in;    /* not used */
    uint64_t weights;   /* [held][depth], row_stride elements apart */
    uint64_t exponents; /* [held] */
    uint64_t parts;     /* sb_linear_norms [count], of 8 rows each */
    uint64_t norms;     /* where the head's go */
    int64_t held, depth, row_stride, count;
    int32_t dtype, bits;
} sb_cuda_norms_args;

typedef struct sb_cuda_error_args {
    sb_cuda_args in; /* its logits are the hidden states */
    uint64_t error;  /* [rows] */
    uint64_t scales; /* [rows], or 0 */
    uint64_t norms;  /* the head's */
    int64_t depth;
    int32_t planes;
} sb_cuda_error_args;

/* Scales of the rows of a matrix; and logits of whole sums. */
typedef struct sb_cuda_scales_args {
    sb_cuda_args in; /* only for reports */
    uint64_t scales, matrix;
    int64_t rows, width, row_stride;
    int32_t dtype;
} sb_cuda_scales_args;

typedef struct sb_cuda_combine_args {
    sb_cuda_args in; /* only for reports */
    uint64_t logits, sums, scales, exponents, bias;
    int64_t rows, held;
    sb_linear_steps steps;
    int32_t planes;
} sb_cuda_combine_args;

/* For kernels/kl.cu: the two batches. The fields of q that are used: logits, their layout and
 * dtype, kept, temperatures. in.states is sb_divergence [work][split]. */
typedef struct sb_cuda_kl_args {
    sb_cuda_args in, q;
} sb_cuda_kl_args;

#endif
