#include "tests/support/scratch.h"

#include <assert.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static char dir[128];
static pid_t owner;

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *at)
{
    (void)st;
    (void)kind;
    (void)at;
    return remove(path);
}

static void remove_all(void)
{
    if (getpid() == owner) /* a forked child's exit is not the end */
        (void)nftw(dir, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

char *scratch_path(char ret[SCRATCH_PATH_MAX], const char *name)
{
    const char *tmp = getenv("TMPDIR");
    int n;

    if (!dir[0]) {
        n = snprintf(dir, sizeof(dir), "%s/gistd-test-XXXXXX", tmp && tmp[0] ? tmp : "/tmp");
        assert(n < (int)sizeof(dir));
        if (!mkdtemp(dir))
            abort();
        owner = getpid();
        (void)atexit(remove_all);
    }
    n = snprintf(ret, SCRATCH_PATH_MAX, "%s/%s", dir, name);
    assert(n < SCRATCH_PATH_MAX);
    (void)n;
    return ret;
}
