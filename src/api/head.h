/* head.h - heads: what calls on hidden states check of one, and where the array of a slice of D
 * lies. */
#ifndef SB_API_HEAD_H
#define SB_API_HEAD_H

#include "backend.h"

/* Checks that a head can be used in a context: that it is not null, that it is one, that the
 * context's backend has heads, and that it prepared this one on the context's device. */
sb_status sb_check_head(sb_context *ctx, const sb_head *head);

/* Refuses weights with bad rows, or with a row whose given scale is below its own. in->scales and
 * in->bias can be read; own: the scale of each row. */
sb_status sb_check_weight_rows(const sb_head_weights *in, const uint32_t *own, sb_message *why);

#endif
