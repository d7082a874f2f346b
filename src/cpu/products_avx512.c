/* products_avx512.c - products with AVX-512 VNNI: vpdpbusd multiplies 64 pairs of bytes and adds
 * four of them to each of 16 sums, one for each id of a group. It does not saturate, but one of its
 * factors is unsigned: so 128 is added to each digit of the weights, and 128 times the sum of a
 * hidden state's digits is subtracted. int32 wraps on the way; the levels themselves fit.
 *
 * Packed, a hidden state is three rows of K digits, the most significant first, then the sum of
 * each row. products_amx.c uses the same form. */
#include "cpu/head.h"

void sb_cpu_pack_digits(void *packed, const int32_t *q, int64_t first, int64_t n, int64_t K)
{
    int8_t *to = packed;
    int32_t sums[3] = { 0, 0, 0 };
    if (first > 0) memcpy(sums, to + 3 * K, sizeof sums);
    for (int64_t k = 0; k < n; k++) {
        const uint32_t digits = sb_linear_digits24(q[k]);
        for (int p = 0; p < 3; p++) {
            const int32_t digit = sb_linear_digit(digits, 2 - p);
            to[p * K + first + k] = (int8_t)digit;
            sums[p] += digit;
        }
    }
    memcpy(to + 3 * K, sums, sizeof sums);
}

void sb_cpu_add_levels(int64_t sums[SB_LEAF], const int32_t (*levels)[SB_LEAF], int planes)
{
    for (int v = 0; v < SB_LEAF; v++) {
        int64_t sum = levels[0][v];
        for (int n = 1; n < 2 * planes - 1; n++) sum = sum * 256 + levels[n][v];
        sums[v] = sum;
    }
}

#if defined(__x86_64__)

#include <immintrin.h>

#define TARGET target("avx512f,avx512bw,avx512vnni")
#define INLINE static inline __attribute__((always_inline, TARGET))

/* All products of `rows` hidden states with a group. Levels 0 .. 2 for two planes, 0 .. 4 for
 * three: h24w16 leaves out the product of both last digits, and has no others beyond. */
INLINE void block(int64_t (*sums)[SB_LEAF], const int8_t *digits, const int8_t *packed, int rows,
                  int64_t K, int planes)
{
    const int levels = 2 * planes - 1;
    __m512i L[8][5];
    for (int i = 0; i < rows; i++) {
        int32_t of[3], start[5] = { 0, 0, 0, 0, 0 };
        memcpy(of, packed + i * sb_cpu_pitch(K) + 3 * K, sizeof of);
        for (int p = 0; p < planes; p++)
            for (int d = 0; d < 3 && p + d < levels; d++) start[p + d] -= 128 * of[d];
        for (int n = 0; n < levels; n++) L[i][n] = _mm512_set1_epi32(start[n]);
    }
    for (int64_t k = 0; k < K; k += 4, digits += planes * SB_LEAF * 4) {
        __m512i w[3];
        for (int p = 0; p < planes; p++)
            w[p] = _mm512_xor_si512(_mm512_loadu_si512(digits + p * SB_LEAF * 4),
                                    _mm512_set1_epi8(-128));
        for (int i = 0; i < rows; i++)
            for (int d = 0; d < 3; d++) {
                int32_t four;
                __m512i h;
                memcpy(&four, packed + i * sb_cpu_pitch(K) + d * K + k, 4);
                h = _mm512_set1_epi32(four);
                for (int p = 0; p < planes && p + d < levels; p++)
                    L[i][p + d] = _mm512_dpbusd_epi32(L[i][p + d], w[p], h);
            }
    }
    for (int i = 0; i < rows; i++) {
        int32_t lanes[5][SB_LEAF];
        for (int n = 0; n < levels; n++) _mm512_storeu_si512(lanes[n], L[i][n]);
        sb_cpu_add_levels(sums[i], (const int32_t(*)[SB_LEAF])lanes, planes);
    }
}

__attribute__((TARGET)) static void products(int64_t (*sums)[SB_LEAF], const int8_t *digits,
                                             const void *packed, int rows, int64_t K, int planes)
{
    const int8_t *row = packed;
    int i = 0;
    if (planes == 2) {
        for (; i + 8 <= rows; i += 8) block(sums + i, digits, row + i * sb_cpu_pitch(K), 8, K, 2);
        for (; i + 4 <= rows; i += 4) block(sums + i, digits, row + i * sb_cpu_pitch(K), 4, K, 2);
        for (; i < rows; i++) block(sums + i, digits, row + i * sb_cpu_pitch(K), 1, K, 2);
    } else {
        for (; i + 4 <= rows; i += 4) block(sums + i, digits, row + i * sb_cpu_pitch(K), 4, K, 3);
        for (; i < rows; i++) block(sums + i, digits, row + i * sb_cpu_pitch(K), 1, K, 3);
    }
}

static int available(void)
{
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vnni");
}

const sb_product_isa sb_products_avx512 = { "avx512", available, sb_cpu_pack_digits, products };

#else /* another architecture */

static int available(void) { return 0; }

const sb_product_isa sb_products_avx512 = { "avx512", available, 0, 0 };

#endif
