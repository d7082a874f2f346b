/* driver.c - a stand-in for the CUDA driver: one GPU of compute capability 9.0, whose memory is the
 * host's, and whose kernels do nothing (or report a bad row). It counts what it gives, and every
 * request can be refused. */
#include <string.h>

#include "cuda/args.h"
#include "cuda/driver.h"
#include "embedded.h"
#include "inject.h"

/* The embedded kernels, of which the library looks only at the size. */
#define DEFINE(name)                                                                               \
    const unsigned char sb_fatbin_##name[4] = { 1 };                                               \
    const uint64_t sb_fatbin_##name##_size = 4;
EMBEDDED(DEFINE)

static int bad_rows, inherited;

void *driver_library(void) { return &bad_rows; }
void driver_reports_bad_rows(int yes) { bad_rows = yes; }
void driver_is_inherited(void) { inherited = 1; }

/* 2 is CUDA_ERROR_OUT_OF_MEMORY, 999 CUDA_ERROR_UNKNOWN. */
#define REQUEST(result)                                                                            \
    if (inject(__func__, FAULT_IS_ERROR)) return result

static CUresult take(void)
{
    held.driver--;
    return CUDA_SUCCESS;
}

static CUresult cuInit(unsigned flags)
{
    (void)flags;
    REQUEST(999);
    return inherited ? CUDA_ERROR_NOT_INITIALIZED : CUDA_SUCCESS;
}

static CUresult cuGetErrorName(CUresult result, const char **name)
{
    *name = result == CUDA_ERROR_OUT_OF_MEMORY ? "CUDA_ERROR_OUT_OF_MEMORY" : "CUDA_ERROR_UNKNOWN";
    return CUDA_SUCCESS;
}

static CUresult cuDeviceGetCount(int *count)
{
    REQUEST(999);
    *count = 1;
    return CUDA_SUCCESS;
}

static CUresult cuDeviceGet(CUdevice *device, int ordinal)
{
    REQUEST(999);
    *device = ordinal;
    return CUDA_SUCCESS;
}

static CUresult cuDeviceGetName(char *name, int size, CUdevice device)
{
    (void)device;
    name[size - 1] = '\0';
    strncpy(name, "stand-in", (size_t)size - 1);
    return CUDA_SUCCESS;
}

static CUresult cuDeviceGetAttribute(int *value, int attribute, CUdevice device)
{
    (void)device;
    REQUEST(999);
    *value = attribute == CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR   ? 9
             : attribute == CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR ? 0
                                                                         : 132;
    return CUDA_SUCCESS;
}

static CUresult cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice device)
{
    (void)device;
    REQUEST(CUDA_ERROR_OUT_OF_MEMORY);
    held.driver++;
    *context = (CUcontext)driver_library();
    return CUDA_SUCCESS;
}

static CUresult cuDevicePrimaryCtxRelease_v2(CUdevice device)
{
    (void)device;
    return take();
}

/* A context that is left pushed is a leak, too. */
static CUresult cuCtxPushCurrent_v2(CUcontext context)
{
    (void)context;
    REQUEST(999);
    held.driver++;
    return CUDA_SUCCESS;
}

static CUresult cuCtxPopCurrent_v2(CUcontext *context)
{
    *context = NULL;
    return take();
}

static CUresult cuModuleLoadData(CUmodule *module, const void *image)
{
    REQUEST(CUDA_ERROR_OUT_OF_MEMORY);
    int known = 0;
#define IS_IMAGE(name) known |= image == (const void *)sb_fatbin_##name;
    EMBEDDED(IS_IMAGE)
    if (!known) return CUDA_ERROR_INVALID_VALUE;
    held.driver++;
    *module = (CUmodule)driver_library();
    return CUDA_SUCCESS;
}

static CUresult cuModuleUnload(CUmodule module)
{
    (void)module;
    return take();
}

static CUresult cuModuleGetFunction(CUfunction *function, CUmodule module, const char *name)
{
    (void)name;
    REQUEST(999);
    *function = (CUfunction)(void *)module;
    return CUDA_SUCCESS;
}

static CUresult cuFuncSetAttribute(CUfunction function, int attribute, int value)
{
    (void)function, (void)attribute, (void)value;
    REQUEST(999);
    return CUDA_SUCCESS;
}

static CUresult cuFuncLoad(CUfunction function)
{
    (void)function;
    REQUEST(CUDA_ERROR_OUT_OF_MEMORY);
    return CUDA_SUCCESS;
}

static CUresult cuLaunchKernelEx(const CUlaunchConfig *config, CUfunction function,
                                 void **parameters, void **extra)
{
    const sb_cuda_args *arguments = parameters[0];
    (void)config, (void)function, (void)extra;
    REQUEST(999);
    if (bad_rows) *(int64_t *)(uintptr_t)arguments->bad = ((int64_t)SB_BAD_ID << SB_BAD_SHIFT) + 1;
    return CUDA_SUCCESS;
}

/* All addresses are one allocation of device 0. */
static CUresult cuPointerGetAttributes(unsigned count, int *attributes, void **values,
                                       CUdeviceptr pointer)
{
    (void)pointer;
    REQUEST(CUDA_ERROR_INVALID_VALUE);
    for (unsigned i = 0; i < count; i++) switch (attributes[i]) {
        case CU_POINTER_ATTRIBUTE_MEMORY_TYPE: *(unsigned *)values[i] = 2; break; /* device */
        case CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL: *(int *)values[i] = 0; break;
        case CU_POINTER_ATTRIBUTE_RANGE_START_ADDR: *(CUdeviceptr *)values[i] = 0; break;
        default: *(size_t *)values[i] = SIZE_MAX;
        }
    return CUDA_SUCCESS;
}

static CUresult memory(void **data, size_t size)
{
    *data = __real_malloc(size);
    held.driver++;
    return CUDA_SUCCESS;
}

static CUresult device_memory(CUdeviceptr *data, size_t size)
{
    void *made;
    memory(&made, size);
    *data = (CUdeviceptr)(uintptr_t)made;
    return CUDA_SUCCESS;
}

static CUresult free_memory(void *data)
{
    __real_free(data);
    return take();
}

static CUresult cuMemAlloc_v2(CUdeviceptr *data, size_t size)
{
    REQUEST(CUDA_ERROR_OUT_OF_MEMORY);
    return device_memory(data, size);
}

static CUresult cuMemFree_v2(CUdeviceptr data) { return free_memory((void *)(uintptr_t)data); }

static CUresult cuMemAllocAsync(CUdeviceptr *data, size_t size, CUstream stream)
{
    (void)stream;
    REQUEST(CUDA_ERROR_OUT_OF_MEMORY);
    return device_memory(data, size);
}

static CUresult cuMemFreeAsync(CUdeviceptr data, CUstream stream)
{
    (void)stream;
    return free_memory((void *)(uintptr_t)data);
}

static CUresult cuMemHostAlloc(void **data, size_t size, unsigned flags)
{
    (void)flags;
    REQUEST(CUDA_ERROR_OUT_OF_MEMORY);
    return memory(data, size);
}

static CUresult cuMemFreeHost(void *data) { return free_memory(data); }

static CUresult cuMemHostGetDevicePointer_v2(CUdeviceptr *device, void *data, unsigned flags)
{
    (void)flags;
    REQUEST(999);
    *device = (CUdeviceptr)(uintptr_t)data;
    return CUDA_SUCCESS;
}

static CUresult cuMemcpyAsync(CUdeviceptr to, CUdeviceptr from, size_t size, CUstream stream)
{
    (void)stream;
    REQUEST(999);
    memmove((void *)(uintptr_t)to, (const void *)(uintptr_t)from, size);
    return CUDA_SUCCESS;
}

static CUresult cuMemsetD8Async(CUdeviceptr data, unsigned char byte, size_t size, CUstream stream)
{
    (void)stream;
    REQUEST(999);
    memset((void *)(uintptr_t)data, byte, size);
    return CUDA_SUCCESS;
}

static CUresult give(void *handle)
{
    void *given = driver_library();
    memcpy(handle, &given, sizeof given);
    held.driver++;
    return CUDA_SUCCESS;
}

static CUresult cuStreamCreate(CUstream *stream, unsigned flags)
{
    (void)flags;
    REQUEST(CUDA_ERROR_OUT_OF_MEMORY);
    return give(stream);
}

static CUresult cuStreamDestroy_v2(CUstream stream)
{
    (void)stream;
    return take();
}

static CUresult cuStreamSynchronize(CUstream stream)
{
    (void)stream;
    REQUEST(999);
    return CUDA_SUCCESS;
}

/* Nothing is captured. */
static CUresult cuStreamGetCaptureInfo_v2(CUstream stream, int *status, uint64_t *number,
                                          void *graph, void *dependencies, size_t *count)
{
    (void)stream, (void)number, (void)graph, (void)dependencies, (void)count;
    *status = CU_STREAM_CAPTURE_STATUS_NONE;
    return CUDA_SUCCESS;
}

static CUresult cuThreadExchangeStreamCaptureMode(int *mode)
{
    static int now;
    const int before = now;
    now = *mode;
    *mode = before;
    return CUDA_SUCCESS;
}

static CUresult cuEventCreate(CUevent *event, unsigned flags)
{
    (void)flags;
    REQUEST(CUDA_ERROR_OUT_OF_MEMORY);
    return give(event);
}

static CUresult cuEventDestroy_v2(CUevent event)
{
    (void)event;
    return take();
}

static CUresult cuEventRecord(CUevent event, CUstream stream)
{
    (void)event, (void)stream;
    REQUEST(999);
    return CUDA_SUCCESS;
}

static CUresult cuEventSynchronize(CUevent event)
{
    (void)event;
    REQUEST(999);
    return CUDA_SUCCESS;
}

static CUresult cuEventElapsedTime_v2(float *milliseconds, CUevent start, CUevent end)
{
    (void)start, (void)end;
    REQUEST(999);
    *milliseconds = 1;
    return CUDA_SUCCESS;
}

/* A function pointer as dlsym gives it: without its type. */
static void *untyped(const void *function)
{
    void *address;
    memcpy(&address, function, sizeof address);
    return address;
}

void *driver_symbol(const char *name)
{
#define FIND(field, symbol, arguments)                                                             \
    if (strcmp(name, #symbol) == 0) {                                                              \
        CUresult(*function) arguments = symbol;                                                    \
        return untyped(&function);                                                                 \
    }
    SB_CUDA_SYMBOLS(FIND)
    if (strcmp(name, "cuEventElapsedTime") == 0) return driver_symbol("cuEventElapsedTime_v2");
    return NULL;
}
