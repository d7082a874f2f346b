/* stalled.h - a call that stops halfway, so that a check can examine the context from outside in
 * the meantime. Its ids lie in a page that cannot be read until the check lets it continue. */
#ifndef SB_SPEC_STALLED_H
#define SB_SPEC_STALLED_H

#include "score.h"

/* Starts a score on ctx in a new thread, and returns once that call has stopped; 0 if this is not
 * possible. Only one call can be stalled at a time. */
int stall(sb_context *ctx);

/* Lets the call continue and waits for its end. Returns its status, and gives its SCORE_FLOATS
 * results. */
sb_status unstall(float *out);

#endif
