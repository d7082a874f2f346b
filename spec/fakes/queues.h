/* queues.h - streams that run late: with LANES_LATE in the environment, the work in a stream is
 * done only when a call waits for the stream. Code that uses memory too early, or frees it too
 * early, therefore shows.
 *
 * Stricter than CUDA, whose cuMemFree waits for the device: memory that work in a stream still
 * refers to may not be freed. That ends the process with a message. */
#ifndef FAKES_QUEUES_H
#define FAKES_QUEUES_H

#include "graphs.h"

/* Does the work now, or late. */
CUresult queue_do(CUstream stream, graph_work work, const void *arguments, size_t bytes);

/* Does the work that is in a stream. */
CUresult queue_finish(CUstream stream);

/* Whether streams run late. */
int queue_is_late(void);

/* Memory is about to be freed. */
void queue_forbids_freeing(uintptr_t first, size_t bytes);

#endif
