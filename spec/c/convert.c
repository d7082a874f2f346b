/* convert.c - checks the conversion of every binary16 against the definition of the format. */
#include "det/convert.h"

#include <math.h>
#include <stdio.h>

#include "spec.h"

int check_f16_all(void)
{
    int wrong = 0;
    for (uint32_t b = 0; b < 65536; b++) {
        int e = (int)(b >> 10 & 31), m = (int)(b & 1023);
        float x = sb_from_f16((uint16_t)b), sign = b & 0x8000 ? -1.0f : 1.0f, want;
        if (e == 31 && m != 0) {
            wrong += !sb_is_nan(x);
            continue;
        }
        if (e == 31) want = sign * INFINITY;
        else if (e == 0) want = sign * ldexpf((float)m, -24);
        else want = sign * ldexpf((float)(1024 + m), e - 25);
        wrong += sb_bits32(x) != sb_bits32(want);
    }
    printf("65536 encodings: %d wrong\n", wrong);
    return wrong == 0;
}
