/* vectors.c - checks the golden vectors of spec/vectors that the public API can't reach: row
 * constants, exp2, lg, leaves, merges, sums, products and steps of the linear head, and the states
 * of every literal row by each isa. spec/vectors/README.md defines the format. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cpu/isa.h"
#include "det/linear.h"
#include "det/moments.h"
#include "det/sum.h"
#include "spec.h"

enum { WORDS = 128, LEAVES = 512, TREES = 16, LOGITS = 8192 };

/* One line, split at its spaces. */
typedef struct line {
    FILE *file;
    const char *name;
    int number, words;
    char text[1024];
    char *word[WORDS];
} line;

typedef struct tally {
    int cases, wrong;
} tally;

static int next_line(line *l)
{
    do {
        if (!fgets(l->text, sizeof l->text, l->file)) return 0;
        l->number++;
    } while (l->text[0] == '#');
    l->words = 0;
    for (char *w = strtok(l->text, " \n"); w && l->words < WORDS; w = strtok(NULL, " \n"))
        l->word[l->words++] = w;
    return l->words > 0;
}

static int is(const line *l, const char *key) { return strcmp(l->word[0], key) == 0; }
static uint32_t hex32(const char *w) { return (uint32_t)strtoul(w, NULL, 16); }
static uint64_t hex64(const char *w) { return strtoull(w, NULL, 16); }
static float f32(const char *w) { return sb_float(hex32(w)); }
static int integer(const char *w) { return (int)strtol(w, NULL, 10); }

static void judge(tally *t, const line *l, int right)
{
    t->cases++;
    if (!right && t->wrong++ == 0) printf("%s:%d is first; ", l->name, l->number);
}

/* Whether a record has the bytes that hex spells, in order. */
static int same_bytes(const void *record, size_t size, const char *hex)
{
    const unsigned char *bytes = record;
    for (size_t i = 0; i < size && hex[2 * i]; i++) {
        char byte[3] = { hex[2 * i], hex[2 * i + 1], 0 };
        if (bytes[i] != hex32(byte)) return 0;
    }
    return strlen(hex) == 2 * size;
}

static int same_state(const sb_state *s, const char *hex) { return same_bytes(s, sizeof *s, hex); }

/* product FORMAT D E_h E_w T x, then D elements of hidden and D of a weight row. */
static void product_case(line *l, tally *t)
{
    const int D = integer(l->word[2]), digits = strcmp(l->word[1], "h24w16") == 0 ? 2 : 3;
    uint32_t most[2] = { 0, 0 };
    int32_t E[2], L[5] = { 0, 0, 0, 0, 0 };
    int64_t T;
    int right = 1;
    for (int i = 0; i < 2 * D; i++) {
        const uint32_t a = sb_linear_magnitude(f32(l->word[7 + i]));
        if (a > most[i / D]) most[i / D] = a;
    }
    for (int side = 0; side < 2; side++) {
        const char *want = l->word[3 + side];
        E[side] = sb_linear_E(most[side]);
        right &= sb_linear_is_bad(E[side]) ? strcmp(want, "bad") == 0 : E[side] == integer(want);
    }
    for (int d = 0; d < D && strcmp(l->word[5], "-") != 0; d++) {
        const int32_t q = sb_linear_integer(f32(l->word[7 + d]), sb_linear_factor(E[0], 24));
        const int32_t w = sb_linear_integer(f32(l->word[7 + D + d]),
                                            sb_linear_factor(E[1], 8 * digits));
        const uint32_t h = sb_linear_digits24(q);
        const uint32_t v = digits == 3 ? sb_linear_digits24(w) : sb_linear_digits16(w);
        for (int i = 0; i < 3; i++)
            for (int j = 0; j < digits; j++)
                if (digits == 3 || i + j < 3)
                    L[i + j] += sb_linear_digit(h, 2 - i) * sb_linear_digit(v, digits - 1 - j);
    }
    T = digits == 3 ? sb_linear_T24(L[0], L[1], L[2], L[3], L[4]) : sb_linear_T16(L[0], L[1], L[2]);
    right &= strcmp(l->word[5], "-") == 0 || T == strtoll(l->word[5], NULL, 10);
    judge(t, l, right && sb_bits32(sb_linear_logit(T, E[0], E[1])) == hex32(l->word[6]));
}

/* finish x BIAS SCALE CAP x, each of the three "-" where it is not asked for. */
static void finish_case(line *l, tally *t)
{
    const float bias = l->word[2][0] == '-' ? 0.0f : f32(l->word[2]);
    const sb_linear_steps steps = sb_linear_steps_of(l->word[3][0] == '-' ? 1 : f32(l->word[3]),
                                                     l->word[4][0] == '-' ? 0 : f32(l->word[4]));
    judge(t, l, sb_bits32(sb_linear_finish(f32(l->word[1]), bias, &steps)) == hex32(l->word[5]));
}

static void one_line_case(line *l, tally *t)
{
    if (is(l, "constants")) {
        sb_row row = sb_row_of(f32(l->word[1]));
        judge(t, l,
              sb_temperature_ok(f32(l->word[1])) && sb_bits32(row.c) == hex32(l->word[2]) &&
                  sb_bits64(row.kappa) == hex64(l->word[3]) &&
                  sb_bits32(row.k64) == hex32(l->word[4]) &&
                  sb_bits32(row.lim) == hex32(l->word[5]));
    } else if (is(l, "refused")) {
        judge(t, l, !sb_temperature_ok(f32(l->word[1])));
    } else if (is(l, "exp2")) {
        judge(t, l, sb_bits32(sb_exp2(f32(l->word[1]))) == hex32(l->word[2]));
    } else if (is(l, "lg")) {
        sb_lg lg = sb_log2(sb_double(hex64(l->word[1])));
        judge(t, l, lg.e == integer(l->word[2]) && sb_bits64(lg.f) == hex64(l->word[3]));
    } else if (is(l, "leaf")) {
        sb_row row = sb_row_of(f32(l->word[1]));
        float x[SB_LEAF];
        sb_leaf leaf = { 0, 0 };
        for (int i = 0; i < SB_LEAF; i++) x[i] = f32(l->word[4 + i]);
        if (sb_leaf_of(&leaf, x, &row) == SB_LEAF_ABSENT) judge(t, l, strcmp(l->word[2], "-") == 0);
        else
            judge(t, l,
                  leaf.A == integer(l->word[2]) &&
                      leaf.M == (uint32_t)strtoul(l->word[3], NULL, 10));
    } else if (is(l, "product")) {
        product_case(l, t);
    } else if (is(l, "finish")) {
        finish_case(l, t);
    } else if (is(l, "refused_scale")) {
        judge(t, l, !sb_linear_scale_ok(f32(l->word[1])));
    } else if (is(l, "refused_cap")) {
        judge(t, l, !sb_linear_cap_ok(f32(l->word[1])));
    } else {
        judge(t, l, 0);
    }
}

static sb_state plain_state(float c, const sb_leaf *leaf, int n)
{
    sb_state s;
    sb_state_init(&s, c);
    for (int i = 0; i < n; i++) sb_state_add(&s, &leaf[i]);
    return s;
}

/* Evaluates a tree of merges in postfix notation. Its words are leaves, "empty", "poison" and
 * "+". */
static sb_state tree_state(float c, const sb_leaf *leaf, char **word, int words)
{
    static sb_state stack[WORDS];
    int top = 0;
    for (int i = 0; i < words; i++) {
        if (strcmp(word[i], "+") == 0) {
            top--;
            sb_state_merge(&stack[top - 1], &stack[top]);
            continue;
        }
        stack[top] = plain_state(c, NULL, 0);
        if (strcmp(word[i], "poison") == 0) sb_state_poison(&stack[top]);
        else if (strcmp(word[i], "empty") != 0) sb_state_add(&stack[top], &leaf[integer(word[i])]);
        top++;
    }
    return stack[0];
}

static void merge_case(line *l, tally *t)
{
    static sb_leaf leaf[LEAVES];
    static sb_state tree[TREES];
    int leaves = 0, trees = 0, poisoned = 0;
    float c = 0;
    while (next_line(l) && !is(l, "end")) {
        if (is(l, "tau")) {
            c = sb_row_of(f32(l->word[1])).c;
        } else if (is(l, "leaf")) {
            leaf[leaves].A = integer(l->word[1]);
            leaf[leaves++].M = (uint32_t)strtoul(l->word[2], NULL, 10);
        } else if (is(l, "tree")) {
            for (int i = 1; i < l->words; i++) poisoned |= strcmp(l->word[i], "poison") == 0;
            tree[trees++] = tree_state(c, leaf, l->word + 1, l->words - 1);
        } else if (is(l, "state")) {
            sb_state whole = plain_state(c, leaf, leaves);
            int right = poisoned || same_state(&whole, l->word[1]);
            for (int i = 0; i < trees; i++) right &= same_state(&tree[i], l->word[1]);
            judge(t, l, right);
        }
    }
}

static void sum_case(line *l, tally *t)
{
    sb_sum sum;
    sb_sum_init(&sum);
    while (next_line(l) && !is(l, "end")) {
        if (is(l, "x")) {
            for (int i = 1; i < l->words; i++) sb_sum_add(&sum, f32(l->word[i]));
        } else if (is(l, "repeat")) {
            for (int i = integer(l->word[1]); i > 0; i--) sb_sum_add(&sum, f32(l->word[2]));
        } else if (is(l, "sum")) {
            judge(t, l, sb_bits32(sb_sum_round(&sum)) == hex32(l->word[1]));
        }
    }
}

static void row_case(line *l, tally *t)
{
    static const sb_isa *isas[] = { &sb_isa_scalar, &sb_isa_avx2, &sb_isa_avx512 };
    static unsigned char data[4 * LOGITS];
    sb_row row = sb_row_of(1.0f);
    int n = 0, itemsize = 4, bf16 = 0, generated = 0; /* the public API's case */
    while (next_line(l) && !is(l, "end")) {
        if (is(l, "dtype")) {
            itemsize = strcmp(l->word[1], "f32") == 0 ? 4 : 2;
            bf16 = strcmp(l->word[1], "bf16") == 0;
        } else if (is(l, "tau")) {
            row = sb_row_of(f32(l->word[1]));
        } else if (is(l, "x")) {
            for (int i = 1; i < l->words; i++, n++) {
                uint32_t bits = hex32(l->word[i]);
                memcpy(data + n * itemsize, &bits, (size_t)itemsize); /* little-endian */
            }
        } else if (is(l, "gen")) {
            generated = 1;
        } else if (is(l, "state")) {
            int right = 1;
            for (int i = 0; i < 3; i++) {
                sb_state s;
                if (!isas[i]->available()) continue;
                sb_state_init(&s, row.c);
                (itemsize == 4 ? isas[i]->f32
                 : bf16        ? isas[i]->bf16
                               : isas[i]->f16)(&s, data, n, &row);
                right &= same_state(&s, l->word[1]);
            }
            judge(t, l, right);
        } else if (is(l, "moments")) {
            int right = 1;
            for (int i = 0; i < 3; i++) {
                sb_moments m;
                if (!isas[i]->available()) continue;
                sb_moments_init(&m, row.c);
                (itemsize == 4 ? isas[i]->moments_f32
                 : bf16        ? isas[i]->moments_bf16
                               : isas[i]->moments_f16)(&m, data, n, &row);
                right &= generated || same_bytes(&m, sizeof m, l->word[1]);
            }
            judge(t, l, right);
        }
    }
}

static tally check_file(const char *folder, const char *name)
{
    char path[512];
    tally t = { 0, 0 };
    line l = { .name = name };
    snprintf(path, sizeof path, "%s/%s.txt", folder, name);
    l.file = fopen(path, "r");
    if (!l.file || !next_line(&l) || l.words < 5 || strcmp(l.word[1], "1") != 0 ||
        strcmp(l.word[4], "1") != 0) {
        printf("%s: not a vector file of format 1 and numerics 1; ", path);
        t.wrong = 1;
    } else {
        while (next_line(&l)) {
            if (!is(&l, "case")) one_line_case(&l, &t);
            else if (strcmp(name, "merge") == 0) merge_case(&l, &t);
            else if (strcmp(name, "sums") == 0) sum_case(&l, &t);
            else row_case(&l, &t);
        }
    }
    if (l.file) fclose(l.file);
    return t;
}

int check_vectors(void)
{
    static const char *const files[] = { "constants", "exp2", "lg",      "leaves", "merge",
                                         "sums",      "rows", "entropy", "linear" };
    const char *folder = getenv("SB_VECTORS");
    int wrong = 0;
    for (int i = 0; i < (int)(sizeof files / sizeof *files); i++) {
        tally t = check_file(folder ? folder : "spec/vectors", files[i]);
        printf("%s %d%s", files[i], t.cases,
               i + 1 < (int)(sizeof files / sizeof *files) ? ", " : "");
        wrong += t.wrong + (t.cases == 0);
    }
    printf(": %d wrong\n", wrong);
    return wrong == 0;
}
