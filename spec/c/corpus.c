/* corpus.c - what fuzzing found worth keeping, once more, without a fuzzer. A property that does
 * not hold aborts. tools/corpus.lua says how the inputs are kept. */
#include <stdio.h>
#include <string.h>

#include "../fuzz/target.h"
#include "spec.h"

enum { MAX_INPUT = 4096, MAX_LINE = 2 * MAX_INPUT + 64 };

typedef int target(const uint8_t *data, size_t size);

/* The bytes that hex digits stand for, up to the first that is none. */
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
        printf("%s: %.*s\n", path, (int)(hex - line), line); /* the last line where it aborts */
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
           replay("rows", fuzz_rows) && replay("shards", fuzz_shards) &&
           replay("stats", fuzz_stats);
}
