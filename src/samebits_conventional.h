/* samebits_conventional.h - the control group: token logprobs as frameworks compute them.
 *
 * Its results are not promised to keep their bits; that is its purpose. An experiment runs it
 * beside sb_logprob on the same logits to measure the effect of the drift. Nothing in the library
 * falls back to it, and samebits.h does not refer to it.
 *
 * The model. Plain fp32 log_softmax and gather, each step rounded:
 *
 *   y_i = x_i / tau      m = max_i y_i      s = sum_i expf(y_i - m)
 *   token = y_id - m - logf(s)              lse = m + logf(s)
 *
 * with the expf and logf of the C library or of CUDA, and with sums whose order depends on the
 * launch, as it does in frameworks:
 *
 *   - Few rows: each is cut into pieces, so that every thread or multiprocessor has work. The
 *     number of pieces depends on the number of rows and on the machine. PyTorch's reductions
 *     (logsumexp, sum) do so on GPUs and, for a single row, on CPUs; so do split-vocabulary
 *     kernels.
 *   - Many rows: one block (cuda) or one thread (cpu) computes each row. The size of the block
 *     depends on V.
 *   - Inside a piece, vectors are loaded from aligned addresses, and the logits before the first
 *     one are added separately. The order of a row's sum therefore depends on its address and, if V
 *     is not a multiple of the vector's length, on its position in the batch. PyTorch's softmax
 *     kernel does so on GPUs; on CPUs, Eigen and the loops that compilers peel do.
 *   - The logprob of a sequence is an fp32 sum, too: on cpu in the order of positions, on cuda by a
 *     warp, each lane of which adds positions that are 32 apart.
 *
 * It adds no noise and uses no atomics: the same call, on the same memory, on a context with the
 * same threads, gives the same bits again. Another batch size, place, alignment, thread count, GPU
 * or C library may give other bits. Each single result is as accurate as fp32 allows (i runs over
 * the finite y_i; the others are -inf):
 *
 *   |error of token or lse| <= 2^-24 * (10 max_i |y_i| + 3 ln V + 10 + chain)
 *
 * where chain, the longest chain of additions, is at most V / 32 + 80 + the number of pieces of the
 * row (spec/control/conventional_spec.lua adds up the steps). */
#ifndef SAMEBITS_CONVENTIONAL_H
#define SAMEBITS_CONVENTIONAL_H

#include "samebits.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ffi begin */

/* Scores a batch conventionally. Active rows, bad ids and temperatures, and the layout of results
 * are as for sb_logprob. The differences: a NaN has any encoding, an empty row (all -inf) has the
 * lse -inf, and a token may be above 0 by a rounding.
 *
 * launch: split and, on cuda, threads choose the launch's shape, hence bits; check and stream as
 * for sb_logprob. workspace, needed, cluster, table and one_read must not be set: the call
 * allocates its scratch memory. On cuda a context's first call loads the kernels, and may not be
 * captured into a graph.
 *
 * Errors: those of sb_logprob. Deterministic across: nothing but repetition. */
SB_API sb_status sb_conventional_logprob(sb_context *ctx, const sb_logprob_out *out,
                                         const sb_batch *batch, const sb_launch *launch);

/* ffi end */

#ifdef __cplusplus
}
#endif

#endif /* SAMEBITS_CONVENTIONAL_H */
