#include "tests/support/tiny_adapters.h"

#include "engine/file/model.h"
#include "tests/support/daemon_fixture.h"
#include "tests/support/scratch.h"
#include "train/file/adapter_write.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct {
    const char *name, *method, *mask;
} kinds[] = { { "fine", "fine-kv", "memory-only" },
              { "among", "fine-kv", "in-segment" },
              { "coarse", "coarse-kv", "memory-only" },
              { "rec", "coarse-rec", "memory-only" } };
#define N_KINDS (sizeof(kinds) / sizeof(*kinds))

static void make(const struct model *m, size_t kind, const char *path)
{
    const struct adapter_write_pair pairs[] = {
        { "format", "gist-adapter" }, { "version", "1" },
        { "base_model", m->digest },  { "method", kinds[kind].method },
        { "mask", kinds[kind].mask }, { "embedding", "last-token" },
        { "segment", "64" },          { "sinks", "2" }
    };
    struct adapter_write w = { .pairs = pairs, .n_pairs = sizeof(pairs) / sizeof(*pairs) };
    struct why why = { "" };

    if (adapter_write(path, &w, &why) < 0) {
        (void)fprintf(stderr, "%s\n", why.text);
        abort();
    }
}

const char *tiny_adapters(void)
{
    static char all[N_KINDS * (SCRATCH_PATH_MAX + 1)];
    struct why why = { "" };
    struct model *m;
    int r;

    if (all[0])
        return all;
    r = model_open(daemon_fixture_model(DAEMON_FIXTURE_TINY), NULL, NULL, &m, &why);
    assert(r == 0);
    (void)r;
    for (size_t i = 0; i < N_KINDS; i++) {
        char path[SCRATCH_PATH_MAX], file[32];

        (void)snprintf(file, sizeof(file), "%s.safetensors", kinds[i].name);
        make(m, i, scratch_path(path, file));
        (void)snprintf(all + strlen(all), sizeof(all) - strlen(all), "%s%s", i ? ":" : "", path);
    }
    model_close(m);
    return all;
}
