#include "daemon/cache_dir.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool cache_dir(const char *leaf, char ret[CACHE_DIR_MAX])
{
    static const struct {
        const char *name, *below;
    } bases[] = { { "CACHE_DIRECTORY", "" },
                  { "XDG_CACHE_HOME", "gistd/" },
                  { "HOME", ".cache/gistd/" } };

    for (size_t i = 0; i < sizeof(bases) / sizeof(*bases); i++) {
        const char *base = getenv(bases[i].name);
        size_t n = base ? strcspn(base, ":") : 0; /* systemd may name several folders */

        /* A relative path would depend on where the daemon was started. */
        if (n == 0 || base[0] != '/' || n > OPTIONS_TEXT_MAX)
            continue;
        (void)snprintf(ret, CACHE_DIR_MAX, "%.*s/%s%s", (int)n, base, bases[i].below, leaf);
        return true;
    }
    return false;
}
