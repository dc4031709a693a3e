/* gistd.conf is read and changed as text, by lines, and not by gistd's own parser: comments, order
 * and what a newer gistd may know stay as they are. */
#include "ctl/ctl_conf.h"

#include "base/files.h"
#include "ctl/ctl.h"
#include "ctl/ctl_tool.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* The line `model = ...` in text: where it begins and how long it is, without its end. Of several
 * the last, which is the one that gistd takes. */
static const char *find_line(const char *text, size_t *ret_len)
{
    const char *found = NULL;

    while (*text) {
        const char *p = text + strspn(text, " \t");
        size_t len = strcspn(text, "\n");

        if (strncmp(p, "model", 5) == 0 && p[5 + strspn(p + 5, " \t")] == '=') {
            *ret_len = len;
            found = text;
        }
        text += len;
        text += *text == '\n';
    }
    return found;
}

/* As gistd reads it: without the blanks around it. */
static void read_value(const char *line, size_t len, char ret[OPTIONS_TEXT_MAX + 1])
{
    const char *value = memchr(line, '=', len), *end = line + len;

    value++;
    while (value < end && isspace((unsigned char)*value))
        value++;
    while (end > value && isspace((unsigned char)end[-1]))
        end--;
    (void)snprintf(ret, OPTIONS_TEXT_MAX + 1, "%.*s", (int)(end - value), value);
}

/* The file that a daemon of this user reads: its path, and its text; neither when there is none. */
static int read_file(char path[OPTIONS_TEXT_MAX + 1], struct ctl_text *t)
{
    path[0] = '\0';
    options_find_file(getenv("XDG_CONFIG_HOME"), getenv("HOME"), "gistd.conf", path);
    return path[0] ? ctl_text_add_file(t, path) : ctl_text_add(t, "", 0);
}

int ctl_conf_model(char ret[OPTIONS_TEXT_MAX + 1])
{
    const char *env = getenv("GISTD_MODEL"), *line;
    char path[OPTIONS_TEXT_MAX + 1];
    struct ctl_text t = { 0 };
    size_t len;
    int r = 0;

    ret[0] = '\0';
    if (env && *env) {
        (void)snprintf(ret, OPTIONS_TEXT_MAX + 1, "%s", env);
        return CTL_OK;
    }
    if (read_file(path, &t) < 0)
        r = ctl_fail(CTL_FAILED, "cannot read %s.", path);
    line = r == 0 && t.bytes ? find_line(t.bytes, &len) : NULL;
    if (line)
        read_value(line, len, ret);
    ctl_text_fini(&t);
    return r;
}

/* Who may read it stays: of the one that it replaces, or is a copy of. */
static mode_t mode_of(const char *from)
{
    struct stat st;

    return from[0] && stat(from, &st) == 0 ? S_IRUSR | S_IWUSR | (st.st_mode & 0777) : 0644;
}

/* Beside the file, synced, and then in its place; a link to it stays one. */
static int replace(const char *path, const struct ctl_text *t, mode_t mode)
{
    char real[PATH_MAX], beside[PATH_MAX + 16];
    int fd, r;

    if (realpath(path, real))
        path = real;
    (void)snprintf(beside, sizeof(beside), "%s.XXXXXX", path);
    fd = mkostemp(beside, O_CLOEXEC);
    if (fd < 0)
        return -errno;
    r = files_write(fd, t->bytes, t->len, 0);
    if (r == 0 && (fchmod(fd, mode) < 0 || fsync(fd) < 0))
        r = -errno;
    (void)close(fd);
    if (r == 0 && rename(beside, path) < 0)
        r = -errno;
    if (r < 0)
        (void)unlink(beside);
    return r < 0 ? r : files_sync_entry(path, NULL);
}

/* The old text with the line in it: in the place of the one before, else as the first. */
static int put_line(const char *old, const char *model, struct ctl_text *t)
{
    size_t len = 0;
    const char *line = find_line(old, &len);
    size_t before = line ? (size_t)(line - old) : 0;
    int r = ctl_text_add(t, old, before);

    if (r == 0)
        r = ctl_text_add(t, "model = ", strlen("model = "));
    if (r == 0)
        r = ctl_text_add(t, model, strlen(model));
    if (r == 0 && (!line || line[len] == '\0'))
        r = ctl_text_add(t, "\n", 1);
    if (r == 0)
        r = ctl_text_add(t, old + before + len, strlen(old + before + len));
    return r;
}

int ctl_conf_set_model(const char *path, char ret[OPTIONS_TEXT_MAX + 1])
{
    struct ctl_text old = { 0 }, text = { 0 };
    char from[OPTIONS_TEXT_MAX + 1], folder[PATH_MAX];
    int r = ctl_tool_folder("XDG_CONFIG_HOME", ".config", folder);

    if (strchr(path, '\n') || isspace((unsigned char)path[strlen(path) - 1]) ||
        strlen(path) > OPTIONS_TEXT_MAX)
        return ctl_fail(CTL_FAILED, "gistd.conf has no way to write the path '%s'; rename it.",
                        path);
    if (r == 0 && snprintf(ret, OPTIONS_TEXT_MAX + 1, "%s/gistd.conf", folder) > OPTIONS_TEXT_MAX)
        r = -ENAMETOOLONG;
    if (r < 0)
        return ctl_fail(CTL_FAILED, "there is no folder for gistd.conf: set HOME.");
    /* A file of one's own hides the machine's: what that says is taken over. */
    r = read_file(from, &old);
    if (r == 0 && strlen(old.bytes) != old.len)
        r = -EILSEQ;
    if (r < 0)
        r = ctl_fail(CTL_FAILED, "cannot read %s: %s", from, strerror(-r));
    if (r == 0) {
        r = files_make_path(folder, NULL);
        if (r == 0)
            r = put_line(old.bytes, path, &text);
        if (r == 0)
            r = replace(ret, &text, mode_of(from));
        if (r < 0)
            r = ctl_fail(CTL_FAILED, "cannot write %s: %s", ret, strerror(-r));
    }
    if (r == 0 && from[0] && strcmp(from, ret) != 0)
        (void)ctl_fail(CTL_OK, "%s is a copy of %s, which is not read any more.", ret, from);
    ctl_text_fini(&old);
    ctl_text_fini(&text);
    return r;
}
