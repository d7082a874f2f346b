/* driver.c - see driver.h. */
#include "cuda/driver.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

/* A function pointer of any type, from dlsym. */
static int find(void *library, const char *symbol, void *field)
{
    void *address = dlsym(library, symbol);
    memcpy(field, &address, sizeof address);
    return address != NULL;
}

/* For drivers that cannot even name the error with which they refuse to start. */
static const char *known_name(CUresult result)
{
    switch (result) {
    case CUDA_ERROR_NOT_INITIALIZED: return "CUDA_ERROR_NOT_INITIALIZED";
    case 34: return "CUDA_ERROR_STUB_LIBRARY";
    case 100: return "CUDA_ERROR_NO_DEVICE";
    case 803: return "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH";
    default: return "error";
    }
}

const char *sb_cuda_error(const sb_cuda_driver *driver, CUresult result, char text[64])
{
    const char *name = NULL;
    if (driver->GetErrorName) driver->GetErrorName(result, &name);
    snprintf(text, 64, "%.48s (%d)", name ? name : known_name(result), (int)result);
    return text;
}

sb_status sb_cuda_failed(sb_message *why, const sb_cuda_driver *driver, const char *what,
                         CUresult result)
{
    char text[64];
    return sb_fail(why, result == CUDA_ERROR_OUT_OF_MEMORY ? SB_ERR_MEMORY : SB_ERR_DEVICE,
                   "%s gave %s", what, sb_cuda_error(driver, result, text));
}

static sb_status init(sb_cuda_driver *driver, sb_message *why)
{
    char text[64];
    CUresult result;
#define SB_CUDA_FIND(name, symbol, arguments)                                                      \
    if (!find(driver->library, #symbol, &driver->name))                                            \
        return sb_fail(why, SB_ERR_BACKEND, "the CUDA driver is too old: it lacks " #symbol);
    SB_CUDA_SYMBOLS(SB_CUDA_FIND)
#undef SB_CUDA_FIND
    result = driver->Init(0);
    if (result == CUDA_SUCCESS) return SB_OK;
    return sb_fail(why, SB_ERR_BACKEND, "the CUDA driver does not start: cuInit gave %s%s",
                   sb_cuda_error(driver, result, text),
                   result == CUDA_ERROR_NOT_INITIALIZED
                       ? ", as in a child of fork() whose parent uses CUDA: start the child by "
                         "exec (spawn), or fork first"
                       : "");
}

sb_status sb_cuda_driver_load(sb_cuda_driver *driver, sb_message *why)
{
    sb_status status;
    memset(driver, 0, sizeof *driver);
    driver->library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    if (!driver->library) {
        const char *said = dlerror();
        return sb_fail(why, SB_ERR_BACKEND, "there is no CUDA driver: %.160s",
                       said ? said : "dlopen failed");
    }
    status = init(driver, why);
    if (status != SB_OK) sb_cuda_driver_unload(driver);
    return status;
}

void sb_cuda_driver_unload(sb_cuda_driver *driver)
{
    if (driver->library) dlclose(driver->library);
    driver->library = NULL;
}
