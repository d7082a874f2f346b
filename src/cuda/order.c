/* order.c - several ids per row, and the first ids of each row, on a GPU: the launches of
 * kernels/order.cu. Both operations first sum rows in pieces; their later steps differ. */
#include <inttypes.h>

#include "cuda/head.h"
#include "cuda/lists.h"
#include "cuda/sample.h"
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

/* How it is launched. */
typedef struct order_plan {
    sb_cuda_order_args a;
    sb_cuda_grid grid; /* of the kernel that sums rows in pieces, or whole ones for the first k */
    int topk;          /* as of the call */
    int picks;         /* sums are those of sample.c instead, from which the first k are picked */
    sb_cuda_sample_args sums;
    sb_cuda_part_sums parts;
    uint64_t bytes; /* of scratch memory */
} order_plan;

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

/* Plans the blocks that find the first k, one for each row: it keeps the largest logit of every
 * leaf in shared memory. Many small blocks hide each other's ends. */
static void plan_topk(const sb_cuda *c, const sb_call *call, sb_cuda_args *a, sb_cuda_grid *grid)
{
    const int64_t leaves = (a->vocab + SB_LEAF - 1) / SB_LEAF;
    const int32_t size = call->in.logits_dtype == SB_F32 ? 4 : 2;
    if (!call->launch.threads && a->split > 1) /* the plan was for pieces */
        grid->threads = leaves < 512 ? (int32_t)(leaves + 31) / 32 * 32 : 512;
    else if (!call->launch.threads && size == 2 && grid->threads > 256 &&
             a->work >= 2 * c->gpu.multiprocessors)
        grid->threads = 256;
    a->split = 1;
    a->piece = leaves ? leaves : 1;
    grid->blocks = a->work;
    grid->shared = (uint32_t)(grid->threads * SB_CUDA_TOPK_BYTES(size) + a->piece * size);
}

/* Plans all but what lies in the scratch memory. k: 0, or how many first ids are found in whole
 * rows. */
static order_plan plan_pieces(sb_context *ctx, const sb_call *call, int64_t k)
{
    order_plan p;
    uint64_t blocks;
    memset(&p, 0, sizeof p);
    p.grid = sb_cuda_plan_shard(ctx, &NO_OUT, call, &p.a.in);
    if (k) plan_topk(ctx->state, call, &p.a.in, &p.grid);
    blocks = (uint64_t)p.a.in.work * (uint64_t)p.a.in.split;
    p.a.k = (int32_t)k;
    p.bytes = (k ? blocks * SB_CUDA_LIST * sizeof(uint64_t) : 0) + blocks * sizeof(sb_state) +
              (uint64_t)p.a.in.work * sizeof(sb_cuda_target);
    return p;
}

static order_plan plan_order(sb_context *ctx, const order_call *o)
{
    const int picks = o->topk && sb_cuda_picks_first(ctx->state, o->call, o->columns);
    order_plan p = plan_pieces(ctx, o->call, o->topk && !picks ? o->columns : 0);
    p.topk = o->topk;
    p.picks = picks;
    p.a.integers = sb_cuda_address(o->integers);
    p.a.logprobs = sb_cuda_address(o->logprobs);
    p.a.in.lse = sb_cuda_address(o->lse);
    p.a.k = (int32_t)o->columns;
    if (!picks) return p;
    p.sums.in = p.a.in;
    p.parts = sb_cuda_plan_parts(ctx->state, o->call, SB_CUDA_PICK_FROM, &p.sums);
    p.a.parts = p.sums.parts;
    p.a.part = p.sums.part;
    p.bytes = p.parts.bytes;
    return p;
}

static void set_scratch(order_plan *p, const sb_cuda_lists *lists, CUdeviceptr scratch)
{
    sb_cuda_use_words(&p->a.in, lists);
    if (!p->picks) {
        sb_cuda_set_order_scratch(&p->a, p->topk ? p->a.k : 0, scratch);
        return;
    }
    sb_cuda_use_words(&p->sums.in, lists);
    sb_cuda_set_parts_scratch(&p->sums, scratch);
    p->a.in.states = p->sums.in.states;
    p->a.in.targets = p->sums.in.targets;
    p->a.mosts = p->sums.mosts;
}

/* ---- for sample.c -------------------------------------------------------------------------- */

sb_cuda_grid sb_cuda_plan_order(sb_context *ctx, const sb_call *call, int64_t k,
                                sb_cuda_order_args *a, uint64_t *needed)
{
    const order_plan p = plan_pieces(ctx, call, k);
    *a = p.a;
    *needed = p.bytes;
    return p.grid;
}

void sb_cuda_set_order_scratch(sb_cuda_order_args *a, int64_t k, CUdeviceptr scratch)
{
    uint64_t blocks = (uint64_t)a->in.work * (uint64_t)a->in.split;
    a->lists = scratch;
    a->in.states = scratch + (k ? blocks * SB_CUDA_LIST * sizeof(uint64_t) : 0);
    a->in.targets = a->in.states + blocks * sizeof(sb_state);
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

static sb_status launch_kernels(sb_context *ctx, const order_call *o, order_plan *p)
{
    const sb_cuda_order_kernels *k = &((const sb_cuda *)ctx->state)->order;
    const int32_t dtype = o->call->in.logits_dtype;
    const CUfunction pieces = sb_cuda_order_kernel(ctx->state, dtype, o->topk ? o->columns : 0);
    const CUfunction pick = sb_cuda_for_dtype(dtype, k->topk_pick_f32, k->topk_pick_f16,
                                              k->topk_pick_bf16);
    const CUfunction rank = sb_cuda_for_dtype(dtype, k->ids_ranks_f32, k->ids_ranks_f16,
                                              k->ids_ranks_bf16);
    sb_cuda_order_args *a = &p->a;
    CUstream stream = o->call->launch.stream;
    const int64_t groups = (o->columns + SB_CUDA_RANKS - 1) / SB_CUDA_RANKS;
    const sb_cuda_grid ranks = { .blocks = a->in.work * groups, .threads = 256 };
    sb_cuda_grid finish = p->picks ? sb_cuda_pick_grid(ctx->state, a->in.work)
                                   : sb_cuda_warps_for(a->in.work);
    sb_status status = clear_unlisted(ctx, o, a);
    finish.early = 1;
    if (status == SB_OK)
        status = p->picks ? sb_cuda_launch_parts(ctx, o->call, &p->parts, &p->sums)
                          : sb_cuda_launch(ctx, pieces, p->grid, &a->in, stream);
    if (status == SB_OK)
        status = sb_cuda_launch(ctx,
                                p->picks  ? pick
                                : o->topk ? k->topk_finish
                                          : k->ids_finish,
                                finish, &a->in, stream);
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
    order_plan p = plan_order(ctx, &words);
    CUdeviceptr scratch;
    sb_status status = sb_cuda_check_arguments(ctx, &NO_OUT, call);
    if (status == SB_OK) status = check_outputs(ctx, o);
    if (status == SB_OK)
        status = sb_cuda_scratch(ctx, &call->launch, lists.bytes + p.bytes, &scratch);
    if (status != SB_OK) return status;
    status = sb_cuda_launch_words(ctx, call, &lists, scratch, 0);
    set_scratch(&p, &lists, scratch + lists.bytes);
    if (status == SB_OK) status = launch_kernels(ctx, o, &p);
    return sb_cuda_end_call(ctx, call, scratch, status);
}

static uint64_t bytes_for(sb_context *ctx, order_call o, int64_t columns)
{
    o.columns = columns;
    return plan_order(ctx, &o).bytes;
}

/* Enough for the first k ids, whatever k is: the largest k may not be picked as the least one is,
 * and what either way needs does not depend on k. */
static sb_status order_workspace(sb_context *ctx, const order_call *o, uint64_t *bytes)
{
    sb_call planned;
    const order_call words = with_words(o, &planned);
    const uint64_t few = bytes_for(ctx, words, o->topk ? 1 : o->columns);
    const uint64_t many = bytes_for(ctx, words, o->topk ? SB_MAX_TOPK : o->columns);
    *bytes = (few > many ? few : many) + sb_cuda_lists_of(o->call).bytes;
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
