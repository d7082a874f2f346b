/* stats.c - statistics of tokens on the CPU. The work items are chunks of tokens for comparisons,
 * and sequences for sums. kl.c uses sb_cpu_sums, too. */
#include "cpu/cpu.h"
#include "det/digits.h"
#include "det/ratio.h"

#define CHUNK_TOKENS 4096  /* tokens per comparison item; a call with no more runs on one thread */
#define ALONE_TOKENS 16384 /* sums of at most this many tokens run on one thread */

static void put(float *to, int64_t i, float x)
{
    if (to) to[i] = x;
}

static void compare_chunk(void *shared, int64_t item)
{
    const sb_compare_call *call = shared;
    int64_t i = item * CHUNK_TOKENS, last = i + CHUNK_TOKENS;
    if (last > call->count) last = call->count;
    for (; i < last; i++) {
        const sb_comparison c = sb_compare_of(sb_float_at(call->sampled, i),
                                              sb_float_at(call->other, i));
        put(call->out.ratio, i, c.ratio);
        put(call->out.k1, i, c.k1);
        put(call->out.k2, i, c.k2);
        put(call->out.k3, i, c.k3);
    }
}

sb_status sb_cpu_compare(sb_context *ctx, const void *checked)
{
    const sb_compare_call *call = checked;
    sb_cpu *c = ctx->state;
    void *shared = (void *)(uintptr_t)call; /* the pool's items only read it */
    sb_pool_run(c->pool, call->count <= CHUNK_TOKENS, compare_chunk, shared,
                (call->count + CHUNK_TOKENS - 1) / CHUNK_TOKENS);
    return SB_OK;
}

static sb_extent extent_of(const sb_sums_call *call, int64_t b)
{
    const sb_values *in = &call->in;
    sb_extent e;
    if (in->cu_seqlens) {
        e.first = sb_int_at(in->cu_seqlens, in->cu_seqlens_dtype, b);
        e.last = sb_int_at(in->cu_seqlens, in->cu_seqlens_dtype, b + 1);
    } else { /* time has a meaning in this layout only; a packed call may hold any value there */
        e.first = b * in->time;
        e.last = e.first + in->time;
    }
    return e;
}

static void reduce_sequence(void *shared, int64_t b)
{
    const sb_sums_call *call = shared;
    const sb_values *in = &call->in;
    const sb_extent e = extent_of(call, b);
    int64_t count = 0;
    sb_digits sum;
    double mean;
    sb_digits_init(&sum);
    for (int64_t i = e.first; i < e.last; i++) {
        float x;
        if (in->mask && !in->mask[i]) continue;
        count++;
        x = sb_float_at(in->values, i);
        if (in->minus) sb_digits_add_difference(&sum, x, sb_float_at(in->minus, i));
        else sb_digits_add(&sum, x);
    }
    mean = sb_digits_mean(&sum, count);
    put(call->out.sum, b, sb_digits_sum(&sum));
    put(call->out.mean, b, sb_mean32(mean));
    put(call->out.exp_mean, b, sb_ratio_of(mean));
    if (call->out.count) call->out.count[b] = count;
}

sb_status sb_cpu_sums(sb_context *ctx, const void *checked)
{
    const sb_sums_call *call = checked;
    sb_cpu *c = ctx->state;
    void *shared = (void *)(uintptr_t)call; /* the pool's items only read it */
    sb_pool_run(c->pool, call->rows <= ALONE_TOKENS, reduce_sequence, shared, call->in.batch);
    return SB_OK;
}
