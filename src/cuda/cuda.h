/* cuda.h - inside the CUDA backend: what backend.c and the files of its calls give
 * each other. What calls the driver needs the GPU's context to be current, as it is in an
 * sb_cuda_work. */
#ifndef SB_BACKEND_CUDA_H
#define SB_BACKEND_CUDA_H

#include "backend.h"
#include "cuda/args.h"
#include "cuda/arrays.h"
#include "cuda/driver.h"
#include "cuda/nccl.h"

/* The kernels of a file, of which LIST(X) has the names: fields of a struct that begins with
 * CUmodule module. */
#define SB_CUDA_FIELD(name) CUfunction name;

/* Loads them into *kernels; what was loaded stays in module on failure. Functions are loaded now:
 * the driver's lazy loading could not happen under a graph capture. */
#define SB_CUDA_GET(name)                                                                          \
    DRIVER(why, driver, ModuleGetFunction, &kernels->name, kernels->module, #name);                \
    DRIVER(why, driver, FuncLoad, kernels->name);
#define SB_CUDA_LOADER(function, type, LIST, image)                                                \
    sb_status function(type *kernels, const sb_cuda_driver *driver, sb_message *why)               \
    {                                                                                              \
        DRIVER(why, driver, ModuleLoadData, &kernels->module, image);                              \
        LIST(SB_CUDA_GET)                                                                          \
        return SB_OK;                                                                              \
    }

static inline uint64_t sb_cuda_address(const void *data) { return (uint64_t)(uintptr_t)data; }

/* ---- backend.c ---------------------------------------------------------------------------- */

const sb_cuda_driver *sb_cuda_driver_of(const sb_context *ctx);

/* The GPU's number, as cuDeviceGet counts. */
int sb_cuda_ordinal_of(const sb_context *ctx);

/* NCCL: to be loaded by the first call that needs it. */
sb_nccl *sb_cuda_nccl_of(sb_context *ctx);

/* Runs work with the GPU's context current, and gives back its status. launch: of a call whose
 * kernels may report bad input: what they launch reports where it says (report.h); null: of
 * work without such kernels. With a check under a capture nothing is run: an error. */
typedef sb_status (*sb_cuda_work)(sb_context *ctx, void *arguments);
sb_status sb_cuda_inside(sb_context *ctx, const sb_launch *launch, sb_cuda_work work,
                         void *arguments);

/* Checks the arrays of a call and the launch options that only this backend knows. */
sb_status sb_cuda_check_arguments(sb_context *ctx, const sb_logprob_out *out, const sb_call *call);

/* A call's scratch memory: the caller's workspace, or allocated in stream order. */
sb_status sb_cuda_scratch(sb_context *ctx, const sb_launch *launch, uint64_t needed,
                          CUdeviceptr *scratch);
void sb_cuda_scratch_done(sb_context *ctx, const sb_launch *launch, CUdeviceptr scratch);

typedef struct sb_cuda_grid {
    int64_t blocks;
    int32_t threads;
    uint32_t shared; /* bytes */
} sb_cuda_grid;

/* A warp an item, 8 a block. */
static inline sb_cuda_grid sb_cuda_warps_for(int64_t items)
{
    sb_cuda_grid grid = { (items + 7) / 8, 256, 0 };
    return grid;
}

/* How the logits that a call holds are summed, as logprob's would be, without clusters: a's split
 * pieces a row, a block each. a has no scratch. */
sb_cuda_grid sb_cuda_plan_shard(sb_context *ctx, const sb_logprob_out *out, const sb_call *call,
                                sb_cuda_args *a);

/* a: the kernel's arguments, or what they begin with; the launch fills in where it reports. */
sb_status sb_cuda_launch(sb_context *ctx, CUfunction kernel, sb_cuda_grid grid, sb_cuda_args *a,
                         CUstream stream);

/* Zeroes the outputs of rows that a row list leaves out. */
sb_status sb_cuda_clear_unlisted(sb_context *ctx, const sb_call *call, const sb_cuda_args *a);

/* Zeroes device memory; data may be 0. */
sb_status sb_cuda_clear(sb_context *ctx, uint64_t data, uint64_t bytes, CUstream stream);

/* Sums a's tokens by sequence. */
sb_status sb_cuda_sums(sb_context *ctx, const sb_call *call, sb_cuda_args *a);

/* Waits for a call with a check; *report becomes what its kernels reported, 0 where all is fine. */
sb_status sb_cuda_wait_for_report(sb_context *ctx, const sb_launch *launch, int64_t *report);

/* After a report: the checks that the cpu backend makes, on copies of a call's arrays, so that its
 * first bad row is named with its id. SB_OK: they find none. records: of a call that finishes, else
 * null; gradient likewise. */
sb_status sb_cuda_find_first_bad(sb_context *ctx, const sb_call *call, const sb_records *records,
                                 const sb_gradient *gradient);

/* A report in words: for one that the host's checks do not find, as what they look at has changed
 * since. */
sb_status sb_cuda_name(sb_context *ctx, int64_t report);

/* All three: waits for the call and names its first bad row. */
sb_status sb_cuda_check_call(sb_context *ctx, const sb_call *call, const sb_records *records,
                             const sb_gradient *gradient);

/* Replaces a device array, if there is one, by a copy on the heap: for naming the first bad row. On
 * failure by null. */
sb_status sb_cuda_fetch(sb_context *ctx, const void **array, int64_t count, size_t size,
                        CUstream stream);

/* ---- shards.c ----------------------------------------------------------------------------- */

#define SB_CUDA_SHARD_KERNELS(X)                                                                   \
    X(partial_f32)                                                                                 \
    X(partial_f16)                                                                                 \
    X(partial_bf16)                                                                                \
    X(partial_f32_kept)                                                                            \
    X(partial_f16_kept)                                                                            \
    X(partial_bf16_kept)                                                                           \
    X(partial_f32_moments)                                                                         \
    X(partial_f16_moments)                                                                         \
    X(partial_bf16_moments)                                                                        \
    X(partial_merge)                                                                               \
    X(partial_merge_moments)                                                                       \
    X(shards_merge)                                                                                \
    X(shards_merge_moments)                                                                        \
    X(shards_finish)                                                                               \
    X(shards_finish_moments)

/* The kernels for shards of the vocabulary. */
typedef struct sb_cuda_shards {
    CUmodule module;
    SB_CUDA_SHARD_KERNELS(SB_CUDA_FIELD)
} sb_cuda_shards;

const sb_cuda_shards *sb_cuda_shards_of(const sb_context *ctx);

/* Loads them; what was loaded stays in module on failure. */
sb_status sb_cuda_shards_load(sb_cuda_shards *shards, const sb_cuda_driver *driver,
                              sb_message *why);

/* As backend.h states them. */
sb_status sb_cuda_partial(sb_context *ctx, const sb_records *to, const sb_call *call);
sb_status sb_cuda_merge(sb_context *ctx, const sb_merge_call *call);
sb_status sb_cuda_finish(sb_context *ctx, const sb_logprob_out *out, const sb_call *call,
                         const sb_records *records);
uint64_t sb_cuda_shard_workspace(sb_context *ctx, const sb_call *call);

/* ---- exchange.c --------------------------------------------------------------------------- */

/* As backend.h states them. */
sb_status sb_cuda_exchange(sb_context *ctx, const sb_exchange_call *call);
sb_status sb_cuda_exchange_workspace(sb_context *ctx, uint64_t *size, void *comm, int64_t rows);
sb_status sb_cuda_comm_new_id(sb_context *ctx, sb_comm_id *id);
sb_status sb_cuda_comm_create(sb_context *ctx, void **comm, const sb_comm_id *id, int32_t ranks,
                              int32_t rank);
sb_status sb_cuda_comm_destroy(sb_context *ctx, void *comm);

/* ---- order.c ------------------------------------------------------------------------------ */

#define SB_CUDA_ORDER_KERNELS(X)                                                                   \
    X(ids_f32)                                                                                     \
    X(ids_f16)                                                                                     \
    X(ids_bf16)                                                                                    \
    X(ids_finish)                                                                                  \
    X(ids_ranks_f32)                                                                               \
    X(ids_ranks_f16)                                                                               \
    X(ids_ranks_bf16)                                                                              \
    X(topk_f32)                                                                                    \
    X(topk_f16)                                                                                    \
    X(topk_bf16)                                                                                   \
    X(topk_finish)

/* The kernels for several ids a row and for the first ids. */
typedef struct sb_cuda_order {
    CUmodule module;
    SB_CUDA_ORDER_KERNELS(SB_CUDA_FIELD)
} sb_cuda_order;

const sb_cuda_order *sb_cuda_order_of(const sb_context *ctx);

/* Loads them; what was loaded stays in module on failure. */
sb_status sb_cuda_order_load(sb_cuda_order *order, const sb_cuda_driver *driver, sb_message *why);

/* As backend.h states them. */
sb_status sb_cuda_ids(sb_context *ctx, const sb_ids_out *out, const sb_call *call);
sb_status sb_cuda_topk(sb_context *ctx, const sb_topk_out *out, const sb_call *call, int64_t k);
uint64_t sb_cuda_order_workspace(sb_context *ctx, const sb_call *call);

/* ---- stats.c ------------------------------------------------------------------------------ */

#define SB_CUDA_STATS_KERNELS(X)                                                                   \
    X(compare_tokens)                                                                              \
    X(reduce_sequences)

/* The kernels for statistics of tokens. */
typedef struct sb_cuda_stats {
    CUmodule module;
    SB_CUDA_STATS_KERNELS(SB_CUDA_FIELD)
} sb_cuda_stats;

const sb_cuda_stats *sb_cuda_stats_of(const sb_context *ctx);

/* Loads them; what was loaded stays in module on failure. */
sb_status sb_cuda_stats_load(sb_cuda_stats *stats, const sb_cuda_driver *driver, sb_message *why);

/* As backend.h states them. */
sb_status sb_cuda_compare(sb_context *ctx, const sb_compare_call *call);
sb_status sb_cuda_sum_values(sb_context *ctx, const sb_sums_call *call);

/* The launch alone, of arguments that were checked. */
sb_status sb_cuda_reduce_values(sb_context *ctx, const sb_sums_call *call);

/* ---- entropy.c ---------------------------------------------------------------------------- */

#define SB_CUDA_ENTROPY_KERNELS(X)                                                                 \
    X(entropy_f32)                                                                                 \
    X(entropy_f16)                                                                                 \
    X(entropy_bf16)                                                                                \
    X(entropy_finish)

typedef struct sb_cuda_entropy {
    CUmodule module;
    SB_CUDA_ENTROPY_KERNELS(SB_CUDA_FIELD)
} sb_cuda_entropy;

const sb_cuda_entropy *sb_cuda_entropy_of(const sb_context *ctx);
sb_status sb_cuda_entropy_load(sb_cuda_entropy *entropy, const sb_cuda_driver *driver,
                               sb_message *why);

/* Of calls that ask for entropy, as backend.h states them. */
sb_status sb_cuda_logprob_entropy(sb_context *ctx, const sb_logprob_out *out, const sb_call *call);
uint64_t sb_cuda_entropy_workspace(sb_context *ctx, const sb_logprob_out *out, const sb_call *call);

/* ---- gradient.c --------------------------------------------------------------------------- */

/* By the logits' dtype, the gradient's, and the loss, in this order. */
#define SB_CUDA_GRADIENT_LOSSES(X, kernel)                                                         \
    X(kernel##_token)                                                                              \
    X(kernel##_entropy)                                                                            \
    X(kernel##_both)
#define SB_CUDA_GRADIENT_KERNELS(X)                                                                \
    SB_CUDA_GRADIENT_LOSSES(X, gradient_f32_f32)                                                   \
    SB_CUDA_GRADIENT_LOSSES(X, gradient_f32_f16)                                                   \
    SB_CUDA_GRADIENT_LOSSES(X, gradient_f32_bf16)                                                  \
    SB_CUDA_GRADIENT_LOSSES(X, gradient_f16_f32)                                                   \
    SB_CUDA_GRADIENT_LOSSES(X, gradient_f16_f16)                                                   \
    SB_CUDA_GRADIENT_LOSSES(X, gradient_f16_bf16)                                                  \
    SB_CUDA_GRADIENT_LOSSES(X, gradient_bf16_f32)                                                  \
    SB_CUDA_GRADIENT_LOSSES(X, gradient_bf16_f16)                                                  \
    SB_CUDA_GRADIENT_LOSSES(X, gradient_bf16_bf16)

typedef struct sb_cuda_gradients {
    CUmodule module;
    SB_CUDA_GRADIENT_KERNELS(SB_CUDA_FIELD)
} sb_cuda_gradients;

const sb_cuda_gradients *sb_cuda_gradients_of(const sb_context *ctx);
sb_status sb_cuda_gradients_load(sb_cuda_gradients *gradients, const sb_cuda_driver *driver,
                                 sb_message *why);

/* As backend.h states it. */
sb_status sb_cuda_backward(sb_context *ctx, const sb_gradient *gradient, const sb_call *call);

/* ---- kl.c --------------------------------------------------------------------------------- */

/* Of p's and q's dtype. */
#define SB_CUDA_KL_KERNELS(X)                                                                      \
    X(kl_f32_f32)                                                                                  \
    X(kl_f32_f16)                                                                                  \
    X(kl_f32_bf16)                                                                                 \
    X(kl_f16_f32)                                                                                  \
    X(kl_f16_f16)                                                                                  \
    X(kl_f16_bf16)                                                                                 \
    X(kl_bf16_f32)                                                                                 \
    X(kl_bf16_f16)                                                                                 \
    X(kl_bf16_bf16)                                                                                \
    X(kl_finish)

typedef struct sb_cuda_kls {
    CUmodule module;
    SB_CUDA_KL_KERNELS(SB_CUDA_FIELD)
} sb_cuda_kls;

const sb_cuda_kls *sb_cuda_kls_of(const sb_context *ctx);
sb_status sb_cuda_kls_load(sb_cuda_kls *kls, const sb_cuda_driver *driver, sb_message *why);

/* As backend.h states them. */
sb_status sb_cuda_kl(sb_context *ctx, const sb_kl_call *call);
uint64_t sb_cuda_kl_workspace(sb_context *ctx, const sb_kl_call *call);

#endif
