/* memory.c - the device's memory and streams, as samebits.h describes them. Each function is one
 * call of the driver. api/memory.c calls them. */
#include "cuda/capture.h"
#include "cuda/cuda.h"

/* The body of a function that makes one driver call beside captures (capture.h). */
#define CALL_BESIDE_CAPTURES(function, ...)                                                        \
    do {                                                                                           \
        const sb_cuda *c = ctx->state;                                                             \
        const int mode = sb_cuda_beside_captures_begin(&c->driver);                                \
        const CUresult result = c->driver.function(__VA_ARGS__);                                   \
        sb_cuda_beside_captures_end(&c->driver, mode);                                             \
        if (result == CUDA_SUCCESS) return SB_OK;                                                  \
        return sb_cuda_failed(&ctx->error, &c->driver, "cu" #function, result);                    \
    } while (0)

sb_status sb_cuda_memory_alloc(sb_context *ctx, void **data, uint64_t bytes, sb_memory kind)
{
    if (kind == SB_PINNED)
        CALL_BESIDE_CAPTURES(MemHostAlloc, data, bytes,
                             CU_MEMHOSTALLOC_PORTABLE | CU_MEMHOSTALLOC_DEVICEMAP);
    CALL_BESIDE_CAPTURES(MemAlloc, (CUdeviceptr *)data, bytes);
}

sb_status sb_cuda_memory_free(sb_context *ctx, void *data, sb_memory kind)
{
    if (kind == SB_PINNED) CALL_BESIDE_CAPTURES(MemFreeHost, data);
    CALL_BESIDE_CAPTURES(MemFree, (CUdeviceptr)(uintptr_t)data);
}

sb_status sb_cuda_memory_copy(sb_context *ctx, void *to, const void *from, uint64_t bytes,
                              void *stream)
{
    const sb_cuda *c = ctx->state;
    DRIVER(&ctx->error, &c->driver, MemcpyAsync, sb_cuda_address(to), sb_cuda_address(from), bytes,
           stream);
    return SB_OK;
}

sb_status sb_cuda_stream_create(sb_context *ctx, void **stream)
{
    CALL_BESIDE_CAPTURES(StreamCreate, (CUstream *)stream, CU_STREAM_NON_BLOCKING);
}

sb_status sb_cuda_stream_destroy(sb_context *ctx, void *stream)
{
    CALL_BESIDE_CAPTURES(StreamDestroy, stream);
}

sb_status sb_cuda_stream_wait(sb_context *ctx, void *stream)
{
    const sb_cuda *c = ctx->state;
    return sb_cuda_wait(&c->driver, stream, &ctx->error);
}
