/* gradient.c - sb_logprob_backward: checks, then the backend. sb_logprob shares the checks of the
 * gradient. No two rows of grad may overlap, and grad may share the logits' memory only if each
 * element takes the place of its own logit. */
#include "api/gradient.h"

#include <inttypes.h>

#include "api/call.h"
#include "api/entry.h"
#include "api/run.h"
#include "det/saved.h"

/* The public record has the layout of the one that the arithmetic uses. */
_Static_assert(sizeof(sb_saved_row) == 32 && sizeof(sb_saved) == 32, "a saved row is 32 bytes");
_Static_assert(offsetof(sb_saved_row, kind) == offsetof(sb_saved, kind), "kind");
_Static_assert(offsetof(sb_saved_row, c) == offsetof(sb_saved, c), "c");
_Static_assert(offsetof(sb_saved_row, e) == offsetof(sb_saved, e), "e");
_Static_assert(offsetof(sb_saved_row, best) == offsetof(sb_saved, best), "best");
_Static_assert(offsetof(sb_saved_row, g) == offsetof(sb_saved, g), "g");
_Static_assert(offsetof(sb_saved_row, h2) == offsetof(sb_saved, h2), "h2");

/* a * b + c for numbers that are not negative; -1 if the result exceeds int64. */
static int64_t fma_extent(int64_t a, int64_t b, int64_t c)
{
    int64_t p;
    if (a < 0 || b < 0 || c < 0) return -1;
    return __builtin_mul_overflow(a, b, &p) || __builtin_add_overflow(p, c, &p) ? -1 : p;
}

sb_status sb_check_layout(sb_gradient *to, const sb_call *call, const char *what, sb_message *why)
{
    const sb_batch *in = &call->in;
    int64_t span;
    int apart;
    if (to->width == 0) to->width = call->held;
    if (to->width < call->held)
        return sb_fail(why, SB_ERR_SHAPE,
                       "%s's width %" PRId64 " is less than the %" PRId64 " logits of a row", what,
                       to->width, call->held);
    if (to->row_stride == 0) to->row_stride = to->width;
    if (to->row_stride < to->width)
        return sb_fail(why, SB_ERR_SHAPE, "%s's row_stride %" PRId64 " is less than its width",
                       what, to->row_stride);
    if (in->cu_seqlens) {
        span = fma_extent(call->rows, to->row_stride, 0);
        apart = 1;
    } else {
        int64_t rows = in->time > 0 ? in->time - 1 : 0;
        int64_t sequences = in->batch > 0 ? in->batch - 1 : 0;
        int64_t sequence = fma_extent(rows, to->row_stride, to->width); /* its span */
        if (to->batch_stride < 0)
            return sb_fail(why, SB_ERR_SHAPE, "%s's batch_stride is %" PRId64, what,
                           to->batch_stride);
        if (to->batch_stride == 0) to->batch_stride = fma_extent(in->time, to->row_stride, 0);
        span = fma_extent(sequences, to->batch_stride, sequence);
        apart = call->rows == 0 || sequences == 0 || to->batch_stride >= sequence ||
                /* or positions are outside sequences in memory */
                (to->batch_stride >= to->width &&
                 (rows == 0 ||
                  to->row_stride >= fma_extent(sequences, to->batch_stride, to->width)));
    }
    if (span < 0 || fma_extent(span, sb_itemsize(to->dtype), 0) < 0)
        return sb_fail(why, SB_ERR_SHAPE,
                       "%s's strides (batch %" PRId64 ", row %" PRId64
                       ") reach past the address space",
                       what, to->batch_stride, to->row_stride);
    if (!apart)
        return sb_fail(why, SB_ERR_SHAPE,
                       "%s's rows overlap (batch_stride %" PRId64 ", row_stride %" PRId64 ")", what,
                       to->batch_stride, to->row_stride);
    if (to->grad && to->grad == in->logits &&
        (to->dtype != in->logits_dtype || to->row_stride != in->row_stride ||
         (!in->cu_seqlens && in->batch > 1 && to->batch_stride != in->batch_stride)))
        return sb_fail(why, SB_ERR_ARGUMENT,
                       "%s takes the logits' place, but has another dtype or other strides", what);
    return SB_OK;
}

/* Checks everything but saved. */
static sb_status check_gradient(sb_gradient *to, const sb_call *call, sb_message *why)
{
    sb_status status;
    if (!sb_is_float(to->dtype))
        return sb_fail(why, SB_ERR_DTYPE, "grad's dtype is %d: it takes SB_F32, SB_F16 or SB_BF16",
                       (int)to->dtype);
    status = sb_check_layout(to, call, "grad", why);
    if (status != SB_OK || call->rows == 0) return status; /* without rows, pointers may be null */
    if (to->policy && (to->token || to->entropy))
        return sb_fail(why, SB_ERR_ARGUMENT, "%s is given beside policy",
                       to->token ? "token" : "entropy");
    if (!to->token && !to->entropy && !to->policy)
        return sb_fail(why, SB_ERR_ARGUMENT, "neither token nor entropy has an upstream gradient");
    return to->grad || to->width == 0 ? SB_OK : sb_fail(why, SB_ERR_ARGUMENT, "grad is null");
}

/* Copies the caller's struct. */
static sb_status copy_gradient(sb_gradient *to, const sb_gradient *gradient, sb_message *why)
{
    const size_t shorter = offsetof(sb_gradient, policy);
    sb_status status;
    if (gradient->size == shorter) {
        memset(to, 0, sizeof *to);
        memcpy(to, gradient, shorter);
        to->size = sizeof *to;
        return SB_OK;
    }
    status = sb_check_size(gradient, sizeof *gradient, "sb_gradient", "SB_GRADIENT_INIT", why);
    if (status == SB_OK) *to = *gradient;
    return status;
}

sb_status sb_gradient_of(sb_gradient *to, const sb_gradient *gradient, const sb_call *call,
                         sb_message *why)
{
    sb_status status = copy_gradient(to, gradient, why);
    if (status != SB_OK) return status;
    if (to->saved)
        return sb_fail(why, SB_ERR_ARGUMENT,
                       "gradient.saved is not null: the call uses the rows that it saves itself");
    if (to->first != 0 || to->held != 0)
        return sb_fail(why, SB_ERR_ARGUMENT,
                       "gradient.first is %" PRId64 " and held %" PRId64
                       ", not 0: the call has all of a row's logits",
                       to->first, to->held);
    to->held = call->held;
    return check_gradient(to, call, why);
}

static sb_status backward(sb_context *ctx, const sb_gradient *gradient, const sb_batch *batch,
                          const sb_launch *launch)
{
    sb_backward_call call;
    sb_gradient *to = &call.to;
    sb_status status;
    if (!gradient) return sb_fail(&ctx->error, SB_ERR_ARGUMENT, "gradient is null");
    status = copy_gradient(to, gradient, &ctx->error);
    if (status != SB_OK) return status;
    if (to->policy)
        return sb_fail(&ctx->error, SB_ERR_ARGUMENT,
                       "policy is not null: only sb_logprob computes the logprobs that it needs");
    if (to->held == 0 && to->first == 0 && batch) to->held = batch->vocab;
    status = sb_shard_call_of(ctx, &call.call, batch, to->first, to->held, launch);
    if (status == SB_OK) status = sb_check_kept_sets(ctx, &call.call, NULL);
    if (status == SB_OK) status = check_gradient(to, &call.call, &ctx->error);
    if (status == SB_OK && call.call.rows > 0 && !to->saved)
        status = sb_fail(&ctx->error, SB_ERR_ARGUMENT, "saved is null");
    return status == SB_OK ? sb_run(ctx, SB_OP_BACKWARD, &call, &call.call.launch) : status;
}

sb_status sb_logprob_backward(sb_context *ctx, const sb_gradient *gradient, const sb_batch *batch,
                              const sb_launch *launch)
{
    SB_INSIDE(ctx, backward(ctx, gradient, batch, launch));
}
