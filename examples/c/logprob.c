/* logprob.c - scores one sequence alone and in a larger batch, on the best backend available, and
 * shows that the bits are the same. Then computes importance ratios from the two results.
 *
 *     make -C examples/c && examples/c/logprob [BACKEND]
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "samebits.h"

enum { B = 3, T = 4, V = 1000 };

/* Random numbers that are the same on every machine. */
static void fill(float *logits, int32_t *ids)
{
    uint32_t state = 1;
    for (int i = 0; i < B * T * V; i++) {
        state = state * 1664525u + 1013904223u;
        logits[i] = (float)((int)(state >> 20) - 2048) / 256.0f;
    }
    for (int i = 0; i < B * T; i++) ids[i] = i * 83 % V;
}

/* Arrays in the memory of the backend. On the cpu, sb_memory_alloc returns ordinary memory. */
static void *on_device(sb_context *ctx, const void *from, size_t bytes)
{
    void *data = NULL;
    if (sb_memory_alloc(ctx, &data, bytes, SB_DEVICE) != SB_OK) return NULL;
    if (!from || sb_memory_copy(ctx, data, from, bytes, NULL) == SB_OK) return data;
    sb_memory_free(ctx, data, SB_DEVICE);
    return NULL;
}

/* Scores sequences first .. first + count - 1. token is host memory [count * T]. */
static sb_status score(sb_context *ctx, const float *logits, const int32_t *ids, int first,
                       int count, float *token)
{
    const int rows = count * T;
    sb_batch batch = SB_BATCH_INIT;
    sb_logprob_out out = SB_LOGPROB_OUT_INIT;
    sb_launch launch = SB_LAUNCH_INIT;
    void *there[3] = { on_device(ctx, logits + first * T * V, sizeof *logits * rows * V),
                       on_device(ctx, ids + first * T, sizeof *ids * rows),
                       on_device(ctx, NULL, sizeof *token * rows) };
    sb_status status = there[0] && there[1] && there[2] ? SB_OK : SB_ERR_MEMORY;
    batch.logits = there[0];
    batch.ids = there[1];
    batch.batch = count;
    batch.time = T;
    batch.vocab = V;
    batch.temperature = 0.7f;
    out.token = there[2];
    launch.check = 1; /* waits for the results, and fails here if an id is bad */
    if (status == SB_OK) status = sb_logprob(ctx, &out, &batch, &launch);
    if (status == SB_OK) status = sb_memory_copy(ctx, token, there[2], sizeof *token * rows, NULL);
    if (status == SB_OK) status = sb_stream_wait(ctx, NULL);
    for (int i = 0; i < 3; i++) sb_memory_free(ctx, there[i], SB_DEVICE);
    return status;
}

/* Computes the ratios of two sets of logprobs on the cpu, whose arrays are ordinary memory. */
static sb_status ratios(const float *sampled, const float *other, float *ratio, char why[256])
{
    sb_compare_out out = SB_COMPARE_OUT_INIT;
    sb_context *cpu;
    sb_status status = sb_open(&cpu, SB_ABI, "cpu", NULL, why, 256);
    if (status != SB_OK) return status;
    out.ratio = ratio;
    status = sb_compare(cpu, &out, sampled, other, T, NULL);
    if (status != SB_OK) snprintf(why, 256, "%s", sb_last_error(cpu));
    sb_close(cpu);
    return status;
}

static uint32_t bits_of(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static int fail(const char *why)
{
    fprintf(stderr, "logprob: %s\n", why);
    return 1;
}

int main(int argc, char **argv)
{
    static float logits[B * T * V];
    static int32_t ids[B * T];
    float alone[T], together[B * T], ratio[T];
    char why[256] = "";
    sb_context *ctx;
    sb_status status;

    fill(logits, ids);
    if (sb_open(&ctx, SB_ABI, argc > 1 ? argv[1] : "auto", NULL, why, sizeof why) != SB_OK)
        return fail(why);
    printf("samebits %s on %s (%s)\n", sb_version(), sb_context_backend(ctx), sb_context_isa(ctx));
    status = score(ctx, logits, ids, 1, 1, alone);
    if (status == SB_OK) status = score(ctx, logits, ids, 0, B, together);
    if (status != SB_OK) {
        snprintf(why, sizeof why, "%s: %s", sb_status_name(status), sb_last_error(ctx));
        sb_close(ctx);
        return fail(why);
    }
    sb_close(ctx);
    if (ratios(alone, together + T, ratio, why) != SB_OK) return fail(why);

    printf("position  alone     in a batch  ratio\n");
    for (int t = 0; t < T; t++)
        printf("%8d  %08" PRIx32 "  %08" PRIx32 "    %.9g\n", t, bits_of(alone[t]),
               bits_of(together[T + t]), (double)ratio[t]);
    if (memcmp(alone, together + T, sizeof alone) != 0) return fail("the bits differ");
    printf("the same bits\n");
    return 0;
}
