/* cpu.h - inside the CPU backend: its state, and a call's rows as work for its threads.
 * Operations differ in what they do with a row's state. */
#ifndef SB_CPU_H
#define SB_CPU_H

#include "api/call.h"
#include "api/records.h"
#include "cpu/isa.h"
#include "cpu/pool.h"

/* Memory that lasts from call to call and only grows. */
typedef struct sb_cpu_scratch {
    void *data;
    size_t size;
} sb_cpu_scratch;

typedef struct sb_cpu {
    const sb_isa *isa;
    int32_t threads; /* as opened: a forked child's pool has fewer */
    sb_pool *pool;
    sb_cpu_scratch rows;   /* int64 [active] the rows to compute */
    sb_cpu_scratch states; /* sb_state or sb_moments [active][split] */
    sb_cpu_scratch tokens; /* float [rows], where the caller wants sums but no tokens; or marks */
    sb_cpu_scratch wholes; /* sb_state [rows], where rows are visited again */
    sb_cpu_scratch parts;  /* what a second pass finds in [active][split] pieces */
} sb_cpu;

/* count items of a size, or null. */
void *sb_cpu_room(sb_cpu_scratch *s, int64_t count, size_t size);

/* The rows of a call. The caller sets what stands before the blank line. */
typedef struct sb_cpu_job {
    const sb_call *call;
    /* Whether rows are summed with their moments: states are then those of sb_moments. */
    int moments;
    /* What becomes of a row's state. On any thread, in the contract's floating-point mode. */
    void (*finish)(const struct sb_cpu_job *job, int64_t row, const sb_state *state,
                   const sb_row *constants);
    void *to; /* for finish: where results go */

    const sb_cpu *cpu;
    sb_reduce reduce;
    sb_reduce_moments reduce_moments;
    int64_t itemsize;
    const int64_t *active; /* rows to compute, rising */
    int64_t actives;
    int64_t split; /* pieces a row */
    int64_t piece; /* logits a piece, a multiple of 16 */
    int64_t chunk; /* rows handed out at once, where split is 1 */
    void *states;  /* sb_state or sb_moments [actives][split], where split is not 1 */
} sb_cpu_job;

/* Everything that can fail: checks each active row, lists them, and decides how to cut them up. */
sb_status sb_cpu_job_prepare(sb_context *ctx, sb_cpu_job *job);

/* The logits of n ids of a row, from number first of those that the call holds, a multiple of 16,
 * as fp32; -inf where the row does not keep them. Those are not read. */
void sb_cpu_read(const sb_call *call, int64_t row, int64_t first, int64_t n, float *x);

#define SB_CPU_BUFFER 1024 /* logits read at once, on the stack: a multiple of 16 */

/* Computes the state of every active row and hands it to finish. */
void sb_cpu_job_run(sb_cpu *c, const sb_cpu_job *job);

/* Writes a row's saved record. moments: state is the first part of an sb_moments. */
void sb_cpu_save(sb_saved_row *to, int64_t row, const sb_state *state, int moments,
                 const sb_row *constants);

/* tokens [rows], or null where out wants no sums; active is rising, and a row that is not active
 * adds nothing. */
void sb_cpu_sum_sequences(const sb_logprob_out *out, const sb_call *call, const float *tokens,
                          const int64_t *active, int64_t actives);

/* A second pass over rows, once their states are known. The caller sets what stands before the
 * blank line. */
typedef struct sb_cpu_second_pass {
    sb_cpu_job *job;
    size_t size; /* bytes of a part; 0: no piece is visited */
    /* Visits n logits of a row, x, whose first id is id; part is zero at first. Both run on any
     * thread, in the contract's floating-point mode. */
    void (*visit)(const struct sb_cpu_second_pass *pass, int64_t row, const float *x, int64_t n,
                  int64_t id, void *part);
    /* What becomes of a row: from its state and its pieces' parts, pass->job->split of them. */
    void (*finish)(const struct sb_cpu_second_pass *pass, int64_t row, const sb_state *state,
                   const sb_row *constants, void *parts);
    const void *to;

    sb_state *states;
    char *parts;
} sb_cpu_second_pass;

/* second_pass.c: everything that can fail, of the job too; then the rest. */
sb_status sb_cpu_second_pass_prepare(sb_context *ctx, sb_cpu_second_pass *pass);
void sb_cpu_second_pass_run(sb_cpu *c, const sb_cpu_second_pass *pass);

/* The operations, as backend.h states them: each takes its own struct. */
sb_status sb_cpu_logprob(sb_context *ctx, const void *call);
sb_status sb_cpu_ids(sb_context *ctx, const void *call);
sb_status sb_cpu_topk(sb_context *ctx, const void *call);
sb_status sb_cpu_backward(sb_context *ctx, const void *call);
sb_status sb_cpu_kl(sb_context *ctx, const void *call);
sb_status sb_cpu_partial(sb_context *ctx, const void *call);
sb_status sb_cpu_merge(sb_context *ctx, const void *call);
sb_status sb_cpu_finish(sb_context *ctx, const void *call);
sb_status sb_cpu_compare(sb_context *ctx, const void *call);
sb_status sb_cpu_sums(sb_context *ctx, const void *call);

#endif
