/* corpus.c - runs the inputs that the fuzzers kept through the fuzz targets, without a fuzzer. A
 * property that does not hold aborts the program. tools/corpus.lua describes how the inputs are
 * stored. */
#include <stdio.h>
#include <string.h>

#include "../fuzz/target.h"
#include "spec.h"

enum { MAX_INPUT = 4096, MAX_LINE = 2 * MAX_INPUT + 64 };

typedef int target(const uint8_t *data, size_t size);

/* Decodes hex digits to bytes, up to the first character that is not a hex digit. */
static size_t bytes_of(uint8_t data[MAX_INPUT], const char *hex)
{
    size_t size = 0;
    unsigned byte;
    while (size < MAX_INPUT && sscanf(hex + 2 * size, "%2x", &byte) == 1)
        data[size++] = (uint8_t)byte;
    return size;
}

static int replay(const char *name, target *try)
{
    static char line[MAX_LINE];
    uint8_t data[MAX_INPUT];
    char path[64];
    FILE *file;
    int inputs = 0;
    snprintf(path, sizeof path, "spec/fuzz/corpus/%s.txt", name);
    file = fopen(path, "r");
    while (file && fgets(line, sizeof line, file)) {
        const char *hex = strchr(line, ' ');
        if (!hex) break;
        printf("%s: %.*s\n", path, (int)(hex - line), line); /* the last line at an abort */
        fflush(stdout);
        try(data, bytes_of(data, hex + 1));
        inputs++;
    }
    if (file) fclose(file);
    printf("%s: %d inputs\n", name, inputs);
    return inputs > 20;
}

int check_corpus(void)
{
    return replay("call", fuzz_call) && replay("conventional", fuzz_conventional) &&
           replay("draws", fuzz_draws) && replay("heads", fuzz_heads) &&
           replay("rows", fuzz_rows) && replay("shards", fuzz_shards) &&
           replay("stats", fuzz_stats);
}
