/* logits.c - the logits of hidden states themselves, on the CPU, and the steps of columns of D: the
 * scales of rows, exact sums, and the logits of whole sums. */
#include <inttypes.h>

#include "cpu/cpu.h"
#include "det/convert.h"

#define SUM_IDS 128 /* ids in a tile of sums, which take twice the bytes of logits */

/* ---- tiles of a call's rows --------------------------------------------------------------- */

typedef struct tile_job {
    sb_cpu_hidden hidden;
    const sb_logits_out *out; /* or null */
    int64_t *sums;
    int64_t pieces, piece; /* pieces per row, and ids per piece */
} tile_job;

static void store(char *to, int32_t dtype, const float *x, int64_t n)
{
    if (dtype == SB_F32) {
        memcpy(to, x, (size_t)n * 4);
        return;
    }
    for (int64_t i = 0; i < n; i++) {
        const uint16_t half = dtype == SB_F16 ? sb_to_f16(x[i]) : sb_to_bf16(x[i]);
        memcpy(to + i * 2, &half, 2);
    }
}

/* The address of the logits of a row of hidden states, which may be ignored. */
static char *logits_at(const sb_call *call, const sb_logits_out *out, int64_t source)
{
    const sb_batch *in = &call->in;
    const int64_t element = in->cu_seqlens ? source * out->row_stride
                                           : source / in->time * out->batch_stride +
                                                 source % in->time * out->row_stride;
    return (char *)out->logits + element * sb_itemsize(out->dtype);
}

static void run_tile(void *shared, int64_t item)
{
    const tile_job *j = shared;
    const sb_call *call = j->hidden.call;
    const int64_t blocks = sb_cpu_tile_blocks(j->hidden.actives);
    const int64_t i = item % blocks * SB_CPU_TILE_ROWS, first = item / blocks * j->piece;
    const int64_t rows = j->hidden.actives - i < SB_CPU_TILE_ROWS ? j->hidden.actives - i
                                                                  : SB_CPU_TILE_ROWS;
    const int64_t end = first + j->piece < call->held ? first + j->piece : call->held;
    const int64_t step = j->out ? SB_CPU_TILE_IDS : SUM_IDS;
    for (int64_t id = first; id < end; id += step) {
        const int64_t n = end - id < step ? end - id : step;
        union {
            float x[SB_CPU_TILE_ROWS][SB_CPU_TILE_IDS];
            int64_t sums[SB_CPU_TILE_ROWS][SUM_IDS];
        } tile;
        if (j->out) sb_cpu_hidden_tile(&j->hidden, i, rows, id, n, tile.x[0], SB_CPU_TILE_IDS);
        else sb_cpu_hidden_sums(&j->hidden, i, rows, id, n, tile.sums[0], SUM_IDS);
        for (int64_t r = 0; r < rows; r++) {
            const int64_t source = j->hidden.active[i + r] - call->in.shift;
            if (j->out)
                store(logits_at(call, j->out, source) + id * sb_itemsize(j->out->dtype),
                      j->out->dtype, tile.x[r], n);
            else memcpy(j->sums + source * call->held + id, tile.sums[r], (size_t)n * 8);
        }
    }
}

static sb_status prepare(sb_context *ctx, tile_job *j, const sb_call *call)
{
    sb_cpu *c = ctx->state;
    int64_t *active = sb_cpu_room(&c->rows, call->rows, sizeof *active), actives, blocks;
    sb_status status;
    if (!active)
        return sb_fail(&ctx->error, SB_ERR_MEMORY, "no memory to list %" PRId64 " rows",
                       call->rows);
    status = sb_list_active(call, active, &actives, &ctx->error);
    if (status != SB_OK || call->held == 0) return status;
    blocks = sb_cpu_tile_blocks(actives);
    j->pieces = sb_cpu_tile_pieces(c, call, blocks);
    j->piece = ((call->held + j->pieces - 1) / j->pieces + SB_LEAF - 1) / SB_LEAF * SB_LEAF;
    return sb_cpu_hidden_prepare(&j->hidden, call, c->products, &c->hidden[0], active, actives, 0,
                                 &ctx->error);
}

static void run_tiles(sb_context *ctx, tile_job *j)
{
    sb_cpu *c = ctx->state;
    const int64_t blocks = sb_cpu_tile_blocks(j->hidden.actives);
    const int alone = sb_cpu_tiles_alone(&j->hidden);
    if (j->hidden.actives) {
        sb_cpu_say_plan(ctx, alone, j->pieces);
        sb_cpu_say_products(ctx);
    }
    sb_cpu_hidden_pack(c->pool, &j->hidden);
    sb_pool_run(c->pool, alone, run_tile, j, blocks * j->pieces);
}

sb_status sb_cpu_logits(sb_context *ctx, const void *checked)
{
    const sb_logits_call *call = checked;
    const sb_call *rows = &call->call;
    tile_job j = { .out = &call->out };
    sb_status status = prepare(ctx, &j, rows);
    if (status != SB_OK || rows->held == 0) return status;
    for (int64_t source = 0; source < rows->rows; source++)
        memset(logits_at(rows, &call->out, source), 0,
               (size_t)(rows->held * sb_itemsize(call->out.dtype)));
    run_tiles(ctx, &j);
    return SB_OK;
}

/* ---- columns of D ------------------------------------------------------------------------- */

static void scale_row(void *shared, int64_t i)
{
    const sb_scales_call *call = shared;
    const char *row = (const char *)call->matrix + i * call->row_stride * sb_itemsize(call->dtype);
    const uint32_t a = sb_cpu_scale(row, call->dtype, call->width);
    memcpy((char *)call->scales + i * 4, &a, 4);
}

sb_status sb_cpu_scales(sb_context *ctx, const void *checked)
{
    const sb_scales_call *call = checked;
    sb_cpu *c = ctx->state;
    void *shared = (void *)(uintptr_t)call; /* the pool's items only read it */
    sb_pool_run(c->pool, call->rows * call->width <= SB_CPU_ALONE_ELEMENTS, scale_row, shared,
                call->rows);
    return SB_OK;
}

sb_status sb_cpu_check_scales(const sb_call *call, const uint32_t *scales, const int64_t *active,
                              int64_t actives, sb_message *why)
{
    for (int64_t i = 0; i < actives; i++) {
        const int64_t row = active[i];
        const uint32_t own = sb_cpu_scale(sb_hidden_of(call, row), call->in.hidden_dtype,
                                          call->in.hidden_width);
        uint32_t given;
        memcpy(&given, (const char *)scales + (row - call->in.shift) * 4, 4);
        if (given < own)
            return sb_fail(why, SB_ERR_STATE,
                           "row %" PRId64 ": its scale is %08x, below the %08x of its own columns",
                           row, (unsigned)given, (unsigned)own);
    }
    return SB_OK;
}

sb_status sb_cpu_products(sb_context *ctx, const void *checked)
{
    const sb_products_call *call = checked;
    const sb_call *rows = &call->call;
    tile_job j = { .sums = call->sums };
    sb_status status = prepare(ctx, &j, rows);
    if (status != SB_OK || rows->held == 0) return status;
    status = sb_cpu_check_scales(rows, call->scales, j.hidden.active, j.hidden.actives,
                                 &ctx->error);
    if (status != SB_OK) return status;
    j.hidden.scales = call->scales;
    memset(call->sums, 0, (size_t)(rows->rows * rows->held) * sizeof *call->sums);
    run_tiles(ctx, &j);
    return SB_OK;
}

static void combine_row(void *shared, int64_t row)
{
    const sb_combine_call *call = shared;
    const sb_head *head = call->head;
    const sb_cpu_head_parts at = sb_cpu_head_of(&head->form);
    const sb_linear_steps steps = sb_linear_steps_of(head->form.scale, head->form.softcap);
    const int32_t E = sb_linear_E(call->scales[row]);
    for (int64_t id = 0; id < call->held;) {
        const int64_t first = call->first - head->form.first + id, past = first % SB_LEAF;
        const int64_t n = call->held - id < SB_LEAF - past ? call->held - id : SB_LEAF - past;
        int64_t sums[SB_LEAF];
        float x[SB_LEAF];
        memcpy(sums, call->sums + row * call->held + id, (size_t)n * sizeof *sums);
        sb_cpu_combine_leaf(head, &at, &steps, sums, E, first, n, 0xffff, x);
        memcpy(call->logits + row * call->held + id, x, (size_t)n * sizeof *x);
        id += n;
    }
}

sb_status sb_cpu_combine(sb_context *ctx, const void *checked)
{
    const sb_combine_call *call = checked;
    sb_cpu *c = ctx->state;
    void *shared = (void *)(uintptr_t)call; /* the pool's items only read it */
    sb_pool_run(c->pool, call->rows * call->held <= SB_CPU_ALONE_ELEMENTS, combine_row, shared,
                call->rows);
    return SB_OK;
}
