/* kl.h - what backends need of sb_kl beside its checked call. */
#ifndef SB_API_KL_H
#define SB_API_KL_H

#include "backend.h"

/* The sums of a call's divergences by sequence: ignored rows are +0 and add nothing. */
sb_sums_call sb_kl_sums(const sb_kl_call *call, const float *tokens);

/* Says in a failure's message which of the two batches, p or q, is at fault; gives back status. */
sb_status sb_kl_blame(sb_message *why, char which, sb_status status);

#endif
