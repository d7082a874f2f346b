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
 *                        policy_count_moved, _weight, _joint: some or all sums of its
 *                        differences, too, if ratios or weights are of sequences
 *     policy_lengths     a sequence's tokens and constants, from its segments
 *     policy_totals      one block: tokens and sequences of the call; only if the step's are not
 *                        given
 *     policy_count_sequences   in place of these three for not too many sequences, if their
 *                        constants need no sums: a block for each; the next kernel adds them up
 *     policy_tokens_*    losses and gradients of tokens; a segment's sum; a block's tally
 *     policy_sequences   losses of sequences from their segments; a block's tally
 *     policy_finish      block 0 merges all tallies, and writes the record, the scalar and the
 *                        metrics. All blocks write NaN over the gradients if the step's totals are
 *                        below the call's own
 *
 *     thread's spans -> warp -> segment -> sequence (a warp) -> block's tally -> one block
 *
 *     policy_merge       one block: tallies of several calls
 *     group_*            rewards: one block per group, but group_total, which is one block */
#include <stddef.h>

#include "../src/cuda/policy_args.h"
#include "../src/det/group.h"
#include "../src/det/policy.h"
#include "policy_tokens.cuh"

/* Warps of a block, whatever their width. */
#define WARPS (SB_CUDA_POLICY_BLOCK / 32)
#define LAST_WARPS (SB_CUDA_POLICY_LAST / 32)
#define BLOCK (WARPS * WARP)
#define LAST (LAST_WARPS * WARP)

SB_DET void put(uint64_t to, int64_t i, float x)
{
    if (to) ((float *)to)[i] = x;
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

/* How many of 16 bytes are not 0. */
SB_DET uint32_t bytes_set(uint4 v)
{
    const uint32_t words[4] = { v.x, v.y, v.z, v.w };
    uint32_t count = 0;
    for (int i = 0; i < 4; i++) {
        const uint32_t low = (words[i] & 0x7f7f7f7fu) + 0x7f7f7f7fu; /* bit 7: any of bits 0 .. 6 */
        count += __popc((low | words[i]) & 0x80808080u);
    }
    return count;
}

/* A thread's sum of one kind of differences: digits in registers, and a whole sum for what they
 * have no room for. */
struct joint_sum {
    spans<2> near;
    sb_digits far;
    bool used; /* whether far is */
};

/* A pair of logprobs whose difference is added: 0 and 0 where nothing is. */
struct difference {
    float x, y;
};

SB_DET difference difference_of(float x, float y)
{
    const bool same = sb_bits32(x) == sb_bits32(y) && !sb_is_nan(x);
    return { same ? 0.0f : x, same ? 0.0f : y };
}

/* Adds the differences of a lane's rows, of which inactive ones are 0. */
template <int EACH>
SB_DET void add_differences(joint_sum *s, const float x[EACH], const float y[EACH])
{
    difference d[EACH];
    bool room = true, near = true;
    for (int k = 0; k < EACH; k++) {
        d[k] = difference_of(x[k], y[k]);
        near &= is_near(d[k].x) && is_near(d[k].y);
    }
    if (near) {
        for (int k = 0; k < EACH; k++) add_near(&s->near, d[k].x), add_near(&s->near, -d[k].y);
        return;
    }
    for (int k = 0; k < EACH; k++) {
        add(&s->near, d[k].x, &room);
        add(&s->near, -d[k].y, &room);
    }
    if (room) return;
    if (!s->used) sb_digits_init(&s->far);
    s->used = true;
    for (int k = 0; k < EACH; k++) {
        add_far(s->near, &s->far, d[k].x);
        add_far(s->near, &s->far, -d[k].y);
    }
}

/* A lane's rows of a slab, as far as SUMS needs them; what is not active is 0. */
template <int SUMS, int EACH> struct counted_rows {
    uint32_t count;
    float now[EACH], old[EACH], rollout[EACH];
};

template <int SUMS, int EACH>
SB_DET counted_rows<SUMS, EACH> counted_at(const policy_args &a, const segment &s, int64_t i)
{
    const bool vector = a.vector && i - threadIdx.x % WARP * EACH + EACH * WARP <= a.in.rows;
    const uint32_t mask = vector ? load_mask<EACH>(a, i) : some_mask<EACH>(a, s, i);
    const uint32_t active = active_rows<EACH>(s, i, mask);
    const auto load = [&](uint64_t from, float to[EACH]) {
        if (vector) load_floats<EACH>((const float *)from + i, to);
        else load_rows<EACH>(from, i, mask, to);
#pragma unroll
        for (int k = 0; k < EACH; k++)
            if (!(active >> k & 1)) to[k] = 0.0f;
    };
    counted_rows<SUMS, EACH> x;
    x.count = __popc(active);
    if (SUMS & (SB_CUDA_MOVED | SB_CUDA_DRIFTED)) load(a.now, x.now);
    if (SUMS & (SB_CUDA_MOVED | SB_CUDA_WEIGHT)) load(a.old ? a.old : a.now, x.old);
    if (SUMS & (SB_CUDA_DRIFTED | SB_CUDA_WEIGHT)) load(a.rollout, x.rollout);
    return x;
}

/* The active tokens of each segment, and the sums of their differences: SUMS is of SB_CUDA_MOVED
 * and so on. */
template <int SUMS> SB_DET void count_tokens(const policy_args &a)
{
    constexpr int EACH = 4, SLAB = EACH * WARP;
    const int lane = threadIdx.x % WARP;
    const int64_t unit = warp_item();
    begin_dependents();
    if (unit >= a.units || is_refused(a)) return;
    for (int64_t row = unit * a.unit, end = unit_end(a, unit); row < end;) {
        const segment s = segment_at(a, unit, row);
        int64_t i = row / SLAB * SLAB + lane * EACH; /* the lane's first row in a slab */
        uint32_t count = 0;
        joint_sum moved, drifted, weight;
        moved.used = drifted.used = weight.used = false;
        init(&moved.near), init(&drifted.near), init(&weight.near);
        counted_rows<SUMS, EACH> x = counted_at<SUMS, EACH>(a, s, i);
        for (; i - lane * EACH < s.last; i += SLAB) {
            counted_rows<SUMS, EACH> next;
            const bool more = i - lane * EACH + SLAB < s.last;
            if (more) next = counted_at<SUMS, EACH>(a, s, i + SLAB);
            count += x.count;
            if (SUMS & SB_CUDA_MOVED) add_differences<EACH>(&moved, x.now, x.old);
            if (SUMS & SB_CUDA_DRIFTED) add_differences<EACH>(&drifted, x.now, x.rollout);
            if (SUMS & SB_CUDA_WEIGHT) add_differences<EACH>(&weight, x.old, x.rollout);
            if (more) x = next;
        }
        count = __reduce_add_sync(FULL, count);
        if (lane == 0) ((int64_t *)a.counts)[unit + s.b] = count;
        sb_policy_joint *to = (sb_policy_joint *)a.joints + unit + s.b;
        const auto write = [&](const joint_sum &sum, sb_digits *at) {
            const sb_digits total = warp_total(sum.near, sum.far, sum.used);
            if (lane == 0) *at = total;
        };
        if (SUMS & SB_CUDA_MOVED) write(moved, &to->moved);
        if (SUMS & SB_CUDA_DRIFTED) write(drifted, &to->drifted);
        if (SUMS & SB_CUDA_WEIGHT) write(weight, &to->weight);
        row = s.last;
    }
}

extern "C" __global__ void __launch_bounds__(BLOCK)
    policy_count(const __grid_constant__ policy_args a)
{
    count_tokens<0>(a);
}

extern "C" __global__ void __launch_bounds__(BLOCK)
    policy_count_moved(const __grid_constant__ policy_args a)
{
    count_tokens<SB_CUDA_MOVED>(a);
}

extern "C" __global__ void __launch_bounds__(BLOCK)
    policy_count_weight(const __grid_constant__ policy_args a)
{
    count_tokens<SB_CUDA_WEIGHT>(a);
}

extern "C" __global__ void __launch_bounds__(BLOCK)
    policy_count_joint(const __grid_constant__ policy_args a)
{
    count_tokens<SB_CUDA_ALL_SUMS>(a);
}

extern "C" __global__ void __launch_bounds__(BLOCK)
    policy_lengths(const __grid_constant__ policy_args a)
{
    const int lane = threadIdx.x % WARP;
    const int64_t b = warp_item();
    int64_t first, last, count = 0;
    sb_policy_joint joint;
    sb_cuda_policy_length length;
    wait_for_primary();
    begin_dependents();
    if (b >= a.in.batch || is_refused(a)) return;
    extent_of(a.in, b, &first, &last);
    sb_digits_init(&joint.moved);
    sb_digits_init(&joint.drifted);
    sb_digits_init(&joint.weight);
    for (int64_t u = first / a.unit + lane; first < last && u <= (last - 1) / a.unit; u += WARP) {
        count += ((const int64_t *)a.counts)[u + b];
        const sb_policy_joint *part = (const sb_policy_joint *)a.joints + u + b;
        if (a.joint & SB_CUDA_MOVED) sb_digits_merge(&joint.moved, &part->moved);
        if (a.joint & SB_CUDA_DRIFTED) sb_digits_merge(&joint.drifted, &part->drifted);
        if (a.joint & SB_CUDA_WEIGHT) sb_digits_merge(&joint.weight, &part->weight);
    }
    count = warp_sum_any(count);
    if (a.joint & SB_CUDA_MOVED) warp_merge(&joint.moved);
    if (a.joint & SB_CUDA_DRIFTED) warp_merge(&joint.drifted);
    if (a.joint & SB_CUDA_WEIGHT) warp_merge(&joint.weight);
    if (lane != 0) return;
    length.count = count;
    /* the scale is made with the totals, later */
    length.of = sb_policy_sequence_of(&a.rules, a.joint ? &joint : nullptr, count, 1, 1);
    ((sb_cuda_policy_length *)a.lengths)[b] = length;
}

extern "C" __global__ void __launch_bounds__(LAST)
    policy_totals(const __grid_constant__ policy_args a)
{
    __shared__ int64_t shared[2][LAST_WARPS];
    wait_for_primary();
    begin_dependents();
    if (is_refused(a)) return;
    const int64_t *totals = add_lengths<LAST_WARPS>(a, shared);
    if (threadIdx.x < 2) ((int64_t *)a.totals)[threadIdx.x] = totals[threadIdx.x];
}

/* The lengths of sequences, a block for each, if no sums are needed beside them. */
extern "C" __global__ void __launch_bounds__(BLOCK)
    policy_count_sequences(const __grid_constant__ policy_args a)
{
    __shared__ uint32_t shared[WARPS];
    const int64_t b = blockIdx.x;
    const uint8_t *mask = (const uint8_t *)a.in.mask;
    int64_t first, last;
    uint32_t count = 0;
    begin_dependents();
    if (is_refused(a)) return;
    extent_of(a.in, b, &first, &last);
    if (!mask) {
        count = threadIdx.x == 0 ? (uint32_t)(last - first) : 0;
    } else {
        const int64_t whole = min((first + 15) / 16 * 16, last); /* from here on, by 16 bytes */
        const int64_t end = a.in.mask % 16 == 0 ? whole + (last - whole) / 16 * 16 : whole;
        for (int64_t i = first + threadIdx.x; i < whole; i += BLOCK) count += mask[i] != 0;
        for (int64_t i = whole + 16 * threadIdx.x; i < end; i += 16 * BLOCK)
            count += bytes_set(load16((const char *)mask + i));
        for (int64_t i = end + threadIdx.x; i < last; i += BLOCK) count += mask[i] != 0;
    }
    count = __reduce_add_sync(FULL, count);
    if (threadIdx.x % WARP == 0) shared[threadIdx.x / WARP] = count;
    __syncthreads(); /* every warp's count is in shared */
    if (threadIdx.x != 0) return;
    sb_cuda_policy_length length;
    length.count = 0;
    for (int w = 0; w < WARPS; w++) length.count += shared[w];
    length.of = sb_policy_sequence_of(&a.rules, nullptr, length.count, 1, 1);
    ((sb_cuda_policy_length *)a.lengths)[b] = length;
}

/* ---- tokens ------------------------------------------------------------------------------- */

extern "C" __global__ void __launch_bounds__(BLOCK, 2)
    policy_tokens_loss(const __grid_constant__ policy_args a)
{
    run_tokens<RULES_ANY, false, 4>(a);
}

extern "C" __global__ void __launch_bounds__(BLOCK, 2)
    policy_tokens_clip(const __grid_constant__ policy_args a)
{
    run_tokens<RULES_CLIP, false, 4>(a);
}

extern "C" __global__ void __launch_bounds__(BLOCK, 2)
    policy_tokens_gspo(const __grid_constant__ policy_args a)
{
    run_tokens<RULES_GSPO, false, 4>(a);
}

extern "C" __global__ void __launch_bounds__(BLOCK, 2)
    policy_tokens_clip_k3(const __grid_constant__ policy_args a)
{
    run_tokens<RULES_CLIP_K3, false, 4>(a);
}

extern "C" __global__ void __launch_bounds__(BLOCK, 2)
    policy_tokens_clip_k3_metrics(const __grid_constant__ policy_args a)
{
    run_tokens<RULES_CLIP_K3, true, 2>(a);
}

extern "C" __global__ void __launch_bounds__(BLOCK, 2)
    policy_tokens_metrics(const __grid_constant__ policy_args a)
{
    run_tokens<RULES_ANY, true, 2>(a);
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
    begin_dependents();
    const bool refused = is_refused(a), adds = sb_policy_adds_sequences(&a.rules);
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
        count = warp_sum_any(count);
        float loss = sb_float(SB_NAN_BITS);
        if (!refused && (a.in.sequence || adds)) /* it takes long */
            loss = sb_policy_sequence_loss(&a.rules, &sum, count);
        if (lane == 0) put(a.in.sequence, b, loss);
        if (count == 0) continue;
        total.tokens += count;
        total.sequences++;
        if (adds) sb_digits_add(&total.sum, loss);
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
    const int i = threadIdx.x; /* one lane for each metric, of which the first one is the loss */
    if (i >= (a.metrics ? SB_POLICY_METRICS : 1)) return;
    const float x = refused ? nan : sb_policy_metric_at(&a.rules, &t, a.tokens, a.sequences, i);
    if (i == 0 && a.loss) *(float *)a.loss = x;
    put(a.metrics, i, x);
}

/* Whether the step's totals are below the call's own; reports: this thread says so. */
SB_DET bool too_small(const policy_args &a, int64_t tokens, int64_t sequences, bool reports)
{
    const bool few = a.tokens && a.tokens < tokens;
    if (!few && !(a.sequences && a.sequences < sequences)) return false;
    if (reports) report(a.in, few ? SB_BAD_TOKENS : SB_BAD_SEQUENCES, few ? tokens : sequences);
    return true;
}

extern "C" __global__ void __launch_bounds__(LAST)
    policy_finish(const __grid_constant__ policy_args a)
{
    __shared__ sb_tally t;
    __shared__ sb_cuda_policy_total total;
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    wait_for_primary();
    const bool bad = is_refused(a), first = blockIdx.x == 0;
    for (int word = warp; word < TOTAL_WORDS; word += LAST_WARPS) {
        const uint64_t x = warp_total_word(a, word);
        if (lane == 0) ((uint64_t *)&total)[word] = x;
    }
    if (first && a.metrics)
        block_merge_words<LAST_WARPS>(&t, (const uint64_t *)a.tallies, a.token_blocks,
                                      [](int64_t, uint64_t) {});
    else if (first)
        for (int word = threadIdx.x; word < TALLY_WORDS; word += LAST) ((uint64_t *)&t)[word] = 0;
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
    const int64_t step = (int64_t)gridDim.x * LAST;
    for (int64_t i = blockIdx.x * (int64_t)LAST + threadIdx.x; i < a.in.rows; i += step) {
        put(a.token, i, sb_float(SB_NAN_BITS));
        put(a.entropy, i, sb_float(SB_NAN_BITS));
        if (i < a.in.batch) put(a.in.sequence, i, sb_float(SB_NAN_BITS));
    }
}

extern "C" __global__ void __launch_bounds__(LAST)
    policy_merge(const __grid_constant__ policy_args a)
{
    __shared__ sb_tally t;
    __shared__ int32_t refused;
    const uint32_t adds = (uint32_t)sb_policy_adds_sequences(&a.rules);
    const sb_tally *from = (const sb_tally *)a.tallies;
    const uint32_t parts = a.metrics ? SB_TALLY_ALL : from[0].parts;
    const word_rule rule = rule_of(word_of_thread(), (uint64_t)parts << 32 | adds);
    int64_t bad = parts == 1 || parts == SB_TALLY_ALL ? -1 : 0;
    if (threadIdx.x == 0) refused = 0;
    __syncthreads(); /* refused is 0 */
    const auto see = [&](int64_t i, uint64_t x) {
        const bool there = i < a.units;
        const uint32_t n = (uint32_t)from[there ? i : 0].counts[SB_TALLY_TOKENS]; /* no branch */
        bad = there & !is_well(rule, x, n) ? i : bad;
    };
    block_merge_words<LAST_WARPS>(&t, (const uint64_t *)from, a.units, see);
    if (bad >= 0) {
        report(a.in, SB_BAD_TALLY, bad);
        refused = 1;
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

#define GROUP_WARPS (SB_CUDA_GROUP_BLOCK / 32)
#define GROUP_BLOCK (GROUP_WARPS * WARP)

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
    g->n = warp_sum_any(g->n);
    warp_merge(&g->sum);
    for (int k = 0; k < SB_SQUARES; k++) g->squares[k] = warp_sum_any(g->squares[k]);
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
