/* kl.c - divergences on the CPU. The work items are pairs of rows, or pieces of pairs; merging is
 * exact, so the division into pieces does not affect the bits. The sums per sequence are those of
 * stats.c. */
#include <inttypes.h>

#include "api/kl.h"
#include "cpu/cpu.h"
#include "det/kl.h"

#define PIECE_LOGITS 4096  /* a piece of a row is at least this long, unless split says otherwise */
#define TILE_IDS 128       /* ids in a tile of hidden states, of which a thread has two */
#define ALONE_LOGITS 16384 /* a call with at most this many runs on one thread */

typedef struct kl_job {
    const sb_kl_call *call;
    sb_reduce_kl reduce;
    float *tokens;
    const int64_t *active; /* rows to compute, in ascending order */
    int64_t actives;
    int64_t split;         /* pieces per row */
    int64_t piece;         /* logits per piece, a multiple of 16 */
    sb_divergence *states; /* [actives][split] if split is not 1, or tiles are used */
    sb_cpu_hidden p, q;    /* if p or q has a head */
} kl_job;

/* Two rows with lists: the leaves that have an id kept by either. */
static void reduce_lists(const kl_job *j, int64_t row, int64_t first, int64_t n, sb_divergence *s,
                         const sb_row *row_p, const sb_row *row_q)
{
    sb_cpu_leaves p = sb_cpu_leaves_of(&j->call->p, row, first, n);
    sb_cpu_leaves q = sb_cpu_leaves_of(&j->call->q, row, first, n);
    while (p.at < p.last || q.at < q.last) {
        float xp[SB_CPU_BUFFER], xq[SB_CPU_BUFFER];
        int64_t at = 0;
        for (; at < SB_CPU_BUFFER && (p.at < p.last || q.at < q.last); at += SB_LEAF) {
            const int64_t leaf_p = sb_cpu_next_leaf(&p), leaf_q = sb_cpu_next_leaf(&q);
            for (int64_t i = 0; i < SB_LEAF; i++)
                xp[at + i] = xq[at + i] = sb_float(SB_ABSENT_BITS);
            if (leaf_p <= leaf_q) sb_cpu_take_leaf(&p, xp + at);
            if (leaf_q <= leaf_p) sb_cpu_take_leaf(&q, xq + at);
        }
        j->reduce(s, xp, xq, at, row_p, row_q);
    }
}

/* Reduces one piece of an active row. Runs in the contract's floating-point mode. */
static sb_divergence reduce_piece(const kl_job *j, int64_t row, int64_t piece)
{
    const sb_call *p = &j->call->p, *q = &j->call->q;
    const sb_row row_p = sb_row_of(sb_temperature_at(p, row));
    const sb_row row_q = sb_row_of(sb_temperature_at(q, row));
    const int64_t end = (piece + 1) * j->piece < p->held ? (piece + 1) * j->piece : p->held;
    sb_divergence s;
    sb_kl_init(&s, row_p.c, row_q.c);
    if (p->in.kept_offsets && q->in.kept_offsets) {
        const int64_t first = piece * j->piece;
        if (first < end) reduce_lists(j, row, first, end - first, &s, &row_p, &row_q);
        return s;
    }
    for (int64_t first = piece * j->piece; first < end; first += SB_CPU_BUFFER) {
        const int64_t n = end - first < SB_CPU_BUFFER ? end - first : SB_CPU_BUFFER;
        float xp[SB_CPU_BUFFER], xq[SB_CPU_BUFFER];
        sb_cpu_read(p, row, first, n, xp);
        sb_cpu_read(q, row, first, n, xq);
        j->reduce(&s, xp, xq, n, &row_p, &row_q);
    }
    return s;
}

static void run_row(void *shared, int64_t i)
{
    const kl_job *j = shared;
    const sb_divergence s = reduce_piece(j, j->active[i], 0);
    j->tokens[j->active[i]] = sb_kl_finish(&s);
}

static void run_piece(void *shared, int64_t item)
{
    const kl_job *j = shared;
    j->states[item] = reduce_piece(j, j->active[item / j->split], item % j->split);
}

/* The logits of a block of active rows, i .. i + rows - 1. */
static void tile_of(const kl_job *j, const sb_call *call, const sb_cpu_hidden *hidden, int64_t i,
                    int64_t rows, int64_t first, int64_t n, float x[][TILE_IDS])
{
    if (call->in.head) sb_cpu_hidden_tile(hidden, i, rows, first, n, x[0], TILE_IDS);
    else
        for (int64_t r = 0; r < rows; r++) sb_cpu_read(call, j->active[i + r], first, n, x[r]);
}

/* Reduces a block of active rows and a piece of their ids, where p or q has hidden states. */
static void run_tile(void *shared, int64_t item)
{
    const kl_job *j = shared;
    const sb_call *p = &j->call->p, *q = &j->call->q;
    const int64_t blocks = sb_cpu_tile_blocks(j->actives);
    const int64_t i = item % blocks * SB_CPU_TILE_ROWS, piece = item / blocks;
    const int64_t rows = j->actives - i < SB_CPU_TILE_ROWS ? j->actives - i : SB_CPU_TILE_ROWS;
    const int64_t end = (piece + 1) * j->piece < p->held ? (piece + 1) * j->piece : p->held;
    sb_row row_p[SB_CPU_TILE_ROWS], row_q[SB_CPU_TILE_ROWS];
    for (int64_t r = 0; r < rows; r++) {
        row_p[r] = sb_row_of(sb_temperature_at(p, j->active[i + r]));
        row_q[r] = sb_row_of(sb_temperature_at(q, j->active[i + r]));
        sb_kl_init(&j->states[(i + r) * j->split + piece], row_p[r].c, row_q[r].c);
    }
    for (int64_t first = piece * j->piece; first < end; first += TILE_IDS) {
        const int64_t n = end - first < TILE_IDS ? end - first : TILE_IDS;
        float xp[SB_CPU_TILE_ROWS][TILE_IDS], xq[SB_CPU_TILE_ROWS][TILE_IDS];
        tile_of(j, p, &j->p, i, rows, first, n, xp);
        tile_of(j, q, &j->q, i, rows, first, n, xq);
        for (int64_t r = 0; r < rows; r++)
            j->reduce(&j->states[(i + r) * j->split + piece], xp[r], xq[r], n, &row_p[r],
                      &row_q[r]);
    }
}

static void merge_row(void *shared, int64_t i)
{
    const kl_job *j = shared;
    sb_divergence s = j->states[i * j->split];
    for (int64_t k = 1; k < j->split; k++) sb_kl_merge(&s, &j->states[i * j->split + k]);
    j->tokens[j->active[i]] = sb_kl_finish(&s);
}

static int is_hidden(const kl_job *j) { return j->call->p.in.head || j->call->q.in.head; }

/* Chooses whole rows when there are plenty of them, and pieces of rows when there are few. */
static void plan_kl(kl_job *j, const sb_cpu *c)
{
    const int32_t threads = sb_pool_threads(c->pool);
    const int64_t held = j->call->p.held, leaves = (held + SB_LEAF - 1) / SB_LEAF;
    int64_t split = j->call->p.launch.split;
    if (is_hidden(j)) {
        split = sb_cpu_tile_pieces(c, &j->call->p, sb_cpu_tile_blocks(j->actives));
    } else if (split == 0) {
        const int64_t most = held / PIECE_LOGITS, wanted = 4 * (int64_t)threads;
        if (threads > 1 && j->actives > 0) split = (wanted + j->actives - 1) / j->actives;
        if (split > most) split = most;
    }
    if (split > leaves) split = leaves;
    j->split = split > 1 ? split : 1;
    j->piece = (leaves + j->split - 1) / j->split * SB_LEAF;
}

static int runs_alone(const kl_job *j)
{
    if (j->call->p.in.head) return sb_cpu_tiles_alone(&j->p);
    if (j->call->q.in.head) return sb_cpu_tiles_alone(&j->q);
    return j->actives * j->call->p.held <= ALONE_LOGITS;
}

/* Reserves memory for the hidden states of p or q, if it has any. */
static sb_status prepare_hidden(sb_context *ctx, const kl_job *j, sb_cpu_hidden *hidden,
                                const sb_call *call, int which)
{
    sb_cpu *c = ctx->state;
    if (!call->in.head) return SB_OK;
    return sb_cpu_hidden_prepare(hidden, call, c->products, &c->hidden[which], j->active,
                                 j->actives, 0, &ctx->error);
}

/* Performs every step that can fail. */
static sb_status prepare(sb_context *ctx, kl_job *j)
{
    sb_cpu *c = ctx->state;
    const sb_kl_call *call = j->call;
    int64_t *active = sb_cpu_room(&c->rows, call->p.rows, sizeof *active);
    sb_status status;
    if (!active)
        return sb_fail(&ctx->error, SB_ERR_MEMORY, "no memory to list %" PRId64 " rows",
                       call->p.rows);
    status = sb_list_active(&call->p, active, &j->actives, &ctx->error);
    if (status != SB_OK) return sb_kl_blame(&ctx->error, 'p', status);
    status = sb_list_active(&call->q, NULL, NULL, &ctx->error);
    if (status != SB_OK) return sb_kl_blame(&ctx->error, 'q', status);
    j->active = active;
    status = prepare_hidden(ctx, j, &j->p, &call->p, 0);
    if (status == SB_OK) status = prepare_hidden(ctx, j, &j->q, &call->q, 1);
    if (status != SB_OK) return status;
    plan_kl(j, c);
    if (j->actives) sb_cpu_say_plan(ctx, runs_alone(j), j->split);
    if (j->actives && is_hidden(j)) sb_cpu_say_products(ctx);
    j->states = sb_cpu_room(&c->states, j->split > 1 || is_hidden(j) ? j->actives * j->split : 0,
                            sizeof *j->states);
    if (!j->states)
        return sb_fail(&ctx->error, SB_ERR_MEMORY,
                       "no memory for %" PRId64 " rows in %" PRId64 " pieces", j->actives,
                       j->split);
    j->tokens = call->out.token;
    if (!j->tokens) j->tokens = sb_cpu_room(&c->tokens, call->p.rows, sizeof *j->tokens);
    if (!j->tokens)
        return sb_fail(&ctx->error, SB_ERR_MEMORY, "no memory for %" PRId64 " divergences",
                       call->p.rows);
    return SB_OK;
}

sb_status sb_cpu_kl(sb_context *ctx, const void *checked)
{
    const sb_kl_call *call = checked;
    sb_cpu *c = ctx->state;
    kl_job j = { .call = call, .reduce = c->isa->kl };
    sb_status status = prepare(ctx, &j);
    sb_sums_call sums;
    int alone;
    if (status != SB_OK) return status;
    alone = runs_alone(&j);

    /* Nothing fails from here on. */
    memset(j.tokens, 0, (size_t)call->p.rows * sizeof *j.tokens);
    if (is_hidden(&j)) {
        if (call->p.in.head) sb_cpu_hidden_pack(c->pool, &j.p);
        if (call->q.in.head) sb_cpu_hidden_pack(c->pool, &j.q);
        sb_pool_run(c->pool, alone, run_tile, &j, sb_cpu_tile_blocks(j.actives) * j.split);
        sb_pool_run(c->pool, alone, merge_row, &j, j.actives);
    } else if (j.split == 1) {
        sb_pool_run(c->pool, alone, run_row, &j, j.actives);
    } else {
        sb_pool_run(c->pool, alone, run_piece, &j, j.actives * j.split);
        sb_pool_run(c->pool, alone, merge_row, &j, j.actives);
    }
    if (!call->out.sequence) return SB_OK;
    sums = sb_kl_sums(call, j.tokens);
    return sb_cpu_sums(ctx, &sums);
}
