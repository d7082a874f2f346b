/* hidden.h - the hidden states of a call on the CPU: they are packed once, and give exact fp32
 * logits a tile at a time, which the code for rows of fp32 logits then uses. No more of the logits
 * than one tile per thread exists at any time. */
#ifndef SB_CPU_HIDDEN_H
#define SB_CPU_HIDDEN_H

#include "cpu/head.h"
#include "cpu/pool.h"

#define SB_CPU_TILE_ROWS 64             /* at most, in a tile: a multiple of SB_CPU_HEAD_ROWS */
#define SB_CPU_TILE_IDS 256             /* a multiple of 16 */
#define SB_CPU_ALONE_ELEMENTS 65536     /* arrays of at most this many elements, and calls */
#define SB_CPU_ALONE_PRODUCTS (1 << 20) /* of at most this many products, run on one thread */

#define SB_CPU_CHUNK 256 /* elements of a row that are converted at once: a multiple of 64 */

/* The scale of n elements of any alignment: their largest magnitude. */
uint32_t sb_cpu_scale(const void *row, int32_t dtype, int64_t n);

/* The integers, of bits bits under 2^E, of n elements. */
void sb_cpu_integers(int32_t *q, const void *row, int32_t dtype, int64_t n, int32_t E,
                     int32_t bits);

/* Converts n <= SB_CPU_CHUNK elements, of any alignment, to fp32. */
void sb_cpu_convert(float *x, const void *row, int32_t dtype, int64_t n);

/* A buffer that is kept between calls and only grows. */
typedef struct sb_cpu_scratch {
    void *data;
    size_t size;
} sb_cpu_scratch;

/* Returns memory for count items of size bytes, or null if there is none. A later call with the
 * same scratch may free it. */
void *sb_cpu_room(sb_cpu_scratch *s, int64_t count, size_t size);

/* The hidden states of a call's active rows. */
typedef struct sb_cpu_hidden {
    const sb_call *call;
    const sb_product_isa *isa;
    sb_cpu_head_parts at;
    sb_linear_steps steps;
    const int64_t *active;
    int64_t actives;
    const uint32_t *scales; /* [rows] of whole rows, if these are some columns; or null */
    int32_t *E;             /* [actives] */
    char *packed;           /* [actives], sb_cpu_pitch(K) bytes apart */
    float *targets;         /* [actives][width]: the logits of the rows' ids; null: not wanted */
} sb_cpu_hidden;

/* Scratch of one sb_cpu_hidden. */
typedef struct sb_cpu_hidden_scratch {
    sb_cpu_scratch packed, E, targets;
} sb_cpu_hidden_scratch;

/* Sets *hidden, and reserves memory. with_targets: the logits of ids are wanted. Fails for lack of
 * memory only. Requires: call has a head. */
sb_status sb_cpu_hidden_prepare(sb_cpu_hidden *hidden, const sb_call *call,
                                const sb_product_isa *isa, sb_cpu_hidden_scratch *scratch,
                                const int64_t *active, int64_t actives, int with_targets,
                                sb_message *why);

/* Packs all rows, and computes their targets. */
void sb_cpu_hidden_pack(sb_pool *pool, const sb_cpu_hidden *hidden);

/* Computes the logits of the ids first .. first + n - 1 for the active rows i .. i + rows - 1, as
 * sb_cpu_read does for rows of logits: x [rows] of `stride` floats each. first is relative to the
 * first id of the call and a multiple of 16; rows <= SB_CPU_TILE_ROWS. */
void sb_cpu_hidden_tile(const sb_cpu_hidden *hidden, int64_t i, int64_t rows, int64_t first,
                        int64_t n, float *x, int64_t stride);

/* The same, as exact sums: without bias, scale, softcap and kept sets. Bad rows of hidden states
 * give 0. */
void sb_cpu_hidden_sums(const sb_cpu_hidden *hidden, int64_t i, int64_t rows, int64_t first,
                        int64_t n, int64_t *sums, int64_t stride);

/* Logits from the sums of n <= 16 ids of one row, whose E is E_h: first is relative to the head's
 * first id. bits: a bit for each id, 0 where it is not kept. */
void sb_cpu_combine_leaf(const sb_head *head, const sb_cpu_head_parts *at,
                         const sb_linear_steps *steps, const int64_t *sums, int32_t E_h,
                         int64_t first, int64_t n, uint32_t bits, float *x);

#endif
