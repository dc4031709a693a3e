#include "tests/support/encoded.h"

#include "base/files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int encoded_ids(const struct vocab *v, const char *text, bool parse_special, uint32_t *ret,
                uint32_t max)
{
    struct vocab_encoder *e;
    size_t n = 0, got;
    int r = vocab_encoder_new(v, &e);

    if (r < 0)
        return r;
    vocab_encoder_start(e, text, strlen(text), parse_special);
    do {
        r = vocab_encoder_next(e, ret + n, max - n, &got);
        n += r < 0 ? 0 : got;
    } while (r == 0 && n < max);
    vocab_encoder_free(e);
    return r < 0 ? r : (int)n;
}

int encoded_file(const struct vocab *v, const char *path, uint32_t *ret, uint32_t max)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC), r = fd < 0 ? -errno : 0;
    struct stat st = { .st_size = 0 };
    char *text = NULL;

    if (r == 0 && fstat(fd, &st) < 0)
        r = -errno;
    if (r == 0)
        text = calloc(1, (size_t)st.st_size + 1);
    if (r == 0)
        r = text ? files_read(fd, text, (size_t)st.st_size, 0) : -ENOMEM;
    if (r == 0)
        r = encoded_ids(v, text, false, ret, max);
    free(text);
    if (fd >= 0)
        (void)close(fd);
    return r;
}
