/* log2.c - compares lg with log2 in long double. For the term of a target, lg receives an fp32,
 * 2^r, and every mantissa is tried. For a sum, it receives a mantissa of 53 bits, and a sample is
 * tried that is dense at both ends of the range. */
#include <math.h>
#include <stdio.h>

#include "det/log2.h"
#include "spec.h"

/* The distance of lg's fraction from log2 of its mantissa; 1 if that mantissa and the integer part
 * do not make up u. */
static double error_at(double u)
{
    sb_lg lg = sb_log2(u);
    if (ldexp(lg.g, lg.e) != u || !(lg.g > 0x1.6a09e667f3bccp-1) || lg.g > 0x1.6a09e667f3bcdp+0)
        return 1;
    return (double)fabsl((long double)lg.f - log2l((long double)lg.g));
}

static int report(const char *what, int64_t n, double error, double at)
{
    int exact = sb_log2(1.0).e == 0 && sb_bits64(sb_log2(1.0).f) == 0 && sb_log2(8.0).e == 3 &&
                sb_bits64(sb_log2(8.0).f) == 0;
    printf("%lld %s: error at most %.3e (at %a); powers of two %s\n", (long long)n, what, error, at,
           exact ? "exact" : "WRONG");
    return error <= 1.7e-16 && exact;
}

int check_log2_mantissas(void)
{
    double worst = 0, at = 0;
    for (uint32_t m = 0; m < 1u << 23; m++) {
        /* below 1 and above it, since 2^r can be either */
        for (uint32_t e = 126; e <= 127; e++) {
            double u = (double)sb_float(e << 23 | m), error = error_at(u);
            if (error > worst) worst = error, at = u;
        }
    }
    return report("fp32 inputs", 1 << 24, worst, at);
}

int check_log2_sums(void)
{
    double worst = 0, at = 0;
    uint64_t seed = 53;
    int64_t n = 0;
    for (int i = 0; i < 4000000; i++) {
        uint64_t m = next_random(&seed) >> 12;
        double u;
        switch (i & 3) {
        case 1: m >>= 1 + (next_random(&seed) & 31); break; /* just above 1 */
        case 2: m = ~(m >> (1 + (next_random(&seed) & 31))) & 0xfffffffffffffu; break; /* below 2 */
        case 3: m = 0x6a09e667f3bcdu + (m & 0xffff) - 0x8000; break; /* about sqrt 2 */
        default: break;
        }
        u = sb_double((uint64_t)(1023 + (i % 200) - 100) << 52 | m);
        double error = error_at(u);
        if (error > worst) worst = error, at = u;
        n++;
    }
    return report("sums", n, worst, at);
}
