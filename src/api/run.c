/* run.c - see run.h. The public functions end here; nothing else uses a backend's operations.
 *
 * An operation on a device runs between the device's begin and end, which choose where its kernels
 * report bad input. */
#include "api/run.h"

/* The end of the message "the cpu backend has no ...". */
#define NAME(NUMBER, name, scratch, what) [SB_OP_##NUMBER] = what,
static const char *const names[SB_OPS] = { [SB_OP_CONVENTIONAL] = "conventional logprob",
                                           SB_ALL_OPERATIONS(NAME) };

sb_status sb_check_op(sb_context *ctx, sb_op op)
{
    if (ctx->backend->ops[op].run) return SB_OK;
    return sb_fail(&ctx->error, SB_ERR_BACKEND, "the %s backend has no %s", ctx->backend->name,
                   names[op]);
}

sb_status sb_run(sb_context *ctx, sb_op op, const void *call, const sb_launch *launch)
{
    const sb_op_slot *slot = &ctx->backend->ops[op];
    const sb_device *device = ctx->backend->device;
    sb_status status = sb_check_op(ctx, op);
    if (status == SB_OK && launch->needed) {
        *launch->needed = 0;
        return slot->workspace ? slot->workspace(ctx, call, launch->needed) : SB_OK;
    }
    if (status != SB_OK) return status;
    ctx->plan.text[ctx->plan.length = 0] = '\0';
    if (device) status = device->begin(ctx, launch);
    if (status != SB_OK) return status;
    status = slot->run(ctx, call);
    return device ? device->end(ctx, launch, status) : status;
}
