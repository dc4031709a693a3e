/* daemon/grammars.h - compiled grammars, by the digest of their text.
 *
 * A program asks with the same schema again and again: the second time it is there, with the masks
 * of its states. The first time it is compiled by a thread of its own (compiler.h), and who asks
 * waits, with all others who ask for the same meanwhile. They are of one user, and of one realm of
 * his (daemon/policy.h): how long an answer took to begin must not tell another one that he is not
 * the first to use a grammar.
 *
 * Those that nobody uses go, the one used longest ago first, when all together take more than
 * GRAMMARS_BYTES_MAX or are more than GRAMMARS_MAX. What is in use is charged to its user, once:
 * a few lines can be compiled to megabytes. Masks have GRAMMARS_MASK_BYTES.
 *
 *     grammars_get() --> MAKING --grammars_ready()--> MADE    kept for the next one
 *                           '------------------------> FAILED  goes with the last who waited
 *
 * Threads    the scheduler's.
 * Ownership  init/fini. An entry is kept for whose request holds it, from grammars_get to
 *            grammars_put; it borrows the account of its user, who is there as long.
 */
#ifndef DAEMON_GRAMMARS_H
#define DAEMON_GRAMMARS_H

#include "daemon/compiler.h"
#include "daemon/held.h"
#include "daemon/policy.h"
#include "engine/text/mask.h"
#include "ipc/wire.h"

#include <sys/queue.h>
#include <sys/types.h>
#include <xxhash.h>

#define GRAMMARS_MAX        256u
#define GRAMMARS_BYTES_MAX  (64u << 20)
#define GRAMMARS_MASK_BYTES (64u << 20)

struct grammars_entry {
    TAILQ_ENTRY(grammars_entry) link;
    XXH128_hash_t digest;
    char realm[POLICY_REALM_MAX + 1];
    struct compiler_job job; /* with the text, which is the entry's: digests are made to be quick,
                              * not to be safe from who wants two equal */
    bool made;               /* the job is done, and counted */
    uint32_t n_users;
    struct held_account *account; /* that it is charged to while it has users */
    size_t charged;
};

TAILQ_HEAD(grammars_list, grammars_entry);
struct grammars {
    struct grammars_list list; /* the one used last is the first */
    uint32_t n;
    size_t bytes; /* of grammars and texts */
    struct compiler *compiler;
    struct masks *masks; /* NULL: no grammar was used yet */
    uint64_t n_found, n_compiled;
};

/* init alone has no thread yet, and fini may follow it. -errno of start. */
void grammars_init(struct grammars *g);
int grammars_start(struct grammars *g, const struct vocab *v);
void grammars_fini(struct grammars *g); /* nobody holds any */

/* Readable, when there may be a grammar that somebody waits for; -1: not started. Not blocking. */
int grammars_bell(const struct grammars *g);

struct grammars_ask {
    uid_t uid;
    struct held_account *account; /* of a client; its user's, which is above, is charged */
    enum wire_grammar kind;
    const char *text;
    size_t len;
    const char *realm; /* of the session; NULL: none */
};

/* The entry, which may not be ready. -EDQUOT, as the client's account says (held.h); -ENOMEM. */
int grammars_get(struct grammars *g, const struct grammars_ask *ask, struct grammars_entry **ret);
/* 0: its grammar may be used. -EAGAIN: not yet. Errors of gbnf_compile and schema_compile, with
 * their sentence; -EDQUOT, -ENOMEM. Whatever it says, the entry is still held. */
int grammars_ready(struct grammars *g, struct grammars_entry *e, struct held_account *account,
                   struct why *why);
void grammars_put(struct grammars *g, struct grammars_entry *e); /* NULL: nothing */

#endif
