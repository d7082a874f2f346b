/* kept.h - checks of kept sets: words of 32 ids, or lists of ids. */
#ifndef SB_API_KEPT_H
#define SB_API_KEPT_H

#include "api/call.h"

/* Checks what the struct says of kept sets, and fills in the stride of words; without device_memory
 * the offsets of lists, too. Kept sets are of whole rows, even if the logits are a shard's. */
sb_status sb_check_kept(sb_call *call, int device_memory, sb_message *why);

/* Both for host arrays: the offsets of all rows; and a row's ids, which must be in [0, V) and
 * rise. */
sb_status sb_check_kept_offsets(const sb_call *call, sb_message *why);
sb_status sb_check_kept_list(const sb_call *call, int64_t row, sb_message *why);

#endif
