/* accumulator.c - checks that a state depends only on the set of leaves, and not on their order,
 * the tree of merges or the split into parts. */
#include "det/accumulator.h"

#include <stdio.h>
#include <string.h>

#include "det/sum.h"
#include "spec.h"

#define MOST 400

/* Leaves whose octaves are spread over about 2^spread, so that the window moves rarely (small
 * spread) or often (large spread). */
static int make_leaves(sb_leaf *leaf, uint64_t *seed)
{
    int n = (int)(next_random(seed) % MOST), spread = (int)(next_random(seed) % 22);
    int32_t centre = (int32_t)(next_random(seed) % (1u << 21)) - (1 << 20);
    for (int i = 0; i < n; i++) {
        int32_t A = centre + (int32_t)(next_random(seed) % (2u << spread)) - (1 << spread);
        if (A > 1 << 21) A = 1 << 21;
        if (A < -(1 << 21)) A = -(1 << 21);
        leaf[i].A = A & ~1;
        leaf[i].M = (1u << 23) + (uint32_t)(next_random(seed) % ((1u << 29) - (1u << 23) + 1));
    }
    return n;
}

static void shuffle(sb_leaf *leaf, int n, uint64_t *seed)
{
    for (int i = n - 1; i > 0; i--) {
        int k = (int)(next_random(seed) % (uint64_t)(i + 1));
        sb_leaf swap = leaf[i];
        leaf[i] = leaf[k];
        leaf[k] = swap;
    }
}

/* Adds the leaves in order to one state. */
static sb_state in_order(const sb_leaf *leaf, int n, int poisoned)
{
    sb_state s;
    sb_state_init(&s, 1.0f);
    for (int i = 0; i < n; i++) sb_state_add(&s, &leaf[i]);
    if (poisoned) sb_state_poison(&s);
    return s;
}

/* Cuts the leaves into parts at random places and merges the states of the parts as a random tree.
 * Poison, if any, enters in one part. */
static sb_state in_tree(const sb_leaf *leaf, int n, int poisoned, uint64_t *seed)
{
    sb_state left, right;
    int cut;
    if (n < 2 || next_random(seed) % 8 == 0) {
        left = in_order(leaf, n / 2, poisoned);
        for (int i = n / 2; i < n; i++) sb_state_add(&left, &leaf[i]);
        return left;
    }
    cut = (int)(next_random(seed) % (uint64_t)(n + 1));
    left = in_tree(leaf, cut, poisoned && (next_random(seed) & 1), seed);
    right = in_tree(leaf + cut, n - cut, poisoned, seed);
    if (next_random(seed) & 1) {
        sb_state_merge(&left, &right);
        return left;
    }
    sb_state_merge(&right, &left);
    return right;
}

int check_accumulator_order(void)
{
    static sb_leaf leaf[MOST];
    uint64_t seed = 1;
    int wrong = 0, rounds = 20000;
    for (int round = 0; round < rounds; round++) {
        int n = make_leaves(leaf, &seed), poisoned = next_random(&seed) % 16 == 0;
        sb_state want = in_order(leaf, n, poisoned), got;
        shuffle(leaf, n, &seed);
        got = in_tree(leaf, n, poisoned, &seed);
        wrong += memcmp(&want, &got, sizeof want) != 0;
    }
    printf("%d sets of up to %d leaves: %d differ\n", rounds, MOST, wrong);
    return wrong == 0 && sizeof(sb_state) == 32;
}

/* The state by its definition: J is the largest digit that any leaf starts in, and every digit of
 * the window is the sum of all low halves that start in it and all high halves that start one digit
 * below it. */
static sb_state by_definition(const sb_leaf *leaf, int n)
{
    sb_state s;
    sb_state_init(&s, 1.0f);
    for (int i = 0; i < n; i++) {
        uint32_t j = (uint32_t)(leaf[i].A + 4194304) / 32;
        if (j > s.J) s.J = j;
    }
    for (int k = 0; k < 3; k++)
        for (int i = 0; i < n; i++) {
            uint32_t a = (uint32_t)(leaf[i].A + 4194304), digit = s.J - 1 + (uint32_t)k;
            uint64_t w = (uint64_t)leaf[i].M << (a % 32);
            if (a / 32 == digit) s.l[k] += w % 4294967296u;
            if (a / 32 + 1 == digit) s.l[k] += w / 4294967296u;
        }
    return s;
}

int check_accumulator_window(void)
{
    static sb_leaf leaf[MOST];
    uint64_t seed = 2;
    int wrong = 0, rounds = 20000;
    for (int round = 0; round < rounds; round++) {
        int n = make_leaves(leaf, &seed);
        sb_state want = by_definition(leaf, n), got = in_order(leaf, n, 0);
        wrong += memcmp(&want, &got, sizeof want) != 0;
    }
    printf("%d sets of up to %d leaves: %d differ\n", rounds, MOST, wrong);
    return wrong == 0;
}

/* A random logprob: 0, or negative with a magnitude in [2^-54, 2^22). */
static float make_logprob(uint64_t *seed)
{
    uint64_t z = next_random(seed);
    if (z % 32 == 0) return 0.0f;
    return sb_float(0x80000000u | (uint32_t)(73 + (z >> 8) % 76) << 23 | (uint32_t)(z >> 41));
}

/* The same sum in steps of 2^-80, as 13 binary 16-bit digits that are carried after every
 * addition. */
static float sum_by_digits(const float *lp, int n)
{
    uint32_t digit[16] = { 0 };
    int top = -1, cut;
    uint32_t q = 0, half, sticky = 0;
    for (int i = 0; i < n; i++) {
        uint32_t b = sb_bits32(lp[i]) & 0x7fffffffu, carry = 0;
        if (b == 0) continue;
        for (int bit = 0; bit < 24; bit++) {
            int place = (int)(b >> 23) - 70 + bit;
            if (!(((b & 0x7fffffu) | 0x800000u) >> bit & 1)) continue;
            carry = 1u << (place % 16);
            for (int d = place / 16; carry; d++) {
                digit[d] += carry;
                carry = digit[d] >> 16;
                digit[d] &= 0xffff;
            }
        }
    }
    for (int i = 0; i < 256; i++)
        if (digit[i / 16] >> (i % 16) & 1) top = i;
    if (top < 0) return 0.0f;
    cut = top - 23;
    for (int i = top; i >= cut; i--) q = q << 1 | (digit[i / 16] >> (i % 16) & 1);
    half = digit[(cut - 1) / 16] >> ((cut - 1) % 16) & 1;
    for (int i = 0; i < cut - 1; i++) sticky |= digit[i / 16] >> (i % 16) & 1;
    q += half & (sticky | (q & 1));
    return -((float)q * sb_float((uint32_t)(cut - 80 + 127) << 23));
}

int check_sum_order(void)
{
    float lp[64];
    uint64_t seed = 3;
    int wrong = 0, single = 0, rounds = 20000;
    for (int round = 0; round < rounds; round++) {
        int n = (int)(next_random(&seed) % 64);
        sb_sum up, down;
        for (int i = 0; i < n; i++) lp[i] = make_logprob(&seed);
        /* exactly half a unit in the last place, which makes a tie */
        if (n > 1 && round % 4 == 0) {
            lp[0] = -sb_float(100u << 23 | (uint32_t)(next_random(&seed) >> 41));
            lp[1] = -sb_float(76u << 23);
            n = 2;
        }
        sb_sum_init(&up);
        sb_sum_init(&down);
        for (int i = 0; i < n; i++) {
            sb_sum_add(&up, lp[i]);
            sb_sum_add(&down, lp[n - 1 - i]);
        }
        wrong += sb_bits32(sb_sum_round(&up)) != sb_bits32(sum_by_digits(lp, n));
        wrong += sb_bits32(sb_sum_round(&up)) != sb_bits32(sb_sum_round(&down));
        if (n > 0) {
            sb_sum_init(&up);
            sb_sum_add(&up, lp[0]);
            single += (sb_bits32(sb_sum_round(&up)) ^ sb_bits32(lp[0])) != 0;
        }
    }
    printf("%d sums of up to 64 logprobs: %d wrong, %d of one logprob not its own bits\n", rounds,
           wrong, single);
    return wrong == 0 && single == 0;
}
