/* main.c - `samebits-faults` makes each of the library's requests to the system fail in turn, and
 * checks each API call for it: an error in words, outputs untouched (on the cpu), nothing left
 * behind, and success of the same call right afterwards, with the right bits. Prints one line per
 * backend. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../fakes/nccl.h"
#include "forked.h"
#include "inject.h"
#include "samebits.h"
#include "samebits_conventional.h"

enum { ROWS = 3, VOCAB = 40000, BYTES = 64 }; /* rows that a call cuts into pieces */
enum { SHARDS = 2, CUT = 24000 };
enum { FEW = 100, K = 2, WORDS = (VOCAB + 31) / 32 }; /* gradients are of rows of FEW logits */

typedef struct records {
    sb_state_record states[ROWS];
    sb_target_record targets[ROWS];
} records;

/* What the library takes. */
#define RECORDS(kind, states, targets) (&(sb_records){ sizeof(sb_records), kind, states, targets })

typedef struct outputs {
    float token[ROWS], lse[ROWS], sequence[1];
    int64_t count[1];
    records shard;
    sb_moment_record moments[ROWS];
    float entropy[ROWS];
    int64_t outside[1];
    sb_saved_row saved[ROWS];
    int32_t integers[ROWS * K];
    float logprobs[ROWS * K], grad[ROWS * FEW];
    int64_t sums[ROWS * FEW];
    uint32_t scales[ROWS];
    sb_policy_record tally;
    sb_policy_metrics metrics;
    sb_group_record group;
    double mean;
} outputs;

typedef struct scenario {
    const char *backend;
    int threads, on_device;
    sb_context *ctx;
    void *memory, *pinned, *stream;
    outputs out;
    sb_state_record states[SHARDS][ROWS]; /* gathered */
    sb_target_record targets[SHARDS][ROWS];
    records merged;
    sb_moment_record moments[SHARDS][ROWS], merged_moments[ROWS];
    sb_saved_row saved[ROWS];
    sb_comm_id id;
    void *comm;
    sb_head *head, *opened;
    uint32_t scales[ROWS]; /* of hidden states */
    int64_t sums[ROWS * FEW];
    char why[256];
} scenario;

static float logits[ROWS * VOCAB];
static int64_t ids[ROWS] = { 5, 7, 39999 };
static int64_t several[ROWS * K] = { 5, 6, 7, 0, 39999, -100 };
static int64_t few_ids[ROWS] = { 5, 7, FEW - 1 };
static uint32_t kept[ROWS * WORDS];
static int64_t kept_ids[] = { 5, 4000, 7, 39999 };
static const int32_t kept_offsets[ROWS + 1] = { 0, 2, 3, 4 };
static const int64_t rows[ROWS - 1] = { 0, 2 };
static const uint64_t positions[ROWS] = { 3, 4, 5 };
static const uint8_t mask[ROWS] = { 1, 1, 1 };
static const float temperatures[ROWS] = { 1.0f, 1.0f, 0.5f };
static int64_t data[BYTES / 8];

/* ---- the calls ---------------------------------------------------------------------------- */

static sb_status open_context(scenario *s)
{
    sb_open_options options = SB_OPEN_OPTIONS_INIT;
    options.threads = s->threads;
    return sb_open(&s->ctx, SB_ABI, s->backend, &options, s->why, sizeof s->why);
}

static void close_all(scenario *s)
{
    if (!s->ctx) return;
    sb_head_free(s->ctx, s->opened);
    sb_head_free(s->ctx, s->head);
    s->head = s->opened = NULL;
    sb_comm_destroy(s->ctx, s->comm);
    sb_stream_destroy(s->ctx, s->stream);
    sb_memory_free(s->ctx, s->memory, SB_DEVICE);
    sb_memory_free(s->ctx, s->pinned, SB_PINNED);
    sb_close(s->ctx);
    s->ctx = NULL;
    s->memory = s->pinned = s->stream = s->comm = NULL;
}

/* One that has no room kept from the calls before. */
static sb_status open_again(scenario *s)
{
    inject_pause(1);
    close_all(s);
    inject_pause(0);
    return open_context(s);
}

static sb_status probe(scenario *s) { return sb_probe(s->backend, s->why, sizeof s->why); }

static sb_batch batch_of(const void *list)
{
    sb_batch batch = SB_BATCH_INIT;
    batch.logits = logits;
    batch.batch = 1;
    batch.time = ROWS;
    batch.vocab = VOCAB;
    batch.ids = ids;
    batch.ids_dtype = SB_I64;
    batch.row_list = list;
    batch.row_count = ROWS - 1;
    batch.mask = mask;
    batch.temperatures = temperatures;
    return batch;
}

static sb_launch launch_of(const scenario *s)
{
    sb_launch launch = SB_LAUNCH_INIT;
    launch.check = 1;
    launch.split = 5;
    launch.stream = s->stream;
    return launch;
}

/* Without tokens sums need room for them. */
static sb_logprob_out out_of(scenario *s, int tokens)
{
    sb_logprob_out out = SB_LOGPROB_OUT_INIT;
    out.token = tokens ? s->out.token : NULL;
    out.lse = s->out.lse;
    out.sequence = s->out.sequence;
    out.count = s->out.count;
    return out;
}

static sb_status score(scenario *s, const sb_batch *batch, int tokens)
{
    sb_logprob_out out = out_of(s, tokens);
    sb_launch launch = launch_of(s);
    launch.cluster = -1;
    return sb_logprob(s->ctx, &out, batch, &launch);
}

static sb_status all_rows(scenario *s)
{
    sb_batch batch = batch_of(NULL);
    return score(s, &batch, 1);
}

static sb_status listed_rows(scenario *s)
{
    sb_batch batch = batch_of(rows);
    return score(s, &batch, 0);
}

static sb_status compare(scenario *s)
{
    sb_compare_out out = SB_COMPARE_OUT_INIT;
    sb_launch launch = SB_LAUNCH_INIT;
    launch.stream = s->stream;
    out.ratio = s->out.token;
    out.k3 = s->out.lse;
    return sb_compare(s->ctx, &out, logits, temperatures, ROWS, &launch);
}

static sb_status sum_values(scenario *s, int32_t end)
{
    const int32_t ends[2] = { 0, end };
    sb_sums_out out = SB_SUMS_OUT_INIT;
    sb_values values = SB_VALUES_INIT;
    sb_launch launch = SB_LAUNCH_INIT;
    launch.check = 1;
    launch.stream = s->stream;
    out.sum = s->out.token;
    out.mean = s->out.lse;
    out.exp_mean = s->out.sequence;
    out.count = s->out.count;
    values.values = logits;
    values.minus = temperatures;
    values.mask = mask;
    values.batch = 1;
    values.rows = ROWS;
    values.cu_seqlens = ends;
    return sb_sums(s->ctx, &out, &values, &launch);
}

static sb_status sums(scenario *s) { return sum_values(s, ROWS); }

static sb_status bad_sums(scenario *s)
{
    sb_status status;
    driver_reports_bad_rows(1);
    status = sum_values(s, ROWS + 1);
    driver_reports_bad_rows(0);
    return status;
}

static sb_status policy_of(scenario *s, int32_t end)
{
    const int32_t ends[2] = { 0, end };
    sb_policy_out out = SB_POLICY_OUT_INIT;
    sb_policy policy = SB_POLICY_INIT;
    sb_launch launch = SB_LAUNCH_INIT;
    launch.check = 1;
    launch.stream = s->stream;
    out.loss = s->out.sequence;
    out.sequence = s->out.lse;
    out.token = s->out.token;
    out.entropy = s->out.entropy;
    out.record = &s->out.tally;
    out.metrics = &s->out.metrics;
    policy.now = logits;
    policy.old = temperatures;
    policy.advantages = temperatures;
    policy.mask = mask;
    policy.batch = 1;
    policy.rows = ROWS;
    policy.cu_seqlens = ends;
    policy.loss = SB_GSPO;
    policy.norm = SB_SEQUENCE_MEAN;
    return sb_policy_loss(s->ctx, &out, &policy, &launch);
}

static sb_status policy_loss(scenario *s) { return policy_of(s, ROWS); }

static sb_status bad_policy(scenario *s)
{
    sb_status status;
    driver_reports_bad_rows(1);
    status = policy_of(s, ROWS + 1);
    driver_reports_bad_rows(0);
    return status;
}

/* An empty record, and one that no call gives. */
static sb_policy_record tallies[2] = { { 0, 1, { 0 }, 0, 0, { { { 0 }, 0, 0 } } },
                                       { 2, 1, { 0 }, 0, 0, { { { 0 }, 0, 0 } } } };

static sb_status merge_tallies(scenario *s, const sb_policy_record *from)
{
    sb_policy_out out = SB_POLICY_OUT_INIT;
    sb_policy policy = SB_POLICY_INIT;
    sb_launch launch = SB_LAUNCH_INIT;
    launch.check = 1;
    launch.stream = s->stream;
    out.loss = s->out.sequence;
    out.record = &s->out.tally;
    return sb_policy_merge(s->ctx, &out, &policy, from, 1, &launch);
}

static sb_status policy_merge(scenario *s) { return merge_tallies(s, &tallies[0]); }

static sb_status bad_policy_merge(scenario *s)
{
    sb_status status;
    driver_reports_bad_rows(1);
    status = merge_tallies(s, &tallies[1]);
    driver_reports_bad_rows(0);
    return status;
}

static sb_status groups_of(scenario *s, int32_t end, const sb_group_record *from)
{
    const int32_t ends[2] = { 0, end };
    sb_groups_out out = SB_GROUPS_OUT_INIT;
    sb_groups groups = SB_GROUPS_INIT;
    sb_launch launch = SB_LAUNCH_INIT;
    launch.check = 1;
    launch.stream = s->stream;
    out.advantages = s->out.token;
    out.records = &s->out.group;
    out.mean = &s->out.mean;
    groups.rewards = temperatures;
    groups.offsets = ends;
    groups.groups = 1;
    groups.rows = ROWS;
    groups.records = from;
    groups.shards = 1;
    groups.scale = SB_STEP_STD;
    return sb_group_advantages(s->ctx, &out, &groups, &launch);
}

static sb_status group_advantages(scenario *s) { return groups_of(s, ROWS, NULL); }

static sb_status bad_groups(scenario *s)
{
    sb_status status;
    driver_reports_bad_rows(1);
    status = groups_of(s, ROWS + 1, NULL);
    driver_reports_bad_rows(0);
    return status;
}

static sb_status bad_group_record(scenario *s)
{
    static const sb_group_record bad = { 1, { 0 }, 8, 0, { 0 } };
    sb_status status;
    driver_reports_bad_rows(1);
    status = groups_of(s, ROWS, &bad);
    driver_reports_bad_rows(0);
    return status;
}

/* No kernel has to look at these. */
static sb_status rows_outside(scenario *s)
{
    const int32_t ends[1] = { 0 };
    sb_batch batch = batch_of(NULL);
    batch.batch = 0;
    batch.rows = ROWS;
    batch.cu_seqlens = ends;
    return score(s, &batch, 1);
}

static sb_status values_outside(scenario *s)
{
    const int32_t ends[1] = { 0 };
    sb_sums_out out = SB_SUMS_OUT_INIT;
    sb_values values = SB_VALUES_INIT;
    values.values = logits;
    values.rows = ROWS;
    values.cu_seqlens = ends;
    return sb_sums(s->ctx, &out, &values, NULL);
}

/* On the device kernels have to find it first, and the host looks at copies then. */
static sb_status bad_id(scenario *s)
{
    sb_batch batch = batch_of(rows);
    int32_t ends[2] = { 0, ROWS };
    sb_status status;
    batch.cu_seqlens = ends;
    batch.rows = ROWS;
    ids[2] = VOCAB;
    driver_reports_bad_rows(1);
    status = score(s, &batch, 1);
    driver_reports_bad_rows(0);
    ids[2] = VOCAB - 1;
    return status;
}

static sb_status conventional_rows(scenario *s)
{
    sb_batch batch = batch_of(rows);
    sb_logprob_out out = out_of(s, 0);
    sb_launch launch = launch_of(s);
    return sb_conventional_logprob(s->ctx, &out, &batch, &launch);
}

/* ---- more of a row ------------------------------------------------------------------------ */

static sb_status entropy_of(scenario *s, const sb_batch *batch)
{
    sb_logprob_out out = SB_LOGPROB_OUT_INIT;
    sb_launch launch = launch_of(s);
    out.sequence = s->out.sequence;
    out.outside = s->out.outside;
    out.entropy = s->out.entropy;
    out.saved = s->out.saved;
    return sb_logprob(s->ctx, &out, batch, &launch);
}

static sb_status entropy(scenario *s)
{
    sb_batch batch = batch_of(rows);
    batch.kept = kept;
    return entropy_of(s, &batch);
}

static void set_lists(sb_batch *batch)
{
    batch->kept_ids = kept_ids;
    batch->kept_ids_dtype = SB_I64;
    batch->kept_offsets = kept_offsets;
    batch->kept_count = sizeof kept_ids / sizeof *kept_ids;
}

static sb_status logprob_of_lists(scenario *s)
{
    sb_batch batch = batch_of(rows);
    sb_gradient gradient = SB_GRADIENT_INIT;
    static const float by_token[ROWS] = { 1.0f, 0.5f, -1.0f };
    static float grad[ROWS * VOCAB];
    sb_logprob_out out = out_of(s, 0);
    sb_launch launch = launch_of(s);
    set_lists(&batch);
    gradient.grad = grad;
    gradient.token = by_token;
    out.outside = s->out.outside;
    out.gradient = &gradient;
    return sb_logprob(s->ctx, &out, &batch, &launch);
}

static sb_status first_of_lists(scenario *s)
{
    sb_batch batch = batch_of(NULL);
    sb_topk_out out = SB_TOPK_OUT_INIT;
    sb_launch launch = launch_of(s);
    set_lists(&batch);
    out.ids = s->out.integers;
    out.lse = s->out.lse;
    return sb_topk(s->ctx, &out, &batch, K, &launch);
}

static sb_status divergence_of_lists(scenario *s)
{
    sb_batch p = batch_of(rows), q = batch_of(rows);
    sb_kl_out out = SB_KL_OUT_INIT;
    sb_launch launch = launch_of(s);
    set_lists(&p);
    set_lists(&q);
    out.sequence = s->out.sequence;
    return sb_kl(s->ctx, &out, &p, &q, &launch);
}

/* On the device kernels have to find it first, and the host looks at copies then. */
static sb_status bad_lists(scenario *s)
{
    sb_status status;
    kept_ids[1] = 5;
    driver_reports_bad_rows(1);
    status = logprob_of_lists(s);
    driver_reports_bad_rows(0);
    kept_ids[1] = 4000;
    return status;
}

/* A conversion in memory, which a device refuses. */
static sb_status in_memory(const scenario *s, sb_status status)
{
    if (!s->on_device) return status;
    return status == SB_ERR_BACKEND ? SB_OK : status == SB_OK ? SB_ERR_STATE : status;
}

static sb_status words_of_lists(scenario *s)
{
    sb_batch batch = batch_of(NULL);
    static uint32_t words[ROWS * WORDS];
    set_lists(&batch);
    return in_memory(s, sb_kept_words(s->ctx, words, 0, &batch));
}

static sb_status lists_of_words(scenario *s)
{
    sb_batch batch = batch_of(NULL);
    int64_t offsets[ROWS + 1];
    batch.kept = kept;
    return in_memory(s, sb_kept_lists(s->ctx, offsets, SB_I64, NULL, SB_I32, 0, &batch));
}

static sb_status several_ids(scenario *s)
{
    sb_batch batch = batch_of(rows);
    sb_ids_out out = SB_IDS_OUT_INIT;
    sb_launch launch = launch_of(s);
    batch.ids = several;
    batch.kept = kept;
    out.logprob = s->out.logprobs;
    out.rank = s->out.integers;
    out.lse = s->out.lse;
    return sb_logprob_ids(s->ctx, &out, &batch, K, &launch);
}

/* On the device kernels have to find it first, and the host looks at copies then. */
static sb_status bad_several(scenario *s)
{
    sb_status status;
    several[4] = VOCAB;
    driver_reports_bad_rows(1);
    status = several_ids(s);
    driver_reports_bad_rows(0);
    several[4] = VOCAB - 1;
    return status;
}

static sb_status first_ids(scenario *s)
{
    sb_batch batch = batch_of(NULL);
    sb_topk_out out = SB_TOPK_OUT_INIT;
    sb_launch launch = launch_of(s);
    batch.ids = NULL;
    batch.kept = kept;
    out.ids = s->out.integers;
    out.logprob = s->out.logprobs;
    out.lse = s->out.lse;
    return sb_topk(s->ctx, &out, &batch, K, &launch);
}

static sb_status sample(scenario *s, int32_t top_k)
{
    sb_batch batch = batch_of(NULL);
    sb_sample_out out = SB_SAMPLE_OUT_INIT;
    sb_sampling how = SB_SAMPLING_INIT;
    sb_launch launch = launch_of(s);
    batch.ids = NULL;
    batch.kept = kept;
    how.positions = positions;
    how.top_k = top_k;
    how.top_p = 0.75f;
    out.token = s->out.integers;
    out.count = s->out.integers + ROWS;
    out.logprob = s->out.logprobs;
    out.kept_logprob = s->out.logprobs + ROWS;
    return sb_sample(s->ctx, &out, &batch, &how, &launch);
}

static sb_status sample_few(scenario *s) { return sample(s, 9); }
static sb_status sample_many(scenario *s) { return sample(s, 900); }

/* ---- draws from shards: one shard, of all ids ---------------------------------------------- */

enum { DRAWN_K = 9, DRAWN_BYTES = 40 + 8 * DRAWN_K };

static sb_draw_row progress[ROWS];
static uint64_t messages[ROWS * DRAWN_BYTES / 8];
static sb_draw drawing = SB_DRAW_INIT;

static sb_sampling how_of(void)
{
    sb_sampling how = SB_SAMPLING_INIT;
    how.positions = positions;
    how.top_k = DRAWN_K;
    return how;
}

static sb_status plan_draw(scenario *s)
{
    const sb_batch batch = batch_of(rows);
    const sb_sampling how = how_of();
    sb_sample_out out = SB_SAMPLE_OUT_INIT;
    out.token = s->out.integers;
    drawing.n = VOCAB;
    drawing.progress = progress;
    return sb_draw_plan(s->ctx, &drawing, &out, &batch, &how);
}

static sb_status round_of_draw(scenario *s)
{
    const sb_batch batch = batch_of(rows);
    const sb_sampling how = how_of();
    const sb_launch launch = launch_of(s);
    return sb_draw_round(s->ctx, messages, NULL, &drawing, 0, &batch, &how, &launch);
}

static sb_status finish_draw(scenario *s)
{
    const sb_batch batch = batch_of(rows);
    const sb_sampling how = how_of();
    const sb_launch launch = launch_of(s);
    sb_sample_out out = SB_SAMPLE_OUT_INIT;
    out.token = s->out.integers;
    return sb_draw_finish(s->ctx, &out, messages, &drawing, &batch, &how, &launch);
}

/* A device says so by its report, and in the row's progress. */
static sb_status bad_finish_of_draw(scenario *s)
{
    sb_status status;
    messages[0] ^= 1; /* the first id of the shard */
    progress[0].fault = SB_FAULT_RANGES;
    driver_reports_bad_rows(1);
    status = finish_draw(s);
    driver_reports_bad_rows(0);
    progress[0].fault = 0;
    messages[0] ^= 1;
    return status;
}

static sb_batch few_of(void)
{
    sb_batch batch = batch_of(rows);
    batch.vocab = FEW;
    batch.row_stride = VOCAB;
    batch.ids = few_ids;
    return batch;
}

static sb_status forward(scenario *s)
{
    sb_batch batch = few_of();
    sb_status status = entropy_of(s, &batch);
    if (status == SB_OK) memcpy(s->saved, s->out.saved, sizeof s->saved);
    return status;
}

static sb_gradient gradient_of(scenario *s)
{
    sb_gradient gradient = SB_GRADIENT_INIT;
    gradient.grad = s->out.grad;
    gradient.token = temperatures;
    gradient.entropy = temperatures;
    return gradient;
}

static sb_status backward(scenario *s)
{
    sb_batch batch = few_of();
    sb_gradient gradient = gradient_of(s);
    sb_launch launch = launch_of(s);
    gradient.saved = s->saved;
    return sb_logprob_backward(s->ctx, &gradient, &batch, &launch);
}

/* The same without a forward call: the saved rows need room. */
static sb_status forward_and_backward(scenario *s)
{
    sb_batch batch = few_of();
    sb_gradient gradient = gradient_of(s);
    sb_logprob_out out = SB_LOGPROB_OUT_INIT;
    sb_launch launch = launch_of(s);
    out.gradient = &gradient;
    return sb_logprob(s->ctx, &out, &batch, &launch);
}

static sb_status bad_forward_and_backward(scenario *s)
{
    sb_status status;
    few_ids[2] = FEW;
    driver_reports_bad_rows(1);
    status = forward_and_backward(s);
    driver_reports_bad_rows(0);
    few_ids[2] = FEW - 1;
    return status;
}

/* The gradient of a policy loss: the logprobs and their derivatives need room, too. */
static sb_status add_policy(scenario *s, sb_batch *batch)
{
    sb_gradient gradient = SB_GRADIENT_INIT;
    sb_policy policy = SB_POLICY_INIT;
    sb_policy_out made = SB_POLICY_OUT_INIT;
    sb_logprob_out out = SB_LOGPROB_OUT_INIT;
    sb_launch launch = launch_of(s);
    gradient.grad = s->out.grad;
    gradient.policy = &policy;
    gradient.policy_out = &made;
    policy.old = temperatures;
    policy.advantages = temperatures;
    policy.per_token = 1;
    policy.norm = SB_SEQUENCE_MEAN;
    made.loss = s->out.lse;
    made.metrics = &s->out.metrics;
    out.gradient = &gradient;
    return sb_logprob(s->ctx, &out, batch, &launch);
}

static sb_status with_policy(scenario *s)
{
    sb_batch batch = few_of();
    return add_policy(s, &batch);
}

static sb_status bad_with_policy(scenario *s)
{
    sb_status status;
    few_ids[2] = FEW;
    driver_reports_bad_rows(1);
    status = with_policy(s);
    driver_reports_bad_rows(0);
    few_ids[2] = FEW - 1;
    return status;
}

/* A shard that holds no ids, and has no logits and no grad. Its rows are checked all the same. */
static sb_status empty_backward(scenario *s)
{
    sb_batch batch = few_of();
    sb_gradient gradient = SB_GRADIENT_INIT;
    sb_launch launch = launch_of(s);
    batch.logits = NULL;
    gradient.first = FEW;
    gradient.saved = s->saved;
    gradient.token = temperatures;
    return sb_logprob_backward(s->ctx, &gradient, &batch, &launch);
}

static sb_status with_bad_saved(scenario *s, sb_status (*call)(scenario *s))
{
    sb_saved_row right = s->saved[2];
    sb_status status;
    s->saved[2].kind = 7;
    driver_reports_bad_rows(1);
    status = call(s);
    driver_reports_bad_rows(0);
    s->saved[2] = right;
    return status;
}

static sb_status bad_backward(scenario *s) { return with_bad_saved(s, backward); }
static sb_status bad_empty_backward(scenario *s) { return with_bad_saved(s, empty_backward); }

/* Without tokens sums need room for them. */
static sb_status divergence_of(scenario *s, const float *of_q)
{
    sb_batch p = batch_of(rows), q = batch_of(rows);
    sb_kl_out out = SB_KL_OUT_INIT;
    sb_launch launch = launch_of(s);
    p.kept = kept;
    q.temperatures = of_q;
    out.sequence = s->out.sequence;
    return sb_kl(s->ctx, &out, &p, &q, &launch);
}

static sb_status divergence(scenario *s) { return divergence_of(s, NULL); }

static sb_status bad_divergence(scenario *s)
{
    static const float bad[ROWS] = { 1.0f, 1.0f, 0.0f };
    sb_status status;
    driver_reports_bad_rows(1);
    status = divergence_of(s, bad);
    driver_reports_bad_rows(0);
    return status;
}

/* ---- heads -------------------------------------------------------------------------------- */

enum { WIDTH = 100 }; /* of hidden states; a head is of FEW ids */

static _Alignas(256) unsigned char head_memory[65536];

static sb_head_weights weights_of(void)
{
    sb_head_weights weights = SB_HEAD_WEIGHTS_INIT;
    weights.weights = logits;
    weights.ids = FEW;
    weights.width = WIDTH;
    weights.norms = 1;
    return weights;
}

static sb_batch hidden_of(const scenario *s)
{
    sb_batch batch = batch_of(rows);
    batch.vocab = FEW;
    batch.ids = few_ids;
    batch.logits = NULL;
    batch.head = s->head;
    batch.hidden = logits + VOCAB;
    batch.hidden_width = WIDTH;
    return batch;
}

static sb_status size_head(scenario *s)
{
    sb_head_weights weights = weights_of();
    uint64_t bytes = sizeof head_memory;
    sb_status status = sb_head_bytes(s->ctx, &bytes, &weights);
    return bytes > sizeof head_memory ? SB_ERR_MEMORY : status;
}

static sb_status free_opened(scenario *s)
{
    sb_status status = sb_head_free(s->ctx, s->opened);
    if (status == SB_OK) s->opened = NULL;
    return status;
}

/* It may be here again after its last step has failed. */
static sb_status create_in_memory(scenario *s)
{
    sb_head_weights weights = weights_of();
    sb_status status = SB_OK;
    if (!s->opened)
        status = sb_head_create(s->ctx, &s->opened, &weights, head_memory, sizeof head_memory,
                                NULL);
    return status == SB_OK ? free_opened(s) : status;
}

static sb_status create_head(scenario *s)
{
    sb_head_weights weights = weights_of();
    return sb_head_create(s->ctx, &s->head, &weights, NULL, 0, NULL);
}

static sb_status update_head(scenario *s)
{
    sb_head_weights weights = weights_of();
    return sb_head_update(s->ctx, s->head, &weights, NULL);
}

/* On the device no kernel has written the memory. */
static sb_status open_head(scenario *s)
{
    sb_status status = sb_head_open(s->ctx, &s->opened, head_memory, sizeof head_memory);
    return s->on_device && status == SB_ERR_STATE ? SB_OK : status;
}

static sb_status describe_head(scenario *s)
{
    sb_head_weights weights;
    return sb_head_describe(s->ctx, &weights, s->head);
}

static sb_status logits_of_hidden(scenario *s)
{
    sb_batch batch = hidden_of(s);
    sb_logits_out out = SB_LOGITS_OUT_INIT;
    out.logits = s->out.grad;
    return sb_logits(s->ctx, &out, &batch, NULL);
}

static sb_status score_hidden(scenario *s)
{
    sb_batch batch = hidden_of(s);
    return entropy_of(s, &batch);
}

static sb_status several_of_hidden(scenario *s)
{
    sb_batch batch = hidden_of(s);
    sb_ids_out out = SB_IDS_OUT_INIT;
    out.logprob = s->out.lse;
    out.rank = s->out.integers;
    return sb_logprob_ids(s->ctx, &out, &batch, 1, NULL);
}

static sb_status divergence_of_hidden(scenario *s)
{
    sb_batch p = hidden_of(s), q = hidden_of(s);
    sb_kl_out out = SB_KL_OUT_INIT;
    q.hidden = logits;
    out.sequence = s->out.sequence;
    return sb_kl(s->ctx, &out, &p, &q, NULL);
}

static sb_status save_hidden(scenario *s)
{
    sb_batch batch = hidden_of(s);
    sb_logprob_out out = SB_LOGPROB_OUT_INIT;
    sb_status status;
    out.saved = s->out.saved;
    status = sb_logprob(s->ctx, &out, &batch, NULL);
    if (status == SB_OK) memcpy(s->saved, s->out.saved, sizeof s->saved);
    return status;
}

static sb_status backward_of_hidden(scenario *s)
{
    sb_batch batch = hidden_of(s);
    sb_gradient gradient = gradient_of(s);
    sb_launch launch = launch_of(s);
    gradient.saved = s->saved;
    gradient.entropy = NULL;
    return sb_logprob_backward(s->ctx, &gradient, &batch, &launch);
}

static sb_status both_of_hidden(scenario *s)
{
    sb_batch batch = hidden_of(s);
    sb_gradient gradient = gradient_of(s);
    sb_logprob_out out = SB_LOGPROB_OUT_INIT;
    sb_launch launch = launch_of(s);
    gradient.entropy = NULL;
    out.gradient = &gradient;
    return sb_logprob(s->ctx, &out, &batch, &launch);
}

static sb_status bounds_of_hidden(scenario *s)
{
    sb_batch batch = hidden_of(s);
    return sb_head_error(s->ctx, s->out.lse, &batch, NULL, NULL);
}

/* The sums begin with what the outputs hold. */
static sb_status products_of_gradients(scenario *s)
{
    static double by_hidden[ROWS * WIDTH], by_weights[FEW * WIDTH];
    sb_batch batch = hidden_of(s);
    sb_head_gradient gradient = SB_HEAD_GRADIENT_INIT;
    sb_status status;
    memset(by_hidden, 0, sizeof by_hidden);
    memset(by_weights, 0, sizeof by_weights);
    gradient.grad = logits;
    gradient.weights = logits;
    gradient.by_hidden = by_hidden;
    gradient.by_weights = by_weights;
    status = sb_head_backward(s->ctx, &gradient, &batch, NULL);
    if (s->on_device) return status == SB_ERR_BACKEND ? SB_OK : SB_ERR_STATE;
    if (status == SB_OK) memcpy(s->out.grad, by_hidden, sizeof s->out.grad);
    return status;
}

static sb_status policy_of_hidden(scenario *s)
{
    sb_batch batch = hidden_of(s);
    return add_policy(s, &batch);
}

static sb_status find_scales(scenario *s)
{
    sb_status status = sb_scales(s->ctx, s->out.scales, logits + VOCAB, SB_F32, ROWS, WIDTH, 0,
                                 NULL);
    if (status == SB_OK) memcpy(s->scales, s->out.scales, sizeof s->scales);
    return status;
}

static sb_status products(scenario *s)
{
    sb_batch batch = hidden_of(s);
    sb_status status = sb_products(s->ctx, s->out.sums, &batch, s->scales, 0, FEW, NULL);
    if (status == SB_OK) memcpy(s->sums, s->out.sums, sizeof s->sums);
    return status;
}

static sb_status combine(scenario *s)
{
    return sb_combine(s->ctx, s->out.grad, s->sums, s->scales, s->head, ROWS, 0, FEW, NULL);
}

/* ---- shards ------------------------------------------------------------------------------- */

static sb_status partial(scenario *s, int shard)
{
    sb_batch batch = batch_of(rows);
    sb_launch launch = launch_of(s);
    int64_t first = shard * CUT, n = shard == 0 ? CUT : VOCAB - CUT;
    sb_status status;
    batch.logits = logits + first;
    batch.row_stride = VOCAB;
    status = sb_partial(s->ctx, RECORDS(SB_SUMS, s->out.shard.states, s->out.shard.targets), &batch,
                        first, n, &launch);
    if (status == SB_OK) {
        memcpy(s->states[shard], s->out.shard.states, sizeof s->states[shard]);
        memcpy(s->targets[shard], s->out.shard.targets, sizeof s->targets[shard]);
    }
    return status;
}

static sb_status first_shard(scenario *s) { return partial(s, 0); }
static sb_status second_shard(scenario *s) { return partial(s, 1); }

static sb_status merge(scenario *s)
{
    sb_launch launch = launch_of(s);
    sb_status status = sb_merge(s->ctx, RECORDS(SB_SUMS, s->out.shard.states, s->out.shard.targets),
                                RECORDS(SB_SUMS, s->states[0], s->targets[0]), SHARDS, ROWS,
                                &launch);
    if (status == SB_OK) s->merged = s->out.shard;
    return status;
}

static sb_status finish(scenario *s)
{
    sb_batch batch = batch_of(rows);
    sb_logprob_out out = out_of(s, 0);
    sb_launch launch = launch_of(s);
    return sb_finish(s->ctx, &out, &batch, RECORDS(SB_SUMS, s->merged.states, s->merged.targets),
                     &launch);
}

/* ---- with moments ------------------------------------------------------------------------- */

static sb_status partial_moments(scenario *s, int shard)
{
    sb_batch batch = batch_of(rows);
    sb_launch launch = launch_of(s);
    int64_t first = shard * CUT, n = shard == 0 ? CUT : VOCAB - CUT;
    sb_status status;
    batch.logits = logits + first;
    batch.row_stride = VOCAB;
    status = sb_partial(s->ctx, RECORDS(SB_MOMENTS, s->out.moments, s->out.shard.targets), &batch,
                        first, n, &launch);
    if (status == SB_OK) memcpy(s->moments[shard], s->out.moments, sizeof s->moments[shard]);
    return status;
}

static sb_status first_moments(scenario *s) { return partial_moments(s, 0); }
static sb_status second_moments(scenario *s) { return partial_moments(s, 1); }

static sb_status merge_moments(scenario *s)
{
    sb_launch launch = launch_of(s);
    sb_status status = sb_merge(s->ctx, RECORDS(SB_MOMENTS, s->out.moments, s->out.shard.targets),
                                RECORDS(SB_MOMENTS, s->moments[0], s->targets[0]), SHARDS, ROWS,
                                &launch);
    if (status == SB_OK) memcpy(s->merged_moments, s->out.moments, sizeof s->merged_moments);
    return status;
}

static sb_status finish_moments(scenario *s)
{
    sb_batch batch = batch_of(rows);
    sb_logprob_out out = out_of(s, 0);
    sb_launch launch = launch_of(s);
    out.entropy = s->out.entropy;
    return sb_finish(s->ctx, &out, &batch,
                     RECORDS(SB_MOMENTS, s->merged_moments, s->merged.targets), &launch);
}

static sb_status bad_moments(scenario *s)
{
    sb_status status;
    s->merged_moments[2].reserved = 1;
    driver_reports_bad_rows(1);
    status = finish_moments(s);
    driver_reports_bad_rows(0);
    s->merged_moments[2].reserved = 0;
    return status;
}

/* On the device kernels have to find it first, and the host looks at copies then. */
static sb_status with_bad_record(scenario *s, sb_state_record *state,
                                 sb_status (*call)(scenario *s))
{
    sb_state_record kept = *state;
    sb_status status;
    state->J = 1;
    driver_reports_bad_rows(1);
    status = call(s);
    driver_reports_bad_rows(0);
    *state = kept;
    return status;
}

static sb_status bad_merge(scenario *s) { return with_bad_record(s, &s->states[1][2], merge); }
static sb_status bad_finish(scenario *s)
{
    return with_bad_record(s, &s->merged.states[2], finish);
}

/* ---- exchange ----------------------------------------------------------------------------- */

/* The cpu has no exchange, and says so. */
static sb_status of_device(const scenario *s, sb_status status)
{
    return s->on_device ? status : status == SB_ERR_BACKEND ? SB_OK : SB_ERR_ARGUMENT;
}

static sb_status new_id(scenario *s) { return of_device(s, sb_comm_new_id(s->ctx, &s->id)); }

static sb_status create_comm(scenario *s)
{
    return of_device(s, sb_comm_create(s->ctx, &s->comm, &s->id, 1, 0));
}

static sb_status exchange(scenario *s)
{
    sb_launch launch = launch_of(s);
    if (s->on_device) s->out.shard = s->merged;
    return of_device(s, sb_exchange(s->ctx,
                                    RECORDS(SB_SUMS, s->out.shard.states, s->out.shard.targets),
                                    ROWS, s->comm, &launch));
}

static sb_status exchange_size(scenario *s)
{
    sb_launch launch = launch_of(s);
    uint64_t size;
    launch.needed = &size;
    return of_device(s, sb_exchange(s->ctx,
                                    RECORDS(SB_SUMS, s->out.shard.states, s->out.shard.targets),
                                    ROWS, s->comm, &launch));
}

static sb_status all_gather(scenario *s)
{
    sb_launch launch = launch_of(s);
    return of_device(s, sb_all_gather(s->ctx, s->out.shard.states, s->merged.states,
                                      sizeof s->merged.states, s->comm, &launch));
}

static sb_status all_reduce(scenario *s)
{
    sb_launch launch = launch_of(s);
    if (s->on_device) s->out.shard = s->merged;
    return of_device(s, sb_all_reduce(s->ctx, s->out.shard.states, SB_I32,
                                      sizeof s->merged.states / 4, SB_MAX, s->comm, &launch));
}

static sb_status destroy_comm(scenario *s)
{
    void *comm = s->comm;
    sb_status status = of_device(s, sb_comm_destroy(s->ctx, comm));
    if (status == SB_OK) s->comm = NULL;
    return status;
}

static sb_status abort_comm(scenario *s)
{
    void *comm = s->comm;
    sb_status status = of_device(s, sb_comm_abort(s->ctx, comm));
    if (status == SB_OK) s->comm = NULL;
    return status;
}

/* ---- memory and streams ------------------------------------------------------------------ */

static sb_status alloc(scenario *s)
{
    return sb_memory_alloc(s->ctx, &s->memory, BYTES, SB_DEVICE);
}

static sb_status pin(scenario *s) { return sb_memory_alloc(s->ctx, &s->pinned, BYTES, SB_PINNED); }

static sb_status copy(scenario *s)
{
    return sb_memory_copy(s->ctx, s->memory, data, BYTES, s->stream);
}

static sb_status create_stream(scenario *s) { return sb_stream_create(s->ctx, &s->stream); }
static sb_status wait_for_stream(scenario *s) { return sb_stream_wait(s->ctx, s->stream); }
static sb_status check_stream(scenario *s) { return sb_check(s->ctx, s->stream); }

static const struct step {
    const char *name;
    sb_status (*call)(scenario *s);
    sb_status status;    /* where nothing fails */
    const char *same_as; /* a step before, with the same outputs */
} steps[] = {
    { "sb_probe", probe, SB_OK, NULL },
    { "sb_open", open_context, SB_OK, NULL },
    { "sb_stream_create", create_stream, SB_OK, NULL },
    { "sb_logprob", all_rows, SB_OK, NULL },
    { "sb_logprob of a row list", listed_rows, SB_OK, NULL },
    { "sb_logprob of a bad id", bad_id, SB_ERR_ID, NULL },
    { "sb_logprob of rows in no sequence", rows_outside, SB_ERR_SHAPE, NULL },
    { "sb_compare", compare, SB_OK, NULL },
    { "sb_sums", sums, SB_OK, NULL },
    { "sb_sums of bad cu_seqlens", bad_sums, SB_ERR_SHAPE, NULL },
    { "sb_sums of values in no sequence", values_outside, SB_ERR_SHAPE, NULL },
    { "sb_logprob with entropy", entropy, SB_OK, NULL },
    { "sb_logprob of lists", logprob_of_lists, SB_OK, NULL },
    { "sb_logprob of bad lists", bad_lists, SB_ERR_ID, NULL },
    { "sb_topk of lists", first_of_lists, SB_OK, NULL },
    { "sb_kl of lists", divergence_of_lists, SB_OK, NULL },
    { "sb_kept_words", words_of_lists, SB_OK, NULL },
    { "sb_kept_lists", lists_of_words, SB_OK, NULL },
    { "sb_logprob_ids", several_ids, SB_OK, NULL },
    { "sb_logprob_ids of a bad id", bad_several, SB_ERR_ID, NULL },
    { "sb_topk", first_ids, SB_OK, NULL },
    { "sb_sample of the first few", sample_few, SB_OK, NULL },
    { "sb_sample of many", sample_many, SB_OK, NULL },
    { "sb_draw_plan", plan_draw, SB_OK, NULL },
    { "sb_draw_round", round_of_draw, SB_OK, NULL },
    { "sb_draw_finish", finish_draw, SB_OK, NULL },
    { "sb_draw_finish of bad messages", bad_finish_of_draw, SB_ERR_STATE, NULL },
    { "sb_logprob of few logits", forward, SB_OK, NULL },
    { "sb_logprob_backward", backward, SB_OK, NULL },
    { "sb_logprob_backward of a bad record", bad_backward, SB_ERR_STATE, NULL },
    { "sb_logprob_backward of no ids", empty_backward, SB_OK, NULL },
    { "sb_logprob_backward of a bad record and no ids", bad_empty_backward, SB_ERR_STATE, NULL },
    { "sb_logprob with the gradient", forward_and_backward, SB_OK, "sb_logprob_backward" },
    { "sb_logprob with the gradient, of a bad id", bad_forward_and_backward, SB_ERR_ID, NULL },
    { "sb_logprob with the gradient of a policy loss", with_policy, SB_OK, NULL },
    { "sb_logprob with the gradient of a policy loss, of a bad id", bad_with_policy, SB_ERR_ID,
      NULL },
    { "sb_kl", divergence, SB_OK, NULL },
    { "sb_kl of a bad temperature", bad_divergence, SB_ERR_TEMPERATURE, NULL },
    { "sb_head_bytes", size_head, SB_OK, NULL },
    { "sb_head_create in memory", create_in_memory, SB_OK, NULL },
    { "sb_head_create", create_head, SB_OK, NULL },
    { "sb_head_update", update_head, SB_OK, NULL },
    { "sb_head_open", open_head, SB_OK, NULL },
    { "sb_head_describe", describe_head, SB_OK, NULL },
    { "sb_head_free", free_opened, SB_OK, NULL },
    { "sb_logits", logits_of_hidden, SB_OK, NULL },
    { "sb_logprob of hidden states", score_hidden, SB_OK, NULL },
    { "sb_logprob_ids of hidden states", several_of_hidden, SB_OK, NULL },
    { "sb_kl of hidden states", divergence_of_hidden, SB_OK, NULL },
    { "sb_head_error", bounds_of_hidden, SB_OK, NULL },
    { "sb_head_backward", products_of_gradients, SB_OK, NULL },
    { "sb_logprob of hidden states, saved rows", save_hidden, SB_OK, NULL },
    { "sb_logprob_backward of hidden states", backward_of_hidden, SB_OK, NULL },
    { "sb_logprob of hidden states with the gradient", both_of_hidden, SB_OK,
      "sb_logprob_backward of hidden states" },
    { "sb_logprob of hidden states with the gradient of a policy loss", policy_of_hidden, SB_OK,
      NULL },
    { "sb_scales", find_scales, SB_OK, NULL },
    { "sb_products", products, SB_OK, NULL },
    { "sb_combine", combine, SB_OK, NULL },
    { "sb_policy_loss", policy_loss, SB_OK, NULL },
    { "sb_policy_loss of bad cu_seqlens", bad_policy, SB_ERR_SHAPE, NULL },
    { "sb_policy_merge", policy_merge, SB_OK, NULL },
    { "sb_policy_merge of a bad record", bad_policy_merge, SB_ERR_STATE, NULL },
    { "sb_group_advantages", group_advantages, SB_OK, NULL },
    { "sb_group_advantages of bad offsets", bad_groups, SB_ERR_SHAPE, NULL },
    { "sb_group_advantages of a bad record", bad_group_record, SB_ERR_STATE, NULL },
    { "sb_check", check_stream, SB_OK, NULL },
    { "sb_memory_alloc", alloc, SB_OK, NULL },
    { "sb_memory_alloc, pinned", pin, SB_OK, NULL },
    { "sb_memory_copy", copy, SB_OK, NULL },
    { "sb_stream_wait", wait_for_stream, SB_OK, NULL },
    { "sb_open again", open_again, SB_OK, NULL },
    { "sb_stream_create again", create_stream, SB_OK, NULL },
    { "sb_conventional_logprob", conventional_rows, SB_OK, NULL },
    { "sb_partial of the first shard", first_shard, SB_OK, NULL },
    { "sb_partial of the second shard", second_shard, SB_OK, NULL },
    { "sb_merge", merge, SB_OK, NULL },
    { "sb_merge of a bad record", bad_merge, SB_ERR_STATE, NULL },
    { "sb_finish", finish, SB_OK, "sb_logprob of a row list" },
    { "sb_finish of a bad record", bad_finish, SB_ERR_STATE, NULL },
    { "sb_partial of the first shard, with moments", first_moments, SB_OK, NULL },
    { "sb_partial of the second shard, with moments", second_moments, SB_OK, NULL },
    { "sb_merge, with moments", merge_moments, SB_OK, NULL },
    { "sb_finish, with moments", finish_moments, SB_OK, NULL },
    { "sb_finish of a bad record, with moments", bad_moments, SB_ERR_STATE, NULL },
    { "sb_comm_new_id", new_id, SB_OK, NULL },
    { "sb_comm_create", create_comm, SB_OK, NULL },
    { "sb_exchange, the workspace it needs", exchange_size, SB_OK, NULL },
    { "sb_exchange", exchange, SB_OK, NULL },
    { "sb_all_gather", all_gather, SB_OK, NULL },
    { "sb_all_reduce", all_reduce, SB_OK, NULL },
    { "sb_comm_destroy", destroy_comm, SB_OK, NULL },
    { "sb_comm_create", create_comm, SB_OK, NULL },
    { "sb_comm_abort", abort_comm, SB_OK, NULL },
};

enum { STEPS = sizeof steps / sizeof *steps };

/* ---- what has to hold --------------------------------------------------------------------- */

/* The results of each step when nothing failed. */
static outputs expected[STEPS];

static int problem(const scenario *s, const struct step *step, const char *what)
{
    const char *said = s->ctx ? sb_last_error(s->ctx) : s->why;
    printf("%s, %d threads: %s, where %s fails: %s (\"%s\")\n", s->backend, s->threads, step->name,
           injected_at() ? injected_at() : "nothing", what, said);
    return 0;
}

static int untouched(const outputs *out)
{
    const unsigned char *bytes = (const unsigned char *)out;
    for (size_t i = 0; i < sizeof *out; i++)
        if (bytes[i] != 0xa5) return 0;
    return 1;
}

/* A line of words. */
static int is_said(const char *text) { return text[0] != '\0' && !strpbrk(text, "\r\n"); }

static const outputs *expected_of(const char *name)
{
    int i = 0;
    while (strcmp(steps[i].name, name) != 0) i++;
    return &expected[i];
}

static int run_step(scenario *s, int i, int first)
{
    const struct step *step = &steps[i];
    int before = injected_at() != NULL, fails;
    sb_status status;

    memset(&s->out, 0xa5, sizeof s->out);
    memset(s->why, '?', sizeof s->why);
    status = step->call(s);
    fails = !before && injected_at() && injected_kind() == FAULT_IS_ERROR;
    if (fails) {
        if (status == SB_OK) return problem(s, step, "no error");
        if (strcmp(sb_status_name(status), "unknown status") == 0)
            return problem(s, step, "an unknown status");
        if (!is_said(s->ctx ? sb_last_error(s->ctx) : s->why)) return problem(s, step, "no words");
        if (!s->on_device && !untouched(&s->out)) return problem(s, step, "outputs were written");
        status = step->call(s);
    }
    if (status != step->status)
        return problem(s, step, fails ? "the next call fails" : "the call fails");
    if (first) expected[i] = s->out;
    else if (memcmp(&s->out, &expected[i], sizeof s->out) != 0)
        return problem(s, step, "other bits");
    if (step->same_as && memcmp(&s->out, expected_of(step->same_as), sizeof s->out) != 0)
        return problem(s, step, "other bits than without shards");
    return 1;
}

static int run_scenario(const char *backend, int threads, int target)
{
    scenario s;
    int ok = 1;
    memset(&s, 0, sizeof s);
    s.backend = backend;
    s.threads = threads;
    s.on_device = strncmp(backend, "cpu", 3) != 0;
    inject_arm(target);
    for (int i = 0; ok && i < STEPS; i++) ok = run_step(&s, i, target < 0);
    inject_disarm();
    close_all(&s);
    if (ok && !nothing_held()) {
        printf("%s, %d threads: where %s fails, %d allocations, %d threads, %d locks, "
               "%d libraries, %d things of the driver and %d of NCCL stay behind\n",
               backend, threads, injected_at() ? injected_at() : "nothing", held.memory,
               held.threads, held.locks, held.libraries, held.driver, nccl_holds());
        ok = 0;
    }
    return ok;
}

static int check(const char *backend, int threads)
{
    int target = -1;
    do {
        if (!run_scenario(backend, threads, target)) return 0;
        target++;
    } while (target == 0 || injected_at());
    printf("%s, %d threads: %d requests, each refused once: an error, nothing left behind\n",
           backend, threads, target - 1);
    return target > 5;
}

int main(void)
{
    for (int i = 0; i < ROWS * VOCAB; i++) logits[i] = (float)(i * 7919 % 4001 - 2000) / 256;
    for (int i = 0; i < ROWS * WORDS; i++) kept[i] = 0xfffffeff;
    if (!check_fork_handler() || !check_forked_cuda() || !check_torn()) return 1;
    return check("cpu", 3) && check("cpu", 0) && check("cuda", 0) ? 0 : 1;
}
