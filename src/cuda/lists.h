/* lists.h - lists of kept ids as words in scratch memory, for operations whose kernels take words.
 * An operation plans with the call that sb_cuda_lists_of has changed; launches lists_words; and
 * puts the words into the arguments of its kernels. */
#ifndef SB_CUDA_LISTS_H
#define SB_CUDA_LISTS_H

#include "cuda/cuda.h"

/* Scratch of a call's lists: the words of each row, and two bytes for each row, which say whether
 * it is refused and whether its target is not kept. bytes is 0 if the call has no lists, otherwise
 * a multiple of 256. */
struct sb_cuda_lists {
    int64_t stride; /* words from row to row; 0: no words */
    uint64_t words, rows, bytes;
    CUdeviceptr scratch; /* set by sb_cuda_launch_words */
};

sb_cuda_lists sb_cuda_lists_of(const sb_call *call);

/* The same without words: only the two bytes. */
sb_cuda_lists sb_cuda_list_bytes_of(const sb_call *call);

/* The call as it is planned: with words in place of lists. Their address is not the final one. */
sb_call sb_cuda_words_call(const sb_call *call);

/* Launches lists_words for the original call, if it has lists. of_q: the call is the q of a
 * divergence. */
sb_status sb_cuda_launch_words(sb_context *ctx, const sb_call *call, sb_cuda_lists *lists,
                               CUdeviceptr scratch, int of_q);

/* Sets the members of a kernel's arguments that depend on the words, if there are lists. */
void sb_cuda_use_words(sb_cuda_args *a, const sb_cuda_lists *lists);

/* logprob.c: the kernels for the logprobs of a call whose logits are those of its lists' entries,
 * fp32, and the scratch memory that they need. */
uint64_t sb_cuda_gathered_bytes(const sb_cuda *c, const sb_logprob_call *logprob);
sb_status sb_cuda_launch_gathered(sb_context *ctx, const sb_logprob_call *logprob,
                                  CUdeviceptr scratch);

#endif
