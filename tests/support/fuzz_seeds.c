#include "tests/support/fuzz_seeds.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *fuzz_seeds_dir(int argc, char *const *argv)
{
    for (int i = 1; i < argc; i++)
        if (strncmp(argv[i], "--seeds=", 8) == 0)
            return argv[i] + 8;
    return NULL;
}

void fuzz_seeds_put(const char *dir, const char *name, const void *data, size_t len)
{
    char path[512];
    FILE *f;

    if (snprintf(path, sizeof(path), "%s/%s", dir, name) >= (int)sizeof(path))
        abort();
    f = fopen(path, "wb");
    if (!f || fwrite(data, 1, len, f) != len || fclose(f) != 0) {
        perror(path);
        abort();
    }
}
