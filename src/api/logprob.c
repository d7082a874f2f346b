/* logprob.c - sb_logprob and its workspace: checks, then the backend. */
#include "api/entry.h"

sb_status sb_logprob_call_of(sb_context *ctx, sb_call *call, sb_logprob_out *full,
                             const sb_logprob_out *out, const sb_batch *batch,
                             const sb_launch *launch)
{
    sb_status status = sb_out_of(full, out, &ctx->error);
    if (status != SB_OK) return status;
    return sb_call_of(call, batch, launch, ctx->backend->device_memory, &ctx->error);
}

static sb_status prepare(sb_context *ctx, sb_call *call, sb_logprob_out *full,
                         const sb_logprob_out *out, const sb_batch *batch, const sb_launch *launch)
{
    sb_status status = sb_logprob_call_of(ctx, call, full, out, batch, launch);
    if (status != SB_OK) return status;
    if (!ctx->backend->logprob)
        return sb_fail(&ctx->error, SB_ERR_BACKEND, "the %s backend has no logprob",
                       ctx->backend->name);
    return sb_check_kept_sets(ctx, call, full);
}

static sb_status logprob(sb_context *ctx, const sb_logprob_out *out, const sb_batch *batch,
                         const sb_launch *launch)
{
    sb_logprob_out full;
    sb_call call;
    sb_status status = prepare(ctx, &call, &full, out, batch, launch);
    return status == SB_OK ? ctx->backend->logprob(ctx, &full, &call) : status;
}

sb_status sb_logprob(sb_context *ctx, const sb_logprob_out *out, const sb_batch *batch,
                     const sb_launch *launch)
{
    SB_INSIDE(ctx, logprob(ctx, out, batch, launch));
}

static sb_status workspace_size(sb_context *ctx, uint64_t *size, const sb_logprob_out *out,
                                const sb_batch *batch, const sb_launch *launch)
{
    sb_logprob_out full;
    sb_call call;
    sb_status status = prepare(ctx, &call, &full, out, batch, launch);
    if (status != SB_OK) return status;
    if (!size) return sb_fail(&ctx->error, SB_ERR_ARGUMENT, "size is null");
    *size = ctx->backend->workspace ? ctx->backend->workspace(ctx, &full, &call) : 0;
    return SB_OK;
}

sb_status sb_workspace_size(sb_context *ctx, uint64_t *size, const sb_logprob_out *out,
                            const sb_batch *batch, const sb_launch *launch)
{
    SB_INSIDE(ctx, workspace_size(ctx, size, out, batch, launch));
}
