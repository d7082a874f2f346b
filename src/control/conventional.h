/* conventional.h - how the CPU backend runs the control group (samebits_conventional.h). */
#ifndef SB_CONVENTIONAL_H
#define SB_CONVENTIONAL_H

#include "backend.h"
#include "cpu/pool.h"

/* A checked call, by a pool's threads. */
sb_status sb_conventional_cpu(sb_pool *pool, sb_message *why, const sb_logprob_call *logprob);

#endif
