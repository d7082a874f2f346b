/* backend_cpu_shards.c - shards of the vocabulary on the CPU: records are written, merged and
 * finished. */
#include <inttypes.h>

#include "backend_cpu.h"
#include "det/finish.h"
#include "det/record.h"
#include "fpmode.h"

#define CHUNK_ROWS 64 /* rows finished at once; fewer run unthreaded */

/* Records of the caller's lie anywhere: a mapped file aligns nothing. */
#define GET(record, array, i)                                                                      \
    memcpy(&(record), (const char *)(array) + (i) * (int64_t)sizeof(record), sizeof(record))
#define PUT(array, i, record)                                                                      \
    memcpy((char *)(array) + (i) * (int64_t)sizeof(record), &(record), sizeof(record))

/* Where sb_partial writes. */
typedef struct records {
    sb_state_record *states;
    sb_target_record *targets;
} records;

static void record_row(const sb_cpu_job *j, int64_t row, const sb_state *state,
                       const sb_row *constants)
{
    const records *to = j->to;
    const sb_call *call = j->call;
    int64_t id = sb_int_at(call->in.ids, call->in.ids_dtype, row);
    sb_target target = { 0, 0 };
    (void)constants;
    if (id >= call->first && id < call->first + call->held) {
        target.x = sb_bits32(sb_target_logit(call, row, id));
        target.owners = 1;
    }
    PUT(to->states, row, *state);
    PUT(to->targets, row, target);
}

sb_status sb_cpu_partial(sb_context *ctx, sb_state_record *states, sb_target_record *targets,
                         const sb_call *call)
{
    records to = { states, targets };
    sb_cpu_job j = { .call = call, .finish = record_row, .to = &to };
    sb_status status = sb_cpu_job_prepare(ctx, &j);
    if (status != SB_OK || call->rows == 0) return status;
    memset(states, 0, (size_t)call->rows * sizeof *states);
    memset(targets, 0, (size_t)call->rows * sizeof *targets);
    sb_cpu_job_run(ctx->state, &j);
    return SB_OK;
}

sb_status sb_cpu_merge(sb_context *ctx, const sb_merge_call *call)
{
    sb_status status = sb_check_merge(call, &ctx->error);
    if (status != SB_OK) return status;
    for (int64_t row = 0; row < call->rows; row++) {
        sb_state into, from;
        sb_target target, other;
        GET(into, call->from_states, row);
        GET(target, call->from_targets, row);
        for (int64_t shard = 1; shard < call->shards; shard++) {
            GET(from, call->from_states, shard * call->rows + row);
            GET(other, call->from_targets, shard * call->rows + row);
            sb_state_merge(&into, &from);
            sb_target_merge(&target, &other);
        }
        PUT(call->states, row, into);
        PUT(call->targets, row, target);
    }
    return SB_OK;
}

typedef struct finish_job {
    const sb_call *call;
    const sb_state_record *states;
    const sb_target_record *targets;
    const int64_t *active;
    int64_t actives;
    float *token, *lse; /* may be null */
    sb_saved_row *saved;
} finish_job;

static void finish_rows(void *shared, int64_t item)
{
    const finish_job *j = shared;
    int64_t first = item * CHUNK_ROWS, last = first + CHUNK_ROWS;
    sb_fpmode mode = sb_fpmode_enter();
    if (last > j->actives) last = j->actives;
    for (int64_t i = first; i < last; i++) {
        int64_t row = j->active[i];
        sb_row constants = sb_row_of(sb_temperature_at(j->call, row));
        sb_state state;
        sb_target target;
        GET(state, j->states, row);
        GET(target, j->targets, row);
        if (j->token) j->token[row] = sb_finish_logprob(&state, sb_float(target.x), &constants);
        if (j->lse) j->lse[row] = sb_finish_lse(&state, &constants);
        if (j->saved) sb_cpu_save(j->saved, row, &state, 0, &constants);
    }
    sb_fpmode_leave(mode);
}

sb_status sb_cpu_finish(sb_context *ctx, const sb_logprob_out *out, const sb_call *call,
                        const sb_state_record *states, const sb_target_record *targets)
{
    sb_cpu *c = ctx->state;
    finish_job j = { call, states, targets, NULL, 0, out->token, out->lse, out->saved };
    sb_cpu_job rows = { .call = call }; /* of no logits: only to list the active ones */
    sb_status status = sb_cpu_job_prepare(ctx, &rows);
    if (status != SB_OK) return status;
    j.active = rows.active;
    j.actives = rows.actives;
    status = sb_check_finish(call, states, targets, j.active, j.actives, &ctx->error);
    if (status != SB_OK) return status;
    if (!j.token && out->sequence) {
        j.token = sb_cpu_room(&c->tokens, call->rows, sizeof *j.token);
        if (!j.token)
            return sb_fail(&ctx->error, SB_ERR_MEMORY, "no memory for %" PRId64 " token logprobs",
                           call->rows);
    }

    /* Nothing fails from here on. */
    if (out->token) memset(out->token, 0, (size_t)call->rows * sizeof *out->token);
    if (out->lse) memset(out->lse, 0, (size_t)call->rows * sizeof *out->lse);
    if (out->saved) memset(out->saved, 0, (size_t)call->rows * sizeof *out->saved);
    sb_pool_run(c->pool, j.actives <= CHUNK_ROWS, finish_rows, &j,
                (j.actives + CHUNK_ROWS - 1) / CHUNK_ROWS);
    sb_cpu_sum_sequences(out, call, j.token, j.active, j.actives);
    return SB_OK;
}
