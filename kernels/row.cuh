/* row.cuh - finds the row that a block or a warp works on: whether the row is active, where its
 * logits lie, its constants, and the piece of it that a block takes.
 *
 * Every kernel uses the functions of this file, which follow the order of precedence that
 * samebits.h states. So all operations agree about which rows are ignored and which are refused.
 * One thread reports a bad value; nothing here waits. */
#pragma once

#include <stdint.h>

#include "../src/cuda/args.h"
#include "../src/det/accumulator.h"
#include "../src/det/convert.h"
#include "../src/det/saved.h"
#include "../src/det/sum.h"
#include "device.cuh"

/* ---- ids and sequences -------------------------------------------------------------------- */

SB_DET int64_t int_at(uint64_t data, int32_t dtype, int64_t i)
{
    return dtype == SB_CUDA_I64 ? ((const int64_t *)data)[i] : ((const int32_t *)data)[i];
}

/* The sequence that holds row in a packed batch: the last one that starts at or before it. */
SB_DET int64_t sequence_of(const sb_cuda_args &in, int64_t row)
{
    int64_t low = 0, high = in.batch;
    while (high - low > 1) {
        int64_t middle = low + (high - low) / 2;
        if (int_at(in.cu_seqlens, in.cu_seqlens_dtype, middle) <= row) low = middle;
        else high = middle;
    }
    return low;
}

/* Row 0 starts a sequence even if cu_seqlens, which may be bad, does not say so: no logits lie in
 * front of its own. */
SB_DET bool starts_sequence(const sb_cuda_args &in, int64_t row)
{
    if (row == 0) return true;
    if (!in.cu_seqlens) return row % in.time == 0;
    return int_at(in.cu_seqlens, in.cu_seqlens_dtype, sequence_of(in, row)) == row;
}

/* The rows of sequence b, first .. last - 1. Returns false if its cu_seqlens are invalid; the
 * sequence then counts as empty. */
SB_DET bool extent_of(const sb_cuda_args &in, int64_t b, int64_t *first, int64_t *last)
{
    bool well;
    if (!in.cu_seqlens) {
        *first = b * in.time;
        *last = *first + in.time;
        return true;
    }
    *first = int_at(in.cu_seqlens, in.cu_seqlens_dtype, b);
    *last = int_at(in.cu_seqlens, in.cu_seqlens_dtype, b + 1);
    well = *first >= 0 && *first <= *last && *last <= in.rows && (b > 0 || *first == 0) &&
           (b + 1 < in.batch || *last == in.rows) && *last - *first <= SB_SUM_MAX;
    if (!well) *last = *first;
    return well;
}

/* ---- work items --------------------------------------------------------------------------- */

/* The row that a work item stands for. Rows of 16-bit logits that start at different alignments are
 * visited by alignment, so that blocks that run together run the same code. */
SB_DET int64_t row_at(const sb_cuda_args &in, int64_t item)
{
    if (in.row_list) return ((const int64_t *)in.row_list)[item];
    if (!in.phases) return item;
    uint32_t i = (uint32_t)item, work = (uint32_t)in.work; /* a grid has fewer than 2^31 blocks */
    uint32_t phases = (uint32_t)in.phases;
    uint32_t each = work / phases, more = work % phases, longer = more * (each + 1);
    if (i < longer) return i / (each + 1) + i % (each + 1) * phases;
    i -= longer;
    return more + i / each + i % each * phases;
}

/* The work item of a warp, in kernels that give one warp to each item. */
SB_DET int64_t warp_item() { return (blockIdx.x * (int64_t)blockDim.x + threadIdx.x) / WARP; }

/* Whether entry i of the row list is inside the batch and larger than the entry before it. The
 * caller reports an entry that is not, and leaves its row alone. */
SB_DET bool listed_well(const sb_cuda_args &in, int64_t i)
{
    const int64_t *list = (const int64_t *)in.row_list;
    if (!list) return true;
    return list[i] >= 0 && list[i] < in.rows && (i == 0 || list[i] > list[i - 1]);
}

SB_DET bool is_listed(const sb_cuda_args &in, int64_t row)
{
    const int64_t *list = (const int64_t *)in.row_list;
    int64_t low = 0, high = in.row_count;
    if (!list) return true;
    while (low < high) {
        int64_t middle = low + (high - low) / 2;
        if (list[middle] < row) low = middle + 1;
        else high = middle;
    }
    return low < in.row_count && list[low] == row;
}

/* Tells the host about a bad value. The report is a single store of 8 bytes, so it is consistent
 * whichever thread writes last. */
SB_DET void report(const sb_cuda_args &in, int64_t kind, int64_t index)
{
    *(volatile int64_t *)in.bad = kind << SB_BAD_SHIFT | (in.before + index + 1);
}

/* ---- a row -------------------------------------------------------------------------------- */

struct row_of_call {
    const char *logits; /* null: the row is ignored */
    int64_t id;
    float tau;
    bool bad; /* the id, the temperature or the list is bad: the row is reported and becomes NaN */
};

/* Whether row has a bad list, which lists_words has found and reported. */
SB_DET bool is_refused(const sb_cuda_args &in, int64_t row)
{
    return in.refused && ((const uint8_t *)in.refused)[row];
}

SB_DET bool is_active(const sb_cuda_args &in, int64_t row, int64_t id)
{
    return id != in.ignore_index && !(in.mask && !((const uint8_t *)in.mask)[row]) &&
           !(in.shift && starts_sequence(in, row));
}

/* The logits that score row. */
SB_DET const char *logits_of(const sb_cuda_args &in, int64_t row)
{
    int64_t source = row - in.shift, element;
    if (in.flat) element = source * in.row_stride;
    else element = source / in.time * in.batch_stride + source % in.time * in.row_stride;
    return (const char *)in.logits + element * in.itemsize;
}

/* Whether id, which is in range, is in row's kept set. */
SB_DET bool is_kept(const sb_cuda_args &in, int64_t row, int64_t id)
{
    const uint32_t *kept = (const uint32_t *)in.kept;
    return !kept || (kept[row * in.kept_stride + id / 32] >> (id % 32) & 1);
}

SB_DET float temperature_of(const sb_cuda_args &in, int64_t row)
{
    return in.temperatures ? ((const float *)in.temperatures)[row] : in.temperature;
}

SB_DET sb_row constants_of(const sb_cuda_args &in, float tau)
{
    return in.temperatures ? sb_row_of(tau) : in.row;
}

/* Whether row is active and where its logits lie. */
SB_DET row_of_call resolve(const sb_cuda_args &in, int64_t row)
{
    row_of_call r;
    r.logits = nullptr;
    r.bad = false;
    r.tau = 1.0f;
    r.id = int_at(in.ids, in.ids_dtype, row);
    if (!is_active(in, row, r.id)) return r;
    r.tau = temperature_of(in, row);
    r.bad = r.id < 0 || r.id >= in.vocab || !sb_temperature_ok(r.tau) || is_refused(in, row);
    r.logits = logits_of(in, row);
    return r;
}

/* Reports a bad row, unless it is its list that is bad. */
SB_DET void report_row(const sb_cuda_args &in, const row_of_call &r, int64_t row)
{
    if (r.id < 0 || r.id >= in.vocab) report(in, SB_BAD_ID, row);
    else if (!sb_temperature_ok(r.tau)) report(in, SB_BAD_TEMPERATURE, row);
}

/* The outputs of a row that has no sum: ignored (0) or refused (NaN). */
SB_DET void write_row(const sb_cuda_args &in, int64_t r, float x)
{
    if (in.tokens) ((float *)in.tokens)[r] = x;
    if (in.lse) ((float *)in.lse)[r] = x;
    if (in.entropy) ((float *)in.entropy)[r] = x;
    if (in.saved) ((sb_saved *)in.saved)[r] = sb_saved_none();
}

/* A row as one thread finds it. done: nothing is to be summed. */
struct visit {
    row_of_call r;
    int64_t number;
    bool done;
};

/* Finds the row of a work item. writes: this thread also writes the outputs of a row that is done,
 * and reports it if it is bad. */
SB_DET visit visit_row(const sb_cuda_args &in, int64_t item, bool writes)
{
    visit v;
    v.done = true;
    if (in.simple) { /* a short way for the common case; a row that is not active goes on below */
        v.number = row_at(in, item);
        v.r.id = int_at(in.ids, in.ids_dtype, v.number);
        v.r.logits = (const char *)in.logits + v.number * in.row_stride * in.itemsize;
        v.r.tau = 1.0f;
        v.done = v.r.id == in.ignore_index || (uint64_t)v.r.id >= (uint64_t)in.vocab;
        if (!v.done) return v;
    }
    if (!listed_well(in, item)) {
        if (writes) report(in, SB_BAD_ROW_LIST, item);
        return v;
    }
    v.number = row_at(in, item);
    v.r = resolve(in, v.number);
    if (!v.r.logits) {
        if (writes) write_row(in, v.number, 0.0f);
    } else if (v.r.bad) {
        if (writes) {
            write_row(in, v.number, sb_float(SB_NAN_BITS));
            report_row(in, v.r, v.number);
        }
    } else {
        v.done = false;
    }
    return v;
}

/* ---- a block's row ------------------------------------------------------------------------ */

/* A block's row. One thread finds it for the whole block. It is kept in shared memory, so that no
 * thread holds it in registers through the hot loop. */
struct block_row {
    sb_row row;
    const char *logits;
    int64_t number, id;
    int done;
};

/* Sets a block's row. Called by one thread. writes: as for visit_row. */
SB_DET void set_block_row(const sb_cuda_args &in, block_row *mine, int64_t item, bool writes)
{
    visit v = visit_row(in, item, writes);
    mine->done = v.done;
    if (v.done) return;
    mine->row = constants_of(in, v.r.tau);
    mine->logits = v.r.logits;
    mine->number = v.number;
    mine->id = v.r.id;
}

/* ---- a block's row in calls with any number of ids ---------------------------------------- */

/* The fate of such a row. Between kernels, sb_cuda_target.active holds it. */
#define ROW_IGNORED 0
#define ROW_ACTIVE 1
#define ROW_REFUSED 2 /* reported, and NaN */
#define ROW_UNKNOWN 3 /* the row list is bad here: nothing is written */
#define ROW_NAN 4     /* poisoned or empty */

struct any_row {
    sb_row row;
    const char *logits;
    int64_t number;
    int32_t fate;
};

/* Whether any of some ids is not ignored. Sets *bad if one of these is out of range. One thread
 * looks at all of them, so their loads must not wait for each other. */
template <class ID> SB_DET bool look_at_ids(const sb_cuda_args &in, const ID *ids, bool *bad)
{
    bool any = false, out = false;
#pragma unroll 8
    for (int64_t i = 0; i < in.width; i++) {
        const int64_t id = ids[i];
        const bool counts = id != in.ignore_index;
        any |= counts;
        out |= counts & ((uint64_t)id >= (uint64_t)in.vocab);
    }
    *bad = out;
    return any;
}

/* The same of a row's ids. A row without ids counts as one that has some. */
SB_DET bool has_ids(const sb_cuda_args &in, int64_t row, bool *bad)
{
    const int64_t first = row * in.width;
    *bad = false;
    if (in.width == 0) return true;
    if (in.ids_dtype == SB_CUDA_I64) return look_at_ids(in, (const int64_t *)in.ids + first, bad);
    return look_at_ids(in, (const int32_t *)in.ids + first, bad);
}

/* Sets a block's row. Called by one thread. writes: this thread also reports a bad row. */
SB_DET void set_any_row(const sb_cuda_args &in, any_row *mine, int64_t item, bool writes)
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
    const float tau = temperature_of(in, row);
    mine->fate = ROW_REFUSED;
    if (bad || !sb_temperature_ok(tau)) {
        if (writes) report(in, bad ? SB_BAD_ID : SB_BAD_TEMPERATURE, row);
        return;
    }
    if (is_refused(in, row)) return;
    mine->fate = ROW_ACTIVE;
    mine->row = constants_of(in, tau);
    mine->logits = logits_of(in, row);
}

/* The float output of a row that has no sum. */
SB_DET float nan_or_nothing(int32_t fate)
{
    return fate == ROW_IGNORED ? 0.0f : sb_float(SB_NAN_BITS);
}

/* ---- a part of a row ---------------------------------------------------------------------- */

/* A block's part of a row: its leaves first .. last - 1. A thread takes leaf first + threadIdx.x
 * and every blockDim.x-th after it. */
struct part_of_row {
    const char *logits; /* of the first id that the call holds */
    int64_t vocab;      /* the number of ids held; at most 2^20, so leaf numbers fit 32 bits */
    int32_t first, last;
};

SB_DET int leaves_in(int64_t vocab) { return (int)((vocab + SB_LEAF - 1) / SB_LEAF); }

/* Piece number piece of a row, of which the call holds held logits. */
SB_DET part_of_row piece_of_row(const sb_cuda_args &in, const char *logits, int64_t held, int piece)
{
    part_of_row part;
    part.logits = logits;
    part.vocab = held;
    part.first = (int)(piece * in.piece);
    part.last = min(part.first + (int)in.piece, leaves_in(held));
    return part;
}
