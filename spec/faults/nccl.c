/* nccl.c - a stand-in for NCCL: communicators of one rank, whose memory is the host's. It counts
 * what it gives, and every request can be refused. */
#include "cuda/nccl.h"

#include <string.h>

#include "inject.h"

static int world;

void *nccl_library(void) { return &world; }

/* ncclSystemError. */
#define REQUEST()                                                                                  \
    if (inject(__func__, FAULT_IS_ERROR)) return 2

static const char *ncclGetErrorString(int result) { return result ? "injected" : "no error"; }

static const char *ncclGetLastError(void *comm)
{
    (void)comm;
    return "by the faults program";
}

static int ncclGetUniqueId(sb_comm_id *id)
{
    REQUEST();
    memset(id, 1, sizeof *id);
    return SB_NCCL_SUCCESS;
}

static int ncclCommInitRank(void **comm, int ranks, sb_comm_id id, int rank)
{
    REQUEST();
    if (ranks != 1 || rank != 0 || id.bytes[127] != 1) return SB_NCCL_INVALID_ARGUMENT;
    held.driver++;
    *comm = &world;
    return SB_NCCL_SUCCESS;
}

static int ncclCommDestroy(void *comm)
{
    held.driver -= comm == &world;
    return SB_NCCL_SUCCESS;
}

static int ncclCommCount(const void *comm, int *count)
{
    (void)comm;
    REQUEST();
    *count = 1;
    return SB_NCCL_SUCCESS;
}

static int ncclCommUserRank(const void *comm, int *rank)
{
    (void)comm;
    REQUEST();
    *rank = 0;
    return SB_NCCL_SUCCESS;
}

static int ncclCommCuDevice(const void *comm, int *device)
{
    (void)comm;
    REQUEST();
    *device = 0;
    return SB_NCCL_SUCCESS;
}

/* What a group that goes on came to. */
static int ncclCommGetAsyncError(void *comm, int *result)
{
    (void)comm;
    REQUEST();
    *result = inject("an all-gather, later", FAULT_IS_ERROR) ? 6 : SB_NCCL_SUCCESS;
    return SB_NCCL_SUCCESS;
}

static int ncclGroupStart(void)
{
    REQUEST();
    held.driver++;
    return SB_NCCL_SUCCESS;
}

static int ncclGroupEnd(void)
{
    held.driver--; /* a group that is not ended is a leak, too */
    REQUEST();
    return SB_NCCL_IN_PROGRESS;
}

static int ncclAllGather(const void *from, void *to, size_t count, int type, void *comm,
                         void *stream)
{
    (void)type, (void)comm, (void)stream;
    REQUEST();
    memmove(to, from, count);
    return SB_NCCL_SUCCESS;
}

void *nccl_symbol(const char *name)
{
#define FIND(field, symbol, result, arguments)                                                     \
    if (strcmp(name, #symbol) == 0) {                                                              \
        result(*function) arguments = symbol;                                                      \
        void *address;                                                                             \
        memcpy(&address, &function, sizeof address);                                               \
        return address;                                                                            \
    }
    SB_NCCL_SYMBOLS(FIND)
    return NULL;
}
