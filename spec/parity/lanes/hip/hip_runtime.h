/* hip_runtime.h - as much of HIP's language as kernels/ uses, for a C++ compiler of the CPU: with
 * this, WARP and __HIPCC__ defined, kernels/hip.cuh and all above it are compiled as they stand.
 * lanes.h runs them. */
#pragma once

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "../lanes.h"

#define __device__
#define __host__
#define __forceinline__ inline
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __shared__ thread_local /* one block at a time, in one thread of the CPU */
#if !defined(__global__)        /* lanes/build looks for its own */
#define __global__
#endif

struct alignas(16) uint4 {
    uint32_t x, y, z, w;
};
struct alignas(8) uint2 {
    uint32_t x, y;
};

#define threadIdx (lanes_now()->thread)
#define blockIdx (lanes_now()->block)
#define blockDim (lanes_now()->threads)
#define gridDim (lanes_now()->blocks)

static inline void __syncthreads() { lanes_meet_block(); }

/* A warp's barrier, as hip.cuh writes it. */
#define __builtin_amdgcn_wave_barrier() (void)lanes_meet_warp(0)
#define __builtin_amdgcn_fence(...)

/* ---- what a warp does together ------------------------------------------------------------ */

/* Every lane of a warp must come here, and at the same call. */
template <typename T> static inline T lanes_from(T x, int lane)
{
    uint64_t mine = 0, theirs;
    memcpy(&mine, &x, sizeof x);
    theirs = lanes_meet_warp(mine)[lane];
    memcpy(&x, &theirs, sizeof x);
    return x;
}

static inline int lanes_number() { return (int)threadIdx.x % WARP; }

template <typename T> static inline T __shfl(T x, int lane, int width)
{
    return lanes_from(x, lanes_number() / width * width + lane % width);
}

template <typename T> static inline T __shfl_xor(T x, int step, int width)
{
    int lane = lanes_number(), from = lane ^ step;
    return lanes_from(x, from / width == lane / width ? from : lane);
}

template <typename T> static inline T __shfl_down(T x, int step, int width)
{
    int lane = lanes_number();
    return lanes_from(x, lane % width + step < width ? lane + step : lane);
}

template <typename T> static inline T __shfl_up(T x, int step, int width)
{
    int lane = lanes_number();
    return lanes_from(x, lane % width >= step ? lane - step : lane);
}

static inline int __any(int x)
{
    const uint64_t *all = lanes_meet_warp(x != 0);
    int any = 0;
    for (int i = 0; i < WARP; i++) any |= (int)all[i];
    return any;
}

static inline int __all(int x) { return !__any(!x); }

static inline uint64_t __ballot(int x)
{
    const uint64_t *all = lanes_meet_warp(x != 0);
    uint64_t lanes = 0;
    for (int i = 0; i < WARP; i++) lanes |= all[i] << i;
    return lanes;
}

/* ---- numbers ------------------------------------------------------------------------------ */

template <typename To, typename From> static inline To lanes_cast(From x)
{
    To y;
    memcpy(&y, &x, sizeof y);
    return y;
}

static inline uint32_t __float_as_uint(float x) { return lanes_cast<uint32_t>(x); }
static inline float __uint_as_float(uint32_t b) { return lanes_cast<float>(b); }
static inline float __int_as_float(int b) { return lanes_cast<float>(b); }
static inline int __float_as_int(float x) { return lanes_cast<int>(x); }
static inline long long __double_as_longlong(double x) { return lanes_cast<long long>(x); }
static inline double __longlong_as_double(long long b) { return lanes_cast<double>(b); }
static inline float __fmaf_rn(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
static inline double __fma_rn(double a, double b, double c) { return __builtin_fma(a, b, c); }
static inline int __clz(int b) { return b ? __builtin_clz((unsigned)b) : 32; }
static inline int __clzll(long long b) { return b ? __builtin_clzll((unsigned long long)b) : 64; }
static inline int __popc(unsigned b) { return __builtin_popcount(b); }
static inline int __popcll(unsigned long long b) { return __builtin_popcountll(b); }
static inline int __ffsll(unsigned long long b) { return __builtin_ffsll((long long)b); }

/* Four bytes of the eight of b:a, each picked by a hex digit of s. */
static inline uint32_t __byte_perm(uint32_t a, uint32_t b, uint32_t s)
{
    uint64_t bytes = (uint64_t)b << 32 | a;
    uint32_t picked = 0;
    for (int i = 0; i < 4; i++) picked |= (uint32_t)(bytes >> (s >> 4 * i & 7) * 8 & 0xff) << 8 * i;
    return picked;
}

template <typename T> static inline T min(T a, T b) { return b < a ? b : a; }
template <typename T> static inline T max(T a, T b) { return a < b ? b : a; }
