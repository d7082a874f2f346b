/* rows.cuh - rows of calls that need not have ids: what becomes of each, found out by one thread
 * for its block. */
#pragma once

#include "common.cuh"
#include "finish.cuh"

/* What became of a row: sb_cuda_target.active. */
#define ROW_IGNORED 0
#define ROW_ACTIVE 1
#define ROW_REFUSED 2 /* and reported: NaN */
#define ROW_UNKNOWN 3 /* the row list is bad here: nothing is written */
#define ROW_NAN 4     /* poisoned or empty */

struct order_row {
    sb_row row;
    const char *logits;
    int64_t number;
    int32_t fate;
};

/* Whether any of row's ids is not ignored; *bad: whether one of them is out of range. */
SB_DET bool has_ids(const sb_cuda_args &in, int64_t row, bool *bad)
{
    bool any = in.width == 0;
    *bad = false;
    for (int64_t i = 0; i < in.width; i++) {
        const int64_t id = int_at(in.ids, in.ids_dtype, row * in.width + i);
        if (id == in.ignore_index) continue;
        any = true;
        *bad |= id < 0 || id >= in.vocab;
    }
    return any;
}

/* By one thread. writes: whether it also reports. */
SB_DET void set_order_row(const sb_cuda_args &in, order_row *mine, int64_t item, bool writes)
{
    bool bad;
    mine->fate = ROW_UNKNOWN;
    if (!listed_well(in, item)) {
        if (writes) report(in, SB_BAD_ROW_LIST, item);
        return;
    }
    const int64_t row = row_at(in, item);
    mine->number = row;
    mine->fate = ROW_IGNORED;
    if (in.mask && !((const uint8_t *)in.mask)[row]) return;
    if (in.shift && starts_sequence(in, row)) return;
    if (!has_ids(in, row, &bad)) return;
    const float tau = in.temperatures ? ((const float *)in.temperatures)[row] : in.temperature;
    mine->fate = ROW_REFUSED;
    if (bad || !sb_temperature_ok(tau)) {
        if (writes) report(in, bad ? SB_BAD_ID : SB_BAD_TEMPERATURE, row);
        return;
    }
    mine->fate = ROW_ACTIVE;
    mine->row = constants_of(in, tau);
    mine->logits = logits_of(in, row);
}

SB_DET int64_t warp_item() { return (blockIdx.x * (int64_t)blockDim.x + threadIdx.x) / WARP; }

SB_DET float nan_or_nothing(int32_t fate)
{
    return fate == ROW_IGNORED ? 0.0f : sb_float(SB_NAN_BITS);
}
