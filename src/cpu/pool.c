/* pool.c - the thread pool of pool.h: one round per job, in which every thread takes items from a
 * shared counter until none is left. */
#define _POSIX_C_SOURCE 200809L
#include "cpu/pool.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>

struct sb_pool {
    pthread_mutex_t lock;
    pthread_cond_t work; /* signals a new round, or quit */
    pthread_cond_t done; /* signals that busy has reached 0 */
    uint64_t round;      /* number of jobs so far that woke the workers */
    int32_t busy;        /* workers that have not finished this round */
    int quit;
    sb_job job;
    void *shared;
    int64_t items;
    _Atomic int64_t next;
    int32_t workers; /* threads that were started */
    int inherited;   /* the threads and the state of the locks belong to a parent process */
    pthread_t *threads;
};

static void take_items(sb_pool *pool)
{
    for (;;) {
        int64_t item = atomic_fetch_add_explicit(&pool->next, 1, memory_order_relaxed);
        if (item >= pool->items) return;
        pool->job(pool->shared, item);
    }
}

static void *worker(void *arg)
{
    sb_pool *pool = arg;
    uint64_t seen = 0;
    pthread_mutex_lock(&pool->lock);
    for (;;) {
        while (!pool->quit && pool->round == seen) pthread_cond_wait(&pool->work, &pool->lock);
        if (pool->quit) break;
        seen = pool->round;
        pthread_mutex_unlock(&pool->lock);
        take_items(pool);
        pthread_mutex_lock(&pool->lock);
        if (--pool->busy == 0) pthread_cond_signal(&pool->done);
    }
    pthread_mutex_unlock(&pool->lock);
    return NULL;
}

/* Starts a worker with all signals blocked: they are for the host program's own threads. */
static int start_worker(sb_pool *pool)
{
    sigset_t all, before;
    int failed;
    sigfillset(&all);
    if (pthread_sigmask(SIG_SETMASK, &all, &before) != 0) return 0;
    failed = pthread_create(&pool->threads[pool->workers], NULL, worker, pool);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (failed) return 0;
    pool->workers++;
    return 1;
}

/* The system may refuse to create a lock; returns 0 then, and leaves nothing behind. */
static int init_locks(sb_pool *pool)
{
    if (pthread_mutex_init(&pool->lock, NULL) != 0) return 0;
    if (pthread_cond_init(&pool->work, NULL) == 0) {
        if (pthread_cond_init(&pool->done, NULL) == 0) return 1;
        pthread_cond_destroy(&pool->work);
    }
    pthread_mutex_destroy(&pool->lock);
    return 0;
}

static void free_pool(sb_pool *pool)
{
    free(pool->threads);
    free(pool);
}

sb_status sb_pool_create(sb_pool **made, int32_t threads)
{
    sb_pool *pool = calloc(1, sizeof *pool);
    *made = NULL;
    if (!pool) return SB_ERR_MEMORY;
    pool->threads = calloc((size_t)threads, sizeof *pool->threads);
    if (!pool->threads || !init_locks(pool)) {
        sb_status status = pool->threads ? SB_ERR_SYSTEM : SB_ERR_MEMORY;
        free_pool(pool);
        return status;
    }
    while (pool->workers < threads - 1) {
        if (!start_worker(pool)) {
            sb_pool_destroy(pool);
            return SB_ERR_SYSTEM;
        }
    }
    *made = pool;
    return SB_OK;
}

void sb_pool_destroy(sb_pool *pool)
{
    if (!pool) return;
    if (pool->inherited) {
        free_pool(pool);
        return;
    }
    pthread_mutex_lock(&pool->lock);
    pool->quit = 1;
    pthread_cond_broadcast(&pool->work);
    pthread_mutex_unlock(&pool->lock);
    for (int32_t i = 0; i < pool->workers; i++) pthread_join(pool->threads[i], NULL);
    pthread_cond_destroy(&pool->done);
    pthread_cond_destroy(&pool->work);
    pthread_mutex_destroy(&pool->lock);
    free_pool(pool);
}

int32_t sb_pool_threads(const sb_pool *pool) { return pool->workers + 1; }

/* The child must not touch the locks: one that a thread of the parent held at fork() stays held. */
void sb_pool_inherit(sb_pool *pool)
{
    pool->inherited = 1;
    pool->workers = 0;
}

void sb_pool_run(sb_pool *pool, int alone, sb_job job, void *shared, int64_t items)
{
    pool->job = job;
    pool->shared = shared;
    pool->items = items;
    atomic_store_explicit(&pool->next, 0, memory_order_relaxed);
    if (alone || pool->workers == 0 || items <= 1) {
        take_items(pool);
        return;
    }
    pthread_mutex_lock(&pool->lock);
    pool->busy = pool->workers;
    pool->round++;
    pthread_cond_broadcast(&pool->work);
    pthread_mutex_unlock(&pool->lock);
    take_items(pool);
    pthread_mutex_lock(&pool->lock);
    while (pool->busy > 0) pthread_cond_wait(&pool->done, &pool->lock);
    pthread_mutex_unlock(&pool->lock);
}
