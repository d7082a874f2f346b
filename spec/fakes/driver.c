/* driver.c - a libcuda.so.1 on the CPU: memory is the host's, and the program that is linked with
 * it defines the kernels (gpu.h). With spec/parity/lanes the CUDA backend computes on it;
 * spec/faults refuses its requests. There may be several devices: memory and streams belong to the
 * one that was current.
 *
 * Every call has done its work when it returns, unless streams run late (queues.h). Two cases that
 * CUDA leaves undefined end the process with a message: the use of a stream after its end, and
 * memory that outlives its context. */
#include "gpu.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "graphs.h"
#include "queues.h"

enum { NESTED = 32 };
enum { INVALID = 1, NO_MEMORY = 2, NO_CONTEXT = 201, NOT_FOUND = 500, LAUNCH_FAILED = 719 };
enum { UNKNOWN = 999 };

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER; /* over blocks and the launch */

static void misused(const char *what)
{
    fprintf(stderr, "fake driver: %s\n", what);
    abort();
}

CUresult cuInit(unsigned flags)
{
    (void)flags;
    return CUDA_SUCCESS;
}

CUresult cuGetErrorName(CUresult result, const char **name)
{
    *name = result == CUDA_SUCCESS    ? "CUDA_SUCCESS"
            : result == INVALID       ? "CUDA_ERROR_INVALID_VALUE"
            : result == NO_MEMORY     ? "CUDA_ERROR_OUT_OF_MEMORY"
            : result == NO_CONTEXT    ? "CUDA_ERROR_INVALID_CONTEXT"
            : result == NOT_FOUND     ? "CUDA_ERROR_NOT_FOUND"
            : result == LAUNCH_FAILED ? "CUDA_ERROR_LAUNCH_FAILED"
            : result == UNKNOWN       ? "CUDA_ERROR_UNKNOWN"
                                      : NULL;
    return *name ? CUDA_SUCCESS : INVALID;
}

/* ---- the device --------------------------------------------------------------------------- */

CUresult cuDeviceGetCount(int *count)
{
    *count = gpu.devices;
    return CUDA_SUCCESS;
}

CUresult cuDeviceGet(CUdevice *device, int ordinal)
{
    *device = ordinal;
    return ordinal >= 0 && ordinal < gpu.devices ? CUDA_SUCCESS : INVALID;
}

CUresult cuDeviceGetName(char *name, int size, CUdevice device)
{
    (void)device;
    snprintf(name, (size_t)size, "%s", gpu.name);
    return CUDA_SUCCESS;
}

CUresult cuDeviceGetAttribute(int *value, int attribute, CUdevice device)
{
    (void)device;
    switch (attribute) {
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR: *value = gpu.major; break;
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR: *value = gpu.minor; break;
    case CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT: *value = gpu.multiprocessors; break;
    case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN: *value = gpu.shared; break;
    case CU_DEVICE_ATTRIBUTE_CLOCK_RATE: *value = gpu.clock; break;
    case CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE: *value = gpu.memory_clock; break;
    case CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH: *value = gpu.memory_bits; break;
    default: return INVALID;
    }
    return CUDA_SUCCESS;
}

/* As if any multiprocessors could form a cluster. */
CUresult cuOccupancyMaxActiveClusters(int *clusters, CUfunction kernel,
                                      const CUlaunchConfig *config)
{
    (void)kernel;
    *clusters = gpu.multiprocessors / (int)config->attributes->value.dimension[0];
    return CUDA_SUCCESS;
}

static int has_blocks(int device);

/* A device's context is the address of its number. */
static const int contexts[FAKE_DEVICES] = { 0, 1 };
static int retained[FAKE_DEVICES];
static _Thread_local CUcontext current[NESTED];
static _Thread_local int depth;

CUresult cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice device)
{
    *context = (CUcontext)(uintptr_t)&contexts[device];
    retained[device]++;
    return CUDA_SUCCESS;
}

CUresult cuDevicePrimaryCtxRelease_v2(CUdevice device)
{
    if (graph_forbids()) return graph_forbids();
    if (--retained[device] == 0 && has_blocks(device)) misused("memory outlives its context");
    return CUDA_SUCCESS;
}

CUresult cuCtxPushCurrent_v2(CUcontext context)
{
    if (!context || depth == NESTED) return INVALID;
    current[depth++] = context;
    return CUDA_SUCCESS;
}

CUresult cuCtxPopCurrent_v2(CUcontext *context)
{
    if (depth == 0) return NO_CONTEXT;
    *context = current[--depth];
    return CUDA_SUCCESS;
}

CUresult cuCtxGetCurrent(CUcontext *context)
{
    *context = depth ? current[depth - 1] : NULL;
    return CUDA_SUCCESS;
}

/* The device that is current, or -1. */
static int current_device(void) { return depth ? *(const int *)current[depth - 1] : -1; }

/* A stream, which stays at its address when it is destroyed; the null stream fits any device. */
typedef struct queue {
    struct queue *next; /* made before it */
    int device, destroyed, blocks;
} queue;
static queue *queues;

int stream_blocks(CUstream stream) { return ((const queue *)stream)->blocks; }

static void check_stream(CUstream stream)
{
    if (stream && ((const queue *)stream)->destroyed) misused("a stream is used after its end");
}

/* Does or keeps the work for a stream of the current device. */
static CUresult in_stream(CUstream stream, graph_work work, const void *arguments, size_t bytes)
{
    check_stream(stream);
    if (current_device() < 0) return NO_CONTEXT;
    if (stream && ((const queue *)stream)->device != current_device()) return INVALID;
    return graph_do(stream, work, arguments, bytes);
}

/* ---- kernels ------------------------------------------------------------------------------ */

CUresult cuModuleLoadData(CUmodule *module, const void *image)
{
    *module = (CUmodule)&mutex;
    return gpu_loads(image) ? graph_forbids() : INVALID;
}

CUresult cuModuleUnload(CUmodule module)
{
    (void)module;
    return graph_forbids();
}

CUresult cuModuleGetFunction(CUfunction *function, CUmodule module, const char *name)
{
    (void)module;
    *function = gpu_kernel(name);
    return *function ? CUDA_SUCCESS : NOT_FOUND;
}

/* How much dynamic shared memory a kernel may be launched with: as much as it was granted, which is
 * no more than the device has, or DEFAULT_SHARED. */
enum { DEFAULT_SHARED = 48 * 1024, MOST_GRANTS = 256 };
static struct {
    CUfunction function;
    int bytes;
} grants[MOST_GRANTS];

/* The function's place in grants; the first free one if it was granted nothing. */
static int grant_of(CUfunction function)
{
    int i = 0;
    while (i < MOST_GRANTS - 1 && grants[i].function && grants[i].function != function) i++;
    return i;
}

static int is_granted(CUfunction function, unsigned shared)
{
    int i, bytes;
    pthread_mutex_lock(&mutex);
    i = grant_of(function);
    bytes = grants[i].function == function ? grants[i].bytes : DEFAULT_SHARED;
    pthread_mutex_unlock(&mutex);
    return shared <= (unsigned)(bytes > DEFAULT_SHARED ? bytes : DEFAULT_SHARED);
}

CUresult cuFuncSetAttribute(CUfunction function, int attribute, int value)
{
    int i;
    if (attribute != CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES) return CUDA_SUCCESS;
    if (value < 0 || value > gpu.shared) return INVALID;
    pthread_mutex_lock(&mutex);
    i = grant_of(function);
    grants[i].function = function;
    grants[i].bytes = value;
    pthread_mutex_unlock(&mutex);
    return CUDA_SUCCESS;
}

CUresult cuFuncLoad(CUfunction function)
{
    (void)function;
    return CUDA_SUCCESS;
}

CUresult cuOccupancyMaxActiveBlocksPerMultiprocessor(int *blocks, CUfunction function, int threads,
                                                     size_t shared)
{
    (void)function, (void)threads, (void)shared;
    *blocks = 1;
    return CUDA_SUCCESS;
}

typedef struct launch {
    CUfunction kernel;
    uint32_t blocks, threads;
    _Alignas(16) char arguments[GPU_ARGUMENTS];
} launch;

static CUresult do_launch(const void *arguments)
{
    const launch *l = arguments;
    int failed;
    pthread_mutex_lock(&mutex);
    failed = gpu_run(l->kernel, l->arguments, l->blocks, l->threads);
    pthread_mutex_unlock(&mutex);
    return failed ? LAUNCH_FAILED : CUDA_SUCCESS;
}

CUresult cuLaunchKernelEx(const CUlaunchConfig *config, CUfunction function, void **parameters,
                          void **extra)
{
    launch l = { function, config->grid[0], config->block[0], { 0 } };
    (void)extra;
    if (config->block[0] == 0 || config->block[0] > 1024 || config->block[0] % 32 != 0 ||
        config->grid[0] == 0 || gpu_arguments(function) > sizeof l.arguments ||
        !is_granted(function, config->shared))
        return INVALID;
    memcpy(l.arguments, parameters[0], gpu_arguments(function));
    return in_stream(config->stream, do_launch, &l, sizeof l);
}

/* ---- memory ------------------------------------------------------------------------------- */

/* Everything that was handed out: host memory (1) or a device's (2). */
typedef struct block {
    struct block *next;
    uintptr_t first;
    size_t bytes;
    unsigned kind;
    int device;
} block;
static block *blocks;

static int has_blocks(int device)
{
    const block *b;
    pthread_mutex_lock(&mutex);
    for (b = blocks; b && b->device != device;) b = b->next;
    pthread_mutex_unlock(&mutex);
    return b != NULL;
}

static CUresult allocate(void **data, size_t bytes, unsigned kind)
{
    block *b = malloc(sizeof *b);
    size_t room = bytes ? (bytes + 255) / 256 * 256 : 256;
    void *memory = bytes >> 36 ? NULL : aligned_alloc(256, room);
    CUresult refused = graph_forbids();
    if (refused == CUDA_SUCCESS && current_device() < 0) refused = NO_CONTEXT;
    if (!b || !memory || refused) {
        free(b);
        free(memory);
        return refused ? refused : NO_MEMORY;
    }
    memset(memory, 0xa5, room); /* fresh memory is not zero */
    pthread_mutex_lock(&mutex);
    b->next = blocks, b->first = (uintptr_t)memory, b->bytes = bytes, b->kind = kind;
    b->device = current_device();
    blocks = b;
    pthread_mutex_unlock(&mutex);
    *data = memory;
    return CUDA_SUCCESS;
}

static CUresult give_back(uintptr_t address)
{
    CUresult result = INVALID;
    if (graph_forbids()) return graph_forbids();
    pthread_mutex_lock(&mutex);
    for (block **at = &blocks; *at; at = &(*at)->next)
        if ((*at)->first == address) {
            block *b = *at;
            queue_forbids_freeing(b->first, b->bytes);
            *at = b->next;
            free((void *)b->first);
            free(b);
            result = CUDA_SUCCESS;
            break;
        }
    pthread_mutex_unlock(&mutex);
    return result;
}

CUresult cuMemAlloc_v2(CUdeviceptr *data, size_t bytes)
{
    void *memory;
    CUresult result = allocate(&memory, bytes, 2);
    if (result == CUDA_SUCCESS) *data = (uintptr_t)memory;
    return result;
}

CUresult cuMemAllocAsync(CUdeviceptr *data, size_t bytes, CUstream stream)
{
    (void)stream;
    return cuMemAlloc_v2(data, bytes);
}

CUresult cuMemFree_v2(CUdeviceptr data) { return data ? give_back((uintptr_t)data) : CUDA_SUCCESS; }

static CUresult do_free(const void *arguments)
{
    return cuMemFree_v2(*(const CUdeviceptr *)arguments);
}

CUresult cuMemFreeAsync(CUdeviceptr data, CUstream stream)
{
    check_stream(stream);
    return graph_forbids() ? graph_forbids() : queue_do(stream, do_free, &data, sizeof data);
}

CUresult cuMemHostAlloc(void **data, size_t bytes, unsigned flags)
{
    (void)flags;
    return allocate(data, bytes, CU_MEMORYTYPE_HOST);
}

CUresult cuMemFreeHost(void *data) { return give_back((uintptr_t)data); }

CUresult cuMemHostGetDevicePointer_v2(CUdeviceptr *device, void *host, unsigned flags)
{
    (void)flags;
    *device = (uintptr_t)host;
    return CUDA_SUCCESS;
}

/* For memory that was not handed out and is not the device's, every answer is 0. */
CUresult cuPointerGetAttributes(unsigned count, int *attributes, void **values, CUdeviceptr address)
{
    static const block none, device = { .bytes = SIZE_MAX, .kind = 2 };
    const block *b;
    pthread_mutex_lock(&mutex);
    for (b = blocks; b && (uintptr_t)address - b->first >= b->bytes;) b = b->next;
    if (!b) b = gpu.elsewhere == 2 ? &device : &none;
    for (unsigned i = 0; i < count; i++) switch (attributes[i]) {
        case CU_POINTER_ATTRIBUTE_MEMORY_TYPE: *(unsigned *)values[i] = b->kind; break;
        case CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL: *(int *)values[i] = b->device; break;
        case CU_POINTER_ATTRIBUTE_RANGE_START_ADDR: *(CUdeviceptr *)values[i] = b->first; break;
        case CU_POINTER_ATTRIBUTE_RANGE_SIZE: *(size_t *)values[i] = b->bytes; break;
        default: count = 0;
        }
    pthread_mutex_unlock(&mutex);
    return count ? CUDA_SUCCESS : INVALID;
}

typedef struct copy {
    CUdeviceptr to, from;
    size_t bytes;
} copy;

static CUresult do_copy(const void *arguments)
{
    const copy *c = arguments;
    memmove((void *)(uintptr_t)c->to, (const void *)(uintptr_t)c->from, c->bytes);
    return CUDA_SUCCESS;
}

static CUresult do_staged_copy(const void *arguments)
{
    const copy *c = arguments;
    CUresult result = do_copy(arguments);
    free((void *)(uintptr_t)c->from);
    return result;
}

static int is_known(CUdeviceptr address)
{
    int attribute = CU_POINTER_ATTRIBUTE_MEMORY_TYPE;
    unsigned type = 0;
    void *value = &type;
    cuPointerGetAttributes(1, &attribute, &value, address);
    return type != 0;
}

/* In late streams ordinary memory is read at once, and written before the call returns, as in
 * CUDA. */
static CUresult copy_late(copy c, CUstream stream)
{
    CUresult result;
    graph_work work = do_copy;
    if (!is_known(c.from)) {
        void *staged = malloc(c.bytes);
        if (!staged) return NO_MEMORY;
        memcpy(staged, (const void *)(uintptr_t)c.from, c.bytes);
        c.from = (uintptr_t)staged;
        work = do_staged_copy;
    }
    result = in_stream(stream, work, &c, sizeof c);
    return result == CUDA_SUCCESS && !is_known(c.to) ? queue_finish(stream) : result;
}

CUresult cuMemcpyAsync(CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream stream)
{
    const copy c = { to, from, bytes };
    return queue_is_late() ? copy_late(c, stream) : in_stream(stream, do_copy, &c, sizeof c);
}

typedef struct fill {
    CUdeviceptr to;
    size_t bytes;
    unsigned char byte;
} fill;

static CUresult do_fill(const void *arguments)
{
    const fill *f = arguments;
    memset((void *)(uintptr_t)f->to, f->byte, f->bytes);
    return CUDA_SUCCESS;
}

CUresult cuMemsetD8Async(CUdeviceptr to, unsigned char byte, size_t count, CUstream stream)
{
    const fill f = { to, count, byte };
    return in_stream(stream, do_fill, &f, sizeof f);
}

/* ---- streams ----------------------------------------------------------------------------- */

CUresult cuStreamCreate(CUstream *stream, unsigned flags)
{
    queue *made;
    if (current_device() < 0) return NO_CONTEXT;
    if (graph_forbids()) return graph_forbids();
    made = malloc(sizeof *made);
    if (!made) return NO_MEMORY;
    made->device = current_device();
    made->destroyed = 0;
    made->blocks = !(flags & CU_STREAM_NON_BLOCKING);
    pthread_mutex_lock(&mutex);
    made->next = queues;
    queues = made;
    pthread_mutex_unlock(&mutex);
    *stream = (CUstream)made;
    return CUDA_SUCCESS;
}

CUresult cuStreamDestroy_v2(CUstream stream)
{
    check_stream(stream);
    if (graph_forbids()) return graph_forbids();
    queue_finish(stream);
    ((queue *)stream)->destroyed = 1;
    return CUDA_SUCCESS;
}

/* The queues of streams stay when these are destroyed, so that a later use is noticed. */
static __attribute__((destructor)) void free_queues(void)
{
    while (queues) {
        queue *next = queues->next;
        free(queues);
        queues = next;
    }
}

CUresult cuStreamSynchronize(CUstream stream)
{
    check_stream(stream);
    return graph_forbids_waiting(stream) ? graph_forbids_waiting(stream) : queue_finish(stream);
}

/* With LANES_STUCK in the environment, no stream is ever found to be done. */
CUresult cuStreamQuery(CUstream stream)
{
    check_stream(stream);
    if (getenv("LANES_STUCK")) return CUDA_ERROR_NOT_READY;
    return graph_forbids_waiting(stream) ? graph_forbids_waiting(stream) : queue_finish(stream);
}
