/* saved.h - the record of a row that the forward pass saves for the gradient: 32 bytes, the same on
 * every machine.
 *
 * See docs/numerics.md, section "Gradients". */
#ifndef SB_DET_SAVED_H
#define SB_DET_SAVED_H

#include "moments.h"
#include "record.h"

typedef enum sb_saved_kind {
    SB_SAVED_IGNORED,
    SB_SAVED_SUM,
    SB_SAVED_ENTROPY, /* best and h2 are set, too */
    SB_SAVED_NAN      /* the row is poisoned or empty */
} sb_saved_kind;

typedef struct sb_saved {
    uint32_t kind; /* an sb_saved_kind */
    uint32_t c;    /* the bits of the row's c */
    int32_t e;     /* eS; with g, the mantissa that lg used, the sum is g * 2^e */
    uint32_t best; /* the bits of the largest logit */
    double g;
    double h2; /* the entropy in octaves */
} sb_saved;

/* The record of an ignored row: all zero. */
SB_DET sb_saved sb_saved_none(void)
{
    sb_saved saved;
    saved.kind = SB_SAVED_IGNORED;
    saved.c = 0;
    saved.e = 0;
    saved.best = 0;
    saved.g = saved.h2 = 0.0;
    return saved;
}

SB_DET sb_saved sb_saved_of(sb_saved_kind kind, const sb_row *row)
{
    sb_saved saved = sb_saved_none();
    saved.kind = kind;
    saved.c = sb_bits32(row->c);
    return saved;
}

SB_DET sb_saved sb_saved_sum(sb_lg sum, const sb_row *row)
{
    sb_saved saved = sb_saved_of(SB_SAVED_SUM, row);
    saved.e = sum.e;
    saved.g = sum.g;
    return saved;
}

SB_DET sb_saved sb_saved_moments(const sb_moments *m, sb_lg sum, const sb_row *row)
{
    sb_saved saved = sb_saved_sum(sum, row);
    saved.kind = SB_SAVED_ENTROPY;
    saved.best = sb_bits32(sb_of_order_key(m->best));
    saved.h2 = sb_entropy_octaves(m, sum, row);
    return saved;
}

/* The record of a row without moments. */
SB_DET sb_saved sb_finish_saved(const sb_state *s, const sb_row *row)
{
    sb_mantissa sum;
    if (sb_state_is_nan(s)) return sb_saved_of(SB_SAVED_NAN, row);
    sum = sb_sum_mantissa(s);
    return sb_saved_sum(sb_log2_parts(sum.m, sum.e), row);
}

SB_DET sb_saved sb_finish_saved_moments(const sb_moments *m, const sb_row *row)
{
    sb_mantissa sum;
    if (sb_state_is_nan(&m->sum)) return sb_saved_of(SB_SAVED_NAN, row);
    sum = sb_sum_mantissa(&m->sum);
    return sb_saved_moments(m, sb_log2_parts(sum.m, sum.e), row);
}

/* Whether the term of x exceeds the saved sum. Requires: x is finite. */
SB_DET int sb_saved_lacks(const sb_saved *s, float x, const sb_row *row)
{
    const sb_mantissa m = sb_target_mantissa(x, row);
    const sb_lg term = sb_log2_parts(m.m, m.e);
    return term.e != s->e ? term.e > s->e : term.g > s->g;
}

/* Checks the saved record of an active row. entropy: whether the gradient of the entropy is
 * wanted. */
SB_DET sb_fault sb_saved_fault(const sb_saved *s, const sb_row *row, int entropy)
{
    if (s->kind == SB_SAVED_IGNORED || s->kind > SB_SAVED_NAN) return SB_FAULT_SAVED;
    if (s->c != sb_bits32(row->c)) return SB_FAULT_C;
    if (s->kind == SB_SAVED_NAN) return SB_RECORD_FINE;
    if (!(s->g > 0.70 && s->g < 1.42) || s->e > SB_BIAS || s->e < -SB_BIAS) return SB_FAULT_SAVED;
    if (!entropy) return SB_RECORD_FINE;
    if (s->kind != SB_SAVED_ENTROPY) return SB_FAULT_ENTROPY;
    if (!(s->h2 >= 0.0 && s->h2 < 64.0) || (s->best & SB_INF_BITS) == SB_INF_BITS)
        return SB_FAULT_SAVED;
    return sb_saved_lacks(s, sb_float(s->best), row) ? SB_FAULT_SAVED : SB_RECORD_FINE;
}

#endif
