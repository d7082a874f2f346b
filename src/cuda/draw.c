/* draw.c - draws from shards of the vocabulary on a GPU: the launch of kernels/draw.cu. */
#include "api/draw.h"

#include <stdlib.h>

#include "cuda/draw_args.h"
#include "cuda/lists.h"
#include "cuda/sample.h"

static const sb_logprob_out NO_OUT = SB_LOGPROB_OUT_INIT;

static int is_finish(const sb_draw_call *d) { return d->round == d->draw.rounds; }

static int64_t bytes_at(const sb_draw_call *d, int32_t round)
{
    return round >= 0 && round < d->draw.rounds ? sb_draw_bytes(d, round) : 0;
}

static void set_arguments(sb_context *ctx, const sb_draw_call *d, sb_cuda_draw_args *a)
{
    const sb_call planned = sb_cuda_words_call(&d->call);
    const sb_sample_out out = d->out;
    const sb_draw_step last = { SB_CUDA_DRAW_FINISH, 0, 0 }, none = { 0, 0, 0 };
    memset(a, 0, sizeof *a);
    sb_cuda_set_sampling(&a->sample, &out, &d->how);
    sb_cuda_plan_shard(ctx, &NO_OUT, &planned, &a->sample.in);
    a->kept = a->sample.kept;
    a->sample.kept = 0; /* a rank writes the bits of its own ids alone */
    a->progress = sb_cuda_address(d->draw.progress);
    a->mine = sb_cuda_address(d->mine);
    a->all = sb_cuda_address(d->all);
    a->first = d->call.first;
    a->held = d->call.held;
    a->bytes = bytes_at(d, d->round);
    a->bytes_before = bytes_at(d, d->round - 1);
    a->now = is_finish(d) ? last : d->steps[d->round];
    a->before = d->round > 0 ? d->steps[d->round - 1] : none;
    a->shard = d->draw.shard;
    a->shards = d->draw.shards;
    a->places = d->places;
    a->lists = d->lists;
    a->has_model = (d->draw.outputs & SB_DRAW_MODEL) != 0;
}

static sb_status check_arrays(sb_context *ctx, const sb_draw_call *d)
{
    const int64_t rows = d->call.rows, shards = d->draw.shards;
    const sb_cuda_array arrays[] = {
        { "progress", d->draw.progress, 8, sb_cuda_bytes(rows, SB_DRAW_PROGRESS) },
        { "mine", d->mine, 8, sb_cuda_bytes(rows, (uint64_t)bytes_at(d, d->round)) },
        { "all", d->all, 8, sb_cuda_bytes(shards * rows, (uint64_t)bytes_at(d, d->round - 1)) },
    };
    sb_status status = sb_cuda_check_arrays(ctx, arrays, sizeof arrays / sizeof *arrays);
    if (status != SB_OK) return status;
    return sb_cuda_check_sampling_arrays(ctx, &d->out, &d->how, rows, d->call.in.vocab);
}

/* Clears the progress in round 0, and messages or results of rows that are not in the row list. */
static sb_status clear(sb_context *ctx, const sb_draw_call *d, const sb_cuda_draw_args *a)
{
    const uint64_t rows = (uint64_t)d->call.rows;
    CUstream stream = d->call.launch.stream;
    sb_status status = SB_OK;
    if (d->round == 0) status = sb_cuda_clear(ctx, a->progress, rows * SB_DRAW_PROGRESS, stream);
    if (status != SB_OK || !d->call.in.row_list) return status;
    if (!is_finish(d)) return sb_cuda_clear(ctx, a->mine, rows * (uint64_t)a->bytes, stream);
    return sb_cuda_clear_draws(ctx, &d->call, &d->out);
}

/* ---- after a report ------------------------------------------------------------------------ */

/* Names the first row whose messages were refused. SB_OK: there is none. */
static sb_status find_refused(sb_context *ctx, const sb_draw_call *d)
{
    const void *copy = d->draw.progress;
    const sb_draw_row *rows;
    sb_status status = sb_cuda_fetch(ctx, &copy, d->call.rows, SB_DRAW_PROGRESS,
                                     d->call.launch.stream);
    if (status != SB_OK) return status;
    rows = copy;
    for (int64_t row = 0; row < d->call.rows && status == SB_OK; row++)
        if (rows[row].fault)
            status = sb_draw_refuse(d, row, rows[row].shard, (sb_fault)rows[row].fault,
                                    &ctx->error);
    free((void *)(uintptr_t)copy);
    return status;
}

static sb_status check_call(sb_context *ctx, const sb_draw_call *d)
{
    int64_t report;
    sb_status status = sb_cuda_wait_for_report(ctx, &d->call.launch, &report);
    if (status != SB_OK || !report) return status;
    status = sb_cuda_find_first_bad(ctx, &d->call, NULL, NULL);
    if (status == SB_OK) status = sb_cuda_find_bad_sampling(ctx, &d->call, &d->how);
    if (status == SB_OK) status = find_refused(ctx, d);
    return status == SB_OK ? sb_cuda_name_report(&ctx->error, report) : status;
}

/* ---- the call ------------------------------------------------------------------------------ */

static sb_status run(sb_context *ctx, const sb_draw_call *d, sb_cuda_draw_args *a,
                     sb_cuda_lists *lists, CUdeviceptr scratch)
{
    const sb_cuda *c = ctx->state;
    const sb_cuda_draw_kernels *k = &c->draw;
    const sb_call *call = &d->call;
    const CUfunction kernel = sb_cuda_for_dtype(call->in.logits_dtype, k->draw_f32, k->draw_f16,
                                                k->draw_bf16);
    const sb_cuda_grid grid = { .blocks = a->sample.in.work, .threads = SB_CUDA_DRAW };
    sb_status status = sb_cuda_launch_words(ctx, call, lists, scratch, 0);
    sb_cuda_use_words(&a->sample.in, lists);
    if (status == SB_OK) status = clear(ctx, d, a);
    if (status == SB_OK)
        status = sb_cuda_launch(ctx, kernel, grid, &a->sample.in, call->launch.stream);
    return status;
}

sb_status sb_cuda_draw(sb_context *ctx, const void *checked)
{
    const sb_draw_call *d = checked;
    const sb_launch *launch = &d->call.launch;
    sb_cuda_lists lists = sb_cuda_lists_of(&d->call);
    sb_cuda_draw_args a;
    CUdeviceptr scratch;
    sb_status status = sb_cuda_check_arguments(ctx, &NO_OUT, &d->call);
    if (status == SB_OK) status = check_arrays(ctx, d);
    if (status == SB_OK) status = sb_cuda_scratch(ctx, launch, lists.bytes, &scratch);
    if (status != SB_OK) return status;
    set_arguments(ctx, d, &a);
    status = run(ctx, d, &a, &lists, scratch);
    sb_cuda_scratch_done(ctx, launch, scratch);
    return status == SB_OK && launch->check ? check_call(ctx, d) : status;
}

sb_status sb_cuda_draw_workspace(sb_context *ctx, const void *checked, uint64_t *bytes)
{
    const sb_draw_call *d = checked;
    (void)ctx;
    *bytes = sb_cuda_lists_of(&d->call).bytes;
    return SB_OK;
}
