/* entropy.cu - logprob with the row's entropy, in one pass.
 *
 *   entropy[r] = -sum_i p_i ln p_i, and what logprob.cu writes, with the same bits
 *
 * Shapes: as logprob.cu; everything in src/cuda_args.h.
 *
 *     leaves -> thread's moments -> warp -> block -> [pieces: entropy_finish] -> finish
 *
 *     entropy_<dtype>    grid work * split, blocks of a multiple of 32 threads up to 512. split 1:
 *                        finishes rows. Else pieces [work][split] of sb_moments.
 *     entropy_finish     a warp an item; grid covers work * 32 threads. */
#include "common.cuh"
#include "finish.cuh"
#include "kept.cuh"
#include "leaf.cuh"
#include "load.cuh"

/* ---- merging ------------------------------------------------------------------------------ */

SB_DET int64_t warp_sum_signed(int64_t x)
{
    for (int step = WARP / 2; step > 0; step /= 2) x += __shfl_xor_sync(FULL, x, step);
    return x;
}

/* Merges the moments of a warp's lanes; all lanes get the result. c is left alone. */
SB_DET void warp_merge_moments(sb_moments *m)
{
    sb_moments_rise(m, __reduce_max_sync(FULL, m->sum.J));
    for (int i = 0; i < 3; i++) {
        m->sum.l[i] = warp_sum(m->sum.l[i]);
        m->g[i] = warp_sum_signed(m->g[i]);
    }
    m->best = __reduce_max_sync(FULL, m->best);
    if (m->sum.J == SB_J_POISON) m->best = 0;
}

/* Merges the moments of a block's threads. The result is warp 0's; shared holds one a warp. */
SB_DET void block_merge_moments(sb_moments *m, sb_moments *shared)
{
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, warps = blockDim.x / WARP;
    warp_merge_moments(m);
    if (lane == 0) shared[warp] = *m;
    __syncthreads(); /* every warp's moments are in shared */
    if (warp != 0) return;
    if (lane < warps) *m = shared[lane];
    else sb_moments_init(m, 0);
    warp_merge_moments(m);
}

/* ---- leaves ------------------------------------------------------------------------------- */

/* Any leaf, by det/moments.h. Apart, so that its registers are not the loop's. */
template <int DTYPE>
static __device__ __noinline__ void add_any_leaf(sb_moments *m, const leaf_words<DTYPE> *x, float c,
                                                 float k64, float lim)
{
    sb_row row;
    sb_moment_leaf leaf;
    float y[SB_LEAF];
    row.c = c, row.k64 = k64, row.lim = lim, row.kappa = 0;
    for (int i = 0; i < SB_LEAF; i++) y[i] = unpack<DTYPE>(*x, i);
    switch (sb_moment_leaf_of(&leaf, y, &row)) {
    case SB_LEAF_PRESENT: sb_moments_add(m, &leaf); break;
    case SB_LEAF_POISON: sb_moments_poison(m); break;
    default: break;
    }
}

/* A leaf that is neither wide nor poisoned, by the same operations; others go the way above. */
template <int DTYPE>
SB_DET void add_moment_leaf(sb_moments *m, leaf_words<DTYPE> &x, const sb_row &row)
{
    const float most = leaf_max<DTYPE>(x);
    const float z0 = sb_fma32(most, row.c, SB_EVEN_MAGIC);
    if (!is_narrow(sb_bits32(z0))) {
        if (sb_is_absent(most)) return;
        const leaf_words<DTYPE> copy = x;
        sb_moments into = *m; /* whose address may be taken */
        add_any_leaf<DTYPE>(&into, &copy, row.c, row.k64, row.lim);
        *m = into;
        return;
    }
    const float A = z0 - SB_EVEN_MAGIC, magic = SB_INT_MAGIC - A;
    const float thr = sb_bf16_floor(most - row.k64);
    float v[SB_LEAF], h[SB_LEAF];
#pragma unroll
    for (int i = 0; i < SB_LEAF; i++) {
        const float y = fmaxf(unpack<DTYPE>(x, i), thr);
        v[i] = sb_leaf_term(y, row.c, magic);
        h[i] = v[i] * sb_fma32(y, row.c, -A);
    }
    sb_moment_leaf leaf;
    leaf.leaf.A = (int32_t)A;
    leaf.leaf.M = (uint32_t)(sb_leaf_tree(v) * 0x1p+24f);
    leaf.U = sb_moment_integer(sb_leaf_tree(h));
    leaf.best = sb_order_key(most);
    sb_moments_add(m, &leaf);
}

template <int DTYPE, int SHIFT>
SB_DET void add_moment_leaves(sb_moments *m, const part_of_row &part, const sb_row &row)
{
    constexpr int SIZE = DTYPE == SB_CUDA_F32 ? 4 : 2;
    const int whole = (int)((part.vocab - (SHIFT ? (16 - SHIFT) / SIZE : 0)) / SB_LEAF);
    for (int k = part.first + threadIdx.x; k < part.last; k += blockDim.x) {
        const char *p = part.logits + (int64_t)k * SB_LEAF * SIZE;
        leaf_words<DTYPE> x;
        if (k < whole) load_leaf<DTYPE, SHIFT>(x, p);
        else load_present<DTYPE, SHIFT>(x, p, part.vocab - (int64_t)k * SB_LEAF);
        add_moment_leaf<DTYPE>(m, x, row);
    }
}

template <int DTYPE>
SB_DET void add_moment_row(sb_moments *m, const part_of_row &part, const sb_row &row)
{
    constexpr bool HALVES = DTYPE != SB_CUDA_F32;
    switch ((uint32_t)(uint64_t)part.logits & 15) {
    case 0: return add_moment_leaves<DTYPE, 0>(m, part, row);
    case 4: return add_moment_leaves<DTYPE, 4>(m, part, row);
    case 8: return add_moment_leaves<DTYPE, 8>(m, part, row);
    case 12: return add_moment_leaves<DTYPE, 12>(m, part, row);
    case 2: return add_moment_leaves < DTYPE, HALVES ? 2 : 0 > (m, part, row);
    case 6: return add_moment_leaves < DTYPE, HALVES ? 6 : 0 > (m, part, row);
    case 10: return add_moment_leaves < DTYPE, HALVES ? 10 : 0 > (m, part, row);
    default: return add_moment_leaves < DTYPE, HALVES ? 14 : 0 > (m, part, row);
    }
}

/* The leaves of a row with a kept set. Apart, so that its registers are not the others'. */
template <int DTYPE>
static __device__ __noinline__ void add_kept_moments(sb_moments *m, const sb_cuda_args *in,
                                                     int64_t number, part_of_row part, sb_row row)
{
    for (int k = part.first + threadIdx.x; k < part.last; k += blockDim.x) {
        sb_moment_leaf leaf;
        float y[SB_LEAF];
        if (!read_kept<DTYPE>(y, *in, number, part, 0, k)) continue;
        switch (sb_moment_leaf_of(&leaf, y, &row)) {
        case SB_LEAF_PRESENT: sb_moments_add(m, &leaf); break;
        case SB_LEAF_POISON: sb_moments_poison(m); break;
        default: break;
        }
    }
}

/* ---- rows --------------------------------------------------------------------------------- */

/* By a warp; its first lane writes the entropy, and the saved row with it. */
SB_DET void finish_moments(const sb_cuda_args &in, int64_t r, const sb_moments &m, float x,
                           const sb_row &row)
{
    finish_row(in, r, m.sum, x, row);
    if (threadIdx.x % WARP != 0) return;
    sb_saved saved = sb_finish_saved_moments(&m, &row);
    if (in.saved) ((sb_saved *)in.saved)[r] = saved;
    ((float *)in.entropy)[r] = saved.kind == SB_SAVED_NAN ? sb_float(SB_NAN_BITS)
                                                          : sb_entropy_of(saved.h2);
}

template <int DTYPE> SB_DET void entropy_block(const sb_cuda_args &in)
{
    __shared__ block_row mine;
    __shared__ sb_moments shared[16];
    const int leaves = (int)((in.vocab + SB_LEAF - 1) / SB_LEAF);
    const int piece = in.split == 1 ? 0 : (int)(blockIdx.x % in.split);
    part_of_row part;
    sb_moments m;

    if (threadIdx.x == 0) set_block_row(in, &mine, blockIdx.x / (uint32_t)in.split, piece == 0);
    __syncthreads(); /* mine is written */
    if (mine.done) {
        if (threadIdx.x == 0 && in.split != 1) /* c = 0: nothing for entropy_finish */
            sb_moments_init(&((sb_moments *)in.states)[blockIdx.x], 0.0f);
        return;
    }
    part.logits = mine.logits;
    part.vocab = in.vocab;
    part.first = (int)(piece * in.piece);
    part.last = min(part.first + (int)in.piece, leaves);
    sb_moments_init(&m, mine.row.c);
    if (in.kept) {
        sb_moments into = m; /* whose address may be taken */
        add_kept_moments<DTYPE>(&into, &in, mine.number, part, mine.row);
        m = into;
    } else {
        add_moment_row<DTYPE>(&m, part, mine.row);
    }
    block_merge_moments(&m, shared);
    if (threadIdx.x >= WARP) return;
    m.sum.c = sb_bits32(mine.row.c);
    if (in.split != 1) {
        if (threadIdx.x == 0) ((sb_moments *)in.states)[blockIdx.x] = m;
        return;
    }
    finish_moments(in, mine.number, m, kept_logit<DTYPE>(in, mine.number, mine.logits, mine.id),
                   mine.row);
}

#define ENTROPY(name, DTYPE)                                                                       \
    extern "C" __global__ void __launch_bounds__(512, 1)                                           \
        entropy_##name(const __grid_constant__ sb_cuda_args in)                                    \
    {                                                                                              \
        entropy_block<DTYPE>(in);                                                                  \
    }
ENTROPY(f32, SB_CUDA_F32)
ENTROPY(f16, SB_CUDA_F16)
ENTROPY(bf16, SB_CUDA_BF16)

/* Merges the pieces of a row and finishes it: a warp a row. */
extern "C" __global__ void __launch_bounds__(256)
    entropy_finish(const __grid_constant__ sb_cuda_args in)
{
    const int64_t item = (blockIdx.x * (int64_t)blockDim.x + threadIdx.x) / WARP;
    if (item >= in.work) return;
    const sb_moments *pieces = (const sb_moments *)in.states + item * in.split;
    if (pieces[0].sum.c == 0) return; /* the row's outputs are written */
    const int64_t number = row_at(in, item);
    const row_of_call r = resolve(in, number);
    const sb_row row = constants_of(in, r.tau);
    sb_moments m;
    sb_moments_init(&m, row.c);
    for (int p = threadIdx.x % WARP; p < in.split; p += WARP) sb_moments_merge(&m, &pieces[p]);
    warp_merge_moments(&m);
    float x = in.logits_dtype == SB_CUDA_F32 ? kept_logit<SB_CUDA_F32>(in, number, r.logits, r.id)
              : in.logits_dtype == SB_CUDA_F16
                  ? kept_logit<SB_CUDA_F16>(in, number, r.logits, r.id)
                  : kept_logit<SB_CUDA_BF16>(in, number, r.logits, r.id);
    finish_moments(in, number, m, x, row);
}
