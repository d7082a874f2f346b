/* policy_tallies.cuh - tallies (sb_tally) as words, which several threads merge. */
#pragma once

#include "policy_row.cuh"

/* ---- tallies as words --------------------------------------------------------------------- */

#define TALLY_WORDS ((int)(sizeof(sb_tally) / 8))
#define SUM_WORDS ((int)(sizeof(sb_digits) / 8))
#define TOTAL_WORDS ((int)(sizeof(sb_cuda_policy_total) / 8))
#define TOTAL_SEEN (SUM_WORDS - 1)
#define TOKENS_WORD ((int)(offsetof(sb_tally, counts) / 8) + SB_TALLY_TOKENS)
#define FIRST_SUM ((int)(offsetof(sb_tally, sums) / 8))

/* How the words of tallies merge. */
SB_DET bool is_keys(int word) { return word == FIRST_SUM - 1; }
SB_DET bool is_seen(int word)
{
    return word >= FIRST_SUM && (word - FIRST_SUM) % SUM_WORDS == SUM_WORDS - 1;
}

/* Words of tallies that merge. How depends on which word it is; all ways are taken for every word,
 * because that takes fewer steps than to choose. */
struct merging {
    uint64_t sum, any;
    uint32_t high, low; /* the largest halves */
};

SB_DET void merge(merging *m, uint64_t x)
{
    m->sum += x;
    m->any |= x;
    m->high = max(m->high, (uint32_t)(x >> 32));
    m->low = max(m->low, (uint32_t)x);
}

/* The first word is the same in all tallies. It is not merged, but 0. */
SB_DET uint64_t merged(const merging &m, int word)
{
    if (word == 0) return 0;
    if (is_seen(word)) return m.any;
    return is_keys(word) ? (uint64_t)m.high << 32 | m.low : m.sum;
}

/* A word of the tallies from[first], from[first + step], .. together; 0 if there are none. Calls
 * see(i, x) with the word of tally i, and with 0 for some i of count and above. */
template <class SEE>
SB_DET uint64_t merged_word(const uint64_t *from, int64_t count, int word, int first, int step,
                            const SEE &see)
{
    constexpr int AHEAD = 16; /* loads on their way together */
    merging m = { 0, 0, 0, 0 };
    for (int64_t i = first; i < count; i += AHEAD * step) {
        const int left = (int)min(count - i, (int64_t)AHEAD * step);
        uint64_t x[AHEAD];
#pragma unroll
        for (int k = 0; k < AHEAD; k++)
            x[k] = k * step < left ? from[(i + k * step) * TALLY_WORDS + word] : 0;
#pragma unroll
        for (int k = 0; k < AHEAD; k++) {
            see(i + k * step, x[k]);
            merge(&m, x[k]); /* 0 changes nothing */
        }
    }
    return merged(m, word);
}

SB_DET uint64_t merged_word(const uint64_t *from, int64_t count, int word)
{
    return merged_word(from, count, word, 0, 1, [](int64_t, uint64_t) {});
}

/* The word of a tally that a thread of block_merge_words looks at. */
#define SLICE 128
SB_DET int word_of_thread() { return threadIdx.x % SLICE; }

/* Merges the words of tallies into *to, in shared memory. Called by a whole block of WARPS_OF_BLOCK
 * warps; *to is there behind the next barrier. Neighbouring threads load neighbouring words, each
 * of some of the tallies, and call see as in merged_word. */
template <int WARPS_OF_BLOCK, class SEE>
SB_DET void block_merge_words(sb_tally *to, const uint64_t *from, int64_t count, const SEE &see)
{
    constexpr int SLICES = WARPS_OF_BLOCK * WARP / SLICE;
    static_assert(TALLY_WORDS <= SLICE, "a slice has a thread for each word");
    __shared__ uint64_t parts[SLICES][TALLY_WORDS];
    const int slice = threadIdx.x / SLICE, word = word_of_thread();
    if (word < TALLY_WORDS) parts[slice][word] = merged_word(from, count, word, slice, SLICES, see);
    __syncthreads(); /* every slice's words are in parts */
    if (threadIdx.x < TALLY_WORDS)
        ((uint64_t *)to)[threadIdx.x] = merged_word(&parts[0][0], SLICES, threadIdx.x);
}

/* ---- faults ------------------------------------------------------------------------------- */

/* What sb_tally_fault_of asks of a word of a tally of n tokens: the word without the bits of flip,
 * plus n & digits in its upper half, is at most high + 2 (n & digits) in the upper half and
 * low + (n & counts) in the lower one. n is at most SB_TALLY_MOST, or its own word is bad. */
struct word_rule {
    uint64_t flip;
    uint32_t high, low, digits, counts;
};

/* begins: what the first word is. */
SB_DET word_rule rule_of(int word, uint64_t begins)
{
    if (word == 0) return { begins, 0, 0, 0, 0 };
    if (is_keys(word)) return { 0, UINT32_MAX, UINT32_MAX, 0, 0 };
    if (is_seen(word)) return { 0, 0, SB_SEEN_NAN | SB_SEEN_PLUS_INF | SB_SEEN_MINUS_INF, 0, 0 };
    if (word == TOKENS_WORD) return { 0, 0, (uint32_t)SB_TALLY_MOST, 0, 0 };
    if (word < FIRST_SUM) return { 0, 0, 0, 0, UINT32_MAX };
    return { 0, 0, 0, UINT32_MAX, 0 }; /* -2^32 n <= x <= 2^32 n */
}

SB_DET bool is_well(const word_rule &r, uint64_t x, uint32_t n)
{
    const uint64_t y = x ^ r.flip;
    const uint32_t high = (uint32_t)(y >> 32) + (n & r.digits);
    const uint32_t most = r.high + 2 * (n & r.digits);
    return (high < most) | ((high == most) & ((uint32_t)y <= r.low + (n & r.counts)));
}
