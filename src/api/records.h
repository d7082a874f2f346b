/* records.h - checks of the records that callers pass in, those of shards and of forward passes,
 * and the texts for their faults. Host arrays only. */
#ifndef SB_API_RECORDS_H
#define SB_API_RECORDS_H

#include "backend.h"
#include "det/moments.h"
#include "det/record.h"

/* Whether states are sb_moment_records. */
static inline int sb_has_moments(const sb_records *records) { return records->kind == SB_MOMENTS; }

/* Bytes per state. */
static inline size_t sb_state_size(const sb_records *records)
{
    return sb_has_moments(records) ? sizeof(sb_moment_record) : sizeof(sb_state_record);
}

/* A row's records, copied out of the caller's arrays. Without moments only m.sum is set. */
typedef struct sb_record {
    sb_moments m;
    sb_target t;
} sb_record;
sb_record sb_record_at(const sb_records *records, int64_t i);

/* Checks the struct and, if there are rows, that both arrays are not null. from: "" or "from.", the
 * prefix of their names in messages. */
sb_status sb_check_records(const sb_records *records, int64_t rows, const char *from,
                           sb_message *why);

/* Checks all records that sb_merge is given. */
sb_status sb_check_merge(const sb_merge_call *call, sb_message *why);

/* Checks the records of a call's active rows, for sb_finish. */
sb_status sb_check_finish(const sb_call *call, const sb_records *records, const int64_t *active,
                          int64_t actives, sb_message *why);

/* The same on host copies of a device's arrays, once all other checks have passed. */
sb_status sb_check_device_finish(const sb_call *call, const sb_records *records, sb_message *why);

/* Checks the saved rows of a call's active rows, for sb_logprob_backward. */
sb_status sb_check_saved(const sb_call *call, const sb_gradient *gradient, const int64_t *active,
                         int64_t actives, sb_message *why);

/* The same on host copies of a device's arrays, once all other checks have passed. */
sb_status sb_check_device_saved(const sb_call *call, const sb_gradient *gradient, sb_message *why);

/* The text for a fault of a row's records, an sb_fault. */
const char *sb_fault_text(int fault);

#endif
