/* head_error.c - sb_head_error: checks, then the backend. */
#include "api/call.h"
#include "api/entry.h"
#include "api/head.h"
#include "api/run.h"

static sb_status head_error(sb_context *ctx, float *error, const sb_batch *batch,
                            const uint32_t *scales, const sb_launch *launch)
{
    sb_message *why = &ctx->error;
    sb_head_error_call call = { .error = error, .scales = scales };
    sb_batch in;
    sb_status status = sb_check_op(ctx, SB_OP_HEAD_ERROR);
    if (status == SB_OK) status = sb_batch_of(&in, batch, why);
    if (status != SB_OK) return status;
    if (!in.head) return sb_fail(why, SB_ERR_ARGUMENT, "the batch has no hidden states and head");
    status = sb_check_head(ctx, in.head);
    if (status != SB_OK) return status;
    sb_without_kept(&in);
    call.call.width = in.ids ? 1 : 0;
    status = sb_part_call_of(ctx, &call.call, &in, in.head->form.first, in.head->form.ids, launch);
    if (status != SB_OK) return status;
    if (!in.head->form.norms)
        return sb_fail(why, SB_ERR_ARGUMENT,
                       "the head has no norms: set norms of sb_head_weights to 1");
    if (call.call.rows > 0 && !error) return sb_fail(why, SB_ERR_ARGUMENT, "error is null");
    return sb_run(ctx, SB_OP_HEAD_ERROR, &call, &call.call.launch);
}

sb_status sb_head_error(sb_context *ctx, float *error, const sb_batch *batch,
                        const uint32_t *scales, const sb_launch *launch)
{
    SB_INSIDE(ctx, head_error(ctx, error, batch, scales, launch));
}
