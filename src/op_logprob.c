/* op_logprob.c - sb_logprob: checks, then the backend. */
#include "backend.h"

sb_status sb_logprob(sb_context *ctx, const sb_logprob_out *out, const sb_batch *batch,
                     const sb_launch *launch)
{
    sb_call call;
    sb_status status;

    if (!ctx) return SB_ERR_ARGUMENT;
    ctx->error.text[0] = '\0';
    if (!out) return sb_fail(&ctx->error, SB_ERR_ARGUMENT, "out is null");
    if (out->size != sizeof *out)
        return sb_fail(&ctx->error, SB_ERR_ARGUMENT,
                       "sb_logprob_out.size is %u, not %u: start from SB_LOGPROB_OUT_INIT",
                       (unsigned)out->size, (unsigned)sizeof *out);
    status = sb_call_of(&call, batch, launch, &ctx->error);
    if (status != SB_OK) return status;
    if (!ctx->backend->logprob)
        return sb_fail(&ctx->error, SB_ERR_BACKEND, "the %s backend has no logprob",
                       ctx->backend->name);
    return ctx->backend->logprob(ctx, out, &call);
}
