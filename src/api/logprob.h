/* logprob.h - the checks that sb_logprob shares with the control group's logprob. */
#ifndef SB_API_LOGPROB_H
#define SB_API_LOGPROB_H

#include "backend.h"

/* Checks out, batch and launch and fills in call. The caller checks kept sets. */
sb_status sb_logprob_call_of(sb_context *ctx, sb_logprob_call *call, const sb_logprob_out *out,
                             const sb_batch *batch, const sb_launch *launch);

#endif
