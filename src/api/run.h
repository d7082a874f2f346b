/* run.h - runs the backend's operation on a checked call. */
#ifndef SB_API_RUN_H
#define SB_API_RUN_H

#include "backend.h"

/* Fails with SB_ERR_BACKEND and a message if ctx's backend lacks the operation. */
sb_status sb_check_op(sb_context *ctx, sb_op op);

/* Runs an operation on its struct, whose launch options are launch. If launch->needed is not null,
 * runs nothing, and writes there how many bytes of workspace the operation needs. Call this only
 * between sb_enter and sb_leave. */
sb_status sb_run(sb_context *ctx, sb_op op, const void *call, const sb_launch *launch);

#endif
