/* memory.c - memory and streams: those of the backend, or ordinary memory if it has none. */
#include <stdlib.h>
#include <string.h>

#include "api/entry.h"

#define NOT_NULL(ctx, argument)                                                                    \
    if (!(argument)) return sb_fail(&(ctx)->error, SB_ERR_ARGUMENT, "%s is null", #argument)

static sb_status check(sb_context *ctx, void *stream)
{
    const sb_device *device = ctx->backend->device;
    return device ? device->check(ctx, stream) : SB_OK;
}

sb_status sb_check(sb_context *ctx, void *stream) { SB_INSIDE(ctx, check(ctx, stream)); }

/* ---- memory ------------------------------------------------------------------------------- */

static sb_status memory_alloc(sb_context *ctx, void **data, uint64_t bytes, sb_memory kind)
{
    const sb_device *device = ctx->backend->device;
    NOT_NULL(ctx, data);
    *data = NULL;
    if (kind != SB_DEVICE && kind != SB_PINNED)
        return sb_fail(&ctx->error, SB_ERR_ARGUMENT, "memory kind is %d", (int)kind);
    if (bytes == 0) return SB_OK;
    if (device) return device->memory_alloc(ctx, data, bytes, kind);
    *data = bytes <= SIZE_MAX ? malloc((size_t)bytes) : NULL;
    if (*data) return SB_OK;
    return sb_fail(&ctx->error, SB_ERR_MEMORY, "no memory for %llu bytes",
                   (unsigned long long)bytes);
}

sb_status sb_memory_alloc(sb_context *ctx, void **data, uint64_t bytes, sb_memory kind)
{
    SB_INSIDE(ctx, memory_alloc(ctx, data, bytes, kind));
}

static sb_status memory_free(sb_context *ctx, void *data, sb_memory kind)
{
    const sb_device *device = ctx->backend->device;
    if (!data) return SB_OK;
    if (device) return device->memory_free(ctx, data, kind);
    free(data);
    return SB_OK;
}

sb_status sb_memory_free(sb_context *ctx, void *data, sb_memory kind)
{
    SB_INSIDE(ctx, memory_free(ctx, data, kind));
}

static sb_status memory_copy(sb_context *ctx, void *to, const void *from, uint64_t bytes,
                             void *stream)
{
    const sb_device *device = ctx->backend->device;
    if (bytes == 0) return SB_OK;
    NOT_NULL(ctx, to);
    NOT_NULL(ctx, from);
    if (device) return device->memory_copy(ctx, to, from, bytes, stream);
    memmove(to, from, (size_t)bytes);
    return SB_OK;
}

sb_status sb_memory_copy(sb_context *ctx, void *to, const void *from, uint64_t bytes, void *stream)
{
    SB_INSIDE(ctx, memory_copy(ctx, to, from, bytes, stream));
}

/* ---- streams ------------------------------------------------------------------------------ */

static sb_status stream_create(sb_context *ctx, void **stream)
{
    const sb_device *device = ctx->backend->device;
    NOT_NULL(ctx, stream);
    *stream = NULL;
    return device ? device->stream_create(ctx, stream) : SB_OK;
}

sb_status sb_stream_create(sb_context *ctx, void **stream)
{
    SB_INSIDE(ctx, stream_create(ctx, stream));
}

static sb_status stream_destroy(sb_context *ctx, void *stream)
{
    const sb_device *device = ctx->backend->device;
    return device && stream ? device->stream_destroy(ctx, stream) : SB_OK;
}

sb_status sb_stream_destroy(sb_context *ctx, void *stream)
{
    SB_INSIDE(ctx, stream_destroy(ctx, stream));
}

static sb_status stream_wait(sb_context *ctx, void *stream)
{
    const sb_device *device = ctx->backend->device;
    return device ? device->stream_wait(ctx, stream) : SB_OK;
}

sb_status sb_stream_wait(sb_context *ctx, void *stream)
{
    SB_INSIDE(ctx, stream_wait(ctx, stream));
}
