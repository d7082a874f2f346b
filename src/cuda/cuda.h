/* cuda.h - internals of the CUDA backend: its state, and the functions that its files share.
 * backend.c opens the backend and holds its table. The file of an operation checks the call's
 * arrays (arrays.h), plans a launch (plan.h), takes scratch memory and launches kernels (launch.c),
 * and with check waits for their report (check.c).
 *
 * Everything here except sb_cuda_find_device runs between sb_enter and sb_leave, with the GPU's
 * context current. */
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
    int inherited; /* opened in a parent process: the driver cannot be used */
    sb_cuda_driver driver;
    CUdevice device;
    int ordinal;       /* the GPU's number for cuDeviceGet */
    CUcontext context; /* the primary one */
    char isa[16];      /* "sm_90" */
    sb_cuda_gpu gpu;
    int hopper;          /* compute capability 9.0: has clusters and early set-up of kernels */
    int one_read_blocks; /* of kernels/one_read.cu that run at the same time; 0: it does not run */
    sb_cuda_reports reports;
    int word;       /* index in reports: the word of the operation under way */
    int64_t before; /* rows in front of those of a launch, for reports: see hidden.c */
    int64_t after;  /* rows behind them, which have lists as well */
    int inside;     /* a call of some rows within another one, which has checked the arrays */
    int launched;   /* whether kernels of that operation may be running or queued */
#define SB_CUDA_MODULE(file, LIST) sb_cuda_##file##_kernels file;
    SB_CUDA_MODULES(SB_CUDA_MODULE)
#undef SB_CUDA_MODULE
    sb_conventional_kernels conventional; /* loaded by the first call that needs them */
    sb_nccl nccl;                         /* likewise */
} sb_cuda;

static inline uint64_t sb_cuda_address(const void *data) { return (uint64_t)(uintptr_t)data; }

/* device.c: finds a GPU that the kernels support; isa receives its name, such as "sm_90". */
sb_status sb_cuda_find_device(const sb_cuda_driver *driver, int ordinal, CUdevice *device,
                              char isa[16], sb_message *why);

/* ---- launch.c ----------------------------------------------------------------------------- */

/* Scratch memory, and each part of it, begins at a multiple of this: the largest vector load and
 * the layout of every struct are aligned there. */
#define SB_CUDA_BOUNDARY 256

/* The bytes of a part of scratch memory, so that the next one is aligned. */
static inline uint64_t sb_cuda_padded(uint64_t bytes)
{
    return (bytes + SB_CUDA_BOUNDARY - 1) / SB_CUDA_BOUNDARY * SB_CUDA_BOUNDARY;
}

/* An operation's scratch memory: the caller's workspace, or allocated in stream order. */
sb_status sb_cuda_scratch(sb_context *ctx, const sb_launch *launch, uint64_t needed,
                          CUdeviceptr *scratch);
void sb_cuda_scratch_done(sb_context *ctx, const sb_launch *launch, CUdeviceptr scratch);

typedef struct sb_cuda_grid {
    int64_t blocks;
    int32_t threads;
    uint32_t shared; /* bytes */
    int32_t cluster; /* blocks in one, or 0 */
    int cooperative; /* the launch fails unless all blocks can run at the same time */
    int early;       /* the kernel may be set up while the one before it runs, and itself waits
                        for that one */
} sb_cuda_grid;

/* Selects the kernel for logits of a dtype. */
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

/* The arguments of a call's kernels. The call's scratch memory starts at scratch and has the layout
 * that p describes. */
sb_cuda_args sb_cuda_args_of(const sb_cuda *c, const sb_logprob_out *out, const sb_call *call,
                             const sb_cuda_plan *p, CUdeviceptr scratch);

/* Plans the sums of a call's logits as for logprob, but without clusters: a->split pieces per row,
 * one block per piece. Fills in a, except for the scratch memory. */
sb_cuda_grid sb_cuda_plan_shard(sb_context *ctx, const sb_logprob_out *out, const sb_call *call,
                                sb_cuda_args *a);

/* order.c: plans a launch that sums rows in pieces and, unless k is 0, finds the first k ids of
 * each: the states, the lists and the fates of rows. Fills in a, except for the scratch memory,
 * whose size goes to *needed; sb_cuda_set_order_scratch fills in that. */
sb_cuda_grid sb_cuda_plan_order(sb_context *ctx, const sb_call *call, int64_t k,
                                sb_cuda_order_args *a, uint64_t *needed);
void sb_cuda_set_order_scratch(sb_cuda_order_args *a, int64_t k, CUdeviceptr scratch);
CUfunction sb_cuda_order_kernel(const sb_cuda *c, int32_t dtype, int64_t k);

/* Launches a kernel. a is the kernel's arguments or their first member; the launch sets a->bad.
 * With no blocks, nothing is launched. */
sb_status sb_cuda_launch(sb_context *ctx, CUfunction kernel, sb_cuda_grid grid, sb_cuda_args *a,
                         CUstream stream);

/* Zeroes device memory; data may be 0. */
sb_status sb_cuda_clear(sb_context *ctx, uint64_t data, uint64_t bytes, CUstream stream);

/* Zeroes the outputs of rows that a row list leaves out. */
sb_status sb_cuda_clear_unlisted(sb_context *ctx, const sb_call *call, const sb_cuda_args *a);

/* Sums a's tokens by sequence and counts them, if the call wants either. */
sb_status sb_cuda_sum_sequences(sb_context *ctx, const sb_call *call, sb_cuda_args *a);

/* ---- check.c ------------------------------------------------------------------------------ */

/* begin, end and check of sb_device. */
sb_status sb_cuda_begin(sb_context *ctx, const sb_launch *launch);
sb_status sb_cuda_end(sb_context *ctx, const sb_launch *launch, sb_status status);
sb_status sb_cuda_check(sb_context *ctx, void *stream);

/* Checks the arrays of a call and the launch options that only this backend knows. */
sb_status sb_cuda_check_arguments(sb_context *ctx, const sb_logprob_out *out, const sb_call *call);

/* Waits for an operation with check. *report becomes the report of its kernels, 0 if there is none.
 */
sb_status sb_cuda_wait_for_report(sb_context *ctx, const sb_launch *launch, int64_t *report);

/* Replaces a device array, if there is one, by a copy on the heap, in which the first bad row can
 * be found. On failure, *array becomes null. */
sb_status sb_cuda_fetch(sb_context *ctx, const void **array, int64_t count, size_t size,
                        CUstream stream);

/* After a report: runs the cpu backend's checks on copies of a call's arrays, so that the message
 * names the first bad row and its id. SB_OK: the checks find no bad row. records: those that
 * sb_finish reads, otherwise null. gradient: that of sb_logprob_backward, otherwise null. */
sb_status sb_cuda_find_first_bad(sb_context *ctx, const sb_call *call, const sb_records *records,
                                 const sb_gradient *gradient);

/* Combines the three functions above: waits for the call, and names its first bad row. If the
 * host's checks do not find the row, because the arrays have changed since, the message is the
 * report's own. */
sb_status sb_cuda_check_call(sb_context *ctx, const sb_call *call, const sb_records *records,
                             const sb_gradient *gradient);

/* Ends a call, whose launches had the given status: gives its scratch memory back and, if they went
 * well and the launch has a check, does that. */
sb_status sb_cuda_end_call(sb_context *ctx, const sb_call *call, CUdeviceptr scratch,
                           sb_status status);

/* ---- memory.c: functions of sb_device ----------------------------------------------------- */

sb_status sb_cuda_memory_alloc(sb_context *ctx, void **data, uint64_t bytes, sb_memory kind);
sb_status sb_cuda_memory_free(sb_context *ctx, void *data, sb_memory kind);
sb_status sb_cuda_memory_copy(sb_context *ctx, void *to, const void *from, uint64_t bytes,
                              void *stream);
sb_status sb_cuda_stream_create(sb_context *ctx, void **stream);
sb_status sb_cuda_stream_destroy(sb_context *ctx, void *stream);
sb_status sb_cuda_stream_wait(sb_context *ctx, void *stream);

/* ---- operations --------------------------------------------------------------------------- */

/* sb_cuda_logprob, sb_cuda_logprob_workspace and so on: the functions of sb_op_slot. */
#define SB_CUDA_OPERATION(NUMBER, name, scratch, what)                                             \
    sb_status sb_cuda_##name(sb_context *ctx, const void *call);                                   \
    SB_CUDA_WORKSPACE_##scratch(                                                                   \
        sb_status sb_cuda_##name##_workspace(sb_context *ctx, const void *call, uint64_t *bytes);)
#define SB_CUDA_WORKSPACE_SCRATCH(declared) declared
#define SB_CUDA_WORKSPACE_NONE(declared)
SB_OPERATIONS(SB_CUDA_OPERATION)
SB_DEVICE_OPERATIONS(SB_CUDA_OPERATION)
#undef SB_CUDA_OPERATION

/* logprob.c, order.c, kl.c: called once the kernels are loaded. */
sb_status sb_cuda_logprob_prepare(const sb_cuda *c, sb_message *why);
sb_status sb_cuda_order_prepare(const sb_cuda *c, sb_message *why);
sb_status sb_cuda_sample_prepare(const sb_cuda *c, sb_message *why);
sb_status sb_cuda_kl_prepare(const sb_cuda *c, sb_message *why);

/* gradient.c: checks the arrays of a gradient alone (from: "" or "gradient.", the prefix of the
 * derivatives' names in messages); and only launches its kernel (lists: those of the call, as words
 * already; reported: the call has written the saved rows itself, and reported every bad row). */
typedef struct sb_cuda_lists sb_cuda_lists;
sb_status sb_cuda_check_gradient_arrays(sb_context *ctx, const sb_gradient *gradient,
                                        const sb_call *call, const char *from);
sb_status sb_cuda_launch_gradient(sb_context *ctx, const sb_gradient *gradient, const sb_call *call,
                                  const sb_cuda_lists *lists, int reported);

/* one_read.c: likewise. */
sb_status sb_cuda_one_read_prepare(sb_cuda *c, sb_message *why);

/* gradient.c: the arguments of a gradient's kernel, except for its pieces and the saved rows of a
 * call that computes them itself. */
sb_cuda_gradient_args sb_cuda_gradient_args_of(sb_context *ctx, const sb_logprob_out *out,
                                               const sb_gradient *gradient, const sb_call *call);

/* exchange.c: communicators, the functions of sb_comms. */
sb_status sb_cuda_comm_new_id(sb_context *ctx, sb_comm_id *id);
sb_status sb_cuda_comm_create(sb_context *ctx, void **comm, const sb_comm_id *id, int32_t ranks,
                              int32_t rank);
sb_status sb_cuda_comm_destroy(sb_context *ctx, void *comm);
sb_status sb_cuda_comm_abort(sb_context *ctx, void *comm);

/* stats.c: only the kernel of sb_cuda_sums; the arguments have been checked. */
sb_status sb_cuda_launch_sums(sb_context *ctx, const sb_sums_call *call);

#endif
