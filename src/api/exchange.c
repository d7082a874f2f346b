/* exchange.c - what ranks exchange, and communicators: checks, then the backend. A backend without
 * them says so before any check of the arguments. */
#include <inttypes.h>

#include "api/call.h"
#include "api/entry.h"
#include "api/records.h"
#include "api/run.h"

/* What all of these calls have: name is that of count in messages. */
static sb_status check_common(sb_context *ctx, sb_op op, sb_launch *to, const sb_launch *launch,
                              const void *comm, const char *name, int64_t count)
{
    sb_status status = sb_check_op(ctx, op);
    if (status == SB_OK) status = sb_launch_of(to, launch, &ctx->error);
    if (status != SB_OK) return status;
    if (to->timeout < -1)
        return sb_fail(&ctx->error, SB_ERR_ARGUMENT, "timeout is %" PRId32 ", below -1",
                       to->timeout);
    if (!comm) return sb_fail(&ctx->error, SB_ERR_ARGUMENT, "comm is null");
    if (count >= 0 && count <= SB_EXCHANGE_COUNT) return SB_OK;
    return sb_fail(&ctx->error, SB_ERR_SHAPE, "%s is %" PRId64 ": it must be in [0, 2^40]", name,
                   count);
}

static sb_status new_id(sb_context *ctx, sb_comm_id *id)
{
    sb_status status = sb_check_op(ctx, SB_OP_EXCHANGE);
    if (status != SB_OK) return status;
    if (!id) return sb_fail(&ctx->error, SB_ERR_ARGUMENT, "id is null");
    return ctx->backend->comms->new_id(ctx, id);
}

sb_status sb_comm_new_id(sb_context *ctx, sb_comm_id *id) { SB_INSIDE(ctx, new_id(ctx, id)); }

static sb_status create(sb_context *ctx, void **comm, const sb_comm_id *id, int32_t ranks,
                        int32_t rank)
{
    sb_status status = sb_check_op(ctx, SB_OP_EXCHANGE);
    if (status != SB_OK) return status;
    if (!comm || !id)
        return sb_fail(&ctx->error, SB_ERR_ARGUMENT, "%s is null", comm ? "id" : "comm");
    if (ranks < 1) return sb_fail(&ctx->error, SB_ERR_SHAPE, "ranks is %" PRId32, ranks);
    if (rank < 0 || rank >= ranks)
        return sb_fail(&ctx->error, SB_ERR_SHAPE, "rank %" PRId32 " is outside [0, %" PRId32 ")",
                       rank, ranks);
    return ctx->backend->comms->create(ctx, comm, id, ranks, rank);
}

sb_status sb_comm_create(sb_context *ctx, void **comm, const sb_comm_id *id, int32_t ranks,
                         int32_t rank)
{
    if (comm) *comm = NULL;
    SB_INSIDE(ctx, create(ctx, comm, id, ranks, rank));
}

static sb_status destroy(sb_context *ctx, void *comm)
{
    sb_status status = sb_check_op(ctx, SB_OP_EXCHANGE);
    return status == SB_OK && comm ? ctx->backend->comms->destroy(ctx, comm) : status;
}

sb_status sb_comm_destroy(sb_context *ctx, void *comm) { SB_INSIDE(ctx, destroy(ctx, comm)); }

static sb_status abort_comm(sb_context *ctx, void *comm)
{
    sb_status status = sb_check_op(ctx, SB_OP_EXCHANGE);
    return status == SB_OK && comm ? ctx->backend->comms->abort(ctx, comm) : status;
}

sb_status sb_comm_abort(sb_context *ctx, void *comm) { SB_INSIDE(ctx, abort_comm(ctx, comm)); }

static sb_status exchange(sb_context *ctx, const sb_records *records, int64_t rows, void *comm,
                          const sb_launch *launch)
{
    sb_exchange_call call = { .rows = rows, .comm = comm };
    sb_status status = check_common(ctx, SB_OP_EXCHANGE, &call.launch, launch, comm, "rows", rows);
    if (status == SB_OK) status = sb_check_records(records, rows, "", &ctx->error);
    if (status != SB_OK) return status;
    call.records = *records;
    return sb_run(ctx, SB_OP_EXCHANGE, &call, &call.launch);
}

sb_status sb_exchange(sb_context *ctx, const sb_records *records, int64_t rows, void *comm,
                      const sb_launch *launch)
{
    SB_INSIDE(ctx, exchange(ctx, records, rows, comm, launch));
}

static sb_status all_gather(sb_context *ctx, void *all, const void *mine, int64_t bytes, void *comm,
                            const sb_launch *launch)
{
    sb_all_gather_call call = { .all = all, .mine = mine, .bytes = bytes, .comm = comm };
    sb_status status = check_common(ctx, SB_OP_ALL_GATHER, &call.launch, launch, comm, "bytes",
                                    bytes);
    if (status != SB_OK) return status;
    if (bytes > 0 && (!all || !mine))
        return sb_fail(&ctx->error, SB_ERR_ARGUMENT, "%s is null", all ? "mine" : "all");
    return sb_run(ctx, SB_OP_ALL_GATHER, &call, &call.launch);
}

sb_status sb_all_gather(sb_context *ctx, void *all, const void *mine, int64_t bytes, void *comm,
                        const sb_launch *launch)
{
    SB_INSIDE(ctx, all_gather(ctx, all, mine, bytes, comm, launch));
}

static sb_status all_reduce(sb_context *ctx, void *values, int32_t dtype, int64_t count,
                            int32_t reduction, void *comm, const sb_launch *launch)
{
    sb_all_reduce_call call = { values, dtype, reduction, count, comm, SB_LAUNCH_INIT };
    sb_status status = check_common(ctx, SB_OP_ALL_REDUCE, &call.launch, launch, comm, "count",
                                    count);
    if (status != SB_OK) return status;
    if (dtype != SB_I32 && dtype != SB_I64)
        return sb_fail(&ctx->error, SB_ERR_DTYPE, "dtype is %" PRId32 ", not SB_I32 or SB_I64",
                       dtype);
    if (reduction != SB_ADD && reduction != SB_MAX)
        return sb_fail(&ctx->error, SB_ERR_ARGUMENT,
                       "reduction is %" PRId32 ", not SB_ADD or SB_MAX", reduction);
    if (count > 0 && !values) return sb_fail(&ctx->error, SB_ERR_ARGUMENT, "values is null");
    return sb_run(ctx, SB_OP_ALL_REDUCE, &call, &call.launch);
}

sb_status sb_all_reduce(sb_context *ctx, void *values, int32_t dtype, int64_t count,
                        int32_t reduction, void *comm, const sb_launch *launch)
{
    SB_INSIDE(ctx, all_reduce(ctx, values, dtype, count, reduction, comm, launch));
}
