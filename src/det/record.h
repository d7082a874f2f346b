/* record.h - the checks on state and target records that come from outside the library. Merging or
 * finishing a record that fails them would give a meaningless number.
 *
 * See docs/numerics.md, section "Shards and state bytes". */
#ifndef SB_DET_RECORD_H
#define SB_DET_RECORD_H

#include "moments.h"

/* The layout of the public sb_target_record. */
typedef struct sb_target {
    uint32_t x, owners;
} sb_target;

typedef enum sb_fault {
    SB_RECORD_FINE,
    SB_FAULT_WINDOW,  /* no state has this J */
    SB_FAULT_DIGITS,  /* an empty or poisoned state has digits that are not 0 */
    SB_FAULT_MOMENTS, /* no leaves give these moments or this largest logit */
    SB_FAULT_SUM,     /* no leaves add up to these digits: T would be 0, or exceed 128 bits */
    SB_FAULT_C,       /* c differs from that of the row */
    SB_FAULT_LOGIT,   /* a target record has no owner, but holds a logit */
    SB_FAULT_OWNERS,  /* the target record of a whole row has no owner, or several */
    SB_FAULT_TARGET,  /* the state does not contain the target's logit */
    SB_FAULT_SAVED,   /* the saved row is of an ignored row, or no forward pass gives it */
    SB_FAULT_ENTROPY, /* a gradient of the entropy needs the entropy, which the saved row lacks */
    SB_FAULT_RANGES,  /* the ids of ranks do not rise, or are not those that the rank has sent */
    SB_FAULT_PLACES,  /* first places that are not of the rank's ids, or not of its sum */
    SB_FAULT_GOAL,    /* the sums over keys do not reach the goal of a filter */
    SB_FAULT_COUNT,   /* a number of kept ids that cannot be that of its sums */
    SB_FAULT_TOKEN    /* no rank has the token of a row, or several have */
} sb_fault;

#define SB_J_FIRST 65536u
#define SB_J_LAST 196608u

SB_DET sb_fault sb_state_fault(const sb_state *s)
{
    if (s->J == SB_J_EMPTY || s->J == SB_J_POISON)
        return (s->l[0] | s->l[1] | s->l[2]) == 0 ? SB_RECORD_FINE : SB_FAULT_DIGITS;
    if (s->J < SB_J_FIRST || s->J > SB_J_LAST) return SB_FAULT_WINDOW;
    if ((s->l[1] | s->l[2]) == 0 || s->l[2] > (uint64_t)1 << 60) return SB_FAULT_SUM;
    return SB_RECORD_FINE;
}

/* Leaves give |g| below 2^55. The sum of the accepted g of up to 8 shards fits in 64 bits; beyond
 * that it wraps around. The order key of a finite logit is in [00800000, ff7fffff]. */
SB_DET sb_fault sb_moments_fault(const sb_moments *m)
{
    const int64_t most = (int64_t)1 << 60;
    const int none = m->sum.J == SB_J_EMPTY || m->sum.J == SB_J_POISON;
    const sb_fault fault = sb_state_fault(&m->sum);
    int i;
    if (fault != SB_RECORD_FINE) return fault;
    for (i = 0; i < 3; i++)
        if (none ? m->g[i] != 0 : m->g[i] > most || m->g[i] < -most) return SB_FAULT_MOMENTS;
    if (none ? m->best != 0 : m->best < 0x00800000u || m->best > 0xff7fffffu)
        return SB_FAULT_MOMENTS;
    return m->reserved == 0 ? SB_RECORD_FINE : SB_FAULT_MOMENTS;
}

/* Checks a record that is to be merged with one whose c has these bits. */
SB_DET sb_fault sb_merge_fault(const sb_state *s, const sb_target *t, uint32_t c)
{
    sb_fault fault = sb_state_fault(s);
    if (fault != SB_RECORD_FINE) return fault;
    if (s->c != c) return SB_FAULT_C;
    return t->owners == 0 && t->x != 0 ? SB_FAULT_LOGIT : SB_RECORD_FINE;
}

/* Whether x is too large to be among the logits of this state. Requires: x is finite. */
SB_DET int sb_state_lacks(const sb_state *s, float x, const sb_row *row)
{
    if (sb_state_is_nan(s)) return s->J == SB_J_EMPTY;
    return sb_exceeds(sb_target_mantissa(x, row), sb_sum_mantissa(s));
}

/* Checks the records of an active row that is to be finished. */
SB_DET sb_fault sb_finish_fault(const sb_state *s, const sb_target *t, const sb_row *row)
{
    sb_fault fault = sb_merge_fault(s, t, sb_bits32(row->c));
    float x = sb_float(t->x);
    int lacking;
    if (fault != SB_RECORD_FINE) return fault;
    if (t->owners != 1) return SB_FAULT_OWNERS;
    if (sb_is_absent(x)) return SB_RECORD_FINE;
    lacking = sb_is_poison(x) ? s->J != SB_J_POISON : sb_state_lacks(s, x, row);
    return lacking ? SB_FAULT_TARGET : SB_RECORD_FINE;
}

SB_DET sb_fault sb_moments_merge_fault(const sb_moments *m, const sb_target *t, uint32_t c)
{
    const sb_fault fault = sb_moments_fault(m);
    return fault == SB_RECORD_FINE ? sb_merge_fault(&m->sum, t, c) : fault;
}

/* The same with moments. Also checks that the sum can contain the largest logit, and that the
 * target's logit is not above it. */
SB_DET sb_fault sb_moments_finish_fault(const sb_moments *m, const sb_target *t, const sb_row *row)
{
    sb_fault fault = sb_moments_fault(m);
    if (fault == SB_RECORD_FINE) fault = sb_finish_fault(&m->sum, t, row);
    if (fault != SB_RECORD_FINE || sb_state_is_nan(&m->sum)) return fault;
    if (sb_state_lacks(&m->sum, sb_of_order_key(m->best), row)) return SB_FAULT_MOMENTS;
    return sb_order_key(sb_float(t->x)) > m->best ? SB_FAULT_TARGET : SB_RECORD_FINE;
}

SB_DET void sb_target_merge(sb_target *into, const sb_target *from)
{
    into->x |= from->x;
    into->owners += from->owners;
}

#endif
