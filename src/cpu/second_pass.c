/* second_pass.c - a second look at the rows of a call: first their states, as for a logprob,
 * then their logits again, in pieces, for what depends on more than the sum. */
#include <inttypes.h>

#include "cpu/cpu.h"

static void keep_state(const sb_cpu_job *j, int64_t row, const sb_state *state,
                       const sb_row *constants)
{
    const sb_cpu_look *l = j->to;
    (void)constants;
    l->states[row] = *state;
}

static void *part_at(const sb_cpu_look *l, int64_t item)
{
    return l->parts + (size_t)item * l->size;
}

static void look_at_piece(void *shared, int64_t item)
{
    const sb_cpu_look *l = shared;
    const sb_cpu_job *j = l->job;
    int64_t row = j->active[item / j->split], first = item % j->split * j->piece;
    int64_t last = first + j->piece < j->call->held ? first + j->piece : j->call->held;
    void *part = part_at(l, item);
    memset(part, 0, l->size);
    for (; first < last; first += SB_CPU_BUFFER) {
        int64_t n = last - first < SB_CPU_BUFFER ? last - first : SB_CPU_BUFFER;
        float x[SB_CPU_BUFFER];
        sb_cpu_read(j->call, row, first, n, x);
        l->look(l, row, x, n, first, part);
    }
}

static void finish_row(void *shared, int64_t i)
{
    const sb_cpu_look *l = shared;
    int64_t row = l->job->active[i];
    sb_row constants = sb_row_of(sb_temperature_at(l->job->call, row));
    l->finish(l, row, &l->states[row], &constants, part_at(l, i * l->job->split));
}

sb_status sb_cpu_look_prepare(sb_context *ctx, sb_cpu_look *l)
{
    sb_cpu *c = ctx->state;
    sb_cpu_job *j = l->job;
    sb_status status;
    j->finish = keep_state;
    j->to = l;
    status = sb_cpu_job_prepare(ctx, j);
    if (status != SB_OK) return status;
    l->states = sb_cpu_room(&c->wholes, j->call->rows, sizeof *l->states);
    l->parts = sb_cpu_room(&c->parts, j->actives * j->split, l->size);
    if (l->states && l->parts) return SB_OK;
    return sb_fail(&ctx->error, SB_ERR_MEMORY,
                   "no memory for %" PRId64 " rows in %" PRId64 " pieces", j->actives, j->split);
}

void sb_cpu_look_run(sb_cpu *c, const sb_cpu_look *l)
{
    void *shared = (void *)(uintptr_t)l; /* the pool's items only read it */
    int alone = l->job->actives * l->job->call->held <= SB_CPU_BUFFER;
    sb_cpu_job_run(c, l->job);
    if (l->size)
        sb_pool_run(c->pool, alone, look_at_piece, shared, l->job->actives * l->job->split);
    sb_pool_run(c->pool, alone, finish_row, shared, l->job->actives);
}
