/* records.c - see records.h. */
#include "records.h"

#include <math.h>
#include <string.h>

__extension__ typedef unsigned __int128 sum;

enum { EMPTY = 0, POISON = 0x7fffffff, FIRST = 65536, LAST = 196608 };

static float float_of(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, 4);
    return x;
}

uint32_t c_of(float temperature)
{
    float c = (float)(0x1.71547652b82fep+0 / (double)temperature);
    uint32_t bits;
    memcpy(&bits, &c, 4);
    return bits;
}

record record_at(const sb_state_record *states, const sb_target_record *targets, int64_t i)
{
    record r;
    memcpy(&r.state, (const char *)states + i * (int64_t)sizeof r.state, sizeof r.state);
    memcpy(&r.target, (const char *)targets + i * (int64_t)sizeof r.target, sizeof r.target);
    return r;
}

term term_of(float x, uint32_t c_bits)
{
    static const float coefficients[] = { 0x1.44138ap-13f,
                                          0x1.5f0890p-10f,
                                          0x1.3b2a54p-7f,
                                          0x1.c6af6cp-5f,
                                          0x1.ebfbe0p-3f,
                                          0x1.62e430p-1f,
                                          1.0f };
    const float magic = 12582912.0f, c = float_of(c_bits);
    float lim = 0x1p21f / c, z, n, r, p = coefficients[0];
    uint32_t bits;
    int exponent;
    term t;
    memcpy(&bits, &lim, 4);
    lim = float_of(bits & 0xffff0000);
    x = fminf(fmaxf(x, -lim), lim);
    z = fmaf(x, c, magic);
    n = z - magic;
    r = fmaf(x, c, -n);
    for (int i = 1; i < 7; i++) p = fmaf(p, r, coefficients[i]);
    t.m = (uint32_t)ldexpf(frexpf(p, &exponent), 24);
    t.e = exponent - 24 + (int32_t)n;
    return t;
}

static uint64_t digit(source *s)
{
    uint8_t choice = byte(s);
    return choice < 64 ? choice : (uint64_t)choice << choice % 8 * 8;
}

static sb_state_record make_state(source *s, uint32_t c)
{
    sb_state_record r = { EMPTY, c, { 0, 0, 0 } };
    uint8_t kind = byte(s);
    if (kind > 235) return r;
    if (kind > 215) {
        r.J = POISON;
        return r;
    }
    r.J = kind < 4 ? FIRST : kind < 8 ? LAST : FIRST + 65536 + kind % 5;
    for (int i = 0; i < 3; i++) r.l[i] = digit(s);
    r.l[1] |= 1;
    r.l[2] >>= 4;
    return r;
}

static sb_target_record make_target(source *s, const sb_state_record *state)
{
    static const uint32_t logits[] = { 0x3f800000, 0xc2c80000, 0, 0x80000000, 0xff800000 };
    static const uint32_t poison[] = { 0x7f800000, 0x7fc00000, 0xffc12345, 0xff800000 };
    uint8_t choice = byte(s);
    sb_target_record t = { logits[choice % 5], 1 };
    if (state->J == POISON) t.x = poison[choice % 4];
    if (state->J == EMPTY) t.x = 0xff800000;
    return t;
}

static void spoil(source *s, record *r)
{
    static const uint32_t odd[] = { 1, FIRST - 1, LAST + 1, POISON - 1, POISON + 1u, 0xffffffff };
    switch (byte(s) % 8) {
    case 0: r->state.J = odd[byte(s) % 6]; break;
    case 1: r->state.l[byte(s) % 3] = word(s); break;
    case 2: r->state.l[1] = r->state.l[2] = 0; break;
    case 3: r->state.l[2] = ((uint64_t)1 << 60) + byte(s) % 2; break;
    case 4: r->state.c ^= 1u << byte(s) % 32; break;
    case 5: r->target.owners = byte(s) % 3; break;
    case 6: r->target.x = (uint32_t)word(s); break;
    default: r->state.J = byte(s) % 2 ? POISON : EMPTY; break;
    }
}

record make_record(source *s, uint32_t c, int owned)
{
    record r;
    r.state = make_state(s, c);
    r.target = make_target(s, &r.state);
    if (!owned) r.target.x = r.target.owners = 0;
    if (byte(s) > 235) spoil(s, &r);
    return r;
}

/* ---- what the definition says -------------------------------------------------------------- */

static int is_state(const sb_state_record *s)
{
    if (s->J == EMPTY || s->J == POISON) return !s->l[0] && !s->l[1] && !s->l[2];
    return s->J >= FIRST && s->J <= LAST && (s->l[1] || s->l[2]) && s->l[2] <= 1ull << 60;
}

int is_mergeable(const record *r, uint32_t c)
{
    return is_state(&r->state) && r->state.c == c && (r->target.owners || !r->target.x);
}

/* Whether the term is more than the sum, both exactly. */
static int is_above(term t, const sb_state_record *s)
{
    const sum all = (sum)s->l[0] + ((sum)s->l[1] << 32) + ((sum)s->l[2] << 64);
    const int32_t up = t.e - (32 * ((int32_t)s->J - 1) - 24 - 4194304);
    if (up >= 0) return up > 104 || (sum)t.m << up > all; /* a sum is below 2^125 */
    if (up <= -24) return 0;                              /* and at least 1 */
    return t.m >> -up > all || (t.m >> -up == all && t.m << (32 + up) != 0);
}

int is_finishable(const record *r, uint32_t c)
{
    float x = float_of(r->target.x);
    if (!is_mergeable(r, c) || r->target.owners != 1) return 0;
    if (isnan(x) || x == INFINITY) return r->state.J == POISON;
    if (x == -INFINITY || r->state.J == POISON) return 1;
    return r->state.J != EMPTY && !is_above(term_of(x, c), &r->state);
}

/* l[k] is the digit J - 1 + k. */
static void add_digits(sb_state_record *to, const sb_state_record *from)
{
    for (int64_t k = 0; k < 3; k++) {
        int64_t at = (int64_t)from->J - (int64_t)to->J + k;
        if (at >= 0) to->l[at] += from->l[k];
    }
}

record merged(const record *a, const record *b)
{
    record r;
    memset(&r, 0, sizeof r);
    r.state.c = a->state.c;
    r.state.J = a->state.J > b->state.J ? a->state.J : b->state.J;
    if (r.state.J != POISON) {
        add_digits(&r.state, &a->state);
        add_digits(&r.state, &b->state);
    }
    r.target.x = a->target.x | b->target.x;
    r.target.owners = a->target.owners + b->target.owners;
    return r;
}
