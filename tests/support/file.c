#include "tests/support/file.h"

#include <stdio.h>
#include <stdlib.h>

uint8_t *file_read(const char *path, size_t *ret_len)
{
    FILE *f = fopen(path, "rb");
    uint8_t *bytes = NULL;
    long len;

    if (!f || fseek(f, 0, SEEK_END) < 0 || (len = ftell(f)) < 0 || fseek(f, 0, SEEK_SET) < 0)
        goto fail;
    bytes = malloc((size_t)len + 1);
    if (!bytes || fread(bytes, 1, (size_t)len, f) != (size_t)len)
        goto fail;
    bytes[len] = '\0';
    fclose(f);
    *ret_len = (size_t)len;
    return bytes;

fail:
    perror(path);
    abort();
}

void file_write(const char *path, const void *bytes, size_t n)
{
    FILE *f = fopen(path, "wb");

    if (f && fwrite(bytes, 1, n, f) == n && fclose(f) == 0)
        return;
    perror(path);
    abort();
}
