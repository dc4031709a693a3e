/* daemon/degraded.h - since when the store can't do all that it should, for Stats and the log.
 *
 * The log has a line when that begins and one when it is over, however many writes fail between,
 * and by the limit of daemon/log.h: a disk that is full and free again by turns fills no log.
 *
 * Threads    the scheduler's.
 */
#ifndef DAEMON_DEGRADED_H
#define DAEMON_DEGRADED_H

#include <stdint.h>

struct degraded {
    uint64_t since_s; /* seconds of the real-time clock; 0: all is well */
};

/* sentence: of store_stats, empty when all is well. */
void degraded_look(struct degraded *d, const char *sentence);

#endif
