/* gradient.h - the checks of a gradient that sb_logprob_backward shares with sb_logprob, and those
 * of its layout, which sb_logits shares. */
#ifndef SB_API_GRADIENT_H
#define SB_API_GRADIENT_H

#include "backend.h"

/* Fills in the strides of what has the layout of a batch's rows, such as a gradient, and checks
 * that no two of its rows overlap. what: its name in messages. Uses to's grad, dtype, width and
 * strides; grad may take the place of the logits. */
sb_status sb_check_layout(sb_gradient *to, const sb_call *call, const char *what, sb_message *why);

/* Checks the gradient that sb_logprob computes with call's batch, which has been checked, and
 * copies it, with the width and the strides filled in. */
sb_status sb_gradient_of(sb_gradient *to, const sb_gradient *gradient, const sb_call *call,
                         sb_message *why);

#endif
