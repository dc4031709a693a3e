/* ctl/ctl_text.c - growing text, files and standard input. */
#include "ctl/ctl.h"

#include "base/shown.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define READ_BYTES (64u * 1024)

void ctl_text_fini(struct ctl_text *t)
{
    free(t->bytes);
    *t = (struct ctl_text){ 0 };
}

/* Room for n bytes more and a NUL. */
static int text_reserve(struct ctl_text *t, size_t n)
{
    size_t cap = t->cap ? t->cap : 256;
    char *bytes;

    if (n > SIZE_MAX / 4 || t->len > SIZE_MAX / 4)
        return -ENOMEM;
    while (cap < t->len + n + 1)
        cap *= 2;
    if (cap == t->cap)
        return 0;
    bytes = realloc(t->bytes, cap);
    if (!bytes)
        return -ENOMEM;
    t->bytes = bytes;
    t->cap = cap;
    return 0;
}

int ctl_text_add(struct ctl_text *t, const char *bytes, size_t len)
{
    int r = text_reserve(t, len);

    if (r < 0)
        return r;
    if (len > 0)
        memcpy(t->bytes + t->len, bytes, len);
    t->len += len;
    t->bytes[t->len] = '\0';
    return 0;
}

/* Read into the text itself. A signal that is no Ctrl-C changes nothing. */
static int add_fd(struct ctl_text *t, int fd)
{
    for (;;) {
        int r = text_reserve(t, READ_BYTES);
        ssize_t n;

        if (r < 0)
            return r;
        n = read(fd, t->bytes + t->len, READ_BYTES);
        if (n < 0 && errno == EINTR && !ctl_interrupt_came())
            continue;
        if (n < 0)
            return -errno;
        t->len += (size_t)n;
        t->bytes[t->len] = '\0';
        if (n == 0)
            return 0;
    }
}

int ctl_text_add_file(struct ctl_text *t, const char *path)
{
    int fd, r;

    if (strcmp(path, "-") == 0)
        return add_fd(t, STDIN_FILENO);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    r = add_fd(t, fd);
    close(fd);
    return r;
}

int ctl_text_read(struct ctl_text *t, const char *path)
{
    int r = ctl_text_add_file(t, path);

    if (r == 0)
        return 0;
    if (r == -EINTR)
        return CTL_INTERRUPTED;
    return ctl_fail(CTL_FAILED, "cannot read %s: %s",
                    strcmp(path, "-") == 0 ? "standard input" : path, strerror(-r));
}

/* Checked for each piece: that costs a system call, next to the one that writes it. */
void ctl_text_print(const char *text, size_t len)
{
    if (isatty(STDOUT_FILENO))
        shown_write(stdout, SHOWN_TEXT, text, len);
    else
        fwrite(text, 1, len, stdout);
}
