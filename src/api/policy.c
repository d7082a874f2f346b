/* policy.c - sb_policy_loss, sb_policy_merge and sb_group_advantages: checks of everything that the
 * structs show, then the backend. */
#include "api/policy.h"

#include <inttypes.h>
#include <math.h>

#include "api/call.h"
#include "api/entry.h"
#include "api/run.h"

#define MAX_TIME ((int64_t)1 << 29) /* a difference is two values: det/digits.h */
#define MAX_TOTAL ((int64_t)1 << 53)

/* The public records have the layout of those that the arithmetic uses. */
_Static_assert(sizeof(sb_policy_record) == 784 && sizeof(sb_tally) == 784, "784 bytes");
_Static_assert(offsetof(sb_policy_record, counts) == offsetof(sb_tally, counts), "counts");
_Static_assert(offsetof(sb_policy_record, most) == offsetof(sb_tally, most), "most");
_Static_assert(offsetof(sb_policy_record, sums) == offsetof(sb_tally, sums), "sums");
_Static_assert(sizeof(sb_policy_metrics) == SB_POLICY_METRICS * sizeof(float), "metrics");
_Static_assert(offsetof(sb_policy_metrics, high) == SB_METRIC_MARKS * sizeof(float), "high");
_Static_assert(offsetof(sb_policy_metrics, ratio_min) == SB_METRIC_LEAST * sizeof(float), "least");
_Static_assert(sizeof(sb_group_record) == 240 && sizeof(sb_group) == 240, "240 bytes");
_Static_assert(offsetof(sb_group_record, squares) == offsetof(sb_group, squares), "squares");
_Static_assert((int)SB_CLIP == SB_LOSS_CLIP && (int)SB_GSPO == SB_LOSS_GSPO &&
                   (int)SB_CISPO == SB_LOSS_CISPO && (int)SB_REINFORCE == SB_LOSS_REINFORCE,
               "losses");
_Static_assert((int)SB_TOKEN_MEAN == SB_NORM_TOKENS && (int)SB_SEQUENCE_MEAN == SB_NORM_MEANS &&
                   (int)SB_SEQUENCE_SUM == SB_NORM_SUMS && (int)SB_CONSTANT == SB_NORM_CONSTANT,
               "norms");
_Static_assert((int)SB_K1 == SB_KL_1 && (int)SB_K2 == SB_KL_2 && (int)SB_K3 == SB_KL_3 &&
                   (int)SB_K1_PLUS == SB_KL_1_SLOPE_2 && (int)SB_K3_PLUS == SB_KL_3_SLOPE_2,
               "estimators");
_Static_assert((int)SB_UNWEIGHTED == SB_WEIGHT_OFF && (int)SB_TRUNCATE == SB_WEIGHT_CUT &&
                   (int)SB_DROP == SB_WEIGHT_DROP && (int)SB_PER_TOKEN == SB_LEVEL_TOKEN &&
                   (int)SB_PER_SEQUENCE == SB_LEVEL_PRODUCT && (int)SB_GEOMETRIC == SB_LEVEL_MEAN,
               "weights");

/* ---- options ------------------------------------------------------------------------------ */

static sb_status check_choice(sb_message *why, const char *name, int32_t value, int32_t least,
                              int32_t most)
{
    if (value >= least && value <= most) return SB_OK;
    return sb_fail(why, SB_ERR_ARGUMENT, "%s is %d, outside %d .. %d", name, (int)value, (int)least,
                   (int)most);
}

/* Refuses x unless least <= x <= most; NaN is refused, too. */
static sb_status check_range(sb_message *why, const char *name, double x, double least, double most)
{
    if (x >= least && x <= most) return SB_OK;
    return sb_fail(why, SB_ERR_ARGUMENT, "%s is %.9g, outside [%.9g, %.9g]", name, x, least, most);
}

static sb_status check_total(sb_message *why, const char *name, int64_t value)
{
    if (value >= 0 && value <= MAX_TOTAL) return SB_OK;
    return sb_fail(why, SB_ERR_SHAPE, "%s is %" PRId64 ", outside [0, 2^53]", name, value);
}

/* The options that merging needs as well. */
static sb_status check_norm(const sb_policy *in, sb_message *why)
{
    sb_status status = check_choice(why, "norm", in->norm, SB_TOKEN_MEAN, SB_CONSTANT);
    if (status == SB_OK) status = check_total(why, "tokens", in->tokens);
    if (status == SB_OK) status = check_total(why, "sequences", in->sequences);
    if (status == SB_OK && in->norm == SB_CONSTANT &&
        !(in->constant > 0.0 && in->constant < INFINITY))
        status = sb_fail(why, SB_ERR_ARGUMENT, "constant is %.9g: it must be above 0 and finite",
                         in->constant);
    return status;
}

static sb_status check_weight(const sb_policy *in, sb_message *why)
{
    sb_status status = check_choice(why, "weight", in->weight, SB_UNWEIGHTED, SB_DROP);
    if (status != SB_OK || in->weight == SB_UNWEIGHTED) return status;
    status = check_choice(why, "level", in->level, SB_PER_TOKEN, SB_GEOMETRIC);
    if (status != SB_OK) return status;
    if (!(in->w_high > 0.0f && in->w_high < INFINITY))
        return sb_fail(why, SB_ERR_ARGUMENT, "w_high is %.9g: it must be above 0 and finite",
                       (double)in->w_high);
    return check_range(why, "w_low", (double)in->w_low, 0.0, (double)in->w_high);
}

/* A coefficient, and the input that it needs. */
static sb_status check_coefficient(sb_message *why, const char *name, float x, const char *input,
                                   const float *given)
{
    sb_status status = check_range(why, name, (double)x, 0.0, 0x1.fffffep+127);
    if (status != SB_OK || x == 0.0f || given) return status;
    return sb_fail(why, SB_ERR_ARGUMENT, "%s is null, and %s is %.9g", input, name, (double)x);
}

static sb_status rules_of(sb_policy_rules *r, const sb_policy *in, sb_message *why)
{
    sb_status status = check_choice(why, "loss", in->loss, SB_CLIP, SB_REINFORCE);
    if (status == SB_OK) status = check_norm(in, why);
    if (status == SB_OK) status = check_choice(why, "kl", in->kl, SB_K1, SB_K3_PLUS);
    if (status == SB_OK) status = check_weight(in, why);
    if (status == SB_OK) status = check_choice(why, "per_token", in->per_token, 0, 1);
    if (status == SB_OK) status = check_range(why, "eps_low", in->eps_low, 0.0, 1.0);
    if (status == SB_OK) status = check_range(why, "eps_high", in->eps_high, 0.0, 0x1.fffffep+127);
    if (status == SB_OK) status = check_coefficient(why, "beta", in->beta, "ref", in->ref);
    if (status == SB_OK) status = check_coefficient(why, "eta", in->eta, "entropy", in->entropy);
    if (status == SB_OK)
        status = check_range(why, "upstream", (double)in->upstream, -0x1.fffffep+127,
                             0x1.fffffep+127);
    if (status != SB_OK) return status;
    if (in->weight != SB_UNWEIGHTED && !in->rollout)
        return sb_fail(why, SB_ERR_ARGUMENT, "rollout is null, and weight is %d", (int)in->weight);
    memset(r, 0, sizeof *r);
    r->constant = in->constant;
    r->loss = in->loss;
    r->norm = in->norm;
    r->kl = in->kl;
    r->weight = in->weight;
    r->level = in->weight == SB_UNWEIGHTED ? SB_PER_TOKEN : in->level;
    r->has = (in->old ? SB_HAS_OLD : 0) | (in->ref ? SB_HAS_REF : 0) |
             (in->rollout ? SB_HAS_ROLLOUT : 0) | (in->entropy ? SB_HAS_ENTROPY : 0);
    sb_policy_bounds(r, in->eps_low, in->eps_high);
    if (r->hi > 0x1.fffffep+127f)
        return sb_fail(why, SB_ERR_ARGUMENT, "eps_high is %.9g: 1 + eps_high overflows fp32",
                       in->eps_high);
    r->dual = in->dual == 0.0f ? INFINITY : in->dual;
    if (!(r->dual > 1.0f && r->dual >= r->hi))
        return sb_fail(why, SB_ERR_ARGUMENT,
                       "dual is %.9g: it must be above 1 and at least 1 + eps_high, or 0",
                       (double)in->dual);
    r->beta = in->beta;
    r->eta = in->eta;
    r->adds_kl = in->beta != 0.0f;
    r->adds_entropy = in->eta != 0.0f;
    r->w_low = in->w_low;
    r->w_high = in->w_high;
    r->upstream = in->upstream;
    return SB_OK;
}

/* ---- policy losses ------------------------------------------------------------------------ */

static sb_status check_rows(sb_message *why, const char *what, int64_t rows)
{
    if (rows >= 0 && rows <= SB_TALLY_MOST) return SB_OK;
    return sb_fail(why, SB_ERR_SHAPE, "%s is %" PRId64 ", outside [0, 2^30]", what, rows);
}

static sb_status check_layout(sb_context *ctx, const sb_policy *in, int64_t *rows)
{
    sb_message *why = &ctx->error;
    sb_status status = SB_OK;
    if (in->batch < 0 || in->batch > INT64_MAX / 64)
        return sb_fail(why, SB_ERR_SHAPE, "batch is %" PRId64, in->batch);
    if (!in->cu_seqlens) {
        if (in->time < 0 || in->time > MAX_TIME)
            return sb_fail(why, SB_ERR_SHAPE, "time is %" PRId64 ", outside [0, 2^29]", in->time);
        if (__builtin_mul_overflow(in->batch, in->time, rows)) *rows = -1;
        return check_rows(why, "batch times time", *rows);
    }
    *rows = in->rows;
    status = check_rows(why, "rows", in->rows);
    if (status != SB_OK) return status;
    if (in->cu_seqlens_dtype != SB_I32 && in->cu_seqlens_dtype != SB_I64)
        return sb_fail(why, SB_ERR_DTYPE, "cu_seqlens_dtype is %d: it takes SB_I32 or SB_I64",
                       (int)in->cu_seqlens_dtype);
    if (ctx->backend->device) return sb_check_device_packed(in->batch, in->rows, why);
    return sb_check_cu_seqlens(in->cu_seqlens, in->cu_seqlens_dtype, in->batch, in->rows, why);
}

sb_status sb_check_policy_totals(const sb_policy *in, int64_t tokens, int64_t sequences,
                                 sb_message *why)
{
    if (in->tokens && in->tokens < tokens)
        return sb_fail(why, SB_ERR_SHAPE,
                       "tokens is %" PRId64 ", and %" PRId64 " tokens are active", in->tokens,
                       tokens);
    if (in->sequences && in->sequences < sequences)
        return sb_fail(why, SB_ERR_SHAPE,
                       "sequences is %" PRId64 ", and %" PRId64 " sequences have active tokens",
                       in->sequences, sequences);
    return SB_OK;
}

static sb_status check_structs(sb_context *ctx, const sb_policy_out *out, const sb_policy *policy,
                               sb_launch *filled, const sb_launch *launch)
{
    sb_status status = sb_check_size(out, sizeof *out, "sb_policy_out", "SB_POLICY_OUT_INIT",
                                     &ctx->error);
    if (status == SB_OK)
        status = sb_check_size(policy, sizeof *policy, "sb_policy", "SB_POLICY_INIT", &ctx->error);
    return status == SB_OK ? sb_launch_of(filled, launch, &ctx->error) : status;
}

static sb_status policy_loss(sb_context *ctx, const sb_policy_out *out, const sb_policy *policy,
                             const sb_launch *launch)
{
    sb_policy_call call;
    sb_status status = check_structs(ctx, out, policy, &call.launch, launch);
    if (status == SB_OK) status = check_layout(ctx, policy, &call.rows);
    if (status == SB_OK) status = rules_of(&call.rules, policy, &ctx->error);
    if (status != SB_OK) return status;
    if (call.rows > 0 && !(policy->now && policy->advantages))
        return sb_fail(&ctx->error, SB_ERR_ARGUMENT, "%s is null",
                       policy->now ? "advantages" : "now");
    call.out = *out;
    call.in = *policy;
    return sb_run(ctx, SB_OP_POLICY_LOSS, &call, &call.launch);
}

sb_status sb_policy_of(sb_context *ctx, sb_policy_call *policy, const sb_policy *given,
                       const sb_policy_out *out, const sb_call *call)
{
    static const sb_policy_out NO_OUT = SB_POLICY_OUT_INIT;
    const sb_batch *in = &call->in;
    sb_message *why = &ctx->error;
    sb_status status = sb_check_size(given, sizeof *given, "sb_policy", "SB_POLICY_INIT", why);
    if (status == SB_OK && out)
        status = sb_check_size(out, sizeof *out, "sb_policy_out", "SB_POLICY_OUT_INIT", why);
    if (status != SB_OK) return status;
    policy->out = out ? *out : NO_OUT;
    policy->in = *given;
    policy->in.batch = in->batch;
    policy->in.time = in->time;
    policy->in.rows = in->rows;
    policy->in.cu_seqlens = in->cu_seqlens;
    policy->in.cu_seqlens_dtype = in->cu_seqlens_dtype;
    policy->rows = call->rows;
    policy->launch = call->launch;
    status = check_rows(why, "batch times time", call->rows);
    if (status == SB_OK) status = rules_of(&policy->rules, &policy->in, why);
    if (status != SB_OK) return status;
    if (given->now)
        return sb_fail(why, SB_ERR_ARGUMENT,
                       "policy.now is not null: the call uses the logprobs that it computes");
    if (sb_policy_is_joint(&policy->rules))
        return sb_fail(why, SB_ERR_ARGUMENT,
                       "ratios or weights of sequences need all logprobs before any gradient: call "
                       "sb_policy_loss, then sb_logprob_backward");
    if (policy->rules.adds_entropy)
        return sb_fail(why, SB_ERR_ARGUMENT,
                       "eta is %.9g: the bonus needs entropies: call sb_policy_loss, then "
                       "sb_logprob_backward",
                       (double)given->eta);
    if (call->rows > 0 && !given->advantages)
        return sb_fail(why, SB_ERR_ARGUMENT, "advantages is null");
    return SB_OK;
}

sb_status sb_policy_loss(sb_context *ctx, const sb_policy_out *out, const sb_policy *policy,
                         const sb_launch *launch)
{
    SB_INSIDE(ctx, policy_loss(ctx, out, policy, launch));
}

/* ---- merging ------------------------------------------------------------------------------ */

sb_status sb_policy_record_fail(sb_message *why, int64_t i, sb_tally_fault fault)
{
    static const char *const texts[] = {
        [SB_TALLY_MADE_BY_NO_CALL] = "no call gives it",
        [SB_TALLY_OTHER_NORM] = "its first sum adds losses of tokens where the norm adds losses "
                                "of sequences, or the reverse",
        [SB_TALLY_OTHER_PARTS] = "it has no metrics where others have, or the reverse",
        [SB_TALLY_TOO_MANY] = "with it, there are more than 2^30 tokens",
    };
    return sb_fail(why, SB_ERR_STATE, "record %" PRId64 ": %s", i, texts[fault]);
}

static sb_status policy_merge(sb_context *ctx, const sb_policy_out *out, const sb_policy *policy,
                              const sb_policy_record *records, int64_t count,
                              const sb_launch *launch)
{
    sb_policy_merge_call call;
    sb_message *why = &ctx->error;
    sb_status status = check_structs(ctx, out, policy, &call.launch, launch);
    if (status == SB_OK) status = check_norm(policy, why);
    if (status != SB_OK) return status;
    if (count < 1 || count > INT64_MAX / (int64_t)sizeof *records)
        return sb_fail(why, SB_ERR_SHAPE, "count is %" PRId64, count);
    if (!records) return sb_fail(why, SB_ERR_ARGUMENT, "records is null");
    if (out->sequence || out->token || out->entropy)
        return sb_fail(why, SB_ERR_ARGUMENT, "%s is given: records hold no sequences and no tokens",
                       out->sequence ? "sequence"
                       : out->token  ? "token"
                                     : "entropy");
    memset(&call.rules, 0, sizeof call.rules);
    call.rules.norm = policy->norm;
    call.rules.constant = policy->constant;
    call.out = *out;
    call.in = *policy;
    call.records = records;
    call.count = count;
    return sb_run(ctx, SB_OP_POLICY_MERGE, &call, &call.launch);
}

sb_status sb_policy_merge(sb_context *ctx, const sb_policy_out *out, const sb_policy *policy,
                          const sb_policy_record *records, int64_t count, const sb_launch *launch)
{
    SB_INSIDE(ctx, policy_merge(ctx, out, policy, records, count, launch));
}

/* ---- group advantages --------------------------------------------------------------------- */

sb_status sb_group_record_fail(sb_message *why, int64_t group, int64_t shard)
{
    return sb_fail(why, SB_ERR_STATE,
                   "group %" PRId64 ", shard %" PRId64
                   ": no call gives the record, or the group has 2^26 rewards or more",
                   group, shard);
}

sb_status sb_check_group_offsets(const sb_groups *in, const void *offsets, sb_message *why)
{
    int64_t before = 0;
    for (int64_t g = 0; g <= in->groups; g++) {
        const int64_t next = sb_int_at(offsets, in->offsets_dtype, g);
        if (g == 0 ? next != 0 : next < before || next > in->rows)
            return sb_fail(why, SB_ERR_SHAPE,
                           "offsets[%" PRId64 "] is %" PRId64 ": it must lie in [%" PRId64
                           ", %" PRId64 "]",
                           g, next, before, g == 0 ? 0 : in->rows);
        if (next - before >= (int64_t)SB_GROUP_MAX)
            return sb_fail(why, SB_ERR_SHAPE,
                           "group %" PRId64 " has %" PRId64 " rewards, 2^26 or more", g - 1,
                           next - before);
        before = next;
    }
    if (before != in->rows)
        return sb_fail(why, SB_ERR_SHAPE,
                       "offsets[%" PRId64 "] is %" PRId64 ", not the number of rewards %" PRId64,
                       in->groups, before, in->rows);
    return SB_OK;
}

static sb_status check_groups(sb_context *ctx, const sb_groups *in, int64_t *rows)
{
    sb_message *why = &ctx->error;
    const int64_t most = INT64_MAX / (int64_t)sizeof(sb_group_record);
    int64_t records;
    if (in->groups < 0 || in->groups > most)
        return sb_fail(why, SB_ERR_SHAPE, "groups is %" PRId64, in->groups);
    if (in->records && (in->shards < 1 ||
                        __builtin_mul_overflow(in->shards, in->groups, &records) || records > most))
        return sb_fail(why, SB_ERR_SHAPE, "shards is %" PRId64, in->shards);
    if (!in->offsets) {
        if (in->each < 0 || in->each >= (int64_t)SB_GROUP_MAX)
            return sb_fail(why, SB_ERR_SHAPE, "each is %" PRId64 ", outside [0, 2^26)", in->each);
        if (__builtin_mul_overflow(in->groups, in->each, rows) || *rows > most)
            return sb_fail(why, SB_ERR_SHAPE, "groups times each reach past the address space");
        return SB_OK;
    }
    *rows = in->rows;
    if (in->rows < 0 || in->rows > most)
        return sb_fail(why, SB_ERR_SHAPE, "rows is %" PRId64, in->rows);
    if (in->offsets_dtype != SB_I32 && in->offsets_dtype != SB_I64)
        return sb_fail(why, SB_ERR_DTYPE, "offsets_dtype is %d: it takes SB_I32 or SB_I64",
                       (int)in->offsets_dtype);
    if (ctx->backend->device)
        return in->groups > 0 || in->rows == 0
                   ? SB_OK
                   : sb_fail(why, SB_ERR_SHAPE, "rows is %" PRId64 ", and there are no groups",
                             in->rows);
    return sb_check_group_offsets(in, in->offsets, why);
}

static sb_status group_advantages(sb_context *ctx, const sb_groups_out *out,
                                  const sb_groups *groups, const sb_launch *launch)
{
    sb_groups_call call;
    sb_message *why = &ctx->error;
    sb_status status = sb_check_size(out, sizeof *out, "sb_groups_out", "SB_GROUPS_OUT_INIT", why);
    if (status == SB_OK)
        status = sb_check_size(groups, sizeof *groups, "sb_groups", "SB_GROUPS_INIT", why);
    if (status == SB_OK) status = sb_launch_of(&call.launch, launch, why);
    if (status == SB_OK) status = check_groups(ctx, groups, &call.rows);
    if (status == SB_OK)
        status = check_choice(why, "scale", groups->scale, SB_UNSCALED, SB_STEP_STD);
    if (status == SB_OK) status = check_choice(why, "population", groups->population, 0, 1);
    if (status == SB_OK)
        status = check_range(why, "eps", (double)groups->eps, 0.0, 0x1.fffffep+127);
    if (status != SB_OK) return status;
    if (call.rows > 0 && !groups->rewards) return sb_fail(why, SB_ERR_ARGUMENT, "rewards is null");
    call.out = *out;
    call.in = *groups;
    return sb_run(ctx, SB_OP_GROUP_ADVANTAGES, &call, &call.launch);
}

sb_status sb_group_advantages(sb_context *ctx, const sb_groups_out *out, const sb_groups *groups,
                              const sb_launch *launch)
{
    SB_INSIDE(ctx, group_advantages(ctx, out, groups, launch));
}
