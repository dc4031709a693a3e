/* daemon/req_document.c - AddDocument.
 *
 * A document is read into a session that nobody sees, like an Append, and what is read is found
 * again by content: a session that begins with it appends the same ids, takes over what is there,
 * and waits for what is just being read (daemon/follow.h). So nobody waits for the document as a
 * whole, and nothing depends on whether the one who adds it comes to an end.
 */
#include "daemon/append.h"
#include "daemon/named.h"
#include "daemon/opening.h"
#include "daemon/reply.h"
#include "daemon/sched.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* --- AddDocument: start ----------------------------------------------------------------------- */

struct add {
    struct document *doc; /* NULL: not registered, or its own by now, or gone */
    bool written;         /* it was read, and goes to the disk */
    struct names_put *put;
    uint32_t n_told; /* tokens of which the last progress told */
};

/* Its last reply; the document is there. */
static void added(struct sched *s, struct request *r, bool kept)
{
    r->last = (struct wire_rep){ .kind = WIRE_DOCUMENT_ADDED };
    r->last.u.document_added.n_tokens = r->usage.prompt_tokens;
    r->last.u.document_added.n_read = r->usage.prompt_tokens;
    r->last.u.document_added.usage = r->usage;
    r->last.u.document_added.kept = kept;
    request_finish(s, r);
}

static void fail_limit(struct sched *s, struct request *r, const struct document_need *need)
{
    request_fail(s, r, WIRE_E_LIMIT,
                 (struct request_numbers){ need->had, need->asked, need->limit },
                 "this user has %llu documents in memory, the most that it may have",
                 (unsigned long long)need->had);
}

/* The name is taken at once. False: by another, which was answered. One that is being replaced is
 * there until the new one was read (document_read). */
static bool name_free(struct sched *s, struct request *r, uint32_t owner, const char *name,
                      bool replace)
{
    const struct document *other = document_find(&s->documents, owner, name);

    if (other && other->state != DOCUMENT_READY)
        request_fail(s, r, replace ? WIRE_E_BUSY : WIRE_E_NAME_EXISTS, REQUEST_NO_NUMBERS,
                     "the document \"%.64s\" is being added just now", name);
    else if (!replace && (other || named_exists(s, owner, WIRE_NAMED_DOCUMENT, name)))
        named_fail_exists(s, r, WIRE_NAMED_DOCUMENT, name);
    else
        return true;
    return false;
}

/* A pin is of use by the tree alone: there others find what it holds. */
static bool may_pin(struct sched *s, struct request *r, const struct policy *policy)
{
    if (!s->served.prefix)
        request_fail(s, r, WIRE_E_UNSUPPORTED, REQUEST_NO_NUMBERS,
                     "the document cannot be pinned: sessions share nothing in this daemon "
                     "(--prefix-cache no)");
    else if (compress_gist_every(&policy->spec))
        request_fail(s, r, WIRE_E_UNSUPPORTED, REQUEST_NO_NUMBERS,
                     "the document cannot be pinned: sessions with gists among their tokens share "
                     "nothing");
    else
        return true;
    return false;
}

static void document_done(struct sched *s, struct request *r);

/* An Append of the same bulk. */
static int take_text(struct sched *s, struct request *r, const struct wire_req *m)
{
    /* A document of a chat is one message, the system's unless its adder says whose. */
    struct wire_chat_message message = { m->u.add_document.role, r->parts->len };
    struct wire_req append = { .kind = WIRE_APPEND };

    append.u.append.kind = m->u.add_document.kind;
    if (message.role[0] == '\0')
        message.role = "system";
    if (m->u.add_document.kind == WIRE_APPEND_CHAT) {
        append.u.append.messages = &message;
        append.u.append.n_messages = 1;
    }
    return append_take(s, r, &append, document_done);
}

/* Whatever of it is made when it fails is undone by the request's undo. */
static int begin_add(struct sched *s, struct request *r, const struct wire_req *m, uint32_t owner,
                     struct add *a)
{
    bool is_public = m->u.add_document.public_prefix;
    const uint32_t *segment = m->u.add_document.has_segment ? &m->u.add_document.segment : NULL;
    struct document_need need;
    struct why why = { "" };
    struct policy policy;
    int e;

    if (policy_read(&m->u.add_document.memory, segment, s->config->segment, &s->served, &policy,
                    &why) < 0) {
        request_fail(s, r, WIRE_E_BAD_REQUEST, REQUEST_NO_NUMBERS, "%.300s", why.text);
        return 0;
    }
    if ((m->u.add_document.pin && !may_pin(s, r, &policy)) ||
        !opening_begin(s, r, &policy, is_public ? SESSION_PUBLIC : SESSION_OF_USER,
                       m->u.add_document.priority, &e))
        return r->phase == REQUEST_LAST ? 0 : e;
    (void)snprintf(r->session->label, sizeof(r->session->label), "document %.40s",
                   m->u.add_document.name);
    e = document_new(&s->documents, owner, m->u.add_document.name, &a->doc, &need);
    if (e == -EDQUOT) {
        fail_limit(s, r, &need);
        return 0;
    }
    if (e < 0)
        return e;
    a->doc->adder = r;
    a->doc->of = &a->doc;
    a->doc->policy = policy;
    a->doc->is_public = is_public;
    a->doc->pin = m->u.add_document.pin;
    a->doc->at_s = (uint64_t)time(NULL);
    return take_text(s, r, m);
}

static int add_start(struct sched *s, struct request *r, const struct wire_req *m,
                     const uint8_t *bulk)
{
    struct add *a;
    uint32_t owner;

    if (!named_owner(s, r, &owner) || !named_check(s, r, m->u.add_document.name) ||
        !name_free(s, r, owner, m->u.add_document.name, m->u.add_document.replace) ||
        !request_collect(s, r, bulk, m->bulk_len))
        return 0;
    if (m->u.add_document.more) { /* a part */
        added(s, r, false);
        return 0;
    }
    a = calloc(1, sizeof(*a));
    r->job = a;
    return a ? begin_add(s, r, m, owner, a) : -ENOMEM;
}

/* --- AddDocument: reading --------------------------------------------------------------------- */

static void fail_pin(struct sched *s, struct request *r, int e, const struct document_need *need)
{
    struct request_numbers numbers = { need->had, need->asked, need->limit };
    unsigned long long had = need->had, asked = need->asked, limit = need->limit;

    if (e == -EDQUOT)
        request_fail(s, r, WIRE_E_LIMIT, numbers,
                     "pinning the document takes %llu pages of %u tokens; this user's documents "
                     "have %llu of the %llu that they may (half of the pool, --client-kv-bytes)",
                     asked, POOL_PAGE_TOKENS, had, limit);
    else if (e == -ENOSPC)
        request_fail(s, r, WIRE_E_POOL_FULL, numbers,
                     "pool_full: pinning the document takes %llu pages of %u tokens; documents of "
                     "all users have %llu of the %llu that they may (half of the pool, --kv-bytes)",
                     asked, POOL_PAGE_TOKENS, had, limit);
    else
        request_fail_memory(s, r, e);
}

/* Its ids are known: from now on others may begin with them. That a pin does not fit is said
 * before anything is read. */
static void take_ids(struct sched *s, struct request *r, struct add *a,
                     const struct append_progress *p)
{
    struct document_need need;
    uint64_t pages;
    int e = document_take_ids(a->doc, p->ids, p->n, &need);

    if (e == -EDQUOT) {
        request_fail(s, r, WIRE_E_LIMIT,
                     (struct request_numbers){ need.had, need.asked, need.limit },
                     "the ids of this user's documents take %llu bytes and %llu more were asked "
                     "for; the limit is %llu (--client-text-bytes)",
                     (unsigned long long)need.had, (unsigned long long)need.asked,
                     (unsigned long long)need.limit);
        return;
    }
    a->doc->chat_at = p->chat_after;
    a->doc->policy = r->memory->policy; /* an automatic budget may have been lowered */
    memory_peak(r->memory, p->n - r->memory->n_ids, NULL, &pages);
    if (e == 0 && a->doc->pin)
        e = document_may_pin(a->doc, pages, &need);
    if (e < 0)
        fail_pin(s, r, e, &need);
}

static bool write_document(struct sched *s, struct request *r, struct add *a);

/* ENCODING ends when append has all ids, which is before any of them is read. */
static bool add_work(struct sched *s, struct request *r)
{
    struct add *a = r->job;
    struct append_progress p;
    bool any;

    if (a->written)
        return write_document(s, r, a);
    any = append_work(s, r);
    p = append_progress(r);
    if (r->phase != REQUEST_LAST && a->doc->state == DOCUMENT_ENCODING && p.ids)
        take_ids(s, r, a, &p);
    return any;
}

/* A reader that is behind hears less often: what finds no room is not said. */
static int add_flush(struct sched *s, struct request *r)
{
    struct wire_rep rep = { .id = r->id, .kind = WIRE_DOCUMENT_ADDED };
    struct add *a = r->job;
    struct append_progress p = append_progress(r);

    if (!a || r->phase == REQUEST_LAST || !p.ids || p.n_read == a->n_told)
        return 0;
    rep.u.document_added.n_tokens = p.n;
    rep.u.document_added.n_read = p.n_read;
    if (reply_send(s, r, &rep, NULL) == 0)
        a->n_told = p.n_read;
    return 0;
}

/* --- AddDocument: the end --------------------------------------------------------------------- */

/* All was read. The session goes, or becomes the pin. */
static void document_done(struct sched *s, struct request *r)
{
    struct append_progress p = append_progress(r);
    struct add *a = r->job;
    struct document_need need;
    struct session *session;
    int e;

    if (!p.ids) {
        request_fail(s, r, WIRE_E_BAD_REQUEST, REQUEST_NO_NUMBERS, "the document has no text");
        return;
    }
    session = opening_take(s, r);
    if (a->doc->pin) {
        e = document_pin(a->doc, session, &need);
        if (e < 0) {
            session_free(session);
            fail_pin(s, r, e, &need);
            return;
        }
    } else {
        session_free(session);
    }
    document_read(a->doc);
    a->written = true;
    r->phase = REQUEST_WORK;
}

static void describe(const struct sched *s, const struct document *d, struct names_file *ret)
{
    names_describe(&s->served, &d->policy, ret);
    ret->is_public = d->is_public;
    ret->pin = d->pin;
    ret->chat_at = d->chat_at;
    ret->ids = d->ids;
    ret->n_ids = d->n_ids;
}

/* What becomes of it is no longer the request's business. */
static struct document *let_go(struct add *a)
{
    struct document *d = a->doc;

    if (d)
        d->of = NULL;
    a->doc = NULL;
    return d;
}

/* A document that is on disk need not be in memory, but for its pin. */
static void written(struct sched *s, struct request *r, struct add *a, bool kept)
{
    struct document *d = let_go(a);

    if (d)
        d->kept = kept;
    if (d && kept && !d->pinned)
        document_free(d);
    added(s, r, kept);
}

/* What can't be written is there all the same, and its reply says that it is not kept. One that was
 * deleted or replaced meanwhile is not written any more, or has been. */
static bool write_document(struct sched *s, struct request *r, struct add *a)
{
    struct document *d = a->doc;
    struct names_file f;
    int e;

    if (a->put && !names_put_ready(a->put))
        return false;
    if (a->put) {
        written(s, r, a, a->put->result == 0);
        return true;
    }
    if (!d) {
        written(s, r, a, false);
        return true;
    }
    /* One that it replaces: of two writers either could be the last. */
    if (names_put_find(&s->puts, d->owner->uid, WIRE_NAMED_DOCUMENT, d->name))
        return false;
    describe(s, d, &f);
    e = s->served.store ? names_put_begin(&s->puts, s->served.store, d->owner->uid,
                                          WIRE_NAMED_DOCUMENT, d->name, &f, &a->put)
                        : -EROFS;
    if (e < 0 && e != -EAGAIN)
        written(s, r, a, false);
    return e != -EAGAIN;
}

/* Others that have begun with it go on. */
static void drop_document(struct add *a)
{
    struct document *d = a ? let_go(a) : NULL;

    if (d && !a->written)
        document_free(d);
}

static void add_undo(struct sched *s, struct request *r)
{
    append_undo(s, r);
    opening_undo(s, r);
    drop_document(r->job);
}

static void add_fini(struct request *r)
{
    struct add *a = r->job;

    append_fini(r);
    drop_document(a); /* its client is gone in the middle */
    if (a)
        names_put_end(a->put);
    free(a);
}

const struct request_ops request_add_document = {
    .name = "add document",
    .takes_bulk = request_collects,
    .start = add_start,
    .work = add_work,
    .plan = append_plan,
    .rows = append_rows,
    .flush = add_flush,
    .undo = add_undo,
    .fini = add_fini,
};
