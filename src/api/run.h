/* run.h - from a checked call to the backend's operation. */
#ifndef SB_API_RUN_H
#define SB_API_RUN_H

#include "backend.h"

/* SB_ERR_BACKEND, in words, where ctx's backend lacks the operation. */
sb_status sb_check_op(sb_context *ctx, sb_op op);

/* Runs an operation on its struct, whose launch options are launch; or, where launch->needed is not
 * null, writes the bytes of workspace that it needs there, and runs nothing. Inside sb_enter and
 * sb_leave only. */
sb_status sb_run(sb_context *ctx, sb_op op, const void *call, const sb_launch *launch);

#endif
