/* products_avx2.c - products with AVX2: pmaddwd multiplies 16 pairs of int16 and adds each pair.
 *
 * In a vector of digits, four digits of each of 8 ids lie side by side. Shifts turn it into two
 * vectors of int16: the digits 0 and 2 of each id, and 1 and 3. So hidden states are packed in the
 * same order, and a pair of elements is broadcast to all ids: products_scalar.c packs them. The
 * sums of 8 ids stay in the lanes of a vector, with no sum across lanes. */
#include "cpu/head.h"

#if defined(__x86_64__)

#include <immintrin.h>

#define STEPS 128 /* of 4 elements, between two carries: as in products_scalar.c */
#define HALF 8    /* ids in a vector */

#define INLINE static inline __attribute__((always_inline, target("avx2")))

typedef __m256i vi;

/* Two int16 in every lane: a load, where a shuffle would take a port that sums need. */
INLINE vi broadcast(const char *pair)
{
    return _mm256_castps_si256(_mm256_broadcast_ss((const void *)pair));
}

/* The sums of `rows` hidden states and 8 ids, added to sums: some steps from one carry to the next.
 * m[i][j]: 2^8 (planes - 1 - j) times H w_j + r w_(j - 1), as in products_scalar.c. */
INLINE void add_steps(int64_t (*sums)[SB_LEAF], const int8_t *digits, const char *row, int rows,
                      int64_t pitch, int64_t steps, int planes)
{
    const int sets = planes == 2 ? 2 : 4;
    vi m[4][4];
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < sets; j++) m[i][j] = _mm256_setzero_si256();
    for (int64_t k = 0; k < steps; k++, digits += planes * SB_LEAF * 4, row += 16) {
        vi even[3], odd[3];
        for (int p = 0; p < planes; p++) {
            const vi w = _mm256_loadu_si256((const void *)(digits + p * SB_LEAF * 4));
            even[p] = _mm256_srai_epi16(_mm256_slli_epi16(w, 8), 8);
            odd[p] = _mm256_srai_epi16(w, 8);
        }
        for (int i = 0; i < rows; i++) {
            for (int b = 0; b < 2; b++) {
                const char *pairs = row + i * pitch + b * 4;
                const vi *w = b ? odd : even, H = broadcast(pairs), r = broadcast(pairs + 8);
                m[i][0] = _mm256_add_epi32(m[i][0], _mm256_madd_epi16(H, w[0]));
                m[i][1] = _mm256_add_epi32(m[i][1], _mm256_madd_epi16(H, w[1]));
                m[i][1] = _mm256_add_epi32(m[i][1], _mm256_madd_epi16(r, w[0]));
                if (planes == 2) continue;
                m[i][2] = _mm256_add_epi32(m[i][2], _mm256_madd_epi16(H, w[2]));
                m[i][2] = _mm256_add_epi32(m[i][2], _mm256_madd_epi16(r, w[1]));
                m[i][3] = _mm256_add_epi32(m[i][3], _mm256_madd_epi16(r, w[2]));
            }
        }
    }
    for (int i = 0; i < rows; i++) {
        int32_t lanes[4][HALF];
        for (int j = 0; j < sets; j++) _mm256_storeu_si256((void *)lanes[j], m[i][j]);
        for (int v = 0; v < HALF; v++) {
            int64_t sum = lanes[0][v];
            for (int j = 1; j < sets; j++) sum = sum * 256 + lanes[j][v];
            sums[i][v] += sum;
        }
    }
}

/* All steps of `rows` hidden states with a group, whose halves share the rows' cache lines. */
INLINE void block(int64_t (*sums)[SB_LEAF], const int8_t *digits, const char *packed, int rows,
                  int64_t K, int planes)
{
    for (int i = 0; i < rows; i++) memset(sums[i], 0, sizeof sums[i]);
    for (int64_t step = 0; step < K / 4; step += STEPS) {
        const int64_t steps = K / 4 - step < STEPS ? K / 4 - step : STEPS;
        const int8_t *from = digits + step * planes * SB_LEAF * 4;
        add_steps(sums, from, packed + step * 16, rows, sb_cpu_pitch(K), steps, planes);
        add_steps((int64_t(*)[SB_LEAF])(*sums + HALF), from + HALF * 4, packed + step * 16, rows,
                  sb_cpu_pitch(K), steps, planes);
    }
}

__attribute__((target("avx2"))) static void products(int64_t (*sums)[SB_LEAF], const int8_t *digits,
                                                     const void *packed, int rows, int64_t K,
                                                     int planes)
{
    const char *row = packed;
    int i = 0;
    if (planes == 2) {
        for (; i + 4 <= rows; i += 4) block(sums + i, digits, row + i * sb_cpu_pitch(K), 4, K, 2);
        for (; i + 2 <= rows; i += 2) block(sums + i, digits, row + i * sb_cpu_pitch(K), 2, K, 2);
        for (; i < rows; i++) block(sums + i, digits, row + i * sb_cpu_pitch(K), 1, K, 2);
    } else {
        for (; i + 2 <= rows; i += 2) block(sums + i, digits, row + i * sb_cpu_pitch(K), 2, K, 3);
        for (; i < rows; i++) block(sums + i, digits, row + i * sb_cpu_pitch(K), 1, K, 3);
    }
}

static int available(void) { return __builtin_cpu_supports("avx2"); }

const sb_product_isa sb_products_avx2 = { "avx2", available, sb_cpu_pack_pairs, products };

#else /* another architecture */

static int available(void) { return 0; }

const sb_product_isa sb_products_avx2 = { "avx2", available, 0, 0 };

#endif
