/* stats.c - statistics of tokens on a GPU: the launches of kernels/stats.cu. kl.c also uses them
 * for its sums. */
#include <stdlib.h>

#include "cuda/cuda.h"

#define COMPARE_BLOCK 256
#define COMPARE_GRID 1048576 /* blocks; each goes on to further tokens */
#define REDUCE_BLOCK 512     /* the same as in kernels/stats.cu: one block per sequence */

/* ---- compare ------------------------------------------------------------------------------ */

sb_status sb_cuda_compare(sb_context *ctx, const void *checked)
{
    const sb_cuda *c = ctx->state;
    const sb_compare_call *call = checked;
    const uint64_t bytes = sb_cuda_bytes(call->count, 4);
    const sb_cuda_array arrays[] = {
        { "sampled", call->sampled, 4, bytes }, { "other", call->other, 4, bytes },
        { "ratio", call->out.ratio, 4, bytes }, { "k1", call->out.k1, 4, bytes },
        { "k2", call->out.k2, 4, bytes },       { "k3", call->out.k3, 4, bytes },
    };
    sb_cuda_grid grid = { .blocks = (call->count + COMPARE_BLOCK - 1) / COMPARE_BLOCK,
                          .threads = COMPARE_BLOCK };
    sb_cuda_stats_args a;
    sb_status status = sb_cuda_check_arrays(ctx, arrays, sizeof arrays / sizeof *arrays);
    if (status != SB_OK) return status;
    if (grid.blocks > COMPARE_GRID) grid.blocks = COMPARE_GRID;
    memset(&a, 0, sizeof a);
    a.sampled = sb_cuda_address(call->sampled);
    a.other = sb_cuda_address(call->other);
    a.ratio = sb_cuda_address(call->out.ratio);
    a.k1 = sb_cuda_address(call->out.k1);
    a.k2 = sb_cuda_address(call->out.k2);
    a.k3 = sb_cuda_address(call->out.k3);
    a.tokens = call->count;
    return sb_cuda_launch(ctx, c->stats.compare_tokens, grid, &a.in, call->launch.stream);
}

/* ---- sums --------------------------------------------------------------------------------- */

/* Waits for the call and names the first bad offset, found by the cpu backend's check on a copy. */
static sb_status check_sums(sb_context *ctx, const sb_sums_call *call)
{
    const sb_values *in = &call->in;
    const void *copy = in->cu_seqlens;
    int64_t report;
    sb_status status = sb_cuda_wait_for_report(ctx, &call->launch, &report);
    if (status != SB_OK || !report) return status;
    status = sb_cuda_fetch(ctx, &copy, in->batch + 1, in->cu_seqlens_dtype == SB_I64 ? 8 : 4,
                           call->launch.stream);
    if (status != SB_OK) return status;
    status = sb_check_cu_seqlens(copy, in->cu_seqlens_dtype, in->batch, in->rows, &ctx->error);
    free((void *)(uintptr_t)copy);
    return status == SB_OK ? sb_cuda_name_report(&ctx->error, report) : status;
}

sb_status sb_cuda_launch_sums(sb_context *ctx, const sb_sums_call *call)
{
    const sb_cuda *c = ctx->state;
    const sb_values *in = &call->in;
    const sb_cuda_grid grid = { .blocks = in->batch, .threads = REDUCE_BLOCK };
    sb_cuda_stats_args a;
    memset(&a, 0, sizeof a);
    a.in.batch = in->batch;
    a.in.time = in->time;
    a.in.rows = call->rows;
    a.in.cu_seqlens = sb_cuda_address(in->cu_seqlens);
    a.in.cu_seqlens_dtype = in->cu_seqlens_dtype;
    a.in.mask = sb_cuda_address(in->mask);
    a.values = sb_cuda_address(in->values);
    a.minus = sb_cuda_address(in->minus);
    a.sum = sb_cuda_address(call->out.sum);
    a.mean = sb_cuda_address(call->out.mean);
    a.exp_mean = sb_cuda_address(call->out.exp_mean);
    a.count = sb_cuda_address(call->out.count);
    return sb_cuda_launch(ctx, c->stats.reduce_sequences, grid, &a.in, call->launch.stream);
}

sb_status sb_cuda_sums(sb_context *ctx, const void *checked)
{
    const sb_sums_call *call = checked;
    const sb_values *in = &call->in;
    const int64_t rows = call->rows, batch = in->batch;
    const uint64_t offset = in->cu_seqlens_dtype == SB_I64 ? 8 : 4;
    const sb_cuda_array arrays[] = {
        { "values", in->values, 4, sb_cuda_bytes(rows, 4) },
        { "minus", in->minus, 4, sb_cuda_bytes(rows, 4) },
        { "mask", in->mask, 1, sb_cuda_bytes(rows, 1) },
        { "cu_seqlens", in->cu_seqlens, offset, sb_cuda_bytes(batch + 1, offset) },
        { "sum", call->out.sum, 4, sb_cuda_bytes(batch, 4) },
        { "mean", call->out.mean, 4, sb_cuda_bytes(batch, 4) },
        { "exp_mean", call->out.exp_mean, 4, sb_cuda_bytes(batch, 4) },
        { "count", call->out.count, 8, sb_cuda_bytes(batch, 8) },
    };
    sb_status status = sb_cuda_check_arrays(ctx, arrays, sizeof arrays / sizeof *arrays);
    if (status == SB_OK) status = sb_cuda_launch_sums(ctx, call);
    if (status == SB_OK && call->launch.check) status = check_sums(ctx, call);
    return status;
}
