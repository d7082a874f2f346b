/* head_backward.c - sb_head_backward: checks, then the backend. */
#include <inttypes.h>

#include "api/call.h"
#include "api/entry.h"
#include "api/gradient.h"
#include "api/head.h"
#include "api/run.h"

/* Checks the weights, and fills in their stride. */
static sb_status check_weights(sb_head_gradient *to, const sb_call *call, sb_message *why)
{
    const int64_t width = call->in.hidden_width;
    int64_t span;
    if (!sb_is_float(to->weights_dtype))
        return sb_fail(why, SB_ERR_DTYPE, "weights_dtype is %d: it takes SB_F32, SB_F16 or SB_BF16",
                       (int)to->weights_dtype);
    if (to->weights_stride == 0) to->weights_stride = width;
    if (to->weights_stride < width)
        return sb_fail(why, SB_ERR_SHAPE,
                       "weights_stride %" PRId64 " is less than the %" PRId64 " elements of a row",
                       to->weights_stride, width);
    if (__builtin_mul_overflow(to->weights_stride, (call->held + 1) * 4, &span))
        return sb_fail(why, SB_ERR_SHAPE,
                       "weights_stride %" PRId64 " reaches past the address space",
                       to->weights_stride);
    return SB_OK;
}

/* Checks grad, and fills in its strides. */
static sb_status check_grad(sb_head_gradient *to, const sb_call *call, sb_message *why)
{
    sb_gradient layout = SB_GRADIENT_INIT;
    sb_status status;
    if (!sb_is_float(to->grad_dtype))
        return sb_fail(why, SB_ERR_DTYPE, "grad_dtype is %d: it takes SB_F32, SB_F16 or SB_BF16",
                       (int)to->grad_dtype);
    layout.dtype = to->grad_dtype;
    layout.row_stride = to->grad_row_stride;
    layout.batch_stride = to->grad_batch_stride;
    status = sb_check_layout(&layout, call, "grad", why);
    to->grad_row_stride = layout.row_stride;
    to->grad_batch_stride = layout.batch_stride;
    return status;
}

static sb_status check_pointers(const sb_head_gradient *to, const sb_call *call, sb_message *why)
{
    if (call->rows == 0 || call->held == 0) return SB_OK;
    if (!to->grad) return sb_fail(why, SB_ERR_ARGUMENT, "grad is null");
    if (to->by_hidden && !to->weights)
        return sb_fail(why, SB_ERR_ARGUMENT, "weights is null, and by_hidden needs them");
    if (call->in.head->form.softcap != 0.0f && !to->logits)
        return sb_fail(why, SB_ERR_ARGUMENT, "logits is null, and the head has a softcap");
    return SB_OK;
}

static sb_status head_backward(sb_context *ctx, const sb_head_gradient *gradient,
                               const sb_batch *batch, const sb_launch *launch)
{
    sb_message *why = &ctx->error;
    sb_head_backward_call call;
    sb_head_gradient *to = &call.to;
    sb_batch in;
    sb_status status = sb_check_op(ctx, SB_OP_HEAD_BACKWARD);
    if (status == SB_OK)
        status = sb_check_size(gradient, sizeof *gradient, "sb_head_gradient",
                               "SB_HEAD_GRADIENT_INIT", why);
    if (status == SB_OK) status = sb_batch_of(&in, batch, why);
    if (status != SB_OK) return status;
    *to = *gradient;
    if (to->reserved != 0)
        return sb_fail(why, SB_ERR_ARGUMENT, "reserved is %d, not 0", (int)to->reserved);
    if (to->first == 0 && to->held == 0) to->held = in.vocab;
    sb_without_kept(&in);
    call.call.width = in.ids ? 1 : 0;
    status = sb_part_call_of(ctx, &call.call, &in, to->first, to->held, launch);
    if (status == SB_OK && !in.head)
        return sb_fail(why, SB_ERR_ARGUMENT, "the batch has no hidden states and head");
    if (status == SB_OK) status = check_grad(to, &call.call, why);
    if (status == SB_OK && to->held > 0) status = check_weights(to, &call.call, why);
    if (status == SB_OK) status = check_pointers(to, &call.call, why);
    return status == SB_OK ? sb_run(ctx, SB_OP_HEAD_BACKWARD, &call, &call.call.launch) : status;
}

sb_status sb_head_backward(sb_context *ctx, const sb_head_gradient *gradient, const sb_batch *batch,
                           const sb_launch *launch)
{
    SB_INSIDE(ctx, head_backward(ctx, gradient, batch, launch));
}
