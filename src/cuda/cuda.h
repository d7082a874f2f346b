/* cuda.h - inside the CUDA backend: its state, and what its files give each other. backend.c opens
 * it and holds its table; an operation's file checks the arrays it was given (arrays.h), plans a
 * launch (plan.h), takes scratch memory and launches kernels (launch.c), and with a check waits for
 * what they report (check.c).
 *
 * Everything here but sb_cuda_find_device runs inside sb_enter and sb_leave, with the GPU's context
 * current. */
#ifndef SB_CUDA_H
#define SB_CUDA_H

#include "api/call.h"
#include "api/records.h"
#include "control/cuda.h"
#include "cuda/args.h"
#include "cuda/arrays.h"
#include "cuda/driver.h"
#include "cuda/kernels.h"
#include "cuda/nccl.h"
#include "cuda/plan.h"
#include "cuda/report.h"

typedef struct sb_cuda {
    int inherited; /* opened in a parent process: the driver is out of reach */
    sb_cuda_driver driver;
    CUdevice device;
    int ordinal;       /* the GPU's number, as cuDeviceGet counts */
    CUcontext context; /* the primary one */
    char isa[16];      /* "sm_90" */
    int multiprocessors;
    int hopper;   /* compute capability 9.0: clusters, and kernels set up early */
    int clusters; /* the most blocks of one; 0: the GPU has none */
    sb_cuda_reports reports;
    int word;     /* of reports: the one that the operation under way reports into */
    int launched; /* whether kernels of it may be on their way */
#define SB_CUDA_MODULE(file, LIST) sb_cuda_##file##_kernels file;
    SB_CUDA_MODULES(SB_CUDA_MODULE)
#undef SB_CUDA_MODULE
    sb_conventional_kernels conventional; /* loaded by the first call that asks for them */
    sb_nccl nccl;                         /* likewise */
} sb_cuda;

static inline uint64_t sb_cuda_address(const void *data) { return (uint64_t)(uintptr_t)data; }

/* device.c: finds a GPU that the kernels run on; isa gets its name, as "sm_90". */
sb_status sb_cuda_find_device(const sb_cuda_driver *driver, int ordinal, CUdevice *device,
                              char isa[16], sb_message *why);

/* ---- launch.c ----------------------------------------------------------------------------- */

/* An operation's scratch memory: the caller's workspace, or allocated in stream order. */
sb_status sb_cuda_scratch(sb_context *ctx, const sb_launch *launch, uint64_t needed,
                          CUdeviceptr *scratch);
void sb_cuda_scratch_done(sb_context *ctx, const sb_launch *launch, CUdeviceptr scratch);

typedef struct sb_cuda_grid {
    int64_t blocks;
    int32_t threads;
    uint32_t shared; /* bytes */
    int32_t cluster; /* blocks in one, or 0 */
    int early;       /* the kernel may be set up while the one before it runs, and waits for it by
                        itself */
} sb_cuda_grid;

/* The one of three kernels that takes logits of a dtype. */
static inline CUfunction sb_cuda_for_dtype(int32_t dtype, CUfunction f32, CUfunction f16,
                                           CUfunction bf16)
{
    return dtype == SB_F32 ? f32 : dtype == SB_F16 ? f16 : bf16;
}

/* One warp per item, eight per block. */
static inline sb_cuda_grid sb_cuda_warps_for(int64_t items)
{
    const sb_cuda_grid grid = { .blocks = (items + 7) / 8, .threads = 256 };
    return grid;
}

/* The arguments of a call's kernels, whose scratch holds what p says, from there on. */
sb_cuda_args sb_cuda_args_of(const sb_cuda *c, const sb_logprob_out *out, const sb_call *call,
                             const sb_cuda_plan *p, CUdeviceptr scratch);

/* How the logits that a call holds are summed, as logprob's would be, without clusters: a's split
 * pieces per row, one block each. a has no scratch. */
sb_cuda_grid sb_cuda_plan_shard(sb_context *ctx, const sb_logprob_out *out, const sb_call *call,
                                sb_cuda_args *a);

/* a: the kernel's arguments, or what they begin with; the launch fills in where it reports. No
 * blocks: nothing is launched. */
sb_status sb_cuda_launch(sb_context *ctx, CUfunction kernel, sb_cuda_grid grid, sb_cuda_args *a,
                         CUstream stream);

/* Zeroes device memory; data may be 0. */
sb_status sb_cuda_clear(sb_context *ctx, uint64_t data, uint64_t bytes, CUstream stream);

/* Zeroes the outputs of rows that a row list leaves out. */
sb_status sb_cuda_clear_unlisted(sb_context *ctx, const sb_call *call, const sb_cuda_args *a);

/* Sums a's tokens by sequence, and counts them. */
sb_status sb_cuda_sum_sequences(sb_context *ctx, const sb_call *call, sb_cuda_args *a);

/* ---- check.c ------------------------------------------------------------------------------ */

/* As sb_device has them, around every operation. */
sb_status sb_cuda_begin(sb_context *ctx, const sb_launch *launch);
sb_status sb_cuda_end(sb_context *ctx, const sb_launch *launch, sb_status status);
sb_status sb_cuda_check(sb_context *ctx, void *stream);

/* Checks the arrays of a call and the launch options that only this backend knows. */
sb_status sb_cuda_check_arguments(sb_context *ctx, const sb_logprob_out *out, const sb_call *call);

/* Waits for an operation with a check; *report becomes what its kernels reported, 0 where all is
 * fine. */
sb_status sb_cuda_wait_for_report(sb_context *ctx, const sb_launch *launch, int64_t *report);

/* Replaces a device array, if there is one, by a copy on the heap: for naming the first bad row. On
 * failure by null. */
sb_status sb_cuda_fetch(sb_context *ctx, const void **array, int64_t count, size_t size,
                        CUstream stream);

/* After a report: the checks that the cpu backend makes, on copies of a call's arrays, so that its
 * first bad row is named with its id. SB_OK: they find none. records: those that are finished, else
 * null; gradient likewise. */
sb_status sb_cuda_find_first_bad(sb_context *ctx, const sb_call *call, const sb_records *records,
                                 const sb_gradient *gradient);

/* All three: waits for the call, and names its first bad row; in the report's own words where the
 * host's checks do not find it, as what they look at has changed since. */
sb_status sb_cuda_check_call(sb_context *ctx, const sb_call *call, const sb_records *records,
                             const sb_gradient *gradient);

/* ---- memory.c: as sb_device has them ------------------------------------------------------ */

sb_status sb_cuda_memory_alloc(sb_context *ctx, void **data, uint64_t bytes, sb_memory kind);
sb_status sb_cuda_memory_free(sb_context *ctx, void *data, sb_memory kind);
sb_status sb_cuda_memory_copy(sb_context *ctx, void *to, const void *from, uint64_t bytes,
                              void *stream);
sb_status sb_cuda_stream_create(sb_context *ctx, void **stream);
sb_status sb_cuda_stream_destroy(sb_context *ctx, void *stream);
sb_status sb_cuda_stream_wait(sb_context *ctx, void *stream);

/* ---- operations --------------------------------------------------------------------------- */

/* sb_cuda_logprob, sb_cuda_logprob_workspace and so on: as sb_op_slot has them. */
#define SB_CUDA_OPERATION(NUMBER, name, scratch, what)                                             \
    sb_status sb_cuda_##name(sb_context *ctx, const void *call);                                   \
    SB_CUDA_WORKSPACE_##scratch(                                                                   \
        sb_status sb_cuda_##name##_workspace(sb_context *ctx, const void *call, uint64_t *bytes);)
#define SB_CUDA_WORKSPACE_SCRATCH(declared) declared
#define SB_CUDA_WORKSPACE_NONE(declared)
SB_ALL_OPERATIONS(SB_CUDA_OPERATION)
#undef SB_CUDA_OPERATION

/* logprob.c: when the kernels are loaded. */
sb_status sb_cuda_logprob_prepare(const sb_cuda *c, sb_message *why);

/* exchange.c: communicators, as sb_comms has them. */
sb_status sb_cuda_comm_new_id(sb_context *ctx, sb_comm_id *id);
sb_status sb_cuda_comm_create(sb_context *ctx, void **comm, const sb_comm_id *id, int32_t ranks,
                              int32_t rank);
sb_status sb_cuda_comm_destroy(sb_context *ctx, void *comm);
sb_status sb_cuda_comm_abort(sb_context *ctx, void *comm);

/* stats.c: the kernel of sb_cuda_sums alone, for arguments that were checked. */
sb_status sb_cuda_launch_sums(sb_context *ctx, const sb_sums_call *call);

#endif
