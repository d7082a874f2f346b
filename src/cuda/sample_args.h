/* sample_args.h - the arguments of kernels/sample.cu: as args.h, for one file of kernels. */
#ifndef SB_CUDA_SAMPLE_ARGS_H
#define SB_CUDA_SAMPLE_ARGS_H

#include "args.h"

#define SB_BAD_SAMPLING 17 /* continues the list of args.h */

#define SB_CUDA_LIST_ROWS 4 /* rows of one piece per block, of the kernel that reads lists */
#define SB_CUDA_SUM 256     /* the most threads of a block that sums parts of a row */
#define SB_CUDA_PARTS                                                                              \
    512                    /* the most parts of a row; and the most threads of a block that draws
                                without filters, as each has one part */
#define SB_CUDA_FILTER 512 /* the most threads of a block that filters a row */
/* Entries of the list of each of its warps; half as many if blocks share a row. */
#define SB_CUDA_SEGMENT 512

/* in.targets: the rows' fates. With lists, which kernels/order.cu has written, in.states are its
 * states, [work]. Without, they are those of the rows' parts, [work][parts], and in.split
 * blocks sum a row. */
typedef struct sb_cuda_sample_args {
    sb_cuda_args in;
    uint64_t lists;  /* uint64 [work][SB_CUDA_LIST]; or 0 */
    uint64_t mosts;  /* float [work][parts]: the parts' largest logits; or 0 */
    uint64_t models; /* sb_state [work][model_split], of rows without their kept sets; or 0:
                        in.states are the model's */
    uint64_t token, logprob, kept_logprob, count, kept;                  /* outputs, or 0 */
    uint64_t top_ks, top_ps, min_ps, seeds, streams, positions, u, bits; /* per row, or 0 */
    uint64_t seed, stream, position;
    int32_t model_split;
    int32_t parts, part, each; /* of a row; leaves of a part; parts of a warp that sums */
    int32_t crew;              /* blocks that share a row, of kernels with filters */
    int32_t segment;           /* entries of the list of each of their warps */
    int32_t early;             /* 1: blocks that draw begin while rows are summed; 2: and those of
                                  the next kernel while tokens are drawn */
    int32_t top_k;
    float top_p, min_p;
} sb_cuda_sample_args;

#endif
