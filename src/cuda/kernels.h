/* kernels.h - the kernels by name: one list for each file of kernels/, which is one module on the
 * GPU. The control group's are in control/cuda.h. */
#ifndef SB_CUDA_KERNELS_H
#define SB_CUDA_KERNELS_H

#include "cuda/driver.h"

#define SB_CUDA_LOGPROB_KERNELS(X)                                                                 \
    X(logprob_f32)                                                                                 \
    X(logprob_f16)                                                                                 \
    X(logprob_bf16)                                                                                \
    X(logprob_f32_latency)                                                                         \
    X(logprob_f16_latency)                                                                         \
    X(logprob_bf16_latency)                                                                        \
    X(logprob_f32_cluster)                                                                         \
    X(logprob_f16_cluster)                                                                         \
    X(logprob_bf16_cluster)                                                                        \
    X(logprob_bf16_table_deep)                                                                     \
    X(logprob_f16_table)                                                                           \
    X(logprob_bf16_table)                                                                          \
    X(logprob_f16_unaligned)                                                                       \
    X(logprob_bf16_unaligned)                                                                      \
    X(logprob_f32_kept)                                                                            \
    X(logprob_f16_kept)                                                                            \
    X(logprob_bf16_kept)                                                                           \
    X(logprob_finish)                                                                              \
    X(entropy_f32)                                                                                 \
    X(entropy_f16)                                                                                 \
    X(entropy_bf16)                                                                                \
    X(entropy_bf16_table)                                                                          \
    X(entropy_f32_kept)                                                                            \
    X(entropy_f16_kept)                                                                            \
    X(entropy_bf16_kept)                                                                           \
    X(entropy_finish)                                                                              \
    X(sequence_sums)

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
    X(topk_finish)                                                                                 \
    X(topk_pick_f32)                                                                               \
    X(topk_pick_f16)                                                                               \
    X(topk_pick_bf16)

#define SB_CUDA_SAMPLE_KERNELS(X)                                                                  \
    X(sample_sum_f32)                                                                              \
    X(sample_sum_f16)                                                                              \
    X(sample_sum_bf16)                                                                             \
    X(sample_sum_f16_table)                                                                        \
    X(sample_sum_bf16_table)                                                                       \
    X(sample_draw_f32)                                                                             \
    X(sample_draw_f16)                                                                             \
    X(sample_draw_bf16)                                                                            \
    X(sample_filter_f32)                                                                           \
    X(sample_filter_f16)                                                                           \
    X(sample_filter_bf16)                                                                          \
    X(sample_pick_f32)                                                                             \
    X(sample_pick_f16)                                                                             \
    X(sample_pick_bf16)                                                                            \
    X(sample_list)

#define SB_CUDA_DRAW_KERNELS(X)                                                                    \
    X(draw_f32)                                                                                    \
    X(draw_f16)                                                                                    \
    X(draw_bf16)

/* In this order: by the dtype of the logits, the dtype of the gradient, and the loss. */
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

#define SB_CUDA_ONE_READ_KERNELS(X)                                                                \
    X(one_read_bf16_bf16_token)                                                                    \
    X(one_read_bf16_bf16_policy)                                                                   \
    X(one_read_bf16_bf16_clip)                                                                     \
    X(one_read_bf16_bf16_clip_k3)                                                                  \
    X(one_read_refuse)

/* By the dtypes of p and q. */
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
    X(kl_bf16_bf16_table)                                                                          \
    X(kl_finish)

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

#define SB_CUDA_LISTS_KERNELS(X)                                                                   \
    X(logprob_f32_lists)                                                                           \
    X(logprob_f16_lists)                                                                           \
    X(logprob_bf16_lists)                                                                          \
    X(entropy_f32_lists)                                                                           \
    X(entropy_f16_lists)                                                                           \
    X(entropy_bf16_lists)                                                                          \
    X(logprob_gathered_lists)                                                                      \
    X(entropy_gathered_lists)                                                                      \
    X(lists_words)

#define SB_CUDA_STATS_KERNELS(X)                                                                   \
    X(compare_tokens)                                                                              \
    X(reduce_sequences)

#define SB_CUDA_HEAD_KERNELS(X)                                                                    \
    X(head_weights_a)                                                                              \
    X(head_weights_b)                                                                              \
    X(head_hidden)                                                                                 \
    X(head_count)                                                                                  \
    X(head_list)                                                                                   \
    X(head_few_a)                                                                                  \
    X(head_few_b)                                                                                  \
    X(head_few_a_moments)                                                                          \
    X(head_few_b_moments)                                                                          \
    X(head_tiles_a)                                                                                \
    X(head_tiles_b)                                                                                \
    X(head_tiles_a_moments)                                                                        \
    X(head_tiles_b_moments)                                                                        \
    X(head_bf16_a)                                                                                 \
    X(head_bf16_b)                                                                                 \
    X(head_bf16_a_moments)                                                                         \
    X(head_bf16_b_moments)                                                                         \
    X(head_finish)                                                                                 \
    X(head_finish_moments)                                                                         \
    X(head_blank)                                                                                  \
    X(head_mask)                                                                                   \
    X(head_scales)                                                                                 \
    X(head_combine)

#define SB_CUDA_HEAD_HOPPER_KERNELS(X)                                                             \
    X(head_many_a)                                                                                 \
    X(head_many_b)                                                                                 \
    X(head_many_a_moments)                                                                         \
    X(head_many_b_moments)                                                                         \
    X(head_turns_a)                                                                                \
    X(head_turns_b)                                                                                \
    X(head_turns_a_moments)                                                                        \
    X(head_turns_b_moments)                                                                        \
    X(head_some_a)                                                                                 \
    X(head_some_b)                                                                                 \
    X(head_some_a_moments)                                                                         \
    X(head_some_b_moments)

#define SB_CUDA_HEAD_GATHER_KERNELS(X)                                                             \
    X(head_ids_a)                                                                                  \
    X(head_ids_b)                                                                                  \
    X(head_lists_a)                                                                                \
    X(head_lists_b)

#define SB_CUDA_HEAD_ERROR_KERNELS(X)                                                              \
    X(head_norms)                                                                                  \
    X(head_norms_all)                                                                              \
    X(head_error)

#define SB_CUDA_POLICY_KERNELS(X)                                                                  \
    X(policy_offsets)                                                                              \
    X(policy_count)                                                                                \
    X(policy_count_moved)                                                                          \
    X(policy_count_weight)                                                                         \
    X(policy_count_joint)                                                                          \
    X(policy_count_sequences)                                                                      \
    X(policy_lengths)                                                                              \
    X(policy_totals)                                                                               \
    X(policy_tokens_clip)                                                                          \
    X(policy_tokens_gspo)                                                                          \
    X(policy_tokens_clip_k3)                                                                       \
    X(policy_tokens_clip_k3_metrics)                                                               \
    X(policy_tokens_loss)                                                                          \
    X(policy_tokens_metrics)                                                                       \
    X(policy_sequences)                                                                            \
    X(policy_finish)                                                                               \
    X(policy_merge)                                                                                \
    X(group_offsets)                                                                               \
    X(group_records)                                                                               \
    X(group_total)                                                                                 \
    X(group_advantages)

/* The name of each file, and its list. */
#define SB_CUDA_MODULES(X)                                                                         \
    X(logprob, SB_CUDA_LOGPROB_KERNELS)                                                            \
    X(order, SB_CUDA_ORDER_KERNELS)                                                                \
    X(sample, SB_CUDA_SAMPLE_KERNELS)                                                              \
    X(draw, SB_CUDA_DRAW_KERNELS)                                                                  \
    X(gradient, SB_CUDA_GRADIENT_KERNELS)                                                          \
    X(one_read, SB_CUDA_ONE_READ_KERNELS)                                                          \
    X(kl, SB_CUDA_KL_KERNELS)                                                                      \
    X(shards, SB_CUDA_SHARD_KERNELS)                                                               \
    X(lists, SB_CUDA_LISTS_KERNELS)                                                                \
    X(stats, SB_CUDA_STATS_KERNELS)                                                                \
    X(head, SB_CUDA_HEAD_KERNELS)                                                                  \
    X(head_hopper, SB_CUDA_HEAD_HOPPER_KERNELS)                                                    \
    X(head_gather, SB_CUDA_HEAD_GATHER_KERNELS)                                                    \
    X(head_error, SB_CUDA_HEAD_ERROR_KERNELS)                                                      \
    X(policy, SB_CUDA_POLICY_KERNELS)

#define SB_CUDA_FUNCTION(name) CUfunction name;

/* sb_cuda_logprob_kernels and so on. */
#define SB_CUDA_KERNELS(file, LIST)                                                                \
    typedef struct sb_cuda_##file##_kernels {                                                      \
        CUmodule module; /* null: not loaded */                                                    \
        LIST(SB_CUDA_FUNCTION)                                                                     \
    } sb_cuda_##file##_kernels;
SB_CUDA_MODULES(SB_CUDA_KERNELS)

/* The body of a function that loads a file's kernels into *kernels and returns an sb_status. On
 * failure, everything loaded so far stays in *kernels, and the call may be repeated. FuncLoad loads
 * each function now, because the driver's lazy loading is not possible during a graph capture. */
#define SB_CUDA_LOAD_FUNCTION(name)                                                                \
    DRIVER(why, driver, ModuleGetFunction, &kernels->name, kernels->module, #name);                \
    DRIVER(why, driver, FuncLoad, kernels->name);
#define SB_CUDA_LOAD(image, LIST)                                                                  \
    if (!kernels->module) DRIVER(why, driver, ModuleLoadData, &kernels->module, image);            \
    LIST(SB_CUDA_LOAD_FUNCTION)                                                                    \
    return SB_OK;

#endif
