/* stats.c - sb_compare and sb_sums on arguments made from bytes, right and wrong ones.
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

int fuzz_stats(const uint8_t *data, size_t size)
{
    source s = { data, size };
    open_contexts();
    if (byte(&s) % 2) try_sums(&s);
    else try_compare(&s);
    return 0;
}
