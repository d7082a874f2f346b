/* target.h - the targets of the C API, and how a target reports that a property does not hold. */
#ifndef SB_TARGET_H
#define SB_TARGET_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int fuzz_call(const uint8_t *data, size_t size);
int fuzz_conventional(const uint8_t *data, size_t size);
int fuzz_draws(const uint8_t *data, size_t size);
int fuzz_heads(const uint8_t *data, size_t size);
int fuzz_rows(const uint8_t *data, size_t size);
int fuzz_shards(const uint8_t *data, size_t size);
int fuzz_stats(const uint8_t *data, size_t size);

/* Ends the process: libFuzzer keeps the input, samebits-spec names the file. */
#define HOLDS(condition, ...)                                                                      \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, __VA_ARGS__);                                                          \
            fprintf(stderr, ": %s does not hold\n", #condition);                                   \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

#endif
