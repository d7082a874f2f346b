/* nccl.c - a stand-in for NCCL whose ranks are processes of one machine, on one GPU or none: they
 * exchange through a file that all of them map. NCCL itself refuses two ranks on one device.
 * The program that is linked with it decides which calls fail, and when (nccl.h).
 *
 * A collective is done when its group ends, by copies to and from the host, a slot at a time. It
 * reports an error that NCCL would not notice: ranks that bring different numbers of bytes. */
#define _GNU_SOURCE
#include "nccl.h"

#include <fcntl.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum { SUCCESS = 0, SYSTEM_ERROR = 2, INTERNAL_ERROR = 3, INVALID_ARGUMENT = 4, INVALID_USAGE = 5 };
enum { REMOTE_ERROR = 6, IN_PROGRESS = 7 };
enum { MAX_RANKS = 16, SLOT = 1 << 18, MAX_GROUP = 8, WAITS = 600000 }; /* of 100 us: a minute */

typedef struct shared {
    atomic_int arrived, generation;
    size_t bytes[MAX_RANKS];
    char slots[MAX_RANKS][SLOT];
} shared;

typedef struct comm {
    shared *shared;
    int ranks, rank, device, asked, stalled;
} comm;

enum { UINT8 = 1, INT32 = 2, INT64 = 4 }; /* types, as NCCL's */
enum { GATHER = -1, SUM = 0, MAX = 2 };   /* operations, likewise, but the first */

typedef struct collective {
    const void *from;
    void *to;
    size_t bytes;
    int type, operation;
    comm *comm;
    void *stream;
} collective;

static collective group[MAX_GROUP];
static int depth, grouped, comms;
static char last[160];

static int fail(int result, const char *text)
{
    snprintf(last, sizeof last, "%s", text);
    return result;
}

int nccl_holds(void) { return comms + depth; }

/* Each function begins with this. */
#define REFUSABLE                                                                                  \
    if (plays(__func__)) return fail(INTERNAL_ERROR, "the stand-in refuses")

static void find(const char *symbol, void *field)
{
    void *address = driver_function(symbol);
    memcpy(field, &address, sizeof address);
}

/* Everything before it in the stream is done, and so is the copy. */
static int copy(void *to, const void *from, size_t bytes, void *stream)
{
    int (*memcpy_async)(uint64_t, uint64_t, size_t, void *);
    int (*synchronize)(void *);
    find("cuMemcpyAsync", &memcpy_async);
    find("cuStreamSynchronize", &synchronize);
    return !memcpy_async || !synchronize ||
           memcpy_async((uint64_t)(uintptr_t)to, (uint64_t)(uintptr_t)from, bytes, stream) ||
           synchronize(stream);
}

/* Waits for all ranks. */
static int meet(const comm *c)
{
    shared *s = c->shared;
    int generation = atomic_load(&s->generation);
    if (atomic_fetch_add(&s->arrived, 1) == c->ranks - 1) {
        atomic_store(&s->arrived, 0);
        atomic_fetch_add(&s->generation, 1);
        return SUCCESS;
    }
    for (int i = 0; i < WAITS; i++) {
        if (atomic_load(&s->generation) != generation) return SUCCESS;
        usleep(100);
    }
    return fail(REMOTE_ERROR, "the other ranks do not come");
}

/* Adds to sum, or makes it the larger one: one element of a type. */
static void reduce(void *sum, const void *its, const collective *g)
{
    if (g->type == INT64) {
        int64_t a, b;
        memcpy(&a, sum, sizeof a);
        memcpy(&b, its, sizeof b);
        a = g->operation == SUM ? (int64_t)((uint64_t)a + (uint64_t)b) : a > b ? a : b;
        memcpy(sum, &a, sizeof a);
    } else {
        int32_t a, b;
        memcpy(&a, sum, sizeof a);
        memcpy(&b, its, sizeof b);
        a = g->operation == SUM ? (int32_t)((uint32_t)a + (uint32_t)b) : a > b ? a : b;
        memcpy(sum, &a, sizeof a);
    }
}

/* Writes what the slots give for the bytes from `at` on. */
static int deliver(const collective *g, size_t at, size_t bytes)
{
    static char sums[SLOT];
    const comm *c = g->comm;
    shared *s = c->shared;
    char *to = g->to;
    if (g->operation == GATHER) {
        for (int r = 0; r < c->ranks; r++)
            if (copy(to + (size_t)r * g->bytes + at, s->slots[r], bytes, g->stream)) return 1;
        return 0;
    }
    memcpy(sums, s->slots[0], bytes);
    for (int r = 1; r < c->ranks; r++)
        for (size_t i = 0; i < bytes; i += g->type == INT64 ? 8 : 4)
            reduce(sums + i, s->slots[r] + i, g);
    return copy(to + at, sums, bytes, g->stream);
}

static int run(const collective *g)
{
    const comm *c = g->comm;
    shared *s = c->shared;
    if (plays("stall") || plays("lose") || plays("fail")) {
        g->comm->stalled = 1;
        return plays("stall") ? IN_PROGRESS : SUCCESS;
    }
    for (size_t at = 0; at < g->bytes; at += SLOT) {
        const size_t left = g->bytes - at, bytes = left < SLOT ? left : SLOT;
        int result, differs = 0;
        if (copy(s->slots[c->rank], (const char *)g->from + at, bytes, g->stream))
            return fail(1, "the records cannot be read");
        s->bytes[c->rank] = g->bytes;
        result = meet(c); /* all have written their slots */
        if (result != SUCCESS) return result;
        for (int r = 0; r < c->ranks; r++) differs |= s->bytes[r] != g->bytes;
        if (!differs && deliver(g, at, bytes)) return fail(1, "the records cannot be written");
        result = meet(c); /* all have read them */
        if (result != SUCCESS) return result;
        if (differs) return fail(INTERNAL_ERROR, "ranks bring different numbers of bytes");
    }
    return SUCCESS;
}

/* ---- NCCL's own names --------------------------------------------------------------------- */

const char *ncclGetErrorString(int result)
{
    return result == SUCCESS          ? "no error"
           : result == INVALID_USAGE  ? "invalid usage"
           : result == INTERNAL_ERROR ? "internal error"
           : result == REMOTE_ERROR   ? "remote process exited"
                                      : "unhandled error";
}

const char *ncclGetLastError(void *c)
{
    (void)c;
    return last;
}

/* A file's name, of which there is no second one. Whoever comes first makes the file. */
int ncclGetUniqueId(sb_comm_id *id)
{
    static atomic_int made;
    struct timespec now;
    REFUSABLE;
    clock_gettime(CLOCK_REALTIME, &now);
    memset(id, 0, sizeof *id);
    snprintf(id->bytes, sizeof id->bytes, "%s/standin-%lld-%ld-%d-%d",
             getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp", (long long)now.tv_sec, now.tv_nsec,
             (int)getpid(), atomic_fetch_add(&made, 1));
    return SUCCESS;
}

int ncclCommInitRank(void **made, int ranks, sb_comm_id id, int rank)
{
    int (*device_of)(int *);
    comm *c;
    int file;
    REFUSABLE;
    if (ranks < 1 || ranks > MAX_RANKS || rank < 0 || rank >= ranks)
        return fail(INVALID_ARGUMENT, "no such rank");
    c = calloc(1, sizeof *c);
    file = open(id.bytes, O_RDWR | O_CREAT, 0600);
    if (!c || file < 0 || ftruncate(file, sizeof(shared)))
        return fail(SYSTEM_ERROR, "the id's file cannot be made");
    c->shared = mmap(NULL, sizeof(shared), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    if (c->shared == MAP_FAILED) return fail(SYSTEM_ERROR, "the id's file cannot be mapped");
    find("cuCtxGetDevice", &device_of); /* a driver of the specs' lacks it: the first GPU */
    if (device_of && device_of(&c->device)) return fail(1, "no context is current");
    c->ranks = ranks;
    c->rank = rank;
    *made = c;
    if (meet(c) != SUCCESS) return REMOTE_ERROR;
    if (rank == 0) unlink(id.bytes);
    comms++;
    return SUCCESS;
}

int ncclCommDestroy(void *made)
{
    comm *c = made;
    comms--;
    munmap(c->shared, sizeof *c->shared);
    free(c);
    return SUCCESS;
}

int ncclCommAbort(void *made) { return ncclCommDestroy(made); }

int ncclCommCount(const void *made, int *count)
{
    REFUSABLE;
    *count = ((const comm *)made)->ranks;
    return SUCCESS;
}

int ncclCommUserRank(const void *made, int *rank)
{
    REFUSABLE;
    *rank = ((const comm *)made)->rank;
    return SUCCESS;
}

int ncclCommCuDevice(const void *made, int *device)
{
    REFUSABLE;
    *device = ((const comm *)made)->device;
    return SUCCESS;
}

int ncclCommGetAsyncError(void *made, int *result)
{
    comm *c = made;
    REFUSABLE;
    *result = plays("slow") && ++c->asked % 3 != 0 ? IN_PROGRESS
              : plays("stall") && c->stalled       ? IN_PROGRESS
              : plays("fail") && c->stalled        ? fail(REMOTE_ERROR, "a rank is gone")
              : plays("late")                      ? REMOTE_ERROR
                                                   : SUCCESS;
    return SUCCESS;
}

int ncclGroupStart(void)
{
    REFUSABLE;
    depth++;
    return SUCCESS;
}

int ncclGroupEnd(void)
{
    int result = SUCCESS, count = grouped;
    if (--depth > 0) return SUCCESS;
    if (depth < 0) return fail(INVALID_USAGE, "no group was started");
    grouped = 0;
    REFUSABLE;
    for (int i = 0; i < count; i++) {
        int its = run(&group[i]);
        if (result == SUCCESS) result = its;
    }
    return result == SUCCESS && plays("slow") ? IN_PROGRESS : result;
}

static int add(const collective *g)
{
    if (depth == 0) return run(g);
    if (grouped == MAX_GROUP) return fail(INVALID_USAGE, "a large group");
    group[grouped++] = *g;
    return SUCCESS;
}

int ncclAllGather(const void *from, void *to, size_t count, int type, void *made, void *stream)
{
    const collective g = { from, to, count, type, GATHER, made, stream };
    REFUSABLE;
    if (type != UINT8) return fail(INVALID_ARGUMENT, "the stand-in gathers bytes only");
    return add(&g);
}

int ncclAllReduce(const void *from, void *to, size_t count, int type, int operation, void *made,
                  void *stream)
{
    const collective g = {
        from, to, count * (type == INT64 ? 8 : 4), type, operation, made, stream
    };
    REFUSABLE;
    if ((type != INT32 && type != INT64) || (operation != SUM && operation != MAX))
        return fail(INVALID_ARGUMENT, "the stand-in adds and compares integers only");
    return add(&g);
}
