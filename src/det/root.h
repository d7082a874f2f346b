/* root.h - the square root of a double. */
#ifndef SB_DET_ROOT_H
#define SB_DET_ROOT_H

#include "float.h"

/* The square root, rounded to nearest even. Requires: v is +0 or a normal number. v = q * 2^e with
 * an even e; the root has 53 bits and a rest, found bit by bit. */
SB_DET double sb_root64(double v)
{
    const uint64_t b = sb_bits64(v);
    int32_t e = (int32_t)(b >> 52) - 1075;
    uint64_t q = (b & 0xfffffffffffffu) | 0x10000000000000u, root = 0, rest = 0;
    if (b == 0) return 0.0;
    if (e % 2 != 0) {
        q <<= 1;
        e--;
    }
    /* q < 2^54 stands for q * 2^54, a square root of which has 54 bits: 53 and one more. */
    for (int32_t pair = 53; pair >= 0; pair--) {
        const uint64_t next = pair >= 27 ? q >> (2 * (pair - 27)) & 3 : 0;
        rest = rest << 2 | next;
        root <<= 1;
        if (rest > 2 * root) {
            rest -= 2 * root + 1;
            root++;
        }
    }
    /* floor(sqrt(q * 2^54)) = root, of 53 or 54 bits; what is below its last bit is not a tie. */
    if (root >> 53) {
        const uint64_t half = root & 1;
        root >>= 1;
        root += half & (rest != 0 || (root & 1) != 0 ? 1u : 0u);
        return (double)root * sb_double((uint64_t)(int64_t)((e - 54) / 2 + 1 + 1023) << 52);
    }
    root += rest > root ? 1 : 0; /* (root + 1/2)^2 = root^2 + root + 1/4 */
    return (double)root * sb_double((uint64_t)(int64_t)((e - 54) / 2 + 1023) << 52);
}

#endif
