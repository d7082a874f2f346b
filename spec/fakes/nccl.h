/* nccl.h - the parts that a program linked with nccl.c adds to it: the faults that it plays, and
 * the place of the CUDA driver. */
#ifndef FAKES_NCCL_H
#define FAKES_NCCL_H

#include "cuda/nccl.h"

/* NCCL's functions with the types of the library's list, so that the compiler compares them. */
#define FAKES_DECLARE(field, symbol, result, arguments) result symbol arguments;
SB_NCCL_SYMBOLS(FAKES_DECLARE)
#undef FAKES_DECLARE

/* Whether a fault is played now: a function's name, it fails; "slow", groups go on after they end;
 * "late", a group that went on has failed; "stall", groups never end; "lose", all-gathers do
 * nothing, as where the other ranks never come; "fail", they are found to have failed while the
 * stream is waited for. */
int plays(const char *fault);

/* The driver's function of that name; null if the driver lacks it. */
void *driver_function(const char *symbol);

/* The communicators and groups that are open. */
int nccl_holds(void);

#endif
