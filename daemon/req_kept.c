/* daemon/req_kept.c - Keep, Attach, Resume: sessions that outlive their connection, see
 * daemon/kept.h; and the relay of their answers. */

#include "base/clock.h"
#include "daemon/generate.h"
#include "daemon/kept.h"
#include "daemon/reply.h"
#include "daemon/sched.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>

/* --- Keep ------------------------------------------------------------------------------------- */

/* 0, and more than there is, is as long as may be; how long that is the reply says. */
static int keep_start(struct sched *s, struct request *r, const struct wire_req *m,
                      const uint8_t *bulk)
{
    uint32_t most = s->config->detach_seconds, seconds = m->u.keep.seconds;

    (void)bulk;
    if (most == 0) {
        request_fail(s, r, WIRE_E_UNSUPPORTED, REQUEST_NO_NUMBERS,
                     "this daemon keeps no session without its client (--detach-seconds 0)");
        return 0;
    }
    if (request_take_session(s, r, m->u.keep.session)) /* kept for work() */
        r->last.u.kept.seconds = seconds > 0 && seconds < most ? seconds : most;
    return 0;
}

/* As many as there are places for clients, of which some are other users': the same numbers. False:
 * that was answered. */
static bool has_place(struct sched *s, struct request *r)
{
    uint32_t n = kept_count(r->client->owner), most = s->owners.limits.clients;

    if (n >= most)
        request_fail(s, r, WIRE_E_LIMIT, (struct request_numbers){ n, 1, most },
                     "user %u keeps %u sessions, the most that one user may (--owner-clients)",
                     (unsigned)r->client->uid, n);
    else if (s->n_kept >= s->config->max_clients)
        request_fail(
            s, r, WIRE_E_LIMIT, (struct request_numbers){ s->n_kept, 1, s->config->max_clients },
            "%u sessions of all users are kept, the most that may be (--max-clients)", s->n_kept);
    return r->phase != REQUEST_LAST;
}

static void fail_keep(struct sched *s, struct request *r, int e)
{
    const struct session *x = r->session;

    if (e == -ENOSPC)
        request_fail_pages(s, r, x->seq.account, x->seq.n_pages, "keeping a session of %u tokens",
                           session_count(x));
    else if (e == -EDQUOT)
        request_fail(s, r, WIRE_E_LIMIT, (struct request_numbers){ 0, s->config->detach_bytes, 0 },
                     "keeping a session takes %" PRIu64
                     " bytes more (--detach-bytes), and the limits for texts have no room for them "
                     "(--client-text-bytes, --owner-text-bytes)",
                     s->config->detach_bytes);
    else if (e == -EIO)
        request_fail(s, r, WIRE_E_INTERNAL, REQUEST_NO_NUMBERS,
                     "the kernel gave no random bytes for a token");
    else
        request_fail_memory(s, r, e);
}

/* Pages change hands, so not in the middle of a step. */
static bool keep_work(struct sched *s, struct request *r)
{
    struct kept *k = r->session->client->kept;
    uint32_t seconds = r->last.u.kept.seconds;
    int e;

    if (!k && !has_place(s, r))
        return true;
    e = k ? kept_name(k) : kept_make(s, r->session, &k);
    if (e < 0) {
        fail_keep(s, r, e);
        return true;
    }
    k->seconds = seconds;
    memcpy(r->text, k->token, sizeof(k->token)); /* the reply may be sent when k is gone */
    r->last = (struct wire_rep){ .kind = WIRE_KEPT };
    r->last.u.kept = (struct wire_kept){ (const uint8_t *)r->text, sizeof(k->token), seconds,
                                         s->config->detach_bytes };
    request_finish(s, r);
    return true;
}

/* --- Attach ----------------------------------------------------------------------------------- */

/* What is asked for until work(): r->text. */
struct wanted {
    uint8_t token[WIRE_TOKEN_BYTES];
    char realm[POLICY_REALM_MAX + 1];
};
_Static_assert(sizeof(struct wanted) <= REQUEST_TEXT_MAX, "of bytes alone");

/* Only a form is checked here. Whether there is such a session is looked up in work(), between
 * steps, since what is found is moved at once. */
static int attach_start(struct sched *s, struct request *r, const struct wire_req *m,
                        const uint8_t *bulk)
{
    const char *realm = m->u.attach.realm ? m->u.attach.realm : "";
    struct wanted w = { .realm = "" };
    size_t n = strlen(realm);

    (void)bulk;
    if (m->u.attach.n != sizeof(w.token)) {
        request_fail(s, r, WIRE_E_BAD_REQUEST,
                     (struct request_numbers){ 0, m->u.attach.n, sizeof(w.token) },
                     "a token has %zu bytes; this one has %u", sizeof(w.token), m->u.attach.n);
        return 0;
    }
    if (n > POLICY_REALM_MAX) {
        request_fail(s, r, WIRE_E_BAD_REQUEST, (struct request_numbers){ 0, n, POLICY_REALM_MAX },
                     "the name of a realm has %zu bytes; %u are allowed", n, POLICY_REALM_MAX);
        return 0;
    }
    memcpy(w.token, m->u.attach.token, sizeof(w.token));
    memcpy(w.realm, realm, n);
    memcpy(r->text, &w, sizeof(w));
    return 0;
}

/* Of the connection that has it: text that it is sending goes first, since that is copied to where
 * the session is. Then what it does with the session is cancelled. False: it is not free yet, and
 * *ret_any says whether something was done about that. */
static bool is_free(struct kept *k, bool *ret_any)
{
    struct session *session = kept_session(k);
    struct request *busy = session->busy;

    *ret_any = false;
    if (k->at && k->at->receiving && k->at->receiving->parts == &session->parts)
        return false;
    if (!busy || busy->client == k->holder)
        return true;
    *ret_any = !busy->cancelled;
    if (!busy->cancelled)
        busy->times.cancel_at = clock_ns();
    busy->cancelled = true;
    return false;
}

static void fail_unknown(struct sched *s, struct request *r)
{
    request_fail(s, r, WIRE_E_NOT_FOUND, REQUEST_NO_NUMBERS,
                 "no session is kept for this token: it is wrong, its time is over, it is of "
                 "another user or realm, or the daemon was started again");
}

static void tell_attached(struct sched *s, struct request *r, const struct kept *k)
{
    const struct session *session = kept_session(k);

    r->last = (struct wire_rep){ .kind = WIRE_ATTACHED };
    r->last.u.attached = (struct wire_attached){ .session = session->id,
                                                 .context_max = session->seq.max_tokens,
                                                 .n_tokens = session_count(session),
                                                 .answers = k->n_answers,
                                                 .first = k->log.first,
                                                 .unread = k->log.unread,
                                                 .written = k->log.written,
                                                 .seconds = k->seconds };
    request_finish(s, r);
}

/* Each step anew until it is free: what was found in the last one may be gone, or have another
 * token. */
static bool attach_work(struct sched *s, struct request *r)
{
    uint32_t most = s->config->max_sessions;
    struct client *c = r->client;
    struct wanted w;
    struct kept *k;
    bool any;

    memcpy(&w, r->text, sizeof(w));
    k = kept_find(s, c, w.token, w.realm);
    if (!k) {
        fail_unknown(s, r);
        return true;
    }
    if (k->at != c && c->n_sessions + c->n_keeps >= most) {
        request_fail(s, r, WIRE_E_LIMIT,
                     (struct request_numbers){ c->n_sessions + c->n_keeps, 1, most },
                     "this client has %u sessions open, the most that it may have (--max-sessions)",
                     c->n_sessions + c->n_keeps);
        return true;
    }
    if (!is_free(k, &any)) {
        /* Nothing new begins on it from here on, or whoever has it could keep it for ever by asking
         * on. */
        kept_claim(k, r);
        return any;
    }
    kept_unclaim(r);
    /* From whoever has it: the token is the stronger right. The old connection's relay hears that
     * it was taken. */
    if (k->at)
        kept_detach(s, k);
    kept_attach(k, c);
    tell_attached(s, r, k);
    return true;
}

static void attach_undo(struct sched *s, struct request *r)
{
    (void)s;
    kept_unclaim(r);
}

/* --- the relay -------------------------------------------------------------------------------- */

/* A Generate or a Resume becomes the one reader of the answer; its operations are the relay's from
 * now on. */
static void relay(struct request *r, struct kept *k)
{
    assert(!k->relay);
    r->ops = &request_relay;
    r->state = k;
    k->relay = r;
}

/* Resumed comes once, ahead of all text. A Generate reads from the beginning, and needs none
 * (kept_generate sets `told`). */
static int tell_begin(struct sched *s, struct request *r, struct kept *k)
{
    struct wire_rep rep = { .id = r->id,
                            .kind = WIRE_RESUMED,
                            .u.resumed = { k->begins, k->n_answers } };
    int e = k->told ? 0 : reply_send(s, r, &rep, NULL);

    k->told = k->told || e == 0;
    return e;
}

/* The reply is copied to the request: it may be sent when the session is no longer kept. */
static void end(struct sched *s, struct request *r, struct kept *k)
{
    r->last = k->last;
    if (k->last.kind == WIRE_ERROR) {
        memcpy(r->text, k->text, sizeof(r->text));
        r->last.u.error.text = r->text;
    }
    k->relay = NULL;
    r->state = NULL;
    request_finish(s, r);
}

/* True: something went out, and there may be room for what the answer could not say yet. */
static bool relay_work(struct sched *s, struct request *r)
{
    struct kept *k = r->state;
    int e = tell_begin(s, r, k);
    const uint8_t *frame;
    bool any = false;
    size_t len;

    while (e == 0 && (frame = backlog_next(&k->log, &len))) {
        e = reply_frame(r, frame, len);
        if (e < 0)
            break;
        backlog_sent(&k->log, chan_sent(r->client->chan) - 1);
        any = true;
    }
    if (e < 0 || !k->ended)
        return any;
    end(s, r, k);
    return true;
}

/* It is the answer that is to end, and says how. Of a Resume with a deadline only the reading. */
static void relay_cancel(struct sched *s, struct request *r)
{
    struct kept *k = r->state;

    if (r->expired) {
        request_fail_cancelled(s, r, "; the answer goes on");
        return;
    }
    r->cancelled = false;
    if (!k->answer || k->answer->cancelled)
        return;
    k->answer->cancelled = true;
    k->answer->times.cancel_at = r->times.cancel_at;
}

/* The session is not read any more, by this request; the answer goes on. Called for a request that
 * never was a reader as well. */
static void leave(struct request *r)
{
    struct kept *k = r->state;

    if (k)
        k->relay = NULL;
    r->state = NULL;
}

static void relay_undo(struct sched *s, struct request *r)
{
    (void)s;
    leave(r);
}

/* --- an answer -------------------------------------------------------------------------------- */

/* A request of the holder, which has the session from here on. Its deadline goes along: it counts
 * whether anybody reads or not. */
static struct request *begin_answer(struct sched *s, struct request *r, struct kept *k)
{
    struct request *a = client_free_request(k->holder);

    assert(a);
    *a = (struct request){ .client = k->holder,
                           .ops = &request_generate,
                           .phase = REQUEST_WORK,
                           .arrived_ns = r->arrived_ns,
                           .deadline_ns = r->deadline_ns,
                           .times.number = r->times.number,
                           .session = r->session,
                           .memory = r->memory,
                           .priority = r->priority,
                           .parts = &k->holder->parts[CLIENT_PARTS_GRAMMAR] };
    a->session->busy = a;
    r->session = NULL;
    r->memory = NULL;
    r->deadline_ns = 0;
    TAILQ_INSERT_TAIL(&s->active, a, link);
    TAILQ_INSERT_TAIL(&k->holder->line, a, in_line);
    s->n_active++;
    k->holder->n_requests++;
    return a;
}

/* The grammar that came as bulk was collected by r; from here on it is the answer's. */
static int start_answer(struct sched *s, struct request *r, struct request *a,
                        const struct wire_req *m)
{
    int e = r->parts->len > 0 ? encode_text_add(a->parts, r->parts->s, r->parts->len) : 0;

    encode_text_fini(r->parts);
    return e < 0 ? e : generate_taken(s, a, m);
}

int kept_generate(struct sched *s, struct request *r, const struct wire_req *m)
{
    struct kept *k = r->session->client->kept;
    struct request *a;
    int e;

    if (kept_speaks(k)) {
        request_fail(s, r, WIRE_E_BUSY, REQUEST_NO_NUMBERS,
                     "session %" PRIu64 " has an answer that is still being sent", r->session->id);
        return 0;
    }
    backlog_clear(&k->log);
    k->ended = false;
    k->told = true;
    k->n_answers = m->u.generate.n > 1 ? m->u.generate.n : 1;
    a = k->answer = begin_answer(s, r, k);
    relay(r, k);
    e = start_answer(s, r, a, m);
    if (e < 0)
        request_fail_memory(s, a, e);
    a->parts = NULL;
    request_deliver(s, a);
    return 0;
}

/* --- Resume ----------------------------------------------------------------------------------- */

/* One reader at a time: two would each have half of the answer. */
static bool check_resume(struct sched *s, struct request *r, const struct wire_req *m,
                         const struct kept *k)
{
    uint64_t from = m->u.resume.from, id = m->u.resume.session;

    if (k->relay)
        request_fail(s, r, WIRE_E_BUSY, REQUEST_NO_NUMBERS,
                     "the answer of session %" PRIu64 " is being sent to request %" PRIu64, id,
                     k->relay->id);
    else if (!k->answer && !k->ended)
        request_fail(s, r, WIRE_E_NOT_FOUND, REQUEST_NO_NUMBERS,
                     "session %" PRIu64 " has written no answer since it is kept", id);
    else if (m->u.resume.has_from && from > k->log.written)
        request_fail(s, r, WIRE_E_BAD_REQUEST, (struct request_numbers){ k->log.written, from, 0 },
                     "the answer cannot go on behind %" PRIu64 " tokens: it has %" PRIu64 " so far",
                     from, k->log.written);
    else
        return true;
    return false;
}

static int resume_start(struct sched *s, struct request *r, const struct wire_req *m,
                        const uint8_t *bulk)
{
    const struct session *session = client_find_session(r->client, m->u.resume.session);
    struct kept *k = session ? session->client->kept : NULL;

    (void)bulk;
    if (!session || session->closing) {
        request_fail(s, r, WIRE_E_NOT_FOUND, REQUEST_NO_NUMBERS,
                     "this client has no session %" PRIu64, m->u.resume.session);
        return 0;
    }
    if (!k) {
        request_fail(s, r, WIRE_E_BAD_REQUEST, REQUEST_NO_NUMBERS,
                     "session %" PRIu64 " is not kept: its answers can't be had again",
                     session->id);
        return 0;
    }
    if (!check_resume(s, r, m, k))
        return 0;
    /* What was sent to this very connection it has had, or will. */
    if (m->u.resume.has_from)
        k->begins = backlog_seek(&k->log, m->u.resume.from);
    else
        k->begins = backlog_place(&k->log);
    k->told = false;
    relay(r, k);
    return 0;
}

const struct request_ops request_keep = {
    .name = "keep", .start = keep_start, .work = keep_work, .ids_only = true
};
const struct request_ops request_attach = { .name = "attach",
                                            .start = attach_start,
                                            .work = attach_work,
                                            .undo = attach_undo,
                                            .fini = kept_unclaim };
/* Both start as the relay's: they work, and so they are not let in by the spare places. */
const struct request_ops request_resume = { .name = "resume",
                                            .start = resume_start,
                                            .work = relay_work };
const struct request_ops request_relay = {
    .name = "relay", .work = relay_work, .cancel = relay_cancel, .undo = relay_undo, .fini = leave
};
