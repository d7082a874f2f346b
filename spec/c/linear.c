/* linear.c - checks the linear head's integers, digits, levels and logits against sums in 128 bits
 * and long double, over cuts and permutations of D, and its softcap against tanh in long double. */
#include "det/linear.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "det/finish.h"
#include "spec.h"

enum { MOST = 300, ROUNDS = 6000, PARTS = 64, STRIDE = 2039 };

/* A row: elements, their integers and E. */
typedef struct side {
    float x[MOST];
    int32_t n[MOST], E;
} side;

/* Rows whose exponents spread over `spread` octaves about 2^shift, with ties and short mantissas
 * among them. */
static void fill(side *s, int D, uint64_t *seed)
{
    const int spread = 1 << (next_random(seed) % 6), shift = (int)(next_random(seed) % 80) - 40;
    const uint32_t mask = next_random(seed) & 1 ? 0x807fffffu : 0x807f0000u;
    for (int d = 0; d < D; d++) {
        const uint64_t z = next_random(seed);
        const int e = 127 + shift - (int)((z >> 32) % (uint64_t)spread);
        s->x[d] = sb_float(((uint32_t)z & mask) | (uint32_t)(e < 0 ? 0 : e) << 23);
    }
}

static int32_t scale_of(const side *s, int D)
{
    uint32_t a = 0;
    for (int d = 0; d < D; d++) {
        const uint32_t m = sb_linear_magnitude(s->x[d]);
        a = m > a ? m : a;
    }
    return sb_linear_E(a);
}

/* Rounds again, in long double, which holds every product. */
static int integers(side *s, int D, int bits)
{
    const int32_t limit = bits == 24 ? 8355584 : 32639;
    int wrong = 0;
    s->E = scale_of(s, D);
    for (int d = 0; d < D; d++) {
        const long double u = ldexpl((long double)s->x[d], bits - 1 - s->E);
        const uint32_t digits = sb_linear_digits24(
            s->n[d] = sb_linear_integer(s->x[d], sb_linear_factor(s->E, bits)));
        const int32_t h2 = sb_linear_digit(digits, 0), upper = sb_linear_upper(s->n[d]);
        wrong += (long double)s->n[d] != rintl(u) || abs(s->n[d]) > limit;
        wrong += sb_linear_digit(digits, 2) * 65536 + sb_linear_digit(digits, 1) * 256 + h2 !=
                     s->n[d] ||
                 upper * 256 + h2 != s->n[d] || abs(sb_linear_digit(digits, 2)) > 127;
    }
    return wrong;
}

static void levels(const side *h, const side *w, const int *order, int from, int to, int digits,
                   int32_t L[5])
{
    for (int i = from; i < to; i++) {
        const uint32_t a = sb_linear_digits24(h->n[order[i]]);
        const uint32_t b = digits == 3 ? sb_linear_digits24(w->n[order[i]])
                                       : sb_linear_digits16(w->n[order[i]]);
        for (int p = 0; p < 3; p++)
            for (int q = 0; q < digits; q++)
                if (digits == 3 || p + q < 3)
                    L[p + q] += sb_linear_digit(a, 2 - p) * sb_linear_digit(b, digits - 1 - q);
    }
}

/* The fp32 nearest to T * 2^e, ties to even, by integers alone. */
static float nearest(int64_t T, int e)
{
    uint64_t m = T < 0 ? (uint64_t)-T : (uint64_t)T;
    float x;
    if (m >> 24) {
        const int cut = sb_top64(m) - 23;
        const uint64_t rest = m & (((uint64_t)1 << cut) - 1), half = (uint64_t)1 << (cut - 1);
        m >>= cut;
        m += rest > half || (rest == half && (m & 1));
        e += cut;
    }
    x = (float)ldexpl((long double)m, e);
    return T < 0 ? -x : x;
}

static int wrong_pair(side *h, side *w, int D, int format, uint64_t *seed)
{
    int order[MOST], wrong = integers(h, D, 24) + integers(w, D, format == 0 ? 16 : 24);
    int32_t L[5] = { 0, 0, 0, 0, 0 };
    sb_i128 S = 0;
    int64_t T;
    for (int d = 0; d < D; d++) {
        const int k = (int)(next_random(seed) % (uint64_t)(d + 1));
        order[d] = order[k];
        order[k] = d;
    }
    for (int d = 0; d < D; d++) {
        const sb_i128 product = (sb_i128)h->n[d] * w->n[d];
        /* the product of the last digits is left out */
        const sb_i128 last = format == 0
                                 ? (sb_i128)sb_linear_digit(sb_linear_digits24(h->n[d]), 0) *
                                       sb_linear_digit(sb_linear_digits16(w->n[d]), 0)
                                 : 0;
        S += product - last;
    }
    for (int from = 0; from < D;) {
        const int to = from + 1 + (int)(next_random(seed) % (uint64_t)(D - from));
        levels(h, w, order, from, to, format == 0 ? 2 : 3, L);
        from = to;
    }
    if (format == 0) {
        T = sb_linear_T16(L[0], L[1], L[2]);
        wrong += (sb_i128)T * 256 != S;
    } else {
        T = sb_linear_T24(L[0], L[1], L[2], L[3], L[4]);
        wrong += T != sb_linear_T_of_sum((int64_t)S) || (sb_i128)T * 65536 > S + 32768 ||
                 (sb_i128)T * 65536 <= S - 32768;
    }
    wrong += sb_bits32(sb_linear_logit(T, h->E, w->E)) != sb_bits32(nearest(T, h->E + w->E - 30));
    return wrong;
}

int check_linear_integers(void)
{
    static side h, w;
    uint64_t seed = 18;
    int wrong = 0;
    for (int round = 0; round < ROUNDS; round++) {
        const int D = 1 + (int)(next_random(&seed) % MOST);
        fill(&h, D, &seed);
        fill(&w, D, &seed);
        wrong += wrong_pair(&h, &w, D, round & 1, &seed);
    }
    printf("%d products of rows, cut and permuted: %d wrong\n", ROUNDS, wrong);
    return wrong == 0;
}

typedef struct cap_part {
    sb_linear_steps steps;
    double worst[PARTS];
    int wrong[PARTS];
} cap_part;

static void cap_share(void *arg, int index)
{
    cap_part *p = arg;
    const float cap = p->steps.cap;
    for (uint32_t b = (uint32_t)index * STRIDE; b < SB_INF_BITS; b += PARTS * STRIDE) {
        const float x = sb_float(b), y = sb_linear_cap(x, &p->steps);
        const long double exact = (long double)cap * tanhl((long double)x / (long double)cap);
        const long double step = ldexpl(1.0L, ilogbl(exact < 0x1p-126L ? 0x1p-126L : exact) - 23);
        const double error = (double)(fabsl((long double)y - exact) / step);
        if (error > p->worst[index]) p->worst[index] = error;
        p->wrong[index] += !(y <= cap && y <= x) || (x < 0x1p-12f * cap && y != x) ||
                           (x >= 9.1f * cap && y != cap) ||
                           sb_bits32(sb_linear_cap(-x, &p->steps)) != sb_bits32(-y);
    }
}

int check_linear_cap(void)
{
    static const float caps[] = { 30.0f, 50.0f, 0x1p-10f, 0x1p+20f, 17.3f };
    static cap_part p;
    double worst = 0;
    int wrong = 0;
    for (int i = 0; i < 5; i++) {
        p = (cap_part){ .steps = sb_linear_steps_of(1.0f, caps[i]) };
        in_parallel(cap_share, &p, PARTS);
        for (int k = 0; k < PARTS; k++) {
            wrong += p.wrong[k];
            worst = p.worst[k] > worst ? p.worst[k] : worst;
        }
    }
    printf("every %dth fp32 under 5 caps: at most %.2f ulp from tanh, %d wrong\n", STRIDE, worst,
           wrong);
    return worst < 2.0 && wrong == 0;
}
