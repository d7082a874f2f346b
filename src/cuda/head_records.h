/* head_records.h - the kind of a shard's records, in sb_cuda_head_args.logits_dtype: the kernels
 * have no logits to write then. */
#ifndef SB_CUDA_HEAD_RECORDS_H
#define SB_CUDA_HEAD_RECORDS_H

#define SB_CUDA_HEAD_SUMS 1 /* the values of sb_record_kind */
#define SB_CUDA_HEAD_MOMENTS 2

#endif
