/* memory.c - memory, streams and events: the backend's, or where it has none of its own, ordinary
 * memory and the clock. */
#define _POSIX_C_SOURCE 200809L
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "backend.h"

static sb_status null_argument(sb_context *ctx, const char *name)
{
    return sb_fail(&ctx->error, SB_ERR_ARGUMENT, "%s is null", name);
}

#define ENTER(ctx)                                                                                 \
    if (!(ctx)) return SB_ERR_ARGUMENT;                                                            \
    (ctx)->error.text[0] = '\0'
#define NOT_NULL(ctx, argument)                                                                    \
    if (!(argument)) return null_argument(ctx, #argument)

sb_status sb_check(sb_context *ctx, void *stream)
{
    ENTER(ctx);
    return ctx->backend->check ? ctx->backend->check(ctx, stream) : SB_OK;
}

sb_status sb_memory_alloc(sb_context *ctx, void **data, uint64_t bytes, sb_memory kind)
{
    ENTER(ctx);
    NOT_NULL(ctx, data);
    *data = NULL;
    if (kind != SB_DEVICE && kind != SB_PINNED)
        return sb_fail(&ctx->error, SB_ERR_ARGUMENT, "memory kind is %d", (int)kind);
    if (bytes == 0) return SB_OK;
    if (ctx->backend->memory_alloc) return ctx->backend->memory_alloc(ctx, data, bytes, kind);
    *data = bytes <= SIZE_MAX ? malloc((size_t)bytes) : NULL;
    if (*data) return SB_OK;
    return sb_fail(&ctx->error, SB_ERR_MEMORY, "no memory for %llu bytes",
                   (unsigned long long)bytes);
}

sb_status sb_memory_free(sb_context *ctx, void *data, sb_memory kind)
{
    ENTER(ctx);
    if (!data) return SB_OK;
    if (ctx->backend->memory_free) return ctx->backend->memory_free(ctx, data, kind);
    free(data);
    return SB_OK;
}

sb_status sb_memory_copy(sb_context *ctx, void *to, const void *from, uint64_t bytes, void *stream)
{
    ENTER(ctx);
    if (bytes == 0) return SB_OK;
    NOT_NULL(ctx, to);
    NOT_NULL(ctx, from);
    if (ctx->backend->memory_copy) return ctx->backend->memory_copy(ctx, to, from, bytes, stream);
    memmove(to, from, (size_t)bytes);
    return SB_OK;
}

sb_status sb_stream_create(sb_context *ctx, void **stream)
{
    ENTER(ctx);
    NOT_NULL(ctx, stream);
    *stream = NULL;
    return ctx->backend->stream_create ? ctx->backend->stream_create(ctx, stream) : SB_OK;
}

sb_status sb_stream_destroy(sb_context *ctx, void *stream)
{
    ENTER(ctx);
    return stream && ctx->backend->stream_destroy ? ctx->backend->stream_destroy(ctx, stream)
                                                  : SB_OK;
}

sb_status sb_stream_wait(sb_context *ctx, void *stream)
{
    ENTER(ctx);
    return ctx->backend->stream_wait ? ctx->backend->stream_wait(ctx, stream) : SB_OK;
}

sb_status sb_event_create(sb_context *ctx, void **event)
{
    ENTER(ctx);
    NOT_NULL(ctx, event);
    *event = NULL;
    if (ctx->backend->event_create) return ctx->backend->event_create(ctx, event);
    *event = calloc(1, sizeof(struct timespec));
    return *event ? SB_OK : sb_fail(&ctx->error, SB_ERR_MEMORY, "no memory for an event");
}

sb_status sb_event_destroy(sb_context *ctx, void *event)
{
    ENTER(ctx);
    if (event && ctx->backend->event_destroy) return ctx->backend->event_destroy(ctx, event);
    free(event);
    return SB_OK;
}

sb_status sb_event_record(sb_context *ctx, void *event, void *stream)
{
    ENTER(ctx);
    NOT_NULL(ctx, event);
    if (ctx->backend->event_record) return ctx->backend->event_record(ctx, event, stream);
    clock_gettime(CLOCK_MONOTONIC, event);
    return SB_OK;
}

sb_status sb_event_elapsed(sb_context *ctx, float *milliseconds, void *start, void *end)
{
    const struct timespec *a = start, *b = end;
    ENTER(ctx);
    NOT_NULL(ctx, milliseconds);
    NOT_NULL(ctx, start);
    NOT_NULL(ctx, end);
    if (ctx->backend->event_elapsed)
        return ctx->backend->event_elapsed(ctx, milliseconds, start, end);
    *milliseconds = (float)((double)(b->tv_sec - a->tv_sec) * 1e3 +
                            (double)(b->tv_nsec - a->tv_nsec) * 1e-6);
    return SB_OK;
}
