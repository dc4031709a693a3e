/* daemon/keep.h - packed weights that stay with the service manager from one process to the next.
 *
 *     process 1    reads the model, packs it into a memfd, seals it -- FDSTORE=1 --> manager
 *     process 2    finds the descriptor, checks all of it, serves   <-- LISTEN_FDS -- manager
 *
 * What is found and does not verify, or belongs to another model, is removed from the store before
 * memory is taken for other weights: there are never two copies because of it. One line of the log
 * says what was wrong; the start goes on as if nothing had been there.
 *
 * Killed at any moment: the manager has the descriptor, which is of finished and sealed weights, or
 * it has none.
 *
 * Threads    keep_open: the main thread, before there is another; the rest: the scheduler's.
 * Ownership  owns the descriptors. Mappings and the manager's copies live without them.
 */
#ifndef DAEMON_KEEP_H
#define DAEMON_KEEP_H

#include "daemon/config.h"
#include "daemon/notify.h"
#include "engine/file/kept.h"

struct model;

struct keep {
    struct kept kept; /* for model_open_as */
    struct notify_kept found[KEPT_FOUND_MAX];
    char name[NOTIFY_NAME_MAX + 1]; /* of what the manager has of this process; empty: nothing */
};

/* Takes over what the manager hands us, also where nothing is to be kept. */
void keep_open(struct keep *k, const struct config *c);
/* Nothing of what was found is of use: it goes, with the manager's copy. Before memory is taken. */
void keep_drop(struct keep *k);
/* The model is there: its weights go to the manager if they are new, and the log says what was
 * not possible. */
void keep_settle(struct keep *k, const struct model *m);
/* The model's weights are given back: the manager's copy goes, too, and those that are read later
 * are new ones. */
void keep_leave(struct keep *k);
void keep_close(struct keep *k);

#endif
