/* nccl.h - the part of NCCL that exchange.c uses, loaded with dlopen. Building does not need NCCL,
 * and neither does running without an exchange. The declarations are our own. */
#ifndef SB_NCCL_H
#define SB_NCCL_H

#include "backend.h"

enum {
    SB_NCCL_SUCCESS = 0,
    SB_NCCL_INVALID_ARGUMENT = 4,
    SB_NCCL_INVALID_USAGE = 5,
    SB_NCCL_IN_PROGRESS = 7,
    SB_NCCL_UINT8 = 1, /* types */
    SB_NCCL_INT32 = 2,
    SB_NCCL_INT64 = 4,
    SB_NCCL_SUM = 0, /* operations */
    SB_NCCL_MAX = 2
};

/* Field, symbol in the library, result, arguments. Communicators and streams are void *; the 128
 * bytes of an id are passed by value. */
#define SB_NCCL_SYMBOLS(X)                                                                         \
    X(GetErrorString, ncclGetErrorString, const char *, (int))                                     \
    X(GetLastError, ncclGetLastError, const char *, (void *))                                      \
    X(GetUniqueId, ncclGetUniqueId, int, (sb_comm_id *))                                           \
    X(CommInitRank, ncclCommInitRank, int, (void **, int, sb_comm_id, int))                        \
    X(CommDestroy, ncclCommDestroy, int, (void *))                                                 \
    X(CommAbort, ncclCommAbort, int, (void *))                                                     \
    X(CommCount, ncclCommCount, int, (const void *, int *))                                        \
    X(CommUserRank, ncclCommUserRank, int, (const void *, int *))                                  \
    X(CommCuDevice, ncclCommCuDevice, int, (const void *, int *))                                  \
    X(CommGetAsyncError, ncclCommGetAsyncError, int, (void *, int *))                              \
    X(GroupStart, ncclGroupStart, int, (void))                                                     \
    X(GroupEnd, ncclGroupEnd, int, (void))                                                         \
    X(AllGather, ncclAllGather, int, (const void *, void *, size_t, int, void *, void *))          \
    X(AllReduce, ncclAllReduce, int, (const void *, void *, size_t, int, int, void *, void *))

typedef struct sb_nccl {
    void *library; /* null: not loaded */
#define SB_NCCL_FIELD(name, symbol, result, arguments) result(*name) arguments;
    SB_NCCL_SYMBOLS(SB_NCCL_FIELD)
#undef SB_NCCL_FIELD
} sb_nccl;

/* Loads the library unless it is loaded. On failure nothing stays loaded, and why says which file
 * was tried. */
sb_status sb_nccl_load(sb_nccl *nccl, sb_message *why);
void sb_nccl_unload(sb_nccl *nccl);

/* Writes a message for an NCCL function that failed, with NCCL's own text. comm may be null. */
sb_status sb_nccl_failed(sb_message *why, const sb_nccl *nccl, void *comm, const char *what,
                         int result);

#endif
