/* guess.cuh - guesses a bracket of entries that holds the place of a cut, from a sample of the
 * row's leaves, which is counted by bins of logits.
 *
 * A guess is statistics, in floats that are added up in some order: the time of a call depends on
 * it, and nothing else (cut.cuh). */
#pragma once

#include "../src/det/sample.h"
#include "../src/cuda/sample_args.h"
#include "entries.cuh"

#define GUESS_BINS 64
#define GUESS_LEAVES 512 /* of a row, that are looked at, about */
#define SURE 9.0f        /* variances: what is three standard deviations away is sure */

/* Bins of equal width, from the logit `from` down, that count ids down to `to`; what is beyond the
 * last bin counts there. beyond, variance: of the ids under `to`, the estimated sum of weights, or,
 * for top-k, the estimated number of ids above `from`; and its variance. */
struct guess_range {
    float from, width, to;
    float beyond, variance;
};

/* Counts the ids of a sample of the row's leaves by bins. Called by a whole block, after a barrier;
 * all blocks of a crew count the same. Returns how many ids of the row one of the sample stands
 * for.
 *
 * Each thread counts in a column of words, of four bins each: in a bank of its own. No sum of a bin
 * exceeds 16 bits. */
template <int DTYPE>
SB_DET float count_sample(const cut_row &row, const sb_cut &cut, const guess_range &g,
                          uint32_t *shared)
{
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, warps = blockDim.x / WARP;
    const int threads = blockDim.x, leaves = row.all.last;
    const int sample = min(min(GUESS_LEAVES, 15 * threads), leaves), chunks = (sample + 3) / 4;
    const float scale = GUESS_BINS / g.width;
    /* Absent ids do not count, nor those that an earlier cut has taken, but for its own logit. */
    const float to = fmaxf(g.to, cut.place ? sb_place_logit(cut.place) : sb_float(0xff7fffffu));
    const row_leaves<DTYPE> source(row);
    uint32_t *columns = (uint32_t *)staging + threadIdx.x;
#pragma unroll
    for (int i = 0; i < GUESS_BINS / 4; i++) columns[i * threads] = 0;
#pragma unroll 1
    for (int j = threadIdx.x; j < 4 * chunks; j += threads) {
        const int k = j / 4 * leaves / chunks + j % 4; /* chunks and leaves are few enough */
        leaf_words<DTYPE> x;
        if (k >= leaves) continue;
        source.load(x, k);
#pragma unroll
        for (int i = 0; i < SB_LEAF; i++) {
            const float y = unpack<DTYPE>(x, i);
            const uint32_t bin = (uint32_t)fminf((g.from - y) * scale, GUESS_BINS - 1);
            if (y > g.from || !(y >= to)) continue;
            columns[bin / 4 * threads] += 1u << bin % 4 * 8;
        }
    }
    __syncthreads(); /* the columns are complete */
#pragma unroll 1
    for (int i = warp; i < GUESS_BINS / 4; i += warps) {
        const uint32_t *words = (const uint32_t *)staging + i * threads;
        uint32_t even = 0, odd = 0;
#pragma unroll 4
        for (int t = lane; t < threads; t += WARP) {
            even += words[t] & 0x00ff00ffu;
            odd += words[t] >> 8 & 0x00ff00ffu;
        }
        even = __reduce_add_sync(FULL, even);
        odd = __reduce_add_sync(FULL, odd);
        if (lane < 4) shared[4 * i + lane] = (lane % 2 ? odd : even) >> lane / 2 * 16 & 0xffffu;
    }
    __syncthreads(); /* the bins are written */
    return (float)leaves / (float)sample;
}

/* Keys whose ids a pass can count one by one, in the memory of its lists. */
#define KEY_BINS (SB_CUDA_SEGMENT * 4 / WARP)

/* Whether a bracket has so few keys that ids can be counted by keys instead of listed. Then no list
 * has to be searched, nor weights be added up one by one: ids of one key have one weight. */
template <int DTYPE> SB_DET bool counts_keys(const bracket &b)
{
    return DTYPE == SB_CUDA_BF16 && b.high % KEY == 0 &&
           (b.high >> ID_BITS) - (b.low >> ID_BITS) <= KEY_BINS;
}

/* The edge under the logit x. */
template <int DTYPE> SB_DET uint64_t edge_under(float x) { return entry_of<DTYPE>(x, LAST_ID); }

/* Where the goal lies among the bins of a sample, in which an id stands for f: surely under the top
 * of bin `high`, and not under that of bin `low`; GUESS_BINS: no bin is sure. */
struct guessed_bins {
    int low, high;
    float inside, above;    /* ids between the two, and above `high`, as estimated */
    float beyond, variance; /* of top-p: the weight under the top of bin `low`; of top-k: the ids
                               above that of bin `high` */
};

/* goal: of top-k, the ids that are wanted; of top-p, the weight that is left out.
 * Called by whole warps. */
template <bool WEIGHTED>
SB_DET guessed_bins guess_bins(const guess_range &g, float goal, float f, const sb_weights &w,
                               const uint32_t *shared)
{
    constexpr int EACH = GUESS_BINS / WARP;
    const int lane = threadIdx.x % WARP;
    /* Of each bin, and of all lanes' bins: ids, sums and variances. Those of weights are added up
     * from the least ones on, since differences of sums would lose them. */
    float n[EACH], m[EACH], r[EACH], sum[3] = { 0.0f, 0.0f, 0.0f }, before[3];
#pragma unroll
    for (int i = 0; i < EACH; i++) {
        const int b = lane * EACH + i;
        const float x = g.from - ((float)b + 0.5f) * (g.width / GUESS_BINS);
        const float v = WEIGHTED ? sb_weight(x, &w) : 1.0f, c = (float)shared[b];
        n[i] = f * c, m[i] = f * c * v;
        r[i] = f * (f - 1.0f) * (c + 2.0f) * v * v; /* 2: ids that the sample may have missed */
        sum[0] += n[i], sum[1] += m[i], sum[2] += r[i];
    }
#pragma unroll
    for (int j = 0; j < 3; j++) {
        const bool down = WEIGHTED && j > 0;
        float x = sum[j];
        for (int step = 1; step < WARP; step *= 2) {
            const float other = down ? __shfl_down_sync(FULL, x, step)
                                     : __shfl_up_sync(FULL, x, step);
            if (down ? lane + step < WARP : lane >= step) x += other;
        }
        if (j == 0) sum[0] = __shfl_sync(FULL, x, WARP - 1); /* of all lanes */
        const float next = down ? __shfl_down_sync(FULL, x, 1) : __shfl_up_sync(FULL, x, 1);
        before[j] = (down ? lane < WARP - 1 : lane > 0) ? next : 0.0f;
    }
    guessed_bins found = { GUESS_BINS, 0, 0.0f, 0.0f, g.beyond, g.variance };
    float ids[EACH], under[EACH], variance[EACH];
#pragma unroll
    for (int j = 0; j < EACH; j++) {
        const int i = WEIGHTED ? EACH - 1 - j : j;
        if (WEIGHTED) before[1] += m[i], before[2] += r[i];
        under[i] = g.beyond + before[1], variance[i] = g.variance + before[2];
        if (!WEIGHTED) before[1] += m[i], before[2] += r[i];
    }
#pragma unroll
    for (int i = 0; i < EACH; i++) {
        ids[i] = before[0];
        before[0] += n[i];
        const float s = WEIGHTED ? goal - under[i] : under[i] - goal;
        const bool sure = s * s >= SURE * variance[i];
        const uint64_t low = __ballot_sync(FULL, sure && s >= 0.0f);
        const uint64_t high = __ballot_sync(FULL, sure && s < 0.0f);
        if (low) found.low = min(found.low, (__ffsll((long long)low) - 1) * EACH + i);
        if (high) found.high = max(found.high, (63 - __clzll((long long)high)) * EACH + i);
    }
    found.high = min(found.high, found.low);
    float to = sum[0], from = 0.0f;
    const int carried = WEIGHTED ? found.low : found.high;
#pragma unroll
    for (int i = 0; i < EACH; i++) {
        const float at_low = __shfl_sync(FULL, ids[i], found.low / EACH % WARP);
        const float at_high = __shfl_sync(FULL, ids[i], found.high / EACH % WARP);
        const float u = __shfl_sync(FULL, under[i], carried / EACH % WARP);
        const float v = __shfl_sync(FULL, variance[i], carried / EACH % WARP);
        if (found.low < GUESS_BINS && found.low % EACH == i) to = at_low;
        if (found.high < GUESS_BINS && found.high % EACH == i) from = at_high;
        if (carried < GUESS_BINS && carried % EACH == i) found.beyond = u, found.variance = v;
    }
    found.inside = to - from, found.above = from;
    return found;
}

/* The logit at the top of a bin. */
SB_DET float top_of_bin(const guess_range &g, int bin)
{
    return g.from - (float)bin * (g.width / GUESS_BINS);
}

/* A bracket that probably holds the cut, and few enough ids for the lists. best: the row's largest
 * logit. goal: as for guess_bins. few: the lists have room for all ids that are
 * left. Called by a whole block, after a barrier. */
template <int DTYPE, bool WEIGHTED>
static __device__ __noinline__ bracket guess_bracket(const cut_row &row, const sb_cut &cut,
                                                     float best, float goal, bool few,
                                                     uint32_t *shared)
{
    const sb_weights w = cut.weights;
    const uint64_t bottom = cut.place ? entry_of_place<DTYPE>(cut.place) & ~(uint64_t)15 : 0;
    const float capacity = (float)(row.segment * (int)(blockDim.x / WARP));
    const uint64_t top = edge_under<DTYPE>(best) + KEY;
    bracket b = { bottom, top, top };
    int octaves = 64;
    if (few || (float)row.all.vocab <= capacity / 2) return b;
    if (WEIGHTED) { /* what is left out below these octaves is a small part of the goal */
        const float ratio = 2.0f * (float)row.all.vocab / goal;
        octaves = min(max((int)(sb_bits32(ratio) >> 23) - 127 + 7, 8), 60);
    }
    guess_range g = { best, (float)octaves / w.c, sb_float(SB_ABSENT_BITS), 0.0f, 0.0f };
    const float f = count_sample<DTYPE>(row, cut, g, shared);
    guessed_bins bins = guess_bins<WEIGHTED>(g, goal, f, w, shared);
    if (bins.low < GUESS_BINS) b.low = max(bottom, edge_under<DTYPE>(top_of_bin(g, bins.low)));
    bracket narrow = b;
    if (bins.high > 0) narrow.high = edge_under<DTYPE>(top_of_bin(g, bins.high));
    narrow.high = max(narrow.high, b.low + KEY);
    if (counts_keys<DTYPE>(narrow)) return narrow;
    if (bins.above + bins.inside <= capacity / 2) return b; /* all that is kept fits the lists */
    b = narrow;
    if (bins.inside <= capacity / 2 || bins.low >= GUESS_BINS) return b;
    g = { top_of_bin(g, bins.high), (float)(bins.low - bins.high) * (g.width / GUESS_BINS),
          top_of_bin(g, bins.low), bins.beyond, bins.variance };
    __syncthreads(); /* the bins have been read */
    count_sample<DTYPE>(row, cut, g, shared);
    bins = guess_bins<WEIGHTED>(g, goal, f, w, shared);
    if (bins.low < GUESS_BINS) b.low = max(b.low, edge_under<DTYPE>(top_of_bin(g, bins.low)));
    if (bins.high > 0) b.high = edge_under<DTYPE>(top_of_bin(g, bins.high));
    b.high = max(b.high, b.low + KEY);
    return b;
}
