/* engine/plugin.c - loads a library from beside the program, and looks whether it is of its
 * version. */
#include "engine/plugin.h"

#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* clang-format off */
#define NEEDS(f) { #f, offsetof(struct backend_ops, f) }
/* clang-format on */

/* Functions that every backend has: of the others backend.h says what stands for NULL. */
static const struct {
    const char *name;
    size_t at;
} needed[] = {
    NEEDS(need),      NEEDS(open),      NEEDS(close), NEEDS(info),   NEEDS(alloc),    NEEDS(free),
    NEEDS(lock),      NEEDS(host),      NEEDS(put),   NEEDS(get),    NEEDS(clear),    NEEDS(done),
    NEEDS(eventfd),   NEEDS(set_model), NEEDS(step),  NEEDS(logits), NEEDS(logprobs), NEEDS(hidden),
    NEEDS(copy_page), NEEDS(move),      NEEDS(norms), NEEDS(fit),    NEEDS(run),      NEEDS(rest),
};

/* The version before all else: of another one even the names' places may differ. */
int plugin_check(const struct backend_ops *ops, struct why *why)
{
    if (ops->abi != BACKEND_ABI || ops->size != sizeof(*ops))
        return why_set(
            why, -ELIBBAD,
            "a backend that was built for another version of gistd: found interface %u of %u "
            "bytes, expected %u of %zu: install gistd and its libraries from one build",
            ops->abi, ops->size, BACKEND_ABI, sizeof(*ops));
    for (size_t i = 0; i < sizeof(needed) / sizeof(*needed); i++) {
        void (*fn)(void);

        memcpy(&fn, (const char *)ops + needed[i].at, sizeof(fn));
        if (!fn)
            return why_set(why, -ELIBBAD,
                           "the backend %s has no function %s, which every backend has", ops->name,
                           needed[i].name);
    }
    return 0;
}

int plugin_load_entry(const char *path, const char *entry, const void **ret, struct why *why)
{
    const void *(*get)(void);
    void *lib = dlopen(path, RTLD_NOW | RTLD_LOCAL), *at;

    /* What dlerror says names the library that is missing, be it this one or one that it needs. */
    if (!lib)
        return why_set(why, -ELIBACC, "cannot load %s", dlerror());
    at = dlsym(lib, entry);
    memcpy(&get, &at, sizeof(get)); /* an object's address to a function's */
    if (!at)
        return why_set(why, -ELIBBAD, "%s: found no function %s, expected a backend of gistd's",
                       path, entry);
    *ret = get();
    return 0;
}

int plugin_load(const char *path, const struct backend_ops **ret, struct why *why)
{
    const void *ops;
    int r = plugin_load_entry(path, PLUGIN_ENTRY, &ops, why);

    if (r == 0)
        r = plugin_check(ops, why);
    if (r == 0)
        *ret = ops;
    return r;
}

/* The folder of the program that runs, without a slash at its end. By what the kernel says, not by
 * argv, which the caller chose. */
static int own_folder(char ret[PATH_MAX])
{
    ssize_t n = readlink("/proc/self/exe", ret, PATH_MAX - 1);
    char *slash;

    if (n < 0)
        return -errno;
    ret[n] = '\0';
    slash = strrchr(ret, '/');
    if (!slash)
        return -ENOENT;
    *slash = '\0';
    return 0;
}

/* Where the library lies. */
static int find_path(const char *name, const char *help, char *ret, size_t cap, struct why *why)
{
    static const char *const places[] = { "", "/../lib/gistd" };
    char own[PATH_MAX];
    int r = own_folder(own);

    if (r < 0)
        return why_set(why, r, "cannot tell where this program lies, and so not where %s is", name);
    for (unsigned i = 0; i < sizeof(places) / sizeof(*places); i++) {
        (void)snprintf(ret, cap, "%s%s/%s", own, places[i], name);
        /* The first that is there, also if it can't be loaded: then the sentence is about that
         * one. */
        if (access(ret, F_OK) == 0)
            return 0;
    }
    return why_set(why, -ENOENT, "there is no %s in %.160s nor in %.160s/../lib/gistd: %s", name,
                   own, own, help);
}

int plugin_find_entry(const char *name, const char *entry, const char *help, const void **ret,
                      struct why *why)
{
    char path[2 * PATH_MAX];
    int r = find_path(name, help, path, sizeof(path), why);

    return r < 0 ? r : plugin_load_entry(path, entry, ret, why);
}

int plugin_find(const char *name, const char *help, const struct backend_ops **ret, struct why *why)
{
    char path[2 * PATH_MAX];
    int r = find_path(name, help, path, sizeof(path), why);

    return r < 0 ? r : plugin_load(path, ret, why);
}
