/* corpus.c - what fuzzing found worth keeping, once more, without a fuzzer. A property that does
 * not hold aborts. */
#include <dirent.h>
#include <stdio.h>

#include "../fuzz/target.h"
#include "spec.h"

#define FOLDER "spec/fuzz/corpus/call"

int check_corpus(void)
{
    DIR *folder = opendir(FOLDER);
    struct dirent *entry;
    int inputs = 0;
    while (folder && (entry = readdir(folder)) != NULL) {
        char path[512];
        uint8_t data[4096];
        FILE *file;
        size_t size;
        if (entry->d_name[0] == '.') continue;
        snprintf(path, sizeof path, FOLDER "/%s", entry->d_name);
        file = fopen(path, "rb");
        if (!file) continue;
        size = fread(data, 1, sizeof data, file);
        fclose(file);
        printf("%s\n", entry->d_name); /* the last line where it aborts */
        fflush(stdout);
        LLVMFuzzerTestOneInput(data, size);
        inputs++;
    }
    if (folder) closedir(folder);
    printf("%d inputs\n", inputs);
    return inputs > 20;
}
