/* capture.h - captures into CUDA graphs that others have under way, in this thread or any one:
 * what is put into a stream meanwhile, and what may not be done. */
#ifndef SB_CUDA_CAPTURE_H
#define SB_CUDA_CAPTURE_H

#include "cuda/driver.h"

/* Whether what is put into a stream is captured instead of done; then *number is the capture's,
 * which no other one of the process has. */
int sb_cuda_is_captured(const sb_cuda_driver *driver, CUstream stream, uint64_t *number);

/* Waits for a stream. One that is being captured cannot be waited for: an error in words, and the
 * capture stays good, which the driver's refusal would end. */
sb_status sb_cuda_wait(const sb_cuda_driver *driver, CUstream stream, sb_message *why);

#endif
