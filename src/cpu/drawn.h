/* drawn.h - a row whose token is drawn on the CPU: its logits as the filters leave them, read a
 * buffer at a time; the cuts of the filters; the sum of what is kept; and the token that R stands
 * for. sample.c draws from whole rows, draw.c from shards of the vocabulary. */
#ifndef SB_CPU_DRAWN_H
#define SB_CPU_DRAWN_H

#include "api/sample.h"
#include "cpu/cpu.h"
#include "det/sample.h"

/* A row, of which the call holds some ids or all. Below, places and tokens count ids in the whole
 * row, and `first` counts from the first id that the call holds. */
typedef struct sb_cpu_drawn {
    const sb_call *call;
    const sb_isa *isa;
    int64_t row;
    sb_row constants;
    /* If the call has hidden states: they, and which of their active rows this is; and its logits,
     * fp32 [held], if they have been computed, or null. */
    const sb_cpu_hidden *hidden;
    int64_t index;
    const float *logits;

    sb_cut cut;
    int is_cut; /* ids are left out by cut */
} sb_cpu_drawn;

/* Reads the next buffer, of SB_CPU_BUFFER logits, from id `first` on. Returns their number; 0 at
 * the end. */
int64_t sb_cpu_drawn_read(const sb_cpu_drawn *r, int64_t first, float *x);

/* for (n logits x of row r, whose first id is `first`) */
#define SB_CPU_EACH_BUFFER(r, first, n, x)                                                         \
    for (int64_t first = 0, n; (n = sb_cpu_drawn_read(r, first, x)) > 0; first += n)

/* The largest logit, and its place; SB_NO_PLACE if none is present. */
uint64_t sb_cpu_first_place(const sb_cpu_drawn *r);

/* What an id adds to the sum that a filter counts: 1, or its weight. */
static inline uint64_t sb_cpu_measure(const sb_cpu_drawn *r, float x, int weighted)
{
    return weighted ? sb_weight_units(sb_weight(x, &r->cut.weights)) : 1;
}

/* Sums up the ids whose key's bits from shift + bits on are prefix, by the next bits of their keys.
 */
void sb_cpu_sum_keys(const sb_cpu_drawn *r, int shift, int bits, uint32_t prefix, int weighted,
                     uint64_t *sums);

/* The n-th id, from the lowest, of those with a key; 0xffffffff if there are fewer. */
uint32_t sb_cpu_nth_of_key(const sb_cpu_drawn *r, uint32_t key, uint64_t n);

/* Sets the cut of a row whose ids are all here. Requires: the row is not poisoned, and not empty.
 */
void sb_cpu_filter(sb_cpu_drawn *r, const sb_filters *filters);

/* Sums up what is kept; buffers: the state of each buffer, or null. Returns the number of ids. */
int32_t sb_cpu_sum_kept(const sb_cpu_drawn *r, sb_state *whole, sb_state *buffers);

/* Sets the bits of what is kept, in the words of the whole row, which are zero, or null. Returns
 * the number of ids. */
int32_t sb_cpu_write_kept(const sb_cpu_drawn *r, uint32_t *kept);

/* The token at R of the total of the ids from id `first` on. whole: the row's state; *logit: the
 * token's. Requires: first is a multiple of 16, and R is below that total. */
int32_t sb_cpu_find_token(const sb_cpu_drawn *r, const sb_state *whole, int64_t first, sb_u128 R,
                          float *logit);

#endif
