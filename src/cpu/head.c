/* head.c - prepares heads on the CPU: see head.h for the layout. The rows of weights are read
 * twice, for their scales and for their digits, so that a bad row is found before anything is
 * written. */
#include "cpu/head.h"

#include <inttypes.h>

#include "api/head.h"
#include "cpu/cpu.h"

#define CHUNK 256 /* elements of a row that are converted at once: a multiple of SB_CPU_HEAD_K */

static int64_t padded(int64_t bytes)
{
    return (bytes + SB_HEAD_FORM - 1) / SB_HEAD_FORM * SB_HEAD_FORM;
}

sb_cpu_head_parts sb_cpu_head_of(const sb_head_form *form)
{
    sb_cpu_head_parts at;
    at.groups = (form->ids + SB_LEAF - 1) / SB_LEAF;
    at.K = (form->width + SB_CPU_HEAD_K - 1) / SB_CPU_HEAD_K * SB_CPU_HEAD_K;
    at.planes = form->format == SB_H24W16 ? 2 : 3;
    at.group = at.K * at.planes * SB_LEAF;
    at.E = SB_HEAD_FORM;
    at.digits = at.E + padded(at.groups * SB_LEAF);
    at.bias = form->biased ? at.digits : 0;
    if (form->biased) at.digits += padded(at.groups * SB_LEAF * 4);
    at.bytes = at.digits + padded(at.groups * at.group);
    return at;
}

static uint64_t bytes_of(const sb_head_form *form) { return (uint64_t)sb_cpu_head_of(form).bytes; }

const sb_heads sb_cpu_heads = { SB_CPU_HEAD_LAYOUT, bytes_of };

typedef struct head_job {
    const sb_head_call *call;
    sb_cpu_head_parts at;
    uint32_t *scales; /* [ids] of the weights' own columns, then those to use */
} head_job;

static const char *row_at(const sb_head_weights *in, int64_t v)
{
    return (const char *)in->weights + v * in->row_stride * sb_itemsize(in->dtype);
}

static float bias_at(const sb_head_weights *in, int64_t v)
{
    return in->bias ? sb_logit_at(in->bias, in->bias_dtype, v) : 0.0f;
}

/* ---- scales ------------------------------------------------------------------------------- */

static void scale_group(void *shared, int64_t g)
{
    const head_job *j = shared;
    const sb_head_weights *in = &j->call->in;
    const int64_t end = (g + 1) * SB_LEAF < in->ids ? (g + 1) * SB_LEAF : in->ids;
    for (int64_t v = g * SB_LEAF; v < end; v++)
        j->scales[v] = sb_cpu_scale(row_at(in, v), in->dtype, in->width);
}

/* Refuses bad rows, and replaces the scales by the caller's, if there are any. */
static sb_status check_rows(sb_context *ctx, const head_job *j)
{
    const sb_head_weights *in = &j->call->in;
    const sb_status status = sb_check_weight_rows(in, j->scales, &ctx->error);
    if (status == SB_OK && in->scales) memcpy(j->scales, in->scales, (size_t)in->ids * 4);
    return status;
}

/* ---- digits ------------------------------------------------------------------------------- */

/* Writes elements first .. first + n - 1 of id v of a group; n is a multiple of 4, and what is past
 * D is 0. */
static void write_digits(const head_job *j, int8_t *group, int v, const int32_t *w, int64_t first,
                         int64_t n)
{
    const int planes = j->at.planes;
    int8_t *to = group + (first / 4 * planes * SB_LEAF + v) * 4;
    for (int64_t k = 0; k < n; k += 4, to += planes * SB_LEAF * 4) {
        uint32_t digits[4];
        for (int i = 0; i < 4; i++)
            digits[i] = planes == 2 ? sb_linear_digits16(w[k + i]) : sb_linear_digits24(w[k + i]);
        for (int p = 0; p < planes; p++)
            for (int i = 0; i < 4; i++)
                to[p * SB_LEAF * 4 + i] = (int8_t)(uint8_t)(digits[i] >> 8 * (planes - 1 - p));
    }
}

static void write_group(void *shared, int64_t g)
{
    const head_job *j = shared;
    const sb_head_weights *in = &j->call->in;
    char *memory = j->call->memory;
    int8_t *group = (int8_t *)memory + j->at.digits + g * j->at.group;
    int8_t *E = (int8_t *)memory + j->at.E + g * SB_LEAF;
    for (int v = 0; v < SB_LEAF; v++) {
        const int64_t id = g * SB_LEAF + v;
        const int exists = id < in->ids;
        const float bias = exists ? bias_at(in, id) : sb_float(SB_ABSENT_BITS);
        E[v] = (int8_t)(exists ? sb_linear_E(j->scales[id]) : SB_LINEAR_E_BAD);
        if (j->at.bias) memcpy(memory + j->at.bias + id * 4, &bias, 4);
        for (int64_t k = 0; k < j->at.K; k += CHUNK) {
            const int64_t n = j->at.K - k < CHUNK ? j->at.K - k : CHUNK;
            const int64_t held = in->width - k < n ? in->width - k : n;
            int32_t w[CHUNK] = { 0 };
            if (held > 0 && !sb_linear_is_bad(E[v]))
                sb_cpu_integers(w, row_at(in, id) + k * sb_itemsize(in->dtype), in->dtype, held,
                                E[v], j->at.planes * 8);
            write_digits(j, group, v, w, k, n);
        }
    }
}

/* ---- the operation ------------------------------------------------------------------------ */

sb_status sb_cpu_head(sb_context *ctx, const void *checked)
{
    const sb_head_call *call = checked;
    sb_cpu *c = ctx->state;
    head_job j = { .call = call, .at = sb_cpu_head_of(&call->form) };
    const int alone = call->in.ids * call->in.width <= SB_CPU_ALONE_ELEMENTS;
    sb_linear_norms *norms;
    sb_status status;
    j.scales = sb_cpu_room(&c->parts, call->in.ids, sizeof *j.scales);
    if (!j.scales)
        return sb_fail(&ctx->error, SB_ERR_MEMORY, "no memory for the scales of %" PRId64 " ids",
                       call->in.ids);
    sb_pool_run(c->pool, alone, scale_group, &j, j.at.groups);
    status = check_rows(ctx, &j);
    if (status != SB_OK) return status;
    norms = sb_cpu_room(&c->wholes, call->form.norms ? j.at.groups : 0, sizeof *norms);
    if (!norms)
        return sb_fail(&ctx->error, SB_ERR_MEMORY, "no memory for the norms of %" PRId64 " ids",
                       call->in.ids);
    memset(call->memory, 0, SB_HEAD_FORM);
    memcpy(call->memory, &call->form, sizeof call->form);
    sb_pool_run(c->pool, alone, write_group, &j, j.at.groups);
    if (call->form.norms) sb_cpu_write_norms(c, call, j.scales, norms);
    return SB_OK;
}
