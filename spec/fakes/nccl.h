/* nccl.h - what a program that is linked with nccl.c adds to it: which faults it plays, and where
 * the CUDA driver is. */
#ifndef FAKES_NCCL_H
#define FAKES_NCCL_H

#include "cuda/nccl.h"

/* NCCL's functions by the types of the library's list, so that the compiler compares them. */
#define FAKES_DECLARE(field, symbol, result, arguments) result symbol arguments;
SB_NCCL_SYMBOLS(FAKES_DECLARE)
#undef FAKES_DECLARE

/* Whether a fault is played now: a function's name, it fails; "slow", groups go on after they end;
 * "late", a group that went on has failed; "stall", groups never end; "lose", all-gathers do
 * nothing, as where the other ranks never come; "fail", they are found to have failed while the
 * stream is waited for. */
int plays(const char *fault);

/* The driver's function of that name; null: it lacks it. */
void *driver_function(const char *symbol);

/* The communicators and groups that are open. */
int nccl_holds(void);

#endif
