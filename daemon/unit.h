/* daemon/unit.h - those clients of a user that are of one systemd unit: an application, a service,
 * a login (daemon/cgroup.h finds out which).
 *
 * A user's rows are divided by units before they are by clients, so that a program which opens many
 * connections, or starts many processes, takes nothing from the user's other ones. It is no more
 * than a weight within the user: whoever moves to another cgroup of his own has no more of what is
 * others', and limits are the user's (daemon/owner.h).
 *
 * Clients without a unit are one together, whose name is "". If each were its own, to hide would
 * pay; so it does not, and where nobody has a unit clients have even parts as if there were none.
 *
 *        unit_join()               unit_leave()
 *     ------------------> client --------------> forgotten with the last of its clients
 *
 * Threads    the scheduler's.
 * Ownership  a unit belongs to its clients, and is in its owner's list.
 */
#ifndef DAEMON_UNIT_H
#define DAEMON_UNIT_H

#include "daemon/portion.h"

struct client;

TAILQ_HEAD(unit_clients, client);

struct unit {
    struct portion portion;      /* in its owner's list, which is the order of service */
    struct unit_clients clients; /* the first is served next */
    struct client *next;         /* batch.c: whose token is added next */
    char name[];
};

/* Of an owner's units, that of this name. name NULL: "". -ENOMEM. */
int unit_join(struct portion_list *units, const char *name, struct client *c);
void unit_leave(struct portion_list *units, struct client *c);

/* It was served: it goes behind the other units, and the client behind the others of it. */
void unit_served(struct portion_list *units, struct client *c);

#endif
