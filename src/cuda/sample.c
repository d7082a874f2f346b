/* sample.c - sampling on a GPU: the launches of kernels/sample.cu, and of kernels/order.cu where
 * the first k ids are all that may be drawn. */
#include <stdlib.h>

#include "api/sample.h"
#include "cuda/head.h"
#include "cuda/lists.h"
#include "cuda/plan.h"
#include "cuda/sample.h"
#include "det/leaf.h"

static const sb_logprob_out NO_OUT = SB_LOGPROB_OUT_INIT;

/* The ways of kernels/sample.cu. */
typedef enum sample_way { DRAW, LIST, PICK, FILTER } sample_way;

/* Rows are summed in parts; those of LIST by kernels/order.cu, which finds the first k ids.
 * Scratch: that of sums, then that of models. */
typedef struct sample_plan {
    sample_way way;
    int64_t k; /* of LIST; else 0 */
    sb_cuda_sample_args a;
    sb_cuda_order_args sums, models; /* models: of the rows without their kept sets */
    sb_cuda_part_sums parts;         /* but of LIST */
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

static int64_t ceil_of(int64_t a, int64_t b) { return (a + b - 1) / b; }

#define RESIDENT 6    /* blocks of sample_sum that a multiprocessor holds */
#define BESIDE 5      /* the same, if there is to be room for a block of sample_draw */
#define BLOCK_TRIPS 2 /* what a block takes beside its sums, in trips of a warp */
#define PART_TRIPS 10 /* of a part, at most: it is read again for the draw */
#define SOME_TRIPS 4 /* of a warp, if rows are some per multiprocessor: small blocks end together */

/* How many blocks of `warps` warps sum each row: as many as end soonest. trips: of a row. resident:
 * so many blocks run at once. */
static int64_t blocks_of_row(int64_t work, int64_t trips, int64_t warps, int64_t resident)
{
    int64_t best = 1, least = INT64_MAX;
    for (int64_t n = 1; n <= ceil_of(trips, warps) && n <= SB_CUDA_PARTS / warps; n++) {
        const int64_t time = ceil_of(work * n, resident) *
                             (ceil_of(trips, warps * n) + BLOCK_TRIPS);
        if (time < least) least = time, best = n;
    }
    return best;
}

sb_cuda_part_sums sb_cuda_plan_parts(const sb_cuda *c, const sb_call *call, sb_cuda_parts_use use,
                                     sb_cuda_sample_args *a)
{
    sb_cuda_part_sums p;
    const sb_launch *launch = &call->launch;
    const int64_t leaves = ceil_of(call->in.vocab > 0 ? call->in.vocab : 1, SB_LEAF);
    const int64_t work = a->in.work, trips = ceil_of(leaves, 32);
    const int64_t processors = c->gpu.multiprocessors;
    const int32_t threads = launch->threads && launch->threads < SB_CUDA_SUM ? launch->threads
                                                                             : SB_CUDA_SUM;
    const int64_t warps = threads / 32, most = SB_CUDA_PARTS / warps;
    int64_t blocks;
    p.table = sb_cuda_takes_table(&c->gpu, call, use == SB_CUDA_DRAW_FROM ? 2 : 3);
    /* Each multiprocessor holds at most one block that draws. If there are few, the next call's
     * sums may begin beside them; otherwise it would get more of some multiprocessors than of
     * others. Blocks that pick leave no room for others. */
    if (use == SB_CUDA_DRAW_FROM && !p.table)
        a->early = work <= processors / 4 ? 2 : work <= processors;
    if (use == SB_CUDA_PICK_FROM && !p.table) a->early = work <= processors;
    const int beside = a->early && use == SB_CUDA_DRAW_FROM;
    if (launch->split) blocks = launch->split < most ? launch->split : most;
    else if (use == SB_CUDA_DRAW_FROM && work > processors / 2 && work < 3 * processors)
        blocks = ceil_of(trips, warps * SOME_TRIPS);
    else blocks = blocks_of_row(work, trips, warps, processors * (beside ? BESIDE : RESIDENT));
    const int64_t of_warp = ceil_of(trips, blocks * warps);
    a->each = (int32_t)(use == SB_CUDA_PICK_FROM ? of_warp : ceil_of(of_warp, PART_TRIPS));
    a->part = (int32_t)(32 * ceil_of(of_warp, a->each));
    a->parts = (int32_t)ceil_of(leaves, a->part);
    a->in.split = (int32_t)ceil_of(a->parts, warps * a->each);
    if (p.table)
        p.grid = (sb_cuda_grid){ .blocks = work ? c->gpu.multiprocessors : 0,
                                 .threads = SB_CUDA_TABLE_BLOCK,
                                 .shared = sb_cuda_table_bytes(&call->in),
                                 .early = 1 };
    else
        p.grid = (sb_cuda_grid){ .blocks = work * a->in.split,
                                 .threads = threads,
                                 .shared = (uint32_t)threads * 64,
                                 .early = 1 };
    /* A multiprocessor that took RESIDENT blocks would end last. Of BESIDE blocks that ask for as
     * much shared memory as this, one that draws still has room beside them. */
    if (beside && a->early == 1) {
        const uint32_t shared = (uint32_t)c->gpu.shared * 2 / (BESIDE + RESIDENT);
        if (p.grid.shared < shared) p.grid.shared = shared;
    }
    p.bytes = (uint64_t)(work * a->parts) * (sizeof(sb_state) + sizeof(float)) +
              (uint64_t)work * sizeof(sb_cuda_target);
    return p;
}

void sb_cuda_set_parts_scratch(sb_cuda_sample_args *a, CUdeviceptr scratch)
{
    a->in.states = scratch;
    a->in.targets = scratch + (uint64_t)(a->in.work * a->parts) * sizeof(sb_state);
    a->mosts = a->in.targets + (uint64_t)a->in.work * sizeof(sb_cuda_target);
}

sb_status sb_cuda_launch_parts(sb_context *ctx, const sb_call *call, const sb_cuda_part_sums *p,
                               sb_cuda_sample_args *a)
{
    const sb_cuda_sample_kernels *k = &((const sb_cuda *)ctx->state)->sample;
    const int32_t dtype = call->in.logits_dtype;
    const CUfunction table = dtype == SB_F16 ? k->sample_sum_f16_table : k->sample_sum_bf16_table;
    const CUfunction sum = p->table ? table
                                    : sb_cuda_for_dtype(dtype, k->sample_sum_f32, k->sample_sum_f16,
                                                        k->sample_sum_bf16);
    return sb_cuda_launch(ctx, sum, p->grid, &a->in, call->launch.stream);
}

/* About P log(P / (P - k)) ids reach what k of P parts do: 2 k, if P is 5 / 4 of k. Of fewer parts,
 * too many do. */
int sb_cuda_picks_first(const sb_cuda *c, const sb_call *call, int64_t k)
{
    const int64_t leaves = ceil_of(call->in.vocab, SB_LEAF);
    const int64_t work = call->in.row_list ? call->in.row_count : call->rows;
    if (leaves > SB_CUDA_TOPK_LEAVES) return 1;
    if (call->launch.split) return call->launch.split > 1;
    return work <= 2 * c->gpu.multiprocessors && leaves >= 32 * (k + k / 4);
}

/* 1024 threads take all registers of a multiprocessor, so with more rows than these two smaller
 * blocks end sooner. Where a warp has 64 lanes, a block of 1024 would not fit. */
sb_cuda_grid sb_cuda_pick_grid(const sb_cuda *c, int64_t work)
{
    const int alone = c->hopper && work <= c->gpu.multiprocessors;
    return (sb_cuda_grid){ .blocks = work,
                           .threads = alone ? SB_CUDA_PICK : SB_CUDA_PICK / 2,
                           .early = 1 };
}

/* Lists count as words here. */
static sample_plan plan_sample(sb_context *ctx, const sb_sample_call *s)
{
    sb_call call = sb_cuda_words_call(&s->call);
    sample_plan p;
    memset(&p, 0, sizeof p);
    p.way = way_of(s);
    if (p.way == LIST && sb_cuda_picks_first(ctx->state, &call, s->how.top_k)) p.way = PICK;
    p.k = p.way == LIST ? s->how.top_k : 0;
    sb_cuda_set_sampling(&p.a, &s->out, &s->how);
    p.sums_grid = sb_cuda_plan_order(ctx, &call, p.k, &p.sums, &p.sums_size);
    if (p.way != LIST) {
        p.a.in = p.sums.in;
        p.parts = sb_cuda_plan_parts(ctx->state, &call,
                                     p.way == PICK   ? SB_CUDA_PICK_FROM
                                     : p.way == DRAW ? SB_CUDA_DRAW_FROM
                                                     : SB_CUDA_FILTER_FROM,
                                     &p.a);
        p.sums_size = p.parts.bytes;
    }
    p.sums_size = sb_cuda_padded(p.sums_size);
    if (call.in.kept && s->out.logprob) {
        call.in.kept = NULL;
        call.in.kept_ids = call.in.kept_offsets = NULL;
        p.models_grid = sb_cuda_plan_order(ctx, &call, 0, &p.models, &p.models_size);
    }
    return p;
}

static void set_scratch(sample_plan *p, const sb_cuda_lists *lists, CUdeviceptr scratch)
{
    if (p->way == LIST) {
        sb_cuda_use_words(&p->sums.in, lists);
        sb_cuda_set_order_scratch(&p->sums, p->k, scratch);
        p->a.lists = p->sums.lists;
        p->a.in = p->sums.in;
    } else {
        sb_cuda_use_words(&p->a.in, lists);
        sb_cuda_set_parts_scratch(&p->a, scratch);
    }
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

/* The bytes of the lists of a block's warps; of their queues of ids, behind them, four for each
 * lane; and of a bit for each of the block's leaves. If blocks share a row, a list has half as many
 * entries, and the lists of all of them, merged, lie behind the block's own. */
static uint32_t list_bytes(int32_t threads, int64_t leaves)
{
    return (uint32_t)(threads / 32) * SB_CUDA_SEGMENT * (uint32_t)sizeof(uint64_t) +
           (uint32_t)threads * 4 * (uint32_t)sizeof(uint32_t) + (uint32_t)(leaves + 31) / 32 * 4;
}

/* The kernels with filters need more shared memory than a kernel gets unasked, and clusters of 16;
 * those with a table nearly all that there is: see logprob.c. */
sb_status sb_cuda_sample_prepare(const sb_cuda *c, sb_message *why)
{
    const sb_cuda_sample_kernels *k = &c->sample;
    const CUfunction kernels[] = { k->sample_filter_f32, k->sample_filter_f16,
                                   k->sample_filter_bf16 };
    for (int i = 0; i < 3; i++) {
        DRIVER(why, &c->driver, FuncSetAttribute, kernels[i],
               CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES,
               (int)list_bytes(SB_CUDA_FILTER, SB_MAX_VOCAB / SB_LEAF));
        if (c->gpu.clusters > 8)
            DRIVER(why, &c->driver, FuncSetAttribute, kernels[i],
                   CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED, 1);
    }
    DRIVER(why, &c->driver, FuncSetAttribute, k->sample_sum_f16_table,
           CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, c->gpu.shared);
    DRIVER(why, &c->driver, FuncSetAttribute, k->sample_sum_bf16_table,
           CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, c->gpu.shared);
    DRIVER(why, &c->driver, FuncSetAttribute, k->sample_sum_bf16_table,
           CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT, SB_CUDA_TABLE_CARVEOUT);
    return SB_OK;
}

/* The blocks of a crew: as many as let all rows run at once, with two blocks on each
 * multiprocessor. */
static int32_t crew_for(const sb_cuda_gpu *gpu, const sb_call *call, int64_t work)
{
    const int64_t leaves = (call->in.vocab + SB_LEAF - 1) / SB_LEAF;
    int32_t n = gpu->clusters;
    if (call->launch.cluster < 0) return 1;
    if (call->launch.cluster > 0 && call->launch.split)
        return call->launch.split < n ? call->launch.split : n > 1 ? n : 1;
    while (n >= 2 && (2 * gpu->room[n] < work || leaves < 64 * (int64_t)n)) n--;
    return n >= 2 ? n : 1;
}

/* Plans the blocks that filter: a crew for each row. */
static sb_cuda_grid plan_filter(const sb_cuda *c, const sb_call *call, sb_cuda_sample_args *a)
{
    const int64_t leaves = (call->in.vocab + SB_LEAF - 1) / SB_LEAF;
    const int32_t crew = crew_for(&c->gpu, call, a->in.work);
    sb_cuda_grid grid = { .threads = crew > 1 ? SB_CUDA_FILTER : SB_CUDA_FILTER / 2, .early = 1 };
    if (leaves < grid.threads) grid.threads = (int32_t)(leaves > 32 ? (leaves + 31) / 32 * 32 : 32);
    if (call->launch.threads && call->launch.threads < grid.threads)
        grid.threads = call->launch.threads;
    a->crew = crew;
    a->segment = SB_CUDA_SEGMENT / (crew > 1 ? 2 : 1);
    grid.blocks = a->in.work * crew;
    grid.cluster = crew > 1 ? crew : 0;
    grid.shared = list_bytes(grid.threads, ceil_of(leaves, crew) + 63); /* whole trips */
    return grid;
}

static sb_status launch_kernels(sb_context *ctx, const sb_sample_call *s, sample_plan *p)
{
    const sb_cuda *c = ctx->state;
    const sb_cuda_sample_kernels *k = &c->sample;
    const int32_t dtype = s->call.in.logits_dtype;
    const CUfunction draw = sb_cuda_for_dtype(dtype, k->sample_draw_f32, k->sample_draw_f16,
                                              k->sample_draw_bf16);
    const CUfunction pick = sb_cuda_for_dtype(dtype, k->sample_pick_f32, k->sample_pick_f16,
                                              k->sample_pick_bf16);
    const CUfunction filter = sb_cuda_for_dtype(dtype, k->sample_filter_f32, k->sample_filter_f16,
                                                k->sample_filter_bf16);
    const int64_t work = p->a.in.work;
    const int many = work >= 8 * c->gpu.multiprocessors; /* rows: one after the other */
    sb_cuda_grid last = { .blocks = work,
                          .threads = many ? 64 : 128, /* and at least one for each part */
                          .early = 1 };
    CUstream stream = s->call.launch.stream;
    sb_status status = s->call.in.row_list ? sb_cuda_clear_draws(ctx, &s->call, &s->out) : SB_OK;
    if (p->way == LIST) {
        last.blocks = (work + SB_CUDA_LIST_ROWS - 1) / SB_CUDA_LIST_ROWS;
        last.threads = 32 * SB_CUDA_LIST_ROWS;
    } else if (p->way == PICK) {
        last = sb_cuda_pick_grid(c, work);
    } else if (p->way == FILTER) {
        last = plan_filter(c, &s->call, &p->a);
    } else if (last.threads < p->a.parts) {
        last.threads = (p->a.parts + 63) / 64 * 64;
    }
    if (status == SB_OK && p->models_size)
        status = sb_cuda_launch(ctx, sb_cuda_order_kernel(c, dtype, 0), p->models_grid,
                                &p->models.in, stream);
    if (status == SB_OK && p->way == LIST)
        status = sb_cuda_launch(ctx, sb_cuda_order_kernel(c, dtype, p->k), p->sums_grid,
                                &p->sums.in, stream);
    else if (status == SB_OK) status = sb_cuda_launch_parts(ctx, &s->call, &p->parts, &p->a);
    if (status == SB_OK)
        status = sb_cuda_launch(ctx,
                                p->way == LIST   ? k->sample_list
                                : p->way == PICK ? pick
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
