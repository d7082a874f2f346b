/* check.c - checks of an operation's input: on the host before its kernels run, and from the
 * kernels' report afterwards. report.h has the words that kernels report into.
 *
 * With check, an operation waits for its own report and names its first bad row as the cpu backend
 * does: it runs the same checks on copies of the arrays. Without check, sb_check reports later. The
 * operations' files call these functions; sb_run calls begin and end around each operation. */
#include <stdlib.h>

#include "cuda/capture.h"
#include "cuda/cuda.h"

/* ---- which word an operation reports into ------------------------------------------------- */

/* A call with check waits, which is not possible during a capture. */
sb_status sb_cuda_begin(sb_context *ctx, const sb_launch *launch)
{
    sb_cuda *c = ctx->state;
    uint64_t capture;
    int captured;
    sb_status status = sb_cuda_find_capture(&c->driver, launch->stream, &captured, &capture,
                                            &ctx->error);
    if (status != SB_OK) return status;
    if (captured && launch->check)
        return sb_fail(&ctx->error, SB_ERR_ARGUMENT,
                       "check must be 0 in a call that is captured into a graph: see sb_check");
    c->launched = 0;
    c->word = launch->check ? SB_CUDA_CHECKED
              : captured    ? sb_cuda_word_of_capture(&c->reports, capture)
                            : sb_cuda_word_of_stream(&c->reports, launch->stream);
    return SB_OK;
}

/* A failed operation with check may still have kernels running or queued. They must not report into
 * the word of the next operation. */
sb_status sb_cuda_end(sb_context *ctx, const sb_launch *launch, sb_status status)
{
    sb_cuda *c = ctx->state;
    if (status == SB_OK || !launch->check) return status;
    if (c->launched) c->driver.StreamSynchronize(launch->stream);
    sb_cuda_take_report(&c->reports, SB_CUDA_CHECKED);
    return status;
}

sb_status sb_cuda_check(sb_context *ctx, void *stream)
{
    sb_cuda *c = ctx->state;
    sb_status status = sb_cuda_wait(&c->driver, stream, &ctx->error);
    if (status != SB_OK) return status;
    return sb_cuda_name_report(&ctx->error, sb_cuda_take_any_report(&c->reports, stream));
}

/* ---- before kernels run ------------------------------------------------------------------- */

sb_status sb_cuda_check_arguments(sb_context *ctx, const sb_logprob_out *out, const sb_call *call)
{
    const struct {
        const char *name;
        int32_t value;
    } choices[] = { { "cluster", call->launch.cluster },
                    { "table", call->launch.table },
                    { "one_read", call->launch.one_read } };
    if (call->launch.threads % 32 != 0 || call->launch.threads < 0 ||
        call->launch.threads > SB_CUDA_MAX_BLOCK)
        return sb_fail(&ctx->error, SB_ERR_ARGUMENT,
                       "threads is %d: it must be a multiple of 32 up to %d, or 0",
                       (int)call->launch.threads, SB_CUDA_MAX_BLOCK);
    for (size_t i = 0; i < sizeof choices / sizeof *choices; i++)
        if (choices[i].value < -1 || choices[i].value > 1)
            return sb_fail(&ctx->error, SB_ERR_ARGUMENT, "%s is %d, not -1, 0 or 1",
                           choices[i].name, (int)choices[i].value);
    return sb_cuda_check_call_arrays(ctx, out, call);
}

/* ---- after they have reported ------------------------------------------------------------- */

sb_status sb_cuda_wait_for_report(sb_context *ctx, const sb_launch *launch, int64_t *report)
{
    sb_cuda *c = ctx->state;
    *report = 0;
    DRIVER(&ctx->error, &c->driver, StreamSynchronize, launch->stream);
    c->launched = 0;
    *report = sb_cuda_take_report(&c->reports, SB_CUDA_CHECKED);
    return SB_OK;
}

sb_status sb_cuda_fetch(sb_context *ctx, const void **array, int64_t count, size_t size,
                        CUstream stream)
{
    const sb_cuda *c = ctx->state;
    size_t bytes = (size_t)count * size;
    const void *from = *array;
    void *copy;
    if (!from) return SB_OK;
    *array = NULL;
    copy = malloc(bytes ? bytes : 1);
    if (!copy) return sb_fail(&ctx->error, SB_ERR_MEMORY, "no memory to look for the bad row");
    if (bytes &&
        (c->driver.MemcpyAsync(sb_cuda_address(copy), sb_cuda_address(from), bytes, stream) ||
         c->driver.StreamSynchronize(stream))) {
        free(copy);
        return sb_fail(&ctx->error, SB_ERR_DEVICE, "the call's arrays could not be read back");
    }
    *array = copy;
    return SB_OK;
}

sb_status sb_cuda_find_first_bad(sb_context *ctx, const sb_call *call, const sb_records *records,
                                 const sb_gradient *gradient)
{
    sb_call host = *call;
    CUstream stream = call->launch.stream;
    const void *arrays[10] = { call->in.ids,
                               call->in.mask,
                               call->in.temperatures,
                               call->in.row_list,
                               call->in.cu_seqlens,
                               records ? records->states : NULL,
                               records ? records->targets : NULL,
                               gradient ? gradient->saved : NULL,
                               call->in.kept_ids,
                               call->in.kept_offsets };
    const struct {
        int64_t count;
        size_t size;
    } shapes[10] = {
        { call->rows * call->width, call->in.ids_dtype == SB_I64 ? 8 : 4 },
        { call->rows, 1 },
        { call->rows, 4 },
        { call->in.row_count, 8 },
        { call->in.batch + 1, call->in.cu_seqlens_dtype == SB_I64 ? 8 : 4 },
        { call->rows, records ? sb_state_size(records) : 0 },
        { call->rows, sizeof(sb_target_record) },
        { call->rows, sizeof(sb_saved_row) },
        { call->in.kept_count, call->in.kept_ids_dtype == SB_I64 ? 8 : 4 },
        { call->rows + 1, call->in.kept_offsets_dtype == SB_I64 ? 8 : 4 },
    };
    sb_status status = SB_OK;
    int fetched = 0;
    for (; fetched < 10 && status == SB_OK; fetched++)
        status = sb_cuda_fetch(ctx, &arrays[fetched], shapes[fetched].count, shapes[fetched].size,
                               stream);
    if (status == SB_OK) {
        host.in.ids = arrays[0];
        host.in.mask = arrays[1];
        host.in.temperatures = arrays[2];
        host.in.row_list = arrays[3];
        host.in.cu_seqlens = arrays[4];
        host.in.kept_ids = arrays[8];
        host.in.kept_offsets = arrays[9];
        status = sb_check_device_call(&host, &ctx->error);
        if (status == SB_OK && records) {
            sb_records on_host = *records;
            on_host.states = (void *)(uintptr_t)arrays[5];
            on_host.targets = (sb_target_record *)(uintptr_t)arrays[6];
            status = sb_check_device_finish(&host, &on_host, &ctx->error);
        }
        if (status == SB_OK && gradient) {
            sb_gradient on_host = *gradient;
            on_host.saved = arrays[7];
            status = sb_check_device_saved(&host, &on_host, &ctx->error);
        }
    }
    for (int i = 0; i < fetched; i++) free((void *)(uintptr_t)arrays[i]);
    return status;
}

sb_status sb_cuda_check_call(sb_context *ctx, const sb_call *call, const sb_records *records,
                             const sb_gradient *gradient)
{
    int64_t report;
    sb_status status = sb_cuda_wait_for_report(ctx, &call->launch, &report);
    if (status != SB_OK || !report) return status;
    status = sb_cuda_find_first_bad(ctx, call, records, gradient);
    return status == SB_OK ? sb_cuda_name_report(&ctx->error, report) : status;
}

sb_status sb_cuda_end_call(sb_context *ctx, const sb_call *call, CUdeviceptr scratch,
                           sb_status status)
{
    sb_cuda_scratch_done(ctx, &call->launch, scratch);
    if (status != SB_OK || !call->launch.check) return status;
    return sb_cuda_check_call(ctx, call, NULL, NULL);
}
