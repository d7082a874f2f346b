/* head.h - heads on a GPU: how their memory is laid out, and calls about hidden states. */
#ifndef SB_CUDA_HEAD_H
#define SB_CUDA_HEAD_H

#include "cuda/cuda.h"

/* A head's memory, each part padded to 256 bytes:
 *
 *     form         sb_head_form, and from SB_HEAD_NORMS on the norms, if there are any
 *     exponents    a byte for each id: see SB_CUDA_HEAD_EXPONENT
 *     bias         fp32, if there is a bias
 *     parts        sb_linear_norms of 8 rows each, if there are norms
 *     planes       digits, in the order of kernels/head_digits.cuh
 *
 * each for all ids of whole tiles. */
typedef struct sb_cuda_head_parts {
    int64_t tiles;
    int32_t blocks, planes;
    uint64_t exponents, bias, parts, digits, bytes; /* offsets into the memory; bias 0, parts 0:
                                                       there are none */
} sb_cuda_head_parts;
sb_cuda_head_parts sb_cuda_head_parts_of(const sb_head_form *form);

extern const sb_heads sb_cuda_heads;

/* Called once the kernels are loaded. */
sb_status sb_cuda_head_prepare(const sb_cuda *c, sb_message *why);

/* head_error.c: launches the kernels that write the norms of weights, behind those that write the
 * head's exponents. */
sb_status sb_cuda_launch_norms(sb_context *ctx, const sb_head_call *call);

/* What a call about hidden states wants of its rows: results, also of several ids, the records of a
 * shard, or logits or exact products. */
typedef struct sb_cuda_hidden {
    const sb_call *call;
    const sb_logprob_out *out;         /* or null */
    const sb_records *to;              /* or null */
    const sb_ids_call *ids;            /* of several ids per row, or null; out has its lse */
    uint64_t logits;                   /* where logits go, or 0 */
    uint64_t sums;                     /* where exact products go, or 0 */
    uint64_t gathered;                 /* where the logits of lists go, without products; or 0 */
    uint64_t scales;                   /* the scales of whole rows, or 0 */
    const struct sb_cuda_lists *lists; /* as words, or null */
    uint64_t mask;                     /* instead of the call's mask and row list, or 0 */
    int32_t logits_dtype;
    int64_t row_stride, batch_stride; /* of logits and sums */
    int64_t before, work; /* only so many rows from `before` on, whose logits go to rows from 0 on;
                             work 0: all rows */
} sb_cuda_hidden;

/* The scratch memory of sb_cuda_run_hidden. */
uint64_t sb_cuda_hidden_bytes(const sb_cuda *c, const sb_cuda_hidden *h);

/* Launches the kernels of a call. Sequences are not summed. */
sb_status sb_cuda_run_hidden(sb_context *ctx, const sb_cuda_hidden *h, CUdeviceptr scratch);

/* gather.c: several ids per row from the logits of these ids alone, beside the products of all, if
 * that takes less time (sb_cuda_gathers_ids). The results have no ranks. */
int sb_cuda_gathers_ids(const sb_ids_call *call);
sb_status sb_cuda_gather_ids(sb_context *ctx, const sb_ids_call *call);
sb_status sb_cuda_gather_ids_workspace(sb_context *ctx, const sb_ids_call *call, uint64_t *bytes);

/* The same of logprobs of rows that keep lists, which are from the logits of the lists alone. */
int sb_cuda_gathers_lists(const sb_logprob_call *call);
sb_status sb_cuda_gather_lists(sb_context *ctx, const sb_logprob_call *call);
sb_status sb_cuda_gather_lists_workspace(sb_context *ctx, const sb_logprob_call *call,
                                         uint64_t *bytes);

/* The operations on batches with heads; those of cuda.h pass such batches on. */
sb_status sb_cuda_hidden_logprob(sb_context *ctx, const sb_logprob_call *call);
sb_status sb_cuda_hidden_partial(sb_context *ctx, const sb_partial_call *call);
sb_status sb_cuda_hidden_ids(sb_context *ctx, const sb_ids_call *call);
sb_status sb_cuda_hidden_topk(sb_context *ctx, const sb_topk_call *call);
sb_status sb_cuda_hidden_sample(sb_context *ctx, const sb_sample_call *call);
sb_status sb_cuda_hidden_kl(sb_context *ctx, const sb_kl_call *call);
sb_status sb_cuda_hidden_both(sb_context *ctx, const sb_logprob_call *call); /* and its gradient */
sb_status sb_cuda_hidden_backward(sb_context *ctx, const sb_backward_call *call);
sb_status sb_cuda_hidden_logprob_workspace(sb_context *ctx, const sb_logprob_call *call,
                                           uint64_t *bytes);
sb_status sb_cuda_hidden_partial_workspace(sb_context *ctx, const sb_partial_call *call,
                                           uint64_t *bytes);
sb_status sb_cuda_hidden_ids_workspace(sb_context *ctx, const sb_ids_call *call, uint64_t *bytes);
sb_status sb_cuda_hidden_topk_workspace(sb_context *ctx, const sb_topk_call *call, uint64_t *bytes);
sb_status sb_cuda_hidden_sample_workspace(sb_context *ctx, const sb_sample_call *call,
                                          uint64_t *bytes);
sb_status sb_cuda_hidden_kl_workspace(sb_context *ctx, const sb_kl_call *call, uint64_t *bytes);
sb_status sb_cuda_hidden_both_workspace(sb_context *ctx, const sb_logprob_call *call,
                                        uint64_t *bytes);
sb_status sb_cuda_hidden_backward_workspace(sb_context *ctx, const sb_backward_call *call,
                                            uint64_t *bytes);

#endif
