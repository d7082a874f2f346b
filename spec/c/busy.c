/* busy.c - checks that a context refuses every other call while one is under way, and that sb_close
 * waits until that call has ended. */
#include "each_call.h"
#include "spec.h"
#include "stalled.h"

#include <dirent.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

static int expected(float *want)
{
    sb_context *ctx = score_open(1);
    int made;
    score_prepare();
    made = ctx && score(ctx, want, 1);
    sb_close(ctx);
    return made;
}

static int says_busy(const char *line)
{
    return strcmp(line, "another call of this context was under way: a context serves one call at "
                        "a time") == 0;
}

/* Prints the names of the refused functions, which spec/api/entry_spec.lua reads. */
int check_busy(void)
{
    float want[SCORE_FLOATS], got[SCORE_FLOATS];
    sb_context *ctx = score_open(3);
    sb_status status;
    int wrong = 0;
    if (!ctx || !expected(want) || !stall(ctx)) return 0;
    printf("refused:");
    for (int i = 0; i < EACH_CALLS; i++) {
        if (each_call[i].call(ctx) != SB_ERR_BUSY || !says_busy(sb_last_error(ctx)) ||
            !says_busy(sb_last_plan(ctx))) {
            printf(" [NOT %s]", each_call[i].name);
            wrong++;
        } else {
            printf(" %s", each_call[i].name);
        }
        wrong += each_call[i].call(NULL) != SB_ERR_ARGUMENT;
    }
    wrong += strcmp(sb_context_backend(ctx), "cpu") != 0 || sb_context_threads(ctx) != 3;
    status = unstall(got);
    wrong += status != SB_OK || memcmp(want, got, sizeof got) != 0;
    /* a refused caller must not see the lines of the other call */
    wrong += !says_busy(sb_last_error(ctx)) || !says_busy(sb_last_plan(ctx));
    wrong += !score(ctx, got, 1) || sb_last_error(ctx)[0] != '\0';
    wrong += strncmp(sb_last_plan(ctx), "cpu ", 4) != 0;
    wrong += memcmp(want, got, sizeof got) != 0;
    sb_close(ctx);
    printf("; %d wrong\n", wrong);
    return wrong == 0;
}

/* The number of threads of this process; 0 if it cannot be read. */
static int count_threads(void)
{
    DIR *tasks = opendir("/proc/self/task");
    int count = 0;
    if (!tasks) return 0;
    for (const struct dirent *e = readdir(tasks); e; e = readdir(tasks))
        count += e->d_name[0] != '.';
    closedir(tasks);
    return count;
}

/* Allows for a delay: a thread remains visible for a moment after it was joined. */
static int falls_to(int threads)
{
    const struct timespec moment = { 0, 1000 * 1000 };
    for (int i = 0; i < 5000 && count_threads() != threads; i++) nanosleep(&moment, NULL);
    return count_threads() == threads;
}

/* Checks that the call under way ends as usual, and that the context and its threads are gone
 * afterwards. */
int check_close_in_use(void)
{
    float want[SCORE_FLOATS], got[SCORE_FLOATS];
    sb_context *ctx = score_open(2);
    sb_status status;
    int before, gone;
    sb_close(ctx); /* valgrind or a sanitizer may start a thread of its own with the first one */
    before = count_threads();
    ctx = score_open(3);
    if (!ctx || !expected(want) || !stall(ctx)) return 0;
    sb_close(ctx);
    status = unstall(got);
    gone = falls_to(before);
    printf("the call: %s, %s; its context %s\n", sb_status_name(status),
           memcmp(want, got, sizeof got) ? "OTHER BITS" : "the same bits",
           gone ? "is closed" : "STAYS");
    return status == SB_OK && memcmp(want, got, sizeof got) == 0 && gone;
}

/* ---- until all have been served -------------------------------------------------------------- */

typedef struct crowd {
    sb_context *ctx;
    const float *want;
    atomic_int fine, refused, wrong;
} crowd;

static void *press(void *arg)
{
    crowd *c = arg;
    for (int served = 0; served < 20;) {
        float got[SCORE_FLOATS] = { 0 };
        sb_status status = score_ids(c->ctx, got, served % 3, score_own_ids);
        if (status == SB_ERR_BUSY) {
            c->refused++;
            c->wrong += !says_busy(sb_last_error(c->ctx)) || got[0] != 0;
            sched_yield();
        } else {
            c->fine++;
            served++;
            c->wrong += status != SB_OK || memcmp(c->want, got, sizeof got) != 0;
        }
    }
    return NULL;
}

int check_crowd(void)
{
    enum { CALLERS = 4 };
    float want[SCORE_FLOATS];
    pthread_t thread[CALLERS];
    crowd c = { score_open(3), want, 0, 0, 0 };
    if (!c.ctx || !expected(want)) return 0;
    for (int i = 0; i < CALLERS; i++)
        if (pthread_create(&thread[i], NULL, press, &c) != 0) return 0;
    for (int i = 0; i < CALLERS; i++) pthread_join(thread[i], NULL);
    sb_close(c.ctx);
    printf("%d calls of one context from %d threads: %d refused, %d wrong\n", c.fine + c.refused,
           CALLERS, c.refused, c.wrong);
    return c.wrong == 0;
}
