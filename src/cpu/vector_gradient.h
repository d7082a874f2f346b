/* vector_gradient.h - the gradient at some of a row's logits, with the arithmetic of
 * det/gradient.h. Each instruction-set file includes it and so compiles it for its own
 * instructions; the loops are written for the compiler to vectorise. */
#ifndef SB_CPU_GRADIENT_H
#define SB_CPU_GRADIENT_H

#include <string.h>

#include "det/convert.h"
#include "det/gradient.h"
#include "samebits.h"

#define GRADIENT_BLOCK 256 /* logits read before any is written, since grad may be the logits */

static inline __attribute__((always_inline)) void gradient_block(float *out, const float *x,
                                                                 const sb_gradient_row *row, int of)
{
    const sb_gradient_row g = *row;
    for (int i = 0; i < GRADIENT_BLOCK; i++) out[i] = sb_gradient_nan(sb_gradient_at(x[i], &g, of));
}

static inline __attribute__((always_inline)) void load_block(float *x, const void *from,
                                                             int32_t dtype, size_t n)
{
    uint16_t half[GRADIENT_BLOCK] = { 0 };
    if (dtype == SB_F32) {
        memcpy(x, from, n * 4);
        return;
    }
    memcpy(half, from, n * 2);
    if (dtype == SB_F16)
        for (int i = 0; i < GRADIENT_BLOCK; i++) x[i] = sb_from_f16(half[i]);
    else
        for (int i = 0; i < GRADIENT_BLOCK; i++) x[i] = sb_from_bf16(half[i]);
}

static inline __attribute__((always_inline)) void store_block(void *to, int32_t dtype,
                                                              const float *out, size_t n)
{
    uint16_t half[GRADIENT_BLOCK];
    if (dtype == SB_F32) {
        memcpy(to, out, n * 4);
        return;
    }
    if (dtype == SB_F16)
        for (int i = 0; i < GRADIENT_BLOCK; i++) half[i] = sb_to_f16(out[i]);
    else
        for (int i = 0; i < GRADIENT_BLOCK; i++) half[i] = sb_to_bf16(out[i]);
    memcpy(to, half, n * 2);
}

static void gradient(void *grad, int32_t grad_dtype, const void *logits, int32_t logits_dtype,
                     int64_t n, const sb_gradient_row *g, int of)
{
    const int64_t to_size = grad_dtype == SB_F32 ? 4 : 2, size = logits_dtype == SB_F32 ? 4 : 2;
    float x[GRADIENT_BLOCK] = { 0 }, out[GRADIENT_BLOCK];
    for (int64_t first = 0; first < n; first += GRADIENT_BLOCK) {
        size_t here = (size_t)(n - first < GRADIENT_BLOCK ? n - first : GRADIENT_BLOCK);
        load_block(x, (const char *)logits + first * size, logits_dtype, here);
        if (of == SB_OF_TOKEN) gradient_block(out, x, g, SB_OF_TOKEN);
        else if (of == SB_OF_ENTROPY) gradient_block(out, x, g, SB_OF_ENTROPY);
        else gradient_block(out, x, g, SB_OF_TOKEN | SB_OF_ENTROPY);
        store_block((char *)grad + first * to_size, grad_dtype, out, here);
    }
}

#endif
