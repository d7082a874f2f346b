/* one_read.c - see one_read.h. The kernel's blocks wait for each other, so all of them must run at
 * the same time: the launch is cooperative, and its grid is never larger than what fits the GPU. */
#include "cuda/one_read.h"

#include "det/gradient.h"

#define SLICE_TRIPS 75         /* two slices, and what is on its way for the next, fit the ring */
#define MIN_BYTES (8 << 20)    /* of logits: fewer do not pay for the start */
#define MIN_TEMPERATURE 0.375f /* below it, many terms leave the table's range */

/* One block fills a multiprocessor's shared memory. */
sb_status sb_cuda_one_read_prepare(sb_cuda *c, sb_message *why)
{
    const CUfunction kernels[] = { c->one_read.one_read_bf16_bf16_token,
                                   c->one_read.one_read_bf16_bf16_policy,
                                   c->one_read.one_read_bf16_bf16_clip,
                                   c->one_read.one_read_bf16_bf16_clip_k3 };
    if (!c->hopper || c->gpu.shared < SB_CUDA_ONE_READ_SHARED) return SB_OK;
    c->one_read_blocks = c->gpu.multiprocessors;
    for (int i = 0; i < 4; i++) {
        int blocks = 0;
        DRIVER(why, &c->driver, FuncSetAttribute, kernels[i],
               CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, SB_CUDA_ONE_READ_SHARED);
        DRIVER(why, &c->driver, OccupancyMaxActiveBlocksPerMultiprocessor, &blocks, kernels[i],
               SB_CUDA_ONE_READ_THREADS, SB_CUDA_ONE_READ_SHARED);
        if (blocks == 0) c->one_read_blocks = 0;
    }
    return SB_OK;
}

static int is_aligned(const void *data, int64_t row_stride)
{
    return sb_cuda_address(data) % 16 == 0 && row_stride % 8 == 0;
}

/* Whether row r of the gradient starts at r * row_stride. */
static int is_flat(const sb_batch *in, const sb_gradient *to)
{
    return in->cu_seqlens || in->batch <= 1 || to->batch_stride == in->time * to->row_stride;
}

static int serves(const sb_cuda *c, const sb_logprob_call *logprob)
{
    const sb_logprob_out *out = &logprob->out;
    const sb_gradient *to = &logprob->gradient;
    const sb_call *call = &logprob->call;
    const sb_batch *in = &call->in;
    return c->one_read_blocks && in->logits_dtype == SB_BF16 && to->dtype == SB_BF16 &&
           (to->token || to->policy) && !to->entropy && !out->entropy && !sb_has_kept(in) &&
           !in->temperatures && in->vocab > 0 && in->vocab % 8 == 0 && to->width == in->vocab &&
           is_aligned(in->logits, in->row_stride) && is_aligned(to->grad, to->row_stride);
}

/* Chooses the table for a temperature: from the largest bf16 whose term is exactly 1 with both
 * signs, for which |x| c ln 2 < 2^-25 is enough, to SB_CUDA_TABLE_OCTAVES. Returns whether it fits.
 */
static int plan_table(sb_cuda_one_read_args *a, float c)
{
    const uint32_t most = (sb_bits32(SB_CUDA_TABLE_OCTAVES / c) >> 16) + 1;
    uint32_t odd = (sb_bits32(c) & 0x7fffffu) | 0x800000u;
    a->least = sb_bits32(0x1.6p-25f / c) >> 16;
    /* x c = k + 1/2 makes c's odd part a divisor of 2 k + 1 */
    while (odd % 2 == 0) odd /= 2;
    a->ties = (float)odd < 2 * SB_CUDA_TABLE_OCTAVES + 1;
    return a->least >= SB_CUDA_LEAST_PAIR && most - a->least < SB_CUDA_PAIRS;
}

static int pays(const sb_call *call)
{
    return call->rows >= MIN_BYTES / 2 / call->in.vocab && call->in.temperature >= MIN_TEMPERATURE;
}

int sb_cuda_plan_one_read(sb_context *ctx, const sb_logprob_call *logprob, sb_cuda_one_read *p)
{
    const sb_cuda *c = ctx->state;
    const sb_call *call = &logprob->call;
    sb_cuda_one_read_args *a = &p->a.once;
    const int64_t trips = (call->in.vocab + SB_CUDA_TRIP - 1) / SB_CUDA_TRIP;
    const int64_t team = (trips + SLICE_TRIPS - 1) / SLICE_TRIPS;
    if (call->launch.one_read < 0 || call->rows == 0 || !serves(c, logprob)) return 0;
    if (team > SB_CUDA_MAX_TEAM || team > c->one_read_blocks) return 0;
    a->teams = (int32_t)(c->one_read_blocks / team);
    if (call->launch.one_read == 0 && !pays(call)) return 0;
    if (call->rows > INT32_MAX / SB_CUDA_RING_TRIPS) return 0;
    if (a->teams > call->rows) a->teams = (int32_t)call->rows;
    a->gradient = sb_cuda_gradient_args_of(ctx, &logprob->out, &logprob->gradient, call);
    if (!a->gradient.in.flat || !is_flat(&call->in, &logprob->gradient)) return 0;
    a->gradient.in.split = 1;
    a->team = (int32_t)team;
    a->trips = (int32_t)trips;
    p->grid = (sb_cuda_grid){ .blocks = (int64_t)a->teams * team,
                              .threads = SB_CUDA_ONE_READ_THREADS,
                              .shared = SB_CUDA_ONE_READ_SHARED,
                              .cooperative = 1 };
    p->exchange = team > 1 ? (uint64_t)a->teams * SB_CUDA_TEAM_BYTES((uint64_t)team) : 0;
    p->tokens = sb_cuda_token_bytes(&logprob->out, call->rows);
    return plan_table(a, a->gradient.in.row.c);
}

void sb_cuda_set_one_read_policy(sb_cuda_one_read *p, const sb_logprob_call *logprob,
                                 const sb_cuda_policy_args *policy)
{
    sb_cuda_args *in = &p->a.once.gradient.in;
    p->a.policy = *policy;
    p->has_policy = 1;
    in->token = in->tokens = sb_cuda_address(logprob->out.token);
    p->tokens = 0; /* logprob has them */
}

/* The kernels for the usual losses are compiled for their rules. */
static CUfunction kernel_for(const sb_cuda_one_read_kernels *k, const sb_cuda_one_read *p)
{
    const sb_policy_rules *r = &p->a.policy.rules;
    if (!p->has_policy) return k->one_read_bf16_bf16_token;
    if (r->loss != SB_LOSS_CLIP || r->weight != SB_WEIGHT_OFF) return k->one_read_bf16_bf16_policy;
    if (!r->adds_kl) return k->one_read_bf16_bf16_clip;
    return r->kl == SB_KL_3 ? k->one_read_bf16_bf16_clip_k3 : k->one_read_bf16_bf16_policy;
}

sb_status sb_cuda_launch_one_read(sb_context *ctx, const sb_logprob_call *logprob,
                                  sb_cuda_one_read *p, CUdeviceptr scratch)
{
    const sb_cuda *c = ctx->state;
    const CUfunction kernel = kernel_for(&c->one_read, p);
    sb_cuda_args *in = &p->a.once.gradient.in;
    sb_status status;
    p->a.once.exchange = scratch;
    if (p->tokens) in->tokens = scratch + p->exchange;
    status = sb_cuda_clear(ctx, p->a.once.exchange, p->exchange, logprob->call.launch.stream);
    if (status != SB_OK) return status;
    status = sb_cuda_launch(ctx, kernel, p->grid, in, logprob->call.launch.stream);
    return status == SB_OK ? sb_cuda_sum_sequences(ctx, &logprob->call, in) : status;
}

sb_status sb_cuda_refuse_one_read(sb_context *ctx, const sb_policy_call *policy,
                                  sb_cuda_one_read *p, CUstream stream)
{
    const sb_cuda *c = ctx->state;
    const sb_policy *in = &policy->in;
    const sb_cuda_grid grid = { .blocks = c->gpu.multiprocessors,
                                .threads = SB_CUDA_ONE_READ_REFUSERS,
                                .early = 1 };
    /* a call has no more tokens than rows */
    if ((!in->tokens || in->tokens >= policy->rows) &&
        (!in->sequences || in->sequences >= in->batch))
        return SB_OK;
    return sb_cuda_launch(ctx, c->one_read.one_read_refuse, grid, &p->a.once.gradient.in, stream);
}
