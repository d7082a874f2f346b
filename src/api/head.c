/* head.c - heads: they are checked, made, changed, opened and freed here; a backend prepares their
 * memory. Then sb_logits, and the calls for columns of D that ranks hold. */
#include "api/head.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "api/call.h"
#include "api/entry.h"
#include "api/gradient.h"
#include "api/run.h"
#include "det/leaf.h"
#include "det/linear_error.h"

_Static_assert(sizeof(sb_head_form) <= SB_HEAD_NORMS &&
                   SB_HEAD_NORMS + sizeof(sb_linear_norms) <= SB_HEAD_FORM,
               "a form and norms have their places in front of a head");
_Static_assert(SB_MAX_WIDTH == SB_LINEAR_MAX_D, "the bounds of numerics.md hold up to this width");

/* For messages: a NaN loses its sign. */
static double printable(float x)
{
    return sb_is_nan(x) ? (double)sb_float(SB_NAN_BITS) : (double)x;
}

/* FNV-1a of everything in front of the sum. It finds bytes that are no form, not an adversary. */
static uint64_t sum_of(const sb_head_form *form)
{
    const unsigned char *bytes = (const unsigned char *)form;
    uint64_t sum = 0xcbf29ce484222325u;
    for (size_t i = 0; i < offsetof(sb_head_form, sum); i++)
        sum = (sum ^ bytes[i]) * 0x100000001b3u;
    return sum;
}

sb_status sb_check_head(sb_context *ctx, const sb_head *head)
{
    sb_message *why = &ctx->error;
    sb_status status = sb_check_op(ctx, SB_OP_HEAD);
    if (status != SB_OK) return status;
    if (!head) return sb_fail(why, SB_ERR_ARGUMENT, "head is null");
    if (memcmp(head->form.magic, SB_HEAD_MAGIC, sizeof head->form.magic) != 0)
        return sb_fail(why, SB_ERR_ARGUMENT, "head (%p) is no head, or has been freed",
                       (const void *)head);
    if (head->backend != ctx->backend || head->device != ctx->device)
        return sb_fail(why, SB_ERR_ARGUMENT,
                       "the head was prepared by %s:%d, the context is on %s:%d",
                       head->backend->name, head->device, ctx->backend->name, ctx->device);
    return SB_OK;
}

/* ---- weights ------------------------------------------------------------------------------ */

static sb_status check_shape(sb_head_weights *in, sb_message *why)
{
    int64_t span;
    if (in->ids < 1 || in->ids > SB_MAX_VOCAB)
        return sb_fail(why, SB_ERR_SHAPE, "weights are of %" PRId64 " ids, outside [1, %d]",
                       in->ids, SB_MAX_VOCAB);
    if (in->width < 1 || in->width > SB_MAX_WIDTH)
        return sb_fail(why, SB_ERR_SHAPE, "weights have a width D of %" PRId64 ", outside [1, %d]",
                       in->width, SB_MAX_WIDTH);
    if (in->first < 0 || in->first % SB_LEAF != 0 || in->first > SB_MAX_VOCAB - in->ids)
        return sb_fail(why, SB_ERR_SHAPE,
                       "the first id of the weights is %" PRId64
                       ": a multiple of %d is needed, and ids below %d",
                       in->first, SB_LEAF, SB_MAX_VOCAB);
    if (in->row_stride == 0) in->row_stride = in->width;
    if (in->row_stride < in->width)
        return sb_fail(why, SB_ERR_SHAPE,
                       "the weights' row_stride %" PRId64 " is less than their width %" PRId64,
                       in->row_stride, in->width);
    if (__builtin_mul_overflow(in->row_stride, in->ids * 4, &span))
        return sb_fail(why, SB_ERR_SHAPE,
                       "the weights' row_stride %" PRId64 " reaches past the address space",
                       in->row_stride);
    return SB_OK;
}

static sb_status check_options(const sb_head_weights *in, sb_message *why)
{
    if (!sb_is_float(in->dtype))
        return sb_fail(why, SB_ERR_DTYPE,
                       "the weights' dtype is %d: it takes SB_F32, SB_F16 or SB_BF16",
                       (int)in->dtype);
    if (!sb_is_float(in->bias_dtype))
        return sb_fail(why, SB_ERR_DTYPE, "bias_dtype is %d: it takes SB_F32, SB_F16 or SB_BF16",
                       (int)in->bias_dtype);
    if (in->format != SB_H24W16 && in->format != SB_H24W24)
        return sb_fail(why, SB_ERR_ARGUMENT, "format is %d: it takes SB_H24W16 or SB_H24W24",
                       (int)in->format);
    if (!sb_linear_scale_ok(in->scale))
        return sb_fail(why, SB_ERR_ARGUMENT, "scale is %.9g, outside [2^-32, 2^32]",
                       printable(in->scale));
    if (in->softcap != 0.0f && !sb_linear_cap_ok(in->softcap))
        return sb_fail(why, SB_ERR_ARGUMENT, "softcap is %.9g, neither 0 nor in [2^-10, 2^20]",
                       printable(in->softcap));
    if (in->keep_bad != 0 && in->keep_bad != 1)
        return sb_fail(why, SB_ERR_ARGUMENT, "keep_bad is %d, not 0 or 1", (int)in->keep_bad);
    if (in->norms != 0 && in->norms != 1)
        return sb_fail(why, SB_ERR_ARGUMENT, "norms is %d, not 0 or 1", (int)in->norms);
    return SB_OK;
}

static uint32_t scale_at(const uint32_t *scales, int64_t v)
{
    uint32_t a;
    memcpy(&a, (const char *)scales + v * 4, 4);
    return a;
}

sb_status sb_check_weight_rows(const sb_head_weights *in, const uint32_t *own, sb_message *why)
{
    int64_t bad = 0, first = 0;
    for (int64_t v = 0; v < in->ids; v++) {
        const uint32_t scale = in->scales ? scale_at(in->scales, v) : own[v];
        if (scale < own[v])
            return sb_fail(why, SB_ERR_STATE,
                           "the scale of row %" PRId64
                           " of the weights is %08x, below the %08x of its own columns",
                           v, (unsigned)scale, (unsigned)own[v]);
        if (in->keep_bad || !sb_linear_is_bad(sb_linear_E(scale))) continue;
        if (in->bias && sb_is_absent(sb_logit_at(in->bias, in->bias_dtype, v))) continue;
        if (bad++ == 0) first = v;
    }
    if (bad == 0) return SB_OK;
    return sb_fail(why, SB_ERR_STATE,
                   "row %" PRId64 " of the weights (id %" PRId64
                   ") has NaN, infinity or a number of about 2^48 or more, as %" PRId64
                   " of %" PRId64 " rows do",
                   first, in->first + first, bad, in->ids);
}

static sb_head_form form_of(const sb_context *ctx, const sb_head_weights *in)
{
    sb_head_form form;
    memset(&form, 0, sizeof form);
    memcpy(form.magic, SB_HEAD_MAGIC, sizeof form.magic);
    form.numerics = SB_NUMERICS;
    form.layout = ctx->backend->heads->layout;
    form.ids = in->ids;
    form.width = in->width;
    form.first = in->first;
    form.format = in->format;
    form.biased = in->bias != NULL;
    form.scale = in->scale;
    form.softcap = in->softcap;
    form.norms = in->norms;
    form.bytes = ctx->backend->heads->bytes(&form);
    form.sum = sum_of(&form);
    return form;
}

/* Checks a context and weights, and fills in the call, without its memory. */
static sb_status call_of(sb_context *ctx, sb_head_call *call, const sb_head_weights *weights,
                         const sb_launch *launch)
{
    sb_message *why = &ctx->error;
    sb_status status = sb_check_op(ctx, SB_OP_HEAD);
    if (status == SB_OK)
        status = sb_check_size(weights, sizeof *weights, "sb_head_weights", "SB_HEAD_WEIGHTS_INIT",
                               why);
    if (status == SB_OK) status = sb_launch_of(&call->launch, launch, why);
    if (status != SB_OK) return status;
    call->in = *weights;
    call->memory = NULL;
    status = check_shape(&call->in, why);
    if (status == SB_OK) status = check_options(&call->in, why);
    if (status == SB_OK) call->form = form_of(ctx, &call->in);
    return status;
}

static sb_status head_bytes(sb_context *ctx, uint64_t *bytes, const sb_head_weights *weights)
{
    sb_head_call call;
    sb_status status = call_of(ctx, &call, weights, NULL);
    if (status != SB_OK) return status;
    if (!bytes) return sb_fail(&ctx->error, SB_ERR_ARGUMENT, "bytes is null");
    *bytes = call.form.bytes;
    return SB_OK;
}

sb_status sb_head_bytes(sb_context *ctx, uint64_t *bytes, const sb_head_weights *weights)
{
    SB_INSIDE(ctx, head_bytes(ctx, bytes, weights));
}

/* ---- making, changing and freeing heads --------------------------------------------------- */

/* Allocates a head's memory, with room to align it. */
static sb_status allocate(sb_context *ctx, sb_head *head)
{
    const sb_device *device = ctx->backend->device;
    const uint64_t bytes = head->form.bytes + SB_HEAD_FORM;
    sb_status status = SB_OK;
    if (device) status = device->memory_alloc(ctx, &head->allocation, bytes, SB_DEVICE);
    else if (bytes <= SIZE_MAX) head->allocation = malloc((size_t)bytes);
    if (status == SB_OK && !head->allocation)
        status = sb_fail(&ctx->error, SB_ERR_MEMORY, "no memory for a head of %" PRIu64 " bytes",
                         bytes);
    if (status == SB_OK)
        head->memory = (char *)head->allocation +
                       (SB_HEAD_FORM - (uintptr_t)head->allocation % SB_HEAD_FORM) % SB_HEAD_FORM;
    return status;
}

static void release(sb_context *ctx, sb_head *head)
{
    const sb_device *device = ctx->backend->device;
    if (!device) free(head->allocation);
    else if (head->allocation) device->memory_free(ctx, head->allocation, SB_DEVICE);
    memset(&head->form, 0, sizeof head->form); /* another use of this head is refused, with luck */
    free(head);
}

static sb_status check_memory(const void *memory, uint64_t size, uint64_t bytes, sb_message *why)
{
    if ((uintptr_t)memory % SB_HEAD_FORM != 0)
        return sb_fail(why, SB_ERR_ARGUMENT, "memory (%p) is not aligned to %d bytes", memory,
                       SB_HEAD_FORM);
    if (size < bytes)
        return sb_fail(why, SB_ERR_ARGUMENT,
                       "memory has %" PRIu64 " bytes, the head takes %" PRIu64, size, bytes);
    return SB_OK;
}

/* A head without memory. */
static sb_status new_head(sb_context *ctx, sb_head **head, const sb_head_form *form)
{
    *head = calloc(1, sizeof **head);
    if (!*head) return sb_fail(&ctx->error, SB_ERR_MEMORY, "no memory for a head");
    (*head)->form = *form;
    (*head)->backend = ctx->backend;
    (*head)->device = ctx->device;
    return SB_OK;
}

static sb_status prepare(sb_context *ctx, sb_head *made, sb_head_call *call, void *memory)
{
    sb_status status = SB_OK;
    made->memory = memory;
    if (!memory) status = allocate(ctx, made);
    call->memory = made->memory;
    return status == SB_OK ? sb_run(ctx, SB_OP_HEAD, call, &call->launch) : status;
}

static sb_status create(sb_context *ctx, sb_head **head, const sb_head_weights *weights,
                        void *memory, uint64_t memory_size, const sb_launch *launch)
{
    sb_message *why = &ctx->error;
    sb_head_call call;
    sb_head *made;
    sb_status status;
    if (!head) return sb_fail(why, SB_ERR_ARGUMENT, "head is null");
    *head = NULL;
    status = call_of(ctx, &call, weights, launch);
    if (status != SB_OK) return status;
    if (!call.in.weights) return sb_fail(why, SB_ERR_ARGUMENT, "weights is null");
    if (memory) status = check_memory(memory, memory_size, call.form.bytes, why);
    if (status == SB_OK && call.launch.needed) {
        *call.launch.needed = 0;
        return SB_OK;
    }
    if (status == SB_OK) status = new_head(ctx, &made, &call.form);
    if (status != SB_OK) return status;
    status = prepare(ctx, made, &call, memory);
    if (status == SB_OK) *head = made;
    else release(ctx, made);
    return status;
}

sb_status sb_head_create(sb_context *ctx, sb_head **head, const sb_head_weights *weights,
                         void *memory, uint64_t memory_size, const sb_launch *launch)
{
    SB_INSIDE(ctx, create(ctx, head, weights, memory, memory_size, launch));
}

/* Whether two forms differ in what an update cannot change. */
static const char *difference(const sb_head_form *is, const sb_head_form *new)
{
    if (is->ids != new->ids) return "number of ids";
    if (is->width != new->width) return "width";
    if (is->first != new->first) return "first id";
    if (is->format != new->format) return "format";
    if (is->norms != new->norms) return "norms (with or without them)";
    return is->biased != new->biased ? "bias (with or without one)" : NULL;
}

static sb_status update(sb_context *ctx, sb_head *head, const sb_head_weights *weights,
                        const sb_launch *launch)
{
    sb_message *why = &ctx->error;
    sb_head_call call;
    const char *other;
    sb_status status = sb_check_head(ctx, head);
    if (status == SB_OK) status = call_of(ctx, &call, weights, launch);
    if (status != SB_OK) return status;
    if (!call.in.weights) return sb_fail(why, SB_ERR_ARGUMENT, "weights is null");
    other = difference(&head->form, &call.form);
    if (other)
        return sb_fail(why, SB_ERR_ARGUMENT, "the weights have another %s than the head", other);
    call.memory = head->memory;
    status = sb_run(ctx, SB_OP_HEAD, &call, &call.launch);
    if (status == SB_OK && !call.launch.needed) head->form = call.form;
    return status;
}

sb_status sb_head_update(sb_context *ctx, sb_head *head, const sb_head_weights *weights,
                         const sb_launch *launch)
{
    SB_INSIDE(ctx, update(ctx, head, weights, launch));
}

/* Checks bytes that ought to be the form of a head of ctx's backend. */
static sb_status check_form(const sb_context *ctx, const sb_head_form *form, uint64_t size,
                            sb_message *why)
{
    const sb_heads *heads = ctx->backend->heads;
    if (memcmp(form->magic, SB_HEAD_MAGIC, sizeof form->magic) != 0)
        return sb_fail(why, SB_ERR_STATE, "these bytes are no head");
    if (form->numerics != SB_NUMERICS)
        return sb_fail(why, SB_ERR_STATE, "the head has numerics %u, the library %u",
                       (unsigned)form->numerics, (unsigned)SB_NUMERICS);
    if (form->layout != heads->layout)
        return sb_fail(why, SB_ERR_STATE,
                       "the head has layout %u, the %s backend %u: another backend or version "
                       "prepared it",
                       (unsigned)form->layout, ctx->backend->name, (unsigned)heads->layout);
    if (form->sum != sum_of(form) || form->ids < 1 || form->ids > SB_MAX_VOCAB || form->width < 1 ||
        form->width > SB_MAX_WIDTH || form->first < 0 || form->first % SB_LEAF != 0 ||
        form->first > SB_MAX_VOCAB - form->ids || (form->biased != 0 && form->biased != 1) ||
        (form->norms != 0 && form->norms != 1) ||
        (form->format != SB_H24W16 && form->format != SB_H24W24) ||
        !sb_linear_scale_ok(form->scale) ||
        (form->softcap != 0.0f && !sb_linear_cap_ok(form->softcap)) ||
        form->bytes != heads->bytes(form))
        return sb_fail(why, SB_ERR_STATE, "the head's first bytes have been changed");
    if (form->bytes > size)
        return sb_fail(why, SB_ERR_STATE, "the head has %" PRIu64 " bytes, memory %" PRIu64,
                       form->bytes, size);
    return SB_OK;
}

static sb_status open_head(sb_context *ctx, sb_head **head, const void *memory, uint64_t size)
{
    const sb_device *device = ctx->backend->device;
    sb_message *why = &ctx->error;
    sb_head_form form;
    sb_status status;
    if (!head) return sb_fail(why, SB_ERR_ARGUMENT, "head is null");
    *head = NULL;
    status = sb_check_op(ctx, SB_OP_HEAD);
    if (status != SB_OK) return status;
    if (!memory) return sb_fail(why, SB_ERR_ARGUMENT, "memory is null");
    status = check_memory(memory, size, SB_HEAD_FORM, why);
    if (status != SB_OK) return status;
    if (device) status = device->memory_copy(ctx, &form, memory, sizeof form, NULL);
    else memcpy(&form, memory, sizeof form);
    if (status == SB_OK && device) status = device->stream_wait(ctx, NULL);
    if (status == SB_OK) status = check_form(ctx, &form, size, why);
    if (status == SB_OK) status = new_head(ctx, head, &form);
    if (status == SB_OK) (*head)->memory = (void *)(uintptr_t)memory;
    return status;
}

sb_status sb_head_open(sb_context *ctx, sb_head **head, const void *memory, uint64_t memory_size)
{
    SB_INSIDE(ctx, open_head(ctx, head, memory, memory_size));
}

static sb_status describe(sb_context *ctx, sb_head_weights *weights, const sb_head *head)
{
    const sb_head_weights none = SB_HEAD_WEIGHTS_INIT;
    sb_status status = sb_check_head(ctx, head);
    if (status != SB_OK) return status;
    if (!weights) return sb_fail(&ctx->error, SB_ERR_ARGUMENT, "weights is null");
    *weights = none;
    weights->ids = head->form.ids;
    weights->width = weights->row_stride = head->form.width;
    weights->first = head->form.first;
    weights->format = head->form.format;
    weights->scale = head->form.scale;
    weights->softcap = head->form.softcap;
    weights->norms = head->form.norms;
    return SB_OK;
}

sb_status sb_head_describe(sb_context *ctx, sb_head_weights *weights, const sb_head *head)
{
    SB_INSIDE(ctx, describe(ctx, weights, head));
}

static sb_status free_head(sb_context *ctx, sb_head *head)
{
    sb_status status = head ? sb_check_head(ctx, head) : SB_OK;
    if (head && status == SB_OK) release(ctx, head);
    return status;
}

sb_status sb_head_free(sb_context *ctx, sb_head *head) { SB_INSIDE(ctx, free_head(ctx, head)); }

/* ---- logits ------------------------------------------------------------------------------- */

/* Fills in the call of some ids of a batch of hidden states, whose ids may be null. 0, 0: all. */
static sb_status hidden_call_of(sb_context *ctx, sb_call *call, const sb_batch *batch,
                                int64_t first, int64_t n, const sb_launch *launch)
{
    sb_status status = sb_check_op(ctx, SB_OP_LOGITS);
    if (status != SB_OK) return status;
    if (batch && first == 0 && n == 0) n = batch->vocab;
    call->width = batch && batch->ids ? 1 : 0;
    status = sb_part_call_of(ctx, call, batch, first, n, launch);
    if (status == SB_OK) status = sb_check_kept_sets(ctx, call, NULL);
    if (status == SB_OK && n > 0 && !call->in.head)
        return sb_fail(&ctx->error, SB_ERR_ARGUMENT, "the batch has no hidden states and head");
    return status;
}

static sb_status logits(sb_context *ctx, const sb_logits_out *out, const sb_batch *batch,
                        const sb_launch *launch)
{
    sb_message *why = &ctx->error;
    sb_gradient layout = SB_GRADIENT_INIT;
    sb_logits_call call;
    sb_status status = sb_check_size(out, sizeof *out, "sb_logits_out", "SB_LOGITS_OUT_INIT", why);
    if (status == SB_OK)
        status = hidden_call_of(ctx, &call.call, batch, out->first, out->held, launch);
    if (status != SB_OK) return status;
    call.out = *out;
    if (!sb_is_float(out->dtype))
        return sb_fail(why, SB_ERR_DTYPE,
                       "the logits' dtype is %d: it takes SB_F32, SB_F16 or SB_BF16",
                       (int)out->dtype);
    layout.grad = out->logits;
    layout.dtype = out->dtype;
    layout.row_stride = out->row_stride;
    layout.batch_stride = out->batch_stride;
    status = sb_check_layout(&layout, &call.call, "logits", why);
    if (status != SB_OK) return status;
    if (call.call.rows > 0 && call.call.held > 0 && !out->logits)
        return sb_fail(why, SB_ERR_ARGUMENT, "logits is null");
    call.out.row_stride = layout.row_stride;
    call.out.batch_stride = layout.batch_stride;
    return sb_run(ctx, SB_OP_LOGITS, &call, &call.call.launch);
}

sb_status sb_logits(sb_context *ctx, const sb_logits_out *out, const sb_batch *batch,
                    const sb_launch *launch)
{
    SB_INSIDE(ctx, logits(ctx, out, batch, launch));
}

/* ---- columns of D ------------------------------------------------------------------------- */

/* Whether an array of rows * width elements of at most 8 bytes fits the address space. */
static sb_status check_array(int64_t rows, int64_t width, const char *what, sb_message *why)
{
    int64_t bytes;
    if (rows < 0) return sb_fail(why, SB_ERR_SHAPE, "rows is %" PRId64, rows);
    if (__builtin_mul_overflow(rows, width, &bytes) || bytes > INT64_MAX / 8)
        return sb_fail(why, SB_ERR_SHAPE,
                       "%s of %" PRId64 " rows of %" PRId64 " reach past the address space", what,
                       rows, width);
    return SB_OK;
}

static sb_status scales(sb_context *ctx, sb_scales_call *call, const sb_launch *launch)
{
    sb_message *why = &ctx->error;
    sb_status status = sb_check_op(ctx, SB_OP_SCALES);
    if (status == SB_OK) status = sb_launch_of(&call->launch, launch, why);
    if (status != SB_OK) return status;
    if (!sb_is_float(call->dtype))
        return sb_fail(why, SB_ERR_DTYPE, "dtype is %d: it takes SB_F32, SB_F16 or SB_BF16",
                       (int)call->dtype);
    if (call->width < 1 || call->width > SB_MAX_WIDTH)
        return sb_fail(why, SB_ERR_SHAPE, "width is %" PRId64 ", outside [1, %d]", call->width,
                       SB_MAX_WIDTH);
    if (call->row_stride == 0) call->row_stride = call->width;
    if (call->row_stride < call->width)
        return sb_fail(why, SB_ERR_SHAPE, "row_stride %" PRId64 " is less than the width %" PRId64,
                       call->row_stride, call->width);
    status = check_array(call->rows, call->row_stride, "a matrix", why);
    if (status != SB_OK) return status;
    if (call->rows > 0 && (!call->matrix || !call->scales))
        return sb_fail(why, SB_ERR_ARGUMENT, "%s is null", call->matrix ? "scales" : "matrix");
    return sb_run(ctx, SB_OP_SCALES, call, &call->launch);
}

sb_status sb_scales(sb_context *ctx, uint32_t *to, const void *matrix, int32_t dtype, int64_t rows,
                    int64_t width, int64_t row_stride, const sb_launch *launch)
{
    sb_scales_call call = { .scales = to,
                            .matrix = matrix,
                            .dtype = dtype,
                            .rows = rows,
                            .width = width,
                            .row_stride = row_stride };
    SB_INSIDE(ctx, scales(ctx, &call, launch));
}

static sb_status products(sb_context *ctx, int64_t *sums, const sb_batch *batch,
                          const uint32_t *of_rows, int64_t first, int64_t n,
                          const sb_launch *launch)
{
    sb_message *why = &ctx->error;
    sb_products_call call = { .sums = sums, .scales = of_rows };
    sb_status status = hidden_call_of(ctx, &call.call, batch, first, n, launch);
    if (status == SB_OK) status = check_array(call.call.rows, call.call.held, "sums", why);
    if (status != SB_OK) return status;
    if (call.call.rows > 0 && call.call.held > 0 && (!sums || !of_rows))
        return sb_fail(why, SB_ERR_ARGUMENT, "%s is null", sums ? "scales" : "sums");
    return sb_run(ctx, SB_OP_PRODUCTS, &call, &call.call.launch);
}

sb_status sb_products(sb_context *ctx, int64_t *sums, const sb_batch *batch,
                      const uint32_t *of_rows, int64_t first, int64_t n, const sb_launch *launch)
{
    SB_INSIDE(ctx, products(ctx, sums, batch, of_rows, first, n, launch));
}

static sb_status combine(sb_context *ctx, sb_combine_call *call, const sb_launch *launch)
{
    sb_message *why = &ctx->error;
    const sb_head_form *form;
    sb_status status = sb_check_head(ctx, call->head);
    if (status == SB_OK) status = sb_launch_of(&call->launch, launch, why);
    if (status != SB_OK) return status;
    form = &call->head->form;
    if (call->first < form->first || call->held < 0 || call->held > form->ids ||
        call->first - form->first > form->ids - call->held)
        return sb_fail(why, SB_ERR_SHAPE,
                       "%" PRId64 " ids from %" PRId64 " on: the head has weights of %" PRId64
                       " ids from %" PRId64 " on",
                       call->held, call->first, form->ids, form->first);
    status = check_array(call->rows, call->held, "sums", why);
    if (status != SB_OK) return status;
    if (call->rows > 0 && call->held > 0 && (!call->logits || !call->sums || !call->scales))
        return sb_fail(why, SB_ERR_ARGUMENT, "%s is null",
                       !call->logits ? "logits"
                       : !call->sums ? "sums"
                                     : "scales");
    return sb_run(ctx, SB_OP_COMBINE, call, &call->launch);
}

sb_status sb_combine(sb_context *ctx, float *to, const int64_t *sums, const uint32_t *of_rows,
                     const sb_head *head, int64_t rows, int64_t first, int64_t n,
                     const sb_launch *launch)
{
    sb_combine_call call = { .logits = to,
                             .sums = sums,
                             .scales = of_rows,
                             .head = head,
                             .rows = rows,
                             .first = first,
                             .held = n };
    SB_INSIDE(ctx, combine(ctx, &call, launch));
}
