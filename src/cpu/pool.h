/* pool.h - a few threads that run one job at a time, its items handed out as they come free. */
#ifndef SB_POOL_H
#define SB_POOL_H

#include <stdint.h>

#include "samebits.h"

typedef struct sb_pool sb_pool;

/* One item of a job; items run in any order, on any thread. */
typedef void (*sb_job)(void *shared, int64_t item);

/* threads - 1 threads are started, in the floating-point mode of the calling thread: the caller of
 * sb_pool_run is the last one. SB_ERR_MEMORY or SB_ERR_SYSTEM, and null, where memory or threads
 * ran out. */
sb_status sb_pool_create(sb_pool **pool, int32_t threads);
void sb_pool_destroy(sb_pool *pool);
int32_t sb_pool_threads(const sb_pool *pool);

/* In a forked child, which has none of the threads: from now on the pool is its caller alone. */
void sb_pool_inherit(sb_pool *pool);

/* Runs job(shared, 0 .. items - 1) and returns when all are done; alone: on this thread only, for
 * jobs that are not worth waking the others. */
void sb_pool_run(sb_pool *pool, int alone, sb_job job, void *shared, int64_t items);

#endif
