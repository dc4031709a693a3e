#include "daemon/sandbox.h"

#include "base/files.h"
#include "daemon/cache_dir.h"
#include "daemon/calls.h"
#include "daemon/landlock.h"
#include "daemon/listener.h"
#include "daemon/log.h"
#include "daemon/scrape.h"
#include "daemon/storage.h"
#include "daemon/weight_image.h"
#include "engine/devices.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>

#define PLACES_MAX 64u

/* Paths are copied: most are parts of an option. */
struct places {
    struct landlock_place at[PLACES_MAX];
    char *owned[PLACES_MAX];
    size_t n;
    int err; /* the first that went wrong */
};

/* --- the files -------------------------------------------------------------------------------- */

/* An error is kept and not returned: the list is made without a look at each, and looked at once,
 * in limit_files. */
static void add(struct places *p, enum landlock_may may, const char *path, size_t len)
{
    if (len == 0 || p->err)
        return;
    if (p->n == PLACES_MAX) {
        p->err = -E2BIG;
        return;
    }
    p->owned[p->n] = strndup(path, len);
    if (!p->owned[p->n]) {
        p->err = -ENOMEM;
        return;
    }
    p->at[p->n] = (struct landlock_place){ p->owned[p->n], may };
    p->n++;
}

static void add_text(struct places *p, enum landlock_may may, const char *path)
{
    add(p, may, path, strlen(path));
}

/* A folder that is not there is made now, since a rule needs one. What can't be made is said by who
 * wants to use it. */
static void add_kept(struct places *p, const char *path)
{
    uint32_t made = 0;

    if (files_make_path(path, &made) == 0)
        files_sync_above(path, made);
    add_text(p, LANDLOCK_KEEP, path);
}

/* To be unlinked at the end, which is a right to its folder. */
static void add_socket(struct places *p, const char *path)
{
    const char *slash = strrchr(path, '/');

    if (slash)
        add(p, LANDLOCK_REMOVE, path, slash == path ? 1 : (size_t)(slash - path));
    else
        add_text(p, LANDLOCK_REMOVE, ".");
}

static void add_adapters(struct places *p, const char *list)
{
    for (; *list; list += strcspn(list, ":"), list += *list == ':')
        add(p, LANDLOCK_READ, list, strcspn(list, ":"));
}

/* A driver is many files of its maker's, and devices; a cache of compiled kernels is kept by it in
 * the home folder, which it does without. */
static void add_driver(struct places *p)
{
    static const char *const libraries[] = { "/usr", "/lib", "/lib64", "/opt", "/etc" };

    for (size_t i = 0; i < sizeof(libraries) / sizeof(*libraries); i++)
        add_text(p, LANDLOCK_RUN, libraries[i]);
    add_text(p, LANDLOCK_WRITE, "/dev");
}

/* NCCL's threads find each other by TCP, on this machine alone, and share memory that has a name
 * for a moment. */
static bool wants_sums(const struct config *c, bool driver)
{
    return driver && c->split_mode == CONFIG_SPLIT_TENSOR;
}

/* What is not there is no rule (landlock.c): a model that was named wrongly is for its loader to
 * say. */
static int limit_files(const struct config *c, const struct listener *l, const struct scrape *m,
                       bool driver, int *ret_abi)
{
    struct places p = { .n = 0 };
    char folder[CACHE_DIR_MAX];
    int r;

    add_text(&p, LANDLOCK_READ, c->model);
    add_adapters(&p, c->adapters);
    /* Memory that is left, where a thread runs, which unit a client is of, the nodes of memory. */
    add_text(&p, LANDLOCK_READ, "/proc");
    add_text(&p, LANDLOCK_READ, "/sys");
    add_text(&p, LANDLOCK_WRITE, "/dev/null");
    if (storage_folder(c, folder))
        add_kept(&p, folder);
    if (weight_image_folder(c, folder))
        add_kept(&p, folder);
    if (l->made)
        add_socket(&p, l->path);
    if (m->made)
        add_socket(&p, m->path);
    if (driver)
        add_driver(&p);
    if (wants_sums(c, driver))
        add_text(&p, LANDLOCK_KEEP, "/dev/shm");
    r = p.err ? p.err : landlock_limit(p.at, p.n, wants_sums(c, driver), ret_abi);
    for (size_t i = 0; i < p.n; i++)
        free(p.owned[i]);
    return r;
}

/* --- all of it -------------------------------------------------------------------------------- */

/* The library of a GPU is loaded now: later nothing may be mapped as code, unless its driver does.
 */
static bool wants_driver(const struct config *c)
{
    const struct backend_ops *ops;
    struct backend_devices devices;

    return devices_library(c->device, &ops, &devices, NULL) == 0 && ops != &backend_cpu &&
           !devices_is_shim(c->device);
}

/* What the kernel lacks is said, or is the end for who insists. */
static int missing(const struct config *c, const char *what, int err, struct why *why)
{
    if (c->sandbox == CONFIG_SANDBOX_YES)
        return why_set(why, -EPERM,
                       "option sandbox: %s can't be limited: %s; with auto gistd does without",
                       what, strerror(-err));
    log_warning("the sandbox is not complete: %s can't be limited: %s", what, strerror(-err));
    return 0;
}

/* Files before system calls: the filter would deny those that Landlock is entered by. no_new_privs
 * is what both of them ask for from who is not root. */
int sandbox_enter(const struct config *c, const struct listener *l, const struct scrape *s,
                  struct why *why)
{
    bool driver;
    int abi = 0, r, files, calls;
    unsigned n = 0;

    if (c->sandbox == CONFIG_SANDBOX_NO) {
        log_warning("the sandbox is off (--sandbox no)");
        return 0;
    }
    (void)prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    driver = wants_driver(c);
    files = limit_files(c, l, s, driver, &abi);
    r = files < 0 ? missing(c, "the files that gistd may open (Landlock)", files, why) : 0;
    if (r < 0)
        return r;
    calls = calls_limit(driver, &n);
    r = calls < 0 ? missing(c, "the system calls of gistd (seccomp)", calls, why) : 0;
    if (files == 0 && calls == 0 && n > 0)
        log_info("sandbox: %u system calls, its own files (Landlock %d)", n, abi);
    else if (files == 0 && calls == 0)
        log_info("sandbox: no programs, no privileges; files %s (Landlock %d)",
                 driver ? "that a GPU's driver needs" : "of its own", abi);
    return r;
}
