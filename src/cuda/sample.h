/* sample.h - what sample.c shares with draw.c, which draws from shards. */
#ifndef SB_CUDA_SAMPLE_H
#define SB_CUDA_SAMPLE_H

#include "cuda/cuda.h"
#include "cuda/sample_args.h"

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
