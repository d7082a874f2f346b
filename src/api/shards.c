/* shards.c - sb_partial, sb_merge and sb_finish: checks, then the backend. The backend checks the
 * contents of records, because it can read them: see records.h. */
#include <inttypes.h>

#include "api/call.h"
#include "api/entry.h"
#include "api/records.h"
#include "api/run.h"
#include "det/record.h"

/* The public records have the layout of those that the arithmetic uses. */
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

static sb_status prepare(sb_context *ctx, sb_call *call, const sb_batch *batch, int64_t first,
                         int64_t n, const sb_launch *launch)
{
    sb_status status = sb_shard_call_of(ctx, call, batch, first, n, launch);
    return status == SB_OK ? sb_check_kept_sets(ctx, call, NULL) : status;
}

static sb_status partial(sb_context *ctx, const sb_records *records, const sb_batch *batch,
                         int64_t first, int64_t n, const sb_launch *launch)
{
    sb_partial_call call;
    sb_status status = prepare(ctx, &call.call, batch, first, n, launch);
    if (status == SB_OK) status = sb_check_records(records, call.call.rows, "", &ctx->error);
    if (status != SB_OK) return status;
    call.to = *records;
    return sb_run(ctx, SB_OP_PARTIAL, &call, &call.call.launch);
}

sb_status sb_partial(sb_context *ctx, const sb_records *records, const sb_batch *batch,
                     int64_t first, int64_t n, const sb_launch *launch)
{
    SB_INSIDE(ctx, partial(ctx, records, batch, first, n, launch));
}

static sb_status check_shards(const sb_records *records, const sb_records *from, int64_t shards,
                              int64_t rows, sb_message *why)
{
    int64_t bytes;
    if (from->kind != records->kind)
        return sb_fail(why, SB_ERR_ARGUMENT, "from.kind is %d, kind is %d", (int)from->kind,
                       (int)records->kind);
    if (__builtin_mul_overflow(shards, rows, &bytes) ||
        __builtin_mul_overflow(bytes, (int64_t)sb_state_size(from), &bytes))
        return sb_fail(why, SB_ERR_SHAPE,
                       "%" PRId64 " shards of %" PRId64 " rows reach past the address space",
                       shards, rows);
    return SB_OK;
}

static sb_status merge(sb_context *ctx, const sb_records *records, const sb_records *from,
                       int64_t shards, int64_t rows, const sb_launch *launch)
{
    sb_merge_call call;
    sb_message *why = &ctx->error;
    sb_status status = sb_launch_of(&call.launch, launch, why);
    if (status != SB_OK) return status;
    if (shards < 1) return sb_fail(why, SB_ERR_SHAPE, "shards is %" PRId64, shards);
    if (rows < 0) return sb_fail(why, SB_ERR_SHAPE, "rows is %" PRId64, rows);
    status = sb_check_records(records, rows, "", why);
    if (status == SB_OK) status = sb_check_records(from, rows, "from.", why);
    if (status == SB_OK) status = check_shards(records, from, shards, rows, why);
    if (status != SB_OK) return status;
    call.to = *records;
    call.from = *from;
    call.shards = shards;
    call.rows = rows;
    return sb_run(ctx, SB_OP_MERGE, &call, &call.launch);
}

sb_status sb_merge(sb_context *ctx, const sb_records *records, const sb_records *from,
                   int64_t shards, int64_t rows, const sb_launch *launch)
{
    SB_INSIDE(ctx, merge(ctx, records, from, shards, rows, launch));
}

static sb_status finish(sb_context *ctx, const sb_logprob_out *out, const sb_batch *batch,
                        const sb_records *records, const sb_launch *launch)
{
    sb_finish_call call;
    sb_message *why = &ctx->error;
    sb_status status = prepare(ctx, &call.call, batch, 0, 0, launch);
    if (status == SB_OK) status = sb_out_of(&call.out, out, why);
    if (status == SB_OK) status = sb_check_kept_sets(ctx, &call.call, &call.out);
    if (status == SB_OK) status = sb_check_records(records, call.call.rows, "", why);
    if (status != SB_OK) return status;
    if (call.out.entropy && !sb_has_moments(records))
        return sb_fail(why, SB_ERR_ARGUMENT,
                       "these records hold sums, and no moments, which entropy needs: see "
                       "SB_MOMENTS of sb_partial");
    if (call.out.gradient)
        return sb_fail(why, SB_ERR_ARGUMENT,
                       "records hold no logits, which the gradient needs: see sb_logprob_backward");
    call.from = *records;
    return sb_run(ctx, SB_OP_FINISH, &call, &call.call.launch);
}

sb_status sb_finish(sb_context *ctx, const sb_logprob_out *out, const sb_batch *batch,
                    const sb_records *records, const sb_launch *launch)
{
    SB_INSIDE(ctx, finish(ctx, out, batch, records, launch));
}
