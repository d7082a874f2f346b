/* call.c - see call.h. The public functions check a call's arguments here against samebits.h before
 * they call a backend; a backend checks here the arrays that only it can read. Every error message
 * names the shape, the row or the id at fault. */
#include "api/call.h"

#include <inttypes.h>
#include <stdio.h>

#include "api/head.h"
#include "api/kept.h"
#include "det/leaf.h"
#include "det/sum.h"

/* For messages: a NaN loses its sign. */
static double printable(float x)
{
    return sb_is_nan(x) ? (double)sb_float(SB_NAN_BITS) : (double)x;
}

/* a * b for a, b >= 0; -1 if the product exceeds int64. */
static int64_t product(int64_t a, int64_t b)
{
    int64_t p;
    return a < 0 || b < 0 || __builtin_mul_overflow(a, b, &p) ? -1 : p;
}

static sb_status check_sequence_length(int64_t sequence, int64_t length, sb_message *why)
{
    if (length <= SB_SUM_MAX) return SB_OK;
    return sb_fail(why, SB_ERR_SHAPE,
                   "sequence %" PRId64 " has %" PRId64 " positions; at most 2^24 are summed",
                   sequence, length);
}

sb_status sb_check_device_packed(int64_t batch, int64_t rows, sb_message *why)
{
    if (batch > 0 || rows == 0) return SB_OK;
    return sb_fail(why, SB_ERR_SHAPE, "batch is 0, but there are %" PRId64 " rows", rows);
}

sb_status sb_check_cu_seqlens(const void *cu_seqlens, int32_t dtype, int64_t batch, int64_t rows,
                              sb_message *why)
{
    int64_t before = sb_int_at(cu_seqlens, dtype, 0);
    if (before != 0)
        return sb_fail(why, SB_ERR_SHAPE, "cu_seqlens[0] is %" PRId64 ", not 0", before);
    for (int64_t b = 0; b < batch; b++) {
        int64_t next = sb_int_at(cu_seqlens, dtype, b + 1);
        sb_status status;
        if (next < before || next > rows)
            return sb_fail(why, SB_ERR_SHAPE,
                           "cu_seqlens[%" PRId64 "] is %" PRId64 ": it must lie in [%" PRId64
                           ", %" PRId64 "]",
                           b + 1, next, before, rows);
        status = check_sequence_length(b, next - before, why);
        if (status != SB_OK) return status;
        before = next;
    }
    if (before != rows)
        return sb_fail(why, SB_ERR_SHAPE,
                       "cu_seqlens[%" PRId64 "] is %" PRId64 ", not the number of rows %" PRId64,
                       batch, before, rows);
    return SB_OK;
}

static sb_status check_cu_seqlens(const sb_batch *in, sb_message *why)
{
    return sb_check_cu_seqlens(in->cu_seqlens, in->cu_seqlens_dtype, in->batch, in->rows, why);
}

static sb_status check_row_list(const sb_call *call, sb_message *why)
{
    const sb_batch *in = &call->in;
    int64_t before = -1;
    for (int64_t i = 0; i < in->row_count; i++) {
        int64_t row = in->row_list[i];
        if (row < 0 || row >= call->rows)
            return sb_fail(why, SB_ERR_SHAPE,
                           "row_list[%" PRId64 "] is %" PRId64 ", outside [0, %" PRId64 ")", i, row,
                           call->rows);
        if (row <= before)
            return sb_fail(why, SB_ERR_SHAPE,
                           "row_list[%" PRId64 "] is %" PRId64 ", not above the %" PRId64
                           " before it",
                           i, row, before);
        before = row;
    }
    return SB_OK;
}

/* Checks that the size in bytes of the memory that logits or hidden states span fits int64. what:
 * "logits'", for messages. */
static sb_status check_extent(const sb_call *call, const char *what, int64_t batch_stride,
                              int64_t row_stride, int32_t dtype, sb_message *why)
{
    const sb_batch *in = &call->in;
    int64_t span = in->cu_seqlens ? product(call->rows, row_stride)
                                  : product(in->batch > 0 ? in->batch - 1 : 0, batch_stride);
    if (span >= 0 && !in->cu_seqlens) {
        int64_t last = product(in->time, row_stride);
        if (last < 0 || __builtin_add_overflow(span, last, &span)) span = -1;
    }
    if (span < 0 || product(span, sb_itemsize(dtype)) < 0)
        return sb_fail(why, SB_ERR_SHAPE,
                       "the %s strides (batch %" PRId64 ", row %" PRId64
                       ") reach past the address space",
                       what, batch_stride, row_stride);
    return SB_OK;
}

/* A shard must not cut a leaf. The first id of an empty shard has no meaning. */
static sb_status check_shard(const sb_call *call, sb_message *why)
{
    int64_t first = call->first, n = call->held, vocab = call->in.vocab;
    if (n < 0 || first < 0 || n > vocab || first > vocab - n)
        return sb_fail(why, SB_ERR_SHAPE,
                       "the shard holds %" PRId64 " ids from %" PRId64 " on: outside [0, %" PRId64
                       ")",
                       n, first, vocab);
    if (n > 0 && first % SB_LEAF != 0)
        return sb_fail(why, SB_ERR_SHAPE,
                       "the shard begins at id %" PRId64 ", which is no multiple of %d", first,
                       SB_LEAF);
    if (n % SB_LEAF != 0 && first + n != vocab)
        return sb_fail(why, SB_ERR_SHAPE,
                       "the shard holds %" PRId64 " ids, no multiple of %d, and ends at %" PRId64
                       ", not at the vocabulary's end %" PRId64,
                       n, SB_LEAF, first + n, vocab);
    return SB_OK;
}

/* Fills in the strides of logits or hidden states of `width` elements per row, and checks them. The
 * rows of call are known. */
static sb_status check_strides(const sb_call *call, const char *what, int64_t width,
                               int64_t *batch_stride, int64_t *row_stride, int32_t dtype,
                               sb_message *why)
{
    if (*row_stride == 0) *row_stride = width;
    if (*row_stride < width)
        return sb_fail(why, SB_ERR_SHAPE,
                       "%srow_stride %" PRId64 " is less than the %" PRId64 " %s of a row", what,
                       *row_stride, width, *what ? "elements" : "logits");
    if (!call->in.cu_seqlens) {
        if (*batch_stride < 0)
            return sb_fail(why, SB_ERR_SHAPE, "%sbatch_stride is %" PRId64, what, *batch_stride);
        if (*batch_stride == 0) *batch_stride = product(call->in.time, *row_stride);
    }
    return check_extent(call, *what ? "hidden states'" : "logits'", *batch_stride, *row_stride,
                        dtype, why);
}

/* Checks the hidden states of a batch and its head. */
static sb_status check_hidden(sb_call *call, sb_message *why)
{
    sb_batch *in = &call->in;
    const sb_head_form *form = &in->head->form;
    if (in->logits)
        return sb_fail(why, SB_ERR_ARGUMENT,
                       "the batch has logits as well as a head: either, not both");
    if (in->hidden_reserved != 0)
        return sb_fail(why, SB_ERR_ARGUMENT, "hidden_reserved is %d, not 0",
                       (int)in->hidden_reserved);
    if (!sb_is_float(in->hidden_dtype))
        return sb_fail(why, SB_ERR_DTYPE, "hidden_dtype is %d: it takes SB_F32, SB_F16 or SB_BF16",
                       (int)in->hidden_dtype);
    if (in->hidden_width != form->width)
        return sb_fail(why, SB_ERR_SHAPE,
                       "hidden states have %" PRId64 " elements, the head's weights %" PRId64,
                       in->hidden_width, form->width);
    if (call->first < form->first || call->first + call->held > form->first + form->ids)
        return sb_fail(why, SB_ERR_SHAPE,
                       "the call is about the ids %" PRId64 " to %" PRId64
                       ", the head has weights of the ids %" PRId64 " to %" PRId64,
                       call->first, call->first + call->held - 1, form->first,
                       form->first + form->ids - 1);
    if (call->rows > 0 && !in->hidden) return sb_fail(why, SB_ERR_ARGUMENT, "hidden is null");
    return check_strides(call, "hidden_", form->width, &in->hidden_batch_stride,
                         &in->hidden_row_stride, in->hidden_dtype, why);
}

static sb_status check_shape(sb_call *call, int device_memory, sb_message *why)
{
    sb_batch *in = &call->in;
    sb_status status;

    if (in->vocab < 1 || in->vocab > SB_MAX_VOCAB)
        return sb_fail(why, SB_ERR_SHAPE, "vocab is %" PRId64 ", outside [1, %d]", in->vocab,
                       SB_MAX_VOCAB);
    status = check_shard(call, why);
    if (status != SB_OK) return status;
    if (in->batch < 0) return sb_fail(why, SB_ERR_SHAPE, "batch is %" PRId64, in->batch);
    if (in->cu_seqlens) {
        if (in->cu_seqlens_dtype != SB_I32 && in->cu_seqlens_dtype != SB_I64)
            return sb_fail(why, SB_ERR_DTYPE, "cu_seqlens_dtype is %d: it takes SB_I32 or SB_I64",
                           (int)in->cu_seqlens_dtype);
        if (in->rows < 0) return sb_fail(why, SB_ERR_SHAPE, "rows is %" PRId64, in->rows);
        call->rows = in->rows;
        status = device_memory ? sb_check_device_packed(in->batch, in->rows, why)
                               : check_cu_seqlens(in, why);
        if (status != SB_OK) return status;
    } else {
        if (in->time < 0) return sb_fail(why, SB_ERR_SHAPE, "time is %" PRId64, in->time);
        status = check_sequence_length(0, in->time, why);
        if (status != SB_OK) return status;
        call->rows = product(in->batch, in->time);
        if (call->rows < 0)
            return sb_fail(why, SB_ERR_SHAPE,
                           "batch %" PRId64 " times time %" PRId64 " passes 2^63", in->batch,
                           in->time);
    }
    status = check_strides(call, "", call->held, &in->batch_stride, &in->row_stride,
                           in->logits_dtype, why);
    if (status == SB_OK && in->head) status = check_hidden(call, why);
    return status == SB_OK ? sb_check_kept(call, device_memory, why) : status;
}

sb_status sb_check_size(const void *argument, size_t size, const char *type, const char *init,
                        sb_message *why)
{
    uint32_t given;
    if (!argument) return sb_fail(why, SB_ERR_ARGUMENT, "%s is null", type);
    memcpy(&given, argument, sizeof given);
    if (given == size) return SB_OK;
    return sb_fail(why, SB_ERR_ARGUMENT, "%s.size is %u, not %u: start from %s", type,
                   (unsigned)given, (unsigned)size, init);
}

sb_status sb_batch_of(sb_batch *full, const sb_batch *batch, sb_message *why)
{
    const sb_batch none = SB_BATCH_INIT;
    uint32_t given;
    if (!batch) return sb_fail(why, SB_ERR_ARGUMENT, "batch is null");
    memcpy(&given, batch, sizeof given);
    *full = none;
    if (given != offsetof(sb_batch, kept_ids) && given != offsetof(sb_batch, head)) {
        sb_status status = sb_check_size(batch, sizeof *batch, "sb_batch", "SB_BATCH_INIT", why);
        if (status != SB_OK) return status;
    }
    memcpy(full, batch, given);
    full->size = sizeof *full;
    return SB_OK;
}

sb_status sb_out_of(sb_logprob_out *full, const sb_logprob_out *out, sb_message *why)
{
    const sb_logprob_out none = SB_LOGPROB_OUT_INIT;
    const uint32_t first = offsetof(sb_logprob_out, outside);
    *full = none;
    if (!out) return sb_fail(why, SB_ERR_ARGUMENT, "out is null");
    if (out->size < first || out->size > sizeof *out || out->size % sizeof(void *) != 0)
        return sb_fail(why, SB_ERR_ARGUMENT,
                       "sb_logprob_out.size is %u, not %u: start from SB_LOGPROB_OUT_INIT",
                       (unsigned)out->size, (unsigned)sizeof *out);
    memcpy(full, out, out->size);
    full->size = sizeof *full;
    return SB_OK;
}

sb_status sb_launch_of(sb_launch *filled, const sb_launch *launch, sb_message *why)
{
    const sb_launch defaults = SB_LAUNCH_INIT;
    *filled = launch ? *launch : defaults;
    return sb_check_size(filled, sizeof *filled, "sb_launch", "SB_LAUNCH_INIT", why);
}

sb_status sb_part_call_of(sb_context *ctx, sb_call *call, const sb_batch *batch, int64_t first,
                          int64_t n, const sb_launch *launch)
{
    const int device_memory = ctx->backend->device != NULL;
    sb_message *why = &ctx->error;
    sb_status status;

    status = sb_batch_of(&call->in, batch, why);
    if (status == SB_OK) status = sb_launch_of(&call->launch, launch, why);
    if (status != SB_OK) return status;
    batch = &call->in;
    call->rows = 0;
    call->first = first;
    call->held = n;
    if (n == 0) {
        call->in.logits = call->in.hidden = NULL;
        call->in.head = NULL;
        call->in.row_stride = call->in.batch_stride = 0;
    }
    if (call->in.head) {
        status = sb_check_head(ctx, call->in.head);
        if (status != SB_OK) return status;
        call->in.logits_dtype = SB_F32;
        call->in.row_stride = call->in.batch_stride = 0;
    } else if (call->in.hidden) {
        return sb_fail(why, SB_ERR_ARGUMENT, "the batch has hidden states, and no head");
    }
    if (call->launch.split < 0 || call->launch.split > 65536)
        return sb_fail(why, SB_ERR_ARGUMENT, "split is %d, outside [0, 65536]",
                       (int)call->launch.split);
    if (batch->shift != 0 && batch->shift != 1)
        return sb_fail(why, SB_ERR_ARGUMENT, "shift is %d, not 0 or 1", (int)batch->shift);
    if (!sb_is_float(batch->logits_dtype))
        return sb_fail(why, SB_ERR_DTYPE, "logits_dtype is %d: it takes SB_F32, SB_F16 or SB_BF16",
                       (int)batch->logits_dtype);
    if (batch->ids_dtype != SB_I32 && batch->ids_dtype != SB_I64)
        return sb_fail(why, SB_ERR_DTYPE, "ids_dtype is %d: it takes SB_I32 or SB_I64",
                       (int)batch->ids_dtype);

    status = check_shape(call, device_memory, why);
    if (status != SB_OK) return status;
    if (!batch->temperatures && !sb_temperature_ok(batch->temperature))
        return sb_fail(why, SB_ERR_TEMPERATURE, "temperature %.9g is outside [2^-10, 2^10]",
                       printable(batch->temperature));
    if (call->rows > 0 && n > 0 && !batch->logits && !batch->head)
        return sb_fail(why, SB_ERR_ARGUMENT, "logits is null");
    if (call->rows > 0 && call->width > 0 && !batch->ids)
        return sb_fail(why, SB_ERR_ARGUMENT, "ids is null");
    if (!batch->row_list) return SB_OK;
    if (batch->row_count < 0 || batch->row_count > call->rows)
        return sb_fail(why, SB_ERR_SHAPE, "row_count is %" PRId64 ", outside [0, %" PRId64 "]",
                       batch->row_count, call->rows);
    return device_memory ? SB_OK : check_row_list(call, why);
}

sb_status sb_call_of(sb_context *ctx, sb_call *call, const sb_batch *batch, const sb_launch *launch)
{
    return sb_wide_call_of(ctx, call, batch, 1, launch);
}

sb_status sb_wide_call_of(sb_context *ctx, sb_call *call, const sb_batch *batch, int64_t width,
                          const sb_launch *launch)
{
    call->width = width ? width : batch && batch->ids ? 1 : 0;
    return sb_part_call_of(ctx, call, batch, 0, batch ? batch->vocab : 0, launch);
}

sb_status sb_shard_call_of(sb_context *ctx, sb_call *call, const sb_batch *batch, int64_t first,
                           int64_t n, const sb_launch *launch)
{
    call->width = 1;
    return sb_part_call_of(ctx, call, batch, first, n, launch);
}

sb_status sb_kept_call_of(sb_context *ctx, sb_call *call, const sb_batch *batch)
{
    sb_batch in = SB_BATCH_INIT, full;
    sb_status status = sb_batch_of(&full, batch, &ctx->error);
    if (status != SB_OK) return status;
    in.batch = full.batch;
    in.time = full.time;
    in.rows = full.rows;
    in.vocab = full.vocab;
    in.cu_seqlens = full.cu_seqlens;
    in.cu_seqlens_dtype = full.cu_seqlens_dtype;
    in.kept = full.kept;
    in.kept_stride = full.kept_stride;
    in.kept_ids = full.kept_ids;
    in.kept_offsets = full.kept_offsets;
    in.kept_count = full.kept_count;
    in.kept_ids_dtype = full.kept_ids_dtype;
    in.kept_offsets_dtype = full.kept_offsets_dtype;
    call->width = 0;
    return sb_part_call_of(ctx, call, &in, 0, 0, NULL);
}

sb_status sb_check_kept_sets(sb_context *ctx, const sb_call *call, const sb_logprob_out *out)
{
    if (ctx->backend->kept_sets || !(sb_has_kept(&call->in) || (out && out->outside))) return SB_OK;
    return sb_fail(&ctx->error, SB_ERR_BACKEND, "the %s backend has no kept sets",
                   ctx->backend->name);
}

sb_position sb_position_of(const sb_call *call, int64_t row)
{
    const sb_batch *in = &call->in;
    sb_position at;
    if (in->cu_seqlens) {
        /* The last sequence that starts at or before row: empty ones before it share its start. */
        int64_t low = 0, high = in->batch;
        while (high - low > 1) {
            int64_t middle = low + (high - low) / 2;
            if (sb_int_at(in->cu_seqlens, in->cu_seqlens_dtype, middle) <= row) low = middle;
            else high = middle;
        }
        at.sequence = low;
        at.position = row - sb_int_at(in->cu_seqlens, in->cu_seqlens_dtype, low);
    } else {
        at.sequence = row / in->time;
        at.position = row % in->time;
    }
    return at;
}

/* Checks those ids of an active row that are not ignore_index. */
static sb_status check_ids(const sb_call *call, int64_t row, sb_message *why)
{
    for (int64_t i = 0; i < call->width; i++) {
        int64_t id = sb_int_at(call->in.ids, call->in.ids_dtype, row * call->width + i);
        char entry[48] = "";
        sb_position at;
        if ((id >= 0 && id < call->in.vocab) || id == call->in.ignore_index) continue;
        at = sb_position_of(call, row);
        if (call->width > 1) snprintf(entry, sizeof entry, ", entry %" PRId64, i);
        return sb_fail(why, SB_ERR_ID,
                       "row %" PRId64 " (sequence %" PRId64 ", position %" PRId64 "%s): id %" PRId64
                       " is outside [0, %" PRId64 ")",
                       row, at.sequence, at.position, entry, id, call->in.vocab);
    }
    return SB_OK;
}

/* Checks an active row's ids, temperature and kept list. */
static sb_status check_row(const sb_call *call, int64_t row, sb_message *why)
{
    float temperature = sb_temperature_at(call, row);
    sb_status status = check_ids(call, row, why);
    sb_position at;
    if (status != SB_OK) return status;
    if (sb_temperature_ok(temperature))
        return call->in.kept_offsets ? sb_check_kept_list(call, row, why) : SB_OK;
    at = sb_position_of(call, row);
    return sb_fail(why, SB_ERR_TEMPERATURE,
                   "row %" PRId64 " (sequence %" PRId64 ", position %" PRId64
                   "): temperature %.9g is outside [2^-10, 2^10]",
                   row, at.sequence, at.position, printable(temperature));
}

sb_extent sb_extent_of(const sb_call *call, int64_t b)
{
    const sb_batch *in = &call->in;
    sb_extent e;
    if (in->cu_seqlens) {
        e.first = sb_int_at(in->cu_seqlens, in->cu_seqlens_dtype, b);
        e.last = sb_int_at(in->cu_seqlens, in->cu_seqlens_dtype, b + 1);
    } else {
        e.first = b * in->time;
        e.last = e.first + in->time;
    }
    return e;
}

/* Whether any of the row's ids is not ignore_index; always true for a call without ids. */
static int has_ids(const sb_call *call, int64_t row)
{
    const sb_batch *in = &call->in;
    for (int64_t i = 0; i < call->width; i++)
        if (sb_int_at(in->ids, in->ids_dtype, row * call->width + i) != in->ignore_index) return 1;
    return call->width == 0;
}

sb_status sb_list_active(const sb_call *call, int64_t *active, int64_t *actives, sb_message *why)
{
    const sb_batch *in = &call->in;
    int64_t listed = 0, n = 0;
    /* Without rows B may be any number. */
    for (int64_t b = 0; call->rows > 0 && b < in->batch; b++) {
        sb_extent e = sb_extent_of(call, b);
        for (int64_t row = e.first; row < e.last; row++) {
            sb_status status;
            if (in->row_list) {
                if (listed == in->row_count || in->row_list[listed] != row) continue;
                listed++;
            }
            if (in->shift && row == e.first) continue;
            if (in->mask && !in->mask[row]) continue;
            if (!has_ids(call, row)) continue;
            status = check_row(call, row, why);
            if (status != SB_OK) return status;
            if (active) active[n] = row;
            n++;
        }
    }
    if (actives) *actives = n;
    return SB_OK;
}

sb_status sb_check_device_call(const sb_call *call, sb_message *why)
{
    sb_status status = SB_OK;
    if (call->in.cu_seqlens) status = check_cu_seqlens(&call->in, why);
    if (status == SB_OK && call->in.kept_offsets) status = sb_check_kept_offsets(call, why);
    if (status == SB_OK && call->in.row_list) status = check_row_list(call, why);
    return status == SB_OK ? sb_list_active(call, NULL, NULL, why) : status;
}
