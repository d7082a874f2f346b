/* heads.c - heads of weights made from bytes, right and wrong ones, and the calls on hidden states.
 *
 * What has to hold: an error, in words, exactly where samebits.h says so, and then no head;
 * sb_logits with the same bits by another instruction set, with other threads, from a copy of the
 * head's bytes and from D cut in two; logprobs with the bits of those from these logits; no read
 * beyond any array. */
#include "batches.h"
#include "results.h"
#include "target.h"

enum { MOST_IDS = 40, MOST_WIDTH = 20, MOST_ROWS = 4, BOUNDARY = 256 };

/* ---- weights ------------------------------------------------------------------------------ */

static int is_float(int32_t dtype) { return dtype >= SB_F32 && dtype <= SB_BF16; }

static float an_option(source *s, float usual)
{
    static const float some[] = { 0x1p-32f, 0x1p+32f, 30.0f, 0.3f, 0x1p-10f, 0x1p+20f };
    const uint8_t choice = byte(s);
    uint32_t bits;
    float x;
    if (choice < 128) return usual;
    if (choice < 240) return some[choice % 6];
    bits = (uint32_t)word(s);
    memcpy(&x, &bits, 4);
    return x;
}

/* As samebits.h has it, for arrays of the sizes that make_weights gives them. */
static int is_right_shape(const sb_head_weights *w)
{
    return w->size == sizeof *w && is_float(w->dtype) && is_float(w->bias_dtype) && w->ids >= 1 &&
           w->ids <= SB_MAX_VOCAB && w->width >= 1 && w->width <= SB_MAX_WIDTH &&
           (w->row_stride == 0 || w->row_stride >= w->width) &&
           fits_int64(w->ids, w->row_stride, 4) && w->first >= 0 && w->first % 16 == 0 &&
           w->first <= SB_MAX_VOCAB - w->ids &&
           (w->format == SB_H24W16 || w->format == SB_H24W24) && w->scale >= 0x1p-32f &&
           w->scale <= 0x1p+32f &&
           (w->softcap == 0.0f || (w->softcap >= 0x1p-10f && w->softcap <= 0x1p+20f)) &&
           (w->keep_bad == 0 || w->keep_bad == 1) && (w->norms == 0 || w->norms == 1);
}

static sb_head_weights make_weights(source *s)
{
    sb_head_weights w = SB_HEAD_WEIGHTS_INIT;
    int64_t elements;
    w.size = struct_size(s, sizeof w);
    w.dtype = dtype(s, SB_F32, SB_BF16);
    w.bias_dtype = dtype(s, SB_F32, SB_BF16);
    w.format = dtype(s, SB_H24W16, SB_H24W24);
    w.ids = byte(s) < 250 ? 1 + byte(s) % MOST_IDS : extent(s, MOST_IDS);
    w.width = byte(s) < 250 ? 1 + byte(s) % MOST_WIDTH : extent(s, MOST_WIDTH);
    w.row_stride = byte(s) % 3 ? 0 : w.width < MOST_WIDTH ? w.width + byte(s) % 5 : extent(s, 30);
    w.first = byte(s) < 250 ? 0 : extent(s, 64);
    w.scale = an_option(s, 1.0f);
    w.softcap = an_option(s, 0.0f);
    w.keep_bad = byte(s) < 250 ? byte(s) % 2 : byte(s);
    w.norms = byte(s) < 250 ? byte(s) % 2 : byte(s);
    /* behind the last element no other is read */
    elements = times(w.ids > 0 ? w.ids - 1 : -1, w.row_stride ? w.row_stride : w.width);
    if (elements >= 0 && times(w.width, 1) >= 0) elements += w.width;
    if (byte(s) < 250) w.weights = make_numbers(s, elements, w.dtype);
    if (byte(s) % 2) w.bias = make_numbers(s, times(w.ids, 1), w.bias_dtype);
    return w;
}

static void free_weights(sb_head_weights *w)
{
    free((void *)(uintptr_t)w->weights);
    free((void *)(uintptr_t)w->bias);
}

/* A head of right weights; null where rows are bad and are not to be kept. */
static sb_head *head_of(sb_context *ctx, const sb_head_weights *w, void *memory, uint64_t size)
{
    sb_head *head;
    const sb_status status = sb_head_create(ctx, &head, w, memory, size, NULL);
    check_status(status, ctx);
    HOLDS(status == SB_OK || (status == SB_ERR_STATE && !w->keep_bad), "status %d (\"%s\")",
          (int)status, sb_last_error(ctx));
    HOLDS((head != NULL) == (status == SB_OK), "%s", sb_last_error(ctx));
    return head;
}

/* ---- hidden states ------------------------------------------------------------------------ */

/* The logits of a batch, by a context. */
static float *logits_of(sb_context *ctx, const sb_batch *b, int64_t count)
{
    sb_logits_out out = SB_LOGITS_OUT_INIT;
    float *logits = filled_memory((size_t)count * 4, 0xa5);
    out.logits = logits;
    HOLDS(sb_logits(ctx, &out, b, NULL) == SB_OK, "%s", sb_last_error(ctx));
    return logits;
}

/* The logprobs of hidden states are those of their logits. */
static void try_logprobs(const sb_batch *b, const float *logits)
{
    sb_batch plain = *b;
    results by_hidden = results_of(15, b, b->time, 0xa5), by_logits = results_of(15, b, b->time, 0);
    plain.head = NULL;
    plain.hidden = NULL;
    plain.logits = logits;
    plain.logits_dtype = SB_F32;
    for (int i = 0; i < 2; i++) {
        HOLDS(sb_logprob(contexts[i], &by_hidden.out, b, NULL) == SB_OK, "%s",
              sb_last_error(contexts[i]));
        HOLDS(sb_logprob(contexts[i], &by_logits.out, &plain, NULL) == SB_OK, "%s",
              sb_last_error(contexts[i]));
        HOLDS(same_results(&by_hidden, &by_logits), "isa %s", sb_context_isa(contexts[i]));
    }
    free_results(&by_hidden);
    free_results(&by_logits);
}

static void keep_larger(uint32_t *most, const uint32_t *other, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        if (other[i] > most[i]) most[i] = other[i];
}

/* Two ranks with the columns 0 .. cut - 1 and cut .. D - 1 have the logits of one. */
static void try_columns(const sb_batch *b, const sb_head_weights *w, int64_t cut,
                        const float *logits)
{
    const int64_t rows = b->time, V = w->ids, count = rows * V;
    const size_t size = w->dtype == SB_F32 ? 4 : 2;
    uint32_t of_h[2][MOST_ROWS], of_w[2][MOST_IDS];
    int64_t sums[2][MOST_ROWS * MOST_IDS];
    float combined[MOST_ROWS * MOST_IDS];
    sb_head_weights half[2] = { *w, *w };
    sb_batch part[2] = { *b, *b };
    sb_head *head = NULL;
    for (int i = 0; i < 2; i++) {
        const int64_t from = i ? cut : 0;
        half[i].row_stride = w->row_stride ? w->row_stride : w->width;
        half[i].width = part[i].hidden_width = i ? w->width - cut : cut;
        half[i].weights = (const char *)w->weights + (size_t)from * size;
        half[i].keep_bad = 1;
        part[i].hidden_row_stride = w->width;
        part[i].hidden = (const float *)b->hidden + from;
        HOLDS(sb_scales(contexts[i], of_h[i], part[i].hidden, SB_F32, rows, half[i].width, w->width,
                        NULL) == SB_OK,
              "%s", sb_last_error(contexts[i]));
        HOLDS(sb_scales(contexts[i], of_w[i], half[i].weights, w->dtype, V, half[i].width,
                        half[i].row_stride, NULL) == SB_OK,
              "%s", sb_last_error(contexts[i]));
    }
    keep_larger(of_h[0], of_h[1], rows);
    keep_larger(of_w[0], of_w[1], V);
    for (int i = 0; i < 2; i++) {
        HOLDS(sb_head_free(contexts[0], head) == SB_OK, "free");
        half[i].scales = of_w[0];
        head = head_of(contexts[i], &half[i], NULL, 0);
        part[i].head = head;
        HOLDS(sb_products(contexts[i], sums[i], &part[i], of_h[0], 0, V, NULL) == SB_OK, "%s",
              sb_last_error(contexts[i]));
    }
    for (int64_t i = 0; i < count; i++) sums[0][i] += sums[1][i];
    HOLDS(sb_combine(contexts[1], combined, sums[0], of_h[0], head, rows, 0, V, NULL) == SB_OK,
          "%s", sb_last_error(contexts[1]));
    HOLDS(memcmp(combined, logits, (size_t)count * 4) == 0, "D cut at %lld", (long long)cut);
    HOLDS(sb_head_free(contexts[0], head) == SB_OK, "free");
}

/* Bounds of rows, by two instruction sets; each logit without bias, scale and cap is within its
 * row's. The sums of this file's short rows in fp64 are off by less than half an ulp. */
static void try_errors(const sb_batch *b, const sb_head_weights *w, const float *logits)
{
    float error[2][MOST_ROWS];
    for (int i = 0; i < 2; i++) {
        const sb_status status = sb_head_error(contexts[i], error[i], b, NULL, NULL);
        HOLDS((status == SB_OK) == (w->norms == 1), "%s", sb_last_error(contexts[i]));
        if (status != SB_OK) return;
    }
    HOLDS(memcmp(error[0], error[1], (size_t)b->time * 4) == 0, "isa %s",
          sb_context_isa(contexts[1]));
    if (w->bias || w->scale != 1.0f || w->softcap != 0.0f || w->dtype != SB_F32) return;
    for (int64_t t = 0; t < b->time; t++)
        for (int64_t v = 0; v < w->ids; v++) {
            const float x = logits[t * w->ids + v];
            const float *row = (const float *)w->weights +
                               v * (w->row_stride ? w->row_stride : w->width);
            double exact = 0.0;
            if (x != x) continue;
            for (int64_t d = 0; d < w->width; d++)
                exact += (double)((const float *)b->hidden)[t * w->width + d] * (double)row[d];
            HOLDS(exact - x <= error[0][t] + 0x1p-23 * (x < 0 ? -x : x) &&
                      x - exact <= error[0][t] + 0x1p-23 * (x < 0 ? -x : x),
                  "row %d, id %d: %g is %g", (int)t, (int)v, (double)x, exact);
        }
}

static int same_number(double a, double b)
{
    return memcmp(&a, &b, sizeof a) == 0 || (a != a && b != b);
}

/* Derivatives by hidden states and weights, by two instruction sets and, of fp32 weights without
 * scale and cap, by loops over all terms but those that are 0. Rows of grad are apart. */
static void try_backward(source *s, const sb_batch *b, const sb_head_weights *w,
                         const float *logits)
{
    const int64_t D = w->width, V = w->ids, T = b->time, apart = V + byte(s) % 3;
    const int64_t w_stride = w->row_stride ? w->row_stride : D;
    float *grad = make_numbers(s, T * apart, SB_F32);
    const float *h = b->hidden, *W = w->weights;
    double by_hidden[3][MOST_ROWS * MOST_WIDTH], by_weights[3][MOST_IDS * MOST_WIDTH];
    sb_head_gradient gradient = SB_HEAD_GRADIENT_INIT;
    memset(by_hidden, 0, sizeof by_hidden);
    memset(by_weights, 0, sizeof by_weights);
    gradient.grad = grad;
    gradient.grad_row_stride = apart;
    gradient.logits = logits;
    gradient.weights = w->weights;
    gradient.weights_stride = w->row_stride;
    gradient.weights_dtype = w->dtype;
    for (int i = 0; i < 2; i++) {
        gradient.by_hidden = by_hidden[i];
        gradient.by_weights = by_weights[i];
        HOLDS(sb_head_backward(contexts[i], &gradient, b, NULL) == SB_OK, "%s",
              sb_last_error(contexts[i]));
    }
    HOLDS(memcmp(by_hidden[0], by_hidden[1], sizeof by_hidden[0]) == 0, "by hidden states");
    HOLDS(memcmp(by_weights[0], by_weights[1], sizeof by_weights[0]) == 0, "by weights");
    if (w->dtype == SB_F32 && w->scale == 1.0f && w->softcap == 0.0f) {
        for (int64_t t = 0; t < T; t++)
            for (int64_t v = 0; v < V; v++)
                for (int64_t k = 0; k < D; k++) {
                    const double d = (double)grad[t * apart + v];
                    if (d == 0.0) continue;
                    by_hidden[2][t * D + k] += d * (double)W[v * w_stride + k];
                    by_weights[2][v * D + k] += d * (double)h[t * D + k];
                }
        for (int64_t i = 0; i < T * D; i++)
            HOLDS(same_number(by_hidden[0][i], by_hidden[2][i]), "by hidden %d", (int)i);
        for (int64_t i = 0; i < V * D; i++)
            HOLDS(same_number(by_weights[0][i], by_weights[2][i]), "by weight %d", (int)i);
    }
    free(grad);
}

/* Bytes of a head, some of them changed: refused, or a head. */
static void try_bytes(source *s, const sb_batch *b, void *memory, uint64_t size, int64_t count,
                      const float *logits)
{
    unsigned char *bytes = memory;
    sb_batch copy = *b;
    sb_head *head;
    sb_status status;
    const uint8_t change = byte(s) % 4 == 0 ? byte(s) : 0;
    const size_t at = byte(s);
    bytes[at] ^= change;
    status = sb_head_open(contexts[0], &head, memory, size - (byte(s) > 250));
    check_status(status, contexts[0]);
    HOLDS(status == SB_OK || status == SB_ERR_STATE, "status %d", (int)status);
    HOLDS((head != NULL) == (status == SB_OK), "status %d", (int)status);
    if (head) {
        float *again;
        copy.head = head;
        again = logits_of(contexts[1], &copy, count);
        HOLDS(memcmp(again, logits, (size_t)count * 4) == 0, "byte %zu changed", at);
        free(again);
        HOLDS(sb_head_free(contexts[1], head) == SB_OK, "free");
    }
    bytes[at] ^= change;
}

/* A right head with right and wrong batches. */
static void try_head(source *s, const sb_head_weights *w, const sb_head *head, void *memory,
                     uint64_t size)
{
    sb_batch b = SB_BATCH_INIT;
    int32_t ids[MOST_ROWS];
    int64_t count;
    float *hidden, *logits, *again;
    b.batch = 1;
    b.time = 1 + byte(s) % MOST_ROWS;
    b.vocab = w->ids;
    b.head = head;
    b.hidden_width = w->width;
    b.hidden = hidden = make_numbers(s, b.time * w->width, SB_F32);
    for (int64_t t = 0; t < b.time; t++) ids[t] = byte(s) % w->ids;
    b.ids = ids;
    count = b.time * w->ids;
    logits = logits_of(contexts[0], &b, count);
    again = logits_of(contexts[1], &b, count);
    HOLDS(memcmp(logits, again, (size_t)count * 4) == 0, "isa %s", sb_context_isa(contexts[1]));
    try_logprobs(&b, logits);
    try_errors(&b, w, logits);
    try_backward(s, &b, w, logits);
    if (w->width > 1) try_columns(&b, w, 1 + byte(s) % (w->width - 1), logits);
    if (memory) try_bytes(s, &b, memory, size, count, logits);

    /* Wrong batches, each refused. */
    for (int wrong = 0; wrong < 6; wrong++) {
        static float token[MOST_ROWS];
        sb_logprob_out out = SB_LOGPROB_OUT_INIT;
        sb_batch bad = b;
        out.token = token;
        switch (wrong) {
        case 0: bad.hidden_width = w->width ^ (1 + byte(s)); break;
        case 1: bad.hidden = NULL; break;
        case 2: bad.logits = logits; break;
        case 3: bad.hidden_dtype = 3 + byte(s) % 100; break;
        case 4: bad.hidden_row_stride = w->width - 1 - byte(s) % 7; break;
        default: bad.vocab = w->ids + 1; break;
        }
        if (wrong == 3 && is_float(bad.hidden_dtype)) bad.hidden_dtype = 0;
        if (wrong == 4 && bad.hidden_row_stride == 0) bad.hidden_row_stride = -1;
        HOLDS(sb_logprob(contexts[0], &out, &bad, NULL) != SB_OK, "wrong batch %d", wrong);
        check_status(SB_ERR_ARGUMENT, contexts[0]); /* in words */
    }
    free(hidden);
    free(logits);
    free(again);
}

int fuzz_heads(const uint8_t *data, size_t size)
{
    source s = { data, size };
    sb_head_weights w;
    sb_head *head = NULL;
    uint64_t bytes = 0;
    sb_status status;
    int right;
    open_contexts();
    w = make_weights(&s);
    right = is_right_shape(&w);
    status = sb_head_bytes(contexts[0], &bytes, &w);
    check_status(status, contexts[0]);
    HOLDS((status == SB_OK) == right, "status %d (\"%s\")", (int)status,
          sb_last_error(contexts[0]));
    if (!right || !w.weights || w.ids > MOST_IDS || w.width > MOST_WIDTH || w.first != 0) {
        status = !right || !w.weights ? sb_head_create(contexts[1], &head, &w, NULL, 0, NULL)
                                      : SB_ERR_SHAPE;
        HOLDS(status != SB_OK && !head, "status %d", (int)status);
    } else {
        /* in the caller's memory, or in the library's */
        char *memory = byte(&s) % 2 ? filled_memory((size_t)bytes + BOUNDARY, 0) : NULL;
        char *at = memory ? memory + (BOUNDARY - (uintptr_t)memory % BOUNDARY) % BOUNDARY : NULL;
        head = head_of(contexts[1], &w, at, bytes);
        if (head) try_head(&s, &w, head, at, bytes);
        HOLDS(sb_head_free(contexts[0], head) == SB_OK, "free");
        free(memory);
    }
    free_weights(&w);
    return 0;
}
