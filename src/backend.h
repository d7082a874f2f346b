/* backend.h - what a backend is, what a context holds, and the checked form of a call. */
#ifndef SB_BACKEND_H
#define SB_BACKEND_H

#include <stdatomic.h>
#include <string.h>

#include "det/convert.h"
#include "samebits.h"

/* One line for the user. */
typedef struct sb_message {
    char text[256];
} sb_message;

/* A batch whose arguments were checked and whose defaults are filled in. Per-row arrays stand as
 * the caller gave them; ids and temperatures are for the backend to check, since it can read them.
 */
typedef struct sb_call {
    sb_batch in;         /* strides resolved */
    int64_t rows;        /* B * T or N */
    int64_t width;       /* ids a row: 1, K, or 0 where there are none */
    int64_t first, held; /* the ids first .. first + held - 1 have logits: a shard, or all of V */
    sb_launch launch;
} sb_call;

/* Rows' records, anywhere: a mapped file aligns nothing. Those that are only read are const in the
 * call. */
typedef struct sb_records {
    void *states; /* sb_state_record; sb_moment_record where moments is set */
    sb_target_record *targets;
    int moments;
} sb_records;

static inline size_t sb_state_size(int moments)
{
    return moments ? sizeof(sb_moment_record) : sizeof(sb_state_record);
}

/* What messages call states. */
static inline const char *sb_states_name(int moments) { return moments ? "moments" : "states"; }

/* sb_merge's arguments. Both of them with moments, or without. */
typedef struct sb_merge_call {
    sb_records to, from;
    int64_t shards, rows;
    sb_launch launch;
} sb_merge_call;

/* sb_exchange's arguments, checked. */
typedef struct sb_exchange_call {
    sb_records records;
    int64_t rows; /* at most SB_EXCHANGE_ROWS */
    void *comm;
    sb_launch launch;
} sb_exchange_call;

#define SB_EXCHANGE_ROWS ((int64_t)1 << 40) /* with 2^15 ranks sizes stay below 2^64 */

/* sb_compare's and sb_sums's arguments, checked. */
typedef struct sb_compare_call {
    sb_compare_out out;
    const float *sampled, *other;
    int64_t count;
    sb_launch launch;
} sb_compare_call;

typedef struct sb_sums_call {
    sb_sums_out out;
    sb_values in;
    int64_t rows; /* B * T or N */
    sb_launch launch;
} sb_sums_call;

/* sb_kl's arguments. What q says of rows is p's: ids, mask, row list, cu_seqlens, ignore_index. */
typedef struct sb_kl_call {
    sb_kl_out out;
    sb_call p, q; /* width: 1, or 0 where p has no ids */
} sb_kl_call;

typedef struct sb_backend {
    const char *name;
    int device_memory; /* the caller's arrays are the device's: the host must not read them */

    int kept_sets; /* calls may have kept sets */

    /* Required. Whether device number device can be opened here; if not, why. */
    sb_status (*probe)(int device, sb_message *why);
    /* Required. Sets ctx->state; frees what it made on failure. */
    sb_status (*open)(sb_context *ctx, int device, const sb_open_options *options, sb_message *why);
    /* Required. Frees ctx->state. */
    void (*close)(sb_context *ctx);
    /* Required. Once in a forked child, before its first call, close among them: lets go of what
     * fork() does not copy, so that nothing here, close neither, comes near it again. torn: another
     * thread was in a call at fork(), so that ctx->state may be halfway between two values. */
    void (*inherit)(sb_context *ctx, int torn);
    /* Why there are no other calls in a forked child; null: there are. */
    const char *lost_by_fork;
    /* Required. What sb_context_isa and sb_context_threads report. */
    const char *(*isa)(const sb_context *ctx);
    int32_t (*threads)(const sb_context *ctx);

    /* Optional: null where the backend lacks the operation. These report with sb_fail. out is an
     * sb_out_of. */
    sb_status (*logprob)(sb_context *ctx, const sb_logprob_out *out, const sb_call *call);
    uint64_t (*workspace)(sb_context *ctx, const sb_logprob_out *out, const sb_call *call);

    /* Optional. call->width is K. */
    sb_status (*ids)(sb_context *ctx, const sb_ids_out *out, const sb_call *call);
    /* Optional. call->width is 1, or 0 where the batch has no ids. */
    sb_status (*topk)(sb_context *ctx, const sb_topk_out *out, const sb_call *call, int64_t k);
    /* Optional. Scratch enough for both, whatever K and k. */
    uint64_t (*order_workspace)(sb_context *ctx, const sb_call *call);
    /* Optional. gradient's width and strides are filled in, rows are not 0. */
    sb_status (*backward)(sb_context *ctx, const sb_gradient *gradient, const sb_call *call);

    /* Optional; the second too where the first is there. */
    sb_status (*kl)(sb_context *ctx, const sb_kl_call *call);
    uint64_t (*kl_workspace)(sb_context *ctx, const sb_kl_call *call);

    /* Optional. The control group's logprob: sb_conventional_logprob alone calls it. */
    sb_status (*conventional)(sb_context *ctx, const sb_logprob_out *out, const sb_call *call);

    /* Optional, all or none but for the last: shards of the vocabulary. finish's call holds no
     * logits. */
    sb_status (*partial)(sb_context *ctx, const sb_records *to, const sb_call *call);
    sb_status (*merge)(sb_context *ctx, const sb_merge_call *call);
    sb_status (*finish)(sb_context *ctx, const sb_logprob_out *out, const sb_call *call,
                        const sb_records *records);
    uint64_t (*shard_workspace)(sb_context *ctx, const sb_call *call);

    /* Optional, all or none: exchanging records with other processes. */
    sb_status (*exchange)(sb_context *ctx, const sb_exchange_call *call);
    sb_status (*exchange_workspace)(sb_context *ctx, uint64_t *size, void *comm, int64_t rows);
    sb_status (*comm_new_id)(sb_context *ctx, sb_comm_id *id);
    sb_status (*comm_create)(sb_context *ctx, void **comm, const sb_comm_id *id, int32_t ranks,
                             int32_t rank);
    sb_status (*comm_destroy)(sb_context *ctx, void *comm);

    /* Optional, both or none: statistics of tokens. */
    sb_status (*compare)(sb_context *ctx, const sb_compare_call *call);
    sb_status (*sums)(sb_context *ctx, const sb_sums_call *call);

    /* Optional, all or none: device memory and streams; as samebits.h states them. */
    sb_status (*check)(sb_context *ctx, void *stream);
    sb_status (*memory_alloc)(sb_context *ctx, void **data, uint64_t bytes, sb_memory kind);
    sb_status (*memory_free)(sb_context *ctx, void *data, sb_memory kind);
    sb_status (*memory_copy)(sb_context *ctx, void *to, const void *from, uint64_t bytes,
                             void *stream);
    sb_status (*stream_create)(sb_context *ctx, void **stream);
    sb_status (*stream_destroy)(sb_context *ctx, void *stream);
    sb_status (*stream_wait)(sb_context *ctx, void *stream);
} sb_backend;

/* What stands behind error is api/entry.c's alone. */
struct sb_context {
    const sb_backend *backend;
    void *state;      /* the backend's own */
    sb_message error; /* written to inside sb_enter and sb_leave only */
    _Atomic uint64_t gate;
    _Atomic uintptr_t owner; /* the thread whose call was the last one */
    atomic_int contended;    /* a call has been refused for another one */
    int inherited;           /* opened before a fork, in use after it */
};

/* Every known backend, best first, null at the end. */
extern const sb_backend *const sb_backends[];
extern const sb_backend sb_backend_cpu, sb_backend_cuda;

/* Writes the message and returns the status, for `return sb_fail(...)`. */
#if defined(__GNUC__)
__attribute__((format(printf, 3, 4)))
#endif
sb_status
sb_fail(sb_message *message, sb_status status, const char *format, ...);

/* call.c: whether a struct of the caller's is there and begins with its size. type and init: the
 * names of it and of the macro that fills it in. */
sb_status sb_check_size(const void *argument, size_t size, const char *type, const char *init,
                        sb_message *why);

/* call.c: checks the outputs' struct and copies it: what the caller's does not reach to is null.
 */
sb_status sb_out_of(sb_logprob_out *full, const sb_logprob_out *out, sb_message *why);

/* call.c: checks a batch and its launch options against samebits.h and fills in call. */
sb_status sb_call_of(sb_call *call, const sb_batch *batch, const sb_launch *launch,
                     int device_memory, sb_message *why);

/* kl.c: the sums of a call's divergences by sequence: ignored rows are +0 and add nothing. */
sb_sums_call sb_kl_sums(const sb_kl_call *call, const float *tokens);

/* kl.c: says in a failure's message which of two batches it is about; gives back status. */
sb_status sb_kl_blame(sb_message *why, char which, sb_status status);

/* logprob.c: the same for a call of ctx, and sb_out_of. */
sb_status sb_logprob_call_of(sb_context *ctx, sb_call *call, sb_logprob_out *full,
                             const sb_logprob_out *out, const sb_batch *batch,
                             const sb_launch *launch);

/* call.c: the same for a batch whose rows hold n logits, those of the ids from first on. With
 * n = 0 its logits and strides are not looked at: call has none. */
sb_status sb_shard_call_of(sb_call *call, const sb_batch *batch, int64_t first, int64_t n,
                           const sb_launch *launch, int device_memory, sb_message *why);

/* call.c: as sb_call_of, for a batch with width ids a row; 0: one, or none. */
sb_status sb_wide_call_of(sb_call *call, const sb_batch *batch, int64_t width,
                          const sb_launch *launch, int device_memory, sb_message *why);

/* call.c: refuses kept sets where ctx's backend has none. out may be null. */
sb_status sb_check_kept_sets(sb_context *ctx, const sb_call *call, const sb_logprob_out *out);

/* call.c: the rows of sequence b, half open; host cu_seqlens only. */
typedef struct sb_extent {
    int64_t first, last;
} sb_extent;
sb_extent sb_extent_of(const sb_call *call, int64_t b);

/* call.c: checks each active row's id and temperature and lists the active rows, rising. active
 * (room for every row) and actives may be null. Host arrays only. */
sb_status sb_list_active(const sb_call *call, int64_t *active, int64_t *actives, sb_message *why);

/* call.c: packed, in device memory: without sequences there are no rows. Kernels look at
 * cu_seqlens by sequence, and so see the rest. */
sb_status sb_check_device_packed(int64_t batch, int64_t rows, sb_message *why);

/* call.c: packed: cu_seqlens [batch + 1] starts at 0, never falls, ends at rows. Host memory. */
sb_status sb_check_cu_seqlens(const void *cu_seqlens, int32_t dtype, int64_t batch, int64_t rows,
                              sb_message *why);

/* call.c: all checks that sb_call_of leaves out for device memory, on host copies of its arrays.
 */
sb_status sb_check_device_call(const sb_call *call, sb_message *why);

/* Element i of an int32 or int64 array, wherever it lies: a mapped file aligns nothing. */
static inline int64_t sb_int_at(const void *data, int32_t dtype, int64_t i)
{
    if (dtype == SB_I64) {
        int64_t wide;
        memcpy(&wide, (const char *)data + i * 8, 8);
        return wide;
    } else {
        int32_t narrow;
        memcpy(&narrow, (const char *)data + i * 4, 4);
        return narrow;
    }
}

static inline float sb_float_at(const float *data, int64_t i)
{
    float x;
    memcpy(&x, (const char *)data + i * 4, 4);
    return x;
}

/* records.c: checks the records that sb_merge is given. Host arrays only. */
sb_status sb_check_merge(const sb_merge_call *call, sb_message *why);

/* records.c: the same for a call's active rows. */
sb_status sb_check_finish(const sb_call *call, const sb_records *records, const int64_t *active,
                          int64_t actives, sb_message *why);

/* records.c: the same, on host copies of a device's arrays, all fine but for the records. */
sb_status sb_check_device_finish(const sb_call *call, const sb_records *records, sb_message *why);

/* records.c: checks the saved rows of a call's active rows. Host arrays only. */
sb_status sb_check_saved(const sb_call *call, const sb_gradient *gradient, const int64_t *active,
                         int64_t actives, sb_message *why);

/* records.c: the same, on host copies of a device's arrays, all fine but for the saved rows. */
sb_status sb_check_device_saved(const sb_call *call, const sb_gradient *gradient, sb_message *why);

/* records.c: what is wrong with a row's records, an sb_fault, in words. */
const char *sb_fault_text(int fault);

static inline float sb_temperature_at(const sb_call *call, int64_t row)
{
    return call->in.temperatures ? sb_float_at(call->in.temperatures, row) : call->in.temperature;
}

/* Bytes of a logit. */
static inline int64_t sb_itemsize(int32_t logits_dtype) { return logits_dtype == SB_F32 ? 4 : 2; }

/* Where the logits that score row lie. */
static inline const char *sb_logits_of(const sb_call *call, int64_t row)
{
    const sb_batch *in = &call->in;
    int64_t element;
    row -= in->shift;
    if (in->cu_seqlens) element = row * in->row_stride;
    else element = row / in->time * in->batch_stride + row % in->time * in->row_stride;
    return (const char *)in->logits + element * sb_itemsize(in->logits_dtype);
}

/* Whether id is in row's kept set. */
static inline int sb_is_kept(const sb_call *call, int64_t row, int64_t id)
{
    const char *kept = (const char *)call->in.kept;
    uint32_t word;
    if (!kept) return 1;
    memcpy(&word, kept + (row * call->in.kept_stride + id / 32) * 4, 4);
    return word >> (id % 32) & 1;
}

/* Logit i of a row, as fp32. */
static inline float sb_logit_at(const char *logits, int32_t logits_dtype, int64_t i)
{
    uint16_t half;
    float x;
    if (logits_dtype == SB_F32) {
        memcpy(&x, logits + i * 4, 4);
        return x;
    }
    memcpy(&half, logits + i * 2, 2);
    return logits_dtype == SB_F16 ? sb_from_f16(half) : sb_from_bf16(half);
}

/* The logit of an id that the call holds, as row sees it: -inf outside its kept set. */
static inline float sb_target_logit(const sb_call *call, int64_t row, int64_t id)
{
    if (!sb_is_kept(call, row, id)) return sb_float(SB_ABSENT_BITS);
    return sb_logit_at(sb_logits_of(call, row), call->in.logits_dtype, id - call->first);
}

#endif
