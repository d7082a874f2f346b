/* exchange.c - the records of shards of the vocabulary, exchanged between GPUs with NCCL: an
 * all-gather into the workspace, and the merge of shards.c. NCCL is loaded by the first call. */
#define _POSIX_C_SOURCE 200809L
#include <inttypes.h>
#include <sched.h>
#include <stdlib.h>
#include <time.h>

#include "cuda/cuda.h"

/* The header that ranks exchange first in a call with check: an all-gather needs the same number of
 * bytes from every rank. */
typedef struct header {
    int64_t rows;
    uint32_t row_bytes, numerics;
} header;

#define TIMEOUT 600000 /* milliseconds, if the call gives none */
#define SHORT 1000000  /* nanoseconds of waiting without sleeping: longer than an exchange takes */
#define NAP 100000     /* nanoseconds */

/* The ranks of the communicator, and how long this rank waits. */
typedef struct world {
    void *comm;
    int ranks, rank;
    int64_t start;   /* nanoseconds, by the steady clock */
    int32_t timeout; /* milliseconds; negative: none */
} world;

static sb_nccl *nccl_of(sb_context *ctx) { return &((sb_cuda *)ctx->state)->nccl; }

/* Calls a function of NCCL; on failure returns from the enclosing function, with a message that
 * names the NCCL function. */
#define NCCL(ctx, comm, function, ...)                                                             \
    do {                                                                                           \
        const sb_nccl *nccl_ = nccl_of(ctx);                                                       \
        int result_ = nccl_->function(__VA_ARGS__);                                                \
        if (result_ != SB_NCCL_SUCCESS)                                                            \
            return sb_nccl_failed(&(ctx)->error, nccl_, comm, "nccl" #function, result_);          \
    } while (0)

/* ---- waiting ------------------------------------------------------------------------------ */

static int64_t now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* One step of a wait; fails once all steps together have exceeded the timeout. */
static sb_status wait_for(sb_context *ctx, const world *w, const char *what)
{
    const struct timespec nap = { 0, NAP };
    const int64_t waited = now() - w->start;
    if (w->timeout >= 0 && waited >= (int64_t)w->timeout * 1000000)
        return sb_fail(&ctx->error, SB_ERR_DEVICE,
                       "%s within %" PRId32 " ms: a rank is missing or has failed; abort the "
                       "communicator",
                       what, w->timeout);
    if (waited < SHORT) sched_yield();
    else nanosleep(&nap, NULL);
    return SB_OK;
}

/* Asks NCCL for a communicator's asynchronous status; an error is reported as that of the named
 * function. */
static sb_status ask(sb_context *ctx, const world *w, const char *function, int *goes_on)
{
    int state = SB_NCCL_SUCCESS;
    NCCL(ctx, w->comm, CommGetAsyncError, w->comm, &state);
    *goes_on = state == SB_NCCL_IN_PROGRESS;
    if (*goes_on || state == SB_NCCL_SUCCESS) return SB_OK;
    return sb_nccl_failed(&ctx->error, nccl_of(ctx), w->comm, function, state);
}

/* Waits until a non-blocking communicator has finished its last operation. */
static sb_status settle(sb_context *ctx, const world *w, const char *function)
{
    int goes_on;
    sb_status status = ask(ctx, w, function, &goes_on);
    while (status == SB_OK && goes_on) {
        status = wait_for(ctx, w, "NCCL is not done");
        if (status == SB_OK) status = ask(ctx, w, function, &goes_on);
    }
    return status;
}

/* Waits for work in the stream that depends on the other ranks. */
static sb_status wait_for_ranks(sb_context *ctx, const world *w, CUstream stream)
{
    const sb_cuda *c = ctx->state;
    CUresult result;
    while ((result = c->driver.StreamQuery(stream)) == CUDA_ERROR_NOT_READY) {
        int goes_on;
        sb_status status = ask(ctx, w, "ncclAllGather", &goes_on);
        if (status == SB_OK) status = wait_for(ctx, w, "the other ranks did not all come");
        if (status != SB_OK) return status;
    }
    if (result == CUDA_SUCCESS) return SB_OK;
    return sb_cuda_failed(&ctx->error, &c->driver, "cuStreamQuery", result);
}

/* Loads NCCL and queries the communicator's ranks. */
static sb_status world_of(sb_context *ctx, world *w, void *comm, int32_t timeout)
{
    const sb_cuda *c = ctx->state;
    int device = -1;
    sb_status status = sb_nccl_load(nccl_of(ctx), &ctx->error);
    if (status != SB_OK) return status;
    w->comm = comm;
    w->start = now();
    w->timeout = timeout ? timeout : TIMEOUT;
    status = settle(ctx, w, "ncclCommInitRankConfig");
    if (status != SB_OK) return status;
    NCCL(ctx, comm, CommCount, comm, &w->ranks);
    NCCL(ctx, comm, CommUserRank, comm, &w->rank);
    NCCL(ctx, comm, CommCuDevice, comm, &device);
    if (device == c->ordinal) return SB_OK;
    return sb_fail(&ctx->error, SB_ERR_ARGUMENT,
                   "the communicator is of device %d, the context is on device %d", device,
                   c->ordinal);
}

/* ---- what is gathered --------------------------------------------------------------------- */

/* The layout of the workspace. Headers are first; their size keeps the records aligned. */
typedef struct room {
    uint64_t headers, states, targets; /* offsets */
    uint64_t size;
} room;

static room room_of(const world *w, const sb_exchange_call *call)
{
    const uint64_t ranks = (uint64_t)w->ranks, records = ranks * (uint64_t)call->rows;
    room r;
    r.headers = 0;
    r.states = (ranks * sizeof(header) + 255) / 256 * 256;
    r.targets = r.states + records * sb_state_size(&call->records);
    r.size = r.targets + records * sizeof(sb_target_record);
    return r;
}

/* Ends a group. With a non-blocking communicator, NCCL may go on in the background: then this
 * waits, because the stream may only be used once NCCL has put all of the group's work into it. */
static sb_status end_group(sb_context *ctx, const world *w)
{
    const sb_nccl *nccl = nccl_of(ctx);
    int result = nccl->GroupEnd();
    if (result == SB_NCCL_IN_PROGRESS) return settle(ctx, w, "ncclGroupEnd");
    if (result == SB_NCCL_SUCCESS) return SB_OK;
    return sb_nccl_failed(&ctx->error, nccl, w->comm, "ncclGroupEnd", result);
}

typedef struct gathering {
    uint64_t from, to, bytes; /* addresses; bytes per rank */
} gathering;

static sb_status add_gathering(sb_context *ctx, const world *w, const gathering *g, CUstream stream)
{
    NCCL(ctx, w->comm, AllGather, (const void *)(uintptr_t)g->from, (void *)(uintptr_t)g->to,
         (size_t)g->bytes, SB_NCCL_UINT8, w->comm, stream);
    return SB_OK;
}

/* Does several all-gathers as one group, which is one launch of NCCL. A group that was begun is
 * ended even on failure. */
static sb_status gather(sb_context *ctx, const world *w, const gathering *list, int count,
                        CUstream stream)
{
    sb_message first;
    sb_status status = SB_OK, ended;
    NCCL(ctx, w->comm, GroupStart);
    for (int i = 0; i < count && status == SB_OK; i++)
        status = add_gathering(ctx, w, &list[i], stream);
    first = ctx->error;
    ended = end_group(ctx, w);
    if (status == SB_OK) return ended;
    ctx->error = first;
    return status;
}

static sb_status compare_headers(sb_context *ctx, const world *w, const header *all)
{
    const header *mine = &all[w->rank];
    for (int rank = 0; rank < w->ranks; rank++) {
        const header *its = &all[rank];
        if (its->numerics != mine->numerics)
            return sb_fail(&ctx->error, SB_ERR_STATE,
                           "rank %d computes by SB_NUMERICS %u, this one, rank %d, by %u", rank,
                           (unsigned)its->numerics, w->rank, (unsigned)mine->numerics);
        if (its->rows != mine->rows || its->row_bytes != mine->row_bytes)
            return sb_fail(&ctx->error, SB_ERR_SHAPE,
                           "rank %d has %" PRId64 " rows of %u bytes, this one, rank %d, %" PRId64
                           " of %u",
                           rank, its->rows, (unsigned)its->row_bytes, w->rank, mine->rows,
                           (unsigned)mine->row_bytes);
    }
    return SB_OK;
}

/* Checks that all ranks exchange the same number of bytes; waits for them. */
static sb_status check_headers(sb_context *ctx, const world *w, const sb_exchange_call *call,
                               uint64_t headers)
{
    const sb_cuda *c = ctx->state;
    const size_t state_size = sb_state_size(&call->records);
    const header mine = { call->rows, (uint32_t)(state_size + sizeof(sb_target_record)),
                          SB_NUMERICS };
    const uint64_t place = headers + (uint64_t)w->rank * sizeof mine;
    const gathering g = { place, headers, sizeof mine };
    const void *all = (const void *)(uintptr_t)headers;
    CUstream stream = call->launch.stream;
    sb_status status;
    DRIVER(&ctx->error, &c->driver, MemcpyAsync, place, sb_cuda_address(&mine), sizeof mine,
           stream);
    status = gather(ctx, w, &g, 1, stream);
    if (status == SB_OK) status = wait_for_ranks(ctx, w, stream);
    if (status != SB_OK) return status;
    status = sb_cuda_fetch(ctx, &all, w->ranks, sizeof mine, stream);
    if (status == SB_OK) status = compare_headers(ctx, w, all);
    free((void *)(uintptr_t)all);
    return status;
}

static sb_status gather_and_merge(sb_context *ctx, const world *w, const sb_exchange_call *call,
                                  CUdeviceptr scratch)
{
    const room r = room_of(w, call);
    const uint64_t rows = (uint64_t)call->rows;
    const sb_records *own = &call->records;
    const gathering records[2] = {
        { sb_cuda_address(own->states), scratch + r.states, rows * sb_state_size(own) },
        { sb_cuda_address(own->targets), scratch + r.targets, rows * sizeof(sb_target_record) },
    };
    sb_merge_call merge = { *own, *own, w->ranks, call->rows, call->launch };
    sb_status status = SB_OK;
    merge.from.states = (void *)(uintptr_t)records[0].to;
    merge.from.targets = (sb_target_record *)(uintptr_t)records[1].to;
    if (call->launch.check) status = check_headers(ctx, w, call, scratch + r.headers);
    if (status != SB_OK || rows == 0) return status;
    status = gather(ctx, w, records, 2, call->launch.stream);
    if (status == SB_OK && call->launch.check) /* the merge has no time limit */
        status = wait_for_ranks(ctx, w, call->launch.stream);
    return status == SB_OK ? sb_cuda_merge(ctx, &merge) : status;
}

/* ---- the operation ------------------------------------------------------------------------ */

sb_status sb_cuda_exchange(sb_context *ctx, const void *checked)
{
    const sb_exchange_call *call = checked;
    const sb_cuda_array workspace = { "workspace", call->launch.workspace, 256,
                                      call->launch.workspace_size };
    CUdeviceptr scratch;
    world w;
    sb_status status = world_of(ctx, &w, call->comm, call->launch.timeout);
    if (status == SB_OK) status = sb_cuda_check_records(ctx, &call->records, call->rows, "");
    if (status == SB_OK) status = sb_cuda_check_arrays(ctx, &workspace, 1);
    if (status == SB_OK)
        status = sb_cuda_scratch(ctx, &call->launch, room_of(&w, call).size, &scratch);
    if (status != SB_OK) return status;
    status = gather_and_merge(ctx, &w, call, scratch);
    sb_cuda_scratch_done(ctx, &call->launch, scratch);
    return status;
}

sb_status sb_cuda_exchange_workspace(sb_context *ctx, const void *checked, uint64_t *bytes)
{
    const sb_exchange_call *call = checked;
    world w;
    sb_status status = world_of(ctx, &w, call->comm, call->launch.timeout);
    if (status == SB_OK) *bytes = room_of(&w, call).size;
    return status;
}

/* ---- communicators ------------------------------------------------------------------------ */

sb_status sb_cuda_comm_new_id(sb_context *ctx, sb_comm_id *id)
{
    sb_status status = sb_nccl_load(nccl_of(ctx), &ctx->error);
    if (status != SB_OK) return status;
    NCCL(ctx, NULL, GetUniqueId, id);
    return SB_OK;
}

sb_status sb_cuda_comm_create(sb_context *ctx, void **comm, const sb_comm_id *id, int32_t ranks,
                              int32_t rank)
{
    sb_status status = sb_nccl_load(nccl_of(ctx), &ctx->error);
    if (status != SB_OK) return status;
    NCCL(ctx, NULL, CommInitRank, comm, ranks, *id, rank);
    return SB_OK;
}

sb_status sb_cuda_comm_destroy(sb_context *ctx, void *comm)
{
    sb_status status = sb_nccl_load(nccl_of(ctx), &ctx->error);
    if (status != SB_OK) return status;
    NCCL(ctx, NULL, CommDestroy, comm);
    return SB_OK;
}

sb_status sb_cuda_comm_abort(sb_context *ctx, void *comm)
{
    sb_status status = sb_nccl_load(nccl_of(ctx), &ctx->error);
    if (status != SB_OK) return status;
    NCCL(ctx, NULL, CommAbort, comm);
    return SB_OK;
}
