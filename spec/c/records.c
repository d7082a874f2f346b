/* records.c - finishes records of whole rows with various logits as the target's. Records of real
 * rows must be accepted, whichever id is the target, and no accepted record may give a logprob
 * above 0. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "logits.h"
#include "samebits.h"
#include "spec.h"

enum { VOCAB = 400, FORGED = 48, ROUNDS = 13 * 120 };

/* A row and its records, one for each target. */
typedef struct row {
    float tau, logits[VOCAB];
    int64_t vocab;
    sb_moment_record moments[VOCAB];
    sb_state_record states[VOCAB];
    sb_target_record targets[VOCAB];
} row;

static int finish(sb_context *ctx, row *r, int64_t count, int moments, float *token)
{
    static const int32_t ids[VOCAB]; /* id 0 everywhere; finish takes the target from the records */
    sb_records records = SB_RECORDS_INIT;
    sb_batch batch = SB_BATCH_INIT;
    sb_logprob_out out = SB_LOGPROB_OUT_INIT;
    batch.batch = 1;
    batch.time = count;
    batch.vocab = r->vocab;
    batch.ids = ids;
    batch.temperature = r->tau;
    out.token = token;
    records.kind = moments ? SB_MOMENTS : SB_SUMS;
    records.states = moments ? (void *)r->moments : r->states;
    records.targets = r->targets;
    return sb_finish(ctx, &out, &batch, &records, NULL);
}

static int make_records(sb_context *ctx, row *r)
{
    static const int32_t id;
    const sb_records records = { sizeof records, SB_MOMENTS, r->moments, r->targets };
    sb_batch batch = SB_BATCH_INIT;
    batch.logits = r->logits;
    batch.batch = batch.time = 1;
    batch.vocab = r->vocab;
    batch.ids = &id;
    batch.temperature = r->tau;
    if (sb_partial(ctx, &records, &batch, 0, r->vocab, NULL) != SB_OK) return 0;
    for (int64_t i = 0; i < r->vocab; i++) {
        r->moments[i] = r->moments[0];
        r->states[i] = r->moments[0].sum;
        r->targets[i].owners = 1;
        memcpy(&r->targets[i].x, &r->logits[i], 4);
    }
    return 1;
}

/* A logit that is a few encodings or a few octaves above the largest one, or any finite number. */
static float forged_logit(uint64_t *seed, const row *r)
{
    const float most = sb_float(0x7f7fffffu);
    const uint64_t choice = next_random(seed), much = next_random(seed) % 24;
    float x = -INFINITY;
    for (int64_t i = 0; i < r->vocab; i++) x = r->logits[i] > x ? r->logits[i] : x;
    if (sb_is_poison(x) || sb_is_absent(x) || choice % 3 == 0) return make_logit(seed, 7);
    if (choice % 3 == 1) x += r->tau * (float)(1 << much) * 0x1p-18f;
    else
        for (uint64_t steps = 0; steps < much; steps++) x = nextafterf(x, most);
    return x > most ? most : x;
}

int check_record_targets(void)
{
    static const float taus[] = { 1.0f, 0.7f, 0.02f, 50.0f, 0x1p-10f, 0x1p+10f, 0x1.715476p+0f };
    static row r;
    static float token[VOCAB];
    sb_open_options options = SB_OPEN_OPTIONS_INIT;
    int64_t finished = 0, refused = 0, passed = 0, wrong = 0, zero = 0;
    uint64_t seed = 15;
    sb_context *ctx;
    options.threads = 1;
    if (sb_open(&ctx, SB_ABI, "cpu", &options, NULL, 0) != SB_OK) return 0;
    for (int round = 0; round < ROUNDS && wrong == 0; round++) {
        r.vocab = 1 + (int64_t)(next_random(&seed) % (round % 3 ? 40 : VOCAB));
        r.tau = taus[next_random(&seed) % 7];
        for (int64_t i = 0; i < r.vocab; i++) r.logits[i] = make_logit(&seed, round % LOGIT_KINDS);
        wrong += !make_records(ctx, &r);
        for (int moments = 0; moments < 2; moments++) {
            wrong += finish(ctx, &r, r.vocab, moments, token) != SB_OK;
            for (int64_t i = 0; i < r.vocab && !wrong; i++) {
                wrong += token[i] > 0.0f;
                zero += token[i] == 0.0f;
            }
            finished += r.vocab;
        }
        if (wrong) printf("round %d: \"%s\"; ", round, sb_last_error(ctx));
        for (int k = 0; k < FORGED && wrong == 0; k++) {
            const float x = forged_logit(&seed, &r);
            memcpy(&r.targets[0].x, &x, 4);
            if (finish(ctx, &r, 1, k % 2, token) != SB_OK) {
                refused++;
                continue;
            }
            passed++;
            wrong += token[0] > 0.0f;
            if (wrong) printf("round %d, %a: %a; ", round, (double)x, (double)token[0]);
        }
    }
    sb_close(ctx);
    printf("%lld records of rows finished, %lld to 0; of forged targets %lld finished, %lld "
           "refused; %lld wrong\n",
           (long long)finished, (long long)zero, (long long)passed, (long long)refused,
           (long long)wrong);
    return wrong == 0 && zero > 0 && passed > 1000 && refused > 1000;
}
