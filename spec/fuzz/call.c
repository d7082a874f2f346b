/* call.c - sb_logprob on arguments made from bytes, right and wrong ones.
 *
 * Every array has exactly the bytes that samebits.h asks for, and under AddressSanitizer only the
 * logits of active rows may be read. What has to hold: an error, in words, exactly where samebits.h
 * says so; outputs untouched by a refusal, written whole by a success; the same bits again by
 * another instruction set, with other threads and pieces. */
#include <string.h>

#include "samebits.h"
#include "target.h"

#if defined(__SANITIZE_ADDRESS__)
#define SB_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SB_ASAN 1
#endif
#endif
#ifdef SB_ASAN
#include <sanitizer/asan_interface.h>
#define FORBID(data, size) __asan_poison_memory_region(data, size)
#define ALLOW(data, size) __asan_unpoison_memory_region(data, size)
#else
#define FORBID(data, size) ((void)(data), (void)(size))
#define ALLOW(data, size) ((void)(data), (void)(size))
#endif

enum { MOST_BYTES = 1 << 16, SENTINEL = 0xa5 };

/* ---- bytes as a source of choices; zeros once they are used up ----------------------------- */

typedef struct source {
    const uint8_t *data;
    size_t size;
} source;

static uint8_t byte(source *s)
{
    if (s->size == 0) return 0;
    s->size--;
    return *s->data++;
}

static uint64_t word(source *s)
{
    uint64_t x = 0;
    for (int i = 0; i < 8; i++) x = x << 8 | byte(s);
    return x;
}

/* Mostly 0 .. most; at times a number that nobody means. */
static int64_t extent(source *s, int64_t most)
{
    static const int64_t odd[] = {
        -1,      INT64_MIN,     INT64_MAX, INT32_MAX,     (int64_t)1 << 32,
        1 << 20, (1 << 20) + 1, 1 << 24,   (1 << 24) + 1, (int64_t)1 << 62
    };
    uint8_t choice = byte(s);
    if (choice < 240) return choice % (most + 1);
    if (choice < 254) return odd[choice % (sizeof odd / sizeof *odd)];
    return (int64_t)word(s);
}

/* An enumerator, or a neighbour of one. */
static int32_t dtype(source *s, int32_t first, int32_t last)
{
    uint8_t choice = byte(s);
    return choice < 250 ? first + choice % (last - first + 1) : (int32_t)(int8_t)choice;
}

static uint32_t struct_size(source *s, uint32_t right)
{
    return byte(s) == 255 ? right - 8 + byte(s) % 16 : right;
}

static float temperature(source *s)
{
    static const float some[] = { 1.0f, 0.7f, 0x1p-10f, 1024.0f, 2.5f };
    static const float odd[] = { 0.0f, -1.0f, 0x1p-11f, 1025.0f };
    uint8_t choice = byte(s);
    uint32_t bits;
    float x;
    if (choice < 240) return some[choice % 5];
    if (choice < 252) return odd[choice % 4];
    bits = (uint32_t)word(s);
    memcpy(&x, &bits, 4);
    return x;
}

/* A little more than the vocabulary, or anything. */
static int64_t row_stride(source *s, int64_t vocab)
{
    int64_t more = extent(s, 40);
    return more >= 0 && more <= 40 && vocab < INT32_MAX ? vocab + more : more;
}

/* ---- arrays -------------------------------------------------------------------------------- */

/* What a call works on. Null where the bytes left it out, or where it would be too large: then the
 * call has to be refused, or is about something smaller. */
typedef struct arrays {
    void *logits, *ids, *cu_seqlens;
    uint8_t *mask;
    float *temperatures;
    int64_t *row_list;
    size_t logits_bytes;
    int64_t rows; /* -1 where they are too many */
} arrays;

/* a * b, or -1 where that is negative or more than a test's worth. */
static int64_t times(int64_t a, int64_t b)
{
    if (a < 0 || b < 0) return -1;
    if (a == 0 || b == 0) return 0;
    return a > MOST_BYTES / b ? -1 : a * b;
}

/* count elements. Of 0 bytes, too: nothing may be read there. */
static void *array(int64_t count, int64_t size)
{
    int64_t bytes = times(count, size);
    return bytes < 0 ? NULL : malloc((size_t)bytes);
}

static void put_int(void *data, int32_t dtype, int64_t i, int64_t value)
{
    if (dtype == SB_I64) memcpy((char *)data + i * 8, &value, 8);
    else {
        int32_t narrow = (int32_t)value;
        memcpy((char *)data + i * 4, &narrow, 4);
    }
}

static int64_t int_at(const void *data, int32_t dtype, int64_t i)
{
    int64_t wide;
    int32_t narrow;
    if (dtype == SB_I64) {
        memcpy(&wide, (const char *)data + i * 8, 8);
        return wide;
    }
    memcpy(&narrow, (const char *)data + i * 4, 4);
    return narrow;
}

static int64_t int_size(int32_t dtype) { return dtype == SB_I64 ? 8 : 4; }

static int64_t an_id(source *s, const sb_batch *batch)
{
    uint8_t choice = byte(s);
    if (choice == 255) return (int64_t)word(s);
    if (choice == 254) return batch->vocab;
    if (choice > 240) return batch->ignore_index;
    return batch->vocab > 0 ? choice % batch->vocab : choice;
}

/* The logits: small numbers, and now and then any bits. */
static void fill_logits(source *s, arrays *a, int32_t dtype)
{
    static const uint16_t odd[] = { 0x7f80, 0xff80, 0x7fc0, 0x7f7f, 0xff7f,
                                    0x0001, 0x8000, 0x7c00, 0xfc00, 0x4900 };
    uint8_t *data = a->logits;
    size_t itemsize = dtype == SB_F32 ? 4 : 2;
    for (size_t i = 0; i + itemsize <= a->logits_bytes; i += itemsize) {
        uint8_t choice = byte(s);
        uint16_t half = choice < 230
                            ? (uint16_t)(0x3c00 + (choice & 127) * 8 + (choice & 128) * 256)
                        : choice < 250 ? odd[choice % 10]
                                       : (uint16_t)word(s);
        memset(data + i, choice & 1, itemsize);
        memcpy(data + i + itemsize - 2, &half, 2); /* the high half of an fp32 */
    }
}

static int64_t row_count_of(const sb_batch *b)
{
    return b->cu_seqlens ? times(b->rows, 1) : times(b->batch, b->time);
}

/* Elements from the first logit to behind the last one; -1 where that is no size. */
static int64_t logits_span(const sb_batch *b)
{
    int64_t row = b->row_stride ? b->row_stride : b->vocab, rows = row_count_of(b), sequences, last;
    if (rows == 0) return 0;
    if (rows < 0 || row < b->vocab || b->vocab < 1) return -1;
    if (b->cu_seqlens) return times(rows, row);
    last = times(b->time, row);
    sequences = times(b->batch - 1, b->batch_stride ? b->batch_stride : last);
    return last < 0 || sequences < 0 ? -1 : last + sequences;
}

static void make_cu_seqlens(source *s, arrays *a, sb_batch *b)
{
    int64_t at = 0, rows = times(b->rows, 1);
    int64_t entries = b->batch < 0 ? 1 : b->batch < MOST_BYTES ? b->batch + 1 : MOST_BYTES;
    if (byte(s) % 2 == 0) return;
    b->cu_seqlens = a->cu_seqlens = array(entries, int_size(b->cu_seqlens_dtype));
    for (int64_t i = 0; a->cu_seqlens && i < entries; i++) {
        uint8_t choice = byte(s);
        put_int(a->cu_seqlens, b->cu_seqlens_dtype, i, choice > 245 ? extent(s, 4) : at);
        at += i + 2 == entries ? rows - at : choice % 4;
    }
}

static void make_rows(source *s, arrays *a, sb_batch *b)
{
    int64_t rows = a->rows = row_count_of(b);
    if (byte(s) != 255) b->ids = a->ids = array(rows, int_size(b->ids_dtype));
    if (byte(s) % 2) b->mask = a->mask = array(rows, 1);
    if (byte(s) % 4 == 1) b->temperatures = a->temperatures = array(rows, 4);
    for (int64_t i = 0; i < rows; i++) {
        if (a->ids) put_int(a->ids, b->ids_dtype, i, an_id(s, b));
        if (a->mask) a->mask[i] = byte(s) % 4;
        if (a->temperatures) a->temperatures[i] = temperature(s);
    }
    if (byte(s) % 4 == 1) {
        int64_t row = -1;
        b->row_count = extent(s, rows < 0 ? 4 : rows);
        b->row_list = a->row_list = array(b->row_count < 0 ? 0 : b->row_count, 8);
        for (int64_t i = 0; a->row_list && i < b->row_count; i++) {
            uint8_t choice = byte(s);
            row = choice > 250 ? extent(s, 4) : row < INT64_MAX ? row + 1 : 0;
            a->row_list[i] = row;
        }
    }
}

static void make_logits(source *s, arrays *a, sb_batch *b)
{
    int64_t itemsize = b->logits_dtype == SB_F32 ? 4 : 2, span = logits_span(b);
    if (byte(s) == 255) return;
    b->logits = a->logits = array(span, itemsize);
    if (!a->logits) return;
    a->logits_bytes = (size_t)(span * itemsize);
    fill_logits(s, a, b->logits_dtype);
}

static void free_arrays(arrays *a)
{
    if (a->logits) ALLOW(a->logits, a->logits_bytes);
    free(a->logits);
    free(a->ids);
    free(a->cu_seqlens);
    free(a->mask);
    free(a->temperatures);
    free(a->row_list);
}

/* ---- which logits may be read -------------------------------------------------------------- */

static int is_listed(const sb_batch *b, int64_t row)
{
    if (!b->row_list) return 1;
    for (int64_t i = 0; i < b->row_count; i++)
        if (b->row_list[i] == row) return 1;
    return 0;
}

static int is_first(const sb_batch *b, int64_t row)
{
    if (!b->cu_seqlens) return row % b->time == 0;
    for (int64_t i = 0; i < b->batch; i++)
        if (int_at(b->cu_seqlens, b->cu_seqlens_dtype, i) == row) return 1;
    return 0;
}

static int is_ignored(const sb_batch *b, int64_t row)
{
    return !is_listed(b, row) || (b->shift && is_first(b, row)) || (b->mask && !b->mask[row]) ||
           int_at(b->ids, b->ids_dtype, row) == b->ignore_index;
}

/* Of a batch that was accepted: every logit but those of active rows is out of bounds. */
static void guard_logits(const sb_batch *b, const arrays *a)
{
    int64_t itemsize = b->logits_dtype == SB_F32 ? 4 : 2;
    int64_t stride = b->row_stride ? b->row_stride : b->vocab;
    FORBID(a->logits, a->logits_bytes);
    for (int64_t row = 0; row < a->rows; row++) {
        int64_t at = row - b->shift;
        if (is_ignored(b, row)) continue;
        if (b->cu_seqlens) at *= stride;
        else
            at = at / b->time * (b->batch_stride ? b->batch_stride : b->time * stride) +
                 at % b->time * stride;
        ALLOW((char *)a->logits + at * itemsize, (size_t)(b->vocab * itemsize));
    }
}

/* ---- what samebits.h asks for -------------------------------------------------------------- */

static int is_temperature(float x) { return x >= 0x1p-10f && x <= 0x1p10f; }
static int is_int_dtype(int32_t dtype) { return dtype == SB_I32 || dtype == SB_I64; }

/* a * b * c, all >= 0, as far as it matters. */
static int fits_int64(int64_t a, int64_t b, int64_t c)
{
    long double product = (long double)a * (long double)b * (long double)c;
    return product < 0x1p63L;
}

static int is_right_cu_seqlens(const sb_batch *b)
{
    int64_t before = 0;
    for (int64_t i = 0; i <= b->batch; i++) {
        int64_t next = int_at(b->cu_seqlens, b->cu_seqlens_dtype, i);
        if (i == 0 ? next != 0 : next < before) return 0;
        before = next;
    }
    return before == b->rows;
}

/* The strides: what they span in bytes is a number. */
static int is_right_layout(const sb_batch *b)
{
    int64_t row = b->row_stride ? b->row_stride : b->vocab,
            itemsize = b->logits_dtype == SB_F32 ? 4 : 2;
    long double span;
    if (b->vocab < 1 || b->vocab > SB_MAX_VOCAB || row < b->vocab || b->batch < 0) return 0;
    if (b->cu_seqlens)
        return is_int_dtype(b->cu_seqlens_dtype) && b->rows >= 0 && is_right_cu_seqlens(b) &&
               fits_int64(b->rows, row, itemsize);
    if (b->time < 0 || b->time > 1 << 24 || b->batch_stride < 0) return 0;
    if (!fits_int64(b->batch, b->time, 1) || !fits_int64(b->time, row, 1)) return 0;
    span = (long double)(b->batch > 0 ? b->batch - 1 : 0) *
               (long double)(b->batch_stride ? b->batch_stride : b->time * row) +
           (long double)b->time * (long double)row;
    return span * (long double)itemsize < 0x1p63L;
}

static int is_right_row(const sb_batch *b, int64_t row)
{
    int64_t id = int_at(b->ids, b->ids_dtype, row);
    return is_ignored(b, row) ||
           (id >= 0 && id < b->vocab && (!b->temperatures || is_temperature(b->temperatures[row])));
}

static int is_right_row_list(const sb_batch *b, int64_t rows)
{
    int64_t before = -1;
    if (b->row_count < 0 || b->row_count > rows) return 0;
    for (int64_t i = 0; i < b->row_count; i++) {
        if (b->row_list[i] <= before || b->row_list[i] >= rows) return 0;
        before = b->row_list[i];
    }
    return 1;
}

static int is_right(const sb_batch *b, const sb_logprob_out *out, const sb_launch *launch,
                    int64_t rows)
{
    if (b->size != sizeof *b || out->size != sizeof *out || launch->size != sizeof *launch)
        return 0;
    if (launch->split < 0 || launch->split > 65536 || (b->shift != 0 && b->shift != 1)) return 0;
    if (b->logits_dtype != SB_F32 && b->logits_dtype != SB_F16 && b->logits_dtype != SB_BF16)
        return 0;
    if (!is_int_dtype(b->ids_dtype) || !is_right_layout(b)) return 0;
    if (!b->temperatures && !is_temperature(b->temperature)) return 0;
    if (rows != 0 && (!b->logits || !b->ids)) return 0;
    if (b->row_list && !is_right_row_list(b, rows)) return 0;
    for (int64_t row = 0; row < rows; row++)
        if (!is_right_row(b, row)) return 0;
    return 1;
}

/* ---- outputs ------------------------------------------------------------------------------- */

typedef struct results {
    sb_logprob_out out;
    size_t row_bytes, sequence_bytes;
} results;

static void *sentinels(size_t bytes)
{
    void *data = malloc(bytes);
    if (data) memset(data, SENTINEL, bytes);
    return data;
}

static results results_of(uint8_t wanted, int64_t rows, int64_t sequences)
{
    results r = { SB_LOGPROB_OUT_INIT, (size_t)(rows > 0 ? rows : 0) * 4,
                  (size_t)(sequences > 0 ? sequences : 0) };
    if (wanted & 1) r.out.token = sentinels(r.row_bytes);
    if (wanted & 2) r.out.lse = sentinels(r.row_bytes);
    if (wanted & 4) r.out.sequence = sentinels(r.sequence_bytes * 4);
    if (wanted & 8) r.out.count = sentinels(r.sequence_bytes * 8);
    return r;
}

static void free_results(results *r)
{
    free(r->out.token);
    free(r->out.lse);
    free(r->out.sequence);
    free(r->out.count);
}

static int all_sentinels(const void *data, size_t bytes)
{
    for (size_t i = 0; data && i < bytes; i++)
        if (((const uint8_t *)data)[i] != SENTINEL) return 0;
    return 1;
}

static int untouched(const results *r)
{
    return all_sentinels(r->out.token, r->row_bytes) && all_sentinels(r->out.lse, r->row_bytes) &&
           all_sentinels(r->out.sequence, r->sequence_bytes * 4) &&
           all_sentinels(r->out.count, r->sequence_bytes * 8);
}

/* No result's last word is a sentinel: -7.2e-17 as a token, a count below 0. */
static int whole(const void *data, size_t bytes, size_t size)
{
    for (size_t i = 0; data && i < bytes; i += size)
        if (all_sentinels((const uint8_t *)data + i, size)) return 0;
    return 1;
}

static int same(const void *a, const void *b, size_t bytes)
{
    return !a || bytes == 0 || memcmp(a, b, bytes) == 0;
}

static int same_results(const results *a, const results *b)
{
    return same(a->out.token, b->out.token, a->row_bytes) &&
           same(a->out.lse, b->out.lse, a->row_bytes) &&
           same(a->out.sequence, b->out.sequence, a->sequence_bytes * 4) &&
           same(a->out.count, b->out.count, a->sequence_bytes * 8);
}

static void check_written(const results *r)
{
    HOLDS(whole(r->out.token, r->row_bytes, 4), "tokens");
    HOLDS(whole(r->out.lse, r->row_bytes, 4), "lse");
    HOLDS(whole(r->out.sequence, r->sequence_bytes * 4, 4), "sequences");
    HOLDS(whole(r->out.count, r->sequence_bytes * 8, 8), "counts");
    for (size_t i = 0; r->out.token && i < r->row_bytes / 4; i++)
        HOLDS(!(r->out.token[i] > 0), "token %zu is %.9g", i, (double)r->out.token[i]);
}

/* ---- a call -------------------------------------------------------------------------------- */

static sb_context *contexts[2]; /* a plain one, and the fastest there is */

static void close_contexts(void)
{
    for (int i = 0; i < 2; i++) sb_close(contexts[i]);
}

static void open_contexts(void)
{
    if (!contexts[0]) atexit(close_contexts);
    static const char *const isas[2] = { "scalar", "auto" };
    for (int i = 0; i < 2 && !contexts[i]; i++) {
        sb_open_options options = SB_OPEN_OPTIONS_INIT;
        options.threads = 1 + 2 * i;
        options.isa = isas[i];
        if (sb_open(&contexts[i], SB_ABI, "cpu", &options, NULL, 0) != SB_OK) abort();
    }
}

static void check_status(sb_status status, const sb_context *ctx)
{
    const char *said = sb_last_error(ctx);
    HOLDS(strcmp(sb_status_name(status), "unknown status") != 0, "status %d", (int)status);
    HOLDS(status != SB_ERR_MEMORY && status != SB_ERR_SYSTEM, "%s", said);
    HOLDS((said[0] != '\0') == (status != SB_OK), "status %d (\"%s\")", (int)status, said);
    HOLDS(strlen(said) < 256 && !strpbrk(said, "\r\n"), "\"%s\"", said);
}

/* How the call is made; in front of the arrays, which take all bytes that are left. */
typedef struct options {
    uint8_t wanted; /* outputs, a bit each */
    uint32_t out_size;
    sb_launch launch;
} options;

static options options_of(source *s)
{
    options o = { (uint8_t)~byte(s), struct_size(s, sizeof(sb_logprob_out)), SB_LAUNCH_INIT };
    o.launch.size = struct_size(s, sizeof o.launch);
    o.launch.split = (int32_t)extent(s, 40);
    return o;
}

static void try_call(const options *o, const arrays *a, const sb_batch *batch)
{
    uint8_t wanted = times(batch->batch, 8) < 0 ? o->wanted & 3 : o->wanted;
    results first = results_of(wanted, a->rows, batch->batch);
    results again = results_of(wanted, a->rows, batch->batch);
    sb_launch launch = o->launch;
    uint64_t room = 1;
    sb_status status;

    first.out.size = again.out.size = o->out_size;
    status = sb_logprob(contexts[0], &first.out, batch, &launch);
    check_status(status, contexts[0]);
    HOLDS((status == SB_OK) == is_right(batch, &first.out, &launch, a->rows), "status %d (\"%s\")",
          (int)status, sb_last_error(contexts[0]));
    if (status != SB_OK) {
        HOLDS(untouched(&first), "%s", sb_last_error(contexts[0]));
        HOLDS(sb_logprob(contexts[1], &again.out, batch, &launch) == status, "%s",
              sb_last_error(contexts[0]));
        HOLDS(untouched(&again), "%s", sb_last_error(contexts[0]));
    } else {
        check_written(&first);
        if (a->logits) guard_logits(batch, a);
        launch.split = launch.split == 1 ? 3 : 1;
        for (int i = 0; i < 2; i++) {
            HOLDS(sb_workspace_size(contexts[i], &room, &again.out, batch, &launch) == SB_OK &&
                      room == 0,
                  "workspace");
            HOLDS(sb_logprob(contexts[i], &again.out, batch, &launch) == SB_OK, "%s",
                  sb_last_error(contexts[i]));
            HOLDS(same_results(&first, &again), "isa %s", sb_context_isa(contexts[i]));
        }
    }
    free_results(&first);
    free_results(&again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    source s = { data, size };
    sb_batch batch = SB_BATCH_INIT;
    arrays a = { 0 };
    options o = options_of(&s);

    open_contexts();
    batch.size = struct_size(&s, sizeof batch);
    batch.logits_dtype = dtype(&s, SB_F32, SB_BF16);
    batch.batch = extent(&s, 5);
    batch.time = extent(&s, 5);
    batch.rows = extent(&s, 12);
    batch.vocab = byte(&s) % 4 ? 1 + byte(&s) % 70 : extent(&s, 200);
    batch.row_stride = byte(&s) % 4 ? 0 : row_stride(&s, batch.vocab);
    batch.batch_stride = byte(&s) % 4 ? 0 : extent(&s, 200);
    batch.cu_seqlens_dtype = dtype(&s, SB_I32, SB_I64);
    batch.ids_dtype = dtype(&s, SB_I32, SB_I64);
    batch.ignore_index = byte(&s) % 4 ? SB_IGNORE_INDEX : extent(&s, 70);
    batch.temperature = temperature(&s);
    batch.shift = byte(&s) < 250 ? byte(&s) % 2 : (int32_t)extent(&s, 2);
    make_cu_seqlens(&s, &a, &batch);
    make_rows(&s, &a, &batch);
    make_logits(&s, &a, &batch);
    try_call(&o, &a, &batch);
    free_arrays(&a);
    return 0;
}
