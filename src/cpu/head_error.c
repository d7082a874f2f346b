/* head_error.c - how far logits can be from exact products, on the CPU: the norms of weights, and
 * from them the bounds of rows. det/linear_error.h has the arithmetic. */
#include <inttypes.h>

#include "cpu/cpu.h"

/* The norms of a row that is not bad. Sums of integers: vectors add them in any order. */
static sb_linear_norms norms_of(const void *row, int32_t dtype, int64_t D, int32_t E, int32_t bits)
{
    const float factor = sb_linear_factor(E, bits);
    sb_linear_sums sums = { 0, 0, 0 };
    for (int64_t k = 0; k < D; k += SB_CPU_CHUNK) {
        const int64_t n = D - k < SB_CPU_CHUNK ? D - k : SB_CPU_CHUNK;
        float x[SB_CPU_CHUNK];
        sb_cpu_convert(x, (const char *)row + k * sb_itemsize(dtype), dtype, n);
        for (int64_t i = 0; i < n; i++) sb_linear_sums_add(&sums, x[i], factor);
    }
    return sb_linear_norms_of(&sums, E, bits);
}

/* ---- weights ------------------------------------------------------------------------------ */

typedef struct norms_job {
    const sb_head_call *call;
    const uint32_t *scales;
    sb_linear_norms *norms; /* [groups] */
} norms_job;

static void norms_of_group(void *shared, int64_t g)
{
    const norms_job *j = shared;
    const sb_head_weights *in = &j->call->in;
    const int64_t end = (g + 1) * SB_LEAF < in->ids ? (g + 1) * SB_LEAF : in->ids;
    const int32_t bits = in->format == SB_H24W16 ? 16 : 24;
    j->norms[g] = sb_linear_no_norms();
    for (int64_t v = g * SB_LEAF; v < end; v++) {
        const int32_t E = sb_linear_E(j->scales[v]);
        const char *row = (const char *)in->weights + v * in->row_stride * sb_itemsize(in->dtype);
        sb_linear_norms its;
        if (sb_linear_is_bad(E)) continue;
        its = norms_of(row, in->dtype, in->width, E, bits);
        sb_linear_norms_merge(&j->norms[g], &its);
    }
}

void sb_cpu_write_norms(sb_cpu *c, const sb_head_call *call, const uint32_t *scales,
                        sb_linear_norms *norms)
{
    norms_job j = { call, scales, norms };
    const int64_t groups = sb_cpu_head_of(&call->form).groups;
    sb_linear_norms all = sb_linear_no_norms();
    sb_pool_run(c->pool, call->in.ids * call->in.width <= SB_CPU_ALONE_ELEMENTS, norms_of_group, &j,
                groups);
    for (int64_t g = 0; g < groups; g++) sb_linear_norms_merge(&all, &norms[g]);
    memcpy((char *)call->memory + SB_HEAD_NORMS, &all, sizeof all);
}

/* ---- rows --------------------------------------------------------------------------------- */

typedef struct error_job {
    const sb_head_error_call *call;
    sb_linear_norms head;
    const int64_t *active;
} error_job;

static uint32_t scale_of(const sb_head_error_call *call, int64_t row)
{
    const sb_batch *in = &call->call.in;
    uint32_t a;
    if (!call->scales)
        return sb_cpu_scale(sb_hidden_of(&call->call, row), in->hidden_dtype, in->hidden_width);
    memcpy(&a, (const char *)call->scales + (row - in->shift) * 4, 4);
    return a;
}

static void bound_row(void *shared, int64_t i)
{
    const error_job *j = shared;
    const sb_batch *in = &j->call->call.in;
    const int64_t row = j->active[i];
    const int32_t E = sb_linear_E(scale_of(j->call, row));
    float bound = sb_float(SB_NAN_BITS);
    if (!sb_linear_is_bad(E)) {
        const sb_linear_norms its = norms_of(sb_hidden_of(&j->call->call, row), in->hidden_dtype,
                                             in->hidden_width, E, 24);
        bound = sb_linear_bound(&its, &j->head, in->head->form.format == SB_H24W16 ? 2 : 3);
    }
    memcpy((char *)j->call->error + row * 4, &bound, 4);
}

sb_status sb_cpu_head_error(sb_context *ctx, const void *checked)
{
    const sb_head_error_call *call = checked;
    const sb_call *rows = &call->call;
    sb_cpu *c = ctx->state;
    int64_t *active = sb_cpu_room(&c->rows, rows->rows, sizeof *active), actives;
    error_job j = { .call = call, .active = active };
    sb_status status;
    if (!active)
        return sb_fail(&ctx->error, SB_ERR_MEMORY, "no memory to list %" PRId64 " rows",
                       rows->rows);
    status = sb_list_active(rows, active, &actives, &ctx->error);
    if (status == SB_OK && call->scales)
        status = sb_cpu_check_scales(rows, call->scales, active, actives, &ctx->error);
    if (status != SB_OK) return status;
    memcpy(&j.head, (const char *)rows->in.head->memory + SB_HEAD_NORMS, sizeof j.head);
    if (rows->rows) memset(call->error, 0, (size_t)rows->rows * sizeof *call->error);
    sb_pool_run(c->pool, actives * rows->in.hidden_width <= SB_CPU_ALONE_ELEMENTS, bound_row, &j,
                actives);
    return SB_OK;
}
