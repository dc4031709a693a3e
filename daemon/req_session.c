/* daemon/req_session.c - the life of a session: opened, forked, taken back, closed. */

#include "base/clock.h"
#include "daemon/kept.h"
#include "daemon/opening.h"
#include "daemon/sched.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* A Fork's own. */
struct fork {
    char label[SESSION_LABEL_MAX + 1];
};

/* --- Open, Close ------------------------------------------------------------------------------ */

/* A client's new one. Ids are never used again: a late request for a closed session must not meet
 * another one. */
static void add(struct sched *s, struct client *c, struct session *session)
{
    s->last_session++;
    s->n_sessions++;
    c->n_sessions++;
    session->rested_ns = clock_ns();
    TAILQ_INSERT_TAIL(&c->sessions, session, link);
}

/* No client's any more. Whoever calls this has the session, and frees it or hands it on. */
static void drop(struct sched *s, struct session *session)
{
    struct client *c = session->client;

    TAILQ_REMOVE(&c->sessions, session, link);
    c->n_sessions--;
    s->n_sessions--;
}

/* Which the reply tells its client of. */
static void adopt(struct sched *s, struct request *r, struct session *session)
{
    add(s, r->client, session);
    r->last = (struct wire_rep){ .kind = WIRE_SESSION_OPENED };
    r->last.u.session_opened.session = session->id;
    r->last.u.session_opened.context_max = session->seq.max_tokens;
    request_finish(s, r);
}

/* False: it was answered. Those that a client is attached to count as its own, though their pages
 * are their holder's. */
static bool has_room(struct sched *s, struct request *r)
{
    uint32_t n = r->client->n_sessions + r->client->n_keeps, most = s->config->max_sessions;
    uint32_t n_owner = owner_sessions(r->client->owner), most_owner = s->owners.limits.sessions;

    if (n >= most)
        request_fail(s, r, WIRE_E_LIMIT, (struct request_numbers){ n, 1, most },
                     "this client has %u sessions open, the most that it may have (--max-sessions)",
                     n);
    else if (n_owner >= most_owner)
        request_fail(s, r, WIRE_E_LIMIT, (struct request_numbers){ n_owner, 1, most_owner },
                     "user %u has %u sessions open in all clients, the most that one user may have "
                     "(--owner-sessions)",
                     (unsigned)r->client->uid, n_owner);
    return n < most && n_owner < most_owner;
}

/* False: both were asked for, which was answered. */
static bool read_sharing(struct sched *s, struct request *r, const struct wire_req *m,
                         enum session_sharing *ret)
{
    bool is_public = m->u.open_session.public_prefix, is_private = m->u.open_session.is_private;

    *ret = is_public ? SESSION_PUBLIC : is_private ? SESSION_PRIVATE : SESSION_OF_USER;
    if (!is_public || !is_private)
        return true;
    request_fail(s, r, WIRE_E_BAD_REQUEST, REQUEST_NO_NUMBERS,
                 "a session cannot be both public and private: the one is shared with all users, "
                 "of the other nothing is kept");
    return false;
}

/* False: there can't be one, which was answered. */
static bool check_realm(struct sched *s, struct request *r, const struct wire_req *m)
{
    size_t n = m->u.open_session.realm ? strlen(m->u.open_session.realm) : 0;

    if (n > POLICY_REALM_MAX)
        request_fail(s, r, WIRE_E_BAD_REQUEST, (struct request_numbers){ 0, n, POLICY_REALM_MAX },
                     "the name of a realm has %zu bytes; %u are allowed", n, POLICY_REALM_MAX);
    else if (n > 0 && m->u.open_session.public_prefix)
        request_fail(s, r, WIRE_E_BAD_REQUEST, REQUEST_NO_NUMBERS,
                     "a public session is of no realm: it is shared with all users");
    else if (n > 0 && m->u.open_session.n_documents > 0)
        request_fail(s, r, WIRE_E_BAD_REQUEST, REQUEST_NO_NUMBERS,
                     "a session that begins with documents is of no realm: they are there for all "
                     "sessions of their user");
    else
        return true;
    return false;
}

/* All of it in start(), which may run between two layers: a new session has no page, and no step
 * knows of it. */
static int open_start(struct sched *s, struct request *r, const struct wire_req *m,
                      const uint8_t *bulk)
{
    struct policy policy;
    struct why why = { "" };
    enum session_sharing sharing;
    struct session *session;
    int e;

    (void)bulk;
    if (!has_room(s, r) || !read_sharing(s, r, m, &sharing) || !check_realm(s, r, m))
        return 0;
    if (m->u.open_session.n_documents > 0) {
        /* Another kind of request from here on. */
        r->ops = &request_open_with;
        return r->ops->start(s, r, m, bulk);
    }
    if (policy_read(&m->u.open_session.memory,
                    m->u.open_session.has_segment ? &m->u.open_session.segment : NULL,
                    s->config->segment, &s->served, &policy, &why) < 0) {
        request_fail(s, r, WIRE_E_BAD_REQUEST, REQUEST_NO_NUMBERS, "%.300s", why.text);
        return 0;
    }
    if (m->u.open_session.realm)
        (void)stpcpy(policy.realm, m->u.open_session.realm);
    e = session_new(&s->served, r->client, s->last_session + 1, sharing, &policy, &session);
    if (e < 0)
        return e;
    request_label(session->label, sizeof(session->label), m->u.open_session.label);
    session->priority = m->u.open_session.priority;
    adopt(s, r, session);
    return 0;
}

/* A session at work is closed when that work has ended, which is told to hurry. Marked in start(),
 * so that no request can take it any more; freed in work(), between steps, since a step may have
 * its pages. */
static int close_start(struct sched *s, struct request *r, const struct wire_req *m,
                       const uint8_t *bulk)
{
    struct session *session = client_find_session(r->client, m->u.close_session.session);

    (void)bulk;
    if (!session || session->closing) {
        request_fail(s, r, WIRE_E_NOT_FOUND, REQUEST_NO_NUMBERS,
                     "this client has no session %" PRIu64, m->u.close_session.session);
        return 0;
    }
    session->closing = true;
    if (session->busy && !session->busy->cancelled)
        session->busy->times.cancel_at = clock_ns();
    if (session->busy)
        session->busy->cancelled = true;
    r->state = session;
    return 0;
}

static bool close_work(struct sched *s, struct request *r)
{
    struct session *session = r->state;
    struct kept *k = session->client->kept;

    /* An answer that nobody is told any more has no room to end in. */
    if (session->busy || (k && k->relay))
        return false;
    r->last = (struct wire_rep){ .kind = WIRE_SESSION_CLOSED };
    r->last.u.session_closed.n_tokens = session_count(session);
    if (k) {
        kept_end(k);
    } else {
        drop(s, session);
        session_free(session);
    }
    r->state = NULL;
    request_finish(s, r);
    return true;
}

/* A close that is cancelled leaves the session open. */
static void close_undo(struct sched *s, struct request *r)
{
    struct session *session = r->state;

    (void)s;
    if (session)
        session->closing = false;
}

/* --- opening ---------------------------------------------------------------------------------- */

/* In the client's list, and so in its counts and freed with it; `opening` keeps others from finding
 * it. */
bool opening_begin(struct sched *s, struct request *r, const struct policy *policy,
                   enum session_sharing sharing, enum wire_priority priority, int *ret_err)
{
    struct session *session;

    *ret_err = 0;
    if (!has_room(s, r))
        return false;
    *ret_err = session_new(&s->served, r->client, s->last_session + 1, sharing, policy, &session);
    if (*ret_err < 0)
        return false;
    session->priority = priority;
    session->opening = true;
    session->busy = r;
    add(s, r->client, session);
    r->session = session;
    r->memory = &session->memory;
    r->priority = priority;
    return true;
}

void opening_end(struct request *r)
{
    r->session->opening = false;
}

struct session *opening_leave(struct sched *s, struct request *r)
{
    struct session *session = r->session;

    if (r->reader) /* it looks at the memory that goes */
        follow_leave(&s->follow, r->reader);
    r->reader = NULL;
    memory_rest(r->memory);
    session->busy = NULL;
    r->session = NULL;
    r->memory = NULL;
    return session;
}

void opening_return(struct request *r, struct session *session)
{
    assert(!r->session && session->opening);
    session->busy = r;
    r->session = session;
    r->memory = &session->memory;
}

struct session *opening_take(struct sched *s, struct request *r)
{
    struct session *session = opening_leave(s, r);

    drop(s, session);
    session->opening = false;
    return session;
}

void opening_undo(struct sched *s, struct request *r)
{
    if (!r->session || !r->session->opening)
        return;
    session_free(opening_take(s, r));
}

/* --- Fork, Rewind ----------------------------------------------------------------------------- */

/* The label is all that work() needs of the message. */
static int fork_start(struct sched *s, struct request *r, const struct wire_req *m,
                      const uint8_t *bulk)
{
    struct fork *f;

    (void)bulk;
    if (!request_take_session(s, r, m->u.fork.session))
        return 0;
    f = calloc(1, sizeof(*f));
    r->state = f;
    if (!f)
        return -ENOMEM;
    request_label(f->label, sizeof(f->label), m->u.fork.label);
    return 0;
}

/* A fork of a kept session is the connection's that asked for it, and not its holder's. -ENOSPC: of
 * *ret_account. */
static int make_fork(struct sched *s, struct request *r, struct session **ret,
                     const struct pool_account **ret_account)
{
    struct session *copy;
    int e = session_fork(r->session, s->last_session + 1, &copy);

    *ret_account = r->session->seq.account;
    if (e == 0 && copy->client != r->client && (e = session_move(copy, r->client)) < 0) {
        *ret_account = &r->client->account;
        session_free(copy);
    }
    if (e == 0)
        *ret = copy;
    return e;
}

/* Pages change hands, so not in the middle of a step. What it waits for ends in a step. */
static bool fork_work(struct sched *s, struct request *r)
{
    uint32_t n = r->session->seq.n_pages;
    const struct fork *f = r->state;
    const struct pool_account *a;
    struct session *copy = NULL;
    int e;

    if (!has_room(s, r))
        return true;
    e = make_fork(s, r, &copy, &a);
    if (e == -ENOSPC && room_to_share(s, r, a, n))
        return false;
    if (e == -ENOSPC) {
        request_fail_pages(s, r, a, n, "a fork of %u tokens", session_count(r->session));
        return true;
    }
    if (e < 0) {
        request_fail_memory(s, r, e);
        return true;
    }
    memcpy(copy->label, f->label, sizeof(copy->label));
    adopt(s, r, copy);
    return true;
}

static void fork_fini(struct request *r)
{
    free(r->state);
}

static int rewind_start(struct sched *s, struct request *r, const struct wire_req *m,
                        const uint8_t *bulk)
{
    uint32_t n = m->u.rewind.n_tokens, had;

    (void)bulk;
    if (!request_take_session(s, r, m->u.rewind.session))
        return 0;
    had = session_count(r->session);
    if (n > had)
        request_fail(s, r, WIRE_E_BAD_REQUEST, (struct request_numbers){ had, n, had },
                     "cannot rewind to %u tokens: the session has only %u", n, had);
    else /* not done here: start() may run between two layers of a step that reads the session */
        r->last.u.rewound.n_tokens = n; /* kept for work() */
    return 0;
}

/* Clients count tokens without those that fill up a document's last segment (memory_place). */
static bool rewind_work(struct sched *s, struct request *r)
{
    uint32_t n = r->last.u.rewound.n_tokens;

    session_rewind(r->session, memory_place(r->memory, n));
    r->last = (struct wire_rep){ .kind = WIRE_REWOUND };
    r->last.u.rewound.n_tokens = n;
    request_finish(s, r);
    return true;
}

const struct request_ops request_open = { .name = "open", .start = open_start };
const struct request_ops request_close = {
    .name = "close", .start = close_start, .work = close_work, .undo = close_undo
};
const struct request_ops request_fork = {
    .name = "fork", .start = fork_start, .work = fork_work, .ids_only = true, .fini = fork_fini
};
const struct request_ops request_rewind = {
    .name = "rewind", .start = rewind_start, .work = rewind_work, .ids_only = true
};
