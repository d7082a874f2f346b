/* batches.c - see batches.h. */
#include "batches.h"

#include <stdlib.h>

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

enum { MOST_BYTES = 1 << 16 };

/* ---- arrays -------------------------------------------------------------------------------- */

int64_t times(int64_t a, int64_t b)
{
    if (a < 0 || b < 0) return -1;
    if (a == 0 || b == 0) return 0;
    return a > MOST_BYTES / b ? -1 : a * b;
}

void *array(int64_t count, int64_t size)
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

void *make_numbers(source *s, int64_t count, int32_t dtype)
{
    int64_t itemsize = dtype == SB_F32 ? 4 : 2;
    arrays a = { 0 };
    a.logits = array(count, itemsize);
    a.logits_bytes = a.logits ? (size_t)(count * itemsize) : 0;
    fill_logits(s, &a, dtype);
    return a.logits;
}

void *make_ids(source *s, const sb_batch *b, int64_t count)
{
    void *ids = array(count, int_size(b->ids_dtype));
    for (int64_t i = 0; ids && i < count; i++) put_int(ids, b->ids_dtype, i, an_id(s, b));
    return ids;
}

static int64_t row_count_of(const sb_batch *b)
{
    return b->cu_seqlens ? times(b->rows, 1) : times(b->batch, b->time);
}

/* Elements from the first logit to behind the last one, of n per row; -1 where that is no size. */
static int64_t logits_span(const sb_batch *b, int64_t n)
{
    int64_t row = b->row_stride ? b->row_stride : n, rows = row_count_of(b), sequences, last;
    if (rows == 0 || n == 0) return 0;
    if (rows < 0 || row < n || n < 1) return -1;
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

static void make_logits(source *s, arrays *a, sb_batch *b, int64_t n)
{
    int64_t itemsize = b->logits_dtype == SB_F32 ? 4 : 2, span = logits_span(b, n);
    if (byte(s) == 255) return;
    b->logits = a->logits = array(span, itemsize);
    if (!a->logits) return;
    a->logits_bytes = (size_t)(span * itemsize);
    fill_logits(s, a, b->logits_dtype);
}

/* Lists whose ids mostly rise, and whose offsets mostly do not fall. */
static void make_lists(source *s, arrays *a, sb_batch *b)
{
    const int64_t rows = a->rows < 0 ? 0 : a->rows;
    int64_t count = 0, id = 0, at = 0;
    b->kept_ids_dtype = dtype(s, SB_I32, SB_I64);
    b->kept_offsets_dtype = dtype(s, SB_I32, SB_I64);
    b->kept_offsets = a->kept_offsets = array(a->rows < 0 ? -1 : rows + 1,
                                              b->kept_offsets_dtype == SB_I64 ? 8 : 4);
    if (!a->kept_offsets) return;
    put_int(a->kept_offsets, b->kept_offsets_dtype, 0, byte(s) == 255 ? extent(s, 2) : 0);
    for (int64_t row = 0; row < rows; row++) {
        count += byte(s) % 7;
        put_int(a->kept_offsets, b->kept_offsets_dtype, row + 1,
                byte(s) == 255 ? extent(s, 9) : count);
    }
    b->kept_count = byte(s) == 255 ? extent(s, 9) : count;
    b->kept_ids = a->kept_ids = array(b->kept_count < 0 ? 0 : b->kept_count,
                                      b->kept_ids_dtype == SB_I64 ? 8 : 4);
    for (int64_t row = 0; a->kept_ids && row < rows; row++, id = 0)
        for (int64_t end = at + byte(s) % 7; at < end && at < b->kept_count; at++) {
            put_int(a->kept_ids, b->kept_ids_dtype, at, byte(s) == 255 ? extent(s, 70) : id);
            id += byte(s) % 24 + (byte(s) != 255);
        }
    /* the rows' lists may end before, but offsets may lead to the rest */
    for (; a->kept_ids && at < b->kept_count; at++)
        put_int(a->kept_ids, b->kept_ids_dtype, at, id++);
}

/* Words of 32 flags, mostly set; or lists. */
static void make_kept(source *s, arrays *a, sb_batch *b)
{
    int64_t words, stride;
    const uint8_t form = byte(s) % 4;
    if (form == 2) make_lists(s, a, b);
    if (form != 1 || b->vocab < 1 || b->vocab > SB_MAX_VOCAB) return;
    words = (b->vocab + 31) / 32;
    b->kept_stride = byte(s) % 4 ? 0 : extent(s, 8);
    stride = b->kept_stride ? b->kept_stride : words;
    b->kept = a->kept = array(times(a->rows, stride), 4);
    for (int64_t i = 0; a->kept && i < times(a->rows, stride); i++)
        a->kept[i] = byte(s) % 8 ? ~(uint32_t)(byte(s) * 0x204081) : (uint32_t)word(s);
}

/* ---- batches ------------------------------------------------------------------------------- */

/* A little more than the number of logits in a row, or any number. */
static int64_t row_stride(source *s, int64_t n)
{
    int64_t more = extent(s, 40);
    return more >= 0 && more <= 40 && n < INT32_MAX ? n + more : more;
}

/* Mostly one that cuts no leaf; or ends at V, or has whole ones, but begins inside one. */
static part make_part(source *s, int64_t vocab)
{
    part p = { 0, 0 };
    uint8_t choice = byte(s);
    if (choice > 245 || vocab < 1 || vocab > SB_MAX_VOCAB) {
        p.first = extent(s, 70);
        p.n = extent(s, 70);
    } else {
        int64_t n = 16 * (byte(s) % 6);
        p.first = choice < 220 ? 16 * (byte(s) % (vocab / 16 + 1)) : byte(s) % (vocab + 1);
        p.n = p.first + n < vocab ? n : vocab - p.first;
    }
    return p;
}

void make_batch(source *s, arrays *a, sb_batch *b, part *shard)
{
    int64_t n;
    b->size = struct_size(s, sizeof *b);
    b->logits_dtype = dtype(s, SB_F32, SB_BF16);
    b->batch = extent(s, 5);
    b->time = extent(s, 5);
    b->rows = extent(s, 12);
    b->vocab = byte(s) % 4 ? 1 + byte(s) % 70 : extent(s, 200);
    if (shard) *shard = make_part(s, b->vocab);
    n = shard ? shard->n : b->vocab;
    b->row_stride = byte(s) % 4 ? 0 : row_stride(s, n);
    b->batch_stride = byte(s) % 4 ? 0 : extent(s, 200);
    b->cu_seqlens_dtype = dtype(s, SB_I32, SB_I64);
    b->ids_dtype = dtype(s, SB_I32, SB_I64);
    b->ignore_index = byte(s) % 4 ? SB_IGNORE_INDEX : extent(s, 70);
    b->temperature = temperature(s);
    b->shift = byte(s) < 250 ? byte(s) % 2 : (int32_t)extent(s, 2);
    make_cu_seqlens(s, a, b);
    make_rows(s, a, b);
    make_logits(s, a, b, n);
    make_kept(s, a, b);
}

void free_arrays(arrays *a)
{
    if (a->logits) ALLOW(a->logits, a->logits_bytes);
    free(a->logits);
    free(a->ids);
    free(a->cu_seqlens);
    free(a->mask);
    free(a->temperatures);
    free(a->row_list);
    free(a->kept);
    free(a->kept_ids);
    free(a->kept_offsets);
}

static int is_int_dtype(int32_t dtype) { return dtype == SB_I32 || dtype == SB_I64; }

/* ---- rows ---------------------------------------------------------------------------------- */

int64_t id_of(const sb_batch *b, int64_t row) { return int_at(b->ids, b->ids_dtype, row); }

float temperature_of(const sb_batch *b, int64_t row)
{
    return b->temperatures ? b->temperatures[row] : b->temperature;
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

int is_ignored(const sb_batch *b, int64_t row)
{
    return !is_listed(b, row) || (b->shift && is_first(b, row)) || (b->mask && !b->mask[row]) ||
           id_of(b, row) == b->ignore_index;
}

sb_batch narrowed(const sb_batch *b, int64_t rows, int64_t k)
{
    sb_batch one = *b;
    int64_t *ids = array(rows, 8);
    if (k == 0) one.ignore_index = -1;
    for (int64_t row = 0; ids && row < rows; row++) {
        ids[row] = one.ignore_index;
        if (k == 0) ids[row] = 0;
        for (int64_t i = 0; b->ids && i < k; i++) {
            int64_t id = int_at(b->ids, b->ids_dtype, row * k + i);
            if (id != b->ignore_index && (ids[row] == b->ignore_index || id < 0 || id >= b->vocab))
                ids[row] = id;
        }
    }
    if (k != 0 && !b->ids) {
        free(ids);
        ids = NULL;
    }
    one.ids = ids;
    if (is_int_dtype(b->ids_dtype)) one.ids_dtype = SB_I64; /* what is wrong stays so */
    return one;
}

static int64_t offset_at(const sb_batch *b, int64_t row)
{
    return int_at(b->kept_offsets, b->kept_offsets_dtype, row);
}

/* Allows the logits of a row's kept ids, if the list is one that may be looked at. */
static void allow_kept(const sb_batch *b, int64_t row, char *logits, int64_t itemsize, part held)
{
    for (int64_t i = offset_at(b, row); i < offset_at(b, row + 1); i++) {
        const int64_t id = int_at(b->kept_ids, b->kept_ids_dtype, i) - held.first;
        if (i < 0 || i >= b->kept_count) return;
        if (id >= 0 && id < held.n) ALLOW(logits + id * itemsize, (size_t)itemsize);
    }
}

void guard_logits(const sb_batch *b, const arrays *a, part held)
{
    int64_t itemsize = b->logits_dtype == SB_F32 ? 4 : 2;
    int64_t stride = b->row_stride ? b->row_stride : held.n;
    if (!a->logits || held.n == 0) return;
    FORBID(a->logits, a->logits_bytes);
    for (int64_t row = 0; row < a->rows; row++) {
        int64_t at = row - b->shift;
        if (is_ignored(b, row)) continue;
        if (b->cu_seqlens) at *= stride;
        else
            at = at / b->time * (b->batch_stride ? b->batch_stride : b->time * stride) +
                 at % b->time * stride;
        if (b->kept_offsets) allow_kept(b, row, (char *)a->logits + at * itemsize, itemsize, held);
        else ALLOW((char *)a->logits + at * itemsize, (size_t)(held.n * itemsize));
    }
}

/* ---- what samebits.h asks for -------------------------------------------------------------- */

static int is_temperature(float x) { return x >= 0x1p-10f && x <= 0x1p10f; }

int fits_int64(int64_t a, int64_t b, int64_t c)
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
static int is_right_layout(const sb_batch *b, int64_t n)
{
    int64_t itemsize = b->logits_dtype == SB_F32 ? 4 : 2;
    int64_t row = n == 0 ? 0 : b->row_stride ? b->row_stride : n;
    int64_t stride = n == 0 ? 0 : b->batch_stride;
    long double span;
    if (row < n || b->batch < 0) return 0;
    if (b->cu_seqlens)
        return is_int_dtype(b->cu_seqlens_dtype) && b->rows >= 0 && is_right_cu_seqlens(b) &&
               fits_int64(b->rows, row, itemsize);
    if (b->time < 0 || b->time > 1 << 24 || stride < 0) return 0;
    if (!fits_int64(b->batch, b->time, 1) || !fits_int64(b->time, row, 1)) return 0;
    span = (long double)(b->batch > 0 ? b->batch - 1 : 0) *
               (long double)(stride ? stride : b->time * row) +
           (long double)b->time * (long double)row;
    return span * (long double)itemsize < 0x1p63L;
}

/* Requires: the offsets are right. */
static int is_right_list(const sb_batch *b, int64_t row)
{
    int64_t before = -1;
    if (!b->kept_offsets) return 1;
    for (int64_t i = offset_at(b, row); i < offset_at(b, row + 1); i++) {
        const int64_t id = int_at(b->kept_ids, b->kept_ids_dtype, i);
        if (id <= before || id >= b->vocab) return 0;
        before = id;
    }
    return 1;
}

static int is_right_row(const sb_batch *b, int64_t row)
{
    int64_t id = id_of(b, row);
    return is_ignored(b, row) || (id >= 0 && id < b->vocab && is_right_list(b, row) &&
                                  (!b->temperatures || is_temperature(b->temperatures[row])));
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

static int is_right_kept(const sb_batch *b, int64_t rows)
{
    int64_t words = (b->vocab + 31) / 32, stride = b->kept_stride ? b->kept_stride : words;
    return stride >= words && fits_int64(rows, stride, 4);
}

static int are_right_offsets(const sb_batch *b, int64_t rows)
{
    if (!is_int_dtype(b->kept_ids_dtype) || !is_int_dtype(b->kept_offsets_dtype)) return 0;
    if (b->kept || b->kept_count < 0 || (b->kept_count > 0 && !b->kept_ids)) return 0;
    if (offset_at(b, 0) != 0 || offset_at(b, rows) != b->kept_count) return 0;
    for (int64_t row = 0; row < rows; row++)
        if (offset_at(b, row + 1) < offset_at(b, row)) return 0;
    return 1;
}

/* A shard cuts no leaf. */
static int is_right_part(int64_t vocab, part held)
{
    if (vocab < 1 || vocab > SB_MAX_VOCAB || held.first < 0 || held.n < 0) return 0;
    if (held.first > vocab || held.n > vocab - held.first) return 0;
    if (held.n == 0) return 1;
    return held.first % 16 == 0 && (held.n % 16 == 0 || held.first + held.n == vocab);
}

int is_right_launch(const sb_launch *launch)
{
    return launch->size == sizeof *launch && launch->split >= 0 && launch->split <= 65536;
}

int is_right_batch(const sb_batch *b, int64_t rows, part held)
{
    if (b->size != sizeof *b || (b->shift != 0 && b->shift != 1)) return 0;
    if (b->logits_dtype != SB_F32 && b->logits_dtype != SB_F16 && b->logits_dtype != SB_BF16)
        return 0;
    if (!is_right_part(b->vocab, held)) return 0;
    if (!is_int_dtype(b->ids_dtype) || !is_right_layout(b, held.n)) return 0;
    if (!b->temperatures && !is_temperature(b->temperature)) return 0;
    if (rows != 0 && ((held.n && !b->logits) || !b->ids)) return 0;
    if (b->row_list && !is_right_row_list(b, rows)) return 0;
    if (b->kept && !is_right_kept(b, rows)) return 0;
    if (b->kept_offsets && !are_right_offsets(b, rows)) return 0;
    if (b->kept_ids && !b->kept_offsets) return 0;
    for (int64_t row = 0; row < rows; row++)
        if (!is_right_row(b, row)) return 0;
    return 1;
}
