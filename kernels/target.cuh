/* target.cuh - reads the logit of a row's target, or of any id of the row, and passes targets from
 * one kernel to the next. The block whose part holds the target's leaf reads its logit. */
#pragma once

#include "load.cuh"

/* The logit of an id; absent if the id is outside the row's kept set. */
template <int DTYPE>
SB_DET float kept_logit(const sb_cuda_args &in, int64_t row, const char *logits, int64_t id)
{
    return is_kept(in, row, id) ? load_one<DTYPE>(logits, id) : sb_float(SB_ABSENT_BITS);
}

/* The same for a kernel that serves all dtypes. */
SB_DET float logit_of_id(const sb_cuda_args &in, int64_t row, const char *logits, int64_t id)
{
    return in.logits_dtype == SB_CUDA_F32   ? kept_logit<SB_CUDA_F32>(in, row, logits, id)
           : in.logits_dtype == SB_CUDA_F16 ? kept_logit<SB_CUDA_F16>(in, row, logits, id)
                                            : kept_logit<SB_CUDA_BF16>(in, row, logits, id);
}

SB_DET bool owns_target(const block_row &mine, const part_of_row &part)
{
    const int64_t leaf = mine.id / SB_LEAF;
    return leaf >= part.first && leaf < part.last;
}

/* ---- fetched while other work goes on ----------------------------------------------------- */

/* Begins to copy the aligned 32-bit word that holds the logit at p to shared memory. alone: the
 * other half of the word does not belong to this row, and must not be read. */
SB_DET void fetch_word(uint32_t *shared, const char *p, bool alone)
{
    if (alone) {
        *shared = *(const uint16_t *)p * 0x10001u;
        return;
    }
    copy4(address_of(shared), (const char *)((uint64_t)p & ~(uint64_t)3));
}

/* Begins to fetch the target's logit. */
template <int DTYPE> SB_DET void fetch_target(uint32_t *word, const block_row &mine, int64_t vocab)
{
    constexpr int SIZE = size_of<DTYPE>();
    const char *p = mine.logits + mine.id * SIZE;
    int64_t other = mine.id + ((uint64_t)p & 2 ? -1 : 1);
    fetch_word(word, p, SIZE == 2 && (other < 0 || other >= vocab));
}

/* The logit at p, from the word that fetch_target copied. */
template <int DTYPE> SB_DET float word_value(uint32_t word, const char *p)
{
    leaf_words<DTYPE> x;
    x.w[0] = word;
    return unpack<DTYPE>(x, DTYPE == SB_CUDA_F32 ? 0 : (int)((uint64_t)p >> 1 & 1));
}

/* ---- between kernels ---------------------------------------------------------------------- */

/* Stores a row's target for the kernel that finishes the row. active: whether there is anything to
 * finish or, in order.cu, the row's fate. */
SB_DET void write_target(const sb_cuda_args &in, int64_t item, float x, int32_t active)
{
    sb_cuda_target target = { x, active };
    ((sb_cuda_target *)in.targets)[item] = target;
}
