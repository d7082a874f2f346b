/* shards.c - sb_partial, sb_merge and sb_finish on arguments made from bytes, right and wrong ones.
 *
 * What has to hold: an error, in words, exactly where samebits.h says so; outputs untouched by a
 * refusal, written whole by a success; the same bytes by another instruction set, with other
 * threads and pieces, in another order and in place; from whole rows to sb_logprob's bits. */
#include <string.h>

#include "batches.h"
#include "records.h"
#include "results.h"
#include "target.h"

enum { STATE = sizeof(sb_state_record), TARGET = sizeof(sb_target_record), SHARDS = 4 };

/* Records of so many rows, of one or several shards. */
typedef struct columns {
    sb_state_record *states;
    sb_target_record *targets;
    int64_t count;
} columns;

/* What the library takes; columns by address. */
#define RECORDS(columns)                                                                           \
    (&(sb_records){ sizeof(sb_records), SB_SUMS, (columns)->states, (columns)->targets })

static columns columns_of(int64_t count, uint8_t filled)
{
    columns c = { array(count, STATE), array(count, TARGET), count };
    if (c.states) memset(c.states, filled, (size_t)count * STATE);
    if (c.targets) memset(c.targets, filled, (size_t)count * TARGET);
    return c;
}

static void free_columns(columns *c)
{
    free(c->states);
    free(c->targets);
}

static int are_filled(const columns *c, uint8_t filled)
{
    return is_filled(c->states, (size_t)(c->states ? c->count : 0) * STATE, filled) &&
           is_filled(c->targets, (size_t)(c->targets ? c->count : 0) * TARGET, filled);
}

static int are_same(const columns *a, const columns *b)
{
    return a->count == 0 || (memcmp(a->states, b->states, (size_t)a->count * STATE) == 0 &&
                             memcmp(a->targets, b->targets, (size_t)a->count * TARGET) == 0);
}

static void put_record(columns *c, int64_t i, const record *r)
{
    if (c->states) memcpy((char *)c->states + i * STATE, &r->state, STATE);
    if (c->targets) memcpy((char *)c->targets + i * TARGET, &r->target, TARGET);
}

/* Left out now and then. */
static void leave_out(source *s, columns *c)
{
    if (byte(s) > 250) {
        free(c->states);
        c->states = NULL;
    }
    if (byte(s) > 250) {
        free(c->targets);
        c->targets = NULL;
    }
}

static int are_there(const columns *c, int64_t rows)
{
    return rows == 0 || (c->states && c->targets);
}

static int is_same_record(const record *a, const record *b)
{
    return memcmp(&a->state, &b->state, STATE) == 0 && memcmp(&a->target, &b->target, TARGET) == 0;
}

/* A refused record's place is named: where, if that is not empty. */
static void check_place(const sb_context *ctx, sb_status status, const char *where)
{
    if (where[0] == '\0') return;
    HOLDS(status == SB_ERR_STATE, "status %d, not that of a record", (int)status);
    HOLDS(strncmp(sb_last_error(ctx), where, strlen(where)) == 0, "%s: \"%s\"", where,
          sb_last_error(ctx));
}

static void check_refusal(sb_status status, int right, const sb_context *ctx)
{
    check_status(status, ctx);
    HOLDS((status == SB_OK) == right, "status %d (\"%s\")", (int)status, sb_last_error(ctx));
}

/* ---- sb_partial ---------------------------------------------------------------------------- */

static void check_record(const sb_batch *b, int64_t row, part held, const record *r)
{
    int64_t id = id_of(b, row);
    record none;
    memset(&none, 0, sizeof none);
    if (is_ignored(b, row)) {
        HOLDS(is_same_record(r, &none), "ignored row %lld", (long long)row);
        return;
    }
    HOLDS(is_mergeable(r, c_of(temperature_of(b, row))), "row %lld", (long long)row);
    HOLDS(r->target.owners == (id >= held.first && id < held.first + held.n), "row %lld",
          (long long)row);
    HOLDS(held.n || r->state.J == 0, "row %lld", (long long)row);
}

static void try_partial(source *s)
{
    options o = options_of(s);
    sb_batch batch = SB_BATCH_INIT;
    arrays a = { 0 };
    part held;
    columns first, again;
    sb_status status;
    int right;

    make_batch(s, &a, &batch, &held);
    first = columns_of(a.rows, 0xa5);
    again = columns_of(a.rows, 0x5a);
    if (!(o.wanted & 128)) leave_out(s, &first);
    right = is_right_launch(&o.launch) && is_right_batch(&batch, a.rows, held) &&
            are_there(&first, a.rows);
    status = sb_partial(contexts[0], RECORDS(&first), &batch, held.first, held.n, &o.launch);
    check_refusal(status, right, contexts[0]);
    if (right) {
        guard_logits(&batch, &a, held);
        for (int64_t row = 0; row < a.rows; row++) {
            record r = record_at(first.states, first.targets, row);
            check_record(&batch, row, held, &r);
        }
        o.launch.split = o.launch.split == 1 ? 3 : 1;
        for (int i = 0; i < 2; i++) {
            HOLDS(sb_partial(contexts[i], RECORDS(&again), &batch, held.first, held.n, &o.launch) ==
                      SB_OK,
                  "%s", sb_last_error(contexts[i]));
            HOLDS(are_same(&first, &again), "isa %s", sb_context_isa(contexts[i]));
        }
    } else HOLDS(are_filled(&first, 0xa5), "%s", sb_last_error(contexts[0]));
    free_columns(&first);
    free_columns(&again);
    free_arrays(&a);
}

/* ---- sb_merge ------------------------------------------------------------------------------ */

/* Whether all may be merged; where is the first record that may not. */
static int are_mergeable(const columns *from, int64_t shards, int64_t rows, char where[64])
{
    for (int64_t i = 0; i < shards * rows; i++) {
        int64_t row = i / shards, shard = i % shards;
        record r = record_at(from->states, from->targets, shard * rows + row);
        record head = record_at(from->states, from->targets, row);
        if (is_mergeable(&r, head.state.c)) continue;
        snprintf(where, 64, "row %lld, shard %lld: ", (long long)row, (long long)shard);
        return 0;
    }
    return 1;
}

/* By the definition. */
static columns merged_columns(const columns *from, int64_t shards, int64_t rows)
{
    columns c = columns_of(rows, 0);
    for (int64_t row = 0; row < rows; row++) {
        record r = record_at(from->states, from->targets, row);
        for (int64_t shard = 1; shard < shards; shard++) {
            record other = record_at(from->states, from->targets, shard * rows + row);
            r = merged(&r, &other);
        }
        put_record(&c, row, &r);
    }
    return c;
}

static columns reversed(const columns *from, int64_t shards, int64_t rows)
{
    columns c = columns_of(shards * rows, 0);
    for (int64_t i = 0; i < shards * rows; i++) {
        record r = record_at(from->states, from->targets, i);
        put_record(&c, (shards - 1 - i / rows) * rows + i % rows, &r);
    }
    return c;
}

static void merge_again(const columns *from, int64_t shards, int64_t rows)
{
    columns want = merged_columns(from, shards, rows), other = reversed(from, shards, rows);
    columns got = columns_of(rows, 0x5a);
    HOLDS(sb_merge(contexts[1], RECORDS(&got), RECORDS(from), shards, rows, NULL) == SB_OK, "%s",
          sb_last_error(contexts[1]));
    HOLDS(are_same(&want, &got), "merged");
    HOLDS(sb_merge(contexts[1], RECORDS(&other), RECORDS(&other), shards, rows, NULL) == SB_OK,
          "%s", sb_last_error(contexts[1]));
    other.count = rows;
    HOLDS(are_same(&want, &other), "in place, in reverse");
    free_columns(&want);
    free_columns(&other);
    free_columns(&got);
}

static void try_merge(source *s)
{
    options o = options_of(s);
    int64_t shards = extent(s, SHARDS), rows = extent(s, 5), count = times(shards, rows);
    columns from = columns_of(count, 0), to = columns_of(times(rows, 1), 0xa5);
    uint32_t c = c_of(temperature(s));
    char where[64] = "";
    sb_status status;
    int right;

    for (int64_t i = 0; i < count && from.states && from.targets; i++) {
        record r = make_record(s, c, byte(s) % 4 == 0);
        put_record(&from, i, &r);
    }
    if (!(o.wanted & 128)) leave_out(s, &from);
    if (!(o.wanted & 64)) leave_out(s, &to);
    right = o.launch.size == sizeof o.launch && shards >= 1 && rows >= 0 &&
            are_there(&from, rows) && are_there(&to, rows) &&
            (rows == 0 || are_mergeable(&from, shards, rows, where));
    /* Without rows shards may be any number. */
    status = sb_merge(contexts[0], RECORDS(&to), RECORDS(&from), shards, rows, &o.launch);
    check_refusal(status, right, contexts[0]);
    check_place(contexts[0], status, where);
    if (!right) HOLDS(are_filled(&to, 0xa5), "%s", sb_last_error(contexts[0]));
    else if (rows) merge_again(&from, shards, rows);
    free_columns(&from);
    free_columns(&to);
}

/* ---- sb_finish ----------------------------------------------------------------------------- */

static columns make_records(source *s, const sb_batch *b, int64_t rows)
{
    columns c = columns_of(rows, 0);
    for (int64_t row = 0; row < rows && c.states && c.targets; row++) {
        record r = make_record(s, c_of(temperature_of(b, row)), 1);
        put_record(&c, row, &r);
    }
    return c;
}

static int are_finishable(const sb_batch *b, const columns *c, int64_t rows, char where[64])
{
    for (int64_t row = 0; row < rows; row++) {
        record r = record_at(c->states, c->targets, row);
        if (is_ignored(b, row) || is_finishable(&r, c_of(temperature_of(b, row)))) continue;
        snprintf(where, 64, "row %lld: ", (long long)row);
        return 0;
    }
    return 1;
}

static void try_finish(source *s)
{
    options o = options_of(s);
    sb_batch batch = SB_BATCH_INIT;
    arrays a = { 0 };
    part none = { 0, 0 };
    columns records;
    char where[64] = "";
    int right;

    make_batch(s, &a, &batch, &none);
    none.first = none.n = 0; /* logits and strides are not looked at */
    records = make_records(s, &batch, a.rows);
    if (!(o.wanted & 128)) leave_out(s, &records);
    right = is_right_out_size(o.out_size) && is_right_launch(&o.launch) &&
            is_right_batch(&batch, a.rows, none) && are_there(&records, a.rows) &&
            are_finishable(&batch, &records, a.rows, where);
    results first = results_of(o.wanted, &batch, a.rows, 0xa5);
    for (int i = 0; i < 2; i++) {
        results again = results_of(o.wanted, &batch, a.rows, i ? 0x5a : 0xa5);
        results *r = i ? &again : &first;
        sb_status status;
        r->out.size = o.out_size;
        status = sb_finish(contexts[i], &r->out, &batch, RECORDS(&records), &o.launch);
        check_refusal(status, right, contexts[i]);
        check_place(contexts[i], status, where);
        for (int64_t row = 0; status == SB_OK && r->out.token && row < a.rows; row++)
            HOLDS(!(r->out.token[row] > 0), "row %lld: %.9g", (long long)row,
                  (double)r->out.token[row]);
        HOLDS(status == SB_OK ? same_results(&first, r) : untouched(r), "isa %s",
              sb_context_isa(contexts[i]));
        free_results(&again);
    }
    free_results(&first);
    free_columns(&records);
    free_arrays(&a);
}

/* ---- all three ----------------------------------------------------------------------------- */

/* The records of the shard of whole rows whose logits are given. */
static void write_shard(const sb_batch *whole, part held, const sb_launch *launch, columns *to,
                        int64_t shard, int64_t rows)
{
    const columns own = { to->states + shard * rows, to->targets + shard * rows, rows };
    sb_batch b = *whole;
    sb_context *ctx = contexts[shard % 2];
    int64_t stride = whole->row_stride ? whole->row_stride : whole->vocab;
    b.row_stride = stride;
    if (!whole->cu_seqlens)
        b.batch_stride = whole->batch_stride ? whole->batch_stride : whole->time * stride;
    if (whole->logits)
        b.logits = (const char *)whole->logits + held.first * (b.logits_dtype == SB_F32 ? 4 : 2);
    HOLDS(sb_partial(ctx, RECORDS(&own), &b, held.first, held.n, launch) == SB_OK, "%s",
          sb_last_error(ctx));
}

/* leaves: of each shard but the last, which takes what is left. */
static void check_shards(const options *o, const uint8_t leaves[SHARDS], const sb_batch *batch,
                         const arrays *a, const results *want)
{
    results got = results_of(o->wanted, batch, a->rows, 0x5a);
    columns parts = columns_of(times(SHARDS, a->rows), 0xa5), all = columns_of(a->rows, 0xa5);
    part held = { 0, 0 };
    for (int64_t shard = 0; shard < SHARDS; shard++) {
        int64_t left = batch->vocab - held.first, n = 16 * leaves[shard];
        held.n = n < left && shard < SHARDS - 1 ? n : left;
        write_shard(batch, held, &o->launch, &parts, shard, a->rows);
        held.first += held.n;
    }
    HOLDS(sb_merge(contexts[0], RECORDS(&all), RECORDS(&parts), SHARDS, a->rows, NULL) == SB_OK,
          "%s", sb_last_error(contexts[0]));
    HOLDS(sb_finish(contexts[1], &got.out, batch, RECORDS(&all), NULL) == SB_OK, "%s",
          sb_last_error(contexts[1]));
    HOLDS(same_results(want, &got), "shards");
    free_columns(&parts);
    free_columns(&all);
    free_results(&got);
}

static void try_whole(source *s)
{
    options o = options_of(s);
    sb_batch batch = SB_BATCH_INIT;
    arrays a = { 0 };
    uint8_t leaves[SHARDS];
    results want;

    for (int i = 0; i < SHARDS; i++) leaves[i] = byte(s) % 4;
    make_batch(s, &a, &batch, NULL);
    want = results_of(o.wanted, &batch, a.rows, 0xa5);
    if (sb_logprob(contexts[0], &want.out, &batch, &o.launch) == SB_OK &&
        times(SHARDS * STATE, a.rows) >= 0) {
        part all = { 0, batch.vocab };
        guard_logits(&batch, &a, all);
        check_shards(&o, leaves, &batch, &a, &want);
    }
    free_results(&want);
    free_arrays(&a);
}

int fuzz_shards(const uint8_t *data, size_t size)
{
    static void (*const tries[])(source * s) = { try_partial, try_merge, try_finish, try_whole };
    source s = { data, size };
    open_contexts();
    tries[byte(&s) % 4](&s);
    return 0;
}
