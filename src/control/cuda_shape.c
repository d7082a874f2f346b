/* cuda_shape.c - the control group's launch: as frameworks do, blocks sized by the
 * vocabulary, and a row cut up among blocks where there are fewer rows than multiprocessors. */
#include "control/conventional.h"
#include "det/leaf.h"

#define MAX_BLOCK 512
#define PIECE_LOGITS 4096 /* a piece is at least this long, unless split says otherwise */

sb_conventional_shape sb_conventional_shape_of(const sb_call *call, int64_t rows,
                                               int32_t multiprocessors)
{
    const int64_t vocab = call->in.vocab, width = 16 / sb_itemsize(call->in.logits_dtype);
    const int64_t leaves = (vocab + SB_LEAF - 1) / SB_LEAF; /* pieces are whole ones */
    sb_conventional_shape shape = { call->launch.split, call->launch.threads };
    if (shape.threads == 0) /* half as many as there are 16-byte vectors, a power of two */
        for (shape.threads = 32; shape.threads < MAX_BLOCK && shape.threads * width * 2 < vocab;)
            shape.threads *= 2;
    if (shape.split == 0 && rows > 0 && rows < multiprocessors) {
        int64_t split = 2 * (int64_t)multiprocessors / rows, most = vocab / PIECE_LOGITS;
        shape.split = (int32_t)(split < most ? split : most);
    }
    if (shape.split > leaves) shape.split = (int32_t)leaves;
    if (shape.split < 1) shape.split = 1;
    return shape;
}
