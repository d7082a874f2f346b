/* cut.cuh - finds the place of a cut (det/sample.h): the last id of the shortest beginning of a
 * row's order whose sum of 1 (top-k) or of weights (top-p) reaches a goal.
 *
 * No id is sorted. Each (logit, id) has an entry number, which orders ids as places do. A pass over
 * the row (pass.cuh) sums up exactly what lies above a bracket of entry numbers and inside it, and
 * lists the ids inside. If the goal is inside and the list has room, the cut is found in the list
 * by bisection; else the bracket moves, and another pass follows:
 *
 *     sample of leaves -> guessed bracket -> pass -> list -> place
 *
 * If the list has no room, what it holds tells where to look next.
 *
 * If the logits of the bracket have few values, as those of bf16 do, the pass counts ids by their
 * keys instead, and the counts tell the place's key, and where the place is looked for.
 *
 * The guess alone is statistics, and only time depends on it. A row of top-p need not be summed up
 * for its goal, which follows, within narrow bounds, from the row's total; only if the place
 * differs between the bounds is the sum of all weights taken.
 *
 * The blocks of a crew each take their share of a row, and all find the same cut. All sums are of
 * integers. */
#pragma once

#include "pass.cuh"

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

/* The ends of the lists of a block's warps; ~0 and 0, if all are empty. Called by a whole block. */
SB_DET entry_ends ends_of_lists(const uint64_t *list, int length, cut_room *room)
{
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, warps = blockDim.x / WARP;
    entry_ends e = { ~(uint64_t)0, 0 };
    for (int i = lane; i < length; i += WARP) e = { min(e.least, list[i]), max(e.most, list[i]) };
    e = { ~warp_max_any(~e.least), warp_max_any(e.most) };
    if (lane == 0) room->some[warp] = e.least, room->upper[1][warp][0] = e.most;
    __syncthreads(); /* every warp's ends are written */
    return { ~warp_max_any(lane < warps ? ~room->some[lane] : 0),
             warp_max_any(lane < warps ? room->upper[1][lane][0] : 0) };
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
 * up to it goes to *reached. whole: the sum over all, which reaches goal. Called by a whole block.
 *
 * The entries are cut by two numbers at a time, close on both sides of where the goal lies if the
 * sum rises evenly; if it was not between the last two, a third of the way from each end. */
template <int DTYPE, bool WEIGHTED>
static __device__ __noinline__ uint64_t entry_of_goal(const uint64_t *list, int length,
                                                      const sb_weights &w, uint64_t goal,
                                                      uint64_t whole, uint64_t *reached,
                                                      cut_room *room)
{
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, warps = blockDim.x / WARP;
    /* The sum over entries from high on is above, below goal; that from low on to high is whole,
     * and with it the sum reaches goal. */
    const entry_ends all = ends_of_lists(list, length, room);
    uint64_t low = all.least, high = all.most + 1, above = 0;
    bool even = true;
    for (int turn = 0;; turn ^= 1) {
        const uint64_t width = high - low;
        uint64_t first = low + width / 3, second = high - width / 3;
        if (even) { /* any numbers would do */
            const float part = (float)(goal - above) / (float)whole;
            const uint64_t from_high = (uint64_t)(part * (float)width), margin = width / 16 + 1;
            first = high - min(from_high + margin, width);
            second = high - min(from_high > margin ? from_high - margin : 0, width);
        }
        uint64_t sums[2] = { 0, 0 };
        uint32_t count = 0;
        for (int i = lane; i < length; i += WARP) {
            const uint64_t e = list[i];
            if (e < low || e >= high) continue;
            count++;
            if (e < first) continue;
            const uint64_t units = units_of<DTYPE, WEIGHTED>(e, w);
            sums[0] += units;
            if (e >= second) sums[1] += units;
        }
        sums[0] = warp_sum(sums[0]), sums[1] = warp_sum(sums[1]);
        count = __reduce_add_sync(FULL, count);
        if (lane == 0) {
            room->upper[turn][warp][0] = sums[0], room->upper[turn][warp][1] = sums[1];
            room->counts[turn][warp] = count;
        }
        __syncthreads(); /* the warps' sums are written; those of the last turn have been read */
        sums[0] = warp_sum(lane < warps ? room->upper[turn][lane][0] : 0);
        sums[1] = warp_sum(lane < warps ? room->upper[turn][lane][1] : 0);
        count = lane < warps ? room->counts[turn][lane] : 0;
        if (__reduce_add_sync(FULL, count) <= WARP) {
            uint32_t all;
            int at = (int)__shfl_sync(FULL, warp_before(count, &all), warp);
            for (int i = lane; i - lane < length; i += WARP) {
                const uint64_t e = i < length ? list[i] : 0;
                const bool is_in = i < length && e >= low && e < high;
                const uint64_t lanes = __ballot_sync(FULL, is_in);
                if (is_in) room->last[at + lanes_before(lanes, lane)] = e;
                at += __popcll(lanes);
            }
            __syncthreads(); /* the last entries are written */
            *reached = above;
            return lane_of_goal<DTYPE, WEIGHTED>(lane < (int)all ? room->last[lane] : 0, w, goal,
                                                 reached);
        }
        const bool in_second = above + sums[1] >= goal, in_first = above + sums[0] >= goal;
        even = in_first && !in_second;
        if (in_second) {
            low = second, whole = sums[1];
        } else if (in_first) {
            low = first, high = second, above += sums[1], whole = sums[0] - sums[1];
        } else {
            high = first, above += sums[0], whole -= sums[0];
        }
    }
}

/* ---- among the counts --------------------------------------------------------------------- */

/* Which lane's count, of those from lane 0 on, has number *n of what they count; *n: its number
 * among the lane's own. */
SB_DET int lane_that_has(uint32_t count, uint32_t *n)
{
    uint32_t all;
    const uint32_t before = warp_before(count, &all);
    const bool has = *n >= before && *n - before < count; /* one lane */
    const int lane = __ffsll((long long)__ballot_sync(FULL, has)) - 1;
    *n -= __shfl_sync(FULL, before, lane);
    return lane;
}

/* Counts the ids of a part of a row whose logits are between two edges of one key, and which `cut`
 * leaves. The entry number of number n of them goes to *to, if it is there. */
template <int DTYPE>
static __device__ __noinline__ uint32_t ids_of_key(const cut_row &row, const sb_cut &cut,
                                                   const edge &low, uint32_t key, part_of_row part,
                                                   uint32_t n, uint64_t *to)
{
    const int lane = threadIdx.x % WARP;
    const edge its = edge_of<DTYPE>((uint64_t)key << ID_BITS);
    const int cut_leaf = cut.place ? sb_place_id(cut.place) / SB_LEAF : -1;
    const row_leaves<DTYPE> leaves(row);
    uint32_t count = 0, all;
    for (int base = part.first; base < part.last; base += WARP) {
        const int k = base + lane;
        uint32_t bits = 0;
        if (k < part.last) {
            leaf_words<DTYPE> x;
            leaves.load(x, k);
            bits = ids_from<DTYPE>(x, fmaxf(its.at, least_of(low, k))) &
                   ~ids_from<DTYPE>(x, its.above);
            if (k == cut_leaf) {
                const leaf_words<DTYPE> other = x; /* whose address may be taken */
                bits &= ids_left_in<DTYPE>(&other, cut.place);
            }
        }
        const uint32_t ids = (uint32_t)__popc(bits);
        const uint32_t before = count + warp_before(ids, &all);
        if (n >= before && n - before < ids) {
            uint32_t rest = bits_in_order<DTYPE>(bits);
            for (uint32_t i = before; i < n; i++) rest &= rest - 1;
            const uint32_t id = (uint32_t)(k * SB_LEAF + __ffsll((long long)rest) - 1);
            *to = (uint64_t)key << ID_BITS | (LAST_ID - id);
        }
        count += all;
    }
    return count;
}

/* As entry_of_goal, of a bracket whose ids have been counted by keys: the key, the ids of this key
 * that are wanted, the block and the warp that have counted the last one of these, and this one in
 * the warp's part, which all warps of each block look through. */
template <int DTYPE, bool WEIGHTED>
static __device__ __noinline__ uint64_t counted_goal(const cut_row &row, const sb_cut &cut,
                                                     const bracket &b, int turn, uint64_t goal,
                                                     uint64_t *reached, cut_room *room)
{
    if constexpr (DTYPE != SB_CUDA_BF16) return 0;
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, warps = blockDim.x / WARP;
    const edge low = edge_of<DTYPE>(b.low);
    const bool passes = lane < KEY_BINS / 2 && room->sums[2 * lane + 1] >= goal;
    int bin = 2 * (__ffsll((long long)__ballot_sync(FULL, passes)) - 1);
    if (room->sums[bin] < goal) bin++;
    const uint64_t before = bin ? room->sums[bin - 1] : 0;
    const uint32_t key = first_key(b) - (uint32_t)bin;
    const uint64_t units = units_of_key<DTYPE, WEIGHTED>(key, cut.weights);
    uint32_t n = (uint32_t)((goal - before - 1) / units); /* ids of the key before the last one */
    *reached = before + (n + 1) * units;

    cut_row owner = row;
    uint32_t count = 0;
    if (lane < row.mates.size) count = in_block(row.mates, room->totals[turn], lane)[bin];
    owner.mates.rank = lane_that_has(count, &n);
    count = lane < warps ? in_block(row.mates, key_counts(lane), owner.mates.rank)[bin] : 0;
    part_of_row part = part_of_warp(share_of_crew(owner), lane_that_has(count, &n), warps);

    count = ids_of_key<DTYPE>(row, cut, low, key, part_of_warp(part, warp, warps), ~0u, nullptr);
    if (lane == 0) room->counts[0][warp] = count;
    __syncthreads(); /* every warp's count is written */
    count = lane < warps ? room->counts[0][lane] : 0;
    if (lane_that_has(count, &n) == warp)
        ids_of_key<DTYPE>(row, cut, low, key, part_of_warp(part, warp, warps), n, room->last);
    __syncthreads(); /* the entry is written, and the counts have been read */
    return room->last[0];
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
    uint64_t bottom = cut.place ? entry_of_place<DTYPE>(cut.place) & ~(uint64_t)15 : 0;
    /* Weights below 2^-41 have no units, nor have those of smaller logits: an exp2 that is not
     * monotone in its last bit does not make up for a half. */
    const float low = row.best - 44.0f / cut.weights.c;
    if (low > sb_float(SB_ABSENT_BITS) && sb_weight(low, &cut.weights) < 0x1p-41f)
        bottom = max(bottom, edge_under<DTYPE>(low));
    const bracket all = { bottom, bottom, top_edge<DTYPE>() }; /* nothing is inside */
    return pass_to_lists<DTYPE, true>(row, cut, all, turn, room).above;
}

/* The next bracket to look at in [low, end), which holds too many ids: its lower half. */
SB_DET bracket halved(uint64_t low, uint64_t end)
{
    const uint64_t middle = low + ((end - low) / 2 & ~(uint64_t)15);
    return { low, middle > low ? middle : end, end };
}

/* The same by a guess: what lies about the goal, if ids are spread evenly between the ends of those
 * that a pass has listed before the lists were full; a guess that is bad takes time. part: of what
 * is inside, up to the goal. fits: so much of it would fit the lists, and half of that is taken. A
 * function of its own, as this is rare. */
static __device__ __noinline__ bracket around(const cut_row &row, uint64_t low, uint64_t end,
                                              int turn, float part, float fits, cut_room *room)
{
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    const int length = min((int)room->lengths[turn][warp], row.segment);
    entry_ends e = ends_of_lists((uint64_t *)staging + warp * row.segment, length, room);
    if (threadIdx.x == 0) room->ends = e;
    crew_barrier(row.mates); /* the ends of all blocks are written */
    e = *in_block(row.mates, &room->ends, min(lane, row.mates.size - 1));
    uint64_t least = ~warp_max_any(~e.least) / KEY * KEY, most = warp_max_any(e.most) / KEY * KEY;
    if (least == most) least += LAST_ID - (uint32_t)(row.all.vocab - 1); /* no id is larger */
    least = max(low, least / 16 * 16), most = min(end, most + KEY);
    const float width = (float)(most - least), margin = width * fits / 4;
    const uint64_t below = (uint64_t)fmaxf(width - part * width - margin, 0.0f),
                   above = (uint64_t)fmaxf(part * width - margin, 0.0f);
    return { least + below / 16 * 16, most - above / 16 * 16, end };
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
    bool first = true, guesses = true;
    for (uint64_t end = b.end;; turn ^= 1) {
        const bool keys = counts_keys<DTYPE>(b);
        const cut_sums s = keys ? pass_by_keys<DTYPE, WEIGHTED>(row, cut, b, turn, room)
                                : pass_to_lists<DTYPE, WEIGHTED>(row, cut, b, turn, room);
        const uint64_t above = above_end + s.above, all = above + s.inside;
        uint64_t *list;
        int length = 0;
        const int counted = turn;
        const bool fits = keys || s.most <= (uint32_t)row.segment;
        if (fits && !keys) { /* before another pass */
            length = merge_crew_lists(row, turn, room, &list);
            if (row.mates.size > 1) crew_barrier(row.mates); /* the lists have been read */
        }
        if (WEIGHTED && b.low == bottom) goal.least = goal.most = sb_top_p_goal(top_p, all);
        for (;;) { /* twice if the goal must be known exactly */
            const bool straddles = (goal.least <= above && above < goal.most) ||
                                   (goal.least <= all && all < goal.most);
            if (!straddles && fits && goal.least > above && goal.most <= all) {
                uint64_t reached;
                const uint64_t e = keys ? counted_goal<DTYPE, WEIGHTED>(row, cut, b, counted,
                                                                        goal.least - above,
                                                                        &reached, room)
                                        : entry_of_goal<DTYPE, WEIGHTED>(list, length, cut.weights,
                                                                         goal.least - above,
                                                                         s.inside, &reached, room);
                if (above + reached >= goal.most) return place_of_entry<DTYPE>(e);
            } else if (!straddles) {
                break;
            }
            turn ^= 1;
            goal.least = goal.most = sb_top_p_goal(top_p,
                                                   sum_of_weights<DTYPE>(row, cut, turn, room));
        }
        const uint64_t width = (keys && first ? 1 : 8) * (b.high - b.low);
        first = false;
        if (goal.least > all) { /* further down */
            if (b.low == bottom) return cut.place;
            low = bottom, end = b.low, above_end = all;
            b = { end - low > width ? end - width : low, end, end };
        } else if (goal.most <= above) { /* further up */
            low = b.high, end = b.end;
            b = { low, end - low > width ? low + width : end, end };
        } else {
            low = b.low, end = b.high, above_end = above;
            if (!fits && guesses)
                b = around(row, low, end, counted, (float)(goal.least - above) / (float)s.inside,
                           (float)row.segment / (float)s.most, room);
            else b = halved(low, end);
            guesses = !guesses; /* halves each other time, in case guesses are bad */
        }
    }
}
