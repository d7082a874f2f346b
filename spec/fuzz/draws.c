/* draws.c - draws from shards on batches, cuts, filters and damaged messages made from bytes.
 *
 * What has to hold: with the messages of all ranks, every rank has sb_sample's bits. With one that
 * is damaged - bits flipped, the tail lost, that of another rank, row, round or draw - each rank
 * refuses it or not as docs/numerics.md says, by another instruction set too; a refusal names the
 * row and leaves outputs untouched; other rows have their bits, and all ranks the same token. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "batches.h"
#include "records.h"
#include "results.h"
#include "target.h"

enum {
    ROWS = 3,
    SHARDS = 4,
    ROUNDS = 11,
    IDS = 96,
    WORDS = (IDS + 31) / 32,
    MESSAGE = 2048,
    TRIES = 4
};

typedef struct rank {
    sb_draw draw;
    sb_batch batch;
    uint64_t progress[ROWS * SB_DRAW_PROGRESS / 8];
} rank;

/* The outputs of a call. */
typedef struct drawn {
    int32_t token[ROWS];
    float logprob[ROWS], kept_logprob[ROWS];
    int32_t count[ROWS];
    uint32_t kept[ROWS * WORDS];
} drawn;

/* The messages of one round: [shards][rows] of `bytes` each. */
typedef struct messages {
    uint64_t words[SHARDS * ROWS * MESSAGE / 8];
} messages;

typedef struct game {
    int64_t rows, vocab;
    int32_t shards, rounds;
    void *logits;
    uint8_t mask[ROWS];
    uint64_t bits[ROWS];
    uint32_t kept[ROWS * WORDS];
    int has_kept, outputs; /* 1: logprob, 2: kept_logprob, 4: count, 8: kept */
    sb_batch batch;        /* of whole rows */
    sb_sampling how;
    rank ranks[SHARDS];
} game;

static int64_t words_of(const game *g) { return (g->vocab + 31) / 32; }

static int64_t bytes_of(const game *g, int32_t round) { return g->ranks[0].draw.bytes[round]; }

static char *message_at(const game *g, messages *m, int32_t round, int64_t shard, int64_t row)
{
    return (char *)m->words + (shard * g->rows + row) * bytes_of(g, round);
}

static sb_sample_out out_of(const game *g, drawn *d)
{
    sb_sample_out out = SB_SAMPLE_OUT_INIT;
    out.token = d->token;
    if (g->outputs & 1) out.logprob = d->logprob;
    if (g->outputs & 2) out.kept_logprob = d->kept_logprob;
    if (g->outputs & 4) out.count = d->count;
    if (g->outputs & 8) out.kept = d->kept;
    return out;
}

/* ---- a draw -------------------------------------------------------------------------------- */

static void set_how(source *s, game *g)
{
    static const int32_t top_k[] = { 0, 0, 1, 3, 64, 70 };
    static const float top_p[] = { 1.0f, 1.0f, 0.5f, 0.9f, 0x1p-126f };
    static const float min_p[] = { 0.0f, 0.0f, 0.1f, 1.0f };
    g->how = (sb_sampling)SB_SAMPLING_INIT;
    g->how.top_k = top_k[byte(s) % 6];
    g->how.top_p = top_p[byte(s) % 5];
    g->how.min_p = min_p[byte(s) % 4];
    for (int64_t row = 0; row < g->rows; row++) g->bits[row] = word(s);
    g->how.bits = g->bits;
}

/* Ranks whose ids end at multiples of 16, or at V. Some have none. */
static void set_ranks(source *s, game *g)
{
    const int64_t leaves = (g->vocab + 15) / 16;
    int64_t first = 0;
    for (int32_t i = 0; i < g->shards; i++) {
        rank *r = &g->ranks[i];
        int64_t end = first + 16 * (byte(s) % (leaves + 1));
        if (end > g->vocab || i == g->shards - 1) end = g->vocab;
        r->draw = (sb_draw)SB_DRAW_INIT;
        r->draw.shard = i;
        r->draw.shards = g->shards;
        r->draw.first = first;
        r->draw.n = end - first;
        first = end;
    }
}

static void make_game(source *s, game *g)
{
    memset(g, 0, sizeof *g);
    g->rows = 1 + byte(s) % ROWS;
    g->vocab = 1 + byte(s) % IDS;
    g->shards = 1 + byte(s) % SHARDS;
    g->outputs = byte(s) % 16;
    g->has_kept = byte(s) % 4 == 1;
    g->batch = (sb_batch)SB_BATCH_INIT;
    g->batch.logits_dtype = SB_F32 + byte(s) % 3;
    g->batch.batch = 1;
    g->batch.time = g->rows;
    g->batch.vocab = g->vocab;
    g->batch.temperature = byte(s) % 2 ? 1.0f : 0.7f;
    for (int64_t row = 0; row < g->rows; row++) g->mask[row] = byte(s) % 8 != 0;
    g->batch.mask = g->mask;
    for (int64_t i = 0; g->has_kept && i < g->rows * words_of(g); i++)
        g->kept[i] = ~(uint32_t)(byte(s) * 0x204081);
    if (g->has_kept) g->batch.kept = g->kept;
    set_how(s, g);
    set_ranks(s, g);
    g->logits = make_numbers(s, g->rows * g->vocab, g->batch.logits_dtype);
    g->batch.logits = g->logits;
    g->batch.row_stride = g->vocab;
    for (int32_t i = 0; i < g->shards; i++) {
        const int64_t itemsize = g->batch.logits_dtype == SB_F32 ? 4 : 2;
        g->ranks[i].batch = g->batch;
        g->ranks[i].batch.logits = (const char *)g->logits + g->ranks[i].draw.first * itemsize;
    }
}

static void plan(game *g)
{
    drawn d;
    const sb_sample_out out = out_of(g, &d);
    for (int32_t i = 0; i < g->shards; i++)
        HOLDS(sb_draw_plan(contexts[0], &g->ranks[i].draw, &out, &g->batch, &g->how) == SB_OK, "%s",
              sb_last_error(contexts[0]));
    g->rounds = g->ranks[0].draw.rounds;
}

/* Round `round` of a rank, or the results if there are no more: one of the two is written. */
static sb_status step(const game *g, sb_context *ctx, rank *r, int32_t round, const messages *all,
                      char *mine, drawn *d)
{
    const sb_sample_out out = out_of(g, d);
    r->draw.progress = r->progress;
    if (round == g->rounds)
        return sb_draw_finish(ctx, &out, all->words, &r->draw, &r->batch, &g->how, NULL);
    return sb_draw_round(ctx, mine, round ? all->words : NULL, &r->draw, round, &r->batch, &g->how,
                         NULL);
}

/* What a rank writes in a step: its message of all rows, or results. */
typedef struct written {
    uint64_t mine[ROWS * MESSAGE / 8];
    drawn d;
} written;

static void clear(written *w) { memset(w, 0, sizeof *w); }

/* Whether what was written for a row is the same. */
static int same_row(const game *g, int32_t round, int64_t row, const written *a, const written *b)
{
    const size_t words = (size_t)words_of(g);
    if (round < g->rounds) {
        const size_t bytes = (size_t)bytes_of(g, round);
        return memcmp((const char *)a->mine + (size_t)row * bytes,
                      (const char *)b->mine + (size_t)row * bytes, bytes) == 0;
    }
    return a->d.token[row] == b->d.token[row] &&
           memcmp(&a->d.logprob[row], &b->d.logprob[row], 4) == 0 &&
           memcmp(&a->d.kept_logprob[row], &b->d.kept_logprob[row], 4) == 0 &&
           a->d.count[row] == b->d.count[row] &&
           memcmp(a->d.kept + (size_t)row * words, b->d.kept + (size_t)row * words, 4 * words) == 0;
}

/* A whole draw, kept: what each rank knew and all had before each step, and what it wrote. */
typedef struct record_of_draw {
    rank before[ROUNDS + 1][SHARDS];
    messages all[ROUNDS + 1];
    written wrote[ROUNDS + 1][SHARDS];
} record_of_draw;

/* Plays steps from `from` on; before[from] and all[from] are there. Returns the first step that a
 * rank refuses, or -1. */
static int32_t play(game *g, record_of_draw *p, int32_t from)
{
    int32_t refused = -1;
    for (int32_t round = from; round <= g->rounds && refused < 0; round++)
        for (int32_t i = 0; i < g->shards; i++) {
            written *w = &p->wrote[round][i];
            rank r = p->before[round][i];
            sb_context *ctx = contexts[(i + round) % 2];
            clear(w);
            if (step(g, ctx, &r, round, &p->all[round], (char *)w->mine, &w->d) != SB_OK)
                refused = round;
            if (round == g->rounds || refused >= 0) continue;
            memcpy(message_at(g, &p->all[round + 1], round, i, 0), w->mine,
                   (size_t)(g->rows * bytes_of(g, round)));
            p->before[round + 1][i] = r;
        }
    return refused;
}

static void check_honest(game *g, const record_of_draw *p)
{
    written want;
    sb_sample_out out = out_of(g, &want.d);
    clear(&want);
    HOLDS(sb_sample(contexts[1], &out, &g->batch, &g->how, NULL) == SB_OK, "%s",
          sb_last_error(contexts[1]));
    for (int32_t i = 0; i < g->shards; i++) {
        written got = p->wrote[g->rounds][i];
        if (g->outputs & 8 && i == 0) {
            memset(got.d.kept, 0, sizeof got.d.kept);
            for (int32_t k = 0; k < g->shards; k++)
                for (int64_t w = 0; w < g->rows * words_of(g); w++)
                    got.d.kept[w] |= p->wrote[g->rounds][k].d.kept[w];
        } else memcpy(got.d.kept, want.d.kept, sizeof got.d.kept);
        for (int64_t row = 0; row < g->rows; row++)
            HOLDS(same_row(g, g->rounds, row, &want, &got), "row %d of rank %d", (int)row, (int)i);
    }
}

/* ---- what the definition refuses ----------------------------------------------------------- */

/* The kind of a round: that of the messages by their size, as numerics.md lists them. */
static int is_begin(int32_t round) { return round == 0; }
static int is_token(const game *g, int32_t round) { return round > 0 && bytes_of(g, round) == 8; }
static int is_kept(const game *g, int32_t round) { return round > 0 && bytes_of(g, round) == 40; }

static int64_t places_of(const game *g)
{
    const int has_filters = g->how.top_k > 0 || g->how.top_p < 1.0f || g->how.min_p > 0.0f;
    if (g->how.top_k >= 1 && g->how.top_k <= 64) return g->how.top_k;
    return has_filters || g->outputs & 12 ? 1 : 0;
}

static int has_model(const game *g) { return g->has_kept && g->outputs & 1; }

static record state_at(const char *at)
{
    record r;
    memset(&r, 0, sizeof r);
    memcpy(&r.state, at, sizeof r.state);
    return r;
}

/* The states at an offset of all messages of a row, merged; whether each is one, and the sum. */
static int merge_states(const game *g, messages *m, int32_t round, int64_t row, int64_t offset,
                        record *sum)
{
    const uint32_t c = c_of(g->batch.temperature);
    for (int32_t i = 0; i < g->shards; i++) {
        record r = state_at(message_at(g, m, round, i, row) + offset);
        if (!is_mergeable(&r, c)) return 0;
        *sum = i ? merged(sum, &r) : r;
    }
    return is_mergeable(sum, c);
}

static int is_nan_state(const record *r) { return r->state.J == 0 || r->state.J == 0x7fffffff; }

static int holds_logit(const game *g, const record *sum, uint32_t x)
{
    record r = *sum;
    float value;
    memcpy(&value, &x, 4);
    r.target.x = x;
    r.target.owners = 1;
    return isfinite(value) && is_finishable(&r, c_of(g->batch.temperature));
}

static uint32_t logit_of_key(uint32_t key) { return key >> 31 ? key & 0x7fffffff : ~key; }

/* Places fall, then are 0; each is of a finite logit of the rank's ids. */
static int are_places(const game *g, const char *message, const uint64_t *places)
{
    uint32_t range[2];
    memcpy(range, message, 8);
    for (int64_t k = 0; k < places_of(g); k++) {
        const uint32_t id = 0xffffffffu - (uint32_t)places[k];
        const uint32_t x = logit_of_key((uint32_t)(places[k] >> 32));
        float value;
        memcpy(&value, &x, 4);
        if (k > 0 && places[k] >= places[k - 1] && places[k] != 0) return 0;
        if (places[k] == 0) continue;
        if (!isfinite(value) || id < range[0] || id - range[0] >= range[1]) return 0;
    }
    return 1;
}

/* sent: what was sent, undamaged. A rank knows what it has sent itself. */
static int is_right_begin(const game *g, messages *m, messages *sent, int64_t row, int32_t asker)
{
    record kept, model;
    uint64_t end = 0, places[64], best = 0, own = 0;
    const int64_t at = 40 + (has_model(g) ? 32 : 0);
    int all_are_places = 1;
    memcpy(&own, message_at(g, sent, 0, asker, row) + at, places_of(g) ? 8 : 0);
    if (!merge_states(g, m, 0, row, 8, &kept)) return 0;
    model = kept;
    if (has_model(g) && !merge_states(g, m, 0, row, 40, &model)) return 0;
    for (int32_t i = 0; i < g->shards; i++) {
        const char *message = message_at(g, m, 0, i, row);
        uint32_t range[2];
        memcpy(range, message, 8);
        if (i == asker && range[1] != g->ranks[i].draw.n) return 0;
        if (range[1] == 0) continue;
        if (i == asker && range[0] != g->ranks[i].draw.first) return 0;
        if (range[0] < end) return 0;
        end = (uint64_t)range[0] + range[1];
    }
    if (end > (uint64_t)g->vocab) return 0;
    for (int32_t i = 0; i < g->shards; i++) {
        const char *message = message_at(g, m, 0, i, row);
        memcpy(places, message + at, 8 * (size_t)places_of(g));
        if (!are_places(g, message, places)) all_are_places = 0;
        if (i == asker && places_of(g) && places[0] != own) return 0;
        if (places_of(g) && places[0] > best) best = places[0];
    }
    if (!all_are_places) return 0;
    if (is_nan_state(&kept) || !places_of(g)) return 1;
    if (best == 0 || !holds_logit(g, &kept, logit_of_key((uint32_t)(best >> 32)))) return 0;
    return is_nan_state(&model) || holds_logit(g, &model, logit_of_key((uint32_t)(best >> 32)));
}

static int is_right_kept(const game *g, messages *m, int32_t round, int64_t row)
{
    record kept;
    uint64_t sum = 0;
    if (!merge_states(g, m, round, row, 0, &kept) || is_nan_state(&kept)) return 0;
    for (int32_t i = 0; i < g->shards; i++) {
        uint32_t words[10];
        memcpy(words, message_at(g, m, round, i, row), 40);
        sum += words[8];
        if (words[9] || (words[8] == 0) != (words[0] == 0)) return 0;
    }
    return sum <= (uint64_t)g->vocab;
}

/* before: the messages that the states are in, of the round before. */
static int is_right_token(const game *g, messages *m, messages *before, messages *begin,
                          int32_t round, int64_t row)
{
    record kept, model;
    uint32_t x = 0, id = 0;
    for (int32_t i = 0; i < g->shards; i++) {
        uint32_t its[2];
        memcpy(its, message_at(g, m, round, i, row), 8);
        if (its[1] == 0 && its[0] != 0) return 0;
        if (its[1] == 0) continue;
        if (id) return 0;
        x = its[0];
        id = its[1];
    }
    if (id == 0 || id > g->vocab) return 0;
    merge_states(g, before, round - 1, row, is_begin(round - 1) ? 8 : 0, &kept);
    model = kept;
    if (!holds_logit(g, &kept, x)) return 0;
    merge_states(g, begin, 0, row, has_model(g) ? 40 : 8, &model);
    return is_nan_state(&model) || holds_logit(g, &model, x);
}

/* ---- damage -------------------------------------------------------------------------------- */

typedef struct damage {
    int32_t round, shard;
    int64_t row;
} damage;

/* Replaces or changes the message of one rank for one row of a round, in `to`. */
static void spoil(source *s, const game *g, record_of_draw *p, record_of_draw *other,
                  const damage *d, messages *to)
{
    const int64_t bytes = bytes_of(g, d->round);
    const int64_t place = (byte(s) * 256 + byte(s)) % bytes;
    char *at = message_at(g, to, d->round, d->shard, d->row);
    const char *from = NULL;
    int64_t length = bytes;
    uint64_t value;
    switch (byte(s) % 9) {
    case 0: at[place] = (char)(at[place] ^ 1 << byte(s) % 8); break;
    case 1: memset(at + place, 0, (size_t)(bytes - place)); break; /* its tail is lost */
    case 2:                                                        /* another rank's */
        from = message_at(g, &p->all[d->round + 1], d->round, byte(s) % g->shards, d->row);
        break;
    case 3: /* another row's */
        from = message_at(g, &p->all[d->round + 1], d->round, d->shard, byte(s) % g->rows);
        break;
    case 4: { /* another round's */
        const int32_t round = byte(s) % g->rounds;
        if (bytes_of(g, round) < length) length = bytes_of(g, round);
        from = message_at(g, &p->all[round + 1], round, d->shard, d->row);
        break;
    }
    case 5: /* that of the draw with other random bits */
        from = message_at(g, &other->all[d->round + 1], d->round, d->shard, d->row);
        break;
    case 6: /* a sum, or two numbers */
        value = byte(s) % 2 ? word(s) : byte(s);
        memcpy(at + place / 8 * 8, &value, 8);
        break;
    case 7: /* a number */
        value = byte(s) % 2 ? word(s) : byte(s);
        memcpy(at + place / 4 * 4, &value, 4);
        break;
    default:
        for (int64_t i = 0; i < bytes; i++) at[i] = (char)byte(s);
        break;
    }
    if (from) memmove(at, from, (size_t)length);
}

/* -1 where the definition's checks of a round are not written out here. */
static int is_right(const game *g, record_of_draw *p, messages *m, const damage *d, int32_t asker)
{
    if (!g->mask[d->row]) return 1;
    if (is_begin(d->round)) return is_right_begin(g, m, &p->all[1], d->row, asker);
    {
        record kept; /* of a row with nothing to draw from, later messages are not looked at */
        if (merge_states(g, &p->all[1], 0, d->row, 8, &kept) && is_nan_state(&kept)) return 1;
    }
    if (is_kept(g, d->round)) return is_right_kept(g, m, d->round, d->row);
    if (is_token(g, d->round))
        return is_right_token(g, m, &p->all[d->round], &p->all[1], d->round, d->row);
    return -1;
}

static void check_refusal(const sb_context *ctx, sb_status status, const damage *d)
{
    char row[64];
    const char *said = sb_last_error(ctx);
    const int length = snprintf(row, sizeof row, "row %d, ", (int)d->row);
    char round[64];
    snprintf(round, sizeof round, "messages of round %d: ", (int)d->round);
    check_status(status, ctx);
    HOLDS(status == SB_ERR_STATE, "status %d (\"%s\")", (int)status, said);
    HOLDS(strncmp(said, row, (size_t)length) == 0 && strstr(said, round), "\"%s\"", said);
}

/* The step behind a damaged round, of each rank, by both contexts. Returns whether all accept. */
static int check_step(game *g, record_of_draw *p, messages *m, const damage *d)
{
    int all_accept = 1;
    for (int32_t i = 0; i < g->shards; i++) {
        const int right = is_right(g, p, m, d, i);
        written w[2];
        sb_status status[2];
        char said[512];
        rank r[2];
        for (int k = 0; k < 2; k++) {
            r[k] = p->before[d->round + 1][i];
            clear(&w[k]);
            status[k] = step(g, contexts[k], &r[k], d->round + 1, m, (char *)w[k].mine, &w[k].d);
            if (status[k] == SB_OK) continue;
            check_refusal(contexts[k], status[k], d);
            HOLDS(is_filled(&w[k], sizeof w[k], 0), "%s", sb_last_error(contexts[k]));
            if (k == 0) snprintf(said, sizeof said, "%s", sb_last_error(contexts[0]));
            else HOLDS(strcmp(said, sb_last_error(contexts[1])) == 0, "\"%s\"", said);
        }
        HOLDS(status[0] == status[1], "isa %s", sb_context_isa(contexts[1]));
        HOLDS(memcmp(&w[0], &w[1], sizeof w[0]) == 0, "isa %s", sb_context_isa(contexts[1]));
        HOLDS(memcmp(r[0].progress, r[1].progress, sizeof r[0].progress) == 0, "progress");
        HOLDS(right < 0 || (status[0] == SB_OK) == right, "rank %d: status %d (\"%s\")", (int)i,
              (int)status[0], status[0] == SB_OK ? "" : said);
        if (status[0] != SB_OK) all_accept = 0;
        else
            for (int64_t row = 0; row < g->rows; row++)
                if (row != d->row || !g->mask[row])
                    HOLDS(same_row(g, d->round + 1, row, &w[0], &p->wrote[d->round + 1][i]),
                          "row %d, beside a damaged one", (int)row);
    }
    return all_accept;
}

/* What ranks end with that have all accepted a damaged message. */
static void check_end(const game *g, const record_of_draw *p, const record_of_draw *honest,
                      const damage *d)
{
    const drawn *first = &p->wrote[g->rounds][0].d;
    for (int32_t i = 0; i < g->shards; i++) {
        const drawn *own = &p->wrote[g->rounds][i].d;
        for (int64_t row = 0; row < g->rows; row++) {
            HOLDS(own->token[row] == first->token[row] &&
                      memcmp(&own->logprob[row], &first->logprob[row], 4) == 0 &&
                      memcmp(&own->kept_logprob[row], &first->kept_logprob[row], 4) == 0 &&
                      own->count[row] == first->count[row],
                  "row %d of rank %d", (int)row, (int)i);
            HOLDS(own->token[row] >= -1 && own->token[row] < g->vocab, "token %d",
                  (int)own->token[row]);
            HOLDS(!(own->logprob[row] > 0) && !(own->kept_logprob[row] > 0), "row %d", (int)row);
            if (row != d->row)
                HOLDS(same_row(g, g->rounds, row, &p->wrote[g->rounds][i],
                               &honest->wrote[g->rounds][i]),
                      "row %d, beside a damaged one", (int)row);
        }
    }
}

/* ---- all ----------------------------------------------------------------------------------- */

static void try_damage(source *s, game *g, record_of_draw *honest, record_of_draw *other)
{
    static record_of_draw spoilt;
    const damage d = { byte(s) % g->rounds, byte(s) % g->shards, byte(s) % g->rows };
    const int32_t next = d.round + 1;
    memcpy(spoilt.before[next], honest->before[next], sizeof spoilt.before[next]);
    spoilt.all[next] = honest->all[next];
    spoil(s, g, honest, other, &d, &spoilt.all[next]);
    if (check_step(g, honest, &spoilt.all[next], &d) && play(g, &spoilt, next) < 0)
        check_end(g, &spoilt, honest, &d);
}

int fuzz_draws(const uint8_t *data, size_t size)
{
    static record_of_draw honest, other;
    static game g, changed;
    source s = { data, size };
    open_contexts();
    make_game(&s, &g);
    plan(&g);
    memset(honest.all, 0, sizeof honest.all);
    for (int32_t i = 0; i < g.shards; i++) honest.before[0][i] = other.before[0][i] = g.ranks[i];
    HOLDS(play(&g, &honest, 0) < 0, "\"%s\", \"%s\"", sb_last_error(contexts[0]),
          sb_last_error(contexts[1]));
    check_honest(&g, &honest);

    changed = g;
    for (int64_t row = 0; row < g.rows; row++) changed.bits[row] = ~g.bits[row];
    changed.how.bits = changed.bits;
    HOLDS(play(&changed, &other, 0) < 0, "with other random bits");
    for (int i = 0; i < TRIES && (i == 0 || s.size > 0); i++) try_damage(&s, &g, &honest, &other);
    free(g.logits);
    return 0;
}
