/* hidden.c - see hidden.h. The floats of a product are in det/linear.h; the integers are exact, so
 * that neither tiles nor instruction sets can change a bit. */
#include "cpu/hidden.h"

#include <inttypes.h>

#include "cpu/cpu.h"
#include "det/convert.h"

#define CHUNK SB_CPU_CHUNK

void sb_cpu_convert(float *x, const void *row, int32_t dtype, int64_t n)
{
    uint16_t half[CHUNK];
    if (dtype == SB_F32) {
        memcpy(x, row, (size_t)n * 4);
        return;
    }
    memcpy(half, row, (size_t)n * 2);
    if (dtype == SB_F16)
        for (int64_t k = 0; k < n; k++) x[k] = sb_from_f16(half[k]);
    else
        for (int64_t k = 0; k < n; k++) x[k] = sb_from_bf16(half[k]);
}

uint32_t sb_cpu_scale(const void *row, int32_t dtype, int64_t n)
{
    uint32_t a = 0;
    for (int64_t k = 0; k < n; k += CHUNK) {
        const int64_t here = n - k < CHUNK ? n - k : CHUNK;
        float x[CHUNK];
        sb_cpu_convert(x, (const char *)row + k * sb_itemsize(dtype), dtype, here);
        for (int64_t i = 0; i < here; i++) {
            const uint32_t m = sb_linear_magnitude(x[i]);
            a = m > a ? m : a;
        }
    }
    return a;
}

void sb_cpu_integers(int32_t *q, const void *row, int32_t dtype, int64_t n, int32_t E, int32_t bits)
{
    const float factor = sb_linear_factor(E, bits);
    for (int64_t k = 0; k < n; k += CHUNK) {
        const int64_t here = n - k < CHUNK ? n - k : CHUNK;
        float x[CHUNK];
        sb_cpu_convert(x, (const char *)row + k * sb_itemsize(dtype), dtype, here);
        for (int64_t i = 0; i < here; i++) q[k + i] = sb_linear_integer(x[i], factor);
    }
}

/* ---- preparation -------------------------------------------------------------------------- */

sb_status sb_cpu_hidden_prepare(sb_cpu_hidden *h, const sb_call *call, const sb_product_isa *isa,
                                sb_cpu_hidden_scratch *scratch, const int64_t *active,
                                int64_t actives, int with_targets, sb_message *why)
{
    const sb_head_form *form = &call->in.head->form;
    const int64_t ids = with_targets ? actives * call->width : 0;
    *h = (sb_cpu_hidden){ .call = call,
                          .isa = isa,
                          .at = sb_cpu_head_of(form),
                          .steps = sb_linear_steps_of(form->scale, form->softcap),
                          .active = active,
                          .actives = actives };
    /* One more: packed rows begin at a multiple of 64. */
    h->packed = sb_cpu_room(&scratch->packed, actives + 1, (size_t)sb_cpu_pitch(h->at.K));
    h->E = sb_cpu_room(&scratch->E, actives, sizeof *h->E);
    if (h->packed) h->packed += (64 - (uintptr_t)h->packed % 64) % 64;
    if (with_targets) h->targets = sb_cpu_room(&scratch->targets, ids, sizeof *h->targets);
    if (h->packed && h->E && (h->targets || !with_targets)) return SB_OK;
    return sb_fail(why, SB_ERR_MEMORY, "no memory to pack %" PRId64 " hidden states", actives);
}

static char *packed_at(const sb_cpu_hidden *h, int64_t i)
{
    return h->packed + i * sb_cpu_pitch(h->at.K);
}

/* The logits of row i's ids that the head has weights of; those of others are not used. */
static void find_targets(const sb_cpu_hidden *h, int64_t i)
{
    const sb_call *call = h->call;
    for (int64_t k = 0; k < call->width; k++) {
        const int64_t id = sb_int_at(call->in.ids, call->in.ids_dtype,
                                     h->active[i] * call->width + k) -
                           call->first;
        const int64_t first = id / SB_LEAF * SB_LEAF;
        float x[SB_LEAF];
        if (id < 0 || id >= call->held) continue;
        sb_cpu_hidden_tile(h, i, 1, first,
                           call->held - first < SB_LEAF ? call->held - first : SB_LEAF, x, SB_LEAF);
        h->targets[i * call->width + k] = x[id - first];
    }
}

static void pack_row(void *shared, int64_t i)
{
    const sb_cpu_hidden *h = shared;
    const sb_call *call = h->call;
    const int64_t D = call->in.hidden_width;
    const int32_t dtype = call->in.hidden_dtype;
    const char *row = sb_hidden_of(call, h->active[i]);
    const int32_t E = sb_linear_E(h->scales ? h->scales[h->active[i] - call->in.shift]
                                            : sb_cpu_scale(row, dtype, D));
    for (int64_t k = 0; k < h->at.K; k += CHUNK) {
        const int64_t n = h->at.K - k < CHUNK ? h->at.K - k : CHUNK, held = D - k < n ? D - k : n;
        int32_t q[CHUNK] = { 0 };
        if (!sb_linear_is_bad(E))
            sb_cpu_integers(q, row + k * sb_itemsize(dtype), dtype, held, E, 24);
        h->isa->pack(packed_at(h, i), q, k, n, h->at.K);
    }
    h->E[i] = E;
    if (h->targets) find_targets(h, i);
}

void sb_cpu_hidden_pack(sb_pool *pool, const sb_cpu_hidden *h)
{
    void *shared = (void *)(uintptr_t)h; /* the pool's items only read it */
    sb_pool_run(pool, h->actives * h->at.K <= SB_CPU_ALONE_ELEMENTS, pack_row, shared, h->actives);
}

/* ---- tiles -------------------------------------------------------------------------------- */

/* The logits of a leaf whose ids are all kept, without bias, scale and softcap: sb_linear_logit in
 * a form that compilers turn into vectors. 2^52 + 2^51 + T is a double, whose encoding is that of
 * 2^52 + 2^51 plus T, since |T| < 2^51; so T becomes a double exactly, and is rounded once. Returns
 * 0 if a row is bad. */
static int combine_plain(const int8_t *E, int planes, const int64_t *sums, int32_t E_h, float *x)
{
    float steps[SB_LEAF];
    int bad = sb_linear_is_bad(E_h);
    for (int v = 0; v < SB_LEAF; v++) bad |= E[v] > SB_LINEAR_E_MAX;
    if (bad) return 0;
    for (int v = 0; v < SB_LEAF; v++) steps[v] = sb_float((uint32_t)(E_h + E[v] - 30 + 127) << 23);
    for (int v = 0; v < SB_LEAF; v++) {
        const int64_t T = planes == 3 ? sb_linear_T_of_sum(sums[v]) : sums[v];
        x[v] = (float)(sb_double((uint64_t)T + sb_bits64(0x1.8p+52)) - 0x1.8p+52) * steps[v];
    }
    return 1;
}

void sb_cpu_combine_leaf(const sb_head *head, const sb_cpu_head_parts *at,
                         const sb_linear_steps *steps, const int64_t *sums, int32_t E_h,
                         int64_t first, int64_t n, uint32_t bits, float *x)
{
    const char *memory = head->memory;
    const int8_t *E = (const int8_t *)memory + at->E + first;
    if (n == SB_LEAF && bits == 0xffff && !at->bias && steps->scale == 1.0f && steps->cap == 0.0f &&
        combine_plain(E, at->planes, sums, E_h, x))
        return;
    for (int64_t v = 0; v < n; v++) {
        int64_t T;
        float b = 0.0f;
        if (!(bits >> v & 1)) { /* there may be no sums */
            x[v] = sb_float(SB_ABSENT_BITS);
            continue;
        }
        T = at->planes == 3 ? sb_linear_T_of_sum(sums[v]) : sums[v];
        if (at->bias) memcpy(&b, memory + at->bias + (first + v) * 4, 4);
        x[v] = sb_linear_finish(sb_linear_logit(T, E_h, E[v]), b, steps);
    }
}

/* The products of a group with some rows, at most SB_CPU_HEAD_ROWS. */
static void products(const sb_cpu_hidden *h, int64_t i, int64_t rows, int64_t group,
                     int64_t (*sums)[SB_LEAF])
{
    const int8_t *digits = (const int8_t *)h->call->in.head->memory + h->at.digits;
    h->isa->products(sums, digits + group * h->at.group, packed_at(h, i), (int)rows, h->at.K,
                     h->at.planes);
}

void sb_cpu_hidden_tile(const sb_cpu_hidden *h, int64_t i, int64_t rows, int64_t first, int64_t n,
                        float *x, int64_t stride)
{
    const sb_call *call = h->call;
    const sb_head *head = call->in.head;
    const int64_t before = call->first -
                           head->form.first; /* ids of the head in front of the call's */
    for (int64_t at = 0; at < n; at += SB_LEAF) {
        const int64_t id = first + at, here = n - at < SB_LEAF ? n - at : SB_LEAF;
        for (int64_t r = 0; r < rows; r += SB_CPU_HEAD_ROWS) {
            const int64_t some = rows - r < SB_CPU_HEAD_ROWS ? rows - r : SB_CPU_HEAD_ROWS;
            int64_t sums[SB_CPU_HEAD_ROWS][SB_LEAF];
            uint32_t bits[SB_CPU_HEAD_ROWS], any = 0;
            for (int64_t s = 0; s < some; s++) {
                bits[s] = sb_cpu_kept_bits(call, h->active[i + r + s], call->first + id);
                any |= bits[s];
            }
            if (any) products(h, i + r, some, (before + id) / SB_LEAF, sums);
            for (int64_t s = 0; s < some; s++)
                sb_cpu_combine_leaf(head, &h->at, &h->steps, sums[s], h->E[i + r + s], before + id,
                                    here, bits[s], x + (r + s) * stride + at);
        }
    }
}

void sb_cpu_hidden_sums(const sb_cpu_hidden *h, int64_t i, int64_t rows, int64_t first, int64_t n,
                        int64_t *to, int64_t stride)
{
    const int64_t before = h->call->first - h->call->in.head->form.first;
    for (int64_t at = 0; at < n; at += SB_LEAF) {
        const int64_t here = n - at < SB_LEAF ? n - at : SB_LEAF;
        for (int64_t r = 0; r < rows; r += SB_CPU_HEAD_ROWS) {
            const int64_t some = rows - r < SB_CPU_HEAD_ROWS ? rows - r : SB_CPU_HEAD_ROWS;
            int64_t sums[SB_CPU_HEAD_ROWS][SB_LEAF];
            products(h, i + r, some, (before + first + at) / SB_LEAF, sums);
            for (int64_t s = 0; s < some; s++)
                memcpy(to + (r + s) * stride + at, sums[s], (size_t)here * sizeof **sums);
        }
    }
}
