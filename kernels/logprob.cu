/* logprob.cu - token logprob and lse from logits.
 *
 *   token[r] = ln p(id_r), as docs/numerics.md defines it
 *
 * Shapes: logits [B, T, V] or [N, V], fp32, fp16 or bf16, any alignment; everything else in
 * src/cuda_args.h.
 *
 * The reduction. A thread takes every blockDim-th leaf (16 ids) of its piece of a row into a state
 * of exact integers; states merge by integer sums:
 *
 *     leaves -> thread's state -> warp (redux) -> block (shared) -> [pieces] -> finish
 *
 * No order shows in the result, so the launch is free:
 *
 *     logprob_<dtype>            grid work * split, blocks of a multiple of 32 threads up to 512.
 *                                split 1: finishes rows itself. Else writes states [work][split]
 *                                and targets [work].
 *     logprob_<dtype>_cluster    the same grid in clusters of split blocks, 2 .. 16; finishes rows
 *                                itself. Compute capability 9.0.
 *     logprob_finish             a warp an item; grid covers work * 32 threads.
 *     sequence_sums              a warp a sequence; grid covers batch * 32 threads.
 *
 * The hot loop keeps a leaf's place in the window as the encoding of z0 = fma(m, c, 1.5 * 2^24),
 * which is 4bc00000 + A / 2: one subtraction tells digit and shift. Terms are computed 2^24 times
 * as large, so that the tree's sum is M itself. Neither changes a rounding. What is not ordinary
 * (a wide leaf, NaN, +inf) is left for a second loop through det/leaf.h. */
#include "common.cuh"

/* ---- logits of a leaf --------------------------------------------------------------------- */

template <int DTYPE> struct leaf_words; /* 16 logits as they lie in memory */
template <> struct leaf_words<SB_CUDA_F32> {
    uint32_t w[16];
};
template <> struct leaf_words<SB_CUDA_F16> {
    uint32_t w[8];
};
template <> struct leaf_words<SB_CUDA_BF16> {
    uint32_t w[8];
};

template <int DTYPE> SB_DET float unpack(const leaf_words<DTYPE> &x, int i)
{
    if (DTYPE == SB_CUDA_F32) return sb_float(x.w[i]);
    uint32_t w = x.w[i / 2];
    if (DTYPE == SB_CUDA_BF16) return sb_float(i & 1 ? w & 0xffff0000u : w << 16);
    float f;
    uint16_t half = (uint16_t)(i & 1 ? w >> 16 : w);
    asm("cvt.f32.f16 %0, %1;" : "=f"(f) : "h"(half)); /* exact */
    return f;
}

/* An absent logit, as it is stored. */
template <int DTYPE> SB_DET uint32_t absent_word()
{
    return DTYPE == SB_CUDA_F32 ? 0xff800000u : DTYPE == SB_CUDA_F16 ? 0xfc00u : 0xff80u;
}

/* Through L1: a lane's two loads share a 32-byte sector, and unaligned leaves share chunks. */
SB_DET uint4 load16(const char *p)
{
    uint4 v;
    asm volatile("ld.global.nc.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "l"(p));
    return v;
}

/* The 16 logits at p. SHIFT: p's distance in bytes from the 16-byte boundary below it; that
 * boundary's chunk and every chunk read holds at least one of the logits. */
template <int DTYPE, int SHIFT> SB_DET void load_leaf(leaf_words<DTYPE> &x, const char *p)
{
    constexpr int WORDS = DTYPE == SB_CUDA_F32 ? 16 : 8;
    if (SHIFT == 0) {
#pragma unroll
        for (int k = 0; k < WORDS / 4; k++) {
            uint4 v = load16(p + 16 * k);
            x.w[4 * k] = v.x, x.w[4 * k + 1] = v.y, x.w[4 * k + 2] = v.z, x.w[4 * k + 3] = v.w;
        }
    } else {
        uint32_t raw[WORDS + 4];
#pragma unroll
        for (int k = 0; k < WORDS / 4 + 1; k++) {
            uint4 v = load16(p - SHIFT + 16 * k);
            raw[4 * k] = v.x, raw[4 * k + 1] = v.y, raw[4 * k + 2] = v.z, raw[4 * k + 3] = v.w;
        }
#pragma unroll
        for (int k = 0; k < WORDS; k++) {
            if (SHIFT % 4 == 0) x.w[k] = raw[k + SHIFT / 4];
            else x.w[k] = __byte_perm(raw[k + SHIFT / 4], raw[k + SHIFT / 4 + 1], 0x5432);
        }
    }
}

/* Staging: a thread's next leaf is on its way to shared memory while it works on the one before:
 * two slots a thread, its own. A leaf's 16-byte chunks lie blockDim chunks apart, so that a warp's
 * accesses meet no bank twice. Only for 16-bit logits that are aligned: more chunks a leaf, and
 * L1, through which the two halves of a 32-byte sector are read, is the limit (measured). */
extern __shared__ uint4 staging[];

SB_DET uint32_t staging_slot()
{
    return (uint32_t)__cvta_generic_to_shared(staging) + threadIdx.x * 16;
}

/* Begins to copy the leaf at p, 16-byte aligned. */
template <int BYTES> SB_DET void fetch_leaf(uint32_t slot, const char *p)
{
#pragma unroll
    for (int i = 0; i < BYTES / 16; i++)
        asm volatile("cp.async.ca.shared.global [%0], [%1], 16;"
                     :
                     : "r"(slot + i * blockDim.x * 16), "l"(p + 16 * i)
                     : "memory");
    asm volatile("cp.async.commit_group;" : : : "memory");
}

/* For the older of two leaves; more: there are two. */
SB_DET void wait_for_leaf(bool more)
{
    if (more) asm volatile("cp.async.wait_group 1;" : : : "memory");
    else asm volatile("cp.async.wait_group 0;" : : : "memory");
}

template <int DTYPE> SB_DET void load_staged(leaf_words<DTYPE> &x, uint32_t slot)
{
#pragma unroll
    for (int k = 0; k < (DTYPE == SB_CUDA_F32 ? 4 : 2); k++)
        asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
                     : "=r"(x.w[4 * k]), "=r"(x.w[4 * k + 1]), "=r"(x.w[4 * k + 2]),
                       "=r"(x.w[4 * k + 3])
                     : "r"(slot + k * blockDim.x * 16)
                     : "memory");
}

/* The leaf at p of which only the first n logits exist. */
template <int DTYPE> SB_DET void load_part(leaf_words<DTYPE> &x, const char *p, int64_t n)
{
    if (DTYPE == SB_CUDA_F32) {
#pragma unroll
        for (int i = 0; i < 16; i++)
            x.w[i] = i < n ? ((const uint32_t *)p)[i] : absent_word<DTYPE>();
    } else {
#pragma unroll
        for (int i = 0; i < 8; i++) {
            const uint16_t *h = (const uint16_t *)p;
            uint32_t a = 2 * i < n ? h[2 * i] : absent_word<DTYPE>();
            uint32_t b = 2 * i + 1 < n ? h[2 * i + 1] : absent_word<DTYPE>();
            x.w[i] = a | b << 16;
        }
    }
}

/* Programmatic dependent launch: logprob_finish may be set up while the blocks before it still
 * run; it waits for their stores. */
SB_DET void begin_dependents()
{
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;");
#endif
}

SB_DET void wait_for_primary()
{
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" : : : "memory");
#endif
}

SB_DET void prefetch(const char *p) { asm volatile("prefetch.global.L2 [%0];" : : "l"(p)); }

/* ---- a leaf, the hot way ------------------------------------------------------------------ */

SB_DET float max_nan(float a, float b)
{
    float m;
    asm("max.NaN.f32 %0, %1, %2;" : "=f"(m) : "f"(a), "f"(b));
    return m;
}

SB_DET uint32_t max_nan_pair_bf16(uint32_t a, uint32_t b)
{
    uint32_t m;
    asm("max.NaN.bf16x2 %0, %1, %2;" : "=r"(m) : "r"(a), "r"(b));
    return m;
}

SB_DET uint32_t max_nan_pair_f16(uint32_t a, uint32_t b)
{
    uint32_t m;
    asm("max.NaN.f16x2 %0, %1, %2;" : "=r"(m) : "r"(a), "r"(b));
    return m;
}

/* The largest logit; NaN if any is. */
template <int DTYPE> SB_DET float leaf_max(const leaf_words<DTYPE> &x)
{
    if (DTYPE == SB_CUDA_F32) {
        float m = sb_float(x.w[0]);
#pragma unroll
        for (int i = 1; i < 16; i++) m = max_nan(m, sb_float(x.w[i]));
        return m;
    }
    uint32_t m = x.w[0];
#pragma unroll
    for (int i = 1; i < 8; i++)
        m = DTYPE == SB_CUDA_BF16 ? max_nan_pair_bf16(m, x.w[i]) : max_nan_pair_f16(m, x.w[i]);
    leaf_words<DTYPE> pair;
    pair.w[0] = m;
    return max_nan(unpack<DTYPE>(pair, 0), unpack<DTYPE>(pair, 1));
}

/* z0 of a leaf that is not wide: Z_ZERO + A / 2 with |A| < 4096. */
#define Z_ZERO 0x4bc00000u
SB_DET bool is_narrow(uint32_t z0) { return z0 - (Z_ZERO - 2047u) < 4095u; }

/* What the hot loop needs of a row's constants. */
struct leaf_row {
    float c, k64;
};

/* M of a leaf that is not wide, from its largest logit m and z0 = fma(m, c, SB_EVEN_MAGIC). */
template <int DTYPE>
SB_DET uint32_t leaf_sum(leaf_words<DTYPE> &x, float m, float z0, const leaf_row &row)
{
    /* SB_INT_MAGIC - A + 24, exactly: terms come out 2^24 times as large */
    const float magic = (SB_INT_MAGIC + 24.0f + SB_EVEN_MAGIC) - z0;
    const float thr = sb_bf16_floor(m - row.k64);
    float v[16];

    if (DTYPE == SB_CUDA_BF16) { /* thr is a bf16: pairs are clamped as they lie */
        uint32_t pair = __byte_perm(sb_bits32(thr), 0, 0x3232);
#pragma unroll
        for (int i = 0; i < 8; i++) x.w[i] = max_nan_pair_bf16(x.w[i], pair);
    }
#pragma unroll
    for (int i = 0; i < 16; i++) {
        float y = unpack<DTYPE>(x, i);
        if (DTYPE != SB_CUDA_BF16) y = fmaxf(y, thr);
        v[i] = sb_leaf_term(y, row.c, magic);
    }
    return (uint32_t)sb_leaf_tree(v);
}

/* A thread's sum. base: the encoding of z0 at the start of digit J, so that one subtraction gives
 * a leaf's place; 0 while no leaf may go by it: nothing yet, or a window that touches wide leaves'
 * octaves. */
struct thread_state {
    uint32_t base;
    sb_state s;
};

#define DIGIT 16u /* steps of z0's encoding in a digit: A / 2 */

/* Moves the window up to the digit of z, if that is above it. */
SB_DET void rise_to(thread_state *t, uint32_t z)
{
    uint32_t j = ((z - Z_ZERO) * 2u + SB_BIAS) >> 5;
    if (j <= t->s.J) return;
    sb_state_rise(&t->s, j);
    t->base = j > SB_BIAS / 32 - 127 ? Z_ZERO + (j - SB_BIAS / 32) * DIGIT : 0;
}

/* One leaf into a thread's state. left: set if it must go through the second loop. */
template <int DTYPE>
SB_DET void add_leaf(thread_state *t, leaf_words<DTYPE> &x, const leaf_row &row, bool *left)
{
    float m = leaf_max<DTYPE>(x);
    float z0 = sb_fma32(m, row.c, SB_EVEN_MAGIC);
    uint32_t z = sb_bits32(z0);
    if (z - t->base + DIGIT >= 2 * DIGIT) { /* not in digits J - 1 and J */
        if (!is_narrow(z)) {
            if (!sb_is_absent(m)) *left = true;
            return;
        }
        rise_to(t, z);
    }
    uint32_t M = leaf_sum<DTYPE>(x, m, z0, row);
    uint32_t u = z - t->base, shift = 2 * u; /* the shifts below take it modulo 32 */
    uint32_t lo = M << (shift & 31), hi = __funnelshift_l(M, 0, shift);
    if (u < DIGIT) {
        t->s.l[1] += lo;
        t->s.l[2] += hi;
    } else if (u + DIGIT < DIGIT) {
        t->s.l[0] += lo;
        t->s.l[1] += hi;
    } else { /* digit J - 2 or below, or no base */
        sb_leaf leaf;
        leaf.A = (int32_t)(z - Z_ZERO) * 2;
        leaf.M = M;
        sb_state_add(&t->s, &leaf);
    }
}

/* A thread's part of a row: leaves first + threadIdx, + blockDim .. below last. */
struct part_of_row {
    const char *logits;
    int64_t vocab;
    int32_t first, last; /* V <= 2^20: leaves fit */
};

/* The second loop: what the first one left, through det/leaf.h. Apart, so that its registers are
 * not the first one's. */
template <int DTYPE>
static __device__ __noinline__ void add_left(sb_state *s, part_of_row part, float c, float k64,
                                             float lim)
{
    constexpr int BYTES = SB_LEAF * (DTYPE == SB_CUDA_F32 ? 4 : 2);
    sb_row row;
    row.c = c, row.k64 = k64, row.lim = lim, row.kappa = 0;
    for (int k = part.first + threadIdx.x; k < part.last; k += blockDim.x) {
        leaf_words<DTYPE> x;
        sb_leaf leaf;
        float y[SB_LEAF];
        load_part<DTYPE>(x, part.logits + (int64_t)k * BYTES, part.vocab - (int64_t)k * SB_LEAF);
        if (is_narrow(sb_bits32(sb_fma32(leaf_max<DTYPE>(x), c, SB_EVEN_MAGIC)))) continue;
        for (int i = 0; i < SB_LEAF; i++) y[i] = unpack<DTYPE>(x, i);
        switch (sb_leaf_of(&leaf, y, &row)) {
        case SB_LEAF_PRESENT: sb_state_add(s, &leaf); break;
        case SB_LEAF_POISON: sb_state_poison(s); break;
        default: break;
        }
    }
}

/* The first loop. True: it left something. */
template <int DTYPE, int SHIFT>
SB_DET bool add_leaves(thread_state *t, const part_of_row &part, const leaf_row &row)
{
    constexpr int BYTES = SB_LEAF * (DTYPE == SB_CUDA_F32 ? 4 : 2);
    constexpr int SIZE = BYTES / SB_LEAF;
    /* whole leaves: all ids present, and with SHIFT also the rest of the last chunk; the chunk
     * below a shifted row's first leaf belongs to what lies before the row */
    const int whole = (int)((part.vocab - (SHIFT ? (16 - SHIFT) / SIZE : 0)) / SB_LEAF);
    const int begin = SHIFT ? 1 : 0;
    const int hot = part.last < whole ? part.last : whole;
    int k = part.first + threadIdx.x;
    bool left = false;
    leaf_words<DTYPE> x;
    const char *p = part.logits + (int64_t)k * BYTES;

    if (part.last - part.first >
        blockDim.x) { /* else one trip, below, in which no leaf waits for others */
        if (k < begin && k < part.last) {
            load_part<DTYPE>(x, p, part.vocab);
            add_leaf<DTYPE>(t, x, row, &left);
            k += blockDim.x, p += blockDim.x * BYTES;
        }
        constexpr bool STAGED = DTYPE != SB_CUDA_F32 && SHIFT == 0;
        if (STAGED && k < hot) {
            const uint32_t first = staging_slot(), both = 2 * first + blockDim.x * BYTES;
            uint32_t slot = first;
            bool more = true;
            fetch_leaf<BYTES>(slot, p);
            while (more) {
                k += blockDim.x, p += blockDim.x * BYTES;
                more = k < hot;
                if (more) fetch_leaf<BYTES>(both - slot, p);
                wait_for_leaf(more);
                load_staged<DTYPE>(x, slot);
                add_leaf<DTYPE>(t, x, row, &left);
                slot = both - slot;
            }
        }
        for (; !STAGED && k < hot; k += blockDim.x, p += blockDim.x * BYTES) {
            load_leaf<DTYPE, SHIFT>(x, p);
            add_leaf<DTYPE>(t, x, row, &left);
        }
    }
    for (; k < part.last; k += blockDim.x, p += blockDim.x * BYTES) {
        if (k >= begin && k < whole) load_leaf<DTYPE, SHIFT>(x, p);
        else load_part<DTYPE>(x, p, part.vocab - (int64_t)k * SB_LEAF);
        add_leaf<DTYPE>(t, x, row, &left);
    }
    return left;
}

template <int DTYPE>
SB_DET bool add_row(thread_state *t, const part_of_row &part, const leaf_row &row)
{
    constexpr bool HALVES = DTYPE != SB_CUDA_F32;
    switch ((uint32_t)(uint64_t)part.logits & 15) {
    case 0: return add_leaves<DTYPE, 0>(t, part, row);
    case 4: return add_leaves<DTYPE, 4>(t, part, row);
    case 8: return add_leaves<DTYPE, 8>(t, part, row);
    case 12: return add_leaves<DTYPE, 12>(t, part, row);
    case 2: return HALVES && add_leaves < DTYPE, HALVES ? 2 : 0 > (t, part, row);
    case 6: return HALVES && add_leaves < DTYPE, HALVES ? 6 : 0 > (t, part, row);
    case 10: return HALVES && add_leaves < DTYPE, HALVES ? 10 : 0 > (t, part, row);
    default: return HALVES && add_leaves < DTYPE, HALVES ? 14 : 0 > (t, part, row);
    }
}

/* ---- finish ------------------------------------------------------------------------------- */

/* By the first two lanes of a warp: lane 0 takes the sum's logarithm, lane 1 the target's, at the
 * same time; lane 0 writes. x: the target's logit. */
SB_DET void finish_row(const sb_cuda_args &in, int64_t r, const sb_state &s, float x,
                       const sb_row &row)
{
    int lane = threadIdx.x % WARP;
    bool nan = sb_state_is_nan(&s), absent = sb_is_absent(x);
    sb_mantissa part;
    sb_lg mine, target;

    part.m = 0;
    part.e = 0;
    if (!nan && lane == 0) part = sb_sum_mantissa(&s);
    if (!nan && lane == 1 && !absent) part = sb_target_mantissa(x, &row);
    mine = sb_log2_parts(part.m, part.e);
    target.e = __shfl_sync(FULL, mine.e, 1);
    target.f = __shfl_sync(FULL, mine.f, 1);
    if (lane != 0) return;
    if (in.tokens) {
        float lp = nan      ? sb_float(SB_NAN_BITS)
                   : absent ? sb_float(0xff800000u)
                            : sb_logprob_of(target, mine, &row);
        ((float *)in.tokens)[r] = lp;
    }
    if (in.lse) ((float *)in.lse)[r] = nan ? sb_float(SB_NAN_BITS) : sb_lse_of(mine, &row);
}

/* One number for a row that has no sum: ignored (0) or refused (NaN). */
SB_DET void write_row(const sb_cuda_args &in, int64_t r, float x)
{
    if (in.tokens) ((float *)in.tokens)[r] = x;
    if (in.lse) ((float *)in.lse)[r] = x;
}

/* Tells the host. Every writer's report is a whole one: 8 bytes in one store; the last one stays.
 */
SB_DET void report(const sb_cuda_args &in, int64_t kind, int64_t index)
{
    *(volatile int64_t *)in.bad = kind << SB_BAD_SHIFT | (index + 1);
}

/* For logprob_finish: the target's logit, and whether there is anything to finish. */
SB_DET void write_target(const sb_cuda_args &in, int64_t item, float x, int32_t active)
{
    sb_cuda_target target = { x, active };
    ((sb_cuda_target *)in.targets)[item] = target;
}

/* What a row is to a block; done: nothing is left to sum. One thread writes and reports. */
struct visit {
    row_of_call r;
    int64_t number;
    bool done;
};

SB_DET visit visit_row(const sb_cuda_args &in, int64_t item, bool writes)
{
    visit v;
    v.done = true;
    if (in.simple) { /* the common case, short; a row that is not active goes the long way */
        v.number = row_at(in, item);
        v.r.id = int_at(in.ids, in.ids_dtype, v.number);
        v.r.logits = (const char *)in.logits + v.number * in.row_stride * in.itemsize;
        v.r.tau = 1.0f;
        v.done = v.r.id == in.ignore_index || (uint64_t)v.r.id >= (uint64_t)in.vocab;
        if (!v.done) return v;
    }
    if (!listed_well(in, item)) {
        if (writes) report(in, SB_BAD_ROW_LIST, item);
        return v;
    }
    v.number = row_at(in, item);
    v.r = resolve(in, v.number);
    if (!v.r.logits) {
        if (writes) write_row(in, v.number, 0.0f);
    } else if (v.r.bad) {
        if (writes) {
            bool id = v.r.id < 0 || v.r.id >= in.vocab;
            write_row(in, v.number, sb_float(SB_NAN_BITS));
            report(in, id ? SB_BAD_ID : SB_BAD_TEMPERATURE, v.number);
        }
    } else {
        v.done = false;
    }
    return v;
}

template <int DTYPE> SB_DET float load_one(const char *logits, int64_t id)
{
    if (DTYPE == SB_CUDA_F32) return ((const float *)logits)[id];
    leaf_words<DTYPE> x;
    x.w[0] = ((const uint16_t *)logits)[id];
    return unpack<DTYPE>(x, 0);
}

SB_DET sb_row constants_of(const sb_cuda_args &in, float tau)
{
    return in.temperatures ? sb_row_of(tau) : in.row;
}

/* What a block's first thread finds out about its row, for all of them: kept in shared memory, so
 * that no thread holds it in registers through the hot loop. */
struct block_row {
    sb_row row;
    const char *logits;
    int64_t number, id;
    int done;
};

/* The aligned 32-bit word that holds the logit at p, into shared memory, while other work goes on.
 * alone: the word's other half is not this row's, and is not read. */
SB_DET void fetch_word(uint32_t *shared, const char *p, bool alone)
{
    if (alone) {
        *shared = *(const uint16_t *)p * 0x10001u;
        return;
    }
    uint32_t to = (uint32_t)__cvta_generic_to_shared(shared);
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4;"
                 :
                 : "r"(to), "l"((uint64_t)p & ~(uint64_t)3)
                 : "memory");
}

template <int DTYPE> SB_DET float word_value(uint32_t word, const char *p)
{
    leaf_words<DTYPE> x;
    x.w[0] = word;
    return unpack<DTYPE>(x, DTYPE == SB_CUDA_F32 ? 0 : (int)((uint64_t)p >> 1 & 1));
}

/* By one thread. writes: whether it also writes what a row that is done gets. */
SB_DET void set_block_row(const sb_cuda_args &in, block_row *mine, bool writes)
{
    int64_t item = in.split == 1 ? blockIdx.x : blockIdx.x / in.split;
    visit v = visit_row(in, item, writes);
    mine->done = v.done;
    if (v.done) return;
    mine->row = constants_of(in, v.r.tau);
    mine->logits = v.r.logits;
    mine->number = v.number;
    mine->id = v.r.id;
}

/* Begins to fetch the target's logit. */
template <int DTYPE> SB_DET void fetch_target(uint32_t *word, const block_row &mine, int64_t vocab)
{
    constexpr int SIZE = DTYPE == SB_CUDA_F32 ? 4 : 2;
    const char *p = mine.logits + mine.id * SIZE;
    int64_t other = mine.id + ((uint64_t)p & 2 ? -1 : 1);
    fetch_word(word, p, SIZE == 2 && (other < 0 || other >= vocab));
}

/* A thread's leaves of a part, both loops. */
template <int DTYPE>
SB_DET void sum_part(thread_state *t, const part_of_row &part, const sb_row &row)
{
    const leaf_row constants = { row.c, row.k64 };
    t->base = 0;
    sb_state_init(&t->s, row.c);
    if (add_row<DTYPE>(t, part, constants)) {
        sb_state s = t->s;
        add_left<DTYPE>(&s, part, row.c, row.k64, row.lim);
        t->s = s;
    }
}

template <int DTYPE> SB_DET void logprob_block(const sb_cuda_args &in)
{
    constexpr int SIZE = DTYPE == SB_CUDA_F32 ? 4 : 2;
    __shared__ block_row mine;
    __shared__ sb_state shared[32];
    __shared__ uint32_t word; /* that holds the target's logit */
    const int leaves = (int)((in.vocab + SB_LEAF - 1) / SB_LEAF);
    const int piece = in.split == 1 ? 0 : (int)(blockIdx.x % in.split);
    part_of_row part;
    thread_state t;

    begin_dependents();
    if (threadIdx.x == WARP && in.ahead && blockIdx.x + in.ahead < in.work && !in.row_list)
        prefetch((const char *)in.ids +
                 row_at(in, blockIdx.x + in.ahead) * (in.ids_dtype == SB_CUDA_I64 ? 8 : 4));
    if (threadIdx.x == 0) set_block_row(in, &mine, piece == 0);
    __syncthreads(); /* mine is written */
    if (mine.done) {
        if (in.split != 1 && threadIdx.x == 0) { /* logprob_finish reads before it knows */
            sb_state_init(&((sb_state *)in.states)[blockIdx.x], 0);
            if (piece == 0) write_target(in, blockIdx.x / in.split, 0.0f, 0);
        }
        return;
    }

    part.logits = mine.logits;
    part.vocab = in.vocab;
    part.first = (int)(piece * in.piece);
    part.last = min(part.first + (int)in.piece, leaves);
    const bool owner = mine.id / SB_LEAF >= part.first && mine.id / SB_LEAF < part.last;
    if (threadIdx.x == 0 && owner) fetch_target<DTYPE>(&word, mine, in.vocab);
    sum_part<DTYPE>(&t, part, mine.row);
    if (threadIdx.x == 0) asm volatile("cp.async.wait_all;" : : : "memory");
    block_merge(&t.s, shared);
    if (threadIdx.x >= WARP) return;
    const float x = owner ? word_value<DTYPE>(word, mine.logits + mine.id * SIZE) : 0.0f;
    if (in.split == 1) {
        finish_row(in, mine.number, t.s, x, mine.row);
    } else if (threadIdx.x == 0) {
        ((sb_state *)in.states)[blockIdx.x] = t.s;
        if (owner) write_target(in, blockIdx.x / in.split, x, 1);
    }
}

#define MAX_CLUSTER 16

/* The same for few rows: the pieces of a row are the blocks of a cluster, and its first block
 * merges their warps' states and finishes, so that one launch is enough. */
template <int DTYPE> SB_DET void logprob_cluster(const sb_cuda_args &in)
{
#if __CUDA_ARCH__ >= 900
    constexpr int SIZE = DTYPE == SB_CUDA_F32 ? 4 : 2;
    __shared__ block_row mine;
    __shared__ sb_state shared[MAX_CLUSTER * 16]; /* a state a warp of the cluster */
    __shared__ uint32_t word;                     /* that holds the target's logit */
    const int leaves = (int)((in.vocab + SB_LEAF - 1) / SB_LEAF);
    const int piece = blockIdx.x % in.split, warps = blockDim.x / WARP;
    part_of_row part;
    thread_state t;

    cluster_arrive(); /* the first block's shared memory may be written once all have started */
    if (threadIdx.x == 0) set_block_row(in, &mine, piece == 0);
    __syncthreads(); /* mine is written */
    if (!mine.done) {
        if (threadIdx.x == 0 && piece == 0) fetch_target<DTYPE>(&word, mine, in.vocab);
        part.logits = mine.logits;
        part.vocab = in.vocab;
        part.first = (int)(piece * in.piece);
        part.last = min(part.first + (int)in.piece, leaves);
        sum_part<DTYPE>(&t, part, mine.row);
        warp_merge(&t.s);
    }
    cluster_wait();
    if (!mine.done && threadIdx.x % WARP == 0)
        store_to_first_block(&shared[piece * warps + threadIdx.x / WARP], t.s);
    cluster_arrive(); /* the states are stored */
    if (piece != 0 || mine.done) {
        cluster_wait();
        return;
    }
    if (threadIdx.x == 0) asm volatile("cp.async.wait_all;" : : : "memory");
    cluster_wait();
    if (threadIdx.x >= WARP) return;
    const float x = word_value<DTYPE>(word, mine.logits + mine.id * SIZE);
    merge_shared(&t.s, shared, in.split * warps);
    finish_row(in, mine.number, t.s, x, mine.row);
#endif
}

/* 40 registers: 48 warps a multiprocessor. */
#define KERNELS(name, DTYPE)                                                                       \
    extern "C" __global__ void __launch_bounds__(512, 3)                                           \
        logprob_##name(const __grid_constant__ sb_cuda_args in)                                    \
    {                                                                                              \
        logprob_block<DTYPE>(in);                                                                  \
    }                                                                                              \
    extern "C" __global__ void __launch_bounds__(512, 2)                                           \
        logprob_##name##_cluster(const __grid_constant__ sb_cuda_args in)                          \
    {                                                                                              \
        logprob_cluster<DTYPE>(in);                                                                \
    }
KERNELS(f32, SB_CUDA_F32)
KERNELS(f16, SB_CUDA_F16)
KERNELS(bf16, SB_CUDA_BF16)

/* Merges the pieces of a row and finishes it: a warp a row. */
extern "C" __global__ void __launch_bounds__(256)
    logprob_finish(const __grid_constant__ sb_cuda_args in)
{
    int64_t item = (blockIdx.x * (int64_t)blockDim.x + threadIdx.x) / WARP;
    int lane = threadIdx.x % WARP;
    if (item >= in.work) return;
    wait_for_primary();

    /* all loads at once: none depends on another's value */
    const sb_cuda_target target = ((const sb_cuda_target *)in.targets)[item];
    const int64_t number = row_at(in, item);
    sb_state s;
    sb_state_init(&s, 0);
    for (int p = lane; p < in.split; p += WARP)
        sb_state_merge(&s, &((const sb_state *)in.states)[item * in.split + p]);
    if (!target.active) return;
    const sb_row row = constants_of(in, in.temperatures ? ((const float *)in.temperatures)[number]
                                                        : 1.0f);
    warp_merge(&s);
    finish_row(in, number, s, target.x, row);
}

/* ---- sequences ---------------------------------------------------------------------------- */

SB_DET bool is_listed(const sb_cuda_args &in, int64_t row)
{
    const int64_t *list = (const int64_t *)in.row_list;
    int64_t low = 0, high = in.row_count;
    if (!list) return true;
    while (low < high) {
        int64_t middle = low + (high - low) / 2;
        if (list[middle] < row) low = middle + 1;
        else high = middle;
    }
    return low < in.row_count && list[low] == row;
}

/* Sums a sequence's tokens exactly, and counts its active ones: a warp a sequence. */
extern "C" __global__ void __launch_bounds__(256)
    sequence_sums(const __grid_constant__ sb_cuda_args in)
{
    int64_t b = (blockIdx.x * (int64_t)blockDim.x + threadIdx.x) / WARP;
    int lane = threadIdx.x % WARP;
    if (b >= in.batch) return;

    int64_t first = b * in.time, last = first + in.time, active = 0;
    bool well = true;
    if (in.cu_seqlens) {
        first = int_at(in.cu_seqlens, in.cu_seqlens_dtype, b);
        last = int_at(in.cu_seqlens, in.cu_seqlens_dtype, b + 1);
        well = first >= 0 && first <= last && last <= in.rows && (b > 0 || first == 0) &&
               (b + 1 < in.batch || last == in.rows) && last - first <= SB_SUM_MAX;
        if (!well) last = first;
    }
    sb_sum sum;
    sb_sum_init(&sum);
    for (int64_t row = first + lane; row < last; row += WARP) {
        if (in.tokens) sb_sum_add(&sum, ((const float *)in.tokens)[row]);
        if (in.count)
            active += is_active(in, row, int_at(in.ids, in.ids_dtype, row)) && is_listed(in, row);
    }
    for (int step = WARP / 2; step > 0; step /= 2) {
        sb_u128 other = (sb_u128)__shfl_xor_sync(FULL, (uint64_t)(sum.magnitude >> 64), step) << 64;
        other |= __shfl_xor_sync(FULL, (uint64_t)sum.magnitude, step);
        sum.magnitude += other;
        active += __shfl_xor_sync(FULL, active, step);
    }
    sum.nan = __any_sync(FULL, sum.nan);
    sum.inf = __any_sync(FULL, sum.inf);
    if (lane != 0) return;
    if (!well) report(in, SB_BAD_CU_SEQLENS, b);
    if (in.sequence) ((float *)in.sequence)[b] = well ? sb_sum_round(&sum) : sb_float(SB_NAN_BITS);
    if (in.count) ((int64_t *)in.count)[b] = active;
}
