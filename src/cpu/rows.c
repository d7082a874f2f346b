/* rows.c - the rows of a call as work for the CPU backend's threads: which are active, how they are
 * cut up, and their states. No arithmetic. logprob.c, order.c (by second_pass.c) and shards.c say
 * what becomes of a state.
 *
 * Where a row is cut into pieces, each piece's state is kept and the row's are merged afterwards:
 * merging is exact, so that no cut can reach a bit. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "cpu/cpu.h"
#include "det/moments.h"

#define PIECE_LOGITS 4096  /* a piece of a row is at least this long, unless split says otherwise */
#define SHARED_IDS 2048    /* ids whose weights threads share in a cache */
#define CHUNK_LOGITS 65536 /* rows handed out at once hold about this much; less runs unthreaded */

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

void sb_cpu_read(const sb_call *call, int64_t row, int64_t first, int64_t n, float *x)
{
    const char *logits = sb_logits_of(call, row);
    if (call->in.kept_offsets) {
        sb_cpu_read_list(call, row, first, n, x);
        return;
    }
    for (int64_t at = 0; at < n; at += SB_LEAF) {
        uint32_t bits = sb_cpu_kept_bits(call, row, call->first + first + at);
        int64_t here = n - at < SB_LEAF ? n - at : SB_LEAF;
        for (int64_t i = 0; i < here; i++)
            x[at + i] = bits >> i & 1 ? sb_logit_at(logits, call->in.logits_dtype, first + at + i)
                                      : sb_float(SB_ABSENT_BITS);
    }
}

/* ---- one call ----------------------------------------------------------------------------- */

/* A state of a call: with its moments, or only the part that comes first. */
typedef sb_moments row_state;

static void reduce_some(const sb_cpu_job *j, const float *x, int64_t n, const sb_row *constants,
                        row_state *state)
{
    const sb_isa *isa = j->cpu->isa;
    if (j->moments) isa->moments_f32(state, x, n, constants);
    else isa->f32(&state->sum, x, n, constants);
}

/* A part of a row with a list: the leaves that have a kept id, a buffer at a time. */
static void reduce_list(const sb_cpu_job *j, int64_t row, int64_t first, int64_t n,
                        const sb_row *constants, row_state *state)
{
    sb_cpu_leaves leaves = sb_cpu_leaves_of(j->call, row, first, n);
    float x[SB_CPU_BUFFER];
    int64_t taken;
    while ((taken = sb_cpu_take_leaves(&leaves, x, SB_CPU_BUFFER / SB_LEAF)) > 0)
        reduce_some(j, x, taken * SB_LEAF, constants, state);
}

/* A part of a row with words: its logits as fp32, -inf where they are not kept, a buffer at
 * a time. */
static void reduce_kept(const sb_cpu_job *j, int64_t row, int64_t first, int64_t n,
                        const sb_row *constants, row_state *state)
{
    float x[SB_CPU_BUFFER];
    for (int64_t done = 0; done < n; done += SB_CPU_BUFFER) {
        int64_t here = n - done < SB_CPU_BUFFER ? n - done : SB_CPU_BUFFER;
        sb_cpu_read(j->call, row, first + done, here, x);
        reduce_some(j, x, here, constants, state);
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
    if (sb_has_kept(&j->call->in)) {
        if (j->call->in.kept) reduce_kept(j, row, first, n, constants, to);
        else reduce_list(j, row, first, n, constants, to);
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

/* ---- rows of hidden states ---------------------------------------------------------------- */

/* A block of active rows and a piece of their ids. All blocks of a piece come one after another:
 * they use the same weights, which threads then find in a shared cache. */
static void run_tile(void *shared, int64_t item)
{
    const sb_cpu_job *j = shared;
    const sb_isa *isa = j->cpu->isa;
    const int64_t blocks = sb_cpu_tile_blocks(j->actives);
    const int64_t first = item % blocks * SB_CPU_TILE_ROWS, p = item / blocks;
    const int64_t rows = j->actives - first < SB_CPU_TILE_ROWS ? j->actives - first
                                                               : SB_CPU_TILE_ROWS;
    const int64_t end = (p + 1) * j->piece < j->call->held ? (p + 1) * j->piece : j->call->held;
    sb_row constants[SB_CPU_TILE_ROWS];
    for (int64_t r = 0; r < rows; r++) {
        void *state = state_at(j, (first + r) * j->split + p);
        constants[r] = sb_row_of(sb_temperature_at(j->call, j->active[first + r]));
        if (j->moments) sb_moments_init(state, constants[r].c);
        else sb_state_init(state, constants[r].c);
    }
    for (int64_t id = p * j->piece; id < end; id += SB_CPU_TILE_IDS) {
        const int64_t n = end - id < SB_CPU_TILE_IDS ? end - id : SB_CPU_TILE_IDS;
        float x[SB_CPU_TILE_ROWS][SB_CPU_TILE_IDS];
        sb_cpu_hidden_tile(&j->hidden, first, rows, id, n, x[0], SB_CPU_TILE_IDS);
        for (int64_t r = 0; r < rows; r++) {
            void *state = state_at(j, (first + r) * j->split + p);
            if (j->moments) isa->moments_f32(state, x[r], n, &constants[r]);
            else isa->f32(state, x[r], n, &constants[r]);
        }
    }
}

float sb_cpu_target(const sb_cpu_job *j, int64_t row, int64_t k)
{
    const sb_call *call = j->call;
    int64_t low = 0, high = j->actives;
    if (!sb_cpu_is_hidden(j))
        return sb_target_logit(call, row,
                               sb_int_at(call->in.ids, call->in.ids_dtype, row * call->width + k));
    while (high - low > 1) { /* the list is in ascending order */
        const int64_t middle = low + (high - low) / 2;
        if (j->active[middle] <= row) low = middle;
        else high = middle;
    }
    return j->hidden.targets[low * call->width + k];
}

/* ---- running a job ------------------------------------------------------------------------ */

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

int64_t sb_cpu_logits_per_row(const sb_call *call)
{
    const int64_t rows = call->rows > 0 ? call->rows : 1;
    int64_t kept;
    if (!call->in.kept_offsets) return call->held;
    kept = call->in.kept_count / rows * SB_LEAF + SB_LEAF;
    return kept < call->held ? kept : call->held;
}

int64_t sb_cpu_tile_pieces(const sb_cpu *c, const sb_call *call, int64_t blocks)
{
    const int64_t leaves = (call->held + SB_LEAF - 1) / SB_LEAF;
    const int64_t threads = sb_pool_threads(c->pool), wanted = 4 * threads;
    int64_t split = call->launch.split;
    if (split == 0) {
        const int64_t most = call->held / SB_CPU_TILE_IDS;
        if (threads > 1 && blocks > 0) split = (wanted + blocks - 1) / blocks;
        if (threads > 1 && blocks > 1 && split < call->held / SHARED_IDS)
            split = call->held / SHARED_IDS;
        if (split > most) split = most;
    }
    if (split > leaves) split = leaves;
    return split > 1 ? split : 1;
}

int sb_cpu_tiles_alone(const sb_cpu_hidden *h)
{
    return h->actives * h->call->held <= SB_CPU_ALONE_PRODUCTS / h->at.K;
}

static int runs_alone(const sb_cpu_job *j)
{
    if (sb_cpu_is_hidden(j)) return sb_cpu_tiles_alone(&j->hidden);
    return j->actives * sb_cpu_logits_per_row(j->call) <= CHUNK_LOGITS;
}

void sb_cpu_say_plan(sb_context *ctx, int alone, int64_t split)
{
    sb_cpu *c = ctx->state;
    sb_cpu_said *said = &c->said;
    const int32_t threads = alone ? 1 : sb_pool_threads(c->pool);
    if (said->threads != threads || said->split != split) {
        char pieces[48] = "whole rows";
        if (split > 1) snprintf(pieces, sizeof pieces, "%" PRId64 " pieces per row", split);
        snprintf(said->text, sizeof said->text, "cpu %s, %d thread%s, %s", c->isa->name,
                 (int)threads, threads == 1 ? "" : "s", pieces);
        said->threads = threads;
        said->split = split;
    }
    sb_plan_say(ctx, said->text);
}

void sb_cpu_say_products(sb_context *ctx)
{
    const sb_cpu *c = ctx->state;
    sb_plan_say(ctx, ", products by ");
    sb_plan_say(ctx, c->products->name);
}

/* How rows are cut up: whole rows when there are plenty, pieces when there are few. */
static void plan_rows(sb_cpu_job *j, int32_t threads)
{
    int64_t held = j->call->held, leaves = (held + SB_LEAF - 1) / SB_LEAF;
    int64_t each = sb_cpu_logits_per_row(j->call), split = j->call->launch.split;
    if (sb_cpu_is_hidden(j)) {
        split = sb_cpu_tile_pieces(j->cpu, j->call, sb_cpu_tile_blocks(j->actives));
    } else if (split == 0) {
        int64_t most = each / PIECE_LOGITS, wanted = 4 * (int64_t)threads;
        split = j->actives == 0 || j->actives >= wanted || threads == 1
                    ? 1
                    : (wanted + j->actives - 1) / j->actives;
        if (split > most) split = most;
    }
    if (split > leaves) split = leaves;
    if (split < 1) split = 1;
    j->split = split;
    j->piece = (leaves + split - 1) / split * SB_LEAF;
    j->chunk = 1 + CHUNK_LOGITS / (each > 0 ? each : 1);
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
    if (sb_cpu_is_hidden(j))
        status = sb_cpu_hidden_prepare(&j->hidden, call, c->products, &c->hidden[0], active,
                                       j->actives, j->targets, &ctx->error);
    if (status != SB_OK) return status;
    plan_rows(j, sb_pool_threads(c->pool));
    if (j->actives) sb_cpu_say_plan(ctx, runs_alone(j), j->split);
    if (j->actives && sb_cpu_is_hidden(j)) sb_cpu_say_products(ctx);
    if (j->split == 1 && !sb_cpu_is_hidden(j)) return SB_OK;
    j->states = sb_cpu_room(&c->states, j->actives * j->split, state_size(j));
    if (j->states) return SB_OK;
    return sb_fail(&ctx->error, SB_ERR_MEMORY,
                   "no memory for %" PRId64 " rows in %" PRId64 " pieces", j->actives, j->split);
}

void sb_cpu_job_run(sb_cpu *c, const sb_cpu_job *j)
{
    void *shared = (void *)(uintptr_t)j; /* the pool's items only read it */
    const int alone = runs_alone(j);
    if (sb_cpu_is_hidden(j)) {
        sb_cpu_hidden_pack(c->pool, &j->hidden);
        sb_pool_run(c->pool, alone, run_tile, shared, sb_cpu_tile_blocks(j->actives) * j->split);
        sb_pool_run(c->pool, alone, merge_row, shared, j->actives);
    } else if (j->split > 1) {
        sb_pool_run(c->pool, alone, run_piece, shared, j->actives * j->split);
        sb_pool_run(c->pool, alone, merge_row, shared, j->actives);
    } else {
        sb_pool_run(c->pool, alone, run_rows, shared, (j->actives + j->chunk - 1) / j->chunk);
    }
}
