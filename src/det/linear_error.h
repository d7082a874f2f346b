/* linear_error.h - how far the logits of a row can be from the exact products of its hidden state
 * and the weights. See docs/numerics.md, section "Linear: a row's own bound", for the proof.
 *
 * What rounding loses of a row is known from three sums of integers over its elements, which cuts
 * of D add up, and which give three norms. A head has the largest of each norm over its rows. */
#ifndef SB_DET_LINEAR_ERROR_H
#define SB_DET_LINEAR_ERROR_H

#include "linear.h"
#include "root.h"

/* N, R and L of numerics.md: the squares of the integers; of 2^16 times what rounding to them
 * loses, rounded up; of their last digits. Below 2^61, 2^45 and 2^29. */
typedef struct sb_linear_sums {
    uint64_t size, loss, last;
} sb_linear_sums;

/* The norms of a row, or the largest of a head's rows, with the largest E. */
typedef struct sb_linear_norms {
    double size, loss, last;
    int32_t E;
    uint32_t reserved; /* 0 */
} sb_linear_norms;

/* Adds an element to the sums of a row that is not bad. factor: sb_linear_factor. All steps but the
 * product are exact; a product that underflows is 0 or near it, and loses 2^-16 of a unit. */
SB_DET void sb_linear_sums_add(sb_linear_sums *s, float x, float factor)
{
    const float u = x * factor;
    const float y = sb_float(sb_bits32(u) & 0x7fffffffu);
    const float z = y + 0x1p+23f; /* as in sb_linear_integer */
    const float rest = (y - (z - 0x1p+23f)) * 0x1p+16f;
    const float r = sb_float(sb_bits32(rest) & 0x7fffffffu);
    const float w = r + 0x1p+23f;
    const uint32_t n = sb_bits32(z) - 0x4b000000u, whole = sb_bits32(w) - 0x4b000000u;
    const uint32_t lost = whole + (w - 0x1p+23f < r) + (y == 0.0f && sb_linear_magnitude(x) != 0);
    const int32_t last = (int32_t)((n + 128) & 255) - 128; /* of -n: the same but for its sign */
    s->size += (uint64_t)n * n;
    s->loss += (uint64_t)lost * lost;
    s->last += (uint32_t)(last * last);
}

/* 2^e. Requires: -1022 <= e <= 1023. */
SB_DET double sb_linear_power(int32_t e) { return sb_double((uint64_t)(int64_t)(e + 1023) << 52); }

/* The root of a sum, in units of 2^e. */
SB_DET double sb_linear_norm(uint64_t sum, int32_t e)
{
    return sb_root64((double)sum) * sb_linear_power(e);
}

/* The norms of a row of integers of `bits` bits. */
SB_DET sb_linear_norms sb_linear_norms_of(const sb_linear_sums *s, int32_t E, int32_t bits)
{
    sb_linear_norms norms;
    const int32_t unit = E - bits + 1;
    norms.size = sb_linear_norm(s->size, unit);
    norms.loss = sb_linear_norm(s->loss, unit - 16);
    norms.last = sb_linear_norm(s->last, unit);
    norms.E = E;
    norms.reserved = 0;
    return norms;
}

/* The norms of no row. */
SB_DET sb_linear_norms sb_linear_no_norms(void)
{
    sb_linear_norms none;
    none.size = none.loss = none.last = 0.0;
    none.E = SB_LINEAR_E_MIN;
    none.reserved = 0;
    return none;
}

/* Takes the larger of each. */
SB_DET void sb_linear_norms_merge(sb_linear_norms *into, const sb_linear_norms *from)
{
    if (from->size > into->size) into->size = from->size;
    if (from->loss > into->loss) into->loss = from->loss;
    if (from->last > into->last) into->last = from->last;
    if (from->E > into->E) into->E = from->E;
}

/* The bound of a row of hidden states beside a head of 2 or 3 digits per weight. */
SB_DET float sb_linear_bound(const sb_linear_norms *hidden, const sb_linear_norms *head,
                             int32_t planes)
{
    const double third = planes == 2 ? hidden->last * head->last
                                     : sb_linear_power(hidden->E + head->E - 31);
    const double size = (hidden->size + hidden->loss) * head->loss;
    const double sum = (size + hidden->loss * head->size) + third;
    return (float)((1.0 + 0x1p-20) * sum);
}

#endif
