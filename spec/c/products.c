/* products.c - the exact products of hidden states and weights by every instruction set that this
 * machine has, against sums of the integers themselves: random ones, and those that reach the
 * bounds of the accumulators. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cpu/head.h"
#include "spec.h"

enum { ISAS = 4, LARGEST = 8355584 };

static const sb_product_isa *const isas[ISAS] = { &sb_products_scalar, &sb_products_avx2,
                                                  &sb_products_avx512, &sb_products_amx };

typedef struct problem {
    int64_t K;
    int planes, rows, kind;
    int32_t *q;     /* [rows][K] */
    int8_t *digits; /* of a group */
    int64_t sums[SB_CPU_HEAD_ROWS][SB_LEAF];
} problem;

/* Kinds: small and large integers, the largest with one sign, the largest with random signs, and
 * digits that no weight has. */
static int32_t make_integer(uint64_t *seed, int kind)
{
    const uint64_t u = next_random(seed);
    if (kind == 1) return LARGEST;
    if (kind == 2) return u & 1 ? LARGEST : -LARGEST;
    return (int32_t)(u % (2 * LARGEST + 1)) - LARGEST;
}

static int8_t make_digit(uint64_t *seed, int kind, int plane)
{
    const int digit = (int)(next_random(seed) & 255) - 128;
    if (kind == 1) return plane == 0 ? 127 : -128;
    if (kind == 2) return -128;
    return (int8_t)(plane == 0 && digit == -128 ? 127 : digit);
}

static int64_t digit_at(const problem *p, int64_t k, int v, int plane)
{
    return p->digits[((k / 4 * p->planes + plane) * SB_LEAF + v) * 4 + k % 4];
}

/* T of h24w16 and S of h24w24, by their definitions. */
static int64_t exact(const problem *p, int row, int v)
{
    int64_t sum = 0;
    for (int64_t k = 0; k < p->K; k++) {
        const int64_t q = p->q[row * p->K + k], H = sb_linear_upper((int32_t)q), r = q - H * 256;
        int64_t w = 0;
        for (int plane = 0; plane < p->planes; plane++) w = w * 256 + digit_at(p, k, v, plane);
        sum += p->planes == 2 ? H * w + r * digit_at(p, k, v, 0) : q * w;
    }
    return sum;
}

static int differs(const problem *p, const sb_product_isa *isa, char *packed)
{
    int64_t sums[SB_CPU_HEAD_ROWS][SB_LEAF];
    for (int row = 0; row < p->rows; row++) /* in two pieces, where there is room for two */
        for (int64_t first = 0; first < p->K;) {
            const int64_t n = first == 0 && p->K > 64 ? 64 : p->K - first;
            isa->pack(packed + row * sb_cpu_pitch(p->K), p->q + row * p->K + first, first, n, p->K);
            first += n;
        }
    memset(sums, 0x5a, sizeof sums);
    isa->products(sums, p->digits, packed, p->rows, p->K, p->planes);
    return memcmp(sums, p->sums, (size_t)p->rows * sizeof *sums) != 0;
}

int check_products(void)
{
    static const int64_t lengths[] = { 64, 128, 512, 576, 1088, 4096, 32768 };
    int compared[ISAS] = { 0 }, wrong = 0;
    uint64_t seed = 11;
    char *packed = aligned_alloc(64, (size_t)sb_cpu_pitch(32768) * SB_CPU_HEAD_ROWS);
    problem p = { .q = malloc(4 * 32768 * SB_CPU_HEAD_ROWS),
                  .digits = malloc(3 * 32768 * SB_LEAF) };
    for (int round = 0; round < 160; round++) {
        p.K = lengths[round % 40 == 39 ? 6 : round % 6];
        p.planes = 2 + round / 6 % 2;
        p.rows = p.K == 32768 ? 1 + round / 40 : 1 + round % SB_CPU_HEAD_ROWS;
        p.kind = round / 3 % 4;
        for (int64_t i = 0; i < p.rows * p.K; i++) p.q[i] = make_integer(&seed, p.kind);
        for (int64_t i = 0; i < p.K * p.planes * SB_LEAF; i++)
            p.digits[i] = make_digit(&seed, p.kind, (int)(i / (SB_LEAF * 4) % p.planes));
        for (int row = 0; row < p.rows; row++)
            for (int v = 0; v < SB_LEAF; v++) p.sums[row][v] = exact(&p, row, v);
        for (int k = 0; k < ISAS; k++) {
            if (!isas[k]->available()) continue;
            compared[k]++;
            if (differs(&p, isas[k], packed) && wrong++ == 0)
                printf("%s differs: K %lld, %d planes, %d rows, kind %d; ", isas[k]->name,
                       (long long)p.K, p.planes, p.rows, p.kind);
        }
    }
    free(packed);
    free(p.q);
    free(p.digits);
    printf("blocks compared: scalar %d, avx2 %d, avx512 %d, amx %d; %d differ\n", compared[0],
           compared[1], compared[2], compared[3], wrong);
    return wrong == 0;
}
