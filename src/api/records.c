/* records.c - see records.h. The message names the first record that is at fault, by row and then
 * by shard, and its fault. The backends call these checks: the cpu backend before it writes, a
 * device backend after a report, on copies. */
#include "api/records.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "api/call.h"
#include "det/saved.h"

/* The place of a record: its row, and its shard or NO_SHARD. */
typedef struct place {
    int64_t row, shard;
} place;

#define NO_SHARD (-1)

sb_record sb_record_at(const sb_records *records, int64_t i)
{
    const int64_t size = (int64_t)sb_state_size(records);
    sb_record r;
    memcpy(&r.m, (const char *)records->states + i * size, (size_t)size);
    memcpy(&r.t, (const char *)records->targets + i * (int64_t)sizeof r.t, sizeof r.t);
    return r;
}

/* c: the bits that s.c should have. id: the row's id, if the fault concerns its target. */
static sb_status name_fault(sb_fault fault, place at, const sb_record *r, uint32_t c, int64_t id,
                            sb_message *why)
{
    const sb_state *s = &r->m.sum;
    const sb_target *t = &r->t;
    char where[64];
    if (at.shard == NO_SHARD) snprintf(where, sizeof where, "row %" PRId64, at.row);
    else snprintf(where, sizeof where, "row %" PRId64 ", shard %" PRId64, at.row, at.shard);
    switch (fault) {
    case SB_RECORD_FINE: return SB_OK;
    case SB_FAULT_WINDOW:
        return sb_fail(why, SB_ERR_STATE,
                       "%s: no state has J = %u: it is 0, 2147483647 or in [%u, %u]", where,
                       (unsigned)s->J, SB_J_FIRST, SB_J_LAST);
    case SB_FAULT_DIGITS:
        return sb_fail(why, SB_ERR_STATE, "%s: the state is %s, but its digits are not zero", where,
                       s->J == SB_J_EMPTY ? "empty" : "poisoned");
    case SB_FAULT_SUM:
        return sb_fail(why, SB_ERR_STATE,
                       "%s: the state's digits (%016" PRIx64 " %016" PRIx64 " %016" PRIx64
                       ") are no sum of leaves",
                       where, s->l[0], s->l[1], s->l[2]);
    case SB_FAULT_MOMENTS:
        return sb_fail(why, SB_ERR_STATE,
                       "%s: the moments (%016" PRIx64 " %016" PRIx64 " %016" PRIx64
                       ", largest logit "
                       "%08x, then %08x) are not those of leaves that give such a state",
                       where, (uint64_t)r->m.g[0], (uint64_t)r->m.g[1], (uint64_t)r->m.g[2],
                       (unsigned)r->m.best, (unsigned)r->m.reserved);
    case SB_FAULT_C:
        return sb_fail(why, SB_ERR_STATE,
                       "%s: the state is of another temperature, or of an ignored row: the bits of "
                       "its c are %08x, not %08x",
                       where, (unsigned)s->c, (unsigned)c);
    case SB_FAULT_LOGIT:
        return sb_fail(why, SB_ERR_STATE, "%s: the target record has a logit (%08x), but no owner",
                       where, (unsigned)t->x);
    case SB_FAULT_OWNERS:
        return sb_fail(why, SB_ERR_STATE,
                       "%s: id %" PRId64 " lies in %u of the merged shards, not in one", where, id,
                       (unsigned)t->owners);
    default: break; /* SB_FAULT_TARGET */
    }
    if (s->J != SB_J_EMPTY && !sb_is_poison(sb_float(t->x)))
        return sb_fail(why, SB_ERR_STATE,
                       "%s: the target's logit (%08x) is larger than any that such a state holds",
                       where, (unsigned)t->x);
    return sb_fail(why, SB_ERR_STATE,
                   "%s: the target's logit (%08x) is not among those of a state that is %s", where,
                   (unsigned)t->x, s->J == SB_J_EMPTY ? "empty" : "not poisoned");
}

sb_status sb_check_records(const sb_records *records, int64_t rows, const char *from,
                           sb_message *why)
{
    sb_status status = sb_check_size(records, sizeof *records, "sb_records", "SB_RECORDS_INIT",
                                     why);
    if (status != SB_OK) return status;
    if (records->kind != SB_SUMS && records->kind != SB_MOMENTS)
        return sb_fail(why, SB_ERR_ARGUMENT, "%skind is %d, not SB_SUMS or SB_MOMENTS", from,
                       (int)records->kind);
    if (rows == 0 || (records->states && records->targets)) return SB_OK;
    return sb_fail(why, SB_ERR_ARGUMENT, "%s%s is null", from,
                   records->states ? "targets" : "states");
}

sb_status sb_check_merge(const sb_merge_call *call, sb_message *why)
{
    for (int64_t row = 0; row < call->rows; row++) {
        uint32_t c = sb_record_at(&call->from, row).m.sum.c;
        for (int64_t shard = 0; shard < call->shards; shard++) {
            sb_record r = sb_record_at(&call->from, shard * call->rows + row);
            sb_fault fault = sb_has_moments(&call->from) ? sb_moments_merge_fault(&r.m, &r.t, c)
                                                         : sb_merge_fault(&r.m.sum, &r.t, c);
            place at = { row, shard };
            if (fault != SB_RECORD_FINE) return name_fault(fault, at, &r, c, 0, why);
        }
    }
    return SB_OK;
}

sb_status sb_check_finish(const sb_call *call, const sb_records *records, const int64_t *active,
                          int64_t actives, sb_message *why)
{
    sb_status status = SB_OK;
    for (int64_t i = 0; i < actives && status == SB_OK; i++) {
        place at = { active[i], NO_SHARD };
        sb_row row = sb_row_of(sb_temperature_at(call, at.row));
        sb_record r = sb_record_at(records, at.row);
        sb_fault fault = sb_has_moments(records) ? sb_moments_finish_fault(&r.m, &r.t, &row)
                                                 : sb_finish_fault(&r.m.sum, &r.t, &row);
        if (fault != SB_RECORD_FINE)
            status = name_fault(fault, at, &r, sb_bits32(row.c),
                                sb_int_at(call->in.ids, call->in.ids_dtype, at.row), why);
    }
    return status;
}

sb_status sb_check_saved(const sb_call *call, const sb_gradient *gradient, const int64_t *active,
                         int64_t actives, sb_message *why)
{
    sb_status status = SB_OK;
    for (int64_t i = 0; i < actives && status == SB_OK; i++) {
        sb_row row = sb_row_of(sb_temperature_at(call, active[i]));
        sb_fault fault;
        sb_saved saved;
        memcpy(&saved, (const char *)gradient->saved + active[i] * (int64_t)sizeof saved,
               sizeof saved);
        fault = sb_saved_fault(&saved, &row, gradient->entropy != NULL);
        if (fault == SB_FAULT_C)
            status = sb_fail(why, SB_ERR_STATE,
                             "row %" PRId64 ": the saved record is of another temperature: c is "
                             "%08x, not %08x",
                             active[i], (unsigned)saved.c, (unsigned)sb_bits32(row.c));
        else if (fault != SB_RECORD_FINE)
            status = sb_fail(why, SB_ERR_STATE, "row %" PRId64 ": %s", active[i],
                             sb_fault_text(fault));
    }
    return status;
}

/* The active rows in increasing order, which the caller frees. Null and a status on failure. */
static int64_t *list_active(const sb_call *call, int64_t *actives, sb_status *status,
                            sb_message *why)
{
    int64_t *active = malloc((size_t)(call->rows ? call->rows : 1) * sizeof *active);
    *status = active ? sb_list_active(call, active, actives, why)
                     : sb_fail(why, SB_ERR_MEMORY, "no memory to look for the bad row");
    if (*status == SB_OK) return active;
    free(active);
    return NULL;
}

sb_status sb_check_device_saved(const sb_call *call, const sb_gradient *gradient, sb_message *why)
{
    sb_status status;
    int64_t actives, *active = list_active(call, &actives, &status, why);
    if (active) status = sb_check_saved(call, gradient, active, actives, why);
    free(active);
    return status;
}

sb_status sb_check_device_finish(const sb_call *call, const sb_records *records, sb_message *why)
{
    sb_status status;
    int64_t actives, *active = list_active(call, &actives, &status, why);
    if (active) status = sb_check_finish(call, records, active, actives, why);
    free(active);
    return status;
}

const char *sb_fault_text(int fault)
{
    switch ((sb_fault)fault) {
    case SB_FAULT_WINDOW: return "there is no state of such a J";
    case SB_FAULT_DIGITS: return "an empty or poisoned state has digits";
    case SB_FAULT_MOMENTS: return "a state's moments are not those of leaves that give it";
    case SB_FAULT_SUM: return "a state's digits are no sum of leaves";
    case SB_FAULT_C: return "a state is of another temperature, or of an ignored row";
    case SB_FAULT_LOGIT: return "a target record has a logit, but no owner";
    case SB_FAULT_OWNERS: return "its id does not lie in one of the merged shards";
    case SB_FAULT_TARGET: return "the target's logit is not among those of its state";
    case SB_FAULT_SAVED: return "no active row leaves such a saved record";
    case SB_FAULT_ENTROPY: return "its saved record has no entropy: the forward pass gave none";
    case SB_FAULT_RANGES: return "the ids of the ranks do not rise, or are of another rank";
    case SB_FAULT_PLACES: return "no ids of this rank have these first places";
    case SB_FAULT_GOAL: return "the sums of the ranks do not reach what the filter keeps";
    case SB_FAULT_COUNT: return "so many kept ids do not have these sums";
    case SB_FAULT_TOKEN: return "not exactly one rank has the token";
    case SB_RECORD_FINE: break;
    }
    return "its records are refused";
}
