/* kl.h - the functions of sb_kl that backends use besides the checked call. */
#ifndef SB_API_KL_H
#define SB_API_KL_H

#include "backend.h"

/* The call that sums divergences by sequence: ignored rows are +0 and add nothing. */
sb_sums_call sb_kl_sums(const sb_kl_call *call, const float *tokens);

/* Puts into an error message which of the two batches, p or q, is at fault; returns status. */
sb_status sb_kl_blame(sb_message *why, char which, sb_status status);

#endif
