/* store/warm.h - what was written past the page cache is read into it when nothing else is to be
 * done.
 *
 * A daemon that is restarted is asked for what was written last, and a record in the cache comes
 * back two to five times as fast as from the disk. Reading it back costs the disk a read, and a CPU
 * one copy of it, at a time when no session writes or reads; the memory is the kernel's to take
 * again.
 *
 * Threads    the store's.
 * Errors     none: what can't be read is not warm.
 */
#ifndef STORE_WARM_H
#define STORE_WARM_H

#include <stdbool.h>
#include <stdint.h>

struct entry;
struct store;

#define WARM_RECORDS 64u /* the newest; what is older than these waits in vain */

struct warm {
    uint64_t id[WARM_RECORDS]; /* a ring: [done, put) */
    uint32_t put, done;
    uint64_t now;    /* what is being opened or read: no longer of the ring */
    struct entry *e; /* that is being opened: its name is in use */
    int fd;
    bool open, out; /* open: a file is; out: an operation */
    uint64_t off, len;
    void *buf;
};

void warm_later(struct store *s, const struct entry *e);
/* Queues what is next, if there is nothing better to do. */
void warm_step(struct store *s);
/* Nothing is out. */
void warm_close(struct store *s);

#endif
