/* report.c - see report.h. */
#include "cuda/report.h"

#include <inttypes.h>
#include <stdatomic.h>

#include "api/records.h"
#include "cuda/sample_args.h"

#define INDEX_MASK (((int64_t)1 << SB_BAD_SHIFT) - 1)

sb_status sb_cuda_reports_open(sb_cuda_reports *reports, const sb_cuda_driver *driver,
                               sb_message *why)
{
    void *words;
    DRIVER(why, driver, MemHostAlloc, &words, SB_CUDA_WORDS * sizeof(int64_t),
           CU_MEMHOSTALLOC_PORTABLE | CU_MEMHOSTALLOC_DEVICEMAP);
    reports->words = words;
    for (int i = 0; i < SB_CUDA_WORDS; i++) atomic_init(&reports->words[i], 0);
    reports->streams.first = SB_CUDA_FIRST_WORD;
    reports->captures.first = SB_CUDA_FIRST_WORD + SB_CUDA_OWNERS;
    DRIVER(why, driver, MemHostGetDevicePointer, &reports->device, words, 0);
    return SB_OK;
}

void sb_cuda_reports_close(sb_cuda_reports *reports, const sb_cuda_driver *driver)
{
    if (reports->words) driver->MemFreeHost((void *)(uintptr_t)reports->words);
    reports->words = NULL;
}

/* ---- owners of words ---------------------------------------------------------------------- */

/* The legacy default stream has two handles. */
static uint64_t number_of(CUstream stream)
{
    return stream == SB_CUDA_LEGACY_STREAM ? 0 : (uint64_t)(uintptr_t)stream;
}

/* The owner's word; SB_CUDA_SHARED if it has none. */
static int find(const sb_cuda_owners *owners, uint64_t number)
{
    for (int i = owners->count - 1; i >= 0; i--)
        if (owners->numbers[i] == number) return owners->first + i;
    return SB_CUDA_SHARED;
}

static int word_of(sb_cuda_owners *owners, uint64_t number)
{
    int word = find(owners, number);
    if (word != SB_CUDA_SHARED || owners->count == SB_CUDA_OWNERS) return word;
    owners->numbers[owners->count] = number;
    return owners->first + owners->count++;
}

int sb_cuda_word_of_stream(sb_cuda_reports *reports, CUstream stream)
{
    return word_of(&reports->streams, number_of(stream));
}

int sb_cuda_word_of_capture(sb_cuda_reports *reports, uint64_t capture)
{
    return word_of(&reports->captures, capture);
}

uint64_t sb_cuda_word_address(const sb_cuda_reports *reports, int word)
{
    return reports->device + (uint64_t)word * sizeof(int64_t);
}

/* ---- taking reports ----------------------------------------------------------------------- */

int64_t sb_cuda_take_report(sb_cuda_reports *reports, int word)
{
    _Atomic int64_t *at = &reports->words[word];
    return atomic_load(at) ? atomic_exchange(at, 0) : 0;
}

/* Takes the first report that these owners have. */
static int64_t take_of_any(sb_cuda_reports *reports, const sb_cuda_owners *owners)
{
    int64_t report = 0;
    for (int i = 0; i < owners->count && !report; i++)
        report = sb_cuda_take_report(reports, owners->first + i);
    return report;
}

int64_t sb_cuda_take_any_report(sb_cuda_reports *reports, CUstream stream)
{
    const uint64_t number = number_of(stream);
    int64_t report = sb_cuda_take_report(reports, find(&reports->streams, number));
    if (!report) report = sb_cuda_take_report(reports, SB_CUDA_SHARED);
    if (!report) report = take_of_any(reports, &reports->captures);
    if (!report && number == 0) report = take_of_any(reports, &reports->streams);
    return report;
}

sb_status sb_cuda_name_report(sb_message *why, int64_t report)
{
    const int64_t index = (report & INDEX_MASK) - 1, kind = report >> SB_BAD_SHIFT;
    if (report == 0) return SB_OK;
    if (kind >= SB_BAD_RECORD)
        return sb_fail(why, SB_ERR_STATE, "row %" PRId64 ": %s", index,
                       sb_fault_text((int)(kind - SB_BAD_RECORD)));
    switch (kind) {
    case SB_BAD_ID:
        return sb_fail(why, SB_ERR_ID, "row %" PRId64 ": its id is outside [0, V)", index);
    case SB_BAD_TEMPERATURE:
        return sb_fail(why, SB_ERR_TEMPERATURE,
                       "row %" PRId64 ": its temperature is outside [2^-10, 2^10]", index);
    case SB_BAD_Q_TEMPERATURE:
        return sb_fail(why, SB_ERR_TEMPERATURE,
                       "row %" PRId64 ": q's temperature is outside [2^-10, 2^10]", index);
    case SB_BAD_KEPT_ID:
    case SB_BAD_Q_KEPT_ID:
        return sb_fail(why, SB_ERR_ID, "row %" PRId64 ": %s ids are outside [0, V), or do not rise",
                       index, kind == SB_BAD_KEPT_ID ? "its kept" : "q's kept");
    case SB_BAD_KEPT_OFFSETS:
    case SB_BAD_Q_KEPT_OFFSETS:
        return sb_fail(why, SB_ERR_SHAPE,
                       "row %" PRId64 ": %s offsets do not rise from 0 to the number of kept ids",
                       index, kind == SB_BAD_KEPT_OFFSETS ? "its kept" : "q's kept");
    case SB_BAD_WEIGHTS:
        return sb_fail(why, SB_ERR_STATE,
                       "row %" PRId64
                       " of the weights has NaN, infinity or a number of about 2^48 or more",
                       index);
    case SB_BAD_SCALE:
        return sb_fail(why, SB_ERR_STATE,
                       "row %" PRId64 ": its scale is below that of its own columns", index);
    case SB_BAD_SAMPLING:
        return sb_fail(why, SB_ERR_ARGUMENT,
                       "row %" PRId64 ": its top_k, top_p, min_p or u is out of range", index);
    case SB_BAD_ROW_LIST:
        return sb_fail(why, SB_ERR_SHAPE,
                       "row_list[%" PRId64 "] is outside the rows, or not above the one before it",
                       index);
    case SB_BAD_TOKENS:
        return sb_fail(why, SB_ERR_SHAPE, "%" PRId64 " tokens are active, and tokens is below that",
                       index);
    case SB_BAD_SEQUENCES:
        return sb_fail(why, SB_ERR_SHAPE,
                       "%" PRId64 " sequences have active tokens, and sequences is below that",
                       index);
    case SB_BAD_TALLY:
        return sb_fail(why, SB_ERR_STATE,
                       "record %" PRId64
                       ": no call gives it, or it does not fit the norm, the metrics or the others",
                       index);
    case SB_BAD_OFFSETS:
        return sb_fail(
            why, SB_ERR_SHAPE,
            "offsets around group %" PRId64 " do not rise from 0 to the number of rewards", index);
    case SB_BAD_GROUP:
        return sb_fail(why, SB_ERR_STATE,
                       "group %" PRId64
                       ": no call gives one of its records, or it has 2^26 rewards or more",
                       index);
    default:
        return sb_fail(why, SB_ERR_SHAPE,
                       "cu_seqlens around sequence %" PRId64
                       " do not rise from 0 to the number of rows",
                       index);
    }
}
