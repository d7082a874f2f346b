/* isas.c - compares the states of the vector paths with those of the scalar path, on ordinary rows
 * and on rows that reach every special case (absent and wide leaves, poison, a moving window,
 * ragged ends). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cpu/isa.h"
#include "det/moments.h"
#include "logits.h"
#include "spec.h"

#define MOST 5000

/* Compares all dtypes. The upper half of each fp32 encoding serves as a bf16 logit, and the same 16
 * bits, read as fp16, serve as an fp16 logit. m is the state that the logits are added to; it
 * receives the result of the scalar path. */
static int compare(sb_moments *m, const sb_isa *isa, const unsigned char *data, int64_t n,
                   const sb_row *row, int dtype)
{
    const sb_isa *both[] = { &sb_isa_scalar, isa };
    sb_moments got[] = { *m, *m };
    sb_state sum[] = { m->sum, m->sum };
    for (int i = 0; i < 2; i++) {
        const sb_isa *by = both[i];
        (dtype == 0 ? by->f32 : dtype == 1 ? by->f16 : by->bf16)(&sum[i], data, n, row);
        (dtype == 0   ? by->moments_f32
         : dtype == 1 ? by->moments_f16
                      : by->moments_bf16)(&got[i], data, n, row);
    }
    *m = got[0];
    return memcmp(&sum[0], &sum[1], sizeof *sum) == 0 && memcmp(&got[0], &got[1], sizeof *got) == 0;
}

int check_isas_leaves(void)
{
    static const float taus[] = { 1.0f, 0.7f, 0.02f, 50.0f, 0x1p-10f, 0x1p+10f, 0x1.715476p+0f };
    const sb_isa *isas[] = { &sb_isa_avx2, &sb_isa_avx512 };
    static unsigned char data[4 * MOST + 8];
    sb_moments last = { 0 };
    uint64_t seed = 4;
    int compared[2] = { 0, 0 }, wrong = 0;
    for (int round = 0; round < 3000; round++) {
        int64_t n = 1 + (int64_t)(next_random(&seed) % (round % 8 ? 600 : MOST));
        size_t offset = next_random(&seed) % 8;
        int kind = round % LOGIT_KINDS, dtype = (int)(next_random(&seed) % 3);
        sb_row row = sb_row_of(taus[next_random(&seed) % 7]);
        sb_moments start, state;
        sb_moments_init(&start, row.c);
        if (round % 3 == 2) sb_moments_merge(&start, &last); /* a begun row, or poison */
        for (int64_t i = 0; i < n; i++) {
            float x = make_logit(&seed, kind);
            uint16_t half = (uint16_t)(sb_bits32(x) >> 16);
            if (dtype == 0) memcpy(data + offset + 4 * i, &x, 4);
            else memcpy(data + offset + 2 * i, &half, 2);
        }
        for (int k = 0; k < 2; k++) {
            if (!isas[k]->available()) continue;
            compared[k]++;
            state = start;
            if (!compare(&state, isas[k], data + offset, n, &row, dtype)) {
                if (wrong++ == 0)
                    printf("%s differs: round %d, kind %d, dtype %d, n %lld, c %a; ", isas[k]->name,
                           round, kind, dtype, (long long)n, (double)row.c);
            }
            last = state;
        }
    }
    printf("avx2: %d rows compared, avx512: %d; %d differ\n", compared[0], compared[1], wrong);
    return wrong == 0;
}
