/* logprob.c - sb_logprob: checks, then the backend. */
#include "api/logprob.h"

#include "api/call.h"
#include "api/entry.h"
#include "api/gradient.h"
#include "api/policy.h"
#include "api/run.h"

sb_status sb_logprob_call_of(sb_context *ctx, sb_logprob_call *call, const sb_logprob_out *out,
                             const sb_batch *batch, const sb_launch *launch)
{
    sb_status status = sb_out_of(&call->out, out, &ctx->error);
    return status == SB_OK ? sb_call_of(ctx, &call->call, batch, launch) : status;
}

static sb_status logprob(sb_context *ctx, const sb_logprob_out *out, const sb_batch *batch,
                         const sb_launch *launch)
{
    sb_logprob_call call;
    sb_status status = sb_logprob_call_of(ctx, &call, out, batch, launch);
    if (status == SB_OK) status = sb_check_kept_sets(ctx, &call.call, &call.out);
    if (status == SB_OK && call.out.gradient)
        status = sb_gradient_of(&call.gradient, call.out.gradient, &call.call, &ctx->error);
    if (status == SB_OK && call.out.gradient && call.gradient.policy)
        status = sb_policy_of(ctx, &call.policy, call.gradient.policy, call.gradient.policy_out,
                              &call.call);
    return status == SB_OK ? sb_run(ctx, SB_OP_LOGPROB, &call, &call.call.launch) : status;
}

sb_status sb_logprob(sb_context *ctx, const sb_logprob_out *out, const sb_batch *batch,
                     const sb_launch *launch)
{
    SB_INSIDE(ctx, logprob(ctx, out, batch, launch));
}
