/* sample.c - sampling on the CPU. First the states of all rows, in short pieces; then, row by row,
 * the filters, the draw and the outputs.
 *
 * The piece that holds the draw is found among the states of the row's pieces, and read again. A
 * row with filters is read several times: for its largest logit, for the cut of each filter, and
 * for the state of what is kept, whose pieces are buffers. */
#include <inttypes.h>

#include "api/sample.h"
#include "cpu/cpu.h"
#include "det/sample.h"

#define PIECE 4096 /* logits: what is read again to find a token */
#define BUFFERS (SB_MAX_VOCAB / SB_CPU_BUFFER)

typedef struct sampler {
    const sb_sample_call *to;
    const sb_cpu_job *job;
    sb_state *wholes;       /* [rows]: states of the rows' present ids */
    const sb_state *models; /* [rows]: the same without the batch's kept sets */
} sampler;

/* A row whose token is drawn. */
typedef struct row_of {
    const sampler *with;
    int64_t number;
    sb_row constants;
    sb_cut cut;
    int is_cut; /* ids are left out by cut */
} row_of;

/* ---- a row's logits ------------------------------------------------------------------------ */

/* The next buffer of a row's logits, from id `first` on, as the filters leave them. Returns their
 * number; 0 at the end. */
static int64_t read_buffer(const row_of *r, int64_t first, int64_t last, float *x)
{
    const sb_call *call = &r->with->to->call;
    int64_t n = last - first < SB_CPU_BUFFER ? last - first : SB_CPU_BUFFER;
    if (n <= 0) return 0;
    sb_cpu_read(call, r->number, first, n, x);
    for (int64_t i = 0; r->is_cut && i < n; i++)
        if (sb_is_cut(&r->cut, x[i], (uint32_t)(first + i))) x[i] = sb_float(SB_ABSENT_BITS);
    return n;
}

/* for (n logits x of row r, whose first id is `first`) */
#define EACH_BUFFER(r, first, n, x)                                                                \
    for (int64_t first = 0, n; (n = read_buffer(r, first, (r)->with->to->call.in.vocab, x)) > 0;   \
         first += n)

/* ---- cuts ---------------------------------------------------------------------------------- */

/* What an id adds to the sum that a filter counts: 1, or its weight. */
static uint64_t measure(const row_of *r, float x, int weighted)
{
    return weighted ? sb_weight_units(sb_weight(x, &r->cut.weights)) : 1;
}

/* The sum over the row, as it is cut so far. */
static uint64_t sum_of(const row_of *r, int weighted)
{
    float x[SB_CPU_BUFFER];
    uint64_t sum = 0;
    EACH_BUFFER(r, first, n, x)
    for (int64_t i = 0; i < n; i++)
        if (!sb_is_absent(x[i])) sum += measure(r, x[i], weighted);
    return sum;
}

/* The key bits that one pass tells apart, from the top: 11, 11 and 10. */
#define LEVELS 3
static const struct {
    int shift, bits;
} levels[LEVELS] = { { 21, 11 }, { 10, 11 }, { 0, 10 } };

/* Sums up the ids whose key begins with prefix, by the next bits of their keys. */
static void sum_buckets(const row_of *r, int level, uint32_t prefix, int weighted, uint64_t *sums)
{
    const int shift = levels[level].shift, bits = levels[level].bits;
    float x[SB_CPU_BUFFER];
    memset(sums, 0, sizeof *sums << bits);
    EACH_BUFFER(r, first, n, x)
    for (int64_t i = 0; i < n; i++) {
        const uint32_t key = sb_is_absent(x[i]) ? 0 : sb_order_key(x[i]);
        if (key && (uint64_t)key >> (shift + bits) == prefix)
            sums[key >> shift & ((1u << bits) - 1)] += measure(r, x[i], weighted);
    }
}

/* The n-th id, from the lowest, of those with a key. */
static uint32_t nth_of_key(const row_of *r, uint32_t key, uint64_t n)
{
    float x[SB_CPU_BUFFER];
    EACH_BUFFER(r, first, count, x)
    for (int64_t i = 0; i < count; i++)
        if (!sb_is_absent(x[i]) && sb_order_key(x[i]) == key && --n == 0)
            return (uint32_t)(first + i);
    return 0; /* never: there are n */
}

/* The place at which the sum over the first ids reaches goal: the last place of the shortest
 * beginning. Requires: the sum over all reaches it. */
static uint64_t place_of_goal(const row_of *r, uint64_t goal, int weighted)
{
    uint64_t sums[2048], each;
    uint32_t key = 0;
    for (int level = 0; level < LEVELS; level++) {
        int b = (1 << levels[level].bits) - 1;
        sum_buckets(r, level, key, weighted, sums);
        for (; sums[b] < goal; b--) goal -= sums[b];
        key = key << levels[level].bits | (uint32_t)b;
    }
    each = measure(r, sb_place_logit((uint64_t)key << 32), weighted);
    return (uint64_t)key << 32 | (0xffffffffu - nth_of_key(r, key, (goal + each - 1) / each));
}

static float largest(const row_of *r)
{
    float x[SB_CPU_BUFFER], most = sb_float(SB_ABSENT_BITS);
    EACH_BUFFER(r, first, n, x)
    for (int64_t i = 0; i < n; i++) most = x[i] > most ? x[i] : most;
    return most;
}

/* Sets the cut. The row is not poisoned, and not empty. */
static void filter(row_of *r, const sb_filters *f)
{
    const float best = largest(r);
    r->cut.place = 0;
    r->cut.least = 0.0f;
    r->cut.weights = sb_weights_of(best, &r->constants);
    r->is_cut = 1;
    if (f->top_k > 0 && (uint64_t)f->top_k < sum_of(r, 0))
        r->cut.place = place_of_goal(r, (uint64_t)f->top_k, 0);
    if (f->top_p < 1.0f) r->cut.place = place_of_goal(r, sb_top_p_goal(f->top_p, sum_of(r, 1)), 1);
    if (f->min_p > 0.0f) r->cut.least = sb_least_weight(f->min_p, sb_weight(best, &r->cut.weights));
}

/* ---- the draw ------------------------------------------------------------------------------ */

/* The states of a row's parts, which lie side by side and have `size` ids each, the last one
 * fewer. */
typedef struct parts_of_row {
    const sb_state *states;
    int64_t size;
} parts_of_row;

/* The token at R of a row's total. whole: the row's state; *logit: the token's. */
static int32_t find_token(const row_of *r, const sb_state *whole, parts_of_row parts, sb_u128 R,
                          float *logit)
{
    const int64_t vocab = r->with->to->call.in.vocab;
    int64_t part = 0;
    float x[SB_CPU_BUFFER];
    sb_u128 share;
    while ((share = sb_total_at(&parts.states[part], whole->J)) <= R) R -= share, part++;
    for (int64_t first = part * parts.size, n; (n = read_buffer(r, first, vocab, x)) > 0;
         first += n)
        for (int64_t i = 0; i < n; i += SB_LEAF) {
            float y[SB_LEAF];
            sb_leaf leaf;
            for (int k = 0; k < SB_LEAF; k++)
                y[k] = i + k < n ? x[i + k] : sb_float(SB_ABSENT_BITS);
            if (sb_leaf_of(&leaf, y, &r->constants) != SB_LEAF_PRESENT) continue;
            share = sb_leaf_share(&leaf, whole->J);
            if (R < share) {
                int k = sb_drawn_in_leaf(y, &r->constants, share, R);
                *logit = y[k];
                return (int32_t)(first + i + k);
            }
            R -= share;
        }
    return -1; /* never: R is below the total */
}

/* Sums up what is kept, buffer by buffer. */
static void sum_kept(const row_of *r, sb_state *whole, sb_state *buffers)
{
    const sb_isa *isa = r->with->job->cpu->isa;
    float x[SB_CPU_BUFFER];
    sb_state_init(whole, r->constants.c);
    EACH_BUFFER(r, first, n, x)
    {
        sb_state *s = &buffers[first / SB_CPU_BUFFER];
        sb_state_init(s, r->constants.c);
        isa->f32(s, x, n, &r->constants);
        sb_state_merge(whole, s);
    }
}

/* Writes the kept set, and counts it. */
static void write_kept(const row_of *r)
{
    const sb_sample_out *out = &r->with->to->out;
    const int64_t words = sb_kept_width(r->with->to->call.in.vocab);
    uint32_t *kept = out->kept ? out->kept + r->number * words : NULL;
    float x[SB_CPU_BUFFER];
    int32_t count = 0;
    if (!out->kept && !out->count) return;
    EACH_BUFFER(r, first, n, x)
    for (int64_t i = 0; i < n; i++) {
        if (sb_is_absent(x[i])) continue;
        count++;
        if (kept) kept[(first + i) / 32] |= 1u << (first + i) % 32;
    }
    if (out->count) out->count[r->number] = count;
}

static void write_row(const sb_sample_out *out, int64_t row, int32_t token, float logprob,
                      float kept_logprob)
{
    if (out->token) out->token[row] = token;
    if (out->logprob) out->logprob[row] = logprob;
    if (out->kept_logprob) out->kept_logprob[row] = kept_logprob;
}

/* Draws and writes. whole: the state of what is kept. */
static void draw(const row_of *r, const sb_state *whole, parts_of_row parts)
{
    const sampler *s = r->with;
    const sb_u128 R = sb_drawn(sb_draw_bits(&s->to->how, r->number), sb_total(whole));
    float logit = 0.0f;
    const int32_t token = find_token(r, whole, parts, R, &logit);
    write_row(&s->to->out, r->number, token,
              s->models ? sb_finish_logprob(&s->models[r->number], logit, &r->constants) : 0.0f,
              sb_finish_logprob(whole, logit, &r->constants));
    write_kept(r);
}

static void sample_row(void *shared, int64_t item)
{
    const sampler *s = shared;
    const sb_cpu_job *j = s->job;
    row_of r = { .with = s, .number = j->active[item] };
    const sb_state *whole = &s->wholes[r.number];
    parts_of_row parts = { whole, j->piece };
    r.constants = sb_row_of(sb_temperature_at(j->call, r.number));
    if (sb_state_is_nan(whole)) {
        const float nan = sb_float(SB_NAN_BITS);
        write_row(&s->to->out, r.number, -1, nan, nan);
    } else if (sb_has_filters(&s->to->how)) {
        const sb_filters f = sb_filters_of(&s->to->how, r.number);
        sb_state buffers[BUFFERS], kept;
        filter(&r, &f);
        sum_kept(&r, &kept, buffers);
        parts = (parts_of_row){ buffers, SB_CPU_BUFFER };
        draw(&r, &kept, parts);
    } else {
        if (j->split > 1) parts.states = (const sb_state *)j->states + item * j->split;
        draw(&r, whole, parts);
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
    if (status != SB_OK) return status;
    s.models = has_models ? models : s.wholes;
    clear_outputs(&to->out, &call);
    sb_cpu_job_run(c, &job);
    sb_pool_run(c->pool, job.actives * call.in.vocab <= PIECE, sample_row, &s, job.actives);
    return SB_OK;
}
