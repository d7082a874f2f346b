/* op_topk.c - sb_topk: checks, then the backend. */
#include <inttypes.h>

#include "backend.h"

sb_status sb_topk(sb_context *ctx, const sb_topk_out *out, const sb_batch *batch, int64_t k,
                  const sb_launch *launch)
{
    sb_call call;
    sb_status status;
    if (!ctx) return SB_ERR_ARGUMENT;
    ctx->error.text[0] = '\0';
    if (!out) return sb_fail(&ctx->error, SB_ERR_ARGUMENT, "out is null");
    if (out->size != sizeof *out)
        return sb_fail(&ctx->error, SB_ERR_ARGUMENT,
                       "sb_topk_out.size is %u, not %u: start from SB_TOPK_OUT_INIT",
                       (unsigned)out->size, (unsigned)sizeof *out);
    if (k < 1 || k > SB_MAX_TOPK)
        return sb_fail(&ctx->error, SB_ERR_SHAPE, "k is %" PRId64 ", outside [1, %d]", k,
                       SB_MAX_TOPK);
    status = sb_wide_call_of(&call, batch, 0, launch, ctx->backend->device_memory, &ctx->error);
    if (status == SB_OK) status = sb_check_kept_sets(ctx, &call, NULL);
    if (status != SB_OK) return status;
    if (!ctx->backend->topk)
        return sb_fail(&ctx->error, SB_ERR_BACKEND, "the %s backend has no top-k",
                       ctx->backend->name);
    return ctx->backend->topk(ctx, out, &call, k);
}
