/* sample.c - sampling on a GPU: the launches of kernels/sample.cu, and of kernels/order.cu where
 * the first k ids are all that may be drawn. */
#include <stdlib.h>

#include "api/sample.h"
#include "cuda/head.h"
#include "cuda/lists.h"
#include "cuda/sample.h"
#include "det/leaf.h"

#define BOUNDARY 256 /* of the two parts of the scratch memory */

static const sb_logprob_out NO_OUT = SB_LOGPROB_OUT_INIT;

/* The ways of kernels/sample.cu. */
typedef enum sample_way { DRAW, LIST, FILTER } sample_way;

/* Rows are summed by kernels/order.cu, which finds the first k ids. Scratch: that of sums, then
 * that of models. */
typedef struct sample_plan {
    sample_way way;
    int64_t k; /* 0: only sums */
    sb_cuda_sample_args a;
    sb_cuda_order_args sums, models; /* models: of the rows without their kept sets */
    sb_cuda_grid sums_grid, models_grid;
    uint64_t sums_size, models_size; /* models_size: 0 if none are needed */
} sample_plan;

static sample_way way_of(const sb_sample_call *s)
{
    const sb_sampling *how = &s->how;
    if (!how->top_ks && how->top_k >= 1 && how->top_k <= SB_MAX_TOPK) return LIST;
    return sb_has_filters(how) || s->out.kept || s->out.count ? FILTER : DRAW;
}

void sb_cuda_set_sampling(sb_cuda_sample_args *a, const sb_sample_out *out, const sb_sampling *how)
{
    a->token = sb_cuda_address(out->token);
    a->logprob = sb_cuda_address(out->logprob);
    a->kept_logprob = sb_cuda_address(out->kept_logprob);
    a->count = sb_cuda_address(out->count);
    a->kept = sb_cuda_address(out->kept);
    a->top_ks = sb_cuda_address(how->top_ks);
    a->top_ps = sb_cuda_address(how->top_ps);
    a->min_ps = sb_cuda_address(how->min_ps);
    a->seeds = sb_cuda_address(how->seeds);
    a->streams = sb_cuda_address(how->streams);
    a->positions = sb_cuda_address(how->positions);
    a->u = sb_cuda_address(how->u);
    a->bits = sb_cuda_address(how->bits);
    a->seed = how->seed;
    a->stream = how->stream;
    a->position = how->position;
    a->top_k = how->top_k;
    a->top_p = how->top_p;
    a->min_p = how->min_p;
}

/* Short pieces, because one of each row is read again, by one block: a leaf for each thread if
 * there are few rows, a 16th of a long row if there are many. */
static void cut_for_draws(sb_call *call)
{
    const int64_t leaves = (call->in.vocab + SB_LEAF - 1) / SB_LEAF;
    const int64_t work = call->in.row_list ? call->in.row_count : call->rows;
    if (!call->launch.split && work > 8) {
        int64_t split = (leaves + SB_CUDA_FILTER - 1) / SB_CUDA_FILTER;
        if (work > 128 && split > 16) split = 16;
        call->launch.split = (int32_t)split;
    }
    if (!call->launch.threads && work > 8) call->launch.threads = 128;
}

/* Lists count as words here. */
static sample_plan plan_sample(sb_context *ctx, const sb_sample_call *s)
{
    sb_call call = sb_cuda_words_call(&s->call);
    sample_plan p;
    memset(&p, 0, sizeof p);
    p.way = way_of(s);
    p.k = p.way == DRAW ? 0 : p.way == LIST ? s->how.top_k : 1;
    sb_cuda_set_sampling(&p.a, &s->out, &s->how);
    if (p.way == DRAW) cut_for_draws(&call);
    p.sums_grid = sb_cuda_plan_order(ctx, &call, p.k, &p.sums, &p.sums_size);
    p.sums_size = (p.sums_size + BOUNDARY - 1) / BOUNDARY * BOUNDARY;
    if (call.in.kept && s->out.logprob) {
        call.in.kept = NULL;
        call.in.kept_ids = call.in.kept_offsets = NULL;
        p.models_grid = sb_cuda_plan_order(ctx, &call, 0, &p.models, &p.models_size);
    }
    return p;
}

static void set_scratch(sample_plan *p, const sb_cuda_lists *lists, CUdeviceptr scratch)
{
    sb_cuda_use_words(&p->sums.in, lists);
    sb_cuda_set_order_scratch(&p->sums, p->k, scratch);
    p->a.in = p->sums.in;
    p->a.lists = p->k ? p->sums.lists : 0;
    if (!p->models_size) return;
    sb_cuda_set_order_scratch(&p->models, 0, scratch + p->sums_size);
    p->a.models = p->models.in.states;
    p->a.model_split = p->models.in.split;
}

sb_status sb_cuda_check_sampling_arrays(sb_context *ctx, const sb_sample_out *out,
                                        const sb_sampling *how, int64_t rows, int64_t vocab)
{
    const uint64_t words = (uint64_t)sb_kept_width(vocab);
    const sb_cuda_array arrays[] = {
        { "token", out->token, 4, sb_cuda_bytes(rows, 4) },
        { "logprob", out->logprob, 4, sb_cuda_bytes(rows, 4) },
        { "kept_logprob", out->kept_logprob, 4, sb_cuda_bytes(rows, 4) },
        { "count", out->count, 4, sb_cuda_bytes(rows, 4) },
        { "out.kept", out->kept, 4, sb_cuda_bytes(rows, words * 4) },
        { "top_ks", how->top_ks, 4, sb_cuda_bytes(rows, 4) },
        { "top_ps", how->top_ps, 4, sb_cuda_bytes(rows, 4) },
        { "min_ps", how->min_ps, 4, sb_cuda_bytes(rows, 4) },
        { "seeds", how->seeds, 8, sb_cuda_bytes(rows, 8) },
        { "streams", how->streams, 8, sb_cuda_bytes(rows, 8) },
        { "positions", how->positions, 8, sb_cuda_bytes(rows, 8) },
        { "u", how->u, 8, sb_cuda_bytes(rows, 8) },
        { "bits", how->bits, 8, sb_cuda_bytes(rows, 8) },
    };
    return sb_cuda_check_arrays(ctx, arrays, sizeof arrays / sizeof *arrays);
}

sb_status sb_cuda_clear_draws(sb_context *ctx, const sb_call *call, const sb_sample_out *out)
{
    const sb_cuda *c = ctx->state;
    CUstream stream = call->launch.stream;
    const uint64_t rows = (uint64_t)call->rows, words = (uint64_t)sb_kept_width(call->in.vocab);
    sb_status status = sb_cuda_clear(ctx, sb_cuda_address(out->logprob), rows * 4, stream);
    if (status == SB_OK)
        status = sb_cuda_clear(ctx, sb_cuda_address(out->kept_logprob), rows * 4, stream);
    if (status == SB_OK) status = sb_cuda_clear(ctx, sb_cuda_address(out->count), rows * 4, stream);
    if (status == SB_OK)
        status = sb_cuda_clear(ctx, sb_cuda_address(out->kept), rows * words * 4, stream);
    if (status == SB_OK && out->token && rows)
        DRIVER(&ctx->error, &c->driver, MemsetD8Async, sb_cuda_address(out->token), 0xff,
               (size_t)rows * 4, stream);
    return status;
}

static sb_status launch_kernels(sb_context *ctx, const sb_sample_call *s, sample_plan *p)
{
    const sb_cuda *c = ctx->state;
    const sb_cuda_sample_kernels *k = &c->sample;
    const int32_t dtype = s->call.in.logits_dtype;
    const CUfunction draw = sb_cuda_for_dtype(dtype, k->sample_draw_f32, k->sample_draw_f16,
                                              k->sample_draw_bf16);
    const CUfunction filter = sb_cuda_for_dtype(dtype, k->sample_filter_f32, k->sample_filter_f16,
                                                k->sample_filter_bf16);
    const int64_t work = p->a.in.work;
    sb_cuda_grid last = { .blocks = work, .threads = SB_CUDA_FILTER, .early = 1 };
    CUstream stream = s->call.launch.stream;
    sb_status status = s->call.in.row_list ? sb_cuda_clear_draws(ctx, &s->call, &s->out) : SB_OK;
    if (p->way == LIST && p->a.in.split == 1) {
        last.blocks = (work + SB_CUDA_LIST_ROWS - 1) / SB_CUDA_LIST_ROWS;
        last.threads = 32 * SB_CUDA_LIST_ROWS;
    } else if (p->way == LIST) {
        last.threads = 512;
    }
    if (status == SB_OK && p->models_size)
        status = sb_cuda_launch(ctx, sb_cuda_order_kernel(c, dtype, 0), p->models_grid,
                                &p->models.in, stream);
    if (status == SB_OK)
        status = sb_cuda_launch(ctx, sb_cuda_order_kernel(c, dtype, p->k), p->sums_grid,
                                &p->sums.in, stream);
    if (status == SB_OK)
        status = sb_cuda_launch(ctx,
                                p->way == LIST   ? k->sample_list
                                : p->way == DRAW ? draw
                                                 : filter,
                                last, &p->a.in, stream);
    return status;
}

/* ---- after a report ------------------------------------------------------------------------ */

sb_status sb_cuda_find_bad_sampling(sb_context *ctx, const sb_call *call, const sb_sampling *values)
{
    sb_call host = *call;
    sb_sampling how = *values;
    const int64_t rows = host.rows;
    const struct {
        const void **array;
        int64_t count;
        size_t size;
    } arrays[] = {
        { &host.in.ids, rows * host.width, host.in.ids_dtype == SB_I64 ? 8 : 4 },
        { (const void **)&host.in.mask, rows, 1 },
        { (const void **)&host.in.temperatures, rows, 4 },
        { (const void **)&host.in.row_list, host.in.row_count, 8 },
        { &host.in.cu_seqlens, host.in.batch + 1, host.in.cu_seqlens_dtype == SB_I64 ? 8 : 4 },
        { (const void **)&how.top_ks, rows, 4 },
        { (const void **)&how.top_ps, rows, 4 },
        { (const void **)&how.min_ps, rows, 4 },
        { (const void **)&how.u, rows, 8 },
    };
    const int count = sizeof arrays / sizeof *arrays;
    sb_status status = SB_OK;
    int fetched = 0;
    host.in.kept = NULL; /* kept sets have been checked */
    host.in.kept_ids = host.in.kept_offsets = NULL;
    for (; fetched < count && status == SB_OK; fetched++)
        status = sb_cuda_fetch(ctx, arrays[fetched].array, arrays[fetched].count,
                               arrays[fetched].size, call->launch.stream);
    if (status == SB_OK) status = sb_check_device_sampling(&host, &how, &ctx->error);
    for (int i = 0; i < fetched; i++) free((void *)(uintptr_t)*arrays[i].array);
    return status;
}

static sb_status check_call(sb_context *ctx, const sb_sample_call *s)
{
    int64_t report;
    sb_status status = sb_cuda_wait_for_report(ctx, &s->call.launch, &report);
    if (status != SB_OK || !report) return status;
    status = sb_cuda_find_first_bad(ctx, &s->call, NULL, NULL);
    if (status == SB_OK) status = sb_cuda_find_bad_sampling(ctx, &s->call, &s->how);
    return status == SB_OK ? sb_cuda_name_report(&ctx->error, report) : status;
}

/* ---- the call ------------------------------------------------------------------------------ */

static sb_status run_sample(sb_context *ctx, const sb_sample_call *s)
{
    const sb_launch *launch = &s->call.launch;
    sb_cuda_lists lists = sb_cuda_lists_of(&s->call);
    sample_plan p = plan_sample(ctx, s);
    const uint64_t needed = lists.bytes + p.sums_size + p.models_size;
    CUdeviceptr scratch;
    sb_status status = sb_cuda_scratch(ctx, launch, needed, &scratch);
    if (status != SB_OK) return status;
    status = sb_cuda_launch_words(ctx, &s->call, &lists, scratch, 0);
    set_scratch(&p, &lists, scratch + lists.bytes);
    if (status == SB_OK) status = launch_kernels(ctx, s, &p);
    sb_cuda_scratch_done(ctx, launch, scratch);
    return status;
}

sb_status sb_cuda_sample(sb_context *ctx, const void *checked)
{
    const sb_sample_call *s = checked;
    sb_status status = sb_cuda_check_arguments(ctx, &NO_OUT, &s->call);
    if (status == SB_OK)
        status = sb_cuda_check_sampling_arrays(ctx, &s->out, &s->how, s->call.rows,
                                               s->call.in.vocab);
    if (status == SB_OK)
        status = s->call.in.head ? sb_cuda_hidden_sample(ctx, s) : run_sample(ctx, s);
    return status == SB_OK && s->call.launch.check ? check_call(ctx, s) : status;
}

sb_status sb_cuda_sample_workspace(sb_context *ctx, const void *checked, uint64_t *bytes)
{
    const sb_sample_call *s = checked;
    sample_plan p;
    if (s->call.in.head) return sb_cuda_hidden_sample_workspace(ctx, s, bytes);
    p = plan_sample(ctx, s);
    *bytes = sb_cuda_lists_of(&s->call).bytes + p.sums_size + p.models_size;
    return SB_OK;
}
