/* sample.cu - draws a token for each row: filters, the draw, and its logprobs (det/sample.h).
 *
 *   token: the first id at which the exact sum of shares exceeds U / 2^64 of the total
 *
 * Shapes: everything in src/cuda/sample_args.h.
 *
 *     no filters      sample_sum_<dtype> -> sample_draw_<dtype>
 *     k <= 64         topk_<dtype> of order.cu -> sample_list; if the rows are few and long,
 *                     sample_sum_<dtype> -> sample_pick_<dtype>
 *     other filters   sample_sum_<dtype> -> sample_filter_<dtype>
 *
 *     sample_sum_<dtype>     in.split blocks per item, of up to SB_CUDA_SUM threads: sums the row
 *                            in short parts (parts.cuh), and writes its fate.
 *     sample_sum_<dtype>_table   the same of many aligned rows at one temperature, by a table
 *                            (table.cuh): one block per multiprocessor.
 *     sample_draw_<dtype>    one block per item, of a thread for each part: finds the part of the
 *                            draw by prefix sums, reads it again, finds the leaf, and the id. If
 *                            rows are few, blocks prepare this while sample_sum runs.
 *     sample_list            one warp per item: filters the list of first ids and draws from it.
 *     sample_pick_<dtype>    one block of up to SB_CUDA_PICK threads per item: picks the first ids
 *                            from the parts (pick.cuh), filters them, and draws (list_draw.cuh).
 *     sample_filter_<dtype>  a crew of blocks (crew.cuh) per item, of up to SB_CUDA_FILTER threads:
 *                            finds the cut (cut.cuh), sums what is kept, and draws from it. */
#include "cut.cuh"
#include "draw.cuh"
#include "list_draw.cuh"
#include "parts.cuh"
#include "pick.cuh"
#include "table.cuh"

/* ---- sums, in parts ----------------------------------------------------------------------- */

/* Part p of a row. */
SB_DET part_of_row part_number(const sb_cuda_sample_args &a, const char *logits, int p)
{
    part_of_row part;
    part.logits = logits;
    part.vocab = a.in.vocab;
    part.first = p * a.part;
    part.last = min(part.first + a.part, leaves_in(a.in.vocab));
    return part;
}

template <int DTYPE> SB_DET void sum_block(const sb_cuda_sample_args &a)
{
    const sb_cuda_args &in = a.in;
    __shared__ any_row found;
    const int64_t item = blockIdx.x / (uint32_t)in.split;
    const int block = (int)(blockIdx.x % (uint32_t)in.split), warps = blockDim.x / WARP;
    const int first = (block * warps + (int)(threadIdx.x / WARP)) * a.each;
    any_row mine;

    wait_for_primary();
    if (a.early) begin_dependents();  /* all that came before the call is complete */
    if (in.simple && in.width == 0) { /* a short way: the row is active */
        mine.number = row_at(in, item);
        mine.fate = ROW_ACTIVE;
        mine.row = in.row;
        mine.logits = (const char *)in.logits + mine.number * in.row_stride * in.itemsize;
        const int k = first * a.part + (int)threadIdx.x % WARP; /* the first leaf, on its way now */
        if (k < leaves_in(in.vocab))
            prefetch(mine.logits + (int64_t)k * (SB_LEAF * size_of<DTYPE>()));
    } else {
        if (threadIdx.x == 0) set_any_row(in, &found, item, block == 0);
        __syncthreads(); /* the row is written */
        mine = found;
    }
    if (block == 0 && threadIdx.x == 0) write_target(in, item, 0.0f, mine.fate);
    if (mine.fate != ROW_ACTIVE) return;
    for (int p = first; p < min(first + a.each, a.parts); p++) {
        sb_state s;
        const float most = sum_warp_part<DTYPE>(&s, in, mine, part_number(a, mine.logits, p));
        if (threadIdx.x % WARP != 0) continue;
        ((sb_state *)in.states)[item * a.parts + p] = s;
        ((float *)a.mosts)[item * a.parts + p] = most;
    }
    begin_dependents();
}

/* ---- the same by a table ------------------------------------------------------------------ */

/* A part as a warp takes it: the first leaf of the lane at p, trips of them whole. ragged: how many
 * leaves behind the part's first one the row's last leaf lies, if it is in the part and not whole;
 * else -1. number: of the part, counted through all rows. */
struct table_part {
    const char *p;
    int64_t item, number;
    int32_t trips, ragged, fate;
    bool first;
};

/* Part p of a work item. Called by a whole warp. */
SB_DET table_part table_part_of(const sb_cuda_sample_args &a, int64_t item, int32_t p)
{
    const sb_cuda_args &in = a.in;
    const int lane = threadIdx.x % WARP;
    table_part t = { nullptr, item, item * a.parts + p, 0, -1, ROW_UNKNOWN, p == 0 };
    any_row row;
    if (item >= in.work) return t;
    set_any_row(in, &row, item, p == 0 && lane == 0);
    t.fate = row.fate;
    if (row.fate != ROW_ACTIVE) return t;
    const part_of_row part = part_number(a, row.logits, p);
    const int32_t whole = (int32_t)(in.vocab / SB_LEAF), end = min(part.last, whole);
    t.p = row.logits + (int64_t)(part.first + lane) * LEAF_BYTES;
    t.trips = max(end - part.first - lane + WARP - 1, 0) / WARP;
    if (part.last > whole) t.ragged = whole - part.first;
    return t;
}

/* Warps of blocks that stay, one on each multiprocessor, take parts in turns. A lane's next leaf is
 * on its way to registers while it works on one. */
template <int DTYPE> SB_DET void sum_by_table(const sb_cuda_sample_args &a)
{
    constexpr int STEP = WARP * LEAF_BYTES;
    const sb_cuda_args &in = a.in;
    const shared_address table = address_of(staging);
    const int lane = threadIdx.x % WARP, block_warps = blockDim.x / WARP;
    const int32_t warps = (int32_t)gridDim.x * block_warps;
    const int32_t items = warps / a.parts, more = warps % a.parts; /* to a warp's next part */
    volatile float *const constants = (volatile float *)((char *)staging + TABLE_GAP);
    uint4 q[2];

    begin_dependents();
    fill_table<DTYPE>(table, in.row.c);
    wait_for_primary();
    if (threadIdx.x < WARP) constants[lane] = in.row.c;
    int32_t p = (int32_t)blockIdx.x * block_warps + (int32_t)(threadIdx.x / WARP);
    int64_t item = p / a.parts;
    p %= a.parts;
    table_part part = table_part_of(a, item, p);
    if (part.trips > 0) q[0] = load16(part.p), q[1] = load16(part.p + 16);
    __syncthreads();                 /* the table and the constants are written */
    const float c = constants[lane]; /* each lane's own, so that ptxas keeps it in a register */

    while (part.item < in.work) {
        sees_most see = { sb_float(SB_ABSENT_BITS) };
        table_state t;
        item += items, p += more;
        if (p >= a.parts) item++, p -= a.parts;
        const table_part after = table_part_of(a, item, p);
        if (part.first && lane == 0) write_target(in, part.item, 0.0f, part.fate);
        t.low = NO_BASE;
        sb_state_init(&t.s, c);
        if (part.trips > 0) begin_window<DTYPE>(&t, q, c);
        if (part.ragged >= 0 && lane == 0) {
            const char *const last = part.p + part.ragged * LEAF_BYTES;
            const int32_t n = (int32_t)(in.vocab % SB_LEAF);
            leaf_words<DTYPE> x;
            load_part<DTYPE>(x, last, n);
            see(leaf_max<DTYPE>(x));
            t = plain_leaf<DTYPE>(t, x, last, n, in.row);
        }
        const auto load = [&](const char *from) { q[0] = load16(from), q[1] = load16(from + 16); };
        const auto load_after = [&] {
            if (after.trips > 0) load(after.p);
        };
        if (part.trips == 0) {
            load_after();
        } else {
            const char *at = part.p, *const end = at + (part.trips - 1) * STEP;
            while (at != end) {
                at += STEP;
                hide(at); /* so that no copy of the old address is kept */
                add_table_leaf<DTYPE>(
                    &t, q, at - STEP, table, c, in.row, [&] { load(at); }, see);
            }
            add_table_leaf<DTYPE>(&t, q, at, table, c, in.row, load_after, see);
        }
        if (part.fate == ROW_ACTIVE) {
            warp_merge(&t.s);
            const float most = warp_most(see.most);
            if (lane == 0) {
                ((sb_state *)in.states)[part.number] = t.s;
                ((float *)a.mosts)[part.number] = most;
            }
        }
        part = after;
    }
}

/* ---- a row and its parts ------------------------------------------------------------------ */

/* What a block that filters knows about its row, in shared memory. */
struct drawing {
    sb_row row;
    sb_cut cut;
    search at;
    sb_state whole, kept, model; /* sums: of the present ids; of those that the filters keep */
    uint64_t U;
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
    return (const sb_state *)a.in.states + item * a.parts;
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

/* ---- the draw of a row without filters ---------------------------------------------------- */

/* What a block that draws knows of its row, in shared memory. */
struct drawn_row {
    sb_row row;
    cut_row logits;
    search at;
    int64_t number;
    int32_t fate;              /* as the values of the draw have it: active or refused */
    uint32_t most[DRAW_WARPS]; /* the largest J of each warp's parts */
};

/* Sets what the call tells of a row, unless the row list is bad here. Two warps do so side by side,
 * if there are two. Called by a whole block. */
SB_DET void begin_draw(const sb_cuda_sample_args &a, int64_t item, drawn_row *d)
{
    const sb_cuda_args &in = a.in;
    if (threadIdx.x % WARP != 0 || threadIdx.x > WARP || !listed_well(in, item)) return;
    const int64_t row = row_at(in, item);
    if (threadIdx.x == 0) {
        d->number = row;
        d->row = constants_of(in, temperature_of(in, row));
        set_cut_row(&d->logits, in, row);
    }
    if (threadIdx.x == WARP || blockDim.x == WARP) {
        d->fate = samples_well(a, row) ? ROW_ACTIVE : ROW_REFUSED;
        d->at.U = draw_bits(a, row);
    }
}

SB_DET sb_state load_state(const sb_state *p)
{
    const uint4 low = load16_mutable((const char *)p), high = load16_mutable((const char *)p + 16);
    return { low.x,
             low.y,
             { (uint64_t)low.w << 32 | low.z, (uint64_t)high.y << 32 | high.x,
               (uint64_t)high.w << 32 | high.z } };
}

/* The share of a part, as sb_total_at computes it, without branches. */
SB_DET sb_u128 share_of_part(const sb_state &s, uint32_t J)
{
    const uint32_t rise = J - s.J;
    const uint64_t a = s.l[0], b = s.l[1], c = s.l[2];
    const sb_state up = { J,
                          0,
                          { rise == 0   ? a
                            : rise == 1 ? b
                            : rise == 2 ? c
                                        : 0,
                            rise == 0   ? b
                            : rise == 1 ? c
                                        : 0,
                            rise == 0 ? c : 0 } };
    return sb_total(&up);
}

/* A thread has one part of the row, or none. What an early block reads before it waits is the
 * call's: it was there before the sums began. */
template <int DTYPE> SB_DET void draw_block(const sb_cuda_sample_args &a)
{
    const sb_cuda_args &in = a.in;
    __shared__ drawn_row d;
    const int64_t item = blockIdx.x;
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, warps = blockDim.x / WARP;
    const sb_cut none = { 0, 0.0f, { 0.0f, 0.0f, 0.0f } };
    sb_state s, model;

    if (!a.early) wait_for_primary();
    begin_draw(a, item, &d);
    wait_for_primary();
    if (a.early > 1) begin_dependents();
    int32_t fate = ((const sb_cuda_target *)in.targets)[item].active;
    make_none(&s);
    if ((int)threadIdx.x < a.parts) s = load_state(parts_of(a, item) + threadIdx.x);
    uint32_t J = __reduce_max_sync(FULL, s.J);
    if (lane == 0) d.most[warp] = J;
    __syncthreads(); /* the row is written, and every warp's J */
    J = __reduce_max_sync(FULL, lane < warps ? d.most[lane] : SB_J_EMPTY);
    if (fate == ROW_UNKNOWN) return;
    if (fate == ROW_ACTIVE && d.fate == ROW_REFUSED) {
        fate = ROW_REFUSED;
        if (threadIdx.x == 0) report(in, SB_BAD_SAMPLING, d.number);
    }
    if (fate == ROW_ACTIVE && (J == SB_J_EMPTY || J == SB_J_POISON)) fate = ROW_NAN;
    if (fate != ROW_ACTIVE) {
        write_none(a, d.number, fate, threadIdx.x, blockDim.x);
        return;
    }
    find_among(&d.at, threadIdx.x, share_of_part(s, J), a.parts, true);
    __syncthreads(); /* the part is written */
    const sb_u128 total = d.at.total;
    const sb_state kept = { J, 0, { (uint64_t)total, 0, (uint64_t)(total >> 64) } };
    if (a.models && warp <= 1) /* one of these finishes the row */
        merge_pieces(&model, (const sb_state *)a.models + item * a.model_split, a.model_split);
    else model = kept;
    const part_of_row part = part_number(a, d.logits.all.logits, d.at.item);
    const row_leaves<DTYPE> leaves(d.logits);
    draw_in_part<DTYPE>(a, d.number, part, none, &d.at, J, kept, model, d.row,
                        [&](leaf_words<DTYPE> &x, int k) { leaves.load(x, k); });
}

/* ---- filters ------------------------------------------------------------------------------ */

/* Part p of a block's leaves, of which there are `parts`. */
SB_DET part_of_row part_of_block(part_of_row row, int p, int parts)
{
    const int each = (row.last - row.first + parts - 1) / parts;
    part_of_row part = row;
    part.first = min(row.first + p * each, row.last);
    part.last = min(part.first + each, row.last);
    return part;
}

/* What a block knows of the kept ids of its leaves, by parts, of which each warp has several: the
 * one that holds the draw is read again. */
#define KEPT_PARTS 4
struct kept_parts {
    sb_state states[KEPT_PARTS * DRAW_WARPS], all;
    uint32_t counts[KEPT_PARTS * DRAW_WARPS], count;
};

/* What a cut keeps, by logits, to save looking at places and weights: of leaf k, the ids that reach
 * both the edge and `from`, and no others, but ids that do not reach `sure` have to be looked at,
 * and so have those of the leaf of the cut's place. For bf16 all of these are bf16 numbers. */
struct kept_logits {
    edge least;
    float from, sure;
    int cut_leaf; /* -1: none */
};

/* Of the keys from low on, which are below high, the last one up to which test holds, if it holds
 * for a key only if it does for all that are smaller: some key at which it holds, otherwise. For
 * low it holds, for high it does not. Called by a whole warp. */
template <class TEST> SB_DET uint32_t last_key(uint32_t low, uint32_t high, TEST test)
{
    const int lane = threadIdx.x % WARP;
    while (high - low > 1) {
        const uint32_t step = (high - low - 1) / (WARP + 1) + 1;
        const uint64_t key = low + (uint64_t)step * (lane + 1);
        const bool holds = key < high && test(sb_place_logit(key << 32));
        const uint64_t fails = ~(uint64_t)__ballot_sync(FULL, holds);
        const int n = fails ? min(__ffsll((long long)fails) - 1, WARP) : WARP;
        high = (uint32_t)min((uint64_t)high, low + (uint64_t)step * (n + 1));
        low += step * n;
    }
    return low;
}

/* Called by a whole warp. best: the row's largest logit. */
template <int DTYPE> SB_DET kept_logits kept_logits_of(const sb_cut &cut, float best)
{
    const uint64_t place = cut.place ? entry_of_place<DTYPE>(cut.place) & ~(uint64_t)15 : 0;
    kept_logits l = { edge_of<DTYPE>(place), sb_float(SB_ABSENT_BITS), sb_float(SB_ABSENT_BITS),
                      cut.place ? sb_place_id(cut.place) / SB_LEAF : -1 };
    if (!(cut.least > 0.0f)) return l;
    /* exp2 is not monotone in its last bit: see sb_is_cut_up_to */
    const sb_cut weights = { 0, cut.least, cut.weights };
    const uint32_t none = 0x007fffffu, top = sb_order_key(best) + 1; /* none: the key of -inf */
    const uint32_t cut_key = last_key(none, top,
                                      [&](float x) { return sb_is_cut_up_to(&weights, x); });
    const uint32_t unsure = last_key(cut_key, top, [&](float x) {
        const float v = sb_weight(x, &cut.weights);
        return !(sb_fma32(v, -0x1p-20f, v) >= cut.least);
    });
    l.from = raised_to_container<DTYPE>(sb_place_logit((uint64_t)(cut_key + 1) << 32));
    l.sure = raised_to_container<DTYPE>(sb_place_logit((uint64_t)(unsure + 1) << 32));
    return l;
}

/* Which ids of leaf k, of those given, a cut leaves, one by one. A function of its own, as it is
 * rarely needed. */
template <int DTYPE>
static __device__ __noinline__ uint32_t ids_kept_in(const leaf_words<DTYPE> *x, int k,
                                                    uint32_t bits, const sb_cut *cut)
{
#pragma unroll 1
    for (int i = 0; i < SB_LEAF; i++)
        if (sb_is_cut(cut, unpack<DTYPE>(*x, i), (uint32_t)k * SB_LEAF + i))
            bits &= ~(1u << bit_of_id<DTYPE>(i));
    return bits;
}

/* Makes all ids of a leaf absent but those given. */
template <int DTYPE> SB_DET void leave_ids(leaf_words<DTYPE> &x, uint32_t bits)
{
#pragma unroll
    for (int i = 0; i < words_of<DTYPE>(); i++) {
        if (DTYPE == SB_CUDA_F32) {
            if (!(bits >> i & 1)) x.w[i] = absent_word<DTYPE>();
        } else {
            const uint32_t mask = (bits >> i & 0x10001u) * 0xffffu;
            x.w[i] = (x.w[i] & mask) | (absent_word<DTYPE>() * 0x10001u & ~mask);
        }
    }
}

/* Loads leaf k of a row as a cut leaves it, and returns the ids that are kept. */
template <int DTYPE>
SB_DET uint32_t load_cut(leaf_words<DTYPE> &x, const row_leaves<DTYPE> &leaves, int k,
                         const kept_logits &l, const sb_cut &cut)
{
    leaves.load(x, k);
    uint32_t bits = ids_from<DTYPE>(x, fmaxf(least_of(l.least, k), l.from));
    if (k == l.cut_leaf || (l.sure > l.from && bits & ~ids_from<DTYPE>(x, l.sure))) {
        const leaf_words<DTYPE> other = x; /* whose address may be taken */
        bits = ids_kept_in<DTYPE>(&other, k, bits, &cut);
    }
    leave_ids<DTYPE>(x, bits);
    return bits;
}

/* Adds a leaf that is wide. */
template <int DTYPE>
static __device__ __noinline__ void add_wide(sb_state *s, const leaf_words<DTYPE> *x,
                                             const sb_row *row)
{
    float y[SB_LEAF];
    for (int i = 0; i < SB_LEAF; i++) y[i] = unpack<DTYPE>(*x, i);
    add_any(s, y, *row);
}

/* Sums up what is kept of a warp's parts, from number p on, up to the one before `end`, of `each`
 * of the block, and writes its bits. Most leaves keep nothing, or are not even read. A warp queues
 * the others and takes one for each lane. */
template <int DTYPE>
static __device__ __noinline__ void sum_cut(kept_parts *to, const sb_cuda_sample_args *a,
                                            const cut_row &row, const sb_cut &cut,
                                            const kept_logits &logits, const sb_row &constants,
                                            int p, int end, int each, uint16_t *queue)
{
    const int lane = threadIdx.x % WARP;
    uint16_t *kept = a->kept ? (uint16_t *)((uint32_t *)a->kept + row.number * kept_words(*a))
                             : nullptr;
    const leaf_row c = { constants.c, constants.k64 };
    const kept_logits l = logits;
    const row_leaves<DTYPE> leaves(row);
    const part_of_row mine = share_of_crew(row);
    const uint32_t *reached = reached_leaves();
    const auto may_keep = [&](int k) {
        return reached[(k - mine.first) / 32] >> (k - mine.first) % 32 & 1;
    };
    const int last = part_of_block(mine, end - 1, each).last;
    for (; p < end; p++) {
        const part_of_row part = part_of_block(mine, p, each);
        thread_state t;
        uint32_t ids = 0;
        int count = 0; /* of the queue */
        t.base = NO_BASE;
        begin_sum(&t, constants.c);
        for (int base = part.first; base < part.last; base += WARP) {
            const bool final = base + WARP >= part.last;
            const int k = base + lane, then = k + AHEAD * WARP;
            bool passes = false;
            if (k < part.last && may_keep(k)) {
                leaf_words<DTYPE> x;
                leaves.load(x, k);
                passes = leaf_max<DTYPE>(x) >= fmaxf(least_of(l.least, k), l.from);
            }
            if (then < last && may_keep(then)) leaves.fetch(then);
            if (kept && !passes && k < part.last) kept[k] = 0;
            const uint64_t lanes = __ballot_sync(FULL, passes);
            if (passes) queue[count + lanes_before(lanes, lane)] = (uint16_t)k;
            count += __popcll(lanes);
            while (count >= WARP || (final && count > 0)) {
                __syncwarp(); /* the queue is written */
                const int taken = min(count, WARP), first = count - taken;
                if (lane < taken) {
                    const int at = queue[first + lane];
                    leaf_words<DTYPE> x;
                    const uint32_t bits = load_cut<DTYPE>(x, leaves, at, l, cut);
                    if (kept) kept[at] = (uint16_t)bits_in_order<DTYPE>(bits);
                    ids += __popc(bits);
                    if (!bits) {
                    } else if (is_narrow(
                                   sb_bits32(sb_fma32(leaf_max<DTYPE>(x), c.c, SB_EVEN_MAGIC)))) {
                        bool left = false;
                        add_leaf<DTYPE>(&t, x, c, &left);
                    } else {
                        sb_state state = t.s; /* whose address may be taken */
                        const leaf_words<DTYPE> wide = x;
                        add_wide<DTYPE>(&state, &wide, &constants);
                        t.s = state;
                        t.base = base_of(state.J);
                    }
                }
                count = first;
                __syncwarp(); /* the queue has been read */
            }
        }
        warp_merge(&t.s);
        ids = __reduce_add_sync(FULL, ids);
        if (lane == 0) to->states[p] = t.s, to->counts[p] = ids;
    }
}

/* Begins with a row: sets d and row, with the sum of all, the largest logit, the scale of weights
 * and the random bits. Returns whether there is anything to draw from; else the row is written.
 * The sums and the largest logits of parts are on their way before the row's fate is known. Called
 * by a whole block. */
SB_DET bool begin_filters(const sb_cuda_sample_args &a, int64_t item, const crew &mates, drawing *d,
                          cut_row *row, sb_state *shared, float *largest)
{
    const sb_cuda_args &in = a.in;
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, warps = blockDim.x / WARP;
    const sb_state *parts = parts_of(a, item);
    const float *mosts = (const float *)a.mosts + item * a.parts;
    const bool writes = mates.rank == 0;
    float best = sb_float(SB_ABSENT_BITS), most = best;
    sb_state s, first;
    make_none(&first);
    if ((int)threadIdx.x < a.parts)
        first = load_state(parts + threadIdx.x), most = mosts[threadIdx.x];
    if (threadIdx.x == 0) {
        d->fate = fate_of(a, item, writes);
        if (d->fate != ROW_UNKNOWN) d->number = row_at(in, item);
        if (d->fate == ROW_ACTIVE) {
            d->row = constants_of(in, temperature_of(in, d->number));
            set_cut_row(row, in, d->number);
        }
        row->mates = mates;
        row->segment = a.segment;
        d->cut.place = 0;
        d->cut.least = 0.0f;
    }
    if (((const sb_cuda_target *)in.targets)[item].active == ROW_ACTIVE) {
        s = first, best = most;
        for (int p = threadIdx.x + blockDim.x; p < a.parts; p += blockDim.x) {
            merge_into(&s, parts[p]);
            best = fmaxf(best, mosts[p]);
        }
        warp_merge(&s);
        best = warp_most(best);
        if (lane == 0) shared[warp] = s, largest[warp] = best;
    }
    __syncthreads(); /* d, the row, and the warps' sums and largest logits are written */
    if (d->fate == ROW_UNKNOWN) return false;
    if (d->fate == ROW_ACTIVE) {
        if (warp == 0) {
            merge_shared(&s, shared, warps);
            if (lane == 0) d->whole = s;
        }
        if (warp == warps - 1) {
            best = warp_most(lane < warps ? largest[lane] : sb_float(SB_ABSENT_BITS));
            if (lane == 0) {
                row->best = best;
                d->cut.weights = sb_weights_of(best, &d->row);
            }
        }
        if (threadIdx.x == blockDim.x / 2) d->U = draw_bits(a, d->number);
        __syncthreads(); /* the whole state is written, and what depends on the largest logit */
    }
    const int32_t fate = d->fate == ROW_ACTIVE && sb_state_is_nan(&d->whole) ? ROW_NAN : d->fate;
    if (fate == ROW_ACTIVE) return true;
    if (writes) write_none(a, d->number, fate, threadIdx.x, blockDim.x);
    return false;
}

/* Bounds of the sum of all weights, in units of 2^-40, from the row's total T. A leaf's M is the
 * sum of its terms, at most 2.4e-7 of it above or 3.6e-7 below: the tree rounds four times, and M
 * is rounded down to an integer of at least 2^23. Units of weights are terms, each rounded down by
 * less than one. What the window drops is below 2^-39 of T. 2.5e-7 and 3.7e-7 are more than all
 * these: 2^-22 is 2.38e-7, 2^-23 1.19e-7, 2^-26 1.5e-8. */
SB_DET goal_range bounds_of_weights(const sb_state &whole, const sb_weights &w, int64_t vocab)
{
    const int32_t N = (int32_t)(SB_INT_MAGIC - w.magic);
    const int32_t shift = 32 * ((int32_t)whole.J - 1) + 16 - SB_BIAS - N;
    const sb_u128 T = sb_total(&whole);
    const uint64_t sum = (uint64_t)(shift >= 0 ? T << shift : shift > -128 ? T >> -shift : 0);
    const uint64_t slack = (sum >> 22) + (sum >> 26) + (uint64_t)vocab + 4;
    return { sum > slack ? sum - slack : 1, sum + slack + (sum >> 23) };
}

/* Moves the row's cut to where its filters put it. Called by a whole block of a crew, after a
 * barrier. */
template <int DTYPE>
SB_DET void cut_row_by(const row_filters &f, drawing *d, const cut_row &row, cut_room *room)
{
    const bool by_k = f.top_k > 0 && f.top_k < row.all.vocab, by_p = f.top_p < 1.0f;
    uint64_t place = 0;
    if (by_k) {
        place = find_place<DTYPE, false>(row, d->cut, row.best, f.top_k, 1.0f, {}, room);
        if (by_p) crew_barrier(row.mates); /* the old cut, and what is in staging, have been read */
        else __syncthreads();              /* the old cut has been read */
        if (threadIdx.x == 0) d->cut.place = place;
        if (by_p) __syncthreads(); /* the cut is written */
    }
    if (by_p) {
        const goal_range sum = bounds_of_weights(d->whole, d->cut.weights, row.all.vocab);
        place = find_place<DTYPE, true>(row, d->cut, row.best, f.top_k, f.top_p, sum, room);
        __syncthreads(); /* the old cut has been read */
    }
    if (!by_k && !by_p) reach_all_leaves(share_of_crew(row)); /* no pass has looked at them */
    if (threadIdx.x == 0) {
        d->cut.place = place;
        d->cut.least = sb_least_weight(f.min_p, sb_weight(row.best, &d->cut.weights));
    }
    __syncthreads(); /* the cut is complete */
}

/* Adds up what a block keeps of its leaves. Called by one warp. */
SB_DET void add_parts(kept_parts *parts, int count)
{
    const int lane = threadIdx.x % WARP;
    uint32_t ids = 0;
    sb_state s;
    merge_shared(&s, parts->states, count);
    for (int p = lane; p < count; p += WARP) ids += parts->counts[p];
    ids = __reduce_add_sync(FULL, ids);
    if (lane == 0) parts->all = s, parts->count = ids;
}

/* Finds the lane at which the sum of the lanes' shares exceeds *R, less those of all lanes before
 * it, and takes these from *R. Returns -1 if no lane does, and takes all. */
SB_DET int lane_of_draw(sb_u128 share, sb_u128 *R)
{
    const sb_u128 end = warp_prefix(share);
    const uint64_t past = __ballot_sync(FULL, *R < end);
    const int found = past ? __ffsll((long long)past) - 1 : -1, from = past ? found : WARP - 1;
    const sb_u128 before = past ? end - share : end;
    *R -= (sb_u128)__shfl_sync(FULL, (uint64_t)(before >> 64), from) << 64 |
          __shfl_sync(FULL, (uint64_t)before, from);
    return found;
}

/* Merges what the blocks of a crew keep, and draws one of their parts, of which each block has
 * `each`: d->at.item is the part's number, counted through all blocks. Called by one warp, which
 * gets the whole sum of what is kept; *count: the ids. */
SB_DET sb_state draw_part(drawing *d, const crew &mates, kept_parts *parts, int each,
                          uint32_t *count)
{
    const int lane = threadIdx.x % WARP;
    sb_state mine, s;
    make_none(&mine);
    *count = 0;
    if (lane < mates.size) {
        const kept_parts *there = in_block(mates, parts, lane);
        mine = there->all, *count = there->count;
    }
    s = mine;
    warp_merge(&s);
    *count = __reduce_add_sync(FULL, *count);
    sb_u128 R = sb_drawn(d->U, sb_total(&s));
    const int rank = lane_of_draw(sb_total_at(&mine, s.J), &R);
    const sb_state *states = in_block(mates, parts, rank)->states;
    for (int base = 0;; base += WARP) {
        if (base + lane < each) mine = states[base + lane];
        else make_none(&mine);
        const int found = lane_of_draw(sb_total_at(&mine, s.J), &R);
        if (found < 0) continue;
        if (lane == 0) d->at.item = rank * each + base + found, d->at.R = R;
        return s;
    }
}

template <int DTYPE> SB_DET void filter_block(const sb_cuda_sample_args &a)
{
    __shared__ drawing d;
    __shared__ cut_room room;
    __shared__ cut_row row;
    __shared__ sb_state shared[DRAW_WARPS];
    __shared__ kept_parts parts; /* published */
    __shared__ float largest[DRAW_WARPS];
    __shared__ kept_logits logits;
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, warps = blockDim.x / WARP;
    const crew mates = crew_of(a.crew);
    const int64_t item = blockIdx.x / (uint32_t)a.crew;
    sb_state model;

    wait_for_primary();
    if (!begin_filters(a, item, mates, &d, &row, shared, largest)) return;
    cut_row_by<DTYPE>(filters_of(a, d.number), &d, row, &room);
    if (warp == 0) {
        const kept_logits l = kept_logits_of<DTYPE>(d.cut, row.best);
        if (lane == 0) logits = l;
    }
    __syncthreads(); /* what the cut keeps is written */

    const int of_warp = mates.size > 1 ? 1 : KEPT_PARTS, each = of_warp * warps; /* parts */
    sum_cut<DTYPE>(&parts, &a, row, d.cut, logits, d.row, of_warp * warp, of_warp * (warp + 1),
                   each, room.queues[warp]);
    if (a.kept && mates.rank == 0 && threadIdx.x == 0 && row.all.last % 2) /* of the last word */
        ((uint16_t *)((uint32_t *)a.kept + d.number * kept_words(a)))[row.all.last] = 0;
    __syncthreads(); /* the block's parts are written */
    if (warp == 0) add_parts(&parts, each);
    crew_barrier(mates); /* what all blocks keep is written */
    if (mates.rank == 0) {
        merge_model(a, item, d, &model, shared);
        if (warp == 0) {
            uint32_t count;
            const sb_state s = draw_part(&d, mates, &parts, each, &count);
            if (lane == 0 && a.count) ((int32_t *)a.count)[d.number] = (int32_t)count;
            if (lane == 0) d.kept = s, d.model = model;
        }
        __syncthreads(); /* the sums are written, and the part of the draw */
        cut_row owner = row;
        owner.mates.rank = d.at.item / each;
        const part_of_row part = part_of_block(share_of_crew(owner), d.at.item % each, each);
        const row_leaves<DTYPE> leaves(row);
        draw_in_part<DTYPE>(
            a, d.number, part, d.cut, &d.at, d.kept.J, d.kept, d.model, d.row,
            [&](leaf_words<DTYPE> &x, int k) { load_cut<DTYPE>(x, leaves, k, logits, d.cut); });
    }
    if (mates.size > 1) crew_barrier(mates); /* the parts have been read */
}

/* ---- the first k -------------------------------------------------------------------------- */

/* Draws from an active row's list, of which every lane of the calling warp has its part, as it has
 * the row's sum s. */
SB_DET void draw_first(const sb_cuda_sample_args &a, int64_t item, sb_state s, place_list list,
                       list_room *room)
{
    const sb_cuda_args &in = a.in;
    const int64_t row = row_at(in, item);
    if (sb_state_is_nan(&s)) {
        write_none(a, row, ROW_NAN, threadIdx.x % WARP, WARP);
        return;
    }
    if (a.models)
        merge_pieces(&s, (const sb_state *)a.models + item * a.model_split, a.model_split);
    const sb_row constants = constants_of(in, temperature_of(in, row));
    filter_list(&list, filters_of(a, row), constants);
    draw_from_list(a, row, list, room, s, constants);
}

/* One warp per item. */
extern "C" __global__ void __launch_bounds__(32 * SB_CUDA_LIST_ROWS)
    sample_list(const __grid_constant__ sb_cuda_sample_args a)
{
    __shared__ list_room rooms[SB_CUDA_LIST_ROWS];
    const sb_cuda_args &in = a.in;
    const int64_t item = warp_item();
    const int lane = threadIdx.x % WARP;
    wait_for_primary();
    if (item >= in.work) return;
    const int32_t fate = fate_of(a, item, lane == 0);
    if (fate == ROW_UNKNOWN) return;
    const int64_t row = row_at(in, item);
    if (fate != ROW_ACTIVE) {
        write_none(a, row, fate, lane, WARP);
        return;
    }
    empty_kept(a, row, lane, WARP);
    __syncwarp(); /* the words are zero */
    draw_first(a, item, ((const sb_state *)in.states)[item],
               load_list((const uint64_t *)a.lists + item * SB_CUDA_LIST),
               &rooms[threadIdx.x / WARP]);
}

/* One block per item, which also finds the list. What an early block reads before it waits is the
 * call's, as in draw_block. */
template <int DTYPE> SB_DET void pick_block(const sb_cuda_sample_args &a)
{
    const sb_cuda_args &in = a.in;
    __shared__ pick_room room;
    __shared__ list_draw d;
    __shared__ sb_state states[PICK_WARPS];
    __shared__ pick_row row;
    __shared__ bool samples; /* the values of the draw are in range */
    const int64_t item = blockIdx.x;
    const float *mosts = (const float *)a.mosts + item * a.parts;
    if (!a.early) wait_for_primary();
    if (threadIdx.x == blockDim.x - 1 && listed_well(in, item)) {
        const int64_t number = row_at(in, item);
        row = { logits_of(in, number), number, a.parts, a.part, mosts, parts_of(a, item) };
        samples = samples_well(a, number);
        d.row = constants_of(in, temperature_of(in, number));
        if (samples) d.U = draw_bits(a, number);
    }
    wait_for_primary();
    int32_t fate = ((const sb_cuda_target *)in.targets)[item].active;
    write_keys(mosts, a.parts, &room);
    __syncthreads(); /* the row and the keys are written */
    if (fate == ROW_UNKNOWN) return;
    if (fate == ROW_ACTIVE && !samples) {
        fate = ROW_REFUSED;
        if (threadIdx.x == 0) report(in, SB_BAD_SAMPLING, row.number);
    }
    if (fate != ROW_ACTIVE) {
        write_no_token(&a, row.number, fate);
        return;
    }
    if (a.kept) empty_kept(a, row.number, threadIdx.x, blockDim.x);
    pick_first<DTYPE>(d.places, states, in, row, a.top_k, &room);
    draw_by_block(a, item, row.number, &d, states);
}

/* Compute capability 9.0: earlier GPUs have too little shared memory. */
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
#define SAMPLE_TABLE(name, DTYPE)                                                                  \
    extern "C" __global__ void __launch_bounds__(SB_CUDA_TABLE_BLOCK, 1)                           \
        sample_sum_##name##_table(const __grid_constant__ sb_cuda_sample_args a)                   \
    {                                                                                              \
        sum_by_table<DTYPE>(a);                                                                    \
    }
#else
#define SAMPLE_TABLE(name, DTYPE)                                                                  \
    extern "C" __global__ void sample_sum_##name##_table(                                          \
        const __grid_constant__ sb_cuda_sample_args)                                               \
    {                                                                                              \
    }
#endif
SAMPLE_TABLE(f16, SB_CUDA_F16)
SAMPLE_TABLE(bf16, SB_CUDA_BF16)

#define SAMPLE(name, DTYPE)                                                                        \
    extern "C" __global__ void __launch_bounds__(SB_CUDA_SUM, 6)                                   \
        sample_sum_##name(const __grid_constant__ sb_cuda_sample_args a)                           \
    {                                                                                              \
        sum_block<DTYPE>(a);                                                                       \
    }                                                                                              \
    extern "C" __global__ void __launch_bounds__(SB_CUDA_PARTS)                                    \
        sample_draw_##name(const __grid_constant__ sb_cuda_sample_args a)                          \
    {                                                                                              \
        draw_block<DTYPE>(a);                                                                      \
    }                                                                                              \
    extern "C" __global__ void __launch_bounds__(SB_CUDA_FILTER, 2)                                \
        sample_filter_##name(const __grid_constant__ sb_cuda_sample_args a)                        \
    {                                                                                              \
        filter_block<DTYPE>(a);                                                                    \
    }                                                                                              \
    extern "C" __global__ void __launch_bounds__(SB_CUDA_PICK)                                     \
        sample_pick_##name(const __grid_constant__ sb_cuda_sample_args a)                          \
    {                                                                                              \
        pick_block<DTYPE>(a);                                                                      \
    }
SAMPLE(f32, SB_CUDA_F32)
SAMPLE(f16, SB_CUDA_F16)
SAMPLE(bf16, SB_CUDA_BF16)
