/* head_backward.c - derivatives by hidden states and weights, on the CPU.
 *
 *     by_hidden[r][k]  += sum over ids v, ascending, of d[r][v] * w[v][k]
 *     by_weights[v][k] += sum over active rows r, ascending, of d[r][v] * h[r][k]
 *
 * Both are the same product of matrices, out[i][k] += a[i][t] * b[t][k], with t in ascending order:
 * an item is a block of i and a block of columns k, and goes through all terms t. Each sum is in
 * fp64 and belongs to one item, so that neither threads nor blocks can change a bit. */
#include <inttypes.h>

#include "cpu/cpu.h"
#include "det/linear_backward.h"

enum { TERMS = SB_CPU_SUM_TERMS, COLUMNS = SB_CPU_SUM_COLUMNS, OUTS = 64 /* of an item */ };

typedef struct backward_job {
    const sb_head_backward_call *call;
    const sb_cpu *cpu;
    const int64_t *active;
    int64_t actives;
    float *d; /* [actives][held]: the derivatives by the products */
} backward_job;

/* One of the two products. */
typedef struct side {
    const backward_job *job;
    int by_hidden;   /* otherwise by_weights */
    int64_t outs;    /* actives or held */
    int64_t terms;   /* held or actives */
    int64_t columns; /* blocks of them */
} side;

static double unaligned(const double *p, int64_t i)
{
    double x;
    memcpy(&x, (const char *)p + i * 8, 8);
    return x;
}

/* ---- derivatives by the products ---------------------------------------------------------- */

static int64_t source_of(const backward_job *j, int64_t i)
{
    return j->active[i] - j->call->call.in.shift;
}

static const char *grad_row(const sb_head_backward_call *call, int64_t source)
{
    const sb_batch *in = &call->call.in;
    const sb_head_gradient *to = &call->to;
    const int64_t element = in->cu_seqlens ? source * to->grad_row_stride
                                           : source / in->time * to->grad_batch_stride +
                                                 source % in->time * to->grad_row_stride;
    return (const char *)to->grad + element * sb_itemsize(to->grad_dtype);
}

static void derive_row(void *shared, int64_t i)
{
    const backward_job *j = shared;
    const sb_head_form *form = &j->call->call.in.head->form;
    const int64_t held = j->call->call.held, source = source_of(j, i);
    const char *from = grad_row(j->call, source);
    float *d = j->d + i * held;
    for (int64_t v = 0; v < held; v += SB_CPU_CHUNK)
        sb_cpu_convert(d + v, from + v * sb_itemsize(j->call->to.grad_dtype),
                       j->call->to.grad_dtype, held - v < SB_CPU_CHUNK ? held - v : SB_CPU_CHUNK);
    if (form->scale == 1.0f && form->softcap == 0.0f) return;
    for (int64_t v = 0; v < held; v++) {
        const float x = form->softcap != 0.0f ? sb_float_at(j->call->to.logits, source * held + v)
                                              : 0.0f;
        if (d[v] != 0.0f) d[v] = sb_linear_derivative(d[v], x, form->scale, form->softcap);
    }
}

/* ---- blocks ------------------------------------------------------------------------------- */

/* Aligned, so that no vector lies across two cache lines. */
typedef struct block {
    _Alignas(64) double out[OUTS][COLUMNS];
    double a[OUTS][TERMS], b[TERMS][COLUMNS];
} block;

/* The row of b of term t: weights of an id, or a hidden state. */
static const char *row_of_term(const side *s, int64_t t, int32_t *dtype)
{
    const backward_job *j = s->job;
    const sb_head_gradient *to = &j->call->to;
    *dtype = s->by_hidden ? to->weights_dtype : j->call->call.in.hidden_dtype;
    if (s->by_hidden)
        return (const char *)to->weights + t * to->weights_stride * sb_itemsize(*dtype);
    return sb_hidden_of(&j->call->call, j->active[t]);
}

/* Sets b to n terms from t on, and the columns from k on, and what is past them to 0. Returns
 * whether all are finite. */
static int take_terms(const side *s, block *m, int64_t t, int64_t n, int64_t k, int64_t columns)
{
    uint32_t most = 0;
    memset(m->b, 0, sizeof m->b);
    for (int64_t i = 0; i < n; i++) {
        int32_t dtype;
        const char *row = row_of_term(s, t + i, &dtype);
        float x[COLUMNS];
        sb_cpu_convert(x, row + k * sb_itemsize(dtype), dtype, columns);
        for (int64_t c = 0; c < columns; c++) {
            const uint32_t a = sb_linear_magnitude(x[c]);
            most = a > most ? a : most;
            m->b[i][c] = (double)x[c];
        }
    }
    return most < SB_INF_BITS;
}

/* Sets a to the factors of `outs` outputs from o on, and n terms from t on. */
static void take_factors(const side *s, block *m, int64_t o, int64_t outs, int64_t t, int64_t n)
{
    const int64_t held = s->job->call->call.held;
    const float *d = s->job->d;
    memset(m->a, 0, sizeof m->a);
    if (s->by_hidden)
        for (int64_t i = 0; i < outs; i++)
            for (int64_t k = 0; k < n; k++) m->a[i][k] = (double)d[(o + i) * held + t + k];
    else
        for (int64_t k = 0; k < n; k++)
            for (int64_t i = 0; i < outs; i++) m->a[i][k] = (double)d[(t + k) * held + o + i];
}

/* The sums with an operand that is not finite: a factor of 0 leaves its term out, whatever the
 * operand is. */
static void sum_carefully(block *m, int64_t outs)
{
    for (int64_t i = 0; i < outs; i++)
        for (int t = 0; t < TERMS; t++)
            for (int c = 0; c < COLUMNS && m->a[i][t] != 0.0; c++)
                m->out[i][c] = m->out[i][c] + m->a[i][t] * m->b[t][c];
}

/* The address of output i, and its columns from k on. */
static double *out_at(const side *s, int64_t i, int64_t k)
{
    const backward_job *j = s->job;
    const int64_t row = s->by_hidden ? source_of(j, i) : i;
    double *all = s->by_hidden ? j->call->to.by_hidden : j->call->to.by_weights;
    return (double *)((char *)all + (row * j->call->call.in.hidden_width + k) * 8);
}

/* Sums begin with +0, never -0: adding a term that is 0 then changes nothing, so that it need not
 * be left out. */
static void run_block(void *shared, int64_t item)
{
    const side *s = shared;
    const int64_t D = s->job->call->call.in.hidden_width, o = item / s->columns * OUTS;
    const int64_t k = item % s->columns * COLUMNS, columns = D - k < COLUMNS ? D - k : COLUMNS;
    const int64_t outs = s->outs - o < OUTS ? s->outs - o : OUTS;
    block m;
    memset(m.out, 0, sizeof m.out);
    for (int64_t i = 0; i < outs; i++)
        for (int64_t c = 0; c < columns; c++) m.out[i][c] = unaligned(out_at(s, o + i, k), c) + 0.0;
    for (int64_t t = 0; t < s->terms; t += TERMS) {
        const int64_t n = s->terms - t < TERMS ? s->terms - t : TERMS;
        const int finite = take_terms(s, &m, t, n, k, columns);
        take_factors(s, &m, o, outs, t, n);
        if (finite)
            s->job->cpu->isa->sums(m.out, (const double(*)[TERMS])m.a,
                                   (const double(*)[COLUMNS])m.b, outs);
        else sum_carefully(&m, outs);
    }
    for (int64_t i = 0; i < outs; i++) {
        for (int64_t c = 0; c < columns; c++) m.out[i][c] = sb_canonical64(m.out[i][c]);
        memcpy(out_at(s, o + i, k), m.out[i], (size_t)columns * 8);
    }
}

static void run_side(const backward_job *j, int by_hidden)
{
    const int64_t held = j->call->call.held, D = j->call->call.in.hidden_width;
    side s = { j, by_hidden, by_hidden ? j->actives : held, by_hidden ? held : j->actives,
               (D + COLUMNS - 1) / COLUMNS };
    const int alone = j->actives * held <= SB_CPU_ALONE_PRODUCTS / D;
    sb_pool_run(j->cpu->pool, alone, run_block, &s, (s.outs + OUTS - 1) / OUTS * s.columns);
}

/* ---- the operation ------------------------------------------------------------------------ */

static void add_biases(const backward_job *j)
{
    const int64_t held = j->call->call.held;
    for (int64_t v = 0; v < held; v += COLUMNS) {
        const int64_t n = held - v < COLUMNS ? held - v : COLUMNS;
        double sums[COLUMNS];
        for (int64_t k = 0; k < n; k++) sums[k] = unaligned(j->call->to.by_bias, v + k) + 0.0;
        for (int64_t i = 0; i < j->actives; i++)
            for (int64_t k = 0; k < n; k++) sums[k] = sums[k] + (double)j->d[i * held + v + k];
        for (int64_t k = 0; k < n; k++) sums[k] = sb_canonical64(sums[k]);
        memcpy((char *)j->call->to.by_bias + v * 8, sums, (size_t)n * 8);
    }
}

sb_status sb_cpu_head_backward(sb_context *ctx, const void *checked)
{
    const sb_head_backward_call *call = checked;
    const sb_call *rows = &call->call;
    sb_cpu *c = ctx->state;
    int64_t *active = sb_cpu_room(&c->rows, rows->rows, sizeof *active), actives;
    backward_job j = { .call = call, .cpu = c, .active = active };
    sb_status status;
    if (!active)
        return sb_fail(&ctx->error, SB_ERR_MEMORY, "no memory to list %" PRId64 " rows",
                       rows->rows);
    status = sb_list_active(rows, active, &actives, &ctx->error);
    if (status != SB_OK || rows->held == 0) return status;
    j.actives = actives;
    j.d = sb_cpu_room(&c->parts, actives, (size_t)rows->held * sizeof *j.d);
    if (!j.d)
        return sb_fail(&ctx->error, SB_ERR_MEMORY,
                       "no memory for the derivatives of %" PRId64 " rows", actives);
    sb_pool_run(c->pool, actives * rows->held <= SB_CPU_ALONE_ELEMENTS, derive_row, &j, actives);
    if (call->to.by_hidden) run_side(&j, 1);
    if (call->to.by_weights) run_side(&j, 0);
    if (call->to.by_bias) add_biases(&j);
    return SB_OK;
}
