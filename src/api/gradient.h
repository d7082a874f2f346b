/* gradient.h - the checks of a gradient that sb_logprob_backward shares with sb_logprob. */
#ifndef SB_API_GRADIENT_H
#define SB_API_GRADIENT_H

#include "backend.h"

/* Checks the gradient that sb_logprob computes with call's batch, which has been checked, and
 * copies it, with the width and the strides filled in. */
sb_status sb_gradient_of(sb_gradient *to, const sb_gradient *gradient, const sb_call *call,
                         sb_message *why);

#endif
