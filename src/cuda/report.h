/* report.h - the kernels' reports of bad input: one word per stream and per graph, in host memory
 * that the GPU writes to.
 *
 * A kernel stores a report (SB_BAD_* of args.h) into its call's word. If several rows or calls
 * share a word, the last store remains. The host takes reports by an atomic exchange, so that a
 * report that arrives meanwhile is either taken or remains, and is never overwritten.
 *
 *   SB_CUDA_CHECKED   for the call under way, if it has check: such a call waits, so one word is
 *                     enough
 *   SB_CUDA_SHARED    for streams and graphs that find all other words assigned
 *   half the others   one per stream, for its calls without check
 *   the other half    one per capture, for all of its calls: the graph may be launched in any
 *                     stream, for as long as it exists
 *
 * A word that is assigned to a stream or a capture belongs to it until the context is closed. */
#ifndef SB_CUDA_REPORT_H
#define SB_CUDA_REPORT_H

#include "cuda/driver.h"

enum { SB_CUDA_CHECKED, SB_CUDA_SHARED, SB_CUDA_FIRST_WORD };
enum { SB_CUDA_OWNERS = 255, SB_CUDA_WORDS = SB_CUDA_FIRST_WORD + 2 * SB_CUDA_OWNERS };

/* The streams, or captures, that have their own words: `count` words from index `first` on. */
typedef struct sb_cuda_owners {
    int first, count;
    uint64_t numbers[SB_CUDA_OWNERS]; /* a stream's handle, or the driver's number of a capture */
} sb_cuda_owners;

typedef struct sb_cuda_reports {
    _Atomic int64_t *words; /* SB_CUDA_WORDS; null: not opened */
    CUdeviceptr device;     /* the words' address for kernels */
    sb_cuda_owners streams, captures;
} sb_cuda_reports;

/* Allocates the words in the current context. close also frees what a failed open has allocated. */
sb_status sb_cuda_reports_open(sb_cuda_reports *reports, const sb_cuda_driver *driver,
                               sb_message *why);
void sb_cuda_reports_close(sb_cuda_reports *reports, const sb_cuda_driver *driver);

/* The word of a stream or of a capture; SB_CUDA_SHARED if no other word is left. */
int sb_cuda_word_of_stream(sb_cuda_reports *reports, CUstream stream);
int sb_cuda_word_of_capture(sb_cuda_reports *reports, uint64_t capture);

/* Takes a word's report: the last one stored since the word was last taken, or 0. */
int64_t sb_cuda_take_report(sb_cuda_reports *reports, int word);

/* Takes the report that sb_check returns for a stream. This is the first that exists of: the
 * stream's, the shared one, a graph's and, for the default stream, any other stream's. 0: there is
 * none. */
int64_t sb_cuda_take_any_report(sb_cuda_reports *reports, CUstream stream);

/* The address at which kernels store a word's report, for sb_cuda_args.bad. */
uint64_t sb_cuda_word_address(const sb_cuda_reports *reports, int word);

/* Writes a message for a report, without the row's id, which the report does not hold. 0: SB_OK. */
sb_status sb_cuda_name_report(sb_message *why, int64_t report);

#endif
