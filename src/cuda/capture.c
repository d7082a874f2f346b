/* capture.c - see capture.h. */
#include "cuda/capture.h"

/* A query that fails (of the default stream, while a stream that waits for it is captured) ends no
 * capture; what is done next there is refused by the driver in its own words. */
int sb_cuda_is_captured(const sb_cuda_driver *driver, CUstream stream, uint64_t *number)
{
    int status = CU_STREAM_CAPTURE_STATUS_NONE;
    return driver->StreamGetCaptureInfo(stream, &status, number, NULL, NULL, NULL) ==
               CUDA_SUCCESS &&
           status != CU_STREAM_CAPTURE_STATUS_NONE;
}

sb_status sb_cuda_wait(const sb_cuda_driver *driver, CUstream stream, sb_message *why)
{
    uint64_t number;
    if (sb_cuda_is_captured(driver, stream, &number))
        return sb_fail(why, SB_ERR_ARGUMENT,
                       "the stream is being captured into a graph: nothing can wait for it");
    DRIVER(why, driver, StreamSynchronize, stream);
    return SB_OK;
}
