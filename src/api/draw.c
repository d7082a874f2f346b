/* draw.c - sb_draw_plan, sb_draw_round and sb_draw_finish: checks, then the backend; and what
 * messages tell, for the backends that can read them. */
#include "api/draw.h"

#include <inttypes.h>
#include <stdio.h>

#include "api/call.h"
#include "api/entry.h"
#include "api/records.h"
#include "api/run.h"

_Static_assert(sizeof(sb_draw_row) == SB_DRAW_PROGRESS, "a row's progress");
_Static_assert(sizeof(sb_draw_begin) == 40 && sizeof(sb_draw_kept) == 40 &&
                   sizeof(sb_draw_token) == 8,
               "the sizes that samebits.h states");

#define MOST_SHARDS 65536

/* ---- rounds -------------------------------------------------------------------------------- */

/* Which places the first round tells: 0, 1, or the k of a top-k that needs no search. */
static int32_t places_of(const sb_sampling *how, uint32_t outputs)
{
    if (!how->top_ks && how->top_k >= 1 && how->top_k <= SB_MAX_TOPK) return how->top_k;
    return sb_has_filters(how) || outputs & SB_DRAW_COUNT ? 1 : 0;
}

static int searches(const sb_sampling *how, int weighted)
{
    return weighted ? how->top_ps || how->top_p < 1.0f : how->top_ks || how->top_k > 0;
}

static void add_step(sb_draw_call *d, int32_t kind, int32_t weighted, int32_t level, int64_t bytes)
{
    d->draw.bytes[d->draw.rounds] = bytes;
    d->steps[d->draw.rounds++] = (sb_draw_step){ kind, weighted, level };
}

/* Sets the rounds of a call, from its outputs. */
static void set_rounds(sb_draw_call *d)
{
    const sb_sampling *how = &d->how;
    d->places = places_of(how, d->draw.outputs);
    d->lists = d->places && !how->top_ks && how->top_k >= 1 && how->top_k <= SB_MAX_TOPK;
    d->draw.rounds = 0;
    memset(d->draw.bytes, 0, sizeof d->draw.bytes);
    add_step(d, SB_DRAW_BEGIN, 0, 0,
             (int64_t)sizeof(sb_draw_begin) + 8 * d->places +
                 (d->draw.outputs & SB_DRAW_MODEL ? (int64_t)sizeof(sb_state) : 0));
    if (d->lists) return;
    for (int32_t weighted = 0; d->places && weighted < 2; weighted++)
        for (int32_t level = 0; searches(how, weighted) && level < SB_DRAW_LEVELS; level++)
            add_step(d, SB_DRAW_KEYS, weighted, level, 8 * SB_DRAW_BINS);
    if (d->places) add_step(d, SB_DRAW_KEPT, 0, 0, sizeof(sb_draw_kept));
    add_step(d, SB_DRAW_TOKEN, 0, 0, sizeof(sb_draw_token));
}

static uint32_t outputs_of(const sb_sample_out *out, const sb_batch *batch)
{
    return (out->logprob && sb_has_kept(batch) ? SB_DRAW_MODEL : 0) |
           (out->kept || out->count ? SB_DRAW_COUNT : 0);
}

static sb_status check_shard(const sb_draw *draw, sb_message *why)
{
    sb_status status = sb_check_size(draw, sizeof *draw, "sb_draw", "SB_DRAW_INIT", why);
    if (status != SB_OK) return status;
    if (draw->shards < 1 || draw->shards > MOST_SHARDS)
        return sb_fail(why, SB_ERR_SHAPE, "shards is %d, outside [1, %d]", (int)draw->shards,
                       MOST_SHARDS);
    if (draw->shard < 0 || draw->shard >= draw->shards)
        return sb_fail(why, SB_ERR_SHAPE, "shard is %d, outside [0, %d)", (int)draw->shard,
                       (int)draw->shards);
    return SB_OK;
}

static sb_status check_out(const sb_sample_out *out, sb_message *why)
{
    if (!out) return sb_fail(why, SB_ERR_ARGUMENT, "out is null");
    return sb_check_size(out, sizeof *out, "sb_sample_out", "SB_SAMPLE_OUT_INIT", why);
}

static sb_status check_how(const sb_sampling *how, sb_message *why)
{
    if (!how) return sb_fail(why, SB_ERR_ARGUMENT, "how is null");
    return sb_check_size(how, sizeof *how, "sb_sampling", "SB_SAMPLING_INIT", why);
}

static sb_status plan(sb_context *ctx, sb_draw *draw, const sb_sample_out *out,
                      const sb_batch *batch, const sb_sampling *how)
{
    sb_draw_call d;
    sb_batch full;
    sb_message *why = &ctx->error;
    sb_status status = draw ? check_shard(draw, why)
                            : sb_fail(why, SB_ERR_ARGUMENT, "draw is null");
    if (status == SB_OK) status = check_out(out, why);
    if (status == SB_OK) status = sb_batch_of(&full, batch, why);
    if (status == SB_OK) status = check_how(how, why);
    if (status == SB_OK) status = sb_check_how(how, 0, why);
    if (status != SB_OK) return status;
    d.how = *how;
    d.draw = *draw;
    d.draw.outputs = outputs_of(out, &full);
    set_rounds(&d);
    *draw = d.draw;
    return SB_OK;
}

sb_status sb_draw_plan(sb_context *ctx, sb_draw *draw, const sb_sample_out *out,
                       const sb_batch *batch, const sb_sampling *how)
{
    SB_INSIDE(ctx, plan(ctx, draw, out, batch, how));
}

/* ---- a round ------------------------------------------------------------------------------- */

static sb_status check_pointer(const char *name, const void *data, sb_message *why)
{
    if (!data) return sb_fail(why, SB_ERR_ARGUMENT, "%s is null", name);
    if ((uintptr_t)data % 8 == 0) return SB_OK;
    return sb_fail(why, SB_ERR_ARGUMENT, "%s is not aligned to 8 bytes", name);
}

/* Checks the caller's draw against the call. */
static sb_status check_rounds(sb_draw_call *d, const sb_draw *draw, sb_message *why)
{
    int64_t bytes = d->call.rows;
    d->draw = *draw;
    if (draw->reserved != 0)
        return sb_fail(why, SB_ERR_ARGUMENT, "draw's reserved is %u, not 0",
                       (unsigned)draw->reserved);
    set_rounds(d);
    if (d->draw.rounds != draw->rounds ||
        memcmp(d->draw.bytes, draw->bytes, sizeof draw->bytes) != 0)
        return sb_fail(why, SB_ERR_ARGUMENT,
                       "draw has %d rounds, this call %d of its own: call sb_draw_plan with the "
                       "same batch and how",
                       (int)draw->rounds, (int)d->draw.rounds);
    if (__builtin_mul_overflow(bytes, 8 * SB_DRAW_BINS, &bytes) ||
        __builtin_mul_overflow(bytes, draw->shards, &bytes))
        return sb_fail(why, SB_ERR_SHAPE,
                       "messages of %d ranks for %" PRId64 " rows reach past the address space",
                       (int)draw->shards, d->call.rows);
    return d->call.rows ? check_pointer("progress", draw->progress, why) : SB_OK;
}

static sb_status prepare(sb_context *ctx, sb_draw_call *d, const sb_draw *draw,
                         const sb_batch *batch, const sb_sampling *how, const sb_launch *launch)
{
    sb_message *why = &ctx->error;
    sb_status status = draw ? check_shard(draw, why)
                            : sb_fail(why, SB_ERR_ARGUMENT, "draw is null");
    if (status != SB_OK) return status;
    d->call.width = batch && batch->ids ? 1 : 0;
    status = sb_part_call_of(ctx, &d->call, batch, draw->first, draw->n, launch);
    if (status == SB_OK) status = sb_check_kept_sets(ctx, &d->call, NULL);
    if (status != SB_OK) return status;
    if (d->call.in.head)
        return sb_fail(why, SB_ERR_ARGUMENT,
                       "draws from shards take logits, and the batch has hidden states: compute "
                       "the shard's logits with sb_logits, by its first and held");
    status = check_how(how, why);
    if (status == SB_OK) status = sb_check_how(how, d->call.rows, why);
    if (status != SB_OK) return status;
    d->how = *how;
    d->mine = NULL;
    d->all = NULL;
    d->out = (sb_sample_out)SB_SAMPLE_OUT_INIT;
    return check_rounds(d, draw, why);
}

static sb_status draw_round(sb_context *ctx, void *mine, const void *all, const sb_draw *draw,
                            int32_t round, const sb_batch *batch, const sb_sampling *how,
                            const sb_launch *launch)
{
    sb_draw_call d;
    sb_message *why = &ctx->error;
    sb_status status = prepare(ctx, &d, draw, batch, how, launch);
    if (status == SB_OK && (round < 0 || round >= d.draw.rounds))
        status = sb_fail(why, SB_ERR_SHAPE, "round is %d, outside [0, %d)", (int)round,
                         (int)d.draw.rounds);
    if (status == SB_OK && d.call.rows) status = check_pointer("mine", mine, why);
    if (status == SB_OK && d.call.rows && round > 0) status = check_pointer("all", all, why);
    if (status != SB_OK) return status;
    d.mine = mine;
    d.all = round > 0 ? all : NULL;
    d.round = round;
    return sb_run(ctx, SB_OP_DRAW, &d, &d.call.launch);
}

sb_status sb_draw_round(sb_context *ctx, void *mine, const void *all, const sb_draw *draw,
                        int32_t round, const sb_batch *batch, const sb_sampling *how,
                        const sb_launch *launch)
{
    SB_INSIDE(ctx, draw_round(ctx, mine, all, draw, round, batch, how, launch));
}

static sb_status draw_finish(sb_context *ctx, const sb_sample_out *out, const void *all,
                             const sb_draw *draw, const sb_batch *batch, const sb_sampling *how,
                             const sb_launch *launch)
{
    sb_draw_call d;
    sb_message *why = &ctx->error;
    uint32_t missing;
    sb_status status = check_out(out, why);
    if (status == SB_OK) status = prepare(ctx, &d, draw, batch, how, launch);
    if (status == SB_OK && d.call.rows) status = check_pointer("all", all, why);
    if (status != SB_OK) return status;
    missing = outputs_of(out, &d.call.in) & ~draw->outputs;
    if (missing)
        return sb_fail(why, SB_ERR_ARGUMENT,
                       "%s is requested, which was not when sb_draw_plan made the draw",
                       missing & SB_DRAW_MODEL ? "logprob"
                       : out->kept             ? "kept"
                                               : "count");
    if (d.call.rows > INT64_MAX / 4 / sb_kept_width(d.call.in.vocab))
        return sb_fail(why, SB_ERR_SHAPE,
                       "kept sets of %" PRId64 " rows reach past the address space", d.call.rows);
    d.out = *out;
    d.all = all;
    d.round = d.draw.rounds;
    return sb_run(ctx, SB_OP_DRAW, &d, &d.call.launch);
}

sb_status sb_draw_finish(sb_context *ctx, const sb_sample_out *out, const void *all,
                         const sb_draw *draw, const sb_batch *batch, const sb_sampling *how,
                         const sb_launch *launch)
{
    SB_INSIDE(ctx, draw_finish(ctx, out, all, draw, batch, how, launch));
}

/* ---- what messages tell --------------------------------------------------------------------- */

/* What the rank has sent as its first place. */
static uint64_t own_place(const sb_draw_call *d, int64_t row)
{
    sb_draw_row known;
    memcpy(&known, (const char *)d->draw.progress + row * SB_DRAW_PROGRESS, sizeof known);
    return known.own;
}

/* Merges the places of a message into the first k of all so far. */
static sb_fault take_places(const sb_draw_call *d, const sb_draw_begin *m, const uint64_t *places,
                            uint64_t *first)
{
    uint64_t merged[SB_MAX_TOPK];
    int32_t a = 0, b = 0;
    for (int32_t i = 0; i < d->places; i++) {
        const sb_fault fault = sb_draw_place_fault(places[i], m);
        if (fault != SB_RECORD_FINE) return fault;
        if (i > 0 && places[i] != SB_NO_PLACE && places[i] >= places[i - 1]) return SB_FAULT_PLACES;
    }
    for (int32_t i = 0; i < d->places; i++)
        merged[i] = first[a] > places[b] ? first[a++] : places[b++];
    memcpy(first, merged, (size_t)d->places * sizeof *first);
    return SB_RECORD_FINE;
}

static sb_fault learn_begin(const sb_draw_call *d, int64_t row, const sb_row *constants,
                            sb_draw_news *news, int64_t *shard)
{
    const int has_model = d->draw.outputs & SB_DRAW_MODEL;
    sb_draw_row *p = &news->row;
    uint64_t end = 0;
    sb_fault fault;
    p->own = own_place(d, row);
    sb_state_init(&p->kept, constants->c);
    sb_state_init(&p->model, constants->c);
    for (*shard = 0; *shard < d->draw.shards; ++*shard) {
        const char *at = sb_draw_message(d, *shard, row);
        sb_state model;
        sb_draw_begin m;
        uint64_t places[SB_MAX_TOPK];
        memcpy(&m, at, sizeof m);
        at += sizeof m;
        if (has_model) memcpy(&model, at, sizeof model);
        if (has_model) at += sizeof model;
        memcpy(places, at, (size_t)d->places * sizeof *places);
        if (*shard == d->draw.shard &&
            (m.n != d->call.held || (m.n > 0 && m.first != d->call.first)))
            return SB_FAULT_RANGES;
        fault = sb_draw_take_begin(p, &m, has_model ? &model : NULL, sb_bits32(constants->c), &end);
        if (fault == SB_RECORD_FINE && d->places) fault = take_places(d, &m, places, news->places);
        if (fault == SB_RECORD_FINE && *shard == d->draw.shard && d->places && places[0] != p->own)
            fault = SB_FAULT_PLACES;
        if (fault != SB_RECORD_FINE) return fault;
    }
    *shard = -1;
    if (end > (uint64_t)d->call.in.vocab) return SB_FAULT_RANGES;
    if (!has_model) p->model = p->kept;
    fault = sb_draw_merged_fault(p);
    if (fault != SB_RECORD_FINE) return fault;
    p->none = sb_state_is_nan(&p->kept);
    if (p->none || !d->places) return SB_RECORD_FINE;
    p->first = news->places[0];
    return sb_draw_first_fault(p, constants);
}

static sb_fault learn_keys(const sb_draw_call *d, int64_t row, const sb_row *constants,
                           sb_draw_news *news, int64_t *shard)
{
    const sb_draw_step *step = &d->steps[d->round - 1];
    const sb_filters f = sb_filters_of(&d->how, row);
    const sb_weights weights = sb_weights_of(sb_place_logit(news->row.first), constants);
    sb_draw_row *p = &news->row;
    uint64_t sums[SB_DRAW_BINS] = { 0 }, each, n, before = 0, own;
    sb_fault fault;
    int bin = 0;
    *shard = -1;
    if (!p->searches) return SB_RECORD_FINE;
    for (int64_t s = 0; s < d->draw.shards; s++) {
        const uint64_t *its = (const uint64_t *)(const void *)sb_draw_message(d, s, row);
        for (int b = 0; b < SB_DRAW_BINS; b++) sums[b] += its[b];
    }
    fault = sb_draw_narrow(p, sums, step, f.top_k, f.top_p, &bin);
    if (fault != SB_RECORD_FINE || !p->searches || step->level < SB_DRAW_LEVELS - 1) return fault;
    fault = sb_draw_number(p, step, &weights, &each, &n);
    if (fault != SB_RECORD_FINE) return fault;
    for (int64_t s = 0; s < d->draw.shard; s++)
        before += ((const uint64_t *)(const void *)sb_draw_message(d, s, row))[bin];
    own = ((const uint64_t *)(const void *)sb_draw_message(d, d->draw.shard, row))[bin];
    news->nth = sb_draw_cut(p, n, before / each, own / each);
    return SB_RECORD_FINE;
}

static sb_fault learn_kept(const sb_draw_call *d, int64_t row, const sb_row *constants,
                           sb_draw_news *news, int64_t *shard)
{
    sb_draw_row *p = &news->row;
    sb_state_init(&p->kept, constants->c);
    p->count = 0;
    for (*shard = 0; *shard < d->draw.shards; ++*shard) {
        sb_draw_kept m;
        sb_fault fault;
        memcpy(&m, sb_draw_message(d, *shard, row), sizeof m);
        fault = sb_draw_take_kept(p, &m, (uint32_t)d->call.in.vocab);
        if (fault != SB_RECORD_FINE) return fault;
    }
    *shard = -1;
    if (sb_state_is_nan(&p->kept)) return SB_FAULT_SUM;
    return sb_draw_merged_fault(p);
}

static sb_fault learn_token(const sb_draw_call *d, int64_t row, const sb_row *constants,
                            sb_draw_news *news, int64_t *shard)
{
    for (*shard = 0; *shard < d->draw.shards; ++*shard) {
        sb_draw_token m;
        sb_fault fault;
        memcpy(&m, sb_draw_message(d, *shard, row), sizeof m);
        fault = sb_draw_take_token(&news->token, &m);
        if (fault != SB_RECORD_FINE) return fault;
    }
    *shard = -1;
    return sb_draw_token_fault(&news->row, &news->token, (uint32_t)d->call.in.vocab, constants);
}

sb_fault sb_draw_learn(const sb_draw_call *d, int64_t row, sb_draw_news *news, int64_t *shard)
{
    const sb_row constants = sb_row_of(sb_temperature_at(&d->call, row));
    memset(news, 0, sizeof *news);
    if (d->round == 0) return SB_RECORD_FINE;
    if (d->round > 1)
        memcpy(&news->row, (const char *)d->draw.progress + row * SB_DRAW_PROGRESS,
               sizeof news->row);
    if (news->row.none) return SB_RECORD_FINE;
    switch (d->steps[d->round - 1].kind) {
    case SB_DRAW_BEGIN: return learn_begin(d, row, &constants, news, shard);
    case SB_DRAW_KEYS: return learn_keys(d, row, &constants, news, shard);
    case SB_DRAW_KEPT: return learn_kept(d, row, &constants, news, shard);
    default: return learn_token(d, row, &constants, news, shard);
    }
}

sb_status sb_draw_refuse(const sb_draw_call *d, int64_t row, int64_t shard, sb_fault fault,
                         sb_message *why)
{
    char rank[32] = "";
    if (shard >= 0) snprintf(rank, sizeof rank, ", shard %" PRId64, shard);
    return sb_fail(why, SB_ERR_STATE, "row %" PRId64 "%s, messages of round %d: %s", row, rank,
                   (int)d->round - 1, sb_fault_text((int)fault));
}

sb_status sb_check_draw(const sb_draw_call *d, const int64_t *active, int64_t actives,
                        sb_message *why)
{
    for (int64_t i = 0; i < actives; i++) {
        sb_draw_news news;
        int64_t shard = -1;
        const sb_fault fault = sb_draw_learn(d, active[i], &news, &shard);
        if (fault != SB_RECORD_FINE) return sb_draw_refuse(d, active[i], shard, fault, why);
    }
    return SB_OK;
}
