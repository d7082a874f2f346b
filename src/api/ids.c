/* ids.c - sb_logprob_ids: checks, then the backend. */
#include <inttypes.h>

#include "api/entry.h"

static sb_status logprob_ids(sb_context *ctx, const sb_ids_out *out, const sb_batch *batch,
                             int64_t k, const sb_launch *launch)
{
    sb_call call;
    sb_status status;
    if (!out) return sb_fail(&ctx->error, SB_ERR_ARGUMENT, "out is null");
    status = sb_check_size(out, sizeof *out, "sb_ids_out", "SB_IDS_OUT_INIT", &ctx->error);
    if (status != SB_OK) return status;
    if (k < 1 || k > SB_MAX_VOCAB)
        return sb_fail(&ctx->error, SB_ERR_SHAPE, "k is %" PRId64 ", outside [1, %d]", k,
                       SB_MAX_VOCAB);
    status = sb_wide_call_of(&call, batch, k, launch, ctx->backend->device_memory, &ctx->error);
    if (status == SB_OK) status = sb_check_kept_sets(ctx, &call, NULL);
    if (status != SB_OK) return status;
    if (call.rows > INT64_MAX / 8 / k)
        return sb_fail(&ctx->error, SB_ERR_SHAPE,
                       "%" PRId64 " ids for each of %" PRId64 " rows reach past the address space",
                       k, call.rows);
    if (!ctx->backend->ids)
        return sb_fail(&ctx->error, SB_ERR_BACKEND, "the %s backend has no logprobs of several ids",
                       ctx->backend->name);
    return ctx->backend->ids(ctx, out, &call);
}

sb_status sb_logprob_ids(sb_context *ctx, const sb_ids_out *out, const sb_batch *batch, int64_t k,
                         const sb_launch *launch)
{
    SB_INSIDE(ctx, logprob_ids(ctx, out, batch, k, launch));
}
