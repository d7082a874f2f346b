/* order.c - several ids per row and their ranks, and the first ids of each row, on the CPU. Both
 * sum a row first and visit its logits again: see second_pass.c. */
#include <inttypes.h>

#include "cpu/cpu.h"
#include "det/finish.h"
#include "det/order.h"

/* ---- given ids: logprobs and ranks -------------------------------------------------------- */

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
static void count_ranks(const sb_cpu_second_pass *pass, int64_t row, const float *x, int64_t n,
                        int64_t first, void *part)
{
    const sb_call *call = pass->job->call;
    int32_t *counts = part;
    for (int64_t k = 0; k < call->width; k++) {
        int64_t id = id_at(call, row, k), below = id - first;
        if (id == call->in.ignore_index) continue;
        below = below < 0 ? 0 : below > n ? n : below;
        counts[k] += count_before(x, n, below, sb_cpu_target(pass->job, row, k));
    }
}

static int32_t sum_ranks(const sb_cpu_second_pass *pass, const int32_t *counts, int64_t k)
{
    int32_t rank = 0;
    for (int64_t p = 0; p < pass->job->split; p++) rank += counts[p * pass->job->call->width + k];
    return rank;
}

static void finish_ids(const sb_cpu_second_pass *pass, int64_t row, const sb_state *state,
                       const sb_row *constants, void *parts)
{
    const sb_call *call = pass->job->call;
    const sb_ids_out *out = pass->to;
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
                                   : sb_logprob_beside(sum, sb_cpu_target(pass->job, row, k),
                                                       constants);
        if (out->rank && !nan) out->rank[at] = sum_ranks(pass, parts, k);
    }
}

sb_status sb_cpu_ids(sb_context *ctx, const void *checked)
{
    const sb_ids_call *ids = checked;
    const sb_ids_out *out = &ids->out;
    const sb_call *call = &ids->call;
    sb_cpu_job job = { .call = call, .targets = 1 };
    sb_cpu_second_pass pass = { .job = &job,
                                .size = out->rank ? (size_t)call->width * sizeof(int32_t) : 0,
                                .visit = count_ranks,
                                .finish = finish_ids,
                                .to = out };
    size_t rows = (size_t)call->rows, entries = rows * (size_t)call->width;
    sb_status status = sb_cpu_second_pass_prepare(ctx, &pass);
    if (status != SB_OK) return status;
    if (out->logprob) memset(out->logprob, 0, entries * sizeof *out->logprob);
    if (out->rank) memset(out->rank, 0xff, entries * sizeof *out->rank); /* -1 */
    if (out->lse) memset(out->lse, 0, rows * sizeof *out->lse);
    sb_cpu_second_pass_run(ctx->state, &pass);
    return SB_OK;
}

/* ---- the first k ids ---------------------------------------------------------------------- */

/* The first ids met so far, in order; SB_NO_PLACE, which is zero, where there are no more. */
typedef struct best {
    uint64_t places[SB_MAX_TOPK];
} best;

static void insert(best *b, int64_t k, uint64_t place)
{
    int64_t i = k - 1;
    if (place <= b->places[i]) return;
    for (; i > 0 && b->places[i - 1] < place; i--) b->places[i] = b->places[i - 1];
    b->places[i] = place;
}

/* Below every logit until k ids are present. */
static float least_of(const best *b, int64_t k)
{
    return b->places[k - 1] ? sb_place_logit(b->places[k - 1]) : sb_float(SB_ABSENT_BITS);
}

/* Ids rise: one whose logit equals the least comes after it. NaN and +inf do not matter, since they
 * make the row NaN. */
static void find_topk(const sb_cpu_second_pass *pass, int64_t row, const float *x, int64_t n,
                      int64_t first, void *part)
{
    const sb_topk_call *to = pass->to;
    best *b = part;
    float least = least_of(b, to->k);
    (void)row;
    for (int64_t at = 0; at < n; at += SB_LEAF) {
        int64_t last = at + SB_LEAF < n ? at + SB_LEAF : n;
        int any = 0;
        for (int64_t i = at; i < last; i++) any |= x[i] > least;
        if (!any) continue;
        for (int64_t i = at; i < last; i++)
            if (x[i] > least) insert(b, to->k, sb_place_of(x[i], (uint32_t)(first + i)));
        least = least_of(b, to->k);
    }
}

static void finish_topk(const sb_cpu_second_pass *pass, int64_t row, const sb_state *state,
                        const sb_row *constants, void *parts)
{
    const sb_topk_call *to = pass->to;
    const sb_topk_out *out = &to->out;
    int nan = sb_state_is_nan(state);
    best *b = parts;
    sb_lg sum;
    memset(&sum, 0, sizeof sum);
    if (!nan) sum = sb_sum_log(state);
    if (out->lse) out->lse[row] = sb_finish_lse(state, constants);
    for (int64_t p = 1; pass->size && p < pass->job->split; p++)
        for (int64_t i = 0; i < to->k; i++) insert(b, to->k, b[p].places[i]);
    for (int64_t i = 0; pass->size && i < to->k; i++) {
        uint64_t place = nan ? SB_NO_PLACE : b->places[i];
        int64_t at = row * to->k + i;
        if (out->ids) out->ids[at] = place ? sb_place_id(place) : -1;
        if (out->logprob)
            out->logprob[at] = nan     ? sb_float(SB_NAN_BITS)
                               : place ? sb_logprob_beside(sum, sb_place_logit(place), constants)
                                       : sb_float(SB_ABSENT_BITS);
    }
}

sb_status sb_cpu_topk(sb_context *ctx, const void *checked)
{
    const sb_topk_call *to = checked;
    const sb_topk_out *out = &to->out;
    const sb_call *call = &to->call;
    sb_cpu_job job = { .call = call };
    sb_cpu_second_pass pass = { .job = &job,
                                .size = out->ids || out->logprob ? sizeof(best) : 0,
                                .visit = find_topk,
                                .finish = finish_topk,
                                .to = to };
    size_t rows = (size_t)call->rows, entries = rows * (size_t)to->k;
    sb_status status = sb_cpu_second_pass_prepare(ctx, &pass);
    if (status != SB_OK) return status;
    if (out->ids) memset(out->ids, 0xff, entries * sizeof *out->ids); /* -1 */
    if (out->logprob) memset(out->logprob, 0, entries * sizeof *out->logprob);
    if (out->lse) memset(out->lse, 0, rows * sizeof *out->lse);
    sb_cpu_second_pass_run(ctx->state, &pass);
    return SB_OK;
}
