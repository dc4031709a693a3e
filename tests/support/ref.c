#include "tests/support/ref.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HEAD_BYTES 24u

int ref_open(const char *path, struct ref *ret)
{
    FILE *f = fopen(path, "rb");
    struct ref r = { 0 };
    uint32_t head[4];
    const uint32_t *at;
    long len;

    if (!f)
        return -errno;
    if (fseek(f, 0, SEEK_END) < 0 || (len = ftell(f)) < (long)HEAD_BYTES)
        goto fail;
    rewind(f);
    r.mem = malloc((size_t)len);
    if (!r.mem || fread(r.mem, 1, (size_t)len, f) != (size_t)len || memcmp(r.mem, "GISTREF1", 8))
        goto fail;
    memcpy(head, (const char *)r.mem + 8, sizeof(head));
    r.n_tokens = head[0];
    r.n_vocab = head[1];
    r.window = head[2];
    r.n_rows = head[3];
    if (HEAD_BYTES + 8 * (uint64_t)r.n_tokens + 4 * r.n_rows * (1 + (uint64_t)r.n_vocab) !=
        (uint64_t)len)
        goto fail;

    at = (const uint32_t *)r.mem + HEAD_BYTES / 4;
    r.ids = at;
    r.logprobs = (const float *)(at + r.n_tokens);
    r.row_pos = at + 2 * (size_t)r.n_tokens;
    r.rows = (const float *)(r.row_pos + r.n_rows);
    fclose(f);
    *ret = r;
    return 0;

fail:
    fclose(f);
    free(r.mem);
    return -EINVAL;
}

void ref_close(struct ref *r)
{
    free(r->mem);
    *r = (struct ref){ 0 };
}
