/* each_call.h - calls every public function that works on a context, with zeros for all other
 * arguments. It serves checks of properties that hold before any argument is examined.
 * spec/api/entry_spec.lua compares the list with the headers. */
#ifndef SB_SPEC_EACH_CALL_H
#define SB_SPEC_EACH_CALL_H

#include "samebits.h"
#include "samebits_conventional.h"

#define EACH_CALL(X)                                                                               \
    X(sb_logprob, (ctx, 0, 0, 0))                                                                  \
    X(sb_logprob_ids, (ctx, 0, 0, 0, 0))                                                           \
    X(sb_topk, (ctx, 0, 0, 0, 0))                                                                  \
    X(sb_kept_words, (ctx, 0, 0, 0))                                                               \
    X(sb_kept_lists, (ctx, 0, 0, 0, 0, 0, 0))                                                      \
    X(sb_sample, (ctx, 0, 0, 0, 0))                                                                \
    X(sb_draw_plan, (ctx, 0, 0, 0, 0))                                                             \
    X(sb_draw_round, (ctx, 0, 0, 0, 0, 0, 0, 0))                                                   \
    X(sb_draw_finish, (ctx, 0, 0, 0, 0, 0, 0))                                                     \
    X(sb_logprob_backward, (ctx, 0, 0, 0))                                                         \
    X(sb_partial, (ctx, 0, 0, 0, 0, 0))                                                            \
    X(sb_merge, (ctx, 0, 0, 0, 0, 0))                                                              \
    X(sb_finish, (ctx, 0, 0, 0, 0))                                                                \
    X(sb_comm_new_id, (ctx, 0))                                                                    \
    X(sb_comm_create, (ctx, 0, 0, 0, 0))                                                           \
    X(sb_comm_destroy, (ctx, 0))                                                                   \
    X(sb_comm_abort, (ctx, 0))                                                                     \
    X(sb_exchange, (ctx, 0, 0, 0, 0))                                                              \
    X(sb_all_gather, (ctx, 0, 0, 0, 0, 0))                                                         \
    X(sb_all_reduce, (ctx, 0, 0, 0, 0, 0, 0))                                                      \
    X(sb_compare, (ctx, 0, 0, 0, 0, 0))                                                            \
    X(sb_sums, (ctx, 0, 0, 0))                                                                     \
    X(sb_kl, (ctx, 0, 0, 0, 0))                                                                    \
    X(sb_head_bytes, (ctx, 0, 0))                                                                  \
    X(sb_head_create, (ctx, 0, 0, 0, 0, 0))                                                        \
    X(sb_head_update, (ctx, 0, 0, 0))                                                              \
    X(sb_head_open, (ctx, 0, 0, 0))                                                                \
    X(sb_head_describe, (ctx, 0, 0))                                                               \
    X(sb_head_free, (ctx, 0))                                                                      \
    X(sb_logits, (ctx, 0, 0, 0))                                                                   \
    X(sb_head_error, (ctx, 0, 0, 0, 0))                                                            \
    X(sb_head_backward, (ctx, 0, 0, 0))                                                            \
    X(sb_scales, (ctx, 0, 0, 0, 0, 0, 0, 0))                                                       \
    X(sb_products, (ctx, 0, 0, 0, 0, 0, 0))                                                        \
    X(sb_combine, (ctx, 0, 0, 0, 0, 0, 0, 0, 0))                                                   \
    X(sb_policy_loss, (ctx, 0, 0, 0))                                                              \
    X(sb_policy_merge, (ctx, 0, 0, 0, 0, 0))                                                       \
    X(sb_group_advantages, (ctx, 0, 0, 0))                                                         \
    X(sb_check, (ctx, 0))                                                                          \
    X(sb_memory_alloc, (ctx, 0, 0, SB_DEVICE))                                                     \
    X(sb_memory_free, (ctx, 0, SB_DEVICE))                                                         \
    X(sb_memory_copy, (ctx, 0, 0, 0, 0))                                                           \
    X(sb_stream_create, (ctx, 0))                                                                  \
    X(sb_stream_destroy, (ctx, 0))                                                                 \
    X(sb_stream_wait, (ctx, 0))                                                                    \
    X(sb_conventional_logprob, (ctx, 0, 0, 0))

#define EACH_CALL_DEFINE(name, arguments)                                                          \
    static sb_status name##_with_zeros(sb_context *ctx) { return name arguments; }
EACH_CALL(EACH_CALL_DEFINE)

#define EACH_CALL_ENTRY(name, arguments) { #name, name##_with_zeros },
static const struct {
    const char *name;
    sb_status (*call)(sb_context *ctx);
} each_call[] = { EACH_CALL(EACH_CALL_ENTRY) };

enum { EACH_CALLS = sizeof each_call / sizeof *each_call };

#endif
