/* results.h - the outputs of calls, and the contexts that the calls are made on. */
#ifndef SB_RESULTS_H
#define SB_RESULTS_H

#include <stddef.h>
#include "samebits.h"
#include "source.h"

/* Output arrays for some of an sb_logprob_out, filled with one byte. */
typedef struct results {
    sb_logprob_out out;
    size_t row_bytes, sequence_bytes;
    uint8_t filled;
} results;

/* wanted: token, lse, sequence, count, one bit each; more: outside, entropy, saved. */
void want_more(results *r, uint8_t more);
results results_of(uint8_t wanted, const sb_batch *batch, int64_t rows, uint8_t filled);
void free_results(results *r);
int untouched(const results *r);

/* All of it: of results that were filled otherwise, only what was written is the same. */
int same_results(const results *a, const results *b);

/* bytes of memory, filled. */
void *filled_memory(size_t bytes, uint8_t filled);
int is_filled(const void *data, size_t bytes, uint8_t filled);

/* A plain context, and the fastest there is, with threads. */
extern sb_context *contexts[2];
void open_contexts(void);

/* A status that the header knows, with one line of words where it is no success. */
void check_status(sb_status status, const sb_context *ctx);

/* How a call is made; drawn in front of the batch, whose arrays take all bytes that are left. */
typedef struct options {
    uint8_t wanted; /* outputs, a bit each */
    uint32_t out_size;
    sb_launch launch;
} options;

options options_of(source *s);

/* An older caller's sb_logprob_out may end before the fields that came after count. */
static inline int is_right_out_size(uint32_t size)
{
    return size >= offsetof(sb_logprob_out, outside) && size <= sizeof(sb_logprob_out) &&
           size % sizeof(void *) == 0;
}

#endif
