/* driver.c - the CUDA driver of spec/fakes/driver.c with one GPU of compute capability 9.0, whose
 * kernels do nothing (or report a bad row). Every request of SB_CUDA_SYMBOLS goes through a
 * function that is made here: it counts the resources that the driver gives, and can refuse. */
#include <string.h>

#include "../fakes/gpu.h"
#include "cuda/args.h"
#include "embedded.h"
#include "inject.h"

/* The embedded kernels, of which the library looks only at the size. */
#define DEFINE(name, LIST)                                                                         \
    const unsigned char sb_fatbin_##name[4] = { 1 };                                               \
    const uint64_t sb_fatbin_##name##_size = 4;
EMBEDDED(DEFINE)

static int bad_rows, inherited;

void *driver_library(void) { return &bad_rows; }
void driver_reports_bad_rows(int yes) { bad_rows = yes; }
void driver_is_inherited(void) { inherited = 1; }

/* ---- the GPU ------------------------------------------------------------------------------ */

/* Memory that the program passes is device memory, wherever it is. */
const fake_gpu gpu = { "stand-in", 1, 9, 0, 132, 232448, 1980000, 3201000, 6144, 2 };

int gpu_loads(const void *image)
{
    int known = 0;
#define IS_IMAGE(name, LIST) known |= image == (const void *)sb_fatbin_##name;
    EMBEDDED(IS_IMAGE)
    return known;
}

CUfunction gpu_kernel(const char *name) { return name ? (CUfunction)(void *)&bad_rows : NULL; }

/* All arguments begin with these. */
size_t gpu_arguments(CUfunction kernel)
{
    (void)kernel;
    return sizeof(sb_cuda_args);
}

int gpu_run(CUfunction kernel, const void *arguments, uint32_t blocks, uint32_t threads)
{
    const sb_cuda_args *its = arguments;
    (void)kernel, (void)blocks, (void)threads;
    if (bad_rows) *(int64_t *)(uintptr_t)its->bad = ((int64_t)SB_BAD_ID << SB_BAD_SHIFT) + 1;
    return 0;
}

/* ---- requests ----------------------------------------------------------------------------- */

/* The change that each function makes to the resources held; functions that give back (-1) are
 * never refused. A context that is left pushed is a leak, too. A function that is not listed holds
 * nothing, and fails with CUDA_ERROR_UNKNOWN. */
static const struct request {
    const char *symbol;
    int holds;
    CUresult refusal; /* CUDA_SUCCESS: none */
} requests[] = {
    { "cuGetErrorName", 0, CUDA_SUCCESS },
    { "cuDeviceGetName", 0, CUDA_SUCCESS },                   /* only told of */
    { "cuThreadExchangeStreamCaptureMode", 0, CUDA_SUCCESS }, /* fails for no mode that there is */
    { "cuDevicePrimaryCtxRetain", 1, CUDA_ERROR_OUT_OF_MEMORY },
    { "cuDevicePrimaryCtxRelease_v2", -1, CUDA_SUCCESS },
    { "cuCtxPushCurrent_v2", 1, 999 },
    { "cuCtxPopCurrent_v2", -1, CUDA_SUCCESS },
    { "cuModuleLoadData", 1, CUDA_ERROR_OUT_OF_MEMORY },
    { "cuModuleUnload", -1, CUDA_SUCCESS },
    { "cuFuncLoad", 0, CUDA_ERROR_OUT_OF_MEMORY },
    { "cuPointerGetAttributes", 0, CUDA_ERROR_INVALID_VALUE },
    { "cuMemAlloc_v2", 1, CUDA_ERROR_OUT_OF_MEMORY },
    { "cuMemFree_v2", -1, CUDA_SUCCESS },
    { "cuMemAllocAsync", 1, CUDA_ERROR_OUT_OF_MEMORY },
    { "cuMemFreeAsync", -1, CUDA_SUCCESS },
    { "cuMemHostAlloc", 1, CUDA_ERROR_OUT_OF_MEMORY },
    { "cuMemFreeHost", -1, CUDA_SUCCESS },
    { "cuStreamCreate", 1, CUDA_ERROR_OUT_OF_MEMORY },
    { "cuStreamDestroy_v2", -1, CUDA_SUCCESS },
};

static struct request request_of(const char *symbol)
{
    const struct request other = { symbol, 0, 999 };
    for (size_t i = 0; i < sizeof requests / sizeof *requests; i++)
        if (strcmp(requests[i].symbol, symbol) == 0) return requests[i];
    return other;
}

static CUresult refused(const char *symbol)
{
    const CUresult refusal = request_of(symbol).refusal;
    if (refusal != CUDA_SUCCESS && inject(symbol, FAULT_IS_ERROR)) return refusal;
    if (inherited && strcmp(symbol, "cuInit") == 0) return CUDA_ERROR_NOT_INITIALIZED;
    return CUDA_SUCCESS;
}

static CUresult counted(const char *symbol, CUresult result)
{
    if (result == CUDA_SUCCESS) held.driver += request_of(symbol).holds;
    return result;
}

/* Makes a list of parameters, and one of arguments to pass on, from a list of types. */
#define JOIN(a, b) JOIN_(a, b)
#define JOIN_(a, b) a##b
#define COUNT(...) COUNT_(__VA_ARGS__, 6, 5, 4, 3, 2, 1, 0)
#define COUNT_(a, b, c, d, e, f, n, ...) n
#define PARAMETERS(...) JOIN(PARAMETERS_, COUNT(__VA_ARGS__))(__VA_ARGS__)
#define PARAMETERS_1(a) a x1
#define PARAMETERS_2(a, b) a x1, b x2
#define PARAMETERS_3(a, b, c) a x1, b x2, c x3
#define PARAMETERS_4(a, b, c, d) a x1, b x2, c x3, d x4
#define PARAMETERS_5(a, b, c, d, e) a x1, b x2, c x3, d x4, e x5
#define PARAMETERS_6(a, b, c, d, e, f) a x1, b x2, c x3, d x4, e x5, f x6
#define PASSED(...) JOIN(PASSED_, COUNT(__VA_ARGS__))
#define PASSED_1 x1
#define PASSED_2 x1, x2
#define PASSED_3 x1, x2, x3
#define PASSED_4 x1, x2, x3, x4
#define PASSED_5 x1, x2, x3, x4, x5
#define PASSED_6 x1, x2, x3, x4, x5, x6

#define REQUEST(field, symbol, arguments)                                                          \
    static CUresult request_##symbol(PARAMETERS arguments)                                         \
    {                                                                                              \
        const CUresult refusal = refused(#symbol);                                                 \
        if (refusal != CUDA_SUCCESS) return refusal;                                               \
        return counted(#symbol, symbol(PASSED arguments));                                         \
    }
SB_CUDA_SYMBOLS(REQUEST)

void *driver_symbol(const char *name)
{
#define FIND(field, symbol, arguments)                                                             \
    if (strcmp(name, #symbol) == 0) {                                                              \
        CUresult(*function) arguments = request_##symbol;                                          \
        return untyped(&function);                                                                 \
    }
    SB_CUDA_SYMBOLS(FIND)
    return NULL;
}
