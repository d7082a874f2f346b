/* report.h - what kernels report of bad input: one word a stream and a graph, in host memory
 * that the GPU writes to.
 *
 * A kernel stores a report (SB_BAD_* of args.h) into the word that its call was given; where
 * several rows or calls share a word, the last store stays. The host takes reports by an atomic
 * exchange, so that one that arrives meanwhile is either taken or left, never overwritten.
 *
 *   SB_CUDA_CHECKED   the word of the call under way, if it has a check: it waits, so one is enough
 *   SB_CUDA_SHARED    for streams and graphs that came when all other words were given away
 *   half the others   a stream's each, for its calls without a check
 *   the other half    a capture's each, for all of its calls: the graph may be launched in any
 *                     stream, and as long as it lives
 *
 * A word that was given to a stream or a capture stays with it until the context is closed. */
#ifndef SB_CUDA_REPORT_H
#define SB_CUDA_REPORT_H

#include "cuda/driver.h"

enum { SB_CUDA_CHECKED, SB_CUDA_SHARED, SB_CUDA_FIRST_WORD };
enum { SB_CUDA_OWNERS = 255, SB_CUDA_WORDS = SB_CUDA_FIRST_WORD + 2 * SB_CUDA_OWNERS };

/* Streams, or captures, that have a word of their own: the first `count` from `first` on. */
typedef struct sb_cuda_owners {
    int first, count;
    uint64_t numbers[SB_CUDA_OWNERS]; /* a stream's handle; what the driver calls a capture */
} sb_cuda_owners;

typedef struct sb_cuda_reports {
    _Atomic int64_t *words; /* SB_CUDA_WORDS; null: not opened */
    CUdeviceptr device;     /* where kernels see them */
    sb_cuda_owners streams, captures;
} sb_cuda_reports;

/* Opens them in the current context; close frees what an open that failed left, too. */
sb_status sb_cuda_reports_open(sb_cuda_reports *reports, const sb_cuda_driver *driver,
                               sb_message *why);
void sb_cuda_reports_close(sb_cuda_reports *reports, const sb_cuda_driver *driver);

/* The word of a stream or of a capture: SB_CUDA_SHARED where none is left. */
int sb_cuda_word_of_stream(sb_cuda_reports *reports, CUstream stream);
int sb_cuda_word_of_capture(sb_cuda_reports *reports, uint64_t capture);

/* Takes a word's report: 0, or what a kernel stored since it was last taken. */
int64_t sb_cuda_take_report(sb_cuda_reports *reports, int word);

/* Takes the report that sb_check of a stream tells: the stream's; else the shared one; else a
 * graph's; else, of the default stream, any other stream's. 0: there is none. */
int64_t sb_cuda_take_any_report(sb_cuda_reports *reports, CUstream stream);

/* Where kernels store a word's report: sb_cuda_args.bad. */
uint64_t sb_cuda_word_address(const sb_cuda_reports *reports, int word);

/* A report in words, the row's own id not being at hand. 0: SB_OK. */
sb_status sb_cuda_name_report(sb_message *why, int64_t report);

#endif
