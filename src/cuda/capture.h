/* capture.h - captures into CUDA graphs that the caller has under way, in this thread or another
 * one: how to detect them, and how to do what the driver forbids meanwhile. */
#ifndef SB_CUDA_CAPTURE_H
#define SB_CUDA_CAPTURE_H

#include "cuda/driver.h"

/* Sets *captured to whether work that is put into the stream is captured instead of run. If so,
 * *number is the capture's, which is unique in the process. Fails for the default stream while a
 * stream that waits for it is being captured: the default stream may not be used then, and an
 * attempt would end the capture. */
sb_status sb_cuda_find_capture(const sb_cuda_driver *driver, CUstream stream, int *captured,
                               uint64_t *number, sb_message *why);

/* While a capture is under way, the driver refuses operations that are not work in a stream, such
 * as allocating and freeing, and ends the capture with an error, because a graph cannot repeat
 * them. An operation that a graph need not repeat goes between these two functions, in one thread.
 * A garbage collector, for one, may free memory at any time. The argument of end is begin's result.
 */
int sb_cuda_beside_captures_begin(const sb_cuda_driver *driver);
void sb_cuda_beside_captures_end(const sb_cuda_driver *driver, int mode);

/* Waits for a stream, also while another one is being captured. For a stream that is itself being
 * captured this is an error, and the capture stays valid: the check comes before the driver's call,
 * which would end the capture. */
sb_status sb_cuda_wait(const sb_cuda_driver *driver, CUstream stream, sb_message *why);

#endif
