/* daemon/grammars.h - compiled grammars, by the digest of their text.
 *
 * A program asks with the same schema again and again: the second time it is there, with the masks
 * of its states. They are of one user: how long an answer took to begin must not tell another one
 * that he is not the first to use a grammar.
 *
 * Those that nobody uses go, the one used longest ago first, when all together take more than
 * GRAMMARS_BYTES_MAX or are more than GRAMMARS_MAX. What is in use is charged to its user, once:
 * a few lines can be compiled to megabytes. Masks have GRAMMARS_MASK_BYTES.
 *
 * Threads    the scheduler's.
 * Ownership  init/fini. An entry is kept for whose request holds it, from grammars_get to
 *            grammars_put; it borrows the account of its user, who is there as long.
 */
#ifndef DAEMON_GRAMMARS_H
#define DAEMON_GRAMMARS_H

#include "daemon/held.h"
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
    uid_t uid;
    enum wire_grammar kind;
    char *text; /* (len): digests are made to be quick, not to be safe from who wants two equal */
    size_t len;
    struct grammar *grammar;
    uint32_t n_users;
    struct held_account *account; /* that it is charged to while it has users */
    size_t charged;
};

TAILQ_HEAD(grammars_list, grammars_entry);
struct grammars {
    struct grammars_list list; /* the one used last is the first */
    uint32_t n;
    size_t bytes;      /* of grammars and texts */
    struct trie *trie; /* NULL: no grammar was used yet */
    struct masks *masks;
    uint64_t n_found, n_compiled;
};

void grammars_init(struct grammars *g);
void grammars_fini(struct grammars *g); /* nobody holds any */

struct grammars_ask {
    uid_t uid;
    struct held_account *account; /* of a client; its user's, which is above, is charged */
    enum wire_grammar kind;
    const char *text;
    size_t len;
};

/* Errors of gbnf_compile and schema_compile, with their sentence; -EDQUOT, as the client's account
 * says (held.h). */
int grammars_get(struct grammars *g, const struct vocab *v, const struct grammars_ask *ask,
                 struct grammars_entry **ret, struct why *why);
void grammars_put(struct grammars *g, struct grammars_entry *e); /* NULL: nothing */

#endif
