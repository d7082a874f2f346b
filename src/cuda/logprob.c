/* logprob.c - logprobs and entropies on a GPU: the launches of kernels/logprob.cu, among which a
 * plan (plan.h) chooses. If the gradient is requested as well, gradient.c launches its kernel
 * behind them, or one_read.c launches a kernel for both. */
#include "cuda/cuda.h"
#include "cuda/head.h"
#include "cuda/lists.h"
#include "cuda/one_read.h"

/* The latency and cluster kernels need much shared memory, and clusters of 16. A table takes most
 * of what there is; L1 must have the rest, or loads evict each other's sectors. */
sb_status sb_cuda_logprob_prepare(const sb_cuda *c, sb_message *why)
{
    const sb_cuda_logprob_kernels *k = &c->logprob;
    const CUfunction kernels[] = { k->logprob_f32_cluster,  k->logprob_f16_cluster,
                                   k->logprob_bf16_cluster, k->logprob_f32_latency,
                                   k->logprob_f16_latency,  k->logprob_bf16_latency };
    const CUfunction tables[] = { k->logprob_bf16_table, k->logprob_bf16_table_deep,
                                  k->entropy_bf16_table, k->logprob_bf16_unaligned,
                                  k->logprob_f16_table,  k->logprob_f16_unaligned };
    for (int i = 0; i < 6; i++) {
        DRIVER(why, &c->driver, FuncSetAttribute, tables[i],
               CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, c->gpu.shared);
        if (i < 4) /* those of bf16 */
            DRIVER(why, &c->driver, FuncSetAttribute, tables[i],
                   CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT, SB_CUDA_TABLE_CARVEOUT);
    }
    for (int i = 0; i < 6; i++) {
        DRIVER(why, &c->driver, FuncSetAttribute, kernels[i],
               CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, SB_CUDA_MAX_SHARED);
        DRIVER(why, &c->driver, FuncSetAttribute, kernels[i],
               CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT, 100);
        if (i < 3 && c->gpu.clusters > 8)
            DRIVER(why, &c->driver, FuncSetAttribute, kernels[i],
                   CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED, 1);
    }
    return SB_OK;
}

/* ---- the kernels for the logprobs --------------------------------------------------------- */

static CUfunction kernel_for(const sb_cuda_logprob_kernels *k, int32_t dtype, sb_cuda_kind kind)
{
    switch (kind) {
    case SB_CUDA_DEEP: return k->logprob_bf16_table_deep;
    case SB_CUDA_TABLE: return dtype == SB_F16 ? k->logprob_f16_table : k->logprob_bf16_table;
    case SB_CUDA_UNALIGNED:
        return dtype == SB_F16 ? k->logprob_f16_unaligned : k->logprob_bf16_unaligned;
    case SB_CUDA_KEPT:
        return sb_cuda_for_dtype(dtype, k->logprob_f32_kept, k->logprob_f16_kept,
                                 k->logprob_bf16_kept);
    case SB_CUDA_CLUSTER:
        return sb_cuda_for_dtype(dtype, k->logprob_f32_cluster, k->logprob_f16_cluster,
                                 k->logprob_bf16_cluster);
    case SB_CUDA_LATENCY:
        return sb_cuda_for_dtype(dtype, k->logprob_f32_latency, k->logprob_f16_latency,
                                 k->logprob_bf16_latency);
    default: /* SB_CUDA_STREAM */
        return sb_cuda_for_dtype(dtype, k->logprob_f32, k->logprob_f16, k->logprob_bf16);
    }
}

/* Those for rows that keep lists. */
static CUfunction list_kernel_for(const sb_cuda_lists_kernels *k, int32_t dtype, int entropy)
{
    return entropy ? sb_cuda_for_dtype(dtype, k->entropy_f32_lists, k->entropy_f16_lists,
                                       k->entropy_bf16_lists)
                   : sb_cuda_for_dtype(dtype, k->logprob_f32_lists, k->logprob_f16_lists,
                                       k->logprob_bf16_lists);
}

/* The same with moments for the entropy. */
static CUfunction entropy_kernel_for(const sb_cuda_logprob_kernels *k, int32_t dtype,
                                     sb_cuda_kind kind)
{
    switch (kind) {
    case SB_CUDA_TABLE: return k->entropy_bf16_table;
    case SB_CUDA_KEPT:
        return sb_cuda_for_dtype(dtype, k->entropy_f32_kept, k->entropy_f16_kept,
                                 k->entropy_bf16_kept);
    default: /* SB_CUDA_STREAM */
        return sb_cuda_for_dtype(dtype, k->entropy_f32, k->entropy_f16, k->entropy_bf16);
    }
}

static sb_status launch_kernels(sb_context *ctx, const sb_logprob_call *logprob,
                                const sb_cuda_plan *p, CUdeviceptr scratch)
{
    const sb_cuda *c = ctx->state;
    const sb_logprob_out *out = &logprob->out;
    const sb_call *call = &logprob->call;
    const int32_t dtype = call->in.logits_dtype;
    const int is_cluster = p->kind == SB_CUDA_CLUSTER;
    const sb_cuda_grid grid = { .blocks = sb_cuda_blocks(p),
                                .threads = sb_cuda_block(p),
                                .shared = sb_cuda_shared(p, dtype),
                                .cluster = is_cluster ? p->split : 0,
                                .early = is_cluster || p->kind == SB_CUDA_LATENCY ||
                                         p->kind == SB_CUDA_LISTS || p->groups };
    sb_cuda_grid finish = sb_cuda_warps_for(p->work - p->whole);
    const sb_cuda_logprob_kernels *k = &c->logprob;
    const CUfunction kernel = p->kind == SB_CUDA_LISTS
                                  ? list_kernel_for(&c->lists, dtype, out->entropy != NULL)
                              : out->entropy ? entropy_kernel_for(k, dtype, p->kind)
                                             : kernel_for(k, dtype, p->kind);
    const CUfunction finishes = out->entropy ? k->entropy_finish : k->logprob_finish;
    CUstream stream = call->launch.stream;
    sb_cuda_args a = sb_cuda_args_of(c, out, call, p, scratch);
    sb_status status = sb_cuda_clear_unlisted(ctx, call, &a);

    finish.early = 1;
    if (status == SB_OK && call->in.row_list)
        status = sb_cuda_clear(ctx, a.strays, p->strays, stream); /* rows that are not listed */
    if (status == SB_OK &&
        (a.strays || a.tokens || a.lse || a.entropy || a.saved || call->launch.check)) {
        status = sb_cuda_launch(ctx, kernel, grid, &a, stream);
        if (status == SB_OK && p->states)
            status = sb_cuda_launch(ctx, finishes, finish, &a, stream);
    }
    return status == SB_OK ? sb_cuda_sum_sequences(ctx, call, &a) : status;
}

/* ---- the operation ------------------------------------------------------------------------ */

#define BOUNDARY 256 /* of a workspace */

/* Scratch, in this order: lists as words, for the gradient; saved rows and entropies, if only the
 * gradient needs them; from the next boundary on, that of the kernels for the logprobs. */
typedef struct logprob_plan {
    int reads_once; /* one_read.c's launch alone, with its own scratch */
    sb_cuda_one_read once;
    sb_cuda_plan kernels;
    sb_cuda_lists lists;
    uint64_t saved, entropies, before, bytes; /* in bytes; before: up to the boundary; bytes: all */
} logprob_plan;

static uint64_t to_boundary(uint64_t bytes) { return (bytes + BOUNDARY - 1) / BOUNDARY * BOUNDARY; }

static logprob_plan plan_logprob(sb_context *ctx, const sb_logprob_call *logprob)
{
    const sb_cuda *c = ctx->state;
    const sb_logprob_out *out = &logprob->out;
    const uint64_t rows = (uint64_t)logprob->call.rows;
    const int moments = sb_wants_moments(logprob);
    logprob_plan p;
    memset(&p, 0, sizeof p);
    p.reads_once = out->gradient && sb_cuda_plan_one_read(ctx, logprob, &p.once);
    if (p.reads_once) {
        p.bytes = p.once.exchange + p.once.tokens;
        return p;
    }
    p.kernels = sb_cuda_plan_of(&c->gpu, out, &logprob->call, moments);
    p.bytes = p.kernels.states + p.kernels.targets + p.kernels.tokens + p.kernels.strays;
    if (out->gradient) p.lists = sb_cuda_lists_of(&logprob->call);
    if (moments && !out->entropy) p.entropies = rows * sizeof(float);
    if (out->gradient && !out->saved) p.saved = rows * sizeof(sb_saved_row);
    p.before = to_boundary(p.lists.bytes + p.saved + p.entropies);
    p.bytes += p.before;
    return p;
}

/* Launches the kernels for the logprobs and for the gradient, one behind the other. */
static sb_status launch_logprob(sb_context *ctx, const sb_logprob_call *logprob, logprob_plan *p,
                                CUdeviceptr scratch)
{
    const CUdeviceptr saved = scratch + p->lists.bytes;
    sb_logprob_call call = *logprob;
    sb_status status;
    if (p->reads_once) return sb_cuda_launch_one_read(ctx, logprob, &p->once, scratch);
    if (p->saved) call.out.saved = (sb_saved_row *)(uintptr_t)saved;
    if (p->entropies) call.out.entropy = (float *)(uintptr_t)(saved + p->saved);
    call.gradient.saved = call.out.saved;
    status = launch_kernels(ctx, &call, &p->kernels, scratch + p->before);
    if (status == SB_OK && call.out.gradient)
        status = sb_cuda_launch_words(ctx, &call.call, &p->lists, scratch, 0);
    if (status != SB_OK || !call.out.gradient) return status;
    return sb_cuda_launch_gradient(ctx, &call.gradient, &call.call, &p->lists, 1);
}

static sb_status refuse_policy(sb_context *ctx, const sb_logprob_call *logprob)
{
    if (!logprob->out.gradient || !logprob->gradient.policy) return SB_OK;
    return sb_fail(&ctx->error, SB_ERR_BACKEND,
                   "the cuda backend has no gradient of a policy loss in the same call: call "
                   "sb_policy_loss, then sb_logprob_backward");
}

sb_status sb_cuda_logprob(sb_context *ctx, const void *checked)
{
    const sb_logprob_call *logprob = checked;
    const sb_call *call = &logprob->call;
    logprob_plan p;
    CUdeviceptr scratch;
    sb_status status = refuse_policy(ctx, logprob);
    if (status != SB_OK) return status;
    if (call->in.head)
        return logprob->out.gradient ? sb_cuda_hidden_both(ctx, logprob)
                                     : sb_cuda_hidden_logprob(ctx, logprob);
    p = plan_logprob(ctx, logprob);
    status = sb_cuda_check_arguments(ctx, &logprob->out, call);
    if (status == SB_OK && logprob->out.gradient)
        status = sb_cuda_check_gradient_arrays(ctx, &logprob->gradient, call, "gradient.");
    if (status == SB_OK) status = sb_cuda_scratch(ctx, &call->launch, p.bytes, &scratch);
    if (status != SB_OK) return status;
    status = launch_logprob(ctx, logprob, &p, scratch);
    sb_cuda_scratch_done(ctx, &call->launch, scratch);
    if (status == SB_OK && call->launch.check) status = sb_cuda_check_call(ctx, call, NULL, NULL);
    return status;
}

sb_status sb_cuda_logprob_workspace(sb_context *ctx, const void *checked, uint64_t *bytes)
{
    const sb_logprob_call *logprob = checked;
    const sb_status status = refuse_policy(ctx, logprob);
    if (status != SB_OK) return status;
    if (logprob->call.in.head)
        return logprob->out.gradient ? sb_cuda_hidden_both_workspace(ctx, logprob, bytes)
                                     : sb_cuda_hidden_logprob_workspace(ctx, logprob, bytes);
    *bytes = plan_logprob(ctx, logprob).bytes;
    return SB_OK;
}
