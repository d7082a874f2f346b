/* policy.cu - policy losses of tokens, their gradients, and the exact sums that make a scalar and
 * metrics of them; advantages of rewards within groups.
 *
 * Shapes: tokens [B, T], or [N] if packed; advantages [B] or shaped as tokens; rewards [N]. The
 * arguments are in src/cuda/args.h, the arithmetic in src/det/policy.h and src/det/group.h.
 *
 * Tokens are divided into units of consecutive rows, one warp each. The tokens of one sequence in
 * one unit are a segment, and segments are numbered by unit + sequence: either rises by at least 1
 * from one segment to the next. A sequence's segments are merged by integer sums, so the division
 * cannot matter:
 *
 *     policy_offsets     packed only: checks cu_seqlens; a bad entry makes the whole call NaN
 *     policy_count       a segment's active tokens; only if the constants of a sequence need them.
 *                        policy_count_joint: the sums of its differences, too, if ratios or weights
 *                        are of sequences
 *     policy_lengths     a sequence's tokens and constants, from its segments
 *     policy_totals      one block: tokens and sequences of the call; only if the step's are not
 *                        given
 *     policy_tokens_*    losses and gradients of tokens; a segment's sum; a block's tally
 *     policy_sequences   losses of sequences from their segments; a block's tally
 *     policy_finish      block 0 merges all tallies, and writes the record, the scalar and the
 *                        metrics. All blocks write NaN over the gradients if the step's totals are
 *                        below the call's own
 *
 *     thread's windows -> warp -> segment -> sequence (a warp) -> block's tally -> one block
 *
 *     policy_merge       one block: tallies of several calls
 *     group_*            rewards: one block per group, but group_total, which is one block */
#include <stddef.h>

#include "../src/det/group.h"
#include "../src/det/policy.h"
#include "merge.cuh"
#include "policy_row.cuh"

#define BLOCK SB_CUDA_POLICY_BLOCK
#define WARPS (BLOCK / WARP)
#define EACH 4             /* consecutive rows per lane */
#define SLAB (EACH * WARP) /* rows that a warp visits at a time */
static_assert(SB_CUDA_POLICY_SLAB % SLAB == 0, "units end where slabs do");

SB_DET void put(uint64_t to, int64_t i, float x)
{
    if (to) ((float *)to)[i] = x;
}

/* ---- digits over a warp ------------------------------------------------------------------- */

SB_DET uint32_t warp_or(uint32_t flags)
{
    uint32_t all = 0;
    for (uint32_t flag = SB_SEEN_NAN; flag <= SB_SEEN_MINUS_INF; flag *= 2)
        if (__any_sync(FULL, flags & flag)) all |= flag;
    return all;
}

SB_DET void warp_merge(sb_digits *s)
{
    for (int k = 0; k < SB_DIGITS; k++) s->d[k] = warp_sum_signed(s->d[k]);
    s->seen = warp_or(s->seen);
}

/* A thread's exact sum. Nearly all values have their last bit in digits 2 .. 4, and are added to
 * digits 2 .. 5 in registers; all others are added to a whole sum in local memory, which exists
 * once it is needed. */
struct window {
    int64_t d[4];
};

#define WINDOW 2 /* its first digit */

SB_DET void window_init(window *w)
{
    for (int k = 0; k < 4; k++) w->d[k] = 0;
}

/* far: the whole sum; *used: has it been made? */
SB_DET void window_add(window *w, sb_digits *far, bool *used, float x)
{
    const uint32_t b = sb_bits32(x), place = (b >> 23 & 0xffu) - 1u;
    if (place - 32 * WINDOW < 96) {
        const uint64_t wide = (uint64_t)(b & 0x7fffffu | 0x800000u) << (place & 31);
        const int64_t sign = (int32_t)b >> 31; /* -1: negative */
        const int64_t low = ((int64_t)(uint32_t)wide ^ sign) - sign;
        const int64_t high = ((int64_t)(uint32_t)(wide >> 32) ^ sign) - sign;
        if (place < 32 * (WINDOW + 1)) {
            w->d[0] += low;
            w->d[1] += high;
        } else if (place < 32 * (WINDOW + 2)) {
            w->d[1] += low;
            w->d[2] += high;
        } else {
            w->d[2] += low;
            w->d[3] += high;
        }
    } else if (b << 1 != 0) {
        if (!*used) sb_digits_init(far);
        *used = true;
        sb_digits_add(far, x);
    }
}

/* The sum of a warp's windows, in all lanes. */
SB_DET sb_digits window_sum(const window &w, const sb_digits &far, bool used)
{
    sb_digits sum;
    if (__any_sync(FULL, used)) {
        if (used) sum = far;
        else sb_digits_init(&sum);
        for (int k = 0; k < 4; k++) sum.d[WINDOW + k] += w.d[k];
        warp_merge(&sum);
    } else {
        sb_digits_init(&sum);
        for (int k = 0; k < 4; k++) sum.d[WINDOW + k] = warp_sum_signed(w.d[k]);
    }
    return sum;
}

/* ---- segments ----------------------------------------------------------------------------- */

struct segment {
    int64_t b;           /* the sequence */
    int64_t first, last; /* rows */
};

/* The segment of a unit that begins at row. The offsets are good. */
SB_DET segment segment_at(const policy_args &a, int64_t unit, int64_t row)
{
    const int64_t end = (unit + 1) * a.unit;
    segment s;
    int64_t first;
    s.b = a.in.cu_seqlens ? sequence_of(a.in, row)
                          : (int64_t)((uint32_t)row / (uint32_t)a.in.time); /* rows <= 2^30 */
    extent_of(a.in, s.b, &first, &s.last);
    s.first = row;
    if (s.last > end) s.last = end;
    return s;
}

SB_DET int64_t unit_end(const policy_args &a, int64_t unit)
{
    return min((unit + 1) * (int64_t)a.unit, a.in.rows);
}

/* Which of a lane's rows i .. i + 3 belong to a segment and are active, as bits. */
SB_DET uint32_t active_rows(const policy_args &a, const segment &s, int64_t i)
{
    const uint8_t *mask = (const uint8_t *)a.in.mask;
    uint32_t active = 0;
    if (mask && a.vector && i >= s.first && i + EACH <= s.last) {
        const uint32_t word = *(const uint32_t *)(mask + i);
        for (int k = 0; k < EACH; k++) active |= (word >> (8 * k) & 0xff) ? 1u << k : 0u;
        return active;
    }
    for (int k = 0; k < EACH; k++) {
        const int64_t row = i + k;
        if (row >= s.first && row < s.last && (!mask || mask[row])) active |= 1u << k;
    }
    return active;
}

/* Rows i .. i + 3 of an array; what is not active is not used. */
SB_DET void load_rows(const policy_args &a, uint64_t from, int64_t i, uint32_t active,
                      float to[EACH])
{
    const float *x = (const float *)from;
    if (a.vector && i + EACH <= a.in.rows) {
        const uint4 v = load16((const char *)(x + i));
        to[0] = sb_float(v.x), to[1] = sb_float(v.y);
        to[2] = sb_float(v.z), to[3] = sb_float(v.w);
        return;
    }
    for (int k = 0; k < EACH; k++) to[k] = active >> k & 1 ? x[i + k] : 0.0f;
}

/* ---- before the tokens -------------------------------------------------------------------- */

extern "C" __global__ void __launch_bounds__(BLOCK)
    policy_offsets(const __grid_constant__ policy_args a)
{
    const int64_t b = blockIdx.x * (int64_t)BLOCK + threadIdx.x;
    int64_t first, last;
    if (b >= a.in.batch || extent_of(a.in, b, &first, &last)) return;
    report(a.in, SB_BAD_CU_SEQLENS, b);
    *(volatile int32_t *)a.refused = 1;
}

/* JOINT: the sums of differences, too. */
template <bool JOINT> SB_DET void count_tokens(const policy_args &a)
{
    const int lane = threadIdx.x % WARP;
    const int64_t unit = warp_item();
    if (unit >= a.units || is_refused(a)) return;
    const uint64_t old = a.old ? a.old : a.now;
    for (int64_t row = unit * a.unit, end = unit_end(a, unit); row < end;) {
        const segment s = segment_at(a, unit, row);
        uint32_t count = 0;
        sb_policy_joint joint;
        if (JOINT) {
            sb_digits_init(&joint.moved);
            sb_digits_init(&joint.drifted);
            sb_digits_init(&joint.weight);
        }
        for (int64_t i = row / SLAB * SLAB + lane * EACH; i < s.last; i += SLAB) {
            const uint32_t active = active_rows(a, s, i);
            count += __popc(active);
            for (int k = 0; JOINT && k < EACH; k++) {
                if (!(active >> k & 1)) continue;
                const float x = ((const float *)a.now)[i + k], y = ((const float *)old)[i + k];
                sb_digits_add_difference(&joint.moved, x, y);
                if (!a.rollout) continue;
                const float z = ((const float *)a.rollout)[i + k];
                sb_digits_add_difference(&joint.drifted, x, z);
                sb_digits_add_difference(&joint.weight, y, z);
            }
        }
        count = __reduce_add_sync(FULL, count);
        if (JOINT) {
            warp_merge(&joint.moved);
            warp_merge(&joint.drifted);
            warp_merge(&joint.weight);
        }
        if (lane == 0) {
            ((int64_t *)a.counts)[unit + s.b] = count;
            if (JOINT) ((sb_policy_joint *)a.joints)[unit + s.b] = joint;
        }
        row = s.last;
    }
}

extern "C" __global__ void __launch_bounds__(BLOCK)
    policy_count(const __grid_constant__ policy_args a)
{
    count_tokens<false>(a);
}

extern "C" __global__ void __launch_bounds__(BLOCK)
    policy_count_joint(const __grid_constant__ policy_args a)
{
    count_tokens<true>(a);
}

extern "C" __global__ void __launch_bounds__(BLOCK)
    policy_lengths(const __grid_constant__ policy_args a)
{
    const int lane = threadIdx.x % WARP;
    const int64_t b = warp_item();
    int64_t first, last, count = 0;
    sb_policy_joint joint;
    sb_cuda_policy_length length;
    if (b >= a.in.batch || is_refused(a)) return;
    extent_of(a.in, b, &first, &last);
    sb_digits_init(&joint.moved);
    sb_digits_init(&joint.drifted);
    sb_digits_init(&joint.weight);
    for (int64_t u = first / a.unit + lane; first < last && u <= (last - 1) / a.unit; u += WARP) {
        count += ((const int64_t *)a.counts)[u + b];
        if (!a.joint) continue;
        const sb_policy_joint *part = (const sb_policy_joint *)a.joints + u + b;
        sb_digits_merge(&joint.moved, &part->moved);
        sb_digits_merge(&joint.drifted, &part->drifted);
        sb_digits_merge(&joint.weight, &part->weight);
    }
    count = warp_sum_signed(count);
    if (a.joint) {
        warp_merge(&joint.moved);
        warp_merge(&joint.drifted);
        warp_merge(&joint.weight);
    }
    if (lane != 0) return;
    length.count = count;
    /* the scale is made with the totals, later */
    length.of = sb_policy_sequence_of(&a.rules, a.joint ? &joint : nullptr, count, 1, 1);
    ((sb_cuda_policy_length *)a.lengths)[b] = length;
}

extern "C" __global__ void __launch_bounds__(1024)
    policy_totals(const __grid_constant__ policy_args a)
{
    __shared__ int64_t shared[2][1024 / WARP];
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    int64_t tokens = 0, sequences = 0;
    if (is_refused(a)) return;
    for (int64_t b = threadIdx.x; b < a.in.batch; b += 1024) {
        const int64_t count = ((const sb_cuda_policy_length *)a.lengths)[b].count;
        tokens += count;
        sequences += count > 0;
    }
    shared[0][warp] = warp_sum_signed(tokens);
    shared[1][warp] = warp_sum_signed(sequences);
    __syncthreads(); /* every warp's sums are in shared */
    if (warp != 0) return;
    for (int which = 0; which < 2; which++) {
        int64_t sum = lane < 1024 / WARP ? shared[which][lane] : 0;
        sum = warp_sum_signed(sum);
        if (lane == 0) ((int64_t *)a.totals)[which] = sum;
    }
}

/* ---- tallies as words --------------------------------------------------------------------- */

#define TALLY_WORDS ((int)(sizeof(sb_tally) / 8))
#define SUM_WORDS ((int)(sizeof(sb_digits) / 8))
#define TOTAL_WORDS ((int)(sizeof(sb_cuda_policy_total) / 8))
#define TOTAL_SEEN (SUM_WORDS - 1)
#define FIRST_SUM ((int)(offsetof(sb_tally, sums) / 8))

/* How the words of tallies merge. */
SB_DET bool is_keys(int word) { return word == FIRST_SUM - 1; }
SB_DET bool is_seen(int word)
{
    return word >= FIRST_SUM && (word - FIRST_SUM) % SUM_WORDS == SUM_WORDS - 1;
}

/* Merges a word of two tallies. The first word, which is the same in all of them, is kept. */
SB_DET uint64_t merged_words(uint64_t x, uint64_t y, int word)
{
    if (word == 0) return x;
    if (is_seen(word)) return x | y;
    if (!is_keys(word)) return x + y;
    return (uint64_t)max((uint32_t)(x >> 32), (uint32_t)(y >> 32)) << 32 |
           max((uint32_t)x, (uint32_t)y);
}

/* A word of the tallies from[0], from[step], .. together; 0 if there are none. */
SB_DET uint64_t merged_word(const uint64_t *from, int64_t count, int word, int64_t first = 0,
                            int64_t step = 1)
{
    uint64_t x = 0;
    for (int64_t i = first; i < count; i += step)
        x = i == first ? from[i * TALLY_WORDS + word]
                       : merged_words(x, from[i * TALLY_WORDS + word], word);
    return x;
}

/* The same, by a warp; all lanes get it. The first word only if there are as many as lanes. */
SB_DET uint64_t warp_merged_word(const uint64_t *from, int64_t count, int word)
{
    uint64_t x = merged_word(from, count, word, threadIdx.x % WARP, WARP);
    for (int step = WARP / 2; step > 0; step /= 2)
        x = merged_words(x, __shfl_xor_sync(FULL, x, step), word);
    return x;
}

/* ---- tokens ------------------------------------------------------------------------------- */

/* What a thread keeps of its tokens for metrics. Counts are of at most 2^30 tokens. */
struct token_tally {
    window sums[SB_POLICY_SUMS];
    sb_digits far[SB_POLICY_SUMS];
    bool used[SB_POLICY_SUMS];
    uint32_t marks[SB_MARKS], most, least;
};

SB_DET void tally_init(token_tally *t)
{
    for (int i = 0; i < SB_POLICY_SUMS; i++) {
        window_init(&t->sums[i]);
        t->used[i] = false;
    }
    for (int i = 0; i < SB_MARKS; i++) t->marks[i] = 0;
    t->most = t->least = 0;
}

SB_DET void tally_add(token_tally *t, const sb_policy_result &r)
{
    const float rho = r.value[SB_SUM_RATIO];
    for (int i = 0; i < SB_MARKS; i++) t->marks[i] += r.marks >> i & 1;
    for (int i = 1; i < SB_POLICY_SUMS; i++)
        window_add(&t->sums[i], &t->far[i], &t->used[i], r.value[i]);
    if (sb_is_nan(rho)) return;
    t->most = max(t->most, sb_order_key(rho));
    t->least = max(t->least, ~sb_order_key(rho));
}

/* Writes a warp's tally, without the loss, tokens and sequences. */
SB_DET void tally_write(const token_tally &t, sb_tally *to)
{
    const int lane = threadIdx.x % WARP;
    sb_digits sums[SB_POLICY_SUMS];
    for (int i = 1; i < SB_POLICY_SUMS; i++) {
        const sb_digits sum = window_sum(t.sums[i], t.far[i], t.used[i]);
        if (lane == 0) to->sums[i] = sum;
    }
    for (int i = 0; i < SB_MARKS; i++) {
        const int64_t count = warp_sum_signed(t.marks[i]);
        if (lane == 0) to->counts[SB_TALLY_MARKS + i] = count;
    }
    const uint32_t most = __reduce_max_sync(FULL, t.most);
    const uint32_t least = __reduce_max_sync(FULL, t.least);
    if (lane != 0) return;
    to->adds_sequences = to->parts = 0;
    to->counts[SB_TALLY_TOKENS] = to->counts[SB_TALLY_SEQUENCES] = 0;
    to->most = most;
    to->least = least;
    sb_digits_init(&sums[0]);
    to->sums[0] = sums[0];
}

/* Writes the results of a lane's rows that lie in the segment. */
SB_DET void store_rows(const policy_args &a, uint64_t to, const segment &s, int64_t i,
                       const float x[EACH])
{
    if (!to) return;
    if (a.vector && i >= s.first && i + EACH <= s.last) {
        const uint4 v = { sb_bits32(x[0]), sb_bits32(x[1]), sb_bits32(x[2]), sb_bits32(x[3]) };
        store16((char *)((float *)to + i), v);
        return;
    }
    for (int k = 0; k < EACH; k++)
        if (i + k >= s.first && i + k < s.last) ((float *)to)[i + k] = x[k];
}

/* Which rules a kernel is compiled for. */
enum rules_kind { RULES_ANY, RULES_CLIP, RULES_CLIP_K3 };

/* A call's rules, with what the kernel is compiled for as constants. */
template <rules_kind KIND> SB_DET sb_policy_rules rules_of(const policy_args &a)
{
    sb_policy_rules r = a.rules;
    if (KIND == RULES_ANY) return r;
    r.loss = SB_LOSS_CLIP;
    r.kl = SB_KL_3;
    r.weight = SB_WEIGHT_OFF;
    r.has = KIND == RULES_CLIP_K3 ? SB_HAS_OLD | SB_HAS_REF : SB_HAS_OLD;
    r.adds_kl = KIND == RULES_CLIP_K3;
    r.adds_entropy = 0;
    return r;
}

template <rules_kind KIND, bool METRICS> SB_DET void run_tokens(const policy_args &a)
{
    __shared__ sb_tally shared[METRICS ? WARPS : 1];
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    const bool refused = is_refused(a);
    const sb_policy_rules rules = rules_of<KIND>(a);
    token_tally tally;
    if (METRICS) tally_init(&tally);
    for (int64_t unit = warp_item(); unit < a.units && !refused;
         unit += (int64_t)gridDim.x * WARPS) {
        for (int64_t row = unit * a.unit, end = unit_end(a, unit); row < end;) {
            const segment s = segment_at(a, unit, row);
            const sb_policy_sequence of = constants_of(a, s.b);
            const float shared_advantage = a.per_token ? 0.0f : ((const float *)a.advantages)[s.b];
            window sum;
            sb_digits far;
            bool used = false;
            uint32_t count = 0;
            window_init(&sum);
            for (int64_t i = row / SLAB * SLAB + lane * EACH; i < s.last; i += SLAB) {
                const uint32_t active = active_rows(a, s, i);
                sb_policy_token token[EACH];
                float x[EACH], by_now[EACH], by_entropy[EACH];
                /* What is not active is computed, too, of zeros, so that a lane's tokens take no
                 * branches. */
                load_rows(a, a.now, i, active, x);
                for (int k = 0; k < EACH; k++) token[k].now = token[k].old = x[k];
                for (int k = 0; k < EACH; k++) token[k].advantage = shared_advantage;
                if (a.old) load_rows(a, a.old, i, active, x);
                for (int k = 0; k < EACH; k++) token[k].old = x[k];
                if (rules.has & SB_HAS_REF) load_rows(a, a.ref, i, active, x);
                for (int k = 0; k < EACH; k++) token[k].ref = x[k];
                if (rules.has & SB_HAS_ROLLOUT) load_rows(a, a.rollout, i, active, x);
                for (int k = 0; k < EACH; k++) token[k].rollout = x[k];
                if (rules.has & SB_HAS_ENTROPY) load_rows(a, a.given_entropy, i, active, x);
                for (int k = 0; k < EACH; k++) token[k].entropy = x[k];
                if (a.per_token) load_rows(a, a.advantages, i, active, x);
                for (int k = 0; k < EACH; k++)
                    if (a.per_token) token[k].advantage = x[k];
                count += __popc(active);
#pragma unroll
                for (int k = 0; k < EACH; k++) {
                    const bool is_active = active >> k & 1;
                    sb_policy_result r = sb_policy_token_of(&rules, &of, &token[k], METRICS);
                    by_now[k] = is_active ? r.by_now : 0.0f;
                    by_entropy[k] = is_active ? r.by_entropy : 0.0f;
                    window_add(&sum, &far, &used, is_active ? r.value[SB_SUM_LOSS] : 0.0f);
                    if (METRICS && is_active) tally_add(&tally, r);
                }
                store_rows(a, a.token, s, i, by_now);
                if (KIND == RULES_ANY) store_rows(a, a.entropy, s, i, by_entropy);
            }
            sb_cuda_policy_part part;
            part.sum = window_sum(sum, far, used);
            part.count = __reduce_add_sync(FULL, count);
            if (lane == 0) ((sb_cuda_policy_part *)a.parts)[unit + s.b] = part;
            row = s.last;
        }
    }
    if (!METRICS) return;
    tally_write(tally, &shared[warp]);
    __syncthreads(); /* every warp's tally is in shared */
    sb_tally *to = (sb_tally *)a.tallies + blockIdx.x;
    for (int word = threadIdx.x; word < TALLY_WORDS; word += BLOCK)
        ((uint64_t *)to)[word] = merged_word((const uint64_t *)shared, WARPS, word);
}

extern "C" __global__ void __launch_bounds__(BLOCK, 3)
    policy_tokens_loss(const __grid_constant__ policy_args a)
{
    run_tokens<RULES_ANY, false>(a);
}

extern "C" __global__ void __launch_bounds__(BLOCK, 3)
    policy_tokens_clip(const __grid_constant__ policy_args a)
{
    run_tokens<RULES_CLIP, false>(a);
}

extern "C" __global__ void __launch_bounds__(BLOCK, 3)
    policy_tokens_clip_k3(const __grid_constant__ policy_args a)
{
    run_tokens<RULES_CLIP_K3, false>(a);
}

extern "C" __global__ void __launch_bounds__(BLOCK, 2)
    policy_tokens_metrics(const __grid_constant__ policy_args a)
{
    run_tokens<RULES_ANY, true>(a);
}

/* ---- after the tokens --------------------------------------------------------------------- */

/* A block's sum of what its sequences add to S, its tokens and sequences. */
extern "C" __global__ void __launch_bounds__(BLOCK)
    policy_sequences(const __grid_constant__ policy_args a)
{
    __shared__ sb_cuda_policy_total shared[WARPS];
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    sb_cuda_policy_total total;
    wait_for_primary();
    const bool refused = is_refused(a);
    sb_digits_init(&total.sum);
    total.tokens = total.sequences = 0;
    for (int64_t b = warp_item(); b < a.in.batch; b += (int64_t)gridDim.x * WARPS) {
        int64_t first, last, count = 0;
        sb_digits sum;
        sb_digits_init(&sum);
        extent_of(a.in, b, &first, &last);
        if (refused) last = first;
        for (int64_t u = first / a.unit + lane; first < last && u <= (last - 1) / a.unit;
             u += WARP) {
            const sb_cuda_policy_part *part = (const sb_cuda_policy_part *)a.parts + u + b;
            sb_digits_merge(&sum, &part->sum);
            count += part->count;
        }
        warp_merge(&sum);
        count = warp_sum_signed(count);
        const float loss = refused ? sb_float(SB_NAN_BITS)
                                   : sb_policy_sequence_loss(&a.rules, &sum, count);
        if (lane == 0) put(a.in.sequence, b, loss);
        if (count == 0) continue;
        total.tokens += count;
        total.sequences++;
        if (sb_policy_adds_sequences(&a.rules)) sb_digits_add(&total.sum, loss);
        else sb_digits_merge(&total.sum, &sum);
    }
    if (lane == 0) shared[warp] = total;
    __syncthreads(); /* every warp's total is in shared */
    if (threadIdx.x >= TOTAL_WORDS) return;
    uint64_t x = 0;
    for (int w = 0; w < WARPS; w++) {
        const uint64_t y = ((const uint64_t *)&shared[w])[threadIdx.x];
        x = threadIdx.x == TOTAL_SEEN ? x | y : x + y;
    }
    ((uint64_t *)((sb_cuda_policy_total *)a.sums + blockIdx.x))[threadIdx.x] = x;
}

/* A word of all blocks' totals, by a warp; all lanes get it. */
SB_DET uint64_t warp_total_word(const policy_args &a, int word)
{
    uint64_t x = 0;
    for (int64_t i = threadIdx.x % WARP; i < a.sequence_blocks; i += WARP) {
        const uint64_t y = ((const uint64_t *)a.sums)[i * TOTAL_WORDS + word];
        x = word == TOTAL_SEEN ? x | y : x + y;
    }
    for (int step = WARP / 2; step > 0; step /= 2) {
        const uint64_t y = __shfl_xor_sync(FULL, x, step);
        x = word == TOTAL_SEEN ? x | y : x + y;
    }
    return x;
}

/* Writes what a tally gives; refused: NaN, and a record that every call refuses. The whole block
 * calls it; no thread writes t any more. */
SB_DET void write_tally(const policy_args &a, const sb_tally &t, bool refused)
{
    const float nan = sb_float(SB_NAN_BITS);
    if (a.record)
        for (int word = threadIdx.x; word < TALLY_WORDS; word += blockDim.x) {
            const uint64_t x = ((const uint64_t *)&t)[word];
            ((uint64_t *)a.record)[word] = word == 0 && refused ? x & 0xffffffffu : x;
        }
    if (threadIdx.x >= WARP) return;
    const int i = threadIdx.x; /* one lane for each metric */
    float x = nan;
    if (!refused && i < SB_POLICY_METRICS)
        x = sb_policy_metric_at(&a.rules, &t, a.tokens, a.sequences, i);
    if (i == 0 && a.loss) *(float *)a.loss = x;
    if (i < SB_POLICY_METRICS) put(a.metrics, i, x);
}

/* Whether the step's totals are below the call's own; reports: this thread says so. */
SB_DET bool too_small(const policy_args &a, int64_t tokens, int64_t sequences, bool reports)
{
    const bool few = a.tokens && a.tokens < tokens;
    if (!few && !(a.sequences && a.sequences < sequences)) return false;
    if (reports) report(a.in, few ? SB_BAD_TOKENS : SB_BAD_SEQUENCES, few ? tokens : sequences);
    return true;
}

extern "C" __global__ void __launch_bounds__(1024)
    policy_finish(const __grid_constant__ policy_args a)
{
    __shared__ sb_tally t;
    __shared__ sb_cuda_policy_total total;
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    wait_for_primary();
    const bool bad = is_refused(a), first = blockIdx.x == 0;
    for (int word = warp; word < TOTAL_WORDS; word += 1024 / WARP) {
        const uint64_t x = warp_total_word(a, word);
        if (lane == 0) ((uint64_t *)&total)[word] = x;
    }
    if (first && a.metrics)
        for (int word = warp; word < TALLY_WORDS; word += 1024 / WARP) {
            const uint64_t x = warp_merged_word((const uint64_t *)a.tallies, a.token_blocks, word);
            if (lane == 0) ((uint64_t *)&t)[word] = x;
        }
    else if (first)
        for (int word = threadIdx.x; word < TALLY_WORDS; word += 1024) ((uint64_t *)&t)[word] = 0;
    __syncthreads(); /* total is complete, and t but for what is the sequences' */
    if (first && threadIdx.x == 0) {
        t.adds_sequences = sb_policy_adds_sequences(&a.rules) ? 1 : 0;
        t.parts = a.metrics ? SB_TALLY_ALL : 1;
        t.counts[SB_TALLY_TOKENS] = total.tokens;
        t.counts[SB_TALLY_SEQUENCES] = total.sequences;
        t.sums[SB_SUM_LOSS] = total.sum;
    }
    __syncthreads(); /* t is complete */
    const bool refused = bad ||
                         too_small(a, total.tokens, total.sequences, first && threadIdx.x == 0);
    if (first) write_tally(a, t, refused);
    if (!refused) return;
    const int64_t step = (int64_t)gridDim.x * 1024;
    for (int64_t i = blockIdx.x * (int64_t)1024 + threadIdx.x; i < a.in.rows; i += step) {
        put(a.token, i, sb_float(SB_NAN_BITS));
        put(a.entropy, i, sb_float(SB_NAN_BITS));
        if (i < a.in.batch) put(a.in.sequence, i, sb_float(SB_NAN_BITS));
    }
}

extern "C" __global__ void __launch_bounds__(1024)
    policy_merge(const __grid_constant__ policy_args a)
{
    __shared__ sb_tally t;
    __shared__ int32_t refused;
    const uint32_t adds = (uint32_t)sb_policy_adds_sequences(&a.rules);
    const sb_tally *from = (const sb_tally *)a.tallies;
    const uint32_t parts = a.metrics ? SB_TALLY_ALL : from[0].parts;
    if (threadIdx.x == 0) refused = 0;
    __syncthreads(); /* refused is 0 */
    for (int64_t i = threadIdx.x; i < a.units; i += 1024) {
        if (sb_tally_fault_of(&from[i], adds, parts, 0) == SB_TALLY_WELL) continue;
        report(a.in, SB_BAD_TALLY, i);
        refused = 1;
    }
    for (int word = threadIdx.x / WARP; word < TALLY_WORDS; word += 1024 / WARP) {
        const uint64_t x = warp_merged_word((const uint64_t *)from, a.units, word);
        if (threadIdx.x % WARP == 0) ((uint64_t *)&t)[word] = x;
    }
    __syncthreads(); /* t is there, and from has been read: the record may lie in it */
    if (threadIdx.x == 0) {
        t.adds_sequences = adds;
        t.parts = parts;
        if (!refused && t.counts[SB_TALLY_TOKENS] > SB_TALLY_MOST) {
            report(a.in, SB_BAD_TALLY, a.units - 1);
            refused = 1;
        }
        if (!refused && too_small(a, t.counts[SB_TALLY_TOKENS], t.counts[SB_TALLY_SEQUENCES], true))
            refused = 1;
    }
    __syncthreads(); /* t is complete */
    write_tally(a, t, refused);
}

/* ---- groups ------------------------------------------------------------------------------- */

#define GROUP_BLOCK SB_CUDA_GROUP_BLOCK
#define GROUP_WARPS (GROUP_BLOCK / WARP)

typedef sb_cuda_group_args group_args;

SB_DET bool is_refused(const group_args &a) { return a.refused && *(const int32_t *)a.refused; }

/* The rewards of group g, first .. last - 1; false if its offsets are bad. */
SB_DET bool rewards_of(const group_args &a, int64_t g, int64_t *first, int64_t *last)
{
    if (!a.offsets) {
        *first = g * a.each;
        *last = *first + a.each;
        return true;
    }
    *first = int_at(a.offsets, a.offsets_dtype, g);
    *last = int_at(a.offsets, a.offsets_dtype, g + 1);
    return *first >= 0 && *first <= *last && *last <= a.rows && (g > 0 || *first == 0) &&
           (g + 1 < a.groups || *last == a.rows) && *last - *first < (int64_t)SB_GROUP_MAX;
}

extern "C" __global__ void __launch_bounds__(GROUP_BLOCK)
    group_offsets(const __grid_constant__ group_args a)
{
    const int64_t g = blockIdx.x * (int64_t)GROUP_BLOCK + threadIdx.x;
    int64_t first, last;
    if (g >= a.groups || rewards_of(a, g, &first, &last)) return;
    report(a.in, SB_BAD_OFFSETS, g);
    *(volatile int32_t *)a.refused = 1;
}

/* The sum of a block's groups, in thread 0. */
SB_DET void block_merge(sb_group *g, sb_group shared[GROUP_WARPS])
{
    g->n = (uint64_t)warp_sum_signed((int64_t)g->n);
    warp_merge(&g->sum);
    for (int k = 0; k < SB_SQUARES; k++)
        g->squares[k] = (uint64_t)warp_sum_signed((int64_t)g->squares[k]);
    if (threadIdx.x % WARP == 0) shared[threadIdx.x / WARP] = *g;
    __syncthreads(); /* every warp's group is in shared */
    if (threadIdx.x != 0) return;
    for (int w = 1; w < GROUP_WARPS; w++) sb_group_merge(g, &shared[w]);
}

extern "C" __global__ void __launch_bounds__(GROUP_BLOCK)
    group_records(const __grid_constant__ group_args a)
{
    __shared__ sb_group shared[GROUP_WARPS];
    __shared__ int32_t bad;
    const int64_t g = blockIdx.x;
    int64_t first, last;
    sb_group group;
    sb_group_init(&group);
    if (threadIdx.x == 0) bad = 0;
    __syncthreads(); /* bad is 0 */
    if (is_refused(a)) {
        group.sum.seen = SB_SEEN_NAN;
    } else if (a.from) {
        for (int64_t s = threadIdx.x; s < a.shards; s += GROUP_BLOCK) {
            const sb_group *from = (const sb_group *)a.from + s * a.groups + g;
            if (!sb_group_is_well(from, 0)) bad = 1;
            sb_group_merge(&group, from);
        }
    } else {
        rewards_of(a, g, &first, &last);
        for (int64_t i = first + threadIdx.x; i < last; i += GROUP_BLOCK)
            sb_group_add(&group, ((const float *)a.rewards)[i]);
    }
    block_merge(&group, shared);
    if (threadIdx.x != 0) return;
    if (bad || group.n >= SB_GROUP_MAX) {
        report(a.in, SB_BAD_GROUP, g);
        group.n = UINT64_MAX; /* every call refuses it */
        group.sum.seen = SB_SEEN_NAN;
    }
    if (a.records) ((sb_group *)a.records)[g] = group;
    ((sb_group *)a.own)[g] = group;
}

extern "C" __global__ void __launch_bounds__(GROUP_BLOCK)
    group_total(const __grid_constant__ group_args a)
{
    __shared__ sb_group shared[GROUP_WARPS];
    sb_group group;
    sb_group_init(&group);
    for (int64_t g = threadIdx.x; g < a.groups; g += GROUP_BLOCK)
        sb_group_merge(&group, (const sb_group *)a.own + g);
    block_merge(&group, shared);
    if (threadIdx.x != 0) return;
    if (group.n >= SB_GROUP_MAX) {
        report(a.in, SB_BAD_GROUP, a.groups - 1);
        group.sum.seen = SB_SEEN_NAN;
    }
    *(double *)a.step = sb_group_std(&group, a.population);
}

extern "C" __global__ void __launch_bounds__(GROUP_BLOCK)
    group_advantages(const __grid_constant__ group_args a)
{
    __shared__ double shared[2];
    const int64_t g = blockIdx.x;
    int64_t first, last;
    if (threadIdx.x == 0) {
        const sb_group *own = (const sb_group *)a.own + g;
        const double mean = sb_group_mean(own), std = sb_group_std(own, a.population);
        shared[0] = mean;
        shared[1] = a.step ? *(const double *)a.step : std;
        if (a.mean) ((double *)a.mean)[g] = mean;
        if (a.std) ((double *)a.std)[g] = std;
    }
    __syncthreads(); /* shared is there */
    if (!a.advantages) return;
    if (is_refused(a)) { /* no group's rewards are known */
        const int64_t step = (int64_t)gridDim.x * GROUP_BLOCK;
        for (int64_t i = g * GROUP_BLOCK + threadIdx.x; i < a.rows; i += step)
            put(a.advantages, i, sb_float(SB_NAN_BITS));
        return;
    }
    rewards_of(a, g, &first, &last);
    for (int64_t i = first + threadIdx.x; i < last; i += GROUP_BLOCK)
        put(a.advantages, i,
            sb_group_advantage(((const float *)a.rewards)[i], shared[0], shared[1], a.eps,
                               a.scaled));
}
