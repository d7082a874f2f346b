/* gpu.c - the GPUs of spec/fakes/driver.c that compute: kernels that were compiled as HIP run on
 * the CPU, by lanes.h. There are two, so that calls on several devices are tested without any.
 *
 * A block gets as many warps as were asked for in warps of 32, so that kernels that take one warp
 * per item get enough of them when warps have 64 lanes. */
#include "gpu.h"

#include <string.h>

#include "lanes.h"

#define TEXT(x) TEXT_OF(x)
#define TEXT_OF(x) #x

/* A block of warps of 64 would be too large for the kernels that need this much shared memory. */
enum { SHARED = WARP == 32 ? 232448 : 101376 };

const fake_gpu gpu = { "CPU in warps of " TEXT(WARP), 2, 8, 0, 8, SHARED, 0, 0, 0, 0 };

int gpu_loads(const void *image) { return image != NULL; }

CUfunction gpu_kernel(const char *name)
{
    for (const lanes_entry *const *file = lanes_files; *file; file++)
        for (const lanes_entry *entry = *file; entry->name; entry++)
            if (strcmp(entry->name, name) == 0) return (CUfunction)(uintptr_t)entry;
    return NULL;
}

size_t gpu_arguments(CUfunction kernel) { return ((const lanes_entry *)kernel)->size; }

int gpu_run(CUfunction kernel, const void *arguments, uint32_t blocks, uint32_t threads)
{
    return lanes_run(((const lanes_entry *)kernel)->kernel, arguments, blocks, threads / 32 * WARP);
}
