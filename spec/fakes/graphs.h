/* graphs.h - the driver's stream captures: what is put into a stream while one is under way is kept
 * instead of done, and a launch of the graph does it.
 *
 * Stricter than CUDA: nothing else is allowed meanwhile, in any stream, unless the thread's capture
 * mode is relaxed; so what waits, allocates or frees under a capture shows as an error of the call,
 * and of the capture. What waits for the captured stream always does. */
#ifndef FAKES_GRAPHS_H
#define FAKES_GRAPHS_H

#include <stddef.h>

#include "cuda/driver.h"

/* Something to do, from a copy of its arguments. */
typedef CUresult (*graph_work)(const void *arguments);

/* For what a driver call does in a stream: does it now, or keeps it. */
CUresult graph_do(CUstream stream, graph_work work, const void *arguments, size_t bytes);

/* For what cannot be captured: CUDA_SUCCESS, or an error where a capture is under way. */
CUresult graph_forbids(void);

/* The same for what waits for a stream. */
CUresult graph_forbids_waiting(CUstream stream);

/* driver.c: whether the default stream waits for a stream, and it for that. While such a one is
 * captured, nothing may be put into the default stream. */
int stream_blocks(CUstream stream);

#endif
