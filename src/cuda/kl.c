/* kl.c - divergences on a GPU: the launches of kernels/kl.cu. stats.c sums them by sequence. */
#include "api/kl.h"
#include "cuda/head.h"
#include "cuda/lists.h"
#include "det/kl.h"

#define THREADS 128 /* per block: more blocks of fewer threads are faster (measured) */
#define STAGED 128  /* bytes of shared memory per thread, for two pairs of 16-bit leaves */

static const sb_logprob_out NO_OUT = SB_LOGPROB_OUT_INIT;

static CUfunction kernel_for(const sb_cuda_kl_kernels *k, int32_t p, int32_t q)
{
    switch (p) {
    case SB_F32: return sb_cuda_for_dtype(q, k->kl_f32_f32, k->kl_f32_f16, k->kl_f32_bf16);
    case SB_F16: return sb_cuda_for_dtype(q, k->kl_f16_f32, k->kl_f16_f16, k->kl_f16_bf16);
    default: return sb_cuda_for_dtype(q, k->kl_bf16_f32, k->kl_bf16_f16, k->kl_bf16_bf16);
    }
}

/* Many threads need much shared memory, and a table takes most of what there is. */
sb_status sb_cuda_kl_prepare(const sb_cuda *c, sb_message *why)
{
    const sb_cuda_kl_kernels *k = &c->kl;
    const CUfunction staged[] = { k->kl_f16_f16, k->kl_f16_bf16, k->kl_bf16_f16, k->kl_bf16_bf16 };
    for (int i = 0; i < 4; i++)
        DRIVER(why, &c->driver, FuncSetAttribute, staged[i],
               CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, SB_CUDA_MAX_BLOCK * STAGED);
    DRIVER(why, &c->driver, FuncSetAttribute, k->kl_bf16_bf16_table,
           CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, c->gpu.shared);
    DRIVER(why, &c->driver, FuncSetAttribute, k->kl_bf16_bf16_table,
           CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT, SB_CUDA_TABLE_CARVEOUT);
    return SB_OK;
}

/* Scratch, in this order: the lists of p and q as words; pieces, and tokens if only their sums are
 * requested. */
typedef struct kl_plan {
    sb_cuda_kl_args a;
    sb_cuda_grid grid;
    int table;    /* whether terms are looked up */
    int finishes; /* whether kl_finish follows */
    sb_cuda_lists list_p, list_q;
    uint64_t pieces, tokens; /* bytes */
} kl_plan;

static uint64_t lists_bytes(const kl_plan *p) { return p->list_p.bytes + p->list_q.bytes; }

/* Groups of threads that look terms up share rows and pieces of rows. */
static void plan_table(const sb_cuda *c, const sb_call *call, kl_plan *p)
{
    const int64_t blocks = c->gpu.multiprocessors,
                  leaves = (call->in.vocab + SB_LEAF - 1) / SB_LEAF;
    const sb_cuda_shares shares = sb_cuda_shares_of(
        p->a.in.work, blocks * (SB_CUDA_KL_BLOCK / SB_CUDA_KL_GROUP), leaves);
    p->a.in.whole = 0;
    p->a.in.single = shares.single;
    p->a.in.split = shares.split;
    p->a.in.piece = shares.piece;
    p->grid = (sb_cuda_grid){ .blocks = p->a.in.work ? blocks : 0,
                              .threads = SB_CUDA_KL_BLOCK,
                              .shared = sb_cuda_table_bytes(&call->in) };
}

static kl_plan plan_kl(sb_context *ctx, const sb_kl_call *call)
{
    const sb_cuda *c = ctx->state;
    kl_plan p = { .table = 0 };
    const sb_call words_p = sb_cuda_words_call(&call->p), words_q = sb_cuda_words_call(&call->q);
    sb_cuda_plan_shard(ctx, &NO_OUT, &words_q, &p.a.q);
    p.grid = sb_cuda_plan_shard(ctx, &NO_OUT, &words_p, &p.a.in);
    p.list_p = sb_cuda_lists_of(&call->p);
    p.list_q = sb_cuda_lists_of(&call->q);
    if (!call->p.launch.threads && p.grid.threads > THREADS) p.grid.threads = THREADS;
    p.grid.shared = call->p.in.logits_dtype != SB_F32 && call->q.in.logits_dtype != SB_F32
                        ? (uint32_t)p.grid.threads * STAGED
                        : 0;
    p.table = call->p.in.logits_dtype == SB_BF16 && call->q.in.logits_dtype == SB_BF16 &&
              sb_cuda_takes_table(&c->gpu, &call->p, 3) &&
              sb_cuda_takes_table(&c->gpu, &call->q, 3) && p.a.in.row.c == p.a.q.row.c;
    if (p.table) plan_table(c, &call->p, &p);
    p.finishes = p.table || p.a.in.split > 1;
    if (p.finishes)
        p.pieces = (uint64_t)(p.a.in.single + (p.a.in.work - p.a.in.single) * p.a.in.split) *
                   sizeof(sb_divergence);
    p.tokens = call->out.sequence && !call->out.token ? (uint64_t)call->p.rows * sizeof(float) : 0;
    return p;
}

/* Writes the lists of both batches as words. */
static sb_status launch_words(sb_context *ctx, const sb_kl_call *call, kl_plan *p,
                              CUdeviceptr scratch)
{
    sb_status status = sb_cuda_launch_words(ctx, &call->p, &p->list_p, scratch, 0);
    if (status == SB_OK)
        status = sb_cuda_launch_words(ctx, &call->q, &p->list_q, scratch + p->list_p.bytes, 1);
    sb_cuda_use_words(&p->a.in, &p->list_p);
    sb_cuda_use_words(&p->a.q, &p->list_q);
    return status;
}

static sb_status launch_kernels(sb_context *ctx, const sb_kl_call *call, kl_plan *p)
{
    const sb_cuda *c = ctx->state;
    const CUfunction kernel = p->table ? c->kl.kl_bf16_bf16_table
                                       : kernel_for(&c->kl, call->p.in.logits_dtype,
                                                    call->q.in.logits_dtype);
    CUstream stream = call->p.launch.stream;
    sb_status status = sb_cuda_clear_unlisted(ctx, &call->p, &p->a.in);
    if (status == SB_OK) status = sb_cuda_launch(ctx, kernel, p->grid, &p->a.in, stream);
    if (status == SB_OK && p->finishes)
        status = sb_cuda_launch(ctx, c->kl.kl_finish, sb_cuda_warps_for(p->a.in.work), &p->a.in,
                                stream);
    if (status == SB_OK && call->out.sequence) {
        const sb_sums_call sums = sb_kl_sums(call, (const float *)(uintptr_t)p->a.in.tokens);
        status = sb_cuda_launch_sums(ctx, &sums);
    }
    return status;
}

static sb_status check_arguments(sb_context *ctx, const sb_kl_call *call)
{
    const sb_cuda_array outputs[] = {
        { "token", call->out.token, 4, sb_cuda_bytes(call->p.rows, 4) },
        { "sequence", call->out.sequence, 4, sb_cuda_bytes(call->p.in.batch, 4) },
    };
    sb_status status = sb_kl_blame(&ctx->error, 'p',
                                   sb_cuda_check_arguments(ctx, &NO_OUT, &call->p));
    if (status == SB_OK)
        status = sb_kl_blame(&ctx->error, 'q', sb_cuda_check_arguments(ctx, &NO_OUT, &call->q));
    return status == SB_OK ? sb_cuda_check_arrays(ctx, outputs, 2) : status;
}

/* Waits for the call and names its first bad row. */
static sb_status check_call(sb_context *ctx, const sb_kl_call *call)
{
    int64_t report;
    sb_status status = sb_cuda_wait_for_report(ctx, &call->p.launch, &report);
    if (status != SB_OK || !report) return status;
    status = sb_kl_blame(&ctx->error, 'p', sb_cuda_find_first_bad(ctx, &call->p, NULL, NULL));
    if (status == SB_OK)
        status = sb_kl_blame(&ctx->error, 'q', sb_cuda_find_first_bad(ctx, &call->q, NULL, NULL));
    return status == SB_OK ? sb_cuda_name_report(&ctx->error, report) : status;
}

sb_status sb_cuda_kl(sb_context *ctx, const void *checked)
{
    const sb_kl_call *call = checked;
    kl_plan p;
    CUdeviceptr scratch;
    sb_status status = check_arguments(ctx, call);
    if (status == SB_OK && (call->p.in.head || call->q.in.head)) {
        status = sb_cuda_hidden_kl(ctx, call);
        if (status == SB_OK && call->p.launch.check) status = check_call(ctx, call);
        return status;
    }
    p = plan_kl(ctx, call);
    if (status == SB_OK)
        status = sb_cuda_scratch(ctx, &call->p.launch, lists_bytes(&p) + p.pieces + p.tokens,
                                 &scratch);
    if (status != SB_OK) return status;
    p.a.in.states = scratch + lists_bytes(&p);
    p.a.in.tokens = p.tokens ? p.a.in.states + p.pieces : sb_cuda_address(call->out.token);
    status = launch_words(ctx, call, &p, scratch);
    if (status == SB_OK) status = launch_kernels(ctx, call, &p);
    sb_cuda_scratch_done(ctx, &call->p.launch, scratch);
    if (status == SB_OK && call->p.launch.check) status = check_call(ctx, call);
    return status;
}

sb_status sb_cuda_kl_workspace(sb_context *ctx, const void *checked, uint64_t *bytes)
{
    const sb_kl_call *call = checked;
    kl_plan p;
    if (call->p.in.head || call->q.in.head) return sb_cuda_hidden_kl_workspace(ctx, call, bytes);
    p = plan_kl(ctx, call);
    *bytes = lists_bytes(&p) + p.pieces + p.tokens;
    return SB_OK;
}
