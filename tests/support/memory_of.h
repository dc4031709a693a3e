/* tests/support/memory_of.h - a struct gist_memory as a line of a table. */
#ifndef TESTS_SUPPORT_MEMORY_OF_H
#define TESTS_SUPPORT_MEMORY_OF_H

#include "client/gist.h"

#define MEMORY_OF(compressor, ratio, tail, adapter, budget, flags)                                 \
    {                                                                                              \
        sizeof(struct gist_memory), compressor, ratio, 0, tail, adapter, budget, flags, 0          \
    }

#endif
