/* rows.c - sb_logprob_ids, sb_topk, sb_sample, sb_logprob_backward, sb_logprob with a gradient and
 * sb_kl on arguments made from bytes, right and wrong ones.
 *
 * What has to hold: an error, in words, exactly where samebits.h says so; outputs untouched by a
 * refusal, written whole by a success; the same bits again by another instruction set, with other
 * threads and pieces. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "batches.h"
#include "records.h"
#include "results.h"
#include "target.h"

enum { OUTPUTS = 3, SAVED = sizeof(sb_saved_row) };

/* Output arrays of a call, any of them null. */
typedef struct outputs {
    void *data[OUTPUTS];
    size_t bytes[OUTPUTS];
    uint8_t filled;
} outputs;

/* counts: elements of 4 bytes; a bit of wanted each. */
static outputs outputs_of(uint8_t wanted, const int64_t counts[OUTPUTS], uint8_t filled)
{
    outputs o = { { NULL, NULL, NULL }, { 0, 0, 0 }, filled };
    for (int i = 0; i < OUTPUTS; i++) {
        if (!(wanted >> i & 1) || times(counts[i], 4) < 0) continue;
        o.bytes[i] = (size_t)counts[i] * 4;
        o.data[i] = filled_memory(o.bytes[i], filled);
    }
    return o;
}

static void free_outputs(outputs *o)
{
    for (int i = 0; i < OUTPUTS; i++) free(o->data[i]);
}

static int are_untouched(const outputs *o)
{
    for (int i = 0; i < OUTPUTS; i++)
        if (!is_filled(o->data[i], o->bytes[i], o->filled)) return 0;
    return 1;
}

static int are_same(const outputs *a, const outputs *b)
{
    for (int i = 0; i < OUTPUTS; i++)
        if (a->data[i] && a->bytes[i] && memcmp(a->data[i], b->data[i], a->bytes[i]) != 0) return 0;
    return 1;
}

/* A call under test, whatever it is. */
typedef struct job {
    sb_status (*call)(const struct job *job, sb_context *ctx, const outputs *out,
                      const sb_launch *launch);
    const sb_batch *batch, *other;
    const arrays *arrays;
    uint32_t out_size;
    int64_t k;
    const sb_gradient *gradient;
    int right;
    const sb_sampling *how;
} job;

/* Calls it twice, in other ways; counts and wanted: as outputs_of has them. The first outputs. */
static outputs try_job(const job *j, const options *o, const int64_t counts[OUTPUTS])
{
    outputs first = outputs_of(o->wanted, counts, 0xa5), again;
    sb_launch launch = o->launch;
    sb_status status = j->call(j, contexts[0], &first, &launch);
    check_status(status, contexts[0]);
    HOLDS((status == SB_OK) == j->right, "status %d (\"%s\")", (int)status,
          sb_last_error(contexts[0]));
    if (status != SB_OK) HOLDS(are_untouched(&first), "%s", sb_last_error(contexts[0]));
    again = outputs_of(o->wanted, counts, status == SB_OK ? 0x5a : 0xa5);
    if (status == SB_OK) launch.split = launch.split == 1 ? 3 : 1;
    HOLDS(j->call(j, contexts[1], &again, &launch) == status, "%s", sb_last_error(contexts[1]));
    HOLDS(are_same(&first, &again), "isa %s", sb_context_isa(contexts[1]));
    free_outputs(&again);
    return first;
}

static int is_right_size(uint32_t size, uint32_t right) { return size == right; }

/* ---- several ids, and the first ones ------------------------------------------------------ */

static sb_status call_ids(const job *j, sb_context *ctx, const outputs *o, const sb_launch *launch)
{
    sb_ids_out out = SB_IDS_OUT_INIT;
    out.size = j->out_size;
    out.logprob = o->data[0];
    out.rank = o->data[1];
    out.lse = o->data[2];
    return sb_logprob_ids(ctx, &out, j->batch, j->k, launch);
}

static sb_status call_topk(const job *j, sb_context *ctx, const outputs *o, const sb_launch *launch)
{
    sb_topk_out out = SB_TOPK_OUT_INIT;
    out.size = j->out_size;
    out.logprob = o->data[0];
    out.ids = o->data[1];
    out.lse = o->data[2];
    return sb_topk(ctx, &out, j->batch, j->k, launch);
}

/* Logprobs are no more than 0, and integers of present ids in range. */
static void check_columns(const outputs *o, int64_t count, int64_t vocab)
{
    const float *logprobs = o->data[0];
    const int32_t *integers = o->data[1];
    for (int64_t i = 0; i < count; i++) {
        if (logprobs) HOLDS(!(logprobs[i] > 0), "%.9g", (double)logprobs[i]);
        if (integers) HOLDS(integers[i] >= -1 && integers[i] <= vocab, "%d", (int)integers[i]);
    }
}

static void try_columns(source *s, const options *o, int64_t k, sb_batch *batch, arrays *a,
                        int is_topk)
{
    const part all = { 0, batch->vocab };
    int64_t counts[OUTPUTS] = { times(a->rows, k), times(a->rows, k), a->rows };
    sb_batch one;
    outputs out;
    job j = { is_topk ? call_topk : call_ids, batch, NULL, a, 0, k, NULL, 0, NULL };
    if (k < 0 || times(counts[0], 8) < 0) k = j.k = 0; /* too large for the arrays */
    if (is_topk && byte(s) % 2) batch->ids = NULL;
    if (!is_topk && batch->ids) {
        free(a->ids);
        batch->ids = a->ids = make_ids(s, batch, counts[0]);
    }
    one = narrowed(batch, a->rows, is_topk ? batch->ids != NULL : k);
    j.out_size = struct_size(s, is_topk ? sizeof(sb_topk_out) : sizeof(sb_ids_out));
    j.right = is_right_size(j.out_size, is_topk ? sizeof(sb_topk_out) : sizeof(sb_ids_out)) &&
              k >= 1 && k <= (is_topk ? SB_MAX_TOPK : SB_MAX_VOCAB) &&
              is_right_launch(&o->launch) && is_right_batch(&one, a->rows, all);
    if (j.right) guard_logits(&one, a, all);
    out = try_job(&j, o, counts);
    if (j.right) check_columns(&out, counts[0], batch->vocab);
    free_outputs(&out);
    free((void *)(uintptr_t)one.ids);
}

static void try_ids(source *s, const options *o, sb_batch *batch, arrays *a)
{
    try_columns(s, o, extent(s, 5), batch, a, 0);
}

static void try_topk(source *s, const options *o, sb_batch *batch, arrays *a)
{
    try_columns(s, o, extent(s, 70), batch, a, 1);
}

/* ---- draws ---------------------------------------------------------------------------------- */

static sb_status call_sample(const job *j, sb_context *ctx, const outputs *o,
                             const sb_launch *launch)
{
    sb_sample_out out = SB_SAMPLE_OUT_INIT;
    out.size = j->out_size;
    out.token = o->data[0];
    out.kept_logprob = o->data[1];
    out.kept = o->data[2];
    return sb_sample(ctx, &out, j->batch, j->how, launch);
}

/* A share: usual ones, ends, and ones out of range. */
static float share(source *s)
{
    static const float shares[] = { 0.0f, 1.0f, 0.5f, 0.9f, 0x1p-149f, 0.25f, 1.5f, -0.5f, NAN };
    const uint8_t b = byte(s);
    return shares[b < 224 ? b % 6 : 6 + b % 3];
}

static int is_right_how(const sb_sampling *how, int64_t rows)
{
    if (how->size != sizeof *how || how->top_k < 0 || (how->u && how->bits)) return 0;
    if (!(how->top_p > 0 && how->top_p <= 1) || !(how->min_p >= 0 && how->min_p <= 1)) return 0;
    return rows <= 1 || how->top_k == 1 || how->positions || how->bits || how->u;
}

/* Tokens are kept ids. */
static void check_tokens(const outputs *o, const sb_batch *batch, int64_t rows)
{
    const int32_t *tokens = o->data[0];
    const float *logprobs = o->data[1];
    const uint32_t *kept = o->data[2];
    for (int64_t row = 0; row < rows; row++) {
        if (logprobs) HOLDS(!(logprobs[row] > 0), "%.9g", (double)logprobs[row]);
        if (!tokens) continue;
        HOLDS(tokens[row] >= -1 && tokens[row] < batch->vocab, "%d", (int)tokens[row]);
        if (kept && tokens[row] >= 0)
            HOLDS(kept[row * ((batch->vocab + 31) / 32) + tokens[row] / 32] >> tokens[row] % 32 & 1,
                  "row %lld: id %d is not kept", (long long)row, (int)tokens[row]);
    }
}

/* The batch of a part of the ids of one of whole rows. */
static sb_batch shard_batch(const sb_batch *batch, part held)
{
    sb_batch shard = *batch;
    const int64_t size = batch->logits_dtype == SB_F32 ? 4 : 2;
    if (shard.row_stride == 0) shard.row_stride = batch->vocab;
    if (shard.batch_stride == 0) shard.batch_stride = batch->time * shard.row_stride;
    if (batch->logits) shard.logits = (const char *)batch->logits + held.first * size;
    return shard;
}

/* Draws what sb_sample has drawn again, from two shards. Messages may be damaged: then a call says
 * so, or gives a token of the row. */
static void try_shards(source *s, const sb_batch *batch, const sb_sampling *how, int64_t rows,
                       const outputs *want)
{
    const int64_t asked = byte(s) % 4 * 16, cut = asked < batch->vocab ? asked : 0;
    const part parts[2] = { { 0, cut }, { cut, batch->vocab - cut } };
    sb_sample_out out = SB_SAMPLE_OUT_INIT;
    sb_draw draws[2] = { SB_DRAW_INIT, SB_DRAW_INIT };
    uint64_t *all = NULL;
    int damaged = 0;
    sb_status status = SB_OK;
    out.token = array(rows, 4);
    out.kept_logprob = array(rows, 4);
    for (int i = 0; i < 2; i++) {
        draws[i].shard = i;
        draws[i].shards = 2;
        draws[i].first = parts[i].first;
        draws[i].n = parts[i].n;
        draws[i].progress = array(rows, SB_DRAW_PROGRESS);
        HOLDS(sb_draw_plan(contexts[i], &draws[i], &out, batch, how) == SB_OK, "%s",
              sb_last_error(contexts[i]));
    }
    for (int32_t round = 0; round < draws[0].rounds && status == SB_OK; round++) {
        const int64_t bytes = rows * draws[0].bytes[round];
        uint64_t *next = array(2 * bytes, 1);
        for (int i = 0; i < 2 && status == SB_OK; i++) {
            const sb_batch shard = shard_batch(batch, parts[i]);
            status = sb_draw_round(contexts[i], (char *)next + i * bytes, all, &draws[i], round,
                                   &shard, how, NULL);
            check_status(status, contexts[i]);
        }
        if (status == SB_OK && bytes > 0 && byte(s) > 200) {
            ((uint8_t *)next)[(byte(s) * 256 + byte(s)) % (2 * bytes)] ^= 1 << byte(s) % 8;
            damaged = 1;
        }
        free(all);
        all = next;
    }
    for (int i = 0; i < 2 && status == SB_OK; i++) {
        const sb_batch shard = shard_batch(batch, parts[i]);
        status = sb_draw_finish(contexts[i], &out, all, &draws[i], &shard, how, NULL);
        check_status(status, contexts[i]);
    }
    HOLDS(status == SB_OK || (damaged && status == SB_ERR_STATE), "status %d", (int)status);
    for (int64_t row = 0; row < rows && status == SB_OK; row++) {
        HOLDS(out.token[row] >= -1 && out.token[row] < batch->vocab, "%d", (int)out.token[row]);
        HOLDS(!(out.kept_logprob[row] > 0), "%.9g", (double)out.kept_logprob[row]);
        if (!damaged && want->data[0])
            HOLDS(out.token[row] == ((const int32_t *)want->data[0])[row], "row %lld",
                  (long long)row);
    }
    for (int i = 0; i < 2; i++) free(draws[i].progress);
    free(out.token);
    free(out.kept_logprob);
    free(all);
}

static void try_sample(source *s, const options *o, sb_batch *batch, arrays *a)
{
    const part all = { 0, batch->vocab };
    const int64_t words = batch->vocab > 0 ? (batch->vocab - 1) / 32 + 1 : 0;
    const int64_t counts[OUTPUTS] = { a->rows, a->rows, times(a->rows, words) };
    const size_t room = a->rows > 0 && a->rows < 1 << 20 ? (size_t)a->rows : 1;
    uint64_t *numbers = calloc(room, sizeof *numbers);
    sb_sampling how = SB_SAMPLING_INIT;
    sb_batch one;
    outputs out;
    job j = { .call = call_sample, .batch = batch, .arrays = a, .how = &how };
    const uint8_t choice = byte(s);
    for (size_t i = 0; numbers && i < room; i++)
        numbers[i] = (uint64_t)byte(s) * (UINT64_MAX / 255);
    how.size = struct_size(s, sizeof how);
    how.top_k = choice % 5 == 4 ? -(int32_t)(byte(s) % 8) : choice % 2 ? byte(s) : 0;
    how.top_p = choice & 8 ? share(s) : 1.0f;
    how.min_p = choice & 16 ? share(s) : 0.0f;
    if (choice & 32) how.bits = numbers;
    else if (choice & 64) how.positions = numbers;
    if (choice % 2) batch->ids = NULL;
    one = narrowed(batch, a->rows, batch->ids != NULL);
    j.out_size = struct_size(s, sizeof(sb_sample_out));
    j.right = numbers && is_right_size(j.out_size, sizeof(sb_sample_out)) &&
              is_right_launch(&o->launch) && is_right_batch(&one, a->rows, all) &&
              is_right_how(&how, a->rows);
    if (j.right) guard_logits(&one, a, all);
    out = try_job(&j, o, counts);
    if (j.right) check_tokens(&out, batch, a->rows);
    if (j.right && choice & 128) try_shards(s, batch, &how, a->rows, &out);
    free_outputs(&out);
    free(numbers);
    free((void *)(uintptr_t)one.ids);
}

/* ---- gradients ---------------------------------------------------------------------------- */

static sb_status call_backward(const job *j, sb_context *ctx, const outputs *o,
                               const sb_launch *launch)
{
    sb_gradient gradient = *j->gradient;
    gradient.grad = o->data[0];
    return sb_logprob_backward(ctx, &gradient, j->batch, launch);
}

/* In the same call as the logprobs. */
static sb_status call_together(const job *j, sb_context *ctx, const outputs *o,
                               const sb_launch *launch)
{
    sb_gradient gradient = *j->gradient;
    sb_logprob_out out = SB_LOGPROB_OUT_INIT;
    gradient.grad = o->data[0];
    out.gradient = &gradient;
    return sb_logprob(ctx, &out, j->batch, launch);
}

/* That the largest logit's term is no more than the sum. */
static int is_in_sum(const sb_saved_row *r, uint32_t c)
{
    float best;
    term t;
    memcpy(&best, &r->best, 4);
    t = term_of(best, c);
    return t.e - r->e < 100 && ldexp(t.m, t.e - r->e) <= r->g;
}

/* As docs/numerics.md has it, section "Gradients". */
static int is_right_saved(const sb_saved_row *r, uint32_t c, int entropy)
{
    if (r->kind < 1 || r->kind > 3 || r->c != c) return 0;
    if (r->kind == 3) return 1;
    if (!(r->g > 0.70 && r->g < 1.42) || r->e > 1 << 22 || r->e < -(1 << 22)) return 0;
    if (!entropy) return 1;
    return r->kind == 2 && r->h2 >= 0 && r->h2 < 64 && (r->best & 0x7f800000) != 0x7f800000 &&
           is_in_sum(r, c);
}

static int are_right_saved(const sb_batch *b, const sb_gradient *g, int64_t rows)
{
    for (int64_t row = 0; row < rows; row++)
        if (!is_ignored(b, row) &&
            !is_right_saved(&g->saved[row], c_of(temperature_of(b, row)), g->entropy != NULL))
            return 0;
    return 1;
}

/* saved: whether the saved rows are given. */
static int is_right_gradient(const sb_gradient *g, const sb_batch *b, part held, int64_t rows,
                             int saved)
{
    if (g->size != sizeof *g || g->dtype < SB_F32 || g->dtype > SB_BF16) return 0;
    if (g->batch_stride != 0 || (g->width != 0 && g->width < held.n)) return 0;
    if (g->row_stride != 0 && g->row_stride < (g->width ? g->width : held.n)) return 0;
    if (rows == 0) return 1;
    return (g->token || g->entropy) && (!saved || (g->saved && are_right_saved(b, g, rows)));
}

/* What is left of rows with the logits of one part alone, whose targets are absent. */
static void save_part(sb_saved_row *saved, const sb_batch *b, part held, int64_t rows, int entropy)
{
    sb_moment_record *moments = array(rows, sizeof *moments);
    sb_target_record *targets = array(rows, sizeof *targets);
    float *values = array(rows, 4);
    const sb_records records = { sizeof records, SB_MOMENTS, moments, targets };
    sb_logprob_out out = SB_LOGPROB_OUT_INIT;
    out.saved = saved;
    out.entropy = entropy ? values : NULL;
    if (moments && targets && values &&
        sb_partial(contexts[1], &records, b, held.first, held.n, NULL) == SB_OK) {
        for (int64_t row = 0; row < rows; row++) {
            targets[row].x = 0xff800000;
            targets[row].owners = 1;
        }
        HOLDS(sb_finish(contexts[1], &out, b, &records, NULL) == SB_OK, "%s",
              sb_last_error(contexts[1]));
    }
    free(moments);
    free(targets);
    free(values);
}

/* The same with a byte changed now and then; *changed: whether one is. */
static sb_saved_row *make_saved(source *s, const sb_batch *b, part held, int64_t rows, int entropy,
                                int *changed)
{
    sb_saved_row *saved = array(rows, SAVED);
    if (saved) memset(saved, 0, (size_t)rows * SAVED);
    if (saved) save_part(saved, b, held, rows, entropy);
    *changed = saved && rows && byte(s) > 200;
    if (*changed) {
        uint8_t *bytes = (uint8_t *)&saved[byte(s) % rows];
        bytes[byte(s) % SAVED] = byte(s);
    }
    return saved;
}

/* Tries the job of a whole batch again in the same call as the logprobs. same: the gradient that
 * the call for it alone has given, or null. */
static void try_together(const job *alone, const options *o, const int64_t counts[OUTPUTS],
                         const arrays *a, const outputs *same)
{
    const part all = { 0, alone->batch->vocab };
    sb_gradient g = *alone->gradient;
    job j = *alone;
    outputs out;
    g.saved = NULL;
    g.first = g.held = 0;
    j.gradient = &g;
    j.call = call_together;
    j.right = is_right_launch(&o->launch) && is_right_batch(j.batch, a->rows, all) &&
              is_right_gradient(&g, j.batch, all, a->rows, 0);
    if (times(counts[0], 4) < 0) j.right = a->rows == 0 && j.right;
    if (j.right) guard_logits(j.batch, a, all);
    out = try_job(&j, o, counts);
    if (j.right && same) HOLDS(are_same(same, &out), "in the same call as the logprobs");
    free_outputs(&out);
}

/* held: what the batch has logits of. */
static void try_part(source *s, const options *o, sb_batch *batch, arrays *a, part held)
{
    sb_gradient g = SB_GRADIENT_INIT;
    uint8_t choice = byte(s);
    float *token = make_numbers(s, a->rows, SB_F32), *entropy = make_numbers(s, a->rows, SB_F32);
    int changed, even;
    sb_saved_row *saved = make_saved(s, batch, held, a->rows, choice % 2, &changed);
    options only = *o;
    int64_t counts[OUTPUTS] = { 0, 0, 0 }, width;
    outputs out;
    job j = { call_backward, batch, NULL, a, 0, 0, &g, 0, NULL };

    only.wanted = 1;
    g.size = struct_size(s, sizeof g);
    g.dtype = dtype(s, SB_F32, SB_BF16);
    g.first = held.first;
    g.held = held.n;
    g.width = choice & 8 && held.n >= 0 && held.n < 1 << 20 ? held.n + byte(s) % 9 - 1 : 0;
    width = g.width > 0 ? g.width : held.n;
    /* The last row's end is not written: rows follow each other without a gap. */
    g.row_stride = choice & 16 && width > 0 ? width - byte(s) / 250 : 0;
    g.token = choice & 2 ? token : NULL;
    g.entropy = choice & 4 ? entropy : NULL;
    g.saved = saved;
    counts[0] = times(a->rows, width);
    if (counts[0] > 0 && g.dtype != SB_F32) counts[0] = (counts[0] + 1) / 2;
    j.right = is_right_launch(&o->launch) && is_right_batch(batch, a->rows, held) &&
              is_right_gradient(&g, batch, held, a->rows, 1);
    if (times(counts[0], 4) < 0) j.right = a->rows == 0 && j.right;
    if (j.right) guard_logits(batch, a, held);
    even = g.dtype == SB_F32 || times(a->rows, width) % 2 == 0; /* nothing is left behind */
    if (even || !j.right) {
        out = try_job(&j, &only, counts);
        if (even && held.first == 0 && held.n == batch->vocab)
            try_together(&j, &only, counts, a, j.right && !changed ? &out : NULL);
        free_outputs(&out);
    }
    free(token);
    free(entropy);
    free(saved);
}

static void try_backward(source *s, const options *o, sb_batch *batch, arrays *a)
{
    const part all = { 0, batch->vocab };
    try_part(s, o, batch, a, all);
}

/* First and held of 0 would say all of V. */
static void try_shard(source *s, const options *o, sb_batch *batch, arrays *a, part held)
{
    if (held.first == 0 && held.n == 0) held.first = batch->vocab;
    try_part(s, o, batch, a, held);
}

/* ---- divergences -------------------------------------------------------------------------- */

static sb_status call_kl(const job *j, sb_context *ctx, const outputs *o, const sb_launch *launch)
{
    sb_kl_out out = SB_KL_OUT_INIT;
    out.size = j->out_size;
    out.token = o->data[0];
    out.sequence = o->data[1];
    return sb_kl(ctx, &out, j->batch, j->other, launch);
}

/* Of q's own only what samebits.h says is looked at. */
static sb_batch make_other(source *s, const sb_batch *p, const arrays *a)
{
    sb_batch q = SB_BATCH_INIT;
    q.size = struct_size(s, sizeof q);
    q.logits_dtype = dtype(s, SB_F32, SB_BF16);
    q.batch = p->batch;
    q.time = p->time;
    q.rows = p->rows;
    q.vocab = p->vocab;
    q.cu_seqlens = p->cu_seqlens;
    q.shift = p->shift;
    q.temperature = temperature(s);
    q.ids_dtype = byte(s);
    if (byte(s) > 250) q.vocab ^= 1;
    if (byte(s) > 250) q.shift ^= 1;
    if (byte(s) > 250) q.batch ^= 1;
    if (byte(s) > 250) *(q.cu_seqlens ? &q.rows : &q.time) ^= 1;
    if (byte(s) < 250) q.logits = make_numbers(s, times(a->rows, p->vocab), q.logits_dtype);
    return q;
}

static int is_right_pair(const sb_batch *p, const sb_batch *q, const sb_batch *one, int64_t rows)
{
    const part all = { 0, p->vocab };
    sb_batch other = *q;
    if (q->vocab != p->vocab || q->shift != p->shift || q->batch != p->batch) return 0;
    if (p->cu_seqlens ? q->rows != p->rows : q->time != p->time) return 0;
    other.cu_seqlens = p->cu_seqlens;
    other.cu_seqlens_dtype = p->cu_seqlens_dtype;
    other.ids = one->ids;
    other.ids_dtype = one->ids_dtype;
    other.ignore_index = one->ignore_index;
    other.mask = p->mask;
    other.row_list = p->row_list;
    other.row_count = p->row_count;
    return is_right_batch(one, rows, all) && is_right_batch(&other, rows, all);
}

/* Never below 0, and of p from itself nothing. */
static void check_divergences(const outputs *o, const job *j, const options *how)
{
    int64_t counts[OUTPUTS] = { j->arrays->rows, 0, 0 };
    options only = *how;
    job same = *j;
    outputs none;
    const float *tokens = o->data[0];
    only.wanted = 1;
    same.other = j->batch;
    none = try_job(&same, &only, counts);
    for (int64_t row = 0; tokens && row < counts[0]; row++) {
        const float own = ((const float *)none.data[0])[row];
        HOLDS(!signbit(tokens[row]), "row %lld: %.9g", (long long)row, (double)tokens[row]);
        HOLDS(isnan(own) || (own == 0 && !signbit(own)), "row %lld: %.9g", (long long)row,
              (double)own);
    }
    free_outputs(&none);
}

static void try_kl(source *s, const options *o, sb_batch *batch, arrays *a)
{
    const part all = { 0, batch->vocab };
    int64_t sequences = times(batch->batch, 8) < 0 ? -1 : batch->batch;
    int64_t counts[OUTPUTS] = { a->rows, sequences, 0 };
    sb_batch q = make_other(s, batch, a), one;
    outputs out;
    job j = { call_kl, batch, &q, a, struct_size(s, sizeof(sb_kl_out)), 0, NULL, 0, NULL };
    if (byte(s) % 2) batch->ids = NULL;
    one = narrowed(batch, a->rows, batch->ids != NULL);
    j.right = is_right_size(j.out_size, sizeof(sb_kl_out)) && q.size == sizeof q &&
              is_right_launch(&o->launch) && is_right_pair(batch, &q, &one, a->rows);
    if (j.right) guard_logits(&one, a, all);
    out = try_job(&j, o, counts);
    if (j.right && (o->wanted & 1)) check_divergences(&out, &j, o);
    free_outputs(&out);
    free((void *)(uintptr_t)q.logits);
    free((void *)(uintptr_t)one.ids);
}

int fuzz_rows(const uint8_t *data, size_t size)
{
    static void (*const tries[])(source * s, const options *o, sb_batch *batch,
                                 arrays *a) = { try_ids, try_topk, try_backward, try_kl };
    source s = { data, size };
    sb_batch batch = SB_BATCH_INIT;
    arrays a = { 0 };
    uint8_t choice = byte(&s);
    options o = options_of(&s);
    part held;
    open_contexts();
    if (choice % 8 == 6) {
        make_batch(&s, &a, &batch, &held);
        try_shard(&s, &o, &batch, &a, held);
    } else if (choice % 8 == 7) {
        make_batch(&s, &a, &batch, NULL);
        try_sample(&s, &o, &batch, &a);
    } else {
        make_batch(&s, &a, &batch, NULL);
        tries[choice % 4](&s, &o, &batch, &a);
    }
    free_arrays(&a);
    return 0;
}
