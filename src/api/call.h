/* call.h - turns the caller's sb_batch into a checked sb_call, and gives backends its active rows
 * and the elements of its arrays. */
#ifndef SB_API_CALL_H
#define SB_API_CALL_H

#include <string.h>

#include "backend.h"
#include "det/convert.h"

/* ---- for the public functions --------------------------------------------------------------- */

/* Checks that a struct of the caller is not null and begins with its size. type and init: the names
 * of the struct and of its INIT macro. */
sb_status sb_check_size(const void *argument, size_t size, const char *type, const char *init,
                        sb_message *why);

/* Checks launch options and copies them; null means the defaults. */
sb_status sb_launch_of(sb_launch *filled, const sb_launch *launch, sb_message *why);

/* Checks the struct of a batch and copies it. A struct that ends before head has no head. */
sb_status sb_batch_of(sb_batch *full, const sb_batch *batch, sb_message *why);

/* Checks the struct of outputs and copies it. Fields that the caller's struct is too short for are
 * null. */
sb_status sb_out_of(sb_logprob_out *full, const sb_logprob_out *out, sb_message *why);

/* Checks a batch and its launch options against samebits.h and fills in call. */
sb_status sb_call_of(sb_context *ctx, sb_call *call, const sb_batch *batch,
                     const sb_launch *launch);

/* The same for a batch with width ids per row. width 0: one id per row, or none. */
sb_status sb_wide_call_of(sb_context *ctx, sb_call *call, const sb_batch *batch, int64_t width,
                          const sb_launch *launch);

/* The same for a batch whose rows hold n logits, those of the ids from first on. If n is 0, the
 * logits and strides are not used, and call has none. */
sb_status sb_shard_call_of(sb_context *ctx, sb_call *call, const sb_batch *batch, int64_t first,
                           int64_t n, const sb_launch *launch);

/* Fills in call from the extents and the kept sets of a batch; it has neither logits nor ids. */
sb_status sb_kept_call_of(sb_context *ctx, sb_call *call, const sb_batch *batch);

/* The same, for a call whose width the caller has set: 1, or 0 without ids. */
sb_status sb_part_call_of(sb_context *ctx, sb_call *call, const sb_batch *batch, int64_t first,
                          int64_t n, const sb_launch *launch);

/* Refuses kept sets if ctx's backend does not support them. out may be null. */
sb_status sb_check_kept_sets(sb_context *ctx, const sb_call *call, const sb_logprob_out *out);

/* For packed arrays in device memory: without sequences there must be no rows. Kernels check the
 * entries of cu_seqlens for each sequence, which covers all other errors. */
sb_status sb_check_device_packed(int64_t batch, int64_t rows, sb_message *why);

/* For packed arrays in host memory: cu_seqlens [batch + 1] starts at 0, never decreases, and ends
 * at rows. */
sb_status sb_check_cu_seqlens(const void *cu_seqlens, int32_t dtype, int64_t batch, int64_t rows,
                              sb_message *why);

/* Removes the kept sets of a batch, for calls that do not use them. */
static inline void sb_without_kept(sb_batch *in)
{
    in->kept = NULL;
    in->kept_ids = in->kept_offsets = NULL;
    in->kept_stride = in->kept_count = 0;
}

/* The words of a kept set: W of samebits.h. */
static inline int64_t sb_kept_width(int64_t vocab) { return (vocab + 31) / 32; }

/* ---- for the backends: host arrays only ----------------------------------------------------- */

/* The rows of sequence b, half open. */
typedef struct sb_extent {
    int64_t first, last;
} sb_extent;
sb_extent sb_extent_of(const sb_call *call, int64_t b);

/* The place of a row, for messages. */
typedef struct sb_position {
    int64_t sequence, position;
} sb_position;
sb_position sb_position_of(const sb_call *call, int64_t row);

/* Checks the id, the temperature and the kept list of each active row, and lists the active rows in
 * increasing order. active, which has room for every row, and actives may be null. */
sb_status sb_list_active(const sb_call *call, int64_t *active, int64_t *actives, sb_message *why);

/* All checks that calls on device memory skip, on host copies of the call's arrays. */
sb_status sb_check_device_call(const sb_call *call, sb_message *why);

/* Element i of an int32 or int64 array of any alignment: arrays may be in a mapped file. */
static inline int64_t sb_int_at(const void *data, int32_t dtype, int64_t i)
{
    if (dtype == SB_I64) {
        int64_t wide;
        memcpy(&wide, (const char *)data + i * 8, 8);
        return wide;
    } else {
        int32_t narrow;
        memcpy(&narrow, (const char *)data + i * 4, 4);
        return narrow;
    }
}

static inline float sb_float_at(const float *data, int64_t i)
{
    float x;
    memcpy(&x, (const char *)data + i * 4, 4);
    return x;
}

static inline float sb_temperature_at(const sb_call *call, int64_t row)
{
    return call->in.temperatures ? sb_float_at(call->in.temperatures, row) : call->in.temperature;
}

/* Bytes per logit, or per element of other arrays of floats. */
static inline int64_t sb_itemsize(int32_t logits_dtype) { return logits_dtype == SB_F32 ? 4 : 2; }

/* Whether a dtype is one of those. */
static inline int sb_is_float(int32_t dtype)
{
    return dtype == SB_F32 || dtype == SB_F16 || dtype == SB_BF16;
}

/* The address of the logits that score row. */
static inline const char *sb_logits_of(const sb_call *call, int64_t row)
{
    const sb_batch *in = &call->in;
    int64_t element;
    row -= in->shift;
    if (in->cu_seqlens) element = row * in->row_stride;
    else element = row / in->time * in->batch_stride + row % in->time * in->row_stride;
    return (const char *)in->logits + element * sb_itemsize(in->logits_dtype);
}

/* The entries of kept_ids that are a row's: first .. last - 1. */
typedef struct sb_kept_list {
    int64_t first, last;
} sb_kept_list;

/* A row's list. Requires: the call has lists. */
static inline sb_kept_list sb_kept_list_of(const sb_call *call, int64_t row)
{
    const sb_batch *in = &call->in;
    sb_kept_list list = { sb_int_at(in->kept_offsets, in->kept_offsets_dtype, row),
                          sb_int_at(in->kept_offsets, in->kept_offsets_dtype, row + 1) };
    return list;
}

static inline int64_t sb_kept_id_at(const sb_call *call, int64_t entry)
{
    return sb_int_at(call->in.kept_ids, call->in.kept_ids_dtype, entry);
}

/* The first entry of a list, whose ids rise, that is not below id; list.last if there is none. */
static inline int64_t sb_kept_entry(const sb_call *call, sb_kept_list list, int64_t id)
{
    while (list.first < list.last) {
        int64_t middle = list.first + (list.last - list.first) / 2;
        if (sb_kept_id_at(call, middle) < id) list.first = middle + 1;
        else list.last = middle;
    }
    return list.first;
}

/* The address of the hidden state that scores row. */
static inline const char *sb_hidden_of(const sb_call *call, int64_t row)
{
    const sb_batch *in = &call->in;
    int64_t element;
    row -= in->shift;
    if (in->cu_seqlens) element = row * in->hidden_row_stride;
    else
        element = row / in->time * in->hidden_batch_stride + row % in->time * in->hidden_row_stride;
    return (const char *)in->hidden + element * sb_itemsize(in->hidden_dtype);
}

/* Whether id is in row's kept set. */
static inline int sb_is_kept(const sb_call *call, int64_t row, int64_t id)
{
    const char *kept = (const char *)call->in.kept;
    uint32_t word;
    if (call->in.kept_offsets) {
        const sb_kept_list list = sb_kept_list_of(call, row);
        const int64_t entry = sb_kept_entry(call, list, id);
        return entry < list.last && sb_kept_id_at(call, entry) == id;
    }
    if (!kept) return 1;
    memcpy(&word, kept + (row * call->in.kept_stride + id / 32) * 4, 4);
    return word >> (id % 32) & 1;
}

/* Logit i of a row, or element i of another array of floats, as fp32. */
static inline float sb_logit_at(const char *logits, int32_t logits_dtype, int64_t i)
{
    uint16_t half;
    float x;
    if (logits_dtype == SB_F32) {
        memcpy(&x, logits + i * 4, 4);
        return x;
    }
    memcpy(&half, logits + i * 2, 2);
    return logits_dtype == SB_F16 ? sb_from_f16(half) : sb_from_bf16(half);
}

/* The logit of an id for row, -inf if the id is outside the row's kept set. The call must hold the
 * logits of the id. */
static inline float sb_target_logit(const sb_call *call, int64_t row, int64_t id)
{
    if (!sb_is_kept(call, row, id)) return sb_float(SB_ABSENT_BITS);
    return sb_logit_at(sb_logits_of(call, row), call->in.logits_dtype, id - call->first);
}

#endif
