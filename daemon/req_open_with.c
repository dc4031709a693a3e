/* daemon/req_open_with.c - OpenSession with documents.
 *
 * The first one is read like an Append, and most of it is there already. Each further one is read
 * as it was when it was added, alone, into a session that nobody sees; then its segments go behind
 * those of the first, whatever stands there (memory_adopt_behind). So in which order documents are
 * named does not matter for what has to be computed, which is nothing where they are known.
 *
 *     r->session   the whole            further one      the whole
 *                  |-- 1st is read --|  |-- 2nd is read --|  2nd taken over  |-- 3rd ...
 *     b->whole     NULL                 the whole            NULL
 *
 * Not all can stand together so. What a policy packs late would have to be packed behind others'
 * segments one day, by queries of tokens that never saw them; documents that are long together pass
 * what was raw, or thinned, for each alone; and nothing is brought back into a session that is no
 * function of its ids. Then all are one text (daemon/one_text.h), which is read like any other: in
 * the order in which they are named, and what stands behind the first is read anew, once.
 */
#include "daemon/append.h"
#include "daemon/named.h"
#include "daemon/one_text.h"
#include "daemon/opening.h"
#include "daemon/sched.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct begin_with {
    uint32_t owner;
    uint32_t n, at; /* documents, and the one that is looked for or read */
    char names[WIRE_DOCUMENTS_MAX][NAMES_MAX + 1], label[SESSION_LABEL_MAX + 1];
    bool is_public, is_private, has_policy, begun;
    struct policy policy; /* what was said, beside the document */
    bool has_hydrate;     /* also said; else it is as the first document's */
    uint32_t hydrate;
    enum wire_priority priority;
    bool pin;                /* it was pinned before the daemon was started anew */
    struct session *whole;   /* while a further one is read; else NULL */
    struct wire_usage usage; /* of reading those before */
    bool looked;             /* whether they have to be one text is known */
    bool as_one;             /* they have */
    struct one_text text;    /* of all */
};

static const char *name_of(const struct begin_with *b)
{
    return b->names[b->at];
}

/* hydrate is not among these: documents hold the same whatever prompts bring back. */
static bool said(const struct wire_req *m)
{
    const struct wire_memory *y = &m->u.open_session.memory;

    return m->u.open_session.has_segment || y->compressor != WIRE_COMPRESSOR_UNSAID ||
           y->has_ratio || y->has_sinks || y->has_budget || y->keep_tail || y->late || y->fixed ||
           y->automatic || (y->adapter && y->adapter[0]);
}

/* All that the message says is copied here: work() does not have it any more. */
static int take_open(struct sched *s, struct request *r, const struct wire_req *m,
                     struct begin_with *b)
{
    struct why why = { "" };

    b->n = (uint32_t)m->u.open_session.n_documents;
    for (uint32_t i = 0; i < b->n; i++) {
        if (!named_check(s, r, m->u.open_session.documents[i]))
            return 0;
        (void)stpcpy(b->names[i], m->u.open_session.documents[i]);
    }
    request_label(b->label, sizeof(b->label), m->u.open_session.label);
    b->priority = m->u.open_session.priority;
    b->is_public = m->u.open_session.public_prefix;
    b->is_private = m->u.open_session.is_private;
    b->has_policy = said(m);
    b->has_hydrate = m->u.open_session.memory.has_hydrate;
    b->hydrate = m->u.open_session.memory.hydrate;
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
    if (!named_owner(s, r, &owner))
        return 0;
    b = calloc(1, sizeof(*b));
    r->job = b;
    if (!b)
        return -ENOMEM;
    b->owner = owner;
    b->text.account = &r->client->held;
    return take_open(s, r, m, b);
}

/* A document that was pinned by the daemon's last run is so again when the first session has begun
 * with it. Where that does not fit it is read like any other: nobody waits for an answer about it.
 * The session itself is its client's, so a fork of it becomes the pin. */
static void pin_again(struct sched *s, struct request *r, const struct begin_with *b)
{
    struct append_progress p = append_progress(r);
    struct session *copy = NULL;
    struct document_need need;
    struct document *d;

    /* AddDocument takes no text without a token, but a file may say that it has none. */
    if (p.n == 0 || document_find(&s->documents, b->owner, name_of(b)) ||
        document_new(&s->documents, b->owner, name_of(b), &d, &need) < 0)
        return;
    d->policy = r->session->memory.policy;
    d->is_public = r->session->memory.shared.owner == PREFIX_PUBLIC;
    d->pin = d->kept = true;
    d->chat_at = p.chat_after;
    if (document_take_ids(d, p.ids, p.n, &need) == 0 && session_fork(r->session, 0, &copy) == 0 &&
        document_pin(d, copy, &need) == 0) {
        document_read(d);
        return;
    }
    session_free(copy);
    document_free(d);
}

/* --- further documents ------------------------------------------------------------------------ */

static void fail_behind(struct sched *s, struct request *r, const struct begin_with *b,
                        const struct seq *q, uint32_t n)
{
    request_fail(s, r, WIRE_E_CONTEXT_LENGTH_EXCEEDED,
                 (struct request_numbers){ q->n_tokens, n, q->max_tokens },
                 "context_length_exceeded: the document \"%.64s\" has %u tokens, which do not fit "
                 "behind the %u before it (in whole segments of %u); the limit is %u; begin "
                 "with fewer, or with automatic memory (gistctl: --memory auto)",
                 name_of(b), n, q->n_tokens, q->seg_len, q->max_tokens);
}

static void fail_different(struct sched *s, struct request *r, const struct begin_with *b)
{
    request_fail(
        s, r, WIRE_E_BAD_REQUEST, REQUEST_NO_NUMBERS,
        "the documents \"%.64s\" and \"%.64s\" were added with different memory options, so "
        "they cannot be in one session: add one of them again",
        b->names[0], name_of(b));
}

/* Before it is read: whether it can stand behind the others. */
static bool may_join(struct sched *s, struct request *r, const struct begin_with *b,
                     const struct policy *policy, uint32_t n)
{
    const struct seq *q = b->whole ? &b->whole->seq : NULL;

    if (q && !policy_same(&b->whole->memory.policy, policy))
        fail_different(s, r, b);
    else if (q && seq_behind(q) + n > q->max_tokens)
        fail_behind(s, r, b, q, n);
    else
        return true;
    return false;
}

/* What was read until now goes, but is known: as one text all of it is begun anew. */
static void become_one(struct sched *s, struct request *r, struct begin_with *b)
{
    opening_undo(s, r);
    b->as_one = true;
    b->at = 0;
    b->begun = b->pin = false;
    b->usage = (struct wire_usage){ 0 };
    r->phase = REQUEST_WORK;
}

/* It was read: the session goes on with it. Its pages are charged twice for a moment, as those of
 * two sessions. False: there was no room, which was answered, or not together. */
static bool join(struct sched *s, struct request *r, struct begin_with *b)
{
    struct session *alone = opening_take(s, r);
    int e;

    opening_return(r, b->whole);
    b->whole = NULL;
    e = session_adopt_behind(r->session, alone);
    if (e == -ENOTSUP || e == -E2BIG)
        become_one(s, r, b);
    else if (e < 0)
        request_fail_pages(s, r, r->session->seq.account, alone->seq.n_pages,
                           "the document \"%.64s\" behind others", name_of(b));
    session_free(alone);
    return e == 0;
}

/* How tokens are held is counted once, of the whole (opened); only what reading took adds up. */
static void add_usage(struct wire_usage *to, const struct wire_usage *u)
{
    to->computed_tokens += u->computed_tokens;
    to->shared_tokens += u->shared_tokens;
    to->restored_tokens += u->restored_tokens;
    to->prompt_ns += u->prompt_ns;
}

/* --- reading ---------------------------------------------------------------------------------- */

/* The reply, when all documents are in the session. */
static void opened(struct sched *s, struct request *r, const struct begin_with *b)
{
    struct session *x = r->session;

    session_truncate(x, session_len(x)); /* behind several ones: there are no logits */
    if (b->has_hydrate)                  /* what is read behind them may be asked in any way */
        x->memory.hydrate = b->hydrate;
    r->usage = b->usage;
    r->usage.prompt_tokens = session_len(x);
    memory_account(&x->memory, &r->usage);
    opening_end(r);
    r->last = (struct wire_rep){ .kind = WIRE_SESSION_OPENED };
    r->last.u.session_opened.session = x->id;
    r->last.u.session_opened.context_max = x->seq.max_tokens;
    r->last.u.session_opened.usage = r->usage;
    request_finish(s, r);
}

/* One document was read. */
static void begun(struct sched *s, struct request *r)
{
    struct begin_with *b = r->job;

    if (b->pin && !b->is_private)
        pin_again(s, r, b);
    add_usage(&b->usage, &r->usage);
    if (b->whole && !join(s, r, b))
        return;
    if (b->as_one || b->at + 1 == b->n) {
        opened(s, r, b);
        return;
    }
    b->at++;
    b->begun = b->pin = false;
    b->whole = opening_leave(s, r);
    r->phase = REQUEST_WORK;
}

/* What a session is asked to be, beside beginning with the document. */
static bool agrees(struct sched *s, struct request *r, const struct begin_with *b,
                   const struct policy *policy, bool is_public)
{
    if (b->has_policy && !policy_same(&b->policy, policy))
        request_fail(s, r, WIRE_E_BAD_REQUEST, REQUEST_NO_NUMBERS,
                     "the document \"%.64s\" was read with other memory options, which a session "
                     "that begins with it has, too: leave them out, or add the document with these",
                     name_of(b));
    else if (b->is_public && !is_public)
        request_fail(s, r, WIRE_E_BAD_REQUEST, REQUEST_NO_NUMBERS,
                     "the document \"%.64s\" is not public, so no session that begins with it is",
                     name_of(b));
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

    if (!agrees(s, r, b, policy, is_public) || !may_join(s, r, b, policy, n) ||
        !opening_begin(s, r, policy, sharing, b->priority, &e))
        return r->phase == REQUEST_LAST ? 0 : e;
    if (b->at == 0)
        memcpy(r->session->label, b->label, sizeof(b->label));
    else
        (void)snprintf(r->session->label, sizeof(r->session->label), "document %.40s", name_of(b));
    return append_take_ids(s, r, ids, n, after, begun);
}

/* Not in memory: its file says what it is. */
static int begin_with_file(struct sched *s, struct request *r, struct begin_with *b)
{
    struct policy policy;
    struct names_file f;
    void *bytes;
    int e;

    if (!named_load(s, r, b->owner, WIRE_NAMED_DOCUMENT, name_of(b), &f, &bytes, &policy))
        return 0;
    b->pin = f.pin;
    e = begin_with_ids(s, r, b, &policy, f.is_public, f.ids, f.n_ids, f.chat_at);
    free(bytes);
    return e;
}

/* --- as one text ------------------------------------------------------------------------------ */

/* False: its ids are known soon, or it was answered. */
static bool add_text(struct sched *s, struct request *r, struct begin_with *b)
{
    const struct document *d = document_find(&s->documents, b->owner, name_of(b));
    struct policy policy;
    struct one_part part;
    struct names_file f;
    void *bytes = NULL;
    int e;

    if (d && d->state == DOCUMENT_ENCODING)
        return false;
    if (d)
        part = (struct one_part){ &d->policy, d->is_public, d->ids, d->n_ids, d->chat_at };
    else if (named_load(s, r, b->owner, WIRE_NAMED_DOCUMENT, name_of(b), &f, &bytes, &policy))
        part = (struct one_part){ &policy, f.is_public, f.ids, f.n_ids, f.chat_at };
    else
        return false;
    e = one_text_add(&b->text, s->served.vocab, &part);
    free(bytes);
    if (e < 0)
        request_fail_memory(s, r, e);
    return e == 0;
}

/* Before anything is read, so that nothing is read for nothing. One document that nothing else was
 * asked of is begun with as it is. False: some ids are not known yet. */
static bool look(struct sched *s, struct request *r, struct begin_with *b)
{
    const struct policy *said = b->has_policy ? &b->policy : NULL;

    if ((b->n > 1 || (said && said->automatic)) && b->at < b->n) {
        if (!add_text(s, r, b))
            return r->phase == REQUEST_LAST;
        b->at++;
        return true; /* a file of megabytes is enough for a slice */
    }
    b->at = 0;
    b->looked = true;
    b->as_one = b->text.n_parts > 0 && one_text_choose(&b->text, said, &s->served);
    return true;
}

static bool begin_with_work(struct sched *s, struct request *r)
{
    struct begin_with *b = r->job;
    const struct document *d;
    int e;

    if (b->begun)
        return append_work(s, r);
    if (!b->looked)
        return look(s, r, b);
    d = document_find(&s->documents, b->owner, name_of(b));
    if (d && d->state == DOCUMENT_ENCODING)
        return false; /* its ids are known soon, or it is gone */
    b->begun = true;
    append_fini(r); /* of the one before */
    r->state = NULL;
    if (d)
        document_teach(d);
    if (b->as_one) {
        const struct one_text *t = &b->text;

        e = begin_with_ids(s, r, b, &t->policy, t->is_public, t->ids, t->n, t->chat_at);
    } else if (d) {
        e = begin_with_ids(s, r, b, &d->policy, d->is_public, d->ids, d->n_ids, d->chat_at);
    } else {
        e = begin_with_file(s, r, b);
    }
    if (e < 0)
        request_fail_memory(s, r, e);
    return true;
}

/* Two sessions may be there, the one that is read and the whole: each is the request's for a
 * moment, to be freed. */
static void begin_with_undo(struct sched *s, struct request *r)
{
    struct begin_with *b = r->job;

    append_undo(s, r);
    opening_undo(s, r);
    if (!b || !b->whole)
        return;
    opening_return(r, b->whole);
    b->whole = NULL;
    opening_undo(s, r);
}

static void begin_with_fini(struct request *r)
{
    struct begin_with *b = r->job;

    append_fini(r);
    if (b)
        one_text_fini(&b->text);
    free(b);
}

const struct request_ops request_open_with = {
    .name = "open",
    .start = begin_with_start,
    .work = begin_with_work,
    .plan = append_plan,
    .rows = append_rows,
    .undo = begin_with_undo,
    .fini = begin_with_fini,
};
