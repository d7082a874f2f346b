/* stats.c - sb_compare and sb_sums: checks, then the backend. Every value is valid, so the contents
 * of cu_seqlens are all that a device has to check by itself. */
#include <inttypes.h>

#include "api/call.h"
#include "api/entry.h"
#include "api/run.h"

#define MAX_TIME ((int64_t)1 << 29) /* a difference is two values: det/digits.h */

static sb_status check_count(sb_context *ctx, const char *name, int64_t count)
{
    int64_t bytes;
    if (count >= 0 && !__builtin_mul_overflow(count, (int64_t)sizeof(float), &bytes)) return SB_OK;
    return sb_fail(&ctx->error, SB_ERR_SHAPE, "%s is %" PRId64 ", outside [0, 2^61)", name, count);
}

static sb_status compare(sb_context *ctx, const sb_compare_out *out, const float *sampled,
                         const float *other, int64_t count, const sb_launch *launch)
{
    sb_compare_call call;
    sb_status status = sb_check_size(out, sizeof *out, "sb_compare_out", "SB_COMPARE_OUT_INIT",
                                     &ctx->error);
    if (status == SB_OK) status = sb_launch_of(&call.launch, launch, &ctx->error);
    if (status == SB_OK) status = check_count(ctx, "count", count);
    if (status != SB_OK) return status;
    if (count > 0 && !(sampled && other))
        return sb_fail(&ctx->error, SB_ERR_ARGUMENT, "%s is null", sampled ? "other" : "sampled");
    call.out = *out;
    call.sampled = sampled;
    call.other = other;
    call.count = count;
    call.launch.check = 0; /* there is nothing to check */
    return sb_run(ctx, SB_OP_COMPARE, &call, &call.launch);
}

sb_status sb_compare(sb_context *ctx, const sb_compare_out *out, const float *sampled,
                     const float *other, int64_t count, const sb_launch *launch)
{
    SB_INSIDE(ctx, compare(ctx, out, sampled, other, count, launch));
}

static sb_status check_packed(sb_context *ctx, const sb_values *in)
{
    sb_status status = check_count(ctx, "rows", in->rows);
    if (status != SB_OK) return status;
    if (in->cu_seqlens_dtype != SB_I32 && in->cu_seqlens_dtype != SB_I64)
        return sb_fail(&ctx->error, SB_ERR_DTYPE,
                       "cu_seqlens_dtype is %d: it takes SB_I32 or SB_I64",
                       (int)in->cu_seqlens_dtype);
    if (ctx->backend->device) return sb_check_device_packed(in->batch, in->rows, &ctx->error);
    return sb_check_cu_seqlens(in->cu_seqlens, in->cu_seqlens_dtype, in->batch, in->rows,
                               &ctx->error);
}

static sb_status check_values(sb_context *ctx, sb_sums_call *call)
{
    const sb_values *in = &call->in;
    sb_status status = check_count(ctx, "batch", in->batch);
    if (status != SB_OK) return status;
    if (in->cu_seqlens) {
        status = check_packed(ctx, in);
        call->rows = in->rows;
    } else if (in->time < 0 || in->time > MAX_TIME) {
        return sb_fail(&ctx->error, SB_ERR_SHAPE, "time is %" PRId64 ", outside [0, 2^29]",
                       in->time);
    } else if (__builtin_mul_overflow(in->batch, in->time, &call->rows)) {
        return sb_fail(&ctx->error, SB_ERR_SHAPE,
                       "batch %" PRId64 " times time %" PRId64 " passes 2^63", in->batch, in->time);
    } else {
        status = check_count(ctx, "batch times time", call->rows);
    }
    if (status == SB_OK && call->rows > 0 && !in->values)
        status = sb_fail(&ctx->error, SB_ERR_ARGUMENT, "values is null");
    return status;
}

static sb_status sums(sb_context *ctx, const sb_sums_out *out, const sb_values *values,
                      const sb_launch *launch)
{
    sb_sums_call call;
    sb_status status = sb_check_size(out, sizeof *out, "sb_sums_out", "SB_SUMS_OUT_INIT",
                                     &ctx->error);
    if (status == SB_OK)
        status = sb_check_size(values, sizeof *values, "sb_values", "SB_VALUES_INIT", &ctx->error);
    if (status == SB_OK) status = sb_launch_of(&call.launch, launch, &ctx->error);
    if (status != SB_OK) return status;
    call.out = *out;
    call.in = *values;
    status = check_values(ctx, &call);
    return status == SB_OK ? sb_run(ctx, SB_OP_SUMS, &call, &call.launch) : status;
}

sb_status sb_sums(sb_context *ctx, const sb_sums_out *out, const sb_values *values,
                  const sb_launch *launch)
{
    SB_INSIDE(ctx, sums(ctx, out, values, launch));
}
