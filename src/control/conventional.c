/* conventional.c - the control group: sb_conventional_logprob, and its arithmetic on the cpu, which
 * samebits_conventional.h describes.
 *
 * This is the only C file that may call expf and logf, and the only one whose sums are rounded in
 * an order that depends on the launch. */
#include "samebits_conventional.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>

#include "api/call.h"
#include "api/entry.h"
#include "api/logprob.h"
#include "api/run.h"
#include "control/conventional.h"

#define GRAIN_LOGITS 32768 /* a call with fewer runs on one thread */
#define PIECE_LOGITS 1024  /* a piece of a row is at least this long, unless split says otherwise */
#define LANES 32           /* four vectors of eight floats, like a loop unrolled four times */
#define VECTOR_BYTES 32

static sb_status logprob(sb_context *ctx, const sb_logprob_out *out, const sb_batch *batch,
                         const sb_launch *launch)
{
    sb_logprob_call checked;
    const sb_launch *options = &checked.call.launch;
    sb_status status = sb_logprob_call_of(ctx, &checked, out, batch, launch);
    if (status != SB_OK) return status;
    if (checked.out.entropy || checked.out.saved || checked.out.gradient)
        return sb_fail(&ctx->error, SB_ERR_ARGUMENT,
                       "the conventional logprob gives no entropy, saved rows or gradient");
    if (options->workspace || options->workspace_size || options->needed || options->cluster ||
        options->table || options->one_read)
        return sb_fail(&ctx->error, SB_ERR_ARGUMENT,
                       "the conventional logprob takes no workspace, cluster, table or one_read");
    if (checked.call.in.head)
        return sb_fail(&ctx->error, SB_ERR_ARGUMENT,
                       "the conventional logprob takes logits, not hidden states");
    if (sb_has_kept(&checked.call.in) || checked.out.outside)
        return sb_fail(&ctx->error, SB_ERR_ARGUMENT, "the conventional logprob takes no kept sets");
    return sb_run(ctx, SB_OP_CONVENTIONAL, &checked, options);
}

sb_status sb_conventional_logprob(sb_context *ctx, const sb_logprob_out *out, const sb_batch *batch,
                                  const sb_launch *launch)
{
    SB_INSIDE(ctx, logprob(ctx, out, batch, launch));
}

/* ---- a row -------------------------------------------------------------------------------- */

/* max is the largest y in a part of a row, sum the sum of expf(y - reference(max)) over it. */
typedef struct partial {
    float max, sum;
} partial;

/* The value to subtract before expf. If every y is -inf, it is 0, so that the sum is 0. */
static float reference(float max) { return max == -INFINITY ? 0.0f : max; }

static float larger(float a, float b) { return a > b ? a : b; }

static float scaled(const sb_call *call, const char *logits, int64_t i, float tau)
{
    return sb_logit_at(logits, call->in.logits_dtype, i) / tau;
}

/* The index of the first logit in first .. last - 1 that is aligned to a vector, or last if there
 * is none; first if the row's address makes alignment impossible. */
static int64_t first_aligned(const char *logits, int64_t itemsize, int64_t first, int64_t last)
{
    uintptr_t address = (uintptr_t)logits + (uintptr_t)(first * itemsize);
    int64_t bytes = (int64_t)(-address % VECTOR_BYTES), i = first + bytes / itemsize;
    return bytes % itemsize != 0 ? first : i < last ? i : last;
}

/* Reduces logits first .. last - 1 of a row: first the maximum, then the sum. Lanes start at the
 * first aligned address; the logits before and after them are added one by one. */
static partial reduce(const sb_call *call, int64_t row, int64_t first, int64_t last)
{
    const char *logits = sb_logits_of(call, row);
    const float tau = sb_temperature_at(call, row);
    const int64_t aligned = first_aligned(logits, sb_itemsize(call->in.logits_dtype), first, last);
    int64_t i;
    float lane[LANES] = { 0 }, away;
    partial p = { -INFINITY, 0.0f };
    for (i = first; i < last; i++) p.max = larger(scaled(call, logits, i, tau), p.max);
    away = reference(p.max);
    for (i = first; i < aligned; i++) p.sum += expf(scaled(call, logits, i, tau) - away);
    for (; i + LANES <= last; i += LANES)
        for (int k = 0; k < LANES; k++) lane[k] += expf(scaled(call, logits, i + k, tau) - away);
    for (; i < last; i++) p.sum += expf(scaled(call, logits, i, tau) - away);
    for (int k = 0; k < LANES; k++) p.sum += lane[k];
    return p;
}

static partial merge(const partial *pieces, int64_t count)
{
    partial all = { -INFINITY, 0.0f };
    for (int64_t i = 0; i < count; i++) all.max = larger(pieces[i].max, all.max);
    for (int64_t i = 0; i < count; i++) /* if max is -inf, sum is 0 or NaN and needs no scaling */
        all.sum += pieces[i].max == -INFINITY ? pieces[i].sum
                                              : pieces[i].sum * expf(pieces[i].max - all.max);
    return all;
}

/* ---- one call ----------------------------------------------------------------------------- */

typedef struct job {
    const sb_call *call;
    int64_t *active; /* rows to compute */
    int64_t actives;
    int64_t split;      /* pieces per row */
    int64_t piece;      /* logits per piece */
    partial *pieces;    /* [actives][split] */
    float *token, *lse; /* null if not wanted */
} job;

static void run_piece(void *shared, int64_t item)
{
    const job *j = shared;
    int64_t vocab = j->call->in.vocab, first = item % j->split * j->piece, last = first + j->piece;
    j->pieces[item] = reduce(j->call, j->active[item / j->split], first < vocab ? first : vocab,
                             last < vocab ? last : vocab);
}

static void finish_conventional(void *shared, int64_t i)
{
    const job *j = shared;
    const sb_call *call = j->call;
    int64_t row = j->active[i];
    partial all = j->split == 1 ? j->pieces[i] : merge(j->pieces + i * j->split, j->split);
    float log_sum = logf(all.sum);
    if (j->lse) j->lse[row] = reference(all.max) + log_sum;
    if (j->token) {
        int64_t id = sb_int_at(call->in.ids, call->in.ids_dtype, row);
        float y = scaled(call, sb_logits_of(call, row), id, sb_temperature_at(call, row));
        j->token[row] = y - reference(all.max) - log_sum;
    }
}

/* Chooses whole rows if there is one for every thread; otherwise divides each row among threads. */
static void plan_conventional(job *j, int32_t threads)
{
    int64_t vocab = j->call->in.vocab, split = j->call->launch.split;
    if (split == 0) {
        int64_t most = vocab / PIECE_LOGITS;
        split = j->actives * vocab < GRAIN_LOGITS || j->actives >= threads
                    ? 1
                    : (threads + j->actives - 1) / j->actives;
        if (split > most) split = most;
    }
    if (split > vocab) split = vocab;
    if (split < 1) split = 1;
    j->split = split;
    j->piece = (vocab + split - 1) / split;
}

/* Computes the results of all active rows; those of other rows are 0. */
static void run(job *j, sb_pool *pool)
{
    int alone = j->actives * j->call->in.vocab < GRAIN_LOGITS;
    int64_t rows = j->call->rows;
    if (j->token) memset(j->token, 0, (size_t)rows * sizeof *j->token);
    if (j->lse) memset(j->lse, 0, (size_t)rows * sizeof *j->lse);
    if (!j->token && !j->lse) return;
    sb_pool_run(pool, alone, run_piece, j, j->actives * j->split);
    sb_pool_run(pool, alone, finish_conventional, j, j->actives);
}

/* Adds up each sequence in order of position. j->active is in ascending order. */
static void sum_sequences(const sb_logprob_out *out, const job *j)
{
    int64_t i = 0;
    for (int64_t b = 0; b < j->call->in.batch; b++) {
        int64_t last = sb_extent_of(j->call, b).last, before = i;
        float sum = 0.0f;
        for (; i < j->actives && j->active[i] < last; i++)
            if (out->sequence) sum += j->token[j->active[i]];
        if (out->sequence) out->sequence[b] = sum;
        if (out->count) out->count[b] = i - before;
    }
}

/* Memory for count items of a size, or null if there is none; count may be 0. */
static void *room(int64_t count, size_t size)
{
    size_t bytes;
    if (__builtin_mul_overflow((size_t)count, size, &bytes)) return NULL;
    return malloc(bytes ? bytes : 1);
}

static sb_status no_memory(sb_message *why, const char *what, int64_t count)
{
    return sb_fail(why, SB_ERR_MEMORY, "no memory for %" PRId64 " %s", count, what);
}

/* Performs every step that can fail. The caller frees the arrays of j, also after an error. */
static sb_status prepare(job *j, int32_t threads, sb_message *why, const sb_logprob_out *out,
                         float **tokens)
{
    const sb_call *call = j->call;
    sb_status status;
    j->active = room(call->in.row_list ? call->in.row_count : call->rows, sizeof *j->active);
    if (!j->active) return no_memory(why, "row numbers", call->rows);
    status = sb_list_active(call, j->active, &j->actives, why);
    if (status != SB_OK) return status;
    plan_conventional(j, threads);
    j->pieces = room(j->actives * j->split, sizeof *j->pieces);
    if (!j->pieces) return no_memory(why, "pieces of rows", j->actives * j->split);
    if (!out->token && out->sequence) {
        *tokens = room(call->rows, sizeof **tokens);
        if (!*tokens) return no_memory(why, "token logprobs", call->rows);
    }
    return SB_OK;
}

sb_status sb_conventional_cpu(sb_pool *pool, sb_message *why, const sb_logprob_call *logprob)
{
    const sb_logprob_out *out = &logprob->out;
    const sb_call *call = &logprob->call;
    job j = { .call = call, .lse = out->lse };
    float *tokens = NULL; /* allocated if sums are wanted, but no tokens */
    sb_status status = prepare(&j, sb_pool_threads(pool), why, out, &tokens);
    if (status == SB_OK) {
        j.token = out->token ? out->token : tokens;
        run(&j, pool);
        if (out->sequence || out->count) sum_sequences(out, &j);
    }
    free(j.active);
    free(j.pieces);
    free(tokens);
    return status;
}
