/* daemon/storage.h - where context goes that leaves the pool: a device's to host memory, and all of
 * it to the store, with its operations of the disk.
 *
 * Nothing of it is needed to serve: without a folder, or when another daemon has it, the daemon
 * says so once and keeps context in memory alone.
 *
 * Threads    the scheduler's.
 * Ownership  served's io, store and tier.
 */
#ifndef DAEMON_STORAGE_H
#define DAEMON_STORAGE_H

#include "daemon/cache_dir.h"
#include "daemon/config.h"

struct served;

/* The folder that the option names, or by default the environment. False: nothing is to be kept, or
 * neither names one. */
bool storage_folder(const struct config *c, char ret[CACHE_DIR_MAX]);

/* With the pool and the model open. b->store is NULL afterwards, and b->store_why has a sentence,
 * where there is none: that is no error, but for io_uring that was asked for and is denied, and
 * host memory that was asked for and is not there. */
int storage_open(struct served *b, const struct config *c, struct why *why);
void storage_close(struct served *b);

#endif
