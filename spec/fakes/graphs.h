/* graphs.h - the driver's stream captures: while one is under way, the work that is put into a
 * stream is kept instead of done, and a launch of the graph does it.
 *
 * Stricter than CUDA: no other work is allowed meanwhile, in any stream, unless the thread's
 * capture mode is relaxed. A call that waits, allocates or frees during a capture therefore fails,
 * and so does the capture. A call that waits for the captured stream always fails. */
#ifndef FAKES_GRAPHS_H
#define FAKES_GRAPHS_H

#include <stddef.h>

#include "cuda/driver.h"

/* Something to do, from a copy of its arguments. */
typedef CUresult (*graph_work)(const void *arguments);

/* For the work of a driver call in a stream: does it now, or keeps it. */
CUresult graph_do(CUstream stream, graph_work work, const void *arguments, size_t bytes);

/* For calls that cannot be captured: CUDA_SUCCESS, or an error if a capture is under way. */
CUresult graph_forbids(void);

/* The same for calls that wait for a stream. */
CUresult graph_forbids_waiting(CUstream stream);

/* driver.c: whether the default stream and a stream wait for each other. While such a stream is
 * captured, no work may be put into the default stream. */
int stream_blocks(CUstream stream);

#endif
