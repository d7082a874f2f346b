/* lists.c - the leaves of rows that keep lists of ids: only leaves with a kept id are made, and
 * only kept logits are read. A leaf is the same number wherever it stands, so that a row's leaves
 * may be summed side by side as if they were those of a short row. */
#include "cpu/cpu.h"

sb_cpu_leaves sb_cpu_leaves_of(const sb_call *call, int64_t row, int64_t first, int64_t n)
{
    sb_kept_list list = sb_kept_list_of(call, row);
    sb_cpu_leaves l = { .call = call, .logits = sb_logits_of(call, row) };
    l.at = sb_kept_entry(call, list, call->first + first);
    list.first = l.at;
    l.last = sb_kept_entry(call, list, call->first + first + n);
    return l;
}

int64_t sb_cpu_next_leaf(const sb_cpu_leaves *l)
{
    return l->at < l->last ? (sb_kept_id_at(l->call, l->at) - l->call->first) / SB_LEAF : INT64_MAX;
}

/* Fills x with the absent. */
static void clear(float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++) x[i] = sb_float(SB_ABSENT_BITS);
}

void sb_cpu_take_leaf(sb_cpu_leaves *l, float x[SB_LEAF])
{
    const int32_t dtype = l->call->in.logits_dtype;
    const int64_t leaf = sb_cpu_next_leaf(l);
    clear(x, SB_LEAF);
    for (; sb_cpu_next_leaf(l) == leaf; l->at++) {
        const int64_t i = sb_kept_id_at(l->call, l->at) - l->call->first;
        x[i % SB_LEAF] = sb_logit_at(l->logits, dtype, i);
    }
}

int64_t sb_cpu_take_leaves(sb_cpu_leaves *l, float *x, int64_t most)
{
    int64_t n = 0;
    for (; n < most && l->at < l->last; n++) sb_cpu_take_leaf(l, x + n * SB_LEAF);
    return n;
}

void sb_cpu_read_list(const sb_call *call, int64_t row, int64_t first, int64_t n, float *x)
{
    sb_cpu_leaves l = sb_cpu_leaves_of(call, row, first, n);
    clear(x, n);
    for (; l.at < l.last; l.at++) {
        const int64_t i = sb_kept_id_at(call, l.at) - call->first;
        x[i - first] = sb_logit_at(l.logits, call->in.logits_dtype, i);
    }
}

uint32_t sb_cpu_list_bits(const sb_call *call, int64_t row, int64_t id)
{
    const sb_kept_list list = sb_kept_list_of(call, row);
    uint32_t bits = 0;
    for (int64_t at = sb_kept_entry(call, list, id); at < list.last; at++) {
        const int64_t i = sb_kept_id_at(call, at) - id;
        if (i >= SB_LEAF) break;
        bits |= 1u << i;
    }
    return bits;
}
