/* daemon/estimate.h - what of a model and its context fits where, before anything is loaded.
 *
 *     memory   | weights | scratch | packing | kept free | context: pages of 16 tokens |
 *
 * Counted as the daemon counts: weights as they are packed, the backend's own word for scratch, the
 * pool's pages, a compressor's keys a segment. Of the model's file the header is read.
 *
 * Threads    any.
 * Errors     those of the GGUF header, and of the backend's library (engine/plugin.h).
 */
#ifndef DAEMON_ESTIMATE_H
#define DAEMON_ESTIMATE_H

#include "daemon/config.h"
#include "engine/divide.h"
#include "engine/kv/page.h"

#include <stdio.h>

/* Of one of several. */
struct estimate_device {
    unsigned number;
    uint64_t memory, weights;
    uint64_t context; /* its part of the pages */
};

struct estimate {
    char model[128], device[64];
    char source[400]; /* where the memory's number is from */
    bool is_device;   /* memory of its own */
    uint32_t n_layer, n_head_kv, head_dim, n_vocab, window;
    uint32_t segment, batch;
    enum kv_type kv;
    uint64_t page_bytes[KV__N];
    uint32_t n_devices; /* 0: one, or this machine */
    struct estimate_device devices[BACKEND_DEVICES_MAX];
    struct divide divide; /* of the model among them */
    /* Of all devices together, each of which has as much scratch and packing as the others. */
    uint64_t memory, weights, scratch, kept_free;
    uint64_t packing; /* of a compressor; of the process's memory it is part of what is kept free */
    uint64_t context; /* bytes that are left for the pool */
    uint64_t host;    /* this machine's memory beside that */
    uint64_t copies;  /* and for context that leaves a device's, at most; 0: none */
    uint64_t store;   /* bytes of the disk; 0: it is switched off */
    uint64_t wanted_tokens;
    uint32_t wanted_ratio;
};

int estimate_make(const struct config *c, struct estimate *ret, struct why *why);

/* One session of so many tokens: pages that it takes when all but the segment that it reads are
 * compressed, and the most tokens that have room in n pages. Ratio 1: raw. */
uint64_t estimate_pages(const struct estimate *e, uint64_t tokens, uint32_t ratio);
uint64_t estimate_tokens(const struct estimate *e, uint64_t pages, uint32_t ratio);

/* Whether the weights fit, and what was asked for. */
bool estimate_fits(const struct estimate *e);

void estimate_print(const struct estimate *e, FILE *f);

#endif
