/* policy.c - policy losses and group advantages on a GPU: the launches of kernels/policy.cu. */
#include "cuda/policy.h"

#include "api/policy.h"

#include <stdlib.h>

#include "cuda/cuda.h"
#include "cuda/policy_args.h"

#define WARPS (SB_CUDA_POLICY_BLOCK / 32)
#define TOKEN_BLOCKS 2    /* per multiprocessor: as many as run at once */
#define SEQUENCE_BLOCKS 2 /* per multiprocessor, at most */
#define FINISH_BLOCKS 32  /* they write NaN, if the call is refused */
#define MOST_UNIT 4096    /* rows */
/* The most sequences whose lengths each block of the tokens' kernel adds up. */
#define MOST_LENGTHS 1024
/* The longest, on average, that a block counts alone. */
#define MOST_COUNTED 262144

/* ---- policy losses ------------------------------------------------------------------------ */

/* Reserves count items of size bytes; returns their offset plus 1. */
static uint64_t reserve(uint64_t *bytes, int64_t count, uint64_t size)
{
    const uint64_t at = *bytes;
    *bytes += sb_cuda_padded((uint64_t)count * size);
    return at + 1;
}

static int is_aligned(const void *data, uint64_t to) { return sb_cuda_address(data) % to == 0; }

static int runs_of_four(const sb_policy_call *call)
{
    const sb_policy *in = &call->in;
    const void *arrays[] = { in->now,         in->old,
                             in->ref,         in->rollout,
                             in->entropy,     in->per_token ? in->advantages : NULL,
                             call->out.token, call->out.entropy };
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++)
        if (!is_aligned(arrays[i], 16)) return 0;
    return is_aligned(in->mask, 4);
}

/* Rows per unit: one unit for each warp that runs at once, if that is not too long. */
static int32_t unit_for(int64_t rows, int64_t warps)
{
    const int64_t slab = SB_CUDA_POLICY_SLAB, even = (rows + warps - 1) / warps;
    const int64_t unit = (even + slab - 1) / slab * slab;
    return (int32_t)(unit < slab ? slab : unit < MOST_UNIT ? unit : MOST_UNIT);
}

/* The sums of differences that a call needs. Where it needs two kinds, one kernel makes all. */
static int32_t joint_sums(const sb_policy_call *call)
{
    const sb_policy_rules *r = &call->rules;
    const int weight = r->weight != SB_WEIGHT_OFF && r->level != SB_LEVEL_TOKEN;
    if (r->loss != SB_LOSS_GSPO) return weight ? SB_CUDA_WEIGHT : 0;
    return weight || (call->out.metrics && call->in.rollout) ? SB_CUDA_ALL_SUMS : SB_CUDA_MOVED;
}

static CUfunction count_kernel(const sb_cuda_policy_kernels *k, int32_t sums)
{
    switch (sums) {
    case 0: return k->policy_count;
    case SB_CUDA_MOVED: return k->policy_count_moved;
    case SB_CUDA_WEIGHT: return k->policy_count_weight;
    default: return k->policy_count_joint;
    }
}

sb_cuda_policy sb_cuda_plan_policy(const sb_context *ctx, const sb_policy_call *call, int early)
{
    const sb_cuda *c = ctx->state;
    const sb_policy *in = &call->in;
    const int64_t blocks = (int64_t)c->gpu.multiprocessors * TOKEN_BLOCKS;
    const int64_t most = (int64_t)c->gpu.multiprocessors * SEQUENCE_BLOCKS;
    sb_cuda_policy p;
    sb_cuda_policy_args *a = &p.a;
    int64_t segments;
    int needs_totals;
    memset(&p, 0, sizeof p);
    a->rules = call->rules;
    a->tokens = in->tokens;
    a->sequences = in->sequences;
    a->per_token = in->per_token;
    a->joint = joint_sums(call);
    a->unit = unit_for(call->rows, blocks * WARPS);
    a->units = (call->rows + a->unit - 1) / a->unit;
    a->token_blocks = (a->units + WARPS - 1) / WARPS;
    /* each block's tally is a cost; without them, the GPU balances blocks better than a loop */
    if (call->out.metrics && a->token_blocks > blocks) a->token_blocks = blocks;
    a->sequence_blocks = (in->batch + WARPS - 1) / WARPS;
    if (a->sequence_blocks > most) a->sequence_blocks = most;
    segments = a->units + in->batch;
    if (early && !in->mask && !in->cu_seqlens && in->time > 0) { /* every token is active */
        if (!a->tokens) a->tokens = call->rows;
        if (!a->sequences) a->sequences = in->batch;
    }
    needs_totals = (in->norm == SB_TOKEN_MEAN && !a->tokens) ||
                   ((in->norm == SB_SEQUENCE_MEAN || in->norm == SB_SEQUENCE_SUM) && !a->sequences);
    p.counted = a->joint || needs_totals || in->norm == SB_SEQUENCE_MEAN;
    p.by_sequences = !early && !a->joint && in->batch <= MOST_LENGTHS &&
                     call->rows / MOST_COUNTED < in->batch;

    if (in->cu_seqlens) a->refused = reserve(&p.bytes, 1, 4);
    if (p.counted) {
        a->lengths = reserve(&p.bytes, in->batch, sizeof(sb_cuda_policy_length));
        if (!p.by_sequences) {
            a->counts = reserve(&p.bytes, segments, 8);
            if (needs_totals && (early || in->batch > MOST_LENGTHS))
                a->totals = reserve(&p.bytes, 2, 8);
        }
        if (a->joint) a->joints = reserve(&p.bytes, segments, sizeof(sb_policy_joint));
    }
    a->parts = reserve(&p.bytes, segments, sizeof(sb_cuda_policy_part));
    a->sums = reserve(&p.bytes, a->sequence_blocks, sizeof(sb_cuda_policy_total));
    if (call->out.metrics) a->tallies = reserve(&p.bytes, a->token_blocks, sizeof(sb_tally));
    return p;
}

/* Puts the plan's scratch memory in its place, and sets the arrays. */
void sb_cuda_set_policy(sb_cuda_policy *p, const sb_policy_call *call, CUdeviceptr scratch)
{
    sb_cuda_policy_args *a = &p->a;
    const sb_policy *in = &call->in;
    uint64_t *const places[] = { &a->refused, &a->counts, &a->lengths, &a->joints,
                                 &a->totals,  &a->parts,  &a->sums,    &a->tallies };
    for (size_t i = 0; i < sizeof places / sizeof *places; i++)
        if (*places[i]) *places[i] += scratch - 1;
    a->in.batch = in->batch;
    a->in.time = in->time;
    a->in.rows = call->rows;
    a->in.cu_seqlens = sb_cuda_address(in->cu_seqlens);
    a->in.cu_seqlens_dtype = in->cu_seqlens_dtype;
    a->in.mask = sb_cuda_address(in->mask);
    a->in.sequence = sb_cuda_address(call->out.sequence);
    a->now = sb_cuda_address(in->now);
    a->old = sb_cuda_address(in->old);
    a->ref = sb_cuda_address(in->ref);
    a->rollout = sb_cuda_address(in->rollout);
    a->given_entropy = sb_cuda_address(in->entropy);
    a->advantages = sb_cuda_address(in->advantages);
    a->loss = sb_cuda_address(call->out.loss);
    a->token = sb_cuda_address(call->out.token);
    a->entropy = sb_cuda_address(call->out.entropy);
    a->record = sb_cuda_address(call->out.record);
    a->metrics = sb_cuda_address(call->out.metrics);
    a->vector = runs_of_four(call);
}

sb_status sb_cuda_check_policy_arrays(sb_context *ctx, const sb_policy_call *call)
{
    const sb_policy *in = &call->in;
    const uint64_t offset = in->cu_seqlens_dtype == SB_I64 ? 8 : 4;
    const uint64_t rows = sb_cuda_bytes(call->rows, 4), batch = sb_cuda_bytes(in->batch, 4);
    const sb_cuda_array arrays[] = {
        { "now", in->now, 4, rows },
        { "old", in->old, 4, rows },
        { "ref", in->ref, 4, rows },
        { "rollout", in->rollout, 4, rows },
        { "entropy", in->entropy, 4, rows },
        { "advantages", in->advantages, 4, in->per_token ? rows : batch },
        { "mask", in->mask, 1, sb_cuda_bytes(call->rows, 1) },
        { "cu_seqlens", in->cu_seqlens, offset, sb_cuda_bytes(in->batch + 1, offset) },
        { "out.loss", call->out.loss, 4, 4 },
        { "out.sequence", call->out.sequence, 4, batch },
        { "out.token", call->out.token, 4, rows },
        { "out.entropy", call->out.entropy, 4, rows },
        { "out.record", call->out.record, 8, sizeof(sb_policy_record) },
        { "out.metrics", call->out.metrics, 4, sizeof(sb_policy_metrics) },
        { "workspace", call->launch.workspace, SB_CUDA_BOUNDARY, call->launch.workspace_size },
    };
    return sb_cuda_check_arrays(ctx, arrays, sizeof arrays / sizeof *arrays);
}

static sb_cuda_grid blocks_of(int64_t blocks, int32_t threads)
{
    return (sb_cuda_grid){ .blocks = blocks, .threads = threads };
}

/* For a kernel that waits for the one before it. */
static sb_cuda_grid early(sb_cuda_grid grid)
{
    grid.early = 1;
    return grid;
}

/* Blocks of SB_CUDA_POLICY_BLOCK threads with a warp, or a thread, for each item. */
static sb_cuda_grid warps_for(int64_t items)
{
    return blocks_of((items + WARPS - 1) / WARPS, SB_CUDA_POLICY_BLOCK);
}

static sb_cuda_grid threads_for(int64_t items, int32_t threads)
{
    return blocks_of((items + threads - 1) / threads, threads);
}

/* The kernel for the tokens: those of the usual losses are compiled for their rules. */
static CUfunction tokens_kernel(const sb_cuda_policy_kernels *k, const sb_cuda_policy_args *a)
{
    const sb_policy_rules *r = &a->rules;
    const int bare = r->weight == SB_WEIGHT_OFF && !r->adds_entropy && !a->entropy;
    const int clip = bare && r->loss == SB_LOSS_CLIP && (r->has & SB_HAS_OLD);
    const int k3 = clip && r->adds_kl && r->kl == SB_KL_3;
    if (a->metrics)
        return k3 && r->has == (SB_HAS_OLD | SB_HAS_REF) ? k->policy_tokens_clip_k3_metrics
                                                         : k->policy_tokens_metrics;
    if (bare && r->loss == SB_LOSS_GSPO && !r->adds_kl) return k->policy_tokens_gspo;
    if (k3) return k->policy_tokens_clip_k3;
    return clip && !r->adds_kl ? k->policy_tokens_clip : k->policy_tokens_loss;
}

sb_status sb_cuda_launch_policy_constants(sb_context *ctx, sb_cuda_policy *p, CUstream stream)
{
    const sb_cuda *c = ctx->state;
    const sb_cuda_policy_kernels *k = &c->policy;
    sb_cuda_policy_args *a = &p->a;
    sb_status status = SB_OK;
    if (a->refused) {
        status = sb_cuda_clear(ctx, a->refused, 4, stream);
        if (status == SB_OK)
            status = sb_cuda_launch(ctx, k->policy_offsets,
                                    threads_for(a->in.batch, SB_CUDA_POLICY_BLOCK), &a->in, stream);
    }
    if (status != SB_OK || !p->counted) return status;
    if (p->by_sequences)
        return sb_cuda_launch(ctx, k->policy_count_sequences,
                              blocks_of(a->in.batch, SB_CUDA_POLICY_BLOCK), &a->in, stream);
    status = sb_cuda_launch(ctx, count_kernel(k, a->joint), warps_for(a->units), &a->in, stream);
    if (status == SB_OK)
        status = sb_cuda_launch(ctx, k->policy_lengths, early(warps_for(a->in.batch)), &a->in,
                                stream);
    if (status == SB_OK && a->totals)
        status = sb_cuda_launch(ctx, k->policy_totals, early(blocks_of(1, SB_CUDA_POLICY_LAST)),
                                &a->in, stream);
    return status;
}

sb_status sb_cuda_launch_policy(sb_context *ctx, sb_cuda_policy *p, CUstream stream)
{
    const sb_cuda *c = ctx->state;
    const sb_cuda_policy_kernels *k = &c->policy;
    sb_cuda_policy_args *a = &p->a;
    sb_cuda_grid tokens = blocks_of(a->token_blocks, SB_CUDA_POLICY_BLOCK);
    sb_cuda_grid after = early(blocks_of(a->sequence_blocks, SB_CUDA_POLICY_BLOCK));
    sb_cuda_grid finish = early(blocks_of(1, SB_CUDA_POLICY_LAST));
    sb_status status;
    tokens.early = a->refused || p->counted; /* otherwise no kernel of this call is before it */
    /* What may be refused has rows to write over. */
    if (a->refused || a->tokens || a->sequences)
        finish.blocks = a->in.rows > SB_CUDA_POLICY_LAST ? FINISH_BLOCKS : 2;
    status = sb_cuda_launch(ctx, tokens_kernel(k, a), tokens, &a->in, stream);
    if (status == SB_OK) status = sb_cuda_launch(ctx, k->policy_sequences, after, &a->in, stream);
    if (status == SB_OK) status = sb_cuda_launch(ctx, k->policy_finish, finish, &a->in, stream);
    return status;
}

sb_status sb_cuda_name_policy(sb_context *ctx, const sb_policy_call *call, int64_t report)
{
    const sb_policy *in = &call->in;
    const int64_t kind = report >> SB_BAD_SHIFT;
    const int64_t count = (report & (((int64_t)1 << SB_BAD_SHIFT) - 1)) - 1;
    const void *copy = in->cu_seqlens;
    sb_status status = SB_OK;
    if (copy) {
        status = sb_cuda_fetch(ctx, &copy, in->batch + 1, in->cu_seqlens_dtype == SB_I64 ? 8 : 4,
                               call->launch.stream);
        if (status != SB_OK) return status;
        status = sb_check_cu_seqlens(copy, in->cu_seqlens_dtype, in->batch, in->rows, &ctx->error);
        free((void *)(uintptr_t)copy);
    }
    if (status == SB_OK && kind == SB_BAD_TOKENS)
        status = sb_check_policy_totals(in, count, 0, &ctx->error);
    if (status == SB_OK && kind == SB_BAD_SEQUENCES)
        status = sb_check_policy_totals(in, 0, count, &ctx->error);
    return status;
}

/* Waits for the call, and says what the cpu backend would. */
static sb_status check_policy(sb_context *ctx, const sb_policy_call *call)
{
    int64_t report;
    sb_status status = sb_cuda_wait_for_report(ctx, &call->launch, &report);
    if (status != SB_OK || !report) return status;
    status = sb_cuda_name_policy(ctx, call, report);
    return status == SB_OK ? sb_cuda_name_report(&ctx->error, report) : status;
}

sb_status sb_cuda_policy_loss_workspace(sb_context *ctx, const void *checked, uint64_t *bytes)
{
    *bytes = sb_cuda_plan_policy(ctx, checked, 0).bytes;
    return SB_OK;
}

sb_status sb_cuda_policy_loss(sb_context *ctx, const void *checked)
{
    const sb_policy_call *call = checked;
    sb_cuda_policy p = sb_cuda_plan_policy(ctx, call, 0);
    CUstream stream = call->launch.stream;
    CUdeviceptr scratch;
    sb_status status = sb_cuda_check_policy_arrays(ctx, call);
    if (status == SB_OK) status = sb_cuda_scratch(ctx, &call->launch, p.bytes, &scratch);
    if (status != SB_OK) return status;
    sb_cuda_set_policy(&p, call, scratch);
    status = sb_cuda_launch_policy_constants(ctx, &p, stream);
    if (status == SB_OK) status = sb_cuda_launch_policy(ctx, &p, stream);
    sb_cuda_scratch_done(ctx, &call->launch, scratch);
    if (status == SB_OK && call->launch.check) status = check_policy(ctx, call);
    return status;
}

/* ---- merging ------------------------------------------------------------------------------ */

/* Waits for the call, and finds the first bad record by the cpu backend's checks on a copy. */
static sb_status check_merge(sb_context *ctx, const sb_policy_merge_call *call)
{
    const uint32_t adds = (uint32_t)sb_policy_adds_sequences(&call->rules);
    const void *copy = call->records;
    int64_t report, tokens = 0, sequences = 0;
    sb_status status = sb_cuda_wait_for_report(ctx, &call->launch, &report);
    if (status != SB_OK || !report) return status;
    status = sb_cuda_fetch(ctx, &copy, call->count, sizeof(sb_tally), call->launch.stream);
    if (status != SB_OK) return status;
    for (int64_t i = 0; i < call->count && status == SB_OK; i++) {
        const sb_tally *t = (const sb_tally *)copy + i;
        const uint32_t parts = call->out.metrics ? SB_TALLY_ALL : ((const sb_tally *)copy)->parts;
        const sb_tally_fault fault = sb_tally_fault_of(t, adds, parts, tokens);
        if (fault != SB_TALLY_WELL) status = sb_policy_record_fail(&ctx->error, i, fault);
        tokens += t->counts[SB_TALLY_TOKENS];
        sequences += t->counts[SB_TALLY_SEQUENCES];
    }
    free((void *)(uintptr_t)copy);
    if (status == SB_OK) status = sb_check_policy_totals(&call->in, tokens, sequences, &ctx->error);
    return status == SB_OK ? sb_cuda_name_report(&ctx->error, report) : status;
}

sb_status sb_cuda_policy_merge(sb_context *ctx, const void *checked)
{
    const sb_cuda *c = ctx->state;
    const sb_policy_merge_call *call = checked;
    const sb_cuda_array arrays[] = {
        { "records", call->records, 8, sb_cuda_bytes(call->count, sizeof(sb_policy_record)) },
        { "out.loss", call->out.loss, 4, 4 },
        { "out.record", call->out.record, 8, sizeof(sb_policy_record) },
        { "out.metrics", call->out.metrics, 4, sizeof(sb_policy_metrics) },
    };
    sb_cuda_policy_args a;
    sb_status status = sb_cuda_check_arrays(ctx, arrays, sizeof arrays / sizeof *arrays);
    if (status != SB_OK) return status;
    memset(&a, 0, sizeof a);
    a.rules = call->rules;
    a.tokens = call->in.tokens;
    a.sequences = call->in.sequences;
    a.tallies = sb_cuda_address(call->records);
    a.units = call->count;
    a.loss = sb_cuda_address(call->out.loss);
    a.record = sb_cuda_address(call->out.record);
    a.metrics = sb_cuda_address(call->out.metrics);
    status = sb_cuda_launch(ctx, c->policy.policy_merge, blocks_of(1, SB_CUDA_POLICY_LAST), &a.in,
                            call->launch.stream);
    if (status == SB_OK && call->launch.check) status = check_merge(ctx, call);
    return status;
}

/* ---- group advantages --------------------------------------------------------------------- */

static uint64_t group_scratch(const sb_groups_call *call, sb_cuda_group_args *a)
{
    uint64_t bytes = 0;
    memset(a, 0, sizeof *a);
    a->own = reserve(&bytes, call->in.groups, sizeof(sb_group));
    if (call->in.offsets) a->refused = reserve(&bytes, 1, 4);
    if (call->in.scale == SB_STEP_STD) a->step = reserve(&bytes, 1, 8);
    return bytes;
}

sb_status sb_cuda_group_advantages_workspace(sb_context *ctx, const void *checked, uint64_t *bytes)
{
    sb_cuda_group_args a;
    (void)ctx;
    *bytes = group_scratch(checked, &a);
    return SB_OK;
}

static sb_status check_group_arrays(sb_context *ctx, const sb_groups_call *call)
{
    const sb_groups *in = &call->in;
    const uint64_t offset = in->offsets_dtype == SB_I64 ? 8 : 4;
    const uint64_t records = sb_cuda_bytes(in->groups, sizeof(sb_group_record));
    const sb_cuda_array arrays[] = {
        { "rewards", in->rewards, 4, sb_cuda_bytes(call->rows, 4) },
        { "offsets", in->offsets, offset, sb_cuda_bytes(in->groups + 1, offset) },
        { "records", in->records, 8, records * (uint64_t)(in->records ? in->shards : 0) },
        { "out.advantages", call->out.advantages, 4, sb_cuda_bytes(call->rows, 4) },
        { "out.records", call->out.records, 8, records },
        { "out.mean", call->out.mean, 8, sb_cuda_bytes(in->groups, 8) },
        { "out.std", call->out.std, 8, sb_cuda_bytes(in->groups, 8) },
        { "workspace", call->launch.workspace, SB_CUDA_BOUNDARY, call->launch.workspace_size },
    };
    return sb_cuda_check_arrays(ctx, arrays, sizeof arrays / sizeof *arrays);
}

static sb_status launch_groups(sb_context *ctx, const sb_groups_call *call, sb_cuda_group_args *a,
                               CUdeviceptr scratch)
{
    const sb_cuda *c = ctx->state;
    const sb_cuda_policy_kernels *k = &c->policy;
    const sb_groups *in = &call->in;
    const sb_cuda_grid each = blocks_of(in->groups, SB_CUDA_GROUP_BLOCK);
    CUstream stream = call->launch.stream;
    sb_status status = SB_OK;
    a->own += scratch - 1;
    if (a->refused) a->refused += scratch - 1;
    if (a->step) a->step += scratch - 1;
    a->rewards = sb_cuda_address(in->rewards);
    a->offsets = sb_cuda_address(in->offsets);
    a->from = sb_cuda_address(in->records);
    a->advantages = sb_cuda_address(call->out.advantages);
    a->records = sb_cuda_address(call->out.records);
    a->mean = sb_cuda_address(call->out.mean);
    a->std = sb_cuda_address(call->out.std);
    a->groups = in->groups;
    a->each = in->each;
    a->rows = call->rows;
    a->shards = in->shards;
    a->offsets_dtype = in->offsets_dtype;
    a->population = in->population;
    a->scaled = in->scale != SB_UNSCALED;
    a->eps = in->eps;
    if (a->refused) {
        status = sb_cuda_clear(ctx, a->refused, 4, stream);
        if (status == SB_OK)
            status = sb_cuda_launch(ctx, k->group_offsets,
                                    threads_for(in->groups, SB_CUDA_GROUP_BLOCK), &a->in, stream);
    }
    if (status == SB_OK) status = sb_cuda_launch(ctx, k->group_records, each, &a->in, stream);
    if (status == SB_OK && a->step)
        status = sb_cuda_launch(ctx, k->group_total, blocks_of(1, SB_CUDA_GROUP_BLOCK), &a->in,
                                stream);
    if (status == SB_OK && (a->advantages || a->mean || a->std))
        status = sb_cuda_launch(ctx, k->group_advantages, each, &a->in, stream);
    return status;
}

/* Finds the first bad record on copies of them. */
static sb_status find_bad_group(sb_context *ctx, const sb_groups_call *call)
{
    const sb_groups *in = &call->in;
    const void *copy = in->records;
    sb_status status = sb_cuda_fetch(ctx, &copy, in->shards * in->groups, sizeof(sb_group),
                                     call->launch.stream);
    for (int64_t g = 0; g < in->groups && status == SB_OK; g++) {
        uint64_t total = 0;
        for (int64_t s = 0; s < in->shards && status == SB_OK; s++) {
            const sb_group *group = (const sb_group *)copy + s * in->groups + g;
            if (!sb_group_is_well(group, total)) status = sb_group_record_fail(&ctx->error, g, s);
            total += group->n;
        }
    }
    free((void *)(uintptr_t)copy);
    return status;
}

static sb_status check_groups(sb_context *ctx, const sb_groups_call *call)
{
    const sb_groups *in = &call->in;
    const void *copy = in->offsets;
    int64_t report;
    sb_status status = sb_cuda_wait_for_report(ctx, &call->launch, &report);
    if (status != SB_OK || !report) return status;
    if (copy) {
        status = sb_cuda_fetch(ctx, &copy, in->groups + 1, in->offsets_dtype == SB_I64 ? 8 : 4,
                               call->launch.stream);
        if (status != SB_OK) return status;
        status = sb_check_group_offsets(in, copy, &ctx->error);
        free((void *)(uintptr_t)copy);
    }
    if (status == SB_OK && in->records) status = find_bad_group(ctx, call);
    return status == SB_OK ? sb_cuda_name_report(&ctx->error, report) : status;
}

sb_status sb_cuda_group_advantages(sb_context *ctx, const void *checked)
{
    const sb_groups_call *call = checked;
    sb_cuda_group_args a;
    const uint64_t bytes = group_scratch(call, &a);
    CUdeviceptr scratch;
    sb_status status = check_group_arrays(ctx, call);
    if (status == SB_OK) status = sb_cuda_scratch(ctx, &call->launch, bytes, &scratch);
    if (status != SB_OK) return status;
    status = launch_groups(ctx, call, &a, scratch);
    sb_cuda_scratch_done(ctx, &call->launch, scratch);
    if (status == SB_OK && call->launch.check) status = check_groups(ctx, call);
    return status;
}
