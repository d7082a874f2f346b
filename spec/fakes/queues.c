/* queues.c - see queues.h. One list serves all streams; the work of one stream is done in order. */
#include "queues.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NO_MEMORY = 2 };

typedef struct item {
    struct item *next;
    CUstream stream;
    graph_work work;
    size_t bytes;
    _Alignas(16) char arguments[];
} item;

static item *first, **last = &first;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;

int queue_is_late(void) { return getenv("LANES_LATE") != NULL; }

CUresult queue_do(CUstream stream, graph_work work, const void *arguments, size_t bytes)
{
    item *it;
    if (!queue_is_late()) return work(arguments);
    it = malloc(sizeof *it + bytes);
    if (!it) return NO_MEMORY;
    it->next = NULL, it->stream = stream, it->work = work, it->bytes = bytes;
    memcpy(it->arguments, arguments, bytes);
    pthread_mutex_lock(&mutex);
    *last = it;
    last = &it->next;
    pthread_mutex_unlock(&mutex);
    return CUDA_SUCCESS;
}

/* The stream's first item, taken out of the list. */
static item *take(CUstream stream)
{
    item **at, *it;
    pthread_mutex_lock(&mutex);
    for (at = &first; *at && (*at)->stream != stream;) at = &(*at)->next;
    it = *at;
    if (it) {
        *at = it->next;
        if (!*at) last = at;
    }
    pthread_mutex_unlock(&mutex);
    return it;
}

CUresult queue_finish(CUstream stream)
{
    CUresult result = CUDA_SUCCESS;
    for (item *it; (it = take(stream)) != NULL; free(it)) {
        CUresult its = it->work(it->arguments);
        if (result == CUDA_SUCCESS) result = its;
    }
    return result;
}

/* Addresses stand in arguments as 8-byte words. */
static int refers(const item *it, uintptr_t start, size_t bytes)
{
    for (size_t i = 0; i + 8 <= it->bytes; i += 8) {
        uint64_t word;
        memcpy(&word, it->arguments + i, 8);
        if (word - start < bytes) return 1;
    }
    return 0;
}

void queue_forbids_freeing(uintptr_t start, size_t bytes)
{
    pthread_mutex_lock(&mutex);
    for (const item *it = first; it; it = it->next)
        if (refers(it, start, bytes)) {
            fprintf(stderr, "fake driver: %zu bytes are freed that work in a stream uses\n", bytes);
            abort();
        }
    pthread_mutex_unlock(&mutex);
}
