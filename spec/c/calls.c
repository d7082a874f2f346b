/* calls.c - conditions that only a C caller can create: other floating-point modes, several calling
 * threads, signals and limits on threads. */
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "fpmode.h"
#include "score.h"
#include "spec.h"

int check_fpmode(void)
{
#if defined(__x86_64__)
    float want[SCORE_FLOATS], got[SCORE_FLOATS];
    static const uint32_t modes[] = { 0x9fc0, 0x3f80, 0x5f80,
                                      0x7f80 }; /* FTZ + DAZ; down; up; cut */
    sb_context *ctx = score_open(1);
    int wrong = 0, kept = 1;
    score_prepare();
    if (!ctx || !score(ctx, want, 1)) return 0;
    sb_close(ctx);
    for (int i = 0; i < 12; i++) {
        sb_fpmode before = _mm_getcsr();
        _mm_setcsr(modes[i % 4]);
        ctx = score_open(1 + i / 4); /* the threads of the context start in this mode, too */
        for (int split = 1; ctx && split <= 5; split += 4) {
            memset(got, 0, sizeof got);
            wrong += !score(ctx, got, split);
            wrong += memcmp(want, got, sizeof want) != 0;
        }
        kept &= ctx && (_mm_getcsr() & ~0x3fu) == modes[i % 4];
        sb_close(ctx);
        _mm_setcsr(before);
    }
    printf("4 modes, 1 to 3 threads, rows whole and cut: %d differ, the caller's mode is %s\n",
           wrong, kept ? "kept" : "LOST");
    return wrong == 0 && kept;
#else
    printf("not on this machine: it has another register for the mode\n");
    return NOT_HERE;
#endif
}

typedef struct caller {
    const float *want;
    int wrong;
} caller;

static void *call_often(void *arg)
{
    caller *c = arg;
    for (int i = 0; i < 20; i++) {
        float got[SCORE_FLOATS];
        sb_context *ctx = score_open(1 + i % 3);
        for (int k = 0; ctx && k < 5; k++)
            c->wrong += !score(ctx, got, k) || memcmp(c->want, got, sizeof got) != 0;
        c->wrong += !ctx;
        sb_close(ctx);
    }
    return NULL;
}

int check_contexts(void)
{
    enum { CALLERS = 6 };
    float want[SCORE_FLOATS];
    pthread_t thread[CALLERS];
    caller callers[CALLERS];
    sb_context *ctx = score_open(1);
    int wrong = 0;
    score_prepare();
    if (!ctx || !score(ctx, want, 1)) return 0;
    sb_close(ctx);
    for (int i = 0; i < CALLERS; i++) {
        callers[i].want = want;
        callers[i].wrong = 0;
        if (pthread_create(&thread[i], NULL, call_often, &callers[i]) != 0) return 0;
    }
    for (int i = 0; i < CALLERS; i++) {
        pthread_join(thread[i], NULL);
        wrong += callers[i].wrong;
    }
    printf("%d threads, 100 calls each: %d wrong\n", CALLERS, wrong);
    return wrong == 0;
}

/* One context, used by one thread after another. */
typedef struct shared_context {
    sb_context *ctx;
    pthread_mutex_t lock;
    const float *want;
    int wrong;
} shared_context;

static void *take_turns(void *arg)
{
    shared_context *shared = arg;
    for (int i = 0; i < 40; i++) {
        float got[SCORE_FLOATS];
        char why[64];
        int wrong = sb_probe("cpu", why, sizeof why) != SB_OK || why[0] != '\0';
        pthread_mutex_lock(&shared->lock);
        if (i % 4 == 3) wrong += sb_logprob(shared->ctx, NULL, NULL, NULL) != SB_ERR_ARGUMENT;
        wrong += (sb_last_error(shared->ctx)[0] != '\0') != (i % 4 == 3);
        wrong += !score(shared->ctx, got, i % 7) || memcmp(shared->want, got, sizeof got) != 0;
        shared->wrong += wrong;
        pthread_mutex_unlock(&shared->lock);
    }
    return NULL;
}

int check_turns(void)
{
    enum { CALLERS = 5 };
    float want[SCORE_FLOATS];
    pthread_t thread[CALLERS];
    shared_context shared = { score_open(3), PTHREAD_MUTEX_INITIALIZER, want, 0 };
    score_prepare();
    if (!shared.ctx || !score(shared.ctx, want, 1)) return 0;
    for (int i = 0; i < CALLERS; i++)
        if (pthread_create(&thread[i], NULL, take_turns, &shared) != 0) return 0;
    for (int i = 0; i < CALLERS; i++) pthread_join(thread[i], NULL);
    sb_close(shared.ctx);
    printf("%d threads in turns, 40 calls each: %d wrong\n", CALLERS, shared.wrong);
    return shared.wrong == 0;
}

static volatile sig_atomic_t signals_taken;

static void take_signal(int number)
{
    (void)number;
    signals_taken++;
}

/* A signal that all threads except those of the library block stays pending: the library's threads
 * block it as well. Opening a context leaves the caller's signal mask unchanged. */
int check_signals(void)
{
    float out[SCORE_FLOATS];
    struct sigaction action, before;
    sigset_t mine, blocked, now;
    const struct timespec moment = { 0, 20 * 1000 * 1000 };
    sb_context *ctx;
    int same = 1, early, late;

    memset(&action, 0, sizeof action);
    action.sa_handler = take_signal;
    sigaction(SIGUSR1, &action, &before);
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGUSR1);
    pthread_sigmask(SIG_BLOCK, NULL, &mine);
    ctx = score_open(4);
    pthread_sigmask(SIG_BLOCK, NULL, &now);
    for (int s = 1; s < 32; s++) same &= sigismember(&mine, s) == sigismember(&now, s);

    score_prepare();
    if (!ctx || !score(ctx, out, 1)) return 0;
    pthread_sigmask(SIG_BLOCK, &blocked, NULL);
    kill(getpid(), SIGUSR1);
    nanosleep(&moment, NULL);
    early = signals_taken;
    pthread_sigmask(SIG_UNBLOCK, &blocked, NULL);
    late = signals_taken;
    sb_close(ctx);
    sigaction(SIGUSR1, &before, NULL);
    printf("the library's threads took %d signals of 1, the caller %d; the caller's mask is %s\n",
           early, late - early, same ? "kept" : "LOST");
    return early == 0 && late == 1 && same;
}

/* The bytes of address space in use; 0 if that cannot be read. */
static long address_space(void)
{
    long pages = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    if (!file) return 0;
    if (fscanf(file, "%ld", &pages) != 1) pages = 0;
    fclose(file);
    return pages * sysconf(_SC_PAGESIZE);
}

/* If the system refuses to start threads, opening returns an error and leaves nothing behind that
 * would disturb the next open. */
int check_refused_threads(void)
{
    sb_open_options options = SB_OPEN_OPTIONS_INIT;
    float out[SCORE_FLOATS];
    char why[256] = "";
    sb_context *refused = NULL, *ctx;
    struct rlimit before, tight;
    sb_status status;
    int after;

    if (address_space() == 0 || getrlimit(RLIMIT_AS, &before) != 0) {
        printf("not on this machine: it does not tell or limit a process's address space\n");
        return NOT_HERE;
    }
    tight = before;
    tight.rlim_cur = (rlim_t)address_space() + (200 << 20); /* no room for 1023 stacks */
    if (setrlimit(RLIMIT_AS, &tight) != 0) return 0;
    options.threads = 1024;
    status = sb_open(&refused, SB_ABI, "cpu", &options, why, sizeof why);
    setrlimit(RLIMIT_AS, &before);

    score_prepare();
    ctx = score_open(3);
    after = ctx && score(ctx, out, 1);
    sb_close(ctx);
    printf("%s: %s; afterwards %s\n", sb_status_name(status), why, after ? "fine" : "BROKEN");
    return status == SB_ERR_SYSTEM && !refused && strstr(why, "1024") && after;
}
