/* kl.c - sb_kl: checks, then the backend. Each error message says which batch is at fault, p or q.
 * Row r of p is compared with row r of q. */
#include "api/kl.h"

#include <inttypes.h>
#include <stdio.h>

#include "api/call.h"
#include "api/entry.h"
#include "api/run.h"

sb_status sb_kl_blame(sb_message *why, char which, sb_status status)
{
    const sb_message said = *why;
    if (status != SB_OK && status != SB_ERR_MEMORY && status != SB_ERR_DEVICE)
        snprintf(why->text, sizeof why->text, "%c: %.*s", which, (int)sizeof said.text - 4,
                 said.text);
    return status;
}

sb_sums_call sb_kl_sums(const sb_kl_call *call, const float *tokens)
{
    const sb_batch *p = &call->p.in;
    sb_sums_call sums = { SB_SUMS_OUT_INIT, SB_VALUES_INIT, call->p.rows, call->p.launch };
    sums.out.sum = call->out.sequence;
    sums.in.values = tokens;
    sums.in.batch = p->batch;
    sums.in.time = p->time;
    sums.in.rows = p->rows;
    sums.in.cu_seqlens = p->cu_seqlens;
    sums.in.cu_seqlens_dtype = p->cu_seqlens_dtype;
    return sums;
}

/* Checks that p and q have the same rows. */
static sb_status check_alike(const sb_batch *p, const sb_batch *q, sb_message *why)
{
    const struct {
        const char *name;
        int64_t p, q;
    } extents[] = {
        { "vocab", p->vocab, q->vocab },
        { "batch", p->batch, q->batch },
        { p->cu_seqlens ? "rows" : "time", p->cu_seqlens ? p->rows : p->time,
          q->cu_seqlens ? q->rows : q->time },
    };
    if (!p->cu_seqlens != !q->cu_seqlens)
        return sb_fail(why, SB_ERR_SHAPE, "p is %s, q is %s", p->cu_seqlens ? "packed" : "padded",
                       q->cu_seqlens ? "packed" : "padded");
    for (size_t i = 0; i < sizeof extents / sizeof *extents; i++)
        if (extents[i].p != extents[i].q)
            return sb_fail(why, SB_ERR_SHAPE, "p's %s is %" PRId64 ", q's is %" PRId64,
                           extents[i].name, extents[i].p, extents[i].q);
    if (p->shift != q->shift)
        return sb_fail(why, SB_ERR_ARGUMENT, "p's shift is %d, q's is %d", (int)p->shift,
                       (int)q->shift);
    return SB_OK;
}

static sb_status call_of(sb_context *ctx, sb_call *call, const sb_batch *batch,
                         const sb_launch *launch, char which)
{
    sb_status status = sb_wide_call_of(ctx, call, batch, 0, launch);
    if (status == SB_OK) status = sb_check_kept_sets(ctx, call, NULL);
    return sb_kl_blame(&ctx->error, which, status);
}

static sb_status prepare(sb_context *ctx, sb_kl_call *call, const sb_kl_out *out, const sb_batch *p,
                         const sb_batch *q, const sb_launch *launch)
{
    sb_batch other;
    sb_status status = sb_check_size(out, sizeof *out, "sb_kl_out", "SB_KL_OUT_INIT", &ctx->error);
    if (status != SB_OK) return status;
    call->out = *out;
    status = call_of(ctx, &call->p, p, launch, 'p');
    if (status != SB_OK) return status;
    status = sb_batch_of(&other, q, &ctx->error);
    if (status != SB_OK) return sb_kl_blame(&ctx->error, 'q', status);
    status = check_alike(p, q, &ctx->error);
    if (status != SB_OK) return status;

    other.cu_seqlens = p->cu_seqlens;
    other.cu_seqlens_dtype = p->cu_seqlens_dtype;
    other.ids = p->ids;
    other.ids_dtype = p->ids_dtype;
    other.ignore_index = p->ignore_index;
    other.mask = p->mask;
    other.row_list = p->row_list;
    other.row_count = p->row_count;
    return call_of(ctx, &call->q, &other, launch, 'q');
}

static sb_status kl(sb_context *ctx, const sb_kl_out *out, const sb_batch *p, const sb_batch *q,
                    const sb_launch *launch)
{
    sb_kl_call call;
    sb_status status = prepare(ctx, &call, out, p, q, launch);
    return status == SB_OK ? sb_run(ctx, SB_OP_KL, &call, &call.p.launch) : status;
}

sb_status sb_kl(sb_context *ctx, const sb_kl_out *out, const sb_batch *p, const sb_batch *q,
                const sb_launch *launch)
{
    SB_INSIDE(ctx, kl(ctx, out, p, q, launch));
}
