/* store/health.h - what does not work at present, and when it is tried again.
 *
 *             health_failed                       time passed
 *     WRITES ---------------> PAUSES (1 s, 2 s, ... 5 min) ------> one more try
 *        ^                                                             |
 *        +-------------------------- health_wrote ---------------------+
 *
 * Threads    one. No I/O.
 */
#ifndef STORE_HEALTH_H
#define STORE_HEALTH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct health {
    int write_err, read_err; /* errno; 0: it works */
    uint64_t pause_ns, until_ns;
    bool spent;  /* the write budget */
    bool silent; /* the disk does not answer, since */
    uint64_t silent_since_ns;
};

/* What the caller was doing failed with -err. */
void health_failed(struct health *h, int err, uint64_t now_ns);
void health_wrote(struct health *h);
/* Writes may be tried. */
bool health_writes(const struct health *h, uint64_t now_ns);

/* One sentence, or an empty string. path: the store's. */
void health_say(const struct health *h, const char *path, uint64_t now_ns, char *ret, size_t cap);

#endif
