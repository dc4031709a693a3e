/* The C library has no functions for Landlock yet, and the kernel's header on a stable distribution
 * is older than its kernel: numbers that may be missing there are given here, as the kernel's
 * documentation (userspace-api/landlock) has them. A right that the running kernel does not know is
 * left out of what is asked of it.
 */
#include "daemon/landlock.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/landlock.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Rights by the version that brought them. */
#define FS_REFER      (UINT64_C(1) << 13) /* 2: files move between folders */
#define FS_TRUNCATE   (UINT64_C(1) << 14) /* 3 */
#define FS_IOCTL_DEV  (UINT64_C(1) << 15) /* 5 */
#define FS_ALL_OF_1   ((UINT64_C(1) << 13) - 1)
#define NET_BIND_TCP  (UINT64_C(1) << 0) /* 4 */
#define NET_CONNECT   (UINT64_C(1) << 1)
#define SCOPE_SIGNALS (UINT64_C(1) << 1) /* 6: signals go to this process alone */

#define FS_READ (LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR)
#define FS_KEEP                                                                                    \
    (FS_READ | LANDLOCK_ACCESS_FS_WRITE_FILE | FS_TRUNCATE | FS_REFER |                            \
     LANDLOCK_ACCESS_FS_REMOVE_DIR | LANDLOCK_ACCESS_FS_REMOVE_FILE |                              \
     LANDLOCK_ACCESS_FS_MAKE_DIR | LANDLOCK_ACCESS_FS_MAKE_REG)

/* What makes sense of a file; the kernel refuses the rest. */
#define FS_OF_FILES                                                                                \
    (LANDLOCK_ACCESS_FS_EXECUTE | LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_READ_FILE |   \
     FS_TRUNCATE | FS_IOCTL_DEV)

/* As the kernel has it since version 6; it takes a shorter one from who knows less. */
struct ruleset {
    uint64_t fs, net, scoped;
};

static const uint64_t rights[] = {
    [LANDLOCK_READ] = FS_READ,
    [LANDLOCK_KEEP] = FS_KEEP,
    [LANDLOCK_REMOVE] = LANDLOCK_ACCESS_FS_REMOVE_FILE,
    [LANDLOCK_WRITE] = FS_READ | LANDLOCK_ACCESS_FS_WRITE_FILE | FS_IOCTL_DEV,
    [LANDLOCK_RUN] = FS_READ | LANDLOCK_ACCESS_FS_EXECUTE,
};

static uint64_t known_to(int abi)
{
    return FS_ALL_OF_1 | (abi >= 2 ? FS_REFER : 0) | (abi >= 3 ? FS_TRUNCATE : 0) |
           (abi >= 5 ? FS_IOCTL_DEV : 0);
}

static int make_ruleset(int abi, bool tcp)
{
    const struct ruleset r = { .fs = known_to(abi),
                               .net = tcp ? 0 : NET_BIND_TCP | NET_CONNECT,
                               .scoped = SCOPE_SIGNALS };
    size_t size = abi >= 6 ? sizeof(r) : abi >= 4 ? 2 * sizeof(r.fs) : sizeof(r.fs);
    int fd = (int)syscall(SYS_landlock_create_ruleset, &r, size, 0);

    return fd < 0 ? -errno : fd;
}

static int add_place(int ruleset, int abi, const struct landlock_place *p)
{
    struct landlock_path_beneath_attr a = { .allowed_access = rights[p->may] & known_to(abi) };
    struct stat st;
    int r = 0;

    a.parent_fd = open(p->path, O_PATH | O_CLOEXEC);
    if (a.parent_fd < 0)
        return 0;
    if (fstat(a.parent_fd, &st) < 0 || !S_ISDIR(st.st_mode))
        a.allowed_access &= FS_OF_FILES;
    if (syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH, &a, 0) < 0)
        r = -errno;
    (void)close(a.parent_fd);
    return r;
}

int landlock_limit(const struct landlock_place *places, size_t n, bool tcp, int *ret_abi)
{
    int abi = (int)syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
    int ruleset, r = 0;

    if (abi < 0)
        return -errno;
    ruleset = make_ruleset(abi, tcp);
    if (ruleset < 0)
        return ruleset;
    for (size_t i = 0; r == 0 && i < n; i++)
        r = add_place(ruleset, abi, &places[i]);
    if (r == 0 && (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ||
                   syscall(SYS_landlock_restrict_self, ruleset, 0) < 0))
        r = -errno;
    (void)close(ruleset);
    if (r == 0 && ret_abi)
        *ret_abi = abi;
    return r;
}
