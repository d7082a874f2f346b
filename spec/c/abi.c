/* abi.c - checks the layout of the public structs, on which bindings in other languages rely. A
 * change here requires a change of SB_ABI. */
#include "samebits.h"

#define AT(type, field, offset)                                                                    \
    _Static_assert(offsetof(type, field) == (offset), #type "." #field " has moved")

AT(sb_open_options, size, 0);
AT(sb_open_options, threads, 4);
AT(sb_open_options, isa, 8);
_Static_assert(sizeof(sb_open_options) == 16, "sb_open_options");

AT(sb_batch, size, 0);
AT(sb_batch, logits_dtype, 4);
AT(sb_batch, logits, 8);
AT(sb_batch, batch, 16);
AT(sb_batch, time, 24);
AT(sb_batch, rows, 32);
AT(sb_batch, vocab, 40);
AT(sb_batch, row_stride, 48);
AT(sb_batch, batch_stride, 56);
AT(sb_batch, cu_seqlens, 64);
AT(sb_batch, ids, 72);
AT(sb_batch, mask, 80);
AT(sb_batch, temperatures, 88);
AT(sb_batch, row_list, 96);
AT(sb_batch, row_count, 104);
AT(sb_batch, ignore_index, 112);
AT(sb_batch, cu_seqlens_dtype, 120);
AT(sb_batch, ids_dtype, 124);
AT(sb_batch, temperature, 128);
AT(sb_batch, shift, 132);
AT(sb_batch, kept, 136);
AT(sb_batch, kept_stride, 144);
AT(sb_batch, kept_ids, 152);
AT(sb_batch, kept_offsets, 160);
AT(sb_batch, kept_count, 168);
AT(sb_batch, kept_ids_dtype, 176);
AT(sb_batch, kept_offsets_dtype, 180);
AT(sb_batch, head, 184);
AT(sb_batch, hidden, 192);
AT(sb_batch, hidden_width, 200);
AT(sb_batch, hidden_row_stride, 208);
AT(sb_batch, hidden_batch_stride, 216);
AT(sb_batch, hidden_dtype, 224);
AT(sb_batch, hidden_reserved, 228);
_Static_assert(sizeof(sb_batch) == 232, "sb_batch");

AT(sb_head_weights, dtype, 4);
AT(sb_head_weights, weights, 8);
AT(sb_head_weights, ids, 16);
AT(sb_head_weights, width, 24);
AT(sb_head_weights, row_stride, 32);
AT(sb_head_weights, first, 40);
AT(sb_head_weights, bias, 48);
AT(sb_head_weights, scales, 56);
AT(sb_head_weights, bias_dtype, 64);
AT(sb_head_weights, format, 68);
AT(sb_head_weights, scale, 72);
AT(sb_head_weights, softcap, 76);
AT(sb_head_weights, keep_bad, 80);
AT(sb_head_weights, norms, 84);
_Static_assert(sizeof(sb_head_weights) == 88, "sb_head_weights");

AT(sb_head_gradient, grad_dtype, 4);
AT(sb_head_gradient, grad, 8);
AT(sb_head_gradient, grad_row_stride, 16);
AT(sb_head_gradient, grad_batch_stride, 24);
AT(sb_head_gradient, first, 32);
AT(sb_head_gradient, held, 40);
AT(sb_head_gradient, logits, 48);
AT(sb_head_gradient, weights, 56);
AT(sb_head_gradient, weights_stride, 64);
AT(sb_head_gradient, weights_dtype, 72);
AT(sb_head_gradient, reserved, 76);
AT(sb_head_gradient, by_hidden, 80);
AT(sb_head_gradient, by_weights, 88);
AT(sb_head_gradient, by_bias, 96);
_Static_assert(sizeof(sb_head_gradient) == 104, "sb_head_gradient");

AT(sb_logits_out, dtype, 4);
AT(sb_logits_out, logits, 8);
AT(sb_logits_out, row_stride, 16);
AT(sb_logits_out, batch_stride, 24);
AT(sb_logits_out, first, 32);
AT(sb_logits_out, held, 40);
_Static_assert(sizeof(sb_logits_out) == 48, "sb_logits_out");

AT(sb_logprob_out, token, 8);
AT(sb_logprob_out, lse, 16);
AT(sb_logprob_out, sequence, 24);
AT(sb_logprob_out, count, 32);
AT(sb_logprob_out, outside, 40);
AT(sb_logprob_out, entropy, 48);
AT(sb_logprob_out, saved, 56);
AT(sb_logprob_out, gradient, 64);
_Static_assert(sizeof(sb_logprob_out) == 72, "sb_logprob_out");

AT(sb_ids_out, logprob, 8);
AT(sb_ids_out, rank, 16);
AT(sb_ids_out, lse, 24);
_Static_assert(sizeof(sb_ids_out) == 32, "sb_ids_out");

AT(sb_topk_out, ids, 8);
AT(sb_topk_out, logprob, 16);
AT(sb_topk_out, lse, 24);
_Static_assert(sizeof(sb_topk_out) == 32, "sb_topk_out");

AT(sb_sampling, top_k, 4);
AT(sb_sampling, top_p, 8);
AT(sb_sampling, min_p, 12);
AT(sb_sampling, top_ks, 16);
AT(sb_sampling, top_ps, 24);
AT(sb_sampling, min_ps, 32);
AT(sb_sampling, seed, 40);
AT(sb_sampling, stream, 48);
AT(sb_sampling, position, 56);
AT(sb_sampling, seeds, 64);
AT(sb_sampling, streams, 72);
AT(sb_sampling, positions, 80);
AT(sb_sampling, u, 88);
AT(sb_sampling, bits, 96);
_Static_assert(sizeof(sb_sampling) == 104, "sb_sampling");

AT(sb_sample_out, token, 8);
AT(sb_sample_out, logprob, 16);
AT(sb_sample_out, kept_logprob, 24);
AT(sb_sample_out, count, 32);
AT(sb_sample_out, kept, 40);
_Static_assert(sizeof(sb_sample_out) == 48, "sb_sample_out");

AT(sb_draw, shard, 4);
AT(sb_draw, shards, 8);
AT(sb_draw, rounds, 12);
AT(sb_draw, first, 16);
AT(sb_draw, n, 24);
AT(sb_draw, bytes, 32);
AT(sb_draw, progress, 128);
AT(sb_draw, outputs, 136);
AT(sb_draw, reserved, 140);
_Static_assert(sizeof(sb_draw) == 144, "sb_draw");

AT(sb_saved_row, kind, 0);
AT(sb_saved_row, c, 4);
AT(sb_saved_row, e, 8);
AT(sb_saved_row, best, 12);
AT(sb_saved_row, g, 16);
AT(sb_saved_row, h2, 24);
_Static_assert(sizeof(sb_saved_row) == 32, "sb_saved_row");

AT(sb_gradient, size, 0);
AT(sb_gradient, dtype, 4);
AT(sb_gradient, grad, 8);
AT(sb_gradient, width, 16);
AT(sb_gradient, row_stride, 24);
AT(sb_gradient, batch_stride, 32);
AT(sb_gradient, saved, 40);
AT(sb_gradient, token, 48);
AT(sb_gradient, entropy, 56);
AT(sb_gradient, first, 64);
AT(sb_gradient, held, 72);
AT(sb_gradient, policy, 80);
AT(sb_gradient, policy_out, 88);
_Static_assert(sizeof(sb_gradient) == 96, "sb_gradient");

AT(sb_compare_out, ratio, 8);
AT(sb_compare_out, k1, 16);
AT(sb_compare_out, k2, 24);
AT(sb_compare_out, k3, 32);
_Static_assert(sizeof(sb_compare_out) == 40, "sb_compare_out");

AT(sb_values, cu_seqlens_dtype, 4);
AT(sb_values, values, 8);
AT(sb_values, minus, 16);
AT(sb_values, mask, 24);
AT(sb_values, batch, 32);
AT(sb_values, time, 40);
AT(sb_values, rows, 48);
AT(sb_values, cu_seqlens, 56);
_Static_assert(sizeof(sb_values) == 64, "sb_values");

AT(sb_sums_out, sum, 8);
AT(sb_sums_out, mean, 16);
AT(sb_sums_out, exp_mean, 24);
AT(sb_sums_out, count, 32);
_Static_assert(sizeof(sb_sums_out) == 40, "sb_sums_out");

AT(sb_kl_out, token, 8);
AT(sb_kl_out, sequence, 16);
_Static_assert(sizeof(sb_kl_out) == 24, "sb_kl_out");

AT(sb_policy, cu_seqlens_dtype, 4);
AT(sb_policy, now, 8);
AT(sb_policy, old, 16);
AT(sb_policy, ref, 24);
AT(sb_policy, rollout, 32);
AT(sb_policy, entropy, 40);
AT(sb_policy, advantages, 48);
AT(sb_policy, mask, 56);
AT(sb_policy, cu_seqlens, 64);
AT(sb_policy, batch, 72);
AT(sb_policy, time, 80);
AT(sb_policy, rows, 88);
AT(sb_policy, tokens, 96);
AT(sb_policy, sequences, 104);
AT(sb_policy, constant, 112);
AT(sb_policy, eps_low, 120);
AT(sb_policy, eps_high, 128);
AT(sb_policy, loss, 136);
AT(sb_policy, norm, 140);
AT(sb_policy, kl, 144);
AT(sb_policy, weight, 148);
AT(sb_policy, level, 152);
AT(sb_policy, per_token, 156);
AT(sb_policy, dual, 160);
AT(sb_policy, beta, 164);
AT(sb_policy, eta, 168);
AT(sb_policy, w_low, 172);
AT(sb_policy, w_high, 176);
AT(sb_policy, upstream, 180);
_Static_assert(sizeof(sb_policy) == 184, "sb_policy");

AT(sb_policy_out, loss, 8);
AT(sb_policy_out, sequence, 16);
AT(sb_policy_out, token, 24);
AT(sb_policy_out, entropy, 32);
AT(sb_policy_out, record, 40);
AT(sb_policy_out, metrics, 48);
_Static_assert(sizeof(sb_policy_out) == 56, "sb_policy_out");

AT(sb_policy_record, adds_sequences, 0);
AT(sb_policy_record, parts, 4);
AT(sb_policy_record, counts, 8);
AT(sb_policy_record, most, 72);
AT(sb_policy_record, least, 76);
AT(sb_policy_record, sums, 80);
_Static_assert(sizeof(sb_policy_record) == 784, "sb_policy_record");

AT(sb_policy_metrics, loss, 0);
AT(sb_policy_metrics, pg, 4);
AT(sb_policy_metrics, kl, 8);
AT(sb_policy_metrics, entropy, 12);
AT(sb_policy_metrics, ratio, 16);
AT(sb_policy_metrics, k1, 20);
AT(sb_policy_metrics, k3, 24);
AT(sb_policy_metrics, weight, 28);
AT(sb_policy_metrics, high, 32);
AT(sb_policy_metrics, low, 36);
AT(sb_policy_metrics, dual, 40);
AT(sb_policy_metrics, cut, 44);
AT(sb_policy_metrics, drift, 48);
AT(sb_policy_metrics, outside, 52);
AT(sb_policy_metrics, ratio_min, 56);
AT(sb_policy_metrics, ratio_max, 60);
_Static_assert(sizeof(sb_policy_metrics) == 64, "sb_policy_metrics");

AT(sb_groups, offsets_dtype, 4);
AT(sb_groups, rewards, 8);
AT(sb_groups, offsets, 16);
AT(sb_groups, groups, 24);
AT(sb_groups, each, 32);
AT(sb_groups, rows, 40);
AT(sb_groups, records, 48);
AT(sb_groups, shards, 56);
AT(sb_groups, scale, 64);
AT(sb_groups, population, 68);
AT(sb_groups, eps, 72);
AT(sb_groups, reserved, 76);
_Static_assert(sizeof(sb_groups) == 80, "sb_groups");

AT(sb_groups_out, advantages, 8);
AT(sb_groups_out, records, 16);
AT(sb_groups_out, mean, 24);
AT(sb_groups_out, std, 32);
_Static_assert(sizeof(sb_groups_out) == 40, "sb_groups_out");

AT(sb_group_record, count, 0);
AT(sb_group_record, digits, 8);
AT(sb_group_record, seen, 88);
AT(sb_group_record, reserved, 92);
AT(sb_group_record, squares, 96);
_Static_assert(sizeof(sb_group_record) == 240, "sb_group_record");

AT(sb_launch, split, 4);
AT(sb_launch, threads, 8);
AT(sb_launch, check, 12);
AT(sb_launch, stream, 16);
AT(sb_launch, workspace, 24);
AT(sb_launch, workspace_size, 32);
AT(sb_launch, needed, 40);
AT(sb_launch, cluster, 48);
AT(sb_launch, timeout, 52);
AT(sb_launch, table, 56);
AT(sb_launch, one_read, 60);
_Static_assert(sizeof(sb_launch) == 64, "sb_launch");

AT(sb_state_record, J, 0);
AT(sb_state_record, c, 4);
AT(sb_state_record, l, 8);
_Static_assert(sizeof(sb_state_record) == 32, "sb_state_record");

AT(sb_records, kind, 4);
AT(sb_records, states, 8);
AT(sb_records, targets, 16);
_Static_assert(sizeof(sb_records) == 24, "sb_records");

AT(sb_moment_record, sum, 0);
AT(sb_moment_record, g, 32);
AT(sb_moment_record, best, 56);
AT(sb_moment_record, reserved, 60);
_Static_assert(sizeof(sb_moment_record) == 64, "sb_moment_record");

_Static_assert(sizeof(sb_comm_id) == 128, "sb_comm_id");

AT(sb_target_record, x, 0);
AT(sb_target_record, owners, 4);
_Static_assert(sizeof(sb_target_record) == 8, "sb_target_record");

_Static_assert(SB_ABI == 1, "SB_ABI has moved: check every offset above");
