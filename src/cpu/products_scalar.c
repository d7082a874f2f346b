/* products_scalar.c - products of hidden states and weights in plain C: the reference of the other
 * paths, and the one for processors without them.
 *
 * Packed, four elements of a hidden state are eight int16: with H the upper digits and r the last
 * one, H0 H2 H1 H3 r0 r2 r1 r3. products_avx2.c, which shares the form, says why. */
#include "cpu/head.h"

#define STEPS                                                                                      \
    128 /* of 4 elements, between two carries: |H w + r w'| < 2^22 + 2^14, so that 512 of
                     them stay below 2^31 */

static void pack(void *packed, const int32_t *q, int64_t first, int64_t n, int64_t K)
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

/* The sum over some steps of H * a + r * b, for one id. Either plane may be null. */
static int32_t sum_of(const int16_t *row, const int8_t *a, const int8_t *b, int64_t steps,
                      int64_t pitch)
{
    int32_t sum = 0;
    for (int64_t k = 0; k < steps; k++, row += 8) {
        if (a)
            sum += row[0] * a[k * pitch] + row[1] * a[k * pitch + 2] + row[2] * a[k * pitch + 1] +
                   row[3] * a[k * pitch + 3];
        if (b)
            sum += row[4] * b[k * pitch] + row[5] * b[k * pitch + 2] + row[6] * b[k * pitch + 1] +
                   row[7] * b[k * pitch + 3];
    }
    return sum;
}

/* T of h24w16: 2^8 H w0 + (H w1 + r w0). S of h24w24:
 * 2^24 H w0 + 2^16 (H w1 + r w0) + 2^8 (H w2 + r w1) + r w2. */
static void products(int64_t (*sums)[SB_LEAF], const int8_t *digits, const void *packed, int rows,
                     int64_t K, int planes)
{
    const int64_t pitch = planes * SB_LEAF * 4, all = K / 4;
    for (int i = 0; i < rows; i++)
        for (int v = 0; v < SB_LEAF; v++) sums[i][v] = 0;
    for (int64_t step = 0; step < all; step += STEPS) {
        const int64_t steps = all - step < STEPS ? all - step : STEPS;
        for (int i = 0; i < rows; i++) {
            const int16_t *row = (const int16_t *)packed + (i * K + step * 4) * 2;
            for (int v = 0; v < SB_LEAF; v++) {
                const int8_t *w0 = digits + step * pitch + v * 4, *w1 = w0 + SB_LEAF * 4;
                const int8_t *w2 = w1 + SB_LEAF * 4;
                const int64_t upper = (int64_t)sum_of(row, w0, NULL, steps, pitch) * 256 +
                                      sum_of(row, w1, w0, steps, pitch);
                sums[i][v] += planes == 2 ? upper
                                          : upper * 65536 +
                                                (int64_t)sum_of(row, w2, w1, steps, pitch) * 256 +
                                                sum_of(row, NULL, w2, steps, pitch);
            }
        }
    }
}

static int available(void) { return 1; }

const sb_product_isa sb_products_scalar = { "scalar", available, pack, products };
