/* One list of all owners' documents, the newest first, so that one that is being added is found
 * before the one that it replaces (D1). They are few: DOCUMENTS_MAX of an owner, and most are on
 * disk alone. */
#include "daemon/document.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

void documents_init(struct documents *d, const struct pool *pool, struct owners *owners,
                    uint32_t pages_max, size_t held_max)
{
    *d = (struct documents){
        .pages_max = pages_max, .held_max = held_max, .pool = pool, .all_owners = owners
    };
    TAILQ_INIT(&d->list);
    TAILQ_INIT(&d->owners);
}

/* Before the owners and the pool, which documents have references and pages of. */
void documents_close(struct documents *d)
{
    struct document *doc;

    if (!d->pool) /* never opened */
        return;
    while ((doc = TAILQ_FIRST(&d->list)))
        document_free(doc);
    d->pool = NULL;
}

struct document *document_find(const struct documents *d, uint32_t owner, const char *name)
{
    struct document *doc;

    TAILQ_FOREACH (doc, &d->list, link)
        if (doc->owner->uid == owner && strcmp(doc->name, name) == 0)
            return doc;
    return NULL;
}

/* In order of names, by which a list is merged with that of the disk (daemon/req_named.c). */
struct document *document_after(const struct documents *d, uint32_t owner, const char *after)
{
    struct document *doc, *best = NULL;

    TAILQ_FOREACH (doc, &d->list, link)
        if (doc->owner->uid == owner && strcmp(doc->name, after) > 0 &&
            (!best || strcmp(doc->name, best->name) < 0))
            best = doc;
    return best;
}

/* --- owners ----------------------------------------------------------------------------------- */

static struct document_owner *find_owner(const struct documents *d, uint32_t uid)
{
    struct document_owner *o;

    TAILQ_FOREACH (o, &d->owners, link)
        if (o->uid == uid)
            return o;
    return NULL;
}

/* Accounts of documents are apart from those of clients, whose limits they have: a document
 * outlives the client that added it. By the owner above both, all of a user's count together. */
static struct document_owner *take_owner(struct documents *d, uint32_t uid)
{
    struct document_owner *o = find_owner(d, uid);

    if (o)
        return o;
    o = calloc(1, sizeof(*o));
    if (o)
        o->owner = owner_ref(d->all_owners, uid);
    if (!o || !o->owner) {
        free(o);
        return NULL;
    }
    o->uid = uid;
    o->account = (struct pool_account){ .limit = d->pages_max, .owner = &o->owner->pages };
    o->held = (struct held_account){ .limit = d->held_max, .above = &o->owner->held };
    TAILQ_INSERT_TAIL(&d->owners, o, link);
    return o;
}

/* With its last document. */
static void put_owner(struct documents *d, struct document_owner *o)
{
    if (o->n > 0)
        return;
    assert(o->account.used == 0 && o->held.used == 0);
    TAILQ_REMOVE(&d->owners, o, link);
    owner_unref(d->all_owners, o->owner);
    free(o);
}

uint32_t documents_pages_of(const struct documents *d, uint32_t owner)
{
    const struct document_owner *o = find_owner(d, owner);

    return o ? o->account.used : 0;
}

/* --- documents -------------------------------------------------------------------------------- */

/* name was checked (names_check), so it fits. */
int document_new(struct documents *d, uint32_t owner, const char *name, struct document **ret,
                 struct document_need *need)
{
    struct document *doc = calloc(1, sizeof(*doc));
    struct document_owner *o = take_owner(d, owner);

    if (!doc || !o || o->n == DOCUMENTS_MAX) {
        *need = (struct document_need){ o ? o->n : 0, 1, DOCUMENTS_MAX };
        free(doc);
        if (o)
            put_owner(d, o);
        return doc && o ? -EDQUOT : -ENOMEM;
    }
    doc->all = d;
    doc->owner = o;
    (void)stpcpy(doc->name, name);
    TAILQ_INSERT_HEAD(&d->list, doc, link);
    o->n++;
    d->n++;
    *ret = doc;
    return 0;
}

static void unpin(struct document *doc)
{
    if (!doc->pinned)
        return;
    /* Nothing reads into a pin, so it has as many pages as when it was counted. */
    doc->all->n_pinned_pages -= doc->pinned->seq.n_pages;
    session_free(doc->pinned);
    doc->pinned = NULL;
}

void document_free(struct document *doc)
{
    struct documents *d;
    void *ids;

    if (!doc)
        return;
    d = doc->all;
    if (doc->of) /* D3 */
        *doc->of = NULL;
    unpin(doc);
    ids = doc->ids;
    (void)held_resize(&doc->owner->held, &ids, &doc->ids_len, 0);
    TAILQ_REMOVE(&d->list, doc, link);
    doc->owner->n--;
    d->n--;
    put_owner(d, doc->owner);
    free(doc);
}

int document_take_ids(struct document *doc, const uint32_t *ids, uint32_t n,
                      struct document_need *need)
{
    struct held_account *held = &doc->owner->held;
    void *mem = doc->ids;
    int r = held_resize(held, &mem, &doc->ids_len, n * sizeof(*ids));

    if (r == -EDQUOT) /* else nobody's limit says why */
        *need = (struct document_need){ held->by->used, held->refused, held->by->limit };
    if (r < 0)
        return r;
    doc->ids = mem;
    memcpy(doc->ids, ids, n * sizeof(*ids));
    doc->n_ids = n;
    doc->state = DOCUMENT_READING;
    return 0;
}

/* Twice in a document's life: before it is read, by what it will take at most, and when it was, by
 * what it takes. */
int document_may_pin(const struct document *doc, uint64_t pages, struct document_need *need)
{
    const struct documents *d = doc->all;
    const struct pool_account *a = &doc->owner->account;
    uint32_t all = d->pool->n_pages / 2;

    *need = (struct document_need){ a->used, pages, a->limit };
    if (pages > a->limit - a->used) /* its session has them: the owner's limit stays as it is */
        return -EDQUOT;
    *need = (struct document_need){ d->n_pinned_pages, pages, all };
    return pages > all - d->n_pinned_pages ? -ENOSPC : 0;
}

/* The session is the document's only if this succeeds. */
int document_pin(struct document *doc, struct session *session, struct document_need *need)
{
    uint32_t n = session->seq.n_pages;
    int r = document_may_pin(doc, n, need);

    assert(!doc->pinned);
    if (r == 0)
        r = session_detach(session, &doc->owner->account, &doc->owner->held);
    if (r < 0)
        return r;
    doc->pinned = session;
    doc->all->n_pinned_pages += n;
    return 0;
}

/* From here on it is found as the one of its name: what it replaces goes now, and not when it was
 * begun, so that a document that can't be read leaves the old one. */
void document_read(struct document *doc)
{
    struct documents *d = doc->all;
    struct document *other, *next;

    doc->state = DOCUMENT_READY;
    doc->adder = NULL;
    for (other = TAILQ_FIRST(&d->list); other; other = next) {
        next = TAILQ_NEXT(other, link);
        if (other != doc && other->owner == doc->owner && strcmp(other->name, doc->name) == 0)
            document_free(other);
    }
}

/* Those that are being read are their adders'. */
void documents_forget(struct documents *d, uint32_t owner)
{
    struct document *doc, *next;

    for (doc = TAILQ_FIRST(&d->list); doc; doc = next) {
        next = TAILQ_NEXT(doc, link);
        if (doc->owner->uid == owner && doc->state == DOCUMENT_READY)
            document_free(doc);
    }
}

/* Roots of the tree are few, and a client's sessions may use up all of them. So what a pin holds is
 * taught again before somebody begins with it. */
void document_teach(const struct document *doc)
{
    struct memory *m = doc->pinned ? &doc->pinned->memory : NULL;

    if (!m || !memory_teaches(m))
        return;
    prefix_unlearn(&m->shared);
    prefix_learn(&m->shared, m->seq, &m->ladder, &m->policy);
}
