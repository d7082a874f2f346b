/* shards.c - shards of the vocabulary on the CPU: writes the records of a shard, merges records,
 * and finishes merged records to results. All input was checked before, so that a bad record leaves
 * every output as it was. */
#include <inttypes.h>

#include "cpu/cpu.h"
#include "det/finish.h"
#include "det/record.h"

#define CHUNK_ROWS 64 /* rows per work item of finish; a call with no more runs on one thread */

/* state points to an sb_state, or to an sb_moments if the records have moments. */
static void put(const sb_records *records, int64_t i, const void *state, const sb_target *target)
{
    const int64_t size = (int64_t)sb_state_size(records);
    memcpy((char *)records->states + i * size, state, (size_t)size);
    memcpy((char *)records->targets + i * (int64_t)sizeof *target, target, sizeof *target);
}

static void record_row(const sb_cpu_job *j, int64_t row, const sb_state *state,
                       const sb_row *constants)
{
    const sb_call *call = j->call;
    int64_t id = sb_int_at(call->in.ids, call->in.ids_dtype, row);
    sb_target target = { 0, 0 };
    (void)constants;
    if (id >= call->first && id < call->first + call->held) {
        target.x = sb_bits32(sb_cpu_target(j, row, 0));
        target.owners = 1;
    }
    put(j->to, row, state, &target);
}

sb_status sb_cpu_partial(sb_context *ctx, const void *checked)
{
    const sb_partial_call *partial = checked;
    const sb_call *call = &partial->call;
    sb_records to = partial->to;
    sb_cpu_job j = {
        .call = call, .moments = sb_has_moments(&to), .targets = 1, .finish = record_row, .to = &to
    };
    sb_status status = sb_cpu_job_prepare(ctx, &j);
    if (status != SB_OK || call->rows == 0) return status;
    memset(to.states, 0, (size_t)call->rows * sb_state_size(&to));
    memset(to.targets, 0, (size_t)call->rows * sizeof *to.targets);
    sb_cpu_job_run(ctx->state, &j);
    return SB_OK;
}

sb_status sb_cpu_merge(sb_context *ctx, const void *checked)
{
    const sb_merge_call *call = checked;
    sb_status status = sb_check_merge(call, &ctx->error);
    if (status != SB_OK) return status;
    for (int64_t row = 0; row < call->rows; row++) {
        sb_record into = sb_record_at(&call->from, row);
        for (int64_t shard = 1; shard < call->shards; shard++) {
            sb_record from = sb_record_at(&call->from, shard * call->rows + row);
            if (sb_has_moments(&call->from)) sb_moments_merge(&into.m, &from.m);
            else sb_state_merge(&into.m.sum, &from.m.sum);
            sb_target_merge(&into.t, &from.t);
        }
        put(&call->to, row, &into.m, &into.t);
    }
    return SB_OK;
}

typedef struct finish_job {
    const sb_call *call;
    const sb_records *records;
    const int64_t *active;
    int64_t actives;
    sb_cpu_results to;
} finish_job;

static void finish_rows(void *shared, int64_t item)
{
    const finish_job *j = shared;
    int64_t first = item * CHUNK_ROWS, last = first + CHUNK_ROWS;
    if (last > j->actives) last = j->actives;
    for (int64_t i = first; i < last; i++) {
        int64_t row = j->active[i];
        sb_row constants = sb_row_of(sb_temperature_at(j->call, row));
        sb_record r = sb_record_at(j->records, row);
        sb_cpu_results_write(&j->to, row, &r.m.sum, sb_float(r.t.x), &constants);
    }
}

sb_status sb_cpu_finish(sb_context *ctx, const void *checked)
{
    const sb_finish_call *finish = checked;
    const sb_logprob_out *out = &finish->out;
    const sb_call *call = &finish->call;
    const sb_records *records = &finish->from;
    sb_cpu *c = ctx->state;
    finish_job j = { .call = call, .records = records };
    sb_cpu_job rows = { .call = call }; /* only lists the active rows; the call has no logits */
    sb_status status = sb_cpu_job_prepare(ctx, &rows);
    if (status != SB_OK) return status;
    j.active = rows.active;
    j.actives = rows.actives;
    status = sb_check_finish(call, records, j.active, j.actives, &ctx->error);
    if (status == SB_OK) status = sb_cpu_results_prepare(ctx, &j.to, out, call->rows);
    if (status != SB_OK) return status;
    sb_pool_run(c->pool, j.actives <= CHUNK_ROWS, finish_rows, &j,
                (j.actives + CHUNK_ROWS - 1) / CHUNK_ROWS);
    sb_cpu_sum_sequences(out, call, j.to.token, j.active, j.actives);
    return SB_OK;
}
