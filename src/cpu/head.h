/* head.h - heads on the CPU: how their memory is laid out, how hidden states are packed, and what
 * the instruction-set paths give for their products.
 *
 * A head's memory, each part padded to 256 bytes:
 *
 *     form     sb_head_form, and from SB_HEAD_NORMS on the norms, if there are any
 *     E        int8 [groups * 16]    of each id; SB_LINEAR_E_BAD for a bad row of weights
 *     bias     fp32 [groups * 16]    if there is a bias
 *     digits   int8 [groups][K / 4][planes][16][4]
 *
 * A group is 16 consecutive ids, a leaf. K is D, padded with zeros to a multiple of 64. Four
 * elements of 16 ids are 64 bytes: one vector of AVX-512, two of AVX2, and with the next 15 of them
 * one tile of AMX. All products of a group with some rows of hidden states are made at once, so
 * that the digits are read once for these rows. */
#ifndef SB_CPU_HEAD_H
#define SB_CPU_HEAD_H

#include "api/call.h"
#include "det/linear_error.h"

#define SB_CPU_HEAD_LAYOUT 2 /* sb_heads.layout */
#define SB_CPU_HEAD_K 64     /* K is a multiple of this */

/* The parts of a head's memory. */
typedef struct sb_cpu_head_parts {
    int64_t groups, K;
    int planes;      /* digits per weight: 2 or 3 */
    int64_t group;   /* bytes of a group's digits */
    int64_t E, bias; /* offsets into the memory; bias 0: there is none */
    int64_t digits, bytes;
} sb_cpu_head_parts;
sb_cpu_head_parts sb_cpu_head_of(const sb_head_form *form);

extern const sb_heads sb_cpu_heads;

/* Bytes from one packed hidden state to the next: 4 per element, and 64 more, so that the same
 * element of several states is not in the same set of a cache. */
static inline int64_t sb_cpu_pitch(int64_t K) { return 4 * K + 64; }

/* How one instruction set computes products. Both functions run in the contract's floating-point
 * mode, and use no floats. */
typedef struct sb_product_isa {
    const char *name;
    int (*available)(void);
    /* Packs the integers first .. first + n - 1 of the K of a hidden state, at a multiple of 64.
     * first and n are multiples of 64; the first integers come first. */
    void (*pack)(void *packed, const int32_t *q, int64_t first, int64_t n, int64_t K);
    /* Computes the exact products of `rows` packed hidden states, 1 .. SB_CPU_HEAD_ROWS of them,
     * with the 16 ids of a group: T of h24w16, the whole sum of h24w24. */
    void (*products)(int64_t (*sums)[SB_LEAF], const int8_t *digits, const void *packed, int rows,
                     int64_t K, int planes);
} sb_product_isa;

#define SB_CPU_HEAD_ROWS 16

extern const sb_product_isa sb_products_amx, sb_products_avx512, sb_products_avx2,
    sb_products_scalar;

/* Two ways to pack, as sb_product_isa has them: pairs of int16, and digits. */
void sb_cpu_pack_pairs(void *packed, const int32_t *q, int64_t first, int64_t n, int64_t K);
void sb_cpu_pack_digits(void *packed, const int32_t *q, int64_t first, int64_t n, int64_t K);

/* The sums of a leaf from its levels, 2 * planes - 1 of them: det/linear.h. */
void sb_cpu_add_levels(int64_t sums[SB_LEAF], const int32_t (*levels)[SB_LEAF], int planes);

#endif
