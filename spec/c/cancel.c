/* cancel.c - checks threads that are cancelled (pthread_cancel) during a call: the call completes,
 * then the thread ends, and the context serves the next call. */
#include "score.h"
#include "spec.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

static float want[SCORE_FLOATS];

typedef struct caller {
    sb_context *ctx;
    float out[SCORE_FLOATS];
    int opened, after; /* whether the thread reached these points */
} caller;

/* The cancellation of a thread stays pending until the thread reaches a cancellation point. One
 * such point is the wait for the context's threads in sb_close and sb_logprob. */
static void *be_cancelled(void *arg)
{
    caller *c = arg;
    pthread_cancel(pthread_self());
    sb_close(score_open(3));
    c->opened = 1;
    score(c->ctx, c->out, 1);
    c->after = 1;
    return NULL;
}

/* A thread that has disabled cancellation is not affected. */
static void *be_spared(void *arg)
{
    caller *c = arg;
    int state;
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &state);
    pthread_cancel(pthread_self());
    score(c->ctx, c->out, 1);
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &state);
    c->after = state == PTHREAD_CANCEL_DISABLE;
    return NULL;
}

static void *end_of(void *(*life)(void *), caller *c)
{
    pthread_t thread;
    void *result = NULL;
    memset(c->out, 0, sizeof c->out);
    if (pthread_create(&thread, NULL, life, c) == 0) pthread_join(thread, &result);
    return result;
}

static int is_right(caller *c)
{
    int right = memcmp(want, c->out, sizeof want) == 0;
    return right && score(c->ctx, c->out, 2) && memcmp(want, c->out, sizeof want) == 0;
}

int check_cancel(void)
{
    caller c = { NULL, { 0 }, 0, 0 };
    int cancelled, spared;
    if (UNDER_ASAN) {
        printf("AddressSanitizer does not know of cancelled threads\n");
        return NOT_HERE;
    }
    c.ctx = score_open(3);
    score_prepare();
    if (!c.ctx || !score(c.ctx, want, 1)) return 0;
    cancelled = end_of(be_cancelled, &c) == PTHREAD_CANCELED && c.opened && !c.after &&
                is_right(&c);
    spared = end_of(be_spared, &c) == NULL && c.after && is_right(&c);
    sb_close(c.ctx);
    printf("cancelled: %s; with cancellation disabled: %s\n",
           cancelled ? "after its call" : "WRONG", spared ? "spared" : "WRONG");
    return cancelled && spared;
}
