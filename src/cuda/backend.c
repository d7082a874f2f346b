/* backend.c - the CUDA backend: finding a GPU, checking pointers, choosing a launch, and
 * reading what kernels report. No arithmetic but the row constants of a call's one temperature,
 * which are det/row.h's. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cuda/cuda.h"
#include "control/conventional.h"
#include "cuda/capture.h"
#include "cuda/plan.h"
#include "cuda/report.h"
#include "det/leaf.h"

#define MAX_GRID 0x7fffffff

/* The kernels, as tools/kernel.sh embedded them; size 0: built without nvcc. */
extern const unsigned char sb_fatbin_logprob[];
extern const uint64_t sb_fatbin_logprob_size;
extern const unsigned char sb_fatbin_conventional[];

#define KERNELS(X)                                                                                 \
    X(logprob_f32)                                                                                 \
    X(logprob_f16)                                                                                 \
    X(logprob_bf16)                                                                                \
    X(logprob_f32_latency)                                                                         \
    X(logprob_f16_latency)                                                                         \
    X(logprob_bf16_latency)                                                                        \
    X(logprob_f32_cluster)                                                                         \
    X(logprob_f16_cluster)                                                                         \
    X(logprob_f32_kept)                                                                            \
    X(logprob_f16_kept)                                                                            \
    X(logprob_bf16_kept)                                                                           \
    X(logprob_bf16_cluster)                                                                        \
    X(logprob_finish)                                                                              \
    X(sequence_sums)

/* The control group's: loaded by the first call that asks for it. */
#define CONVENTIONAL_KERNELS(X)                                                                    \
    X(conventional_f32)                                                                            \
    X(conventional_f16)                                                                            \
    X(conventional_bf16)                                                                           \
    X(conventional_finish)                                                                         \
    X(conventional_sums)

typedef struct cuda {
    int inherited; /* opened in a parent process: the driver is out of reach */
    sb_cuda_driver driver;
    CUdevice device;
    int ordinal;
    CUcontext context; /* the primary one */
    CUmodule module;
    CUmodule conventional; /* null until it is asked for */
#define KERNEL_FIELD(name) CUfunction name;
    KERNELS(KERNEL_FIELD)
    CONVENTIONAL_KERNELS(KERNEL_FIELD)
    int multiprocessors;
    int hopper;   /* compute capability 9.0: clusters, and kernels set up early */
    int clusters; /* the most blocks of one */
    sb_cuda_reports reports;
    int word;     /* of reports: the one that the call under way reports into */
    int launched; /* whether kernels of it may be on their way */
    char isa[16]; /* "sm_90" */
    sb_cuda_shards shards;
    sb_cuda_order order;
    sb_cuda_stats stats;
    sb_cuda_entropy entropy;
    sb_cuda_gradients gradients;
    sb_nccl nccl;
    sb_cuda_kls kls;
} cuda;

/* ---- opening ------------------------------------------------------------------------------ */

static sb_status find_device(const sb_cuda_driver *driver, int ordinal, CUdevice *device,
                             char isa[16], sb_message *why)
{
    int count = 0, major = 0, minor = 0;
    char name[96] = "";
    CUresult result = driver->DeviceGetCount(&count);
    if (result != CUDA_SUCCESS || count == 0) {
        char text[64];
        return sb_fail(why, SB_ERR_BACKEND, "there is no CUDA device: cuDeviceGetCount gave %s, %d",
                       sb_cuda_error(driver, result, text), count);
    }
    if (ordinal >= count)
        return sb_fail(why, SB_ERR_BACKEND, "there is no CUDA device %d: there are %d", ordinal,
                       count);
    DRIVER(why, driver, DeviceGet, device, ordinal);
    DRIVER(why, driver, DeviceGetAttribute, &major, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR,
           *device);
    DRIVER(why, driver, DeviceGetAttribute, &minor, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR,
           *device);
    if (major < 8) {
        driver->DeviceGetName(name, sizeof name, *device);
        return sb_fail(why, SB_ERR_BACKEND,
                       "CUDA device %d (%s) has compute capability %d.%d; 8.0 is needed", ordinal,
                       name, major, minor);
    }
    snprintf(isa, 16, "sm_%d%d", major, minor);
    return SB_OK;
}

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
    status = find_device(&driver, ordinal, &device, isa, why);
    sb_cuda_driver_unload(&driver);
    return status;
}

/* Makes the context current; leave undoes it. */
static sb_status enter(sb_context *ctx)
{
    cuda *c = ctx->state;
    DRIVER(&ctx->error, &c->driver, CtxPushCurrent, c->context);
    return SB_OK;
}

static sb_status leave(sb_context *ctx, sb_status status)
{
    cuda *c = ctx->state;
    CUcontext popped;
    c->driver.CtxPopCurrent(&popped);
    return status;
}

/* What the kernels for few rows need: much shared memory, and clusters of 16. */
static sb_status prepare_few(cuda *c, sb_message *why)
{
    const CUfunction kernels[] = { c->logprob_f32_cluster,  c->logprob_f16_cluster,
                                   c->logprob_bf16_cluster, c->logprob_f32_latency,
                                   c->logprob_f16_latency,  c->logprob_bf16_latency };
    for (int i = 0; i < 6; i++) {
        DRIVER(why, &c->driver, FuncSetAttribute, kernels[i],
               CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, SB_CUDA_MAX_SHARED);
        DRIVER(why, &c->driver, FuncSetAttribute, kernels[i],
               CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT, 100);
        if (i < 3 && c->clusters > 8)
            DRIVER(why, &c->driver, FuncSetAttribute, kernels[i],
                   CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED, 1);
    }
    return SB_OK;
}

static sb_status load_kernels(cuda *c, sb_message *why)
{
    const int capability = atoi(c->isa + 3);
    sb_status status;
    DRIVER(why, &c->driver, DeviceGetAttribute, &c->multiprocessors,
           CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, c->device);
    c->hopper = capability >= 90;
    c->clusters = capability < 90 ? 0 : capability < 110 ? 16 : 8;
    DRIVER(why, &c->driver, ModuleLoadData, &c->module, sb_fatbin_logprob);
    /* Loaded now: the driver's lazy loading could not happen under a graph capture. */
#define KERNEL_LOAD(name)                                                                          \
    DRIVER(why, &c->driver, ModuleGetFunction, &c->name, c->module, #name);                        \
    DRIVER(why, &c->driver, FuncLoad, c->name);
    KERNELS(KERNEL_LOAD)
    status = sb_cuda_shards_load(&c->shards, &c->driver, why);
    if (status == SB_OK) status = sb_cuda_order_load(&c->order, &c->driver, why);
    if (status == SB_OK) status = sb_cuda_stats_load(&c->stats, &c->driver, why);
    if (status == SB_OK) status = sb_cuda_entropy_load(&c->entropy, &c->driver, why);
    if (status == SB_OK) status = sb_cuda_gradients_load(&c->gradients, &c->driver, why);
    if (status == SB_OK) status = sb_cuda_kls_load(&c->kls, &c->driver, why);
    return status == SB_OK ? prepare_few(c, why) : status;
}

static void close_driver(cuda *c)
{
    CUcontext popped;
    const int mode = sb_cuda_beside_captures_begin(&c->driver);
    if (c->context && c->driver.CtxPushCurrent(c->context) == CUDA_SUCCESS) {
        sb_cuda_reports_close(&c->reports, &c->driver); /* waits for the kernels that write there */
        if (c->module) c->driver.ModuleUnload(c->module);
        if (c->conventional) c->driver.ModuleUnload(c->conventional);
        if (c->shards.module) c->driver.ModuleUnload(c->shards.module);
        if (c->order.module) c->driver.ModuleUnload(c->order.module);
        if (c->stats.module) c->driver.ModuleUnload(c->stats.module);
        if (c->entropy.module) c->driver.ModuleUnload(c->entropy.module);
        if (c->gradients.module) c->driver.ModuleUnload(c->gradients.module);
        if (c->kls.module) c->driver.ModuleUnload(c->kls.module);
        c->driver.CtxPopCurrent(&popped);
    }
    if (c->context) c->driver.DevicePrimaryCtxRelease(c->device);
    sb_cuda_beside_captures_end(&c->driver, mode);
    sb_cuda_driver_unload(&c->driver);
}

static void close_state(cuda *c)
{
    sb_nccl_unload(&c->nccl);
    if (c->driver.library) close_driver(c);
    free(c);
}

static sb_status open_device(cuda *c, sb_message *why)
{
    CUcontext popped;
    sb_status status = find_device(&c->driver, c->ordinal, &c->device, c->isa, why);
    if (status != SB_OK) return status;
    DRIVER(why, &c->driver, DevicePrimaryCtxRetain, &c->context, c->device);
    DRIVER(why, &c->driver, CtxPushCurrent, c->context);
    status = load_kernels(c, why);
    if (status == SB_OK) status = sb_cuda_reports_open(&c->reports, &c->driver, why);
    c->driver.CtxPopCurrent(&popped);
    return status;
}

static sb_status open_state(cuda *c, sb_message *why)
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
    cuda *c = calloc(1, sizeof *c);
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
    cuda *c = ctx->state;
    if (c->inherited) free(c);
    else close_state(c);
}

static void inherit_cuda(sb_context *ctx, int torn)
{
    (void)torn;
    ((cuda *)ctx->state)->inherited = 1;
}

static const char *isa_of(const sb_context *ctx) { return ((const cuda *)ctx->state)->isa; }

static int32_t threads_of(const sb_context *ctx)
{
    return ((const cuda *)ctx->state)->multiprocessors;
}

/* ---- a call ------------------------------------------------------------------------------- */

static uint64_t workspace(sb_context *ctx, const sb_logprob_out *out, const sb_call *call)
{
    const cuda *c = ctx->state;
    sb_cuda_plan p = sb_cuda_plan_of(c->multiprocessors, c->clusters, out, call);
    if (out->entropy) return sb_cuda_entropy_workspace(ctx, out, call);
    return p.states + p.targets + p.tokens;
}

static sb_cuda_args args_of(const cuda *c, const sb_logprob_out *out, const sb_call *call,
                            const sb_cuda_plan *p, CUdeviceptr scratch)
{
    const sb_batch *in = &call->in;
    sb_cuda_args a;
    memset(&a, 0, sizeof a);
    a.logits = sb_cuda_address(in->logits);
    a.cu_seqlens = sb_cuda_address(in->cu_seqlens);
    a.ids = sb_cuda_address(in->ids);
    a.mask = sb_cuda_address(in->mask);
    a.temperatures = sb_cuda_address(in->temperatures);
    a.row_list = sb_cuda_address(in->row_list);
    a.kept = sb_cuda_address(in->kept);
    a.kept_stride = in->kept_stride;
    a.width = call->width;
    a.token = sb_cuda_address(out->token);
    a.lse = sb_cuda_address(out->lse);
    a.sequence = sb_cuda_address(out->sequence);
    a.count = sb_cuda_address(out->count);
    a.outside = sb_cuda_address(out->outside);
    a.entropy = sb_cuda_address(out->entropy);
    a.saved = sb_cuda_address(out->saved);
    a.states = scratch;
    a.targets = scratch + p->states;
    a.tokens = p->tokens ? scratch + p->states + p->targets : a.token;
    a.ahead = p->kind == SB_CUDA_STREAM && p->whole
                  ? (int64_t)c->multiprocessors * (1536 / p->threads)
                  : 0;
    a.work = p->work;
    a.rows = call->rows;
    a.batch = in->batch;
    a.time = in->time;
    a.vocab = in->vocab;
    a.row_stride = in->row_stride;
    a.batch_stride = in->batch_stride;
    a.row_count = in->row_count;
    a.ignore_index = in->ignore_index;
    a.piece = p->piece;
    a.whole = p->whole;
    a.split = p->split;
    a.cu_seqlens_dtype = in->cu_seqlens_dtype;
    a.ids_dtype = in->ids_dtype;
    a.itemsize = in->logits_dtype == SB_F32 ? 4 : 2;
    a.shift = in->shift;
    a.flat = in->cu_seqlens || in->batch <= 1 || in->batch_stride == in->time * in->row_stride;
    a.phases = sb_cuda_has_phases(call) && a.flat && !in->row_list && p->whole && p->work >= 64;
    a.simple = a.flat && !in->mask && !in->row_list && !in->temperatures && !in->shift;
    a.eager = a.simple && p->eager;
    a.logits_dtype = in->logits_dtype;
    a.temperature = in->temperature;
    a.row = sb_row_of(in->temperature);
    return a;
}

/* early: the kernel may be set up while the one before it runs, and waits for it by itself.
 * cluster: blocks in one, or 0. */
typedef struct shape {
    int64_t blocks;
    int32_t threads, cluster;
    int early;
    uint32_t shared; /* bytes */
} shape;

static sb_status launch(sb_context *ctx, CUfunction kernel, shape grid, sb_cuda_args *a,
                        CUstream stream)
{
    cuda *c = ctx->state;
    void *parameters[] = { a };
    CUlaunchAttribute attributes[2];
    CUlaunchConfig config;
    unsigned count = 0;
    if (grid.blocks == 0) return SB_OK;
    if (grid.blocks > MAX_GRID)
        return sb_fail(&ctx->error, SB_ERR_SHAPE,
                       "%" PRId64 " blocks are more than a grid holds (2^31 - 1)", grid.blocks);
    memset(attributes, 0, sizeof attributes);
    memset(&config, 0, sizeof config);
    if (grid.cluster) {
        attributes[count].id = CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION;
        attributes[count].value.dimension[0] = (unsigned)grid.cluster;
        attributes[count].value.dimension[1] = attributes[count].value.dimension[2] = 1;
        count++;
    }
    if (grid.early && c->hopper) {
        attributes[count].id = CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION;
        attributes[count].value.integer = 1;
        count++;
    }
    config.grid[0] = (unsigned)grid.blocks;
    config.block[0] = (unsigned)grid.threads;
    config.grid[1] = config.grid[2] = config.block[1] = config.block[2] = 1;
    config.shared = grid.shared;
    config.stream = stream;
    config.attributes = attributes;
    config.attribute_count = count;
    a->bad = sb_cuda_word_address(&c->reports, c->word);
    c->launched = 1;
    DRIVER(&ctx->error, &c->driver, LaunchKernelEx, &config, kernel, parameters, NULL);
    return SB_OK;
}

sb_status sb_cuda_clear_unlisted(sb_context *ctx, const sb_call *call, const sb_cuda_args *a)
{
    const uint64_t outputs[] = { a->tokens, a->lse, a->entropy };
    const uint64_t rows = (uint64_t)call->rows;
    CUstream stream = call->launch.stream;
    sb_status status = SB_OK;
    if (!call->in.row_list) return SB_OK;
    for (size_t i = 0; i < sizeof outputs / sizeof *outputs && status == SB_OK; i++)
        status = sb_cuda_clear(ctx, outputs[i], rows * sizeof(float), stream);
    if (status == SB_OK) status = sb_cuda_clear(ctx, a->saved, rows * sizeof(sb_saved_row), stream);
    return status;
}

/* A warp an item, 8 a block. */
static shape warps_for(int64_t items, int early)
{
    shape grid = { (items + 7) / 8, 256, 0, early, 0 };
    return grid;
}

#define OF_DTYPE(c, dtype, suffix)                                                                 \
    ((dtype) == SB_F32   ? (c)->logprob_f32##suffix                                                \
     : (dtype) == SB_F16 ? (c)->logprob_f16##suffix                                                \
                         : (c)->logprob_bf16##suffix)

static CUfunction kernel_for(const cuda *c, int32_t dtype, const sb_cuda_plan *p)
{
    if (p->kind == SB_CUDA_KEPT) return OF_DTYPE(c, dtype, _kept);
    if (p->kind == SB_CUDA_CLUSTER) return OF_DTYPE(c, dtype, _cluster);
    return p->kind == SB_CUDA_FEW ? OF_DTYPE(c, dtype, _latency) : OF_DTYPE(c, dtype, );
}

static sb_status run(sb_context *ctx, const sb_logprob_out *out, const sb_call *call,
                     const sb_cuda_plan *p, CUdeviceptr scratch)
{
    cuda *c = ctx->state;
    CUstream stream = call->launch.stream;
    sb_cuda_args a = args_of(c, out, call, p, scratch);
    int32_t dtype = call->in.logits_dtype;
    shape grid = { sb_cuda_blocks(p), sb_cuda_block(p), p->kind == SB_CUDA_CLUSTER ? p->split : 0,
                   p->kind == SB_CUDA_FEW || p->kind == SB_CUDA_CLUSTER, sb_cuda_shared(p, dtype) };
    sb_status status = sb_cuda_clear_unlisted(ctx, call, &a);

    if (status == SB_OK && (a.tokens || a.lse || a.saved || call->launch.check)) {
        status = launch(ctx, kernel_for(c, dtype, p), grid, &a, stream);
        if (status == SB_OK && p->states)
            status = launch(ctx, c->logprob_finish, warps_for(p->work - p->whole, 1), &a, stream);
    }
    if (status == SB_OK && (out->sequence || out->count || out->outside))
        status = launch(ctx, c->sequence_sums, warps_for(call->in.batch, 0), &a, stream);
    return status;
}

/* ---- what kernels report ------------------------------------------------------------------ */

/* Which word the kernels of a call report into. A check waits, which nothing can do under a
 * capture. */
static sb_status choose_word(cuda *c, const sb_launch *launch, sb_message *why)
{
    uint64_t capture;
    const int captured = sb_cuda_is_captured(&c->driver, launch->stream, &capture);
    if (captured && launch->check)
        return sb_fail(why, SB_ERR_ARGUMENT,
                       "check must be 0 in a call that is captured into a graph: see sb_check");
    c->launched = 0;
    c->word = launch->check ? SB_CUDA_CHECKED
              : captured    ? sb_cuda_word_of_capture(&c->reports, capture)
                            : sb_cuda_word_of_stream(&c->reports, launch->stream);
    return SB_OK;
}

/* A call with a check that failed may have kernels on their way. They must not report into the next
 * call's word. */
static void abandon_check(cuda *c, const sb_launch *launch)
{
    if (!launch->check) return;
    if (c->launched) c->driver.StreamSynchronize(launch->stream);
    sb_cuda_take_report(&c->reports, SB_CUDA_CHECKED);
}

sb_status sb_cuda_inside(sb_context *ctx, const sb_launch *launch, sb_cuda_work work,
                         void *arguments)
{
    sb_status status = enter(ctx);
    if (status != SB_OK) return status;
    if (launch) status = choose_word(ctx->state, launch, &ctx->error);
    if (status != SB_OK) return leave(ctx, status);
    status = work(ctx, arguments);
    if (status != SB_OK && launch) abandon_check(ctx->state, launch);
    return leave(ctx, status);
}

static sb_status check_entered(sb_context *ctx, void *stream)
{
    cuda *c = ctx->state;
    sb_status status = sb_cuda_wait(&c->driver, stream, &ctx->error);
    if (status != SB_OK) return status;
    return sb_cuda_name(ctx, sb_cuda_take_any_report(&c->reports, stream));
}

static sb_status check(sb_context *ctx, void *stream)
{
    return sb_cuda_inside(ctx, NULL, check_entered, stream);
}

sb_status sb_cuda_wait_for_report(sb_context *ctx, const sb_launch *launch, int64_t *report)
{
    cuda *c = ctx->state;
    *report = 0;
    DRIVER(&ctx->error, &c->driver, StreamSynchronize, launch->stream);
    c->launched = 0;
    *report = sb_cuda_take_report(&c->reports, SB_CUDA_CHECKED);
    return SB_OK;
}

sb_status sb_cuda_name(sb_context *ctx, int64_t report)
{
    return sb_cuda_name_report(&ctx->error, report);
}

sb_status sb_cuda_fetch(sb_context *ctx, const void **array, int64_t count, size_t size,
                        CUstream stream)
{
    cuda *c = ctx->state;
    size_t bytes = (size_t)count * size;
    const void *from = *array;
    void *copy;
    if (!from) return SB_OK;
    *array = NULL;
    copy = malloc(bytes ? bytes : 1);
    if (!copy) return sb_fail(&ctx->error, SB_ERR_MEMORY, "no memory to look for the bad row");
    if (bytes &&
        (c->driver.MemcpyAsync(sb_cuda_address(copy), sb_cuda_address(from), bytes, stream) ||
         c->driver.StreamSynchronize(stream))) {
        free(copy);
        return sb_fail(&ctx->error, SB_ERR_DEVICE, "the call's arrays could not be read back");
    }
    *array = copy;
    return SB_OK;
}

sb_status sb_cuda_find_first_bad(sb_context *ctx, const sb_call *call, const sb_records *records,
                                 const sb_gradient *gradient)
{
    sb_call host = *call;
    CUstream stream = call->launch.stream;
    const void *arrays[8] = { call->in.ids,
                              call->in.mask,
                              call->in.temperatures,
                              call->in.row_list,
                              call->in.cu_seqlens,
                              records ? records->states : NULL,
                              records ? records->targets : NULL,
                              gradient ? gradient->saved : NULL };
    const struct {
        int64_t count;
        size_t size;
    } shapes[8] = {
        { call->rows * call->width, call->in.ids_dtype == SB_I64 ? 8 : 4 },
        { call->rows, 1 },
        { call->rows, 4 },
        { call->in.row_count, 8 },
        { call->in.batch + 1, call->in.cu_seqlens_dtype == SB_I64 ? 8 : 4 },
        { call->rows, sb_state_size(records && records->moments) },
        { call->rows, sizeof(sb_target_record) },
        { call->rows, sizeof(sb_saved_row) },
    };
    sb_status status = SB_OK;
    int fetched = 0;
    for (; fetched < 8 && status == SB_OK; fetched++)
        status = sb_cuda_fetch(ctx, &arrays[fetched], shapes[fetched].count, shapes[fetched].size,
                               stream);
    if (status == SB_OK) {
        host.in.ids = arrays[0];
        host.in.mask = arrays[1];
        host.in.temperatures = arrays[2];
        host.in.row_list = arrays[3];
        host.in.cu_seqlens = arrays[4];
        status = sb_check_device_call(&host, &ctx->error);
        if (status == SB_OK && records) {
            const sb_records on_host = { (void *)(uintptr_t)arrays[5],
                                         (sb_target_record *)(uintptr_t)arrays[6],
                                         records->moments };
            status = sb_check_device_finish(&host, &on_host, &ctx->error);
        }
        if (status == SB_OK && gradient) {
            sb_gradient on_host = *gradient;
            on_host.saved = arrays[7];
            status = sb_check_device_saved(&host, &on_host, &ctx->error);
        }
    }
    for (int i = 0; i < fetched; i++) free((void *)(uintptr_t)arrays[i]);
    return status;
}

sb_status sb_cuda_check_call(sb_context *ctx, const sb_call *call, const sb_records *records,
                             const sb_gradient *gradient)
{
    int64_t report;
    sb_status status = sb_cuda_wait_for_report(ctx, &call->launch, &report);
    if (status != SB_OK || !report) return status;
    status = sb_cuda_find_first_bad(ctx, call, records, gradient);
    return status == SB_OK ? sb_cuda_name(ctx, report) : status;
}

sb_status sb_cuda_check_arguments(sb_context *ctx, const sb_logprob_out *out, const sb_call *call)
{
    if (call->launch.threads % 32 != 0 || call->launch.threads < 0 ||
        call->launch.threads > SB_CUDA_MAX_BLOCK)
        return sb_fail(&ctx->error, SB_ERR_ARGUMENT,
                       "threads is %d: it must be a multiple of 32 up to %d, or 0",
                       (int)call->launch.threads, SB_CUDA_MAX_BLOCK);
    if (call->launch.cluster < -1 || call->launch.cluster > 1)
        return sb_fail(&ctx->error, SB_ERR_ARGUMENT, "cluster is %d, not -1, 0 or 1",
                       (int)call->launch.cluster);
    return sb_cuda_check_call_arrays(ctx, out, call);
}

sb_status sb_cuda_scratch(sb_context *ctx, const sb_launch *launch, uint64_t needed,
                          CUdeviceptr *scratch)
{
    cuda *c = ctx->state;
    *scratch = sb_cuda_address(launch->workspace);
    if (*scratch && launch->workspace_size < needed)
        return sb_fail(&ctx->error, SB_ERR_ARGUMENT,
                       "the workspace has %" PRIu64 " bytes, the call needs %" PRIu64,
                       launch->workspace_size, needed);
    if (needed && !*scratch)
        DRIVER(&ctx->error, &c->driver, MemAllocAsync, scratch, needed, launch->stream);
    return SB_OK;
}

void sb_cuda_scratch_done(sb_context *ctx, const sb_launch *launch, CUdeviceptr scratch)
{
    cuda *c = ctx->state;
    if (scratch && !launch->workspace) c->driver.MemFreeAsync(scratch, launch->stream);
}

/* Puts a call's kernels into its stream. */
typedef sb_status (*runner)(sb_context *ctx, const sb_logprob_out *out, const sb_call *call,
                            const sb_cuda_plan *p, CUdeviceptr scratch);

static sb_status run_checked(sb_context *ctx, const sb_logprob_out *out, const sb_call *call,
                             const sb_cuda_plan *p, runner run_planned)
{
    uint64_t needed = p->states + p->targets + p->tokens;
    CUdeviceptr scratch;
    sb_status status = sb_cuda_check_arguments(ctx, out, call);
    if (status == SB_OK) status = sb_cuda_scratch(ctx, &call->launch, needed, &scratch);
    if (status != SB_OK) return status;
    status = run_planned(ctx, out, call, p, scratch);
    sb_cuda_scratch_done(ctx, &call->launch, scratch);
    if (status == SB_OK && call->launch.check) status = sb_cuda_check_call(ctx, call, NULL, NULL);
    return status;
}

typedef struct logprob_call {
    const sb_logprob_out *out;
    const sb_call *call;
} logprob_call;

static sb_status logprob_inside(sb_context *ctx, void *arguments)
{
    const cuda *c = ctx->state;
    const logprob_call *l = arguments;
    sb_cuda_plan p = sb_cuda_plan_of(c->multiprocessors, c->clusters, l->out, l->call);
    return run_checked(ctx, l->out, l->call, &p, run);
}

static sb_status logprob(sb_context *ctx, const sb_logprob_out *out, const sb_call *call)
{
    logprob_call l = { out, call };
    if (out->entropy) return sb_cuda_logprob_entropy(ctx, out, call);
    return sb_cuda_inside(ctx, &call->launch, logprob_inside, &l);
}

/* ---- the control group -------------------------------------------------------------------- */

static sb_status get_conventional(sb_context *ctx)
{
    cuda *c = ctx->state;
    if (c->conventional_sums) return SB_OK; /* the last one */
    if (!c->conventional)
        DRIVER(&ctx->error, &c->driver, ModuleLoadData, &c->conventional, sb_fatbin_conventional);
#define CONVENTIONAL_GET(name)                                                                     \
    DRIVER(&ctx->error, &c->driver, ModuleGetFunction, &c->name, c->conventional, #name);          \
    DRIVER(&ctx->error, &c->driver, FuncLoad, c->name);
    CONVENTIONAL_KERNELS(CONVENTIONAL_GET)
    return SB_OK;
}

static sb_status load_conventional(sb_context *ctx)
{
    const sb_cuda_driver *driver = sb_cuda_driver_of(ctx);
    const int mode = sb_cuda_beside_captures_begin(driver);
    const sb_status status = get_conventional(ctx);
    sb_cuda_beside_captures_end(driver, mode);
    return status;
}

static sb_cuda_plan conventional_plan_of(const cuda *c, const sb_logprob_out *out,
                                         const sb_call *call)
{
    sb_cuda_plan p = { .work = call->in.row_list ? call->in.row_count : call->rows };
    sb_conventional_shape shape = sb_conventional_shape_of(call, p.work, c->multiprocessors);
    int64_t leaves = (call->in.vocab + SB_LEAF - 1) / SB_LEAF;
    p.split = shape.split;
    p.threads = shape.threads;
    p.piece = (leaves + p.split - 1) / p.split;
    p.states = p.split > 1 ? (uint64_t)p.work * (uint64_t)p.split * 2 * sizeof(float) : 0;
    p.tokens = out->sequence && !out->token ? (uint64_t)call->rows * sizeof(float) : 0;
    return p;
}

static sb_status run_conventional(sb_context *ctx, const sb_logprob_out *out, const sb_call *call,
                                  const sb_cuda_plan *p, CUdeviceptr scratch)
{
    cuda *c = ctx->state;
    CUstream stream = call->launch.stream;
    sb_cuda_args a = args_of(c, out, call, p, scratch);
    CUfunction kernel = call->in.logits_dtype == SB_F32   ? c->conventional_f32
                        : call->in.logits_dtype == SB_F16 ? c->conventional_f16
                                                          : c->conventional_bf16;
    shape grid = { p->work * p->split, p->threads, 0, 0, 0 };
    sb_status status = sb_cuda_clear_unlisted(ctx, call, &a);

    if (status == SB_OK && (a.tokens || a.lse || call->launch.check)) {
        status = launch(ctx, kernel, grid, &a, stream);
        if (status == SB_OK && p->split > 1)
            status = launch(ctx, c->conventional_finish, warps_for(p->work, 0), &a, stream);
    }
    if (status == SB_OK && (out->sequence || out->count))
        status = launch(ctx, c->conventional_sums, warps_for(call->in.batch, 0), &a, stream);
    return status;
}

static sb_status conventional_inside(sb_context *ctx, void *arguments)
{
    const logprob_call *l = arguments;
    sb_cuda_plan p = conventional_plan_of(ctx->state, l->out, l->call);
    sb_status status = load_conventional(ctx);
    return status == SB_OK ? run_checked(ctx, l->out, l->call, &p, run_conventional) : status;
}

static sb_status conventional(sb_context *ctx, const sb_logprob_out *out, const sb_call *call)
{
    logprob_call l = { out, call };
    return sb_cuda_inside(ctx, &call->launch, conventional_inside, &l);
}

/* ---- for the other files ------------------------------------------------------------------- */

const sb_cuda_stats *sb_cuda_stats_of(const sb_context *ctx)
{
    return &((const cuda *)ctx->state)->stats;
}

const sb_cuda_shards *sb_cuda_shards_of(const sb_context *ctx)
{
    return &((const cuda *)ctx->state)->shards;
}

const sb_cuda_order *sb_cuda_order_of(const sb_context *ctx)
{
    return &((const cuda *)ctx->state)->order;
}

const sb_cuda_entropy *sb_cuda_entropy_of(const sb_context *ctx)
{
    return &((const cuda *)ctx->state)->entropy;
}

const sb_cuda_gradients *sb_cuda_gradients_of(const sb_context *ctx)
{
    return &((const cuda *)ctx->state)->gradients;
}

const sb_cuda_kls *sb_cuda_kls_of(const sb_context *ctx)
{
    return &((const cuda *)ctx->state)->kls;
}

const sb_cuda_driver *sb_cuda_driver_of(const sb_context *ctx)
{
    return &((const cuda *)ctx->state)->driver;
}

int sb_cuda_ordinal_of(const sb_context *ctx) { return ((const cuda *)ctx->state)->ordinal; }
sb_nccl *sb_cuda_nccl_of(sb_context *ctx) { return &((cuda *)ctx->state)->nccl; }

sb_cuda_grid sb_cuda_plan_shard(sb_context *ctx, const sb_logprob_out *out, const sb_call *call,
                                sb_cuda_args *a)
{
    const cuda *c = ctx->state;
    sb_call planned = *call;
    sb_cuda_grid grid;
    sb_cuda_plan p;
    planned.in.vocab = call->held > 0 ? call->held : 1;
    planned.launch.cluster = -1;
    p = sb_cuda_plan_of(c->multiprocessors, c->clusters, out, &planned);
    sb_cuda_plan_evenly(&p, &planned);
    *a = args_of(ctx->state, out, call, &p, 0);
    a->tokens = a->token;
    a->ahead = 0;
    grid.blocks = sb_cuda_blocks(&p);
    grid.threads = sb_cuda_block(&p);
    grid.shared = sb_cuda_shared(&p, call->in.logits_dtype);
    return grid;
}

sb_status sb_cuda_launch(sb_context *ctx, CUfunction kernel, sb_cuda_grid grid, sb_cuda_args *a,
                         CUstream stream)
{
    shape s = { grid.blocks, grid.threads, 0, 0, grid.shared };
    return launch(ctx, kernel, s, a, stream);
}

sb_status sb_cuda_clear(sb_context *ctx, uint64_t data, uint64_t bytes, CUstream stream)
{
    const cuda *c = ctx->state;
    if (data && bytes)
        DRIVER(&ctx->error, &c->driver, MemsetD8Async, data, 0, (size_t)bytes, stream);
    return SB_OK;
}

sb_status sb_cuda_sums(sb_context *ctx, const sb_call *call, sb_cuda_args *a)
{
    cuda *c = ctx->state;
    return launch(ctx, c->sequence_sums, warps_for(call->in.batch, 0), a, call->launch.stream);
}

/* ---- memory and streams ------------------------------------------------------------------ */

/* A driver call inside the context, as a whole function's body; beside: one that no capture holds.
 */
#define DRIVER_CALL(beside, function, ...)                                                         \
    do {                                                                                           \
        cuda *c = ctx->state;                                                                      \
        sb_status status = enter(ctx);                                                             \
        CUresult result;                                                                           \
        int mode;                                                                                  \
        if (status != SB_OK) return status;                                                        \
        mode = (beside) ? sb_cuda_beside_captures_begin(&c->driver) : 0;                           \
        result = c->driver.function(__VA_ARGS__);                                                  \
        if (beside) sb_cuda_beside_captures_end(&c->driver, mode);                                 \
        if (result != CUDA_SUCCESS)                                                                \
            status = sb_cuda_failed(&ctx->error, &c->driver, "cu" #function, result);              \
        return leave(ctx, status);                                                                 \
    } while (0)
#define IN_CONTEXT(...) DRIVER_CALL(0, __VA_ARGS__)
#define BESIDE_CAPTURES(...) DRIVER_CALL(1, __VA_ARGS__)

static sb_status memory_alloc(sb_context *ctx, void **data, uint64_t bytes, sb_memory kind)
{
    if (kind == SB_PINNED)
        BESIDE_CAPTURES(MemHostAlloc, data, bytes,
                        CU_MEMHOSTALLOC_PORTABLE | CU_MEMHOSTALLOC_DEVICEMAP);
    BESIDE_CAPTURES(MemAlloc, (CUdeviceptr *)data, bytes);
}

static sb_status memory_free(sb_context *ctx, void *data, sb_memory kind)
{
    if (kind == SB_PINNED) BESIDE_CAPTURES(MemFreeHost, data);
    BESIDE_CAPTURES(MemFree, (CUdeviceptr)(uintptr_t)data);
}

static sb_status memory_copy(sb_context *ctx, void *to, const void *from, uint64_t bytes,
                             void *stream)
{
    IN_CONTEXT(MemcpyAsync, sb_cuda_address(to), sb_cuda_address(from), bytes, stream);
}

static sb_status stream_create(sb_context *ctx, void **stream)
{
    BESIDE_CAPTURES(StreamCreate, (CUstream *)stream, CU_STREAM_NON_BLOCKING);
}

static sb_status stream_destroy(sb_context *ctx, void *stream)
{
    BESIDE_CAPTURES(StreamDestroy, stream);
}

static sb_status wait_entered(sb_context *ctx, void *stream)
{
    return sb_cuda_wait(sb_cuda_driver_of(ctx), stream, &ctx->error);
}

static sb_status stream_wait(sb_context *ctx, void *stream)
{
    return sb_cuda_inside(ctx, NULL, wait_entered, stream);
}

const sb_backend sb_backend_cuda = {
    .name = "cuda",
    .device_memory = 1,
    .kept_sets = 1,
    .probe = probe,
    .open = open_cuda,
    .close = close_cuda,
    .inherit = inherit_cuda,
    .lost_by_fork = "the context was opened before fork(): CUDA does not work in a child of a "
                    "process that uses it; start the child by exec (spawn), or fork first",
    .isa = isa_of,
    .threads = threads_of,
    .logprob = logprob,
    .backward = sb_cuda_backward,
    .kl = sb_cuda_kl,
    .kl_workspace = sb_cuda_kl_workspace,
    .workspace = workspace,
    .ids = sb_cuda_ids,
    .topk = sb_cuda_topk,
    .order_workspace = sb_cuda_order_workspace,
    .conventional = conventional,
    .partial = sb_cuda_partial,
    .merge = sb_cuda_merge,
    .finish = sb_cuda_finish,
    .shard_workspace = sb_cuda_shard_workspace,
    .exchange = sb_cuda_exchange,
    .exchange_workspace = sb_cuda_exchange_workspace,
    .comm_new_id = sb_cuda_comm_new_id,
    .comm_create = sb_cuda_comm_create,
    .comm_destroy = sb_cuda_comm_destroy,
    .compare = sb_cuda_compare,
    .sums = sb_cuda_sum_values,
    .check = check,
    .memory_alloc = memory_alloc,
    .memory_free = memory_free,
    .memory_copy = memory_copy,
    .stream_create = stream_create,
    .stream_destroy = stream_destroy,
    .stream_wait = stream_wait,
};
