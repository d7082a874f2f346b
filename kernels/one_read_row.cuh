/* one_read_row.cuh - rows of one_read.cu: what a block keeps of them in shared memory, and the row
 * warps, which make a row's sum, gradient constants and results from the states of its slices. */
#pragma once

#include "finish.cuh"
#include "load.cuh"
#include "mbarrier.cuh"
#include "team.cuh"
#include "pair_table.cuh"
#include "policy_row.cuh"

#include "../src/det/gradient.h"

#if __CUDA_ARCH__ >= 900

#define IN_FLIGHT 4 /* rows of which constants and states are kept, a power of 2 */

typedef enum one_read_kind { ONE_READ_ZERO, ONE_READ_NAN, ONE_READ_FORMULA } one_read_kind;

/* The constants of a row's gradient, for a block's slice of it. */
struct one_read_row {
    /* The least logit, as a pair of bf16, whose gradient is fma(T(x) * 2^24, scale, 0); SLOW if no
     * logit's is. */
    uint32_t least;
    float scale;
    float own;      /* the target's gradient */
    int32_t target; /* -1: none */
    one_read_kind kind;
    sb_gradient_row g;
};

#define SLOW 0x7fc07fc0u /* the minimum of a NaN and any pair is never this */

/* A block's shared memory. */
struct one_read_memory {
    char ring[SB_CUDA_RING_TRIPS * SB_CUDA_TRIP * 2]; /* in front of the table: see BEFORE_TABLE */
    float2 table[SB_CUDA_PAIRS + 1];
    float c[WARP], k64[WARP]; /* one per lane, so that they stay in registers of their own */
    pair_table terms[WARP];   /* likewise */
    /* Barriers. loaded: a chunk of the ring has arrived; free: its last gradient is made. summed:
     * the trip warps' states of a row are in states; ready: its constants are in rows. */
    uint64_t loaded[SB_CUDA_RING_TRIPS / CHUNK], free[SB_CUDA_RING_TRIPS / CHUNK]; /* adjacent */
    uint64_t summed[IN_FLIGHT], ready[IN_FLIGHT];
    one_read_row rows[IN_FLIGHT];
    sb_state states[IN_FLIGHT][SB_CUDA_TRIP_WARPS];
};
static_assert(offsetof(one_read_memory, table) >= BEFORE_TABLE, "loads reach below shared memory");
static_assert(sizeof(one_read_memory) <= SB_CUDA_ONE_READ_SHARED, "the launch gives less");

/* ---- which rows there are ----------------------------------------------------------------- */

/* The row that a row of the logits scores. */
struct scored_row {
    int64_t row, id;
    one_read_kind kind; /* ONE_READ_FORMULA: its logits must be read */
};

/* reports: this thread also writes the outputs of a row without a sum, and reports bad values. */
SB_DET scored_row find_scored(const sb_cuda_args &in, int64_t source, bool reports)
{
    scored_row s = { source + in.shift, 0, ONE_READ_ZERO };
    if (in.simple) { /* a short way for the common case */
        s.id = int_at(in.ids, in.ids_dtype, source);
        if (s.id != in.ignore_index && (uint64_t)s.id < (uint64_t)in.vocab) {
            s.kind = ONE_READ_FORMULA;
            return s;
        }
    }
    if (reports && in.row_list && source < in.row_count && !listed_well(in, source))
        report(in, SB_BAD_ROW_LIST, source);
    if (s.row >= in.rows) s.row = 0; /* with shift, no logits score row 0 */
    else if (is_listed(in, s.row)) {
        const row_of_call r = resolve(in, s.row);
        s.id = r.id;
        if (r.logits) s.kind = r.bad ? ONE_READ_NAN : ONE_READ_FORMULA;
    }
    if (!reports || s.kind == ONE_READ_FORMULA) return s;
    write_row(in, s.row, s.kind == ONE_READ_NAN ? sb_float(SB_NAN_BITS) : 0.0f);
    if (s.kind == ONE_READ_NAN) {
        const bool id = s.id < 0 || s.id >= in.vocab;
        report(in, id ? SB_BAD_ID : SB_BAD_TEMPERATURE, s.row);
    }
    return s;
}

/* ---- row warps ---------------------------------------------------------------------------- */

/* The least logit that the table serves with a gradient, as a pair: one whose probability is at
 * least 2^-124, so it is not out, and whose magnitude the table reaches. e is eS, at most 100. */
SB_DET uint32_t least_by_table(int32_t e, float c)
{
    const float far = (float)(e - 124) / c, range = -(SB_CUDA_TABLE_OCTAVES - 1.0f) / c;
    return __byte_perm(sb_bits32(far > range ? far : range), 0, 0x3232); /* towards 0 */
}

/* The lg of the term of a target whose logit is x; anything if x is not finite. */
SB_DET sb_lg target_log(float x, const sb_row &row)
{
    sb_mantissa term = { 0, 0 };
    if (sb_is_finite(x)) term = sb_target_mantissa(x, &row);
    return sb_log2_parts(term.m, term.e);
}

/* The constants of a row that has a sum, in lane 0. Called by the whole warp. */
SB_DET void set_constants(one_read_row *to, const sb_cuda_one_read_args &a, const sb_lg &sum,
                          const sb_lg &target, float x, float up, int64_t id)
{
    const sb_row &row = a.gradient.in.row;
    const int lane = threadIdx.x % WARP;
    const int32_t e = sum.e;
    const float tau = a.gradient.in.temperature;
    const double token = tau == 1.0f ? (double)up : (double)up / (double)tau; /* a division less */
    /* lane 0: -w before its rounding; lane 1: the target's p, but for its exponent */
    const double ratio = (lane == 1 ? target.g : token) / sum.g;
    int32_t d = target.e - e;
    d = d < -1000 ? -1000 : d > 1000 ? 1000 : d;
    const double p = ratio * sb_double((uint64_t)((int64_t)d + 1023) << 52);
    const float own = sb_is_absent(x) ? 0.0f : sb_gradient_nan((float)(token * (1.0 - p) + 0.0));
    to->own = __shfl_sync(FULL, own, 1); /* the same in all lanes */
    if (lane != 0) return;
    const float w = (float)-ratio, fe = (float)e;
    to->g.c = row.c, to->g.lim = row.lim, to->g.e = fe, to->g.magic = SB_INT_MAGIC - fe;
    to->g.token = w, to->g.entropy = to->g.s = 0.0f;
    to->g.plain = sb_is_below(w, 0x1p+100f) && sb_is_below(fe, 0x1p+19f);
    to->target = (int32_t)id;
    to->kind = ONE_READ_FORMULA;
    to->least = SLOW;
    if (!to->g.plain || e < -100 || e > 100 || (a.ties && e % 2 != 0)) return;
    /* v w = T(x) * 2^24 * scale must hold exactly */
    to->scale = (float)((double)w * sb_double((uint64_t)(int64_t)(1023 - 24 - e) << 52));
    const uint32_t exponent = sb_bits32(to->scale) & SB_INF_BITS;
    if (w == 0.0f || (exponent != 0 && exponent != SB_INF_BITS))
        to->least = least_by_table(e, row.c);
}

/* Row warp w takes every SB_CUDA_ROW_WARPS-th of the team's rows. The trip warps wait for a row's
 * constants, so what does not need its sum is made before it is there, and its results after the
 * constants; but the derivative of a policy loss follows from the logprob. policy is null if there
 * is none. Inlined, so that arguments come from constant memory: a reference to them is a load from
 * global memory each time, which misses L1, because the stores of gradients sweep it. */
template <rules_kind KIND>
SB_DET void make_rows(const sb_cuda_one_read_args &a, const sb_cuda_policy_args *policy,
                      one_read_memory *mine, int team, int rank, int rows, int w)
{
    const sb_cuda_args &in = a.gradient.in;
    constexpr bool POLICY = KIND != RULES_NONE;
    const int lane = threadIdx.x % WARP;
    const mailbox box = { (char *)a.exchange + (int64_t)team * SB_CUDA_TEAM_BYTES(a.team) +
                              w * SB_CUDA_MAILBOX(a.team),
                          a.team, rank };
    uint32_t exchange = 0;
    for (int k = w; k < rows; k += SB_CUDA_ROW_WARPS) {
        const int64_t source = team + (int64_t)k * a.teams;
        const scored_row s = find_scored(in, source, rank == 0 && lane == 0);
        one_read_row *to = &mine->rows[k % IN_FLIGHT];
        team_message message;
        sb_lg sum, target;
        policy_row loss;
        bool nan = true;
        float up = 0.0f;
        message.x = 0.0f;
        if (s.kind == ONE_READ_FORMULA) {
            if (POLICY) loss = policy_row_of(*policy, s.row);
            else up = ((const float *)a.gradient.token)[s.row];
            /* in place, the logit lasts until every block has sent it with its message */
            message.x = load_one<SB_CUDA_BF16>((const char *)in.logits + source * in.row_stride * 2,
                                               s.id);
            target = target_log(message.x, in.row);
        }
        wait_for_phase(address_of(&mine->summed[k % IN_FLIGHT]), k / IN_FLIGHT & 1);
        if (s.kind == ONE_READ_FORMULA) {
            merge_shared(&message.s, mine->states[k % IN_FLIGHT], SB_CUDA_TRIP_WARPS);
            exchange_message(box, ++exchange, &message);
            nan = sb_state_is_nan(&message.s);
            if (!nan) {
                const sb_mantissa m = sb_sum_mantissa(&message.s);
                sum = sb_log2_parts(m.m, m.e);
                if (POLICY)
                    up = derivative_of<KIND>(*policy, loss,
                                             sb_is_absent(message.x)
                                                 ? sb_float(SB_ABSENT_BITS)
                                                 : sb_logprob_of(target, sum, &in.row));
                set_constants(to, a, sum, target, message.x, up, s.id);
            }
        }
        if (lane == 0 && nan) {
            to->kind = s.kind == ONE_READ_ZERO ? ONE_READ_ZERO : ONE_READ_NAN;
            to->target = -1;
            to->least = SLOW;
        }
        arrive_as_warp(address_of(&mine->ready[k % IN_FLIGHT]));
        if (rank != 0 || s.kind != ONE_READ_FORMULA) continue;
        if (lane == 0) write_finished(in, s.row, nan, sb_is_absent(message.x), target, sum, in.row);
    }
}

#endif
