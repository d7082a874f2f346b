/* shards.cu - makes the records of a shard of the vocabulary, merges the records of several shards,
 * and finishes whole rows; with moments for the entropy, or without.
 *
 *   states[r], targets[r]: the records of row r, as defined in docs/numerics.md, section "Shards
 *   and state bytes"
 *
 * Shapes: logits [B, T, n] or [N, n], as logprob.cu takes them; records [rows], or [shards][rows]
 * for those to be merged; everything else in src/cuda/args.h.
 *
 * The reduction is that of logprob.cu without the finish:
 *
 *     leaves -> thread's state -> warp -> block -> [pieces: partial_merge] -> record
 *     records of shards -> one thread per row -> record -> finish
 *
 * Kernels for records with moments have _moments in their names:
 *
 *     partial_<dtype>, partial_<dtype>_kept, partial_<dtype>_moments
 *                              piece.cuh: writes the records, or a row's pieces and its target
 *                              record. The last of the three also takes kept sets.
 *     partial_merge[_moments]  one warp per item; the grid covers work * 32 threads.
 *     shards_merge[_moments]   one thread per row.
 *     shards_finish[_moments]  one warp per item; the grid covers work * 32 threads. */
#include "finish.cuh"
#include "kept.cuh"
#include "leaf.cuh"
#include "moments.cuh"
#include "piece.cuh"
#include "records.cuh"

/* ---- partial ------------------------------------------------------------------------------ */

enum sum_kind { PLAIN, KEPT, MOMENTS };

template <int DTYPE>
SB_DET void sum_shard(sb_state *s, const sb_cuda_shard_args &a, const block_row &mine,
                      const part_of_row &part, constant<PLAIN>)
{
    thread_state t;
    sum_part<DTYPE>(&t, part, mine.row);
    *s = t.s;
}

template <int DTYPE>
SB_DET void sum_shard(sb_state *s, const sb_cuda_shard_args &a, const block_row &mine,
                      const part_of_row &part, constant<KEPT>)
{
    sb_state_init(s, mine.row.c);
    add_kept<DTYPE>(s, a.in, mine.number, part, a.first / SB_LEAF, mine.row);
}

template <int DTYPE>
SB_DET void sum_shard(sb_moments *s, const sb_cuda_shard_args &a, const block_row &mine,
                      const part_of_row &part, constant<MOMENTS>)
{
    sum_moments<DTYPE>(s, a.in, mine, part, a.first / SB_LEAF);
}

template <int DTYPE, class STATE, int KIND> struct shard_rows {
    typedef sb_cuda_shard_args args;
    typedef STATE state;
    typedef block_row row;
    static constexpr bool FINISHES = true;
    SB_DET void find(const args &a, row *mine, int64_t item, bool writes)
    {
        set_block_row(a.in, mine, item, writes);
    }
    SB_DET bool done(const row &mine) { return mine.done; }
    SB_DET void skip(const args &a, const row &, int64_t item) { write_done<state>(a, item); }
    SB_DET int64_t held(const args &a) { return a.held; }
    SB_DET void sum(state *s, const args &a, const row &mine, const part_of_row &part)
    {
        sum_shard<DTYPE>(s, a, mine, part, constant<KIND>());
    }
    SB_DET void beside(const args &a, const row &mine, int64_t)
    {
        write_target_record<DTYPE>(a, mine);
    }
    SB_DET void finish(const args &a, const row &mine, const state &s)
    {
        if (threadIdx.x == 0) ((state *)a.states)[mine.number] = s;
    }
};

/* partial_<dtype> has the bounds of logprob_<dtype>: 40 registers, 48 warps per multiprocessor. */
#define PARTIAL(name, DTYPE)                                                                       \
    extern "C" __global__ void __launch_bounds__(512, 3)                                           \
        partial_##name(const __grid_constant__ sb_cuda_shard_args a)                               \
    {                                                                                              \
        piece_block<shard_rows<DTYPE, sb_state, PLAIN>>(a);                                        \
    }                                                                                              \
    extern "C" __global__ void __launch_bounds__(512)                                              \
        partial_##name##_kept(const __grid_constant__ sb_cuda_shard_args a)                        \
    {                                                                                              \
        piece_block<shard_rows<DTYPE, sb_state, KEPT>>(a);                                         \
    }                                                                                              \
    extern "C" __global__ void __launch_bounds__(512, 1)                                           \
        partial_##name##_moments(const __grid_constant__ sb_cuda_shard_args a)                     \
    {                                                                                              \
        piece_block<shard_rows<DTYPE, sb_moments, MOMENTS>>(a);                                    \
    }
PARTIAL(f32, SB_CUDA_F32)
PARTIAL(f16, SB_CUDA_F16)
PARTIAL(bf16, SB_CUDA_BF16)

/* Merges the pieces of a row into its record. */
template <class STATE> SB_DET void merge_row(const sb_cuda_shard_args &a)
{
    const sb_cuda_args &in = a.in;
    const int64_t item = warp_item();
    if (item >= in.work) return;
    const STATE *pieces = pieces_of<STATE>(in, item);
    STATE s = pieces[0];
    const uint32_t c = sum_in(&s)->c;
    if (c == 0) return; /* the row's records are written */
    merge_pieces(&s, pieces, in.split);
    sum_in(&s)->c = c;
    if (threadIdx.x % WARP == 0) ((STATE *)a.states)[row_at(in, item)] = s;
}

/* ---- finish ------------------------------------------------------------------------------- */

template <class STATE> SB_DET void finish_records(const sb_cuda_shard_args &a)
{
    const sb_cuda_args &in = a.in;
    const int64_t item = warp_item();
    const bool writes = threadIdx.x % WARP == 0;
    if (item >= in.work) return;
    const visit v = visit_row(in, item, writes);
    if (v.done) return;
    const sb_row row = constants_of(in, v.r.tau);
    const STATE s = ((const STATE *)a.states)[v.number];
    const sb_target t = ((const sb_target *)a.targets)[v.number];
    if (refused_at_finish(in, v.number, finish_fault(s, t, row), writes)) return;
    finish_row(in, v.number, s, sb_float(t.x), row);
}

#define RECORDS(suffix, STATE)                                                                     \
    extern "C" __global__ void __launch_bounds__(256)                                              \
        partial_merge##suffix(const __grid_constant__ sb_cuda_shard_args a)                        \
    {                                                                                              \
        merge_row<STATE>(a);                                                                       \
    }                                                                                              \
    extern "C" __global__ void __launch_bounds__(256)                                              \
        shards_merge##suffix(const __grid_constant__ sb_cuda_shard_args a)                         \
    {                                                                                              \
        merge_records<STATE>(a);                                                                   \
    }                                                                                              \
    extern "C" __global__ void __launch_bounds__(256)                                              \
        shards_finish##suffix(const __grid_constant__ sb_cuda_shard_args a)                        \
    {                                                                                              \
        finish_records<STATE>(a);                                                                  \
    }
RECORDS(, sb_state)
RECORDS(_moments, sb_moments)
