/* daemon/named.h - what requests about names have in common: whose they are, and reading one.
 *
 * Threads    the scheduler's.
 * Errors     what goes wrong is answered: then false.
 */
#ifndef DAEMON_NAMED_H
#define DAEMON_NAMED_H

#include "daemon/names.h"
#include "daemon/request.h"

/* The owner of this client's names. A user whom the kernel can't tell from others has none. */
bool named_owner(struct sched *s, struct request *r, uint32_t *ret_owner);
bool named_check(struct sched *s, struct request *r, const char *name);

/* "session", "document" */
const char *named_word(enum wire_named kind);

bool named_exists(const struct sched *s, uint32_t owner, enum wire_named kind, const char *name);

/* Reads one, and the policy that it had; *ret_bytes is what ret points into: free() it. Waits for
 * the disk, so not in start(). */
bool named_load(struct sched *s, struct request *r, uint32_t owner, enum wire_named kind,
                const char *name, struct names_file *ret, void **ret_bytes,
                struct policy *ret_policy);

/* The store would not take a name, -errno. */
void named_fail_put(struct sched *s, struct request *r, enum wire_named kind, const char *name,
                    int e);
void named_fail_absent(struct sched *s, struct request *r, enum wire_named kind, const char *name);
void named_fail_exists(struct sched *s, struct request *r, enum wire_named kind, const char *name);

#endif
