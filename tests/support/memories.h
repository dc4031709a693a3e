/* tests/support/memories.h - memories of all kinds, for sessions in segments of 64 tokens of a
 * daemon with the adapters of tests/support/tiny_adapters.h. */
#ifndef TESTS_SUPPORT_MEMORIES_H
#define TESTS_SUPPORT_MEMORIES_H

#include "tests/support/memory_of.h"

static const struct gist_memory memories[] = {
    MEMORY_OF(GIST_FULL, 0, 0, NULL, 0, 0),
    MEMORY_OF(GIST_NONE, 0, 20, NULL, 0, 0),
    MEMORY_OF(GIST_FINE_KV, 4, 0, NULL, 0, 0),
    MEMORY_OF(GIST_SELECT, 8, 0, NULL, 0, 0),
    MEMORY_OF(GIST_FIT, 4, 16, NULL, 0, 0),
    MEMORY_OF(GIST_SELECT_REREAD, 4, 10, NULL, 200, 0),
    MEMORY_OF(GIST_FULL, 8, 0, "fine", 0, 0),
    MEMORY_OF(GIST_FULL, 8, 0, "among", 0, 0),
    MEMORY_OF(GIST_FULL, 4, 0, "coarse", 220, 0),
    MEMORY_OF(GIST_FULL, 8, 5, "rec", 0, 0),
    MEMORY_OF(GIST_FINE_KV, 2, 0, NULL, 256, GIST_LATE),
};
#define N_MEMORIES (sizeof(memories) / sizeof(*memories))

#endif
