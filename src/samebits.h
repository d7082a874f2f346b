/* samebits.h - token and sequence logprobs from logits, the same bits every time.
 *
 * This header is the reference manual. It is also the source of the LuaJIT declarations:
 * tools/gen_cdef.lua copies the text between the two "ffi" marks into lua/samebits/cdef.lua.
 *
 * The promise. A token's logprob is a pure function of its row's logits (as real numbers), its id
 * and its temperature. Batch size, position, padding, masks, neighbours, the dtype that holds the
 * logits, alignment, strides, threads, instruction set and backend cannot change a single bit of
 * it. docs/numerics.md defines every operation; SB_NUMERICS is the version of that definition.
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
 * status, do not rely on any output: arguments and ids are checked before the first output is
 * written. Structs that have an INIT macro start with their size: initialise them with the macro.
 * The library never prints, exits or aborts. Its only mutable state outside contexts is a count of
 * forks, and it owns none of the caller's memory.
 *
 * Threads. Different threads may use different contexts at the same time. One context serves one
 * call at a time: a second call that arrives meanwhile, from another thread or from a signal
 * handler, returns SB_ERR_BUSY and changes nothing, and the call under way is not affected. (A call
 * of a device backend returns before the device is done; from then on it is not under way.)
 *
 * fork(). In a child process, a cpu context that the parent opened keeps working with the same
 * bits, on the calling thread alone; a context that the child opens has threads. The CUDA driver
 * does not work across fork(): a cuda context that the parent opened, with its memory, streams and
 * communicators, refuses every call in the child with SB_ERR_BACKEND. sb_close works on both kinds,
 * and the parent's contexts are not affected.
 *
 * The calling thread. Its rounding mode, its flushing of subnormals and its floating-point traps
 * have no effect: the bits are the same, nothing traps, and the call restores all three settings. A
 * thread that is cancelled (pthread_cancel) during a call finishes the call first. */
#ifndef SAMEBITS_H
#define SAMEBITS_H

#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define SB_API __attribute__((visibility("default")))
#else
#define SB_API
#endif

/* Three versions. SB_VERSION is the release. SB_ABI is the layout of the structs and calls below;
 * sb_open checks it. SB_NUMERICS is the version of the arithmetic, which changes whenever any bit
 * of any result may change: record it with your experiments. */
#define SB_VERSION "0.1.0"
#define SB_ABI 1
#define SB_NUMERICS 1

/* Limits and defaults. */
#define SB_MAX_VOCAB 1048576     /* the largest V: 2^20 */
#define SB_MAX_TOPK 64           /* the largest k of sb_topk */
#define SB_MAX_WIDTH 32768       /* the largest D of hidden states */
#define SB_DRAW_PROGRESS 128     /* bytes of sb_draw.progress for each row */
#define SB_IGNORE_INDEX (-100)   /* the default ignore_index */

/* The list of all statuses: name, number, meaning. */
#define SB_STATUSES(X)                                                                             \
    X(SB_OK, 0, "success")                                                                         \
    X(SB_ERR_ARGUMENT, 1, "a null pointer, an unknown option or a struct of the wrong size")       \
    X(SB_ERR_SHAPE, 2, "a bad extent, stride, row list, cu_seqlens or kept_offsets")               \
    X(SB_ERR_DTYPE, 3, "a dtype that this argument does not take")                                 \
    X(SB_ERR_ID, 4, "an id of an active row outside [0, V), or kept ids that do not rise")         \
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
 * sb_open, sb_logprob, sb_last_error and sb_close, and the types of their arguments. These four
 * functions suffice to score batches on the CPU or, with device pointers, on a GPU. */

/* The result of a call. SB_STATUSES has the meaning of each value. */
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

/* How elements are stored: IEEE binary32 and binary16, bfloat16, and two's complement integers, all
 * little-endian. 0 is not a dtype. */
typedef enum sb_dtype {
    SB_F32 = 1,
    SB_F16 = 2,
    SB_BF16 = 3,
    SB_I32 = 4,
    SB_I64 = 5
} sb_dtype;

/* An opened backend, with its threads and its scratch memory. */
typedef struct sb_context sb_context;

/* Options of sb_open. Start from SB_OPEN_OPTIONS_INIT. A field that is zero means the default. */
typedef struct sb_open_options {
    uint32_t size;          /* sizeof(sb_open_options) */
    int32_t threads;        /* cpu: the number of threads that work on a call, 1 .. 1024; 0: as
                               many as this process may use */
    const char *isa;        /* cpu: "scalar", "avx2" or "avx512"; null or "auto": the best one of
                               this machine. With one of the three names, the backend "auto" means
                               cpu, and other backends refuse the option */
} sb_open_options;

/* Opens a context. On success *ctx is the context. On failure *ctx is null, and why receives one
 * line that gives the reason (as for sb_probe). abi: SB_ABI. backend: the name of a backend, or
 * "auto" for the first one that is available. options: null for the defaults.
 *
 * Errors: SB_ERR_ABI, SB_ERR_BACKEND, SB_ERR_ARGUMENT, SB_ERR_MEMORY, SB_ERR_SYSTEM. */
SB_API sb_status sb_open(sb_context **ctx, uint32_t abi, const char *backend,
                         const sb_open_options *options, char *why, size_t why_size);

/* The rows to score. Start from SB_BATCH_INIT.
 *
 * There are two layouts. Padded: B sequences of T positions each, logits [B, T, V], cu_seqlens
 * null. Packed: N positions of B sequences, one sequence after the other, logits [N, V], cu_seqlens
 * [B + 1] with cu_seqlens[0] = 0, no entry below the one before it, and cu_seqlens[B] = N. In both
 * layouts a row is a position, and rows are numbered from 0: row b * T + t, or row n.
 *
 * All arrays with one element per row are contiguous and use these row numbers: ids, mask,
 * temperatures, token and lse. So do the entries of the row list. Logits and kept sets have
 * strides.
 *
 * A row is ignored if its id is ignore_index, if its mask is 0, if it is missing from the row list
 * or, with shift, if it is the first row of its sequence. The logprob and the lse of an ignored row
 * are +0, its logits are not read (they may be NaN, or unmapped), its id and temperature are not
 * checked, and it contributes to no sum or count. There is one exception: in a call of at most 20
 * MiB of logits, without mask, row list, temperatures or shift, the cuda backend fetches the logits
 * before it knows the ids (sb_launch's cluster -1 forbids this). The logits of ignored rows are
 * then discarded without being examined, but they must be mapped. The cuda backend reads nothing
 * after a row's last logit. Before the first logit, it may read the rest of the same 16-byte chunk
 * without using it; this is safe because device allocations begin at such boundaries.
 *
 * A kept set says which of a row's ids take part (those that top-k or top-p sampling or a grammar
 * has left). All other ids count as -inf, whatever their logits are, NaN included. Logprobs are
 * renormalised over the kept ids. An active target outside its kept set is not an error, because
 * this does happen with sets that were recorded from another model's logits: its logprob is -inf,
 * and sb_logprob_out.outside counts it.
 *
 * A kept set has one of two forms, with the same bits in every result: words, one bit for each id,
 * or a list of the kept ids, which rise. Engines record lists, and a row with a list costs the kept
 * ids instead of V: of its logits, only those of kept ids are read on cpu, and on cuda only those
 * of leaves with a kept id (16 ids from a multiple of 16 on). All others may be NaN, or unmapped.
 * Row r keeps kept_ids[kept_offsets[r]] .. kept_ids[kept_offsets[r + 1] - 1]; an ignored row's ids
 * are not looked at. The offsets begin with 0, do not fall, and end with kept_count; otherwise
 * SB_ERR_SHAPE names the first row at fault, before any id is looked at. SB_ERR_ID names the first
 * active row, and its first kept id, that is outside [0, V) or not above the id before it; the
 * row's target and temperature are checked before its list. Of shards, each takes its own ids of
 * the lists, which are of whole rows, as words are.
 *
 * Instead of logits, a batch may have hidden states and a head, which multiplies them by the
 * weights of the last layer: see "logits from hidden states". Every call that takes logits takes
 * hidden states as well, with the same masks, row lists, temperatures, shift and kept sets. The
 * hidden state of an ignored row is never read.
 *
 * The first of these cases that applies decides the result: the row is ignored (+0); its id is bad
 * (an error); it is poisoned, which means NaN or +inf among its logits, or empty, which means that
 * all are -inf (NaN); the target's logit is -inf (-inf); otherwise the formula. */
typedef struct sb_batch {
    uint32_t size;            /* sizeof(sb_batch) */
    int32_t logits_dtype;     /* SB_F32, SB_F16 or SB_BF16 */
    const void *logits;       /* any alignment */
    int64_t batch;            /* B >= 0 */
    int64_t time;             /* T >= 0; padded layout only */
    int64_t rows;             /* N >= 0; packed layout only */
    int64_t vocab;            /* V, 1 .. SB_MAX_VOCAB */
    int64_t row_stride;       /* elements from one row's logits to the next row's, >= V; 0: V */
    int64_t batch_stride;     /* padded: elements from one sequence's logits to the next sequence's,
                                 >= 0 (sequences may overlap); 0: T * row_stride */
    const void *cu_seqlens;   /* [B + 1], or null: padded */
    const void *ids;          /* [B, T] or [N] target ids */
    const uint8_t *mask;      /* the same shape, non-zero: active; null: all active */
    const float *temperatures;/* the same shape; null: temperature holds for every row */
    const int64_t *row_list;  /* [row_count] rows to score, strictly increasing; null: all rows */
    int64_t row_count;
    int64_t ignore_index;     /* takes precedence over the range check, even inside [0, V) */
    int32_t cu_seqlens_dtype; /* SB_I32 or SB_I64 */
    int32_t ids_dtype;        /* SB_I32 or SB_I64 */
    float temperature;        /* divides the logits; in [2^-10, 2^10] */
    int32_t shift;            /* 0: the logits of row t score id t. 1: causal: the logits of row t
                                 score id t + 1 of the same sequence. The result is then at t + 1,
                                 as its id is, and the first row of a sequence is ignored */
    const uint32_t *kept;     /* [B, T, W] or [N, W] words, W = ceil(V / 32): the row's id i is kept
                                 if bit i % 32 of word i / 32 is 1. null: all ids are kept */
    int64_t kept_stride;      /* words from one row's kept set to the next row's, >= W; 0: W */
    const void *kept_ids;     /* [kept_count] the kept ids of all rows, row after row. May be null
                                 if there are none */
    const void *kept_offsets; /* [B * T + 1] or [N + 1]: where each row's list begins in kept_ids.
                                 null: there are no lists. Not together with kept */
    int64_t kept_count;       /* the number of kept ids of all rows */
    int32_t kept_ids_dtype;   /* SB_I32 or SB_I64 */
    int32_t kept_offsets_dtype;/* SB_I32 or SB_I64 */
    const struct sb_head *head; /* null: the batch has logits. Otherwise it has hidden states, whose
                                 logits the head computes: logits is null, and row_stride and
                                 batch_stride are not used. A struct whose size ends before head or
                                 kept_ids is accepted as well */
    const void *hidden;       /* [B, T, D] or [N, D]; any alignment */
    int64_t hidden_width;     /* D, the head's */
    int64_t hidden_row_stride;   /* elements from one row's hidden state to the next, >= D; 0: D */
    int64_t hidden_batch_stride; /* padded: from one sequence to the next, >= 0; 0: T times the row
                                 stride */
    int32_t hidden_dtype;     /* SB_F32, SB_F16 or SB_BF16 */
    int32_t hidden_reserved;  /* 0 */
} sb_batch;

/* A row's record, which sb_logprob and sb_finish can write for sb_logprob_backward: 32 bytes,
 * little-endian, the same on every machine. It may be stored and sent. docs/numerics.md, section
 * "Gradients", defines it. */
typedef struct sb_saved_row {
    uint32_t kind; /* 0: ignored; 1: has e and g; 2: has best and h2 as well; 3: NaN */
    uint32_t c;    /* the bits of the row constant c, which the temperature gives */
    int32_t e;     /* the sum of 2^(logit * c) is g * 2^e, g about in [0.707, 1.414] */
    uint32_t best; /* the bits of the largest logit as fp32 */
    double g;
    double h2;     /* the entropy in octaves */
} sb_saved_row;

/* The outputs of sb_logprob. Start from SB_LOGPROB_OUT_INIT. An output whose pointer is null is not
 * computed. Outputs must not overlap each other or an input; a gradient may take the place of the
 * logits. */
typedef struct sb_logprob_out {
    uint32_t size;            /* sizeof(sb_logprob_out) */
    uint32_t reserved;        /* 0 */
    float *token;             /* [B, T] or [N]: ln p(id); in nats; never above 0 */
    float *lse;               /* [B, T] or [N]: ln sum_i exp(logit_i / temperature) */
    float *sequence;          /* [B]: the exact sum of the active token logprobs, rounded once */
    int64_t *count;           /* [B]: active tokens */
    int64_t *outside;         /* [B]: active tokens whose id is outside their row's kept set */
    float *entropy;           /* [B, T] or [N]: of each row's distribution, in nats; never below 0.
                                 A struct whose size ends before outside, entropy, saved or gradient
                                 is accepted as well */
    sb_saved_row *saved;      /* [B, T] or [N]: for sb_logprob_backward; of kind 2 if entropy, or
                                 the gradient of a loss of entropies, is requested as well */
    const struct sb_gradient *gradient; /* computes the gradient in the same call: see sb_logprob */
} sb_logprob_out;

/* How to run one call. No field affects the results. Start from SB_LAUNCH_INIT, or pass null. */
typedef struct sb_launch {
    uint32_t size;            /* sizeof(sb_launch) */
    int32_t split;            /* pieces to cut each row into, 1 .. 65536; 0: the library chooses */
    int32_t threads;          /* cuda: threads per block, a multiple of 32 up to 512; 0: the library
                                 chooses */
    int32_t check;            /* cuda: 1: wait for the call, and fail as the cpu does if a device
                                 array holds a bad id, temperature, row, cu_seqlens or record. 0:
                                 return at once; such rows become NaN, and sb_check reports them */
    void *stream;             /* cuda: the CUstream or cudaStream_t to run in; null: the default */
    void *workspace;          /* cuda: device memory for scratch, aligned to 256 bytes, for this
                                 call alone until it is done; null: the call allocates and frees it
                                 in stream order */
    uint64_t workspace_size;  /* in bytes */
    uint64_t *needed;         /* not null: the call only checks its arguments, and writes here, to
                                 ordinary memory, how many bytes of workspace it needs (0: none).
                                 Nothing runs, and no array is touched */
    int32_t cluster;          /* cuda: 1: the pieces of a row, 2 .. 16, form a thread block cluster,
                                 if the GPU has clusters; 0: the library chooses; -1: no clusters,
                                 and no logits are fetched before the id of their row is known.
                                 With hidden states -1: products by the kernels for any GPU */
    int32_t timeout;          /* sb_exchange: milliseconds to wait for NCCL and the other ranks;
                                 0: 600000, which is ten minutes; -1: no limit */
    int32_t table;            /* cuda, sb_logprob and sb_kl: 1: terms are looked up in a table in
                                 shared memory, if the call and the GPU allow that; 0: the library
                                 chooses; -1: no table. With hidden states -1: products of
                                 digits as bf16 */
    int32_t one_read;         /* cuda: 1: a call that computes logprobs and their gradient reads the
                                 logits once, if the call and the GPU allow that; 0: the library
                                 chooses; -1: it reads them twice */
} sb_launch;

/* Computes the logprob of each row's id, and the exact sum of each sequence's logprobs.
 *
 *   token[r] = ln( exp(x_id / tau) / sum_i exp(x_i / tau) )
 *
 * docs/numerics.md defines the computation. |error| <= 4.1e-7 + 2^-24 * entropy + half an output
 * ulp, and for lse 3.3e-7 instead of 4.1e-7. Logits saturate if |x / tau| is above 1.44e6 (1.442e6
 * to 1.454e6, depending on tau): this bound and those below hold for the saturated logits, and for
 * V <= 2^20. A logprob is exactly 0 if its id is the only one present, never above 0, -inf if the
 * target's logit is -inf, and the NaN 7fc00000 if the row is poisoned or empty. A sequence is NaN
 * if any active token is NaN, otherwise -inf if any is -inf. A sequence without active tokens is
 * +0.
 *
 *   entropy[r] = -sum_i p_i ln p_i
 *
 * The entropy is computed in the same pass over the logits and changes no bit of another output; a
 * call that does not request it does not pay for it. It is exactly 0 if one id is present, +0 if
 * the row is ignored, and NaN as above. With var the variance of ln p under p, at most
 * (1 + ln(V) / 2)^2, and sd its square root,
 * |error| <= 1.34e-6 + 3.23e-7 * sd + 2^-24 * var + half an ulp, which is below
 * 7.7e-6 + half an ulp for every row.
 *
 * The gradient. If the derivatives of a loss are known before the call, the call can compute the
 * loss's gradient with respect to the logits as well:
 *
 *     sb_gradient gradient = SB_GRADIENT_INIT;
 *     gradient.grad = logits;             // in place; or other memory
 *     gradient.token = by_token;          // fp32 [B, T]: the derivative by each token
 *     out.gradient = &gradient;
 *
 * All results, the gradient's and the others, have the bits of two calls, sb_logprob and then
 * sb_logprob_backward. One call is faster, because it reads the logits once or finds them in a
 * cache. sb_gradient is as for sb_logprob_backward, with two differences: saved is null, because
 * the call uses its own rows (out.saved may be requested, too), and first and held are 0. With the
 * derivative by the entropy, the entropies are computed even if out.entropy is null. The struct is
 * in ordinary memory on every backend, and is not used once the call has returned.
 *
 * If the loss is a policy loss whose tokens do not depend on each other (any but SB_GSPO, and no
 * weights of sequences), its derivatives follow from the call's own logprobs:
 *
 *     gradient.policy = &policy;          // in place of gradient.token; policy.now is null
 *     gradient.policy_out = &policy_out;  // the loss, its record, its metrics; may be null
 *
 * All results have the bits of three calls: sb_logprob, sb_policy_loss of its token, and
 * sb_logprob_backward. The batch's layout holds for policy, too: policy's batch, time, rows and
 * cu_seqlens are not used. eta is 0, because the bonus needs entropies. On a device without check,
 * the gradient is NaN if the step's totals are too small. The logits of hidden states are computed
 * twice.
 *
 * Requires: ctx is open; out and batch are as described at their types. Writes: all elements of
 * every requested output. Errors: SB_ERR_ARGUMENT, SB_ERR_SHAPE, SB_ERR_DTYPE, SB_ERR_ID and
 * SB_ERR_TEMPERATURE (the message names the first bad row), SB_ERR_MEMORY. For the gradient, as
 * sb_logprob_backward, and SB_ERR_ARGUMENT if its saved, first or held is not as above.
 * Deterministic across: everything but the row's logits, id and temperature, and for the gradient
 * the row's derivatives. */
SB_API sb_status sb_logprob(sb_context *ctx, const sb_logprob_out *out, const sb_batch *batch,
                            const sb_launch *launch);

/* Returns one line about this context's last failure, which names the row, id or shape; "" if the
 * last call succeeded. The line is valid until the next call of the context. While a call is under
 * way, the line says that instead. Once the context has returned SB_ERR_BUSY, only the thread of
 * the last call gets its line; all other threads get a line that says so. */
SB_API const char *sb_last_error(const sb_context *ctx);

/* Frees a context; null does nothing. Before that, the context's calls in streams must be done, and
 * all graphs that hold such calls must be destroyed. If another thread has a call of the context
 * under way, sb_close returns at once; that call ends as usual and then frees the context. From
 * sb_close on, no other use of the context is allowed, sb_last_error included. */
SB_API void sb_close(sb_context *ctx);

/* ==== advanced ====
 *
 * In this order: queries about the library, its backends and a context; several ids per row and
 * ranks; words and lists of kept sets; sampling; gradients; shards of the vocabulary, draws from
 * them, and exchange between GPUs; ratios, sums and means of tokens; divergences; logits from
 * hidden states; policy losses; device memory and streams. Each section can be read alone. */

/* ---- the library, its backends, a context ---- */

/* The release, SB_ABI and SB_NUMERICS of the loaded library; the macros are the header's. */
SB_API const char *sb_version(void);
SB_API uint32_t sb_abi(void);
SB_API uint32_t sb_numerics(void);

/* A status's name, such as "SB_ERR_ID", and its meaning; "unknown status" for any other number. */
SB_API const char *sb_status_name(sb_status status);
SB_API const char *sb_status_text(sb_status status);

/* The name of backend number index, the best one first; null past the last. A backend in this list
 * is not necessarily available: sb_probe tells. */
SB_API const char *sb_backend_name(int32_t index);

/* Tells whether a backend can be opened on this machine. Writes at most why_size bytes into why,
 * always terminated: "" if the backend can be opened, otherwise one line that gives the reason. why
 * may be null if why_size is 0. */
SB_API sb_status sb_probe(const char *backend, char *why, size_t why_size);

/* The backend of a context: its name ("cpu"), its instruction set ("avx2") and its number of
 * threads; for a null ctx "", "" and 0. The strings are valid until sb_close. Any thread may call
 * these functions at any time. */
SB_API const char *sb_context_backend(const sb_context *ctx);
SB_API const char *sb_context_isa(const sb_context *ctx);
SB_API int32_t sb_context_threads(const sb_context *ctx);

/* Returns one line about how the context's last operation was divided: which kernels it launched
 * or, on the cpu, how it cut up rows. For each kernel, the line has the blocks and the threads per
 * block and, where there are any, the bytes of dynamic shared memory per block and the blocks per
 * cluster:
 *
 *     logprob_bf16 3960 x 512, 32768 B; logprob_finish 17 x 256
 *     logprob_bf16_cluster 16 x 352, 41600 B, clusters of 16
 *     cpu avx512, 4 threads, 16 pieces per row
 *
 * It is for people and for benchmarks. No result depends on a plan, and any release may choose
 * others. The line is "" before the first operation, and if an operation launched nothing or had no
 * rows to cut up. Queries (sb_launch.needed) and calls for memory, streams and checks are not
 * operations. A failed operation's line is about what it had launched. Valid until the next call of
 * the context; while a call is under way, and once the context has returned SB_ERR_BUSY, as for
 * sb_last_error. */
SB_API const char *sb_last_plan(const sb_context *ctx);

/* ---- several ids per row, ranks, and the first ids ----
 *
 * The ids of a row are ordered by their logits as real numbers (-0 equals 0), the largest first; of
 * two equal logits, the lower id comes first. The order compares logits rather than logprobs,
 * because different logprobs may round to the same bits. Ids that are absent (-inf, or outside the
 * row's kept set) come after all ids that are present. */

/* The outputs of sb_logprob_ids. Start from SB_IDS_OUT_INIT. A null output is not computed. */
typedef struct sb_ids_out {
    uint32_t size;            /* sizeof(sb_ids_out) */
    uint32_t reserved;        /* 0 */
    float *logprob;           /* [B, T, K] or [N, K]: the token that sb_logprob gives for the id */
    int32_t *rank;            /* the same shape: how many present ids come before this one */
    float *lse;               /* [B, T] or [N]: as sb_logprob's */
} sb_ids_out;

/* Computes the logprobs and ranks of K ids per row, the logprobs in one pass over the logits.
 *
 * batch is as for sb_logprob, except that ids are [B, T, K] or [N, K], with K = k in
 * [1, SB_MAX_VOCAB]. Each id may be ignore_index. A row whose ids are all ignore_index is ignored,
 * as a masked row is.
 *
 * An ignored row or id has logprob +0 and rank -1; an id of a poisoned or empty row has NaN and -1.
 * The rank of an absent id is the number of ids that are present. Ranks take a second pass over the
 * logits, with K comparisons per logit.
 *
 * Errors: as sb_logprob; SB_ERR_SHAPE if k is outside its range. */
SB_API sb_status sb_logprob_ids(sb_context *ctx, const sb_ids_out *out, const sb_batch *batch,
                                int64_t k, const sb_launch *launch);

/* The outputs of sb_topk. Start from SB_TOPK_OUT_INIT. A null output is not computed. */
typedef struct sb_topk_out {
    uint32_t size;            /* sizeof(sb_topk_out) */
    uint32_t reserved;        /* 0 */
    int32_t *ids;             /* [B, T, k] or [N, k]: each row's first k present ids, in order */
    float *logprob;           /* the same shape: their logprobs, as sb_logprob's tokens */
    float *lse;               /* [B, T] or [N]: as sb_logprob's */
} sb_topk_out;

/* Finds the first k ids of each row, k in [1, SB_MAX_TOPK], and their logprobs. With k = 1 this is
 * the argmax.
 *
 * batch is as for sb_logprob, except that ids may be null: then only the mask, the row list and
 * shift decide which rows are ignored. If fewer than k ids are present, the remaining places have
 * id -1 and logprob -inf. An ignored row has ids -1 and logprobs +0; a poisoned or empty row has
 * ids -1 and logprobs NaN.
 *
 * Errors: as sb_logprob; SB_ERR_SHAPE if k is outside its range. */
SB_API sb_status sb_topk(sb_context *ctx, const sb_topk_out *out, const sb_batch *batch, int64_t k,
                         const sb_launch *launch);

/* ---- words and lists ----
 *
 * Conversions between the two forms of kept sets. They work in ordinary memory, on a context of a
 * backend without memory of its own, such as cpu: the others return SB_ERR_BACKEND. Of the batch,
 * only batch, time, rows, vocab, cu_seqlens and its dtype, and the kept sets are used. */

/* Writes the words of a batch's lists: kept is [rows][W], with kept_stride words from one row to
 * the next (0: W); words between rows are not written. Bits from V on are 0.
 *
 * Errors: SB_ERR_ARGUMENT if the batch has no lists; for all rows, as sb_logprob for active ones,
 * before a word is written. */
SB_API sb_status sb_kept_words(sb_context *ctx, uint32_t *kept, int64_t kept_stride,
                               const sb_batch *batch);

/* Writes the lists of a batch's words: offsets is [rows + 1], and its last element is the number of
 * kept ids; ids has room for `room` ids. If ids is null, only the offsets are written. Both dtypes
 * are SB_I32 or SB_I64. Bits from V on are ignored.
 *
 * Errors: SB_ERR_ARGUMENT if the batch has no words; SB_ERR_DTYPE; SB_ERR_SHAPE if there are more
 * kept ids than room, or than the offsets' dtype holds. */
SB_API sb_status sb_kept_lists(sb_context *ctx, void *offsets, int32_t offsets_dtype, void *ids,
                               int32_t ids_dtype, int64_t room, const sb_batch *batch);

/* ---- sampling ----
 *
 * A token is drawn by exact inverse CDF: it is the first id, counted up from 0, at which the sum of
 * all terms up to it exceeds u times the sum of all. The sums are exact, and u follows from three
 * numbers that belong to the row. So a token is a pure function of the row's logits, its
 * temperature, its filters and these numbers: a sequence draws the same tokens alone and in any
 * batch, at any place in it, on any machine.
 *
 *     sb_sampling how = SB_SAMPLING_INIT;
 *     how.top_k     = 50;                 // the 50 first ids
 *     how.top_p     = 0.9f;               // of these, the first ones that have 0.9 of their mass
 *     how.seed      = 1234;
 *     how.streams   = streams;            // uint64 [rows]: the number of the row's sequence
 *     how.positions = positions;          // uint64 [rows]: the token's position in it
 *     sb_sample(ctx, &out, &batch, &how, NULL);
 *
 * Filters leave a kept set, from which the token is drawn. out.kept is this set, as in sb_batch: a
 * trainer that scores the token with it gets the bits of out.kept_logprob. */

/* How the tokens of a call are drawn. Start from SB_SAMPLING_INIT. An array has one element per
 * row, [B, T] or [N]; if it is null, the one value holds for all rows. The values of ignored rows
 * are not checked.
 *
 * The filters apply in this order, each to the ids that those before it leave: the batch's kept
 * set, top-k, top-p, min-p. The first ids of a row are those of sb_topk: of equal logits, the lower
 * id comes first, so that exactly k ids stay. */
typedef struct sb_sampling {
    uint32_t size;            /* sizeof(sb_sampling) */
    int32_t top_k;            /* the first k ids stay; 1: greedy; 0, or as many as are present: all
                                 stay */
    float top_p;              /* in (0, 1]: the fewest first ids stay that have this share of the
                                 mass; 1: all stay */
    float min_p;              /* in [0, 1]: the ids stay that have at least this share of the first
                                 id's probability; 0: all stay */
    const int32_t *top_ks;    /* per row, or null */
    const float *top_ps;      /* likewise */
    const float *min_ps;      /* likewise */
    uint64_t seed;            /* seed, stream and position determine the row's random bits. The */
    uint64_t stream;          /* same three give the same bits: a second sample at a position */
    uint64_t position;        /* needs another stream */
    const uint64_t *seeds;    /* per row, or null */
    const uint64_t *streams;  /* likewise */
    const uint64_t *positions;/* likewise */
    const double *u;          /* per row, in [0, 1): replaces the random bits; or null */
    const uint64_t *bits;     /* per row: u times 2^64, instead of u; or null */
} sb_sampling;

/* The outputs of sb_sample. Start from SB_SAMPLE_OUT_INIT. A null output is not computed. */
typedef struct sb_sample_out {
    uint32_t size;            /* sizeof(sb_sample_out) */
    uint32_t reserved;        /* 0 */
    int32_t *token;           /* [B, T] or [N]: the id that was drawn */
    float *logprob;           /* the same shape: its logprob under the model, the one that
                                 sb_logprob gives for the batch without kept sets */
    float *kept_logprob;      /* the same shape: its logprob under the kept set, the one that
                                 sb_logprob gives for the batch with kept */
    int32_t *count;           /* the same shape: the number of kept ids */
    uint32_t *kept;           /* [B, T, W] or [N, W] words, W = ceil(V / 32): the kept set, without
                                 ids that are absent; otherwise as sb_batch's */
} sb_sample_out;

/* Draws a token for each row.
 *
 * batch is as for sb_topk: ids may be null, and decide only which rows are ignored.
 *
 * An ignored row has token -1, logprobs +0 and an empty kept set. A poisoned or empty row has token
 * -1, logprobs NaN and an empty kept set; NaN outside the batch's kept set affects only logprob. A
 * token that is drawn is present and kept. Its probability P under the draw is near p, that under
 * the exact softmax of the kept row: with H that row's entropy,
 * |P - p| <= p * (6.5e-7 + 2^-24 * (H - ln p)) + 2^-39.
 *
 * Rows that share the three numbers of their random bits draw alike, which is seldom meant. If
 * top_k is not 1, a call of several rows therefore needs one of seeds, streams, positions, u, bits.
 *
 * Errors: as sb_logprob; SB_ERR_ARGUMENT if both u and bits are given, or none of these five; and,
 * with the number of the first such row, for a top_k below 0, a top_p outside (0, 1], a min_p
 * outside [0, 1] or a u outside [0, 1). On a device without check, such a row has token -1 and
 * logprobs NaN.
 * Deterministic across: everything but the row's logits, kept set, temperature, filters and random
 * bits. */
SB_API sb_status sb_sample(sb_context *ctx, const sb_sample_out *out, const sb_batch *batch,
                           const sb_sampling *how, const sb_launch *launch);

/* ---- gradients ---- */

/* The inputs and the output of sb_logprob_backward, or of a gradient that sb_logprob computes.
 * Start from SB_GRADIENT_INIT. */
typedef struct sb_gradient {
    uint32_t size;            /* sizeof(sb_gradient) */
    int32_t dtype;            /* of grad: SB_F32, SB_F16 or SB_BF16, independent of the logits' */
    void *grad;               /* [B, T, width] or [N, width], in the layout of the logits: row r of
                                 grad is the gradient of row r of the logits. grad may be the
                                 logits' own memory if dtype and strides are the same; no other
                                 overlap is allowed */
    int64_t width;            /* elements to write per row, >= V; those from V on are +0; 0: V */
    int64_t row_stride;       /* elements from one row to the next, >= width; 0: width */
    int64_t batch_stride;     /* padded: elements from one sequence to the next; rows must not
                                 overlap; 0: T * row_stride */
    const sb_saved_row *saved;/* [B, T] or [N]: written by the forward call for the same batch; null
                                 if sb_logprob computes the gradient */
    const float *token;       /* [B, T] or [N]: the derivative of the loss by each token logprob;
                                 null: the loss does not depend on them */
    const float *entropy;     /* likewise, by each entropy; at least one of the two is not null */
    int64_t first, held;      /* if the logits are a shard's: first and n of sb_partial. V above is
                                 then n. 0, 0: the logits are of all ids. An empty shard has held 0
                                 and a first that is not 0, such as V. If the batch has hidden
                                 states: the ids to compute, any piece of the head's */
    const struct sb_policy *policy; /* sb_logprob only, in place of token: the loss that the call's
                                 token logprobs enter, see sb_policy_loss; null otherwise. A struct
                                 whose size ends before this field is accepted as well */
    const struct sb_policy_out *policy_out; /* with policy: its outputs, or null */
} sb_gradient;

/* Computes the gradient of a loss with respect to the logits from its derivatives by the outputs.
 *
 *   grad[r, i] = token[r] / tau * ((i is the id) - p_i)  -  entropy[r] / tau * p_i (ln p_i + H)
 *
 * This takes one pass over the logits and, without lists of kept ids, no scratch memory: there are
 * no sums, and each element depends only on its own logit and on the row's 32-byte record. Ignored
 * rows get +0, and their logits are not read. Absent logits (-inf) and those with p below 2^-125
 * get +0 as well. A poisoned or empty row gets NaN: 7fc00000, in bf16 7fc0, in fp16 7e00. Results
 * are computed in fp32; if grad is bf16 or fp16, they are rounded once more, to nearest even.
 * Before that rounding, for derivatives t and e of a row, |error| <= 5.7e-7 |t| / tau and 1.1e-5
 * |e| / tau, plus half an ulp each. docs/numerics.md has the formulas in section "Gradients", and
 * narrower bounds in "Error of a gradient".
 *
 * If the batch has hidden states, grad is by their logits, after bias, scale and softcap; it may be
 * computed a chunk of ids at a time, into the same memory, and each chunk multiplied with weights
 * and hidden states by any means.
 *
 * batch is the one of the forward call. With shift, a result at r belongs to the logits of row r -
 * 1: token, entropy and saved are then at r, and the gradient is at r - 1.
 *
 * Writes: all of grad, elements V .. width - 1 included. Errors: as sb_logprob; SB_ERR_STATE, with
 * the number of the first row whose saved record cannot come from such a row, has another
 * temperature, or lacks the entropy although the derivative by it is given; SB_ERR_SHAPE if rows of
 * grad overlap. Deterministic across: everything but the row's logits, id, temperature and
 * derivatives. */
SB_API sb_status sb_logprob_backward(sb_context *ctx, const sb_gradient *gradient,
                                     const sb_batch *batch, const sb_launch *launch);

/* ---- shards of the vocabulary ----
 *
 * With tensor parallelism, each of several processes or GPUs holds the logits of some ids of every
 * row. Each process calls sb_partial, all exchange their records, 40 bytes per row, and each calls
 * sb_merge and sb_finish. All of them then have the bits that sb_logprob gives for the whole rows:
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
 * The bytes are the same for all cuts at multiples of 16, all numbers of shards, and all orders and
 * trees of merges. Two conditions cannot be checked from the records, and the caller has to ensure
 * them: shards must not overlap, and only absent ids (-inf) may be missing.
 *
 * Entropy, and the saved rows of kind 2, need records of kind SB_MOMENTS, 72 bytes per row. All
 * shards use the same kind.
 *
 * In sb_partial and sb_finish, batch describes whole rows: vocab is V, ids are in [0, V), and a
 * kept set has V bits. */

/* The sum over some of a row's ids: 32 bytes, little-endian, the same on every machine. It may be
 * stored and sent. docs/numerics.md, section "Shards and state bytes", defines it. */
typedef struct sb_state_record {
    uint32_t J;    /* 0: no id present; 0x7fffffff: poisoned; else 65536 .. 196608 */
    uint32_t c;    /* the bits of the row constant c, which the temperature gives. 0: ignored */
    uint64_t l[3]; /* digits; there are no carries between them */
} sb_state_record;

/* The same with the moments that entropy needs: 64 bytes, otherwise as above. */
typedef struct sb_moment_record {
    sb_state_record sum;
    int64_t g[3];        /* each digit's moment about 32 * J - 2^22 */
    uint32_t best;       /* the order key of the largest logit present; 0: none, or poisoned */
    uint32_t reserved;   /* 0 */
} sb_moment_record;

/* The target's logit, from the one shard that holds it: 8 bytes, otherwise as above. */
typedef struct sb_target_record {
    uint32_t x;      /* the bits of the logit as fp32; 0 if owners is 0 */
    uint32_t owners; /* how many shards hold the target: 1 or 0 */
} sb_target_record;

/* The type of a row's state. */
typedef enum sb_record_kind {
    SB_SUMS = 1,   /* sb_state_record: enough for logprobs */
    SB_MOMENTS = 2 /* sb_moment_record: enough for entropy as well */
} sb_record_kind;

/* The records of several rows: two arrays with one element per row each. Start from
 * SB_RECORDS_INIT. A call that only reads records writes to neither array. */
typedef struct sb_records {
    uint32_t size;             /* sizeof(sb_records) */
    int32_t kind;              /* SB_SUMS or SB_MOMENTS */
    void *states;              /* sb_state_record or sb_moment_record, by kind */
    sb_target_record *targets;
} sb_records;

/* Computes the records of a shard, which holds the ids first .. first + n - 1 of each row.
 *
 * batch is as for sb_logprob, except that logits are [.., n] and row_stride is >= n. A row_stride
 * of 0 means n, and a batch_stride of 0 means T * row_stride. first is a multiple of 16, and so is
 * n, unless the shard ends at V. With n = 0, logits may be null, and first is any number in [0, V].
 *
 * Writes: both arrays of records, [rows] each, completely; those of ignored rows are zero. Errors:
 * as sb_logprob, for a bad id as well. launch is as for sb_logprob; cluster has no effect. */
SB_API sb_status sb_partial(sb_context *ctx, const sb_records *records, const sb_batch *batch,
                            int64_t first, int64_t n, const sb_launch *launch);

/* Merges the records of several shards, [shards][rows] as an all-gather leaves them, into records
 * of [rows]; shards >= 1. Both are of the same kind. The result is an ordinary record, of the ids
 * of all these shards together. It may be written over the first shard (the same states and the
 * same targets); no other overlap is allowed.
 *
 * Errors: SB_ERR_STATE, with the row and the shard of the first record (by row, then by shard) that
 * no shard can give, or whose c differs from that of the first shard; nothing is written then. On a
 * device without check, such rows get records that every later call refuses. The only fields of
 * launch that have an effect are stream and check. */
SB_API sb_status sb_merge(sb_context *ctx, const sb_records *records, const sb_records *from,
                          int64_t shards, int64_t rows, const sb_launch *launch);

/* Computes the outputs of sb_logprob from the records of whole rows, with the same bits.
 *
 * batch is as for sb_partial; its logits and strides are not used. records are of [rows]; those of
 * ignored rows are not used either.
 *
 * Entropy cannot be computed from records of kind SB_SUMS, and a gradient cannot be computed
 * without logits (each shard calls sb_logprob_backward): SB_ERR_ARGUMENT.
 *
 * Errors: as sb_logprob; then SB_ERR_STATE, with the number of the first row whose records no
 * shards can give, whose c does not match its temperature, whose id is not in exactly one of the
 * merged shards, or whose state is too small to contain the target's logit. The last condition
 * ensures that no logprob is above 0. */
SB_API sb_status sb_finish(sb_context *ctx, const sb_logprob_out *out, const sb_batch *batch,
                           const sb_records *records, const sb_launch *launch);

/* ---- draws from shards of the vocabulary ----
 *
 * If each of several ranks holds the logits of some ids of every row, they draw a token in rounds.
 * In each round, every rank writes one small message per row, and all ranks gather the messages of
 * all. The last call gives every rank what sb_sample gives for the whole rows, with the same bits:
 *
 *     sb_draw draw = SB_DRAW_INIT;
 *     draw.shard = rank;  draw.shards = ranks;    // ranks hold ids in ascending order
 *     draw.first = first;  draw.n = n;            // the ids of this rank
 *     draw.progress = progress;                   // SB_DRAW_PROGRESS bytes per row, of this rank
 *
 *     sb_draw_plan(ctx, &draw, &out, &batch, &how);
 *     for (int32_t round = 0; round < draw.rounds; round++) {
 *         sb_draw_round(ctx, mine, all, &draw, round, &batch, &how, NULL);
 *         all_gather(all, mine, rows * draw.bytes[round]);
 *     }
 *     sb_draw_finish(ctx, &out, all, &draw, &batch, &how, NULL);
 *
 * What the filters of a call are decides the rounds, and the bytes per row and rank in each; both
 * are known before the first round, and no round depends on a value that only a device has:
 *
 *     no filters                  2 rounds: 40, 8
 *     one top_k of 1 .. 64        1 round: 40 + 8 top_k, with or without top_p and min_p
 *     min_p                       3 rounds: 48, 40, 8
 *     any other top_k, or top_ks  4 rounds of 2048 more, behind the first
 *     top_p below 1, or top_ps    likewise
 *
 * The first round has 32 bytes more if the batch has kept sets and out.logprob is requested. If
 * out.count or out.kept is requested, a call without filters has the rounds of min_p. All ranks
 * make the same calls, with the same batch but for logits, the same how, and the same outputs. */

/* A rank's part in a draw. Start from SB_DRAW_INIT, and call sb_draw_plan. */
typedef struct sb_draw {
    uint32_t size;       /* sizeof(sb_draw) */
    int32_t shard;       /* the number of this rank, 0 .. shards - 1. The ids of a rank are above
                            those of all ranks in front of it */
    int32_t shards;      /* the number of ranks, 1 .. 65536 */
    int32_t rounds;      /* written by sb_draw_plan: 1 .. 11 */
    int64_t first, n;    /* this rank holds the logits of the ids first .. first + n - 1, as in
                            sb_partial */
    int64_t bytes[12];   /* written by sb_draw_plan: of the message of a row, in each round */
    void *progress;      /* [rows] of SB_DRAW_PROGRESS bytes each, aligned to 8, in the memory of
                            the backend: what the rank knows after each round. Round 0 writes it,
                            and the other rounds update it; not read before round 0 */
    uint32_t outputs;    /* written by sb_draw_plan: which outputs are requested */
    uint32_t reserved;   /* 0 */
} sb_draw;

/* Writes draw's rounds, bytes and outputs. out: which outputs the last call will ask for; the
 * pointers themselves are not used. batch and how: as in the calls that follow; only whether the
 * batch has kept sets, and the filters, matter. Errors: SB_ERR_ARGUMENT, SB_ERR_SHAPE. */
SB_API sb_status sb_draw_plan(sb_context *ctx, sb_draw *draw, const sb_sample_out *out,
                              const sb_batch *batch, const sb_sampling *how);

/* Computes a rank's messages of one round, mine [rows] of draw.bytes[round] bytes each, from its
 * logits and from all [shards][rows], the messages of all ranks in the round before (in round 0 it
 * is not used, and may be null). Both are aligned to 8 bytes. mine and all must not overlap.
 *
 * batch is as for sb_sample, with the logits and strides as for sb_partial: vocab is V, and kept
 * sets have V bits. Batches of hidden states are refused: compute the shard's logits by sb_logits,
 * with its first and held. Messages of ignored rows are zero.
 *
 * Errors: as sb_sample, with those of sb_partial for the shard; SB_ERR_STATE, with the row and the
 * rank of the first message (by row, then by rank) that no rank gives. On a device without check,
 * such a row ends as token -1 and NaN. The fields of launch that have an effect are stream, check
 * and workspace. */
SB_API sb_status sb_draw_round(sb_context *ctx, void *mine, const void *all, const sb_draw *draw,
                               int32_t round, const sb_batch *batch, const sb_sampling *how,
                               const sb_launch *launch);

/* Writes the outputs of a draw from all, the messages of the last round. Every rank has the same
 * token, logprob, kept_logprob and count, with the bits of sb_sample for whole rows. Only kept
 * differs: [rows][W] words of whole rows, of which each rank sets the bits of its own ids, so that
 * the sum of all ranks' words is the set.
 *
 * Requires: out asks for the outputs of sb_draw_plan. Errors: as sb_draw_round. */
SB_API sb_status sb_draw_finish(sb_context *ctx, const sb_sample_out *out, const void *all,
                                const sb_draw *draw, const sb_batch *batch,
                                const sb_sampling *how, const sb_launch *launch);

/* ---- exchanging records between GPUs ----
 *
 * If the shards are on several GPUs, sb_exchange does the all-gathers and the merge in one call:
 *
 *     sb_partial(ctx, &records, &batch, first, n, &launch);
 *     sb_exchange(ctx, &records, rows, comm, &launch);
 *     sb_finish(ctx, &out, &batch, &records, &launch);
 *
 * Every rank makes each of these calls, in the same order, as for all collectives of NCCL. All
 * ranks get the bits of whole rows, for any number of ranks and any assignment of ids to them.
 *
 * comm is an ncclComm_t, either the caller's own or one from sb_comm_create. The library is not
 * linked against NCCL, and building it does not need NCCL. The first of these calls loads
 * libnccl.so.2 by the system's loader, or the file that the environment variable SAMEBITS_NCCL
 * names. If the process has already loaded a library of that name, that one is used, because a
 * communicator that a framework has created belongs to it.
 *
 * Only the cuda backend has these calls. Other backends return SB_ERR_BACKEND (gather by other
 * means, then call sb_merge), and so does cuda if NCCL is not available. If NCCL refuses a call,
 * the message quotes NCCL, and the status is SB_ERR_ARGUMENT if NCCL blames the arguments,
 * otherwise SB_ERR_DEVICE. */

/* The id that all ranks of a new communicator share: an ncclUniqueId. */
typedef struct sb_comm_id {
    char bytes[128];
} sb_comm_id;

/* Creates a new id. One rank does this and sends the id to the others by any means. */
SB_API sb_status sb_comm_new_id(sb_context *ctx, sb_comm_id *id);

/* Creates a communicator of as many ranks, on the context's GPU; the caller is number rank. Waits
 * until all ranks have called it with the same id. NCCL needs a separate GPU for each rank. *comm
 * is null on failure. */
SB_API sb_status sb_comm_create(sb_context *ctx, void **comm, const sb_comm_id *id, int32_t ranks,
                                int32_t rank);

/* Frees a communicator that sb_comm_create made; null does nothing. All ranks have to make this
 * call. It waits for all work that was put into streams with the communicator. */
SB_API sb_status sb_comm_destroy(sb_context *ctx, void *comm);

/* Frees a communicator without waiting, and ends its unfinished work in streams; null does nothing.
 * This is the only way to free a communicator after a rank has failed or an exchange has timed out.
 */
SB_API sb_status sb_comm_abort(sb_context *ctx, void *comm);

/* Replaces a shard's records, of [rows], by the merged records of all ranks, the ones that sb_merge
 * would give. The work runs in launch's stream. Without check the call does not wait, with two
 * exceptions: NCCL connects to the other ranks in the first call of a communicator, and with a
 * non-blocking communicator the call waits until NCCL has put the work into the stream. With a
 * workspace it allocates nothing. The workspace is 40 bytes per row and rank (72 for moments) and a
 * few more.
 *
 * rows and check must be the same in all ranks. With check, the ranks first compare rows and
 * SB_NUMERICS, 16 bytes from each rank, and wait for each other. Without check, if these differ,
 * NCCL may hang or mix up records.
 *
 * Errors: as sb_merge, with the rank as the shard; SB_ERR_ARGUMENT for a communicator of another
 * GPU; with check, SB_ERR_SHAPE and SB_ERR_STATE name the first rank that differs, and nothing has
 * been exchanged. If one rank alone fails, the others keep waiting: abort the communicator.
 *
 * Timeout: launch's timeout limits the total time that the call waits, with check for the other
 * ranks, and with a non-blocking communicator for NCCL. After that time, or if NCCL reports an
 * error meanwhile, the call returns SB_ERR_DEVICE, and its work may still be in the stream: abort
 * the communicator. The timeout does not limit waits inside NCCL: a blocking communicator connects
 * to the other ranks in its first call. */
SB_API sb_status sb_exchange(sb_context *ctx, const sb_records *records, int64_t rows, void *comm,
                             const sb_launch *launch);

/* Gathers bytes of all ranks: all [ranks][bytes] receives mine [bytes] of each rank, by rank. mine
 * may be this rank's place in all; no other overlap is allowed. This is what the other records of
 * this header need in order to be merged across ranks:
 *
 *     sb_all_gather(ctx, all, record, sizeof(sb_policy_record), comm, &launch);
 *     sb_policy_merge(ctx, &out, &policy, all, ranks, &launch);
 *
 *     sb_all_gather(ctx, all, records, groups * sizeof(sb_group_record), comm, &launch);
 *     sb_group_advantages(ctx, &out, &with_all, &launch);      // records = all, shards = ranks
 *
 * All ranks give the same bytes and check. Work, workspace (16 bytes per rank, rounded up to 256),
 * timeout and errors are as for sb_exchange; with check, the call waits until the bytes are there.
 */
SB_API sb_status sb_all_gather(sb_context *ctx, void *all, const void *mine, int64_t bytes,
                               void *comm, const sb_launch *launch);

/* What becomes of the same element of all ranks. */
typedef enum sb_reduction {
    SB_ADD = 1, /* their sum, modulo 2^32 or 2^64 */
    SB_MAX = 2  /* the largest, as signed integers */
} sb_reduction;

/* Replaces values [count] of every rank by their sums or maxima over all ranks. dtype: SB_I32 or
 * SB_I64; floats are refused, because their sum would depend on the order in which NCCL adds. This
 * is what ranks need that have columns of D each, see sb_scales.
 *
 * All ranks give the same dtype, count, reduction and check. With check, ranks compare count and
 * dtype. Otherwise as sb_all_gather; also SB_ERR_DTYPE. */
SB_API sb_status sb_all_reduce(sb_context *ctx, void *values, int32_t dtype, int64_t count,
                               int32_t reduction, void *comm, const sb_launch *launch);

/* ---- ratios, KL estimates, sums and means of tokens ----
 *
 * These functions compute the quantities that a PPO, GRPO or GSPO step needs from two sets of token
 * logprobs: those of the policy that the tokens were sampled from, and those of another policy.
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
 * If two logprobs are equal bit for bit, their ratio is exactly 1 and their estimates are exactly
 * 0. Sums are exact sums of real numbers, rounded once: order, padding and packing cannot change a
 * bit. */

/* The outputs of sb_compare, [count] each. Start from SB_COMPARE_OUT_INIT. A null output is not
 * computed. Below, d = other - sampled. */
typedef struct sb_compare_out {
    uint32_t size;            /* sizeof(sb_compare_out) */
    uint32_t reserved;        /* 0 */
    float *ratio;             /* e^d: the importance ratio */
    float *k1;                /* -d */
    float *k2;                /* d^2 / 2 */
    float *k3;                /* e^d - 1 - d; the means of k1, k2 and k3 estimate
                                 KL(sampled || other) */
} sb_compare_out;

/* Compares tokens one by one. sampled [count] holds the logprobs of the policy that the tokens were
 * sampled from, other [count] those of the other policy.
 *
 * If the bits are equal, the ratio is 1 and the estimates are +0. If one of the two is NaN, all
 * four outputs are NaN. k2 and k3 are never negative, and no output is -0. |error| <= 0.5001 ulp.
 * Outputs must not overlap each other or the inputs.
 *
 * Errors: SB_ERR_ARGUMENT, SB_ERR_SHAPE. The only field of launch that has an effect is stream. */
SB_API sb_status sb_compare(sb_context *ctx, const sb_compare_out *out, const float *sampled,
                            const float *other, int64_t count, const sb_launch *launch);

/* The values to sum, one per token. Start from SB_VALUES_INIT. Layouts are as in sb_batch: padded
 * [B, T], or packed [N] with cu_seqlens. To sum the whole batch as one sequence, set batch = 1 and
 * time = B * T or N. */
typedef struct sb_values {
    uint32_t size;            /* sizeof(sb_values) */
    int32_t cu_seqlens_dtype; /* SB_I32 or SB_I64 */
    const float *values;      /* [B, T] or [N]: any fp32 */
    const float *minus;       /* the same shape: the exact values - minus is summed, which is 0 if
                                 the bits of the two are equal; null: values is summed */
    const uint8_t *mask;      /* the same shape, non-zero: active; null: all active */
    int64_t batch;            /* B >= 0 */
    int64_t time;             /* T, 0 .. 2^29; padded layout only */
    int64_t rows;             /* N >= 0; packed layout only */
    const void *cu_seqlens;   /* [B + 1], at most 2^24 positions per sequence; null: padded */
} sb_values;

/* The outputs of sb_sums, [B] each. Start from SB_SUMS_OUT_INIT. A null output is not computed. */
typedef struct sb_sums_out {
    uint32_t size;            /* sizeof(sb_sums_out) */
    uint32_t reserved;        /* 0 */
    float *sum;               /* the exact sum of the active values, rounded once */
    float *mean;              /* the sum, rounded to 53 bits, divided by count */
    float *exp_mean;          /* e^mean, from the mean before it is rounded to fp32 */
    int64_t *count;           /* how many values are active */
} sb_sums_out;

/* Computes the sum and the means of each sequence.
 *
 * A sum is NaN if any active value is NaN or if both infinities occur; if one infinity occurs, the
 * sum is that infinity. Without active values, sum and mean are +0, and exp_mean is 1. No output is
 * -0. Values that are not active are not used. |error| is half an ulp for sum, and 0.5001 ulp for
 * mean and exp_mean.
 *
 * Errors: SB_ERR_ARGUMENT, SB_ERR_SHAPE, SB_ERR_DTYPE. The only fields of launch that have an
 * effect are stream and check. On a device without check, a sequence with decreasing cu_seqlens is
 * NaN. */
SB_API sb_status sb_sums(sb_context *ctx, const sb_sums_out *out, const sb_values *values,
                           const sb_launch *launch);

/* ---- the divergence of two sets of logits ----
 *
 * If the logits of two policies are available, the KL divergence of their distributions can be
 * computed and need not be estimated. Row r of p is compared with row r of q:
 *
 *     sb_batch q = SB_BATCH_INIT;           // the same vocab, and batch and time, or rows, as p
 *     q.logits = reference_logits;
 *     q.logits_dtype = SB_BF16;             // q has its own dtype, strides and temperature
 *     sb_kl(ctx, &out, &p, &q, NULL);       // out.token: KL(p || q) of each row */

/* The outputs of sb_kl. Start from SB_KL_OUT_INIT. A null output is not computed. */
typedef struct sb_kl_out {
    uint32_t size;            /* sizeof(sb_kl_out) */
    uint32_t reserved;        /* 0 */
    float *token;             /* [B, T] or [N]: KL(p || q) in nats; never below 0 */
    float *sequence;          /* [B]: the exact sum of the active rows' values, rounded once */
} sb_kl_out;

/* Computes the KL divergence of each row of p from the same row of q.
 *
 *   token[r] = sum_i p_i (ln p_i - ln q_i), p = softmax(x^p / tau^p), q = softmax(x^q / tau^q)
 *
 * This takes one pass over both batches. p and q have the same layout, vocab, batch, time or rows,
 * and shift. Each has its own logits, dtype, strides, temperature or temperatures, and kept sets. p
 * alone determines which rows are active and where sequences begin: q's ids, mask, row_list and
 * ignore_index and the contents of its cu_seqlens are not used. p's ids may be null, as for
 * sb_topk.
 *
 * A row's value is exactly +0 if p and q have the same logits, temperature and kept set; +inf if an
 * id is present in p and absent in q; NaN (7fc00000) if the row of p or of q is poisoned or empty;
 * and +0 if the row is ignored, in which case neither batch's logits are read. A sequence is NaN if
 * any active row is NaN, otherwise +inf if any is +inf; without active rows it is +0. With H the
 * entropy and cov the covariance of ln p and ln p - ln q under p,
 *
 *   |error| <= 4.6e-6 + 1.31e-6 * KL + 2^-24 * (|cov| + |H(p) - H(q) + KL|) + half an ulp,
 *
 * as docs/numerics.md shows in section "Error of a divergence". The first term is absolute: if the
 * relative error of divergences below 1e-4 matters, see k3 of sb_compare.
 *
 * Errors: as sb_logprob; the message begins with p or q, whichever is at fault. SB_ERR_SHAPE and
 * SB_ERR_ARGUMENT if p and q do not fit each other.
 * Deterministic across: everything but both rows' logits, kept sets and temperatures. */
SB_API sb_status sb_kl(sb_context *ctx, const sb_kl_out *out, const sb_batch *p, const sb_batch *q,
                       const sb_launch *launch);

/* ---- logits from hidden states ----
 *
 * A head is the last layer of a language model: the logit of id v is the product of a hidden state
 * of D elements and row v of the weights [V, D]. Engines compute this product in many ways, and
 * most of them change the logits with the batch, the GPU or the number of ranks. A head of this
 * library rounds both operands once, to integers under a power of two of their own row. The product
 * of integers is exact, so its bits depend on the hidden state, the weights and the format alone:
 * not on the batch, on tiles, on how V or D is cut over ranks, on the instruction or on the
 * backend.
 *
 *     sb_head_weights weights = SB_HEAD_WEIGHTS_INIT;
 *     weights.weights = w;                // bf16 [V, D]
 *     weights.dtype = SB_BF16;
 *     weights.ids = V;
 *     weights.width = D;
 *     sb_head_create(ctx, &head, &weights, NULL, 0, NULL);   // once; the weights may be freed
 *
 *     batch.head = head;                  // a batch as for sb_logprob, with vocab = V
 *     batch.hidden = h;                   // bf16 [B, T, D]
 *     batch.hidden_dtype = SB_BF16;
 *     batch.hidden_width = D;
 *     sb_logprob(ctx, &out, &batch, NULL);
 *
 * The logits [N, V] exist nowhere: they are computed a tile at a time, and summed there. All ids
 * are multiplied, even if rows keep few of them; only sb_logprob without a gradient, on cuda,
 * multiplies nothing but the kept ids of lists that are short beside V.
 *
 * docs/numerics.md, section "The linear head", defines the logit of an id: the product, then, each
 * if there is one, bias, scale and softcap, cap * tanh(x / cap), in this order. Every step is
 * rounded once. The result is an fp32 logit, to which all other rules of this header apply. */

/* How operands are rounded; a part of the identity of every result. */
typedef enum sb_format {
    SB_H24W16 = 1, /* hidden states to 24 bits, weights to 16: 2 bytes per weight. The error of a
                      logit is 10 to 300 times below that of bf16 logits, unless elements of the
                      hidden states are 10^3 times the rest and meet weights that are as much
                      smaller (docs/accuracy.md) */
    SB_H24W24 = 2  /* both to 24 bits: 3 bytes per weight, and about the error of an fp32 product or
                      less, at 1.7 times the work */
} sb_format;

/* Weights prepared for products: opaque. A head belongs to the backend and the device that prepared
 * it, and serves all contexts there, several at the same time. */
typedef struct sb_head sb_head;

/* The weights of a head. Start from SB_HEAD_WEIGHTS_INIT. */
typedef struct sb_head_weights {
    uint32_t size;            /* sizeof(sb_head_weights) */
    int32_t dtype;            /* of weights: SB_F32, SB_F16 or SB_BF16 */
    const void *weights;      /* [ids, D]; any alignment on the cpu */
    int64_t ids;              /* rows of weights, 1 .. SB_MAX_VOCAB: V, or the ids of a shard */
    int64_t width;            /* D, 1 .. SB_MAX_WIDTH */
    int64_t row_stride;       /* elements from one row to the next, >= D; 0: D */
    int64_t first;            /* the id of the first row, a multiple of 16; 0 for a whole V */
    const void *bias;         /* [ids], or null. A bias of -inf makes its id absent, whatever its
                                 weights are */
    const uint32_t *scales;   /* [ids], or null. If weights holds only some columns: the scales of
                                 the whole rows, see sb_scales */
    int32_t bias_dtype;       /* SB_F32, SB_F16 or SB_BF16 */
    int32_t format;           /* SB_H24W16 or SB_H24W24 */
    float scale;              /* multiplies the logits; in [2^-32, 2^32]; 1: none. For models that
                                 divide by m: 1 / m */
    float softcap;            /* cap of cap * tanh(x / cap); in [2^-10, 2^20]; 0: none */
    int32_t keep_bad;         /* 0: a row with NaN, infinity or a number of about 2^48 or more is an
                                 error that names it, unless its bias is -inf. 1: the logits of its
                                 id are NaN, which poisons every row that keeps this id */
    int32_t norms;            /* 1: the head keeps the norms of its weights, which sb_head_error
                                 needs. The weights are then read twice. 0: it does not */
} sb_head_weights;

/* Writes how many bytes the head of some weights takes: about 2 or 3 bytes per weight. The arrays
 * of weights may be null. Errors: SB_ERR_ARGUMENT, SB_ERR_SHAPE, SB_ERR_DTYPE. */
SB_API sb_status sb_head_bytes(sb_context *ctx, uint64_t *bytes, const sb_head_weights *weights);

/* Prepares a head. memory: where it goes, of at least the bytes of sb_head_bytes, in the memory of
 * the backend, aligned to 256 bytes; it has to live as long as the head. null: the library
 * allocates it. *head is null on failure.
 *
 * The weights are read once, in launch's stream, and are not needed afterwards. On a device without
 * check, the call does not wait, and a bad row of weights is not an error, but makes logits NaN.
 *
 * Errors: SB_ERR_ARGUMENT, SB_ERR_SHAPE, SB_ERR_DTYPE, SB_ERR_MEMORY; SB_ERR_STATE, with the first
 * bad row of weights and the number of bad rows, or with the row whose scale is below its weights.
 * The only fields of launch that have an effect are stream and check. */
SB_API sb_status sb_head_create(sb_context *ctx, sb_head **head, const sb_head_weights *weights,
                                void *memory, uint64_t memory_size, const sb_launch *launch);

/* Prepares other weights in place of a head's: after a step of training, for example. ids, width,
 * first, format, norms and whether there is a bias must be the head's; scale and softcap may
 * differ. The bits are those of a new head. The caller orders this call and those that use the
 * head: on a device by streams, otherwise none may be under way. On failure other than
 * SB_ERR_DEVICE, the head is as it was. Errors: as sb_head_create. */
SB_API sb_status sb_head_update(sb_context *ctx, sb_head *head, const sb_head_weights *weights,
                                const sb_launch *launch);

/* Opens a head from the bytes of one: a copy of what sb_head_create wrote into the caller's memory,
 * by the same version of the library and the same kind of backend. memory is as for sb_head_create,
 * and is only read. On a device the call waits.
 *
 * Errors: SB_ERR_STATE with the reason if these are no such bytes: another SB_NUMERICS, backend or
 * size, or no head at all. What is behind the first 80 bytes is not examined: if it has been
 * changed, logits and norms change, but nothing outside memory is read. */
SB_API sb_status sb_head_open(sb_context *ctx, sb_head **head, const void *memory,
                              uint64_t memory_size);

/* Describes a head: writes all fields of weights but the pointers, which become null. */
SB_API sb_status sb_head_describe(sb_context *ctx, sb_head_weights *weights, const sb_head *head);

/* Frees a head, and its memory if the library allocated it; null does nothing. All calls that use
 * it must be done. */
SB_API sb_status sb_head_free(sb_context *ctx, sb_head *head);

/* The outputs of sb_logits. Start from SB_LOGITS_OUT_INIT. */
typedef struct sb_logits_out {
    uint32_t size;            /* sizeof(sb_logits_out) */
    int32_t dtype;            /* of logits: SB_F32, SB_F16 or SB_BF16 */
    void *logits;             /* [B, T, n] or [N, n], n as below: row r of logits belongs to row r
                                 of the hidden states */
    int64_t row_stride;       /* elements from one row to the next, >= n; 0: n */
    int64_t batch_stride;     /* padded: from one sequence to the next; rows must not overlap; 0:
                                 T * row_stride */
    int64_t first, held;      /* which ids: first .. first + held - 1, multiples of 16 as in
                                 sb_partial; n = held. 0, 0: all, n = V */
} sb_logits_out;

/* Computes the logits of a batch of hidden states: those that the other calls use, for samplers and
 * trainers. In fp32 they are exact in this sense; in bf16 and fp16 they are rounded once more, to
 * nearest even.
 *
 * batch is as for sb_topk: ids may be null. Temperatures are checked but have no effect. Ids
 * outside a kept set get -inf, and ignored rows +0. With shift, an active row r has its logits at r
 * - 1, as its hidden state. Writes: all rows.
 *
 * Errors: as sb_logprob; SB_ERR_ARGUMENT for a batch without a head. Deterministic across:
 * everything but the row's hidden state, the weights of the id, its bias, the scale, the softcap,
 * the format and the kept set. */
SB_API sb_status sb_logits(sb_context *ctx, const sb_logits_out *out, const sb_batch *batch,
                           const sb_launch *launch);

/* Computes how far the logits of each row may be from the exact products of its hidden state, as
 * real numbers, and the weights: error [B, T] or [N], in units of the logits.
 *
 *   |x - h . w| <= error[r] + half an ulp of x, for the logit x of every id of the head
 *
 * before bias, scale and softcap. It is a strict bound, from the norms of what rounding loses:
 *
 *   (|h| + |lost h|) |lost w| + |lost h| |w| + |last h| |last w|
 *
 * with each norm of w the largest over the head's ids, |last| that of the last digits, which
 * SB_H24W16 does not multiply, and for SB_H24W24 a constant in its place. docs/numerics.md defines
 * the computation in section "Linear: a row's own bound". Divided by sqrt(D), the bound is what to
 * expect of the errors' root mean square: SB_H24W16 suits rows where that is far below what a logit
 * may be wrong, SB_H24W24 the others.
 *
 * batch is as for sb_logits, with a head whose weights had norms = 1; its kept sets are not used.
 * The bound is for the ids of this head: if V is cut over ranks, the largest bound holds for all
 * ids. scales is null, or, if D is cut, as for sb_products: the bound is then for the product of
 * these columns, and the sum of the ranks' bounds holds for whole rows. Ignored rows get +0, rows
 * with NaN, infinity or a number of about 2^48 or more NaN (7fc00000). With shift, a result at r
 * belongs to the hidden state of row r - 1.
 *
 * Errors: as sb_logits; SB_ERR_ARGUMENT for a head without norms; SB_ERR_STATE as sb_products. The
 * only fields of launch that have an effect are stream and check. Deterministic across: everything
 * but the row's hidden state, and the weights and the format of the head. */
SB_API sb_status sb_head_error(sb_context *ctx, float *error, const sb_batch *batch,
                               const uint32_t *scales, const sb_launch *launch);

/* What sb_head_backward reads, and what it adds to. Start from SB_HEAD_GRADIENT_INIT. */
typedef struct sb_head_gradient {
    uint32_t size;            /* sizeof(sb_head_gradient) */
    int32_t grad_dtype;       /* of grad: SB_F32, SB_F16 or SB_BF16 */
    const void *grad;         /* [B, T, n] or [N, n], n as below: a loss's derivatives by logits, as
                                 sb_logprob_backward writes them */
    int64_t grad_row_stride;  /* elements from one row to the next, >= n; 0: n */
    int64_t grad_batch_stride;/* padded: from one sequence to the next; 0: T * grad_row_stride */
    int64_t first, held;      /* which ids: as in sb_gradient; n = held. 0, 0: all, n = V */
    const float *logits;      /* [B, T, n] or [N, n], contiguous: what sb_logits computes for these
                                 ids. Used only if the head has a softcap */
    const void *weights;      /* [n, D]: the rows of weights of these ids */
    int64_t weights_stride;   /* elements from one row to the next, >= D; 0: D */
    int32_t weights_dtype;    /* SB_F32, SB_F16 or SB_BF16 */
    int32_t reserved;         /* 0 */
    double *by_hidden;        /* [B, T, D] or [N, D], contiguous: the derivatives by hidden states
                                 are added to it; null: not wanted */
    double *by_weights;       /* [n, D], likewise by the weights of these ids */
    double *by_bias;          /* [n], likewise by their biases */
} sb_head_gradient;

/* Computes the derivatives of a loss by hidden states, weights and biases from those by logits, for
 * all ids or a chunk of them, and adds them to what is in the outputs:
 *
 *   d = grad * scale * (1 - (logit / softcap)^2), rounded to fp32: by the product of h and w
 *   by_hidden[r]  += the sum over the ids v of d[r, v] * w[v], v ascending
 *   by_weights[v] += the sum over the active rows r of d[r, v] * h[r], r ascending
 *
 * and by_bias as by_weights, with 1 for h. Every addition is one operation in fp64, and products of
 * fp32 numbers are exact in fp64. The rounding of operands in the head is passed straight through.
 * Terms with d = 0 are left out, whatever the other operand is. NaN is 7ff8000000000000.
 *
 * A training step clears the outputs, goes through the ids in ascending chunks, in each of which it
 * calls sb_logprob_backward and this function, and rounds the outputs to its own dtype:
 *
 *   by_hidden does not depend on the chunks, on other rows, on their order or on padding. It is a
 *   function of the row's derivatives, the weights and the head.
 *   by_weights and by_bias depend on the active rows and their order, and on nothing else of the
 *   batch. If micro-batches are added to the same outputs one after the other, the bits are those
 *   of one batch with the same rows in the same order.
 *
 * batch is that of the forward call; its temperatures and kept sets are not used, and ids may be
 * null. An ignored row's grad and hidden state are not read, and its by_hidden does not change.
 * With shift, the row of grad, logits and by_hidden is that of the hidden state. Outputs must not
 * overlap each other or an input.
 *
 * Only the cpu backend has this; the others return SB_ERR_BACKEND. On a GPU, multiply each chunk of
 * sb_logprob_backward with weights and hidden states by the framework's own products:
 * examples/python/fused_head.py does. Errors: as sb_logits; SB_ERR_ARGUMENT for a null pointer that
 * is needed, SB_ERR_DTYPE, SB_ERR_SHAPE. Of launch, no field has an effect. Deterministic across:
 * everything but what is said above. */
SB_API sb_status sb_head_backward(sb_context *ctx, const sb_head_gradient *gradient,
                                  const sb_batch *batch, const sb_launch *launch);

/* If D is cut over ranks, each holds some columns of the hidden states and of the weights. The
 * ranks agree on the scale of each row, then add up integers, and have the bits of whole rows:
 *
 *     sb_scales(ctx, of_w, w, SB_BF16, V, D_mine, 0, NULL);      // once per update of the weights
 *     sb_all_reduce(ctx, of_w, SB_I32, V, SB_MAX, comm, NULL);
 *     weights.scales = of_w;
 *     sb_head_create(ctx, &head, &weights, NULL, 0, NULL);        // width is D_mine
 *
 *     sb_scales(ctx, of_h, h, SB_BF16, rows, D_mine, 0, NULL);
 *     sb_all_reduce(ctx, of_h, SB_I32, rows, SB_MAX, comm, NULL);
 *     sb_products(ctx, sums, &batch, of_h, first, n, NULL);
 *     sb_all_reduce(ctx, sums, SB_I64, rows * n, SB_ADD, comm, NULL);
 *     sb_combine(ctx, logits, sums, of_h, head, rows, first, n, NULL);
 *
 * Any other all-reduce of these integers, by any algorithm, gives the same bits. Scales are below
 * 2^31, so signed and unsigned maxima agree.
 *
 * The sums of a chunk of ids take 8 bytes per row and id: choose chunks, call sb_partial for each
 * chunk of logits, and merge. */

/* Computes the scale of each row of a matrix [rows, width]: the largest magnitude, as an integer.
 * Maxima over columns are those of whole rows. Errors: SB_ERR_ARGUMENT, SB_ERR_SHAPE, SB_ERR_DTYPE.
 * The only field of launch that has an effect is stream. */
SB_API sb_status sb_scales(sb_context *ctx, uint32_t *scales, const void *matrix, int32_t dtype,
                           int64_t rows, int64_t width, int64_t row_stride,
                           const sb_launch *launch);

/* Computes the integer products of a batch's hidden states and a head: sums [B, T, n] or [N, n] of
 * the ids first .. first + n - 1, as in sb_partial. scales [B, T] or [N]: of the whole rows of
 * hidden. Ignored and bad rows get 0. With shift, the sums of row r are at r - 1, and so is its
 * scale. batch is as for sb_logits.
 *
 * Errors: as sb_logits; on the cpu and with check, SB_ERR_STATE if a row's scale is below that of
 * its own columns. */
SB_API sb_status sb_products(sb_context *ctx, int64_t *sums, const sb_batch *batch,
                             const uint32_t *scales, int64_t first, int64_t n,
                             const sb_launch *launch);

/* Computes the logits [rows, n] of whole sums [rows, n], with bias, scale and softcap of the head.
 * The bits are those of sb_logits. Errors: SB_ERR_ARGUMENT, SB_ERR_SHAPE. The only field of launch
 * that has an effect is stream. */
SB_API sb_status sb_combine(sb_context *ctx, float *logits, const int64_t *sums,
                            const uint32_t *scales, const sb_head *head, int64_t rows,
                            int64_t first, int64_t n, const sb_launch *launch);
/* ---- policy losses and group advantages ----
 *
 * The loss of a PPO, GRPO or similar step, from token logprobs, and its gradient by them:
 *
 *     sb_policy policy = SB_POLICY_INIT;
 *     policy.now = now;                   // fp32 [B, T]: the policy that is trained
 *     policy.old = old;                   // when the tokens were sampled
 *     policy.advantages = advantages;     // fp32 [B]
 *     policy.mask = mask;
 *     policy.batch = B;
 *     policy.time = T;
 *     out.token = by_token;               // fp32 [B, T]: ready for sb_logprob_backward
 *     sb_policy_loss(ctx, &out, &policy, NULL);
 *
 *     algorithm   loss, norm                                  cited formulas: docs/numerics.md
 *     PPO, GRPO   SB_CLIP, SB_TOKEN_MEAN or SB_SEQUENCE_MEAN, with kl, beta and ref
 *     Dr. GRPO    SB_CLIP, SB_CONSTANT; advantages without std
 *     DAPO        SB_CLIP, SB_TOKEN_MEAN; eps_high above eps_low
 *     GSPO        SB_GSPO, SB_SEQUENCE_MEAN
 *     CISPO       SB_CISPO; eps_low 1 if there is no lower bound
 *     REINFORCE   SB_REINFORCE
 *
 * The scalar loss is a sum over tokens, or sequences, divided by a number of the whole step. All
 * sums are exact: if a step is divided into micro-batches or ranks, and each call is given the
 * step's `tokens` and `sequences`, then the gradients have the bits of one call for the whole step,
 * and sb_policy_merge makes the step's scalar and metrics from the calls' records, in any order. */

/* The term that advantages enter, with ratio = e^(now - old) and the bounds lo = 1 - eps_low and
 * hi = 1 + eps_high. */
typedef enum sb_policy_loss_kind {
    SB_CLIP = 1,     /* -min(ratio * A, clamp(ratio, lo, hi) * A); with dual, at most -dual * A
                        where A < 0 */
    SB_GSPO = 2,     /* the same with one ratio per sequence, e^mean(now - old) */
    SB_CISPO = 3,    /* -clamp(ratio, lo, hi) * A * now; no gradient flows through the clamp */
    SB_REINFORCE = 4 /* -A * now */
} sb_policy_loss_kind;

/* How token losses are reduced to a scalar. */
typedef enum sb_policy_norm {
    SB_TOKEN_MEAN = 1,    /* the sum over tokens / tokens */
    SB_SEQUENCE_MEAN = 2, /* the mean of the sequences' means */
    SB_SEQUENCE_SUM = 3,  /* the mean of the sequences' sums */
    SB_CONSTANT = 4       /* the sum over tokens / constant */
} sb_policy_norm;

/* Estimators of KL(now || ref), as in sb_compare. The last two have the value of k1 or k3 and the
 * derivative of k2, which is an unbiased one of the divergence. */
typedef enum sb_policy_kl {
    SB_K1 = 1,
    SB_K2 = 2,
    SB_K3 = 3,
    SB_K1_PLUS = 4,
    SB_K3_PLUS = 5
} sb_policy_kl;

/* What becomes of a weight e^(old - rollout) outside [w_low, w_high]. */
typedef enum sb_policy_weight {
    SB_UNWEIGHTED = 0,   /* no weights */
    SB_TRUNCATE = 1, /* it becomes that bound */
    SB_DROP = 2      /* it becomes 0; the token stays in every count */
} sb_policy_weight;

/* What has one such weight. */
typedef enum sb_policy_level {
    SB_PER_TOKEN = 0,
    SB_PER_SEQUENCE = 1, /* the product of the tokens' weights */
    SB_GEOMETRIC = 2     /* their geometric mean */
} sb_policy_level;

/* The inputs and options of sb_policy_loss. Start from SB_POLICY_INIT. Layouts are as in sb_batch:
 * padded [B, T], or packed [N] with cu_seqlens. At most 2^30 positions per call. */
typedef struct sb_policy {
    uint32_t size;            /* sizeof(sb_policy) */
    int32_t cu_seqlens_dtype; /* SB_I32 or SB_I64 */
    const float *now;         /* [B, T] or [N]: token logprobs by the policy that is trained */
    const float *old;         /* the same shape: by the policy before the step's first update; null:
                                 now, as a constant, so every ratio is 1 */
    const float *ref;         /* the same shape: by the reference policy, for the KL; or null */
    const float *rollout;     /* the same shape: by the engine that drew the tokens, for weights and
                                 for the metric drift; or null */
    const float *entropy;     /* the same shape: sb_logprob's, for the bonus and its metric; null */
    const float *advantages;  /* [B], or the same shape as now: see per_token */
    const uint8_t *mask;      /* the same shape, non-zero: active; null: all active */
    const void *cu_seqlens;   /* [B + 1], at most 2^24 positions per sequence; null: padded */
    int64_t batch;            /* B >= 0 */
    int64_t time;             /* T, 0 .. 2^29; padded layout only */
    int64_t rows;             /* N >= 0; packed layout only */
    int64_t tokens;           /* active tokens of the whole step, at most 2^53; 0: of this call */
    int64_t sequences;        /* sequences with an active token, likewise */
    double constant;          /* the divisor of SB_CONSTANT; above 0 and finite */
    double eps_low;           /* in [0, 1] */
    double eps_high;          /* >= 0 and finite */
    int32_t loss;             /* sb_policy_loss_kind */
    int32_t norm;             /* sb_policy_norm */
    int32_t kl;               /* sb_policy_kl */
    int32_t weight;           /* sb_policy_weight; other than 0: rollout is given */
    int32_t level;            /* sb_policy_level */
    int32_t per_token;        /* 1: advantages has one element per token; 0: one per sequence */
    float dual;               /* above 1, and at least 1 + eps_high; 0 or +inf: none */
    float beta;               /* the coefficient of the KL, >= 0, finite; above 0: ref is given */
    float eta;                /* that of the entropy bonus, likewise; above 0: entropy is given */
    float w_low;              /* 0 <= w_low <= w_high */
    float w_high;             /* above 0 and finite, if there are weights */
    float upstream;           /* scales both gradients and nothing else; finite. 1, a loss scale, or
                                 the number of ranks whose gradients will be averaged */
} sb_policy;

/* The exact sums of a call: 784 bytes, little-endian, the same on every machine. It may be stored
 * and sent. docs/numerics.md, section "Policy losses", defines it. */
typedef struct sb_policy_record {
    uint32_t adds_sequences; /* 1: sums[0] adds losses of sequences; 0: of tokens */
    uint32_t parts;          /* 255 with metrics; 1 without: then only the loss is there */
    int64_t counts[8];       /* tokens, sequences, high, low, dual, cut, drift, outside */
    uint32_t most, least;    /* order keys of the largest ratio, and ~ of the smallest; 0: none */
    struct {
        int64_t digits[10];
        uint32_t seen, reserved;
    } sums[8];               /* loss, pg, kl, entropy, ratio, k1, k3, weight */
} sb_policy_record;

/* What a step's log shows: means over active tokens, and fractions of them. */
typedef struct sb_policy_metrics {
    float loss;      /* the scalar */
    float pg;        /* the mean of the term that advantages enter, weighted */
    float kl;        /* of the chosen estimator of KL(now || ref), whatever beta is */
    float entropy;
    float ratio;
    float k1, k3;    /* of KL(old || now) */
    float weight;    /* after it is cut */
    float high, low; /* tokens whose ratio was clipped above and below */
    float dual;      /* tokens where dual held */
    float cut;       /* tokens whose weight was outside its bounds */
    float drift;     /* tokens that would be clipped if rollout stood for old, and are not: what a
                        trainer loses that takes the engine's logprobs for its own */
    float outside;   /* tokens with now = -inf */
    float ratio_min, ratio_max; /* NaN without active tokens */
} sb_policy_metrics;

/* The outputs of sb_policy_loss and sb_policy_merge. Start from SB_POLICY_OUT_INIT. A null output
 * is not computed. Outputs must not overlap each other or an input. */
typedef struct sb_policy_out {
    uint32_t size;              /* sizeof(sb_policy_out) */
    uint32_t reserved;          /* 0 */
    float *loss;                /* [1]: of the call's tokens, divided as the step's */
    float *sequence;            /* [B]: of each sequence, the sum or (SB_SEQUENCE_MEAN) the mean of
                                   its tokens' losses */
    float *token;               /* [B, T] or [N]: the scalar's derivative by each now */
    float *entropy;             /* the same shape: by each entropy */
    sb_policy_record *record;   /* [1]; with metrics only if metrics are requested as well */
    sb_policy_metrics *metrics; /* [1] */
} sb_policy_out;

/* Computes a policy loss, its gradients and its metrics.
 *
 *   l = w * pg + beta * kl - eta * entropy          for each active token, rounded to fp32 once
 *   loss = the sum of l, or of the sequences' losses, divided as norm says
 *
 * pg is the term of sb_policy_loss_kind, w the token's importance weight. docs/numerics.md defines
 * the computation, and its bounds: token is within 5.1 * 2^-24 times (|A| k w + beta (e^d + 1)) / Z
 * of the exact derivative, and the scalar within 8.1 * 2^-24 times the mean of |pg| + beta |kl| +
 * eta |entropy|.
 *
 * Inactive tokens are not read; their gradients are +0. A NaN of an active token makes its own
 * gradient and all sums that it enters NaN, and leaves the gradients of other tokens unchanged (of
 * other sequences, if ratios or weights are of sequences). A sequence without active tokens has
 * loss +0 and is not counted in sequences. Without any active token, loss and metrics are +0.
 *
 * Errors: SB_ERR_ARGUMENT for an option outside its range or without its input; SB_ERR_SHAPE, also
 * if tokens or sequences is given and below the call's own number; SB_ERR_DTYPE. On a device
 * without check, loss, sequences, gradients and metrics of a call whose totals are too small are
 * NaN. The fields of launch that have an effect are stream, check and workspace.
 * Deterministic across: everything but the token's numbers, the options, tokens and sequences and,
 * where ratios or weights are of sequences, the other active tokens of the sequence. */
SB_API sb_status sb_policy_loss(sb_context *ctx, const sb_policy_out *out, const sb_policy *policy,
                                const sb_launch *launch);

/* Merges records [count] of micro-batches or ranks, count >= 1, into the record, the scalar loss
 * and the metrics of all of them together; the other outputs are null. Any order and any tree of
 * merges gives the same bytes. Of policy only norm, constant, tokens and sequences are used; tokens
 * and sequences are the step's, or 0: the records' own sum. out.record may be one of records.
 *
 * Errors: SB_ERR_STATE, with the number of the first record that no call gives, that is of another
 * norm or has other metrics than the first one, or that brings the tokens above 2^30; also if
 * metrics are requested of records without them. On a device without check, the outputs are NaN
 * then, and every later call refuses the record. Otherwise as sb_policy_loss. */
SB_API sb_status sb_policy_merge(sb_context *ctx, const sb_policy_out *out, const sb_policy *policy,
                                 const sb_policy_record *records, int64_t count,
                                 const sb_launch *launch);

/* A group's exact sums: 240 bytes, as sb_policy_record otherwise. */
typedef struct sb_group_record {
    uint64_t count;
    int64_t digits[10];   /* the sum of the rewards */
    uint32_t seen, reserved;
    uint64_t squares[18]; /* the sum of their squares */
} sb_group_record;

/* What an advantage is divided by. */
typedef enum sb_group_scale {
    SB_UNSCALED = 0,  /* nothing (Dr. GRPO) */
    SB_GROUP_STD = 1, /* the group's standard deviation + eps (GRPO) */
    SB_STEP_STD = 2   /* that of all groups together + eps */
} sb_group_scale;

/* The inputs and options of sb_group_advantages. Start from SB_GROUPS_INIT. */
typedef struct sb_groups {
    uint32_t size;           /* sizeof(sb_groups) */
    int32_t offsets_dtype;   /* SB_I32 or SB_I64 */
    const float *rewards;    /* [groups * each] or [rows]: one group after the other */
    const void *offsets;     /* [groups + 1], as cu_seqlens of sb_batch; null: each */
    int64_t groups;          /* >= 0 */
    int64_t each;            /* rewards per group, without offsets */
    int64_t rows;            /* rewards, with offsets */
    const sb_group_record *records; /* [shards][groups]: if other ranks have more rewards of the
                                groups, the records of all ranks, this one included; or null */
    int64_t shards;          /* >= 1 with records */
    int32_t scale;           /* sb_group_scale */
    int32_t population;      /* 1: divide the squares by n; 0: by n - 1 */
    float eps;               /* >= 0 and finite */
    int32_t reserved;        /* 0 */
} sb_groups;

/* The outputs of sb_group_advantages. Start from SB_GROUPS_OUT_INIT. A null output is not computed.
 */
typedef struct sb_groups_out {
    uint32_t size;            /* sizeof(sb_groups_out) */
    uint32_t reserved;        /* 0 */
    float *advantages;        /* [groups * each] or [rows] */
    sb_group_record *records; /* [groups]: of these rewards; or, with records, the merged ones */
    double *mean;             /* [groups] */
    double *std;              /* [groups]; +0 for a group of one reward or none */
} sb_groups_out;

/* Computes advantages within groups.
 *
 *   advantage = (reward - mean) / (std + eps)
 *
 * Mean and variance come from exact sums, so a reward's advantage does not depend on the order, on
 * the place of the group, or on how the group is divided over ranks. A reward that equals the mean
 * has advantage +0, so equal rewards have, whatever eps is, and a group of one has. If a reward is
 * NaN or infinite, all advantages of its group are NaN (with SB_STEP_STD, all of the call).
 * |error| <= 2^-23.9 relative + 2^-52 |reward| / (std + eps).
 *
 * To share groups between ranks, each rank first requests records only, and all gather them; each
 * then calls again with records.
 *
 * Errors: SB_ERR_ARGUMENT, SB_ERR_SHAPE, also for a group of 2^26 rewards or more; SB_ERR_DTYPE;
 * SB_ERR_STATE, with the number of the group and the shard of the first record that no call gives,
 * or that makes the group too large. On a device without check, such a group is NaN. The fields of
 * launch that have an effect are stream, check and workspace. */
SB_API sb_status sb_group_advantages(sb_context *ctx, const sb_groups_out *out,
                                     const sb_groups *groups, const sb_launch *launch);

/* ---- device backends: cuda, cuda:N ----
 *
 * With these backends, all pointers of sb_batch, sb_logprob_out, sb_gradient and records are device
 * memory of the context's GPU (or pinned or managed memory), aligned to their elements. A call puts
 * its work into a stream and returns; the results are complete once the stream has done this work.
 * A call does not wait and, with a workspace, does not allocate. It may be captured into a CUDA
 * graph (check must be 0 then, and the context and all arrays have to live as long as the graph).
 * The library uses the GPU's primary context, so that the pointers and streams of a framework are
 * valid here, and leaves the calling thread's current context as it was. Calls of one context in
 * several streams may run at the same time; each needs its own workspace, or none.
 *
 * If the allocation of an array ends before the call's last row does, the call is refused with an
 * error that names the array, even if the rows at its end are ignored: logits have to reach to the
 * end of the last row or, with shift, of the last row that scores an id. For an array inside a
 * larger allocation, the library cannot detect this.
 *
 * The calls below also work on cpu: at once, on ordinary memory, and with the stream ignored. */

/* Waits for a stream, and reports errors of calls without check: a bad id, temperature, row list,
 * cu_seqlens or record.
 *
 * Each stream has one report, of all calls without check in it. Each CUDA graph has one, of the
 * calls that were captured into it, independent of the streams that it is launched in. If several
 * rows or calls are at fault, the report names one of the rows. A call with check = 1 fails by
 * itself and names its first bad row; it neither adds to a report nor removes one.
 *
 * After the wait, sb_check fails with one report, and removes only that one. It is the first of
 * these that there is:
 *
 *     the stream's own report;
 *     a graph's;
 *     if the stream is the default one (null), any other stream's.
 *
 * All other reports remain: repeat the call until it returns SB_OK. Reports belong to this context
 * and are kept by the handles of streams. A context distinguishes 255 streams and 255 graphs; all
 * further ones share one report, which any sb_check returns.
 *
 * It is not possible to wait for a stream that is being captured: sb_check, sb_stream_wait and a
 * call with check = 1 return SB_ERR_ARGUMENT, and the capture continues. */
SB_API sb_status sb_check(sb_context *ctx, void *stream);

/* Kinds of memory that sb_memory_alloc gives. */
typedef enum sb_memory {
    SB_DEVICE = 1, /* the backend's own memory: on the GPU; for cpu, ordinary memory */
    SB_PINNED = 2  /* page-locked host memory, for copies that run at the same time as other work */
} sb_memory;

/* sb_open, sb_close and all functions below except sb_memory_copy may also be called while a stream
 * is being captured into a graph: they do not become part of the graph, and the capture continues.
 * A copy is work in a stream, as other calls are. */

/* Memory. sb_memory_alloc sets *data to a block of that size (null for 0 bytes). sb_memory_free
 * takes null. sb_memory_copy copies between any two of device, pinned and ordinary memory, in the
 * stream's order; between pinned and device memory it does not wait. */
SB_API sb_status sb_memory_alloc(sb_context *ctx, void **data, uint64_t bytes, sb_memory kind);
SB_API sb_status sb_memory_free(sb_context *ctx, void *data, sb_memory kind);
SB_API sb_status sb_memory_copy(sb_context *ctx, void *to, const void *from, uint64_t bytes,
                                void *stream);

/* Creates a stream, which does not wait for the default one; destroys a stream; waits for one. */
SB_API sb_status sb_stream_create(sb_context *ctx, void **stream);
SB_API sb_status sb_stream_destroy(sb_context *ctx, void *stream);
SB_API sb_status sb_stream_wait(sb_context *ctx, void *stream);

/* ffi end */

/* Initialisers for the structs above. */
#define SB_OPEN_OPTIONS_INIT { sizeof(sb_open_options), 0, 0 }
#define SB_BATCH_INIT                                                                              \
    { sizeof(sb_batch), SB_F32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, SB_IGNORE_INDEX, SB_I32,    \
      SB_I32, 1.0f, 0, 0, 0, 0, 0, 0, SB_I32, SB_I32, 0, 0, 0, 0, 0, SB_F32, 0 }
#define SB_LOGPROB_OUT_INIT { sizeof(sb_logprob_out), 0, 0, 0, 0, 0, 0, 0, 0, 0 }
#define SB_IDS_OUT_INIT { sizeof(sb_ids_out), 0, 0, 0, 0 }
#define SB_TOPK_OUT_INIT { sizeof(sb_topk_out), 0, 0, 0, 0 }
#define SB_SAMPLING_INIT { sizeof(sb_sampling), 0, 1.0f, 0.0f, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 }
#define SB_SAMPLE_OUT_INIT { sizeof(sb_sample_out), 0, 0, 0, 0, 0, 0 }
#define SB_DRAW_INIT { sizeof(sb_draw), 0, 1, 0, 0, 0, { 0 }, 0, 0, 0 }
#define SB_RECORDS_INIT { sizeof(sb_records), SB_SUMS, 0, 0 }
#define SB_COMPARE_OUT_INIT { sizeof(sb_compare_out), 0, 0, 0, 0, 0 }
#define SB_VALUES_INIT { sizeof(sb_values), SB_I32, 0, 0, 0, 0, 0, 0, 0 }
#define SB_SUMS_OUT_INIT { sizeof(sb_sums_out), 0, 0, 0, 0, 0 }
#define SB_KL_OUT_INIT { sizeof(sb_kl_out), 0, 0, 0 }
#define SB_POLICY_INIT                                                                             \
    { sizeof(sb_policy), SB_I32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0.0, 0.2, 0.2, SB_CLIP,    \
      SB_TOKEN_MEAN, SB_K3, SB_UNWEIGHTED, SB_PER_TOKEN, 0, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 1.0f }
#define SB_POLICY_OUT_INIT { sizeof(sb_policy_out), 0, 0, 0, 0, 0, 0, 0 }
#define SB_GROUPS_INIT                                                                             \
    { sizeof(sb_groups), SB_I32, 0, 0, 0, 0, 0, 0, 0, SB_GROUP_STD, 0, 1e-4f, 0 }
#define SB_GROUPS_OUT_INIT { sizeof(sb_groups_out), 0, 0, 0, 0, 0 }
#define SB_GRADIENT_INIT { sizeof(sb_gradient), SB_F32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 }
#define SB_HEAD_WEIGHTS_INIT                                                                       \
    { sizeof(sb_head_weights), SB_F32, 0, 0, 0, 0, 0, 0, 0, SB_F32, SB_H24W16, 1.0f, 0.0f, 0, 0 }
#define SB_HEAD_GRADIENT_INIT                                                                      \
    { sizeof(sb_head_gradient), SB_F32, 0, 0, 0, 0, 0, 0, 0, 0, SB_F32, 0, 0, 0, 0 }
#define SB_LOGITS_OUT_INIT { sizeof(sb_logits_out), SB_F32, 0, 0, 0, 0, 0 }
#define SB_LAUNCH_INIT { sizeof(sb_launch), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 }

#ifdef __cplusplus
}
#endif

#endif /* SAMEBITS_H */
