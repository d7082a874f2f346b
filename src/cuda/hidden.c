/* hidden.c - operations on hidden states on a GPU. Logprobs, entropies and shards come straight
 * from the products (head.c). Everything else takes the logits of some rows at a time, which lie in
 * scratch memory, and goes the way of batches of logits with these. */
#include "api/kl.h"
#include "cuda/head.h"
#include "cuda/lists.h"

/* Logits at once: as many as this, and those of a tile of rows at least, since a product of fewer
 * rows takes hardly less time. */
#define LOGITS_BYTES ((uint64_t)24 << 20)

static const sb_logprob_out NO_OUT = SB_LOGPROB_OUT_INIT;

/* ---- some rows at a time ------------------------------------------------------------------ */

/* An operation on one or two batches, at least one of which has hidden states. */
typedef struct rows_op {
    const sb_call *calls[2]; /* the second one may be null */
    const void *op;          /* of SB_OP_* */
    /* Runs the operation on the batches of some rows, from row `first` on, which have logits. If
     * bytes is not null, only tells how much scratch memory that takes. */
    sb_status (*part)(sb_context *ctx, const void *op, const sb_call part[2], int64_t first,
                      uint64_t *bytes);
    const sb_gradient *gradient; /* that it writes, or null */
} rows_op;

/* Scratch memory, in this order: a mask, logits, what their products need, what the operation on
 * some rows needs. */
typedef struct rows_plan {
    int64_t most; /* rows at once */
    uint64_t mask, logits, hidden, op, bytes;
} rows_plan;

static int is_flat(const sb_batch *in)
{
    return in->cu_seqlens || in->batch <= 1 || in->batch_stride == in->time * in->row_stride;
}

static uint64_t logits_bytes(const sb_call *call, int64_t rows)
{
    return call && call->in.head
               ? sb_cuda_padded((uint64_t)rows * (uint64_t)call->held * sizeof(float))
               : 0;
}

/* The logits of a batch that has some, from row `first` on. */
static const void *logits_from(const sb_call *call, int64_t first)
{
    const sb_batch *in = &call->in;
    const int64_t source = first - in->shift;
    const int64_t element = in->cu_seqlens ? source * in->row_stride
                                           : source / in->time * in->batch_stride +
                                                 source % in->time * in->row_stride;
    /* the first row of a sequence, whose logits may not exist, is alone, and ignored */
    return (const char *)in->logits + (source < 0 ? 0 : element) * sb_itemsize(in->logits_dtype);
}

/* Which element of a gradient the row `source` of hidden states begins with. */
static int64_t gradient_place(const sb_gradient *to, const sb_batch *in, int64_t source)
{
    if (in->cu_seqlens) return source * to->row_stride;
    return source / in->time * to->batch_stride + source % in->time * to->row_stride;
}

static const void *moved(const void *array, int64_t elements, int64_t size)
{
    return array ? (const char *)array + elements * size : NULL;
}

/* Whether ids alone do not say which rows are ignored. */
static int has_mask(const sb_call *call)
{
    return call->in.mask || call->in.row_list || call->in.shift;
}

/* The batch of n rows from row `first` on. mask: 0 if there is none. */
static sb_call part_of(const sb_call *call, int64_t first, int64_t n, CUdeviceptr mask,
                       CUdeviceptr logits, CUdeviceptr workspace, uint64_t size)
{
    sb_call part = *call;
    sb_batch *in = &part.in;
    part.rows = in->rows = in->time = n;
    in->batch = 1;
    in->cu_seqlens = NULL;
    in->row_list = NULL;
    in->row_count = 0;
    in->shift = 0;
    in->ids = moved(in->ids, first * call->width, in->ids_dtype == SB_I64 ? 8 : 4);
    in->temperatures = moved(in->temperatures, first, 4);
    in->kept = moved(in->kept, first, 4 * in->kept_stride);
    in->kept_offsets = moved(in->kept_offsets, first, in->kept_offsets_dtype == SB_I64 ? 8 : 4);
    in->mask = mask ? (const uint8_t *)(uintptr_t)(mask + (uint64_t)first) : NULL;
    if (in->head) {
        in->logits = (const void *)(uintptr_t)logits;
        in->logits_dtype = SB_F32;
        in->row_stride = call->held;
    } else {
        in->logits = logits_from(call, first);
    }
    in->batch_stride = n * in->row_stride;
    in->head = NULL;
    in->hidden = NULL;
    part.launch.check = 0;
    part.launch.needed = NULL;
    part.launch.workspace = (void *)(uintptr_t)workspace;
    part.launch.workspace_size = size;
    return part;
}

/* How many rows come next, so that those of the gradient have one stride. With shift the first row
 * of all is alone, because there is no row of the gradient before it. */
static int64_t gradient_rows_from(const sb_gradient *to, const sb_batch *in, int64_t first,
                                  int64_t n)
{
    const int64_t source = first - in->shift;
    int64_t left;
    if (source < 0) return 1;
    if (in->cu_seqlens || in->batch <= 1 || to->batch_stride == in->time * to->row_stride) return n;
    left = in->time - source % in->time;
    return left < n ? left : n;
}

/* How many rows come next. The logits of a batch that has some must be rows of one stride, and the
 * first row of a sequence may have none. */
static int64_t rows_from(const rows_op *o, int64_t first, int64_t most)
{
    int64_t n = o->calls[0]->rows - first < most ? o->calls[0]->rows - first : most;
    for (int i = 0; i < 2 && o->calls[i]; i++) {
        const sb_batch *in = &o->calls[i]->in;
        if (in->head) continue;
        if (in->shift && (in->cu_seqlens ? first == 0 : first % in->time == 0)) return 1;
        if (!is_flat(in) || (in->shift && !in->cu_seqlens)) {
            const int64_t left = in->time - first % in->time;
            n = left < n ? left : n;
        }
    }
    return o->gradient ? gradient_rows_from(o->gradient, &o->calls[0]->in, first, n) : n;
}

static sb_cuda_hidden hidden_of(const sb_call *call, int64_t first, int64_t n, CUdeviceptr mask,
                                CUdeviceptr logits)
{
    return (sb_cuda_hidden){ .call = call,
                             .logits = logits,
                             .mask = mask,
                             .logits_dtype = SB_F32,
                             .row_stride = call->held,
                             .before = first,
                             .work = n };
}

static sb_status plan_rows(sb_context *ctx, const rows_op *o, rows_plan *p)
{
    const sb_call *call = o->calls[0];
    uint64_t row = 0;
    memset(p, 0, sizeof *p);
    for (int i = 0; i < 2 && o->calls[i]; i++)
        if (o->calls[i]->in.head) row += (uint64_t)o->calls[i]->held * sizeof(float);
    p->most = (int64_t)(LOGITS_BYTES / row) / SB_CUDA_HEAD_TILE * SB_CUDA_HEAD_TILE;
    if (p->most < SB_CUDA_HEAD_TILE) p->most = SB_CUDA_HEAD_TILE;
    if (p->most > call->rows) p->most = call->rows;
    if (p->most == 0) return SB_OK;
    p->mask = has_mask(call) ? sb_cuda_padded((uint64_t)call->rows) : 0;
    for (int i = 0; i < 2 && o->calls[i]; i++) {
        p->logits += logits_bytes(o->calls[i], p->most);
        if (o->calls[i]->in.head) {
            const sb_cuda_hidden h = hidden_of(o->calls[i], 0, p->most, 1, 1);
            const uint64_t bytes = sb_cuda_hidden_bytes(ctx->state, &h);
            if (bytes > p->hidden) p->hidden = bytes;
        }
    }
    for (int64_t n = 1, last = 0; !last; n *= 2) { /* fewer rows may need more */
        sb_call part[2];
        uint64_t bytes;
        last = n >= p->most;
        for (int i = 0; i < 2 && o->calls[i]; i++)
            part[i] = part_of(o->calls[i], 0, last ? p->most : n, 0, 0, 0, 0);
        const sb_status status = o->part(ctx, o->op, part, 0, &bytes);
        if (status != SB_OK) return status;
        if (bytes > p->op) p->op = bytes;
    }
    p->op = sb_cuda_padded(p->op + p->op / 4);
    p->bytes = p->mask + p->logits + p->hidden + p->op;
    return SB_OK;
}

/* Writes which rows the mask, the row list and shift leave. */
static sb_status launch_mask(sb_context *ctx, const sb_call *call, CUdeviceptr mask)
{
    const sb_cuda *c = ctx->state;
    const int64_t most = call->rows > call->in.row_count ? call->rows : call->in.row_count;
    const sb_cuda_grid grid = { .blocks = (most + 255) / 256, .threads = 256 };
    sb_cuda_plan none;
    sb_cuda_head_args a;
    memset(&none, 0, sizeof none);
    memset(&a, 0, sizeof a);
    a.in = sb_cuda_args_of(c, &NO_OUT, call, &none, 0);
    a.logits = mask;
    return sb_cuda_launch(ctx, c->head.head_mask, grid, &a.in, call->launch.stream);
}

static sb_status run_part(sb_context *ctx, const rows_op *o, const rows_plan *p, int64_t first,
                          int64_t n, CUdeviceptr scratch)
{
    sb_cuda *c = ctx->state;
    const CUdeviceptr hidden = scratch + p->mask + p->logits, op = hidden + p->hidden;
    const CUdeviceptr mask = p->mask ? scratch : 0;
    CUdeviceptr logits = scratch + p->mask;
    sb_status status = SB_OK;
    sb_call part[2];
    for (int i = 0; i < 2 && o->calls[i] && status == SB_OK; i++) {
        const sb_cuda_hidden h = hidden_of(o->calls[i], first, n, mask, logits);
        part[i] = part_of(o->calls[i], first, n, mask, logits, op, p->op);
        if (o->calls[i]->in.head) status = sb_cuda_run_hidden(ctx, &h, hidden);
        logits += logits_bytes(o->calls[i], p->most);
    }
    if (status != SB_OK) return status;
    c->before = first; /* in reports, and in lists */
    c->after = o->calls[0]->rows - first - n;
    c->inside = 1;
    status = o->part(ctx, o->op, part, first, NULL);
    c->inside = 0;
    c->before = c->after = 0;
    return status;
}

/* With shift, the last row of hidden states scores no id, so no row writes its gradient. */
static sb_status clear_last_gradient(sb_context *ctx, const rows_op *o)
{
    const sb_gradient *to = o->gradient;
    const sb_call *call = o->calls[0];
    const int64_t size = sb_itemsize(to->dtype);
    if (!call->in.shift) return SB_OK;
    return sb_cuda_clear(
        ctx, sb_cuda_address(moved(to->grad, gradient_place(to, &call->in, call->rows - 1), size)),
        (uint64_t)(to->width * size), call->launch.stream);
}

static sb_status run_rows(sb_context *ctx, const rows_op *o, const rows_plan *p,
                          CUdeviceptr scratch)
{
    const int64_t rows = o->calls[0]->rows;
    int64_t n;
    sb_status status = SB_OK;
    if (rows == 0) return SB_OK;
    if (p->mask) status = launch_mask(ctx, o->calls[0], scratch);
    for (int64_t first = 0; first < rows && status == SB_OK; first += n) {
        n = rows_from(o, first, p->most);
        status = run_part(ctx, o, p, first, n, scratch);
    }
    return status == SB_OK && o->gradient ? clear_last_gradient(ctx, o) : status;
}

/* ---- logprobs ----------------------------------------------------------------------------- */

/* Scratch memory: tokens, if only their sums are requested; lists as words; then that of the
 * products. */
typedef struct logprob_plan {
    sb_cuda_hidden hidden;
    sb_cuda_lists lists;
    uint64_t tokens, bytes;
} logprob_plan;

static void plan_logprob(sb_context *ctx, const sb_logprob_call *call, logprob_plan *p)
{
    memset(p, 0, sizeof *p);
    p->tokens = sb_cuda_padded(sb_cuda_token_bytes(&call->out, call->call.rows));
    p->hidden = (sb_cuda_hidden){ .call = &call->call, .out = &call->out };
    p->lists = sb_cuda_lists_of(&call->call);
    if (p->lists.bytes) p->hidden.lists = &p->lists;
    p->bytes = p->tokens + p->lists.bytes + sb_cuda_hidden_bytes(ctx->state, &p->hidden);
}

static sb_status run_logprob(sb_context *ctx, const sb_logprob_call *asked, logprob_plan *p,
                             CUdeviceptr scratch)
{
    const sb_cuda *c = ctx->state;
    const sb_call *call = &asked->call;
    sb_logprob_out out = asked->out;
    sb_cuda_plan none;
    sb_cuda_args a;
    sb_status status = SB_OK;
    memset(&none, 0, sizeof none);
    if (p->tokens) out.token = (float *)(uintptr_t)scratch;
    p->hidden.out = &out;
    a = sb_cuda_args_of(c, &out, call, &none, 0);
    if (out.token || out.lse || out.entropy || out.saved || call->launch.check) {
        status = sb_cuda_launch_words(ctx, call, &p->lists, scratch + p->tokens, 0);
        sb_cuda_use_words(&a, &p->lists);
        if (status == SB_OK) status = sb_cuda_clear_unlisted(ctx, call, &a);
        if (status == SB_OK)
            status = sb_cuda_run_hidden(ctx, &p->hidden, scratch + p->tokens + p->lists.bytes);
    }
    return status == SB_OK ? sb_cuda_sum_sequences(ctx, call, &a) : status;
}

sb_status sb_cuda_hidden_logprob(sb_context *ctx, const sb_logprob_call *call)
{
    logprob_plan p;
    CUdeviceptr scratch;
    sb_status status;
    if (sb_cuda_gathers_lists(call)) return sb_cuda_gather_lists(ctx, call);
    status = sb_cuda_check_arguments(ctx, &call->out, &call->call);
    if (status != SB_OK) return status;
    plan_logprob(ctx, call, &p);
    status = sb_cuda_scratch(ctx, &call->call.launch, p.bytes, &scratch);
    if (status != SB_OK) return status;
    status = run_logprob(ctx, call, &p, scratch);
    return sb_cuda_end_call(ctx, &call->call, scratch, status);
}

sb_status sb_cuda_hidden_logprob_workspace(sb_context *ctx, const sb_logprob_call *call,
                                           uint64_t *bytes)
{
    logprob_plan p;
    if (sb_cuda_gathers_lists(call)) return sb_cuda_gather_lists_workspace(ctx, call, bytes);
    plan_logprob(ctx, call, &p);
    *bytes = p.bytes;
    return SB_OK;
}

/* ---- operations that only have rows ------------------------------------------------------- */

static sb_status run_by_rows(sb_context *ctx, const rows_op *o)
{
    const sb_launch *launch = &o->calls[0]->launch;
    rows_plan p;
    CUdeviceptr scratch;
    sb_status status = plan_rows(ctx, o, &p);
    if (status == SB_OK) status = sb_cuda_scratch(ctx, launch, p.bytes, &scratch);
    if (status != SB_OK) return status;
    status = run_rows(ctx, o, &p, scratch);
    sb_cuda_scratch_done(ctx, launch, scratch);
    return status;
}

static sb_status bytes_by_rows(sb_context *ctx, const rows_op *o, uint64_t *bytes)
{
    rows_plan p;
    const sb_status status = plan_rows(ctx, o, &p);
    *bytes = p.bytes;
    return status;
}

/* The same with the checks in front of and behind a call of one batch. */
static sb_status call_by_rows(sb_context *ctx, const rows_op *o, const sb_cuda_array *outputs,
                              size_t count)
{
    sb_status status = sb_cuda_check_arguments(ctx, &NO_OUT, o->calls[0]);
    if (status == SB_OK) status = sb_cuda_check_arrays(ctx, outputs, count);
    if (status == SB_OK) status = run_by_rows(ctx, o);
    if (status == SB_OK && o->calls[0]->launch.check)
        status = sb_cuda_check_call(ctx, o->calls[0], NULL, NULL);
    return status;
}

/* ---- shards ------------------------------------------------------------------------------- */

/* Scratch memory: lists as words; then that of the products. */
static uint64_t partial_bytes(sb_context *ctx, const sb_partial_call *p)
{
    const sb_cuda_hidden h = { .call = &p->call, .to = &p->to };
    return sb_cuda_lists_of(&p->call).bytes + sb_cuda_hidden_bytes(ctx->state, &h);
}

static sb_status run_partial(sb_context *ctx, const sb_partial_call *p, CUdeviceptr scratch)
{
    const sb_call *call = &p->call;
    sb_cuda_lists lists = sb_cuda_lists_of(call);
    const sb_cuda_hidden h = { .call = call, .to = &p->to, .lists = lists.bytes ? &lists : NULL };
    CUstream stream = call->launch.stream;
    const uint64_t rows = (uint64_t)call->rows;
    sb_status status = SB_OK;
    if (call->in.row_list) { /* rows that are not listed */
        status = sb_cuda_clear(ctx, sb_cuda_address(p->to.states), rows * sb_state_size(&p->to),
                               stream);
        if (status == SB_OK)
            status = sb_cuda_clear(ctx, sb_cuda_address(p->to.targets),
                                   rows * sizeof(sb_target_record), stream);
    }
    if (status == SB_OK) status = sb_cuda_launch_words(ctx, call, &lists, scratch, 0);
    return status == SB_OK ? sb_cuda_run_hidden(ctx, &h, scratch + lists.bytes) : status;
}

sb_status sb_cuda_hidden_partial(sb_context *ctx, const sb_partial_call *p)
{
    const sb_call *call = &p->call;
    CUdeviceptr scratch;
    sb_status status = sb_cuda_check_records(ctx, &p->to, call->rows, "");
    if (status == SB_OK) status = sb_cuda_check_arguments(ctx, &NO_OUT, call);
    if (status == SB_OK)
        status = sb_cuda_scratch(ctx, &call->launch, partial_bytes(ctx, p), &scratch);
    if (status != SB_OK) return status;
    status = run_partial(ctx, p, scratch);
    return sb_cuda_end_call(ctx, call, scratch, status);
}

sb_status sb_cuda_hidden_partial_workspace(sb_context *ctx, const sb_partial_call *p,
                                           uint64_t *bytes)
{
    *bytes = partial_bytes(ctx, p);
    return SB_OK;
}

/* ---- several ids, first ids --------------------------------------------------------------- */

static sb_status ids_part(sb_context *ctx, const void *op, const sb_call part[2], int64_t first,
                          uint64_t *bytes)
{
    sb_ids_call call = *(const sb_ids_call *)op;
    const int64_t entries = first * call.call.width;
    if (call.out.logprob) call.out.logprob += entries;
    if (call.out.rank) call.out.rank += entries;
    if (call.out.lse) call.out.lse += first;
    call.call = part[0];
    return bytes ? sb_cuda_ids_workspace(ctx, &call, bytes) : sb_cuda_ids(ctx, &call);
}

sb_status sb_cuda_hidden_ids(sb_context *ctx, const sb_ids_call *call)
{
    const rows_op o = { .calls = { &call->call }, .op = call, .part = ids_part };
    const uint64_t row = sb_cuda_bytes(call->call.width, 4);
    const sb_cuda_array outputs[] = {
        { "rank", call->out.rank, 4, sb_cuda_bytes(call->call.rows, row) },
        { "logprob", call->out.logprob, 4, sb_cuda_bytes(call->call.rows, row) },
        { "lse", call->out.lse, 4, sb_cuda_bytes(call->call.rows, 4) },
    };
    if (sb_cuda_gathers_ids(call)) return sb_cuda_gather_ids(ctx, call);
    return call_by_rows(ctx, &o, outputs, 3);
}

sb_status sb_cuda_hidden_ids_workspace(sb_context *ctx, const sb_ids_call *call, uint64_t *bytes)
{
    const rows_op o = { .calls = { &call->call }, .op = call, .part = ids_part };
    if (sb_cuda_gathers_ids(call)) return sb_cuda_gather_ids_workspace(ctx, call, bytes);
    return bytes_by_rows(ctx, &o, bytes);
}

static sb_status topk_part(sb_context *ctx, const void *op, const sb_call part[2], int64_t first,
                           uint64_t *bytes)
{
    sb_topk_call call = *(const sb_topk_call *)op;
    if (call.out.logprob) call.out.logprob += first * call.k;
    if (call.out.ids) call.out.ids += first * call.k;
    if (call.out.lse) call.out.lse += first;
    call.call = part[0];
    return bytes ? sb_cuda_topk_workspace(ctx, &call, bytes) : sb_cuda_topk(ctx, &call);
}

sb_status sb_cuda_hidden_topk(sb_context *ctx, const sb_topk_call *call)
{
    const rows_op o = { .calls = { &call->call }, .op = call, .part = topk_part };
    const uint64_t row = sb_cuda_bytes(call->k, 4);
    const sb_cuda_array outputs[] = {
        { "ids", call->out.ids, 4, sb_cuda_bytes(call->call.rows, row) },
        { "logprob", call->out.logprob, 4, sb_cuda_bytes(call->call.rows, row) },
        { "lse", call->out.lse, 4, sb_cuda_bytes(call->call.rows, 4) },
    };
    return call_by_rows(ctx, &o, outputs, 3);
}

sb_status sb_cuda_hidden_topk_workspace(sb_context *ctx, const sb_topk_call *call, uint64_t *bytes)
{
    const rows_op o = { .calls = { &call->call }, .op = call, .part = topk_part };
    return bytes_by_rows(ctx, &o, bytes);
}

/* ---- sampling ----------------------------------------------------------------------------- */

/* The model's logprob needs the logits outside the batch's kept sets as well. So the logits are
 * computed without these, and the draws have them. */
static sb_status sample_part(sb_context *ctx, const void *op, const sb_call part[2], int64_t first,
                             uint64_t *bytes)
{
    sb_sample_call call = *(const sb_sample_call *)op;
    const sb_batch *in = &call.call.in;
    const uint32_t *kept = moved(in->kept, first, 4 * in->kept_stride);
    const void *ids = in->kept_ids;
    const void *offsets = moved(in->kept_offsets, first, in->kept_offsets_dtype == SB_I64 ? 8 : 4);
    const int64_t count = in->kept_count, words = sb_kept_width(in->vocab);
    sb_sampling *how = &call.how;
    sb_sample_out *out = &call.out;
    call.call = part[0];
    call.call.in.kept = kept;
    call.call.in.kept_ids = ids;
    call.call.in.kept_offsets = offsets;
    call.call.in.kept_count = count;
    how->top_ks = moved(how->top_ks, first, 4);
    how->top_ps = moved(how->top_ps, first, 4);
    how->min_ps = moved(how->min_ps, first, 4);
    how->seeds = moved(how->seeds, first, 8);
    how->streams = moved(how->streams, first, 8);
    how->positions = moved(how->positions, first, 8);
    how->u = moved(how->u, first, 8);
    how->bits = moved(how->bits, first, 8);
    if (out->token) out->token += first;
    if (out->logprob) out->logprob += first;
    if (out->kept_logprob) out->kept_logprob += first;
    if (out->count) out->count += first;
    if (out->kept) out->kept += first * words;
    return bytes ? sb_cuda_sample_workspace(ctx, &call, bytes) : sb_cuda_sample(ctx, &call);
}

/* bare: the call without its kept sets. */
static rows_op rows_of_sample(const sb_sample_call *call, sb_call *bare)
{
    *bare = call->call;
    bare->in.kept = NULL;
    bare->in.kept_ids = bare->in.kept_offsets = NULL;
    bare->in.kept_count = 0;
    return (rows_op){ .calls = { bare }, .op = call, .part = sample_part };
}

sb_status sb_cuda_hidden_sample(sb_context *ctx, const sb_sample_call *call)
{
    sb_call bare;
    const rows_op o = rows_of_sample(call, &bare);
    return run_by_rows(ctx, &o);
}

sb_status sb_cuda_hidden_sample_workspace(sb_context *ctx, const sb_sample_call *call,
                                          uint64_t *bytes)
{
    sb_call bare;
    const rows_op o = rows_of_sample(call, &bare);
    return bytes_by_rows(ctx, &o, bytes);
}

/* ---- divergences -------------------------------------------------------------------------- */

static sb_status kl_part(sb_context *ctx, const void *op, const sb_call part[2], int64_t first,
                         uint64_t *bytes)
{
    sb_kl_call call = *(const sb_kl_call *)op;
    if (call.out.token) call.out.token += first;
    call.out.sequence = NULL;
    call.p = part[0];
    call.q = part[1];
    return bytes ? sb_cuda_kl_workspace(ctx, &call, bytes) : sb_cuda_kl(ctx, &call);
}

/* Scratch memory: tokens, if only their sums are requested; then that of the rows. */
static uint64_t kl_tokens(const sb_kl_call *call)
{
    const int64_t rows = call->p.rows;
    return call->out.sequence && !call->out.token ? sb_cuda_padded((uint64_t)rows * sizeof(float))
                                                  : 0;
}

sb_status sb_cuda_hidden_kl(sb_context *ctx, const sb_kl_call *asked)
{
    const sb_launch *launch = &asked->p.launch;
    const uint64_t tokens = kl_tokens(asked);
    sb_kl_call call = *asked;
    const rows_op o = { .calls = { &call.p, &call.q }, .op = &call, .part = kl_part };
    rows_plan p;
    CUdeviceptr scratch;
    sb_status status = plan_rows(ctx, &o, &p);
    if (status == SB_OK) status = sb_cuda_scratch(ctx, launch, tokens + p.bytes, &scratch);
    if (status != SB_OK) return status;
    if (tokens) call.out.token = (float *)(uintptr_t)scratch;
    status = run_rows(ctx, &o, &p, scratch + tokens);
    if (status == SB_OK && call.out.sequence) {
        const sb_sums_call sums = sb_kl_sums(asked, call.out.token);
        status = sb_cuda_launch_sums(ctx, &sums);
    }
    sb_cuda_scratch_done(ctx, launch, scratch);
    return status;
}

sb_status sb_cuda_hidden_kl_workspace(sb_context *ctx, const sb_kl_call *call, uint64_t *bytes)
{
    const rows_op o = { .calls = { &call->p, &call->q }, .op = call, .part = kl_part };
    const sb_status status = bytes_by_rows(ctx, &o, bytes);
    *bytes += kl_tokens(call);
    return status;
}

/* ---- gradients ---------------------------------------------------------------------------- */

/* The gradient of some rows from `first` on, which has a row of its own for each. */
static sb_gradient gradient_from(const sb_gradient *all, const sb_call *call, const sb_call *part,
                                 int64_t first)
{
    sb_gradient to = *all;
    const int64_t element = gradient_place(all, &call->in, first - call->in.shift);
    to.grad = (void *)(uintptr_t)moved(all->grad, element, sb_itemsize(all->dtype));
    to.saved = moved(all->saved, first, sizeof(sb_saved_row));
    to.token = moved(all->token, first, sizeof(float));
    to.entropy = moved(all->entropy, first, sizeof(float));
    to.batch_stride = part->rows * to.row_stride;
    return to;
}

static sb_status backward_part(sb_context *ctx, const void *op, const sb_call part[2],
                               int64_t first, uint64_t *bytes)
{
    const sb_backward_call *all = op;
    sb_backward_call call = { all->to, part[0] };
    if (bytes) return sb_cuda_backward_workspace(ctx, &call, bytes);
    if (first < all->call.in.shift) return SB_OK; /* no row of the gradient is before it */
    call.to = gradient_from(&all->to, &all->call, &part[0], first);
    return sb_cuda_backward(ctx, &call);
}

sb_status sb_cuda_hidden_backward(sb_context *ctx, const sb_backward_call *backward)
{
    const sb_call *call = &backward->call;
    const rows_op o = {
        .calls = { call }, .op = backward, .part = backward_part, .gradient = &backward->to
    };
    sb_status status = sb_cuda_check_arguments(ctx, &NO_OUT, call);
    if (status == SB_OK) status = sb_cuda_check_gradient_arrays(ctx, &backward->to, call, "");
    if (status == SB_OK) status = run_by_rows(ctx, &o);
    if (status == SB_OK && call->launch.check)
        status = sb_cuda_check_call(ctx, call, NULL, &backward->to);
    return status;
}

sb_status sb_cuda_hidden_backward_workspace(sb_context *ctx, const sb_backward_call *call,
                                            uint64_t *bytes)
{
    const rows_op o = {
        .calls = { &call->call }, .op = call, .part = backward_part, .gradient = &call->to
    };
    return bytes_by_rows(ctx, &o, bytes);
}

/* ---- logprobs with their gradient --------------------------------------------------------- */

/* A part of the call's outputs. The sums of sequences come from the tokens of all parts. */
static sb_logprob_call both_from(const void *op, const sb_call *part, int64_t first)
{
    const sb_logprob_call *all = op;
    sb_logprob_call call = *all;
    sb_logprob_out *out = &call.out;
    if (out->token) out->token += first;
    if (out->lse) out->lse += first;
    if (out->entropy) out->entropy += first;
    if (out->saved) out->saved += first;
    out->sequence = NULL;
    out->count = out->outside = NULL;
    if (first < all->call.in.shift) out->gradient = NULL;
    else call.gradient = gradient_from(&all->gradient, &all->call, part, first);
    call.call = part[0];
    return call;
}

static sb_status both_part(sb_context *ctx, const void *op, const sb_call part[2], int64_t first,
                           uint64_t *bytes)
{
    const int32_t shift = ((const sb_logprob_call *)op)->call.in.shift;
    sb_logprob_call call = both_from(op, part, first);
    uint64_t most = 0;
    if (!bytes) return sb_cuda_logprob(ctx, &call);
    for (first = 0; first <= shift; first++) { /* the first row of all may have no gradient */
        call = both_from(op, part, first);
        const sb_status status = sb_cuda_logprob_workspace(ctx, &call, bytes);
        if (status != SB_OK) return status;
        most = *bytes > most ? *bytes : most;
    }
    *bytes = most;
    return SB_OK;
}

sb_status sb_cuda_hidden_both(sb_context *ctx, const sb_logprob_call *asked)
{
    const sb_cuda *c = ctx->state;
    const sb_call *call = &asked->call;
    const uint64_t tokens = sb_cuda_padded(sb_cuda_token_bytes(&asked->out, call->rows));
    sb_cuda_lists lists = sb_cuda_list_bytes_of(call); /* of targets outside their lists */
    sb_logprob_call both = *asked;
    const rows_op o = {
        .calls = { &both.call }, .op = &both, .part = both_part, .gradient = &both.gradient
    };
    sb_cuda_plan none;
    sb_cuda_args a;
    rows_plan p;
    CUdeviceptr scratch;
    sb_status status = sb_cuda_check_arguments(ctx, &asked->out, call);
    if (status == SB_OK)
        status = sb_cuda_check_gradient_arrays(ctx, &asked->gradient, call, "gradient.");
    if (status == SB_OK) status = plan_rows(ctx, &o, &p);
    if (status == SB_OK)
        status = sb_cuda_scratch(ctx, &call->launch, tokens + lists.bytes + p.bytes, &scratch);
    if (status != SB_OK) return status;
    if (tokens) both.out.token = (float *)(uintptr_t)scratch;
    status = run_rows(ctx, &o, &p, scratch + tokens + lists.bytes);
    if (status == SB_OK) status = sb_cuda_launch_words(ctx, call, &lists, scratch + tokens, 0);
    memset(&none, 0, sizeof none);
    a = sb_cuda_args_of(c, &both.out, call, &none, 0);
    sb_cuda_use_words(&a, &lists);
    if (status == SB_OK) status = sb_cuda_sum_sequences(ctx, call, &a);
    return sb_cuda_end_call(ctx, call, scratch, status);
}

sb_status sb_cuda_hidden_both_workspace(sb_context *ctx, const sb_logprob_call *call,
                                        uint64_t *bytes)
{
    const rows_op o = {
        .calls = { &call->call }, .op = call, .part = both_part, .gradient = &call->gradient
    };
    const sb_status status = bytes_by_rows(ctx, &o, bytes);
    *bytes += sb_cuda_padded(sb_cuda_token_bytes(&call->out, call->call.rows));
    *bytes += sb_cuda_list_bytes_of(&call->call).bytes;
    return status;
}
