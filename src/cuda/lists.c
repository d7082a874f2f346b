/* lists.c - see lists.h. The launch of lists_words of kernels/lists.cu. */
#include "cuda/lists.h"

#include "cuda/lists_args.h"

static const sb_logprob_out NO_OUT = SB_LOGPROB_OUT_INIT;

static sb_cuda_lists sized(const sb_call *call, int64_t stride)
{
    sb_cuda_lists lists = { 0, 0, 0, 0, 0 };
    if (!call->in.kept_offsets) return lists;
    lists.stride = stride;
    lists.rows = (uint64_t)call->rows;
    lists.words = lists.rows * (uint64_t)stride * 4;
    lists.bytes = sb_cuda_padded(lists.words + 2 * lists.rows);
    return lists;
}

sb_cuda_lists sb_cuda_lists_of(const sb_call *call)
{
    return sized(call, sb_kept_width(call->in.vocab));
}

sb_cuda_lists sb_cuda_list_bytes_of(const sb_call *call) { return sized(call, 0); }

sb_call sb_cuda_words_call(const sb_call *call)
{
    sb_call words = *call;
    if (!call->in.kept_offsets) return words;
    words.in.kept = (const uint32_t *)(uintptr_t)SB_CUDA_BOUNDARY;
    words.in.kept_stride = sb_kept_width(call->in.vocab);
    return words;
}

void sb_cuda_use_words(sb_cuda_args *a, const sb_cuda_lists *lists)
{
    if (!lists->bytes) return;
    a->kept = lists->stride ? lists->scratch : 0;
    a->kept_stride = lists->stride;
    a->refused = lists->scratch + lists->words;
    a->strays = a->refused + lists->rows;
    a->simple = a->eager = 0;
}

sb_status sb_cuda_launch_words(sb_context *ctx, const sb_call *call, sb_cuda_lists *lists,
                               CUdeviceptr scratch, int of_q)
{
    const sb_cuda *c = ctx->state;
    sb_cuda_lists_args a;
    sb_cuda_grid grid = { .threads = 256 };
    if (!lists->bytes) return SB_OK;
    lists->scratch = scratch;
    memset(&a, 0, sizeof a);
    sb_cuda_plan_shard(ctx, &NO_OUT, call, &a.in);
    sb_cuda_use_words(&a.in, lists);
    a.refused = a.in.refused;
    a.in.refused = 0;
    a.of_q = (of_q ? SB_LISTS_OF_Q : 0) | (c->before ? SB_LISTS_CONTINUE : 0) |
             (c->after ? SB_LISTS_UNFINISHED : 0);
    if (call->in.row_list && lists->rows) /* rows that are not listed have no words */
        DRIVER(&ctx->error, &c->driver, MemsetD8Async, a.refused, 1, (size_t)lists->rows,
               call->launch.stream);
    grid.blocks = a.in.work;
    return sb_cuda_launch(ctx, c->lists.lists_words, grid, &a.in, call->launch.stream);
}
