/* ipc/wire_memory.h - what becomes of old context, as requests say it (a part of ipc/wire.h). */
#ifndef IPC_WIRE_MEMORY_H
#define IPC_WIRE_MEMORY_H

#include <stdbool.h>
#include <stdint.h>

enum wire_compressor {
#define COMPRESSOR(number, ID, id, name, help) WIRE_##ID = (number),
#include "base/compressors.def"
#undef COMPRESSOR
    WIRE_COMPRESSOR__N
};
/* Of a client that names none: keep all, or with an adapter what that is for. */
#define WIRE_COMPRESSOR_UNSAID ((enum wire_compressor)0)

/* A number that has a has_x is 0 where it is absent; a 0 that is meant has has_x set. */
struct wire_memory {
    enum wire_compressor compressor;
    bool has_ratio, has_sinks, has_budget, has_hydrate;
    uint32_t ratio, sinks, keep_tail, budget;
    uint32_t hydrate; /* segments; UINT32_MAX: as many as fit */
    bool late, fixed, automatic;
    const char *adapter;
};

#endif
