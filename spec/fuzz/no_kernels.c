/* no_kernels.c - the library as it is built without nvcc. */
#include <stdint.h>

#include "../faults/embedded.h"

#define DEFINE(name, LIST)                                                                         \
    const unsigned char sb_fatbin_##name[1] = { 0 };                                               \
    const uint64_t sb_fatbin_##name##_size = 0;
EMBEDDED(DEFINE)
