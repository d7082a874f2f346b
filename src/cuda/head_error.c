/* head_error.c - how far logits can be from exact products, on a GPU: the launches of
 * kernels/head_error.cu. */
#include "cuda/head.h"

sb_status sb_cuda_launch_norms(sb_context *ctx, const sb_head_call *call)
{
    const sb_cuda *c = ctx->state;
    const sb_head_weights *in = &call->in;
    const sb_cuda_head_parts at = sb_cuda_head_parts_of(&call->form);
    const uint64_t memory = sb_cuda_address(call->memory);
    const sb_cuda_grid rows = sb_cuda_warps_for(in->ids), all = { .blocks = 1, .threads = 256 };
    sb_cuda_norms_args a;
    sb_status status;
    memset(&a, 0, sizeof a);
    a.weights = sb_cuda_address(in->weights);
    a.exponents = memory + at.exponents;
    a.parts = memory + at.parts;
    a.norms = memory + SB_HEAD_NORMS;
    a.held = in->ids;
    a.depth = in->width;
    a.row_stride = in->row_stride;
    a.count = rows.blocks;
    a.dtype = in->dtype;
    a.bits = in->format == SB_H24W16 ? 16 : 24;
    status = sb_cuda_launch(ctx, c->head_error.head_norms, rows, &a.in, call->launch.stream);
    if (status != SB_OK) return status;
    return sb_cuda_launch(ctx, c->head_error.head_norms_all, all, &a.in, call->launch.stream);
}

static sb_status launch_error(sb_context *ctx, const sb_head_error_call *asked)
{
    static const sb_logprob_out no_out = SB_LOGPROB_OUT_INIT;
    const sb_cuda *c = ctx->state;
    const sb_head *head = asked->call.in.head;
    sb_call call = asked->call;
    sb_cuda_plan none;
    sb_cuda_error_args a;
    sb_status status = SB_OK;
    memset(&none, 0, sizeof none);
    memset(&a, 0, sizeof a);
    call.in.logits = call.in.hidden;
    call.in.logits_dtype = call.in.hidden_dtype;
    call.in.row_stride = call.in.hidden_row_stride;
    call.in.batch_stride = call.in.hidden_batch_stride;
    a.in = sb_cuda_args_of(c, &no_out, &call, &none, 0);
    a.in.work = call.in.row_list ? call.in.row_count : call.rows;
    a.error = sb_cuda_address(asked->error);
    a.scales = sb_cuda_address(asked->scales);
    a.norms = sb_cuda_address(head->memory) + SB_HEAD_NORMS;
    a.depth = head->form.width;
    a.planes = head->form.format == SB_H24W16 ? 2 : 3;
    if (call.in.row_list) /* rows that are not listed */
        status = sb_cuda_clear(ctx, a.error, (uint64_t)call.rows * sizeof(float),
                               call.launch.stream);
    if (status != SB_OK) return status;
    return sb_cuda_launch(ctx, c->head_error.head_error, sb_cuda_warps_for(a.in.work), &a.in,
                          call.launch.stream);
}

sb_status sb_cuda_head_error(sb_context *ctx, const void *checked)
{
    static const sb_logprob_out no_out = SB_LOGPROB_OUT_INIT;
    const sb_head_error_call *asked = checked;
    const sb_call *call = &asked->call;
    const sb_cuda_array arrays[] = {
        { "error", asked->error, 4, sb_cuda_bytes(call->rows, 4) },
        { "scales", asked->scales, 4, sb_cuda_bytes(call->rows, 4) },
    };
    sb_status status = sb_cuda_check_arguments(ctx, &no_out, call);
    if (status == SB_OK) status = sb_cuda_check_arrays(ctx, arrays, 2);
    if (status == SB_OK) status = launch_error(ctx, asked);
    if (status == SB_OK && call->launch.check) status = sb_cuda_check_call(ctx, call, NULL, NULL);
    return status;
}
