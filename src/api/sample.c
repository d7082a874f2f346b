/* sample.c - sb_sample: checks, then the backend. Values of single rows are checked by the backend,
 * because only it can read them. */
#include "api/sample.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "api/call.h"
#include "api/entry.h"
#include "api/run.h"
#include "det/sample.h"

/* ---- a row's values ------------------------------------------------------------------------ */

static uint64_t word_at(const uint64_t *data, int64_t row, uint64_t common)
{
    if (!data) return common;
    memcpy(&common, (const char *)data + row * 8, 8);
    return common;
}

sb_filters sb_filters_of(const sb_sampling *how, int64_t row)
{
    sb_filters f = { how->top_k, how->top_p, how->min_p };
    if (how->top_ks) f.top_k = (int32_t)sb_int_at(how->top_ks, SB_I32, row);
    if (how->top_ps) f.top_p = sb_float_at(how->top_ps, row);
    if (how->min_ps) f.min_p = sb_float_at(how->min_ps, row);
    return f;
}

int sb_has_filters(const sb_sampling *how)
{
    return how->top_ks || how->top_k || how->top_ps || how->top_p < 1.0f || how->min_ps ||
           how->min_p > 0.0f;
}

static double u_at(const sb_sampling *how, int64_t row)
{
    double u;
    memcpy(&u, (const char *)how->u + row * 8, 8);
    return u;
}

uint64_t sb_draw_bits(const sb_sampling *how, int64_t row)
{
    if (how->u) return sb_bits_of_u(u_at(how, row));
    if (how->bits) return word_at(how->bits, row, 0);
    return sb_random_bits(word_at(how->seeds, row, how->seed),
                          word_at(how->streams, row, how->stream),
                          word_at(how->positions, row, how->position));
}

/* ---- checks -------------------------------------------------------------------------------- */

/* For messages: a NaN loses its sign. */
static double printable(double x) { return x != x ? (double)sb_float(SB_NAN_BITS) : x; }

/* where: "" or "row N: ". */
static sb_status check_filters(const sb_filters *f, const char *where, sb_message *why)
{
    if (f->top_k < 0)
        return sb_fail(why, SB_ERR_ARGUMENT, "%stop_k is %d, below 0", where, (int)f->top_k);
    if (!sb_top_p_ok(f->top_p))
        return sb_fail(why, SB_ERR_ARGUMENT, "%stop_p is %.9g, outside (0, 1]", where,
                       printable((double)f->top_p));
    if (!sb_min_p_ok(f->min_p))
        return sb_fail(why, SB_ERR_ARGUMENT, "%smin_p is %.9g, outside [0, 1]", where,
                       printable((double)f->min_p));
    return SB_OK;
}

static sb_status check_row(const sb_sampling *how, int64_t row, sb_message *why)
{
    const sb_filters f = sb_filters_of(how, row);
    char where[32];
    sb_status status;
    snprintf(where, sizeof where, "row %" PRId64 ": ", row);
    status = check_filters(&f, where, why);
    if (status == SB_OK && how->u && !sb_u_ok(u_at(how, row)))
        return sb_fail(why, SB_ERR_ARGUMENT, "%su is %.17g, outside [0, 1)", where,
                       printable(u_at(how, row)));
    return status;
}

sb_status sb_check_sampling(const sb_sampling *how, const int64_t *active, int64_t actives,
                            sb_message *why)
{
    sb_status status = SB_OK;
    if (!how->top_ks && !how->top_ps && !how->min_ps && !how->u) return SB_OK;
    for (int64_t i = 0; i < actives && status == SB_OK; i++)
        status = check_row(how, active[i], why);
    return status;
}

sb_status sb_check_device_sampling(const sb_call *call, const sb_sampling *how, sb_message *why)
{
    int64_t actives;
    int64_t *active = malloc((size_t)call->rows * sizeof *active + 1);
    sb_status status;
    if (!active) return sb_fail(why, SB_ERR_MEMORY, "no memory to look for the bad row");
    status = sb_list_active(call, active, &actives, why);
    if (status == SB_OK) status = sb_check_sampling(how, active, actives, why);
    free(active);
    return status;
}

sb_status sb_check_how(const sb_sampling *how, int64_t rows, sb_message *why)
{
    sb_filters f = { how->top_ks ? 0 : how->top_k, how->top_ps ? 1.0f : how->top_p,
                     how->min_ps ? 0.0f : how->min_p };
    sb_status status = check_filters(&f, "", why);
    if (status != SB_OK) return status;
    if (how->u && how->bits)
        return sb_fail(why, SB_ERR_ARGUMENT, "u and bits are given: they exclude each other");
    if (rows > 1 && f.top_k != 1 && !how->seeds && !how->streams && !how->positions && !how->u &&
        !how->bits)
        return sb_fail(why, SB_ERR_ARGUMENT,
                       "seeds, streams, positions, u and bits are null: all %" PRId64
                       " rows would draw with the same random bits",
                       rows);
    return SB_OK;
}

static sb_status sample(sb_context *ctx, const sb_sample_out *out, const sb_batch *batch,
                        const sb_sampling *how, const sb_launch *launch)
{
    sb_sample_call call;
    sb_message *why = &ctx->error;
    sb_status status;
    if (!out) return sb_fail(why, SB_ERR_ARGUMENT, "out is null");
    status = sb_check_size(out, sizeof *out, "sb_sample_out", "SB_SAMPLE_OUT_INIT", why);
    if (status == SB_OK) status = sb_wide_call_of(ctx, &call.call, batch, 0, launch);
    if (status == SB_OK) status = sb_check_kept_sets(ctx, &call.call, NULL);
    if (status != SB_OK) return status;
    if (!how) return sb_fail(why, SB_ERR_ARGUMENT, "how is null");
    status = sb_check_size(how, sizeof *how, "sb_sampling", "SB_SAMPLING_INIT", why);
    if (status == SB_OK) status = sb_check_how(how, call.call.rows, why);
    if (status != SB_OK) return status;
    if (call.call.rows > INT64_MAX / 4 / sb_kept_width(call.call.in.vocab))
        return sb_fail(why, SB_ERR_SHAPE,
                       "kept sets of %" PRId64 " rows reach past the address space",
                       call.call.rows);
    call.out = *out;
    call.how = *how;
    return sb_run(ctx, SB_OP_SAMPLE, &call, &call.call.launch);
}

sb_status sb_sample(sb_context *ctx, const sb_sample_out *out, const sb_batch *batch,
                    const sb_sampling *how, const sb_launch *launch)
{
    SB_INSIDE(ctx, sample(ctx, out, batch, how, launch));
}
