/* device.cuh - the GPU features that the kernels use beyond the language: the width of a warp,
 * dependent launches, maxima that keep NaN, conversions, loads and copies to shared memory. This
 * file has them in PTX, hip.cuh has them for HIP. Both must give the same values. */
#pragma once

#if defined(__HIPCC__)
#include "hip.cuh"
#else

#include <stdint.h>

#include "../src/det/float.h"

#define WARP 32
#define FULL 0xffffffffu

/* ---- launches ----------------------------------------------------------------------------- */

/* Programmatic dependent launch: a kernel such as logprob_finish may be set up while the blocks of
 * the kernel before it still run. It then waits for their stores. */
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

/* ---- numbers ------------------------------------------------------------------------------ */

/* The larger of the two; NaN if either is NaN. */
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

/* The smaller of each pair; of a number and NaN, the number. */
SB_DET uint32_t min_pair_bf16(uint32_t a, uint32_t b)
{
    uint32_t m;
    asm("min.bf16x2 %0, %1, %2;" : "=r"(m) : "r"(a), "r"(b));
    return m;
}

SB_DET uint32_t min_pair_f16(uint32_t a, uint32_t b)
{
    uint32_t m;
    asm("min.f16x2 %0, %1, %2;" : "=r"(m) : "r"(a), "r"(b));
    return m;
}

/* For each pair, all bits set if the two numbers are equal, otherwise none. */
SB_DET uint32_t equal_pair_bf16(uint32_t a, uint32_t b)
{
    uint32_t mask;
    asm("set.eq.u32.bf16x2 %0, %1, %2;" : "=r"(mask) : "r"(a), "r"(b));
    return mask;
}

/* For each pair, all bits set if the first number is at least the second one, otherwise none. */
SB_DET uint32_t at_least_pair_bf16(uint32_t a, uint32_t b)
{
#if __CUDA_ARCH__ >= 900
    uint32_t mask;
    asm("set.ge.u32.bf16x2 %0, %1, %2;" : "=r"(mask) : "r"(a), "r"(b));
    return mask;
#else
    const bool low = sb_float(a << 16) >= sb_float(b << 16);
    const bool high = sb_float(a & 0xffff0000u) >= sb_float(b & 0xffff0000u);
    return (low ? 0xffffu : 0) | (high ? 0xffff0000u : 0);
#endif
}

/* 0xffff if the highest bit is set, else 0. */
SB_DET uint32_t half_of_sign(uint32_t b)
{
    uint32_t half;
    asm("prmt.b32 %0, %1, 0, 0x44bb;" : "=r"(half) : "r"(b));
    return half;
}

/* base plus the lower half of w times the lowest byte of factors, plus the upper half times the
 * next byte: in one instruction, the address of what stands for either half in a table. */
SB_DET uint32_t dot_halves(uint32_t w, uint32_t factors, uint32_t base)
{
    uint32_t sum;
    asm("dp2a.lo.u32.u32 %0, %1, %2, %3;" : "=r"(sum) : "r"(w), "r"(factors), "r"(base));
    return sum;
}

/* sum plus the products of the four bytes of a and of b, all signed. */
SB_DET int32_t dot_bytes(uint32_t a, uint32_t b, int32_t sum)
{
    int32_t d;
    asm("dp4a.s32.s32 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(sum));
    return d;
}

/* Hides from the compiler what x is, so that it computes nothing from x before this point, and
 * keeps no older copy of it. */
SB_DET void hide(int64_t &x) { asm volatile("" : "+l"(x)); }
SB_DET void hide(uint32_t &x) { asm volatile("" : "+r"(x)); }
SB_DET void hide(const char *&p) { asm volatile("" : "+l"(p)); }
SB_DET void hide(char *&p) { asm volatile("" : "+l"(p)); }

/* A half of w, and above it its sign bit 16 times. The intrinsic __byte_perm drops the bits of the
 * selector that ask for signs. */
SB_DET uint32_t sign_extended_low(uint32_t w)
{
    uint32_t d;
    asm("prmt.b32 %0, %1, 0, 0x9910;" : "=r"(d) : "r"(w));
    return d;
}

SB_DET uint32_t sign_extended_high(uint32_t w)
{
    uint32_t d;
    asm("prmt.b32 %0, %1, 0, 0xbb32;" : "=r"(d) : "r"(w));
    return d;
}

/* zero - 8 m for a sign-extended half with sign 0 and magnitude m, 4 less with sign 1:
 * -8 * (m + 8000) + 4 * ffff = -8 m - 4. */
SB_DET uint32_t signed_pair_address(uint32_t half, uint32_t zero)
{
    uint32_t d;
    asm("dp2a.lo.u32.s32 %0, %1, %2, %3;" : "=r"(d) : "r"(half), "r"(0x04f8), "r"(zero));
    return d;
}

/* One of the two fp16 numbers in a word, converted exactly. */
SB_DET float float_of_low_half(uint32_t w)
{
    float f;
    asm("{\n\t.reg .b16 low, high;\n\tmov.b32 {low, high}, %1;\n\tcvt.f32.f16 %0, low;\n\t}"
        : "=f"(f)
        : "r"(w));
    return f;
}

SB_DET float float_of_high_half(uint32_t w)
{
    float f;
    asm("{\n\t.reg .b16 low, high;\n\tmov.b32 {low, high}, %1;\n\tcvt.f32.f16 %0, high;\n\t}"
        : "=f"(f)
        : "r"(w));
    return f;
}

/* Two numbers, each rounded to nearest even; a goes to the lower half. Neither may be NaN. */
SB_DET uint32_t pair_of_f16(float a, float b)
{
    uint32_t pair;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(b), "f"(a));
    return pair;
}

SB_DET uint32_t pair_of_bf16(float a, float b)
{
    uint32_t pair;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(b), "f"(a));
    return pair;
}

/* ---- barriers ----------------------------------------------------------------------------- */

/* A barrier of `threads` threads of a block, whole warps, which name it by a number from 1 to 15.
 * After it, they see what each of them wrote before. */
SB_DET void group_barrier(int number, int threads)
{
    asm volatile("bar.sync %0, %1;" : : "r"(number), "r"(threads) : "memory");
}

/* ---- memory ------------------------------------------------------------------------------- */

SB_DET void prefetch(const char *p) { asm volatile("prefetch.global.L2 [%0];" : : "l"(p)); }

/* Loads 16 bytes through L1. Nothing may write them while the kernel runs. */
SB_DET uint4 load16(const char *p)
{
    uint4 v;
    asm volatile("ld.global.nc.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "l"(p));
    return v;
}

SB_DET void store16(char *p, uint4 v)
{
    asm volatile("st.global.v4.u32 [%0], {%1, %2, %3, %4};"
                 :
                 : "l"(p), "r"(v.x), "r"(v.y), "r"(v.z), "r"(v.w)
                 : "memory");
}

SB_DET void store8(char *p, uint2 v)
{
    asm volatile("st.global.v2.u32 [%0], {%1, %2};" : : "l"(p), "r"(v.x), "r"(v.y) : "memory");
}

/* Loads 16 bytes that this thread may write later. */
SB_DET uint4 load16_mutable(const char *p)
{
    uint4 v;
    asm volatile("ld.global.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "l"(p)
                 : "memory");
    return v;
}

#if __CUDA_ARCH__ >= 900

/* 16 bytes that are stored or loaded as one unit, past L1: no other thread of the GPU sees part of
 * a store. */
SB_DET uint4 load16_whole(const char *p)
{
    uint64_t low, high;
    asm volatile("{\n\t.reg .b128 v;\n\tld.relaxed.gpu.global.b128 v, [%2];\n\t"
                 "mov.b128 {%0, %1}, v;\n\t}"
                 : "=l"(low), "=l"(high)
                 : "l"(p)
                 : "memory");
    return { (uint32_t)low, (uint32_t)(low >> 32), (uint32_t)high, (uint32_t)(high >> 32) };
}

SB_DET void store16_whole(char *p, uint4 v)
{
    const uint64_t low = (uint64_t)v.y << 32 | v.x, high = (uint64_t)v.w << 32 | v.z;
    asm volatile("{\n\t.reg .b128 v;\n\tmov.b128 v, {%1, %2};\n\t"
                 "st.relaxed.gpu.global.b128 [%0], v;\n\t}"
                 :
                 : "l"(p), "l"(low), "l"(high)
                 : "memory");
}

#endif

typedef uint32_t shared_address;

SB_DET shared_address address_of(const void *shared)
{
    return (uint32_t)__cvta_generic_to_shared(shared);
}

SB_DET uint4 load16_shared(shared_address from)
{
    uint4 v;
    asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "r"(from)
                 : "memory");
    return v;
}

SB_DET void store16_shared(shared_address to, uint4 v)
{
    asm volatile("st.shared.v4.u32 [%0], {%1, %2, %3, %4};"
                 :
                 : "r"(to), "r"(v.x), "r"(v.y), "r"(v.z), "r"(v.w)
                 : "memory");
}

SB_DET void store_shared(shared_address to, float x)
{
    asm volatile("st.shared.f32 [%0], %1;" : : "r"(to), "f"(x) : "memory");
}

/* Loads what was written before a barrier that this thread has passed, and is not written again. */
SB_DET float load_shared(shared_address from)
{
    float x;
    asm volatile("ld.shared.f32 %0, [%1];" : "=f"(x) : "r"(from));
    return x;
}

/* Asynchronous copies to shared memory, by one thread: it begins some copies, ends the group, does
 * other work, and waits until at most GROUPS groups are still under way. */
SB_DET void copy16(shared_address to, const char *from)
{
    asm volatile("cp.async.ca.shared.global [%0], [%1], 16;" : : "r"(to), "l"(from) : "memory");
}

SB_DET void copy16_past_l1(shared_address to, const char *from)
{
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" : : "r"(to), "l"(from) : "memory");
}

SB_DET void copy4(shared_address to, const char *from)
{
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" : : "r"(to), "l"(from) : "memory");
}

SB_DET void end_copies() { asm volatile("cp.async.commit_group;" : : : "memory"); }

template <int GROUPS> SB_DET void wait_for_copies()
{
    asm volatile("cp.async.wait_group %0;" : : "n"(GROUPS) : "memory");
}

SB_DET void wait_for_all_copies() { asm volatile("cp.async.wait_all;" : : : "memory"); }

#endif
