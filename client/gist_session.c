/* client/gist_session.c - sessions: open, append, close.
 *
 * Each call is there twice, and both go the same way: make_...() fills in a request, which borrows
 * what the caller passed. The one waits for its end (gist_run), the other hands it over
 * (gist_submit), which copies what could not be sent at once. So a maker's memory is free again
 * when either returns. on_reply, keep_...() here, reads what comes back. */
/* client/gist_session.c - sessions: open, append, close. */
#include "client/gist_open.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* --- opening and closing ---------------------------------------------------------------------- */

static int keep_session(struct gist_request *r, const struct wire_rep *rep, const uint8_t *bulk)
{
    (void)bulk;
    if (rep->kind != WIRE_SESSION_OPENED || !rep->last)
        return -EPROTO;
    r->session = rep->u.session_opened.session;
    gist_copy_usage(&r->result.usage, &rep->u.session_opened.usage);
    return 0;
}

/* The daemon has opened it: it is the connection's, in front of its list. Nothing here can fail,
 * see gist_make_room. */
gist_session *gist_adopt(struct gist_request *r)
{
    gist_session *s = r->opening;
    gist_conn *c = r->conn;

    r->opening = NULL;
    *s = (gist_session){
        .next = c->sessions, .conn = c, .id = r->session, .opened = r->result.usage
    };
    c->sessions = s;
    return s;
}

/* Before the request goes out: a session that the daemon has opened and that nobody can name, for
 * want of memory here, would take its room until the connection ends. */
int gist_make_room(struct gist_request *r)
{
    r->opening = calloc(1, sizeof(*r->opening));
    return r->opening ? 0 : gist_set_errno(r->conn, -ENOMEM);
}

int gist_run_open(struct gist_request *r, gist_session **ret_session)
{
    int err = gist_make_room(r);

    if (err == 0)
        err = gist_run(r, -1);
    if (err == 0)
        *ret_session = gist_adopt(r);
    free(r->opening);
    return err;
}

/* With an error the room is freed with the request. */
static void tell_session(struct gist_request *r, int err)
{
    r->end.session(r->arg, err, err == 0 ? gist_adopt(r) : NULL);
}

/* Without a callback nobody could ever have the session, so it is not opened. */
int gist_start_open(struct gist_request *r, gist_session_fn *on_session, void *arg,
                    uint64_t *ret_request)
{
    int err = on_session ? gist_make_room(r) : gist_set_errno(r->conn, -EINVAL);

    if (err < 0)
        return err;
    r->end.session = on_session;
    r->tell = tell_session;
    r->arg = arg;
    err = gist_submit(r, ret_request);
    if (err < 0)
        free(r->opening);
    return err;
}

void gist_session_usage(const gist_session *s, struct gist_usage *ret_usage)
{
    gist_copy_out(ret_usage, s->conn->sizes.usage, &s->opened, sizeof(s->opened));
}

/* What an older daemon would pass over is refused here: a private session that is not private is
 * worse than none. */
static int make_open(gist_conn *c, const struct gist_policy *policy, struct gist_request *ret)
{
    struct gist_request r = gist_request_make(c, WIRE_OPEN_SESSION);
    struct gist_policy p;
    int err = gist_usable(c);

    if (err < 0)
        return err;
    err = gist_copy_sized(&p, sizeof(p), policy);
    if (err == 0 && p.flags & ~(GIST_AUTO | GIST_PUBLIC | GIST_PRIVATE | GIST_SET_SEGMENT))
        err = -EINVAL;
    if (err == 0)
        err = gist_copy_memory(&r.msg.u.open_session.memory, p.memory);
    if (err < 0)
        return gist_set_errno(c, err);
    if (p.n_documents > WIRE_DOCUMENTS_MAX)
        return gist_set_error(c, GIST_E_BAD_REQUEST, -EINVAL,
                              "%zu documents for one session; %u are allowed", p.n_documents,
                              WIRE_DOCUMENTS_MAX);
    /* Fields that an older daemon would pass over; one that knows grammars is from after both. */
    if ((p.flags & GIST_PRIVATE || p.n_documents > 0) && !c->info.outputs)
        return gist_set_error(c, GIST_E_UNSUPPORTED, -ENOTSUP,
                              "gistd %s knows neither private sessions nor documents: restart it "
                              "with a newer version",
                              c->info.version);
    if (p.realm && p.realm[0] && !c->realms)
        return gist_set_error(c, GIST_E_UNSUPPORTED, -ENOTSUP,
                              "gistd %s knows no realms and would share what is to stay apart: "
                              "restart it with a newer version",
                              c->info.version);
    if (p.flags & GIST_AUTO)
        r.msg.u.open_session.memory.automatic = true;
    r.msg.u.open_session.segment = p.segment;
    r.msg.u.open_session.has_segment = p.segment || p.flags & GIST_SET_SEGMENT;
    r.msg.u.open_session.priority =
        p.priority == GIST_BACKGROUND ? WIRE_BACKGROUND : WIRE_INTERACTIVE;
    r.msg.u.open_session.label = p.label;
    r.msg.u.open_session.realm = p.realm;
    r.msg.u.open_session.public_prefix = p.flags & GIST_PUBLIC;
    r.msg.u.open_session.is_private = p.flags & GIST_PRIVATE;
    r.msg.u.open_session.documents = p.documents;
    r.msg.u.open_session.n_documents = (uint32_t)p.n_documents;
    r.on_reply = keep_session;
    *ret = r;
    return 0;
}

int gist_open(gist_conn *c, const struct gist_policy *policy, gist_session **ret_session)
{
    struct gist_request r;
    int err = make_open(c, policy, &r);

    return err < 0 ? err : gist_run_open(&r, ret_session);
}

int gist_open_start(gist_conn *c, const struct gist_policy *policy, gist_session_fn *on_session,
                    void *arg, uint64_t *ret_request)
{
    struct gist_request r;
    int err = make_open(c, policy, &r);

    return err < 0 ? err : gist_start_open(&r, on_session, arg, ret_request);
}

static struct gist_request make_fork(gist_session *s, const char *label)
{
    struct gist_request r = gist_request_make(s->conn, WIRE_FORK);

    r.msg.u.fork.session = s->id;
    r.msg.u.fork.label = label;
    r.on_reply = keep_session;
    return r;
}

int gist_fork(gist_session *s, const char *label, gist_session **ret_session)
{
    struct gist_request r = make_fork(s, label);

    return gist_run_open(&r, ret_session);
}

int gist_fork_start(gist_session *s, const char *label, gist_session_fn *on_session, void *arg,
                    uint64_t *ret_request)
{
    struct gist_request r = make_fork(s, label);

    return gist_start_open(&r, on_session, arg, ret_request);
}

/* A session that is of another length than was asked for would go on with the wrong text. */
static int check_rewound(struct gist_request *r, const struct wire_rep *rep, const uint8_t *bulk)
{
    (void)bulk;
    return rep->kind == WIRE_REWOUND && rep->last &&
                   rep->u.rewound.n_tokens == r->msg.u.rewind.n_tokens
               ? 0
               : -EPROTO;
}

static struct gist_request make_rewind(gist_session *s, uint32_t n_tokens)
{
    struct gist_request r = gist_request_make(s->conn, WIRE_REWIND);

    r.msg.u.rewind.session = s->id;
    r.msg.u.rewind.n_tokens = n_tokens;
    r.on_reply = check_rewound;
    return r;
}

int gist_rewind(gist_session *s, uint32_t n_tokens)
{
    struct gist_request r = make_rewind(s, n_tokens);

    return gist_run(&r, -1);
}

int gist_rewind_start(gist_session *s, uint32_t n_tokens, gist_done_fn *on_done, void *arg,
                      uint64_t *ret_request)
{
    struct gist_request r = make_rewind(s, n_tokens);

    return gist_start(&r, on_done, arg, ret_request);
}

/* Requests of it that are still open go on to their end, which the daemon tells them: they know the
 * session by its id. */
void gist_close(gist_session *s)
{
    struct gist_request r;
    gist_session **p;

    if (!s)
        return;
    r = gist_request_make(s->conn, WIRE_CLOSE_SESSION);
    r.msg.u.close_session.session = s->id;
    (void)gist_submit(&r, NULL); /* a dead connection has no sessions any more */
    for (p = &s->conn->sessions; *p != s; p = &(*p)->next)
        ;
    *p = s->next;
    free(s);
}

uint64_t gist_session_id(const gist_session *s)
{
    return s->id;
}

/* --- appending -------------------------------------------------------------------------------- */

void gist_on_progress(gist_session *s, gist_progress_fn *on_progress, void *arg)
{
    s->on_progress = on_progress;
    s->progress_arg = arg;
}

/* The daemon's first word may come late: what was found is told apart from what was read since. */
static void tell_read(struct gist_request *r, const struct wire_rep *rep)
{
    uint32_t n_read = rep->u.appended.n_read, n_all = rep->u.appended.n_all;

    if (!r->progress_begun && rep->u.appended.n_found < n_read)
        r->on_progress(r->progress_arg, rep->u.appended.n_found, n_all);
    r->progress_begun = true;
    r->on_progress(r->progress_arg, n_read, n_all);
}

/* Replies in between come only where they were asked for. */
static int keep_appended(struct gist_request *r, const struct wire_rep *rep, const uint8_t *bulk)
{
    (void)bulk;
    if (rep->kind != WIRE_APPENDED || (!rep->last && !r->on_progress))
        return -EPROTO;
    if (rep->last)
        gist_copy_usage(&r->result.usage, &rep->u.appended.usage);
    else
        tell_read(r, rep);
    return 0;
}

static int run_append(struct gist_request *r, struct gist_usage *ret_usage)
{
    int err;

    r->on_reply = keep_appended;
    err = gist_run(r, -1);
    if (err == 0)
        gist_copy_out(ret_usage, r->conn->sizes.usage, &r->result.usage, sizeof(r->result.usage));
    return err;
}

static int start_append(struct gist_request *r, gist_done_fn *on_done, void *arg,
                        uint64_t *ret_request)
{
    r->on_reply = keep_appended;
    return gist_start(r, on_done, arg, ret_request);
}

/* The callback is that of now: gist_on_progress changes what is appended later, not what is under
 * way. */
static struct gist_request make_append(gist_session *s, enum wire_append_kind kind,
                                       const void *bulk, size_t len)
{
    struct gist_request r = gist_request_make(s->conn, WIRE_APPEND);

    r.msg.u.append.session = s->id;
    r.msg.u.append.kind = kind;
    r.msg.u.append.progress = s->on_progress != NULL;
    r.on_progress = s->on_progress;
    r.progress_arg = s->progress_arg;
    r.bulk = bulk;
    r.bulk_len = len;
    return r;
}

static struct gist_request make_append_text(gist_session *s, const char *text, size_t len,
                                            unsigned flags)
{
    struct gist_request r = make_append(s, WIRE_APPEND_TEXT, text, len);

    r.msg.u.append.special = flags & GIST_SPECIAL;
    return r;
}

int gist_append_text(gist_session *s, const char *text, size_t len, unsigned flags,
                     struct gist_usage *ret_usage)
{
    struct gist_request r = make_append_text(s, text, len, flags);

    if (flags & ~GIST_SPECIAL)
        return gist_set_errno(s->conn, -EINVAL);
    return run_append(&r, ret_usage);
}

int gist_append_text_start(gist_session *s, const char *text, size_t len, unsigned flags,
                           gist_done_fn *on_done, void *arg, uint64_t *ret_request)
{
    struct gist_request r = make_append_text(s, text, len, flags);

    if (flags & ~GIST_SPECIAL)
        return gist_set_errno(s->conn, -EINVAL);
    return start_append(&r, on_done, arg, ret_request);
}

int gist_append_tokens(gist_session *s, const uint32_t *ids, size_t n, struct gist_usage *ret_usage)
{
    struct gist_request r = make_append(s, WIRE_APPEND_TOKENS, ids, n * sizeof(*ids));

    return run_append(&r, ret_usage);
}

int gist_append_tokens_start(gist_session *s, const uint32_t *ids, size_t n, gist_done_fn *on_done,
                             void *arg, uint64_t *ret_request)
{
    struct gist_request r = make_append(s, WIRE_APPEND_TOKENS, ids, n * sizeof(*ids));

    return start_append(&r, on_done, arg, ret_request);
}

/* The texts of all messages, one after the other, and the table that says where each ends. Copied
 * into one piece, since bulk is one. A message's text may be empty. Roles stay the caller's: they
 * are borrowed as the text of any request is. */
static int gather_chat(const struct gist_message *msgs, size_t n,
                       struct wire_chat_message **ret_list, char **ret_text, size_t *ret_len)
{
    struct wire_chat_message *list;
    size_t len = 0;
    char *text, *p;

    list = calloc(n ? n : 1, sizeof(*list));
    if (!list)
        return -ENOMEM;
    for (size_t i = 0; i < n; i++) {
        list[i].role = msgs[i].role;
        list[i].text_len = strlen(msgs[i].text);
        len += list[i].text_len;
    }
    text = p = malloc(len + 1);
    if (!text) {
        free(list);
        return -ENOMEM;
    }
    for (size_t i = 0; i < n; i++)
        p = mempcpy(p, msgs[i].text, list[i].text_len);
    *ret_list = list;
    *ret_text = text;
    *ret_len = len;
    return 0;
}

/* The request of an append of messages; the table and the text that it points to are the caller's
 * to free. */
static int make_append_chat(gist_session *s, const struct gist_message *msgs, size_t n,
                            unsigned flags, struct gist_request *ret,
                            struct wire_chat_message **ret_list, char **ret_text)
{
    size_t len;
    int err;

    if (flags & ~GIST_OPEN_ANSWER)
        return gist_set_errno(s->conn, -EINVAL);
    if (n > WIRE_MESSAGES_MAX)
        return gist_set_error(s->conn, GIST_E_BAD_REQUEST, -EMSGSIZE,
                              "%zu chat messages in one request; %u are allowed", n,
                              WIRE_MESSAGES_MAX);
    err = gather_chat(msgs, n, ret_list, ret_text, &len);
    if (err < 0)
        return gist_set_errno(s->conn, err);
    *ret = make_append(s, WIRE_APPEND_CHAT, *ret_text, len);
    ret->msg.u.append.messages = *ret_list;
    ret->msg.u.append.n_messages = (uint32_t)n;
    ret->msg.u.append.open_answer = flags & GIST_OPEN_ANSWER;
    return 0;
}

int gist_append_chat(gist_session *s, const struct gist_message *msgs, size_t n, unsigned flags,
                     struct gist_usage *ret_usage)
{
    struct wire_chat_message *list;
    struct gist_request r;
    char *text;
    int err = make_append_chat(s, msgs, n, flags, &r, &list, &text);

    if (err < 0)
        return err;
    err = run_append(&r, ret_usage);
    free(list);
    free(text);
    return err;
}

int gist_append_chat_start(gist_session *s, const struct gist_message *msgs, size_t n,
                           unsigned flags, gist_done_fn *on_done, void *arg, uint64_t *ret_request)
{
    struct wire_chat_message *list;
    struct gist_request r;
    char *text;
    int err = make_append_chat(s, msgs, n, flags, &r, &list, &text);

    if (err < 0)
        return err;
    err = start_append(&r, on_done, arg, ret_request);
    free(list);
    free(text);
    return err;
}
