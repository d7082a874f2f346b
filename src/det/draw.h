/* draw.h - draws from shards of the vocabulary: the messages that ranks exchange in each round, and
 * what a rank learns from those of all. docs/numerics.md, section "Draws from shards", defines
 * both.
 *
 * Every message is of integers and of exact sums, and what follows from all of them is the same on
 * every rank, but for the cut of a rank's own ids. Messages come from outside: a function that
 * takes some returns a fault if no ranks can give them. */
#ifndef SB_DET_DRAW_H
#define SB_DET_DRAW_H

#include "record.h"
#include "sample.h"

typedef enum sb_draw_kind {
    SB_DRAW_BEGIN, /* sums of the present ids, and first places */
    SB_DRAW_KEYS,  /* sums over ids by some bits of their keys */
    SB_DRAW_KEPT,  /* sums of the kept ids */
    SB_DRAW_TOKEN  /* the token, from the rank that has it */
} sb_draw_kind;

#define SB_DRAW_BITS 8 /* of keys in one round */
#define SB_DRAW_BINS (1 << SB_DRAW_BITS)
#define SB_DRAW_LEVELS (32 / SB_DRAW_BITS)
#define SB_DRAW_NO_ID 0xffffffffu

/* What a round is about. */
typedef struct sb_draw_step {
    int32_t kind;
    int32_t weighted; /* SB_DRAW_KEYS: sums of weights, for top-p; 0: of 1, for top-k */
    int32_t level;    /* likewise: which bits, from the top */
} sb_draw_step;

/* The message of SB_DRAW_BEGIN. Behind it: the state without the batch's kept sets, if the model's
 * logprob needs it; then the first k places of top-k, or one where any other filter needs it. */
typedef struct sb_draw_begin {
    uint32_t first, n; /* the rank's ids */
    sb_state present;
} sb_draw_begin;

/* The message of SB_DRAW_KEPT. */
typedef struct sb_draw_kept {
    sb_state kept;
    uint32_t count, reserved;
} sb_draw_kept;

/* The message of SB_DRAW_TOKEN: all zero, except from the rank that has the token. */
typedef struct sb_draw_token {
    uint32_t x;  /* the bits of its logit as fp32 */
    uint32_t id; /* plus 1 */
} sb_draw_token;

/* What a rank knows of a row between rounds: SB_DRAW_PROGRESS bytes. */
typedef struct sb_draw_row {
    sb_state kept;   /* of what the filters have left so far, of all ranks */
    sb_state model;  /* without the batch's kept sets */
    uint64_t first;  /* the place of the first id of all ranks */
    uint64_t cut;    /* the last place that is kept of the rank's own ids */
    uint64_t left;   /* of the goal of the search, less 1 */
    uint32_t prefix; /* the bits of the key that the search has found */
    int32_t searches;
    int32_t none; /* there is nothing to draw from: the row is poisoned, empty or refused */
    uint32_t count;
    uint32_t fault; /* on a device: an sb_fault, of the messages of this rank, or -1: of all */
    int32_t shard;
    uint64_t own; /* the first place that the rank has sent: no logit of its own is larger */
    uint64_t reserved;
} sb_draw_row;

/* Checks a place of a rank's ids. */
SB_DET sb_fault sb_draw_place_fault(uint64_t place, const sb_draw_begin *m)
{
    const uint32_t key = (uint32_t)(place >> 32), id = 0xffffffffu - (uint32_t)place;
    if (place == SB_NO_PLACE) return SB_RECORD_FINE;
    if (key < 0x00800000u || key > 0xff7fffffu || id < m->first || id - m->first >= m->n)
        return SB_FAULT_PLACES;
    return SB_RECORD_FINE;
}

/* Merges the first message of a rank. *end: the id behind those of the ranks in front of it. model:
 * null, or the state behind the message. */
SB_DET sb_fault sb_draw_take_begin(sb_draw_row *p, const sb_draw_begin *m, const sb_state *model,
                                   uint32_t c, uint64_t *end)
{
    sb_fault fault = sb_state_fault(&m->present);
    if (fault == SB_RECORD_FINE && model) fault = sb_state_fault(model);
    if (fault != SB_RECORD_FINE) return fault;
    if (m->present.c != c || (model && model->c != c)) return SB_FAULT_C;
    if (m->n > 0 && m->first < *end) return SB_FAULT_RANGES;
    if (m->n > 0) *end = (uint64_t)m->first + m->n;
    sb_state_merge(&p->kept, &m->present);
    if (model) sb_state_merge(&p->model, model);
    return SB_RECORD_FINE;
}

/* Whether merged states have digits that no leaves give. */
SB_DET sb_fault sb_draw_merged_fault(const sb_draw_row *p)
{
    const sb_fault fault = sb_state_fault(&p->kept);
    return fault == SB_RECORD_FINE ? sb_state_fault(&p->model) : fault;
}

/* Checks the first place of all ranks against their sums, which are not NaN. */
SB_DET sb_fault sb_draw_first_fault(const sb_draw_row *p, const sb_row *row)
{
    const float x = sb_place_logit(p->first);
    if (p->first == SB_NO_PLACE || sb_state_lacks(&p->kept, x, row)) return SB_FAULT_PLACES;
    if (!sb_state_is_nan(&p->model) && sb_state_lacks(&p->model, x, row)) return SB_FAULT_PLACES;
    return SB_RECORD_FINE;
}

/* Begins to search for a place. */
SB_DET void sb_draw_search(sb_draw_row *p, int searches)
{
    p->searches = searches;
    p->prefix = 0;
    p->left = 0;
}

/* Narrows a search by the sums of all ranks, [SB_DRAW_BINS]. bin: what has been found. */
SB_DET sb_fault sb_draw_narrow(sb_draw_row *p, const uint64_t *sums, const sb_draw_step *step,
                               int32_t top_k, float top_p, int *bin)
{
    int b = SB_DRAW_BINS - 1;
    if (step->level == 0) {
        uint64_t sum = 0;
        int i;
        for (i = 0; i < SB_DRAW_BINS; i++) sum += sums[i];
        if (sum == 0) return SB_FAULT_GOAL;
        if (!step->weighted && (uint64_t)top_k >= sum) { /* all stay */
            p->searches = 0;
            return SB_RECORD_FINE;
        }
        p->left = (step->weighted ? sb_top_p_goal(top_p, sum) : (uint64_t)top_k) - 1;
    }
    for (; b >= 0 && sums[b] <= p->left; b--) p->left -= sums[b];
    if (b < 0) return SB_FAULT_GOAL;
    p->prefix = p->prefix << SB_DRAW_BITS | (uint32_t)b;
    *bin = b;
    return SB_RECORD_FINE;
}

/* Ends a search whose key is complete: how many ids of the key stay. each: what one adds. */
SB_DET sb_fault sb_draw_number(const sb_draw_row *p, const sb_draw_step *step,
                               const sb_weights *weights, uint64_t *each, uint64_t *n)
{
    const float x = sb_place_logit((uint64_t)p->prefix << 32);
    if (p->prefix < 0x00800000u || p->prefix > p->first >> 32) return SB_FAULT_GOAL;
    *each = step->weighted ? sb_weight_units(sb_weight(x, weights)) : 1;
    if (*each == 0) return SB_FAULT_GOAL;
    *n = p->left / *each + 1;
    return SB_RECORD_FINE;
}

/* Moves the cut of a rank's own ids. n: how many ids of the key stay; before: how many the ranks in
 * front of it have; own: its own. Returns 0, or which of its own ids of the key is the last that
 * stays, counted from 1: the caller then sets the cut. */
SB_DET uint64_t sb_draw_cut(sb_draw_row *p, uint64_t n, uint64_t before, uint64_t own)
{
    const uint64_t place = (uint64_t)p->prefix << 32;
    const uint64_t cut = n <= before ? place + ((uint64_t)1 << 32) : place;
    if (n > before && n - before < own) return n - before;
    if (cut > p->cut) p->cut = cut;
    return 0;
}

/* The last of the rank's own ids of the key that stays. SB_DRAW_NO_ID: it has fewer ids of the key
 * than its message says, and all of them stay. */
SB_DET void sb_draw_cut_at(sb_draw_row *p, uint32_t id)
{
    const uint64_t place = (uint64_t)p->prefix << 32 | (0xffffffffu - id);
    if (place > p->cut) p->cut = place;
}

/* Merges what a rank says of its kept ids. */
SB_DET sb_fault sb_draw_take_kept(sb_draw_row *p, const sb_draw_kept *m, uint32_t vocab)
{
    const sb_fault fault = sb_state_fault(&m->kept);
    if (fault != SB_RECORD_FINE) return fault;
    if (m->kept.c != p->kept.c) return SB_FAULT_C;
    if (m->reserved != 0 || m->count > vocab - p->count ||
        (m->count == 0) != (m->kept.J == SB_J_EMPTY))
        return SB_FAULT_COUNT;
    sb_state_merge(&p->kept, &m->kept);
    p->count += m->count;
    return SB_RECORD_FINE;
}

/* Where R lies: the number of the rank whose ids hold it, and R less the shares of those before it.
 * stride: bytes from one rank's state to the next. Returns shards if there is none. */
SB_DET int32_t sb_draw_owner(const char *states, uint64_t stride, int32_t shards, uint32_t J,
                             sb_u128 *R)
{
    int32_t s;
    for (s = 0; s < shards; s++) {
        const sb_u128 share = sb_total_at((const sb_state *)(states + s * stride), J);
        if (*R < share) break;
        *R -= share;
    }
    return s;
}

/* Adds up what ranks say of the token. */
SB_DET sb_fault sb_draw_take_token(sb_draw_token *t, const sb_draw_token *m)
{
    if (m->id == 0) return m->x == 0 ? SB_RECORD_FINE : SB_FAULT_LOGIT;
    if (t->id != 0) return SB_FAULT_TOKEN;
    *t = *m;
    return SB_RECORD_FINE;
}

/* Checks a token against its row. */
SB_DET sb_fault sb_draw_token_fault(const sb_draw_row *p, const sb_draw_token *t, uint32_t vocab,
                                    const sb_row *row)
{
    const float x = sb_float(t->x);
    if (t->id == 0 || t->id > vocab) return SB_FAULT_TOKEN;
    if (sb_is_absent(x) || sb_is_poison(x) || sb_state_lacks(&p->kept, x, row))
        return SB_FAULT_TARGET;
    if (!sb_state_is_nan(&p->model) && sb_state_lacks(&p->model, x, row)) return SB_FAULT_TARGET;
    return SB_RECORD_FINE;
}

#endif
