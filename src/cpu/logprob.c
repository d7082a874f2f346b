/* logprob.c - logprobs on the CPU: from each row's state to its results, and their sums per
 * sequence. shards.c finishes merged records with the same functions. A gradient follows each row
 * at once, while the row's logits are in a cache; where rows are cut into pieces, it follows all of
 * them. */
#include <inttypes.h>

#include "cpu/cpu.h"
#include "det/finish.h"
#include "det/saved.h"
#include "det/sum.h"

static int is_outside(const sb_call *call, int64_t row)
{
    return !sb_is_kept(call, row, sb_int_at(call->in.ids, call->in.ids_dtype, row));
}

void sb_cpu_sum_sequences(const sb_logprob_out *out, const sb_call *call, const float *tokens,
                          const int64_t *active, int64_t actives)
{
    int64_t i = 0;
    if (!out->sequence && !out->count && !out->outside) return;
    for (int64_t b = 0; b < call->in.batch; b++) {
        int64_t last = sb_extent_of(call, b).last, before = i, outside = 0;
        sb_sum sum;
        sb_sum_init(&sum);
        for (; i < actives && active[i] < last; i++) {
            if (out->sequence) sb_sum_add(&sum, tokens[active[i]]);
            if (out->outside) outside += is_outside(call, active[i]);
        }
        if (out->sequence) out->sequence[b] = sb_sum_round(&sum);
        if (out->count) out->count[b] = i - before;
        if (out->outside) out->outside[b] = outside;
    }
}

sb_status sb_cpu_results_prepare(sb_context *ctx, sb_cpu_results *to, const sb_logprob_out *out,
                                 int64_t rows)
{
    sb_cpu *c = ctx->state;
    *to = (sb_cpu_results){ out->token, out->lse, out->entropy, out->saved, out->entropy != NULL };
    if (!to->token && out->sequence) {
        to->token = sb_cpu_room(&c->tokens, rows, sizeof *to->token);
        if (!to->token)
            return sb_fail(&ctx->error, SB_ERR_MEMORY, "no memory for %" PRId64 " token logprobs",
                           rows);
    }
    if (out->token) memset(out->token, 0, (size_t)rows * sizeof *out->token);
    if (out->lse) memset(out->lse, 0, (size_t)rows * sizeof *out->lse);
    if (out->entropy) memset(out->entropy, 0, (size_t)rows * sizeof *out->entropy);
    if (out->saved) memset(out->saved, 0, (size_t)rows * sizeof *out->saved);
    return SB_OK;
}

static void save(const sb_cpu_results *to, int64_t row, const sb_state *state,
                 const sb_row *constants)
{
    sb_saved saved = to->moments ? sb_finish_saved_moments((const sb_moments *)state, constants)
                                 : sb_finish_saved(state, constants);
    memcpy((char *)to->saved + row * (int64_t)sizeof saved, &saved, sizeof saved);
}

void sb_cpu_results_write(const sb_cpu_results *to, int64_t row, const sb_state *state,
                          float target, const sb_row *constants)
{
    if (to->token) to->token[row] = sb_finish_logprob(state, target, constants);
    if (to->lse) to->lse[row] = sb_finish_lse(state, constants);
    if (to->entropy) to->entropy[row] = sb_finish_entropy((const sb_moments *)state, constants);
    if (to->saved) save(to, row, state, constants);
}

/* Where a call's results go, its gradient too. */
typedef struct outputs {
    sb_cpu_results results;
    sb_cpu_gradient gradient;
} outputs;

static void finish_logprob(const sb_cpu_job *j, int64_t row, const sb_state *state,
                           const sb_row *constants)
{
    const outputs *to = j->to;
    sb_cpu_results_write(&to->results, row, state, sb_cpu_target(j, row, 0), constants);
    if (to->gradient.written) sb_cpu_gradient_row(&to->gradient, row);
}

/* A policy loss whose gradient the call computes, and its derivatives by the call's tokens. */
typedef struct own_policy {
    sb_policy_call call; /* in.now and out.token are set */
    sb_cpu_policy loss;
} own_policy;

/* Prepares it; token: where the call's logprobs go. */
static sb_status prepare_policy(sb_context *ctx, const sb_logprob_call *logprob, const float *token,
                                own_policy *policy)
{
    sb_cpu *c = ctx->state;
    policy->call = logprob->policy;
    policy->call.in.now = token;
    if (!policy->call.out.token)
        policy->call.out.token = sb_cpu_room(&c->upstream, logprob->call.rows, sizeof *token);
    if (!token || !policy->call.out.token)
        return sb_fail(&ctx->error, SB_ERR_MEMORY, "no memory for %" PRId64 " token logprobs",
                       logprob->call.rows);
    return sb_cpu_policy_prepare(ctx, &policy->loss, &policy->call);
}

/* Prepares the gradient, whose saved rows are those of this call. policy: null, or that whose
 * derivatives it takes. */
static sb_status prepare_gradient(sb_context *ctx, const sb_logprob_call *logprob,
                                  const sb_cpu_job *j, const own_policy *policy,
                                  sb_cpu_gradient *gradient)
{
    sb_cpu *c = ctx->state;
    const sb_call *call = &logprob->call;
    sb_gradient to = logprob->gradient;
    sb_status status;
    to.saved = logprob->out.saved ? logprob->out.saved
                                  : sb_cpu_room(&c->wholes, call->rows, sizeof *to.saved);
    if (!to.saved)
        return sb_fail(&ctx->error, SB_ERR_MEMORY, "no memory to save %" PRId64 " rows",
                       call->rows);
    if (policy) to.token = policy->call.out.token;
    status = sb_cpu_gradient_prepare(ctx, gradient, call, &to, j->active, j->actives);
    /* with a policy loss, each row's derivative comes after all rows */
    gradient->written = j->split == 1 && !sb_cpu_is_hidden(j) && !policy;
    if (status == SB_OK && sb_cpu_is_hidden(j)) sb_cpu_gradient_of_hidden(c, gradient, &j->hidden);
    return status;
}

sb_status sb_cpu_logprob(sb_context *ctx, const void *checked)
{
    const sb_logprob_call *logprob = checked;
    const sb_call *call = &logprob->call;
    sb_cpu *c = ctx->state;
    sb_logprob_out out = logprob->out;
    outputs to;
    own_policy policy, *own = out.gradient && logprob->gradient.policy ? &policy : NULL;
    sb_cpu_results *results = &to.results;
    sb_cpu_job j = { .call = call,
                     .moments = sb_wants_moments(logprob),
                     .targets = 1,
                     .finish = finish_logprob,
                     .to = &to };
    sb_status status = sb_cpu_job_prepare(ctx, &j);
    to.gradient.written = 0;
    if (own && !out.token) out.token = sb_cpu_room(&c->tokens, call->rows, sizeof *out.token);
    if (status == SB_OK && own) status = prepare_policy(ctx, logprob, out.token, own);
    if (status == SB_OK && out.gradient)
        status = prepare_gradient(ctx, logprob, &j, own, &to.gradient);
    if (status == SB_OK) status = sb_cpu_results_prepare(ctx, results, &out, call->rows);
    if (status != SB_OK) return status;
    if (out.gradient) {
        results->moments = j.moments;
        results->saved = (sb_saved_row *)(uintptr_t)to.gradient.to.saved;
    }
    if (results->token || results->lse || results->entropy || results->saved) sb_cpu_job_run(c, &j);
    if (own) sb_cpu_policy_run(c, &own->loss);
    if (out.gradient) sb_cpu_gradient_run(c, &to.gradient);
    sb_cpu_sum_sequences(&out, call, results->token, j.active, j.actives);
    return SB_OK;
}
