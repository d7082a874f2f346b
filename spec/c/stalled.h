/* stalled.h - a call that stands still halfway, as long as it takes to look at the context from
 * outside: its ids lie in a page that cannot be read until then. */
#ifndef SB_SPEC_STALLED_H
#define SB_SPEC_STALLED_H

#include "score.h"

/* Starts a score of ctx's in a thread of its own, and returns when it stands still; 0 where this
 * cannot be had. One at a time. */
int stall(sb_context *ctx);

/* Lets it go on. How it ended, and what it wrote, SCORE_FLOATS of them. */
sb_status unstall(float *out);

#endif
