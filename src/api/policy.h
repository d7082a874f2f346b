/* policy.h - what the backends share of policy losses: checks of values that only they can read. */
#ifndef SB_API_POLICY_H
#define SB_API_POLICY_H

#include "backend.h"
#include "det/group.h"

/* Checks the policy loss that call's logprobs enter, which has been checked, and fills in *policy:
 * the layout is the batch's, and now is null. out may be null. */
sb_status sb_policy_of(sb_context *ctx, sb_policy_call *policy, const sb_policy *given,
                       const sb_policy_out *out, const sb_call *call);

/* Refuses totals of a step that are below a call's own, or its records'. */
sb_status sb_check_policy_totals(const sb_policy *in, int64_t tokens, int64_t sequences,
                                 sb_message *why);

/* Refuses record i. */
sb_status sb_policy_record_fail(sb_message *why, int64_t i, sb_tally_fault fault);

/* Refuses the record of a group and a shard. */
sb_status sb_group_record_fail(sb_message *why, int64_t group, int64_t shard);

/* Checks the offsets of groups, which are in host memory. */
sb_status sb_check_group_offsets(const sb_groups *in, const void *offsets, sb_message *why);

#endif
