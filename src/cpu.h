/* cpu.h - what the instruction-set paths give the CPU backend. */
#ifndef SB_CPU_H
#define SB_CPU_H

#include <stdint.h>

#include "det/accumulator.h"

/* Adds the leaves of n >= 1 logits to state. The first logit's id is a multiple of 16; where n is
 * not, the row ends here. logits need no alignment. Runs in the contract's floating-point mode. */
typedef void (*sb_reduce)(sb_state *state, const void *logits, int64_t n, const sb_row *row);

typedef struct sb_isa {
    const char *name;
    int (*available)(void); /* on this processor, in this build */
    sb_reduce f32, f16, bf16;
} sb_isa;

extern const sb_isa sb_isa_avx512, sb_isa_avx2, sb_isa_scalar;

#endif
