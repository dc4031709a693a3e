/* daemon/part.h - a part of a prompt that still arrives: what it is likely to point to, and only
 * the disk has, is fetched meanwhile (hydrate_fetch).
 *
 * It takes slices of work, but no session: who sends the next part without waiting for this one's
 * answer is not to find it busy.
 *
 *     Append, of which more comes --part_start()--> WORK --> the reply that r->last has
 *
 * Threads    the scheduler's.
 */
#ifndef DAEMON_PART_H
#define DAEMON_PART_H

#include "daemon/request.h"

/* r has its session, and the part is in it. */
bool part_wants(const struct request *r, const struct wire_req *m);
/* r->last is the reply; the request has other ops from here on. -ENOMEM. */
int part_start(struct request *r);

#endif
