/* products.c - nanoseconds per multiply-add of the products of each instruction set that this
 * machine has, on one core and in its caches: bench/head.lua times whole calls.
 *
 *   cc -O3 -std=gnu11 -Isrc bench/products.c src/cpu/products_*.c -o products && ./products */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cpu/head.h"

enum { K = 4096, GROUPS = 4, CALLS = 400 };

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

int main(void)
{
    const sb_product_isa *isas[] = { &sb_products_scalar, &sb_products_avx2, &sb_products_avx512,
                                     &sb_products_amx };
    int8_t *digits = aligned_alloc(64, GROUPS * K * 3 * SB_LEAF);
    char *packed = aligned_alloc(64, (size_t)(SB_CPU_HEAD_ROWS * sb_cpu_pitch(K)));
    int32_t q[K];
    static int64_t sums[SB_CPU_HEAD_ROWS][SB_LEAF];
    for (int i = 0; i < GROUPS * K * 3 * SB_LEAF; i++) digits[i] = (int8_t)(i * 37 % 255 - 127);
    for (int i = 0; i < K; i++) q[i] = i * 7919 % 16711168 - 8355584;
    printf("| products | format | rows | ns |\n| --- | --- | --- | --- |\n");
    for (int k = 0; k < 4; k++)
        for (int planes = 2; planes <= 3; planes++)
            for (int rows = 1; rows <= 16; rows *= 4) {
                double best = 1e30;
                if (!isas[k]->available()) continue;
                for (int i = 0; i < rows; i++)
                    isas[k]->pack(packed + i * sb_cpu_pitch(K), q, 0, K, K);
                for (int call = 0; call < (k ? CALLS : CALLS / 20); call++) {
                    double from = now();
                    for (int g = 0; g < GROUPS; g++)
                        isas[k]->products(sums, digits + (int64_t)g * K * planes * SB_LEAF, packed,
                                          rows, K, planes);
                    from = now() - from;
                    if (from < best) best = from;
                }
                printf("| %s | %s | %d | %.4f |\n", isas[k]->name,
                       planes == 2 ? "h24w16" : "h24w24", rows,
                       best / ((double)GROUPS * SB_LEAF * K * rows));
            }
    free(digits);
    free(packed);
    return 0;
}
