/* exp2_avx2.c - evaluates the exp2 polynomial with the vector operations of the avx2 path. */
#include "cpu/isa.h"
#include "spec.h"

#if defined(__x86_64__)

#include "cpu/simd_avx2.h"

static int compute(float *p, const float *r, int64_t n)
{
    for (int64_t i = 0; i < n; i += W) {
        float in[W] = { 0 }, out[W];
        int64_t here = n - i < W ? n - i : W;
        vf x, y;
        memcpy(in, r + i, (size_t)here * sizeof *in);
        x = vf_load_f32(in, 0);
        y = SB_EXP2_HORNER(vf_fma, vf_splat, x);
        memcpy(out, &y, sizeof out);
        memcpy(p + i, out, (size_t)here * sizeof *out);
    }
    return 1;
}

#if defined(__clang__)
#pragma clang attribute pop
#endif

int exp2_avx2(float *p, const float *r, int64_t n)
{
    return sb_isa_avx2.available() && compute(p, r, n);
}

#else

int exp2_avx2(float *p, const float *r, int64_t n)
{
    (void)p, (void)r, (void)n;
    return 0;
}

#endif
