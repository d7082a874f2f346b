/* gradient.c - gradients on a GPU: the launch of kernels/gradient.cu, one kernel for each pair of
 * dtypes and each loss. It needs scratch memory for lists of kept ids only. logprob.c launches it
 * behind the kernels that save the rows. */
#include <stdio.h>

#include "cuda/head.h"
#include "cuda/lists.h"
#include "det/gradient.h"

#define BLOCK 128 /* threads, if the call does not choose */

/* SB_F32, SB_F16, SB_BF16: 0, 1, 2. */
static int place_of(int32_t dtype) { return dtype == SB_F32 ? 0 : dtype == SB_F16 ? 1 : 2; }

static CUfunction kernel_for(const sb_cuda_gradient_kernels *k, int32_t from, int32_t to,
                             int32_t of)
{
#define KERNEL(name) k->name,
    const CUfunction kernels[] = { SB_CUDA_GRADIENT_KERNELS(KERNEL) };
#undef KERNEL
    return kernels[(place_of(from) * 3 + place_of(to)) * 3 + of - SB_OF_TOKEN];
}

sb_status sb_cuda_check_gradient_arrays(sb_context *ctx, const sb_gradient *g, const sb_call *call,
                                        const char *from)
{
    const sb_batch *in = &call->in;
    const uint64_t size = (uint64_t)sb_itemsize(g->dtype);
    const int64_t batch = in->cu_seqlens ? 1 : in->batch;
    const int64_t time = in->cu_seqlens ? call->rows : in->time;
    char token[32], entropy[32];
    const sb_cuda_array arrays[] = {
        { "grad", g->grad, size,
          sb_cuda_span(batch, time, g->batch_stride, g->row_stride, g->width, size) },
        { "saved", g->saved, 8, sb_cuda_bytes(call->rows, sizeof(sb_saved_row)) },
        { token, g->token, 4, sb_cuda_bytes(call->rows, 4) },
        { entropy, g->entropy, 4, sb_cuda_bytes(call->rows, 4) },
    };
    snprintf(token, sizeof token, "%stoken", from);
    snprintf(entropy, sizeof entropy, "%sentropy", from);
    return sb_cuda_check_arrays(ctx, arrays, sizeof arrays / sizeof *arrays);
}

static const sb_logprob_out NO_OUT = SB_LOGPROB_OUT_INIT;

sb_cuda_gradient_args sb_cuda_gradient_args_of(sb_context *ctx, const sb_logprob_out *out,
                                               const sb_gradient *gradient, const sb_call *call)
{
    sb_cuda_gradient_args a;
    memset(&a, 0, sizeof a);
    sb_cuda_plan_shard(ctx, out, call, &a.in);
    a.grad = sb_cuda_address(gradient->grad);
    a.saved = sb_cuda_address(gradient->saved);
    a.token = sb_cuda_address(gradient->token);
    a.entropy = sb_cuda_address(gradient->entropy);
    if (!a.in.logits) a.in.logits = a.saved; /* an empty shard: not read, but must not be null */
    a.width = gradient->width;
    a.row_stride = gradient->row_stride;
    a.batch_stride = gradient->batch_stride;
    a.first = call->first;
    a.held = call->held;
    a.grad_size = (int32_t)sb_itemsize(gradient->dtype);
    a.of = (gradient->token ? SB_OF_TOKEN : 0) | (gradient->entropy ? SB_OF_ENTROPY : 0);
    a.simple = a.in.simple && !a.in.kept && a.batch_stride == call->in.time * a.row_stride;
    return a;
}

static sb_cuda_grid plan_gradient(const sb_cuda *c, sb_cuda_gradient_args *a, const sb_call *call)
{
    sb_cuda_grid grid = { .threads = call->launch.threads ? call->launch.threads : BLOCK };
    const sb_cuda_pieces p = sb_cuda_pieces_of(c->gpu.multiprocessors, call->rows, a->width,
                                               a->in.itemsize, call->launch.split, grid.threads);
    a->piece = p.piece;
    a->pieces = p.pieces;
    grid.blocks = call->rows * a->pieces;
    grid.shared = (uint32_t)grid.threads * 16 * SB_CUDA_GRADIENT_AHEAD;
    return grid;
}

sb_status sb_cuda_launch_gradient(sb_context *ctx, const sb_gradient *to, const sb_call *call,
                                  const sb_cuda_lists *lists, int reported)
{
    const sb_cuda *c = ctx->state;
    const sb_call words = sb_cuda_words_call(call);
    sb_cuda_gradient_args a = sb_cuda_gradient_args_of(ctx, &NO_OUT, to, &words);
    const sb_cuda_grid grid = plan_gradient(c, &a, call);
    if (grid.blocks == 0) return SB_OK; /* without rows, no upstream gradient chooses a kernel */
    a.reported = reported;
    sb_cuda_use_words(&a.in, lists);
    return sb_cuda_launch(ctx, kernel_for(&c->gradient, call->in.logits_dtype, to->dtype, a.of),
                          grid, &a.in, call->launch.stream);
}

sb_status sb_cuda_backward_workspace(sb_context *ctx, const void *checked, uint64_t *bytes)
{
    const sb_backward_call *backward = checked;
    if (backward->call.in.head) return sb_cuda_hidden_backward_workspace(ctx, backward, bytes);
    *bytes = sb_cuda_lists_of(&backward->call).bytes;
    return SB_OK;
}

sb_status sb_cuda_backward(sb_context *ctx, const void *checked)
{
    const sb_backward_call *backward = checked;
    const sb_gradient *to = &backward->to;
    const sb_call *call = &backward->call;
    sb_cuda_lists lists = sb_cuda_lists_of(call);
    CUdeviceptr scratch;
    sb_status status;
    if (call->in.head) return sb_cuda_hidden_backward(ctx, backward);
    status = sb_cuda_check_arguments(ctx, &NO_OUT, call);
    if (status == SB_OK) status = sb_cuda_check_gradient_arrays(ctx, to, call, "");
    if (status == SB_OK) status = sb_cuda_scratch(ctx, &call->launch, lists.bytes, &scratch);
    if (status != SB_OK) return status;
    status = sb_cuda_launch_words(ctx, call, &lists, scratch, 0);
    if (status == SB_OK) status = sb_cuda_launch_gradient(ctx, to, call, &lists, 0);
    sb_cuda_scratch_done(ctx, &call->launch, scratch);
    if (status == SB_OK && call->launch.check) status = sb_cuda_check_call(ctx, call, NULL, to);
    return status;
}
