/* backend.h - the contract between the public functions and the backends: the context, the checked
 * form of each operation's arguments, and the functions that a backend implements.
 *
 * A public function of src/api checks its arguments, fills in the operation's sb_*_call and hands
 * it to sb_run (api/run.h), which finds the operation in the backend's table. A new operation adds
 * its struct and a line to the list of operations: docs/adding-an-op.md. */
#ifndef SB_BACKEND_H
#define SB_BACKEND_H

#include <stdatomic.h>
#include <stddef.h>

#include "det/draw.h"
#include "det/policy.h"
#include "samebits.h"

/* An error message for the user: one line, terminated. */
typedef struct sb_message {
    char text[256];
} sb_message;

/* The line that sb_last_plan returns, which ends at length. */
typedef struct sb_plan_line {
    char text[512];
    size_t length;
} sb_plan_line;

typedef struct sb_backend sb_backend;

/* ---- arguments of operations: checked, with the defaults filled in -------------------------- */

/* A batch. Per-row arrays are as the caller gave them. The backend checks ids and temperatures,
 * because it can read them. */
typedef struct sb_call {
    sb_batch in;         /* strides resolved. If head is not null, logits is null, logits_dtype is
                            SB_F32, and the head has the ids first .. first + held - 1 */
    int64_t rows;        /* B * T or N */
    int64_t width;       /* ids per row: 1, K, or 0 if there are none */
    int64_t first, held; /* the ids first .. first + held - 1 have logits: a shard, or all of V */
    sb_launch launch;
} sb_call;

/* Whether a batch has kept sets, of either form. */
static inline int sb_has_kept(const sb_batch *in) { return in->kept || in->kept_offsets; }

/* SB_OP_POLICY_LOSS, and the loss that a gradient of SB_OP_LOGPROB is of: then in.now is null. */
typedef struct sb_policy_call {
    sb_policy_out out;
    sb_policy in;
    sb_policy_rules rules;
    int64_t rows; /* B * T or N */
    sb_launch launch;
} sb_policy_call;

/* SB_OP_LOGPROB and SB_OP_CONVENTIONAL. out has all fields, even if the caller's struct is shorter.
 * out.gradient is null or the caller's; its checked form is gradient, whose width and strides are
 * filled in. The control group has no gradient. */
typedef struct sb_logprob_call {
    sb_logprob_out out;
    sb_gradient gradient;  /* if out.gradient is not null; saved is null */
    sb_policy_call policy; /* if gradient.policy is not null */
    sb_call call;
} sb_logprob_call;

/* Whether the call computes entropies, as results or for the gradient. */
static inline int sb_wants_moments(const sb_logprob_call *call)
{
    return call->out.entropy || (call->out.gradient && call->gradient.entropy);
}

/* SB_OP_IDS. call.width is K. */
typedef struct sb_ids_call {
    sb_ids_out out;
    sb_call call;
} sb_ids_call;

/* SB_OP_TOPK. call.width is 1, or 0 if the batch has no ids. */
typedef struct sb_topk_call {
    sb_topk_out out;
    sb_call call;
    int64_t k;
} sb_topk_call;

/* SB_OP_SAMPLE. call.width is 1, or 0 if the batch has no ids. */
typedef struct sb_sample_call {
    sb_sample_out out;
    sb_sampling how;
    sb_call call;
} sb_sample_call;

/* SB_OP_DRAW: round number `round`, or the last step, which is number draw.rounds. call is of the
 * shard; its width is 1, or 0 if the batch has no ids. */
typedef struct sb_draw_call {
    sb_draw draw;      /* with the rounds and the bytes of this call */
    sb_sample_out out; /* of the last step; otherwise all null */
    sb_sampling how;
    sb_call call;
    void *mine;      /* [rows] messages; the last step: null */
    const void *all; /* [shards][rows] messages; round 0: null */
    int32_t round;
    int32_t places; /* in messages of round 0 */
    int32_t lists;  /* whether these are all that may be drawn */
    sb_draw_step steps[12];
} sb_draw_call;

/* SB_OP_BACKWARD. The width and the strides of to are filled in. */
typedef struct sb_backward_call {
    sb_gradient to;
    sb_call call;
} sb_backward_call;

/* SB_OP_KL. p decides which rows are active: q's ids, mask, row list, cu_seqlens and ignore_index
 * are p's. */
typedef struct sb_kl_call {
    sb_kl_out out;
    sb_call p, q; /* width: 1, or 0 if p has no ids */
} sb_kl_call;

/* SB_OP_PARTIAL. Here and below, records may have any alignment, since they may be in a mapped
 * file. */
typedef struct sb_partial_call {
    sb_records to;
    sb_call call;
} sb_partial_call;

/* SB_OP_MERGE. to and from are of one kind. */
typedef struct sb_merge_call {
    sb_records to, from;
    int64_t shards, rows;
    sb_launch launch;
} sb_merge_call;

/* SB_OP_FINISH. call holds no logits. */
typedef struct sb_finish_call {
    sb_logprob_out out;
    sb_call call;
    sb_records from;
} sb_finish_call;

/* SB_OP_EXCHANGE. */
typedef struct sb_exchange_call {
    sb_records records;
    int64_t rows; /* at most SB_EXCHANGE_COUNT */
    void *comm;
    sb_launch launch;
} sb_exchange_call;

#define SB_EXCHANGE_COUNT ((int64_t)1 << 40) /* with 2^15 ranks, sizes stay below 2^64 */

/* SB_OP_ALL_GATHER. */
typedef struct sb_all_gather_call {
    void *all;
    const void *mine;
    int64_t bytes; /* likewise */
    void *comm;
    sb_launch launch;
} sb_all_gather_call;

/* SB_OP_ALL_REDUCE. */
typedef struct sb_all_reduce_call {
    void *values;
    int32_t dtype, reduction;
    int64_t count; /* likewise */
    void *comm;
    sb_launch launch;
} sb_all_reduce_call;

/* What is known of a head without its weights. A prepared head begins with these bytes, padded with
 * zeros to SB_HEAD_FORM bytes; the rest is the backend's own. */
typedef struct sb_head_form {
    char magic[8];     /* SB_HEAD_MAGIC */
    uint32_t numerics; /* SB_NUMERICS */
    uint32_t layout;   /* of the backend: sb_heads */
    uint64_t bytes;    /* all of them */
    int64_t ids, width, first;
    int32_t format; /* an sb_format */
    int32_t biased; /* whether there is a bias */
    float scale;
    float softcap;
    int32_t norms;    /* whether there are norms */
    int32_t reserved; /* 0 */
    uint64_t sum;     /* of the bytes before it */
} sb_head_form;

#define SB_HEAD_MAGIC "sb head" /* with its zero: eight bytes */
#define SB_HEAD_FORM 256        /* bytes in front of a head; also the alignment of its memory */
#define SB_HEAD_NORMS 128       /* where among them the head's sb_linear_norms are, if it has any */

/* A head: only api/head.c makes, changes and frees one. */
struct sb_head {
    sb_head_form form;
    const sb_backend *backend;
    int device;
    void *allocation; /* what to free: memory lies in it; null: memory is the caller's */
    void *memory;
};

/* SB_OP_HEAD: prepares weights into the memory of a head, its form included. */
typedef struct sb_head_call {
    sb_head_weights in; /* the stride filled in */
    sb_head_form form;
    void *memory;
    sb_launch launch;
} sb_head_call;

/* SB_OP_LOGITS. The width of rows is call.held. */
typedef struct sb_logits_call {
    sb_logits_out out; /* strides filled in */
    sb_call call;
} sb_logits_call;

/* SB_OP_SCALES. */
typedef struct sb_scales_call {
    uint32_t *scales;
    const void *matrix;
    int32_t dtype;
    int64_t rows, width, row_stride;
    sb_launch launch;
} sb_scales_call;

/* SB_OP_PRODUCTS. */
typedef struct sb_products_call {
    int64_t *sums;
    const uint32_t *scales;
    sb_call call;
} sb_products_call;

/* SB_OP_HEAD_ERROR. The head has norms, and its ids are those of call; call has no kept sets. */
typedef struct sb_head_error_call {
    float *error;
    const uint32_t *scales; /* or null */
    sb_call call;
} sb_head_error_call;

/* SB_OP_HEAD_BACKWARD. The strides of to are filled in; the ids are call's, which has no kept sets.
 */
typedef struct sb_head_backward_call {
    sb_head_gradient to;
    sb_call call;
} sb_head_backward_call;

/* SB_OP_COMBINE. */
typedef struct sb_combine_call {
    float *logits;
    const int64_t *sums;
    const uint32_t *scales;
    const sb_head *head;
    int64_t rows, first, held;
    sb_launch launch;
} sb_combine_call;

/* SB_OP_COMPARE. */
typedef struct sb_compare_call {
    sb_compare_out out;
    const float *sampled, *other;
    int64_t count;
    sb_launch launch;
} sb_compare_call;

/* SB_OP_SUMS. */
typedef struct sb_sums_call {
    sb_sums_out out;
    sb_values in;
    int64_t rows; /* B * T or N */
    sb_launch launch;
} sb_sums_call;

/* SB_OP_POLICY_MERGE. Of in only tokens and sequences are used. */
typedef struct sb_policy_merge_call {
    sb_policy_out out;
    sb_policy in;
    sb_policy_rules rules;
    const sb_policy_record *records;
    int64_t count;
    sb_launch launch;
} sb_policy_merge_call;

/* SB_OP_GROUP_ADVANTAGES. */
typedef struct sb_groups_call {
    sb_groups_out out;
    sb_groups in;
    int64_t rows; /* rewards */
    sb_launch launch;
} sb_groups_call;

/* ---- a backend ------------------------------------------------------------------------------ */

/* The operations that every backend has. The columns: the name of the number; the name in functions
 * such as sb_cpu_kl; SCRATCH if the operation takes a workspace on a device, otherwise NONE; and
 * the end of the message "the ... backend has no ..." for a backend that lacks it. The numbers, the
 * declarations of the functions and the tables of the backends here come from this list and the
 * next one. */
#define SB_OPERATIONS(X)                                                                           \
    X(LOGPROB, logprob, SCRATCH, "logprob")                                                        \
    X(IDS, ids, SCRATCH, "logprobs of several ids")                                                \
    X(TOPK, topk, SCRATCH, "top-k")                                                                \
    X(SAMPLE, sample, SCRATCH, "sampling")                                                         \
    X(DRAW, draw, SCRATCH, "draws from shards")                                                    \
    X(BACKWARD, backward, SCRATCH, "gradient")                                                     \
    X(KL, kl, SCRATCH, "divergence of two batches")                                                \
    X(PARTIAL, partial, SCRATCH, "shards")                                                         \
    X(MERGE, merge, NONE, "shards")                                                                \
    X(FINISH, finish, SCRATCH, "shards")                                                           \
    X(COMPARE, compare, NONE, "statistics")                                                        \
    X(SUMS, sums, NONE, "statistics")                                                              \
    X(POLICY_LOSS, policy_loss, SCRATCH, "policy loss")                                            \
    X(POLICY_MERGE, policy_merge, NONE, "policy loss")                                             \
    X(GROUP_ADVANTAGES, group_advantages, SCRATCH, "group advantages")                             \
    X(HEAD, head, NONE, "heads: it takes logits only")                                             \
    X(LOGITS, logits, SCRATCH, "heads: it takes logits only")                                      \
    X(SCALES, scales, NONE, "heads: it takes logits only")                                         \
    X(PRODUCTS, products, SCRATCH, "heads: it takes logits only")                                  \
    X(COMBINE, combine, NONE, "heads: it takes logits only")                                       \
    X(HEAD_ERROR, head_error, NONE, "heads: it takes logits only")

/* The operations that only devices have. */
#define SB_DEVICE_OPERATIONS(X)                                                                    \
    X(EXCHANGE, exchange, SCRATCH,                                                                 \
      "exchange of records: NCCL is between GPUs; gather them by other means and call sb_merge")   \
    X(ALL_GATHER, all_gather, SCRATCH, "all-gather: NCCL is between GPUs")                         \
    X(ALL_REDUCE, all_reduce, SCRATCH, "all-reduce: NCCL is between GPUs")

/* The operations that only the cpu has. */
#define SB_HOST_OPERATIONS(X)                                                                      \
    X(HEAD_BACKWARD, head_backward, NONE,                                                          \
      "sb_head_backward: multiply chunks of sb_logprob_backward by the framework's own products")

#define SB_ALL_OPERATIONS(X) SB_OPERATIONS(X) SB_DEVICE_OPERATIONS(X) SB_HOST_OPERATIONS(X)

#define SB_OP_NUMBER(NUMBER, name, scratch, what) SB_OP_##NUMBER,
typedef enum sb_op {
    SB_OP_CONVENTIONAL, /* the control group's logprob, for sb_conventional_logprob only */
    SB_ALL_OPERATIONS(SB_OP_NUMBER) SB_OPS
} sb_op;
#undef SB_OP_NUMBER

/* call is the operation's struct, which may have no rows. Both functions report failures with
 * sb_fail. */
typedef struct sb_op_slot {
    sb_status (*run)(sb_context *ctx, const void *call); /* null: the backend lacks the operation */
    sb_status (*workspace)(sb_context *ctx, const void *call,
                           uint64_t *bytes); /* null: it needs none */
} sb_op_slot;

/* Memory, streams and reports of a backend whose arrays the host must not read; all are required.
 * samebits.h describes the functions that have a public counterpart. */
typedef struct sb_device {
    /* Called before and after an operation. begin chooses where its kernels report bad input, and
     * may refuse the call. end returns status, and ensures that late reports of a failed call do
     * not count as reports of the next call. */
    sb_status (*begin)(sb_context *ctx, const sb_launch *launch);
    sb_status (*end)(sb_context *ctx, const sb_launch *launch, sb_status status);

    sb_status (*check)(sb_context *ctx, void *stream);
    sb_status (*memory_alloc)(sb_context *ctx, void **data, uint64_t bytes, sb_memory kind);
    sb_status (*memory_free)(sb_context *ctx, void *data, sb_memory kind);
    sb_status (*memory_copy)(sb_context *ctx, void *to, const void *from, uint64_t bytes,
                             void *stream);
    sb_status (*stream_create)(sb_context *ctx, void **stream);
    sb_status (*stream_destroy)(sb_context *ctx, void *stream);
    sb_status (*stream_wait)(sb_context *ctx, void *stream);
} sb_device;

/* Communicators, for the operations that only devices have; all are required. samebits.h describes
 * them. */
typedef struct sb_comms {
    sb_status (*new_id)(sb_context *ctx, sb_comm_id *id);
    sb_status (*create)(sb_context *ctx, void **comm, const sb_comm_id *id, int32_t ranks,
                        int32_t rank);
    sb_status (*destroy)(sb_context *ctx, void *comm);
    sb_status (*abort)(sb_context *ctx, void *comm);
} sb_comms;

/* How a backend lays heads out. */
typedef struct sb_heads {
    uint32_t layout; /* a number of its own, for sb_head_form; changes when the layout does */
    /* Required. The bytes of a head of these ids, width, format and bias, a multiple of 256 and at
     * least SB_HEAD_FORM. */
    uint64_t (*bytes)(const sb_head_form *form);
} sb_heads;

struct sb_backend {
    const char *name;
    int kept_sets; /* calls may have kept sets, of either form */

    /* Required. Checks whether device number device can be opened here; if not, why has the reason.
     */
    sb_status (*probe)(int device, sb_message *why);
    /* Required. Sets ctx->state; on failure, frees everything that it allocated. */
    sb_status (*open)(sb_context *ctx, int device, const sb_open_options *options, sb_message *why);
    /* Required. Frees ctx->state. */
    void (*close)(sb_context *ctx);
    /* Required. Called once in a forked child, before its first call (close is a call). Drops
     * everything that fork() does not copy, so that no later function, close included, uses it.
     * torn: another thread was inside a call at fork(), so ctx->state may be half updated. */
    void (*inherit)(sb_context *ctx, int torn);
    /* The message that refuses all calls except close in a forked child; null: calls work there. */
    const char *lost_by_fork;
    /* Required. The results of sb_context_isa and sb_context_threads. */
    const char *(*isa)(const sb_context *ctx);
    int32_t (*threads)(const sb_context *ctx);

    /* Optional, both or none. Called at the start and the end of each public call: enter prepares
     * the calling thread for the slots below, and leave restores it for the caller. */
    sb_status (*enter)(sb_context *ctx);
    void (*leave)(sb_context *ctx);

    sb_op_slot ops[SB_OPS];
    const sb_device *device; /* null: the caller's arrays are ordinary memory */
    const sb_comms *comms;   /* null: ops has no SB_OP_EXCHANGE either */
    const sb_heads *heads;   /* null: ops has no SB_OP_HEAD either */
};

/* Only api/entry.c uses the members after plan. */
struct sb_context {
    const sb_backend *backend;
    int device;        /* the number in cuda:1; 0 otherwise */
    void *state;       /* the backend's own */
    sb_message error;  /* written only between sb_enter and sb_leave */
    sb_plan_line plan; /* likewise */
    _Atomic uint64_t gate;
    _Atomic uintptr_t owner; /* the thread that made the last call */
    atomic_int contended;    /* a call has been refused with SB_ERR_BUSY */
    int inherited;           /* opened before a fork, in use after it */
};

/* Every known backend, best first, null at the end. */
extern const sb_backend *const sb_backends[];
extern const sb_backend sb_backend_cpu, sb_backend_cuda;

/* In api/plan_line.c. Add a text or a number to the line that sb_last_plan returns. What does not
 * fit is left out. Every launch pays for its line, so this is not printf. */
void sb_plan_say(sb_context *ctx, const char *text);
void sb_plan_say_number(sb_context *ctx, int64_t number);

/* In api/status.c. Writes the message and returns the status, for `return sb_fail(...)`. */
#if defined(__GNUC__)
__attribute__((format(printf, 3, 4)))
#endif
sb_status
sb_fail(sb_message *message, sb_status status, const char *format, ...);

#endif
