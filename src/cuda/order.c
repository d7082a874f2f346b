/* order.c - several ids a row, and the first ids of each, on a GPU: the launches of
 * kernels/order.cu. */
#include <inttypes.h>

#include "cuda/cuda.h"
#include "det/accumulator.h"

/* As tools/kernel.sh embedded them. */
extern const unsigned char sb_fatbin_order[];

SB_CUDA_LOADER(sb_cuda_order_load, sb_cuda_order, SB_CUDA_ORDER_KERNELS, sb_fatbin_order)

/* What both calls are here. integers: ranks or ids, `columns` a row, as logprobs. */
typedef struct order_call {
    const sb_call *call;
    int32_t *integers;
    float *logprobs, *lse;
    int64_t columns;
    int first; /* the first k = columns ids are wanted, not those given */
} order_call;

static const sb_logprob_out NO_OUT = SB_LOGPROB_OUT_INIT;

/* All but the scratch; needed gets its bytes. */
static sb_cuda_grid plan(sb_context *ctx, const order_call *o, sb_cuda_order_args *a,
                         uint64_t *needed)
{
    sb_cuda_grid grid;
    uint64_t blocks;
    memset(a, 0, sizeof *a);
    grid = sb_cuda_plan_shard(ctx, &NO_OUT, o->call, &a->in);
    grid.shared = 0;
    blocks = (uint64_t)a->in.work * (uint64_t)a->in.split;
    a->integers = sb_cuda_address(o->integers);
    a->logprobs = sb_cuda_address(o->logprobs);
    a->in.lse = sb_cuda_address(o->lse);
    a->k = (int32_t)o->columns;
    *needed = (o->first ? blocks * SB_CUDA_LIST * sizeof(uint64_t) : 0) +
              blocks * sizeof(sb_state) + (uint64_t)a->in.work * sizeof(sb_cuda_target);
    return grid;
}

static void set_scratch(sb_cuda_order_args *a, const order_call *o, CUdeviceptr scratch)
{
    uint64_t blocks = (uint64_t)a->in.work * (uint64_t)a->in.split;
    a->lists = scratch;
    a->in.states = scratch + (o->first ? blocks * SB_CUDA_LIST * sizeof(uint64_t) : 0);
    a->in.targets = a->in.states + blocks * sizeof(sb_state);
}

static sb_status check_outputs(sb_context *ctx, const order_call *o)
{
    const int64_t rows = o->call->rows;
    const uint64_t row = (uint64_t)o->columns * 4;
    const sb_cuda_array outputs[] = {
        { o->first ? "ids" : "rank", o->integers, 4, sb_cuda_bytes(rows, row) },
        { "logprob", o->logprobs, 4, sb_cuda_bytes(rows, row) },
        { "lse", o->lse, 4, sb_cuda_bytes(rows, 4) },
    };
    return sb_cuda_check_arrays(ctx, outputs, sizeof outputs / sizeof *outputs);
}

/* Rows that a row list leaves out: +0, and -1. */
static sb_status clear_unlisted(sb_context *ctx, const order_call *o, const sb_cuda_order_args *a)
{
    const sb_cuda_driver *driver = sb_cuda_driver_of(ctx);
    CUstream stream = o->call->launch.stream;
    uint64_t rows = (uint64_t)o->call->rows, entries = rows * (uint64_t)o->columns;
    sb_status status;
    if (!o->call->in.row_list) return SB_OK;
    status = sb_cuda_clear(ctx, a->logprobs, entries * sizeof(float), stream);
    if (status == SB_OK) status = sb_cuda_clear(ctx, a->in.lse, rows * sizeof(float), stream);
    if (status == SB_OK && a->integers && entries)
        DRIVER(&ctx->error, driver, MemsetD8Async, a->integers, 0xff,
               (size_t)entries * sizeof(int32_t), stream);
    return status;
}

#define OF_DTYPE(kernels, dtype, name)                                                             \
    ((dtype) == SB_F32   ? (kernels)->name##_f32                                                   \
     : (dtype) == SB_F16 ? (kernels)->name##_f16                                                   \
                         : (kernels)->name##_bf16)

static sb_status run(sb_context *ctx, const order_call *o, sb_cuda_grid grid, sb_cuda_order_args *a)
{
    const sb_cuda_order *kernels = sb_cuda_order_of(ctx);
    const int32_t dtype = o->call->in.logits_dtype;
    CUstream stream = o->call->launch.stream;
    sb_cuda_grid ranks = { a->in.work * o->columns, 256, 0 };
    sb_status status = clear_unlisted(ctx, o, a);
    if (status == SB_OK)
        status = sb_cuda_launch(
            ctx, o->first ? OF_DTYPE(kernels, dtype, topk) : OF_DTYPE(kernels, dtype, ids), grid,
            &a->in, stream);
    if (status == SB_OK)
        status = sb_cuda_launch(ctx, o->first ? kernels->topk_finish : kernels->ids_finish,
                                sb_cuda_warps_for(a->in.work), &a->in, stream);
    if (status == SB_OK && !o->first && o->integers)
        status = sb_cuda_launch(ctx, OF_DTYPE(kernels, dtype, ids_ranks), ranks, &a->in, stream);
    return status;
}

static sb_status order_inside(sb_context *ctx, void *arguments)
{
    const order_call *o = arguments;
    const sb_call *call = o->call;
    sb_cuda_order_args a;
    uint64_t needed;
    sb_cuda_grid grid = plan(ctx, o, &a, &needed);
    CUdeviceptr scratch;
    sb_status status = sb_cuda_check_arguments(ctx, &NO_OUT, call);
    if (status == SB_OK) status = check_outputs(ctx, o);
    if (status == SB_OK) status = sb_cuda_scratch(ctx, &call->launch, needed, &scratch);
    if (status != SB_OK) return status;
    set_scratch(&a, o, scratch);
    status = run(ctx, o, grid, &a);
    sb_cuda_scratch_done(ctx, &call->launch, scratch);
    if (status == SB_OK && call->launch.check) status = sb_cuda_check_call(ctx, call, NULL, NULL);
    return status;
}

sb_status sb_cuda_ids(sb_context *ctx, const sb_ids_out *out, const sb_call *call)
{
    order_call o = { call, out->rank, out->logprob, out->lse, call->width, 0 };
    return sb_cuda_inside(ctx, &call->launch, order_inside, &o);
}

sb_status sb_cuda_topk(sb_context *ctx, const sb_topk_out *out, const sb_call *call, int64_t k)
{
    order_call o = { call, out->ids, out->logprob, out->lse, k, 1 };
    return sb_cuda_inside(ctx, &call->launch, order_inside, &o);
}

uint64_t sb_cuda_order_workspace(sb_context *ctx, const sb_call *call)
{
    order_call o = { call, NULL, NULL, NULL, 1, 1 };
    sb_cuda_order_args a;
    uint64_t needed;
    plan(ctx, &o, &a, &needed);
    return needed;
}
