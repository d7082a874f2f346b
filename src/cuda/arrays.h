/* arrays.h - checks of a call's arrays, before kernels use them. Each array must be memory that the
 * GPU can access, be aligned to its elements, and extend over all that the call reads or writes.
 *
 * The driver knows allocations rather than arrays: an array that ends too early inside a larger
 * allocation, as those of frameworks are, is not detected. Each check is one query per pointer,
 * which is also allowed during a capture. */
#ifndef SB_CUDA_ARRAYS_H
#define SB_CUDA_ARRAYS_H

#include "backend.h"

typedef struct sb_cuda_array {
    const char *name;
    const void *data; /* null: the call has no such array */
    size_t align;
    uint64_t bytes; /* that the call uses, from data on; 0: it does not use data */
} sb_cuda_array;

/* Refuses the first array that fails a check; the message names it. */
sb_status sb_cuda_check_arrays(sb_context *ctx, const sb_cuda_array *arrays, size_t count);

/* Checks the arrays of a batch, its outputs and its workspace. */
sb_status sb_cuda_check_call_arrays(sb_context *ctx, const sb_logprob_out *out,
                                    const sb_call *call);

/* Checks the two arrays of records. from: "from." or "", the prefix of their names in messages. */
sb_status sb_cuda_check_records(sb_context *ctx, const sb_records *records, int64_t count,
                                const char *from);

/* Bytes of count elements; UINT64_MAX if the product is larger. */
uint64_t sb_cuda_bytes(int64_t count, uint64_t size);

/* Bytes that strided rows span: sequences of `time` rows each, batch_stride elements apart, whose
 * rows are row_stride elements apart; the last row is width elements wide. */
uint64_t sb_cuda_span(int64_t batch, int64_t time, int64_t batch_stride, int64_t row_stride,
                      int64_t width, uint64_t size);

#endif
