/* samebits.h - token and sequence logprobs from logits, the same bits every time.
 *
 * This header is the manual. It is also the source of the LuaJIT declarations: tools/gen_cdef.lua
 * copies what stands between the two "ffi" marks into lua/samebits/cdef.lua.
 *
 * What is promised. A token's logprob is a pure function of its row's logits (as real numbers),
 * its id and its temperature. Batch size, position, padding, masks, neighbours, the dtype that
 * holds the logits, alignment, strides, threads, instruction set and backend cannot reach a single
 * bit of it. docs/numerics.md defines every operation; SB_NUMERICS is that definition's version.
 *
 * A first call:
 *
 *     char why[256];
 *     sb_context *ctx;
 *     if (sb_open(&ctx, SB_ABI, "cpu", NULL, why, sizeof why) != SB_OK) return fail(why);
 *
 *     sb_batch batch = SB_BATCH_INIT;
 *     batch.logits = logits;              // fp32 [B, T, V]
 *     batch.batch  = B;
 *     batch.time   = T;
 *     batch.vocab  = V;
 *     batch.ids    = ids;                 // int32 [B, T]
 *
 *     sb_logprob_out out = SB_LOGPROB_OUT_INIT;
 *     out.token    = token;               // fp32 [B, T]
 *     out.sequence = sequence;            // fp32 [B]
 *     if (sb_logprob(ctx, &out, &batch, NULL) != SB_OK) return fail(sb_last_error(ctx));
 *     sb_close(ctx);
 *
 * Conventions. Every function that can fail returns an sb_status; SB_OK is 0. After any other
 * status no output may be relied on: arguments and ids are checked before the first output is
 * written. Structs start with their size: begin with the INIT macro. The library never prints,
 * exits or aborts, keeps no mutable state outside of contexts but a count of forks, and owns no
 * memory of the caller's.
 *
 * Threads. Distinct contexts may be used from distinct threads at once. One context serves one call
 * at a time: another one that comes meanwhile, from another thread or from a signal handler, gets
 * SB_ERR_BUSY and changes nothing, and the call under way is none the worse. (Calls of a device
 * backend return before the device is done: that is no call under way.)
 *
 * fork(). In a child, a cpu context that its parent opened goes on with the same bits, on the
 * calling thread alone; one that the child opens has threads. The CUDA driver does not follow: a
 * cuda context, with its memory, streams and communicators, refuses every call in the child
 * with SB_ERR_BACKEND. sb_close works on both, and the parent's contexts never notice.
 *
 * The calling thread. Whatever its rounding mode, flushing of subnormals and floating-point traps
 * are: the bits are the same, nothing traps, and all is put back. A thread that is cancelled
 * (pthread_cancel) during a call finishes it and is cancelled then. */
#ifndef SAMEBITS_H
#define SAMEBITS_H

#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define SB_API __attribute__((visibility("default")))
#else
#define SB_API
#endif

/* Three numbers. The release; the layout of the structs and calls below, checked by sb_open; and
 * the version of the arithmetic, which moves when any bit of any result may move: record it beside
 * experiments. */
#define SB_VERSION "0.1.0"
#define SB_ABI 1
#define SB_NUMERICS 1

/* Limits, and what is taken where nothing is given. */
#define SB_MAX_VOCAB 1048576     /* the largest V: 2^20 */
#define SB_MAX_TOPK 64           /* the largest k of sb_topk */
#define SB_IGNORE_INDEX (-100)   /* the default ignore_index */

/* Every status, once: name, number, what it means. */
#define SB_STATUSES(X)                                                                             \
    X(SB_OK, 0, "success")                                                                         \
    X(SB_ERR_ARGUMENT, 1, "a null pointer, an unknown option or a struct of the wrong size")       \
    X(SB_ERR_SHAPE, 2, "a negative or oversized extent, stride, row list or cu_seqlens")           \
    X(SB_ERR_DTYPE, 3, "a dtype that this argument does not take")                                 \
    X(SB_ERR_ID, 4, "an active target id outside [0, V)")                                          \
    X(SB_ERR_TEMPERATURE, 5, "a temperature outside [2^-10, 2^10]")                                \
    X(SB_ERR_ABI, 6, "the caller was built against another SB_ABI")                                \
    X(SB_ERR_BACKEND, 7, "the backend is unknown, or unavailable on this machine")                 \
    X(SB_ERR_MEMORY, 8, "an allocation failed")                                                    \
    X(SB_ERR_SYSTEM, 9, "the operating system refused a thread or a fork handler")                 \
    X(SB_ERR_DEVICE, 10, "the device or its driver failed")                                        \
    X(SB_ERR_STATE, 11, "a state or target record that shards do not give, or of another row")     \
    X(SB_ERR_BUSY, 12, "another call of the context is under way: it serves one at a time")

#ifdef __cplusplus
extern "C" {
#endif

/* ffi begin */

/* ==== simple ====
 *
 * sb_open, sb_logprob, sb_last_error and sb_close, and what they take: all that it needs to score
 * batches on the CPU or, with device pointers, on a GPU. */

/* What a call comes to: SB_STATUSES says what each means. */
typedef enum sb_status {
    SB_OK = 0,
    SB_ERR_ARGUMENT = 1,
    SB_ERR_SHAPE = 2,
    SB_ERR_DTYPE = 3,
    SB_ERR_ID = 4,
    SB_ERR_TEMPERATURE = 5,
    SB_ERR_ABI = 6,
    SB_ERR_BACKEND = 7,
    SB_ERR_MEMORY = 8,
    SB_ERR_SYSTEM = 9,
    SB_ERR_DEVICE = 10,
    SB_ERR_STATE = 11,
    SB_ERR_BUSY = 12
} sb_status;

/* How elements are stored: IEEE binary32 and binary16, bfloat16, two's complement integers, all
 * little-endian. 0 is no dtype. */
typedef enum sb_dtype {
    SB_F32 = 1,
    SB_F16 = 2,
    SB_BF16 = 3,
    SB_I32 = 4,
    SB_I64 = 5
} sb_dtype;

/* A backend that has been opened, with its threads and scratch memory. */
typedef struct sb_context sb_context;

/* Options of sb_open. Start from SB_OPEN_OPTIONS_INIT; a zero field means the default. */
typedef struct sb_open_options {
    uint32_t size;          /* sizeof(sb_open_options) */
    int32_t threads;        /* cpu: threads that work on a call, 1 .. 1024; 0: all that this
                               process may use */
    const char *isa;        /* "scalar", "avx2", "avx512": then "auto" means cpu, and others refuse
                               it; null or "auto": the best one here */
} sb_open_options;

/* Opens a context. *ctx is set on success and null on failure, when why gets one line (as for
 * sb_probe). abi: SB_ABI. backend: a backend's name, or "auto": the first one available. options:
 * null for the defaults. Errors: SB_ERR_ABI, SB_ERR_BACKEND, SB_ERR_ARGUMENT, SB_ERR_MEMORY,
 * SB_ERR_SYSTEM. */
SB_API sb_status sb_open(sb_context **ctx, uint32_t abi, const char *backend,
                         const sb_open_options *options, char *why, size_t why_size);

/* What to score. Start from SB_BATCH_INIT.
 *
 * Two layouts. Padded: B sequences of T positions, logits [B, T, V], cu_seqlens null. Packed: N
 * positions of B sequences one after the other, logits [N, V], cu_seqlens [B + 1] with
 * cu_seqlens[0] = 0, never falling, cu_seqlens[B] = N. Both number their rows (positions) from 0:
 * row b * T + t, or n.
 *
 * Everything that is per row is contiguous and shares that number: ids, mask, temperatures, the
 * row list, token and lse. Only the logits are strided.
 *
 * A row is ignored where its id is ignore_index, its mask is 0, it is missing from the row list,
 * or, with shift, it is its sequence's first. Its logprob and lse are +0, its logits are not read
 * (they may be NaN, or unmapped), its id and temperature are not checked, and it counts nowhere.
 * One exception: the cuda backend fetches the logits of a call of at most 20 MiB, without mask,
 * row list, temperatures or shift, before it knows the ids (sb_launch: cluster -1 forbids it). An
 * ignored row's are thrown away unseen, but must be mapped. It reads nothing behind a row's last
 * logit. Before the first, it may read what lies in the same 16-byte chunk, and does not use it:
 * device allocations begin at such boundaries.
 *
 * A kept set says which of a row's ids take part (what top-k or top-p sampling or a grammar left).
 * The others count as -inf, whatever their logits hold, NaN too; logprobs are those of the ids that
 * are kept, renormalised. An active target outside its kept set is no error, for sets recorded from
 * another model's logits do meet it: its logprob is -inf and sb_logprob_out.outside counts it.
 *
 * Precedence: ignored; then a bad id (an error); then a row that is poisoned (NaN or +inf among
 * its logits) or empty (all -inf): NaN; then a target whose logit is -inf: -inf; then the formula.
 */
typedef struct sb_batch {
    uint32_t size;            /* sizeof(sb_batch) */
    int32_t logits_dtype;     /* SB_F32, SB_F16 or SB_BF16 */
    const void *logits;       /* any alignment */
    int64_t batch;            /* B >= 0 */
    int64_t time;             /* T >= 0; padded layout only */
    int64_t rows;             /* N >= 0; packed layout only */
    int64_t vocab;            /* V, 1 .. SB_MAX_VOCAB */
    int64_t row_stride;       /* elements from one row's logits to the next one's, >= V; 0: V */
    int64_t batch_stride;     /* padded: elements from one sequence's logits to the next one's,
                                 >= 0 (they may overlap); 0: T * row_stride */
    const void *cu_seqlens;   /* [B + 1], or null: padded */
    const void *ids;          /* [B, T] or [N] target ids */
    const uint8_t *mask;      /* the same shape, non-zero: active; null: all active */
    const float *temperatures;/* the same shape, one a row; null: temperature, for every row */
    const int64_t *row_list;  /* [row_count] rows to score, strictly rising; null: all of them */
    int64_t row_count;
    int64_t ignore_index;     /* wins over the range check, even inside [0, V) */
    int32_t cu_seqlens_dtype; /* SB_I32 or SB_I64 */
    int32_t ids_dtype;        /* SB_I32 or SB_I64 */
    float temperature;        /* divides the logits; in [2^-10, 2^10] */
    int32_t shift;            /* 0: logits of row t score id t. 1: causal, logits of row t score id
                                 t + 1 of the same sequence; the result stands at t + 1, beside the
                                 id it belongs to, and a sequence's first row is ignored */
    const uint32_t *kept;     /* [B, T, W] or [N, W] words, W = ceil(V / 32): the row's id i is kept
                                 where bit i % 32 of word i / 32 is 1. null: all are */
    int64_t kept_stride;      /* words from one row's kept set to the next one's, >= W; 0: W */
} sb_batch;

/* What a call to sb_logprob or sb_finish may leave of a row for sb_logprob_backward: 32 bytes,
 * little-endian, the same on every machine; may be stored and sent. docs/numerics.md, section
 * "Gradients". */
typedef struct sb_saved_row {
    uint32_t kind; /* 0: ignored; 1: e and g; 2: best and h2, too; 3: NaN */
    uint32_t c;    /* the bits of the row constant c: from the temperature */
    int32_t e;     /* the sum of 2^(logit * c) is g * 2^e, g about in [0.707, 1.414] */
    uint32_t best; /* the bits of the largest logit as fp32 */
    double g;
    double h2;     /* the entropy in octaves */
} sb_saved_row;

/* Where results go. Start from SB_LOGPROB_OUT_INIT; a null pointer means: not wanted. Outputs must
 * not overlap each other or an input. */
typedef struct sb_logprob_out {
    uint32_t size;            /* sizeof(sb_logprob_out) */
    uint32_t reserved;        /* 0 */
    float *token;             /* [B, T] or [N]: ln p(id); in nats; never above 0 */
    float *lse;               /* [B, T] or [N]: ln sum_i exp(logit_i / temperature) */
    float *sequence;          /* [B]: the exact sum of the active token logprobs, rounded once */
    int64_t *count;           /* [B]: active tokens */
    int64_t *outside;         /* [B]: active tokens whose id is outside its row's kept set */
    float *entropy;           /* [B, T] or [N]: of each row's distribution, in nats; never below 0.
                                 A struct whose size ends before outside, entropy or saved is
                                 taken, too */
    sb_saved_row *saved;      /* [B, T] or [N]: for sb_logprob_backward; of kind 2 where entropy is
                                 asked for as well */
} sb_logprob_out;

/* How to run one call; never what comes out. Start from SB_LAUNCH_INIT, or pass null. */
typedef struct sb_launch {
    uint32_t size;            /* sizeof(sb_launch) */
    int32_t split;            /* pieces to cut each row into, 1 .. 65536; 0: chosen */
    int32_t threads;          /* cuda: threads a block, a multiple of 32 up to 512; 0: chosen */
    int32_t check;            /* cuda: 1: wait for the call, and fail as the cpu does where a device
                                 array holds a bad id, temperature, row, cu_seqlens or record. 0:
                                 return at once; such rows become NaN, and sb_check tells */
    void *stream;             /* cuda: the CUstream or cudaStream_t to run in; null: the default */
    void *workspace;          /* cuda: device memory for scratch, 256-byte aligned, this call's own
                                 until it is done; null: allocated and freed in stream order */
    uint64_t workspace_size;  /* in bytes */
    uint64_t *needed;         /* not null: the call only checks its arguments, and writes the bytes
                                 of workspace that it needs here, to ordinary memory: 0 for none.
                                 Nothing runs, and no array is touched */
    int32_t cluster;          /* cuda: 1: a row's pieces, 2 .. 16, are a thread block cluster, where
                                 the GPU has clusters; 0: chosen; -1: they are not, and no logits
                                 are fetched before their row's id is known */
    int32_t timeout;          /* sb_exchange: milliseconds to wait for NCCL and the other ranks;
                                 0: 600000, ten minutes; -1: without end */
} sb_launch;

/* The logprob of each row's id, and per sequence their exact sum.
 *
 *   token[r] = ln( exp(x_id / tau) / sum_i exp(x_i / tau) )
 *
 * computed as docs/numerics.md defines: |error| <= 4.1e-7 + 2^-24 * entropy + half an output ulp,
 * 3.3e-7 instead of 4.1e-7 for lse. Logits saturate where |x / tau| is above 1.44e6 (1.442e6 to
 * 1.454e6, by tau): this bound and those below hold for the saturated ones, and for V <= 2^20.
 * Exactly 0 where a token stands alone, never above 0, -inf where the target's logit is -inf, the
 * NaN 7fc00000 where the row is poisoned or empty. A sequence is NaN if any active token is NaN,
 * else -inf if any is -inf; a sequence without active tokens is +0.
 *
 *   entropy[r] = -sum_i p_i ln p_i
 *
 * takes the same pass over the logits and moves no other bit; a call that does not ask for it does
 * not pay for it. Exactly 0 where one id is present, +0 where the row is ignored, NaN as above.
 * With var the variance of ln p under p, at most (1 + ln(V) / 2)^2, and sd its root,
 * |error| <= 1.34e-6 + 3.23e-7 * sd + 2^-24 * var + half an ulp: below 7.7e-6 + half an ulp for
 * every row.
 *
 * Requires: ctx open, out and batch as described at their types. Writes: the outputs asked for, all
 * of each. Errors: SB_ERR_ARGUMENT, SB_ERR_SHAPE, SB_ERR_DTYPE, SB_ERR_ID, SB_ERR_TEMPERATURE (the
 * first bad row is named), SB_ERR_MEMORY.
 * Deterministic across: everything but the row's logits, id and temperature. */
SB_API sb_status sb_logprob(sb_context *ctx, const sb_logprob_out *out, const sb_batch *batch,
                            const sb_launch *launch);

/* One line about this context's last failure, naming the row, id or shape; "" if its last call
 * succeeded. Valid until the context's next call. While a call is under way, and in a context that
 * has ever answered SB_ERR_BUSY to all threads but that of the last call: a line that says so. */
SB_API const char *sb_last_error(const sb_context *ctx);

/* Frees a context; null does nothing. Its calls in streams have to be done, and graphs that hold
 * some of them to be gone. Where a call of it is under way in another thread, returns at once, and
 * that call, which ends as it would have, frees the context: no other use of it, not of
 * sb_last_error either, is allowed from then on. */
SB_API void sb_close(sb_context *ctx);

/* ==== advanced ====
 *
 * In this order: what the library, its backends and a context are; several ids per row and ranks;
 * gradients; shards of the vocabulary, and their exchange between GPUs; ratios, sums and means of
 * tokens; divergences; device memory and streams. Each section stands alone. */

/* ---- the library, its backends, a context ---- */

/* The release, SB_ABI and SB_NUMERICS of the library itself (the macros are the header's). */
SB_API const char *sb_version(void);
SB_API uint32_t sb_abi(void);
SB_API uint32_t sb_numerics(void);

/* "SB_ERR_ID" for SB_ERR_ID, and what it means; "unknown status" for any other number. */
SB_API const char *sb_status_name(sb_status status);
SB_API const char *sb_status_text(sb_status status);

/* The name of backend number index, best first; null past the last. Known, not necessarily
 * available: ask sb_probe. */
SB_API const char *sb_backend_name(int32_t index);

/* Whether a backend can be opened here. Writes at most why_size bytes into why, always terminated:
 * "" if it can, else one line that says why not. why may be null where why_size is 0. */
SB_API sb_status sb_probe(const char *backend, char *why, size_t why_size);

/* What was opened: the backend's name ("cpu"), its instruction set ("avx2"), its threads; of null:
 * "", "" and 0. Valid until sb_close, and to be asked for from any thread, at any time. */
SB_API const char *sb_context_backend(const sb_context *ctx);
SB_API const char *sb_context_isa(const sb_context *ctx);
SB_API int32_t sb_context_threads(const sb_context *ctx);

/* ---- several ids per row, ranks, and the first ids ----
 *
 * The ids of a row are ordered by logit as a real number (-0 equals 0), the largest first; of equal
 * logits the lower id comes first. Logits are compared, not logprobs, which may round to the same
 * bits. Ids that are absent (-inf, or outside the row's kept set) come after all that are present.
 */

/* Where the results of sb_logprob_ids go. Start from SB_IDS_OUT_INIT; null: not wanted. */
typedef struct sb_ids_out {
    uint32_t size;            /* sizeof(sb_ids_out) */
    uint32_t reserved;        /* 0 */
    float *logprob;           /* [B, T, K] or [N, K]: as sb_logprob's token of each id by itself */
    int32_t *rank;            /* the same shape: present ids that come before this one */
    float *lse;               /* [B, T] or [N]: as sb_logprob's */
} sb_ids_out;

/* The logprobs and ranks of K ids per row, from one pass over its logits.
 *
 * batch as for sb_logprob, but its ids are [B, T, K] or [N, K], K in [1, SB_MAX_VOCAB]; each of
 * them may be ignore_index. A row with nothing else is ignored, as one that is masked.
 *
 * An ignored row or id has logprob +0 and rank -1; a poisoned or empty row NaN and -1. The rank of
 * an absent id is the number of present ones. Ranks take a second pass over the logits, and K
 * comparisons for each of them.
 *
 * Errors: as sb_logprob; SB_ERR_SHAPE where k is no K. */
SB_API sb_status sb_logprob_ids(sb_context *ctx, const sb_ids_out *out, const sb_batch *batch,
                                int64_t k, const sb_launch *launch);

/* Where the results of sb_topk go. Start from SB_TOPK_OUT_INIT; null: not wanted. */
typedef struct sb_topk_out {
    uint32_t size;            /* sizeof(sb_topk_out) */
    uint32_t reserved;        /* 0 */
    int32_t *ids;             /* [B, T, k] or [N, k]: each row's first k present ids, in order */
    float *logprob;           /* the same shape: their logprobs, as sb_logprob's tokens */
    float *lse;               /* [B, T] or [N]: as sb_logprob's */
} sb_topk_out;

/* The first k ids of each row, k in [1, SB_MAX_TOPK], and their logprobs; k = 1: its argmax.
 *
 * batch as for sb_logprob. Its ids may be null: then rows are ignored for their mask, row list and
 * shift alone. Where fewer than k ids are present, the rest are id -1 with logprob -inf. An ignored
 * row has ids -1 and logprobs +0; a poisoned or empty row ids -1 and NaN.
 *
 * Errors: as sb_logprob; SB_ERR_SHAPE for another k. */
SB_API sb_status sb_topk(sb_context *ctx, const sb_topk_out *out, const sb_batch *batch, int64_t k,
                         const sb_launch *launch);

/* ---- gradients ---- */

/* What sb_logprob_backward reads and where it writes. Start from SB_GRADIENT_INIT. */
typedef struct sb_gradient {
    uint32_t size;            /* sizeof(sb_gradient) */
    int32_t dtype;            /* of grad: SB_F32, SB_F16 or SB_BF16, whatever the logits' is */
    void *grad;               /* [B, T, width] or [N, width], as the logits lie: row r of the logits
                                 has its gradient in row r. It may be the logits themselves, given
                                 the same dtype and strides, and not overlap otherwise */
    int64_t width;            /* elements of a row to write, >= V: from V on +0; 0: V */
    int64_t row_stride;       /* elements from one row to the next, >= width; 0: width */
    int64_t batch_stride;     /* padded: from one sequence to the next; rows must not overlap; 0:
                                 T * row_stride */
    const sb_saved_row *saved;/* [B, T] or [N]: what the forward call left, of the same batch */
    const float *token;       /* [B, T] or [N]: the loss's derivative by each token logprob; null:
                                 it does not depend on them */
    const float *entropy;     /* the same by each entropy; one of the two is not null */
    int64_t first, held;      /* the logits are a shard's, as for sb_partial (held: n), and grad's
                                 rows have n elements where V is said above; 0, 0: all of V. An
                                 empty shard has held 0 and any other first: V, for one */
} sb_gradient;

/* The gradient of a loss with respect to the logits, from its derivatives by the outputs.
 *
 *   grad[r, i] = token[r] / tau * ((i is the id) - p_i)  -  entropy[r] / tau * p_i (ln p_i + H)
 *
 * in one pass over the logits and without other memory: nothing is added up, each element comes
 * from its own logit and the row's 32 bytes. Rows that are ignored get +0 and their logits are not
 * read; so do absent logits (-inf) and p below 2^-125. A poisoned or empty row gets NaN: 7fc00000,
 * in bf16 7fc0, in fp16 7e00. Results are fp32, rounded once more, to nearest even, where grad is
 * bf16 or fp16. Before that, for derivatives t and e of a row, |error| <= 5.7e-7 |t| / tau and
 * 1.1e-5 |e| / tau, each and half an ulp; docs/numerics.md, section "Gradients", has the formulas,
 * and "Error of a gradient" narrower bounds.
 *
 * batch is the forward call's. With shift a result at r belongs to the logits of row r - 1: token,
 * entropy and saved stand at r, the gradient at r - 1.
 *
 * Writes: all of grad, V .. width included. Errors: as sb_logprob; SB_ERR_STATE names the first
 * row whose saved record no such row leaves, whose temperature is another one, or that holds no
 * entropy where its derivative is given; SB_ERR_SHAPE where rows of grad overlap.
 * Deterministic across: everything but the row's logits, id, temperature and derivatives. */
SB_API sb_status sb_logprob_backward(sb_context *ctx, const sb_gradient *gradient,
                                     const sb_batch *batch, const sb_launch *launch);

/* ---- shards of the vocabulary ----
 *
 * Where each of several processes or GPUs holds the logits of some ids of every row (tensor
 * parallelism), each calls sb_partial, they exchange the records, 40 bytes per row, each calls
 * sb_merge and sb_finish, and all have the bits that sb_logprob gives for the whole rows:
 *
 *     sb_records mine = SB_RECORDS_INIT, all = SB_RECORDS_INIT;
 *     mine.states  = states;              // sb_state_record [rows]
 *     mine.targets = targets;             // sb_target_record [rows]
 *     all.states   = all_states;          // [shards][rows]
 *     all.targets  = all_targets;
 *
 *     sb_partial(ctx, &mine, &batch, first, n, NULL);
 *     all_gather(all_states, states);  all_gather(all_targets, targets);
 *     sb_merge(ctx, &mine, &all, shards, rows, NULL);
 *     sb_finish(ctx, &out, &batch, &mine, NULL);
 *
 * Any cut at multiples of 16, any number of shards, any order and tree of merges: the same bytes.
 * What cannot be seen in records is the caller's duty: that shards do not overlap, and that only
 * absent ids (-inf) are missing.
 *
 * Entropy, and what sb_logprob saves beside it, needs records of kind SB_MOMENTS, 72 bytes per row;
 * all shards use the same kind.
 *
 * In sb_partial and sb_finish batch describes whole rows: vocab is V, ids are in [0, V), and kept
 * sets are of V bits. */

/* The sum over some of a row's ids: 32 bytes, little-endian, the same on every machine; may be
 * stored and sent. docs/numerics.md, section "Shards and state bytes". */
typedef struct sb_state_record {
    uint32_t J;    /* 0: no id present; 0x7fffffff: poisoned; else 65536 .. 196608 */
    uint32_t c;    /* the bits of the row constant c: from the temperature. 0: ignored */
    uint64_t l[3]; /* digits; never carried into each other */
} sb_state_record;

/* The same with what entropy needs: 64 bytes, likewise. */
typedef struct sb_moment_record {
    sb_state_record sum;
    int64_t g[3];        /* each digit's moment about 32 * J - 2^22 */
    uint32_t best;       /* the order key of the largest logit present; 0: none, or poisoned */
    uint32_t reserved;   /* 0 */
} sb_moment_record;

/* The target's logit, from the one shard that holds it: 8 bytes, likewise. */
typedef struct sb_target_record {
    uint32_t x;      /* the bits of the logit as fp32; 0 where owners is 0 */
    uint32_t owners; /* shards that hold the target: 1, or 0 */
} sb_target_record;

/* What a row's state holds. */
typedef enum sb_record_kind {
    SB_SUMS = 1,   /* an sb_state_record: what logprobs need */
    SB_MOMENTS = 2 /* an sb_moment_record: what entropy needs, too */
} sb_record_kind;

/* The records of rows: two arrays with one element per row each. Start from SB_RECORDS_INIT. A
 * call that only reads them writes to neither. */
typedef struct sb_records {
    uint32_t size;             /* sizeof(sb_records) */
    int32_t kind;              /* SB_SUMS or SB_MOMENTS */
    void *states;              /* sb_state_record or sb_moment_record, by kind */
    sb_target_record *targets;
} sb_records;

/* The records of a shard: the ids first .. first + n - 1 of each row.
 *
 * batch as for sb_logprob, but logits are [.., n], row_stride is >= n, and 0 stands for n (a time
 * and a batch stride of 0 likewise). first is a multiple of 16, and so is n, unless the shard ends
 * at V; with n = 0 logits may be null and first is anything in [0, V].
 *
 * Writes: records, of [rows], all of each; an ignored row's are zero. Errors: as sb_logprob, a bad
 * id included. launch: as for sb_logprob; cluster has no effect. */
SB_API sb_status sb_partial(sb_context *ctx, const sb_records *records, const sb_batch *batch,
                            int64_t first, int64_t n, const sb_launch *launch);

/* Merges records: those of [rows] from those of shards, [shards][rows], as an all-gather leaves
 * them; shards >= 1. Both are of one kind. The result is a record like any other, of the shards'
 * ids together. It may take the place of the first shard (the same states and the same targets)
 * and not overlap otherwise.
 *
 * Errors: SB_ERR_STATE names the row and the shard of the first record (by row, then by shard)
 * that no shard gives, or whose c is not the first shard's; nothing is written then. On a device,
 * without check, such rows get records that are refused from then on. Of launch, stream and check
 * have an effect. */
SB_API sb_status sb_merge(sb_context *ctx, const sb_records *records, const sb_records *from,
                          int64_t shards, int64_t rows, const sb_launch *launch);

/* From the records of whole rows to what sb_logprob writes: the same outputs, the same bits.
 *
 * batch as for sb_partial; its logits and strides are not looked at. records are of [rows]; those
 * of ignored rows are not looked at either.
 *
 * Records of kind SB_SUMS do not hold what entropy needs: SB_ERR_ARGUMENT says so.
 *
 * Errors: as sb_logprob; then SB_ERR_STATE names the first row whose records no shards give, whose
 * c is not its temperature's, whose id does not lie in exactly one of the merged shards, or whose
 * state cannot hold the target's logit: what is finished is never above 0. */
SB_API sb_status sb_finish(sb_context *ctx, const sb_logprob_out *out, const sb_batch *batch,
                           const sb_records *records, const sb_launch *launch);

/* ---- exchanging records between GPUs ----
 *
 * Where the shards are on several GPUs, sb_exchange is the all-gathers and the merge in one call:
 *
 *     sb_partial(ctx, &records, &batch, first, n, &launch);
 *     sb_exchange(ctx, &records, rows, comm, &launch);
 *     sb_finish(ctx, &out, &batch, &records, &launch);
 *
 * each of them in every rank, in the same order, as all of NCCL's collectives. All have the bits of
 * whole rows, however many ranks there are and whichever has which ids.
 *
 * comm is an ncclComm_t: the caller's own, or from sb_comm_create. NCCL is not linked, and none of
 * it is needed to build: libnccl.so.2 is loaded by the first of these calls, from where the
 * system's loader finds it, or the file that the environment variable SAMEBITS_NCCL names. A
 * library of that name that the process has loaded before is the one that is used, which a
 * communicator of a framework's needs.
 *
 * These calls are cuda's; others answer SB_ERR_BACKEND (gather by other means, then sb_merge), and
 * so does cuda where there is no NCCL. What NCCL refuses is told in its own words: SB_ERR_ARGUMENT
 * where it blames the arguments, else SB_ERR_DEVICE. */

/* What ranks that are to form a communicator share: an ncclUniqueId. */
typedef struct sb_comm_id {
    char bytes[128];
} sb_comm_id;

/* A new id: made by one rank and sent to the others by any means. */
SB_API sb_status sb_comm_new_id(sb_context *ctx, sb_comm_id *id);

/* A communicator of so many ranks, of which this is number rank, on the context's GPU. Waits until
 * all of them have called it with the same id; NCCL wants a GPU for each. *comm is null on failure.
 */
SB_API sb_status sb_comm_create(sb_context *ctx, void **comm, const sb_comm_id *id, int32_t ranks,
                                int32_t rank);

/* Frees one that sb_comm_create made; null does nothing. All ranks have to, and it waits for what
 * was put into streams with it. */
SB_API sb_status sb_comm_destroy(sb_context *ctx, void *comm);

/* Frees one without waiting, and ends what was put into streams with it and is not done: what is
 * left to do with a communicator when a rank has failed, or an exchange has come to its timeout.
 * Null does nothing. */
SB_API sb_status sb_comm_abort(sb_context *ctx, void *comm);

/* Replaces a shard's records, of [rows], by those of the ids of all ranks together: they become
 * what sb_merge would give. In launch's stream; without check it waits for nothing
 * (but a communicator's first call, where NCCL connects, or with one made not to block, until NCCL
 * has put the work into the stream), and with a workspace it allocates nothing. It needs 40 bytes
 * per row and rank and a few more, 72 for moments.
 *
 * rows is the same in all ranks, and check, too: with check the ranks first compare their rows and
 * SB_NUMERICS, 16 bytes each, and wait for them. Without, NCCL may hang or mix up records whose
 * numbers differ.
 *
 * Errors: as sb_merge, the rank being the shard; SB_ERR_ARGUMENT for a communicator of another GPU;
 * with check SB_ERR_SHAPE and SB_ERR_STATE name the first rank that differs, and nothing was
 * exchanged. After a failure of one rank alone the others wait: abort the communicator.
 *
 * Timeout: with check for the other ranks, and with a communicator made not to block for NCCL, the
 * call waits as long as launch's timeout says, for all of it together. Then, and if NCCL reports an
 * error meanwhile, it is SB_ERR_DEVICE, and what it has put into the stream may stand there still:
 * abort the communicator. The timeout does not end NCCL's own waits: it connects to the other ranks
 * in the first call of a communicator that blocks. */
SB_API sb_status sb_exchange(sb_context *ctx, const sb_records *records, int64_t rows, void *comm,
                             const sb_launch *launch);

/* ---- ratios, KL estimates, sums and means of tokens ----
 *
 * From two sets of token logprobs, of the policy that the tokens were sampled from and of another
 * one, what a PPO, GRPO or GSPO step needs:
 *
 *     sb_compare(ctx, &each, old, now, tokens, NULL);     // each.ratio: now / old, each.k3: ..
 *
 *     sb_values values = SB_VALUES_INIT;                  // per sequence
 *     values.values = now;                                // fp32 [B, T]
 *     values.minus  = old;
 *     values.mask   = mask;
 *     values.batch  = B;
 *     values.time   = T;
 *     sb_sums(ctx, &out, &values, NULL);                // out.exp_mean: GSPO's ratio
 *
 * Where logprobs are equal bit for bit, ratios are exactly 1 and estimates exactly 0. Sums are of
 * real numbers, rounded once: order, padding and packing cannot reach a bit. */

/* Where sb_compare writes, [count] each; a null pointer means: not wanted. Start from
 * SB_COMPARE_OUT_INIT. d = other - sampled. */
typedef struct sb_compare_out {
    uint32_t size;            /* sizeof(sb_compare_out) */
    uint32_t reserved;        /* 0 */
    float *ratio;             /* e^d: the importance ratio */
    float *k1;                /* -d */
    float *k2;                /* d^2 / 2 */
    float *k3;                /* e^d - 1 - d; their means estimate KL(sampled || other) */
} sb_compare_out;

/* Compares tokens one by one: sampled [count] are logprobs by the policy that the tokens were drawn
 * from, other [count] by the other one.
 *
 * Equal bits: ratio 1, estimates +0. A NaN: all four NaN. k2 and k3 are never negative, nothing is
 * -0. |error| <= 0.5001 ulp. Outputs must not overlap each other or the inputs.
 *
 * Errors: SB_ERR_ARGUMENT, SB_ERR_SHAPE. Of launch, stream has an effect. */
SB_API sb_status sb_compare(sb_context *ctx, const sb_compare_out *out, const float *sampled,
                            const float *other, int64_t count, const sb_launch *launch);

/* What to sum: a number a token. Start from SB_VALUES_INIT. Layouts as in sb_batch: padded [B, T],
 * or packed [N] with cu_seqlens. The whole batch as one: batch = 1, time = B * T or N. */
typedef struct sb_values {
    uint32_t size;            /* sizeof(sb_values) */
    int32_t cu_seqlens_dtype; /* SB_I32 or SB_I64 */
    const float *values;      /* [B, T] or [N]: any fp32 */
    const float *minus;       /* the same shape, or null: values - minus is summed, exactly; nothing
                                 where the bits are equal */
    const uint8_t *mask;      /* the same shape, non-zero: active; null: all active */
    int64_t batch;            /* B >= 0 */
    int64_t time;             /* T, 0 .. 2^29; padded layout only */
    int64_t rows;             /* N >= 0; packed layout only */
    const void *cu_seqlens;   /* [B + 1], at most 2^24 positions a sequence; or null: padded */
} sb_values;

/* Where sb_sums writes, [B] each; null: not wanted. Start from SB_SUMS_OUT_INIT. */
typedef struct sb_sums_out {
    uint32_t size;            /* sizeof(sb_sums_out) */
    uint32_t reserved;        /* 0 */
    float *sum;               /* the exact sum of the active values, rounded once */
    float *mean;              /* the sum, rounded to 53 bits, over count */
    float *exp_mean;          /* e^mean, from the mean before it is rounded to fp32 */
    int64_t *count;           /* active values */
} sb_sums_out;

/* Sums and means of each sequence.
 *
 * A sequence is NaN if any active value is, or if both infinities occur; else the infinity that
 * occurs. Without active values: sum and mean +0, exp_mean 1. Nothing is -0. What is not active is
 * not looked at. |error| of sum: half an ulp; of mean and exp_mean: 0.5001 ulp.
 *
 * Errors: SB_ERR_ARGUMENT, SB_ERR_SHAPE, SB_ERR_DTYPE. Of launch, stream and check have an effect;
 * on a device, without check, a sequence of cu_seqlens that do not rise is NaN. */
SB_API sb_status sb_sums(sb_context *ctx, const sb_sums_out *out, const sb_values *values,
                           const sb_launch *launch);

/* ---- the divergence of two sets of logits ----
 *
 * Where the logits of two policies are at hand, the KL divergence of their distributions needs no
 * estimate. Row r of p is compared with row r of q:
 *
 *     sb_batch q = SB_BATCH_INIT;           // as p: vocab, and batch and time or rows
 *     q.logits = reference_logits;
 *     q.logits_dtype = SB_BF16;             // it has its own dtype, strides and temperature
 *     sb_kl(ctx, &out, &p, &q, NULL);       // out.token: KL(p || q) of each row */

/* Where sb_kl writes; null: not wanted. Start from SB_KL_OUT_INIT. */
typedef struct sb_kl_out {
    uint32_t size;            /* sizeof(sb_kl_out) */
    uint32_t reserved;        /* 0 */
    float *token;             /* [B, T] or [N]: KL(p || q) in nats; never below 0 */
    float *sequence;          /* [B]: the exact sum of the active rows' values, rounded once */
} sb_kl_out;

/* The divergence of each row of p from the same row of q.
 *
 *   token[r] = sum_i p_i (ln p_i - ln q_i), p = softmax(x^p / tau^p), q = softmax(x^q / tau^q)
 *
 * in one pass over both. p and q have the same layout, vocab, batch, time or rows, and shift; each
 * has its own logits, dtype, strides, temperature or temperatures, and kept sets. p alone says
 * which rows are active, and where sequences begin: of q, ids, mask, row_list, ignore_index and
 * what cu_seqlens hold are not looked at. p's ids may be null, as for sb_topk.
 *
 * Exactly +0 where p and q have the same logits, temperature and kept set; +inf where an id is
 * present in p and absent in q; NaN (7fc00000) where a row of either is poisoned or empty; +0 in
 * ignored rows, of which neither's logits are read. A sequence is NaN if any active row is, else
 * +inf if any is; without active rows +0. With H an entropy and cov the covariance of ln p and
 * ln p - ln q under p,
 *
 *   |error| <= 4.6e-6 + 1.31e-6 * KL + 2^-24 * (|cov| + |H(p) - H(q) + KL|) + half an ulp,
 *
 * the first term being absolute: for divergences below 1e-4, if their relative error matters, see
 * k3 of sb_compare. docs/numerics.md, "Error of a divergence".
 *
 * Errors: as sb_logprob, where the message begins with p or q, whichever is at fault;
 * SB_ERR_SHAPE and SB_ERR_ARGUMENT where they do not fit each other.
 * Deterministic across: everything but both rows' logits, kept sets and temperatures. */
SB_API sb_status sb_kl(sb_context *ctx, const sb_kl_out *out, const sb_batch *p, const sb_batch *q,
                       const sb_launch *launch);

/* ---- device backends: cuda, cuda:N ----
 *
 * All pointers of sb_batch, sb_logprob_out, sb_gradient and records are then device memory of the
 * context's GPU (or pinned or managed memory), aligned to their elements. Calls are put into a
 * stream and return: results are there when the stream has got so far. A call neither waits nor,
 * with a workspace, allocates, and may be captured into a CUDA graph (check must be 0 then; the
 * context and all arrays have to live as long as the graph). The GPU's primary context is used, so
 * that a framework's pointers and streams are good here; the calling thread's current context is
 * left as it was. Calls of one context in several streams may run at the same time; each needs a
 * workspace of its own, or none.
 *
 * An array whose allocation ends before the call's last row does is refused by name, also if the
 * rows at its end are ignored: logits have to reach to the end of the last row, with shift of the
 * last one that scores an id. One that is cut out of a larger allocation cannot be told apart.
 *
 * On cpu the calls below work, too, at once and on ordinary memory; stream is ignored. */

/* Waits for a stream, and tells what calls without a check met: a bad id, temperature, row list,
 * cu_seqlens or record.
 *
 * Each stream has one report, of all calls without a check in it, and each CUDA graph has one, of
 * the calls that were captured into it, whichever stream it is launched in. If several rows or
 * calls met something bad, the report names one of the rows. A call with check = 1 fails by itself
 * and names its first bad row: it is in no report, and takes none away.
 *
 * Once the stream has been waited for, sb_check fails with one report, and forgets that one alone:
 *
 *     the stream's; if it has none, a graph's;
 *     if there is none either and the stream is the default one (null), any other stream's.
 *
 * All else stays for later: repeat it until it gives SB_OK. Reports are this context's, by the
 * streams' handles. A context keeps 255 streams apart, and 255 graphs; further ones have one report
 * together, which any sb_check tells.
 *
 * A stream that is being captured cannot be waited for: SB_ERR_ARGUMENT, here, by sb_stream_wait
 * and by a call with check = 1, and the capture goes on. */
SB_API sb_status sb_check(sb_context *ctx, void *stream);

/* Kinds of memory that sb_memory_alloc gives. */
typedef enum sb_memory {
    SB_DEVICE = 1, /* the backend's own: on the GPU; for cpu, ordinary memory */
    SB_PINNED = 2  /* the host's, page-locked, for copies that run beside other work */
} sb_memory;

/* sb_open, sb_close and what below makes, frees or waits may also be called while a stream is
 * captured into a graph: that is no part of the graph, and the capture goes on. A copy is work in a
 * stream, as other calls are. */

/* Memory: *data gets bytes (null for 0); free takes null. Copies go between any two of device,
 * pinned and ordinary memory, in the stream's order; between pinned and device memory without
 * waiting. */
SB_API sb_status sb_memory_alloc(sb_context *ctx, void **data, uint64_t bytes, sb_memory kind);
SB_API sb_status sb_memory_free(sb_context *ctx, void *data, sb_memory kind);
SB_API sb_status sb_memory_copy(sb_context *ctx, void *to, const void *from, uint64_t bytes,
                                void *stream);

/* Streams that do not wait for the default one, and waiting for a stream. */
SB_API sb_status sb_stream_create(sb_context *ctx, void **stream);
SB_API sb_status sb_stream_destroy(sb_context *ctx, void *stream);
SB_API sb_status sb_stream_wait(sb_context *ctx, void *stream);

/* ffi end */

/* Initialisers: every struct starts from one. */
#define SB_OPEN_OPTIONS_INIT { sizeof(sb_open_options), 0, 0 }
#define SB_BATCH_INIT                                                                              \
    { sizeof(sb_batch), SB_F32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, SB_IGNORE_INDEX, SB_I32,    \
      SB_I32, 1.0f, 0, 0, 0 }
#define SB_LOGPROB_OUT_INIT { sizeof(sb_logprob_out), 0, 0, 0, 0, 0, 0, 0, 0 }
#define SB_IDS_OUT_INIT { sizeof(sb_ids_out), 0, 0, 0, 0 }
#define SB_TOPK_OUT_INIT { sizeof(sb_topk_out), 0, 0, 0, 0 }
#define SB_RECORDS_INIT { sizeof(sb_records), SB_SUMS, 0, 0 }
#define SB_COMPARE_OUT_INIT { sizeof(sb_compare_out), 0, 0, 0, 0, 0 }
#define SB_VALUES_INIT { sizeof(sb_values), SB_I32, 0, 0, 0, 0, 0, 0, 0 }
#define SB_SUMS_OUT_INIT { sizeof(sb_sums_out), 0, 0, 0, 0, 0 }
#define SB_KL_OUT_INIT { sizeof(sb_kl_out), 0, 0, 0 }
#define SB_GRADIENT_INIT { sizeof(sb_gradient), SB_F32, 0, 0, 0, 0, 0, 0, 0, 0, 0 }
#define SB_LAUNCH_INIT { sizeof(sb_launch), 0, 0, 0, 0, 0, 0, 0, 0, 0 }

#ifdef __cplusplus
}
#endif

#endif /* SAMEBITS_H */
