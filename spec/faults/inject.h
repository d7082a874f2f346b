/* inject.h - makes the library's requests to the system fail, one at a time.
 *
 * The faults program is linked with the library's objects and -Wl,--wrap=NAME for each function
 * below, so that their calls, and only theirs, come here first. Calls that give a resource back are
 * never made to fail: they have no way to report it. */
#ifndef SB_INJECT_H
#define SB_INJECT_H

#include <stddef.h>

/* The required outcome of a refusal. */
enum { FAULT_IS_ERROR, FAULT_IS_NONE }; /* NONE: the library has another way, and takes it */

/* The request with the number target, counted from now on (from 0), fails. */
void inject_arm(int target);
void inject_disarm(void);

/* Called when memory has next been freed, once; null: nothing is. */
void inject_after_free(void (*then)(void));

/* Requests are neither counted nor refused, for the time when resources are given back. */
void inject_pause(int yes);

/* The request that failed since inject_arm; null if none did. */
const char *injected_at(void);
int injected_kind(void);

/* Asked where a request is made: whether this is the one to fail. */
int inject(const char *request, int kind);

/* The resources that the library holds: memory, threads, locks, libraries, and those that the
 * stand-in for the CUDA driver gave. */
typedef struct holdings {
    int memory, threads, locks, libraries, driver;
} holdings;
extern holdings held;

/* Whether none of it, nor anything of NCCL's. */
int nothing_held(void);

/* The function that a pointer points to, as dlsym gives it: without its type. */
void *untyped(const void *pointer);

/* driver.c: libcuda.so.1, as dlopen and dlsym find it. */
void *driver_library(void);
void *driver_symbol(const char *name);

/* nccl.c: libnccl.so.2, likewise. */
void *nccl_library(void);
void *nccl_symbol(const char *name);

/* driver.c: kernels report bad rows from now on. */
void driver_reports_bad_rows(int yes);

/* driver.c: it no longer starts, as in a child of fork() whose parent uses it. */
void driver_is_inherited(void);

void *__real_malloc(size_t size);
void __real_free(void *data);

#endif
