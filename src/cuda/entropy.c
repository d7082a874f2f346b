/* entropy.c - logprob with entropy on a GPU: the entropy kernels of kernels/logprob.cu. */
#include "cuda/cuda.h"
#include "det/moments.h"

/* As tools/kernel.sh embedded them. */
extern const unsigned char sb_fatbin_logprob[];

SB_CUDA_LOADER(sb_cuda_entropy_load, sb_cuda_entropy, SB_CUDA_ENTROPY_KERNELS, sb_fatbin_logprob)

/* Scratch, in this order: pieces, and tokens where only their sums are wanted. */
typedef struct entropy_plan {
    sb_cuda_args a;
    sb_cuda_grid grid;
    uint64_t pieces, tokens; /* bytes */
} entropy_plan;

static entropy_plan plan(sb_context *ctx, const sb_logprob_out *out, const sb_call *call)
{
    entropy_plan p;
    p.grid = sb_cuda_plan_shard(ctx, out, call, &p.a);
    p.grid.shared = 0;
    p.pieces = p.a.split > 1 ? (uint64_t)p.a.work * (uint64_t)p.a.split * sizeof(sb_moments) : 0;
    p.tokens = out->sequence && !out->token ? (uint64_t)call->rows * sizeof(float) : 0;
    return p;
}

uint64_t sb_cuda_entropy_workspace(sb_context *ctx, const sb_logprob_out *out, const sb_call *call)
{
    entropy_plan p = plan(ctx, out, call);
    return p.pieces + p.tokens;
}

static sb_status run(sb_context *ctx, const sb_logprob_out *out, const sb_call *call,
                     entropy_plan *p)
{
    const sb_cuda_entropy *kernels = sb_cuda_entropy_of(ctx);
    const int32_t dtype = call->in.logits_dtype;
    const CUfunction kernel = dtype == SB_F32   ? kernels->entropy_f32
                              : dtype == SB_F16 ? kernels->entropy_f16
                                                : kernels->entropy_bf16;
    CUstream stream = call->launch.stream;
    sb_status status = sb_cuda_clear_unlisted(ctx, call, &p->a);
    if (status == SB_OK) status = sb_cuda_launch(ctx, kernel, p->grid, &p->a, stream);
    if (status == SB_OK && p->a.split > 1)
        status = sb_cuda_launch(ctx, kernels->entropy_finish, sb_cuda_warps_for(p->a.work), &p->a,
                                stream);
    if (status == SB_OK && (out->sequence || out->count || out->outside))
        status = sb_cuda_sums(ctx, call, &p->a);
    return status;
}

typedef struct entropy_call {
    const sb_logprob_out *out;
    const sb_call *call;
} entropy_call;

static sb_status inside(sb_context *ctx, void *arguments)
{
    const entropy_call *e = arguments;
    const sb_call *call = e->call;
    entropy_plan p = plan(ctx, e->out, call);
    CUdeviceptr scratch;
    sb_status status = sb_cuda_check_arguments(ctx, e->out, call);
    if (status == SB_OK)
        status = sb_cuda_scratch(ctx, &call->launch, p.pieces + p.tokens, &scratch);
    if (status != SB_OK) return status;
    p.a.states = scratch;
    if (p.tokens) p.a.tokens = scratch + p.pieces;
    status = run(ctx, e->out, call, &p);
    sb_cuda_scratch_done(ctx, &call->launch, scratch);
    if (status == SB_OK && call->launch.check) status = sb_cuda_check_call(ctx, call, NULL, NULL);
    return status;
}

sb_status sb_cuda_logprob_entropy(sb_context *ctx, const sb_logprob_out *out, const sb_call *call)
{
    entropy_call e = { out, call };
    return sb_cuda_inside(ctx, &call->launch, inside, &e);
}
