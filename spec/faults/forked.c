/* forked.c - forks, as the library meets them: a handler that the system refuses, and a context of
 * the cuda backend in a child, which must not touch the driver. */
#define _GNU_SOURCE
#include "../c/each_call.h"
#include "forked.h"
#include "inject.h"

#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

int check_fork_handler(void)
{
    sb_open_options options = SB_OPEN_OPTIONS_INIT;
    sb_context *ctx;
    char why[256] = "";
    sb_status status;
    int target = -1, right;
    options.threads = 1;
    do {
        inject_arm(++target);
        status = sb_open(&ctx, SB_ABI, "cpu", &options, why, sizeof why);
        inject_disarm();
        sb_close(ctx);
    } while (injected_at() && strcmp(injected_at(), "pthread_atfork") != 0);
    right = injected_at() && status == SB_ERR_SYSTEM && strstr(why, "fork") && nothing_held();
    printf("a fork handler that is refused: %s, \"%s\"\n", sb_status_name(status), why);
    return right;
}

/* In the child. Any request to the system would be refused, and seen. */
static int is_left_alone(sb_context *ctx)
{
    const holdings before = held;
    int right = 1;
    inject_arm(0);
    for (int i = 0; i < EACH_CALLS; i++) {
        right &= each_call[i].call(ctx) == SB_ERR_BACKEND;
        right &= strstr(sb_last_error(ctx), "opened before fork()") != NULL;
    }
    right &= strcmp(sb_context_backend(ctx), "cuda") == 0 && sb_context_threads(ctx) > 0;
    sb_close(ctx);
    right &= injected_at() == NULL;
    return right && held.driver == before.driver && held.libraries == before.libraries &&
           held.memory == before.memory - 2; /* the context, and the backend's state */
}

static int only_closes(sb_context *ctx)
{
    const holdings before = held;
    inject_arm(0);
    sb_close(ctx);
    return injected_at() == NULL && held.driver == before.driver &&
           held.libraries == before.libraries && held.memory == before.memory - 2;
}

/* A double free ends the child. */
static int only_frees_once(sb_context *ctx)
{
    sb_close(ctx);
    return 1;
}

static int cannot_open(sb_context *ctx)
{
    sb_context *own;
    char why[256] = "";
    driver_is_inherited();
    if (sb_open(&own, SB_ABI, "cuda", NULL, why, sizeof why) != SB_ERR_BACKEND) return 0;
    return strstr(why, "fork()") != NULL && only_closes(ctx);
}

static int child_lives(sb_context *ctx, int (*live)(sb_context *ctx))
{
    int status = 0;
    pid_t child = fork();
    if (child == 0) {
        alarm(60);
        _exit(live(ctx) ? 0 : 1);
    }
    return child > 0 && waitpid(child, &status, 0) == child && status == 0;
}

/* ---- where a call lets go of memory ------------------------------------------------------- */

static sb_context *halfway;
static int child_closed;

static void fork_here(void) { child_closed = child_lives(halfway, only_frees_once); }

static sb_status score_rows(sb_context *ctx, int64_t rows)
{
    static const float logits[64];
    static const int32_t ids[64];
    float token[64];
    sb_logprob_out out = SB_LOGPROB_OUT_INIT;
    sb_batch batch = SB_BATCH_INIT;
    out.token = token;
    batch.logits = logits;
    batch.ids = ids;
    batch.batch = 1;
    batch.time = rows;
    batch.vocab = 1;
    return sb_logprob(ctx, &out, &batch, NULL);
}

int check_torn(void)
{
    sb_open_options options = SB_OPEN_OPTIONS_INIT;
    int right;
    options.threads = 1;
    if (sb_open(&halfway, SB_ABI, "cpu", &options, NULL, 0) != SB_OK) return 0;
    right = score_rows(halfway, 1) == SB_OK;
    inject_after_free(fork_here);
    right &= score_rows(halfway, 64) == SB_OK;
    inject_after_free(NULL);
    sb_close(halfway);
    right &= child_closed && nothing_held();
    printf("cpu, forked where memory of the context has been freed: the child %s\n",
           child_closed ? "closes it" : "FAILS");
    return right;
}

int check_forked_cuda(void)
{
    sb_context *ctx;
    int right;
    if (sb_open(&ctx, SB_ABI, "cuda", NULL, NULL, 0) != SB_OK) return 0;
    right = child_lives(ctx, is_left_alone) && child_lives(ctx, only_closes) &&
            child_lives(ctx, cannot_open);
    right &= sb_check(ctx, NULL) == SB_OK;
    sb_close(ctx);
    right &= nothing_held();
    printf("cuda, in forked children: %d calls refused, the driver %s\n", EACH_CALLS,
           right ? "left alone" : "NOT LEFT ALONE");
    return right;
}
