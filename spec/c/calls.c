/* calls.c - what only a C caller can do to the library: another floating-point mode, many threads. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fpmode.h"
#include "samebits.h"
#include "spec.h"

enum { ROWS = 12, VOCAB = 3001 };

static float logits[ROWS * VOCAB];
static int32_t ids[ROWS];

static void make_batch(void)
{
    uint64_t seed = 5;
    for (int i = 0; i < ROWS * VOCAB; i++)
        logits[i] = (float)((int64_t)(next_random(&seed) >> 40) - (1 << 23)) * 0x1p-20f;
    for (int i = 0; i < ROWS; i++) ids[i] = (int32_t)(next_random(&seed) % VOCAB);
}

/* token, lse, sequence: ROWS + ROWS + 1 floats. */
static int score(sb_context *ctx, float *out)
{
    sb_batch batch = SB_BATCH_INIT;
    sb_logprob_out to = SB_LOGPROB_OUT_INIT;
    batch.logits = logits;
    batch.batch = 1;
    batch.time = ROWS;
    batch.vocab = VOCAB;
    batch.ids = ids;
    batch.temperature = 0.7f;
    to.token = out;
    to.lse = out + ROWS;
    to.sequence = out + 2 * ROWS;
    return sb_logprob(ctx, &to, &batch, NULL) == SB_OK;
}

static sb_context *open_with(int threads)
{
    sb_open_options options = SB_OPEN_OPTIONS_INIT;
    sb_context *ctx;
    options.threads = threads;
    return sb_open(&ctx, SB_ABI, "cpu", &options, NULL, 0) == SB_OK ? ctx : NULL;
}

int check_fpmode(void)
{
#if defined(__x86_64__)
    float want[2 * ROWS + 1], got[2 * ROWS + 1];
    static const uint32_t modes[] = { 0x9fc0, 0x3f80, 0x5f80,
                                      0x7f80 }; /* FTZ + DAZ; down; up; cut */
    sb_context *ctx = open_with(2);
    int wrong = 0, kept = 1;
    make_batch();
    if (!ctx || !score(ctx, want)) return 0;
    for (int i = 0; i < 4; i++) {
        sb_fpmode before = _mm_getcsr();
        _mm_setcsr(modes[i]);
        wrong += !score(ctx, got);
        kept &= (_mm_getcsr() & ~0x3fu) == modes[i];
        _mm_setcsr(before);
        wrong += memcmp(want, got, sizeof want) != 0;
    }
    sb_close(ctx);
    printf("4 modes: %d differ, the caller's mode is %s\n", wrong, kept ? "kept" : "LOST");
    return wrong == 0 && kept;
#else
    printf("not on this machine\n");
    return 1;
#endif
}

typedef struct caller {
    const float *want;
    int wrong;
} caller;

static void *call_often(void *arg)
{
    caller *c = arg;
    for (int i = 0; i < 20; i++) {
        float got[2 * ROWS + 1];
        sb_context *ctx = open_with(1 + i % 3);
        for (int k = 0; ctx && k < 5; k++)
            c->wrong += !score(ctx, got) || memcmp(c->want, got, sizeof got) != 0;
        c->wrong += !ctx;
        sb_close(ctx);
    }
    return NULL;
}

int check_contexts(void)
{
    enum { CALLERS = 6 };
    float want[2 * ROWS + 1];
    pthread_t thread[CALLERS];
    caller callers[CALLERS];
    sb_context *ctx = open_with(1);
    int wrong = 0;
    make_batch();
    if (!ctx || !score(ctx, want)) return 0;
    sb_close(ctx);
    for (int i = 0; i < CALLERS; i++) {
        callers[i].want = want;
        callers[i].wrong = 0;
        if (pthread_create(&thread[i], NULL, call_often, &callers[i]) != 0) return 0;
    }
    for (int i = 0; i < CALLERS; i++) {
        pthread_join(thread[i], NULL);
        wrong += callers[i].wrong;
    }
    printf("%d threads, 100 calls each: %d wrong\n", CALLERS, wrong);
    return wrong == 0;
}
