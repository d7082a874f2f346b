/* launch.c - the steps that every operation needs to put its kernels into a stream: scratch memory,
 * the arguments that kernels share, launches, and the sums of tokens by sequence. The only
 * arithmetic here is det/row.h's, for the row constants of a call that has one temperature.
 *
 * Nothing here waits. A launch reports bad input into the word that sb_cuda_begin chose. */
#include <inttypes.h>

#include "cuda/cuda.h"

#define MAX_GRID 0x7fffffff

/* ---- scratch memory ----------------------------------------------------------------------- */

sb_status sb_cuda_scratch(sb_context *ctx, const sb_launch *launch, uint64_t needed,
                          CUdeviceptr *scratch)
{
    const sb_cuda *c = ctx->state;
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
    const sb_cuda *c = ctx->state;
    if (scratch && !launch->workspace) c->driver.MemFreeAsync(scratch, launch->stream);
}

/* ---- arguments ---------------------------------------------------------------------------- */

sb_cuda_args sb_cuda_args_of(const sb_cuda *c, const sb_logprob_out *out, const sb_call *call,
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
    a.kept_ids = sb_cuda_address(in->kept_ids);
    a.kept_offsets = sb_cuda_address(in->kept_offsets);
    a.kept_count = in->kept_count;
    a.kept_ids_dtype = in->kept_ids_dtype;
    a.kept_offsets_dtype = in->kept_offsets_dtype;
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
    a.strays = p->strays ? scratch + p->states + p->targets + p->tokens : 0;
    a.ahead = p->kind == SB_CUDA_STREAM && p->whole
                  ? (int64_t)c->gpu.multiprocessors * (1536 / p->threads)
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
    a.single = p->single;
    a.tail_each = p->tail_each;
    a.tail_more = p->tail_more;
    a.split = p->split;
    a.cu_seqlens_dtype = in->cu_seqlens_dtype;
    a.ids_dtype = in->ids_dtype;
    a.itemsize = (int32_t)sb_itemsize(in->logits_dtype);
    a.shift = in->shift;
    a.flat = in->cu_seqlens || in->batch <= 1 || in->batch_stride == in->time * in->row_stride;
    a.phases = a.flat && !in->row_list && p->kind != SB_CUDA_LISTS && (p->whole || p->groups) &&
                       p->work >= 64
                   ? sb_cuda_phases(call)
                   : 0;
    a.simple = a.flat && !in->mask && !in->row_list && !in->temperatures && !in->shift;
    a.eager = a.simple && p->eager;
    a.logits_dtype = in->logits_dtype;
    a.temperature = in->temperature;
    a.row = sb_row_of(in->temperature);
    return a;
}

sb_cuda_grid sb_cuda_plan_shard(sb_context *ctx, const sb_logprob_out *out, const sb_call *call,
                                sb_cuda_args *a)
{
    const sb_cuda *c = ctx->state;
    sb_call planned = *call;
    sb_cuda_plan p;
    planned.in.vocab = call->held > 0 ? call->held : 1;
    planned.launch.cluster = -1;
    planned.launch.table = -1;
    p = sb_cuda_plan_of(&c->gpu, out, &planned, 0);
    sb_cuda_plan_evenly(&p, &planned);
    *a = sb_cuda_args_of(c, out, call, &p, 0);
    a->tokens = a->token;
    a->ahead = 0;
    return (sb_cuda_grid){ .blocks = sb_cuda_blocks(&p),
                           .threads = sb_cuda_block(&p),
                           .shared = sb_cuda_shared(&p, call->in.logits_dtype) };
}

/* ---- launches ----------------------------------------------------------------------------- */

/* The name of a loaded kernel. */
static const char *name_of(const sb_cuda *c, CUfunction kernel)
{
#define IS(kernel_name)                                                                            \
    if (k->kernel_name == kernel) return #kernel_name;
#define FIND(file, LIST)                                                                           \
    {                                                                                              \
        const sb_cuda_##file##_kernels *k = &c->file;                                              \
        LIST(IS)                                                                                   \
    }
    SB_CUDA_MODULES(FIND)
    {
        const sb_conventional_kernels *k = &c->conventional;
        SB_CONVENTIONAL_KERNELS(IS)
    }
#undef FIND
#undef IS
    return "";
}

/* Adds a launch to the line that sb_last_plan returns. */
static void say_launch(sb_context *ctx, CUfunction kernel, sb_cuda_grid grid)
{
    if (ctx->plan.length) sb_plan_say(ctx, "; ");
    sb_plan_say(ctx, name_of(ctx->state, kernel));
    sb_plan_say(ctx, " ");
    sb_plan_say_number(ctx, grid.blocks);
    sb_plan_say(ctx, " x ");
    sb_plan_say_number(ctx, grid.threads);
    if (grid.shared) {
        sb_plan_say(ctx, ", ");
        sb_plan_say_number(ctx, grid.shared);
        sb_plan_say(ctx, " B");
    }
    if (grid.cluster) {
        sb_plan_say(ctx, ", clusters of ");
        sb_plan_say_number(ctx, grid.cluster);
    }
}

sb_status sb_cuda_launch(sb_context *ctx, CUfunction kernel, sb_cuda_grid grid, sb_cuda_args *a,
                         CUstream stream)
{
    sb_cuda *c = ctx->state;
    void *parameters[] = { a };
    CUlaunchAttribute attributes[3];
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
    if (grid.cooperative) {
        attributes[count].id = CU_LAUNCH_ATTRIBUTE_COOPERATIVE;
        attributes[count].value.integer = 1;
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
    a->before = c->before;
    c->launched = 1;
    DRIVER(&ctx->error, &c->driver, LaunchKernelEx, &config, kernel, parameters, NULL);
    say_launch(ctx, kernel, grid);
    return SB_OK;
}

sb_status sb_cuda_clear(sb_context *ctx, uint64_t data, uint64_t bytes, CUstream stream)
{
    const sb_cuda *c = ctx->state;
    if (data && bytes)
        DRIVER(&ctx->error, &c->driver, MemsetD8Async, data, 0, (size_t)bytes, stream);
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

sb_status sb_cuda_sum_sequences(sb_context *ctx, const sb_call *call, sb_cuda_args *a)
{
    const sb_cuda *c = ctx->state;
    if (!a->sequence && !a->count && !a->outside) return SB_OK;
    return sb_cuda_launch(ctx, c->logprob.sequence_sums, sb_cuda_warps_for(call->in.batch), a,
                          call->launch.stream);
}
