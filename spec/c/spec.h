/* spec.h - the declarations that the C checks share. Each check is a function that prints its
 * findings on one line and returns whether the check holds. If it cannot be made on this machine,
 * it prints the reason and returns NOT_HERE. main.c lists the checks, and spec/numerics/c_spec.lua
 * runs them one by one. */
#ifndef SB_SPEC_H
#define SB_SPEC_H

#include <stdint.h>

enum { NOT_HERE = 2 };

/* AddressSanitizer loses track of the stack of a cancelled thread, and its allocator loses track of
 * locks that another thread holds at fork(). */
#if defined(__SANITIZE_ADDRESS__)
enum { UNDER_ASAN = 1 };
#else
enum { UNDER_ASAN = 0 };
#endif

int check_exp2_all(void);
int check_exp2_isas(void);
int check_log2_mantissas(void);
int check_log2_sums(void);
int check_f16_all(void);
int check_accumulator_order(void);
int check_accumulator_window(void);
int check_sum_order(void);
int check_linear_integers(void);
int check_linear_cap(void);
int check_isas_leaves(void);
int check_products(void);
int check_fpmode(void);
int check_record_targets(void);
int check_cuda_plans(void);
int check_contexts(void);
int check_turns(void);
int check_signals(void);
int check_refused_threads(void);
int check_busy(void);
int check_close_in_use(void);
int check_crowd(void);
int check_forks(void);
int check_fork_threads(void);
int check_traps(void);
int check_cancel(void);
int check_corpus(void);  /* reads spec/fuzz/corpus */
int check_vectors(void); /* reads the folder SB_VECTORS, by default spec/vectors */

/* Random numbers that are the same on every machine (splitmix64). */
static inline uint64_t next_random(uint64_t *seed)
{
    uint64_t z = *seed += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* Runs part(arg, 0 .. parts - 1), two at a time. */
void in_parallel(void (*part)(void *arg, int index), void *arg, int parts);

/* p[i] = the polynomial at r[i], computed by one instruction set; returns 0 if this machine lacks
 * it. */
int exp2_avx2(float *p, const float *r, int64_t n);
int exp2_avx512(float *p, const float *r, int64_t n);

#endif
