/* score.h - one batch, for checks that care about who calls and how, not about what is computed:
 * big enough for a context's threads to be woken. */
#ifndef SB_SPEC_SCORE_H
#define SB_SPEC_SCORE_H

#include "samebits.h"

enum { SCORE_ROWS = 12, SCORE_VOCAB = 6001, SCORE_FLOATS = 2 * SCORE_ROWS + 1 };

/* Once, before any score. */
void score_prepare(void);

/* token, lse, sequence: SCORE_FLOATS of them. split: as in sb_launch. */
int score(sb_context *ctx, float *out, int split);

/* The same batch with ids that lie elsewhere. */
sb_status score_ids(sb_context *ctx, float *out, int split, const int32_t *ids);
extern int32_t score_own_ids[SCORE_ROWS];

/* A cpu context with so many threads, or null. */
sb_context *score_open(int threads);

#endif
