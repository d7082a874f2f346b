/* gpu.h - the parts that a program linked with driver.c adds to it: the GPUs, and their kernels.
 * Memory, streams and captures belong to driver.c itself. */
#ifndef FAKES_GPU_H
#define FAKES_GPU_H

#include <stddef.h>
#include <stdint.h>

#include "cuda/driver.h"

/* The driver's functions with the types of the library's list, so that the compiler compares
 * them. */
#define FAKES_DECLARE(field, symbol, arguments) CUresult symbol arguments;
SB_CUDA_SYMBOLS(FAKES_DECLARE)
#undef FAKES_DECLARE

enum { FAKE_DEVICES = 2 }; /* at most */

typedef struct fake_gpu {
    const char *name;
    int devices, major, minor, multiprocessors;   /* each device has these */
    int shared, clock, memory_clock, memory_bits; /* as in sb_cuda_gpu */
    unsigned elsewhere; /* the memory type of addresses that the driver did not hand out; 2: they
                         * are one allocation of device 0 */
} fake_gpu;
extern const fake_gpu gpu;

/* Whether an image can be loaded. */
int gpu_loads(const void *image);

/* A kernel by its name; null: there is none. */
CUfunction gpu_kernel(const char *name);

/* The bytes of its arguments, at most GPU_ARGUMENTS. */
size_t gpu_arguments(CUfunction kernel);
enum { GPU_ARGUMENTS = 1024 };

/* Runs it, one call at a time; threads are a block's, a multiple of 32. Nonzero: the launch failed.
 */
int gpu_run(CUfunction kernel, const void *arguments, uint32_t blocks, uint32_t threads);

#endif
