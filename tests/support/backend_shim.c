#include "tests/support/backend_shim.h"

#include "engine/plugin.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>

int backend_of_build(const char *name, const struct backend_ops **ret, struct why *why)
{
    const char *build = getenv("BUILD");
    char path[PATH_MAX];

    (void)snprintf(path, sizeof(path), "%s/%s", build ? build : ".", name);
    return plugin_load(path, ret, why);
}

const struct backend_ops *backend_library(const char *name)
{
    const struct backend_ops *ops;
    struct why why = { "" };

    if (backend_of_build(name, &ops, &why) < 0) {
        fprintf(stderr, "%s\n", why.text);
        abort();
    }
    return ops;
}

const struct backend_ops *backend_shim(void)
{
    return backend_library("libgistd-cuda-shim.so");
}
