/* plays.c - the additions that make spec/fakes/nccl.c NCCL for a process of its own:
 *
 *     cc -shared -fPIC -Isrc -o libnccl.so.2 spec/fakes/nccl.c spec/exchange/plays.c -ldl
 *
 * STANDIN in the environment names the fault that it plays. */
#include "../fakes/nccl.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

int plays(const char *fault)
{
    const char *standin = getenv("STANDIN");
    return standin && strcmp(standin, fault) == 0;
}

/* The process has loaded it. */
void *driver_function(const char *symbol)
{
    void *driver = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    return driver ? dlsym(driver, symbol) : NULL;
}
