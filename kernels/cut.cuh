/* cut.cuh - finds the place of a cut (det/sample.h): the last id of the shortest beginning of a
 * row's order whose sum of 1 (top-k) or of weights (top-p) reaches a goal.
 *
 * No id is sorted. Each (logit, id) has an entry number, which orders ids as places do. A pass over
 * the row sums up exactly what lies above a bracket of entry numbers and inside it, and lists the
 * ids inside. If the goal is inside and the list has room, the cut is found in the list by
 * bisection; else the bracket moves, and another pass follows:
 *
 *     sample of leaves -> guessed bracket -> pass -> list -> place
 *
 * The guess alone is statistics, and only time depends on it. A row of top-p need not be summed up
 * for its goal, which follows, within narrow bounds, from the row's total; only if the place
 * differs between the bounds is the sum of all weights taken.
 *
 * The blocks of a crew each take their share of a row, and all find the same cut. All sums are of
 * integers. */
#pragma once

#include "draw.cuh"
#include "guess.cuh"

/* ---- a block's memory --------------------------------------------------------------------- */

#define CUT_WARPS DRAW_WARPS

/* Sums over the ids above a bracket and inside it; the ids inside; and the most that any warp of a
 * block has inside, which is the length of its list. */
struct cut_sums {
    uint64_t above, inside;
    uint32_t count, most;
};

/* What a block has in shared memory, beside its lists. */
struct cut_room {
    cut_sums warps[CUT_WARPS], blocks[2]; /* blocks: published, in turns */
    uint32_t lengths[2][CUT_WARPS];       /* published likewise: of the warps' lists */
    uint64_t upper[2][CUT_WARPS], some[CUT_WARPS], last[WARP]; /* of a search in the lists */
    uint32_t counts[2][CUT_WARPS];
    uint32_t bins[GUESS_BINS];
    uint16_t queues[CUT_WARPS][2 * WARP];
};

/* ---- a pass ------------------------------------------------------------------------------- */

SB_DET uint64_t warp_sum_any(uint64_t x)
{
    for (int step = WARP / 2; step > 0; step /= 2) x += __shfl_xor_sync(FULL, x, step);
    return x;
}

/* The units of the weights of some of a leaf's logits, bit i of mask for logit i. A function of its
 * own, for wide leaves, which are rare. */
template <int DTYPE>
static __device__ __noinline__ uint64_t units_of_wide(const leaf_words<DTYPE> *x, uint32_t mask,
                                                      const sb_weights *w)
{
    uint64_t sum = 0;
#pragma unroll
    for (int i = 0; i < SB_LEAF; i++)
        if (mask >> i & 1) sum += sb_weight_units(sb_weight(unpack<DTYPE>(*x, i), w));
    return sum;
}

/* Sums up the ids of the crew's row inside a bracket and above it, those that `cut` leaves, and
 * lists those inside. All threads of the crew get the sums. Every warp's list is in staging. */
template <int DTYPE, bool WEIGHTED>
static __device__ __noinline__ cut_sums pass_over(const cut_row &row, const sb_cut &cut,
                                                  const bracket &b, int turn, cut_room *room)
{
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, warps = blockDim.x / WARP;
    const edge low = edge_of<DTYPE>(b.low), high = edge_of<DTYPE>(b.high),
               end = edge_of<DTYPE>(b.end);
    const int cut_leaf = cut.place ? sb_place_id(cut.place) / SB_LEAF : -1;
    uint64_t *list = (uint64_t *)staging + warp * row.segment;
    const part_of_row part = share_of_crew(row);
    const sb_weights w = cut.weights;
    uint64_t all = 0, inside = 0;
    int listed = 0;

    visit_leaves<DTYPE>(
        row, part.first + warp * WARP, part.last, (int)blockDim.x, low, room->queues[warp],
        [](float) { return true; }, [](int, bool) {},
        [&](int k, bool has) {
            const float from = least_of(low, k), to = least_of(high, k), until = least_of(end, k);
            uint32_t in_list = 0, summed = 0;
            leaf_words<DTYPE> x;
            uint64_t sum = 0;
            if (has) {
                load_kept<DTYPE>(x, row, k);
                const float m = leaf_max<DTYPE>(x);
                const bool narrow = is_narrow(sb_bits32(sb_fma32(m, w.c, SB_EVEN_MAGIC)));
#pragma unroll
                for (int i = 0; i < SB_LEAF; i++) {
                    float y = unpack<DTYPE>(x, i);
                    if (k == cut_leaf && sb_place_of(y, (uint32_t)k * SB_LEAF + i) < cut.place)
                        y = sb_float(SB_ABSENT_BITS);
                    const bool counts = y >= from && y < until;
                    if (WEIGHTED && narrow && counts)
                        sum += sb_weight_units(sb_weight_within(y, &w));
                    summed |= (uint32_t)counts << i;
                    in_list |= (uint32_t)(counts && y < to) << i;
                }
                if (WEIGHTED && !narrow) {
                    const leaf_words<DTYPE> wide = x; /* whose address may be taken */
                    sum = units_of_wide<DTYPE>(&wide, summed, &w);
                }
            }
            all += WEIGHTED ? sum : __popc(summed);
            if (!__any_sync(FULL, in_list)) return;
            const uint32_t mine = __popc(in_list);
            uint64_t total;
            int at = listed + (int)warp_before(mine, &total);
            listed += (int)total;
            if (!WEIGHTED) inside += mine;
            while (in_list) {
                const int i = __ffsll((long long)in_list) - 1;
                const uint32_t id = (uint32_t)k * SB_LEAF + i;
                const float y = load_one<DTYPE>(row.all.logits, id);
                in_list &= in_list - 1;
                if (WEIGHTED) inside += sb_weight_units(sb_weight(y, &w));
                if (at < row.segment) list[at] = entry_of<DTYPE>(y, id);
                at++;
            }
        });
    all = warp_sum_any(all);
    inside = warp_sum_any(inside);
    if (lane == 0) {
        room->warps[warp] = { all - inside, inside, (uint32_t)listed, (uint32_t)listed };
        room->lengths[turn][warp] = (uint32_t)listed;
    }
    __syncthreads(); /* every warp's sums are written */
    if (warp == 0) {
        cut_sums mine = lane < warps ? room->warps[lane] : cut_sums{ 0, 0, 0, 0 };
        mine.above = warp_sum_any(mine.above);
        mine.inside = warp_sum_any(mine.inside);
        mine.count = __reduce_add_sync(FULL, mine.count);
        mine.most = __reduce_max_sync(FULL, mine.most);
        if (lane == 0) room->blocks[turn] = mine;
    }
    crew_barrier(row.mates); /* every block's sums, and lists, are written */
    cut_sums s = { 0, 0, 0, 0 };
    if (lane < row.mates.size) s = *in_block(row.mates, &room->blocks[turn], lane);
    s.above = warp_sum_any(s.above);
    s.inside = warp_sum_any(s.inside);
    s.count = __reduce_add_sync(FULL, s.count);
    s.most = __reduce_add_sync(FULL, s.most); /* of the merged lists, at most */
    return s;
}

/* ---- in the list -------------------------------------------------------------------------- */

/* Merges the lists of the crew's blocks, for each warp those of its like, behind the block's own.
 * Returns the length of the warp's list; *list: where it lies. */
SB_DET int merge_crew_lists(const cut_row &row, int turn, cut_room *room, uint64_t **list)
{
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, warps = blockDim.x / WARP;
    uint64_t *own = (uint64_t *)staging + warp * row.segment;
    int length = (int)room->lengths[turn][warp];
    *list = own;
    if (row.mates.size == 1) return length;
    *list = own + warps * row.segment;
    uint32_t of_lane = 0;
    if (lane < row.mates.size) of_lane = *in_block(row.mates, &room->lengths[turn][warp], lane);
    length = 0;
#pragma unroll 4
    for (int r = 0; r < row.mates.size; r++) {
        const int count = (int)__shfl_sync(FULL, of_lane, r);
        const uint64_t *from = in_block(row.mates, own, r);
        for (int i = lane; i < count; i += WARP) (*list)[length + i] = from[i];
        length += count;
    }
    __syncwarp(); /* the list is written */
    return length;
}

/* What an entry adds to the sum that a filter counts. */
template <int DTYPE, bool WEIGHTED> SB_DET uint64_t units_of(uint64_t entry, const sb_weights &w)
{
    if (!WEIGHTED) return 1;
    return sb_weight_units(sb_weight(sb_place_logit(place_of_entry<DTYPE>(entry)), &w));
}

SB_DET uint64_t warp_max_any(uint64_t x)
{
    for (int step = WARP / 2; step > 0; step /= 2) {
        const uint64_t other = __shfl_xor_sync(FULL, x, step);
        x = other > x ? other : x;
    }
    return x;
}

/* Which entry, of at most one for each lane of a warp and 0 for the others, reaches the goal;
 * *above: the sum before these, and then the sum up to the result. */
template <int DTYPE, bool WEIGHTED>
SB_DET uint64_t lane_of_goal(uint64_t mine, const sb_weights &w, uint64_t goal, uint64_t *above)
{
    const uint64_t units = mine ? units_of<DTYPE, WEIGHTED>(mine, w) : 0;
    uint64_t sum = *above + units; /* up to mine */
    for (int i = 0; i < WARP; i++) {
        const uint64_t other = __shfl_sync(FULL, mine, i), its = __shfl_sync(FULL, units, i);
        if (other > mine) sum += its;
    }
    const bool found = mine && sum >= goal && sum - units < goal; /* one lane */
    const int lane = __ffsll((long long)__ballot_sync(FULL, found)) - 1;
    *above = __shfl_sync(FULL, sum, lane);
    return __shfl_sync(FULL, mine, lane);
}

/* The entry of the warps' lists at which the sum, from the largest entry on, reaches goal. The sum
 * up to it goes to *reached. Requires: the sum over all reaches goal. Called by a whole block. */
template <int DTYPE, bool WEIGHTED>
static __device__ __noinline__ uint64_t entry_of_goal(const uint64_t *list, int length,
                                                      const sb_weights &w, uint64_t goal,
                                                      uint64_t *reached, cut_room *room)
{
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, warps = blockDim.x / WARP;
    /* The sum over entries from high on is above, below goal; from low on, it reaches goal. */
    uint64_t low = ~(uint64_t)0, high = 0, above = 0;
    for (int i = lane; i < length; i += WARP) {
        low = min(low, list[i]);
        high = max(high, list[i]);
    }
    low = ~warp_max_any(~low), high = warp_max_any(high);
    if (lane == 0) room->some[warp] = low, room->upper[1][warp] = high;
    __syncthreads(); /* every warp's ends are written */
    low = ~warp_max_any(lane < warps ? ~room->some[lane] : 0);
    high = warp_max_any(lane < warps ? room->upper[1][lane] : 0) + 1;
    for (int turn = 0;; turn ^= 1) {
        const uint64_t middle = low + (high - low) / 2;
        uint64_t sum = 0;
        uint32_t count = 0;
        for (int i = lane; i < length; i += WARP) {
            const uint64_t e = list[i];
            if (e < low || e >= high) continue;
            count++;
            if (e >= middle) sum += units_of<DTYPE, WEIGHTED>(e, w);
        }
        sum = warp_sum_any(sum);
        count = __reduce_add_sync(FULL, count);
        if (lane == 0) room->upper[turn][warp] = sum, room->counts[turn][warp] = count;
        __syncthreads(); /* the warps' sums are written; those of the last turn have been read */
        sum = warp_sum_any(lane < warps ? room->upper[turn][lane] : 0);
        uint64_t all;
        const uint64_t before = warp_before(lane < warps ? room->counts[turn][lane] : 0, &all);
        if (all <= WARP) {
            int at = (int)__shfl_sync(FULL, before, warp);
            for (int i = lane; i - lane < length; i += WARP) {
                const uint64_t e = i < length ? list[i] : 0;
                const bool is_in = i < length && e >= low && e < high;
                const uint64_t lanes = __ballot_sync(FULL, is_in);
                if (is_in) room->last[at + __popcll(lanes & (((uint64_t)1 << lane) - 1))] = e;
                at += __popcll(lanes);
            }
            __syncthreads(); /* the last entries are written */
            *reached = above;
            return lane_of_goal<DTYPE, WEIGHTED>(lane < (int)all ? room->last[lane] : 0, w, goal,
                                                 reached);
        }
        if (above + sum >= goal) {
            low = middle;
        } else {
            above += sum;
            high = middle;
        }
    }
}

/* ---- the cut ------------------------------------------------------------------------------ */

/* A goal that is known within bounds. */
struct goal_range {
    uint64_t least, most;
};

/* The sum of all weights of a row that has been cut. */
template <int DTYPE>
SB_DET uint64_t sum_of_weights(const cut_row &row, const sb_cut &cut, int turn, cut_room *room)
{
    const uint64_t bottom = cut.place ? entry_of_place<DTYPE>(cut.place) & ~(uint64_t)15 : 0;
    const bracket all = { bottom, bottom, top_edge<DTYPE>() }; /* nothing is inside */
    return pass_over<DTYPE, true>(row, cut, all, turn, room).above;
}

/* The next bracket to look at in [low, end): its lower half is listed. */
SB_DET bracket halved(uint64_t low, uint64_t end)
{
    const uint64_t middle = low + ((end - low) / 2 & ~(uint64_t)15);
    return { low, middle > low ? middle : end, end };
}

/* The place of a cut; that of `cut` if it leaves all. k: ids that are wanted, and, for top-p, those
 * that an earlier cut has left, if there was one. sum: the sum of weights, known within bounds; not
 * used behind an earlier cut. Called by a whole block of a crew, after a barrier. */
template <int DTYPE, bool WEIGHTED>
SB_DET uint64_t find_place(const cut_row &row, const sb_cut &cut, float best, int32_t k,
                           float top_p, goal_range sum, cut_room *room)
{
    const uint64_t bottom = cut.place ? entry_of_place<DTYPE>(cut.place) & ~(uint64_t)15 : 0;
    const bool few = WEIGHTED && cut.place && k <= row.segment * (int)(blockDim.x / WARP) / 2;
    uint64_t low = bottom, above_end = 0;
    int turn = 0;
    if (WEIGHTED && cut.place && !few) {
        sum.least = sum.most = sum_of_weights<DTYPE>(row, cut, turn, room);
        turn ^= 1;
    }
    goal_range goal = { WEIGHTED ? sb_top_p_goal(top_p, sum.least) : (uint64_t)k,
                        WEIGHTED ? sb_top_p_goal(top_p, sum.most) : (uint64_t)k };
    bracket b = guess_bracket<DTYPE, WEIGHTED>(
        row, cut, best, WEIGHTED ? (1.0f - top_p) * ((float)sum.least * 0x1p-40f) : (float)k, few,
        room->bins);
    for (uint64_t end = b.end;; turn ^= 1) {
        const cut_sums s = pass_over<DTYPE, WEIGHTED>(row, cut, b, turn, room);
        const uint64_t above = above_end + s.above, all = above + s.inside;
        uint64_t *list;
        int length = 0;
        const bool fits = s.most <= (uint32_t)row.segment;
        if (fits) { /* before another pass */
            length = merge_crew_lists(row, turn, room, &list);
            if (row.mates.size > 1) crew_barrier(row.mates); /* the lists have been read */
        }
        if (WEIGHTED && b.low == bottom) goal.least = goal.most = sb_top_p_goal(top_p, all);
        for (;;) { /* twice if the goal must be known exactly */
            const bool straddles = (goal.least <= above && above < goal.most) ||
                                   (goal.least <= all && all < goal.most);
            if (!straddles && fits && goal.least > above && goal.most <= all) {
                uint64_t reached;
                const uint64_t e = entry_of_goal<DTYPE, WEIGHTED>(
                    list, length, cut.weights, goal.least - above, &reached, room);
                if (above + reached >= goal.most) return place_of_entry<DTYPE>(e);
            } else if (!straddles) {
                break;
            }
            turn ^= 1;
            goal.least = goal.most = sb_top_p_goal(top_p,
                                                   sum_of_weights<DTYPE>(row, cut, turn, room));
        }
        const uint64_t width = 8 * (b.high - b.low);
        if (goal.least > all) { /* further down */
            if (b.low == bottom) return cut.place;
            low = bottom, end = b.low, above_end = all;
            b = { end - low > width ? end - width : low, end, end };
        } else if (goal.most <= above) { /* further up */
            low = b.high, end = b.end;
            b = { low, end - low > width ? low + width : end, end };
        } else {
            low = b.low, end = b.high, above_end = above;
            b = halved(low, end);
        }
    }
}
