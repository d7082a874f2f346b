/* draw.c - draws from shards of the vocabulary on the CPU: what a rank learns from the messages of
 * the round before, and what it finds in its own logits for the next one. A row is one item. All
 * messages are checked before anything is written. */
#include "api/draw.h"

#include <inttypes.h>

#include "cpu/drawn.h"

typedef struct drawer {
    const sb_draw_call *to;
    const sb_cpu *cpu;
    const int64_t *active;
} drawer;

static char *message_of(const sb_draw_call *d, int64_t row)
{
    return (char *)d->mine + row * sb_draw_bytes(d, d->round);
}

/* ---- what a rank sends ---------------------------------------------------------------------- */

/* The first k places of the rank's ids. */
static void find_places(const sb_cpu_drawn *r, uint64_t *places, int32_t k)
{
    float x[SB_CPU_BUFFER];
    SB_CPU_EACH_BUFFER(r, first, n, x)
    for (int64_t i = 0; i < n; i++) {
        uint64_t place;
        int32_t at = k;
        if (!(x[i] > sb_float(SB_ABSENT_BITS)) || sb_is_poison(x[i])) continue;
        place = sb_place_of(x[i], (uint32_t)(r->call->first + first + i));
        if (place <= places[k - 1]) continue;
        for (; at > 0 && places[at - 1] < place; at--)
            if (at < k) places[at] = places[at - 1];
        places[at] = place;
    }
}

static void send_begin(const sb_draw_call *d, const sb_cpu_drawn *r, sb_draw_row *p)
{
    sb_draw_begin m = { (uint32_t)d->call.first, (uint32_t)d->call.held, { 0, 0, { 0, 0, 0 } } };
    char *to = message_of(d, r->row);
    uint64_t places[SB_MAX_TOPK] = { 0 };
    sb_cpu_sum_kept(r, &m.present, NULL);
    memcpy(to, &m, sizeof m);
    to += sizeof m;
    if (d->draw.outputs & SB_DRAW_MODEL) {
        sb_call bare = d->call;
        sb_cpu_drawn whole = *r;
        sb_state model;
        bare.in.kept = NULL;
        bare.in.kept_ids = bare.in.kept_offsets = NULL;
        whole.call = &bare;
        sb_cpu_sum_kept(&whole, &model, NULL);
        memcpy(to, &model, sizeof model);
        to += sizeof model;
    }
    if (d->places) find_places(r, places, d->places);
    p->own = places[0];
    memcpy(to, places, (size_t)d->places * sizeof *places);
}

static void send_keys(const sb_draw_call *d, const sb_cpu_drawn *r, sb_draw_row *p,
                      const sb_filters *f)
{
    const sb_draw_step *step = &d->steps[d->round];
    uint64_t sums[SB_DRAW_BINS];
    if (step->level == 0) sb_draw_search(p, step->weighted ? f->top_p < 1.0f : f->top_k > 0);
    if (!p->searches) return;
    sb_cpu_sum_keys(r, 32 - SB_DRAW_BITS * (step->level + 1), SB_DRAW_BITS, p->prefix,
                    step->weighted, sums);
    memcpy(message_of(d, r->row), sums, sizeof sums);
}

static void send_kept(const sb_draw_call *d, const sb_cpu_drawn *r)
{
    sb_draw_kept m = { { 0, 0, { 0, 0, 0 } }, 0, 0 };
    m.count = (uint32_t)sb_cpu_sum_kept(r, &m.kept, NULL);
    memcpy(message_of(d, r->row), &m, sizeof m);
}

/* The token, if it is among the rank's own ids. */
static void send_token(const sb_draw_call *d, const sb_cpu_drawn *r, const sb_draw_row *p)
{
    const sb_draw_step *before = &d->steps[d->round - 1];
    const size_t at = before->kind == SB_DRAW_BEGIN ? offsetof(sb_draw_begin, present)
                                                    : offsetof(sb_draw_kept, kept);
    const uint64_t stride = (uint64_t)(d->call.rows * sb_draw_bytes(d, d->round - 1));
    sb_u128 R = sb_drawn(sb_draw_bits(&d->how, r->row), sb_total(&p->kept));
    const int32_t owner = sb_draw_owner(sb_draw_message(d, 0, r->row) + at, stride, d->draw.shards,
                                        p->kept.J, &R);
    sb_draw_token m = { 0, 0 };
    float x = 0.0f;
    if (owner == d->draw.shard) {
        m.id = (uint32_t)sb_cpu_find_token(r, &p->kept, 0, R, &x) + 1;
        m.x = m.id ? sb_bits32(x) : 0;
    }
    memcpy(message_of(d, r->row), &m, sizeof m);
}

/* ---- results -------------------------------------------------------------------------------- */

static void write_row(const sb_sample_out *out, int64_t row, int32_t token, float logprob,
                      float kept_logprob, int32_t count)
{
    if (out->token) out->token[row] = token;
    if (out->logprob) out->logprob[row] = logprob;
    if (out->kept_logprob) out->kept_logprob[row] = kept_logprob;
    if (out->count) out->count[row] = count;
}

static uint32_t *kept_words(const sb_draw_call *d, int64_t row)
{
    return d->out.kept ? d->out.kept + row * sb_kept_width(d->call.in.vocab) : NULL;
}

/* Draws from a row's first ids, of which the last two filters may leave fewer. */
typedef struct list_of_row {
    int32_t n;
    struct {
        int32_t id;
        float x;
    } kept[SB_MAX_TOPK]; /* in the order of ids */
} list_of_row;

static void add_to_list(list_of_row *l, uint64_t place)
{
    const int32_t id = sb_place_id(place);
    int32_t at = l->n++;
    for (; at > 0 && l->kept[at - 1].id > id; at--) l->kept[at] = l->kept[at - 1];
    l->kept[at].id = id;
    l->kept[at].x = sb_place_logit(place);
}

/* Which of a row's first ids top-p and min-p leave. */
static list_of_row filter_places(const uint64_t *places, int32_t k, const sb_filters *f,
                                 const sb_row *constants)
{
    const float best = sb_place_logit(places[0]);
    const sb_weights w = sb_weights_of(best, constants);
    const float least = sb_least_weight(f->min_p, sb_weight(best, &w));
    uint64_t sum = 0, goal = ~(uint64_t)0, before = 0;
    list_of_row l = { .n = 0 };
    int32_t n = 0;
    while (n < k && places[n] != SB_NO_PLACE)
        sum += sb_weight_units(sb_weight(sb_place_logit(places[n++]), &w));
    if (f->top_p < 1.0f) goal = sb_top_p_goal(f->top_p, sum);
    for (int32_t i = 0; i < n && before < goal; i++) {
        const float v = sb_weight(sb_place_logit(places[i]), &w);
        before += sb_weight_units(v);
        if (v >= least) add_to_list(&l, places[i]);
    }
    return l;
}

/* Reads the leaf of entry i of a list; returns the first entry behind it. */
static int32_t leaf_of_list(const list_of_row *l, int32_t i, float y[SB_LEAF])
{
    const int32_t leaf = l->kept[i].id / SB_LEAF;
    for (int k = 0; k < SB_LEAF; k++) y[k] = sb_float(SB_ABSENT_BITS);
    for (; i < l->n && l->kept[i].id / SB_LEAF == leaf; i++)
        y[l->kept[i].id % SB_LEAF] = l->kept[i].x;
    return i;
}

/* The state of a list, and its token at the row's random bits. */
static sb_draw_token draw_from_list(const list_of_row *l, uint64_t bits, const sb_row *constants,
                                    sb_state *kept)
{
    sb_draw_token t = { 0, 0 };
    float y[SB_LEAF];
    sb_leaf leaf;
    sb_u128 R;
    sb_state_init(kept, constants->c);
    for (int32_t i = 0; i < l->n;) {
        i = leaf_of_list(l, i, y);
        if (sb_leaf_of(&leaf, y, constants) == SB_LEAF_PRESENT) sb_state_add(kept, &leaf);
    }
    R = sb_drawn(bits, sb_total(kept));
    for (int32_t i = 0; i < l->n;) {
        const int32_t first = l->kept[i].id / SB_LEAF * SB_LEAF;
        sb_u128 share;
        i = leaf_of_list(l, i, y);
        if (sb_leaf_of(&leaf, y, constants) != SB_LEAF_PRESENT) continue;
        share = sb_leaf_share(&leaf, kept->J);
        if (R < share) {
            const int k = sb_drawn_in_leaf(y, constants, share, R);
            t.x = sb_bits32(y[k]);
            t.id = (uint32_t)(first + k) + 1;
            break;
        }
        R -= share;
    }
    return t;
}

static void write_token(const sb_draw_call *d, int64_t row, const sb_draw_row *p,
                        const sb_state *kept, const sb_draw_token *t, int32_t count,
                        const sb_row *constants)
{
    const float x = sb_float(t->x);
    write_row(&d->out, row, (int32_t)t->id - 1, sb_finish_logprob(&p->model, x, constants),
              sb_finish_logprob(kept, x, constants), count);
}

static void finish_list(const sb_draw_call *d, int64_t row, const sb_draw_news *news,
                        const sb_row *constants)
{
    const sb_filters f = sb_filters_of(&d->how, row);
    const list_of_row l = filter_places(news->places, d->places, &f, constants);
    uint32_t *words = kept_words(d, row);
    sb_state kept;
    const sb_draw_token t = draw_from_list(&l, sb_draw_bits(&d->how, row), constants, &kept);
    write_token(d, row, &news->row, &kept, &t, l.n, constants);
    for (int32_t i = 0; words && i < l.n; i++) {
        const int64_t id = l.kept[i].id;
        if (id >= d->call.first && id < d->call.first + d->call.held)
            words[id / 32] |= 1u << id % 32;
    }
}

/* ---- a row ---------------------------------------------------------------------------------- */

static void finish_row(const sb_draw_call *d, const sb_cpu_drawn *r, const sb_draw_news *news)
{
    if (news->row.none) {
        const float nan = sb_float(SB_NAN_BITS);
        write_row(&d->out, r->row, -1, nan, nan, 0);
    } else if (d->lists) {
        finish_list(d, r->row, news, &r->constants);
    } else {
        write_token(d, r->row, &news->row, &news->row.kept, &news->token, (int32_t)news->row.count,
                    &r->constants);
        if (d->out.kept) sb_cpu_write_kept(r, kept_words(d, r->row));
    }
}

/* Sets the cut of a row's own ids, as far as it is known. */
static void set_cut(const sb_draw_call *d, sb_cpu_drawn *r, const sb_draw_row *p,
                    const sb_filters *f)
{
    const int complete = d->round == d->draw.rounds || d->steps[d->round].kind > SB_DRAW_KEYS;
    const float best = sb_place_logit(p->first);
    r->is_cut = d->places && !d->lists && d->round > 0;
    if (!r->is_cut) return;
    r->cut.place = p->cut;
    r->cut.weights = sb_weights_of(best, &r->constants);
    r->cut.least = complete ? sb_least_weight(f->min_p, sb_weight(best, &r->cut.weights)) : 0.0f;
}

static void draw_row(void *shared, int64_t item)
{
    const drawer *s = shared;
    const sb_draw_call *d = s->to;
    const int64_t row = s->active[item];
    const sb_filters f = sb_filters_of(&d->how, row);
    sb_cpu_drawn r = { .call = &d->call, .isa = s->cpu->isa, .row = row };
    sb_draw_news news;
    int64_t shard;
    sb_draw_row *p = &news.row;
    sb_draw_learn(d, row, &news, &shard); /* which has been checked */
    r.constants = sb_row_of(sb_temperature_at(&d->call, row));
    set_cut(d, &r, p, &f);
    if (news.nth) {
        sb_draw_cut_at(p, sb_cpu_nth_of_key(&r, p->prefix, news.nth));
        r.cut.place = p->cut;
    }
    if (d->round == d->draw.rounds) {
        finish_row(d, &r, &news);
        return;
    }
    if (!p->none) switch (d->steps[d->round].kind) {
        case SB_DRAW_BEGIN: send_begin(d, &r, p); break;
        case SB_DRAW_KEYS: send_keys(d, &r, p, &f); break;
        case SB_DRAW_KEPT: send_kept(d, &r); break;
        default: send_token(d, &r, p); break;
        }
    memcpy((char *)d->draw.progress + row * SB_DRAW_PROGRESS, p, sizeof *p);
}

static void clear_outputs(const sb_draw_call *d)
{
    const sb_sample_out *out = &d->out;
    const size_t rows = (size_t)d->call.rows;
    if (out->token) memset(out->token, 0xff, rows * sizeof *out->token); /* -1 */
    if (out->logprob) memset(out->logprob, 0, rows * sizeof *out->logprob);
    if (out->kept_logprob) memset(out->kept_logprob, 0, rows * sizeof *out->kept_logprob);
    if (out->count) memset(out->count, 0, rows * sizeof *out->count);
    if (out->kept) memset(out->kept, 0, rows * (size_t)sb_kept_width(d->call.in.vocab) * 4);
}

sb_status sb_cpu_draw(sb_context *ctx, const void *checked)
{
    const sb_draw_call *d = checked;
    sb_cpu *c = ctx->state;
    const size_t rows = (size_t)d->call.rows;
    const int64_t most = d->call.in.row_list ? d->call.in.row_count : d->call.rows;
    int64_t *active = sb_cpu_room(&c->rows, most, sizeof *active), actives;
    drawer s = { d, c, active };
    sb_status status;
    if (!active)
        return sb_fail(&ctx->error, SB_ERR_MEMORY, "no memory to list %" PRId64 " rows", most);
    status = sb_list_active(&d->call, active, &actives, &ctx->error);
    if (status == SB_OK) status = sb_check_sampling(&d->how, active, actives, &ctx->error);
    if (status == SB_OK) status = sb_check_draw(d, active, actives, &ctx->error);
    if (status != SB_OK) return status;
    if (d->mine) memset(d->mine, 0, rows * (size_t)sb_draw_bytes(d, d->round));
    if (rows && d->round == 0) memset(d->draw.progress, 0, rows * SB_DRAW_PROGRESS);
    if (d->round == d->draw.rounds) clear_outputs(d);
    sb_pool_run(c->pool, actives * d->call.held <= SB_CPU_BUFFER, draw_row, &s, actives);
    return SB_OK;
}
