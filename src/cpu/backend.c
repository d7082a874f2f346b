/* backend.c - the CPU backend: which instruction set, how many threads, and how a call's rows
 * are cut up and handed out. No arithmetic. */
#define _GNU_SOURCE
#include <inttypes.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cpu/cpu.h"
#include "control/conventional.h"
#include "det/saved.h"
#include "det/sum.h"

#define MAX_THREADS 1024
#define PIECE_LOGITS 4096  /* a piece of a row is at least this long, unless split says otherwise */
#define CHUNK_LOGITS 65536 /* rows handed out at once hold about this much; less runs unthreaded */

static const sb_isa *const isas[] = { &sb_isa_avx512, &sb_isa_avx2, &sb_isa_scalar, NULL };

static sb_status probe(int device, sb_message *why)
{
    (void)device, (void)why;
    return SB_OK;
}

static int32_t usable_threads(void)
{
    cpu_set_t set;
    long n;
    if (sched_getaffinity(0, sizeof set, &set) == 0) return CPU_COUNT(&set);
    n = sysconf(_SC_NPROCESSORS_ONLN);
    return n < 1 ? 1 : n > MAX_THREADS ? MAX_THREADS : (int32_t)n;
}

static sb_status isa_named(const char *name, const sb_isa **isa, sb_message *why)
{
    int any = !name || strcmp(name, "auto") == 0;
    for (int i = 0; isas[i]; i++) {
        if (!any && strcmp(isas[i]->name, name) != 0) continue;
        *isa = isas[i];
        if (isas[i]->available()) return SB_OK;
        if (!any)
            return sb_fail(why, SB_ERR_BACKEND, "this processor or build lacks the isa %s", name);
    }
    return sb_fail(why, SB_ERR_ARGUMENT,
                   "no isa is called \"%.40s\"; known: avx512, avx2, scalar, or auto", name);
}

static sb_status open_cpu(sb_context *ctx, int device, const sb_open_options *options,
                          sb_message *why)
{
    int32_t threads = options->threads ? options->threads : usable_threads();
    const sb_isa *isa = NULL;
    sb_status status = isa_named(options->isa, &isa, why);
    sb_cpu *c;

    (void)device;
    if (status != SB_OK) return status;
    if (threads < 1 || threads > MAX_THREADS)
        return sb_fail(why, SB_ERR_ARGUMENT, "threads is %d, outside [0, %d]", (int)threads,
                       MAX_THREADS);
    c = calloc(1, sizeof *c);
    if (!c) return sb_fail(why, SB_ERR_MEMORY, "no memory for the cpu backend");
    c->isa = isa;
    c->threads = threads;
    status = sb_pool_create(&c->pool, threads);
    if (status != SB_OK) {
        free(c);
        return sb_fail(why, status, "%s %d threads",
                       status == SB_ERR_MEMORY ? "no memory for" : "could not start", (int)threads);
    }
    ctx->state = c;
    return SB_OK;
}

static void close_cpu(sb_context *ctx)
{
    sb_cpu *c = ctx->state;
    sb_pool_destroy(c->pool);
    free(c->rows.data);
    free(c->states.data);
    free(c->tokens.data);
    free(c->wholes.data);
    free(c->parts.data);
    free(c);
}

/* Memory that another thread may have been replacing at fork() stays where it is, unused. */
static void inherit_cpu(sb_context *ctx, int torn)
{
    static const sb_cpu_scratch none;
    sb_cpu *c = ctx->state;
    sb_pool_inherit(c->pool);
    if (torn) c->rows = c->states = c->tokens = c->wholes = c->parts = none;
}

static const char *isa_of(const sb_context *ctx) { return ((const sb_cpu *)ctx->state)->isa->name; }

static int32_t threads_of(const sb_context *ctx) { return ((const sb_cpu *)ctx->state)->threads; }

void *sb_cpu_room(sb_cpu_scratch *s, int64_t count, size_t size)
{
    size_t bytes;
    if (__builtin_mul_overflow((size_t)count, size, &bytes)) return NULL;
    if (bytes > s->size) {
        void *data = malloc(bytes);
        if (!data) return NULL;
        free(s->data);
        s->data = data;
        s->size = bytes;
    }
    /* Never null: a caller asks for room, not for nothing. */
    if (!s->data) s->data = malloc(1);
    return s->data;
}

/* ---- kept sets ---------------------------------------------------------------------------- */

/* A leaf's bits; little-endian words: half a word. */
static uint32_t kept_bits(const sb_call *call, int64_t row, int64_t id)
{
    const char *kept = (const char *)call->in.kept;
    uint16_t bits;
    if (!kept) return 0xffff;
    memcpy(&bits, kept + row * call->in.kept_stride * 4 + id / SB_LEAF * 2, 2);
    return bits;
}

void sb_cpu_read(const sb_call *call, int64_t row, int64_t first, int64_t n, float *x)
{
    const char *logits = sb_logits_of(call, row);
    for (int64_t at = 0; at < n; at += SB_LEAF) {
        uint32_t bits = kept_bits(call, row, call->first + first + at);
        int64_t here = n - at < SB_LEAF ? n - at : SB_LEAF;
        for (int64_t i = 0; i < here; i++)
            x[at + i] = bits >> i & 1 ? sb_logit_at(logits, call->in.logits_dtype, first + at + i)
                                      : sb_float(SB_ABSENT_BITS);
    }
}

/* ---- one call ----------------------------------------------------------------------------- */

/* A state of a call: with its moments, or only the part that comes first. */
typedef sb_moments row_state;

/* A part of a row with a kept set: its logits as fp32, -inf where they are not kept, a buffer at
 * a time. */
static void reduce_kept(const sb_cpu_job *j, int64_t row, int64_t first, int64_t n,
                        const sb_row *constants, row_state *state)
{
    const sb_isa *isa = j->cpu->isa;
    float x[SB_CPU_BUFFER];
    for (int64_t done = 0; done < n; done += SB_CPU_BUFFER) {
        int64_t here = n - done < SB_CPU_BUFFER ? n - done : SB_CPU_BUFFER;
        sb_cpu_read(j->call, row, first + done, here, x);
        if (j->moments) isa->moments_f32(state, x, here, constants);
        else isa->f32(&state->sum, x, here, constants);
    }
}

/* Piece p of an active row. */
static void reduce_piece(const sb_cpu_job *j, int64_t row, int64_t p, const sb_row *constants,
                         row_state *to)
{
    int64_t first = p * j->piece, n = j->call->held - first;
    const char *logits;
    if (j->moments) sb_moments_init(to, constants->c);
    else sb_state_init(&to->sum, constants->c);
    if (n > j->piece) n = j->piece;
    if (n <= 0) return;
    if (j->call->in.kept) {
        reduce_kept(j, row, first, n, constants, to);
        return;
    }
    logits = sb_logits_of(j->call, row) + first * j->itemsize;
    if (j->moments) j->reduce_moments(to, logits, n, constants);
    else j->reduce(&to->sum, logits, n, constants);
}

static size_t state_size(const sb_cpu_job *j)
{
    return j->moments ? sizeof(sb_moments) : sizeof(sb_state);
}

static void *state_at(const sb_cpu_job *j, int64_t i)
{
    return (char *)j->states + (size_t)i * state_size(j);
}

static void run_rows(void *shared, int64_t item)
{
    const sb_cpu_job *j = shared;
    int64_t first = item * j->chunk, last = first + j->chunk;
    if (last > j->actives) last = j->actives;
    for (int64_t i = first; i < last; i++) {
        int64_t row = j->active[i];
        sb_row constants = sb_row_of(sb_temperature_at(j->call, row));
        row_state state;
        reduce_piece(j, row, 0, &constants, &state);
        j->finish(j, row, &state.sum, &constants);
    }
}

static void run_piece(void *shared, int64_t item)
{
    const sb_cpu_job *j = shared;
    int64_t row = j->active[item / j->split];
    sb_row constants = sb_row_of(sb_temperature_at(j->call, row));
    row_state state;
    reduce_piece(j, row, item % j->split, &constants, &state);
    memcpy(state_at(j, item), &state, state_size(j));
}

static void merge_row(void *shared, int64_t i)
{
    const sb_cpu_job *j = shared;
    int64_t row = j->active[i];
    sb_row constants = sb_row_of(sb_temperature_at(j->call, row));
    row_state state;
    memcpy(&state, state_at(j, i * j->split), state_size(j));
    for (int64_t p = i * j->split + 1; p < (i + 1) * j->split; p++)
        if (j->moments) sb_moments_merge(&state, state_at(j, p));
        else sb_state_merge(&state.sum, state_at(j, p));
    j->finish(j, row, &state.sum, &constants);
}

/* How rows are cut up: whole rows when there are plenty, pieces when there are few. */
static void plan(sb_cpu_job *j, int32_t threads)
{
    int64_t held = j->call->held, leaves = (held + SB_LEAF - 1) / SB_LEAF;
    int64_t split = j->call->launch.split;
    if (split == 0) {
        int64_t most = held / PIECE_LOGITS, wanted = 4 * (int64_t)threads;
        split = j->actives == 0 || j->actives >= wanted || threads == 1
                    ? 1
                    : (wanted + j->actives - 1) / j->actives;
        if (split > most) split = most;
    }
    if (split > leaves) split = leaves;
    if (split < 1) split = 1;
    j->split = split;
    j->piece = (leaves + split - 1) / split * SB_LEAF;
    j->chunk = 1 + CHUNK_LOGITS / (held > 0 ? held : 1);
}

sb_status sb_cpu_job_prepare(sb_context *ctx, sb_cpu_job *j)
{
    sb_cpu *c = ctx->state;
    const sb_call *call = j->call;
    int64_t *active = sb_cpu_room(&c->rows, call->in.row_list ? call->in.row_count : call->rows,
                                  sizeof *active);
    sb_status status;

    if (!active)
        return sb_fail(&ctx->error, SB_ERR_MEMORY, "no memory to list %" PRId64 " rows",
                       call->rows);
    status = sb_list_active(call, active, &j->actives, &ctx->error);
    if (status != SB_OK) return status;

    j->cpu = c;
    j->active = active;
    j->itemsize = sb_itemsize(call->in.logits_dtype);
    j->reduce = call->in.logits_dtype == SB_F32   ? c->isa->f32
                : call->in.logits_dtype == SB_F16 ? c->isa->f16
                                                  : c->isa->bf16;
    j->reduce_moments = call->in.logits_dtype == SB_F32   ? c->isa->moments_f32
                        : call->in.logits_dtype == SB_F16 ? c->isa->moments_f16
                                                          : c->isa->moments_bf16;
    plan(j, sb_pool_threads(c->pool));
    if (j->split == 1) return SB_OK;
    j->states = sb_cpu_room(&c->states, j->actives * j->split, state_size(j));
    if (j->states) return SB_OK;
    return sb_fail(&ctx->error, SB_ERR_MEMORY,
                   "no memory for %" PRId64 " rows in %" PRId64 " pieces", j->actives, j->split);
}

void sb_cpu_job_run(sb_cpu *c, const sb_cpu_job *j)
{
    void *shared = (void *)(uintptr_t)j; /* the pool's items only read it */
    int alone = j->actives * j->call->held <= CHUNK_LOGITS;
    if (j->split > 1) {
        sb_pool_run(c->pool, alone, run_piece, shared, j->actives * j->split);
        sb_pool_run(c->pool, alone, merge_row, shared, j->actives);
    } else {
        sb_pool_run(c->pool, alone, run_rows, shared, (j->actives + j->chunk - 1) / j->chunk);
    }
}

/* ---- logprob ------------------------------------------------------------------------------ */

static int is_outside(const sb_call *call, int64_t row)
{
    return !sb_is_kept(call, row, sb_int_at(call->in.ids, call->in.ids_dtype, row));
}

void sb_cpu_sum_sequences(const sb_logprob_out *out, const sb_call *call, const float *tokens,
                          const int64_t *active, int64_t actives)
{
    int64_t i = 0;
    if (!out->sequence && !out->count && !out->outside) return;
    for (int64_t b = 0; b < call->in.batch; b++) {
        int64_t last = sb_extent_of(call, b).last, before = i, outside = 0;
        sb_sum sum;
        sb_sum_init(&sum);
        for (; i < actives && active[i] < last; i++) {
            if (out->sequence) sb_sum_add(&sum, tokens[active[i]]);
            if (out->outside) outside += is_outside(call, active[i]);
        }
        if (out->sequence) out->sequence[b] = sb_sum_round(&sum);
        if (out->count) out->count[b] = i - before;
        if (out->outside) out->outside[b] = outside;
    }
}

/* Where a row's results go; null: not wanted. */
typedef struct results {
    float *token, *lse, *entropy;
    sb_saved_row *saved;
} results;

void sb_cpu_save(sb_saved_row *to, int64_t row, const sb_state *state, int moments,
                 const sb_row *constants)
{
    sb_saved saved = moments ? sb_finish_saved_moments((const sb_moments *)state, constants)
                             : sb_finish_saved(state, constants);
    memcpy((char *)to + row * (int64_t)sizeof saved, &saved, sizeof saved);
}

static void finish_row(const sb_cpu_job *j, int64_t row, const sb_state *state,
                       const sb_row *constants)
{
    const results *to = j->to;
    int64_t id = sb_int_at(j->call->in.ids, j->call->in.ids_dtype, row);
    if (to->token) {
        to->token[row] = sb_finish_logprob(state, sb_target_logit(j->call, row, id), constants);
    }
    if (to->lse) to->lse[row] = sb_finish_lse(state, constants);
    if (to->entropy) /* moments were asked for: state is the first part of them */
        to->entropy[row] = sb_finish_entropy((const sb_moments *)state, constants);
    if (to->saved) sb_cpu_save(to->saved, row, state, j->moments, constants);
}

static sb_status logprob(sb_context *ctx, const sb_logprob_out *out, const sb_call *call)
{
    sb_cpu *c = ctx->state;
    results to = { out->token, out->lse, out->entropy, out->saved };
    sb_cpu_job j = {
        .call = call, .moments = out->entropy != NULL, .finish = finish_row, .to = &to
    };
    sb_status status = sb_cpu_job_prepare(ctx, &j);
    if (status != SB_OK) return status;
    if (!to.token && out->sequence) {
        to.token = sb_cpu_room(&c->tokens, call->rows, sizeof *to.token);
        if (!to.token)
            return sb_fail(&ctx->error, SB_ERR_MEMORY, "no memory for %" PRId64 " token logprobs",
                           call->rows);
    }

    /* Nothing fails from here on. */
    if (out->token) memset(out->token, 0, (size_t)call->rows * sizeof *out->token);
    if (out->lse) memset(out->lse, 0, (size_t)call->rows * sizeof *out->lse);
    if (out->entropy) memset(out->entropy, 0, (size_t)call->rows * sizeof *out->entropy);
    if (out->saved) memset(out->saved, 0, (size_t)call->rows * sizeof *out->saved);
    if (to.token || to.lse || to.entropy || to.saved) sb_cpu_job_run(c, &j);
    sb_cpu_sum_sequences(out, call, to.token, j.active, j.actives);
    return SB_OK;
}

static sb_status conventional(sb_context *ctx, const sb_logprob_out *out, const sb_call *call)
{
    return sb_conventional_cpu(((sb_cpu *)ctx->state)->pool, &ctx->error, out, call);
}

const sb_backend sb_backend_cpu = {
    .name = "cpu",
    .probe = probe,
    .open = open_cpu,
    .close = close_cpu,
    .inherit = inherit_cpu,
    .isa = isa_of,
    .threads = threads_of,
    .kept_sets = 1,
    .logprob = logprob,
    .ids = sb_cpu_ids,
    .topk = sb_cpu_topk,
    .backward = sb_cpu_backward,
    .kl = sb_cpu_kl,
    .conventional = conventional,
    .partial = sb_cpu_partial,
    .merge = sb_cpu_merge,
    .finish = sb_cpu_finish,
    .compare = sb_cpu_compare,
    .sums = sb_cpu_sum_values,
};
