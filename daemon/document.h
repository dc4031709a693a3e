/* daemon/document.h - documents that the daemon has in memory: read just now, pinned, or with no
 * disk to be kept on.
 *
 *              document_new            document_take_ids          document_read
 *     (none) --------------> ENCODING ------------------> READING --------------> READY
 *        ^                      |                            |                      |
 *        +----------------------+----------------------------+----------------------+
 *              document_free(): its adder failed or went; it was deleted or replaced; it was
 *              written to disk and nothing is pinned: whoever begins with it reads its file
 *
 * A pinned one holds its pages by a session of no client, charged to its owner. Others have none:
 * what was read is found again by content, as ever, while there is room for it.
 *
 * Invariants
 *   D1  Of one owner and name at most one is not READY, and it is found before another one.
 *   D2  Pins of all owners together leave half of the pool to sessions.
 *   D3  Anybody of its owner may delete or replace one that is READY, also while its adder still
 *       writes it: document_free() clears *of.
 *
 * Threads    the scheduler's, between steps but for find and new.
 * Ownership  owns its documents, their ids and sessions; borrows pool and owners.
 * Errors     -ENOMEM; -EDQUOT: a limit of the owner, -ENOSPC: of the pool; need says by how much.
 */
#ifndef DAEMON_DOCUMENT_H
#define DAEMON_DOCUMENT_H

#include "daemon/names.h"
#include "daemon/owner.h"

#include <sys/queue.h>

#define DOCUMENTS_MAX 4096u /* of an owner, in memory */

struct document_owner {
    TAILQ_ENTRY(document_owner) link;
    uint32_t uid, n;
    struct owner *owner;         /* a reference */
    struct pool_account account; /* of what is pinned */
    struct held_account held;    /* of ids */
};

enum document_state { DOCUMENT_ENCODING, DOCUMENT_READING, DOCUMENT_READY };

struct document {
    TAILQ_ENTRY(document) link;
    struct documents *all;
    struct document_owner *owner;
    char name[NAMES_MAX + 1];
    enum document_state state;
    struct request *adder; /* who reads it; NULL: READY */
    struct document **of; /* who adds it knows it by this, until it is written; NULL: nobody does */
    struct policy policy;
    bool is_public, pin, kept; /* kept: on disk, too */
    enum chat_at chat_at;
    uint32_t *ids; /* (n_ids) */
    uint32_t n_ids;
    size_t ids_len;         /* bytes */
    struct session *pinned; /* NULL: nothing is held */
    uint64_t at_s;
};

struct documents {
    TAILQ_HEAD(document_list, document) list; /* the newest first */
    TAILQ_HEAD(document_owners, document_owner) owners;
    uint32_t n, n_pinned_pages;
    uint32_t pages_max; /* of an owner's account */
    size_t held_max;    /* of its ids */
    const struct pool *pool;
    struct owners *all_owners;
};

struct document_need {
    uint64_t had, asked, limit;
};

void documents_init(struct documents *d, const struct pool *pool, struct owners *owners,
                    uint32_t pages_max, size_t held_max);
void documents_close(struct documents *d);

/* NULL: none. */
struct document *document_find(const struct documents *d, uint32_t owner, const char *name);
/* The one with the first name behind `after` ("": the first of all). */
struct document *document_after(const struct documents *d, uint32_t owner, const char *after);

int document_new(struct documents *d, uint32_t owner, const char *name, struct document **ret,
                 struct document_need *need);
/* NULL: nothing. */
void document_free(struct document *doc);

int document_take_ids(struct document *doc, const uint32_t *ids, uint32_t n,
                      struct document_need *need);

/* Whether so many pages more may be pinned for it. */
int document_may_pin(const struct document *doc, uint64_t pages, struct document_need *need);
/* Pins all that the session holds, which is ours from here on unless this fails. */
int document_pin(struct document *doc, struct session *session, struct document_need *need);

/* It was read: the others of its name go. */
void document_read(struct document *doc);

/* All of an owner's that are not being read, and their pins. */
void documents_forget(struct documents *d, uint32_t owner);

/* What a pinned one holds may have been forgotten as a beginning: the tree learns it anew. */
void document_teach(const struct document *doc);

/* Pages that the owner's documents have pinned. */
uint32_t documents_pages_of(const struct documents *d, uint32_t owner);

#endif
