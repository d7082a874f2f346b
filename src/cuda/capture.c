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

int sb_cuda_beside_captures_begin(const sb_cuda_driver *driver)
{
    int mode = CU_STREAM_CAPTURE_MODE_RELAXED;
    driver->ThreadExchangeStreamCaptureMode(&mode);
    return mode;
}

void sb_cuda_beside_captures_end(const sb_cuda_driver *driver, int mode)
{
    driver->ThreadExchangeStreamCaptureMode(&mode);
}

sb_status sb_cuda_wait(const sb_cuda_driver *driver, CUstream stream, sb_message *why)
{
    uint64_t number;
    CUresult result;
    int mode;
    if (sb_cuda_is_captured(driver, stream, &number))
        return sb_fail(why, SB_ERR_ARGUMENT,
                       "the stream is being captured into a graph: nothing can wait for it");
    mode = sb_cuda_beside_captures_begin(driver);
    result = driver->StreamSynchronize(stream);
    sb_cuda_beside_captures_end(driver, mode);
    if (result == CUDA_SUCCESS) return SB_OK;
    return sb_cuda_failed(why, driver, "cuStreamSynchronize", result);
}
