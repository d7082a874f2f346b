/* draw.cu - draws from shards of the vocabulary (det/draw.h): one round, or the last step.
 *
 *     messages of all ranks -> progress -> logits of the rank's own ids -> message, or results
 *
 * Shapes: everything in src/cuda/draw_args.h. One block of SB_CUDA_DRAW threads per row does all of
 * it: a rank's part of a row is short, and the messages of a row are small. What all ranks know,
 * every rank computes from the same integers.
 *
 *     SB_DRAW_BEGIN        the state of the present ids; the first places, in a list per warp
 *     SB_DRAW_KEYS         sums over keys, in SB_DRAW_BINS sums per warp, to which lane 0 adds
 *     SB_DRAW_KEPT         the state of the kept ids, and their number
 *     SB_DRAW_TOKEN        the leaf by prefix sums, and the id, if R lies in the rank's share
 *     SB_CUDA_DRAW_FINISH  the results, and the bits of the rank's own kept ids
 *
 * Nothing is summed by atomics: each word of shared memory has one thread that adds to it. */
#include <stddef.h>

#include "../src/cuda/draw_args.h"
#include "draw.cuh"
#include "kept.cuh"

#define WARPS_PER_ROW (SB_CUDA_DRAW / 32) /* whatever their width */

/* What a block knows of its row, in shared memory. */
struct shard_row {
    any_row row;
    sb_draw_row known;
    sb_cut cut;
    row_filters filters;
    search at;
    sb_draw_token token;
    uint64_t nth;  /* see sb_draw_cut */
    int32_t owner; /* the rank in whose share R lies */
    int32_t is_cut;
    int bin;
    sb_fault fault;
};

/* The block's large arrays, of which a round needs one. */
union shard_room {
    uint64_t bins[WARPS_PER_ROW][SB_DRAW_BINS];
    struct {
        uint64_t of_warps[LIST_WARPS * LIST_STRIDE], all[SB_CUDA_LIST];
    } lists;
    list_room draws;
};

/* ---- logits ------------------------------------------------------------------------------- */

SB_DET part_of_row part_of_shard(const sb_cuda_draw_args &a, const shard_row &d)
{
    return { d.row.logits, a.held, 0, leaves_in(a.held) };
}

/* Reads leaf k of the rank's ids; what is not kept is absent. bare: without kept sets and filters.
 * Returns false if nothing is left. */
template <int DTYPE>
SB_DET bool read_leaf(float y[SB_LEAF], const sb_cuda_draw_args &a, const shard_row &d,
                      const part_of_row &part, int k, bool bare)
{
    const int64_t before = a.first / SB_LEAF;
    bool any = false;
    if (bare) {
        constexpr int BYTES = SB_LEAF * size_of<DTYPE>();
        const char *p = part.logits + (int64_t)k * BYTES;
        const int64_t present = part.vocab - (int64_t)k * SB_LEAF;
        leaf_words<DTYPE> x;
        if (present >= SB_LEAF && ((uint64_t)p & 15) == 0) load_leaf<DTYPE, 0>(x, p);
        else load_part<DTYPE>(x, p, present);
#pragma unroll
        for (int i = 0; i < SB_LEAF; i++) y[i] = unpack<DTYPE>(x, i);
        return true;
    }
    if (!read_kept<DTYPE>(y, a.sample.in, d.row.number, part, before, k)) return false;
    if (!d.is_cut) return true;
#pragma unroll
    for (int i = 0; i < SB_LEAF; i++) {
        if (sb_is_cut(&d.cut, y[i], (uint32_t)((before + k) * SB_LEAF + i)))
            y[i] = sb_float(SB_ABSENT_BITS);
        else any = true;
    }
    return any;
}

/* ---- what messages tell ------------------------------------------------------------------- */

SB_DET const char *message_of(const sb_cuda_draw_args &a, int64_t shard, int64_t row)
{
    return (const char *)a.all + (shard * a.sample.in.rows + row) * a.bytes_before;
}

/* Merges the states of a message of round 0. Called by one thread. *end: as sb_draw_take_begin. */
SB_DET sb_fault take_begin(const sb_cuda_draw_args &a, shard_row *d, const sb_draw_begin *m,
                           int32_t shard, uint64_t *end)
{
    const sb_draw_begin its = *m;
    const sb_state *model = a.has_model ? (const sb_state *)(m + 1) : nullptr;
    if (shard == a.shard && (its.n != a.held || (its.n > 0 && its.first != a.first)))
        return SB_FAULT_RANGES;
    return sb_draw_take_begin(&d->known, &its, model, sb_bits32(d->row.row.c), end);
}

/* Merges the places behind a message into the first ones. Called by a whole warp; all lanes get the
 * same fault. own: what the rank has sent as its first place, if this is its message. */
SB_DET sb_fault take_places(const sb_cuda_draw_args &a, const sb_draw_begin *m, place_list *list,
                            uint64_t *least, const uint64_t *own)
{
    const int lane = threadIdx.x % WARP;
    const uint64_t *its = (const uint64_t *)((const char *)(m + 1) +
                                             (a.has_model ? sizeof(sb_state) : 0));
    uint64_t places[2] = { SB_NO_PLACE, SB_NO_PLACE };
    bool bad = own && its[0] != *own;
#pragma unroll
    for (int h = 0; h < 2; h++) {
        const int i = lane + h * WARP;
        if (i >= a.places) continue;
        places[h] = its[i];
        bad |= sb_draw_place_fault(places[h], m) != SB_RECORD_FINE;
        bad |= i > 0 && places[h] != SB_NO_PLACE && places[h] >= its[i - 1];
    }
    if (__any_sync(FULL, bad)) return SB_FAULT_PLACES;
    insert_places(list, least, places[0], a.places);
    if (a.places > WARP) insert_places(list, least, places[1], a.places);
    return SB_RECORD_FINE;
}

/* Checks what the messages of round 0 have told. Called by one thread. */
SB_DET sb_fault check_begin(const sb_cuda_draw_args &a, shard_row *d, uint64_t end, uint64_t first)
{
    sb_draw_row *p = &d->known;
    if (end > (uint64_t)a.sample.in.vocab) return SB_FAULT_RANGES;
    if (!a.has_model) p->model = p->kept;
    const sb_fault fault = sb_draw_merged_fault(p);
    if (fault != SB_RECORD_FINE) return fault;
    p->none = sb_state_is_nan(&p->kept);
    if (p->none || !a.places) return SB_RECORD_FINE;
    p->first = first;
    return sb_draw_first_fault(p, &d->row.row);
}

/* Merges the messages of round 0. Called by a whole warp; all lanes get the same fault. */
SB_DET sb_fault learn_begin(const sb_cuda_draw_args &a, shard_row *d, place_list *list,
                            int32_t *shard)
{
    const int lane = threadIdx.x % WARP;
    const uint64_t own = ((const sb_draw_row *)a.progress)[d->row.number].own;
    uint64_t end = 0, least = SB_NO_PLACE;
    int fault = SB_RECORD_FINE;
    *list = empty_list();
    if (lane == 0) {
        sb_state_init(&d->known.kept, d->row.row.c);
        sb_state_init(&d->known.model, d->row.row.c);
        d->known.own = own;
    }
    for (int32_t s = 0; s < a.shards; s++) {
        const sb_draw_begin *m = (const sb_draw_begin *)message_of(a, s, d->row.number);
        *shard = s;
        if (lane == 0) fault = take_begin(a, d, m, s, &end);
        fault = __shfl_sync(FULL, fault, 0);
        if (fault == SB_RECORD_FINE && a.places)
            fault = take_places(a, m, list, &least, s == a.shard ? &own : nullptr);
        if (fault != SB_RECORD_FINE) return (sb_fault)fault;
    }
    if (lane >= a.places) list->low = SB_NO_PLACE; /* what others have pushed out */
    if (lane + WARP >= a.places) list->high = SB_NO_PLACE;
    *shard = -1;
    const uint64_t first = a.places ? place_number(*list, 0) : SB_NO_PLACE;
    if (lane == 0) fault = check_begin(a, d, end, first);
    return (sb_fault)__shfl_sync(FULL, fault, 0);
}

/* Adds up the sums over keys and narrows the search. Called by a whole block. sums: shared. */
SB_DET void learn_keys(const sb_cuda_draw_args &a, shard_row *d, uint64_t *sums)
{
    sb_draw_row *p = &d->known;
    if (!p->searches) return;
    for (int b = threadIdx.x; b < SB_DRAW_BINS; b += blockDim.x) {
        uint64_t sum = 0;
        for (int32_t s = 0; s < a.shards; s++)
            sum += ((const uint64_t *)message_of(a, s, d->row.number))[b];
        sums[b] = sum;
    }
    __syncthreads(); /* the sums are written */
    if (threadIdx.x != 0) return;
    uint64_t each, n, before = 0;
    d->fault = sb_draw_narrow(p, sums, &a.before, d->filters.top_k, d->filters.top_p, &d->bin);
    if (d->fault != SB_RECORD_FINE || !p->searches || a.before.level < SB_DRAW_LEVELS - 1) return;
    d->fault = sb_draw_number(p, &a.before, &d->cut.weights, &each, &n);
    if (d->fault != SB_RECORD_FINE) return;
    for (int32_t s = 0; s < a.shard; s++)
        before += ((const uint64_t *)message_of(a, s, d->row.number))[d->bin];
    const uint64_t own = ((const uint64_t *)message_of(a, a.shard, d->row.number))[d->bin];
    d->nth = sb_draw_cut(p, n, before / each, own / each);
}

/* Merges the states of what is kept. Called by one thread. */
SB_DET sb_fault learn_kept(const sb_cuda_draw_args &a, shard_row *d, int32_t *shard)
{
    sb_draw_row *p = &d->known;
    sb_state_init(&p->kept, d->row.row.c);
    p->count = 0;
    for (int32_t s = 0; s < a.shards; s++) {
        const sb_draw_kept its = *(const sb_draw_kept *)message_of(a, s, d->row.number);
        const sb_fault fault = sb_draw_take_kept(p, &its, (uint32_t)a.sample.in.vocab);
        *shard = s;
        if (fault != SB_RECORD_FINE) return fault;
    }
    *shard = -1;
    return sb_state_is_nan(&p->kept) ? SB_FAULT_SUM : sb_draw_merged_fault(p);
}

/* Finds the token among the messages. Called by one thread. */
SB_DET sb_fault learn_token(const sb_cuda_draw_args &a, shard_row *d, int32_t *shard)
{
    sb_draw_token t = { 0, 0 };
    for (int32_t s = 0; s < a.shards; s++) {
        const sb_draw_token its = *(const sb_draw_token *)message_of(a, s, d->row.number);
        const sb_fault fault = sb_draw_take_token(&t, &its);
        *shard = s;
        if (fault != SB_RECORD_FINE) return fault;
    }
    *shard = -1;
    d->token = t;
    return sb_draw_token_fault(&d->known, &t, (uint32_t)a.sample.in.vocab, &d->row.row);
}

/* Learns what the messages of the round before tell. Called by a whole block; behind it, d may be
 * read. list: the first places, in warp 0, if messages have some. */
SB_DET void learn(const sb_cuda_draw_args &a, shard_row *d, place_list *list, uint64_t *sums)
{
    if (a.before.kind == SB_DRAW_KEYS) {
        learn_keys(a, d, sums);
    } else if (threadIdx.x < WARP) {
        int32_t shard = -1;
        sb_fault fault = SB_RECORD_FINE;
        if (a.before.kind == SB_DRAW_BEGIN) fault = learn_begin(a, d, list, &shard);
        else if (threadIdx.x == 0)
            fault = a.before.kind == SB_DRAW_KEPT ? learn_kept(a, d, &shard)
                                                  : learn_token(a, d, &shard);
        if (threadIdx.x == 0) {
            d->fault = fault;
            d->known.shard = shard;
        }
    }
    __syncthreads(); /* known is complete */
    if (d->fault == SB_RECORD_FINE) return;
    __syncthreads(); /* the fault has been read */
    if (threadIdx.x == 0) {
        report(a.sample.in, SB_BAD_RECORD + d->fault, d->row.number);
        d->known.none = 1;
        d->known.fault = (uint32_t)d->fault;
    }
    __syncthreads(); /* the row is marked */
}

/* ---- what a rank sends -------------------------------------------------------------------- */

/* Sums up the rank's ids. Warp 0 gets the state; returns this thread's number of ids. */
template <int DTYPE>
SB_DET int32_t sum_shard(sb_state *s, const sb_cuda_draw_args &a, const shard_row &d, bool bare,
                         sb_state *shared)
{
    const part_of_row part = part_of_shard(a, d);
    int32_t count = 0;
    sb_state_init(s, d.row.row.c);
    for (int k = threadIdx.x; k < part.last; k += blockDim.x) {
        float y[SB_LEAF];
        if (!read_leaf<DTYPE>(y, a, d, part, k, bare)) continue;
        add_any(s, y, d.row.row);
#pragma unroll
        for (int i = 0; i < SB_LEAF; i++) count += !sb_is_absent(y[i]);
    }
    block_merge(s, shared);
    s->c = sb_bits32(d.row.row.c);
    return count;
}

/* The first k places of the rank's ids. Called by a whole block. */
template <int DTYPE>
SB_DET void send_places(uint64_t *to, const sb_cuda_draw_args &a, const shard_row &d,
                        shard_room *room)
{
    const part_of_row part = part_of_shard(a, d);
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    place_list best = empty_list();
    uint64_t least = SB_NO_PLACE;
    for (int k = threadIdx.x; k - lane < part.last; k += blockDim.x) {
        float y[SB_LEAF];
        const bool has = k < part.last && read_leaf<DTYPE>(y, a, d, part, k, false);
#pragma unroll
        for (int i = 0; i < SB_LEAF; i++) {
            const bool is = has && y[i] > sb_float(SB_ABSENT_BITS) && !sb_is_poison(y[i]);
            const uint32_t id = (uint32_t)(a.first + (int64_t)k * SB_LEAF + i);
            insert_places(&best, &least, is ? sb_place_of(y[i], id) : SB_NO_PLACE, a.places);
        }
    }
    store_list(room->lists.of_warps + warp * LIST_STRIDE, best);
    __syncthreads(); /* every warp's list is stored */
    merge_lists(room->lists.all, room->lists.of_warps, a.places);
    __syncthreads(); /* the merged list is written */
    for (int i = threadIdx.x; i < a.places; i += blockDim.x) to[i] = room->lists.all[i];
}

template <int DTYPE>
SB_DET void send_begin(const sb_cuda_draw_args &a, shard_row *d, char *to, shard_room *room,
                       sb_state *shared)
{
    sb_draw_begin *m = (sb_draw_begin *)to;
    sb_state s;
    sum_shard<DTYPE>(&s, a, *d, false, shared);
    if (threadIdx.x == 0) {
        m->first = (uint32_t)a.first;
        m->n = (uint32_t)a.held;
        m->present = s;
    }
    to += sizeof *m;
    if (a.has_model) {
        __syncthreads(); /* shared has been read */
        sum_shard<DTYPE>(&s, a, *d, true, shared);
        if (threadIdx.x == 0) *(sb_state *)to = s;
        to += sizeof s;
    }
    if (!a.places) return;
    send_places<DTYPE>((uint64_t *)to, a, *d, room);
    if (threadIdx.x == 0) d->known.own = room->lists.all[0];
}

/* Adds the values of a warp's lanes to the warp's bins; bin -1: none. */
SB_DET void add_to_bins(uint64_t *bins, int bin, uint64_t value)
{
    uint64_t lanes = __ballot_sync(FULL, bin >= 0);
    while (lanes) {
        const int leader = __ffsll((long long)lanes) - 1, b = __shfl_sync(FULL, bin, leader);
        uint64_t sum = bin == b ? value : 0;
        for (int step = WARP / 2; step > 0; step /= 2) sum += __shfl_xor_sync(FULL, sum, step);
        if (threadIdx.x % WARP == 0) bins[b] += sum;
        lanes &= ~(uint64_t)__ballot_sync(FULL, bin == b);
    }
}

template <int DTYPE>
SB_DET void send_keys(const sb_cuda_draw_args &a, const shard_row &d, uint64_t *to,
                      shard_room *room)
{
    const part_of_row part = part_of_shard(a, d);
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    const int shift = 32 - SB_DRAW_BITS * (a.now.level + 1);
    if (!d.known.searches) {
        for (int b = threadIdx.x; b < SB_DRAW_BINS; b += blockDim.x) to[b] = 0;
        return;
    }
    for (int b = lane; b < SB_DRAW_BINS; b += WARP) room->bins[warp][b] = 0;
    __syncwarp(); /* the warp's bins are zero */
    for (int k = threadIdx.x; k - lane < part.last; k += blockDim.x) {
        float y[SB_LEAF];
        const bool has = k < part.last && read_leaf<DTYPE>(y, a, d, part, k, false);
#pragma unroll 1
        for (int i = 0; i < SB_LEAF; i++) {
            const uint32_t key = has && !sb_is_absent(y[i]) ? sb_order_key(y[i]) : 0;
            const bool is = key && (uint64_t)key >> (shift + SB_DRAW_BITS) == d.known.prefix;
            uint64_t value = 0;
            if (is) value = a.now.weighted ? sb_weight_units(sb_weight(y[i], &d.cut.weights)) : 1;
            add_to_bins(room->bins[warp], is ? (int)(key >> shift & (SB_DRAW_BINS - 1)) : -1,
                        value);
        }
    }
    __syncthreads(); /* all bins are complete */
    for (int b = threadIdx.x; b < SB_DRAW_BINS; b += blockDim.x) {
        uint64_t sum = 0;
        for (int w = 0; w < WARPS_PER_ROW; w++) sum += room->bins[w][b];
        to[b] = sum;
    }
}

template <int DTYPE>
SB_DET void send_kept(const sb_cuda_draw_args &a, const shard_row &d, sb_draw_kept *to,
                      sb_state *shared)
{
    __shared__ int32_t counts[WARPS_PER_ROW];
    sb_state s;
    int32_t count = sum_shard<DTYPE>(&s, a, d, false, shared);
    count = (int32_t)__reduce_add_sync(FULL, (uint32_t)count);
    if (threadIdx.x % WARP == 0) counts[threadIdx.x / WARP] = count;
    __syncthreads(); /* the counts are written */
    if (threadIdx.x != 0) return;
    for (int w = 1; w < WARPS_PER_ROW; w++) count += counts[w];
    *to = { s, (uint32_t)count, 0 };
}

/* The share of leaf k in the row's total. */
template <int DTYPE>
SB_DET sb_u128 share_of(const sb_cuda_draw_args &a, const shard_row &d, const part_of_row &part,
                        int k)
{
    float y[SB_LEAF];
    sb_leaf leaf;
    if (!read_leaf<DTYPE>(y, a, d, part, k, false)) return 0;
    if (sb_leaf_of(&leaf, y, &d.row.row) != SB_LEAF_PRESENT) return 0;
    if ((uint32_t)(leaf.A + SB_BIAS) >> 5 > d.known.kept.J) return 0; /* not of that state */
    return sb_leaf_share(&leaf, d.known.kept.J);
}

template <int DTYPE>
SB_DET void send_token(const sb_cuda_draw_args &a, shard_row *d, sb_draw_token *to)
{
    const part_of_row part = part_of_shard(a, *d);
    const int lane = threadIdx.x % WARP;
    if (threadIdx.x == 0) {
        const uint64_t at = a.before.kind == SB_DRAW_BEGIN ? offsetof(sb_draw_begin, present)
                                                           : offsetof(sb_draw_kept, kept);
        sb_u128 R = sb_drawn(draw_bits(a.sample, d->row.number), sb_total(&d->known.kept));
        d->owner = sb_draw_owner(message_of(a, 0, d->row.number) + at,
                                 (uint64_t)(a.sample.in.rows * a.bytes_before), a.shards,
                                 d->known.kept.J, &R);
        d->at.R = R;
        d->at.item = -1;
    }
    __syncthreads(); /* R is written */
    if (d->owner == a.shard)
        find_item(&d->at, part.last, [&](int k) { return share_of<DTYPE>(a, *d, part, k); });
    if (threadIdx.x >= WARP) return;
    sb_draw_token token = { 0, 0 };
    if (d->owner == a.shard && d->at.item >= 0) {
        float y[SB_LEAF], mine = sb_float(SB_ABSENT_BITS), x;
        read_leaf<DTYPE>(y, a, *d, part, d->at.item, false);
#pragma unroll
        for (int i = 0; i < SB_LEAF; i++) mine = i == lane ? y[i] : mine;
        const int i = warp_drawn_in(mine, d->row.row, d->at.share, d->at.R, &x);
        token = { sb_bits32(x), (uint32_t)(a.first + (int64_t)d->at.item * SB_LEAF + i) + 1 };
    }
    if (lane == 0) *to = token;
}

/* ---- results ------------------------------------------------------------------------------ */

SB_DET void empty_words(const sb_cuda_draw_args &a, int64_t row)
{
    const int64_t words = kept_words(a.sample);
    for (int64_t i = threadIdx.x; a.kept && i < words; i += blockDim.x)
        ((uint32_t *)a.kept)[row * words + i] = 0;
}

/* The halves of words, one for each leaf of the row. */
SB_DET uint16_t *halves_of(const sb_cuda_draw_args &a, int64_t row)
{
    return (uint16_t *)((uint32_t *)a.kept + row * kept_words(a.sample));
}

/* Writes the bits of the rank's own kept ids. The row's words are zero. */
template <int DTYPE> SB_DET void write_kept(const sb_cuda_draw_args &a, const shard_row &d)
{
    const part_of_row part = part_of_shard(a, d);
    uint16_t *kept = halves_of(a, d.row.number) + a.first / SB_LEAF;
    for (int k = threadIdx.x; k < part.last; k += blockDim.x) {
        float y[SB_LEAF];
        uint32_t bits = 0;
        if (!read_leaf<DTYPE>(y, a, d, part, k, false)) continue;
#pragma unroll
        for (int i = 0; i < SB_LEAF; i++) bits |= !sb_is_absent(y[i]) << i;
        kept[k] = (uint16_t)bits;
    }
}

/* The same from a list. Called by a whole warp. A leaf's half is written by the lanes of all its
 * ids, which have the same bits. */
SB_DET void write_kept_list(const sb_cuda_draw_args &a, const shard_row &d, const place_list &list,
                            int32_t *ids)
{
    const int lane = threadIdx.x % WARP;
    const uint64_t places[2] = { list.low, list.high };
    uint16_t *kept = halves_of(a, d.row.number);
#pragma unroll
    for (int h = 0; h < 2; h++)
        if (lane + h * WARP < SB_CUDA_LIST)
            ids[lane + h * WARP] = places[h] ? sb_place_id(places[h]) : -1;
    __syncwarp(); /* ids are written */
#pragma unroll
    for (int h = 0; h < 2; h++) {
        const int e = lane + h * WARP;
        uint32_t bits = 0;
        if (e >= SB_CUDA_LIST) continue;
        const int32_t id = ids[e];
        if (id < a.first || id >= a.first + a.held) continue;
        for (int i = 0; i < SB_CUDA_LIST; i++)
            if (ids[i] >= 0 && ids[i] / SB_LEAF == id / SB_LEAF) bits |= 1u << ids[i] % SB_LEAF;
        kept[id / SB_LEAF] = (uint16_t)bits;
    }
}

template <int DTYPE>
SB_DET void finish(const sb_cuda_draw_args &a, const shard_row &d, place_list list,
                   shard_room *room)
{
    const int64_t row = d.row.number;
    const int lane = threadIdx.x % WARP;
    empty_words(a, row);
    if (d.known.none) {
        if (threadIdx.x >= WARP) return;
        write_none(a.sample, row, ROW_NAN, lane, WARP);
        return;
    }
    __syncthreads(); /* the words are zero */
    if (!a.lists && a.kept) write_kept<DTYPE>(a, d);
    if (threadIdx.x >= WARP) return;
    if (a.lists) {
        __shared__ int32_t ids[SB_CUDA_LIST];
        filter_list(&list, d.filters, d.row.row);
        draw_from_list(a.sample, row, list, &room->draws, d.known.model, d.row.row);
        if (a.kept) write_kept_list(a, d, list, ids);
        return;
    }
    finish_token(a.sample, row, (int32_t)d.token.id - 1, sb_float(d.token.x), d.known.kept,
                 d.known.model, d.row.row);
    if (lane == 0 && a.sample.count) ((int32_t *)a.sample.count)[row] = (int32_t)d.known.count;
}

/* A row that is ignored, or that was refused and has been reported. */
SB_DET void skip_row(const sb_cuda_draw_args &a, int64_t row, int32_t fate)
{
    const uint32_t none = 0xffffffffu; /* no state has this J: every rank refuses the message */
    if (a.now.kind == SB_CUDA_DRAW_FINISH) {
        empty_words(a, row);
        if (threadIdx.x < WARP) write_none(a.sample, row, fate, threadIdx.x, WARP);
        return;
    }
    uint32_t *to = (uint32_t *)((char *)a.mine + row * a.bytes);
    const int at = offsetof(sb_draw_begin, present.J) / 4;
    for (int64_t i = threadIdx.x; i < a.bytes / 4; i += blockDim.x)
        to[i] = fate == ROW_REFUSED && a.now.kind == SB_DRAW_BEGIN && i == at ? none : 0;
}

/* ---- a row -------------------------------------------------------------------------------- */

/* The cut of the rank's own ids at the n-th one of the key that was searched. */
template <int DTYPE> SB_DET void set_cut(const sb_cuda_draw_args &a, shard_row *d)
{
    const part_of_row part = part_of_shard(a, *d);
    const uint32_t key = d->known.prefix;
    if (threadIdx.x == 0) {
        d->at.R = d->nth - 1;
        d->at.item = -1;
    }
    __syncthreads(); /* R is written */
    find_item(&d->at, part.last, [&](int k) {
        float y[SB_LEAF];
        uint32_t count = 0;
        if (!read_leaf<DTYPE>(y, a, *d, part, k, false)) return (sb_u128)0;
#pragma unroll
        for (int i = 0; i < SB_LEAF; i++) count += !sb_is_absent(y[i]) && sb_order_key(y[i]) == key;
        return (sb_u128)count;
    });
    if (threadIdx.x == 0) {
        float y[SB_LEAF];
        uint32_t left = (uint32_t)d->at.R, id = SB_DRAW_NO_ID;
        const bool has = d->at.item >= 0 && read_leaf<DTYPE>(y, a, *d, part, d->at.item, false);
#pragma unroll
        for (int i = 0; i < SB_LEAF; i++)
            if (has && !sb_is_absent(y[i]) && sb_order_key(y[i]) == key && left-- == 0)
                id = (uint32_t)(a.first + (int64_t)d->at.item * SB_LEAF + i);
        sb_draw_cut_at(&d->known, id);
    }
    __syncthreads(); /* the cut is written */
}

/* Reads what is known of a row. Called by one thread. */
SB_DET void begin_row(const sb_cuda_draw_args &a, shard_row *d)
{
    const sb_cuda_sample_args &s = a.sample;
    set_any_row(s.in, &d->row, blockIdx.x, true);
    if (d->row.fate == ROW_ACTIVE && !samples_well(s, d->row.number)) {
        report(s.in, SB_BAD_SAMPLING, d->row.number);
        d->row.fate = ROW_REFUSED;
    }
    d->fault = SB_RECORD_FINE;
    d->nth = 0;
    d->is_cut = 0;
    d->bin = 0;
    d->token = { 0, 0 };
    if (d->row.fate != ROW_ACTIVE) return;
    d->filters = filters_of(s, d->row.number);
    const sb_draw_row none = {};
    d->known = a.all && a.before.kind != SB_DRAW_BEGIN
                   ? ((const sb_draw_row *)a.progress)[d->row.number]
                   : none;
    d->cut.place = d->known.cut;
    d->cut.least = 0.0f;
    if (d->known.first) d->cut.weights = sb_weights_of(sb_place_logit(d->known.first), &d->row.row);
    d->is_cut = d->known.first && !a.lists;
}

/* Sets the cut once the first place is known, and once the searches are done. Called by one thread.
 */
SB_DET void renew_cut(const sb_cuda_draw_args &a, shard_row *d)
{
    const float best = sb_place_logit(d->known.first);
    if (!d->known.first || a.lists) return;
    d->is_cut = 1;
    d->cut.place = d->known.cut;
    d->cut.weights = sb_weights_of(best, &d->row.row);
    if (a.now.kind > SB_DRAW_KEYS)
        d->cut.least = sb_least_weight(d->filters.min_p, sb_weight(best, &d->cut.weights));
    if (a.now.kind == SB_DRAW_KEYS && a.now.level == 0)
        sb_draw_search(&d->known, a.now.weighted ? d->filters.top_p < 1.0f : d->filters.top_k > 0);
}

template <int DTYPE> SB_DET void draw_round(const sb_cuda_draw_args &a)
{
    __shared__ shard_row d;
    __shared__ shard_room room;
    __shared__ sb_state shared[DRAW_WARPS];
    place_list list = empty_list();
    if (threadIdx.x == 0) begin_row(a, &d);
    __syncthreads(); /* d is written */
    if (d.row.fate == ROW_UNKNOWN) return;
    const int64_t row = d.row.number;
    if (d.row.fate != ROW_ACTIVE) {
        skip_row(a, row, d.row.fate);
        return;
    }
    const bool learns = a.all && !d.known.none;
    __syncthreads(); /* every thread has read what it will learn */
    if (learns) learn(a, &d, &list, room.bins[0]);
    if (d.nth) set_cut<DTYPE>(a, &d);
    if (threadIdx.x == 0) renew_cut(a, &d);
    __syncthreads(); /* d is complete */
    char *to = (char *)a.mine + row * a.bytes;
    if (a.now.kind == SB_CUDA_DRAW_FINISH) finish<DTYPE>(a, d, list, &room);
    else if (d.known.none) skip_row(a, row, ROW_NAN);
    else if (a.now.kind == SB_DRAW_BEGIN) send_begin<DTYPE>(a, &d, to, &room, shared);
    else if (a.now.kind == SB_DRAW_KEYS) send_keys<DTYPE>(a, d, (uint64_t *)to, &room);
    else if (a.now.kind == SB_DRAW_KEPT) send_kept<DTYPE>(a, d, (sb_draw_kept *)to, shared);
    else send_token<DTYPE>(a, &d, (sb_draw_token *)to);
    if (threadIdx.x == 0) ((sb_draw_row *)a.progress)[row] = d.known;
}

#define DRAW(name, DTYPE)                                                                          \
    extern "C" __global__ void __launch_bounds__(SB_CUDA_DRAW)                                     \
        draw_##name(const __grid_constant__ sb_cuda_draw_args a)                                   \
    {                                                                                              \
        draw_round<DTYPE>(a);                                                                      \
    }
DRAW(f32, SB_CUDA_F32)
DRAW(f16, SB_CUDA_F16)
DRAW(bf16, SB_CUDA_BF16)
