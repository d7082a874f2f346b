/* entry.h - how calls enter a context and leave it. The body of every public function that works in
 * a context is one SB_INSIDE, which ensures that:
 *
 *   - a null context is refused;
 *   - one call at a time is inside a context: another thread or a signal handler that calls
 *     meanwhile gets SB_ERR_BUSY, and does not touch the context;
 *   - in a forked child, the backend first drops, once, everything that fork() does not copy; a
 *     backend that cannot work without this refuses the call;
 *   - the last error is cleared;
 *   - the backend is entered: a device becomes the calling thread's current one;
 *   - all arithmetic, including argument checks, runs in the contract's floating-point mode
 *     (rounding, flushing and traps), whichever mode the caller uses;
 *   - the calling thread is not cancelled during a call, only after it. */
#ifndef SB_ENTRY_H
#define SB_ENTRY_H

#include "backend.h"
#include "fpmode.h"

/* The settings of a thread before it began to work for the library. */
typedef struct sb_shield {
    sb_fpmode mode;
    int cancellation;
} sb_shield;

void sb_shield_raise(sb_shield *shield);
void sb_shield_lower(const sb_shield *shield);

/* One call's stay in a context. */
typedef struct sb_entry {
    sb_context *ctx;
    uint64_t gate; /* the value of ctx->gate during the call */
    sb_shield shield;
} sb_entry;

/* SB_OK: this call has the context until sb_leave. After any other status the call does not have
 * it, and must not call sb_leave. */
sb_status sb_enter(sb_entry *entry, sb_context *ctx);

/* Leaves the context; returns status. */
sb_status sb_leave(const sb_entry *entry, sb_status status);

/* The body of a public function: work is an expression of type sb_status. */
#define SB_INSIDE(ctx, work)                                                                       \
    do {                                                                                           \
        sb_entry entry_;                                                                           \
        sb_status status_ = sb_enter(&entry_, ctx);                                                \
        return status_ == SB_OK ? sb_leave(&entry_, work) : status_;                               \
    } while (0)

/* Opens the gate of a new context. Fails if the system does not accept a fork handler. */
sb_status sb_gate_open(sb_context *ctx, sb_message *why);

/* Closes the gate for good, and frees the context: now, or when the call that is inside ends. */
void sb_gate_close(sb_context *ctx);

/* Returns text, one of the context's own, if the calling thread may read it now; otherwise a line
 * that says why not. */
const char *sb_gate_text(const sb_context *ctx, const char *text);

#endif
