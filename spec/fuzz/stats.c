/* stats.c - sb_compare, sb_sums and the calls for policy losses on arguments made from bytes, right
 * and wrong ones.
 *
 * What has to hold: an error, in words, exactly where samebits.h says so; outputs untouched by a
 * refusal, written whole by a success; the same bits with other threads, and in another order. */
#include <math.h>
#include <stdlib.h>

#include "batches.h"
#include "results.h"
#include "target.h"

enum { OUTPUTS = 4 };

/* Output arrays with 8 bytes per element, so that they can hold counts, too. */
typedef struct outputs {
    void *data[OUTPUTS];
    size_t bytes;
} outputs;

static outputs outputs_of(uint8_t wanted, int64_t count, uint8_t filled)
{
    outputs o = { { NULL, NULL, NULL, NULL }, count > 0 ? (size_t)count * 8 : 0 };
    for (int i = 0; i < OUTPUTS; i++)
        if (wanted >> i & 1) o.data[i] = filled_memory(o.bytes, filled);
    return o;
}

static void free_outputs(outputs *o)
{
    for (int i = 0; i < OUTPUTS; i++) free(o->data[i]);
}

static int are_filled(const outputs *o, uint8_t filled)
{
    for (int i = 0; i < OUTPUTS; i++)
        if (!is_filled(o->data[i], o->bytes, filled)) return 0;
    return 1;
}

/* The first size bytes of element i are the same for all i < count. */
static int are_same(const outputs *a, const outputs *b, int64_t count, const size_t sizes[OUTPUTS])
{
    for (int i = 0; i < OUTPUTS; i++)
        if (a->data[i] && count > 0 &&
            memcmp(a->data[i], b->data[i], (size_t)count * sizes[i]) != 0)
            return 0;
    return 1;
}

static void check_refusal(sb_status status, int right, const sb_context *ctx)
{
    check_status(status, ctx);
    HOLDS((status == SB_OK) == right, "status %d (\"%s\")", (int)status, sb_last_error(ctx));
}

static void check_not_negative(const float *x, int64_t count)
{
    for (int64_t i = 0; x && i < count; i++)
        HOLDS(isnan(x[i]) || !signbit(x[i]), "%lld: %.9g", (long long)i, (double)x[i]);
}

static void try_compare(source *s)
{
    static const size_t sizes[OUTPUTS] = { 4, 4, 4, 4 };
    options o = options_of(s);
    int64_t count = extent(s, 40), made = times(count, 8) < 0 ? 0 : count;
    uint32_t size = struct_size(s, sizeof(sb_compare_out));
    float *sampled = byte(s) < 250 ? make_numbers(s, made, SB_F32) : NULL;
    float *other = byte(s) < 250 ? make_numbers(s, made, SB_F32) : NULL;
    outputs first = outputs_of(o.wanted, made, 0xa5), again = outputs_of(o.wanted, made, 0x5a);
    int right;
    if (made != count && count > 0) count = -count; /* too large for the arrays: wrong otherwise */
    right = size == sizeof(sb_compare_out) && o.launch.size == sizeof o.launch && count >= 0 &&
            (count == 0 || (sampled && other));
    for (int i = 0; i < 2; i++) {
        outputs *to = i ? &again : &first;
        sb_compare_out out = { size, 0, to->data[0], to->data[1], to->data[2], to->data[3] };
        check_refusal(sb_compare(contexts[i], &out, sampled, other, count, &o.launch), right,
                      contexts[i]);
    }
    if (right) {
        HOLDS(are_same(&first, &again, count, sizes), "compare");
        check_not_negative(first.data[0], count);
        check_not_negative(first.data[2], count);
        check_not_negative(first.data[3], count);
    } else HOLDS(are_filled(&first, 0xa5), "%s", sb_last_error(contexts[0]));
    free_outputs(&first);
    free_outputs(&again);
    free(sampled);
    free(other);
}

/* ---- sums --------------------------------------------------------------------------------- */

static int is_right_cu_seqlens(const sb_values *v)
{
    const int32_t *ends = v->cu_seqlens;
    if (ends[0] != 0 || ends[v->batch] != v->rows) return 0;
    for (int64_t b = 0; b < v->batch; b++)
        if (ends[b + 1] < ends[b]) return 0;
    return 1;
}

static int is_right_values(const sb_values *v, int64_t rows)
{
    if (v->size != sizeof *v || v->batch < 0 || rows < 0 || (rows > 0 && !v->values)) return 0;
    if (!v->cu_seqlens) return v->time >= 0 && v->time <= 1 << 29;
    return v->cu_seqlens_dtype == SB_I32 && v->rows >= 0 && is_right_cu_seqlens(v);
}

/* The same values, from the last to the first of each sequence of time. */
static void reverse(float *x, uint8_t *mask, int64_t sequences, int64_t time)
{
    for (int64_t b = 0; b < sequences; b++)
        for (int64_t i = 0, k = time - 1; i < k; i++, k--) {
            int64_t p = b * time + i, q = b * time + k;
            if (x) {
                float t = x[p];
                x[p] = x[q], x[q] = t;
            }
            if (mask) {
                uint8_t t = mask[p];
                mask[p] = mask[q], mask[q] = t;
            }
        }
}

static void try_sums(source *s)
{
    static const size_t sizes[OUTPUTS] = { 4, 4, 4, 8 };
    options o = options_of(s);
    sb_values v = SB_VALUES_INIT;
    int64_t rows, batch = extent(s, 6), time = extent(s, 9);
    int32_t *ends = NULL;
    float *values, *minus = NULL;
    uint8_t *mask = NULL;
    outputs first, again;
    int right;

    v.size = struct_size(s, sizeof v);
    v.batch = times(batch, 8) < 0 ? -1 : batch;
    v.time = time;
    rows = times(v.batch, time);
    if (rows < 0 || times(rows, 8) < 0) v.time = rows = -1;
    if (byte(s) % 2 && v.batch >= 0 && rows >= 0) {
        v.cu_seqlens = ends = array(v.batch + 1, 4);
        v.cu_seqlens_dtype = byte(s) < 250 ? SB_I32 : (int32_t)extent(s, 3);
        v.rows = rows;
        v.time = extent(s, 9); /* has no effect */
        for (int64_t b = 0; b <= v.batch; b++)
            ends[b] = byte(s) < 250 ? (int32_t)(b == v.batch ? rows : b * time) : byte(s);
        if (v.cu_seqlens_dtype == SB_I64) v.cu_seqlens_dtype = SB_F32;
    }
    values = byte(s) < 250 ? make_numbers(s, rows, SB_F32) : NULL;
    if (byte(s) % 2) minus = make_numbers(s, rows, SB_F32);
    if (byte(s) % 2) mask = array(rows, 1);
    for (int64_t i = 0; mask && i < rows; i++) mask[i] = byte(s) % 3;
    v.values = values, v.minus = minus, v.mask = mask;
    right = o.launch.size == sizeof o.launch && is_right_values(&v, rows);
    first = outputs_of(o.wanted, v.batch, 0xa5);
    again = outputs_of(o.wanted, v.batch, 0x5a);
    for (int i = 0; i < 2; i++) {
        outputs *to = i ? &again : &first;
        sb_sums_out out = { sizeof out, 0, to->data[0], to->data[1], to->data[2], to->data[3] };
        check_refusal(sb_sums(contexts[i], &out, &v, &o.launch), right, contexts[i]);
        if (right && !ends) {
            reverse(values, mask, v.batch, v.time);
            reverse(minus, NULL, v.batch, v.time);
        }
    }
    if (right) {
        HOLDS(are_same(&first, &again, v.batch, sizes), "sums");
        check_not_negative(first.data[2], v.batch);
    } else HOLDS(are_filled(&first, 0xa5), "%s", sb_last_error(contexts[0]));
    free_outputs(&first);
    free_outputs(&again);
    free(ends);
    free(values);
    free(minus);
    free(mask);
}

/* ---- policy losses ------------------------------------------------------------------------ */

enum { MOST_TOKENS = 60 };

/* The outputs of either call for policy losses. */
typedef struct policy_results {
    float loss, sequence[MOST_TOKENS], token[MOST_TOKENS], entropy[MOST_TOKENS];
    sb_policy_record record;
    sb_policy_metrics metrics;
} policy_results;

static sb_policy_out policy_out(policy_results *r, uint8_t wanted)
{
    sb_policy_out out = SB_POLICY_OUT_INIT;
    if (wanted & 1) out.loss = &r->loss;
    if (wanted & 2) out.sequence = r->sequence;
    if (wanted & 4) out.token = r->token;
    if (wanted & 8) out.entropy = r->entropy;
    if (wanted & 16) out.record = &r->record;
    if (wanted & 32) out.metrics = &r->metrics;
    return out;
}

static const float numbers[] = { 0.0f, 0.1f, 0.5f, 1.0f, 1.5f, 3.0f, -1.0f, 1e30f, INFINITY, NAN };

static float number(source *s) { return numbers[byte(s) % (sizeof numbers / sizeof *numbers)]; }

static void try_policy(source *s)
{
    policy_results results[2];
    sb_policy p = SB_POLICY_INIT;
    const uint8_t wanted = byte(s);
    const int64_t batch = byte(s) % 6, time = byte(s) % 10, rows = batch * time;
    float *arrays[6];
    uint8_t *mask = byte(s) % 2 ? array(rows, 1) : NULL;
    sb_status status[2];
    for (int i = 0; i < 6; i++)
        arrays[i] = byte(s) % 4 ? make_numbers(s, rows > batch ? rows : batch, SB_F32) : NULL;
    for (int64_t i = 0; mask && i < rows; i++) mask[i] = byte(s) % 3;
    p.now = arrays[0], p.old = arrays[1], p.ref = arrays[2];
    p.rollout = arrays[3], p.entropy = arrays[4], p.advantages = arrays[5];
    p.mask = mask;
    p.batch = batch;
    p.time = time;
    p.tokens = byte(s) % 4 ? 0 : byte(s);
    p.sequences = byte(s) % 4 ? 0 : byte(s);
    p.loss = byte(s) % 6;
    p.norm = byte(s) % 6;
    p.kl = byte(s) % 7;
    p.weight = byte(s) % 4;
    p.level = byte(s) % 4;
    p.per_token = byte(s) % 3;
    p.constant = (double)number(s), p.eps_low = (double)number(s), p.eps_high = (double)number(s);
    p.dual = number(s), p.beta = number(s), p.eta = number(s);
    p.w_low = number(s), p.w_high = number(s), p.upstream = number(s);
    for (int i = 0; i < 2; i++) {
        sb_policy_out out = policy_out(&results[i], wanted);
        memset(&results[i], 0xa5, sizeof results[i]);
        status[i] = sb_policy_loss(contexts[i], &out, &p, NULL);
        check_status(status[i], contexts[i]);
    }
    HOLDS(status[0] == status[1], "%d and %d", (int)status[0], (int)status[1]);
    HOLDS(memcmp(&results[0], &results[1], sizeof *results) == 0, "policy loss");
    HOLDS(status[0] == SB_OK || is_filled(&results[0], sizeof *results, 0xa5), "%s",
          sb_last_error(contexts[0]));
    for (int i = 0; i < 6; i++) free(arrays[i]);
    free(mask);
}

/* Records of any bytes: each is refused, or merges in either order to the same bytes. */
static void try_records(source *s)
{
    sb_policy_record records[2];
    sb_group_record groups[2];
    policy_results results[2];
    sb_group_record merged[2];
    sb_policy p = SB_POLICY_INIT;
    sb_groups g = SB_GROUPS_INIT;
    sb_status status[2], group_status[2];
    memset(records, 0, sizeof records);
    memset(groups, 0, sizeof groups);
    for (int i = 0; i < 2; i++) {
        records[i].parts = byte(s) % 8 ? 255 : byte(s);
        records[i].counts[0] = byte(s);
    }
    for (int n = byte(s) % 16; n > 0; n--) { /* at any place */
        ((uint8_t *)records)[(byte(s) << 8 | byte(s)) % (int)sizeof records] = byte(s);
        ((uint8_t *)groups)[(byte(s) << 8 | byte(s)) % (int)sizeof groups] = byte(s);
    }
    p.norm = byte(s) % 8 ? SB_TOKEN_MEAN : SB_SEQUENCE_MEAN;
    g.groups = 1;
    g.records = groups;
    g.shards = 2;
    g.scale = byte(s) % 3;
    for (int i = 0; i < 2; i++) {
        const sb_policy_record swapped[2] = { records[i], records[1 - i] };
        const sb_group_record other[2] = { groups[i], groups[1 - i] };
        sb_policy_out out = policy_out(&results[i], 1 | 16 | 32);
        sb_groups_out groups_out = SB_GROUPS_OUT_INIT;
        memset(&results[i], 0xa5, sizeof results[i]);
        memset(&merged[i], 0xa5, sizeof merged[i]);
        groups_out.records = &merged[i];
        g.records = other;
        status[i] = sb_policy_merge(contexts[i], &out, &p, swapped, 2, NULL);
        check_status(status[i], contexts[i]);
        group_status[i] = sb_group_advantages(contexts[i], &groups_out, &g, NULL);
        check_status(group_status[i], contexts[i]);
    }
    HOLDS(status[0] == status[1], "%d and %d", (int)status[0], (int)status[1]);
    HOLDS(group_status[0] == group_status[1], "%d and %d", (int)group_status[0],
          (int)group_status[1]);
    HOLDS(memcmp(&results[0], &results[1], sizeof *results) == 0, "merge");
    HOLDS(memcmp(&merged[0], &merged[1], sizeof *merged) == 0, "groups");
}

int fuzz_stats(const uint8_t *data, size_t size)
{
    source s = { data, size };
    open_contexts();
    switch (byte(&s) % 4) {
    case 0: try_compare(&s); break;
    case 1: try_sums(&s); break;
    case 2: try_policy(&s); break;
    default: try_records(&s);
    }
    return 0;
}
