/* batches.h - right and wrong sb_batch structs, made from bytes, and the rules of samebits.h for
 * them.
 *
 * Every array has exactly the bytes that samebits.h asks for, and under AddressSanitizer only the
 * logits of active rows may be read. */
#ifndef SB_BATCHES_H
#define SB_BATCHES_H

#include "samebits.h"
#include "source.h"

/* The arrays of a call. Null where the bytes left one out, or where it would be too large: then the
 * call has to be refused, or is about a smaller one. */
typedef struct arrays {
    void *logits, *ids, *cu_seqlens, *kept_ids, *kept_offsets;
    uint8_t *mask;
    float *temperatures;
    int64_t *row_list;
    uint32_t *kept;
    size_t logits_bytes;
    int64_t rows; /* -1 where they are too many */
} arrays;

/* The ids whose logits a batch has. */
typedef struct part {
    int64_t first, n;
} part;

/* a * b, or -1 where that is negative or more than a test's worth. */
int64_t times(int64_t a, int64_t b);

/* Whether a * b * c, all >= 0, is an int64_t. */
int fits_int64(int64_t a, int64_t b, int64_t c);

/* count elements. Of 0 bytes, too: nothing may be read there. Null where times() is -1. */
void *array(int64_t count, int64_t size);

/* Elements of the ids' dtype. */
void *make_ids(source *s, const sb_batch *b, int64_t count);

/* Small numbers, and now and then any bits, as logits of a dtype. */
void *make_numbers(source *s, int64_t count, int32_t dtype);

/* Makes a batch and its arrays. part: of a shard, drawn as well; null: the batch has whole rows. */
void make_batch(source *s, arrays *a, sb_batch *b, part *shard);
void free_arrays(arrays *a);

int is_ignored(const sb_batch *b, int64_t row);
int64_t id_of(const sb_batch *b, int64_t row);
float temperature_of(const sb_batch *b, int64_t row);

/* As b, but with one id per row that stands for its k: ignored where all of them are, a bad one
 * where any is; k = 0: b needs none. The ids are new; null where b's are missing. */
sb_batch narrowed(const sb_batch *b, int64_t rows, int64_t k);

/* Of a batch that was accepted: every logit but those of active rows is out of bounds. */
void guard_logits(const sb_batch *b, const arrays *a, part held);

int is_right_launch(const sb_launch *launch);
int is_right_batch(const sb_batch *b, int64_t rows, part held);

#endif
