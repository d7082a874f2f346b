/* lists_args.h - what lists_words of kernels/lists.cu is told in sb_cuda_lists_args.of_q. */
#ifndef SB_CUDA_LISTS_ARGS_H
#define SB_CUDA_LISTS_ARGS_H

#define SB_LISTS_OF_Q 1       /* the batch is the q of a divergence */
#define SB_LISTS_CONTINUE 2   /* there are rows in front, so offsets need not begin at 0 */
#define SB_LISTS_UNFINISHED 4 /* there are rows behind, so they need not end at kept_count */

#endif
