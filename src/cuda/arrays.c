/* arrays.c - see arrays.h. */
#include "cuda/arrays.h"

#include <inttypes.h>
#include <stdio.h>

#include "cuda/cuda.h"

/* ---- sizes -------------------------------------------------------------------------------- */

static uint64_t times(uint64_t a, uint64_t b)
{
    uint64_t product;
    return __builtin_mul_overflow(a, b, &product) ? UINT64_MAX : product;
}

static uint64_t plus(uint64_t a, uint64_t b)
{
    uint64_t sum;
    return __builtin_add_overflow(a, b, &sum) ? UINT64_MAX : sum;
}

uint64_t sb_cuda_bytes(int64_t count, uint64_t size)
{
    return count > 0 ? times((uint64_t)count, size) : 0;
}

uint64_t sb_cuda_span(int64_t batch, int64_t time, int64_t batch_stride, int64_t row_stride,
                      int64_t width, uint64_t size)
{
    if (batch <= 0 || time <= 0) return 0;
    return plus(plus(times(sb_cuda_bytes(batch - 1, (uint64_t)batch_stride), size),
                     times(sb_cuda_bytes(time - 1, (uint64_t)row_stride), size)),
                sb_cuda_bytes(width, size));
}

/* Bytes up to the end of the last row that may be read. With shift, the last row of a sequence
 * scores no id. For packed sequences, the host knows only where the last sequence ends. */
static uint64_t logits_bytes(const sb_call *call)
{
    const sb_batch *in = &call->in;
    const uint64_t size = (uint64_t)sb_itemsize(in->logits_dtype);
    if (in->cu_seqlens)
        return sb_cuda_span(1, call->rows - in->shift, 0, in->row_stride, call->held, size);
    return sb_cuda_span(in->batch, in->time - in->shift, in->batch_stride, in->row_stride,
                        call->held, size);
}

/* The same of hidden states. */
static uint64_t hidden_bytes(const sb_call *call)
{
    const sb_batch *in = &call->in;
    const uint64_t size = (uint64_t)sb_itemsize(in->hidden_dtype);
    if (in->cu_seqlens)
        return sb_cuda_span(1, call->rows - in->shift, 0, in->hidden_row_stride, in->hidden_width,
                            size);
    return sb_cuda_span(in->batch, in->time - in->shift, in->hidden_batch_stride,
                        in->hidden_row_stride, in->hidden_width, size);
}

/* ---- checks ------------------------------------------------------------------------------- */

/* The driver's attributes of an address, from one query. */
typedef struct place {
    unsigned type; /* 0: the GPU cannot access it */
    int ordinal;
    uint64_t start; /* of the allocation, or of the range of addresses that it is mapped into */
    size_t size;    /* 0: not known */
} place;

static place place_of(const sb_cuda_driver *driver, uint64_t address)
{
    place p = { 0, -1, 0, 0 };
    int attributes[] = { CU_POINTER_ATTRIBUTE_MEMORY_TYPE, CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL,
                         CU_POINTER_ATTRIBUTE_RANGE_START_ADDR, CU_POINTER_ATTRIBUTE_RANGE_SIZE };
    void *values[] = { &p.type, &p.ordinal, &p.start, &p.size };
    if (driver->PointerGetAttributes(4, attributes, values, address) != CUDA_SUCCESS) p.type = 0;
    return p;
}

static sb_status check_array(sb_context *ctx, const sb_cuda_array *array)
{
    const sb_cuda *c = ctx->state;
    const uint64_t address = sb_cuda_address(array->data);
    place p;
    if (!array->data || array->bytes == 0) return SB_OK;
    if (address % array->align != 0)
        return sb_fail(&ctx->error, SB_ERR_ARGUMENT, "%s (%p) is not aligned to %zu bytes",
                       array->name, array->data, array->align);
    p = place_of(&c->driver, address);
    if (p.type == 0)
        return sb_fail(&ctx->error, SB_ERR_ARGUMENT,
                       "%s (%p) is host memory: the cuda backend takes device memory", array->name,
                       array->data);
    if (p.type != CU_MEMORYTYPE_HOST && p.ordinal >= 0 && p.ordinal != c->ordinal)
        return sb_fail(&ctx->error, SB_ERR_ARGUMENT,
                       "%s (%p) lies on device %d, the context is on device %d", array->name,
                       array->data, p.ordinal, c->ordinal);
    /* Registered host memory may have another address on the device. */
    if (address - p.start < p.size && p.size - (address - p.start) < array->bytes)
        return sb_fail(&ctx->error, SB_ERR_ARGUMENT,
                       "%s (%p) is too short: the call needs %" PRIu64
                       " bytes, the allocation has %" PRIu64 " from there on",
                       array->name, array->data, array->bytes,
                       (uint64_t)p.size - (address - p.start));
    return SB_OK;
}

sb_status sb_cuda_check_arrays(sb_context *ctx, const sb_cuda_array *arrays, size_t count)
{
    const sb_cuda *c = ctx->state;
    sb_status status = SB_OK;
    if (c->inside) return SB_OK;
    for (size_t i = 0; i < count && status == SB_OK; i++) status = check_array(ctx, &arrays[i]);
    return status;
}

sb_status sb_cuda_check_call_arrays(sb_context *ctx, const sb_logprob_out *out, const sb_call *call)
{
    const sb_batch *in = &call->in;
    const uint64_t id = in->ids_dtype == SB_I64 ? 8 : 4;
    const uint64_t offset = in->cu_seqlens_dtype == SB_I64 ? 8 : 4;
    const uint64_t kept_id = in->kept_ids_dtype == SB_I64 ? 8 : 4;
    const uint64_t kept_offset = in->kept_offsets_dtype == SB_I64 ? 8 : 4;
    const int64_t rows = call->rows, batch = in->batch, words = (in->vocab + 31) / 32;
    const sb_cuda_array arrays[] = {
        { "logits", in->logits, (size_t)sb_itemsize(in->logits_dtype), logits_bytes(call) },
        { "hidden", in->head ? in->hidden : NULL, (size_t)sb_itemsize(in->hidden_dtype),
          hidden_bytes(call) },
        { "ids", in->ids, id, times(sb_cuda_bytes(rows, id), (uint64_t)call->width) },
        { "mask", in->mask, 1, sb_cuda_bytes(rows, 1) },
        { "temperatures", in->temperatures, 4, sb_cuda_bytes(rows, 4) },
        { "row_list", in->row_list, 8, sb_cuda_bytes(in->row_count, 8) },
        { "cu_seqlens", in->cu_seqlens, offset, plus(sb_cuda_bytes(batch, offset), offset) },
        { "kept", in->kept, 4, sb_cuda_span(1, rows, 0, in->kept_stride, words, 4) },
        { "kept_ids", in->kept_ids, kept_id, sb_cuda_bytes(in->kept_count, kept_id) },
        { "kept_offsets", in->kept_offsets, kept_offset,
          plus(sb_cuda_bytes(rows, kept_offset), kept_offset) },
        { "token", out->token, 4, sb_cuda_bytes(rows, 4) },
        { "lse", out->lse, 4, sb_cuda_bytes(rows, 4) },
        { "sequence", out->sequence, 4, sb_cuda_bytes(batch, 4) },
        { "count", out->count, 8, sb_cuda_bytes(batch, 8) },
        { "outside", out->outside, 8, sb_cuda_bytes(batch, 8) },
        { "entropy", out->entropy, 4, sb_cuda_bytes(rows, 4) },
        { "saved", out->saved, 8, sb_cuda_bytes(rows, sizeof(sb_saved_row)) },
        { "workspace", call->launch.workspace, SB_CUDA_BOUNDARY, call->launch.workspace_size },
    };
    return sb_cuda_check_arrays(ctx, arrays, sizeof arrays / sizeof *arrays);
}

sb_status sb_cuda_check_records(sb_context *ctx, const sb_records *records, int64_t count,
                                const char *from)
{
    char states[32], targets[32];
    const sb_cuda_array arrays[] = {
        { states, records->states, 8, sb_cuda_bytes(count, sb_state_size(records)) },
        { targets, records->targets, 4, sb_cuda_bytes(count, sizeof(sb_target_record)) },
    };
    snprintf(states, sizeof states, "%sstates", from);
    snprintf(targets, sizeof targets, "%stargets", from);
    return sb_cuda_check_arrays(ctx, arrays, 2);
}
