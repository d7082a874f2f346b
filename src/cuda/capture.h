/* capture.h - captures into CUDA graphs that others have under way, in this thread or any one:
 * what is put into a stream meanwhile, and what may not be done. */
#ifndef SB_CUDA_CAPTURE_H
#define SB_CUDA_CAPTURE_H

#include "cuda/driver.h"

/* *captured: whether what is put into a stream is captured instead of done; then *number is the
 * capture's, which no other one of the process has. Fails for the default stream while one that
 * waits for it is captured: it may not be used, and what tried to would end the capture. */
sb_status sb_cuda_find_capture(const sb_cuda_driver *driver, CUstream stream, int *captured,
                               uint64_t *number, sb_message *why);

/* While a capture is under way, the driver refuses what is no work in a stream, as allocating and
 * freeing, and ends the capture with an error: a graph could not repeat it. What need not be
 * repeated, and may happen at any time, stands between these two, in one thread: a collector of
 * garbage frees when it will. begin gives what end takes. */
int sb_cuda_beside_captures_begin(const sb_cuda_driver *driver);
void sb_cuda_beside_captures_end(const sb_cuda_driver *driver, int mode);

/* Waits for a stream, beside captures. One that is being captured cannot be waited for: an error in
 * words, and the capture stays good, which the driver's refusal would end. */
sb_status sb_cuda_wait(const sb_cuda_driver *driver, CUstream stream, sb_message *why);

#endif
