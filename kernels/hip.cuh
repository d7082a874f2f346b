/* hip.cuh - device.cuh for HIP: CUDA's names for the exchanges of a warp, and the rest in plain
 * C++. A warp here is AMD's wavefront, of 32 or 64 lanes; the width changes no result.
 *
 * Compile with -ffp-contract=off, because HIP fuses multiplications and additions by default. */
#pragma once

#include <hip/hip_runtime.h>
#include <stdint.h>

#include "../src/det/convert.h"
#include "../src/det/float.h"

/* Give -DWARP=64 together with -mwavefrontsize64, on GPUs whose usual wavefront has 32 lanes. */
#if !defined(WARP)
#if defined(__GFX9__) || !defined(__HIP_DEVICE_COMPILE__)
#define WARP 64
#else
#define WARP 32
#endif
#endif
#if defined(__AMDGCN_WAVEFRONT_SIZE)
static_assert(WARP == __AMDGCN_WAVEFRONT_SIZE, "WARP is not the width of a wavefront");
#endif

#define FULL 0 /* unused: all lanes always take part */

#if !defined(__grid_constant__)
#define __grid_constant__
#endif

/* ---- warps -------------------------------------------------------------------------------- */

SB_DET uint32_t warp_reduce_add(uint32_t x)
{
    for (int step = WARP / 2; step > 0; step /= 2) x += __shfl_xor(x, step, WARP);
    return x;
}

SB_DET uint32_t warp_reduce_max(uint32_t x)
{
    for (int step = WARP / 2; step > 0; step /= 2) {
        uint32_t other = __shfl_xor(x, step, WARP);
        x = x > other ? x : other;
    }
    return x;
}

/* After the barrier, each lane sees what the other lanes of its warp wrote before it. */
SB_DET void warp_barrier()
{
    __builtin_amdgcn_fence(__ATOMIC_RELEASE, "wavefront");
    __builtin_amdgcn_wave_barrier();
    __builtin_amdgcn_fence(__ATOMIC_ACQUIRE, "wavefront");
}

#define __syncwarp(...) warp_barrier()
#define __reduce_add_sync(mask, x) warp_reduce_add(x)
#define __reduce_max_sync(mask, x) warp_reduce_max(x)
#define __shfl_sync(mask, x, lane) __shfl(x, lane, WARP)
#define __shfl_xor_sync(mask, x, step) __shfl_xor(x, step, WARP)
#define __shfl_down_sync(mask, x, step) __shfl_down(x, step, WARP)
#define __shfl_up_sync(mask, x, step) __shfl_up(x, step, WARP)
#define __any_sync(mask, x) __any(x)
#define __all_sync(mask, x) __all(x)
#define __ballot_sync(mask, x) __ballot(x)

/* ---- launches ----------------------------------------------------------------------------- */

/* Nothing to do: without dependent launches, a stream's kernels run one after the other. */
SB_DET void begin_dependents() {}
SB_DET void wait_for_primary() {}

/* ---- numbers ------------------------------------------------------------------------------ */

/* The larger of the two; NaN if either is NaN, and always the same NaN, as in PTX. The hot loop
 * computes a leaf's place from the encoding of this maximum, and a NaN of ffffffff would pass for a
 * place. */
SB_DET float max_nan(float a, float b)
{
    if (sb_is_nan(a) || sb_is_nan(b)) return sb_float(SB_NAN_BITS);
    return b > a ? b : a;
}

SB_DET uint32_t max_nan_pair_bf16(uint32_t a, uint32_t b)
{
    float high = max_nan(sb_float(a & 0xffff0000u), sb_float(b & 0xffff0000u));
    float low = max_nan(sb_float(a << 16), sb_float(b << 16));
    return sb_bits32(high) | sb_bits32(low) >> 16;
}

SB_DET uint32_t max_nan_f16(uint32_t a, uint32_t b)
{
    float x = sb_from_f16((uint16_t)a), y = sb_from_f16((uint16_t)b);
    return (sb_is_nan(x) || (!sb_is_nan(y) && x > y) ? a : b) & 0xffffu;
}

SB_DET uint32_t max_nan_pair_f16(uint32_t a, uint32_t b)
{
    return max_nan_f16(a >> 16, b >> 16) << 16 | max_nan_f16(a, b);
}

/* The smaller of the two; a NaN counts as missing. */
SB_DET float min_of(float a, float b) { return sb_is_nan(a) || b < a ? b : a; }

SB_DET uint32_t min_pair_bf16(uint32_t a, uint32_t b)
{
    float high = min_of(sb_float(a & 0xffff0000u), sb_float(b & 0xffff0000u));
    float low = min_of(sb_float(a << 16), sb_float(b << 16));
    return sb_bits32(high) | sb_bits32(low) >> 16;
}

SB_DET uint32_t at_least_pair_bf16(uint32_t a, uint32_t b)
{
    const bool low = sb_float(a << 16) >= sb_float(b << 16);
    const bool high = sb_float(a & 0xffff0000u) >= sb_float(b & 0xffff0000u);
    return (low ? 0xffffu : 0) | (high ? 0xffff0000u : 0);
}

SB_DET uint32_t min_f16(uint32_t a, uint32_t b)
{
    float x = sb_from_f16((uint16_t)a), y = sb_from_f16((uint16_t)b);
    return (sb_is_nan(x) || y < x ? b : a) & 0xffffu;
}

SB_DET uint32_t min_pair_f16(uint32_t a, uint32_t b)
{
    return min_f16(a >> 16, b >> 16) << 16 | min_f16(a, b);
}

SB_DET uint32_t half_of_sign(uint32_t b) { return (b >> 31) * 0xffffu; }

SB_DET uint64_t dot_halves(uint32_t w, uint32_t factors, uint64_t base)
{
    return base + (uint64_t)(w & 0xffff) * (factors & 0xff) +
           (uint64_t)(w >> 16) * (factors >> 8 & 0xff);
}

SB_DET int32_t dot_bytes(uint32_t a, uint32_t b, int32_t sum)
{
    for (int i = 0; i < 32; i += 8) sum += (int8_t)(a >> i) * (int8_t)(b >> i);
    return sum;
}

template <class T> SB_DET void hide(T &) {}

SB_DET float float_of_low_half(uint32_t w) { return sb_from_f16((uint16_t)w); }
SB_DET float float_of_high_half(uint32_t w) { return sb_from_f16((uint16_t)(w >> 16)); }

SB_DET uint32_t pair_of_f16(float a, float b)
{
    return sb_to_f16(a) | (uint32_t)sb_to_f16(b) << 16;
}

SB_DET uint32_t pair_of_bf16(float a, float b)
{
    return sb_to_bf16(a) | (uint32_t)sb_to_bf16(b) << 16;
}

/* The upper 32 bits of high:low shifted to the left by shift modulo 32. */
SB_DET uint32_t hip_funnelshift_l(uint32_t low, uint32_t high, uint32_t shift)
{
    return (uint32_t)(((uint64_t)high << 32 | low) << (shift & 31) >> 32);
}
#define __funnelshift_l hip_funnelshift_l

/* The lower 32 bits of high:low shifted to the right by shift, at most 32. */
SB_DET uint32_t hip_funnelshift_rc(uint32_t low, uint32_t high, uint32_t shift)
{
    return (uint32_t)(((uint64_t)high << 32 | low) >> (shift < 32 ? shift : 32));
}
#define __funnelshift_rc hip_funnelshift_rc

/* ---- barriers ----------------------------------------------------------------------------- */

/* All of the block's threads meet, except those that have ended: it has no barriers for a part. So
 * all of them must come, as often as those of any part. */
SB_DET void group_barrier(int, int) { __syncthreads(); }

/* ---- memory ------------------------------------------------------------------------------- */

SB_DET void prefetch(const char *) {}

SB_DET uint4 load16(const char *p) { return *(const uint4 *)p; }
SB_DET uint4 load16_mutable(const char *p) { return load16(p); }
SB_DET void store16(char *p, uint4 v) { *(uint4 *)p = v; }
SB_DET void store8(char *p, uint2 v) { *(uint2 *)p = v; }

typedef uint64_t shared_address;

SB_DET shared_address address_of(const void *shared) { return (uint64_t)shared; }

SB_DET uint4 load16_shared(shared_address from) { return *(const uint4 *)from; }

SB_DET void store16_shared(shared_address to, uint4 v) { *(uint4 *)to = v; }
SB_DET void store_shared(shared_address to, float x) { *(float *)to = x; }
SB_DET float load_shared(shared_address from) { return *(const float *)from; }

/* These copies are complete when they return, so there is nothing to wait for. */
SB_DET void copy16(shared_address to, const char *from) { *(uint4 *)to = *(const uint4 *)from; }
SB_DET void copy16_past_l1(shared_address to, const char *from) { copy16(to, from); }
SB_DET void copy4(shared_address to, const char *from)
{
    *(uint32_t *)to = *(const uint32_t *)from;
}
SB_DET void end_copies() {}
template <int GROUPS> SB_DET void wait_for_copies() {}
SB_DET void wait_for_all_copies() {}
