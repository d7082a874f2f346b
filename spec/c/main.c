/* main.c - `samebits-spec NAME` runs one check; `samebits-spec` lists the names of all checks. */
#include "spec.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

static const struct check {
    const char *name, *what;
    int (*run)(void);
} checks[] = {
    { "exp2-all", "exp2 at every fp32 in [-1/2, 1/2], against fp64", check_exp2_all },
    { "exp2-isas", "exp2 at every fp32 in [-1/2, 1/2], the same bits by every isa",
      check_exp2_isas },
    { "log2-mantissas", "log2 at every fp32 mantissa, against long double", check_log2_mantissas },
    { "log2-sums", "log2 at mantissas of 53 bits, against long double", check_log2_sums },
    { "f16-all", "every binary16 to fp32", check_f16_all },
    { "accumulator-order", "random leaves in random trees of merges: the same bytes",
      check_accumulator_order },
    { "accumulator-window", "the window holds what a window of all digits holds",
      check_accumulator_window },
    { "sum-order", "a sequence's sum in any order, against long division", check_sum_order },
    { "linear-integers", "the linear head: integers, digits, levels and logits, in 128 bits",
      check_linear_integers },
    { "linear-cap", "the linear head's softcap, against tanh", check_linear_cap },
    { "isas-leaves", "random and nasty rows: every isa makes the scalar path's state",
      check_isas_leaves },
    { "products", "exact products of a linear head, by every isa, up to the bounds",
      check_products },
    { "fpmode", "a caller's rounding mode, FTZ and DAZ change nothing and are put back",
      check_fpmode },
    { "vectors", "golden vectors that the API does not reach", check_vectors },
    { "record-targets", "no record of a row is refused, and none gives a logprob above 0",
      check_record_targets },
    { "cuda-plans", "every launch of the cuda backend covers a row once, within limits",
      check_cuda_plans },
    { "contexts", "contexts used from many threads at once", check_contexts },
    { "turns", "one context, used from many threads in turns", check_turns },
    { "corpus", "what fuzzing the C API found worth keeping", check_corpus },
    { "signals", "the library's threads take no signals", check_signals },
    { "busy", "a context in use refuses every other call", check_busy },
    { "close-in-use", "a context in use closes when its call has ended", check_close_in_use },
    { "crowd", "one context, from many threads at once: the right bits or SB_ERR_BUSY",
      check_crowd },
    { "forks", "a context in a forked child: the same bits, a close", check_forks },
    { "fork-threads", "threads of a forked child's own", check_fork_threads },
    { "traps", "floating-point traps that the caller has unmasked", check_traps },
    { "cancel", "threads that are cancelled in a call leave the context fit for use",
      check_cancel },
    { "refused-threads", "threads that the system refuses", check_refused_threads },
};

typedef struct task {
    void (*part)(void *arg, int index);
    void *arg;
    int first, step, parts;
} task;

static void *run_task(void *arg)
{
    task *t = arg;
    for (int i = t->first; i < t->parts; i += t->step) t->part(t->arg, i);
    return NULL;
}

void in_parallel(void (*part)(void *arg, int index), void *arg, int parts)
{
    task tasks[2] = { { part, arg, 0, 2, parts }, { part, arg, 1, 2, parts } };
    pthread_t thread;
    int started = pthread_create(&thread, NULL, run_task, &tasks[1]) == 0;
    run_task(&tasks[0]);
    if (started) pthread_join(thread, NULL);
    else run_task(&tasks[1]);
}

int main(int argc, char **argv)
{
    int n = (int)(sizeof checks / sizeof *checks);
    if (argc < 2) {
        for (int i = 0; i < n; i++) printf("%s\t%s\n", checks[i].name, checks[i].what);
        return 0;
    }
    for (int i = 0; i < n; i++)
        if (strcmp(argv[1], checks[i].name) == 0) {
            int result = checks[i].run();
            return result == NOT_HERE ? 77 : result ? 0 : 1;
        }
    fprintf(stderr, "no check is called %s\n", argv[1]);
    return 2;
}
