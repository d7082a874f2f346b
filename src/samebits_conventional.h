/* samebits_conventional.h - the control group: token logprobs as frameworks compute them.
 *
 * Nothing here is promised to keep its bits: that is what it is for. An experiment runs it beside
 * sb_logprob on the same logits, to see what it gains: drift on, drift off. Nothing in the library
 * falls back to it, and samebits.h does not know it.
 *
 * The model. Plain fp32 log_softmax and gather, each step rounded:
 *
 *   y_i = x_i / tau      m = max_i y_i      s = sum_i expf(y_i - m)
 *   token = y_id - m - logf(s)              lse = m + logf(s)
 *
 * with expf and logf as the C library and CUDA's have them, and with sums whose order follows from
 * the launch, as it does in frameworks:
 *
 *   - Few rows: each is cut into pieces, so that every thread or multiprocessor has work. How many
 *     depends on the number of rows and on the machine. PyTorch's reductions (logsumexp, sum) do
 *     so on GPUs and, for a single row, on CPUs; so do split-vocabulary kernels.
 *   - Many rows: each is one block's (cuda) or one thread's (cpu). The block's size depends on V.
 *   - Inside a piece, vectors are loaded from aligned addresses, and what stands before them is
 *     added by itself: how a row is summed depends on where it begins in memory, for V that is not
 *     a multiple of the vector on its position in the batch. PyTorch's softmax kernel does so on
 *     GPUs; on CPUs Eigen and the loops that compilers peel.
 *   - A sequence's logprob is a sum in fp32, too: on cpu in the order of positions, on cuda by a
 *     warp, 32 positions apart.
 *
 * There is no noise in it and there are no atomics: the same call, on the same memory, on a context
 * with the same threads, gives the same bits again. Another batch size, place, alignment, thread
 * count, GPU or C library may not. Each single result is an honest one, within what fp32 allows
 * (i over the finite y_i; the rest being -inf):
 *
 *   |error of token or lse| <= 2^-24 * (10 max_i |y_i| + 3 ln V + 10 + chain)
 *
 * where chain, the longest chain of additions, is at most V / 32 + 80 + the row's pieces
 * (spec/control/conventional_spec.lua adds the steps up). */
#ifndef SAMEBITS_CONVENTIONAL_H
#define SAMEBITS_CONVENTIONAL_H

#include "samebits.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ffi begin */

/* Scores a batch conventionally. Which rows are active, what a bad id or temperature does, where
 * results stand: all as for sb_logprob. Else: a NaN has any encoding; an empty row (all -inf) has
 * the lse -inf; a token may be above 0 by a rounding.
 *
 * launch: split and, on cuda, threads choose the launch's shape, hence bits; check and stream as
 * for sb_logprob. workspace, needed and cluster must not be set: the call allocates its scratch
 * memory. On cuda a context's first call loads the kernels, and may not be captured into a graph.
 *
 * Errors: sb_logprob's. Deterministic across: nothing but repetition. */
SB_API sb_status sb_conventional_logprob(sb_context *ctx, const sb_logprob_out *out,
                                         const sb_batch *batch, const sb_launch *launch);

/* ffi end */

#ifdef __cplusplus
}
#endif

#endif /* SAMEBITS_CONVENTIONAL_H */
