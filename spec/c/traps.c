/* traps.c - checks a caller that has unmasked floating-point exceptions, as numerical programs do
 * to find their mistakes. No call may raise an exception, whatever numbers it is given, and every
 * call must give the same bits as for any other caller. */
#include "fpmode.h"
#include "samebits.h"
#include "samebits_conventional.h"
#include "spec.h"

#include <stdio.h>
#include <string.h>

#if defined(__x86_64__)

enum { ROWS = 6, VOCAB = 70000, K = 2, CUT = 1600, CALLS = 33 };

static float logits[ROWS * VOCAB], tokens[ROWS];
static const int32_t ids[ROWS] = { 3, 5, 7, 11, 13, 17 };
static const int32_t several[ROWS * K] = { 3, 4, 5, 6, 7, 8, 11, 12, 13, 14, 17, 18 };

/* All results of the calls below. */
typedef struct results {
    sb_status status[CALLS];
    float token[ROWS], lse[ROWS], entropy[ROWS], sequence[1], means[2];
    sb_saved_row saved[ROWS];
    float by_id[ROWS * K];
    int32_t rank[ROWS * K], first[ROWS * K];
    float best[ROWS * K];
    float grad[ROWS * VOCAB], together[ROWS * VOCAB];
    float divergence[ROWS];
    sb_state_record states[2][ROWS];
    sb_moment_record moments[2][ROWS];
    sb_target_record targets[2][ROWS];
    float finished[ROWS], with_moments[ROWS];
    float compared[4][ROWS];
    float conventional[ROWS];
} results;

static results masked, unmasked;

/* Stores a float by its bits, since a signalling NaN may become quiet when passed as a float. */
static void put(float *to, uint32_t bits) { memcpy(to, &bits, sizeof bits); }

static void make_rows(void)
{
    uint64_t seed = 3;
    for (int i = 0; i < ROWS * VOCAB; i++)
        logits[i] = (float)((int64_t)(next_random(&seed) >> 40) - (1 << 23)) * 0x1p-19f;
    put(&logits[9], 0x7f800001);             /* signalling */
    put(&logits[VOCAB + 9], 0x7fc00000);     /* quiet */
    put(&logits[2 * VOCAB + 9], 0x7f800000); /* inf */
    put(&logits[3 * VOCAB + 9], 0xff800000);
    put(&logits[4 * VOCAB + 9], 0x00000001); /* subnormal */
    put(&logits[5 * VOCAB + 9], 0x7f7fffff);
    put(&tokens[0], 0x7f800001);
    put(&tokens[1], 0x7f800000);
    put(&tokens[2], 0xff800000);
    put(&tokens[3], 0x00000001);
    put(&tokens[4], 0x7f7fffff);
    put(&tokens[5], 0xc1000000);
}

static sb_batch all_rows(void)
{
    sb_batch batch = SB_BATCH_INIT;
    batch.logits = logits;
    batch.batch = 1;
    batch.time = ROWS;
    batch.vocab = VOCAB;
    batch.ids = ids;
    return batch;
}

static void forward_and_back(sb_context *ctx, results *r, sb_status **status)
{
    sb_batch batch = all_rows(), other = all_rows();
    sb_logprob_out out = SB_LOGPROB_OUT_INIT;
    sb_ids_out by_id = SB_IDS_OUT_INIT;
    sb_topk_out first = SB_TOPK_OUT_INIT;
    sb_gradient gradient = SB_GRADIENT_INIT;
    sb_kl_out kl = SB_KL_OUT_INIT;
    sb_saved_row forged;

    out.token = r->token;
    out.lse = r->lse;
    out.entropy = r->entropy;
    out.sequence = r->sequence;
    out.saved = r->saved;
    *(*status)++ = sb_logprob(ctx, &out, &batch, NULL);
    out.entropy = NULL;
    out.saved = NULL;
    out.token = r->conventional;
    *(*status)++ = sb_conventional_logprob(ctx, &out, &batch, NULL);

    gradient.grad = r->grad;
    gradient.saved = r->saved;
    gradient.token = tokens;
    gradient.entropy = tokens;
    *(*status)++ = sb_logprob_backward(ctx, &gradient, &batch, NULL);
    forged = r->saved[4];
    memset(&r->saved[4].g, 0xff, sizeof r->saved[4].g);
    *(*status)++ = sb_logprob_backward(ctx, &gradient, &batch, NULL);
    r->saved[4] = forged;
    gradient.saved = NULL;
    gradient.grad = r->together;
    out.token = r->token;
    out.gradient = &gradient;
    *(*status)++ = sb_logprob(ctx, &out, &batch, NULL);

    kl.token = r->divergence;
    other.temperature = 0.5f;
    *(*status)++ = sb_kl(ctx, &kl, &batch, &other, NULL);

    batch.ids = several;
    by_id.logprob = r->by_id;
    by_id.rank = r->rank;
    *(*status)++ = sb_logprob_ids(ctx, &by_id, &batch, K, NULL);
    first.ids = r->first;
    first.logprob = r->best;
    *(*status)++ = sb_topk(ctx, &first, &batch, K, NULL);
}

static void by_shards(sb_context *ctx, results *r, sb_status **status)
{
    sb_records sums[2] = { SB_RECORDS_INIT, SB_RECORDS_INIT };
    sb_records moments[2] = { SB_RECORDS_INIT, SB_RECORDS_INIT };
    sb_batch batch = all_rows();
    sb_logprob_out out = SB_LOGPROB_OUT_INIT;
    batch.row_stride = VOCAB;
    for (int i = 0; i < 2; i++) {
        int64_t first = i * CUT, n = i ? VOCAB - CUT : CUT;
        sums[i].states = r->states[i];
        moments[i].kind = SB_MOMENTS;
        moments[i].states = r->moments[i];
        sums[i].targets = moments[i].targets = r->targets[i];
        batch.logits = logits + first;
        *(*status)++ = sb_partial(ctx, &sums[i], &batch, first, n, NULL);
        *(*status)++ = sb_partial(ctx, &moments[i], &batch, first, n, NULL);
    }
    *(*status)++ = sb_merge(ctx, &sums[0], &sums[0], 2, ROWS, NULL);
    out.token = r->finished;
    *(*status)++ = sb_finish(ctx, &out, &batch, &sums[0], NULL);
    out.token = r->with_moments;
    moments[1].states = r->moments[0];
    *(*status)++ = sb_merge(ctx, &moments[1], &moments[0], 1, ROWS, NULL);
    *(*status)++ = sb_finish(ctx, &out, &batch, &moments[1], NULL);
    r->targets[0][4].x = 0x7f800001;
    *(*status)++ = sb_finish(ctx, &out, &batch, &sums[0], NULL);
}

static void statistics(sb_context *ctx, results *r, sb_status **status)
{
    sb_compare_out out = SB_COMPARE_OUT_INIT;
    sb_sums_out sums = SB_SUMS_OUT_INIT;
    sb_values values = SB_VALUES_INIT;
    out.ratio = r->compared[0];
    out.k1 = r->compared[1];
    out.k2 = r->compared[2];
    out.k3 = r->compared[3];
    *(*status)++ = sb_compare(ctx, &out, tokens, logits, ROWS, NULL);
    sums.mean = &r->means[0];
    sums.exp_mean = &r->means[1];
    values.values = tokens;
    values.minus = logits;
    values.batch = 1;
    values.time = ROWS;
    *(*status)++ = sb_sums(ctx, &sums, &values, NULL);
}

/* Calls with bad arguments, which the library detects by comparing floats. */
static void bad_temperatures(sb_context *ctx, results *r, sb_status **status)
{
    const uint32_t bits[] = { 0x7f800001, 0x7fc00000, 0x00000001, 0x7f800000 };
    float each[ROWS];
    sb_logprob_out out = SB_LOGPROB_OUT_INIT;
    sb_batch batch = all_rows();
    sb_launch launch = SB_LAUNCH_INIT;
    uint64_t size;
    out.token = r->finished;
    for (int i = 0; i < 4; i++) {
        put(&batch.temperature, bits[i]);
        *(*status)++ = sb_logprob(ctx, &out, &batch, NULL);
    }
    launch.needed = &size;
    *(*status)++ = sb_logprob(ctx, &out, &batch, &launch);
    for (int i = 0; i < ROWS; i++) put(&each[i], 0x3f800000);
    put(&each[ROWS - 1], 0x7f800001);
    batch.temperatures = each;
    *(*status)++ = sb_logprob(ctx, &out, &batch, NULL);
}

/* mode is the MXCSR of the calling thread. Returns whether the thread still has it afterwards. */
static int run(results *r, uint32_t mode, int threads)
{
    sb_open_options options = SB_OPEN_OPTIONS_INIT;
    sb_status *status = r->status;
    sb_fpmode before = sb_fpmode_enter(), after;
    sb_context *ctx = NULL;
    memset(r, 0, sizeof *r);
    options.threads = threads;
    _mm_setcsr(mode);
    if (sb_open(&ctx, SB_ABI, "cpu", &options, NULL, 0) == SB_OK) {
        forward_and_back(ctx, r, &status);
        by_shards(ctx, r, &status);
        statistics(ctx, r, &status);
        bad_temperatures(ctx, r, &status);
    }
    sb_close(ctx);
    after = _mm_getcsr();
    sb_fpmode_leave(before);
    return ctx && after == mode;
}

static int count(const results *r, sb_status status)
{
    int n = 0;
    for (int i = 0; i < CALLS; i++) n += r->status[i] == status;
    return n;
}

int check_traps(void)
{
    int wrong = 0, kept = 1;
    make_rows();
    for (int threads = 1; threads <= 3; threads += 2) {
        kept &= run(&masked, 0x1f80, threads);
        kept &= run(&unmasked, 0x0000, threads); /* traps even inexact results */
        wrong += memcmp(&masked, &unmasked, sizeof masked) != 0;
        wrong += memcmp(masked.grad, masked.together, sizeof masked.grad) != 0;
        wrong += count(&masked, SB_ERR_TEMPERATURE) != 6 || count(&masked, SB_ERR_STATE) != 2;
    }
    printf("every kind of call, of contexts with 1 and 3 threads: %d differ, the caller's mode is "
           "%s\n",
           wrong, kept ? "kept" : "LOST");
    return wrong == 0 && kept;
}

#else

int check_traps(void)
{
    printf("not on this machine: it has another register for the mode\n");
    return NOT_HERE;
}

#endif
