/* main.c - the golden vectors of spec/c/vectors.c as a program of two files that compiles in a
 * second: leaves, logarithms and constants, but no instruction-set path. For flags_spec.lua. */
#include "cpu/isa.h"
#include "spec.h"

static int nowhere(void) { return 0; }

const sb_isa sb_isa_scalar = { .name = "scalar", .available = nowhere };
const sb_isa sb_isa_avx2 = { .name = "avx2", .available = nowhere };
const sb_isa sb_isa_avx512 = { .name = "avx512", .available = nowhere };

int main(void) { return check_vectors() ? 0 : 1; }
