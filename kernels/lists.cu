/* lists.cu - rows that keep lists of ids: their logprobs and entropies from the kept ids alone, and
 * the lists as words, for the kernels of other operations.
 *
 *   row r keeps kept_ids[kept_offsets[r]] .. kept_ids[kept_offsets[r + 1] - 1], which rise
 *
 * Shapes: kept_ids [kept_count]; kept_offsets [rows + 1]; everything else in src/cuda/args.h.
 *
 * Each thread takes single ids. Most kept ids are alone in their leaf: the leaf's sum is then the
 * one term (docs/numerics.md), which the thread adds at once. If a leaf has more kept ids, the
 * thread of the first one puts its entry into the warp's queue; a full queue gives each lane a
 * leaf. Leaves that are not ordinary, also of lone ids, go through det/leaf.h. The reduction:
 *
 *     ids -> thread's state -> warp -> block -> [work][split] states -> logprob_finish
 *
 *     logprob_<dtype>_lists, entropy_<dtype>_lists
 *                     grid work * split, blocks of a multiple of WARP threads up to 512. A row that
 *                     is not cut is finished here.
 *     logprob_gathered_lists, entropy_gathered_lists
 *                     the same of logits [kept_count], fp32, one for each entry, which
 *                     head_gather.cu has computed.
 *     lists_words     one block per item: checks the lists and writes words, and a byte for each
 *                     row that is refused or whose target is not kept.
 *
 * Invariants: only the logits of kept ids are read, each at an id in [0, V); no entry outside
 * [0, kept_count) is read. A row whose list is bad is reported and poisoned. */
#include "finish.cuh"
#include "lists.cuh"
#include "moments.cuh"
#include "piece.cuh"

/* ---- lists -------------------------------------------------------------------------------- */

/* An entry with its neighbours: -1 before the first, and behind the last an id of no leaf. */
template <class ID> struct entry {
    ID before, id, after;
};

template <class ID> SB_DET entry<ID> entry_at(const ID *ids, int count, int k)
{
    entry<ID> e = { -1, ids[k], -1 };
    if (k > 0) e.before = ids[k - 1];
    if (k + 1 < count) e.after = ids[k + 1];
    return e;
}

template <class ID> SB_DET bool is_well(const entry<ID> &e, ID vocab)
{
    return e.id > e.before && e.id >= 0 && e.id < vocab;
}

/* Whether two ids are in one leaf. -1 is in none. */
template <class ID> SB_DET bool share_leaf(ID a, ID b) { return ((a ^ b) & -(ID)SB_LEAF) == 0; }

template <class ID> SB_DET bool begins_leaf(const entry<ID> &e)
{
    return !share_leaf(e.before, e.id);
}
template <class ID> SB_DET bool ends_leaf(const entry<ID> &e) { return !share_leaf(e.id, e.after); }

/* Where the logits of a row's list lie: at their ids, in a row of logits, or at their entries, with
 * none between them. */
struct by_id {
    static constexpr bool ENTRIES = false;
    template <class ID> static __device__ __forceinline__ int64_t of(ID id, int) { return id; }
};
struct by_entry {
    static constexpr bool ENTRIES = true;
    template <class ID> static __device__ __forceinline__ int64_t of(ID, int entry)
    {
        return entry;
    }
};

/* ---- leaves ------------------------------------------------------------------------------- */

/* What a leaf that is not wide adds to the window: its place, the encoding of z0 as in leaf.cuh,
 * and its sums, 0 for nothing. m is the largest logit. */
struct state_part {
    float m;
    uint32_t z, M;
};

struct moments_part {
    float m;
    uint32_t z, M;
    int32_t U;
};

template <class THREAD> struct part_of_thread;
template <> struct part_of_thread<thread_state> {
    typedef state_part type;
};
template <> struct part_of_thread<thread_moments> {
    typedef moments_part type;
};

/* The place of a leaf whose largest logit is m. */
SB_DET uint32_t place_of(float m, const leaf_row &row)
{
    return sb_bits32(sb_fma32(m, row.c, SB_EVEN_MAGIC));
}

/* The sums of the leaf of an id that is alone in it, with logit p->m: det/leaf.h's tree gives the
 * one term (docs/numerics.md, "Lists of kept ids"). */
SB_DET void sum_lone(state_part *p, const leaf_row &row)
{
    const float z0 = sb_float(p->z);
    p->M = is_narrow(p->z) ? (uint32_t)sb_leaf_term(p->m, row.c, scaled_magic(z0)) : 0;
}

SB_DET void sum_lone(moments_part *p, const leaf_row &row)
{
    const float z0 = sb_float(p->z), v = sb_leaf_term(p->m, row.c, scaled_magic(z0));
    const float h = v * sb_fma32(p->m, row.c, SB_EVEN_MAGIC - z0);
    p->M = is_narrow(p->z) ? (uint32_t)v : 0;
    p->U = is_narrow(p->z) ? sb_nearest(h) : 0;
}

template <int DTYPE> SB_DET void sum_words(state_part *p, leaf_words<DTYPE> &x, const leaf_row &row)
{
    p->M = leaf_sum<DTYPE>(x, p->m, sb_float(p->z), row);
}

template <int DTYPE>
SB_DET void sum_words(moments_part *p, leaf_words<DTYPE> &x, const leaf_row &row)
{
    const leaf_moments sums = moments_of<DTYPE>(x, p->m, sb_float(p->z), row, [] {});
    p->M = sums.M;
    p->U = sums.U;
}

/* Moves the window up to a place that is not wide. */
SB_DET void rise_to(thread_moments *t, uint32_t z)
{
    const uint32_t j = ((z - Z_ZERO) * 2u + SB_BIAS) >> 5;
    if (j <= t->s.sum.J) return;
    sb_moments_rise(&t->s, j);
    t->base = base_of(j);
}

/* The digits below J of a place that is not above J's. */
SB_DET uint32_t digits_below(uint32_t base, uint32_t z) { return (base + DIGIT - 1 - z) / DIGIT; }

/* Adds a part whose digit is not above J. Without branches, because the lanes of a warp have leaves
 * in different digits. */
SB_DET void add_part(thread_state *t, const state_part &p)
{
    const uint32_t d = digits_below(t->base, p.z);
    /* shifts are taken modulo 32, as in add_leaf */
    const uint32_t lo = __funnelshift_l(0, p.M, 2 * p.z), hi = __funnelshift_l(p.M, 0, 2 * p.z);
    t->s.l[2] += d == 0 ? hi : 0;
    t->s.l[1] += d == 0 ? lo : d == 1 ? hi : 0;
    t->s.l[0] += d == 1 ? lo : d == 2 ? hi : 0;
}

SB_DET void add_part(thread_moments *t, const moments_part &p)
{
    const uint32_t d = digits_below(t->base, p.z), U = (uint32_t)p.U;
    const uint32_t lo = __funnelshift_l(0, p.M, 2 * p.z), hi = __funnelshift_l(p.M, 0, 2 * p.z);
    const int32_t high = (int32_t)__funnelshift_l(U, (uint32_t)(p.U >> 31), 2 * p.z);
    const int64_t e = 2 * (int64_t)(int32_t)(p.z - t->base);
    const int64_t glo = e * lo + __funnelshift_l(0, U, 2 * p.z), ghi = e * hi + high;
    t->most = fmaxf(t->most, p.m);
    t->s.sum.l[2] += d == 0 ? hi : 0;
    t->s.sum.l[1] += d == 0 ? lo : d == 1 ? hi : 0;
    t->s.sum.l[0] += d == 1 ? lo : d == 2 ? hi : 0;
    t->s.g[2] += d == 0 ? ghi : 0;
    t->s.g[1] += d == 0 ? glo : d == 1 ? ghi : 0;
    t->s.g[0] += d == 1 ? glo : d == 2 ? ghi : 0;
}

/* Bit i: id first + i is one of the ids from entry k on. first is a multiple of 16. */
template <class ID>
SB_DET uint32_t run_bits(const ID *ids, int count, int k, ID first, int64_t vocab)
{
    uint32_t bits = 0;
#pragma unroll
    for (int i = 0; i < SB_LEAF; i++)
        if (k + i < count) {
            const int64_t at = (int64_t)ids[k + i] - first;
            if (at >= 0 && at < SB_LEAF && first + at < vocab) bits |= 1u << at;
        }
    return bits;
}

/* The place of the logit of bit i of a run's bits, whose ids are first + i. */
template <class AT, class ID> SB_DET int64_t place_in_run(uint32_t bits, int i, ID first, int k)
{
    return AT::of(first + i, k + __popc(bits & ((1u << i) - 1)));
}

/* The part of the leaf that begins at entry k. A function of its own, so that lone ids' code keeps
 * its registers. */
template <int DTYPE, class PART, class AT, class ID>
static __device__ __noinline__ PART part_of_run(const ID *ids, int count, int k, const char *logits,
                                                int64_t vocab, leaf_row row)
{
    constexpr int WORDS = words_of<DTYPE>();
    const ID first = ids[k] & -(ID)SB_LEAF;
    const uint32_t bits = run_bits(ids, count, k, first, vocab);
    leaf_words<DTYPE> x;
    PART part;
#pragma unroll
    for (int i = 0; i < WORDS; i++) {
        if (DTYPE == SB_CUDA_F32) {
            x.w[i] = bits >> i & 1 ? ((const uint32_t *)logits)[place_in_run<AT>(bits, i, first, k)]
                                   : absent_word<DTYPE>();
            continue;
        }
        const uint16_t *half = (const uint16_t *)logits + first + 2 * i;
        const uint32_t low = bits >> (2 * i) & 1 ? half[0] : absent_word<DTYPE>();
        const uint32_t high = bits >> (2 * i + 1) & 1 ? half[1] : absent_word<DTYPE>();
        x.w[i] = low | high << 16;
    }
    part.m = leaf_max<DTYPE>(x);
    part.z = place_of(part.m, row);
    if (is_narrow(part.z)) sum_words<DTYPE>(&part, x, row);
    return part;
}

SB_DET void poison(sb_state *s) { sb_state_poison(s); }
SB_DET void poison(sb_moments *m) { sb_moments_poison(m); }

/* Adds the leaf that begins at entry k, of any kind, through det/leaf.h. */
template <int DTYPE, class AT, class ID, class STATE>
static __device__ __noinline__ void add_run(STATE *s, const ID *ids, int count, int k,
                                            const char *logits, int64_t vocab, sb_row row)
{
    const ID first = ids[k] & -(ID)SB_LEAF;
    const uint32_t bits = run_bits(ids, count, k, first, vocab);
    float y[SB_LEAF];
#pragma unroll
    for (int i = 0; i < SB_LEAF; i++)
        y[i] = bits >> i & 1 ? load_one<DTYPE>(logits, place_in_run<AT>(bits, i, first, k))
                             : sb_float(SB_ABSENT_BITS);
    add_any(s, y, row);
}

/* ---- a block's part of a row -------------------------------------------------------------- */

#define TRIP 8 /* ids that a thread takes at once: their logits are on their way together */

struct list_row {
    block_row of;
    id_list list;
    int32_t kept; /* the target is in the list */
    float x;      /* its logit; absent if it is not */
};

/* The entries of a warp's unfinished leaves, in the shared memory that the launch sizes. */
struct run_queue {
    int32_t entries[2 * WARP];
};
static_assert(sizeof(run_queue) == SB_CUDA_LIST_BYTES * WARP, "the launch's bytes per thread");

/* Gives each lane one of the queue's n entries from `from` on, n <= WARP, and adds their leaves: to
 * t, or to s if they are wide or poisoned. */
template <int DTYPE, class THREAD, class AT, class STATE, class ID>
SB_DET void take_runs(THREAD *t, STATE *s, const run_queue &q, int from, int n, const ID *ids,
                      const list_row &mine, int64_t vocab)
{
    typedef typename part_of_thread<THREAD>::type part;
    const leaf_row row = { mine.of.row.c, mine.of.row.k64 };
    const int lane = threadIdx.x % WARP;
    __syncwarp(); /* the entries are written */
    if (lane < n) {
        const int k = q.entries[from + lane], count = mine.list.count;
        const part p = part_of_run<DTYPE, part, AT>(ids, count, k, mine.of.logits, vocab, row);
        if (is_narrow(p.z)) {
            rise_to(t, p.z);
            add_part(t, p);
        } else if (!sb_is_absent(p.m)) {
            add_run<DTYPE, AT>(s, ids, count, k, mine.of.logits, vocab, mine.of.row);
        }
    }
    __syncwarp(); /* and read */
}

/* Sums the entries from .. to - 1 of a row's list. The block's threads stand side by side. Sets
 * mine.x and mine.kept if the target is among them. */
template <int DTYPE, class THREAD, class AT, class STATE, class ID>
SB_DET void sum_list(STATE *s, const sb_cuda_args &in, list_row &mine, run_queue &q, int from,
                     int to)
{
    const ID *ids = (const ID *)in.kept_ids + mine.list.first;
    const char *logits = mine.of.logits;
    const leaf_row row = { mine.of.row.c, mine.of.row.k64 };
    const int count = mine.list.count, lane = threadIdx.x % WARP;
    const uint64_t below = ((uint64_t)1 << lane) - 1;
    const int64_t target = mine.of.id;
    typedef typename part_of_thread<THREAD>::type part;
    THREAD t;
    STATE others; /* whose address may be taken */
    bool bad = false;
    int queued = 0;

    t.base = NO_BASE;
    begin_sum(&t, row.c);
    make_none(&others);
    for (int start = from; start < to; start += blockDim.x * TRIP) {
        entry<ID> e[TRIP];
        float x[TRIP];
        uint32_t lone = 0, runs = 0; /* bits of the trip's ids */
#pragma unroll
        for (int i = 0; i < TRIP; i++) {
            const int k = start + i * (int)blockDim.x + (int)threadIdx.x;
            e[i].before = 0, e[i].id = -1, e[i].after = 0;
            if (k < to) e[i] = entry_at<ID>(ids, count, k);
        }
#pragma unroll
        for (int i = 0; i < TRIP; i++) {
            const int k = start + i * (int)blockDim.x + (int)threadIdx.x;
            const bool well = is_well(e[i], (ID)in.vocab), begins = begins_leaf(e[i]);
            bad |= k < to && !well;
            if (well && begins && ends_leaf(e[i])) lone |= 1u << i;
            else if (well && begins) runs |= 1u << i;
            x[i] = lone >> i & 1 ? load_one<DTYPE>(logits, AT::of(e[i].id, k))
                                 : sb_float(SB_ABSENT_BITS);
            if (well && e[i].id == target) {
                mine.x = load_one<DTYPE>(logits, AT::of(target, k));
                mine.kept = 1;
            }
        }
        uint32_t top = 0; /* the highest place; of places that are not wide, the encodings rise */
#pragma unroll
        for (int i = 0; i < TRIP; i++) {
            const uint32_t z = place_of(x[i], row);
            if (is_narrow(z)) top = max(top, z);
            else if (!sb_is_absent(x[i])) runs |= 1u << i;
        }
        if (top) rise_to(&t, top);
#pragma unroll
        for (int i = 0; i < TRIP; i++) {
            part p;
            p.m = x[i];
            p.z = place_of(x[i], row);
            sum_lone(&p, row);
            if (is_narrow(p.z)) add_part(&t, p);
        }
#pragma unroll
        for (int i = 0; i < TRIP; i++) {
            const uint64_t lanes = __ballot_sync(FULL, runs >> i & 1);
            if (lanes == 0) continue;
            if (runs >> i & 1)
                q.entries[queued + __popcll(lanes & below)] = start + i * (int)blockDim.x +
                                                              (int)threadIdx.x;
            queued += __popcll(lanes);
            if (queued < WARP) continue;
            queued -= WARP;
            take_runs<DTYPE, THREAD, AT>(&t, &others, q, queued, WARP, ids, mine, in.vocab);
        }
    }
    if (queued) take_runs<DTYPE, THREAD, AT>(&t, &others, q, 0, queued, ids, mine, in.vocab);
    end_sum(&t);
    *s = t.s;
    merge_into(s, others);
    if (!bad) return;
    report(in, SB_BAD_KEPT_ID, mine.of.number);
    poison(s);
}

/* The entry of an id in a list whose ids rise; -1 if it is not there. Called by a whole warp, all
 * lanes of which get the answer. Each step reads an id for each lane. */
template <class ID> SB_DET int entry_of(const ID *ids, int count, int64_t id)
{
    int low = 0, high = count; /* if it is there, its entry is in [low, high) */
    const int lane = threadIdx.x % WARP;
    while (high - low > WARP) {
        const int step = (high - low + WARP - 1) / WARP, k = low + lane * step;
        const uint64_t reached = __ballot_sync(FULL, k < high && ids[k] <= id);
        const int last = __popcll(reached) - 1; /* the last lane whose id is not above */
        if (last < 0) return -1;
        low += last * step;
        high = min(low + step, high);
    }
    const uint64_t found = __ballot_sync(FULL, lane < high - low && ids[low + lane] == id);
    return found ? low + __ffsll((long long)found) - 1 : -1;
}

SB_DET int entry_of_target(const sb_cuda_args &in, const list_row &mine)
{
    if (in.kept_ids_dtype == SB_CUDA_I64)
        return entry_of((const int64_t *)in.kept_ids + mine.list.first, mine.list.count,
                        mine.of.id);
    return entry_of((const int32_t *)in.kept_ids + mine.list.first, mine.list.count, mine.of.id);
}

/* Sets a block's row and list. Called by one thread. The offsets are on their way before it is
 * known whether the row is active. An ignored row's offsets are looked at, too. */
SB_DET void set_list_row(const sb_cuda_args &in, list_row *mine, int64_t item, bool writes)
{
    mine->list.count = 0;
    mine->kept = 0;
    mine->x = sb_float(SB_ABSENT_BITS);
    if (!listed_well(in, item)) {
        set_block_row(in, &mine->of, item, writes);
        return;
    }
    const int64_t row = row_at(in, item);
    const list_bounds bounds = bounds_of(in, row);
    set_block_row(in, &mine->of, item, writes);
    mine->list = list_of(in, row, bounds);
    if (writes && in.strays) ((uint8_t *)in.strays)[row] = 0;
    if (writes && !mine->list.well) report(in, SB_BAD_KEPT_OFFSETS, row);
}

template <int DTYPE, class THREAD, class STATE, class AT = by_id>
SB_DET void list_block(const sb_cuda_args &in)
{
    __shared__ list_row mine;
    __shared__ STATE shared[PIECE_WARPS];
    const int64_t item = blockIdx.x / (uint32_t)in.split; /* a grid has fewer than 2^31 blocks */
    const int piece = in.split == 1 ? 0 : (int)(blockIdx.x % (uint32_t)in.split);
    run_queue &q = ((run_queue *)staging)[threadIdx.x / WARP];
    STATE s;

    wait_for_primary();
    if (threadIdx.x == 0) {
        set_list_row(in, &mine, item, piece == 0);
        if (AT::ENTRIES)
            mine.of.logits = (const char *)in.logits + mine.list.first * size_of<DTYPE>();
    }
    __syncthreads(); /* mine is written */
    if (mine.of.done) {
        if (threadIdx.x != 0 || in.split == 1) return;
        make_none(&((STATE *)in.states)[blockIdx.x]);
        if (piece == 0) write_target(in, item, 0.0f, 0);
        return;
    }
    const int each = (mine.list.count + in.split - 1) / in.split;
    const int from = min(piece * each, mine.list.count), to = min(from + each, mine.list.count);
    if (in.kept_ids_dtype == SB_CUDA_I64)
        sum_list<DTYPE, THREAD, AT, STATE, int64_t>(&s, in, mine, q, from, to);
    else sum_list<DTYPE, THREAD, AT, STATE, int32_t>(&s, in, mine, q, from, to);
    begin_dependents();
    if (!mine.list.well) poison(&s);
    if (blockDim.x == WARP) {
        warp_merge(&s);
        __syncwarp(); /* the target's logit is written */
    } else {
        block_merge(&s, shared);
    }
    if (threadIdx.x >= WARP) return;
    sum_in(&s)->c = sb_bits32(mine.of.row.c);
    bool kept = mine.kept;
    float x = mine.x;
    if (in.split > 1) {
        if (threadIdx.x == 0) ((STATE *)in.states)[blockIdx.x] = s;
        if (piece != 0) return;
        const int k = entry_of_target(in, mine);
        kept = k >= 0;
        x = kept ? load_one<DTYPE>(mine.of.logits, AT::of(mine.of.id, k))
                 : sb_float(SB_ABSENT_BITS);
        if (threadIdx.x == 0) write_target(in, item, x, 1);
    } else {
        finish_row(in, mine.of.number, s, x, mine.of.row);
    }
    if (threadIdx.x == 0 && in.strays) ((uint8_t *)in.strays)[mine.of.number] = !kept;
}

#define LISTS(name, DTYPE)                                                                         \
    extern "C" __global__ void __launch_bounds__(512, 2)                                           \
        logprob_##name##_lists(const __grid_constant__ sb_cuda_args in)                            \
    {                                                                                              \
        list_block<DTYPE, thread_state, sb_state>(in);                                             \
    }                                                                                              \
    extern "C" __global__ void __launch_bounds__(512, 1)                                           \
        entropy_##name##_lists(const __grid_constant__ sb_cuda_args in)                            \
    {                                                                                              \
        list_block<DTYPE, thread_moments, sb_moments>(in);                                         \
    }
LISTS(f32, SB_CUDA_F32)
LISTS(f16, SB_CUDA_F16)
LISTS(bf16, SB_CUDA_BF16)

extern "C" __global__ void __launch_bounds__(512, 2)
    logprob_gathered_lists(const __grid_constant__ sb_cuda_args in)
{
    list_block<SB_CUDA_F32, thread_state, sb_state, by_entry>(in);
}

extern "C" __global__ void __launch_bounds__(512, 1)
    entropy_gathered_lists(const __grid_constant__ sb_cuda_args in)
{
    list_block<SB_CUDA_F32, thread_moments, sb_moments, by_entry>(in);
}

/* ---- words -------------------------------------------------------------------------------- */

/* Whether a list is bad. Sets *kept if it has the target. Called by a whole block. */
template <class ID>
SB_DET bool check_list(const ID *ids, int count, int64_t vocab, int64_t target, int32_t *kept)
{
    bool bad = false;
    for (int k = threadIdx.x; k < count; k += blockDim.x) {
        const entry<ID> e = entry_at<ID>(ids, count, k);
        bad |= !is_well(e, (ID)vocab);
        if (e.id == target) *kept = 1;
    }
    return bad;
}

/* Writes the words of a list whose ids rise: the thread of each word's first id writes it. */
template <class ID> SB_DET void write_words(uint32_t *words, const ID *ids, int count)
{
    for (int k = threadIdx.x; k < count; k += blockDim.x) {
        const ID word = ids[k] / 32;
        uint32_t bits = 0;
        if (k > 0 && ids[k - 1] / 32 == word) continue;
        for (int i = k; i < count && ids[i] / 32 == word; i++) bits |= 1u << (ids[i] % 32);
        words[word] = bits;
    }
}

struct words_row {
    any_row of;
    id_list list;
    int64_t target;
    int32_t bad, kept;
};

extern "C" __global__ void __launch_bounds__(256)
    lists_words(const __grid_constant__ sb_cuda_lists_args a)
{
    __shared__ words_row mine;
    const sb_cuda_args &in = a.in;
    const int64_t item = blockIdx.x;
    const int words = (int)((in.vocab + 31) / 32);
    if (threadIdx.x == 0) {
        set_any_row(in, &mine.of, item, false);
        mine.bad = mine.kept = 0;
        mine.target = -1;
        if (mine.of.fate != ROW_UNKNOWN)
            mine.list = list_of(in, mine.of.number, bounds_of(in, mine.of.number), a.of_q);
        if (mine.of.fate == ROW_ACTIVE && in.width == 1)
            mine.target = int_at(in.ids, in.ids_dtype, mine.of.number);
    }
    __syncthreads(); /* mine is written */
    if (mine.of.fate == ROW_UNKNOWN) return;
    const bool looks = mine.of.fate == ROW_ACTIVE && mine.list.well;
    const int count = mine.list.count;
    const int32_t *narrow = (const int32_t *)in.kept_ids + mine.list.first;
    const int64_t *wide = (const int64_t *)in.kept_ids + mine.list.first;
    const bool is_wide = in.kept_ids_dtype == SB_CUDA_I64;
    uint32_t *to = (uint32_t *)in.kept + mine.of.number * in.kept_stride;
    bool bad = !mine.list.well;
    if (looks)
        bad = is_wide ? check_list(wide, count, in.vocab, mine.target, &mine.kept)
                      : check_list(narrow, count, in.vocab, mine.target, &mine.kept);
    if (bad) mine.bad = 1;
    if (looks && in.kept)
        for (int i = threadIdx.x; i < words; i += blockDim.x) to[i] = 0;
    __syncthreads(); /* mine.bad is known, and the words are 0 */
    if (looks && in.kept && !mine.bad) {
        if (is_wide) write_words(to, wide, count);
        else write_words(to, narrow, count);
    }
    if (threadIdx.x != 0) return;
    if (mine.bad)
        report(in,
               (mine.list.well ? SB_BAD_KEPT_ID : SB_BAD_KEPT_OFFSETS) +
                   2 * (a.of_q & SB_LISTS_OF_Q),
               mine.of.number);
    ((uint8_t *)a.refused)[mine.of.number] = (uint8_t)mine.bad;
    if (in.strays) ((uint8_t *)in.strays)[mine.of.number] = looks && !mine.kept;
}
