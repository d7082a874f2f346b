/* shards.c - sb_partial, sb_merge, sb_finish and their workspace: checks, then the backend. */
#include <inttypes.h>

#include "api/call.h"
#include "api/entry.h"
#include "api/records.h"
#include "api/run.h"
#include "det/record.h"

/* The public records are what the arithmetic works on. */
_Static_assert(sizeof(sb_state_record) == 32 && sizeof(sb_state) == 32, "a state is 32 bytes");
_Static_assert(sizeof(sb_target_record) == 8 && sizeof(sb_target) == 8, "a target is 8 bytes");
_Static_assert(offsetof(sb_state_record, J) == offsetof(sb_state, J), "J");
_Static_assert(offsetof(sb_state_record, c) == offsetof(sb_state, c), "c");
_Static_assert(offsetof(sb_state_record, l) == offsetof(sb_state, l), "l");
_Static_assert(sizeof(sb_moment_record) == 64 && sizeof(sb_moments) == 64, "moments are 64 bytes");
_Static_assert(offsetof(sb_moment_record, sum) == offsetof(sb_moments, sum), "sum");
_Static_assert(offsetof(sb_moment_record, g) == offsetof(sb_moments, g), "g");
_Static_assert(offsetof(sb_moment_record, best) == offsetof(sb_moments, best), "best");
_Static_assert(offsetof(sb_target_record, x) == offsetof(sb_target, x), "x");
_Static_assert(offsetof(sb_target_record, owners) == offsetof(sb_target, owners), "owners");

/* from: "from_" or "", what the arguments' names begin with. */
static sb_status check_records(sb_context *ctx, int64_t rows, const sb_records *records,
                               const char *from)
{
    if (rows == 0 || (records->states && records->targets)) return SB_OK;
    return sb_fail(&ctx->error, SB_ERR_ARGUMENT, "%s%s is null", from,
                   records->states ? "targets" : sb_states_name(records->moments));
}

static sb_status prepare(sb_context *ctx, sb_call *call, const sb_batch *batch, int64_t first,
                         int64_t n, const sb_launch *launch)
{
    sb_status status = sb_shard_call_of(ctx, call, batch, first, n, launch);
    return status == SB_OK ? sb_check_kept_sets(ctx, call, NULL) : status;
}

/* Records that no one writes to. */
static sb_records read_only(const void *states, const sb_target_record *targets, int moments)
{
    const sb_records records = { (void *)(uintptr_t)states, (sb_target_record *)(uintptr_t)targets,
                                 moments };
    return records;
}

static sb_status partial(sb_context *ctx, const sb_records *to, const sb_batch *batch,
                         int64_t first, int64_t n, const sb_launch *launch)
{
    sb_partial_call call = { .to = *to };
    sb_status status = prepare(ctx, &call.call, batch, first, n, launch);
    if (status == SB_OK) status = check_records(ctx, call.call.rows, to, "");
    return status == SB_OK ? sb_run(ctx, SB_OP_PARTIAL, &call, &call.call.launch) : status;
}

sb_status sb_partial(sb_context *ctx, sb_state_record *states, sb_target_record *targets,
                     const sb_batch *batch, int64_t first, int64_t n, const sb_launch *launch)
{
    const sb_records to = { states, targets, 0 };
    SB_INSIDE(ctx, partial(ctx, &to, batch, first, n, launch));
}

sb_status sb_partial_moments(sb_context *ctx, sb_moment_record *moments, sb_target_record *targets,
                             const sb_batch *batch, int64_t first, int64_t n,
                             const sb_launch *launch)
{
    const sb_records to = { moments, targets, 1 };
    SB_INSIDE(ctx, partial(ctx, &to, batch, first, n, launch));
}

static sb_status check_merge_shape(sb_context *ctx, int64_t shards, int64_t rows, int moments)
{
    int64_t bytes;
    if (shards < 1) return sb_fail(&ctx->error, SB_ERR_SHAPE, "shards is %" PRId64, shards);
    if (rows < 0) return sb_fail(&ctx->error, SB_ERR_SHAPE, "rows is %" PRId64, rows);
    if (__builtin_mul_overflow(shards, rows, &bytes) ||
        __builtin_mul_overflow(bytes, (int64_t)sb_state_size(moments), &bytes))
        return sb_fail(&ctx->error, SB_ERR_SHAPE,
                       "%" PRId64 " shards of %" PRId64 " rows reach past the address space",
                       shards, rows);
    return SB_OK;
}

static sb_status merge(sb_context *ctx, sb_merge_call *call, const sb_launch *launch)
{
    sb_status status = sb_launch_of(&call->launch, launch, &ctx->error);
    if (status == SB_OK)
        status = check_merge_shape(ctx, call->shards, call->rows, call->to.moments);
    if (status == SB_OK) status = check_records(ctx, call->rows, &call->to, "");
    if (status == SB_OK) status = check_records(ctx, call->rows, &call->from, "from_");
    return status == SB_OK ? sb_run(ctx, SB_OP_MERGE, call, &call->launch) : status;
}

sb_status sb_merge(sb_context *ctx, sb_state_record *states, sb_target_record *targets,
                   const sb_state_record *from_states, const sb_target_record *from_targets,
                   int64_t shards, int64_t rows, const sb_launch *launch)
{
    sb_merge_call call = { { states, targets, 0 },
                           read_only(from_states, from_targets, 0),
                           shards,
                           rows,
                           SB_LAUNCH_INIT };
    SB_INSIDE(ctx, merge(ctx, &call, launch));
}

sb_status sb_merge_moments(sb_context *ctx, sb_moment_record *moments, sb_target_record *targets,
                           const sb_moment_record *from_moments,
                           const sb_target_record *from_targets, int64_t shards, int64_t rows,
                           const sb_launch *launch)
{
    sb_merge_call call = { { moments, targets, 1 },
                           read_only(from_moments, from_targets, 1),
                           shards,
                           rows,
                           SB_LAUNCH_INIT };
    SB_INSIDE(ctx, merge(ctx, &call, launch));
}

static sb_status finish(sb_context *ctx, const sb_logprob_out *out, const sb_batch *batch,
                        const sb_records *records, const sb_launch *launch)
{
    sb_finish_call call = { .from = *records };
    sb_status status = prepare(ctx, &call.call, batch, 0, 0, launch);
    if (status == SB_OK) status = sb_out_of(&call.out, out, &ctx->error);
    if (status == SB_OK && call.out.entropy && !records->moments)
        return sb_fail(&ctx->error, SB_ERR_ARGUMENT,
                       "sb_finish gives no entropy: these records do not hold what it needs; "
                       "sb_partial_moments gives such as do");
    if (status == SB_OK) status = sb_check_kept_sets(ctx, &call.call, &call.out);
    if (status == SB_OK) status = check_records(ctx, call.call.rows, records, "");
    return status == SB_OK ? sb_run(ctx, SB_OP_FINISH, &call, &call.call.launch) : status;
}

sb_status sb_finish(sb_context *ctx, const sb_logprob_out *out, const sb_batch *batch,
                    const sb_state_record *states, const sb_target_record *targets,
                    const sb_launch *launch)
{
    const sb_records records = read_only(states, targets, 0);
    SB_INSIDE(ctx, finish(ctx, out, batch, &records, launch));
}

sb_status sb_finish_moments(sb_context *ctx, const sb_logprob_out *out, const sb_batch *batch,
                            const sb_moment_record *moments, const sb_target_record *targets,
                            const sb_launch *launch)
{
    const sb_records records = read_only(moments, targets, 1);
    SB_INSIDE(ctx, finish(ctx, out, batch, &records, launch));
}

static sb_status workspace_size(sb_context *ctx, uint64_t *size, const sb_batch *batch,
                                int64_t first, int64_t n, const sb_launch *launch)
{
    sb_partial_call call = { .to = { NULL, NULL, 1 } };
    sb_status status = prepare(ctx, &call.call, batch, first, n, launch);
    return status == SB_OK ? sb_workspace_of(ctx, SB_OP_PARTIAL, &call, size) : status;
}

sb_status sb_shard_workspace_size(sb_context *ctx, uint64_t *size, const sb_batch *batch,
                                  int64_t first, int64_t n, const sb_launch *launch)
{
    SB_INSIDE(ctx, workspace_size(ctx, size, batch, first, n, launch));
}
