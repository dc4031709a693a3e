/* Programs and files that belong to gistctl are looked for beside it first: in a build tree, and
 * where it is installed, both without a path that is compiled in. */
#include "ctl/ctl_tool.h"

#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

/* The first of places, each behind the folder of this program, that is there. */
static int find_beside(const char *const *places, int mode, char ret[PATH_MAX])
{
    char self[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
    char *slash;

    if (n < 0)
        return -errno;
    self[n] = '\0';
    slash = strrchr(self, '/');
    if (!slash)
        return -ENOENT;
    slash[1] = '\0';
    for (; *places; places++) {
        char path[2 * PATH_MAX];

        (void)snprintf(path, sizeof(path), "%s%s", self, *places);
        if (access(path, mode) == 0 && realpath(path, ret))
            return 0;
    }
    return -ENOENT;
}

/* Beside this one, or the first of $PATH. An empty part of $PATH, which shells take for the current
 * folder, is passed over. */
int ctl_tool_gistd(char ret[PATH_MAX])
{
    static const char *const places[] = { "gistd", NULL };
    const char *path = getenv("PATH");

    if (find_beside(places, X_OK, ret) == 0)
        return 0;
    while (path && *path) {
        int n = (int)strcspn(path, ":");

        if (n > 0 && snprintf(ret, PATH_MAX, "%.*s/gistd", n, path) < PATH_MAX &&
            access(ret, X_OK) == 0)
            return 0;
        path += n;
        path += *path == ':';
    }
    return -ENOENT;
}

int ctl_tool_no_gistd(void)
{
    return ctl_fail(CTL_FAILED, "there is no gistd beside gistctl, and none in $PATH.");
}

int ctl_tool_fetch(char ret[PATH_MAX])
{
    static const char *const places[] = { "../lib/gistd/fetch-model", "../../scripts/fetch-model",
                                          NULL };

    return find_beside(places, X_OK, ret);
}

int ctl_tool_list(char ret[PATH_MAX])
{
    static const char *const places[] = { "../lib/gistd/models", "../../scripts/models", NULL };

    return find_beside(places, R_OK, ret);
}

/* A file in memory: a pipe would have to be read while the program runs. */
static int redirect(posix_spawn_file_actions_t *actions, int fd, const struct ctl_text *to)
{
    int memory;

    if (!to)
        return -1;
    memory = memfd_create("gistctl", MFD_CLOEXEC);
    if (memory >= 0)
        posix_spawn_file_actions_adddup2(actions, memory, fd);
    return memory;
}

/* Takes fd. -EMFILE: there was none to redirect to. */
static int collect(int fd, struct ctl_text *to)
{
    char block[4096];
    ssize_t n = 0;
    int r = 0;

    if (fd < 0)
        return to ? -EMFILE : 0;
    if (lseek(fd, 0, SEEK_SET) < 0)
        r = -errno;
    while (r == 0 && (n = read(fd, block, sizeof(block))) > 0)
        r = ctl_text_add(to, block, (size_t)n);
    (void)close(fd);
    return r < 0 ? r : n < 0 ? -errno : ctl_text_add(to, "", 0);
}

/* Output that nobody wants (NULL) goes where ours goes. Both files are read to the end, also after
 * an error, since that closes them. */
int ctl_tool_run(char *const *argv, struct ctl_text *out, struct ctl_text *err, int *ret_code)
{
    posix_spawn_file_actions_t actions;
    int out_fd, err_fd, status, r, e;
    pid_t pid;

    if (posix_spawn_file_actions_init(&actions) != 0)
        return -ENOMEM;
    posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    out_fd = redirect(&actions, STDOUT_FILENO, out);
    err_fd = redirect(&actions, STDERR_FILENO, err);
    r = -posix_spawn(&pid, argv[0], &actions, NULL, argv, environ);
    posix_spawn_file_actions_destroy(&actions);
    while (r == 0 && waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            r = -errno;
    if (r == 0)
        *ret_code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    e = collect(out_fd, out);
    r = r < 0 ? r : e;
    e = collect(err_fd, err);
    return r < 0 ? r : e;
}

int ctl_tool_folder(const char *name, const char *fallback, char ret[PATH_MAX])
{
    const char *folder = getenv(name), *home = getenv("HOME");
    int n;

    if (folder && folder[0] == '/')
        n = snprintf(ret, PATH_MAX, "%s/gistd", folder);
    else if (home && home[0] == '/')
        n = snprintf(ret, PATH_MAX, "%s/%s/gistd", home, fallback);
    else
        return -ENOENT;
    return n < PATH_MAX ? 0 : -ENAMETOOLONG;
}
