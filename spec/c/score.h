/* score.h - one batch for checks that vary the caller and the circumstances of a call, and not the
 * data. It is large enough to wake the threads of a context. */
#ifndef SB_SPEC_SCORE_H
#define SB_SPEC_SCORE_H

#include "samebits.h"

enum { SCORE_ROWS = 12, SCORE_VOCAB = 6001, SCORE_FLOATS = 2 * SCORE_ROWS + 1 };

/* Must be called once, before any score. */
void score_prepare(void);

/* Writes token, lse and sequence, SCORE_FLOATS floats in all. split is as in sb_launch. */
int score(sb_context *ctx, float *out, int split);

/* The same batch, with its ids at another address. */
sb_status score_ids(sb_context *ctx, float *out, int split, const int32_t *ids);
extern int32_t score_own_ids[SCORE_ROWS];

/* Opens a cpu context with that many threads; null if it fails. */
sb_context *score_open(int threads);

#endif
