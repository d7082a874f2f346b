/* results.c - see results.h. */
#include "results.h"

#include <stdlib.h>
#include <string.h>

#include "batches.h"
#include "target.h"

/* ---- outputs ------------------------------------------------------------------------------- */

void *filled_memory(size_t bytes, uint8_t filled)
{
    void *data = malloc(bytes);
    if (data) memset(data, filled, bytes);
    return data;
}

int is_filled(const void *data, size_t bytes, uint8_t filled)
{
    for (size_t i = 0; data && i < bytes; i++)
        if (((const uint8_t *)data)[i] != filled) return 0;
    return 1;
}

results results_of(uint8_t wanted, const sb_batch *batch, int64_t rows, uint8_t filled)
{
    int64_t sequences = times(batch->batch, 8) < 0 ? -1 : batch->batch;
    results r = { SB_LOGPROB_OUT_INIT, (size_t)(rows > 0 ? rows : 0) * 4,
                  (size_t)(sequences > 0 ? sequences : 0), filled };
    if (sequences < 0) wanted &= 3;
    if (wanted & 1) r.out.token = filled_memory(r.row_bytes, filled);
    if (wanted & 2) r.out.lse = filled_memory(r.row_bytes, filled);
    if (wanted & 4) r.out.sequence = filled_memory(r.sequence_bytes * 4, filled);
    if (wanted & 8) r.out.count = filled_memory(r.sequence_bytes * 8, filled);
    return r;
}

void want_more(results *r, uint8_t more)
{
    if (more & 1) r->out.outside = filled_memory(r->sequence_bytes * 8, r->filled);
    if (more & 2) r->out.entropy = filled_memory(r->row_bytes, r->filled);
    if (more & 4) r->out.saved = filled_memory(r->row_bytes * 8, r->filled);
}

void free_results(results *r)
{
    free(r->out.token);
    free(r->out.lse);
    free(r->out.sequence);
    free(r->out.count);
    free(r->out.outside);
    free(r->out.entropy);
    free(r->out.saved);
}

int untouched(const results *r)
{
    return is_filled(r->out.token, r->row_bytes, r->filled) &&
           is_filled(r->out.lse, r->row_bytes, r->filled) &&
           is_filled(r->out.sequence, r->sequence_bytes * 4, r->filled) &&
           is_filled(r->out.count, r->sequence_bytes * 8, r->filled) &&
           is_filled(r->out.outside, r->sequence_bytes * 8, r->filled) &&
           is_filled(r->out.entropy, r->row_bytes, r->filled) &&
           is_filled(r->out.saved, r->row_bytes * 8, r->filled);
}

static int same(const void *a, const void *b, size_t bytes)
{
    return !a || bytes == 0 || memcmp(a, b, bytes) == 0;
}

int same_results(const results *a, const results *b)
{
    return same(a->out.token, b->out.token, a->row_bytes) &&
           same(a->out.lse, b->out.lse, a->row_bytes) &&
           same(a->out.sequence, b->out.sequence, a->sequence_bytes * 4) &&
           same(a->out.count, b->out.count, a->sequence_bytes * 8) &&
           same(a->out.outside, b->out.outside, a->sequence_bytes * 8) &&
           same(a->out.entropy, b->out.entropy, a->row_bytes) &&
           same(a->out.saved, b->out.saved, a->row_bytes * 8);
}

/* ---- contexts and calls -------------------------------------------------------------------- */

sb_context *contexts[2];

static void close_contexts(void)
{
    for (int i = 0; i < 2; i++) sb_close(contexts[i]);
}

void open_contexts(void)
{
    static const char *const isas[2] = { "scalar", "auto" };
    if (!contexts[0]) atexit(close_contexts);
    for (int i = 0; i < 2 && !contexts[i]; i++) {
        sb_open_options options = SB_OPEN_OPTIONS_INIT;
        options.threads = 1 + 2 * i;
        options.isa = isas[i];
        if (sb_open(&contexts[i], SB_ABI, "cpu", &options, NULL, 0) != SB_OK) abort();
    }
}

void check_status(sb_status status, const sb_context *ctx)
{
    const char *said = sb_last_error(ctx);
    HOLDS(strcmp(sb_status_name(status), "unknown status") != 0, "status %d", (int)status);
    HOLDS(status != SB_ERR_MEMORY && status != SB_ERR_SYSTEM, "%s", said);
    HOLDS((said[0] != '\0') == (status != SB_OK), "status %d (\"%s\")", (int)status, said);
    HOLDS(strlen(said) < 256 && !strpbrk(said, "\r\n"), "\"%s\"", said);
}

options options_of(source *s)
{
    options o = { (uint8_t)~byte(s), struct_size(s, sizeof(sb_logprob_out)), SB_LAUNCH_INIT };
    o.launch.size = struct_size(s, sizeof o.launch);
    o.launch.split = (int32_t)extent(s, 40);
    return o;
}
