/* entry.c - see entry.h.
 *
 * A context's gate is one atomic word: two bits that say whether a call is inside, and the number
 * of forks between the process that loaded the library and the process that last entered. In a
 * forked child that number is one less than the child's own, so a call that was under way in
 * another thread of the parent does not keep the child out. A pthread_atfork handler counts the
 * forks, because asking for the process id in each call would cost as much as a small call. */
#include "api/entry.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

/* CLOSING: a call is inside, and will free the context when it leaves. */
enum { FREE = 0, INSIDE = 1, CLOSING = 3, WHO = 3 };

static const char BUSY[] =
    "another call of this context was under way: a context serves one call at a time";

/* ---- forks -------------------------------------------------------------------------------- */

/* The only mutable state outside contexts. The handler changes it in a child before fork() returns.
 */
static atomic_uint forks;
static atomic_int watching; /* the handler is installed */

static void count_fork(void) { atomic_fetch_add_explicit(&forks, 1, memory_order_relaxed); }

/* Two threads may both install the handler: then forks are counted twice, which does no harm. */
static int watch_forks(void)
{
    if (atomic_load_explicit(&watching, memory_order_acquire)) return 1;
    if (pthread_atfork(NULL, NULL, count_fork) != 0) return 0;
    atomic_store_explicit(&watching, 1, memory_order_release);
    return 1;
}

/* The value of a gate in this process. */
static uint64_t here(unsigned who)
{
    return (uint64_t)atomic_load_explicit(&forks, memory_order_relaxed) << 2 | who;
}

/* ---- the calling thread ------------------------------------------------------------------- */

void sb_shield_raise(sb_shield *shield)
{
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &shield->cancellation);
    shield->mode = sb_fpmode_enter();
}

void sb_shield_lower(const sb_shield *shield)
{
    sb_fpmode_leave(shield->mode);
    pthread_setcancelstate(shield->cancellation, NULL);
}

static uintptr_t this_thread(void) { return (uintptr_t)pthread_self(); }

/* ---- the gate ----------------------------------------------------------------------------- */

sb_status sb_gate_open(sb_context *ctx, sb_message *why)
{
    if (!watch_forks()) return sb_fail(why, SB_ERR_SYSTEM, "no fork handler could be installed");
    atomic_init(&ctx->gate, here(FREE));
    return SB_OK;
}

/* Tries to take the context for the caller, and returns whether it did. *before is the previous
 * value of the gate. If another call is inside and closing is set, that call will free the context.
 */
static int take(sb_context *ctx, uint64_t mine, int closing, uint64_t *before)
{
    *before = atomic_load_explicit(&ctx->gate, memory_order_relaxed);
    for (;;) {
        int own = *before >> 2 == mine >> 2, taken = !own || (*before & WHO) == FREE;
        if (!taken && !(closing && *before == mine)) return 0;
        if (atomic_compare_exchange_weak_explicit(&ctx->gate, before, taken ? mine : mine | CLOSING,
                                                  memory_order_acquire, memory_order_relaxed))
            return taken;
    }
}

/* Called in a child for a context in the state that it had at fork(). */
static void inherit(sb_context *ctx, uint64_t before)
{
    ctx->backend->inherit(ctx, (before & WHO) != FREE);
    ctx->inherited = 1;
}

static void free_context(sb_context *ctx)
{
    ctx->backend->close(ctx);
    free(ctx);
}

static sb_status enter_backend(sb_context *ctx)
{
    const sb_backend *backend = ctx->backend;
    if (ctx->inherited && backend->lost_by_fork)
        return sb_fail(&ctx->error, SB_ERR_BACKEND, "%s", backend->lost_by_fork);
    return backend->enter ? backend->enter(ctx) : SB_OK;
}

/* Opens the gate again, restores the calling thread, and returns status. */
static sb_status give_back(const sb_entry *entry, sb_status status)
{
    uint64_t gate = entry->gate;
    if (!atomic_compare_exchange_strong_explicit(&entry->ctx->gate, &gate, gate & ~(uint64_t)WHO,
                                                 memory_order_acq_rel, memory_order_acquire))
        free_context(entry->ctx); /* CLOSING */
    sb_shield_lower(&entry->shield);
    pthread_testcancel(); /* for threads that call nothing else; nothing is held here */
    return status;
}

sb_status sb_enter(sb_entry *entry, sb_context *ctx)
{
    uint64_t before;
    sb_status status;
    if (!ctx) return SB_ERR_ARGUMENT;
    sb_shield_raise(&entry->shield);
    entry->ctx = ctx;
    entry->gate = here(INSIDE);
    if (!take(ctx, entry->gate, 0, &before)) {
        atomic_store_explicit(&ctx->contended, 1, memory_order_relaxed);
        sb_shield_lower(&entry->shield);
        return SB_ERR_BUSY;
    }
    if (before >> 2 != entry->gate >> 2) inherit(ctx, before);
    atomic_store_explicit(&ctx->owner, this_thread(), memory_order_relaxed);
    ctx->error.text[0] = '\0';
    status = enter_backend(ctx);
    return status == SB_OK ? SB_OK : give_back(entry, status);
}

sb_status sb_leave(const sb_entry *entry, sb_status status)
{
    if (entry->ctx->backend->leave) entry->ctx->backend->leave(entry->ctx);
    return give_back(entry, status);
}

void sb_gate_close(sb_context *ctx)
{
    sb_shield shield;
    uint64_t mine = here(INSIDE), before;
    sb_shield_raise(&shield);
    if (take(ctx, mine, 1, &before)) {
        if (before >> 2 != mine >> 2) inherit(ctx, before);
        free_context(ctx);
    }
    sb_shield_lower(&shield);
}

/* A thread that is inside may write to the text. So the text is returned only if no thread is
 * inside, and only to the thread that made the last call or, if no call was ever refused, to any
 * thread. */
const char *sb_gate_text(const sb_context *ctx, const char *text)
{
    uint64_t gate = atomic_load_explicit(&ctx->gate, memory_order_acquire);
    if (gate >> 2 == here(0) >> 2 && (gate & WHO) != FREE) return BUSY;
    if (!atomic_load_explicit(&ctx->contended, memory_order_relaxed)) return text;
    return atomic_load_explicit(&ctx->owner, memory_order_relaxed) == this_thread() ? text : BUSY;
}
