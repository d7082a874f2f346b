/* shards.c - shards of the vocabulary on a GPU: the launches of kernels/shards.cu. exchange.c also
 * uses sb_cuda_merge. */
#include <stdlib.h>

#include "cuda/head.h"
#include "cuda/lists.h"
#include "det/moments.h"

static sb_cuda_grid threads_for(int64_t items)
{
    const sb_cuda_grid grid = { .blocks = (items + 255) / 256, .threads = 256 };
    return grid;
}

/* ---- partial ------------------------------------------------------------------------------ */

static const sb_logprob_out NO_OUT = SB_LOGPROB_OUT_INIT;

/* Plans the sums of a shard. Fills in a, except for the records and the scratch memory. */
static sb_cuda_grid plan_partial(sb_context *ctx, const sb_call *call, sb_cuda_shard_args *a)
{
    memset(a, 0, sizeof *a);
    a->first = call->first;
    a->held = call->held;
    return sb_cuda_plan_shard(ctx, &NO_OUT, call, &a->in);
}

static uint64_t pieces_size(const sb_cuda_args *in, const sb_records *to)
{
    return in->split > 1 ? (uint64_t)in->work * (uint64_t)in->split * sb_state_size(to) : 0;
}

static CUfunction partial_for(const sb_cuda_shards_kernels *k, const sb_partial_call *p)
{
    const int32_t dtype = p->call.in.logits_dtype;
    if (sb_has_moments(&p->to)) /* these kernels also take kept sets */
        return sb_cuda_for_dtype(dtype, k->partial_f32_moments, k->partial_f16_moments,
                                 k->partial_bf16_moments);
    if (p->call.in.kept)
        return sb_cuda_for_dtype(dtype, k->partial_f32_kept, k->partial_f16_kept,
                                 k->partial_bf16_kept);
    return sb_cuda_for_dtype(dtype, k->partial_f32, k->partial_f16, k->partial_bf16);
}

static sb_status run_partial(sb_context *ctx, const sb_partial_call *p, sb_cuda_grid grid,
                             sb_cuda_shard_args *a)
{
    const sb_cuda *c = ctx->state;
    const sb_call *call = &p->call;
    const CUfunction merge = sb_has_moments(&p->to) ? c->shards.partial_merge_moments
                                                    : c->shards.partial_merge;
    CUstream stream = call->launch.stream;
    uint64_t rows = (uint64_t)call->rows;
    sb_status status = SB_OK;
    if (call->in.row_list) { /* rows that are not listed */
        status = sb_cuda_clear(ctx, a->states, rows * sb_state_size(&p->to), stream);
        if (status == SB_OK)
            status = sb_cuda_clear(ctx, a->targets, rows * sizeof(sb_target_record), stream);
    }
    if (status == SB_OK)
        status = sb_cuda_launch(ctx, partial_for(&c->shards, p), grid, &a->in, stream);
    if (status == SB_OK && a->in.split > 1)
        status = sb_cuda_launch(ctx, merge, sb_cuda_warps_for(a->in.work), &a->in, stream);
    return status;
}

sb_status sb_cuda_partial(sb_context *ctx, const void *checked)
{
    const sb_partial_call *p = checked;
    const sb_call *call = &p->call;
    const sb_partial_call planned = { p->to, sb_cuda_words_call(call) };
    sb_cuda_lists lists = sb_cuda_lists_of(call);
    sb_cuda_shard_args a;
    sb_cuda_grid grid;
    CUdeviceptr scratch;
    sb_status status;
    if (call->in.head) return sb_cuda_hidden_partial(ctx, p);
    grid = plan_partial(ctx, &planned.call, &a);
    status = sb_cuda_check_arguments(ctx, &NO_OUT, call);
    if (status == SB_OK) status = sb_cuda_check_records(ctx, &p->to, call->rows, "");
    if (status == SB_OK)
        status = sb_cuda_scratch(ctx, &call->launch, lists.bytes + pieces_size(&a.in, &p->to),
                                 &scratch);
    if (status != SB_OK) return status;
    a.states = sb_cuda_address(p->to.states);
    a.targets = sb_cuda_address(p->to.targets);
    a.in.states = scratch + lists.bytes;
    if (!a.in.logits) a.in.logits = a.states; /* an empty shard: not read, but must not be null */
    status = sb_cuda_launch_words(ctx, call, &lists, scratch, 0);
    sb_cuda_use_words(&a.in, &lists);
    if (status == SB_OK) status = run_partial(ctx, &planned, grid, &a);
    return sb_cuda_end_call(ctx, call, scratch, status);
}

sb_status sb_cuda_partial_workspace(sb_context *ctx, const void *checked, uint64_t *bytes)
{
    const sb_partial_call *p = checked;
    const sb_call planned = sb_cuda_words_call(&p->call);
    sb_cuda_shard_args a;
    if (p->call.in.head) return sb_cuda_hidden_partial_workspace(ctx, p, bytes);
    plan_partial(ctx, &planned, &a);
    *bytes = sb_cuda_lists_of(&p->call).bytes + pieces_size(&a.in, &p->to);
    return SB_OK;
}

/* ---- merge -------------------------------------------------------------------------------- */

/* After a report: runs the cpu backend's checks on copies. SB_OK: they find nothing. */
static sb_status find_first_bad(sb_context *ctx, const sb_merge_call *call)
{
    sb_merge_call host = *call;
    CUstream stream = call->launch.stream;
    const void *states = call->from.states, *targets = call->from.targets;
    int64_t records = call->shards * call->rows;
    sb_status status = sb_cuda_fetch(ctx, &states, records, sb_state_size(&call->from), stream);
    if (status != SB_OK) return status;
    status = sb_cuda_fetch(ctx, &targets, records, sizeof(sb_target_record), stream);
    if (status == SB_OK) {
        host.from.states = (void *)(uintptr_t)states;
        host.from.targets = (sb_target_record *)(uintptr_t)targets;
        status = sb_check_merge(&host, &ctx->error);
        free((void *)(uintptr_t)targets);
    }
    free((void *)(uintptr_t)states);
    return status;
}

static sb_status check_merge(sb_context *ctx, const sb_merge_call *call)
{
    int64_t report;
    sb_status status = sb_cuda_wait_for_report(ctx, &call->launch, &report);
    if (status != SB_OK || !report) return status;
    status = find_first_bad(ctx, call);
    return status == SB_OK ? sb_cuda_name_report(&ctx->error, report) : status;
}

sb_status sb_cuda_merge(sb_context *ctx, const void *checked)
{
    const sb_cuda *c = ctx->state;
    const sb_merge_call *call = checked;
    sb_cuda_shard_args a;
    const CUfunction kernel = sb_has_moments(&call->to) ? c->shards.shards_merge_moments
                                                        : c->shards.shards_merge;
    sb_status status = sb_cuda_check_records(ctx, &call->to, call->rows, "");
    if (status == SB_OK)
        status = sb_cuda_check_records(ctx, &call->from, call->shards * call->rows, "from.");
    if (status != SB_OK) return status;
    memset(&a, 0, sizeof a);
    a.in.rows = call->rows;
    a.states = sb_cuda_address(call->to.states);
    a.targets = sb_cuda_address(call->to.targets);
    a.from_states = sb_cuda_address(call->from.states);
    a.from_targets = sb_cuda_address(call->from.targets);
    a.shards = call->shards;
    a.keep = call->launch.check;
    status = sb_cuda_launch(ctx, kernel, threads_for(call->rows), &a.in, call->launch.stream);
    if (status == SB_OK && call->launch.check) status = check_merge(ctx, call);
    return status;
}

/* ---- finish ------------------------------------------------------------------------------- */

/* The scratch memory holds what is said of each row's list, and tokens if only their sums are
 * requested. */
sb_status sb_cuda_finish_workspace(sb_context *ctx, const void *checked, uint64_t *bytes)
{
    const sb_finish_call *f = checked;
    (void)ctx;
    *bytes = sb_cuda_list_bytes_of(&f->call).bytes + sb_cuda_token_bytes(&f->out, f->call.rows);
    return SB_OK;
}

static sb_status run_finish(sb_context *ctx, const sb_finish_call *f, sb_cuda_shard_args *a)
{
    const sb_cuda *c = ctx->state;
    const sb_call *call = &f->call;
    CUstream stream = call->launch.stream;
    const CUfunction kernel = sb_has_moments(&f->from) ? c->shards.shards_finish_moments
                                                       : c->shards.shards_finish;
    sb_status status = sb_cuda_clear_unlisted(ctx, call, &a->in);
    if (status == SB_OK)
        status = sb_cuda_launch(ctx, kernel, sb_cuda_warps_for(a->in.work), &a->in, stream);
    return status == SB_OK ? sb_cuda_sum_sequences(ctx, call, &a->in) : status;
}

sb_status sb_cuda_finish(sb_context *ctx, const void *checked)
{
    const sb_finish_call *f = checked;
    const sb_call *call = &f->call;
    sb_cuda_lists lists = sb_cuda_list_bytes_of(call);
    uint64_t needed;
    sb_cuda_shard_args a;
    CUdeviceptr scratch;
    sb_status status = sb_cuda_check_arguments(ctx, &f->out, call);
    if (status == SB_OK) status = sb_cuda_check_records(ctx, &f->from, call->rows, "");
    if (status == SB_OK) status = sb_cuda_finish_workspace(ctx, f, &needed);
    if (status == SB_OK) status = sb_cuda_scratch(ctx, &call->launch, needed, &scratch);
    if (status != SB_OK) return status;
    memset(&a, 0, sizeof a);
    sb_cuda_plan_shard(ctx, &f->out, call, &a.in);
    a.states = sb_cuda_address(f->from.states);
    a.targets = sb_cuda_address(f->from.targets);
    a.in.logits = a.states; /* not read, but must not be null */
    if (needed > lists.bytes) a.in.tokens = scratch + lists.bytes;
    status = sb_cuda_launch_words(ctx, call, &lists, scratch, 0);
    sb_cuda_use_words(&a.in, &lists);
    if (status == SB_OK) status = run_finish(ctx, f, &a);
    sb_cuda_scratch_done(ctx, &call->launch, scratch);
    if (status == SB_OK && call->launch.check)
        status = sb_cuda_check_call(ctx, call, &f->from, NULL);
    return status;
}
