/* products_scalar.c - products of hidden states and weights in plain C: the reference of the other
 * paths, and the one for processors without them.
 *
 * Packed, four elements of a hidden state are eight int16: with H the upper digits and r the last
 * one, H0 H2 H1 H3 r0 r2 r1 r3. products_avx2.c, which shares the form, says why. */
#include "cpu/head.h"

#define STEPS                                                                                      \
    128 /* of 4 elements, between two carries: |H w + r w'| < 2^22 + 2^14, so that 512 of
                     them stay below 2^31 */

void sb_cpu_pack_pairs(void *packed, const int32_t *q, int64_t first, int64_t n, int64_t K)
{
    static const int order[4] = { 0, 2, 1, 3 };
    int16_t *to = (int16_t *)packed + first * 2;
    (void)K;
    for (int64_t k = 0; k < n; k += 4, to += 8)
        for (int i = 0; i < 4; i++) {
            const int32_t from = q[k + order[i]], H = sb_linear_upper(from);
            to[i] = (int16_t)H;
            to[4 + i] = (int16_t)(from - H * 256);
        }
}

/* Adds four products for each id of a group: of the elements row[0 .. 3] and a plane of digits. */
static void add(int32_t sums[SB_LEAF], const int16_t *row, const int8_t *w)
{
    for (int v = 0; v < SB_LEAF; v++)
        sums[v] += row[0] * w[v * 4] + row[2] * w[v * 4 + 1] + row[1] * w[v * 4 + 2] +
                   row[3] * w[v * 4 + 3];
}

/* Some steps of a hidden state: the sums of H w_j + r w_(j - 1) for each j. */
static void add_steps(int32_t m[4][SB_LEAF], const int16_t *row, const int8_t *w, int64_t steps,
                      int planes)
{
    for (int64_t k = 0; k < steps; k++, row += 8)
        for (int p = 0; p < planes; p++, w += SB_LEAF * 4) {
            add(m[p], row, w);
            if (p + 1 < planes || planes == 3) add(m[p + 1], row + 4, w);
        }
}

/* T of h24w16: 2^8 H w0 + (H w1 + r w0). S of h24w24:
 * 2^24 H w0 + 2^16 (H w1 + r w0) + 2^8 (H w2 + r w1) + r w2. */
static void products(int64_t (*sums)[SB_LEAF], const int8_t *digits, const void *packed, int rows,
                     int64_t K, int planes)
{
    const int64_t all = K / 4;
    const int sets = planes == 2 ? 2 : 4;
    memset(sums, 0, (size_t)rows * sizeof *sums);
    for (int64_t step = 0; step < all; step += STEPS) {
        const int64_t steps = all - step < STEPS ? all - step : STEPS;
        const int8_t *w = digits + step * planes * SB_LEAF * 4;
        for (int i = 0; i < rows; i++) {
            int32_t m[4][SB_LEAF] = { { 0 } };
            add_steps(m, (const int16_t *)packed + i * sb_cpu_pitch(K) / 2 + step * 8, w, steps,
                      planes);
            for (int v = 0; v < SB_LEAF; v++) {
                int64_t sum = m[0][v];
                for (int j = 1; j < sets; j++) sum = sum * 256 + m[j][v];
                sums[i][v] += sum;
            }
        }
    }
}

static int available(void) { return 1; }

const sb_product_isa sb_products_scalar = { "scalar", available, sb_cpu_pack_pairs, products };
