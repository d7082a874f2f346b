/* entry.h - the way into a context, and out of it. Every public function that takes a context to
 * work with is one SB_INSIDE, so that in all of them:
 *
 *   - a null context is refused;
 *   - one call at a time is inside a context: SB_ERR_BUSY for another thread, or a signal handler,
 *     that comes meanwhile; nothing of the context is touched then;
 *   - in a forked child, the backend first lets go of what fork() does not copy, once; where that
 *     is all it has, the call is refused;
 *   - the last error is cleared;
 *   - the backend is entered: a device is the calling thread's current one;
 *   - arithmetic, argument checks among it, runs in the contract's floating-point mode, whatever
 *     the caller's is: rounding, flushing and traps;
 *   - the calling thread is not cancelled halfway, but when it has left. */
#ifndef SB_ENTRY_H
#define SB_ENTRY_H

#include "backend.h"
#include "fpmode.h"

/* What a thread that works for the library is protected from, and how it was before. */
typedef struct sb_shield {
    sb_fpmode mode;
    int cancellation;
} sb_shield;

void sb_shield_raise(sb_shield *shield);
void sb_shield_lower(const sb_shield *shield);

/* One call's stay in a context. */
typedef struct sb_entry {
    sb_context *ctx;
    uint64_t gate; /* what ctx->gate holds meanwhile */
    sb_shield shield;
} sb_entry;

/* SB_OK: the context is this call's until sb_leave. Any other status: it is not, and sb_leave must
 * not be called. */
sb_status sb_enter(sb_entry *entry, sb_context *ctx);

/* Gives back status. */
sb_status sb_leave(const sb_entry *entry, sb_status status);

/* The body of a public function: work is an expression of type sb_status. */
#define SB_INSIDE(ctx, work)                                                                       \
    do {                                                                                           \
        sb_entry entry_;                                                                           \
        sb_status status_ = sb_enter(&entry_, ctx);                                                \
        return status_ == SB_OK ? sb_leave(&entry_, work) : status_;                               \
    } while (0)

/* Opens the gate of a new context. Fails where the system takes no fork handler. */
sb_status sb_gate_open(sb_context *ctx, sb_message *why);

/* Shuts it for good, and frees the context: now, or when the call inside it ends. */
void sb_gate_close(sb_context *ctx);

/* What sb_last_error answers. */
const char *sb_gate_error(const sb_context *ctx);

#endif
