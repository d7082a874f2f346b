/* products_amx.c - products with AMX: tdpbssd multiplies a tile of 16 rows of 64 digits by a tile
 * of 64 digits of 16 ids, exactly, in int32. Linux gives a process the tiles when it asks.
 *
 * A group's digits are laid out as the tiles of weights are; hidden states are packed as for
 * products_avx512.c. Tiles 0 .. 2 are levels, 3 .. 5 digits of hidden states, 6 and 7 of weights.
 * h24w24 has five levels, so it takes two passes over the digits.
 *
 * There is one load of a tile for each product, which is what limits them. Tried, for all products
 * of h24w16 with 512 rows, D = 4096, V = 32768, on 16 threads of two to a core: 44 - 56 ms as here;
 * 50 - 63 with six levels, of two groups at once, so that no product waits for the one before it,
 * but 13 loads for 10 products; 51 - 73 with two blocks of rows at once. Pieces of D of 256 to 1024
 * elements, whose tiles stay in the first cache, changed nothing. */
#define _GNU_SOURCE
#include "cpu/head.h"

#if defined(__x86_64__) && defined(__linux__)

#include <cpuid.h>
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#define REQUEST 0x1023 /* ARCH_REQ_XCOMP_PERM of arch_prctl */
#define TILE_DATA 18   /* the state that is requested */
#define STEP 64        /* digits in a row of a tile */

#define TARGET target("amx-tile,amx-int8,avx512f")

typedef struct tile_config {
    uint8_t palette, start, reserved[14];
    uint16_t bytes[16]; /* in a row of each tile */
    uint8_t rows[16];
} tile_config;

__attribute__((TARGET)) static void configure(int rows)
{
    tile_config config;
    memset(&config, 0, sizeof config);
    config.palette = 1;
    for (int i = 0; i < 8; i++) {
        config.bytes[i] = STEP;
        config.rows[i] = (uint8_t)(i < 6 ? rows : 16);
    }
    _tile_loadconfig(&config);
}

#define HIDDEN(tile, digit) _tile_loadd(tile, h + (digit)*K + k, sb_cpu_pitch(K))
#define WEIGHTS(tile, plane)                                                                       \
    _tile_loadd(tile, w + (k / 4 * planes + (plane)) * SB_LEAF * 4, planes * SB_LEAF * 4)

/* Levels 0 .. 2, of two planes. */
__attribute__((TARGET)) static void levels_of_two(int32_t (*levels)[16][SB_LEAF], const int8_t *w,
                                                  const int8_t *h, int64_t K)
{
    const int64_t planes = 2;
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    for (int64_t k = 0; k < K; k += STEP) {
        HIDDEN(3, 0);
        WEIGHTS(6, 0);
        WEIGHTS(7, 1);
        _tile_dpbssd(0, 3, 6);
        _tile_dpbssd(1, 3, 7);
        HIDDEN(4, 1);
        _tile_dpbssd(2, 4, 7);
        _tile_dpbssd(1, 4, 6);
        HIDDEN(5, 2);
        _tile_dpbssd(2, 5, 6);
    }
    _tile_stored(0, levels[0], 64);
    _tile_stored(1, levels[1], 64);
    _tile_stored(2, levels[2], 64);
}

/* Levels 0 .. 4, of three planes: the last two first. */
__attribute__((TARGET)) static void levels_of_three(int32_t (*levels)[16][SB_LEAF], const int8_t *w,
                                                    const int8_t *h, int64_t K)
{
    const int64_t planes = 3;
    _tile_zero(0);
    _tile_zero(1);
    for (int64_t k = 0; k < K; k += STEP) {
        HIDDEN(3, 1);
        HIDDEN(4, 2);
        WEIGHTS(6, 1);
        WEIGHTS(7, 2);
        _tile_dpbssd(0, 3, 7);
        _tile_dpbssd(1, 4, 7);
        _tile_dpbssd(0, 4, 6);
    }
    _tile_stored(0, levels[3], 64);
    _tile_stored(1, levels[4], 64);
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    for (int64_t k = 0; k < K; k += STEP) {
        HIDDEN(3, 0);
        HIDDEN(4, 1);
        HIDDEN(5, 2);
        WEIGHTS(6, 0);
        WEIGHTS(7, 1);
        _tile_dpbssd(0, 3, 6);
        _tile_dpbssd(1, 3, 7);
        _tile_dpbssd(2, 4, 7);
        _tile_dpbssd(1, 4, 6);
        _tile_dpbssd(2, 5, 6);
        WEIGHTS(7, 2);
        _tile_dpbssd(2, 3, 7);
    }
    _tile_stored(0, levels[0], 64);
    _tile_stored(1, levels[1], 64);
    _tile_stored(2, levels[2], 64);
}

__attribute__((TARGET)) static void products(int64_t (*sums)[SB_LEAF], const int8_t *digits,
                                             const void *packed, int rows, int64_t K, int planes)
{
    int32_t levels[5][16][SB_LEAF];
    configure(rows);
    if (planes == 2) levels_of_two(levels, digits, packed, K);
    else levels_of_three(levels, digits, packed, K);
    _tile_release();
    for (int i = 0; i < rows; i++) {
        int32_t of_row[5][SB_LEAF];
        for (int n = 0; n < 2 * planes - 1; n++) memcpy(of_row[n], levels[n][i], sizeof of_row[n]);
        sb_cpu_add_levels(sums[i], (const int32_t(*)[SB_LEAF])of_row, planes);
    }
}

/* Whether the processor and the system have tiles, and this process may use them. */
static int available(void)
{
    unsigned a, b, c, d, low, high;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(d >> 24 & 1) || !(d >> 25 & 1)) return 0;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_OSXSAVE)) return 0;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    if ((low >> 17 & 3) != 3) return 0;
    return syscall(SYS_arch_prctl, REQUEST, TILE_DATA) == 0;
}

const sb_product_isa sb_products_amx = { "amx", available, sb_cpu_pack_digits, products };

#else /* another architecture or system */

static int available(void) { return 0; }

const sb_product_isa sb_products_amx = { "amx", available, 0, 0 };

#endif
