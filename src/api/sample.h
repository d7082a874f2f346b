/* sample.h - how a row's token is drawn: the values of sb_sampling for a row, and their checks.
 * Host arrays only. */
#ifndef SB_API_SAMPLE_H
#define SB_API_SAMPLE_H

#include "backend.h"

/* A row's filters. */
typedef struct sb_filters {
    int32_t top_k;
    float top_p, min_p;
} sb_filters;

sb_filters sb_filters_of(const sb_sampling *how, int64_t row);

/* Whether the call may leave out ids that the batch keeps. */
int sb_has_filters(const sb_sampling *how);

/* What holds for all rows: checks the values of arrays that are null. Several rows need random bits
 * of their own. */
sb_status sb_check_how(const sb_sampling *how, int64_t rows, sb_message *why);

/* A row's random bits. Requires: its u, if there is one, is in range. */
uint64_t sb_draw_bits(const sb_sampling *how, int64_t row);

/* Checks the values of a call's active rows, in ascending order. */
sb_status sb_check_sampling(const sb_sampling *how, const int64_t *active, int64_t actives,
                            sb_message *why);

/* The same on host copies of a device's arrays, once all other checks have passed. */
sb_status sb_check_device_sampling(const sb_call *call, const sb_sampling *how, sb_message *why);

#endif
