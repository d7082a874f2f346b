/* source.h - a fuzzer's bytes as a source of choices; zeros once they are used up. */
#ifndef SB_SOURCE_H
#define SB_SOURCE_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef struct source {
    const uint8_t *data;
    size_t size;
} source;

static inline uint8_t byte(source *s)
{
    if (s->size == 0) return 0;
    s->size--;
    return *s->data++;
}

static inline uint64_t word(source *s)
{
    uint64_t x = 0;
    for (int i = 0; i < 8; i++) x = x << 8 | byte(s);
    return x;
}

/* Mostly 0 .. most; at times a number that no caller would mean. */
static inline int64_t extent(source *s, int64_t most)
{
    static const int64_t odd[] = {
        -1,      INT64_MIN,     INT64_MAX, INT32_MAX,     (int64_t)1 << 32,
        1 << 20, (1 << 20) + 1, 1 << 24,   (1 << 24) + 1, (int64_t)1 << 62
    };
    uint8_t choice = byte(s);
    if (choice < 240) return choice % (most + 1);
    if (choice < 254) return odd[choice % (sizeof odd / sizeof *odd)];
    return (int64_t)word(s);
}

/* An enumerator, or a neighbour of one. */
static inline int32_t dtype(source *s, int32_t first, int32_t last)
{
    uint8_t choice = byte(s);
    return choice < 250 ? first + choice % (last - first + 1) : (int32_t)(int8_t)choice;
}

static inline uint32_t struct_size(source *s, uint32_t right)
{
    return byte(s) == 255 ? right - 8 + byte(s) % 16 : right;
}

static inline float temperature(source *s)
{
    static const float some[] = { 1.0f, 0.7f, 0x1p-10f, 1024.0f, 2.5f };
    static const float odd[] = { 0.0f, -1.0f, 0x1p-11f, 1025.0f };
    uint8_t choice = byte(s);
    uint32_t bits;
    float x;
    if (choice < 240) return some[choice % 5];
    if (choice < 252) return odd[choice % 4];
    bits = (uint32_t)word(s);
    memcpy(&x, &bits, 4);
    return x;
}

#endif
