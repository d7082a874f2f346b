/* ids.c - logprobs and ranks of several ids a row on the CPU. */
#include <inttypes.h>

#include "cpu/cpu.h"
#include "det/finish.h"

static int64_t id_at(const sb_call *call, int64_t row, int64_t i)
{
    return sb_int_at(call->in.ids, call->in.ids_dtype, row * call->width + i);
}

/* How many of x come before an id whose logit is target, n of them being below that id. */
static int32_t count_before(const float *x, int64_t n, int64_t below, float target)
{
    int32_t count = 0;
    if (sb_is_absent(target)) below = 0; /* nothing absent comes before it */
    for (int64_t i = 0; i < below; i++) count += x[i] >= target;
    for (int64_t i = below; i < n; i++) count += x[i] > target;
    return count;
}

/* part: a count for each of the row's ids. */
static void count_ranks(const sb_cpu_look *l, int64_t row, const float *x, int64_t n, int64_t first,
                        void *part)
{
    const sb_call *call = l->job->call;
    int32_t *counts = part;
    for (int64_t k = 0; k < call->width; k++) {
        int64_t id = id_at(call, row, k), below = id - first;
        if (id == call->in.ignore_index) continue;
        below = below < 0 ? 0 : below > n ? n : below;
        counts[k] += count_before(x, n, below, sb_target_logit(call, row, id));
    }
}

static int32_t sum_ranks(const sb_cpu_look *l, const int32_t *counts, int64_t k)
{
    int32_t rank = 0;
    for (int64_t p = 0; p < l->job->split; p++) rank += counts[p * l->job->call->width + k];
    return rank;
}

static void finish_ids(const sb_cpu_look *l, int64_t row, const sb_state *state,
                       const sb_row *constants, void *parts)
{
    const sb_call *call = l->job->call;
    const sb_ids_out *out = l->to;
    int nan = sb_state_is_nan(state);
    sb_lg sum;
    memset(&sum, 0, sizeof sum);
    if (!nan) sum = sb_sum_log(state);
    if (out->lse) out->lse[row] = sb_finish_lse(state, constants);
    for (int64_t k = 0; k < call->width; k++) {
        int64_t id = id_at(call, row, k), at = row * call->width + k;
        if (id == call->in.ignore_index) continue;
        if (out->logprob)
            out->logprob[at] = nan ? sb_float(SB_NAN_BITS)
                                   : sb_logprob_beside(sum, sb_target_logit(call, row, id),
                                                       constants);
        if (out->rank && !nan) out->rank[at] = sum_ranks(l, parts, k);
    }
}

sb_status sb_cpu_ids(sb_context *ctx, const void *checked)
{
    const sb_ids_call *ids = checked;
    const sb_ids_out *out = &ids->out;
    const sb_call *call = &ids->call;
    sb_cpu_job job = { .call = call };
    sb_cpu_look look = { .job = &job,
                         .size = out->rank ? (size_t)call->width * sizeof(int32_t) : 0,
                         .look = count_ranks,
                         .finish = finish_ids,
                         .to = out };
    size_t rows = (size_t)call->rows, entries = rows * (size_t)call->width;
    sb_status status = sb_cpu_look_prepare(ctx, &look);
    if (status != SB_OK) return status;
    if (out->logprob) memset(out->logprob, 0, entries * sizeof *out->logprob);
    if (out->rank) memset(out->rank, 0xff, entries * sizeof *out->rank); /* -1 */
    if (out->lse) memset(out->lse, 0, rows * sizeof *out->lse);
    sb_cpu_look_run(ctx->state, &look);
    return SB_OK;
}
