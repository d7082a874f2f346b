/* second_pass.c - operations that depend on more than a row's sum. They first compute the states of
 * all rows, as for a logprob, then read the logits a second time, in pieces. order.c says what is
 * found in a piece, and what becomes of a row. */
#include <inttypes.h>

#include "cpu/cpu.h"

static void keep_state(const sb_cpu_job *j, int64_t row, const sb_state *state,
                       const sb_row *constants)
{
    const sb_cpu_second_pass *pass = j->to;
    (void)constants;
    pass->states[row] = *state;
}

static void *part_at(const sb_cpu_second_pass *pass, int64_t item)
{
    return pass->parts + (size_t)item * pass->size;
}

/* A piece of a row with a list: the leaves that have a kept id. */
static void visit_list(const sb_cpu_second_pass *pass, int64_t row, int64_t first, int64_t last,
                       void *part)
{
    const sb_call *call = pass->job->call;
    sb_cpu_leaves leaves = sb_cpu_leaves_of(call, row, first, last - first);
    while (leaves.at < leaves.last) {
        const int64_t id = sb_cpu_next_leaf(&leaves) * SB_LEAF;
        const int64_t n = last - id < SB_LEAF ? last - id : SB_LEAF;
        float x[SB_LEAF];
        sb_cpu_take_leaf(&leaves, x);
        pass->visit(pass, row, x, n, id, part);
    }
}

static void visit_piece(void *shared, int64_t item)
{
    const sb_cpu_second_pass *pass = shared;
    const sb_cpu_job *j = pass->job;
    int64_t row = j->active[item / j->split], first = item % j->split * j->piece;
    int64_t last = first + j->piece < j->call->held ? first + j->piece : j->call->held;
    void *part = part_at(pass, item);
    memset(part, 0, pass->size);
    if (j->call->in.kept_offsets) {
        if (first < last) visit_list(pass, row, first, last, part);
        return;
    }
    for (; first < last; first += SB_CPU_BUFFER) {
        int64_t n = last - first < SB_CPU_BUFFER ? last - first : SB_CPU_BUFFER;
        float x[SB_CPU_BUFFER];
        sb_cpu_read(j->call, row, first, n, x);
        pass->visit(pass, row, x, n, first, part);
    }
}

/* The same for a block of rows of hidden states. */
static void visit_tile(void *shared, int64_t item)
{
    const sb_cpu_second_pass *pass = shared;
    const sb_cpu_job *j = pass->job;
    const int64_t blocks = sb_cpu_tile_blocks(j->actives);
    const int64_t i = item % blocks * SB_CPU_TILE_ROWS, p = item / blocks;
    const int64_t rows = j->actives - i < SB_CPU_TILE_ROWS ? j->actives - i : SB_CPU_TILE_ROWS;
    const int64_t last = (p + 1) * j->piece < j->call->held ? (p + 1) * j->piece : j->call->held;
    for (int64_t r = 0; r < rows; r++) memset(part_at(pass, (i + r) * j->split + p), 0, pass->size);
    for (int64_t first = p * j->piece; first < last; first += SB_CPU_TILE_IDS) {
        const int64_t n = last - first < SB_CPU_TILE_IDS ? last - first : SB_CPU_TILE_IDS;
        float x[SB_CPU_TILE_ROWS][SB_CPU_TILE_IDS];
        sb_cpu_hidden_tile(&j->hidden, i, rows, first, n, x[0], SB_CPU_TILE_IDS);
        for (int64_t r = 0; r < rows; r++)
            pass->visit(pass, j->active[i + r], x[r], n, first,
                        part_at(pass, (i + r) * j->split + p));
    }
}

static void finish_pass(void *shared, int64_t i)
{
    const sb_cpu_second_pass *pass = shared;
    int64_t row = pass->job->active[i];
    sb_row constants = sb_row_of(sb_temperature_at(pass->job->call, row));
    pass->finish(pass, row, &pass->states[row], &constants, part_at(pass, i * pass->job->split));
}

sb_status sb_cpu_second_pass_prepare(sb_context *ctx, sb_cpu_second_pass *pass)
{
    sb_cpu *c = ctx->state;
    sb_cpu_job *j = pass->job;
    sb_status status;
    j->finish = keep_state;
    j->to = pass;
    status = sb_cpu_job_prepare(ctx, j);
    if (status != SB_OK) return status;
    pass->states = sb_cpu_room(&c->wholes, j->call->rows, sizeof *pass->states);
    pass->parts = sb_cpu_room(&c->parts, j->actives * j->split, pass->size);
    if (pass->states && pass->parts) return SB_OK;
    return sb_fail(&ctx->error, SB_ERR_MEMORY,
                   "no memory for %" PRId64 " rows in %" PRId64 " pieces", j->actives, j->split);
}

void sb_cpu_second_pass_run(sb_cpu *c, const sb_cpu_second_pass *pass)
{
    void *shared = (void *)(uintptr_t)pass; /* the pool's items only read it */
    int alone = pass->job->actives * sb_cpu_logits_per_row(pass->job->call) <= SB_CPU_BUFFER;
    sb_cpu_job_run(c, pass->job);
    if (pass->size && sb_cpu_is_hidden(pass->job))
        sb_pool_run(c->pool, sb_cpu_tiles_alone(&pass->job->hidden), visit_tile, shared,
                    sb_cpu_tile_blocks(pass->job->actives) * pass->job->split);
    else if (pass->size)
        sb_pool_run(c->pool, alone, visit_piece, shared, pass->job->actives * pass->job->split);
    sb_pool_run(c->pool, alone, finish_pass, shared, pass->job->actives);
}
