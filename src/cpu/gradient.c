/* gradient.c - gradients on the CPU. The work items are rows of logits, or pieces of rows: each
 * element comes from its own logit and its row's saved record alone. So logprob.c may also ask for
 * a single row, as soon as its record is there and while its logits are in a cache. */
#include <inttypes.h>

#include "cpu/cpu.h"
#include "det/convert.h"
#include "det/gradient.h"

#define PIECE_LOGITS 32768 /* logits per work item; a call with fewer runs on one thread */

/* Copies a saved row. The caller's saved rows may be unaligned, for example in a mapped file. */
static sb_saved saved_at(const sb_gradient *to, int64_t row)
{
    sb_saved saved;
    memcpy(&saved, (const char *)to->saved + row * (int64_t)sizeof saved, sizeof saved);
    return saved;
}

/* The address of element i in the row of grad that belongs to this row of logits. */
static char *grad_at(const sb_cpu_gradient *j, int64_t row, int64_t i)
{
    const sb_batch *in = &j->call->in;
    const sb_gradient *to = &j->to;
    int64_t element = in->cu_seqlens
                          ? row * to->row_stride
                          : row / in->time * to->batch_stride + row % in->time * to->row_stride;
    return (char *)to->grad + (element + i) * sb_itemsize(to->dtype);
}

static void store(char *to, int32_t dtype, float x)
{
    uint16_t half = dtype == SB_F16 ? sb_to_f16(x) : sb_to_bf16(x);
    if (dtype == SB_F32) memcpy(to, &x, 4);
    else memcpy(to, &half, 2);
}

/* The same for a row with a kept set. Converts one buffer of logits at a time to fp32, with -inf
 * for ids that are not kept. */
static void spread_kept(const sb_cpu_gradient *j, int64_t row, const sb_gradient_row *g,
                        int64_t first, int64_t last, char *grad)
{
    const sb_gradient *to = &j->to;
    float x[SB_CPU_BUFFER];
    for (; first < last; first += SB_CPU_BUFFER) {
        int64_t here = last - first < SB_CPU_BUFFER ? last - first : SB_CPU_BUFFER;
        sb_cpu_read(j->call, row, first, here, x);
        j->gradient(grad + first * sb_itemsize(to->dtype), to->dtype, x, SB_F32, here, g, j->of);
    }
}

/* Writes elements first .. last - 1 of an active row that is not NaN. row is the row of the result,
 * which is call->in.shift after the row of the logits. */
static void spread(const sb_cpu_gradient *j, int64_t row, const sb_saved *saved, int64_t first,
                   int64_t last)
{
    const sb_call *call = j->call;
    const sb_gradient *to = &j->to;
    const int32_t dtype = call->in.logits_dtype;
    const int64_t target = sb_int_at(call->in.ids, call->in.ids_dtype, row) - call->first;
    const float tau = sb_temperature_at(call, row);
    const sb_row constants = sb_row_of(tau);
    const sb_upstream up = { to->token ? sb_float_at(to->token, row) : 0.0f,
                             to->entropy ? sb_float_at(to->entropy, row) : 0.0f };
    const sb_gradient_row g = sb_gradient_row_of(saved, &constants, tau, up, j->of);
    const char *logits = sb_logits_of(call, row);
    char *grad = grad_at(j, row - call->in.shift, 0);
    const int owner = to->token && target >= first && target < last;
    float own = 0.0f;
    if (owner) { /* computed before grad is written, since grad may be the logits */
        const float x = sb_target_logit(call, row, target + call->first);
        own = sb_gradient_at_target(x, &g, saved, &constants, tau, up, j->of);
    }
    if (sb_has_kept(&call->in)) spread_kept(j, row, &g, first, last, grad);
    else
        j->gradient(grad + first * sb_itemsize(to->dtype), to->dtype,
                    logits + first * sb_itemsize(dtype), dtype, last - first, &g, j->of);
    if (owner) store(grad + target * sb_itemsize(to->dtype), to->dtype, own);
}

/* Writes n elements from `first` on of an active row whose logits, kept sets applied, are x. */
static void spread_logits(const sb_cpu_gradient *j, int64_t row, const float *x, int64_t first,
                          int64_t n)
{
    const sb_call *call = j->call;
    const sb_gradient *to = &j->to;
    const sb_saved saved = saved_at(to, row);
    const int64_t target = sb_int_at(call->in.ids, call->in.ids_dtype, row) - call->first - first;
    const float tau = sb_temperature_at(call, row);
    const sb_row constants = sb_row_of(tau);
    const sb_upstream up = { to->token ? sb_float_at(to->token, row) : 0.0f,
                             to->entropy ? sb_float_at(to->entropy, row) : 0.0f };
    char *grad = grad_at(j, row - call->in.shift, first);
    sb_gradient_row g;
    if (saved.kind == SB_SAVED_NAN) {
        for (int64_t i = 0; i < n; i++)
            store(grad + i * sb_itemsize(to->dtype), to->dtype, sb_float(SB_NAN_BITS));
        return;
    }
    g = sb_gradient_row_of(&saved, &constants, tau, up, j->of);
    j->gradient(grad, to->dtype, x, SB_F32, n, &g, j->of);
    if (to->token && target >= 0 && target < n)
        store(grad + target * sb_itemsize(to->dtype), to->dtype,
              sb_gradient_at_target(x[target], &g, &saved, &constants, tau, up, j->of));
}

/* Writes a block of active rows of hidden states and a piece of their ids. */
static void run_tile(void *shared, int64_t item)
{
    const sb_cpu_gradient *j = shared;
    const sb_cpu_hidden *h = j->hidden;
    const int64_t blocks = sb_cpu_tile_blocks(h->actives);
    const int64_t i = item % blocks * SB_CPU_TILE_ROWS;
    const int64_t rows = h->actives - i < SB_CPU_TILE_ROWS ? h->actives - i : SB_CPU_TILE_ROWS;
    const int64_t leaves = (j->call->held + SB_LEAF - 1) / SB_LEAF;
    const int64_t size = (leaves + j->tiles - 1) / j->tiles * SB_LEAF, from = item / blocks * size;
    const int64_t end = from + size < j->call->held ? from + size : j->call->held;
    for (int64_t first = from; first < end; first += SB_CPU_TILE_IDS) {
        const int64_t n = end - first < SB_CPU_TILE_IDS ? end - first : SB_CPU_TILE_IDS;
        float x[SB_CPU_TILE_ROWS][SB_CPU_TILE_IDS];
        sb_cpu_hidden_tile(h, i, rows, first, n, x[0], SB_CPU_TILE_IDS);
        for (int64_t r = 0; r < rows; r++) spread_logits(j, h->active[i + r], x[r], first, n);
    }
}

/* Writes elements first .. end - 1 of the gradient of a row of logits, of one of hidden states only
 * what run_tile does not write. */
static void write_elements(const sb_cpu_gradient *j, int64_t source, int64_t first, int64_t end)
{
    const sb_gradient *to = &j->to;
    const int64_t row = source + j->call->in.shift;
    int64_t held = j->call->held < end ? j->call->held : end; /* the rest is padding */
    if (held < first || !j->active[source]) held = first;
    if (held > first && !j->hidden) {
        const sb_saved saved = saved_at(to, row);
        if (saved.kind == SB_SAVED_NAN)
            for (int64_t i = first; i < held; i++)
                store(grad_at(j, source, i), to->dtype, sb_float(SB_NAN_BITS));
        else spread(j, row, &saved, first, held);
    }
    if (end > held)
        memset(grad_at(j, source, held), 0, (size_t)((end - held) * sb_itemsize(to->dtype)));
}

void sb_cpu_gradient_row(const sb_cpu_gradient *j, int64_t row)
{
    write_elements(j, row - j->call->in.shift, 0, j->to.width);
}

static void run_piece(void *shared, int64_t item)
{
    const sb_cpu_gradient *j = shared;
    const int64_t source = item / j->pieces, first = item % j->pieces * j->piece;
    const int64_t width = j->to.width;
    if (j->written && j->active[source]) return;
    write_elements(j, source, first, first + j->piece < width ? first + j->piece : width);
}

/* Divides each row into pieces. Requires: width >= 1. */
static void plan_gradient(sb_cpu_gradient *j)
{
    int64_t width = j->to.width, split = j->call->launch.split;
    if (split == 0) split = (width + PIECE_LOGITS - 1) / PIECE_LOGITS;
    if (split > width) split = width;
    j->piece = ((width + split - 1) / split + SB_LEAF - 1) / SB_LEAF * SB_LEAF;
    j->pieces = (width + j->piece - 1) / j->piece;
}

sb_status sb_cpu_gradient_prepare(sb_context *ctx, sb_cpu_gradient *j, const sb_call *call,
                                  const sb_gradient *to, const int64_t *active, int64_t actives)
{
    sb_cpu *c = ctx->state;
    uint8_t *marks = sb_cpu_room(&c->parts, call->rows, sizeof *marks);
    if (!marks)
        return sb_fail(&ctx->error, SB_ERR_MEMORY, "no memory to mark %" PRId64 " rows",
                       call->rows);
    memset(marks, 0, (size_t)call->rows);
    for (int64_t i = 0; i < actives; i++) marks[active[i] - call->in.shift] = 1;
    *j = (sb_cpu_gradient){ .call = call, .to = *to, .gradient = c->isa->gradient };
    j->active = marks;
    j->of = (to->token ? SB_OF_TOKEN : 0) | (to->entropy ? SB_OF_ENTROPY : 0);
    plan_gradient(j);
    return SB_OK;
}

void sb_cpu_gradient_of_hidden(const sb_cpu *c, sb_cpu_gradient *j, const sb_cpu_hidden *hidden)
{
    j->hidden = hidden;
    j->tiles = sb_cpu_tile_pieces(c, j->call, sb_cpu_tile_blocks(hidden->actives));
}

/* Whether the rows take too little time to be given to several threads. */
static int is_small(const sb_cpu_gradient *j)
{
    return j->call->rows * j->to.width <= PIECE_LOGITS;
}

void sb_cpu_gradient_run(sb_cpu *c, const sb_cpu_gradient *j)
{
    void *shared = (void *)(uintptr_t)j; /* the pool's items only read it */
    sb_pool_run(c->pool, is_small(j), run_piece, shared, j->call->rows * j->pieces);
    if (j->hidden)
        sb_pool_run(c->pool, sb_cpu_tiles_alone(j->hidden), run_tile, shared,
                    sb_cpu_tile_blocks(j->hidden->actives) * j->tiles);
}

sb_status sb_cpu_backward(sb_context *ctx, const void *checked)
{
    const sb_backward_call *backward = checked;
    const sb_gradient *gradient = &backward->to;
    const sb_call *call = &backward->call;
    sb_cpu *c = ctx->state;
    sb_cpu_gradient j;
    sb_cpu_hidden hidden;
    int64_t *list = sb_cpu_room(&c->rows, call->rows, sizeof *list), actives;
    sb_status status;
    if (!list)
        return sb_fail(&ctx->error, SB_ERR_MEMORY, "no memory to list %" PRId64 " rows",
                       call->rows);
    status = sb_list_active(call, list, &actives, &ctx->error);
    if (status == SB_OK) status = sb_check_saved(call, gradient, list, actives, &ctx->error);
    if (status != SB_OK) return status;
    if (gradient->width == 0) return SB_OK; /* an empty shard has nothing to write */
    status = sb_cpu_gradient_prepare(ctx, &j, call, gradient, list, actives);
    if (status == SB_OK && call->in.head) {
        status = sb_cpu_hidden_prepare(&hidden, call, c->products, &c->hidden[0], list, actives, 0,
                                       &ctx->error);
        sb_cpu_gradient_of_hidden(c, &j, &hidden);
    }
    if (status != SB_OK) return status;
    if (call->rows) sb_cpu_say_plan(ctx, is_small(&j), j.pieces);
    if (j.hidden) sb_cpu_hidden_pack(c->pool, &hidden);
    sb_cpu_gradient_run(c, &j);
    return SB_OK;
}
