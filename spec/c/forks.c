/* forks.c - checks contexts in forked children. A child has none of the context's threads, and its
 * copy of a lock may be held by a thread that it does not have. */
#include "spec.h"
#include "stalled.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static float want[SCORE_FLOATS];

/* The work of a child; returns whether everything was as expected. */
typedef int (*life)(sb_context *ctx);

/* A child that takes this long has hung, and is killed. */
static int child_lives(sb_context *ctx, life live)
{
    int status = 0;
    pid_t child = fork();
    if (child == 0) {
        alarm(60);
        _exit(live(ctx) ? 0 : 1);
    }
    return child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status) &&
           WEXITSTATUS(status) == 0;
}

static int same_bits(sb_context *ctx, int split)
{
    float got[SCORE_FLOATS] = { 0 };
    return score(ctx, got, split) && memcmp(want, got, sizeof got) == 0;
}

static int uses(sb_context *ctx)
{
    int32_t threads = sb_context_threads(ctx);
    int right = 1;
    for (int split = 0; split < 4; split++) right &= same_bits(ctx, split);
    right &= sb_logprob(ctx, NULL, NULL, NULL) == SB_ERR_ARGUMENT && sb_last_error(ctx)[0] != '\0';
    right &= sb_check(ctx, NULL) == SB_OK && sb_last_error(ctx)[0] == '\0';
    right &= sb_context_threads(ctx) == threads;
    sb_close(ctx);
    return right;
}

static int only_closes(sb_context *ctx)
{
    sb_close(ctx);
    return 1;
}

static int forks_at_once(sb_context *ctx) { return child_lives(ctx, uses) && uses(ctx); }

static int forks_after_use(sb_context *ctx)
{
    return same_bits(ctx, 0) && child_lives(ctx, only_closes) && child_lives(ctx, uses) &&
           uses(ctx);
}

/* ---- threads of the child's --------------------------------------------------------------- */

static int opens_another(sb_context *ctx)
{
    sb_context *own = score_open(3);
    int right = own && same_bits(own, 1);
    right &= same_bits(ctx, 2);
    sb_close(ctx);
    right &= own && same_bits(own, 3);
    sb_close(own);
    return right;
}

static atomic_int wrong;

static void *press(void *ctx)
{
    for (int i = 0; i < 20; i++) {
        float got[SCORE_FLOATS];
        sb_status status = score_ids(ctx, got, 1, score_own_ids);
        if (status != SB_ERR_BUSY && (status != SB_OK || memcmp(want, got, sizeof got) != 0))
            wrong++;
    }
    return NULL;
}

/* The first thread of the child to use the context takes it over from the parent. */
static int has_threads(sb_context *ctx)
{
    pthread_t thread[2];
    for (int i = 0; i < 2; i++)
        if (pthread_create(&thread[i], NULL, press, ctx) != 0) return 0;
    for (int i = 0; i < 2; i++) pthread_join(thread[i], NULL);
    return wrong == 0 && uses(ctx);
}

typedef struct kind {
    const char *what;
    life live;
} kind;

static int failed(int threads, const char *what, const char *when)
{
    printf("%d threads, a child that %s, %s: fails; ", threads, what, when);
    return 0;
}

/* Forks between calls, and then while a call is under way in another thread. */
static int check_kinds(const kind *kinds, int count, int threads)
{
    float got[SCORE_FLOATS];
    int right = 1;
    for (int i = 0; i < count; i++) {
        sb_context *ctx = score_open(threads);
        if (!ctx) return 0;
        if (!same_bits(ctx, 0) || !child_lives(ctx, kinds[i].live) || !same_bits(ctx, 0))
            right = failed(threads, kinds[i].what, "between calls");
        if (!stall(ctx)) return 0;
        if (!child_lives(ctx, kinds[i].live)) right = failed(threads, kinds[i].what, "in a call");
        if (unstall(got) != SB_OK || memcmp(want, got, sizeof got) != 0 || !same_bits(ctx, 2))
            right = failed(threads, kinds[i].what, "in the parent");
        sb_close(ctx);
    }
    return right;
}

static int check_all(const kind *kinds, int count)
{
    sb_context *ctx;
    int right;
    if (UNDER_ASAN) {
        printf("AddressSanitizer's allocator may stay locked in a forked child\n");
        return NOT_HERE;
    }
    ctx = score_open(1);
    score_prepare();
    if (!ctx || !score(ctx, want, 1)) return 0;
    sb_close(ctx);
    right = check_kinds(kinds, count, 1) & check_kinds(kinds, count, 4);
    printf("%d kinds of children, of contexts with 1 and 4 threads, forked between calls and in "
           "one: %s\n",
           count, right ? "all right" : "WRONG");
    return right;
}

int check_forks(void)
{
    static const kind kinds[] = {
        { "uses it", uses },
        { "only closes it", only_closes },
        { "forks at once", forks_at_once },
        { "forks after use", forks_after_use },
    };
    return check_all(kinds, sizeof kinds / sizeof *kinds);
}

/* A check of its own, because ThreadSanitizer cannot follow threads that a forked child starts. */
int check_fork_threads(void)
{
    static const kind kinds[] = {
        { "opens another one", opens_another },
        { "uses it from two threads", has_threads },
    };
    return check_all(kinds, sizeof kinds / sizeof *kinds);
}
