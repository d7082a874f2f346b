/* accumulator.h - the sum of leaves as exact integers, in a window of three 32-bit digits.
 *
 * Digit j weighs 2^(32 j - 24 - 2^22). The window consists of J, the largest digit that any leaf
 * started in, and its two neighbours. Digits below the window are dropped, each independently of
 * the others. Every digit still in the window has received all of its contributions, whatever the
 * order, and the sums l are never carried into each other. Adding leaves and merging states is
 * therefore associative and commutative, byte for byte (docs/numerics.md, section "Proofs"). */
#ifndef SB_DET_ACCUMULATOR_H
#define SB_DET_ACCUMULATOR_H

#include "float.h"
#include "leaf.h"

#define SB_BIAS 4194304 /* 2^22: a = A + SB_BIAS is positive */
#define SB_J_EMPTY 0u
#define SB_J_POISON 0x7fffffffu

/* The record that vocabulary shards exchange: 32 bytes, little-endian, the same on every
 * machine. */
typedef struct sb_state {
    uint32_t J;    /* 65536 .. 196608, SB_J_EMPTY or SB_J_POISON */
    uint32_t c;    /* the bits of the row's c */
    uint64_t l[3]; /* sums of digits J - 1, J, J + 1 */
} sb_state;

SB_DET void sb_state_init(sb_state *s, float c)
{
    s->J = SB_J_EMPTY;
    s->c = sb_bits32(c);
    s->l[0] = s->l[1] = s->l[2] = 0;
}

/* Moves the window up to J. Requires: J >= s->J. */
SB_DET void sb_state_rise(sb_state *s, uint32_t J)
{
    uint32_t rise = J - s->J;
    if (rise == 0) return;
    s->l[0] = rise == 1 ? s->l[1] : rise == 2 ? s->l[2] : 0;
    s->l[1] = rise == 1 ? s->l[2] : 0;
    s->l[2] = 0;
    s->J = J;
}

SB_DET void sb_state_poison(sb_state *s) { sb_state_rise(s, SB_J_POISON); }

SB_DET void sb_state_add(sb_state *s, const sb_leaf *leaf)
{
    uint32_t a = (uint32_t)(leaf->A + SB_BIAS);
    uint32_t j = a >> 5;
    uint64_t w = (uint64_t)leaf->M << (a & 31);
    uint64_t lo = w & 0xffffffffu, hi = w >> 32;

    if (j > s->J) sb_state_rise(s, j);
    switch (s->J - j) {
    case 0:
        s->l[1] += lo;
        s->l[2] += hi;
        break;
    case 1:
        s->l[0] += lo;
        s->l[1] += hi;
        break;
    case 2: s->l[0] += hi; break;
    default: break;
    }
}

/* into += from. Empty and poisoned states need no special case: an empty state has the smallest J,
 * a poisoned one the largest, and a rise of 3 or more zeroes the digits. */
SB_DET void sb_state_merge(sb_state *into, const sb_state *from)
{
    sb_state f = *from;
    uint32_t J = into->J > f.J ? into->J : f.J;
    sb_state_rise(into, J);
    sb_state_rise(&f, J);
    into->l[0] += f.l[0];
    into->l[1] += f.l[1];
    into->l[2] += f.l[2];
}

#endif
