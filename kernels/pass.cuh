/* pass.cuh - a pass of a crew over its row: the exact sums over the ids above a bracket of entries
 * (entries.cuh) and inside it. A pass lists the ids inside, or, if the bracket has few keys, as
 * those of bf16 have, counts them by their keys.
 *
 * All sums are of integers. Every thread of the crew gets them. */
#pragma once

#include "draw.cuh"
#include "guess.cuh"

/* ---- a block's memory --------------------------------------------------------------------- */

#define CUT_WARPS DRAW_WARPS

/* Sums over the ids above a bracket and inside it; and the most that any warp of a block has
 * listed, or would have, with room for all. */
struct cut_sums {
    uint64_t above, inside;
    uint32_t most;
};

/* The least and the largest of some entries. */
struct entry_ends {
    uint64_t least, most;
};

/* What a block has in shared memory, beside its lists. */
struct cut_room {
    cut_sums warps[CUT_WARPS], blocks[2]; /* blocks: published, in turns */
    uint32_t lengths[2][CUT_WARPS];       /* published likewise: of the warps' lists */
    uint64_t upper[2][CUT_WARPS][2], some[CUT_WARPS], last[WARP]; /* of a search in the lists */
    uint32_t counts[2][CUT_WARPS];
    entry_ends ends;              /* published: of the block's lists */
    uint32_t totals[2][KEY_BINS]; /* published in turns, too: ids by keys */
    uint64_t sums[KEY_BINS];      /* over the crew, up to each key */
    uint32_t bins[GUESS_BINS];
    uint16_t queues[CUT_WARPS][2 * WARP]; /* of leaves */
};

/* ---- counts by keys ----------------------------------------------------------------------- */

/* The highest key of a bracket, which is bin 0. */
SB_DET uint32_t first_key(const bracket &b) { return (uint32_t)(b.high >> ID_BITS) - 1; }

/* The counts of a warp by keys, in its part of staging. While it counts, they are two of 16 bits in
 * a word, in a column for each lane; then one for each key. A lane counts at most 2^20 / WARP
 * ids. */
SB_DET uint32_t *key_counts(int warp)
{
    return (uint32_t *)((uint64_t *)staging + warp * SB_CUDA_SEGMENT);
}

/* Adds up a warp's columns. */
SB_DET void add_columns(uint32_t *columns)
{
    const int lane = threadIdx.x % WARP;
    uint32_t low = 0, high = 0;
    __syncwarp(); /* the columns are complete */
    if (lane < KEY_BINS / 2) {
#pragma unroll 8
        for (int i = 0; i < WARP; i++) { /* in an order in which no two lanes meet in a bank */
            const uint32_t two = columns[lane * WARP + (i + lane) % WARP];
            low += two & 0xffffu, high += two >> 16;
        }
    }
    __syncwarp(); /* the columns have been read */
    if (lane < KEY_BINS / 2) columns[2 * lane] = low, columns[2 * lane + 1] = high;
}

/* What an id of a key adds to the sum that a filter counts. */
template <int DTYPE, bool WEIGHTED> SB_DET uint64_t units_of_key(uint32_t key, const sb_weights &w)
{
    if (!WEIGHTED) return 1;
    return sb_weight_units(sb_weight(sb_place_logit((uint64_t)key_of<DTYPE>(key) << 32), &w));
}

/* The sums over the crew's ids up to each key, from the highest one on. Called by one warp. */
template <int DTYPE, bool WEIGHTED>
static __device__ __noinline__ void add_keys(const crew &mates, const sb_weights &w, uint32_t first,
                                             const uint32_t *totals, uint64_t *sums)
{
    const int lane = threadIdx.x % WARP;
    uint32_t n[2] = { 0, 0 };
    uint64_t all, mine[2] = { 0, 0 };
    if (lane < KEY_BINS / 2) {
#pragma unroll 8
        for (int r = 0; r < mates.size; r++) {
            const uint2 of = *(const uint2 *)in_block(mates, totals + 2 * lane, r);
            n[0] += of.x, n[1] += of.y;
        }
#pragma unroll 1
        for (int i = 0; i < 2; i++)
            mine[i] = n[i] * units_of_key<DTYPE, WEIGHTED>(first - (uint32_t)(2 * lane + i), w);
    }
    const uint64_t before = warp_before(mine[0] + mine[1], &all);
    if (lane < KEY_BINS / 2)
        sums[2 * lane] = before + mine[0], sums[2 * lane + 1] = before + mine[0] + mine[1];
}

/* The part of a warp, if a part is cut into even ones of whole trips. */
SB_DET part_of_row part_of_warp(part_of_row part, int warp, int warps)
{
    const int trips = (part.last - part.first + WARP - 1) / WARP;
    const int each = (trips + warps - 1) / warps * WARP;
    part.first = min(part.first + warp * each, part.last);
    part.last = min(part.first + each, part.last);
    return part;
}

/* ---- a pass ------------------------------------------------------------------------------- */

/* The sum of the units of the weights of some of a leaf's ids. Requires: their logits are within
 * lim. */
template <int DTYPE>
SB_DET uint64_t units_of_ids(const leaf_words<DTYPE> &x, uint32_t bits, const sb_weights &w)
{
    uint64_t sum = 0;
#pragma unroll
    for (int i = 0; i < SB_LEAF; i++) {
        const float v = sb_weight_within(unpack<DTYPE>(x, i), &w);
        sum += sb_weight_units(bits >> bit_of_id<DTYPE>(i) & 1 ? v : 0.0f);
    }
    return sum;
}

/* The same of any logits. A function of its own, as these are rare. */
template <int DTYPE>
static __device__ __noinline__ uint64_t units_of_any(const leaf_words<DTYPE> *x, uint32_t bits,
                                                     const sb_weights *w)
{
    uint64_t sum = 0;
#pragma unroll 1
    for (int i = 0; i < SB_LEAF; i++)
        if (bits >> bit_of_id<DTYPE>(i) & 1)
            sum += sb_weight_units(sb_weight(unpack<DTYPE>(*x, i), w));
    return sum;
}

/* Those ids of a cut's leaf that the cut leaves. A function of its own, for one leaf of a row. */
template <int DTYPE>
static __device__ __noinline__ uint32_t ids_left_in(const leaf_words<DTYPE> *x, uint64_t place)
{
    uint32_t bits = 0;
    const uint32_t first = (uint32_t)sb_place_id(place) / SB_LEAF * SB_LEAF;
#pragma unroll 1
    for (int i = 0; i < SB_LEAF; i++) {
        const float y = unpack<DTYPE>(*x, i);
        if (!sb_is_absent(y) && sb_place_of(y, first + i) >= place)
            bits |= 1u << bit_of_id<DTYPE>(i);
    }
    return bits;
}

#define AHEAD 3                /* trips of a warp for which leaves are fetched to L2 */
#define IDS_AT_ONCE (3 * WARP) /* that a warp takes from its leaves to its queue, at most */

/* The queue of the calling warp, behind the lists of all warps. */
SB_DET uint32_t *queue_of_ids()
{
    uint32_t *all = (uint32_t *)((uint64_t *)staging + blockDim.x / WARP * SB_CUDA_SEGMENT);
    return all + threadIdx.x / WARP * (4 * WARP);
}

/* A bit for each leaf of the block's share, behind the queues: whether an id of it may be kept. */
SB_DET uint32_t *reached_leaves()
{
    return (uint32_t *)((uint64_t *)staging + blockDim.x / WARP * SB_CUDA_SEGMENT) + blockDim.x * 4;
}

/* Before the first pass, ids of all leaves may be kept. Called by a whole block. */
SB_DET void reach_all_leaves(const part_of_row &part)
{
    uint32_t *reached = reached_leaves();
    for (int i = threadIdx.x; i * 32 < part.last - part.first; i += blockDim.x) reached[i] = ~0u;
}

/* Takes the ids of a part of the crew's row that reach a bracket, those that `cut` leaves, but for
 * ids above the bracket that it adds to *above itself. take(has, id, y, is_in) is called by whole
 * warps: for lanes that have an id, with its logit, and whether it is inside. The part's trips of
 * WARP leaves, from `from` on, are `step` leaves apart.
 *
 * Marks the leaves of which an id reaches the bracket. Of most leaves few ids do, or none. A warp
 * queues these and takes one for each lane. If many ids of a warp's leaves are above the bracket,
 * each lane adds up its leaf's. */
template <int DTYPE, bool WEIGHTED, class TAKE>
SB_DET void take_ids(uint64_t *above, const cut_row &row, const sb_cut &cut, const bracket &b,
                     const part_of_row &part, int from, int step, TAKE take)
{
    const int lane = threadIdx.x % WARP;
    const edge low = edge_of<DTYPE>(b.low), high = edge_of<DTYPE>(b.high),
               end = edge_of<DTYPE>(b.end);
    const bool ends = b.end < edge_under<DTYPE>(row.best) + KEY; /* ids may lie behind the end */
    const int cut_leaf = cut.place ? sb_place_id(cut.place) / SB_LEAF : -1;
    const int first = share_of_crew(row).first;
    uint32_t *queue = queue_of_ids(), *reached = reached_leaves();
    const row_leaves<DTYPE> leaves(row);
    const sb_weights w = cut.weights;
    const bool within = row.best <= w.lim && low.at >= -w.lim;
    int waiting = 0;

    /* Takes the last n ids of the queue, at most one for each lane. */
    const auto take_last = [&](int n) {
        const bool has = lane < n;
        waiting -= n;
        const uint32_t id = has ? queue[waiting + lane] : 0;
        const float y = load_one<DTYPE>(part.logits, id);
        take(has, id, y, has && y < least_of(high, (int)(id / SB_LEAF)));
        __syncwarp(); /* the queue has been read */
    };
    for (int base = from; base < part.last; base += step) {
        const int k = base + lane, then = k + AHEAD * step;
        const bool final = base + step >= part.last;
        uint32_t bits = 0;
        leaf_words<DTYPE> x;
        if (k < part.last) leaves.load(x, k);
        if (then < part.last) leaves.fetch(then);
        if (k < part.last) bits = ids_from<DTYPE>(x, least_of(low, k));
        const uint64_t lanes = __ballot_sync(FULL, bits);
        if (lane % 32 == 0 && k < part.last) reached[(k - first) / 32] = (uint32_t)(lanes >> lane);
        if (lanes == 0 && !(final && waiting > 0)) continue;
        if (bits) {
            if (ends) bits &= ~ids_from<DTYPE>(x, least_of(end, k));
            if (k == cut_leaf) {
                const leaf_words<DTYPE> other = x; /* whose address may be taken */
                bits &= ids_left_in<DTYPE>(&other, cut.place);
            }
        }
        uint32_t total, before = warp_before((uint32_t)__popc(bits), &total);
        if (!WEIGHTED || total > IDS_AT_ONCE) {
            const uint32_t over = bits & ids_from<DTYPE>(x, least_of(high, k));
            bits &= ~over;
            if (!WEIGHTED) {
                *above += (uint32_t)__popc(over);
            } else if (within) {
                *above += units_of_ids<DTYPE>(x, over, w);
            } else if (over) {
                const leaf_words<DTYPE> other = x; /* whose address may be taken */
                *above += units_of_any<DTYPE>(&other, over, &w);
            }
            before = warp_before((uint32_t)__popc(bits), &total);
        }
        for (;;) {
            const bool all = total <= IDS_AT_ONCE;
            uint32_t now = bits;
            if (!all) { /* some of each leaf */
                now = 0;
#pragma unroll
                for (int i = 0; i < IDS_AT_ONCE / WARP; i++) {
                    const uint32_t rest = bits & ~now;
                    now |= rest & (0 - rest);
                }
                before = warp_before((uint32_t)__popc(now), &total);
            }
            bits &= ~now;
            for (uint32_t *to = queue + waiting + before; now; now &= now - 1)
                *to++ = (uint32_t)k * SB_LEAF + id_of_bit<DTYPE>(__ffsll((long long)now) - 1);
            waiting += (int)total;
            __syncwarp(); /* the queue is written */
            while (waiting >= WARP || (final && all && waiting > 0)) take_last(min(waiting, WARP));
            if (all) break;
            before = warp_before((uint32_t)__popc(bits), &total);
        }
    }
}

/* Adds up the sums of a warp's lanes. All of them get the result, with their own `most`. */
SB_DET void add_lanes(cut_sums *s)
{
    s->above = warp_sum_any(s->above);
    s->inside = warp_sum_any(s->inside);
}

/* Adds up a block's sums, of whose lanes each has its own, but `listed` is the warp's. Called by a
 * whole block; crew_sums tells the crew's. */
SB_DET void write_sums(uint64_t above, uint64_t inside, int listed, int turn, cut_room *room)
{
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, warps = blockDim.x / WARP;
    cut_sums mine = { above, inside, (uint32_t)listed };
    add_lanes(&mine);
    if (lane == 0) room->warps[warp] = mine, room->lengths[turn][warp] = mine.most;
    __syncthreads(); /* every warp's sums are written */
    if (warp > 0) return;
    mine = lane < warps ? room->warps[lane] : cut_sums{ 0, 0, 0 };
    add_lanes(&mine);
    mine.most = __reduce_max_sync(FULL, mine.most);
    if (lane == 0) room->blocks[turn] = mine;
}

/* The sums of all blocks of a crew. Waits until all have written them, their lists, and their
 * counts. */
SB_DET cut_sums crew_sums(const crew &mates, int turn, cut_room *room)
{
    const int lane = threadIdx.x % WARP;
    crew_barrier(mates);
    cut_sums s = { 0, 0, 0 };
    if (lane < mates.size) s = *in_block(mates, &room->blocks[turn], lane);
    add_lanes(&s);
    s.most = __reduce_add_sync(FULL, s.most); /* of the merged lists, at most */
    return s;
}

/* Sums up the ids of the crew's row inside a bracket and above it, those that `cut` leaves, and
 * lists those inside, in staging. */
template <int DTYPE, bool WEIGHTED>
static __device__ __noinline__ cut_sums pass_to_lists(const cut_row &row, const sb_cut &cut,
                                                      const bracket &b, int turn, cut_room *room)
{
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    const int segment = row.segment;
    uint64_t *list = (uint64_t *)staging + warp * segment;
    const part_of_row share = share_of_crew(row);
    const sb_weights w = cut.weights;
    uint64_t above = 0, inside = 0;
    int listed = 0;
    const auto take = [&](bool has, uint32_t id, float y, bool is_in) {
        if (WEIGHTED && has) {
            const uint64_t units = sb_weight_units(sb_weight(y, &w));
            above += is_in ? 0 : units;
            inside += is_in ? units : 0;
        }
        const uint64_t lanes = __ballot_sync(FULL, is_in);
        const int at = listed + lanes_before(lanes, lane);
        if (is_in && at < segment) list[at] = entry_of<DTYPE>(y, id);
        listed += __popcll(lanes);
    };
    /* Warps take trips in turns, so that their lists are of like length. */
    take_ids<DTYPE, WEIGHTED>(&above, row, cut, b, share, share.first + warp * WARP,
                              (int)blockDim.x, take);
    if (!WEIGHTED) inside = lane == 0 ? listed : 0;
    write_sums(above, inside, listed, turn, room);
    return crew_sums(row.mates, turn, room);
}

/* The same, but counts the ids inside by their keys, and adds up room->sums. The counts of each
 * warp are in staging. */
template <int DTYPE, bool WEIGHTED>
static __device__ __noinline__ cut_sums pass_by_keys(const cut_row &row, const sb_cut &cut,
                                                     const bracket &b, int turn, cut_room *room)
{
    if constexpr (DTYPE != SB_CUDA_BF16) return {};
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, warps = blockDim.x / WARP;
    uint32_t *columns = key_counts(warp);
    const uint32_t first = first_key(b);
    /* each warp its own part, in which an id can be looked for */
    const part_of_row part = part_of_warp(share_of_crew(row), warp, warps);
    const sb_weights w = cut.weights;
    uint64_t above = 0;
#pragma unroll 8
    for (int i = 0; i < KEY_BINS / 2; i++) columns[i * WARP + lane] = 0;
    const auto take = [&](bool has, uint32_t, float y, bool is_in) {
        if (is_in) {
            const uint32_t bin = first - (sb_order_key(y) >> spare_bits<DTYPE>());
            columns[bin / 2 * WARP + lane] += 1u << bin % 2 * 16;
        } else if (WEIGHTED && has) {
            above += sb_weight_units(sb_weight(y, &w));
        }
    };
    take_ids<DTYPE, WEIGHTED>(&above, row, cut, b, part, part.first, WARP, take);
    add_columns(columns);
    write_sums(above, 0, 0, turn, room);
    for (int bin = (int)threadIdx.x; bin < KEY_BINS; bin += (int)blockDim.x) {
        uint32_t n = 0;
        for (int i = 0; i < warps; i++) n += key_counts(i)[bin];
        room->totals[turn][bin] = n;
    }
    cut_sums s = crew_sums(row.mates, turn, room);
    if (warp == 0) add_keys<DTYPE, WEIGHTED>(row.mates, w, first, room->totals[turn], room->sums);
    __syncthreads(); /* the sums by keys are written */
    s.inside = room->sums[KEY_BINS - 1];
    return s;
}
