/* version.c - the three versions of the library. */
#include "samebits.h"

const char *sb_version(void) { return SB_VERSION; }
uint32_t sb_abi(void) { return SB_ABI; }
uint32_t sb_numerics(void) { return SB_NUMERICS; }
