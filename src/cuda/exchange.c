/* exchange.c - what ranks exchange between GPUs with NCCL, which the first call loads. The records
 * of shards of the vocabulary: an all-gather into the workspace, and the merge of shards.c. Any
 * bytes: an all-gather. Integers: an all-reduce. */
#define _POSIX_C_SOURCE 200809L
#include <inttypes.h>
#include <sched.h>
#include <stdlib.h>
#include <time.h>

#include "cuda/cuda.h"

/* The header that ranks exchange first in a call with check: NCCL needs the same number of bytes
 * from every rank. */
typedef struct header {
    int64_t count; /* rows, or other elements */
    uint32_t size; /* bytes of each */
    uint32_t numerics;
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

/* Waits for work in the stream that depends on the other ranks: that of an NCCL function. */
static sb_status wait_for_ranks(sb_context *ctx, const world *w, const char *function,
                                CUstream stream)
{
    const sb_cuda *c = ctx->state;
    CUresult result;
    while ((result = c->driver.StreamQuery(stream)) == CUDA_ERROR_NOT_READY) {
        int goes_on;
        sb_status status = ask(ctx, w, function, &goes_on);
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

/* ---- collectives -------------------------------------------------------------------------- */

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

/* An all-gather of bytes or, with a type other than SB_NCCL_UINT8, an all-reduce. */
typedef struct collective {
    uint64_t from, to, count; /* addresses; elements per rank */
    int type, operation;
} collective;

static collective gathering(uint64_t from, uint64_t to, uint64_t bytes)
{
    const collective c = { from, to, bytes, SB_NCCL_UINT8, 0 };
    return c;
}

static sb_status add(sb_context *ctx, const world *w, const collective *c, CUstream stream)
{
    const void *from = (const void *)(uintptr_t)c->from;
    void *to = (void *)(uintptr_t)c->to;
    const size_t count = (size_t)c->count;
    if (c->type == SB_NCCL_UINT8)
        NCCL(ctx, w->comm, AllGather, from, to, count, c->type, w->comm, stream);
    else NCCL(ctx, w->comm, AllReduce, from, to, count, c->type, c->operation, w->comm, stream);
    return SB_OK;
}

/* Does several collectives as one group, which is one launch of NCCL. A group that was begun is
 * ended even on failure. */
static sb_status do_all(sb_context *ctx, const world *w, const collective *list, int count,
                        CUstream stream)
{
    sb_message first;
    sb_status status = SB_OK, ended;
    NCCL(ctx, w->comm, GroupStart);
    for (int i = 0; i < count && status == SB_OK; i++) status = add(ctx, w, &list[i], stream);
    first = ctx->error;
    ended = end_group(ctx, w);
    if (status == SB_OK) return ended;
    ctx->error = first;
    return status;
}

/* ---- headers ------------------------------------------------------------------------------ */

/* Bytes of the workspace for headers, which are first there. They keep what follows aligned. */
static uint64_t headers_size(const world *w)
{
    return sb_cuda_padded((uint64_t)w->ranks * sizeof(header));
}

/* what: the name of the elements in messages. */
static sb_status compare_headers(sb_context *ctx, const world *w, const header *all,
                                 const char *what)
{
    const header *mine = &all[w->rank];
    for (int rank = 0; rank < w->ranks; rank++) {
        const header *its = &all[rank];
        if (its->numerics != mine->numerics)
            return sb_fail(&ctx->error, SB_ERR_STATE,
                           "rank %d computes by SB_NUMERICS %u, this one, rank %d, by %u", rank,
                           (unsigned)its->numerics, w->rank, (unsigned)mine->numerics);
        if (its->count != mine->count || its->size != mine->size)
            return sb_fail(&ctx->error, SB_ERR_SHAPE,
                           "rank %d has %" PRId64 " %s of %u bytes, this one, rank %d, %" PRId64
                           " of %u",
                           rank, its->count, what, (unsigned)its->size, w->rank, mine->count,
                           (unsigned)mine->size);
    }
    return SB_OK;
}

/* Checks that all ranks exchange the same number of bytes; waits for them. scratch: the workspace.
 */
static sb_status check_headers(sb_context *ctx, const world *w, int64_t count, size_t size,
                               const char *what, CUdeviceptr scratch, CUstream stream)
{
    const sb_cuda *c = ctx->state;
    const header mine = { count, (uint32_t)size, SB_NUMERICS };
    const uint64_t place = scratch + (uint64_t)w->rank * sizeof mine;
    const collective g = gathering(place, scratch, sizeof mine);
    const void *all = (const void *)(uintptr_t)scratch;
    sb_status status;
    DRIVER(&ctx->error, &c->driver, MemcpyAsync, place, sb_cuda_address(&mine), sizeof mine,
           stream);
    status = do_all(ctx, w, &g, 1, stream);
    if (status == SB_OK) status = wait_for_ranks(ctx, w, "ncclAllGather", stream);
    if (status != SB_OK) return status;
    status = sb_cuda_fetch(ctx, &all, w->ranks, sizeof mine, stream);
    if (status == SB_OK) status = compare_headers(ctx, w, all, what);
    free((void *)(uintptr_t)all);
    return status;
}

/* Checks the workspace, and sets *scratch to it, or to new memory of the stream. */
static sb_status take_scratch(sb_context *ctx, const sb_launch *launch, uint64_t size,
                              CUdeviceptr *scratch)
{
    const sb_cuda_array workspace = { "workspace", launch->workspace, SB_CUDA_BOUNDARY,
                                      launch->workspace_size };
    sb_status status = sb_cuda_check_arrays(ctx, &workspace, 1);
    return status == SB_OK ? sb_cuda_scratch(ctx, launch, size, scratch) : status;
}

/* ---- records of shards -------------------------------------------------------------------- */

/* The layout of the workspace after the headers. */
typedef struct room {
    uint64_t states, targets; /* offsets */
    uint64_t size;
} room;

static room room_of(const world *w, const sb_exchange_call *call)
{
    const uint64_t records = (uint64_t)w->ranks * (uint64_t)call->rows;
    room r;
    r.states = headers_size(w);
    r.targets = r.states + records * sb_state_size(&call->records);
    r.size = r.targets + records * sizeof(sb_target_record);
    return r;
}

static sb_status gather_and_merge(sb_context *ctx, const world *w, const sb_exchange_call *call,
                                  CUdeviceptr scratch)
{
    const room r = room_of(w, call);
    const uint64_t rows = (uint64_t)call->rows;
    const sb_records *own = &call->records;
    const size_t state_size = sb_state_size(own);
    const collective records[2] = {
        gathering(sb_cuda_address(own->states), scratch + r.states, rows * state_size),
        gathering(sb_cuda_address(own->targets), scratch + r.targets,
                  rows * sizeof(sb_target_record)),
    };
    CUstream stream = call->launch.stream;
    sb_merge_call merge = { *own, *own, w->ranks, call->rows, call->launch };
    sb_status status = SB_OK;
    merge.from.states = (void *)(uintptr_t)records[0].to;
    merge.from.targets = (sb_target_record *)(uintptr_t)records[1].to;
    if (call->launch.check)
        status = check_headers(ctx, w, call->rows, state_size + sizeof(sb_target_record), "rows",
                               scratch, stream);
    if (status != SB_OK || rows == 0) return status;
    status = do_all(ctx, w, records, 2, stream);
    if (status == SB_OK && call->launch.check) /* the merge has no time limit */
        status = wait_for_ranks(ctx, w, "ncclAllGather", stream);
    return status == SB_OK ? sb_cuda_merge(ctx, &merge) : status;
}

sb_status sb_cuda_exchange(sb_context *ctx, const void *checked)
{
    const sb_exchange_call *call = checked;
    CUdeviceptr scratch;
    world w;
    sb_status status = world_of(ctx, &w, call->comm, call->launch.timeout);
    if (status == SB_OK) status = sb_cuda_check_records(ctx, &call->records, call->rows, "");
    if (status == SB_OK)
        status = take_scratch(ctx, &call->launch, room_of(&w, call).size, &scratch);
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

/* ---- bytes, and integers ------------------------------------------------------------------ */

/* Does one collective of count elements of some bytes each, and with check compares the ranks first
 * and waits for them. */
static sb_status run_one(sb_context *ctx, const world *w, const collective *c, size_t size,
                         const sb_launch *launch)
{
    const char *function = c->type == SB_NCCL_UINT8 ? "ncclAllGather" : "ncclAllReduce";
    CUdeviceptr scratch;
    sb_status status = take_scratch(ctx, launch, headers_size(w), &scratch);
    if (status != SB_OK) return status;
    if (launch->check)
        status = check_headers(ctx, w, (int64_t)c->count, size, "elements", scratch,
                               launch->stream);
    if (status == SB_OK && c->count > 0) status = do_all(ctx, w, c, 1, launch->stream);
    if (status == SB_OK && launch->check) status = wait_for_ranks(ctx, w, function, launch->stream);
    sb_cuda_scratch_done(ctx, launch, scratch);
    return status;
}

static sb_status headers_workspace(sb_context *ctx, void *comm, const sb_launch *launch,
                                   uint64_t *bytes)
{
    world w;
    sb_status status = world_of(ctx, &w, comm, launch->timeout);
    if (status == SB_OK) *bytes = headers_size(&w);
    return status;
}

static sb_status check_overlap(sb_context *ctx, const world *w, const collective *c)
{
    const uint64_t own = c->to + (uint64_t)w->rank * c->count;
    if (c->from == own || c->from + c->count <= c->to ||
        c->from >= c->to + (uint64_t)w->ranks * c->count)
        return SB_OK;
    return sb_fail(&ctx->error, SB_ERR_ARGUMENT,
                   "mine overlaps all, but is not the place of rank %d there", w->rank);
}

sb_status sb_cuda_all_gather(sb_context *ctx, const void *checked)
{
    const sb_all_gather_call *call = checked;
    const collective c = gathering(sb_cuda_address(call->mine), sb_cuda_address(call->all),
                                   (uint64_t)call->bytes);
    world w;
    sb_status status = world_of(ctx, &w, call->comm, call->launch.timeout);
    if (status == SB_OK) {
        const sb_cuda_array arrays[] = {
            { "all", call->all, 1, (uint64_t)w.ranks * c.count },
            { "mine", call->mine, 1, c.count },
        };
        status = sb_cuda_check_arrays(ctx, arrays, 2);
    }
    if (status == SB_OK) status = check_overlap(ctx, &w, &c);
    return status == SB_OK ? run_one(ctx, &w, &c, 1, &call->launch) : status;
}

sb_status sb_cuda_all_gather_workspace(sb_context *ctx, const void *checked, uint64_t *bytes)
{
    const sb_all_gather_call *call = checked;
    return headers_workspace(ctx, call->comm, &call->launch, bytes);
}

sb_status sb_cuda_all_reduce(sb_context *ctx, const void *checked)
{
    const sb_all_reduce_call *call = checked;
    const uint64_t values = sb_cuda_address(call->values);
    const size_t size = call->dtype == SB_I64 ? 8 : 4;
    const collective c = { values, values, (uint64_t)call->count,
                           call->dtype == SB_I64 ? SB_NCCL_INT64 : SB_NCCL_INT32,
                           call->reduction == SB_ADD ? SB_NCCL_SUM : SB_NCCL_MAX };
    const sb_cuda_array array = { "values", call->values, size, sb_cuda_bytes(call->count, size) };
    world w;
    sb_status status = world_of(ctx, &w, call->comm, call->launch.timeout);
    if (status == SB_OK) status = sb_cuda_check_arrays(ctx, &array, 1);
    return status == SB_OK ? run_one(ctx, &w, &c, size, &call->launch) : status;
}

sb_status sb_cuda_all_reduce_workspace(sb_context *ctx, const void *checked, uint64_t *bytes)
{
    const sb_all_reduce_call *call = checked;
    return headers_workspace(ctx, call->comm, &call->launch, bytes);
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
