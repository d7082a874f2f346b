/* cuda.c - the control group on a GPU: the launches of kernels/conventional.cu. As frameworks do,
 * blocks are sized by the vocabulary, and a row is cut up among blocks where there are fewer rows
 * than multiprocessors; so the launch decides the bits. The first call loads the kernels. */
#include "cuda/capture.h"
#include "cuda/cuda.h"
#include "det/leaf.h"

/* As tools/kernel.sh embedded them. */
extern const unsigned char sb_fatbin_conventional[];

#define MAX_BLOCK 512
#define PIECE_LOGITS 4096 /* a piece is at least this long, unless split says otherwise */

/* Blocks of threads; split blocks per row. */
typedef struct shape {
    int32_t split, threads;
} shape;

static shape shape_of(const sb_call *call, int64_t rows, int32_t multiprocessors)
{
    const int64_t vocab = call->in.vocab, width = 16 / sb_itemsize(call->in.logits_dtype);
    const int64_t leaves = (vocab + SB_LEAF - 1) / SB_LEAF; /* pieces are whole ones */
    shape s = { call->launch.split, call->launch.threads };
    if (s.threads == 0) /* half as many as there are 16-byte vectors, a power of two */
        for (s.threads = 32; s.threads < MAX_BLOCK && s.threads * width * 2 < vocab;)
            s.threads *= 2;
    if (s.split == 0 && rows > 0 && rows < multiprocessors) {
        int64_t split = 2 * (int64_t)multiprocessors / rows, most = vocab / PIECE_LOGITS;
        s.split = (int32_t)(split < most ? split : most);
    }
    if (s.split > leaves) s.split = (int32_t)leaves;
    if (s.split < 1) s.split = 1;
    return s;
}

static sb_status load(sb_conventional_kernels *kernels, const sb_cuda_driver *driver,
                      sb_message *why)
{
    SB_CUDA_LOAD(sb_fatbin_conventional, SB_CONVENTIONAL_KERNELS)
}

static sb_status load_once(sb_context *ctx)
{
    sb_cuda *c = ctx->state;
    sb_status status;
    int mode;
    if (c->conventional.conventional_sums) return SB_OK; /* the last one */
    mode = sb_cuda_beside_captures_begin(&c->driver);
    status = load(&c->conventional, &c->driver, &ctx->error);
    sb_cuda_beside_captures_end(&c->driver, mode);
    return status;
}

static sb_cuda_plan plan_conventional(const sb_cuda *c, const sb_logprob_call *logprob)
{
    const sb_call *call = &logprob->call;
    const sb_logprob_out *out = &logprob->out;
    sb_cuda_plan p = { .work = call->in.row_list ? call->in.row_count : call->rows };
    const shape s = shape_of(call, p.work, c->gpu.multiprocessors);
    const int64_t leaves = (call->in.vocab + SB_LEAF - 1) / SB_LEAF;
    p.split = s.split;
    p.threads = s.threads;
    p.piece = (leaves + p.split - 1) / p.split;
    p.states = p.split > 1 ? (uint64_t)p.work * (uint64_t)p.split * 2 * sizeof(float) : 0;
    p.tokens = out->sequence && !out->token ? (uint64_t)call->rows * sizeof(float) : 0;
    return p;
}

static sb_status launch_kernels(sb_context *ctx, const sb_logprob_call *logprob,
                                const sb_cuda_plan *p, CUdeviceptr scratch)
{
    const sb_cuda *c = ctx->state;
    const sb_conventional_kernels *k = &c->conventional;
    const sb_logprob_out *out = &logprob->out;
    const sb_call *call = &logprob->call;
    const CUfunction kernel = sb_cuda_for_dtype(call->in.logits_dtype, k->conventional_f32,
                                                k->conventional_f16, k->conventional_bf16);
    const sb_cuda_grid grid = { .blocks = p->work * p->split, .threads = p->threads };
    CUstream stream = call->launch.stream;
    sb_cuda_args a = sb_cuda_args_of(c, out, call, p, scratch);
    sb_status status = sb_cuda_clear_unlisted(ctx, call, &a);

    if (status == SB_OK && (a.tokens || a.lse || call->launch.check)) {
        status = sb_cuda_launch(ctx, kernel, grid, &a, stream);
        if (status == SB_OK && p->split > 1)
            status = sb_cuda_launch(ctx, k->conventional_finish, sb_cuda_warps_for(p->work), &a,
                                    stream);
    }
    if (status == SB_OK && (out->sequence || out->count))
        status = sb_cuda_launch(ctx, k->conventional_sums, sb_cuda_warps_for(call->in.batch), &a,
                                stream);
    return status;
}

sb_status sb_conventional_cuda(sb_context *ctx, const void *checked)
{
    sb_cuda *c = ctx->state;
    const sb_logprob_call *logprob = checked;
    const sb_call *call = &logprob->call;
    const sb_cuda_plan p = plan_conventional(c, logprob);
    CUdeviceptr scratch;
    sb_status status = load_once(ctx);
    if (status == SB_OK) status = sb_cuda_check_arguments(ctx, &logprob->out, call);
    if (status == SB_OK)
        status = sb_cuda_scratch(ctx, &call->launch, p.states + p.targets + p.tokens, &scratch);
    if (status != SB_OK) return status;
    status = launch_kernels(ctx, logprob, &p, scratch);
    return sb_cuda_end_call(ctx, call, scratch, status);
}
