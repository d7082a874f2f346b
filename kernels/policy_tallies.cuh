/* policy_tallies.cuh - tallies (sb_tally) as words, which several threads merge. */
#pragma once

#include "policy_row.cuh"

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
    constexpr int AHEAD = 16; /* loads on their way together */
    uint64_t x = first < count ? from[first * TALLY_WORDS + word] : 0;
    for (int64_t i = first + step; i < count; i += AHEAD * step) {
        uint64_t y[AHEAD];
#pragma unroll
        for (int k = 0; k < AHEAD; k++) {
            const int64_t at = i + k * step;
            y[k] = at < count ? from[at * TALLY_WORDS + word] : 0;
        }
#pragma unroll
        for (int k = 0; k < AHEAD; k++) x = merged_words(x, y[k], word); /* 0 changes nothing */
    }
    return x;
}

/* Merges the words of tallies into *to, in shared memory. Called by a whole block of WARPS_OF_BLOCK
 * warps; *to is there behind the next barrier. Neighbouring threads load neighbouring words, each
 * of some of the tallies. */
template <int WARPS_OF_BLOCK>
SB_DET void block_merge_words(sb_tally *to, const uint64_t *from, int64_t count)
{
    constexpr int SLICE = 128, SLICES = WARPS_OF_BLOCK * WARP / SLICE;
    static_assert(TALLY_WORDS <= SLICE, "a slice has a thread for each word");
    __shared__ uint64_t parts[SLICES][TALLY_WORDS];
    const int slice = threadIdx.x / SLICE, word = threadIdx.x % SLICE;
    if (word < TALLY_WORDS) parts[slice][word] = merged_word(from, count, word, slice, SLICES);
    __syncthreads(); /* every slice's words are in parts */
    if (threadIdx.x < TALLY_WORDS)
        ((uint64_t *)to)[threadIdx.x] = merged_word(&parts[0][0], SLICES, threadIdx.x);
}
