/* exchange.c - sb_exchange and communicators: checks, then the backend. A backend without them says
 * so before any check of the arguments. */
#include <inttypes.h>

#include "api/call.h"
#include "api/entry.h"
#include "api/records.h"
#include "api/run.h"

static sb_status check_shape(sb_context *ctx, const void *comm, int64_t rows)
{
    if (!comm) return sb_fail(&ctx->error, SB_ERR_ARGUMENT, "comm is null");
    if (rows >= 0 && rows <= SB_EXCHANGE_ROWS) return SB_OK;
    return sb_fail(&ctx->error, SB_ERR_SHAPE, "rows is %" PRId64 ": it must be in [0, 2^40]", rows);
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
    sb_status status = sb_check_op(ctx, SB_OP_EXCHANGE);
    if (status == SB_OK) status = sb_launch_of(&call.launch, launch, &ctx->error);
    if (status == SB_OK && call.launch.timeout < -1)
        status = sb_fail(&ctx->error, SB_ERR_ARGUMENT, "timeout is %" PRId32 ", below -1",
                         call.launch.timeout);
    if (status == SB_OK) status = check_shape(ctx, comm, rows);
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
