/* draw_args.h - the arguments of kernels/draw.cu: as args.h, for one file of kernels. */
#ifndef SB_CUDA_DRAW_ARGS_H
#define SB_CUDA_DRAW_ARGS_H

#include "../det/draw.h"
#include "sample_args.h"

#define SB_CUDA_DRAW 256      /* threads of a block */
#define SB_CUDA_DRAW_FINISH 4 /* the kind of the last step, behind those of sb_draw_kind */

/* in is of the shard, in.vocab the V of whole rows. In sample are the outputs, but for kept, and
 * how rows are drawn. */
typedef struct sb_cuda_draw_args {
    sb_cuda_sample_args sample;
    uint64_t progress; /* sb_draw_row [rows] */
    uint64_t mine;     /* messages [rows], or 0 in the last step */
    uint64_t all;      /* messages [shards][rows] of the round before, or 0 in round 0 */
    uint64_t kept;     /* words [rows][W], or 0 */
    int64_t first, held;
    int64_t bytes, bytes_before; /* of the messages in mine and in all */
    sb_draw_step now, before;
    int32_t shard, shards;
    int32_t places;    /* in messages of round 0 */
    int32_t lists;     /* these are all that may be drawn */
    int32_t has_model; /* messages of round 0 have the model's state */
} sb_cuda_draw_args;

#endif
