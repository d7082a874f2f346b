/* order.h - the order of a row's ids: the largest logit first, compared as real numbers (-0 equals
 * 0); among equal logits, the lower id first.
 *
 * A place is one 64-bit integer that is larger the earlier the id comes. The first k ids of any
 * sets are those with the k largest places of all the sets, so the order in which ids are processed
 * cannot matter (docs/numerics.md, section "Order of ids"). */
#ifndef SB_DET_ORDER_H
#define SB_DET_ORDER_H

#include "float.h"

#define SB_NO_PLACE 0 /* below the place of every id, even an absent one */

/* A key that rises with x and is the same for both zeros. Requires: x is not NaN. */
SB_DET uint32_t sb_order_key(float x)
{
    uint32_t b = sb_bits32(x);
    if (b == 0x80000000u) b = 0;
    return b >> 31 ? ~b : b | 0x80000000u;
}

SB_DET uint64_t sb_place_of(float x, uint32_t id)
{
    return (uint64_t)sb_order_key(x) << 32 | (0xffffffffu - id);
}

SB_DET float sb_place_logit(uint64_t place)
{
    uint32_t key = (uint32_t)(place >> 32);
    return sb_float(key >> 31 ? key & 0x7fffffffu : ~key);
}

SB_DET int32_t sb_place_id(uint64_t place) { return (int32_t)(0xffffffffu - (uint32_t)place); }

#endif
