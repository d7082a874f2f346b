/* drawn.c - see drawn.h. All sums are of integers: no order of visits can change a token. */
#include "cpu/drawn.h"

int64_t sb_cpu_drawn_read(const sb_cpu_drawn *r, int64_t first, float *x)
{
    const int64_t left = r->call->held - first, n = left < SB_CPU_BUFFER ? left : SB_CPU_BUFFER;
    if (n <= 0) return 0;
    if (r->logits) memcpy(x, r->logits + first, (size_t)n * sizeof *x);
    else if (r->hidden) sb_cpu_hidden_tile(r->hidden, r->index, 1, first, n, x, n);
    else sb_cpu_read(r->call, r->row, first, n, x);
    for (int64_t i = 0; r->is_cut && i < n; i++)
        if (sb_is_cut(&r->cut, x[i], (uint32_t)(r->call->first + first + i)))
            x[i] = sb_float(SB_ABSENT_BITS);
    return n;
}

uint64_t sb_cpu_first_place(const sb_cpu_drawn *r)
{
    float x[SB_CPU_BUFFER];
    uint64_t best = SB_NO_PLACE;
    SB_CPU_EACH_BUFFER(r, first, n, x)
    for (int64_t i = 0; i < n; i++) {
        if (!(x[i] > sb_float(SB_ABSENT_BITS))) continue; /* NaN has no place */
        const uint64_t place = sb_place_of(x[i], (uint32_t)(r->call->first + first + i));
        best = place > best ? place : best;
    }
    return best;
}

/* ---- cuts ---------------------------------------------------------------------------------- */

/* The sum over the row, as it is cut so far. */
static uint64_t sum_of(const sb_cpu_drawn *r, int weighted)
{
    float x[SB_CPU_BUFFER];
    uint64_t sum = 0;
    SB_CPU_EACH_BUFFER(r, first, n, x)
    for (int64_t i = 0; i < n; i++)
        if (!sb_is_absent(x[i])) sum += sb_cpu_measure(r, x[i], weighted);
    return sum;
}

void sb_cpu_sum_keys(const sb_cpu_drawn *r, int shift, int bits, uint32_t prefix, int weighted,
                     uint64_t *sums)
{
    float x[SB_CPU_BUFFER];
    memset(sums, 0, sizeof *sums << bits);
    SB_CPU_EACH_BUFFER(r, first, n, x)
    for (int64_t i = 0; i < n; i++) {
        const uint32_t key = sb_is_absent(x[i]) ? 0 : sb_order_key(x[i]);
        if (key && (uint64_t)key >> (shift + bits) == prefix)
            sums[key >> shift & ((1u << bits) - 1)] += sb_cpu_measure(r, x[i], weighted);
    }
}

uint32_t sb_cpu_nth_of_key(const sb_cpu_drawn *r, uint32_t key, uint64_t n)
{
    float x[SB_CPU_BUFFER];
    SB_CPU_EACH_BUFFER(r, first, count, x)
    for (int64_t i = 0; i < count; i++)
        if (!sb_is_absent(x[i]) && sb_order_key(x[i]) == key && --n == 0)
            return (uint32_t)(r->call->first + first + i);
    return 0xffffffff; /* there are fewer: logits have changed, or a message is damaged */
}

/* The key bits that one pass tells apart, from the top: 11, 11 and 10. */
#define LEVELS 3
static const struct {
    int shift, bits;
} levels[LEVELS] = { { 21, 11 }, { 10, 11 }, { 0, 10 } };

/* The place at which the sum over the first ids reaches goal: the last place of the shortest
 * beginning. Requires: the sum over all reaches it. */
static uint64_t place_of_goal(const sb_cpu_drawn *r, uint64_t goal, int weighted)
{
    uint64_t sums[2048], each;
    uint32_t key = 0;
    for (int level = 0; level < LEVELS; level++) {
        int b = (1 << levels[level].bits) - 1;
        sb_cpu_sum_keys(r, levels[level].shift, levels[level].bits, key, weighted, sums);
        for (; sums[b] < goal; b--) goal -= sums[b];
        key = key << levels[level].bits | (uint32_t)b;
    }
    each = sb_cpu_measure(r, sb_place_logit((uint64_t)key << 32), weighted);
    return (uint64_t)key << 32 |
           (0xffffffffu - sb_cpu_nth_of_key(r, key, (goal + each - 1) / each));
}

void sb_cpu_filter(sb_cpu_drawn *r, const sb_filters *f)
{
    const float best = sb_place_logit(sb_cpu_first_place(r));
    r->cut.place = 0;
    r->cut.least = 0.0f;
    r->cut.weights = sb_weights_of(best, &r->constants);
    r->is_cut = 1;
    if (f->top_k > 0 && (uint64_t)f->top_k < sum_of(r, 0))
        r->cut.place = place_of_goal(r, (uint64_t)f->top_k, 0);
    if (f->top_p < 1.0f) r->cut.place = place_of_goal(r, sb_top_p_goal(f->top_p, sum_of(r, 1)), 1);
    if (f->min_p > 0.0f) r->cut.least = sb_least_weight(f->min_p, sb_weight(best, &r->cut.weights));
}

/* ---- what is kept, and the draw ------------------------------------------------------------- */

int32_t sb_cpu_sum_kept(const sb_cpu_drawn *r, sb_state *whole, sb_state *buffers)
{
    float x[SB_CPU_BUFFER];
    int32_t count = 0;
    sb_state_init(whole, r->constants.c);
    SB_CPU_EACH_BUFFER(r, first, n, x)
    {
        sb_state own, *s = buffers ? &buffers[first / SB_CPU_BUFFER] : &own;
        sb_state_init(s, r->constants.c);
        r->isa->f32(s, x, n, &r->constants);
        sb_state_merge(whole, s);
        for (int64_t i = 0; i < n; i++) count += !sb_is_absent(x[i]);
    }
    return count;
}

int32_t sb_cpu_write_kept(const sb_cpu_drawn *r, uint32_t *kept)
{
    float x[SB_CPU_BUFFER];
    int32_t count = 0;
    SB_CPU_EACH_BUFFER(r, first, n, x)
    for (int64_t i = 0; i < n; i++) {
        const int64_t id = r->call->first + first + i;
        if (sb_is_absent(x[i])) continue;
        count++;
        if (kept) kept[id / 32] |= 1u << id % 32;
    }
    return count;
}

int32_t sb_cpu_find_token(const sb_cpu_drawn *r, const sb_state *whole, int64_t first, sb_u128 R,
                          float *logit)
{
    float x[SB_CPU_BUFFER];
    for (int64_t n; (n = sb_cpu_drawn_read(r, first, x)) > 0; first += n)
        for (int64_t i = 0; i < n; i += SB_LEAF) {
            float y[SB_LEAF];
            sb_leaf leaf;
            sb_u128 share;
            for (int k = 0; k < SB_LEAF; k++)
                y[k] = i + k < n ? x[i + k] : sb_float(SB_ABSENT_BITS);
            if (sb_leaf_of(&leaf, y, &r->constants) != SB_LEAF_PRESENT) continue;
            if ((uint32_t)(leaf.A + SB_BIAS) >> 5 > whole->J) continue; /* not of that state */
            share = sb_leaf_share(&leaf, whole->J);
            if (R < share) {
                const int k = sb_drawn_in_leaf(y, &r->constants, share, R);
                *logit = y[k];
                return (int32_t)(r->call->first + first + i + k);
            }
            R -= share;
        }
    return -1; /* never, likewise: R is below the total */
}
