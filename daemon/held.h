/* daemon/held.h - memory that grows with what a client sends, charged to that client.
 *
 * Texts, ids, scores and grammars of its open requests, parts that wait for the next one, and of
 * its sessions the logits behind the last append and where a conversation was. KV has an account of
 * its own (engine/kv/pool.h). A client's account is part of its owner's, and those of all owners'
 * together (daemon/owner.h): what is charged to one is charged to those above it.
 *
 * Invariant  used is the sum of the lengths of an account's arrays, and of those of the accounts
 *            below it, and at most limit: held_charge is the only function that changes it, and it
 *            changes a length with it.
 *
 * Threads    one, the scheduler's.
 * Errors     -ENOMEM; -EDQUOT: past a limit, which is by->limit; refused says by asking for how
 * much. Then the array is as it was.
 */
#ifndef DAEMON_HELD_H
#define DAEMON_HELD_H

#include <stddef.h>

struct held_account {
    size_t used, limit, refused;   /* bytes */
    struct held_account *above;    /* that this one is part of; NULL: none */
    const struct held_account *by; /* behind -EDQUOT: this one, or one above, whose limit it was */
};

/* *len bytes that are somebody else's array become n, as far as the account goes: what is shared.
 * 0 gives all of it back, which can't fail. */
int held_charge(struct held_account *a, size_t *len, size_t n);

/* len bytes that are charged to one are charged to another. -EDQUOT: they stay where they are. */
int held_move(struct held_account *from, struct held_account *to, size_t len);

/* *mem (NULL: none yet) of *len bytes gets n; 0 frees it, which can't fail. */
int held_resize(struct held_account *a, void **mem, size_t *len, size_t n);

#endif
