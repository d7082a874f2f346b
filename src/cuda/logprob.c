/* logprob.c - logprobs and entropies on a GPU: the launches of kernels/logprob.cu, among which a
 * plan (plan.h) chooses. If the gradient is requested as well, gradient.c launches its kernel
 * behind them, or one_read.c launches a kernel for both. */
#include "cuda/cuda.h"
#include "cuda/head.h"
#include "cuda/lists.h"
#include "cuda/one_read.h"
#include "cuda/policy.h"

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

static CUfunction first_kernel(const sb_cuda *c, const sb_logprob_call *logprob,
                               const sb_cuda_plan *p)
{
    const int32_t dtype = logprob->call.in.logits_dtype;
    const int entropy = logprob->out.entropy != NULL;
    if (p->kind == SB_CUDA_LISTS) return list_kernel_for(&c->lists, dtype, entropy);
    return entropy ? entropy_kernel_for(&c->logprob, dtype, p->kind)
                   : kernel_for(&c->logprob, dtype, p->kind);
}

/* kernel: the first one. */
static sb_status launch_kernels(sb_context *ctx, const sb_logprob_call *logprob,
                                const sb_cuda_plan *p, CUfunction kernel, CUdeviceptr scratch)
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

/* ---- logits of lists alone ---------------------------------------------------------------- */

static sb_cuda_plan plan_gathered(const sb_cuda *c, const sb_logprob_call *logprob)
{
    return sb_cuda_plan_of(&c->gpu, &logprob->out, &logprob->call, logprob->out.entropy != NULL);
}

uint64_t sb_cuda_gathered_bytes(const sb_cuda *c, const sb_logprob_call *logprob)
{
    const sb_cuda_plan p = plan_gathered(c, logprob);
    return p.states + p.targets + p.tokens + p.strays;
}

sb_status sb_cuda_launch_gathered(sb_context *ctx, const sb_logprob_call *logprob,
                                  CUdeviceptr scratch)
{
    const sb_cuda *c = ctx->state;
    const sb_cuda_plan p = plan_gathered(c, logprob);
    return launch_kernels(ctx, logprob, &p,
                          logprob->out.entropy ? c->lists.entropy_gathered_lists
                                               : c->lists.logprob_gathered_lists,
                          scratch);
}

/* ---- launches with a gradient, and with a policy loss ------------------------------------- */

/* Scratch, in this order: with a policy loss, the call's tokens and their derivatives, if they are
 * not requested, and what its kernels need; lists as words, for the gradient; saved rows and
 * entropies, if only the gradient needs them; that of the kernels for the logprobs. */
typedef struct logprob_plan {
    int reads_once; /* one_read.c's launch makes logprobs and gradient, with its own scratch */
    sb_cuda_one_read once;
    sb_cuda_plan kernels;
    sb_cuda_lists lists;
    sb_cuda_policy policy;
    uint64_t tokens, upstream, ahead;         /* in bytes; ahead: all of the policy loss */
    uint64_t saved, entropies, before, bytes; /* in bytes; before: of the gradient; bytes: all */
} logprob_plan;

static int is_of_policy(const sb_logprob_call *logprob)
{
    return logprob->out.gradient && logprob->gradient.policy;
}

static logprob_plan plan_logprob(sb_context *ctx, const sb_logprob_call *logprob)
{
    const sb_cuda *c = ctx->state;
    const uint64_t rows = (uint64_t)logprob->call.rows;
    const int moments = sb_wants_moments(logprob);
    const int of_policy = is_of_policy(logprob);
    sb_logprob_call call = *logprob;
    sb_logprob_out *out = &call.out;
    logprob_plan p;
    memset(&p, 0, sizeof p);
    if (of_policy && !out->token) {
        p.tokens = sb_cuda_padded(rows * sizeof(float));
        out->token = (float *)(uintptr_t)SB_CUDA_BOUNDARY; /* they have a place */
    }
    p.reads_once = out->gradient && sb_cuda_plan_one_read(ctx, &call, &p.once);
    if (of_policy) {
        p.policy = sb_cuda_plan_policy(ctx, &logprob->policy, p.reads_once);
        if (!p.reads_once && !logprob->policy.out.token)
            p.upstream = sb_cuda_padded(rows * sizeof(float));
        p.ahead = p.tokens + p.upstream + p.policy.bytes;
    }
    if (p.reads_once) {
        p.bytes = p.ahead + p.once.exchange + p.once.tokens;
        return p;
    }
    p.kernels = sb_cuda_plan_of(&c->gpu, out, &logprob->call, moments);
    p.bytes = p.kernels.states + p.kernels.targets + p.kernels.tokens + p.kernels.strays;
    if (out->gradient) p.lists = sb_cuda_lists_of(&logprob->call);
    if (moments && !out->entropy) p.entropies = sb_cuda_padded(rows * sizeof(float));
    if (out->gradient && !out->saved) p.saved = sb_cuda_padded(rows * sizeof(sb_saved_row));
    p.before = p.lists.bytes + p.saved + p.entropies;
    p.bytes += p.before + p.ahead;
    return p;
}

/* Launches the kernels for the logprobs and for the gradient, one behind the other, and those of a
 * policy loss, if there is one, between them. */
static sb_status launch_twice(sb_context *ctx, const sb_logprob_call *logprob, logprob_plan *p,
                              CUdeviceptr scratch)
{
    const CUdeviceptr saved = scratch + p->lists.bytes;
    sb_logprob_call call = *logprob;
    sb_status status;
    if (p->saved) call.out.saved = (sb_saved_row *)(uintptr_t)saved;
    if (p->entropies) call.out.entropy = (float *)(uintptr_t)(saved + p->saved);
    call.gradient.saved = call.out.saved;
    status = launch_kernels(ctx, &call, &p->kernels, first_kernel(ctx->state, &call, &p->kernels),
                            scratch + p->before);
    if (status == SB_OK && is_of_policy(logprob))
        status = sb_cuda_launch_policy(ctx, &p->policy, call.call.launch.stream);
    if (status == SB_OK && call.out.gradient)
        status = sb_cuda_launch_words(ctx, &call.call, &p->lists, scratch, 0);
    if (status != SB_OK || !call.out.gradient) return status;
    return sb_cuda_launch_gradient(ctx, &call.gradient, &call.call, &p->lists, 1);
}

/* The gradient of a policy loss. Where the logits are read once, each row's derivative is made from
 * its logprob in that launch, and the loss follows it. */
static sb_status launch_with_policy(sb_context *ctx, const sb_logprob_call *logprob,
                                    logprob_plan *p, CUdeviceptr scratch)
{
    sb_logprob_call call = *logprob;
    CUstream stream = call.call.launch.stream;
    sb_cuda_policy *policy = &p->policy;
    sb_status status;
    if (p->tokens) call.out.token = (float *)(uintptr_t)scratch;
    if (p->upstream) call.policy.out.token = (float *)(uintptr_t)(scratch + p->tokens);
    call.policy.in.now = call.out.token;
    call.gradient.token = call.policy.out.token;
    sb_cuda_set_policy(policy, &call.policy, scratch + p->tokens + p->upstream);
    status = sb_cuda_launch_policy_constants(ctx, policy, stream);
    if (status != SB_OK) return status;
    if (!p->reads_once) return launch_twice(ctx, &call, p, scratch + p->ahead);
    sb_cuda_set_one_read_policy(&p->once, &call, &policy->a);
    status = sb_cuda_launch_one_read(ctx, &call, &p->once, scratch + p->ahead);
    if (status == SB_OK) status = sb_cuda_launch_policy(ctx, policy, stream);
    return status == SB_OK ? sb_cuda_refuse_one_read(ctx, &call.policy, &p->once, stream) : status;
}

static sb_status launch(sb_context *ctx, const sb_logprob_call *logprob, logprob_plan *p,
                        CUdeviceptr scratch)
{
    if (is_of_policy(logprob)) return launch_with_policy(ctx, logprob, p, scratch);
    if (p->reads_once) return sb_cuda_launch_one_read(ctx, logprob, &p->once, scratch);
    return launch_twice(ctx, logprob, p, scratch);
}

/* Waits for the call, and names its first bad row, or what is wrong with its policy loss. */
static sb_status check_policy(sb_context *ctx, const sb_logprob_call *logprob)
{
    const sb_call *call = &logprob->call;
    int64_t report;
    sb_status status = sb_cuda_wait_for_report(ctx, &call->launch, &report);
    if (status != SB_OK || !report) return status;
    status = sb_cuda_find_first_bad(ctx, call, NULL, NULL);
    if (status == SB_OK) status = sb_cuda_name_policy(ctx, &logprob->policy, report);
    return status == SB_OK ? sb_cuda_name_report(&ctx->error, report) : status;
}

static sb_status check_arrays(sb_context *ctx, const sb_logprob_call *logprob)
{
    const sb_call *call = &logprob->call;
    sb_status status = sb_cuda_check_arguments(ctx, &logprob->out, call);
    if (status == SB_OK && logprob->out.gradient)
        status = sb_cuda_check_gradient_arrays(ctx, &logprob->gradient, call, "gradient.");
    if (status == SB_OK && is_of_policy(logprob))
        status = sb_cuda_check_policy_arrays(ctx, &logprob->policy);
    return status;
}

/* ---- a policy loss of hidden states ------------------------------------------------------- */

/* The logprobs, the loss and the gradient are three calls, of which the last one multiplies the
 * logits again: all logprobs lie in front of the first derivative. */
typedef struct hidden_plan {
    sb_logprob_call forward;
    sb_policy_call loss;
    sb_backward_call backward;
    sb_cuda_policy policy;
    uint64_t tokens, saved, upstream, parts, bytes; /* parts: of the larger one of two calls */
} hidden_plan;

/* Sets the calls' arrays, of which some lie in scratch memory, and the scratch memory of each. */
static void set_hidden_scratch(hidden_plan *p, CUdeviceptr scratch)
{
    const CUdeviceptr saved = scratch + p->tokens, upstream = saved + p->saved;
    const CUdeviceptr parts = upstream + p->upstream + p->policy.bytes;
    sb_launch *const launches[] = { &p->forward.call.launch, &p->backward.call.launch };
    if (p->tokens) p->forward.out.token = (float *)(uintptr_t)scratch;
    if (p->saved) p->forward.out.saved = (sb_saved_row *)(uintptr_t)saved;
    if (p->upstream) p->loss.out.token = (float *)(uintptr_t)upstream;
    p->loss.in.now = p->forward.out.token;
    p->backward.to.saved = p->forward.out.saved;
    p->backward.to.token = p->loss.out.token;
    for (int i = 0; i < 2; i++) {
        launches[i]->workspace = (void *)(uintptr_t)parts;
        launches[i]->workspace_size = p->parts;
        launches[i]->check = 0;
    }
}

static sb_status plan_hidden(sb_context *ctx, const sb_logprob_call *logprob, hidden_plan *p)
{
    const uint64_t rows = (uint64_t)logprob->call.rows;
    uint64_t forward, backward;
    sb_status status;
    memset(p, 0, sizeof *p);
    p->forward = *logprob;
    p->forward.out.gradient = NULL;
    p->loss = logprob->policy;
    p->backward = (sb_backward_call){ logprob->gradient, logprob->call };
    p->backward.to.policy = NULL;
    p->policy = sb_cuda_plan_policy(ctx, &p->loss, 0);
    if (!logprob->out.token) p->tokens = sb_cuda_padded(rows * sizeof(float));
    if (!logprob->out.saved) p->saved = sb_cuda_padded(rows * sizeof(sb_saved_row));
    if (!p->loss.out.token) p->upstream = sb_cuda_padded(rows * sizeof(float));
    set_hidden_scratch(p, SB_CUDA_BOUNDARY); /* so that no array seems to be missing */
    status = sb_cuda_hidden_logprob_workspace(ctx, &p->forward, &forward);
    if (status == SB_OK) status = sb_cuda_hidden_backward_workspace(ctx, &p->backward, &backward);
    if (status != SB_OK) return status;
    p->parts = forward > backward ? forward : backward;
    p->bytes = p->tokens + p->saved + p->upstream + p->policy.bytes + p->parts;
    return SB_OK;
}

static sb_status run_hidden(sb_context *ctx, hidden_plan *p)
{
    sb_cuda *c = ctx->state;
    CUstream stream = p->loss.launch.stream;
    sb_status status = sb_cuda_launch_policy_constants(ctx, &p->policy, stream);
    c->inside = 1; /* the arrays have been checked */
    if (status == SB_OK) status = sb_cuda_hidden_logprob(ctx, &p->forward);
    if (status == SB_OK) status = sb_cuda_launch_policy(ctx, &p->policy, stream);
    c->inside = 1;
    if (status == SB_OK) status = sb_cuda_hidden_backward(ctx, &p->backward);
    c->inside = 0;
    return status;
}

static sb_status hidden_policy(sb_context *ctx, const sb_logprob_call *logprob)
{
    const sb_launch *launch = &logprob->call.launch;
    hidden_plan p;
    CUdeviceptr scratch;
    sb_status status = check_arrays(ctx, logprob);
    if (status == SB_OK) status = plan_hidden(ctx, logprob, &p);
    if (status == SB_OK) status = sb_cuda_scratch(ctx, launch, p.bytes, &scratch);
    if (status != SB_OK) return status;
    set_hidden_scratch(&p, scratch);
    sb_cuda_set_policy(&p.policy, &p.loss, scratch + p.tokens + p.saved + p.upstream);
    status = run_hidden(ctx, &p);
    sb_cuda_scratch_done(ctx, launch, scratch);
    return status == SB_OK && launch->check ? check_policy(ctx, logprob) : status;
}

static sb_status hidden_policy_workspace(sb_context *ctx, const sb_logprob_call *logprob,
                                         uint64_t *bytes)
{
    hidden_plan p;
    const sb_status status = plan_hidden(ctx, logprob, &p);
    *bytes = p.bytes;
    return status;
}

/* ---- the operation ------------------------------------------------------------------------ */

/* Passes a call of hidden states on. */
static sb_status of_hidden(sb_context *ctx, const sb_logprob_call *logprob)
{
    if (!logprob->out.gradient) return sb_cuda_hidden_logprob(ctx, logprob);
    return is_of_policy(logprob) ? hidden_policy(ctx, logprob) : sb_cuda_hidden_both(ctx, logprob);
}

sb_status sb_cuda_logprob(sb_context *ctx, const void *checked)
{
    const sb_logprob_call *logprob = checked;
    const sb_call *call = &logprob->call;
    logprob_plan p;
    CUdeviceptr scratch;
    sb_status status;
    if (call->in.head) return of_hidden(ctx, logprob);
    p = plan_logprob(ctx, logprob);
    status = check_arrays(ctx, logprob);
    if (status == SB_OK) status = sb_cuda_scratch(ctx, &call->launch, p.bytes, &scratch);
    if (status != SB_OK) return status;
    status = launch(ctx, logprob, &p, scratch);
    sb_cuda_scratch_done(ctx, &call->launch, scratch);
    if (status != SB_OK || !call->launch.check) return status;
    return is_of_policy(logprob) ? check_policy(ctx, logprob)
                                 : sb_cuda_check_call(ctx, call, NULL, NULL);
}

sb_status sb_cuda_logprob_workspace(sb_context *ctx, const void *checked, uint64_t *bytes)
{
    const sb_logprob_call *logprob = checked;
    if (logprob->call.in.head) {
        if (!logprob->out.gradient) return sb_cuda_hidden_logprob_workspace(ctx, logprob, bytes);
        return is_of_policy(logprob) ? hidden_policy_workspace(ctx, logprob, bytes)
                                     : sb_cuda_hidden_both_workspace(ctx, logprob, bytes);
    }
    *bytes = plan_logprob(ctx, logprob).bytes;
    return SB_OK;
}
