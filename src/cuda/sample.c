/* sample.c - sampling on a GPU: the launches of kernels/sample.cu, and of kernels/order.cu where
 * the first k ids are all that may be drawn. */
#include <stdlib.h>

#include "api/sample.h"
#include "cuda/lists.h"
#include "cuda/sample_args.h"
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

static void set_values(sb_cuda_sample_args *a, const sb_sample_call *s)
{
    const sb_sampling *how = &s->how;
    a->token = sb_cuda_address(s->out.token);
    a->logprob = sb_cuda_address(s->out.logprob);
    a->kept_logprob = sb_cuda_address(s->out.kept_logprob);
    a->count = sb_cuda_address(s->out.count);
    a->kept = sb_cuda_address(s->out.kept);
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
    set_values(&p.a, s);
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

static sb_status check_arrays(sb_context *ctx, const sb_sample_call *s)
{
    const int64_t rows = s->call.rows;
    const uint64_t words = (uint64_t)sb_kept_width(s->call.in.vocab);
    const sb_sampling *how = &s->how;
    const sb_cuda_array arrays[] = {
        { "token", s->out.token, 4, sb_cuda_bytes(rows, 4) },
        { "logprob", s->out.logprob, 4, sb_cuda_bytes(rows, 4) },
        { "kept_logprob", s->out.kept_logprob, 4, sb_cuda_bytes(rows, 4) },
        { "count", s->out.count, 4, sb_cuda_bytes(rows, 4) },
        { "out.kept", s->out.kept, 4, sb_cuda_bytes(rows, words * 4) },
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

/* Writes the outputs of rows that are not in the row list. */
static sb_status clear_unlisted(sb_context *ctx, const sb_sample_call *s,
                                const sb_cuda_sample_args *a)
{
    const sb_cuda *c = ctx->state;
    CUstream stream = s->call.launch.stream;
    const uint64_t rows = (uint64_t)s->call.rows, words = (uint64_t)sb_kept_width(s->call.in.vocab);
    sb_status status;
    if (!s->call.in.row_list) return SB_OK;
    status = sb_cuda_clear(ctx, a->logprob, rows * 4, stream);
    if (status == SB_OK) status = sb_cuda_clear(ctx, a->kept_logprob, rows * 4, stream);
    if (status == SB_OK) status = sb_cuda_clear(ctx, a->count, rows * 4, stream);
    if (status == SB_OK) status = sb_cuda_clear(ctx, a->kept, rows * words * 4, stream);
    if (status == SB_OK && a->token && rows)
        DRIVER(&ctx->error, &c->driver, MemsetD8Async, a->token, 0xff, (size_t)rows * 4, stream);
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
    sb_status status = clear_unlisted(ctx, s, &p->a);
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

/* Runs the cpu backend's checks of the rows' values on copies. SB_OK: they find nothing. */
static sb_status find_first_bad(sb_context *ctx, const sb_sample_call *s)
{
    sb_call host = s->call;
    sb_sampling how = s->how;
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
                               arrays[fetched].size, s->call.launch.stream);
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
    if (status == SB_OK) status = find_first_bad(ctx, s);
    return status == SB_OK ? sb_cuda_name_report(&ctx->error, report) : status;
}

/* ---- the call ------------------------------------------------------------------------------ */

sb_status sb_cuda_sample(sb_context *ctx, const void *checked)
{
    const sb_sample_call *s = checked;
    const sb_launch *launch = &s->call.launch;
    sb_cuda_lists lists = sb_cuda_lists_of(&s->call);
    sample_plan p = plan_sample(ctx, s);
    const uint64_t needed = lists.bytes + p.sums_size + p.models_size;
    CUdeviceptr scratch;
    sb_status status = sb_cuda_check_arguments(ctx, &NO_OUT, &s->call);
    if (status == SB_OK) status = check_arrays(ctx, s);
    if (status == SB_OK) status = sb_cuda_scratch(ctx, launch, needed, &scratch);
    if (status != SB_OK) return status;
    status = sb_cuda_launch_words(ctx, &s->call, &lists, scratch, 0);
    set_scratch(&p, &lists, scratch + lists.bytes);
    if (status == SB_OK) status = launch_kernels(ctx, s, &p);
    sb_cuda_scratch_done(ctx, launch, scratch);
    return status == SB_OK && launch->check ? check_call(ctx, s) : status;
}

sb_status sb_cuda_sample_workspace(sb_context *ctx, const void *checked, uint64_t *bytes)
{
    const sb_sample_call *s = checked;
    const sample_plan p = plan_sample(ctx, s);
    *bytes = sb_cuda_lists_of(&s->call).bytes + p.sums_size + p.models_size;
    return SB_OK;
}
