/* daemon/kept.c - holders, who has them, and what their answers say. See kept.h for how a session
 * stands between its connection and its holder.
 *
 * A holder is a struct client, so that everything that counts, limits or frees what a client has
 * works for it as well; in exchange all code that talks to a client asks for its channel first.
 * Whatever may point at a kept session goes through here when that changes: its connection's list,
 * the relay that reads its answer, the Attach that waits for it. */

#include "daemon/kept.h"

#include "base/clock.h"
#include "daemon/lanes.h"
#include "daemon/log.h"
#include "daemon/sched.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

/* Time for the frames of a client that is gone, while all others wait. */
#define HEAR_NS (5 * CLOCK_MS)

struct session *kept_session(const struct kept *k)
{
    return TAILQ_FIRST(&k->holder->sessions);
}

uint32_t kept_count(const struct owner *o)
{
    const struct client *c;
    uint32_t n = 0;

    TAILQ_FOREACH (c, &o->clients, of_owner)
        n += c->kept != NULL;
    return n;
}

/* --- made ------------------------------------------------------------------------------------- */

/* Who has the token has the session, so it is drawn anew with each Keep, and the old one opens
 * nothing. */
int kept_name(struct kept *k)
{
    uint8_t token[WIRE_TOKEN_BYTES];

    if (getrandom(token, sizeof(token), 0) != (ssize_t)sizeof(token))
        return -EIO;
    memcpy(k->token, token, sizeof(token));
    explicit_bzero(token, sizeof(token));
    return 0;
}

/* A client of the same owner and unit and with the same name, of nobody's connection. */
static int make_holder(struct sched *s, const struct client *c, struct client **ret)
{
    const struct mailbox_letter nobody = { .pid = c->pid, .uid = c->uid, .unit = c->unit->name };
    struct owner *owner = owner_ref(&s->owners, c->uid);
    int r = owner ? client_new(&nobody, owner, s->served.client_pages, s->config->client_text_bytes,
                               ret)
                  : -ENOMEM;

    if (r < 0)
        owner_unref(&s->owners, owner);
    else
        memcpy((*ret)->name, c->name, sizeof(c->name));
    return r;
}

/* The token is a key, and the frames are somebody's text: both are overwritten. */
static void free_kept(struct kept *k)
{
    if (!k)
        return;
    backlog_fini(&k->log);
    explicit_bzero(k, sizeof(*k));
    free(k);
}

/* The session last: it moves or it does not, and behind it nothing can fail. */
static int fill(struct sched *s, struct kept *k, struct session *session)
{
    int r = backlog_init(&k->log, &k->holder->held, s->config->detach_bytes);

    if (r == 0)
        r = kept_name(k);
    return r < 0 ? r : session_move(session, k->holder);
}

/* Until fill() has moved the session all can be undone. From there on the holder is a client like
 * all others, and the session is in its list (K1). */
int kept_make(struct sched *s, struct session *session, struct kept **ret)
{
    struct client *c = session->client, *holder = NULL;
    struct owner *owner = c->owner;
    struct kept *k = calloc(1, sizeof(*k));
    int r = k ? make_holder(s, c, &holder) : -ENOMEM;

    if (r == 0) {
        k->holder = holder;
        r = fill(s, k, session);
    }
    if (r < 0) {
        free_kept(k);
        if (holder) {
            client_free(holder);
            owner_unref(&s->owners, owner);
        }
        return r;
    }
    (void)stpcpy(k->realm, session->memory.policy.realm);
    holder->kept = k;
    TAILQ_INSERT_TAIL(&s->clients, holder, link);
    s->n_clients++;
    s->n_kept++;
    TAILQ_REMOVE(&c->sessions, session, link);
    c->n_sessions--;
    TAILQ_INSERT_TAIL(&holder->sessions, session, link);
    holder->n_sessions++;
    kept_attach(k, c);
    *ret = k;
    return 0;
}

/* --- who has it ------------------------------------------------------------------------------- */

/* All are looked at, and all of each: neither how much of a token is right nor what else is wrong
 * can be told by a clock. */
struct kept *kept_find(const struct sched *s, const struct client *asks, const uint8_t *token,
                       const char *realm)
{
    uint64_t now = clock_ns();
    uintptr_t found = 0;
    const struct client *c;

    TAILQ_FOREACH (c, &s->clients, link) {
        const struct kept *k = c->kept;
        uint32_t wrong = k ? c->uid ^ asks->uid : 1;

        for (size_t i = 0; k && i < sizeof(k->token); i++)
            wrong |= (uint32_t)(k->token[i] ^ token[i]);
        for (size_t i = 0; k && i < sizeof(k->realm); i++)
            wrong |= (uint32_t)((uint8_t)k->realm[i] ^ (uint8_t)realm[i]);
        wrong |= (uint32_t)c->dead;
        wrong |= (uint32_t)(k && (kept_session(k)->closing | (!k->at & (now >= k->until_ns))));
        found |= (uintptr_t)k & ((uintptr_t)(wrong != 0) - 1);
    }
    return (struct kept *)found;
}

void kept_attach(struct kept *k, struct client *c)
{
    assert(!k->at);
    k->at = c;
    TAILQ_INSERT_TAIL(&c->keeps, k, link);
    c->n_keeps++;
}

void kept_claim(struct kept *k, struct request *r)
{
    if (k->claim)
        return;
    k->claim = r;
    r->state = k;
}

void kept_unclaim(struct request *r)
{
    struct kept *k = r->state;

    if (k)
        k->claim = NULL;
    r->state = NULL;
}

bool kept_claimed(const struct session *x)
{
    return x->client->kept && x->client->kept->claim;
}

/* Of a channel that is broken nothing more is believed: what it had not taken is sent again. True:
 * some came back just now. */
static bool note_taken(struct kept *k)
{
    uint32_t n = 0;
    int r = k->at ? chan_taken(k->at->chan, &n) : -EPROTO;

    if (r >= 0)
        backlog_took(&k->log, n);
    return r > 0;
}

/* The connection's side of kept_attach. */
static void leave(struct kept *k)
{
    if (!k->at)
        return;
    TAILQ_REMOVE(&k->at->keeps, k, link);
    k->at->n_keeps--;
    k->at = NULL;
}

/* What the reader has taken is looked up first, while its channel is still there. A relay that is
 * left loses its end, and the answer goes on into the backlog. Half a text that was being appended
 * in parts goes with who sent it. */
void kept_detach(struct sched *s, struct kept *k)
{
    struct session *session = kept_session(k);

    (void)note_taken(k);
    backlog_again(&k->log);
    if (k->relay)
        request_fail(s, k->relay, WIRE_E_CANCELLED, REQUEST_NO_NUMBERS,
                     "session %" PRIu64 " is another connection's now", session->id);
    encode_text_fini(&session->parts);
    leave(k);
    k->until_ns = clock_ns() + k->seconds * CLOCK_S;
}

/* --- the end ---------------------------------------------------------------------------------- */

/* Of the connection's own requests on sessions that stay: as if they had been cancelled. */
static void give_up(struct sched *s, struct client *c)
{
    for (uint32_t i = 0; i < CLIENT_REQUESTS_ALL; i++) {
        struct request *r = &c->requests[i];

        if (r->phase != REQUEST_FREE && r->phase != REQUEST_LAST && r->session &&
            r->session->client->kept)
            request_fail(s, r, WIRE_E_CANCELLED, REQUEST_NO_NUMBERS, "its connection has ended");
    }
}

/* Lanes that a connection's request has left behind go with it, but stand on forks of the session:
 * their pages are the holder's. */
static void drop_lanes(struct sched *s, const struct client *holder)
{
    struct request *r, *next;

    for (r = TAILQ_FIRST(&s->active); r; r = next) {
        next = TAILQ_NEXT(r, link);
        if (r->lane && r->lane->session->client == holder && r->client != holder)
            request_drop(s, r);
    }
}

static void bury(struct sched *s, struct kept *k)
{
    drop_lanes(s, k->holder);
    if (k->relay)
        request_fail(s, k->relay, WIRE_E_NOT_FOUND, REQUEST_NO_NUMBERS,
                     "the session was closed while its answer was sent");
    if (k->claim)
        kept_unclaim(k->claim);
    leave(k);
    k->holder->kept = NULL;
    s->n_kept--;
    free_kept(k);
}

/* Who closes a session and disconnects at once has said so in frames that nobody has read, and does
 * not wait for an answer. What else is there nobody wants any more. A ring full of large frames,
 * which no CloseSession is, takes long: what is not heard in time leaves its session to the clock.
 */
static void hear_last(struct sched *s, struct client *c)
{
    uint64_t end = clock_ns() + HEAR_NS;
    struct session *session;
    struct chan_msg msg;
    struct wire_req m;

    if (c->receiving)
        chan_release(c->chan);
    c->receiving = NULL;
    while (clock_ns() < end && chan_recv(c->chan, &msg) == 0) {
        if (msg.frame_len <= RING_SMALL &&
            wire_req_unpack(&s->unpacked, msg.frame, msg.frame_len, &m) == 0 &&
            m.kind == WIRE_CLOSE_SESSION) {
            session = client_find_session(c, m.u.close_session.session);
            if (session)
                session->closing = true;
        }
        chan_release(c->chan);
    }
}

void kept_leave(struct sched *s, struct client *c)
{
    struct kept *k;

    if (c->kept) {
        bury(s, c->kept);
        return;
    }
    if (TAILQ_EMPTY(&c->keeps))
        return;
    if (!c->broke)
        hear_last(s, c);
    give_up(s, c);
    while ((k = TAILQ_FIRST(&c->keeps))) {
        kept_detach(s, k);
        if (kept_session(k)->closing)
            kept_end(k);
        else
            log_debug("session %" PRIu64 " of uid %u is kept for %u s without its client",
                      kept_session(k)->id, (unsigned)c->uid, k->seconds);
    }
}

/* Buried with the next reap, between steps, as every client is. */
void kept_end(struct kept *k)
{
    leave(k);
    k->holder->dead = true;
}

/* Only what is detached: a session that somebody has is his to cancel, by its request. */
bool kept_cancel(const struct session *x)
{
    struct kept *k = x ? x->client->kept : NULL;

    if (!k || k->at)
        return false;
    kept_end(k);
    return true;
}

bool kept_speaks(const struct kept *k)
{
    return k->answer || k->relay;
}

bool kept_look(struct sched *s)
{
    uint64_t now = s->n_kept > 0 ? clock_ns() : 0;
    struct client *c;
    bool any = false;

    if (s->n_kept == 0)
        return false;
    TAILQ_FOREACH (c, &s->clients, link) {
        if (!c->kept || c->kept->at || now < c->kept->until_ns)
            continue;
        kept_end(c->kept);
        any = true;
    }
    return any;
}

/* Looked through for each sleep, over all clients: only where something is kept. */
int kept_timeout_ms(const struct sched *s)
{
    const struct client *c;
    uint64_t first = 0;

    if (s->n_kept == 0)
        return -1;
    TAILQ_FOREACH (c, &s->clients, link)
        if (c->kept && !c->kept->at && (first == 0 || c->kept->until_ns < first))
            first = c->kept->until_ns;
    return first ? clock_until_ms(first, clock_ns()) : -1;
}

uint64_t kept_client(const struct client *c)
{
    if (!c->kept)
        return c->id;
    return c->kept->at ? c->kept->at->id : 0;
}

uint32_t kept_left_s(const struct kept *k)
{
    uint64_t now = clock_ns();

    if (k->at)
        return 0;
    return k->until_ns > now ? (uint32_t)((k->until_ns - now + CLOCK_S - 1) / CLOCK_S) : 1;
}

/* --- what its answer says --------------------------------------------------------------------- */

/* How it ended is not a frame of the log: it waits beside it, for as long as the session is kept,
 * and needs no room. */
static void keep_last(struct kept *k, const struct wire_rep *rep)
{
    k->last = *rep;
    if (rep->kind == WIRE_ERROR) {
        (void)stpcpy(k->text, rep->u.error.text);
        k->last.u.error.text = k->text;
    }
    k->ended = true;
    k->answer = NULL;
}

/* What was taken by now makes room; more may be taken as soon as this was looked at, and then the
 * connection rings. It does not ring for what was found here: who has tried in vain to send it
 * something is to try again. */
static int room(struct sched *s, struct kept *k, size_t len, uint8_t **ret)
{
    int r = backlog_room(&k->log, len, ret);

    if (r != -EAGAIN)
        return r;
    s->room_made |= note_taken(k);
    r = backlog_room(&k->log, len, ret);
    if (r == -EAGAIN && k->at)
        k->at->blocked = true;
    return r;
}

int kept_reply(struct sched *s, struct kept *k, const struct wire_rep *rep)
{
    uint8_t *to;
    size_t len;
    int e;

    /* Who will read it is not known: the relay puts its request's id in front (wire_put_id). */
    assert(rep->id == 0 && rep->bulk_len == 0);
    if (rep->last) {
        keep_last(k, rep);
        return 0;
    }
    e = wire_rep_pack(&s->packed, rep, NULL, 0, &len);
    if (e == 0 && len > CHAN_FRAME_MAX - WIRE_ID_MAX)
        e = -EMSGSIZE;
    if (e == 0)
        e = room(s, k, len, &to);
    if (e == 0)
        e = wire_rep_pack(&s->packed, rep, to, len, &len);
    if (e == 0)
        backlog_add(&k->log, len, rep->kind == WIRE_TEXT ? rep->u.text.n_tokens : 0);
    return e;
}
