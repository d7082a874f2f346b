/* head.c - heads on a GPU: preparing weights, and the kernels that multiply hidden states by them.
 * hidden.c has the operations. */
#include "cuda/head.h"

#include <stdlib.h>

#include "api/head.h"
#include "cuda/head_records.h"
#include "cuda/lists.h"
#include "det/moments.h"

#define LAYOUT 3                         /* sb_heads.layout */
#define CHUNK_BYTES ((uint64_t)25 << 20) /* of digits of hidden states at once: they stay in L2 */

/* ---- memory ------------------------------------------------------------------------------- */

sb_cuda_head_parts sb_cuda_head_parts_of(const sb_head_form *form)
{
    sb_cuda_head_parts p;
    uint64_t ids;
    p.tiles = (form->ids + SB_CUDA_HEAD_TILE - 1) / SB_CUDA_HEAD_TILE;
    p.blocks = (int32_t)((form->width + SB_CUDA_HEAD_DEPTH - 1) / SB_CUDA_HEAD_DEPTH);
    p.planes = form->format == SB_H24W16 ? 2 : 3;
    ids = (uint64_t)p.tiles * SB_CUDA_HEAD_TILE;
    p.exponents = SB_HEAD_FORM;
    p.bytes = p.exponents + sb_cuda_padded(ids);
    p.bias = form->biased ? p.bytes : 0;
    if (form->biased) p.bytes += sb_cuda_padded(ids * sizeof(float));
    p.parts = form->norms ? p.bytes : 0;
    if (form->norms)
        p.bytes += sb_cuda_padded(ids / SB_CUDA_HEAD_NORMS_ROWS * sizeof(sb_linear_norms));
    p.digits = p.bytes;
    p.bytes += ids * (uint64_t)p.blocks * SB_CUDA_HEAD_DEPTH * (uint64_t)p.planes;
    return p;
}

static uint64_t bytes_of(const sb_head_form *form) { return sb_cuda_head_parts_of(form).bytes; }

const sb_heads sb_cuda_heads = { .layout = LAYOUT, .bytes = bytes_of };

sb_status sb_cuda_head_prepare(const sb_cuda *c, sb_message *why)
{
    const sb_cuda_head_kernels *k = &c->head;
    const sb_cuda_head_hopper_kernels *h = &c->head_hopper;
    const int hopper = SB_CUDA_HEAD_HOPPER_SHARED;
    const struct {
        CUfunction kernel, moments;
        int shared;
    } kernels[] = {
        { k->head_few_a, k->head_few_a_moments, c->gpu.shared },
        { k->head_few_b, k->head_few_b_moments, c->gpu.shared },
        { k->head_tiles_a, k->head_tiles_a_moments, SB_CUDA_HEAD_TILES_SHARED(2, 64) },
        { k->head_tiles_b, k->head_tiles_b_moments, SB_CUDA_HEAD_TILES_SHARED(3, 64) },
        { k->head_bf16_a, k->head_bf16_a_moments, SB_CUDA_HEAD_TILES_SHARED(2, 32) },
        { k->head_bf16_b, k->head_bf16_b_moments, SB_CUDA_HEAD_TILES_SHARED(3, 32) },
        { h->head_many_a, h->head_many_a_moments, hopper },
        { h->head_many_b, h->head_many_b_moments, hopper },
        { h->head_turns_a, h->head_turns_a_moments, hopper },
        { h->head_turns_b, h->head_turns_b_moments, hopper },
        { h->head_some_a, h->head_some_a_moments, hopper },
        { h->head_some_b, h->head_some_b_moments, hopper },
    };
    for (size_t i = 0; i < 2 * sizeof kernels / sizeof *kernels; i++)
        if (kernels[i / 2].shared <= c->gpu.shared)
            DRIVER(why, &c->driver, FuncSetAttribute,
                   i % 2 ? kernels[i / 2].moments : kernels[i / 2].kernel,
                   CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, kernels[i / 2].shared);
    return SB_OK;
}

/* ---- weights ------------------------------------------------------------------------------ */

static sb_cuda_weights_args weights_args_of(const sb_head_call *call)
{
    const sb_head_weights *in = &call->in;
    const sb_cuda_head_parts at = sb_cuda_head_parts_of(&call->form);
    const uint64_t memory = sb_cuda_address(call->memory);
    sb_cuda_weights_args a;
    memset(&a, 0, sizeof a);
    a.weights = sb_cuda_address(in->weights);
    a.bias = sb_cuda_address(in->bias);
    a.scales = sb_cuda_address(in->scales);
    a.form = memory;
    a.exponents = memory + at.exponents;
    a.to_bias = at.bias ? memory + at.bias : 0;
    a.planes = memory + at.digits;
    a.held = in->ids;
    a.depth = in->width;
    a.row_stride = in->row_stride;
    a.dtype = in->dtype;
    a.bias_dtype = in->bias_dtype;
    a.blocks = at.blocks;
    a.keep_bad = in->keep_bad;
    memcpy(a.head, &call->form, sizeof call->form);
    return a;
}

static sb_status check_weights(sb_context *ctx, const sb_head_call *call)
{
    const sb_head_weights *in = &call->in;
    const uint64_t size = (uint64_t)sb_itemsize(in->dtype);
    const uint64_t of_bias = (uint64_t)sb_itemsize(in->bias_dtype);
    const sb_cuda_array arrays[] = {
        { "weights", in->weights, size,
          sb_cuda_span(1, in->ids, 0, in->row_stride, in->width, size) },
        { "bias", in->bias, of_bias, sb_cuda_bytes(in->ids, of_bias) },
        { "scales", in->scales, 4, sb_cuda_bytes(in->ids, 4) },
        { "memory", call->memory, SB_HEAD_FORM, call->form.bytes },
    };
    return sb_cuda_check_arrays(ctx, arrays, sizeof arrays / sizeof *arrays);
}

static sb_status launch_scales(sb_context *ctx, const sb_scales_call *call)
{
    const sb_cuda *c = ctx->state;
    sb_cuda_scales_args a;
    memset(&a, 0, sizeof a);
    a.scales = sb_cuda_address(call->scales);
    a.matrix = sb_cuda_address(call->matrix);
    a.rows = call->rows;
    a.width = call->width;
    a.row_stride = call->row_stride;
    a.dtype = call->dtype;
    return sb_cuda_launch(ctx, c->head.head_scales, sb_cuda_warps_for(call->rows), &a.in,
                          call->launch.stream);
}

/* Looks for rows of weights that must be refused, before any byte of the head is written. */
static sb_status check_rows(sb_context *ctx, const sb_head_call *call, CUdeviceptr scratch)
{
    const sb_head_weights *in = &call->in;
    CUstream stream = call->launch.stream;
    const sb_scales_call scales = { .scales = (uint32_t *)(uintptr_t)scratch,
                                    .matrix = in->weights,
                                    .dtype = in->dtype,
                                    .rows = in->ids,
                                    .width = in->width,
                                    .row_stride = in->row_stride,
                                    .launch = call->launch };
    const void *own = scales.scales, *given = in->scales, *bias = in->bias;
    sb_status status = launch_scales(ctx, &scales);
    if (status != SB_OK) return status;
    status = sb_cuda_fetch(ctx, &own, in->ids, 4, stream);
    if (status != SB_OK) return status;
    status = sb_cuda_fetch(ctx, &given, in->ids, 4, stream);
    if (status == SB_OK) {
        status = sb_cuda_fetch(ctx, &bias, in->ids, (size_t)sb_itemsize(in->bias_dtype), stream);
        if (status == SB_OK) {
            sb_head_weights host = *in;
            host.scales = given;
            host.bias = bias;
            status = sb_check_weight_rows(&host, own, &ctx->error);
            free((void *)(uintptr_t)bias);
        }
        free((void *)(uintptr_t)given);
    }
    free((void *)(uintptr_t)own);
    return status;
}

sb_status sb_cuda_head(sb_context *ctx, const void *checked)
{
    const sb_cuda *c = ctx->state;
    const sb_head_call *call = checked;
    const sb_cuda_head_parts at = sb_cuda_head_parts_of(&call->form);
    sb_cuda_weights_args a = weights_args_of(call);
    sb_launch launch = call->launch;
    sb_status status = check_weights(ctx, call);
    launch.workspace = NULL;
    if (status == SB_OK && launch.check) {
        CUdeviceptr scratch;
        status = sb_cuda_scratch(ctx, &launch, sb_cuda_bytes(call->in.ids, 4), &scratch);
        if (status != SB_OK) return status;
        status = check_rows(ctx, call, scratch);
        sb_cuda_scratch_done(ctx, &launch, scratch);
    }
    if (status != SB_OK) return status;
    status = sb_cuda_launch(ctx, at.planes == 2 ? c->head.head_weights_a : c->head.head_weights_b,
                            sb_cuda_warps_for(at.tiles * SB_CUDA_HEAD_TILE), &a.in, launch.stream);
    if (status == SB_OK && at.parts) status = sb_cuda_launch_norms(ctx, call);
    if (status == SB_OK && launch.check) {
        int64_t report; /* the rows have been checked */
        status = sb_cuda_wait_for_report(ctx, &launch, &report);
    }
    return status;
}

/* ---- products ----------------------------------------------------------------------------- */

/* Whether the GPU has wgmma, and the kernels for it; and whether its int8 units are slow. */
static int has_wgmma(const sb_cuda *c) { return strcmp(c->isa, "sm_90") == 0; }
static int has_slow_int8(const sb_cuda *c) { return strcmp(c->isa, "sm_103") == 0; }

/* How a chunk of rows is multiplied. */
typedef struct product {
    CUfunction kernel;
    int32_t threads;
    uint32_t shared;
} product;

_Static_assert(SB_CUDA_HEAD_SUMS == SB_SUMS && SB_CUDA_HEAD_MOMENTS == SB_MOMENTS, "kinds");

static int wants_moments(const sb_cuda_hidden *h)
{
    return (h->out && h->out->entropy) || (h->to && sb_has_moments(h->to));
}

/* The kernel of a name for a call's format, with or without moments. */
#define KERNEL(from, name, a, moments)                                                             \
    ((a)->planes_count == 2 ? (moments) ? (from)->name##_a_moments : (from)->name##_a              \
     : (moments)            ? (from)->name##_b_moments                                             \
                            : (from)->name##_b)

/* The warpgroups take turns where the end of a tile takes long beside its product (measured). */
static CUfunction hopper_kernel(const sb_cuda_head_hopper_kernels *h, const sb_cuda_head_args *a,
                                int moments)
{
    if (a->most <= SB_CUDA_HEAD_FEW) return KERNEL(h, head_some, a, moments);
    if (a->most > SB_CUDA_HEAD_TILE && a->blocks <= (a->planes_count == 2 ? 32 : 16))
        return KERNEL(h, head_turns, a, moments);
    return KERNEL(h, head_many, a, moments);
}

/* Exact sums are written by the kernels for any GPU only. */
static product product_of(const sb_cuda *c, const sb_cuda_hidden *h, const sb_cuda_head_args *a)
{
    const sb_cuda_head_kernels *k = &c->head;
    const sb_launch *launch = &h->call->launch;
    const uint32_t few = (uint32_t)SB_CUDA_HEAD_FEW_SHARED(a->planes_count, a->blocks);
    const int any_gpu = launch->cluster < 0, other = any_gpu || a->sums;
    const int moments = wants_moments(h);
    if (launch->table < 0 || (has_slow_int8(c) && !any_gpu))
        return (product){ KERNEL(k, head_bf16, a, moments), SB_CUDA_HEAD_TILES_THREADS,
                          SB_CUDA_HEAD_TILES_SHARED(a->planes_count, 32) };
    if (!other && a->most <= SB_CUDA_HEAD_FEWEST && few <= (uint32_t)c->gpu.shared)
        return (product){ KERNEL(k, head_few, a, moments), SB_CUDA_HEAD_FEW_THREADS, few };
    if (!other && has_wgmma(c))
        return (product){ hopper_kernel(&c->head_hopper, a, moments), SB_CUDA_HEAD_HOPPER_THREADS,
                          SB_CUDA_HEAD_HOPPER_SHARED };
    return (product){ KERNEL(k, head_tiles, a, moments), SB_CUDA_HEAD_TILES_THREADS,
                      SB_CUDA_HEAD_TILES_SHARED(a->planes_count, 64) };
}

/* A block of head_list has LISTED work items. If there are more than COUNTED blocks, another kernel
 * counts the active rows of each; fewer blocks count those before them faster (measured). */
enum { LISTED = 512, COUNTED = 4 };

static int64_t listing_blocks(int64_t work) { return (work + LISTED - 1) / LISTED; }

/* The sizes of a call's scratch memory, whose parts are in this order: rows, items, count, counts,
 * states, digits. */
typedef struct layout {
    int64_t work, chunk; /* rows: to visit; multiplied at once */
    int32_t stride;
    uint64_t rows, items, count, counts, states, digits, bytes;
} layout;

static layout layout_of(const sb_cuda *c, const sb_cuda_hidden *h)
{
    const sb_batch *in = &h->call->in;
    const sb_cuda_head_parts at = sb_cuda_head_parts_of(&in->head->form);
    const uint64_t row = (uint64_t)at.blocks * SB_CUDA_HEAD_DEPTH * 3; /* bytes of digits */
    const int64_t tile = SB_CUDA_HEAD_TILE;
    int64_t most = (int64_t)(CHUNK_BYTES / row) / tile * tile, chunks;
    layout l;
    memset(&l, 0, sizeof l);
    if (most < tile) most = tile;
    l.work = h->work ? h->work : in->row_list ? in->row_count : h->call->rows;
    chunks = (l.work + most - 1) / most;
    if (chunks < 1) chunks = 1;
    l.chunk = ((l.work + chunks - 1) / chunks + tile - 1) / tile * tile;
    l.stride = l.work < tile ? (int32_t)((l.work + 15) / 16 * 16) : (int32_t)tile;
    l.rows = sb_cuda_padded((uint64_t)l.work * sizeof(sb_cuda_head_row));
    l.items = sb_cuda_padded((uint64_t)l.work * sizeof(int64_t));
    l.count = SB_CUDA_BOUNDARY;
    if (listing_blocks(l.work) > COUNTED)
        l.counts = sb_cuda_padded((uint64_t)listing_blocks(l.work) * sizeof(int32_t));
    l.states = sb_cuda_padded((uint64_t)(c->gpu.multiprocessors + l.chunk / tile) *
                              (uint64_t)l.stride *
                              (wants_moments(h) ? sizeof(sb_moments) : sizeof(sb_state)));
    l.digits = sb_cuda_padded((uint64_t)l.chunk * row);
    l.bytes = l.rows + l.items + l.count + l.counts + l.states + l.digits;
    return l;
}

uint64_t sb_cuda_hidden_bytes(const sb_cuda *c, const sb_cuda_hidden *h)
{
    return layout_of(c, h).bytes;
}

/* The arguments of a call's rows: its hidden states take the place of logits. */
static sb_cuda_args rows_of(const sb_cuda *c, const sb_cuda_hidden *h)
{
    static const sb_logprob_out no_out = SB_LOGPROB_OUT_INIT;
    sb_cuda_plan none;
    sb_cuda_args a;
    sb_call call = *h->call;
    memset(&none, 0, sizeof none);
    call.in.logits = call.in.hidden;
    call.in.logits_dtype = call.in.hidden_dtype;
    call.in.row_stride = call.in.hidden_row_stride;
    call.in.batch_stride = call.in.hidden_batch_stride;
    if (h->mask) {
        call.in.mask = (const uint8_t *)(uintptr_t)h->mask;
        call.in.row_list = NULL;
        call.in.row_count = 0;
    }
    a = sb_cuda_args_of(c, h->out ? h->out : &no_out, &call, &none, 0);
    if (h->lists) sb_cuda_use_words(&a, h->lists);
    return a;
}

static sb_cuda_head_args head_args_of(const sb_cuda *c, const sb_cuda_hidden *h, const layout *l,
                                      CUdeviceptr scratch)
{
    const sb_call *call = h->call;
    const sb_head *head = call->in.head;
    const sb_cuda_head_parts at = sb_cuda_head_parts_of(&head->form);
    const uint64_t memory = sb_cuda_address(head->memory);
    const int64_t before = call->first - head->form.first; /* ids of the head before the call's */
    const int64_t tile = before / SB_CUDA_HEAD_TILE, ids = tile * SB_CUDA_HEAD_TILE;
    sb_cuda_head_args a;
    memset(&a, 0, sizeof a);
    a.in = rows_of(c, h);
    a.in.work = l->work;
    a.planes = memory + at.digits +
               (uint64_t)tile * (uint64_t)at.blocks * SB_CUDA_HEAD_BLOCK * (uint64_t)at.planes;
    a.exponents = memory + at.exponents + (uint64_t)ids;
    a.bias = at.bias ? memory + at.bias + (uint64_t)ids * sizeof(float) : 0;
    a.rows = scratch;
    a.items = scratch + l->rows;
    a.count = l->work > SB_CUDA_HEAD_FEW ? a.items + l->items : 0;
    a.counts = l->counts ? a.items + l->items + l->count : 0;
    a.states = a.items + l->items + l->count + l->counts;
    a.digits = a.states + l->states;
    a.scales = h->scales;
    a.logits_dtype = h->logits_dtype;
    if (h->to) {
        a.logits_dtype = h->to->kind;
        a.to_states = sb_cuda_address(h->to->states);
        a.to_targets = sb_cuda_address(h->to->targets);
    }
    a.of_ids = h->ids || h->gathered;
    a.logprobs = h->ids ? sb_cuda_address(h->ids->out.logprob) : 0;
    a.gathered = h->gathered;
    a.logits = h->logits;
    a.sums = h->sums;
    a.logits_stride = h->row_stride;
    a.logits_batch_stride = h->batch_stride;
    a.before = h->before;
    a.by_item = h->work != 0;
    a.first = head->form.first + ids;
    a.skip = before - ids;
    a.held = a.skip + call->held;
    a.depth = head->form.width;
    a.blocks = at.blocks;
    a.planes_count = at.planes;
    a.tiles = (int32_t)((a.held + SB_CUDA_HEAD_TILE - 1) / SB_CUDA_HEAD_TILE);
    a.groups = c->gpu.multiprocessors;
    a.stride = l->stride;
    a.steps = sb_linear_steps_of(head->form.scale, head->form.softcap);
    a.plain = !at.bias && !a.in.kept && head->form.scale == 1.0f && head->form.softcap == 0.0f;
    return a;
}

/* How many ids of a row a block takes: many, unless the rows are few. Then all warps but the one
 * that merges the row's states take one each. */
static int32_t ids_of_block(const sb_cuda *c, const sb_cuda_head_args *a)
{
    const int32_t few = SB_CUDA_GATHER_THREADS / 32 - 1;
    const int64_t blocks = a->most * ((a->in.width + few - 1) / few);
    return blocks <= 8 * (int64_t)c->gpu.multiprocessors ? few : SB_CUDA_GATHER_IDS;
}

/* Launches what follows the product of a chunk of rows: the end of each, for each of its groups of
 * ids, if it has several. Logits of lists have no product in front; a list's length is not known,
 * but the mean is. */
static sb_status launch_end(sb_context *ctx, const sb_cuda_hidden *h, const sb_cuda_head_args *of)
{
    const sb_cuda *c = ctx->state;
    const sb_cuda_head_kernels *k = &c->head;
    const sb_cuda_head_gather_kernels *gather = &c->head_gather;
    sb_cuda_head_args a = *of;
    sb_cuda_grid grid = sb_cuda_warps_for(a.most);
    CUfunction kernel = wants_moments(h) ? k->head_finish_moments : k->head_finish;
    if (h->ids) {
        a.ids_each = ids_of_block(c, &a);
        grid.blocks = a.most * ((a.in.width + a.ids_each - 1) / a.ids_each);
        grid.threads = SB_CUDA_GATHER_THREADS;
        kernel = a.planes_count == 2 ? gather->head_ids_a : gather->head_ids_b;
    } else if (h->gathered) {
        a.groups = 1 + (int32_t)(a.in.kept_count / a.in.rows / SB_CUDA_GATHER_IDS);
        grid.blocks = a.most * a.groups;
        grid.threads = SB_CUDA_GATHER_THREADS;
        kernel = a.planes_count == 2 ? gather->head_lists_a : gather->head_lists_b;
    }
    grid.early = 1;
    return sb_cuda_launch(ctx, kernel, grid, &a.in, h->call->launch.stream);
}

static sb_status launch_chunk(sb_context *ctx, const sb_cuda_hidden *h, sb_cuda_head_args *a)
{
    const sb_cuda *c = ctx->state;
    CUstream stream = h->call->launch.stream;
    const product p = product_of(c, h, a);
    const sb_cuda_grid prepares = { .blocks = (a->most + 1) / 2, .threads = 64, .early = 1 };
    const sb_cuda_grid multiplies = {
        .blocks = a->groups, .threads = p.threads, .shared = p.shared, .early = 1
    };
    sb_status status = sb_cuda_launch(ctx, c->head.head_hidden, prepares, &a->in, stream);
    if (status == SB_OK && !h->gathered)
        status = sb_cuda_launch(ctx, p.kernel, multiplies, &a->in, stream);
    return status == SB_OK && !a->logits && !a->sums ? launch_end(ctx, h, a) : status;
}

sb_status sb_cuda_run_hidden(sb_context *ctx, const sb_cuda_hidden *h, CUdeviceptr scratch)
{
    const sb_cuda *c = ctx->state;
    const layout l = layout_of(c, h);
    const sb_cuda_grid lists = { .blocks = listing_blocks(l.work), .threads = LISTED, .early = 1 };
    CUstream stream = h->call->launch.stream;
    sb_cuda_head_args a = head_args_of(c, h, &l, scratch);
    sb_status status = SB_OK;
    if (l.work == 0) return SB_OK;
    if (a.counts) status = sb_cuda_launch(ctx, c->head.head_count, lists, &a.in, stream);
    if (a.count && status == SB_OK)
        status = sb_cuda_launch(ctx, c->head.head_list, lists, &a.in, stream);
    for (a.chunk = 0; a.chunk < l.work && status == SB_OK; a.chunk += l.chunk) {
        a.most = l.work - a.chunk < l.chunk ? l.work - a.chunk : l.chunk;
        status = launch_chunk(ctx, h, &a);
    }
    return status;
}

/* ---- logits and columns of D -------------------------------------------------------------- */

static const sb_logprob_out NO_OUT = SB_LOGPROB_OUT_INIT;

/* Blanks the rows that are not active, and computes the others. */
static sb_status run_logits(sb_context *ctx, const sb_cuda_hidden *h, CUdeviceptr scratch)
{
    const sb_cuda *c = ctx->state;
    const layout l = layout_of(c, h);
    const sb_cuda_grid blank = { .blocks = h->call->rows, .threads = 256 };
    sb_cuda_head_args a = head_args_of(c, h, &l, scratch);
    sb_status status = sb_cuda_launch(ctx, c->head.head_blank, blank, &a.in,
                                      h->call->launch.stream);
    return status == SB_OK ? sb_cuda_run_hidden(ctx, h, scratch) : status;
}

/* Logits need lists as words; sums only which rows are refused. */
static sb_cuda_lists lists_beside(const sb_cuda_hidden *h)
{
    return h->sums ? sb_cuda_list_bytes_of(h->call) : sb_cuda_lists_of(h->call);
}

static uint64_t logits_bytes(const sb_cuda *c, const sb_cuda_hidden *h)
{
    return h->call->held ? lists_beside(h).bytes + sb_cuda_hidden_bytes(c, h) : 0;
}

static sb_status logits_call(sb_context *ctx, sb_cuda_hidden *h, const sb_cuda_array *outputs,
                             size_t count)
{
    const sb_call *call = h->call;
    sb_cuda_lists lists = lists_beside(h);
    CUdeviceptr scratch;
    sb_status status = sb_cuda_check_arguments(ctx, &NO_OUT, call);
    if (status == SB_OK) status = sb_cuda_check_arrays(ctx, outputs, count);
    if (status == SB_OK && call->held == 0) return SB_OK;
    if (status == SB_OK)
        status = sb_cuda_scratch(ctx, &call->launch, logits_bytes(ctx->state, h), &scratch);
    if (status != SB_OK) return status;
    status = sb_cuda_launch_words(ctx, call, &lists, scratch, 0);
    if (lists.bytes) h->lists = &lists;
    if (status == SB_OK) status = run_logits(ctx, h, scratch + lists.bytes);
    return sb_cuda_end_call(ctx, call, scratch, status);
}

static sb_cuda_hidden hidden_of_logits(const sb_logits_call *call)
{
    return (sb_cuda_hidden){ .call = &call->call,
                             .logits = sb_cuda_address(call->out.logits),
                             .logits_dtype = call->out.dtype,
                             .row_stride = call->out.row_stride,
                             .batch_stride = call->out.batch_stride };
}

sb_status sb_cuda_logits(sb_context *ctx, const void *checked)
{
    const sb_logits_call *call = checked;
    const sb_batch *in = &call->call.in;
    const uint64_t size = (uint64_t)sb_itemsize(call->out.dtype);
    sb_cuda_hidden h = hidden_of_logits(call);
    const sb_cuda_array output = {
        "logits", call->out.logits, size,
        in->cu_seqlens
            ? sb_cuda_span(1, call->call.rows, 0, call->out.row_stride, call->call.held, size)
            : sb_cuda_span(in->batch, in->time, call->out.batch_stride, call->out.row_stride,
                           call->call.held, size)
    };
    return logits_call(ctx, &h, &output, 1);
}

sb_status sb_cuda_logits_workspace(sb_context *ctx, const void *checked, uint64_t *bytes)
{
    const sb_logits_call *call = checked;
    const sb_cuda_hidden h = hidden_of_logits(call);
    *bytes = logits_bytes(ctx->state, &h);
    return SB_OK;
}

sb_status sb_cuda_scales(sb_context *ctx, const void *checked)
{
    const sb_scales_call *call = checked;
    const uint64_t size = (uint64_t)sb_itemsize(call->dtype);
    const sb_cuda_array arrays[] = {
        { "matrix", call->matrix, size,
          sb_cuda_span(1, call->rows, 0, call->row_stride, call->width, size) },
        { "scales", call->scales, 4, sb_cuda_bytes(call->rows, 4) },
    };
    sb_status status = sb_cuda_check_arrays(ctx, arrays, 2);
    return status == SB_OK ? launch_scales(ctx, call) : status;
}

static sb_cuda_hidden hidden_of_products(const sb_products_call *call)
{
    return (sb_cuda_hidden){ .call = &call->call,
                             .sums = sb_cuda_address(call->sums),
                             .scales = sb_cuda_address(call->scales),
                             .row_stride = call->call.held,
                             .batch_stride = call->call.in.time * call->call.held };
}

sb_status sb_cuda_products(sb_context *ctx, const void *checked)
{
    const sb_products_call *call = checked;
    const int64_t rows = call->call.rows;
    sb_cuda_hidden h = hidden_of_products(call);
    const sb_cuda_array arrays[] = {
        { "sums", call->sums, 8, sb_cuda_span(1, rows, 0, call->call.held, call->call.held, 8) },
        { "scales", call->scales, 4, sb_cuda_bytes(rows, 4) },
    };
    return logits_call(ctx, &h, arrays, 2);
}

sb_status sb_cuda_products_workspace(sb_context *ctx, const void *checked, uint64_t *bytes)
{
    const sb_products_call *call = checked;
    const sb_cuda_hidden h = hidden_of_products(call);
    *bytes = logits_bytes(ctx->state, &h);
    return SB_OK;
}

sb_status sb_cuda_combine(sb_context *ctx, const void *checked)
{
    const sb_cuda *c = ctx->state;
    const sb_combine_call *call = checked;
    const sb_head_form *form = &call->head->form;
    const sb_cuda_head_parts at = sb_cuda_head_parts_of(form);
    const uint64_t memory = sb_cuda_address(call->head->memory);
    const uint64_t ids = (uint64_t)(call->first - form->first);
    const sb_cuda_array arrays[] = {
        { "logits", call->logits, 4, sb_cuda_span(1, call->rows, 0, call->held, call->held, 4) },
        { "sums", call->sums, 8, sb_cuda_span(1, call->rows, 0, call->held, call->held, 8) },
        { "scales", call->scales, 4, sb_cuda_bytes(call->rows, 4) },
    };
    const sb_cuda_grid grid = { .blocks = (call->rows * call->held + 255) / 256, .threads = 256 };
    sb_cuda_combine_args a;
    sb_status status = sb_cuda_check_arrays(ctx, arrays, 3);
    if (status != SB_OK) return status;
    memset(&a, 0, sizeof a);
    a.logits = sb_cuda_address(call->logits);
    a.sums = sb_cuda_address(call->sums);
    a.scales = sb_cuda_address(call->scales);
    a.exponents = memory + at.exponents + ids;
    a.bias = at.bias ? memory + at.bias + ids * sizeof(float) : 0;
    a.rows = call->rows;
    a.held = call->held;
    a.steps = sb_linear_steps_of(form->scale, form->softcap);
    a.planes = at.planes;
    return sb_cuda_launch(ctx, c->head.head_combine, grid, &a.in, call->launch.stream);
}
