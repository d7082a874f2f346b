/* device.c - which of the driver's devices can be used: the GPU must have compute capability 8.0 or
 * later, for which the kernels are written. backend.c calls it to probe and to open. */
#include <stdio.h>

#include "cuda/cuda.h"

sb_status sb_cuda_find_device(const sb_cuda_driver *driver, int ordinal, CUdevice *device,
                              char isa[16], sb_message *why)
{
    int count = 0, major = 0, minor = 0;
    char name[96] = "";
    CUresult result = driver->DeviceGetCount(&count);
    if (result != CUDA_SUCCESS || count == 0) {
        char text[64];
        return sb_fail(why, SB_ERR_BACKEND, "there is no CUDA device: cuDeviceGetCount gave %s, %d",
                       sb_cuda_error(driver, result, text), count);
    }
    if (ordinal >= count)
        return sb_fail(why, SB_ERR_BACKEND, "there is no CUDA device %d: there are %d", ordinal,
                       count);
    DRIVER(why, driver, DeviceGet, device, ordinal);
    DRIVER(why, driver, DeviceGetAttribute, &major, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR,
           *device);
    DRIVER(why, driver, DeviceGetAttribute, &minor, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR,
           *device);
    if (major < 8) {
        driver->DeviceGetName(name, sizeof name, *device);
        return sb_fail(why, SB_ERR_BACKEND,
                       "CUDA device %d (%s) has compute capability %d.%d; 8.0 is needed", ordinal,
                       name, major, minor);
    }
    snprintf(isa, 16, "sm_%d%d", major, minor);
    return SB_OK;
}
