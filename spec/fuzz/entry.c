/* entry.c - the function that libFuzzer calls: the target that FUZZ names. */
#include "target.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) { return FUZZ(data, size); }
