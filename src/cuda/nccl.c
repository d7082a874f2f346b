/* nccl.c - see nccl.h. */
#include "cuda/nccl.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

#define NAME "libnccl.so.2"

/* A function pointer of any type, from dlsym. */
static int find(void *library, const char *symbol, void *field)
{
    void *address = dlsym(library, symbol);
    memcpy(field, &address, sizeof address);
    return address != NULL;
}

static sb_status find_all(sb_nccl *nccl, const char *file, sb_message *why)
{
#define SB_NCCL_FIND(name, symbol, result, arguments)                                              \
    if (!find(nccl->library, #symbol, &nccl->name))                                                \
        return sb_fail(why, SB_ERR_BACKEND, "%.120s is no NCCL, or too old: it lacks " #symbol,    \
                       file);
    SB_NCCL_SYMBOLS(SB_NCCL_FIND)
#undef SB_NCCL_FIND
    return SB_OK;
}

/* If the process has already loaded a library of this name, such as PyTorch's, dlopen returns that
 * one. RTLD_NODELETE keeps the code in memory after dlclose, because the threads of a communicator
 * that was never destroyed may still run it. */
sb_status sb_nccl_load(sb_nccl *nccl, sb_message *why)
{
    const char *named = getenv("SAMEBITS_NCCL"), *file = named && *named ? named : NAME;
    sb_status status;
    if (nccl->library) return SB_OK;
    nccl->library = dlopen(file, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    if (!nccl->library) {
        const char *said = dlerror();
        return sb_fail(why, SB_ERR_BACKEND, "there is no NCCL: %.130s; looked for %s",
                       said ? said : "dlopen failed",
                       file == named ? "what SAMEBITS_NCCL names"
                                     : NAME " in LD_LIBRARY_PATH and ld.so.conf; SAMEBITS_NCCL may "
                                            "name a file");
    }
    status = find_all(nccl, file, why);
    if (status != SB_OK) sb_nccl_unload(nccl);
    return status;
}

void sb_nccl_unload(sb_nccl *nccl)
{
    if (nccl->library) dlclose(nccl->library);
    nccl->library = NULL;
}

sb_status sb_nccl_failed(sb_message *why, const sb_nccl *nccl, void *comm, const char *what,
                         int result)
{
    const char *text = nccl->GetErrorString(result), *more = nccl->GetLastError(comm);
    int misuse = result == SB_NCCL_INVALID_ARGUMENT || result == SB_NCCL_INVALID_USAGE;
    return sb_fail(why, misuse ? SB_ERR_ARGUMENT : SB_ERR_DEVICE, "%s gave %.80s (%d)%s%.110s",
                   what, text ? text : "an error", result, more && *more ? ": " : "",
                   more && *more ? more : "");
}
