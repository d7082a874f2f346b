/* driver.h - the CUDA driver, loaded at run time: libcuda.so.1 by dlopen. Nothing is linked, and
 * building needs no CUDA header. The one list below has all symbols that are used. */
#ifndef SB_CUDA_DRIVER_H
#define SB_CUDA_DRIVER_H

#include <stddef.h>
#include <stdint.h>

#include "backend.h"

typedef int CUresult, CUdevice;
typedef unsigned long long CUdeviceptr;
typedef struct CUctx_st *CUcontext;
typedef struct CUmod_st *CUmodule;
typedef struct CUfunc_st *CUfunction;
typedef struct CUstream_st *CUstream;

enum {
    CUDA_SUCCESS = 0,
    CUDA_ERROR_INVALID_VALUE = 1,
    CUDA_ERROR_OUT_OF_MEMORY = 2,
    CUDA_ERROR_NOT_INITIALIZED = 3,
    CUDA_ERROR_NO_DEVICE = 100,
    CUDA_ERROR_NOT_READY = 600,
    CU_DEVICE_ATTRIBUTE_CLOCK_RATE = 13,
    CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT = 16,
    CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE = 36,
    CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH = 37,
    CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR = 75,
    CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR = 76,
    CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN = 97,
    CU_POINTER_ATTRIBUTE_MEMORY_TYPE = 2,
    CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL = 9,
    CU_POINTER_ATTRIBUTE_RANGE_START_ADDR = 11,
    CU_POINTER_ATTRIBUTE_RANGE_SIZE = 12,
    CU_MEMORYTYPE_HOST = 1,
    CU_MEMHOSTALLOC_PORTABLE = 1,
    CU_MEMHOSTALLOC_DEVICEMAP = 2,
    CU_STREAM_NON_BLOCKING = 1,
    CU_STREAM_CAPTURE_STATUS_NONE = 0,
    CU_STREAM_CAPTURE_MODE_RELAXED = 2,
    CU_LAUNCH_ATTRIBUTE_COOPERATIVE = 2,
    CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION = 4,
    CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION = 6,
    CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES = 8,
    CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT = 9,
    CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED = 14
};

/* The second handle of the default stream; the first one is null. */
#define SB_CUDA_LEGACY_STREAM ((CUstream)(uintptr_t)1)

/* CUlaunchAttribute and CUlaunchConfig, with only the members that are used. */
typedef struct CUlaunchAttribute {
    int id;
    char pad[4];
    union {
        char size[64];
        int integer;
        unsigned dimension[3];
    } value;
} CUlaunchAttribute;

typedef struct CUlaunchConfig {
    unsigned grid[3], block[3], shared;
    CUstream stream;
    CUlaunchAttribute *attributes;
    unsigned attribute_count;
} CUlaunchConfig;

/* Field, symbol in the library, arguments. */
#define SB_CUDA_SYMBOLS(X)                                                                         \
    X(Init, cuInit, (unsigned))                                                                    \
    X(GetErrorName, cuGetErrorName, (CUresult, const char **))                                     \
    X(DeviceGetCount, cuDeviceGetCount, (int *))                                                   \
    X(DeviceGet, cuDeviceGet, (CUdevice *, int))                                                   \
    X(DeviceGetName, cuDeviceGetName, (char *, int, CUdevice))                                     \
    X(DeviceGetAttribute, cuDeviceGetAttribute, (int *, int, CUdevice))                            \
    X(DevicePrimaryCtxRetain, cuDevicePrimaryCtxRetain, (CUcontext *, CUdevice))                   \
    X(DevicePrimaryCtxRelease, cuDevicePrimaryCtxRelease_v2, (CUdevice))                           \
    X(CtxPushCurrent, cuCtxPushCurrent_v2, (CUcontext))                                            \
    X(CtxPopCurrent, cuCtxPopCurrent_v2, (CUcontext *))                                            \
    X(ModuleLoadData, cuModuleLoadData, (CUmodule *, const void *))                                \
    X(ModuleUnload, cuModuleUnload, (CUmodule))                                                    \
    X(ModuleGetFunction, cuModuleGetFunction, (CUfunction *, CUmodule, const char *))              \
    X(FuncSetAttribute, cuFuncSetAttribute, (CUfunction, int, int))                                \
    X(FuncLoad, cuFuncLoad, (CUfunction))                                                          \
    X(OccupancyMaxActiveBlocksPerMultiprocessor, cuOccupancyMaxActiveBlocksPerMultiprocessor,      \
      (int *, CUfunction, int, size_t))                                                            \
    X(LaunchKernelEx, cuLaunchKernelEx, (const CUlaunchConfig *, CUfunction, void **, void **))    \
    X(OccupancyMaxActiveClusters, cuOccupancyMaxActiveClusters,                                    \
      (int *, CUfunction, const CUlaunchConfig *))                                                 \
    X(PointerGetAttributes, cuPointerGetAttributes, (unsigned, int *, void **, CUdeviceptr))       \
    X(MemAlloc, cuMemAlloc_v2, (CUdeviceptr *, size_t))                                            \
    X(MemFree, cuMemFree_v2, (CUdeviceptr))                                                        \
    X(MemAllocAsync, cuMemAllocAsync, (CUdeviceptr *, size_t, CUstream))                           \
    X(MemFreeAsync, cuMemFreeAsync, (CUdeviceptr, CUstream))                                       \
    X(MemHostAlloc, cuMemHostAlloc, (void **, size_t, unsigned))                                   \
    X(MemFreeHost, cuMemFreeHost, (void *))                                                        \
    X(MemHostGetDevicePointer, cuMemHostGetDevicePointer_v2, (CUdeviceptr *, void *, unsigned))    \
    X(MemcpyAsync, cuMemcpyAsync, (CUdeviceptr, CUdeviceptr, size_t, CUstream))                    \
    X(MemsetD8Async, cuMemsetD8Async, (CUdeviceptr, unsigned char, size_t, CUstream))              \
    X(StreamCreate, cuStreamCreate, (CUstream *, unsigned))                                        \
    X(StreamDestroy, cuStreamDestroy_v2, (CUstream))                                               \
    X(StreamSynchronize, cuStreamSynchronize, (CUstream))                                          \
    X(StreamQuery, cuStreamQuery, (CUstream))                                                      \
    X(StreamGetCaptureInfo, cuStreamGetCaptureInfo_v2,                                             \
      (CUstream, int *, uint64_t *, void *, void *, size_t *))                                     \
    X(ThreadExchangeStreamCaptureMode, cuThreadExchangeStreamCaptureMode, (int *))

typedef struct sb_cuda_driver {
    void *library;
#define SB_CUDA_FIELD(name, symbol, arguments) CUresult(*name) arguments;
    SB_CUDA_SYMBOLS(SB_CUDA_FIELD)
#undef SB_CUDA_FIELD
} sb_cuda_driver;

/* Loads and initialises the driver. On failure nothing stays loaded, and why names the missing
 * part. */
sb_status sb_cuda_driver_load(sb_cuda_driver *driver, sb_message *why);
void sb_cuda_driver_unload(sb_cuda_driver *driver);

/* Writes a message for a driver function that failed. */
sb_status sb_cuda_failed(sb_message *why, const sb_cuda_driver *driver, const char *what,
                         CUresult result);

/* Calls a driver function; on failure returns from the enclosing function, with a message that
 * names the driver function. */
#define DRIVER(why, driver, function, ...)                                                         \
    do {                                                                                           \
        CUresult result_ = (driver)->function(__VA_ARGS__);                                        \
        if (result_ != CUDA_SUCCESS) return sb_cuda_failed(why, driver, "cu" #function, result_);  \
    } while (0)

/* Writes an error such as "CUDA_ERROR_OUT_OF_MEMORY (2)" into the caller's text. */
const char *sb_cuda_error(const sb_cuda_driver *driver, CUresult result, char text[64]);

#endif
