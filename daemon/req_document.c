/* daemon/req_document.c - AddDocument, and OpenSession with documents.
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
    struct document *doc; /* NULL: not registered, or its own by now */
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

/* The name is taken at once. False: by another, which was answered. */
static bool name_free(struct sched *s, struct request *r, uint32_t owner, const char *name,
                      bool replace)
{
    const struct document *other = document_find(&s->documents, owner, name);

    if (other && other->state != DOCUMENT_READY)
        request_fail(s, r, replace ? WIRE_E_BUSY : WIRE_E_NAME_EXISTS, REQUEST_NO_NUMBERS,
                     "the document \"%.64s\" is being added just now", name);
    else if (!replace && (other || named_exists(s, owner, WIRE_NAMED_DOCUMENT, name)))
        request_fail(s, r, WIRE_E_NAME_EXISTS, REQUEST_NO_NUMBERS,
                     "this user has a document \"%.64s\" already; take another name, or ask to "
                     "replace it",
                     name);
    else
        return true;
    return false;
}

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
    memory_peak(r->memory, p->n - r->memory->n_ids, NULL, &pages);
    if (e == 0 && a->doc->pin)
        e = document_may_pin(a->doc, pages, &need);
    if (e < 0)
        fail_pin(s, r, e, &need);
}

static bool write_document(struct sched *s, struct request *r, struct add *a);

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

/* A document that is on disk need not be in memory, but for its pin. */
static void written(struct sched *s, struct request *r, struct add *a, bool kept)
{
    struct document *d = a->doc;

    a->doc = NULL;
    d->kept = kept;
    if (kept && !d->pinned)
        document_free(d);
    added(s, r, kept);
}

/* What can't be written is there all the same, and its reply says that it is not kept. */
static bool write_document(struct sched *s, struct request *r, struct add *a)
{
    struct document *d = a->doc;
    struct names_file f;
    int e;

    if (a->put && !a->put->done)
        return false;
    if (a->put) {
        written(s, r, a, a->put->result == 0);
        return true;
    }
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
    if (a && a->doc && !a->written)
        document_free(a->doc);
    if (a)
        a->doc = NULL;
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

/* --- OpenSession with documents --------------------------------------------------------------- */

struct begin_with {
    uint32_t owner;
    char name[NAMES_MAX + 1], label[SESSION_LABEL_MAX + 1];
    bool is_public, is_private, has_policy, begun;
    struct policy policy; /* what was said, beside the document */
    enum wire_priority priority;
    bool pin; /* it was pinned before the daemon was started anew */
    uint64_t at_s;
};

static bool said(const struct wire_req *m)
{
    const struct wire_memory *y = &m->u.open_session.memory;

    return m->u.open_session.has_segment || y->compressor != WIRE_COMPRESSOR_UNSAID ||
           y->has_ratio || y->has_sinks || y->has_budget || y->keep_tail || y->late || y->fixed ||
           (y->adapter && y->adapter[0]);
}

static int take_open(struct sched *s, struct request *r, const struct wire_req *m,
                     struct begin_with *b)
{
    struct why why = { "" };

    (void)stpcpy(b->name, m->u.open_session.documents[0]);
    request_label(b->label, sizeof(b->label), m->u.open_session.label);
    b->priority = m->u.open_session.priority;
    b->is_public = m->u.open_session.public_prefix;
    b->is_private = m->u.open_session.is_private;
    b->has_policy = said(m);
    if (b->has_policy &&
        policy_read(&m->u.open_session.memory,
                    m->u.open_session.has_segment ? &m->u.open_session.segment : NULL,
                    s->config->segment, &s->served, &b->policy, &why) < 0)
        request_fail(s, r, WIRE_E_BAD_REQUEST, REQUEST_NO_NUMBERS, "%.300s", why.text);
    return 0;
}

static int begin_with_start(struct sched *s, struct request *r, const struct wire_req *m,
                            const uint8_t *bulk)
{
    struct begin_with *b;
    uint32_t owner;

    (void)bulk;
    if (m->u.open_session.n_documents > 1) {
        request_fail(s, r, WIRE_E_UNSUPPORTED,
                     (struct request_numbers){ 0, m->u.open_session.n_documents, 1 },
                     "a session cannot begin with %u documents, but with one only",
                     m->u.open_session.n_documents);
        return 0;
    }
    if (!named_owner(s, r, &owner) || !named_check(s, r, m->u.open_session.documents[0]))
        return 0;
    b = calloc(1, sizeof(*b));
    r->job = b;
    if (!b)
        return -ENOMEM;
    b->owner = owner;
    return take_open(s, r, m, b);
}

/* A document that was pinned by the daemon's last run is so again when the first session has begun
 * with it. Where that does not fit it is read like any other: nobody waits for an answer about it.
 */
static void pin_again(struct sched *s, struct request *r, const struct begin_with *b)
{
    struct append_progress p = append_progress(r);
    struct session *copy = NULL;
    struct document_need need;
    struct document *d;

    if (document_find(&s->documents, b->owner, b->name) ||
        document_new(&s->documents, b->owner, b->name, &d, &need) < 0)
        return;
    d->policy = r->session->memory.policy;
    d->is_public = r->session->memory.shared.owner == PREFIX_PUBLIC;
    d->pin = d->kept = true;
    d->chat_at = p.chat_after;
    d->at_s = b->at_s;
    if (document_take_ids(d, p.ids, p.n, &need) == 0 &&
        session_fork(&s->served, r->session, 0, &copy) == 0 && document_pin(d, copy, &need) == 0) {
        document_read(d);
        return;
    }
    session_free(copy);
    document_free(d);
}

/* The reply, when the document is in the session. */
static void begun(struct sched *s, struct request *r)
{
    const struct begin_with *b = r->job;
    struct session *x = r->session;

    if (b->pin && !b->is_private)
        pin_again(s, r, b);
    opening_end(r);
    r->last = (struct wire_rep){ .kind = WIRE_SESSION_OPENED };
    r->last.u.session_opened.session = x->id;
    r->last.u.session_opened.context_max = x->seq.max_tokens;
    r->last.u.session_opened.usage = r->usage;
    request_finish(s, r);
}

/* What a session is asked to be, beside beginning with the document. */
static bool agrees(struct sched *s, struct request *r, const struct begin_with *b,
                   const struct policy *policy, bool is_public)
{
    if (b->has_policy && !policy_same(&b->policy, policy))
        request_fail(s, r, WIRE_E_BAD_REQUEST, REQUEST_NO_NUMBERS,
                     "the document \"%.64s\" was read with other memory options, which a session "
                     "that begins with it has, too: leave them out, or add the document with these",
                     b->name);
    else if (b->is_public && !is_public)
        request_fail(s, r, WIRE_E_BAD_REQUEST, REQUEST_NO_NUMBERS,
                     "the document \"%.64s\" is not public, so no session that begins with it is",
                     b->name);
    else
        return true;
    return false;
}

static int begin_with_ids(struct sched *s, struct request *r, const struct begin_with *b,
                          const struct policy *policy, bool is_public, const uint32_t *ids,
                          uint32_t n, enum chat_at after)
{
    enum session_sharing sharing = b->is_private ? SESSION_PRIVATE
                                   : is_public   ? SESSION_PUBLIC
                                                 : SESSION_OF_USER;
    int e;

    if (!agrees(s, r, b, policy, is_public) ||
        !opening_begin(s, r, policy, sharing, b->priority, &e))
        return r->phase == REQUEST_LAST ? 0 : e;
    memcpy(r->session->label, b->label, sizeof(b->label));
    return append_take_ids(s, r, ids, n, after, begun);
}

/* Not in memory: its file says what it is. */
static int begin_with_file(struct sched *s, struct request *r, struct begin_with *b)
{
    struct policy policy;
    struct names_file f;
    void *bytes;
    int e;

    if (!named_load(s, r, b->owner, WIRE_NAMED_DOCUMENT, b->name, &f, &bytes, &policy))
        return 0;
    b->pin = f.pin;
    e = begin_with_ids(s, r, b, &policy, f.is_public, f.ids, f.n_ids, f.chat_at);
    free(bytes);
    return e;
}

static bool begin_with_work(struct sched *s, struct request *r)
{
    struct begin_with *b = r->job;
    const struct document *d;
    int e;

    if (b->begun)
        return append_work(s, r);
    d = document_find(&s->documents, b->owner, b->name);
    if (d && d->state == DOCUMENT_ENCODING)
        return false; /* its ids are known soon, or it is gone */
    b->begun = true;
    if (d) {
        document_teach(d);
        e = begin_with_ids(s, r, b, &d->policy, d->is_public, d->ids, d->n_ids, d->chat_at);
    } else {
        e = begin_with_file(s, r, b);
    }
    if (e < 0)
        request_fail_memory(s, r, e);
    return true;
}

static void begin_with_undo(struct sched *s, struct request *r)
{
    append_undo(s, r);
    opening_undo(s, r);
}

static void begin_with_fini(struct request *r)
{
    append_fini(r);
    free(r->job);
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
const struct request_ops request_open_with = {
    .name = "open",
    .start = begin_with_start,
    .work = begin_with_work,
    .plan = append_plan,
    .rows = append_rows,
    .undo = begin_with_undo,
    .fini = begin_with_fini,
};
