/* gather.c - operations on hidden states that need the logits of a few ids of each row besides its
 * sum, or need no others: these are products of single rows (kernels/head_gather.cu). */
#include "cuda/head.h"
#include "cuda/lists.h"

static const sb_logprob_out NO_OUT = SB_LOGPROB_OUT_INIT;

/* Times in bytes of digits that are gathered, measured on an H200: of writing a logit of all ids
 * and reading it again; of the logprob of an id among such logits; and the part of the bytes of all
 * digits that is left if rows are multiplied together. */
#define OF_LOGIT 9.0
#define OF_LOGPROB 2000.0
#define OF_PRODUCT (1.0 / 128)

/* The bytes of an id's digits. */
static double bytes_of_id(const sb_call *call)
{
    const sb_cuda_head_parts at = sb_cuda_head_parts_of(&call->in.head->form);
    return (double)at.blocks * SB_CUDA_HEAD_DEPTH * at.planes;
}

/* ---- several ids per row ------------------------------------------------------------------ */

/* Scratch memory: lists as words; then that of the products. */
typedef struct ids_plan {
    sb_logprob_out out;
    sb_cuda_lists lists;
    sb_cuda_hidden hidden;
    uint64_t bytes;
} ids_plan;

static void plan_ids(sb_context *ctx, const sb_ids_call *call, ids_plan *p)
{
    memset(p, 0, sizeof *p);
    p->out = NO_OUT;
    p->out.lse = call->out.lse;
    p->lists = sb_cuda_lists_of(&call->call);
    p->hidden = (sb_cuda_hidden){ .call = &call->call, .out = &p->out, .ids = call };
    if (p->lists.bytes) p->hidden.lists = &p->lists;
    p->bytes = p->lists.bytes + sb_cuda_hidden_bytes(ctx->state, &p->hidden);
}

int sb_cuda_gathers_ids(const sb_ids_call *call)
{
    const double ids = (double)call->call.width, vocab = (double)call->call.in.vocab;
    return !call->out.rank && ids * bytes_of_id(&call->call) <= vocab * OF_LOGIT + ids * OF_LOGPROB;
}

/* Writes +0 for rows that are not in the row list. */
static sb_status clear_unlisted(sb_context *ctx, const sb_ids_call *ids)
{
    const sb_call *call = &ids->call;
    const uint64_t rows = (uint64_t)call->rows, entries = rows * (uint64_t)call->width;
    CUstream stream = call->launch.stream;
    sb_status status;
    if (!call->in.row_list) return SB_OK;
    status = sb_cuda_clear(ctx, sb_cuda_address(ids->out.logprob), entries * sizeof(float), stream);
    if (status != SB_OK) return status;
    return sb_cuda_clear(ctx, sb_cuda_address(ids->out.lse), rows * sizeof(float), stream);
}

sb_status sb_cuda_gather_ids(sb_context *ctx, const sb_ids_call *ids)
{
    const sb_call *call = &ids->call;
    const uint64_t row = sb_cuda_bytes(call->width, sizeof(float));
    const sb_cuda_array outputs[] = {
        { "logprob", ids->out.logprob, 4, sb_cuda_bytes(call->rows, row) },
        { "lse", ids->out.lse, 4, sb_cuda_bytes(call->rows, 4) },
    };
    ids_plan p;
    CUdeviceptr scratch;
    sb_status status = sb_cuda_check_arguments(ctx, &NO_OUT, call);
    if (status == SB_OK) status = sb_cuda_check_arrays(ctx, outputs, 2);
    plan_ids(ctx, ids, &p);
    if (status == SB_OK) status = sb_cuda_scratch(ctx, &call->launch, p.bytes, &scratch);
    if (status != SB_OK) return status;
    status = clear_unlisted(ctx, ids);
    if (status == SB_OK) status = sb_cuda_launch_words(ctx, call, &p.lists, scratch, 0);
    if (status == SB_OK) status = sb_cuda_run_hidden(ctx, &p.hidden, scratch + p.lists.bytes);
    return sb_cuda_end_call(ctx, call, scratch, status);
}

sb_status sb_cuda_gather_ids_workspace(sb_context *ctx, const sb_ids_call *call, uint64_t *bytes)
{
    ids_plan p;
    plan_ids(ctx, call, &p);
    *bytes = p.bytes;
    return SB_OK;
}

/* ---- lists of kept ids -------------------------------------------------------------------- */

/* Scratch memory: logits of all lists; that of the digits; that of the kernels for lists. */
typedef struct lists_plan {
    sb_logprob_call listed; /* the call that sums the logits */
    sb_cuda_hidden hidden;
    uint64_t logits, digits, bytes;
} lists_plan;

static void plan_lists(sb_context *ctx, const sb_logprob_call *call, lists_plan *p)
{
    sb_batch *in = &p->listed.call.in;
    memset(p, 0, sizeof *p);
    p->listed = *call;
    in->head = NULL;
    in->hidden = NULL;
    in->logits_dtype = SB_F32;
    in->row_stride = in->batch_stride = 0;
    p->logits = sb_cuda_padded((uint64_t)in->kept_count * sizeof(float));
    p->hidden = (sb_cuda_hidden){ .call = &call->call, .gathered = SB_CUDA_BOUNDARY };
    p->digits = sb_cuda_hidden_bytes(ctx->state, &p->hidden);
    p->bytes = p->logits + p->digits + sb_cuda_gathered_bytes(ctx->state, &p->listed);
}

/* Decides by the mean of the lists. A product of fewer than SB_CUDA_HEAD_FEW rows takes hardly less
 * time than one of so many. The other way writes lists as words, which takes about as long as
 * logits. */
int sb_cuda_gathers_lists(const sb_logprob_call *call)
{
    const sb_batch *in = &call->call.in;
    const double rows = (double)call->call.rows, bytes = bytes_of_id(&call->call);
    const double work = in->row_list ? (double)in->row_count : rows;
    const double most = work > SB_CUDA_HEAD_FEW ? work : SB_CUDA_HEAD_FEW;
    return in->kept_offsets &&
           (double)in->kept_count * work * bytes <=
               rows * most * (double)in->vocab * (bytes * OF_PRODUCT + OF_LOGIT);
}

sb_status sb_cuda_gather_lists(sb_context *ctx, const sb_logprob_call *logprob)
{
    const sb_call *call = &logprob->call;
    lists_plan p;
    CUdeviceptr scratch;
    sb_status status = sb_cuda_check_arguments(ctx, &logprob->out, call);
    plan_lists(ctx, logprob, &p);
    if (status == SB_OK) status = sb_cuda_scratch(ctx, &call->launch, p.bytes, &scratch);
    if (status != SB_OK) return status;
    p.hidden.gathered = scratch;
    p.listed.call.in.logits = (const void *)(uintptr_t)scratch;
    status = sb_cuda_run_hidden(ctx, &p.hidden, scratch + p.logits);
    if (status == SB_OK)
        status = sb_cuda_launch_gathered(ctx, &p.listed, scratch + p.logits + p.digits);
    return sb_cuda_end_call(ctx, call, scratch, status);
}

sb_status sb_cuda_gather_lists_workspace(sb_context *ctx, const sb_logprob_call *call,
                                         uint64_t *bytes)
{
    lists_plan p;
    plan_lists(ctx, call, &p);
    *bytes = p.bytes;
    return SB_OK;
}
