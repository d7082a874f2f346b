/* corpus.c - what fuzzing found worth keeping, once more, without a fuzzer. A property that does
 * not hold aborts. */
#include <dirent.h>
#include <stdio.h>

#include "../fuzz/target.h"
#include "spec.h"

typedef int target(const uint8_t *data, size_t size);

static int replay(const char *name, target *try)
{
    char folder_name[64];
    DIR *folder;
    struct dirent *entry;
    int inputs = 0;
    snprintf(folder_name, sizeof folder_name, "spec/fuzz/corpus/%s", name);
    folder = opendir(folder_name);
    while (folder && (entry = readdir(folder)) != NULL) {
        char path[512];
        uint8_t data[4096];
        FILE *file;
        size_t size;
        if (entry->d_name[0] == '.') continue;
        snprintf(path, sizeof path, "%s/%s", folder_name, entry->d_name);
        file = fopen(path, "rb");
        if (!file) continue;
        size = fread(data, 1, sizeof data, file);
        fclose(file);
        printf("%s\n", path); /* the last line where it aborts */
        fflush(stdout);
        try(data, size);
        inputs++;
    }
    if (folder) closedir(folder);
    printf("%s: %d inputs\n", name, inputs);
    return inputs > 20;
}

int check_corpus(void)
{
    return replay("call", fuzz_call) && replay("conventional", fuzz_conventional) &&
           replay("rows", fuzz_rows) && replay("shards", fuzz_shards) &&
           replay("stats", fuzz_stats);
}
