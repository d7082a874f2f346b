/* kept.c - kept sets as words and as lists: their checks, and sb_kept_words and sb_kept_lists,
 * which convert one to the other. A word has a bit for each of 32 ids; a list has the ids, which
 * rise. */
#include "api/kept.h"

#include <inttypes.h>
#include <stdio.h>

#include "api/entry.h"

/* ---- checks ------------------------------------------------------------------------------- */

static sb_status check_words(sb_call *call, sb_message *why)
{
    sb_batch *in = &call->in;
    const int64_t words = sb_kept_width(in->vocab);
    int64_t span;
    if (in->kept_stride == 0) in->kept_stride = words;
    if (in->kept_stride < words)
        return sb_fail(why, SB_ERR_SHAPE,
                       "kept_stride %" PRId64 " is less than the %" PRId64 " words of a kept set",
                       in->kept_stride, words);
    if (__builtin_mul_overflow(call->rows, in->kept_stride, &span) || span > INT64_MAX / 4)
        return sb_fail(why, SB_ERR_SHAPE, "kept_stride %" PRId64 " reaches past the address space",
                       in->kept_stride);
    return SB_OK;
}

static sb_status check_lists(const sb_call *call, int device_memory, sb_message *why)
{
    const sb_batch *in = &call->in;
    if (in->kept_ids_dtype != SB_I32 && in->kept_ids_dtype != SB_I64)
        return sb_fail(why, SB_ERR_DTYPE, "kept_ids_dtype is %d: it takes SB_I32 or SB_I64",
                       (int)in->kept_ids_dtype);
    if (in->kept_offsets_dtype != SB_I32 && in->kept_offsets_dtype != SB_I64)
        return sb_fail(why, SB_ERR_DTYPE, "kept_offsets_dtype is %d: it takes SB_I32 or SB_I64",
                       (int)in->kept_offsets_dtype);
    if (in->kept_count < 0 || in->kept_count > INT64_MAX / 8)
        return sb_fail(why, SB_ERR_SHAPE, "kept_count is %" PRId64, in->kept_count);
    if (in->kept_count > 0 && !in->kept_ids)
        return sb_fail(why, SB_ERR_ARGUMENT, "kept_ids is null");
    return device_memory ? SB_OK : sb_check_kept_offsets(call, why);
}

sb_status sb_check_kept(sb_call *call, int device_memory, sb_message *why)
{
    const sb_batch *in = &call->in;
    if (in->kept && in->kept_offsets)
        return sb_fail(why, SB_ERR_ARGUMENT,
                       "kept and kept_offsets are both given: a kept set is words or a list");
    if (in->kept_ids && !in->kept_offsets)
        return sb_fail(why, SB_ERR_ARGUMENT, "kept_ids is given, but kept_offsets is null");
    if (in->kept) return check_words(call, why);
    return in->kept_offsets ? check_lists(call, device_memory, why) : SB_OK;
}

/* Names a row whose end is not between its begin and the number of kept ids. */
static sb_status refuse_offset(const sb_call *call, int64_t row, sb_kept_list list, sb_message *why)
{
    const sb_position at = sb_position_of(call, row);
    return sb_fail(
        why, SB_ERR_SHAPE,
        "row %" PRId64 " (sequence %" PRId64 ", position %" PRId64 "): kept_offsets[%" PRId64
        "] is %" PRId64 ": it must lie in [%" PRId64 ", %" PRId64 "]",
        row, at.sequence, at.position, row + 1, list.last, list.first, call->in.kept_count);
}

sb_status sb_check_kept_offsets(const sb_call *call, sb_message *why)
{
    const sb_batch *in = &call->in;
    const int64_t first = sb_int_at(in->kept_offsets, in->kept_offsets_dtype, 0);
    sb_kept_list list = { first, first };
    if (first != 0)
        return sb_fail(why, SB_ERR_SHAPE, "row 0: kept_offsets[0] is %" PRId64 ", not 0", first);
    for (int64_t row = 0; row < call->rows; row++) {
        list = sb_kept_list_of(call, row);
        if (list.last < list.first || list.last > in->kept_count)
            return refuse_offset(call, row, list, why);
    }
    if (list.last != in->kept_count)
        return sb_fail(why, SB_ERR_SHAPE,
                       "row %" PRId64 ": kept_offsets[%" PRId64 "] is %" PRId64
                       ", not kept_count %" PRId64,
                       call->rows - (call->rows > 0), call->rows, list.last, in->kept_count);
    return SB_OK;
}

/* Whether ids are in [0, vocab) and rise. The loop has no early end, so that it may be vectorised.
 */
static int rise(const sb_call *call, sb_kept_list list)
{
    int64_t before = -1;
    int wrong = 0;
    for (int64_t i = list.first; i < list.last; i++) {
        const int64_t id = sb_kept_id_at(call, i);
        wrong |= (id <= before) | (id >= call->in.vocab);
        before = id;
    }
    return !wrong;
}

sb_status sb_check_kept_list(const sb_call *call, int64_t row, sb_message *why)
{
    const sb_kept_list list = sb_kept_list_of(call, row);
    const int64_t vocab = call->in.vocab;
    int64_t before = -1, i = list.first, id = 0;
    char what[64];
    sb_position at;
    if (rise(call, list)) return SB_OK;
    for (; i < list.last; i++, before = id) {
        id = sb_kept_id_at(call, i);
        if (id <= before || id >= vocab) break;
    }
    if (id < 0 || id >= vocab) snprintf(what, sizeof what, "outside [0, %" PRId64 ")", vocab);
    else snprintf(what, sizeof what, "not above the %" PRId64 " before it", before);
    at = sb_position_of(call, row);
    return sb_fail(why, SB_ERR_ID,
                   "row %" PRId64 " (sequence %" PRId64 ", position %" PRId64 "): kept id %" PRId64
                   " (entry %" PRId64 ") is %s",
                   row, at.sequence, at.position, id, i - list.first, what);
}

/* ---- conversions -------------------------------------------------------------------------- */

static sb_status prepare(sb_context *ctx, sb_call *call, const sb_batch *batch)
{
    if (ctx->backend->device)
        return sb_fail(&ctx->error, SB_ERR_BACKEND,
                       "the %s backend converts no kept sets: do it in memory, on a cpu context",
                       ctx->backend->name);
    return sb_kept_call_of(ctx, call, batch);
}

static void write_words(const sb_call *call, int64_t row, char *words)
{
    const sb_kept_list list = sb_kept_list_of(call, row);
    memset(words, 0, (size_t)sb_kept_width(call->in.vocab) * 4);
    for (int64_t i = list.first; i < list.last; i++) {
        const int64_t id = sb_kept_id_at(call, i);
        uint32_t word;
        memcpy(&word, words + id / 32 * 4, 4);
        word |= (uint32_t)1 << (id % 32);
        memcpy(words + id / 32 * 4, &word, 4);
    }
}

static sb_status to_words(sb_context *ctx, uint32_t *kept, int64_t stride, const sb_batch *batch)
{
    sb_call call, words;
    sb_message *why = &ctx->error;
    sb_status status = prepare(ctx, &call, batch);
    if (status == SB_OK && !call.in.kept_offsets)
        return sb_fail(why, SB_ERR_ARGUMENT, "the batch has no lists: kept_offsets is null");
    if (status != SB_OK) return status;
    words = call;
    words.in.kept_stride = stride;
    status = check_words(&words, why);
    for (int64_t row = 0; row < call.rows && status == SB_OK; row++)
        status = sb_check_kept_list(&call, row, why);
    if (status != SB_OK) return status;
    if (call.rows > 0 && !kept) return sb_fail(why, SB_ERR_ARGUMENT, "kept is null");
    for (int64_t row = 0; row < call.rows; row++)
        write_words(&call, row, (char *)kept + row * words.in.kept_stride * 4);
    return SB_OK;
}

sb_status sb_kept_words(sb_context *ctx, uint32_t *kept, int64_t kept_stride, const sb_batch *batch)
{
    SB_INSIDE(ctx, to_words(ctx, kept, kept_stride, batch));
}

/* Word number i of a row, without the bits from V on. */
static uint32_t word_at(const sb_call *call, int64_t row, int64_t i)
{
    const int64_t past = call->in.vocab - i * 32;
    uint32_t word;
    memcpy(&word, (const char *)call->in.kept + (row * call->in.kept_stride + i) * 4, 4);
    return past < 32 ? word & (((uint32_t)1 << past) - 1) : word;
}

static int64_t count_of(const sb_call *call, int64_t row)
{
    int64_t count = 0;
    for (int64_t i = 0; i < sb_kept_width(call->in.vocab); i++)
        count += __builtin_popcount(word_at(call, row, i));
    return count;
}

static void put(void *array, int32_t dtype, int64_t i, int64_t value)
{
    const int32_t narrow = (int32_t)value;
    if (dtype == SB_I64) memcpy((char *)array + i * 8, &value, 8);
    else memcpy((char *)array + i * 4, &narrow, 4);
}

static sb_status check_lists_out(const sb_call *call, const void *offsets, int32_t offsets_dtype,
                                 const void *ids, int32_t ids_dtype, int64_t room, sb_message *why)
{
    int64_t count = 0;
    if (!call->in.kept)
        return sb_fail(why, SB_ERR_ARGUMENT, "the batch has no words: kept is null");
    if ((offsets_dtype != SB_I32 && offsets_dtype != SB_I64) ||
        (ids_dtype != SB_I32 && ids_dtype != SB_I64))
        return sb_fail(why, SB_ERR_DTYPE,
                       "offsets_dtype is %d and ids_dtype %d: they take SB_I32 or SB_I64",
                       (int)offsets_dtype, (int)ids_dtype);
    if (!offsets) return sb_fail(why, SB_ERR_ARGUMENT, "offsets is null");
    for (int64_t row = 0; row < call->rows; row++) count += count_of(call, row);
    if (offsets_dtype == SB_I32 && count > INT32_MAX)
        return sb_fail(why, SB_ERR_SHAPE, "%" PRId64 " kept ids: int32 offsets end at 2^31 - 1",
                       count);
    if (ids && count > room)
        return sb_fail(why, SB_ERR_SHAPE, "%" PRId64 " kept ids, but room for %" PRId64, count,
                       room);
    return SB_OK;
}

static sb_status to_lists(sb_context *ctx, void *offsets, int32_t offsets_dtype, void *ids,
                          int32_t ids_dtype, int64_t room, const sb_batch *batch)
{
    sb_call call;
    int64_t count = 0;
    sb_status status = prepare(ctx, &call, batch);
    if (status == SB_OK)
        status = check_lists_out(&call, offsets, offsets_dtype, ids, ids_dtype, room, &ctx->error);
    if (status != SB_OK) return status;
    put(offsets, offsets_dtype, 0, 0);
    for (int64_t row = 0; row < call.rows; row++) {
        if (!ids) count += count_of(&call, row);
        for (int64_t i = 0; ids && i < sb_kept_width(call.in.vocab); i++)
            for (uint32_t word = word_at(&call, row, i); word; word &= word - 1)
                put(ids, ids_dtype, count++, i * 32 + __builtin_ctz(word));
        put(offsets, offsets_dtype, row + 1, count);
    }
    return SB_OK;
}

sb_status sb_kept_lists(sb_context *ctx, void *offsets, int32_t offsets_dtype, void *ids,
                        int32_t ids_dtype, int64_t room, const sb_batch *batch)
{
    SB_INSIDE(ctx, to_lists(ctx, offsets, offsets_dtype, ids, ids_dtype, room, batch));
}
