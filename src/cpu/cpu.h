/* cpu.h - inside the CPU backend: its state, and a call's rows as work for its threads.
 * Operations differ in what they do with a row's state. */
#ifndef SB_CPU_H
#define SB_CPU_H

#include "api/call.h"
#include "api/records.h"
#include "cpu/hidden.h"
#include "cpu/isa.h"
#include "cpu/pool.h"

/* What sb_cpu_say_plan said last. Most calls are like the one before, so it is seldom put together
 * again: that would be a tenth of the smallest call. */
typedef struct sb_cpu_said {
    int32_t threads; /* 0: nothing yet */
    int64_t split;
    char text[96];
} sb_cpu_said;

typedef struct sb_cpu {
    const sb_isa *isa;
    const sb_product_isa *products;
    int32_t threads; /* as opened; the pool of a forked child has fewer */
    sb_pool *pool;
    sb_cpu_scratch rows;     /* int64 [active] the rows to compute */
    sb_cpu_scratch states;   /* sb_state or sb_moments [active][split] */
    sb_cpu_scratch tokens;   /* float [rows], where the caller wants sums but no tokens */
    sb_cpu_scratch wholes;   /* sb_state or sb_saved_row [rows], where rows are visited again; or
                                the norms of weights [groups] */
    sb_cpu_scratch counts;   /* int64 [batch] active tokens of a policy loss */
    sb_cpu_scratch tallies;  /* sb_tally [ranges], likewise */
    sb_cpu_scratch upstream; /* float [rows] its gradient, if only the logits' is wanted */
    sb_cpu_scratch parts;    /* what a second pass finds in [active][split] pieces; or marks [rows];
                              or the scales of weights [ids] */
    sb_cpu_scratch models;   /* sb_state [rows], of rows without their kept sets */
    sb_cpu_hidden_scratch hidden[2]; /* of a call, or of both of a divergence */
    sb_cpu_said said;
} sb_cpu;

/* Says, for sb_last_plan, which products compute logits. */
void sb_cpu_say_products(sb_context *ctx);

/* Says, for sb_last_plan, that each row is cut into split pieces. alone: the calling thread does
 * all the work. */
void sb_cpu_say_plan(sb_context *ctx, int alone, int64_t split);

/* The rows of a call. The caller sets the members before the blank line;
 * sb_cpu_job_prepare sets the rest. */
typedef struct sb_cpu_job {
    const sb_call *call;
    /* Whether rows are reduced with their moments; each state is then an sb_moments. */
    int moments;
    /* Whether finish asks for the logits of the rows' ids. */
    int targets;
    /* Called once for each active row, with its complete state. Runs on any thread, in the
     * contract's floating-point mode. */
    void (*finish)(const struct sb_cpu_job *job, int64_t row, const sb_state *state,
                   const sb_row *constants);
    void *to; /* for finish: where the results go */

    const sb_cpu *cpu;
    sb_reduce reduce;
    sb_reduce_moments reduce_moments;
    int64_t itemsize;
    const int64_t *active; /* rows to compute, in ascending order */
    int64_t actives;
    int64_t split; /* pieces per row */
    int64_t piece; /* logits per piece, a multiple of 16 */
    int64_t chunk; /* rows per work item if split is 1 */
    void *states; /* sb_state or sb_moments [actives][split] if split is not 1, or hidden is used */
    sb_cpu_hidden hidden; /* if the call has a head */
} sb_cpu_job;

/* Whether a job's logits are computed from hidden states. Its work items are then tiles: a block of
 * SB_CPU_TILE_ROWS active rows and a piece of the ids. */
static inline int sb_cpu_is_hidden(const sb_cpu_job *job) { return job->call->in.head != NULL; }

/* The logit of id k of an active row, which the call holds; job->targets is set. */
float sb_cpu_target(const sb_cpu_job *job, int64_t row, int64_t k);

/* How many pieces the ids of a call's rows are cut into, so that `blocks` blocks of rows keep all
 * threads busy; at least 1. */
int64_t sb_cpu_tile_pieces(const sb_cpu *c, const sb_call *call, int64_t blocks);

/* The blocks of rows of hidden states. */
static inline int64_t sb_cpu_tile_blocks(int64_t actives)
{
    return (actives + SB_CPU_TILE_ROWS - 1) / SB_CPU_TILE_ROWS;
}

/* Whether the products of some hidden states take too little time to wake threads. */
int sb_cpu_tiles_alone(const sb_cpu_hidden *hidden);

/* Performs every step that can fail: checks and lists the active rows, decides how to divide them,
 * and reserves memory. */
sb_status sb_cpu_job_prepare(sb_context *ctx, sb_cpu_job *job);

/* lists.c: the bits of a leaf that are in a row's list, where id is its first id. */
uint32_t sb_cpu_list_bits(const sb_call *call, int64_t row, int64_t id);

/* The kept bits of the ids from id on, a multiple of 16, of one leaf. */
static inline uint32_t sb_cpu_kept_bits(const sb_call *call, int64_t row, int64_t id)
{
    const char *kept = (const char *)call->in.kept;
    uint16_t bits; /* little-endian words: half a word */
    if (call->in.kept_offsets) return sb_cpu_list_bits(call, row, id);
    if (!kept) return 0xffff;
    memcpy(&bits, kept + row * call->in.kept_stride * 4 + id / SB_LEAF * 2, 2);
    return bits;
}

/* Writes n logits of a row to x as fp32. first is relative to the first id that the call holds,
 * and is a multiple of 16. An id that the row does not keep becomes -inf; its logit is not used. */
void sb_cpu_read(const sb_call *call, int64_t row, int64_t first, int64_t n, float *x);

/* lists.c: the same for a call with lists. */
void sb_cpu_read_list(const sb_call *call, int64_t row, int64_t first, int64_t n, float *x);

/* The leaves with a kept id among a row's ids first .. first + n - 1, which are relative to the
 * first id that the call holds. For calls with lists; first is a multiple of 16. */
typedef struct sb_cpu_leaves {
    const sb_call *call;
    const char *logits;
    int64_t at, last; /* entries of kept_ids */
} sb_cpu_leaves;
sb_cpu_leaves sb_cpu_leaves_of(const sb_call *call, int64_t row, int64_t first, int64_t n);

/* The number of the next leaf, counted from the first id that the call holds; INT64_MAX if there is
 * none. */
int64_t sb_cpu_next_leaf(const sb_cpu_leaves *l);

/* Writes the next leaf's logits as fp32, -inf for ids that are not kept. Requires: there is one. */
void sb_cpu_take_leaf(sb_cpu_leaves *l, float x[SB_LEAF]);

/* Writes up to `most` leaves, side by side; returns how many. */
int64_t sb_cpu_take_leaves(sb_cpu_leaves *l, float *x, int64_t most);

/* About how many logits of a row take part: V, or those of the leaves with a kept id. */
int64_t sb_cpu_logits_per_row(const sb_call *call);

#define SB_CPU_BUFFER 1024 /* logits in one buffer on the stack: a multiple of 16 */

/* Computes the state of every active row and hands it to finish. */
void sb_cpu_job_run(sb_cpu *c, const sb_cpu_job *job);

/* Where the results of rows go; null: not wanted. */
typedef struct sb_cpu_results {
    float *token, *lse, *entropy;
    sb_saved_row *saved;
    int moments; /* saved rows have the entropy */
} sb_cpu_results;

/* Sets *to from out, with scratch for the tokens if only their sums are wanted, and clears what out
 * wants. Call it once nothing else can fail. */
sb_status sb_cpu_results_prepare(sb_context *ctx, sb_cpu_results *to, const sb_logprob_out *out,
                                 int64_t rows);

/* Writes the results of a row. target is the logit of its id. state is the first member of an
 * sb_moments if entropy is wanted, or moments is set. */
void sb_cpu_results_write(const sb_cpu_results *to, int64_t row, const sb_state *state,
                          float target, const sb_row *constants);

/* Writes the sums and counts of each sequence. tokens is [rows], or null if out wants no sums.
 * active is in ascending order; a row that is not active adds nothing. */
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

/* logits.c: refuses scales of hidden states below those of their own columns. */
sb_status sb_cpu_check_scales(const sb_call *call, const uint32_t *scales, const int64_t *active,
                              int64_t actives, sb_message *why);

/* head_error.c: computes the norms of a head's weights, and writes them into its memory. scales:
 * those of the rows; norms: scratch for each group. */
void sb_cpu_write_norms(sb_cpu *c, const sb_head_call *call, const uint32_t *scales,
                        sb_linear_norms *norms);

/* gradient.c: the gradient of a call's rows. */
typedef struct sb_cpu_gradient {
    const sb_call *call;
    sb_gradient to; /* to.saved: the rows' records */
    sb_spread gradient;
    const uint8_t *active;       /* [rows of logits]: whether the row scores an active token */
    int64_t pieces, piece;       /* pieces per row, and elements of grad per piece */
    int of;                      /* SB_OF_* */
    int written;                 /* sb_cpu_gradient_row has been called for each active row */
    const sb_cpu_hidden *hidden; /* of a call with a head, packed when the gradient runs; or null */
    int64_t tiles;               /* pieces of the ids of a block of hidden states */
} sb_cpu_gradient;

/* Sets *gradient, with written 0, from the active rows, which may be freed then. Requires: width >=
 * 1. Fails for lack of memory only; to.saved is not used yet. */
sb_status sb_cpu_gradient_prepare(sb_context *ctx, sb_cpu_gradient *gradient, const sb_call *call,
                                  const sb_gradient *to, const int64_t *active, int64_t actives);

/* The gradient is by logits of hidden states: those of the active rows. */
void sb_cpu_gradient_of_hidden(const sb_cpu *c, sb_cpu_gradient *gradient,
                               const sb_cpu_hidden *hidden);

/* Writes the gradient by one active row, whose record is there. Runs on any thread. */
void sb_cpu_gradient_row(const sb_cpu_gradient *gradient, int64_t row);

/* Writes all other rows. */
void sb_cpu_gradient_run(sb_cpu *c, const sb_cpu_gradient *gradient);

/* policy.c: a policy loss. */
typedef struct sb_cpu_policy {
    const sb_policy_call *call;
    int64_t *counts;   /* [batch] active tokens */
    sb_tally *tallies; /* [ranges] */
    int64_t ranges;
    int64_t tokens, sequences; /* Z's */
    int metrics;
} sb_cpu_policy;

/* Everything that can fail; now and the outputs are not used yet. Then the rest. */
sb_status sb_cpu_policy_prepare(sb_context *ctx, sb_cpu_policy *policy, const sb_policy_call *call);
void sb_cpu_policy_run(sb_cpu *c, sb_cpu_policy *policy);

/* sb_cpu_logprob and so on: the operations, as sb_op_slot has them. */
#define SB_CPU_OPERATION(NUMBER, name, scratch, what)                                              \
    sb_status sb_cpu_##name(sb_context *ctx, const void *call);
SB_OPERATIONS(SB_CPU_OPERATION)
SB_HOST_OPERATIONS(SB_CPU_OPERATION)
#undef SB_CPU_OPERATION

#endif
