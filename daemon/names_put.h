/* daemon/names_put.h - names on their way to the disk.
 *
 * Who asked for it may be gone before the disk is done: then the name is written all the same, and
 * nobody hears of it. While it is on its way nobody else writes one of that name.
 *
 * Threads    the scheduler's.
 * Ownership  a list of its own; a put is its asker's until names_put_end, then it frees itself.
 */
#ifndef DAEMON_NAMES_PUT_H
#define DAEMON_NAMES_PUT_H

#include "daemon/names.h"

#include <sys/queue.h>

struct store;

TAILQ_HEAD(names_puts, names_put);
struct names_put {
    TAILQ_ENTRY(names_put) link;
    struct names_puts *puts;
    const struct store *store;
    uint32_t owner;
    enum wire_named kind;
    char name[NAMES_MAX + 1];
    size_t len;
    bool wanted; /* somebody waits for the result */
    bool done;
    int result;
};

/* Errors of store_name_put and names_encode. */
int names_put_begin(struct names_puts *puts, struct store *store, uint32_t owner,
                    enum wire_named kind, const char *name, const struct names_file *f,
                    struct names_put **ret);
/* NULL: none of that name is on its way. */
const struct names_put *names_put_find(const struct names_puts *puts, uint32_t owner,
                                       enum wire_named kind, const char *name);
/* There is a result: also when the disk does not answer. */
bool names_put_ready(struct names_put *p);
/* The result was taken, or nobody waits for it any more. NULL: nothing. */
void names_put_end(struct names_put *p);

#endif
