/* nccl.c - NCCL as spec/fakes/nccl.c plays it, for communicators of one rank: every request can be
 * refused, and groups go on after they end, and may fail then. */
#include "../fakes/nccl.h"

#include <string.h>

#include "inject.h"

static int library;

void *nccl_library(void) { return &library; }

int plays(const char *fault)
{
    if (strcmp(fault, "slow") == 0) return 1;
    if (strcmp(fault, "stall") == 0 || strcmp(fault, "lose") == 0 || strcmp(fault, "fail") == 0)
        return 0; /* nothing here waits for a minute */
    return inject(strcmp(fault, "late") == 0 ? "what was begun, later" : fault, FAULT_IS_ERROR);
}

void *driver_function(const char *symbol) { return driver_symbol(symbol); }

void *nccl_symbol(const char *name)
{
#define FIND(field, symbol, result, arguments)                                                     \
    if (strcmp(name, #symbol) == 0) {                                                              \
        result(*function) arguments = symbol;                                                      \
        return untyped(&function);                                                                 \
    }
    SB_NCCL_SYMBOLS(FIND)
    return NULL;
}
