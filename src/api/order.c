/* order.c - sb_logprob_ids and sb_topk: checks, then the backend. Both need the order of a row's
 * logits: one for the ranks of given ids, the other for the first ids. */
#include <inttypes.h>

#include "api/call.h"
#include "api/entry.h"
#include "api/run.h"

_Static_assert(SB_MAX_TOPK == 64, "kernels/order.cu keeps 64 places");

static sb_status logprob_ids(sb_context *ctx, const sb_ids_out *out, const sb_batch *batch,
                             int64_t k, const sb_launch *launch)
{
    sb_ids_call call;
    sb_status status;
    if (!out) return sb_fail(&ctx->error, SB_ERR_ARGUMENT, "out is null");
    status = sb_check_size(out, sizeof *out, "sb_ids_out", "SB_IDS_OUT_INIT", &ctx->error);
    if (status != SB_OK) return status;
    if (k < 1 || k > SB_MAX_VOCAB)
        return sb_fail(&ctx->error, SB_ERR_SHAPE, "k is %" PRId64 ", outside [1, %d]", k,
                       SB_MAX_VOCAB);
    status = sb_wide_call_of(ctx, &call.call, batch, k, launch);
    if (status == SB_OK) status = sb_check_kept_sets(ctx, &call.call, NULL);
    if (status != SB_OK) return status;
    if (call.call.rows > INT64_MAX / 8 / k)
        return sb_fail(&ctx->error, SB_ERR_SHAPE,
                       "%" PRId64 " ids for each of %" PRId64 " rows reach past the address space",
                       k, call.call.rows);
    call.out = *out;
    return sb_run(ctx, SB_OP_IDS, &call, &call.call.launch);
}

sb_status sb_logprob_ids(sb_context *ctx, const sb_ids_out *out, const sb_batch *batch, int64_t k,
                         const sb_launch *launch)
{
    SB_INSIDE(ctx, logprob_ids(ctx, out, batch, k, launch));
}

static sb_status topk(sb_context *ctx, const sb_topk_out *out, const sb_batch *batch, int64_t k,
                      const sb_launch *launch)
{
    sb_topk_call call;
    sb_status status;
    if (!out) return sb_fail(&ctx->error, SB_ERR_ARGUMENT, "out is null");
    status = sb_check_size(out, sizeof *out, "sb_topk_out", "SB_TOPK_OUT_INIT", &ctx->error);
    if (status != SB_OK) return status;
    if (k < 1 || k > SB_MAX_TOPK)
        return sb_fail(&ctx->error, SB_ERR_SHAPE, "k is %" PRId64 ", outside [1, %d]", k,
                       SB_MAX_TOPK);
    status = sb_wide_call_of(ctx, &call.call, batch, 0, launch);
    if (status == SB_OK) status = sb_check_kept_sets(ctx, &call.call, NULL);
    if (status != SB_OK) return status;
    call.out = *out;
    call.k = k;
    return sb_run(ctx, SB_OP_TOPK, &call, &call.call.launch);
}

sb_status sb_topk(sb_context *ctx, const sb_topk_out *out, const sb_batch *batch, int64_t k,
                  const sb_launch *launch)
{
    SB_INSIDE(ctx, topk(ctx, out, batch, k, launch));
}
