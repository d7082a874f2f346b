/* capture.c - see capture.h. */
#include "cuda/capture.h"

sb_status sb_cuda_find_capture(const sb_cuda_driver *driver, CUstream stream, int *captured,
                               uint64_t *number, sb_message *why)
{
    int status = CU_STREAM_CAPTURE_STATUS_NONE;
    *captured = 0;
    *number = 0;
    DRIVER(why, driver, StreamGetCaptureInfo, stream, &status, number, NULL, NULL, NULL);
    *captured = status != CU_STREAM_CAPTURE_STATUS_NONE;
    return SB_OK;
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
    int captured, mode;
    sb_status status = sb_cuda_find_capture(driver, stream, &captured, &number, why);
    if (status != SB_OK) return status;
    if (captured)
        return sb_fail(why, SB_ERR_ARGUMENT,
                       "the stream is being captured into a graph: nothing can wait for it");
    mode = sb_cuda_beside_captures_begin(driver);
    result = driver->StreamSynchronize(stream);
    sb_cuda_beside_captures_end(driver, mode);
    if (result == CUDA_SUCCESS) return SB_OK;
    return sb_cuda_failed(why, driver, "cuStreamSynchronize", result);
}
