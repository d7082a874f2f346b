/* sample.c - sampling on the CPU. First the states of all rows, in short pieces; then, row by row,
 * the filters, the draw and the outputs.
 *
 * The piece that holds the draw is found among the states of the row's pieces, and read again. A
 * row with filters is read several times: for its largest logit, for the cut of each filter, and
 * for the state of what is kept, whose pieces are buffers. The logits of hidden states are computed
 * again for a piece; if rows are read several times, those of some rows are computed once. */
#include <inttypes.h>

#include "cpu/drawn.h"

#define PIECE 4096 /* logits: what is read again to find a token */
#define BUFFERS (SB_MAX_VOCAB / SB_CPU_BUFFER)
#define LOGITS_BYTES (16 << 20) /* of logits of hidden states at once */

typedef struct sampler {
    const sb_sample_call *to;
    const sb_cpu_job *job;
    sb_state *wholes;       /* [rows]: states of the rows' present ids */
    const sb_state *models; /* [rows]: the same without the batch's kept sets */
    float *logits;          /* [most][V]: of some rows of hidden states; null: not computed */
    int64_t most;           /* rows at once */
    int64_t before, now;    /* active rows in front of those, and how many there are now */
    int64_t pieces, piece;  /* pieces of the ids of these rows, and ids per piece */
} sampler;

/* The states of a row's parts, which lie side by side and have `size` ids each, the last one
 * fewer. */
typedef struct parts_of_row {
    const sb_state *states;
    int64_t size;
} parts_of_row;

/* The token at R of a row's total. whole: the row's state; *logit: the token's. */
static int32_t find_token(const sb_cpu_drawn *r, const sb_state *whole, parts_of_row parts,
                          sb_u128 R, float *logit)
{
    int64_t part = 0;
    sb_u128 share;
    while ((share = sb_total_at(&parts.states[part], whole->J)) <= R) R -= share, part++;
    return sb_cpu_find_token(r, whole, part * parts.size, R, logit);
}

/* Writes the kept set, and counts it. */
static void write_kept(const sb_sample_out *out, const sb_cpu_drawn *r)
{
    uint32_t *kept = out->kept ? out->kept + r->row * sb_kept_width(r->call->in.vocab) : NULL;
    int32_t count;
    if (!out->kept && !out->count) return;
    count = sb_cpu_write_kept(r, kept);
    if (out->count) out->count[r->row] = count;
}

static void write_row(const sb_sample_out *out, int64_t row, int32_t token, float logprob,
                      float kept_logprob)
{
    if (out->token) out->token[row] = token;
    if (out->logprob) out->logprob[row] = logprob;
    if (out->kept_logprob) out->kept_logprob[row] = kept_logprob;
}

/* Draws and writes. whole: the state of what is kept. */
static void draw(const sampler *s, const sb_cpu_drawn *r, const sb_state *whole, parts_of_row parts)
{
    const sb_u128 R = sb_drawn(sb_draw_bits(&s->to->how, r->row), sb_total(whole));
    float logit = 0.0f;
    const int32_t token = find_token(r, whole, parts, R, &logit);
    write_row(&s->to->out, r->row, token,
              s->models ? sb_finish_logprob(&s->models[r->row], logit, &r->constants) : 0.0f,
              sb_finish_logprob(whole, logit, &r->constants));
    write_kept(&s->to->out, r);
}

static void sample_row(void *shared, int64_t item)
{
    const sampler *s = shared;
    const sb_cpu_job *j = s->job;
    const int64_t i = s->before + item, row = j->active[i];
    const sb_state *whole = &s->wholes[row];
    parts_of_row parts = { whole, j->piece };
    sb_cpu_drawn r = { .call = j->call, .isa = j->cpu->isa, .row = row, .index = i };
    r.constants = sb_row_of(sb_temperature_at(j->call, row));
    if (sb_cpu_is_hidden(j)) r.hidden = &j->hidden;
    if (s->logits) r.logits = s->logits + item * j->call->held;
    if (sb_state_is_nan(whole)) {
        const float nan = sb_float(SB_NAN_BITS);
        write_row(&s->to->out, row, -1, nan, nan);
    } else if (sb_has_filters(&s->to->how)) {
        const sb_filters f = sb_filters_of(&s->to->how, row);
        sb_state buffers[BUFFERS], kept;
        sb_cpu_filter(&r, &f);
        sb_cpu_sum_kept(&r, &kept, buffers);
        parts = (parts_of_row){ buffers, SB_CPU_BUFFER };
        draw(s, &r, &kept, parts);
    } else {
        if (j->states) parts.states = (const sb_state *)j->states + i * j->split;
        draw(s, &r, whole, parts);
    }
}

/* Computes the logits of a block of the rows at hand, and a piece of their ids. */
static void compute_tile(void *shared, int64_t item)
{
    const sampler *s = shared;
    const sb_cpu_job *j = s->job;
    const int64_t held = j->call->held, blocks = sb_cpu_tile_blocks(s->now);
    const int64_t r = item % blocks * SB_CPU_TILE_ROWS, first = item / blocks * s->piece;
    const int64_t rows = s->now - r < SB_CPU_TILE_ROWS ? s->now - r : SB_CPU_TILE_ROWS;
    const int64_t n = held - first < s->piece ? held - first : s->piece;
    if (n > 0)
        sb_cpu_hidden_tile(&j->hidden, s->before + r, rows, first, n, s->logits + r * held + first,
                           held);
}

/* Draws the tokens of all active rows. */
static void sample_rows(sb_cpu *c, sampler *s)
{
    const sb_cpu_job *j = s->job;
    const int alone = !sb_cpu_is_hidden(j) && j->actives * j->call->in.vocab <= PIECE;
    for (s->before = 0; s->before < j->actives; s->before += s->most) {
        s->now = j->actives - s->before < s->most ? j->actives - s->before : s->most;
        if (s->logits)
            sb_pool_run(c->pool, 0, compute_tile, s, sb_cpu_tile_blocks(s->now) * s->pieces);
        sb_pool_run(c->pool, alone, sample_row, s, s->now);
    }
}

/* ---- the call ------------------------------------------------------------------------------ */

static void keep_whole(const sb_cpu_job *j, int64_t row, const sb_state *state,
                       const sb_row *constants)
{
    sb_state *wholes = j->to;
    (void)constants;
    wholes[row] = *state;
}

static void clear_outputs(const sb_sample_out *out, const sb_call *call)
{
    const size_t rows = (size_t)call->rows;
    if (out->token) memset(out->token, 0xff, rows * sizeof *out->token); /* -1 */
    if (out->logprob) memset(out->logprob, 0, rows * sizeof *out->logprob);
    if (out->kept_logprob) memset(out->kept_logprob, 0, rows * sizeof *out->kept_logprob);
    if (out->count) memset(out->count, 0, rows * sizeof *out->count);
    if (out->kept) memset(out->kept, 0, rows * (size_t)sb_kept_width(call->in.vocab) * 4);
}

/* Sums the rows again without their kept sets, for logprobs under the model. */
static sb_status sum_models(sb_context *ctx, const sb_call *kept, sb_state *models)
{
    sb_call call = *kept;
    sb_cpu_job job = { .call = &call, .finish = keep_whole, .to = models };
    sb_status status;
    call.in.kept = NULL;
    call.in.kept_ids = call.in.kept_offsets = NULL;
    call.in.kept_count = 0;
    status = sb_cpu_job_prepare(ctx, &job);
    if (status == SB_OK) sb_cpu_job_run(ctx->state, &job);
    return status;
}

/* Decides how many rows are drawn at once, and reserves memory for their logits if these are
 * computed once: rows of hidden states that are read several times. */
static sb_status prepare_logits(sb_context *ctx, sampler *s)
{
    sb_cpu *c = ctx->state;
    const sb_call *call = s->job->call;
    const sb_sample_call *to = s->to;
    const int64_t row = call->held * (int64_t)sizeof(float);
    s->most = s->job->actives + !s->job->actives;
    if (!call->in.head || !(sb_has_filters(&to->how) || to->out.kept || to->out.count))
        return SB_OK;
    if (s->most > LOGITS_BYTES / row) s->most = LOGITS_BYTES / row + !(LOGITS_BYTES / row);
    s->pieces = sb_cpu_tile_pieces(c, call, sb_cpu_tile_blocks(s->most));
    s->piece = ((call->held + s->pieces - 1) / s->pieces + SB_LEAF - 1) / SB_LEAF * SB_LEAF;
    s->logits = sb_cpu_room(&c->parts, s->most, (size_t)row);
    if (s->logits) return SB_OK;
    return sb_fail(&ctx->error, SB_ERR_MEMORY, "no memory for the logits of %" PRId64 " rows",
                   s->most);
}

sb_status sb_cpu_sample(sb_context *ctx, const void *checked)
{
    const sb_sample_call *to = checked;
    sb_cpu *c = ctx->state;
    sb_call call = to->call;
    sb_cpu_job job = { .call = &call, .finish = keep_whole };
    sampler s = { .to = to, .job = &job };
    const int has_models = sb_has_kept(&call.in) && to->out.logprob;
    sb_state *models = NULL;
    sb_status status;

    if (call.launch.split == 0) call.launch.split = (int32_t)((call.in.vocab + PIECE - 1) / PIECE);
    s.wholes = sb_cpu_room(&c->wholes, call.rows, sizeof *s.wholes);
    if (has_models) models = sb_cpu_room(&c->models, call.rows, sizeof *models);
    if (!s.wholes || (has_models && !models))
        return sb_fail(&ctx->error, SB_ERR_MEMORY, "no memory for the sums of %" PRId64 " rows",
                       call.rows);
    job.to = s.wholes;
    status = has_models ? sum_models(ctx, &call, models) : SB_OK;
    ctx->plan.text[ctx->plan.length = 0] = '\0'; /* the second pass is cut up like the first */
    if (status == SB_OK) status = sb_cpu_job_prepare(ctx, &job);
    if (status == SB_OK) status = sb_check_sampling(&to->how, job.active, job.actives, &ctx->error);
    if (status == SB_OK) status = prepare_logits(ctx, &s);
    if (status != SB_OK) return status;
    s.models = has_models ? models : s.wholes;
    clear_outputs(&to->out, &call);
    sb_cpu_job_run(c, &job);
    sample_rows(c, &s);
    return SB_OK;
}
