/* backend.c - the CUDA backend: its table, and how it is opened and closed. It uses the GPU's
 * primary context, as frameworks do. During a call this is the calling thread's current context;
 * after the call, the thread's own current context is restored. */
#include <stdlib.h>
#include <string.h>

#include "cuda/capture.h"
#include "cuda/cuda.h"
#include "cuda/head.h"

/* The kernels, embedded by tools/kernel.sh; size 0: built without nvcc. */
extern const uint64_t sb_fatbin_logprob_size;
#define IMAGE(file, LIST) extern const unsigned char sb_fatbin_##file[];
SB_CUDA_MODULES(IMAGE)

static sb_status has_kernels(sb_message *why)
{
    if (sb_fatbin_logprob_size != 0) return SB_OK;
    return sb_fail(why, SB_ERR_BACKEND, "the library was built without nvcc: it holds no kernels");
}

static sb_status probe(int ordinal, sb_message *why)
{
    sb_cuda_driver driver;
    CUdevice device;
    char isa[16];
    sb_status status = has_kernels(why);
    if (status != SB_OK) return status;
    status = sb_cuda_driver_load(&driver, why);
    if (status != SB_OK) return status;
    status = sb_cuda_find_device(&driver, ordinal, &device, isa, why);
    sb_cuda_driver_unload(&driver);
    return status;
}

/* ---- opening and closing ------------------------------------------------------------------ */

#define LOADER(file, LIST)                                                                         \
    static sb_status load_##file(sb_cuda_##file##_kernels *kernels, const sb_cuda_driver *driver,  \
                                 sb_message *why)                                                  \
    {                                                                                              \
        SB_CUDA_LOAD(sb_fatbin_##file, LIST)                                                       \
    }
SB_CUDA_MODULES(LOADER)

/* What the driver says of the GPU. */
static sb_status ask_gpu(sb_cuda *c, sb_message *why)
{
    const int capability = atoi(c->isa + 3);
    sb_cuda_gpu *gpu = &c->gpu;
    const struct {
        int *value, attribute;
    } questions[] = {
        { &gpu->multiprocessors, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT },
        { &gpu->shared, CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN },
        { &gpu->clock, CU_DEVICE_ATTRIBUTE_CLOCK_RATE },
        { &gpu->memory_clock, CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE },
        { &gpu->memory_bits, CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH },
    };
    for (size_t i = 0; i < sizeof questions / sizeof *questions; i++)
        DRIVER(why, &c->driver, DeviceGetAttribute, questions[i].value, questions[i].attribute,
               c->device);
    c->hopper = capability >= 90;
    gpu->clusters = capability < 90 ? 0 : capability < 110 ? SB_CUDA_MAX_CLUSTER : 8;
    return SB_OK;
}

/* How many clusters of each size run at once. All cluster kernels are alike in what they need. */
static sb_status ask_room(sb_cuda *c, sb_message *why)
{
    const sb_cuda_plan p = { .kind = SB_CUDA_CLUSTER, .threads = SB_CUDA_MAX_BLOCK };
    CUlaunchAttribute cluster;
    CUlaunchConfig config;
    memset(&cluster, 0, sizeof cluster);
    memset(&config, 0, sizeof config);
    cluster.id = CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION;
    cluster.value.dimension[1] = cluster.value.dimension[2] = 1;
    config.block[0] = (unsigned)sb_cuda_block(&p);
    config.grid[1] = config.grid[2] = config.block[1] = config.block[2] = 1;
    config.shared = sb_cuda_shared(&p, SB_BF16);
    config.attributes = &cluster;
    config.attribute_count = 1;
    for (int n = 2; n <= c->gpu.clusters; n++) {
        cluster.value.dimension[0] = config.grid[0] = (unsigned)n;
        DRIVER(why, &c->driver, OccupancyMaxActiveClusters, &c->gpu.room[n],
               c->logprob.logprob_bf16_cluster, &config);
    }
    return SB_OK;
}

static sb_status load_kernels(sb_cuda *c, sb_message *why)
{
    sb_status status = ask_gpu(c, why);
#define LOAD(file, LIST)                                                                           \
    if (status == SB_OK) status = load_##file(&c->file, &c->driver, why);
    SB_CUDA_MODULES(LOAD)
    if (status == SB_OK) status = sb_cuda_logprob_prepare(c, why);
    if (status == SB_OK) status = sb_cuda_order_prepare(c, why);
    if (status == SB_OK) status = sb_cuda_sample_prepare(c, why);
    if (status == SB_OK) status = sb_cuda_kl_prepare(c, why);
    if (status == SB_OK) status = sb_cuda_one_read_prepare(c, why);
    if (status == SB_OK) status = sb_cuda_head_prepare(c, why);
    return status == SB_OK ? ask_room(c, why) : status;
}

static void close_driver(sb_cuda *c)
{
    CUcontext popped;
    const int mode = sb_cuda_beside_captures_begin(&c->driver);
    if (c->context && c->driver.CtxPushCurrent(c->context) == CUDA_SUCCESS) {
        sb_cuda_reports_close(&c->reports, &c->driver); /* waits for the kernels that write there */
#define UNLOAD(file, LIST)                                                                         \
    if (c->file.module) c->driver.ModuleUnload(c->file.module);
        SB_CUDA_MODULES(UNLOAD)
        if (c->conventional.module) c->driver.ModuleUnload(c->conventional.module);
        c->driver.CtxPopCurrent(&popped);
    }
    if (c->context) c->driver.DevicePrimaryCtxRelease(c->device);
    sb_cuda_beside_captures_end(&c->driver, mode);
    sb_cuda_driver_unload(&c->driver);
}

static void close_state(sb_cuda *c)
{
    sb_nccl_unload(&c->nccl);
    if (c->driver.library) close_driver(c);
    free(c);
}

static sb_status open_device(sb_cuda *c, sb_message *why)
{
    CUcontext popped;
    sb_status status = sb_cuda_find_device(&c->driver, c->ordinal, &c->device, c->isa, why);
    if (status != SB_OK) return status;
    DRIVER(why, &c->driver, DevicePrimaryCtxRetain, &c->context, c->device);
    DRIVER(why, &c->driver, CtxPushCurrent, c->context);
    status = load_kernels(c, why);
    if (status == SB_OK) status = sb_cuda_reports_open(&c->reports, &c->driver, why);
    c->driver.CtxPopCurrent(&popped);
    return status;
}

static sb_status open_state(sb_cuda *c, sb_message *why)
{
    sb_status status = has_kernels(why);
    int mode;
    if (status == SB_OK) status = sb_cuda_driver_load(&c->driver, why);
    if (status != SB_OK) return status;
    mode = sb_cuda_beside_captures_begin(&c->driver);
    status = open_device(c, why);
    sb_cuda_beside_captures_end(&c->driver, mode);
    return status;
}

static sb_status open_cuda(sb_context *ctx, int ordinal, const sb_open_options *options,
                           sb_message *why)
{
    sb_cuda *c = calloc(1, sizeof *c);
    sb_status status;
    (void)options;
    if (!c) return sb_fail(why, SB_ERR_MEMORY, "no memory for the cuda backend");
    c->ordinal = ordinal;
    status = open_state(c, why);
    if (status != SB_OK) {
        close_state(c);
        return status;
    }
    ctx->state = c;
    return SB_OK;
}

static void close_cuda(sb_context *ctx)
{
    sb_cuda *c = ctx->state;
    if (c->inherited) free(c);
    else close_state(c);
}

static void inherit_cuda(sb_context *ctx, int torn)
{
    sb_cuda *c = ctx->state;
    (void)torn;
    c->inherited = 1;
}

static const char *isa_of(const sb_context *ctx) { return ((const sb_cuda *)ctx->state)->isa; }

static int32_t threads_of(const sb_context *ctx)
{
    return ((const sb_cuda *)ctx->state)->gpu.multiprocessors;
}

/* ---- enter and leave ---------------------------------------------------------------------- */

static sb_status enter(sb_context *ctx)
{
    const sb_cuda *c = ctx->state;
    DRIVER(&ctx->error, &c->driver, CtxPushCurrent, c->context);
    return SB_OK;
}

static void leave(sb_context *ctx)
{
    const sb_cuda *c = ctx->state;
    CUcontext popped;
    c->driver.CtxPopCurrent(&popped);
}

/* ---- the table ---------------------------------------------------------------------------- */

static const sb_device device = {
    .begin = sb_cuda_begin,
    .end = sb_cuda_end,
    .check = sb_cuda_check,
    .memory_alloc = sb_cuda_memory_alloc,
    .memory_free = sb_cuda_memory_free,
    .memory_copy = sb_cuda_memory_copy,
    .stream_create = sb_cuda_stream_create,
    .stream_destroy = sb_cuda_stream_destroy,
    .stream_wait = sb_cuda_stream_wait,
};

static const sb_comms comms = {
    .new_id = sb_cuda_comm_new_id,
    .create = sb_cuda_comm_create,
    .destroy = sb_cuda_comm_destroy,
    .abort = sb_cuda_comm_abort,
};

#define SLOT(NUMBER, name, scratch, what)                                                          \
    [SB_OP_##NUMBER] = { sb_cuda_##name, SLOT_##scratch(sb_cuda_##name##_workspace) },
#define SLOT_SCRATCH(workspace) workspace
#define SLOT_NONE(workspace) NULL

const sb_backend sb_backend_cuda = {
    .name = "cuda",
    .kept_sets = 1,
    .probe = probe,
    .open = open_cuda,
    .close = close_cuda,
    .inherit = inherit_cuda,
    .lost_by_fork = "the context was opened before fork(): CUDA does not work in a child of a "
                    "process that uses it; start the child by exec (spawn), or fork first",
    .isa = isa_of,
    .threads = threads_of,
    .enter = enter,
    .leave = leave,
    .ops = { [SB_OP_CONVENTIONAL] = { sb_conventional_cuda, NULL },
             SB_OPERATIONS(SLOT) SB_DEVICE_OPERATIONS(SLOT) },
    .device = &device,
    .comms = &comms,
    .heads = &sb_cuda_heads,
};
