/* load.cuh - loads the 16 logits of a leaf from device memory: aligned or not, into registers or by
 * way of shared memory, whole leaves and the row's ragged end.
 *
 * Invariant: nothing behind a row's last logit is read. */
#pragma once

#include "row.cuh"

/* Bytes of a logit. */
template <int DTYPE> SB_DET constexpr int size_of() { return DTYPE == SB_CUDA_F32 ? 4 : 2; }

/* Calls f with shift, an address modulo 16, as a constant<SHIFT>. Each alignment has compiled code
 * of its own; all threads of a row take the same branch. */
template <int N> struct constant {
    static constexpr int value = N;
};
template <int DTYPE, class F> SB_DET auto at_alignment(uint32_t shift, F f)
{
    if constexpr (DTYPE == SB_CUDA_F32) {
        switch (shift) {
        case 0: return f(constant<0>());
        case 4: return f(constant<4>());
        case 8: return f(constant<8>());
        case 12: return f(constant<12>());
        default: return decltype(f(constant<0>()))(); /* refused before the launch */
        }
    } else {
        switch (shift) {
        case 0: return f(constant<0>());
        case 4: return f(constant<4>());
        case 8: return f(constant<8>());
        case 12: return f(constant<12>());
        case 2: return f(constant<2>());
        case 6: return f(constant<6>());
        case 10: return f(constant<10>());
        default: return f(constant<14>());
        }
    }
}

/* ---- leaves as they lie in memory --------------------------------------------------------- */

template <int DTYPE> struct leaf_words;
template <> struct leaf_words<SB_CUDA_F32> {
    uint32_t w[16];
};
template <> struct leaf_words<SB_CUDA_F16> {
    uint32_t w[8];
};
template <> struct leaf_words<SB_CUDA_BF16> {
    uint32_t w[8];
};

template <int DTYPE> SB_DET constexpr int words_of() { return DTYPE == SB_CUDA_F32 ? 16 : 8; }

/* Logit i of a leaf, as fp32. */
template <int DTYPE> SB_DET float unpack(const leaf_words<DTYPE> &x, int i)
{
    if (DTYPE == SB_CUDA_F32) return sb_float(x.w[i]);
    uint32_t w = x.w[i / 2];
    /* PRMT, not a shift: ptxas turns some shifts into IMADs, whose pipe is busy
     * (docs/kernels.md) */
    if (DTYPE == SB_CUDA_BF16) return sb_float(i & 1 ? w & 0xffff0000u : __byte_perm(w, 0, 0x1044));
    return i & 1 ? float_of_high_half(w) : float_of_low_half(w);
}

/* The encoding of an absent logit in the container. */
template <int DTYPE> SB_DET uint32_t absent_word()
{
    return DTYPE == SB_CUDA_F32 ? SB_ABSENT_BITS : DTYPE == SB_CUDA_F16 ? 0xfc00u : 0xff80u;
}

/* Extracts the words of a leaf from the chunks that hold it. */
template <int DTYPE, int SHIFT> SB_DET void take_words(leaf_words<DTYPE> &x, const uint32_t *raw)
{
#pragma unroll
    for (int k = 0; k < words_of<DTYPE>(); k++) {
        if (SHIFT % 4 == 0) x.w[k] = raw[k + SHIFT / 4];
        else x.w[k] = __byte_perm(raw[k + SHIFT / 4], raw[k + SHIFT / 4 + 1], 0x5432);
    }
}

/* ---- loads -------------------------------------------------------------------------------- */

/* Loads the 16 logits at p, through L1, because a lane's two loads share a 32-byte sector and
 * unaligned leaves share chunks. SHIFT is the distance of p, in bytes, from the 16-byte boundary
 * below it. Every chunk that is read holds at least one of the logits. */
template <int DTYPE, int SHIFT> SB_DET void load_leaf(leaf_words<DTYPE> &x, const char *p)
{
    constexpr int WORDS = words_of<DTYPE>();
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
        take_words<DTYPE, SHIFT>(x, raw);
    }
}

/* Marks the ids from n on as absent. */
template <int DTYPE> SB_DET void keep_present(leaf_words<DTYPE> &x, int64_t n)
{
    if (n >= SB_LEAF) return;
#pragma unroll
    for (int i = 0; i < words_of<DTYPE>(); i++) {
        if (DTYPE == SB_CUDA_F32) {
            if (i >= n) x.w[i] = absent_word<DTYPE>();
        } else if (2 * i >= n) {
            x.w[i] = absent_word<DTYPE>() * 0x10001u;
        } else if (2 * i + 1 >= n) {
            x.w[i] = (x.w[i] & 0xffff) | absent_word<DTYPE>() << 16;
        }
    }
}

/* Loads the leaf at p, of which only the first n logits exist. */
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

/* Loads the leaf at p. From p on, n logits of the row are left. */
template <int DTYPE, int SHIFT> SB_DET void load_at(leaf_words<DTYPE> &x, const char *p, int64_t n)
{
    constexpr int BEHIND = SHIFT ? (16 - SHIFT) / size_of<DTYPE>() : 0; /* read beside it */
    if (n >= SB_LEAF + BEHIND) load_leaf<DTYPE, SHIFT>(x, p);
    else load_part<DTYPE>(x, p, n);
}

/* The same for any alignment of p. */
template <int DTYPE> SB_DET void load_any(leaf_words<DTYPE> &x, const char *p, int64_t n)
{
    at_alignment<DTYPE>((uint32_t)(uint64_t)p & 15,
                        [&](auto shift) { load_at<DTYPE, decltype(shift)::value>(x, p, n); });
}

template <int DTYPE> SB_DET float load_one(const char *logits, int64_t id)
{
    if (DTYPE == SB_CUDA_F32) return ((const float *)logits)[id];
    leaf_words<DTYPE> x;
    x.w[0] = ((const uint16_t *)logits)[id];
    return unpack<DTYPE>(x, 0);
}

/* ---- staging ------------------------------------------------------------------------------
 *
 * A thread's next leaf is on its way to shared memory while the thread works on the current one;
 * each thread has two slots of its own. A warp's 16-byte chunks lie side by side, with the first
 * chunks of all leaves in front, so that accesses have no bank conflicts. Only aligned 16-bit
 * logits are staged: with more chunks per leaf, L1 becomes the limit, because both halves of each
 * 32-byte sector are read through it (measured). */
extern __shared__ uint4 staging[];

template <int BYTES> SB_DET shared_address staging_slot()
{
    return address_of(staging) + threadIdx.x / WARP * (2 * WARP * BYTES) + threadIdx.x % WARP * 16;
}

/* Begins to copy the leaf at p, which is 16-byte aligned. */
template <int BYTES> SB_DET void fetch_leaf(shared_address slot, const char *p)
{
#pragma unroll
    for (int i = 0; i < BYTES / 16; i++) copy16(slot + i * WARP * 16, p + 16 * i);
}

template <int DTYPE> SB_DET void load_staged(leaf_words<DTYPE> &x, shared_address slot)
{
#pragma unroll
    for (int k = 0; k < words_of<DTYPE>() / 4; k++) {
        uint4 v = load16_shared(slot + k * WARP * 16);
        x.w[4 * k] = v.x, x.w[4 * k + 1] = v.y, x.w[4 * k + 2] = v.z, x.w[4 * k + 3] = v.w;
    }
}
