/* mma.cuh - products of a warp's tiles by tensor cores, for every GPU from compute capability 8.0
 * on: int8, exact in int32; and the same digits as bf16, exact in fp32 as long as sums stay below
 * 2^24.
 *
 * A warp multiplies 16 rows of A and 8 rows of B, each of 32 elements, into [16][8] sums. Lane
 * 4 g + q holds, of rows g and g + 8 of A and of row g of B, 8 elements each, and of the sums
 * (g, 2q), (g, 2q + 1), (g + 8, 2q), (g + 8, 2q + 1). Which elements a lane holds does not matter,
 * if they are the same of A and of B. */
#pragma once

#include "device.cuh"

#if !defined(__HIPCC__)

/* a: elements of row g, of row g + 8, then 4 more of each. b: 4 elements and 4 more. */
SB_DET void mma_int8(int32_t (&sum)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1)
{
    asm("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+r"(sum[0]), "+r"(sum[1]), "+r"(sum[2]), "+r"(sum[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/* The same for 16 elements per row, as bf16: 2 elements where mma_int8 has 4. */
SB_DET void mma_bf16(float (&sum)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1)
{
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/* Two int8 of a word as bf16, exactly: the lower two, or the upper two. A byte b, as b ^ 80, is
 * b + 128, so fp32 2^23 + (b ^ 80) less 2^23 + 128 is b, and a bf16 holds it. */
SB_DET uint32_t pair_of_int8(uint32_t w, bool upper)
{
    const uint32_t u = w ^ 0x80808080u, magic = 0x4b000000u;
    const float a = sb_float(__byte_perm(u, magic, upper ? 0x7442 : 0x7440)) - 8388736.0f;
    const float b = sb_float(__byte_perm(u, magic, upper ? 0x7443 : 0x7441)) - 8388736.0f;
    return __byte_perm(sb_bits32(a), sb_bits32(b), 0x7632);
}

#endif
