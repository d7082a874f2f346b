/* exp2.c - checks the exp2 polynomial at every fp32 that it can be given: all of [-1/2, 1/2]. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#if defined(__x86_64__) && !defined(__clang__)
#pragma GCC target("avx2,fma") /* for speed only: the same operations, vectorised */
#endif

#include "det/exp2.h"
#include "spec.h"

#define TINY_BITS 0x32000000u /* 2^-27; below it, 1 is the only correct result */
#define HALF_BITS 0x3f000000u /* the encodings of [0, 1/2] are 0 .. this */
#define PARTS 126
#define STEP (HALF_BITS / PARTS) /* divides evenly; the last part also takes 1/2 itself */
#define CHUNK 4096

/* 2^r by the Taylor series of exp(r ln 2) up to degree 13, in fp64. The first omitted term is below
 * 2e-18, the rounding errors are below 1e-15. */
static double reference(double r)
{
    static const double inverse[] = { 1.0,
                                      1.0,
                                      1.0 / 2,
                                      1.0 / 6,
                                      1.0 / 24,
                                      1.0 / 120,
                                      1.0 / 720,
                                      1.0 / 5040,
                                      1.0 / 40320,
                                      1.0 / 362880,
                                      1.0 / 3628800,
                                      1.0 / 39916800,
                                      1.0 / 479001600,
                                      1.0 / 6227020800 };
    double x = r * 0x1.62e42fefa39efp-1, p = inverse[13];
    for (int k = 12; k >= 0; k--) p = __builtin_fma(p, x, inverse[k]);
    return p;
}

typedef struct worst {
    double error; /* the largest relative error */
    float least, most;
    int64_t misrounded, far; /* results that are not the nearest fp32; more than an ulp from it */
} worst;

/* Counts the results at r and -r that are not exactly 1, for the n encodings of tiny r that start
 * at b. Four fifths of all encodings are tiny. There, 2^r is within 2^-27 of 1, so no reference is
 * needed. */
static int64_t not_one(uint32_t b, int n)
{
    int32_t wrong = 0;
    for (int i = 0; i < n; i++) {
        float r = sb_float(b + (uint32_t)i);
        wrong += (sb_bits32(sb_exp2(r)) != 0x3f800000u) + (sb_bits32(sb_exp2(-r)) != 0x3f800000u);
    }
    return wrong;
}

static void scan(void *arg, int part)
{
    worst *w = (worst *)arg + part;
    uint32_t first = (uint32_t)part * STEP, last = part == PARTS - 1 ? HALF_BITS + 1 : first + STEP;
    w->least = 2.0f;
    for (uint32_t b = first; b < last; b += CHUNK) {
        float p[2 * CHUNK];
        double t[2 * CHUNK];
        int n = (int)(last - b < CHUNK ? last - b : CHUNK);
        if (b + (uint32_t)n <= TINY_BITS) {
            w->far += not_one(b, n);
            continue;
        }
        for (int i = 0; i < n; i++) {
            float r = sb_float(b + (uint32_t)i);
            p[i] = sb_exp2(r);
            p[CHUNK + i] = sb_exp2(-r);
            t[i] = reference((double)r);
            t[CHUNK + i] = reference(-(double)r);
        }
        for (int half = 0; half < 2; half++)
            for (int i = half * CHUNK; i < half * CHUNK + n; i++) {
                double error = fabs((double)p[i] - t[i]) / t[i];
                int32_t ulps = (int32_t)sb_bits32(p[i]) - (int32_t)sb_bits32((float)t[i]);
                w->error = error > w->error ? error : w->error;
                w->least = p[i] < w->least ? p[i] : w->least;
                w->most = p[i] > w->most ? p[i] : w->most;
                w->misrounded += ulps != 0;
                w->far += ulps > 1 || ulps < -1;
            }
    }
}

int check_exp2_all(void)
{
    static worst w[PARTS];
    worst all = { 0, 2, 0, 0, 0 };
    memset(w, 0, sizeof w);
    in_parallel(scan, w, PARTS);
    for (int i = 0; i < PARTS; i++) {
        all.error = w[i].error > all.error ? w[i].error : all.error;
        all.least = w[i].least < all.least ? w[i].least : all.least;
        all.most = w[i].most > all.most ? w[i].most : all.most;
        all.misrounded += w[i].misrounded;
        all.far += w[i].far;
    }
    printf("%u inputs: relative error at most %.4e, %lld not the nearest fp32, %lld more than an "
           "ulp off, range [%a, %a]\n",
           2 * (HALF_BITS + 1), all.error, (long long)all.misrounded, (long long)all.far,
           (double)all.least, (double)all.most);
    return all.error <= 7.4e-8 && all.far == 0 && all.least >= 0x1.6a09ep-1f &&
           all.most <= 0x1.6a09e8p+0f && sb_bits32(sb_exp2(0.0f)) == 0x3f800000u &&
           sb_bits32(sb_exp2(-0.0f)) == 0x3f800000u;
}

typedef struct same {
    int (*isa)(float *, const float *, int64_t);
    int lacking;
    int64_t different;
    uint32_t first; /* the encoding of an r at which they differ */
} same;

static void compare(void *arg, int part)
{
    same *s = (same *)arg + part;
    uint32_t first = (uint32_t)part * STEP, last = part == PARTS - 1 ? HALF_BITS + 1 : first + STEP;
    for (uint32_t b = first; b < last; b += CHUNK)
        for (uint32_t sign = 0; sign < 2; sign++) {
            float r[CHUNK], p[CHUNK];
            int32_t different;
            int n = (int)(last - b < CHUNK ? last - b : CHUNK);
            for (int i = 0; i < n; i++) r[i] = sb_float((b + (uint32_t)i) | sign << 31);
            if (!s->isa(p, r, n)) {
                s->lacking = 1;
                return;
            }
            different = 0; /* without a branch, so that the loop is vectorised */
            for (int i = 0; i < n; i++) different += sb_bits32(p[i]) != sb_bits32(sb_exp2(r[i]));
            if (different == 0) continue;
            s->different += different;
            for (int i = 0; i < n; i++)
                if (sb_bits32(p[i]) != sb_bits32(sb_exp2(r[i]))) s->first = sb_bits32(r[i]);
        }
}

static int compare_with(const char *name, int (*isa)(float *, const float *, int64_t))
{
    static same s[PARTS];
    int64_t different = 0;
    memset(s, 0, sizeof s);
    for (int i = 0; i < PARTS; i++) s[i].isa = isa;
    in_parallel(compare, s, PARTS);
    if (s[0].lacking) {
        printf("%s: not on this machine; ", name);
        return 1;
    }
    for (int i = 0; i < PARTS; i++) {
        different += s[i].different;
        if (s[i].different) printf("%s differs at r = %08x; ", name, s[i].first);
    }
    printf("%s: %lld of %u differ; ", name, (long long)different, 2 * (HALF_BITS + 1));
    return different == 0;
}

int check_exp2_isas(void)
{
    int fine = compare_with("avx2", exp2_avx2);
    fine &= compare_with("avx512", exp2_avx512);
    printf("compared with the scalar text\n");
    return fine;
}
