/* pool.h - a pool of threads that runs one job at a time. Each thread takes the next item of the
 * job as soon as it has finished its last one. */
#ifndef SB_POOL_H
#define SB_POOL_H

#include <stdint.h>

#include "samebits.h"

typedef struct sb_pool sb_pool;

/* Runs one item of a job. Items run in any order, on any thread. */
typedef void (*sb_job)(void *shared, int64_t item);

/* Starts threads - 1 threads, which inherit the floating-point mode of the calling thread; the
 * caller of sb_pool_run is the last one. If memory or threads run out, returns SB_ERR_MEMORY or
 * SB_ERR_SYSTEM and sets *pool to null. */
sb_status sb_pool_create(sb_pool **pool, int32_t threads);
void sb_pool_destroy(sb_pool *pool);
int32_t sb_pool_threads(const sb_pool *pool);

/* To be called in a forked child, which has none of the threads. From then on, the caller of
 * sb_pool_run does all the work. */
void sb_pool_inherit(sb_pool *pool);

/* Runs job(shared, 0 .. items - 1) and returns when all items are done. alone: use the calling
 * thread only, for a job too small to be worth waking the others. */
void sb_pool_run(sb_pool *pool, int alone, sb_job job, void *shared, int64_t items);

#endif
