/* sample.cu - draws a token for each row: filters, the draw, and its logprobs (det/sample.h).
 *
 *   token: the first id at which the exact sum of shares exceeds U / 2^64 of the total
 *
 * Shapes: everything in src/cuda/sample_args.h. Rows have been summed in pieces by order.cu, which
 * has also found their first ids where filters need them:
 *
 *     no filters      ids_<dtype> -> sample_draw_<dtype>
 *     k <= 64         topk_<dtype> -> sample_list
 *     other filters   topk_<dtype>, of one id -> sample_filter_<dtype>
 *
 *     sample_draw_<dtype>    one block of SB_CUDA_FILTER threads per item: finds the piece that
 *                            holds the draw by prefix sums, reads it again, finds the leaf, and the
 *                            id.
 *     sample_list            one warp per item, or one block if rows are cut into pieces: filters
 *                            the list of first ids and draws from it.
 *     sample_filter_<dtype>  one block of SB_CUDA_FILTER threads per item. Finds each cut by
 *                            descending through ranges of keys, 16 in one read of the row, with the
 *                            sums of each thread in its own column of shared memory; then sums what
 *                            is kept, and draws from it. */
#include "draw.cuh"
#include "leaf.cuh"
#include "piece.cuh"

/* ---- the draw of a row without filters ---------------------------------------------------- */

/* What a block knows about its row, in shared memory. */
struct drawing {
    sb_row row;
    sb_cut cut;
    search at;
    sb_state whole; /* of the present ids */
    int32_t fate;
    int64_t number;
};

/* Merges the states of a row's parts. Called by a whole block; warp 0 gets the result. */
SB_DET void merge_parts(sb_state *s, const sb_state *parts, int count, sb_state *shared)
{
    make_none(s);
    for (int p = threadIdx.x; p < count; p += blockDim.x) merge_into(s, parts[p]);
    block_merge(s, shared);
}

/* The states of an item's parts. */
SB_DET const sb_state *parts_of(const sb_cuda_sample_args &a, int64_t item)
{
    return (const sb_state *)a.in.states + item * a.in.split;
}

/* Begins with a row: sets d, with its whole state, which is s in warp 0. Returns whether there is
 * anything to draw from; otherwise the row is written. Called by a whole block. */
SB_DET bool begin_row(const sb_cuda_sample_args &a, int64_t item, drawing *d, sb_state *s,
                      sb_state *shared)
{
    const sb_cuda_args &in = a.in;
    if (threadIdx.x == 0) {
        d->fate = fate_of(a, item, true);
        if (d->fate != ROW_UNKNOWN) d->number = row_at(in, item);
        if (d->fate == ROW_ACTIVE) d->row = constants_of(in, temperature_of(in, d->number));
        d->cut.place = 0;
        d->cut.least = 0.0f;
    }
    __syncthreads(); /* d is written */
    if (d->fate == ROW_UNKNOWN) return false;
    if (d->fate == ROW_ACTIVE) {
        merge_parts(s, parts_of(a, item), a.in.split, shared);
        if (threadIdx.x == 0) {
            d->whole = *s;
            if (sb_state_is_nan(s)) d->fate = ROW_NAN;
        }
        __syncthreads(); /* the whole state is written */
    }
    if (d->fate == ROW_ACTIVE) return true;
    write_none(a, d->number, d->fate, threadIdx.x, blockDim.x);
    return false;
}

/* The model's state, in warp 0: that of the row, or, if it has a kept set, that of the row without
 * it. */
SB_DET void merge_model(const sb_cuda_sample_args &a, int64_t item, const drawing &d, sb_state *s,
                        sb_state *shared)
{
    *s = d.whole;
    if (!a.models) return;
    __syncthreads(); /* shared has been read */
    merge_parts(s, (const sb_state *)a.models + item * a.model_split, a.model_split, shared);
}

template <int DTYPE> SB_DET void draw_block(const sb_cuda_sample_args &a)
{
    const sb_cuda_args &in = a.in;
    __shared__ drawing d;
    __shared__ sb_state shared[DRAW_WARPS];
    const int64_t item = blockIdx.x;
    sb_state kept, model;

    wait_for_primary();
    if (!begin_row(a, item, &d, &kept, shared)) return;
    merge_model(a, item, d, &model, shared);
    if (threadIdx.x == 0) d.at.R = sb_drawn(draw_bits(a, d.number), sb_total(&d.whole));
    __syncthreads(); /* R is written */
    const sb_state *parts = parts_of(a, item);
    find_item(&d.at, in.split, [&](int p) { return sb_total_at(&parts[p], d.whole.J); });
    const part_of_row part = piece_of_row(in, logits_of(in, d.number), in.vocab, d.at.item);
    draw_in_part<DTYPE>(a, d.number, part, d.cut, &d.at, d.whole.J, kept, model, d.row);
}

/* ---- filters ------------------------------------------------------------------------------ */

#define BINS 16

/* The low bits of keys that all logits of a dtype have alike, but for their sign. */
template <int DTYPE> SB_DET constexpr int spare_bits()
{
    return DTYPE == SB_CUDA_BF16 ? 16 : DTYPE == SB_CUDA_F16 ? 13 : 0;
}

/* The key that begins with these bits. */
template <int DTYPE> SB_DET uint32_t key_of(uint32_t bits)
{
    constexpr int SPARE = spare_bits<DTYPE>();
    const uint32_t key = bits << SPARE;
    return key >> 31 ? key : key | ((1u << SPARE) - 1);
}

/* A range of keys below the largest, by their distance d from it, and its bins. */
struct key_range {
    uint32_t first; /* the least distance */
    int shift;      /* a bin has 2^shift distances; -1: bin b has 4^b .. 4^(b + 1) - 1, bin 0 also
                       those below */
};

/* The bin of a distance; BINS or more if it is outside the range. */
SB_DET uint32_t bin_of(const key_range &r, uint32_t d)
{
    if (r.shift < 0) return d < 4 ? 0 : (31 - __clz((int)d)) / 2;
    return d < r.first ? BINS : (d - r.first) >> r.shift;
}

/* Whether a distance, and so every larger one, is past the range. */
SB_DET bool is_past(const key_range &r, uint32_t d)
{
    return r.shift >= 0 && d >= r.first && (d - r.first) >> r.shift >= BINS;
}

SB_DET key_range range_of_bin(const key_range &r, uint32_t bin)
{
    if (r.shift >= 0) return { r.first + (bin << r.shift), max(r.shift - 4, 0) };
    return { bin == 0 ? 0 : 1u << 2 * bin, bin < 2 ? 0 : 2 * (int)bin - 2 };
}

/* A block's room for the sums of bins: a column for each thread. In warps of 64, a block has twice
 * the threads. */
#define COLUMNS (SB_CUDA_FILTER / 32 * WARP)
struct bin_room {
    uint64_t own[BINS][COLUMNS];
    uint64_t all[BINS];
};

/* Sums up a row's kept ids, by the bins of their keys: 1 each, or their weights. */
template <int DTYPE>
SB_DET void sum_bins(const sb_cuda_sample_args &a, const drawing &d, const part_of_row &row,
                     const key_range &range, uint32_t most, bool weighted, bin_room *room)
{
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, warps = blockDim.x / WARP;
    for (int b = 0; b < BINS; b++) room->own[b][threadIdx.x] = 0;
    for (int k = threadIdx.x; k < row.last; k += blockDim.x) {
        float y[SB_LEAF], m = sb_float(SB_ABSENT_BITS);
        if (!read_cut<DTYPE>(y, a.in, d.number, row, k, d.cut)) continue;
#pragma unroll
        for (int i = 0; i < SB_LEAF; i++) m = fmaxf(m, y[i]);
        if (is_past(range, most - (sb_order_key(m) >> spare_bits<DTYPE>()))) continue;
#pragma unroll
        for (int i = 0; i < SB_LEAF; i++) {
            if (sb_is_absent(y[i])) continue;
            const uint32_t b = bin_of(range, most - (sb_order_key(y[i]) >> spare_bits<DTYPE>()));
            if (b < BINS)
                room->own[b][threadIdx.x] += weighted
                                                 ? sb_weight_units(sb_weight(y[i], &d.cut.weights))
                                                 : 1;
        }
    }
    __syncthreads(); /* all columns are complete */
    for (int b = warp; b < BINS; b += warps) {
        uint64_t sum = 0;
        for (int t = lane; t < COLUMNS; t += WARP) sum += room->own[b][t];
        for (int step = WARP / 2; step > 0; step /= 2) sum += __shfl_xor_sync(FULL, sum, step);
        if (lane == 0) room->all[b] = sum;
    }
    __syncthreads(); /* the sums are written */
}

/* The n-th id, from the lowest, that has a key. */
template <int DTYPE>
SB_DET uint32_t nth_of_key(const sb_cuda_sample_args &a, drawing *d, const part_of_row &row,
                           uint32_t key, uint64_t n)
{
    if (threadIdx.x == 0) d->at.R = n - 1;
    __syncthreads(); /* R is written */
    find_item(&d->at, row.last, [&](int k) {
        float y[SB_LEAF];
        uint32_t count = 0;
        if (!read_cut<DTYPE>(y, a.in, d->number, row, k, d->cut)) return (sb_u128)0;
#pragma unroll
        for (int i = 0; i < SB_LEAF; i++) count += !sb_is_absent(y[i]) && sb_order_key(y[i]) == key;
        return (sb_u128)count;
    });
    float y[SB_LEAF];
    uint32_t left = (uint32_t)d->at.R, id = 0;
    read_cut<DTYPE>(y, a.in, d->number, row, d->at.item, d->cut);
#pragma unroll
    for (int i = 0; i < SB_LEAF; i++)
        if (!sb_is_absent(y[i]) && sb_order_key(y[i]) == key && left-- == 0)
            id = (uint32_t)d->at.item * SB_LEAF + i;
    return id;
}

/* Moves the cut up to the last id of the shortest beginning of the row whose sum reaches a goal: k
 * ids (top_p of 1), or top_p of the sum of weights. Called by a whole block, after a barrier. */
template <int DTYPE>
SB_DET void move_cut(const sb_cuda_sample_args &a, drawing *d, const part_of_row &row, float best,
                     int32_t k, float top_p, bin_room *room)
{
    const bool weighted = top_p < 1.0f;
    const uint32_t most = sb_order_key(best) >> spare_bits<DTYPE>();
    key_range range = { 0, -1 };
    uint64_t left = 0; /* of the goal, less 1 */
    for (bool last = false, begun = false; !last; begun = true) {
        last = range.shift == 0;
        sum_bins<DTYPE>(a, *d, row, range, most, weighted, room);
        if (!begun) {
            uint64_t sum = 0;
            for (int b = 0; b < BINS; b++) sum += room->all[b];
            if (!weighted && (uint64_t)k >= sum) return; /* all stay */
            left = (weighted ? sb_top_p_goal(top_p, sum) : (uint64_t)k) - 1;
        }
        uint32_t b = 0;
        while (room->all[b] <= left) left -= room->all[b], b++;
        const uint64_t in_bin = room->all[b];
        range = range_of_bin(range, b);
        if (!last) {
            __syncthreads(); /* the sums have been read */
            continue;
        }
        const uint32_t key = key_of<DTYPE>(most - range.first);
        const uint64_t place = (uint64_t)key << 32;
        const uint64_t each =
            weighted ? sb_weight_units(sb_weight(sb_place_logit(place), &d->cut.weights)) : 1;
        const uint64_t n = left / each + 1;
        uint64_t cut = max(place, d->cut.place); /* all of this key that the cut has left */
        if (n * each != in_bin) cut = place | (0xffffffffu - nth_of_key<DTYPE>(a, d, row, key, n));
        __syncthreads(); /* the old cut has been read */
        if (threadIdx.x == 0) d->cut.place = cut;
        __syncthreads(); /* the cut is written */
    }
}

/* The share of a warp in a row. */
SB_DET part_of_row part_of_warp(part_of_row row, int warp, int warps)
{
    const int each = (row.last + warps - 1) / warps;
    part_of_row part = row;
    part.first = min(warp * each, row.last);
    part.last = min(part.first + each, row.last);
    return part;
}

/* Sums up what is kept of a warp's part, writes its bits, and returns the number of ids. */
template <int DTYPE>
SB_DET int32_t sum_cut(sb_state *s, const sb_cuda_sample_args &a, const drawing &d,
                       const part_of_row &part)
{
    uint16_t *kept = a.kept ? (uint16_t *)((uint32_t *)a.kept + d.number * kept_words(a)) : nullptr;
    int32_t count = 0;
    sb_state_init(s, d.row.c);
    for (int k = part.first + (int)threadIdx.x % WARP; k < part.last; k += WARP) {
        float y[SB_LEAF];
        uint32_t bits = 0;
        if (read_cut<DTYPE>(y, a.in, d.number, part, k, d.cut)) {
            add_any(s, y, d.row);
#pragma unroll
            for (int i = 0; i < SB_LEAF; i++) bits |= !sb_is_absent(y[i]) << i;
        }
        count += __popc(bits);
        if (kept) kept[k] = (uint16_t)bits;
    }
    warp_merge(s);
    return (int32_t)__reduce_add_sync(FULL, (uint32_t)count);
}

template <int DTYPE> SB_DET void filter_block(const sb_cuda_sample_args &a)
{
    const sb_cuda_args &in = a.in;
    __shared__ drawing d;
    __shared__ bin_room room;
    __shared__ sb_state shared[DRAW_WARPS], parts[DRAW_WARPS];
    __shared__ float largest[DRAW_WARPS];
    __shared__ int32_t counts[DRAW_WARPS];
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, warps = blockDim.x / WARP;
    const int64_t item = blockIdx.x;
    sb_state s, model;

    wait_for_primary();
    if (!begin_row(a, item, &d, &s, shared)) return;
    merge_model(a, item, d, &model, shared);
    float best = sb_float(SB_ABSENT_BITS); /* the first id's logit, from the lists of one */
    for (int p = threadIdx.x; p < in.split; p += blockDim.x) {
        const uint64_t place = ((const uint64_t *)a.lists)[(item * in.split + p) * SB_CUDA_LIST];
        if (place) best = fmaxf(best, sb_place_logit(place));
    }
    for (int step = WARP / 2; step > 0; step /= 2)
        best = fmaxf(best, __shfl_xor_sync(FULL, best, step));
    if (lane == 0) largest[warp] = best;
    __syncthreads(); /* the largest logits are written */
    for (int w = 0; w < warps; w++) best = fmaxf(best, largest[w]);

    const row_filters f = filters_of(a, d.number);
    part_of_row row = piece_of_row(in, logits_of(in, d.number), in.vocab, 0);
    row.last = leaves_in(in.vocab); /* the whole row, not only piece 0 */
    if (threadIdx.x == 0) d.cut.weights = sb_weights_of(best, &d.row);
    __syncthreads(); /* the weights are written */
    if (f.top_k > 0) move_cut<DTYPE>(a, &d, row, best, f.top_k, 1.0f, &room);
    if (f.top_p < 1.0f) {
        __syncthreads(); /* the room has been read */
        move_cut<DTYPE>(a, &d, row, best, 0, f.top_p, &room);
    }
    if (threadIdx.x == 0) d.cut.least = sb_least_weight(f.min_p, sb_weight(best, &d.cut.weights));
    __syncthreads(); /* the cut is complete */

    const int32_t count = sum_cut<DTYPE>(&s, a, d, part_of_warp(row, warp, warps));
    if (lane == 0) parts[warp] = s, counts[warp] = count;
    if (a.kept && threadIdx.x == 0 && row.last % 2) /* the other half of the last word */
        ((uint16_t *)((uint32_t *)a.kept + d.number * kept_words(a)))[row.last] = 0;
    if (lane != 0) make_none(&s); /* all lanes have the part's state */
    block_merge(&s, shared);
    if (threadIdx.x == 0) {
        int32_t all = 0;
        for (int w = 0; w < warps; w++) all += counts[w];
        if (a.count) ((int32_t *)a.count)[d.number] = all;
        d.whole = s;
        d.at.R = sb_drawn(draw_bits(a, d.number), sb_total(&s));
    }
    __syncthreads(); /* R is written */
    find_item(&d.at, warps, [&](int w) { return sb_total_at(&parts[w], d.whole.J); });
    const part_of_row part = part_of_warp(row, d.at.item, warps);
    draw_in_part<DTYPE>(a, d.number, part, d.cut, &d.at, d.whole.J, s, model, d.row);
}

/* ---- the first k -------------------------------------------------------------------------- */

/* Draws from a row's list, of which every lane of the calling warp has its part. */
SB_DET void draw_first(const sb_cuda_sample_args &a, int64_t item, int32_t fate, place_list list,
                       list_room *room)
{
    const sb_cuda_args &in = a.in;
    const int64_t row = row_at(in, item);
    const int lane = threadIdx.x % WARP;
    sb_state s;
    if (fate == ROW_ACTIVE) {
        merge_pieces(&s, parts_of(a, item), in.split);
        if (sb_state_is_nan(&s)) fate = ROW_NAN;
    }
    if (fate != ROW_ACTIVE) {
        write_none(a, row, fate, lane, WARP);
        return;
    }
    if (a.models)
        merge_pieces(&s, (const sb_state *)a.models + item * a.model_split, a.model_split);
    const sb_row constants = constants_of(in, temperature_of(in, row));
    filter_list(&list, filters_of(a, row), constants);
    empty_kept(a, row, lane, WARP);
    __syncwarp(); /* the words are zero */
    draw_from_list(a, row, list, room, s, constants);
}

extern "C" __global__ void __launch_bounds__(512)
    sample_list(const __grid_constant__ sb_cuda_sample_args a)
{
    __shared__ list_room rooms[SB_CUDA_LIST_ROWS];
    const sb_cuda_args &in = a.in;
    const bool alone = in.split == 1; /* one warp per item, else one block */
    const int64_t item = alone ? warp_item() : blockIdx.x;
    place_list list = empty_list();
    wait_for_primary();
    if (item >= in.work) return;
    const int32_t fate = fate_of(a, item, threadIdx.x % WARP == 0);
    if (fate == ROW_UNKNOWN) return;
    if (fate == ROW_ACTIVE) {
        const uint64_t *lists = (const uint64_t *)a.lists + item * in.split * SB_CUDA_LIST;
        list = alone ? load_list(lists) : merge_piece_lists(lists, in.split, a.top_k);
    }
    if (alone) draw_first(a, item, fate, list, &rooms[threadIdx.x / WARP]);
    else if (threadIdx.x < WARP) draw_first(a, item, fate, list, &rooms[0]);
}

#define SAMPLE(name, DTYPE)                                                                        \
    extern "C" __global__ void __launch_bounds__(256)                                              \
        sample_draw_##name(const __grid_constant__ sb_cuda_sample_args a)                          \
    {                                                                                              \
        draw_block<DTYPE>(a);                                                                      \
    }                                                                                              \
    extern "C" __global__ void __launch_bounds__(SB_CUDA_FILTER)                                   \
        sample_filter_##name(const __grid_constant__ sb_cuda_sample_args a)                        \
    {                                                                                              \
        filter_block<DTYPE>(a);                                                                    \
    }
SAMPLE(f32, SB_CUDA_F32)
SAMPLE(f16, SB_CUDA_F16)
SAMPLE(bf16, SB_CUDA_BF16)
