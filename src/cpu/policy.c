/* policy.c - policy losses and group advantages on the CPU. The work items are ranges of sequences,
 * or groups; the tallies of ranges are merged, which is exact. */
#include "api/policy.h"

#include <inttypes.h>

#include "cpu/cpu.h"

#define ALONE_TOKENS 4096 /* a call with at most this many runs on one thread */
#define MOST_RANGES 256

static sb_extent extent_of(const sb_policy_call *call, int64_t b)
{
    const sb_policy *in = &call->in;
    sb_extent e;
    if (in->cu_seqlens) {
        e.first = sb_int_at(in->cu_seqlens, in->cu_seqlens_dtype, b);
        e.last = sb_int_at(in->cu_seqlens, in->cu_seqlens_dtype, b + 1);
    } else {
        e.first = b * in->time;
        e.last = e.first + in->time;
    }
    return e;
}

/* The sequences of a range. */
static sb_extent range_of(const sb_cpu_policy *j, int64_t item)
{
    const int64_t batch = j->call->in.batch, each = batch / j->ranges, more = batch % j->ranges;
    sb_extent e;
    e.first = item * each + (item < more ? item : more);
    e.last = e.first + each + (item < more);
    return e;
}

static int is_active(const sb_policy *in, int64_t i) { return !in->mask || in->mask[i]; }

static void count_range(void *shared, int64_t item)
{
    const sb_cpu_policy *j = shared;
    const sb_extent range = range_of(j, item);
    for (int64_t b = range.first; b < range.last; b++) {
        const sb_extent e = extent_of(j->call, b);
        int64_t count = 0;
        for (int64_t i = e.first; i < e.last; i++) count += is_active(&j->call->in, i);
        j->counts[b] = count;
    }
}

static float at(const float *data, int64_t i) { return data ? sb_float_at(data, i) : 0.0f; }

static sb_policy_token token_at(const sb_policy *in, int64_t b, int64_t i)
{
    sb_policy_token t;
    t.now = sb_float_at(in->now, i);
    t.old = at(in->old, i);
    t.ref = at(in->ref, i);
    t.rollout = at(in->rollout, i);
    t.entropy = at(in->entropy, i);
    t.advantage = sb_float_at(in->advantages, in->per_token ? i : b);
    return t;
}

static sb_policy_joint joint_of(const sb_policy_call *call, sb_extent e)
{
    const sb_policy *in = &call->in;
    const float *old = in->old ? in->old : in->now;
    sb_policy_joint joint;
    sb_digits_init(&joint.moved);
    sb_digits_init(&joint.drifted);
    sb_digits_init(&joint.weight);
    for (int64_t i = e.first; i < e.last; i++) {
        if (!is_active(in, i)) continue;
        sb_digits_add_difference(&joint.moved, sb_float_at(in->now, i), sb_float_at(old, i));
        if (!in->rollout) continue;
        sb_digits_add_difference(&joint.drifted, sb_float_at(in->now, i),
                                 sb_float_at(in->rollout, i));
        sb_digits_add_difference(&joint.weight, sb_float_at(old, i), sb_float_at(in->rollout, i));
    }
    return joint;
}

static void put(float *to, int64_t i, float x)
{
    if (to) to[i] = x;
}

static void reduce_sequence(const sb_cpu_policy *j, int64_t b, sb_tally *tally)
{
    const sb_policy_call *call = j->call;
    const sb_policy *in = &call->in;
    const sb_policy_rules *rules = &call->rules;
    const sb_extent e = extent_of(call, b);
    const int64_t count = j->counts[b];
    sb_policy_sequence of;
    sb_policy_joint joint;
    sb_digits sum;
    float loss;
    sb_digits_init(&sum);
    memset(&of, 0, sizeof of);
    if (count > 0) {
        const int is_joint = sb_policy_is_joint(rules);
        if (is_joint) joint = joint_of(call, e);
        of = sb_policy_sequence_of(rules, is_joint ? &joint : NULL, count, j->tokens, j->sequences);
    }
    for (int64_t i = e.first; i < e.last; i++) {
        sb_policy_result result;
        sb_policy_token token;
        if (!is_active(in, i)) {
            put(call->out.token, i, 0.0f);
            put(call->out.entropy, i, 0.0f);
            continue;
        }
        token = token_at(in, b, i);
        result = sb_policy_token_of(rules, &of, &token, j->metrics);
        put(call->out.token, i, result.by_now);
        put(call->out.entropy, i, result.by_entropy);
        sb_digits_add(&sum, result.value[SB_SUM_LOSS]);
        if (j->metrics) sb_tally_add(tally, &result);
    }
    loss = sb_policy_sequence_loss(rules, &sum, count);
    put(call->out.sequence, b, loss);
    if (count == 0) return;
    tally->counts[SB_TALLY_TOKENS] += count;
    tally->counts[SB_TALLY_SEQUENCES]++;
    if (sb_policy_adds_sequences(rules)) sb_digits_add(&tally->sums[SB_SUM_LOSS], loss);
    else sb_digits_merge(&tally->sums[SB_SUM_LOSS], &sum);
}

static void reduce_range(void *shared, int64_t item)
{
    const sb_cpu_policy *j = shared;
    const sb_extent range = range_of(j, item);
    sb_tally *tally = &j->tallies[item];
    sb_tally_init(tally, sb_policy_adds_sequences(&j->call->rules), j->metrics);
    for (int64_t b = range.first; b < range.last; b++) reduce_sequence(j, b, tally);
}

/* Writes what a tally gives. */
static void write_tally(const sb_policy_out *out, const sb_policy *in, const sb_policy_rules *rules,
                        const sb_tally *tally)
{
    put(out->loss, 0, sb_policy_loss_of(rules, tally, in->tokens, in->sequences));
    if (out->record) memcpy(out->record, tally, sizeof *tally);
    for (int i = 0; out->metrics && i < SB_POLICY_METRICS; i++) {
        const float x = sb_policy_metric_at(rules, tally, in->tokens, in->sequences, i);
        memcpy((char *)out->metrics + i * 4, &x, sizeof x);
    }
}

static int runs_alone(const sb_policy_call *call) { return call->rows <= ALONE_TOKENS; }

sb_status sb_cpu_policy_prepare(sb_context *ctx, sb_cpu_policy *policy, const sb_policy_call *call)
{
    const sb_policy *in = &call->in;
    sb_cpu *c = ctx->state;
    int64_t tokens = 0, sequences = 0;
    policy->call = call;
    policy->metrics = call->out.metrics != NULL;
    policy->ranges = in->batch < MOST_RANGES ? in->batch : MOST_RANGES;
    policy->counts = sb_cpu_room(&c->counts, in->batch, sizeof *policy->counts);
    policy->tallies = sb_cpu_room(&c->tallies, policy->ranges, sizeof *policy->tallies);
    if (!policy->counts || !policy->tallies)
        return sb_fail(&ctx->error, SB_ERR_MEMORY, "no memory for %" PRId64 " sequences",
                       in->batch);
    sb_pool_run(c->pool, runs_alone(call), count_range, policy, policy->ranges);
    for (int64_t b = 0; b < in->batch; b++) {
        tokens += policy->counts[b];
        sequences += policy->counts[b] > 0;
    }
    policy->tokens = in->tokens ? in->tokens : tokens;
    policy->sequences = in->sequences ? in->sequences : sequences;
    return sb_check_policy_totals(in, tokens, sequences, &ctx->error);
}

void sb_cpu_policy_run(sb_cpu *c, sb_cpu_policy *policy)
{
    const sb_policy_call *call = policy->call;
    sb_tally total;
    sb_pool_run(c->pool, runs_alone(call), reduce_range, policy, policy->ranges);
    sb_tally_init(&total, sb_policy_adds_sequences(&call->rules), policy->metrics);
    for (int64_t i = 0; i < policy->ranges; i++) sb_tally_merge(&total, &policy->tallies[i]);
    write_tally(&call->out, &call->in, &call->rules, &total);
}

sb_status sb_cpu_policy_loss(sb_context *ctx, const void *checked)
{
    sb_cpu_policy policy;
    sb_status status = sb_cpu_policy_prepare(ctx, &policy, checked);
    if (status == SB_OK) sb_cpu_policy_run(ctx->state, &policy);
    return status;
}

sb_status sb_cpu_policy_merge(sb_context *ctx, const void *checked)
{
    const sb_policy_merge_call *call = checked;
    const uint32_t adds = (uint32_t)sb_policy_adds_sequences(&call->rules);
    sb_tally total;
    sb_status status;
    uint32_t parts;
    memcpy(&parts, (const char *)call->records + offsetof(sb_tally, parts), sizeof parts);
    sb_tally_init(&total, (int)adds, call->out.metrics || parts == SB_TALLY_ALL);
    for (int64_t i = 0; i < call->count; i++) {
        const char *from = (const char *)call->records + i * (int64_t)sizeof total;
        sb_tally_fault fault;
        sb_tally tally;
        memcpy(&tally, from, sizeof tally);
        fault = sb_tally_fault_of(&tally, adds, total.parts, total.counts[SB_TALLY_TOKENS]);
        if (fault != SB_TALLY_WELL) return sb_policy_record_fail(&ctx->error, i, fault);
        sb_tally_merge(&total, &tally);
    }
    status = sb_check_policy_totals(&call->in, total.counts[SB_TALLY_TOKENS],
                                    total.counts[SB_TALLY_SEQUENCES], &ctx->error);
    if (status == SB_OK) write_tally(&call->out, &call->in, &call->rules, &total);
    return status;
}

/* ---- group advantages --------------------------------------------------------------------- */

typedef struct group_job {
    const sb_groups_call *call;
    sb_group *groups; /* [groups]: own or merged */
    double step;      /* the standard deviation of all groups */
} group_job;

static sb_extent group_extent(const sb_groups_call *call, int64_t g)
{
    const sb_groups *in = &call->in;
    sb_extent e;
    if (in->offsets) {
        e.first = sb_int_at(in->offsets, in->offsets_dtype, g);
        e.last = sb_int_at(in->offsets, in->offsets_dtype, g + 1);
    } else {
        e.first = g * in->each;
        e.last = e.first + in->each;
    }
    return e;
}

static void reduce_group(void *shared, int64_t g)
{
    const group_job *j = shared;
    const sb_extent e = group_extent(j->call, g);
    sb_group group;
    sb_group_init(&group);
    for (int64_t i = e.first; i < e.last; i++)
        sb_group_add(&group, sb_float_at(j->call->in.rewards, i));
    j->groups[g] = group;
}

static void finish_group(void *shared, int64_t g)
{
    const group_job *j = shared;
    const sb_groups_call *call = j->call;
    const sb_groups_out *out = &call->out;
    const sb_extent e = group_extent(call, g);
    const double mean = sb_group_mean(&j->groups[g]);
    const double own = sb_group_std(&j->groups[g], call->in.population);
    const double std = call->in.scale == SB_STEP_STD ? j->step : own;
    if (out->records) memcpy((char *)out->records + g * 240, &j->groups[g], 240);
    if (out->mean) memcpy((char *)out->mean + g * 8, &mean, 8);
    if (out->std) memcpy((char *)out->std + g * 8, &own, 8);
    for (int64_t i = e.first; out->advantages && i < e.last; i++)
        out->advantages[i] = sb_group_advantage(sb_float_at(call->in.rewards, i), mean, std,
                                                call->in.eps, call->in.scale != SB_UNSCALED);
}

/* Merges the records of all shards. */
static sb_status merge_groups(sb_context *ctx, const group_job *j)
{
    const sb_groups *in = &j->call->in;
    for (int64_t g = 0; g < in->groups; g++) {
        sb_group merged, group;
        sb_group_init(&merged);
        for (int64_t s = 0; s < in->shards; s++) {
            memcpy(&group, (const char *)in->records + (s * in->groups + g) * 240, sizeof group);
            if (!sb_group_is_well(&group, merged.n)) return sb_group_record_fail(&ctx->error, g, s);
            sb_group_merge(&merged, &group);
        }
        j->groups[g] = merged;
    }
    return SB_OK;
}

sb_status sb_cpu_group_advantages(sb_context *ctx, const void *checked)
{
    const sb_groups_call *call = checked;
    const sb_groups *in = &call->in;
    sb_cpu *c = ctx->state;
    group_job j = { .call = call };
    const int alone = call->rows <= ALONE_TOKENS;
    j.groups = sb_cpu_room(&c->parts, in->groups, sizeof *j.groups);
    if (!j.groups)
        return sb_fail(&ctx->error, SB_ERR_MEMORY, "no memory for %" PRId64 " groups", in->groups);
    if (in->records) {
        sb_status status = merge_groups(ctx, &j);
        if (status != SB_OK) return status;
    } else {
        sb_pool_run(c->pool, alone, reduce_group, &j, in->groups);
    }
    if (in->scale == SB_STEP_STD) {
        sb_group all;
        sb_group_init(&all);
        for (int64_t g = 0; g < in->groups; g++) {
            if (j.groups[g].n >= SB_GROUP_MAX - all.n)
                return sb_fail(&ctx->error, SB_ERR_SHAPE,
                               "groups 0 .. %" PRId64 " have 2^26 rewards or more together", g);
            sb_group_merge(&all, &j.groups[g]);
        }
        j.step = sb_group_std(&all, in->population);
    }
    sb_pool_run(c->pool, alone, finish_group, &j, in->groups);
    return SB_OK;
}
