/* topk.c - the first k ids of each row on the CPU. */
#include <inttypes.h>

#include "cpu/cpu.h"
#include "det/finish.h"
#include "det/order.h"

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
static void find_best(const sb_cpu_look *l, int64_t row, const float *x, int64_t n, int64_t first,
                      void *part)
{
    const sb_topk_call *to = l->to;
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

static void finish_best(const sb_cpu_look *l, int64_t row, const sb_state *state,
                        const sb_row *constants, void *parts)
{
    const sb_topk_call *to = l->to;
    const sb_topk_out *out = &to->out;
    int nan = sb_state_is_nan(state);
    best *b = parts;
    sb_lg sum;
    memset(&sum, 0, sizeof sum);
    if (!nan) sum = sb_sum_log(state);
    if (out->lse) out->lse[row] = sb_finish_lse(state, constants);
    for (int64_t p = 1; l->size && p < l->job->split; p++)
        for (int64_t i = 0; i < to->k; i++) insert(b, to->k, b[p].places[i]);
    for (int64_t i = 0; l->size && i < to->k; i++) {
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
    sb_cpu_look look = { .job = &job,
                         .size = out->ids || out->logprob ? sizeof(best) : 0,
                         .look = find_best,
                         .finish = finish_best,
                         .to = to };
    size_t rows = (size_t)call->rows, entries = rows * (size_t)to->k;
    sb_status status = sb_cpu_look_prepare(ctx, &look);
    if (status != SB_OK) return status;
    if (out->ids) memset(out->ids, 0xff, entries * sizeof *out->ids); /* -1 */
    if (out->logprob) memset(out->logprob, 0, entries * sizeof *out->logprob);
    if (out->lse) memset(out->lse, 0, rows * sizeof *out->lse);
    sb_cpu_look_run(ctx->state, &look);
    return SB_OK;
}
