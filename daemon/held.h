/* daemon/held.h - memory that grows with what a client sends, charged to that client.
 *
 * Texts, ids and scores of its open requests, parts that wait for the next one, and of its sessions
 * the logits behind the last append and where a conversation was. KV has an account of its own
 * (engine/kv/pool.h).
 *
 * Invariant  used is the sum of the lengths of an account's arrays and at most limit: held_resize
 *            is the only function that changes it, and it changes a length with it.
 *
 * Threads    one, the scheduler's.
 * Errors     -ENOMEM; -EDQUOT: past the limit, refused says by asking for how much. Then the array
 *            is as it was.
 */
#ifndef DAEMON_HELD_H
#define DAEMON_HELD_H

#include <stddef.h>

struct held_account {
    size_t used, limit, refused;
}; /* bytes */

/* *mem (NULL: none yet) of *len bytes gets n; 0 frees it, which can't fail. */
int held_resize(struct held_account *a, void **mem, size_t *len, size_t n);

#endif
