/* order.c - several ids per row, and the first ids of each row, on a GPU: the launches of
 * kernels/order.cu. Both operations first sum rows in pieces; their later steps differ. */
#include <inttypes.h>

#include "cuda/head.h"
#include "cuda/lists.h"
#include "det/accumulator.h"

/* The common form of both operations. integers: ranks or ids. integers and logprobs have `columns`
 * elements per row. */
typedef struct order_call {
    const sb_call *call;
    int32_t *integers;
    float *logprobs, *lse;
    int64_t columns;
    int topk; /* find the first k = columns ids; otherwise the batch gives the ids */
} order_call;

static const sb_logprob_out NO_OUT = SB_LOGPROB_OUT_INIT;

/* The kernels that find the first k need more shared memory than a kernel gets unasked. */
sb_status sb_cuda_order_prepare(const sb_cuda *c, sb_message *why)
{
    const sb_cuda_order_kernels *k = &c->order;
    const CUfunction kernels[] = { k->topk_f32, k->topk_f16, k->topk_bf16 };
    for (int i = 0; i < 3; i++)
        DRIVER(why, &c->driver, FuncSetAttribute, kernels[i],
               CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, SB_CUDA_MAX_SHARED);
    return SB_OK;
}

/* Plans the blocks that find the first k: each keeps the largest logit of every leaf of its piece
 * in shared memory, so pieces are no longer than LEAVES. If there are enough rows, they are not cut
 * otherwise, since each piece has its own candidates. Many small blocks hide each other's ends. */
#define LEAVES 16384
#define LISTS 16 /* the most pieces of a row: as many lists as a block that finishes it has warps */
static void plan_topk(const sb_cuda *c, const sb_call *call, sb_cuda_args *a, sb_cuda_grid *grid)
{
    const int64_t leaves = (a->vocab + SB_LEAF - 1) / SB_LEAF;
    const int32_t size = call->in.logits_dtype == SB_F32 ? 4 : 2;
    if (!call->launch.split && a->work >= 2 * c->gpu.multiprocessors) {
        a->piece = leaves;
        if (!call->launch.threads && size == 2 && grid->threads > 256) grid->threads = 256;
    } else if (!call->launch.split && a->split > LISTS) {
        a->piece = (leaves + LISTS - 1) / LISTS;
    }
    if (a->piece > LEAVES) a->piece = LEAVES;
    if (a->piece < 1) a->piece = 1;
    a->split = (int32_t)((leaves + a->piece - 1) / a->piece);
    a->piece = (leaves + a->split - 1) / a->split;
    grid->blocks = a->work * a->split;
    grid->shared = (uint32_t)(grid->threads * SB_CUDA_TOPK_BYTES(size) + a->piece * size);
}

/* Fills in a, except for the scratch memory, whose size goes to *needed. */
static sb_cuda_grid plan_order(sb_context *ctx, const order_call *o, sb_cuda_order_args *a,
                               uint64_t *needed)
{
    sb_cuda_grid grid;
    uint64_t blocks;
    memset(a, 0, sizeof *a);
    grid = sb_cuda_plan_shard(ctx, &NO_OUT, o->call, &a->in);
    if (o->topk) plan_topk(ctx->state, o->call, &a->in, &grid);
    blocks = (uint64_t)a->in.work * (uint64_t)a->in.split;
    a->integers = sb_cuda_address(o->integers);
    a->logprobs = sb_cuda_address(o->logprobs);
    a->in.lse = sb_cuda_address(o->lse);
    a->k = (int32_t)o->columns;
    *needed = (o->topk ? blocks * SB_CUDA_LIST * sizeof(uint64_t) : 0) + blocks * sizeof(sb_state) +
              (uint64_t)a->in.work * sizeof(sb_cuda_target);
    return grid;
}

static void set_scratch(sb_cuda_order_args *a, const order_call *o, CUdeviceptr scratch)
{
    uint64_t blocks = (uint64_t)a->in.work * (uint64_t)a->in.split;
    a->lists = scratch;
    a->in.states = scratch + (o->topk ? blocks * SB_CUDA_LIST * sizeof(uint64_t) : 0);
    a->in.targets = a->in.states + blocks * sizeof(sb_state);
}

/* ---- for sample.c -------------------------------------------------------------------------- */

static order_call order_for(const sb_call *call, int64_t k)
{
    const order_call o = { call, NULL, NULL, NULL, k, k > 0 };
    return o;
}

sb_cuda_grid sb_cuda_plan_order(sb_context *ctx, const sb_call *call, int64_t k,
                                sb_cuda_order_args *a, uint64_t *needed)
{
    const order_call o = order_for(call, k);
    return plan_order(ctx, &o, a, needed);
}

void sb_cuda_set_order_scratch(sb_cuda_order_args *a, int64_t k, CUdeviceptr scratch)
{
    const order_call o = order_for(NULL, k);
    set_scratch(a, &o, scratch);
}

CUfunction sb_cuda_order_kernel(const sb_cuda *c, int32_t dtype, int64_t k)
{
    const sb_cuda_order_kernels *all = &c->order;
    return k ? sb_cuda_for_dtype(dtype, all->topk_f32, all->topk_f16, all->topk_bf16)
             : sb_cuda_for_dtype(dtype, all->ids_f32, all->ids_f16, all->ids_bf16);
}

/* ---- the calls ----------------------------------------------------------------------------- */

static sb_status check_outputs(sb_context *ctx, const order_call *o)
{
    const int64_t rows = o->call->rows;
    const uint64_t row = (uint64_t)o->columns * 4;
    const sb_cuda_array outputs[] = {
        { o->topk ? "ids" : "rank", o->integers, 4, sb_cuda_bytes(rows, row) },
        { "logprob", o->logprobs, 4, sb_cuda_bytes(rows, row) },
        { "lse", o->lse, 4, sb_cuda_bytes(rows, 4) },
    };
    return sb_cuda_check_arrays(ctx, outputs, sizeof outputs / sizeof *outputs);
}

/* Writes +0 and -1 for rows that are not in the row list. */
static sb_status clear_unlisted(sb_context *ctx, const order_call *o, const sb_cuda_order_args *a)
{
    const sb_cuda *c = ctx->state;
    CUstream stream = o->call->launch.stream;
    uint64_t rows = (uint64_t)o->call->rows, entries = rows * (uint64_t)o->columns;
    sb_status status;
    if (!o->call->in.row_list) return SB_OK;
    status = sb_cuda_clear(ctx, a->logprobs, entries * sizeof(float), stream);
    if (status == SB_OK) status = sb_cuda_clear(ctx, a->in.lse, rows * sizeof(float), stream);
    if (status == SB_OK && a->integers && entries)
        DRIVER(&ctx->error, &c->driver, MemsetD8Async, a->integers, 0xff,
               (size_t)entries * sizeof(int32_t), stream);
    return status;
}

static sb_status launch_kernels(sb_context *ctx, const order_call *o, sb_cuda_grid grid,
                                sb_cuda_order_args *a)
{
    const sb_cuda_order_kernels *k = &((const sb_cuda *)ctx->state)->order;
    const int32_t dtype = o->call->in.logits_dtype;
    const CUfunction pieces = sb_cuda_order_kernel(ctx->state, dtype, o->topk ? o->columns : 0);
    const CUfunction rank = sb_cuda_for_dtype(dtype, k->ids_ranks_f32, k->ids_ranks_f16,
                                              k->ids_ranks_bf16);
    CUstream stream = o->call->launch.stream;
    const int64_t groups = (o->columns + SB_CUDA_RANKS - 1) / SB_CUDA_RANKS;
    const sb_cuda_grid ranks = { .blocks = a->in.work * groups, .threads = 256 };
    const sb_cuda_grid by_blocks = { .blocks = a->in.work, .threads = 512 };
    const int in_blocks = o->topk && a->in.split > 1;
    sb_cuda_grid finish = in_blocks ? by_blocks : sb_cuda_warps_for(a->in.work);
    sb_status status = clear_unlisted(ctx, o, a);
    finish.early = 1;
    if (status == SB_OK) status = sb_cuda_launch(ctx, pieces, grid, &a->in, stream);
    if (status == SB_OK)
        status = sb_cuda_launch(ctx, o->topk ? k->topk_finish : k->ids_finish, finish, &a->in,
                                stream);
    if (status == SB_OK && !o->topk && o->integers)
        status = sb_cuda_launch(ctx, rank, ranks, &a->in, stream);
    return status;
}

/* The same with words in place of lists, which *call receives. */
static order_call with_words(const order_call *o, sb_call *call)
{
    order_call words = *o;
    *call = sb_cuda_words_call(o->call);
    words.call = call;
    return words;
}

static sb_status run_order(sb_context *ctx, const order_call *o)
{
    const sb_call *call = o->call;
    sb_call planned;
    const order_call words = with_words(o, &planned);
    sb_cuda_lists lists = sb_cuda_lists_of(call);
    sb_cuda_order_args a;
    uint64_t needed;
    const sb_cuda_grid grid = plan_order(ctx, &words, &a, &needed);
    CUdeviceptr scratch;
    sb_status status = sb_cuda_check_arguments(ctx, &NO_OUT, call);
    if (status == SB_OK) status = check_outputs(ctx, o);
    if (status == SB_OK)
        status = sb_cuda_scratch(ctx, &call->launch, lists.bytes + needed, &scratch);
    if (status != SB_OK) return status;
    set_scratch(&a, o, scratch + lists.bytes);
    status = sb_cuda_launch_words(ctx, call, &lists, scratch, 0);
    sb_cuda_use_words(&a.in, &lists);
    if (status == SB_OK) status = launch_kernels(ctx, o, grid, &a);
    sb_cuda_scratch_done(ctx, &call->launch, scratch);
    if (status == SB_OK && call->launch.check) status = sb_cuda_check_call(ctx, call, NULL, NULL);
    return status;
}

static sb_status order_workspace(sb_context *ctx, const order_call *o, uint64_t *bytes)
{
    sb_call planned;
    const order_call words = with_words(o, &planned);
    sb_cuda_order_args a;
    plan_order(ctx, &words, &a, bytes);
    *bytes += sb_cuda_lists_of(o->call).bytes;
    return SB_OK;
}

static order_call order_of_ids(const sb_ids_call *i)
{
    const order_call o = { &i->call, i->out.rank, i->out.logprob, i->out.lse, i->call.width, 0 };
    return o;
}

static order_call order_of_topk(const sb_topk_call *t)
{
    const order_call o = { &t->call, t->out.ids, t->out.logprob, t->out.lse, t->k, 1 };
    return o;
}

sb_status sb_cuda_ids(sb_context *ctx, const void *call)
{
    const order_call o = order_of_ids(call);
    return o.call->in.head ? sb_cuda_hidden_ids(ctx, call) : run_order(ctx, &o);
}

sb_status sb_cuda_ids_workspace(sb_context *ctx, const void *call, uint64_t *bytes)
{
    const order_call o = order_of_ids(call);
    if (o.call->in.head) return sb_cuda_hidden_ids_workspace(ctx, call, bytes);
    return order_workspace(ctx, &o, bytes);
}

sb_status sb_cuda_topk(sb_context *ctx, const void *call)
{
    const order_call o = order_of_topk(call);
    return o.call->in.head ? sb_cuda_hidden_topk(ctx, call) : run_order(ctx, &o);
}

sb_status sb_cuda_topk_workspace(sb_context *ctx, const void *call, uint64_t *bytes)
{
    const order_call o = order_of_topk(call);
    if (o.call->in.head) return sb_cuda_hidden_topk_workspace(ctx, call, bytes);
    return order_workspace(ctx, &o, bytes);
}
