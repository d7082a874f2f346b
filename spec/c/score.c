/* score.c - see score.h. */
#include "score.h"
#include "spec.h"

static float logits[SCORE_ROWS * SCORE_VOCAB];
int32_t score_own_ids[SCORE_ROWS];

void score_prepare(void)
{
    uint64_t seed = 5;
    for (int i = 0; i < SCORE_ROWS * SCORE_VOCAB; i++)
        logits[i] = (float)((int64_t)(next_random(&seed) >> 40) - (1 << 23)) * 0x1p-20f;
    for (int i = 0; i < SCORE_ROWS; i++)
        score_own_ids[i] = (int32_t)(next_random(&seed) % SCORE_VOCAB);
}

sb_status score_ids(sb_context *ctx, float *out, int split, const int32_t *ids)
{
    sb_batch batch = SB_BATCH_INIT;
    sb_logprob_out to = SB_LOGPROB_OUT_INIT;
    sb_launch launch = SB_LAUNCH_INIT;
    launch.split = split;
    batch.logits = logits;
    batch.batch = 1;
    batch.time = SCORE_ROWS;
    batch.vocab = SCORE_VOCAB;
    batch.ids = ids;
    batch.temperature = 0.7f;
    to.token = out;
    to.lse = out + SCORE_ROWS;
    to.sequence = out + 2 * SCORE_ROWS;
    return sb_logprob(ctx, &to, &batch, &launch);
}

int score(sb_context *ctx, float *out, int split)
{
    return score_ids(ctx, out, split, score_own_ids) == SB_OK;
}

sb_context *score_open(int threads)
{
    sb_open_options options = SB_OPEN_OPTIONS_INIT;
    sb_context *ctx;
    options.threads = threads;
    return sb_open(&ctx, SB_ABI, "cpu", &options, NULL, 0) == SB_OK ? ctx : NULL;
}
