/* sample.h - what sample.c shares with draw.c, which draws from shards, and with order.c, which
 * finds the first ids of few rows as it does. */
#ifndef SB_CUDA_SAMPLE_H
#define SB_CUDA_SAMPLE_H

#include "cuda/cuda.h"
#include "cuda/sample_args.h"

/* What the parts of rows are for. */
typedef enum sb_cuda_parts_use {
    SB_CUDA_FILTER_FROM,
    SB_CUDA_DRAW_FROM,
    SB_CUDA_PICK_FROM /* the first ids of a row */
} sb_cuda_parts_use;

/* The launch of a kernel that sums rows in parts. table: it takes terms from a table. bytes: of
 * scratch memory. */
typedef struct sb_cuda_part_sums {
    sb_cuda_grid grid;
    int table;
    uint64_t bytes;
} sb_cuda_part_sums;

/* Plans it for a->in, whose work is set: sets a's parts, early and in.split.
 * sb_cuda_set_parts_scratch sets what lies in the scratch memory. */
sb_cuda_part_sums sb_cuda_plan_parts(const sb_cuda *c, const sb_call *call, sb_cuda_parts_use use,
                                     sb_cuda_sample_args *a);
void sb_cuda_set_parts_scratch(sb_cuda_sample_args *a, CUdeviceptr scratch);
sb_status sb_cuda_launch_parts(sb_context *ctx, const sb_call *call, const sb_cuda_part_sums *p,
                               sb_cuda_sample_args *a);

/* Whether the first k <= SB_MAX_TOPK ids of rows are picked so: if rows are few and not too short,
 * or too long for one block. */
int sb_cuda_picks_first(const sb_cuda *c, const sb_call *call, int64_t k);

/* The blocks that pick: one for each of so many rows. */
sb_cuda_grid sb_cuda_pick_grid(const sb_cuda *c, int64_t work);

/* Sets the outputs and the rows' values. */
void sb_cuda_set_sampling(sb_cuda_sample_args *a, const sb_sample_out *out, const sb_sampling *how);

/* Checks the arrays of the outputs and of the rows' values. */
sb_status sb_cuda_check_sampling_arrays(sb_context *ctx, const sb_sample_out *out,
                                        const sb_sampling *how, int64_t rows, int64_t vocab);

/* Writes the outputs of all rows as those of ignored ones. */
sb_status sb_cuda_clear_draws(sb_context *ctx, const sb_call *call, const sb_sample_out *out);

/* After a report: runs the cpu backend's checks of the rows' values on copies. SB_OK: they find
 * nothing. */
sb_status sb_cuda_find_bad_sampling(sb_context *ctx, const sb_call *call, const sb_sampling *how);

#endif
