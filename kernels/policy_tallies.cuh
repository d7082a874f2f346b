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
