#include "daemon/headroom.h"

#include <inttypes.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

/* v1 says "no limit" by a number near 2^63, rounded to pages. */
#define NO_LIMIT ((uint64_t)1 << 62)

/* What the two versions call the same things. */
struct version {
    const char *mounts[2]; /* where their hierarchy may be */
    const char *limit, *used, *inactive, *active;
};
static const struct version v1 = { { "/sys/fs/cgroup/memory", NULL },
                                   "memory.limit_in_bytes",
                                   "memory.usage_in_bytes",
                                   "total_inactive_file",
                                   "total_active_file" };
static const struct version v2 = { { "/sys/fs/cgroup", "/sys/fs/cgroup/unified" },
                                   "memory.max",
                                   "memory.current",
                                   "inactive_file",
                                   "active_file" };

/* The number behind `key` in a file of lines "key number" or "key: number kB"; key NULL: the file
 * is one number. False: there is none ("max"). "kB" of /proc/meminfo are KiB. */
static bool read_number(const char *path, const char *key, uint64_t *ret)
{
    FILE *f = fopen(path, "re");
    char line[256];
    bool found = false;

    if (!f)
        return false;
    while (!found && fgets(line, sizeof(line), f)) {
        size_t n = key ? strlen(key) : 0;
        const char *at = line + n;

        if (key && (strncmp(line, key, n) != 0 || (*at != ' ' && *at != ':')))
            continue;
        at += strspn(at, ": \t");
        found = *at >= '0' && *at <= '9';
        if (found)
            *ret = strtoull(at, NULL, 10) << (strstr(at, "kB") ? 10 : 0);
        if (!key)
            break;
    }
    (void)fclose(f);
    return found;
}

/* Each of these lowers h->bytes if it knows of less, and says so in h->cause: the last one to do it
 * is the one that counts. */
static void ask_machine(const char *root, struct headroom *h)
{
    char path[PATH_MAX];
    uint64_t n;

    (void)snprintf(path, sizeof(path), "%s/proc/meminfo", root);
    if (!read_number(path, "MemAvailable", &n) || n >= h->bytes)
        return;
    h->bytes = n;
    (void)snprintf(h->cause, sizeof(h->cause), "the machine has %" PRIu64 " bytes available", n);
}

/* A file of a cgroup; its path ends without a slash, that of the root is empty. */
static bool read_of(const char *root, const char *mount, const char *group, const char *name,
                    const char *key, uint64_t *ret)
{
    char path[PATH_MAX];
    int n = snprintf(path, sizeof(path), "%s%s%s/%s", root, mount, group, name);

    return n > 0 && (size_t)n < sizeof(path) && read_number(path, key, ret);
}

/* One cgroup. Files that are in its page cache count as used there until somebody else needs the
 * memory: a model that was just read would seem to have filled it. */
static void ask_group(const char *root, const struct version *v, const char *mount,
                      const char *group, struct headroom *h)
{
    uint64_t limit, used = 0, inactive = 0, active = 0, held, left;

    if (!read_of(root, mount, group, v->limit, NULL, &limit) || limit >= NO_LIMIT)
        return;
    (void)read_of(root, mount, group, v->used, NULL, &used);
    (void)read_of(root, mount, group, "memory.stat", v->inactive, &inactive);
    (void)read_of(root, mount, group, "memory.stat", v->active, &active);
    held = used > inactive + active ? used - inactive - active : 0;
    left = limit > held ? limit - held : 0;
    if (left >= h->bytes)
        return;
    h->bytes = left;
    (void)snprintf(h->cause, sizeof(h->cause),
                   "the cgroup %.160s has a limit of %" PRIu64 " bytes and %" PRIu64 " in use",
                   *group ? group : "/", limit, held);
}

/* The group and all above it, as a limit holds for all below. In a container the path may be the
 * host's, of which only the end is mounted here: what is not there is passed over, and the mount's
 * own root is always asked. */
static void ask_ancestors(const char *root, const struct version *v, char *group,
                          struct headroom *h)
{
    for (;;) {
        /* From the group itself up, until nothing is left: the mount's root is the last. */
        char *slash = strrchr(group, '/');

        for (int i = 0; i < 2 && v->mounts[i]; i++)
            ask_group(root, v, v->mounts[i], group, h);
        if (!slash)
            return;
        *slash = '\0';
    }
}

/* Lines "4:memory:/a/b" (v1, by controllers) and "0::/a/b" (v2). A machine may have both. */
static void ask_cgroups(const char *root, struct headroom *h)
{
    char path[PATH_MAX], line[PATH_MAX + 64];
    FILE *f;

    (void)snprintf(path, sizeof(path), "%s/proc/self/cgroup", root);
    f = fopen(path, "re");
    if (!f)
        return;
    while (fgets(line, sizeof(line), f)) {
        char *controllers = strchr(line, ':'), *group, *save, *name;
        bool memory;

        line[strcspn(line, "\n")] = '\0';
        group = controllers ? strchr(controllers + 1, ':') : NULL;
        if (!group)
            continue;
        *group++ = '\0';
        controllers++;
        if (strcmp(group, "/") == 0)
            *group = '\0';
        if (!*controllers)
            ask_ancestors(root, &v2, group, h);
        memory = false;
        for (name = strtok_r(controllers, ",", &save); name; name = strtok_r(NULL, ",", &save))
            memory |= strcmp(name, "memory") == 0;
        if (memory)
            ask_ancestors(root, &v1, group, h);
    }
    (void)fclose(f);
}

/* A limit of this process, of which so much is used. */
static void ask_limit(int which, const char *name, uint64_t used, struct headroom *h)
{
    struct rlimit l;
    uint64_t left;

    if (getrlimit(which, &l) < 0 || l.rlim_cur == RLIM_INFINITY)
        return;
    left = l.rlim_cur > used ? l.rlim_cur - used : 0;
    if (left >= h->bytes)
        return;
    h->bytes = left;
    (void)snprintf(h->cause, sizeof(h->cause),
                   "%s of this process is %" PRIu64 " bytes and %" PRIu64 " are in use", name,
                   (uint64_t)l.rlim_cur, used);
}

/* statm counts pages: the first field is all of the address space, the sixth data and stack. */
static void ask_limits(struct headroom *h)
{
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE), all = 0, data = 0;
    FILE *f = fopen("/proc/self/statm", "re");

    if (!f)
        return;
    if (fscanf(f, "%" SCNu64 " %*u %*u %*u %*u %" SCNu64, &all, &data) == 2) {
        ask_limit(RLIMIT_AS, "RLIMIT_AS (ulimit -v)", all * page, h);
        ask_limit(RLIMIT_DATA, "RLIMIT_DATA (ulimit -d)", data * page, h);
    }
    (void)fclose(f);
}

void headroom_read(const char *root, struct headroom *ret)
{
    *ret = (struct headroom){ .bytes = UINT64_MAX };
    ask_machine(root, ret);
    ask_cgroups(root, ret);
    ask_limits(ret);
}

/* Who asks is given what he asks for or nothing: a smaller pool would be a surprise later. */
uint64_t headroom_kv_bytes(const struct headroom *h, uint64_t asked)
{
    uint64_t room = h->bytes > HEADROOM_RESERVE ? h->bytes - HEADROOM_RESERVE : 0;

    if (asked)
        return asked <= room ? asked : 0;
    return room / 2 < HEADROOM_KV_DEFAULT ? room / 2 : HEADROOM_KV_DEFAULT;
}

uint64_t headroom_device_kv_bytes(const struct headroom *h)
{
    return h->bytes - h->bytes / 16;
}

uint64_t headroom_host_bytes(const struct headroom *h, uint64_t pool)
{
    uint64_t most = h->bytes / 4 < HEADROOM_HOST_MAX ? h->bytes / 4 : HEADROOM_HOST_MAX;

    return pool < most ? pool : most;
}
