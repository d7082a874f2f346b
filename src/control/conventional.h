/* conventional.h - what the backends and the control group (samebits_conventional.h) give each
 * other. */
#ifndef SB_CONVENTIONAL_H
#define SB_CONVENTIONAL_H

#include "backend.h"
#include "cpu/pool.h"

/* conventional.c: a checked call on the cpu, by a pool's threads. */
sb_status sb_conventional_cpu(sb_pool *pool, sb_message *why, const sb_logprob_out *out,
                              const sb_call *call);

/* cuda_shape.c: how a call is launched, blocks of threads, split blocks a row. */
typedef struct sb_conventional_shape {
    int32_t split, threads;
} sb_conventional_shape;
sb_conventional_shape sb_conventional_shape_of(const sb_call *call, int64_t rows,
                                               int32_t multiprocessors);

#endif
