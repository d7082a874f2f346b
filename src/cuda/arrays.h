/* arrays.h - the arrays that a call is given, before kernels use them: each must be memory
 * that the GPU reaches, aligned to its elements, and as long as the call reads or writes.
 *
 * The driver knows allocations, not arrays: one that ends too early inside a larger allocation, as
 * frameworks cut theirs out of, is not seen. One query a pointer, also under a capture. */
#ifndef SB_CUDA_ARRAYS_H
#define SB_CUDA_ARRAYS_H

#include "backend.h"

typedef struct sb_cuda_array {
    const char *name;
    const void *data; /* null: not given */
    size_t align;
    uint64_t bytes; /* that the call uses, from there on; 0: it does not look at data */
} sb_cuda_array;

/* Refuses the first array that is not as it must be, by name. */
sb_status sb_cuda_check_arrays(sb_context *ctx, const sb_cuda_array *arrays, size_t count);

/* Those of a batch, its outputs and its workspace. */
sb_status sb_cuda_check_call_arrays(sb_context *ctx, const sb_logprob_out *out,
                                    const sb_call *call);

/* records: so many of each kind; from: "from." or "", what their names begin with. */
sb_status sb_cuda_check_records(sb_context *ctx, const sb_records *records, int64_t count,
                                const char *from);

/* Bytes of count elements; the largest number where they are more. */
uint64_t sb_cuda_bytes(int64_t count, uint64_t size);

/* Bytes that strided rows span: of sequences of time rows each, batch_stride and row_stride
 * elements apart, the last row being width elements wide. */
uint64_t sb_cuda_span(int64_t batch, int64_t time, int64_t batch_stride, int64_t row_stride,
                      int64_t width, uint64_t size);

#endif
