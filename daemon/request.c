/* Between the frames of a client and the kinds: what all requests have in common, from the first
 * frame (start, go_on) by way of sessions, deadlines and accounts to the last reply
 * (request_finish, request_deliver). A request ends in two steps, since its reply may have to wait
 * for room: request_finish lets go of the session, and request_drop frees the rest when the reply
 * is out, or nobody is there to read it. */
#include "daemon/request.h"

#include "base/clock.h"
#include "base/shown.h"
#include "daemon/kept.h"
#include "daemon/lanes.h"
#include "daemon/log.h"
#include "daemon/reply.h"
#include "daemon/sched.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>

/* Ids that are compared with the vocabulary's size in one slice. */
#define KNOWN_SLICE 65536u

const struct request_ops *const request_ops_of[WIRE_REQ__N] = {
    [WIRE_HELLO] = &request_hello,
    [WIRE_OPEN_SESSION] = &request_open,
    [WIRE_APPEND] = &request_append,
    [WIRE_GENERATE] = &request_generate,
    [WIRE_CANCEL] = &request_cancel,
    [WIRE_CLOSE_SESSION] = &request_close,
    [WIRE_SCORE] = &request_score,
    [WIRE_TOKENIZE] = &request_tokenize,
    [WIRE_DETOKENIZE] = &request_detokenize,
    [WIRE_GET_STATS] = &request_stats,
    [WIRE_PING] = &request_ping,
    [WIRE_FORK] = &request_fork,
    [WIRE_REWIND] = &request_rewind,
    [WIRE_SAVE] = &request_save,
    [WIRE_RESTORE] = &request_restore,
    [WIRE_LIST] = &request_list,
    [WIRE_DELETE] = &request_delete,
    [WIRE_ADD_DOCUMENT] = &request_add_document,
    [WIRE_CACHE] = &request_cache,
    [WIRE_WATCH] = &request_watch,
    [WIRE_TRACE] = &request_trace,
    [WIRE_SCORE_CHOICES] = &request_score_choices,
    [WIRE_EMBED] = &request_embed,
    [WIRE_SEGMENTS] = &request_segments,
    [WIRE_KEEP] = &request_keep,
    [WIRE_ATTACH] = &request_attach,
    [WIRE_RESUME] = &request_resume,
};

/* What a frame becomes that can't be read, or breaks a limit of the wire. */
static const struct request_ops request_refused = { .name = "refused request" };

/* At the end of both lines. What is not named is zero: no session, no memory, no state. */
static struct request *begin(struct sched *s, struct client *c, uint64_t id,
                             const struct request_ops *ops)
{
    struct request *r = client_free_request(c);

    assert(r); /* without a free one no frame is taken */
    *r = (struct request){
        .client = c, .ops = ops, .phase = REQUEST_WORK, .id = id, .arrived_ns = clock_ns()
    };
    TAILQ_INSERT_TAIL(&s->active, r, link);
    TAILQ_INSERT_TAIL(&c->line, r, in_line);
    s->n_active++;
    c->n_requests++;
    s->totals.requests++;
    r->times.number = s->totals.requests;
    return r;
}

/* Such requests are let in when the table is full but for the spare places: a Cancel may be what
 * frees the others. */
static bool ends_at_once(const struct request_ops *ops)
{
    return !ops->work && !ops->plan;
}

/* False: it was answered. Refused requests are requests, too, and have a place until that was
 * sent. */
static bool admit(struct sched *s, struct request *r, bool id_taken)
{
    struct client *c = r->client;

    if (!c->greeted && r->ops != &request_hello)
        request_fail(s, r, WIRE_E_BAD_REQUEST, REQUEST_NO_NUMBERS,
                     "the first request of a connection must be Hello");
    else if (id_taken)
        request_fail(s, r, WIRE_E_BAD_REQUEST, REQUEST_NO_NUMBERS,
                     "request id %" PRIu64 " belongs to another open request", r->id);
    else if (c->n_requests > CLIENT_REQUESTS_MAX && !ends_at_once(r->ops))
        request_fail(s, r, WIRE_E_LIMIT,
                     (struct request_numbers){ CLIENT_REQUESTS_MAX, 1, CLIENT_REQUESTS_MAX },
                     "this client has %u requests open, the most that it may have",
                     CLIENT_REQUESTS_MAX);
    return r->phase == REQUEST_WORK;
}

/* Where the bulk of earlier parts lies: in the session that is appended to, or in the client. It is
 * looked up before the request is let in, since a part that is refused forgets it, too. */
static struct encode_text *parts_of(struct client *c, const struct wire_req *m)
{
    struct session *session;

    switch (m->kind) {
    case WIRE_APPEND:
        session = client_find_session(c, m->u.append.session);
        return session ? &session->parts : NULL;
    case WIRE_SCORE:
        return &c->parts[CLIENT_PARTS_SCORE];
    case WIRE_SCORE_CHOICES:
        return &c->parts[CLIENT_PARTS_CHOICES];
    case WIRE_EMBED:
        return &c->parts[CLIENT_PARTS_EMBED];
    case WIRE_TOKENIZE:
        return &c->parts[CLIENT_PARTS_TOKENIZE];
    case WIRE_DETOKENIZE:
        return &c->parts[CLIENT_PARTS_DETOKENIZE];
    case WIRE_ADD_DOCUMENT:
        return &c->parts[CLIENT_PARTS_DOCUMENT];
    case WIRE_GENERATE:
        return &c->parts[CLIENT_PARTS_GRAMMAR];
    default:
        return NULL;
    }
}

/* Copying megabytes between two layers would hold up everybody's answers. */
static bool in_pieces(const struct sched *s, const struct request *r, const struct wire_req *m)
{
    return m->bulk_len > REQUEST_PIECE_BYTES && r->parts && r->ops->takes_bulk &&
           r->ops->takes_bulk(s, r, m);
}

/* After start(): the parts are taken, or wait for the next one, which may be another's text. */
static void started(struct sched *s, struct request *r)
{
    r->parts = NULL;
    request_deliver(s, r);
}

/* Takes the room for all of a long bulk at once: a client that has none for it hears so before
 * anything is copied. -ENOMEM, -EDQUOT. */
static int begin_pieces(struct client *c, struct request *r, const struct wire_req *m)
{
    int e = encode_text_reserve(r->parts, m->bulk_len);

    if (e < 0)
        return e;
    r->phase = REQUEST_RECEIVE;
    c->receiving = r;
    c->received = 0;
    return 0;
}

/* s->deadline_ns is the first of all; request_expire finds the next one. */
static void keep_deadline(struct sched *s, struct request *r, uint32_t ms)
{
    if (ms == 0)
        return;
    r->deadline_ns = r->arrived_ns + ms * CLOCK_MS;
    if (s->deadline_ns == 0 || r->deadline_ns < s->deadline_ns)
        s->deadline_ns = r->deadline_ns;
}

/* The id is looked for before the request has it itself. A kind may finish, or fail, in its
 * start(). */
static void start(struct sched *s, struct client *c, const struct wire_req *m, const uint8_t *bulk)
{
    bool id_taken = client_find_request(c, m->id);
    struct request *r = begin(s, c, m->id, request_ops_of[m->kind]);
    int e = 0;

    r->parts = parts_of(c, m);
    keep_deadline(s, r, m->deadline_ms);
    if (admit(s, r, id_taken))
        e = in_pieces(s, r, m) ? begin_pieces(c, r, m) : r->ops->start(s, r, m, bulk);
    if (e < 0)
        request_fail_memory(s, r, e);
    /* Long bulk comes later, piece by piece: until the last one the request waits in go_on. */
    if (r->phase != REQUEST_RECEIVE)
        started(s, r);
}

/* One more piece of it; behind the last one the request starts. The frame is unpacked anew for each
 * piece: it is a private copy, so that it says the same each time. */
static void go_on(struct sched *s, struct client *c, const struct wire_req *m, const uint8_t *bulk)
{
    struct request *r = c->receiving;
    uint64_t n = m->bulk_len - c->received;
    struct wire_req rest = *m;
    int e;

    if (n > REQUEST_PIECE_BYTES)
        n = REQUEST_PIECE_BYTES;
    e = encode_text_add(r->parts, bulk + c->received, n);
    assert(e == 0); /* begin_pieces took the room */
    c->received += n;
    if (c->received < m->bulk_len)
        return;
    c->receiving = NULL;
    r->phase = REQUEST_WORK;
    /* All of it is in r->parts by now: to the kind it is a message without bulk behind earlier
     * parts. */
    rest.bulk_len = 0;
    e = r->ops->start(s, r, &rest, NULL);
    if (e < 0)
        request_fail_memory(s, r, e);
    started(s, r);
}

/* Its sender waits for this id, and may have sent parts before it. */
static void refuse(struct sched *s, struct client *c, const struct wire_req *head,
                   enum wire_error code, const char *why)
{
    struct request *r = begin(s, c, head->id, &request_refused);

    r->parts = parts_of(c, head);
    request_fail(s, r, code, REQUEST_NO_NUMBERS, "%s", why);
    r->parts = NULL;
    request_deliver(s, r);
}

/* An answer can be addressed as soon as the frame's head can be read: wire_req_head takes the id
 * from what is left. */
void request_receive(struct sched *s, struct client *c, const struct chan_msg *msg)
{
    struct wire_req m;
    struct why why = { "" };
    int e = wire_req_unpack(&s->unpacked, msg->frame, msg->frame_len, &m);

    if (e < 0) {
        wire_req_head(msg->frame, msg->frame_len, &m);
        refuse(s, c, &m, e == -ENOTSUP ? WIRE_E_UNSUPPORTED : WIRE_E_BAD_REQUEST,
               s->unpacked.why.text);
    } else if (m.bulk_len != msg->bulk_len) {
        (void)why_set(&why, 0, "the frame announces %" PRIu64 " bytes of data, but its slot has %u",
                      m.bulk_len, msg->bulk_len);
        refuse(s, c, &m, WIRE_E_BAD_REQUEST, why.text);
    } else if (c->receiving) {
        go_on(s, c, &m, msg->bulk);
    } else {
        start(s, c, &m, msg->bulk);
    }
}

/* Followers are let go of before the memory rests: they look for another one to wait for
 * (daemon/follow.h). */
static void release_session(struct sched *s, struct request *r)
{
    if (r->reader)
        follow_leave(&s->follow, r->reader);
    r->reader = NULL;
    if (r->memory)
        memory_rest(r->memory);
    if (r->session) {
        r->session->busy = NULL;
        r->session->rested_ns = clock_ns();
    }
    r->session = NULL;
    r->memory = NULL;
}

/* Of requests that use the model: what it took, for histograms and for `gistctl trace`. What was
 * read for an answer counts to its first token. */
static void measure(struct sched *s, const struct request *r)
{
    uint64_t now;

    if (!r->ops->plan || r->lane) /* most of them: a ping takes a microsecond */
        return;
    now = clock_ns();
    if (r->cancelled && r->times.cancel_at)
        meter_add(&s->meter.cancel, now - r->times.cancel_at);
    s->meter.shared_tokens += r->usage.shared_tokens;
    s->meter.restored_tokens += r->usage.restored_tokens;
    /* An append's whole time is added up until an answer's first token comes, and is a part of what
     * that took. */
    if (r->session && r->ops->rows)
        r->session->read_ns += now - r->arrived_ns;
    if (r->session && r->usage.first_token_ns) {
        meter_add(&s->meter.first_token[r->priority],
                  r->usage.first_token_ns + r->session->read_ns);
        r->session->read_ns = 0;
    }
    /* Nobody could be told whose rows those are. */
    if (r->client->uid != s->served.stand_in)
        trace_add(&s->trace, r,
                  r->last.kind == WIRE_ERROR ? wire_error_name(r->last.u.error.code) : "done");
}

/* The session is free before the reply is out: who reads slowly must not keep it from another
 * request of its own, and the reply has copies of what it says. */
void request_finish(struct sched *s, struct request *r)
{
    assert(r->phase != REQUEST_LAST);
    r->last.id = r->id;
    r->last.last = !r->lane; /* a part's end is not the end of its request */
    r->phase = REQUEST_LAST;
    if (r->client->receiving == r) { /* it failed, and the rest of its text is not wanted */
        chan_release(r->client->chan);
        r->client->receiving = NULL;
    }
    measure(s, r);
    release_session(s, r);
}

/* It goes to other clients, too (Stats): what is no UTF-8 would keep a careful one of them from
 * reading the whole reply. */
void request_label(char *to, size_t cap, const char *from)
{
    size_t n = from ? shown_put(SHOWN_LINE, from, strlen(from), to, cap - 1) : 0;

    to[n] = '\0';
}

/* An id that the asker may not see is one that there is none of: both answers are the same. */
const struct session *request_see_session(const struct sched *s, const struct client *asks,
                                          uint64_t id)
{
    const struct session *x;
    struct client *c;

    TAILQ_FOREACH (c, &s->clients, link)
        if (client_sees(asks, c, s->served.stand_in) && (x = client_find_session(c, id)))
            return x;
    return NULL;
}

bool request_take_session(struct sched *s, struct request *r, uint64_t id)
{
    struct session *session = client_find_session(r->client, id);

    if (!session || session->closing) {
        request_fail(s, r, WIRE_E_NOT_FOUND, REQUEST_NO_NUMBERS,
                     "this client has no session %" PRIu64, id);
        return false;
    }
    /* Only sessions that are no function of their ids are lost: all others are read again. */
    if (session->lost) {
        request_fail(s, r, WIRE_E_INTERNAL, REQUEST_NO_NUMBERS,
                     "session %" PRIu64
                     " was lost with the device: it stands on several documents; close it, and "
                     "open it with them again",
                     id);
        return false;
    }
    /* Refused instead of queued: the order of two requests of one client on one session is its own
     * to choose, and a queue would be memory that it makes us hold. */
    if (session->busy) {
        request_fail(s, r, WIRE_E_BUSY, REQUEST_NO_NUMBERS,
                     "session %" PRIu64 " is busy with request %" PRIu64 " (%s)", id,
                     session->busy->id, session->busy->ops->name);
        return false;
    }
    /* Who sends without a pause would else keep it for ever. */
    if (kept_claimed(session)) {
        request_fail(s, r, WIRE_E_BUSY, REQUEST_NO_NUMBERS,
                     "session %" PRIu64 " is about to be another connection's, which has attached "
                     "to it",
                     id);
        return false;
    }
    session->busy = r;
    r->session = session;
    r->memory = &session->memory;
    r->priority = session->priority;
    return true;
}

bool request_collects(const struct sched *s, const struct request *r, const struct wire_req *m)
{
    return r->parts->len + m->bulk_len <= s->config->max_text;
}

/* Checked at each part: a client could else have us hold any amount before it says "last". */
bool request_collect(struct sched *s, struct request *r, const uint8_t *bulk, uint64_t n)
{
    uint64_t most = s->config->max_text, had = r->parts->len;
    int e;

    if (had + n > most)
        request_fail(s, r, WIRE_E_LIMIT, (struct request_numbers){ had, n, most },
                     "the request has more than %" PRIu64
                     " bytes of text or ids, which is the limit "
                     "(--max-text)",
                     most);
    else if ((e = encode_text_add(r->parts, bulk, n)) < 0)
        request_fail_memory(s, r, e);
    return r->phase == REQUEST_WORK;
}

bool request_whole_ids(struct sched *s, struct request *r, size_t n_bytes)
{
    if (n_bytes % sizeof(uint32_t) == 0)
        return true;
    request_fail(s, r, WIRE_E_BAD_REQUEST, REQUEST_NO_NUMBERS,
                 "the token ids take %zu bytes, which is not a multiple of 4", n_bytes);
    return false;
}

/* The engine indexes the embedding with them, and looks no more. */
bool request_known_ids(struct sched *s, struct request *r, const uint32_t *ids, size_t n)
{
    uint32_t n_vocab = s->served.model->n_vocab;

    for (size_t i = 0; i < n; i++) {
        if (ids[i] < n_vocab)
            continue;
        request_fail(s, r, WIRE_E_BAD_REQUEST, (struct request_numbers){ 0, ids[i], n_vocab },
                     "token id %u does not exist: the vocabulary has %u tokens", ids[i], n_vocab);
        return false;
    }
    return true;
}

bool request_known_slice(struct sched *s, struct request *r, const uint32_t *ids, size_t n,
                         size_t *left)
{
    size_t k = *left < KNOWN_SLICE ? *left : KNOWN_SLICE;
    bool known = request_known_ids(s, r, ids + (n - *left), k);

    *left -= k;
    return known && *left == 0;
}

bool request_away(const struct request *r)
{
    return r->memory && !r->ops->ids_only && r->memory->away.state != AWAY_HERE;
}

/* By its kind, and not by its phase: a request that waits for pages, or encodes, will use the
 * model. */
bool request_computes(const struct request *r)
{
    return (r->ops->plan || request_away(r)) && !r->lane && r->phase != REQUEST_LAST;
}

bool request_waits(const struct request *r)
{
    return request_computes(r) && !r->times.began_at;
}

bool request_back(struct request *r)
{
    if (!request_away(r))
        return true;
    if (!away_back(r->memory))
        return false;
    if (r->usage.prompt_tokens && !r->usage.generated_tokens) /* it was counted when that began */
        memory_account(r->memory, &r->usage);
    return true;
}

struct request *request_whole(struct request *r)
{
    return r->lane && r->lane->whole ? r->lane->whole : r;
}

/* Bulk that is still copied is let in first: its frame is in hand until then. */
static bool may_expire(const struct request *r)
{
    return r->deadline_ns > 0 && !r->cancelled && r->phase != REQUEST_LAST;
}

/* The first of them is kept in one place, for this is asked between any two layers. It may be that
 * of a request that has ended: then the next one is looked for once. */
bool request_expire(struct sched *s)
{
    uint64_t now = s->deadline_ns ? clock_ns() : 0, first = 0;
    struct request *r;
    bool any = false;

    if (s->deadline_ns == 0 || now < s->deadline_ns)
        return false;
    TAILQ_FOREACH (r, &s->active, link) {
        if (!may_expire(r))
            continue;
        if (r->deadline_ns <= now && r->phase != REQUEST_RECEIVE) {
            r->cancelled = r->expired = any = true;
            r->times.cancel_at = now;
        } else if (first == 0 || r->deadline_ns < first) {
            first = r->deadline_ns;
        }
    }
    s->deadline_ns = first;
    return any;
}

int request_deadline_ms(const struct sched *s)
{
    return s->deadline_ns ? clock_until_ms(s->deadline_ns, clock_ns()) : -1;
}

bool request_in_use(const struct sched *s)
{
    const struct request *r;

    TAILQ_FOREACH (r, &s->active, link)
        if (request_computes(r))
            return true;
    return false;
}

/* A lane goes with its whole: cancels and deadlines are the whole's. */
bool request_unwanted(const struct request *r)
{
    return r->cancelled || r->client->dead ||
           (r->lane && r->lane->whole && r->lane->whole->cancelled);
}

/* Without a word to the client. A lane is not one of its client's places, and frees itself. */
void request_drop(struct sched *s, struct request *r)
{
    release_session(s, r);
    if (r->ops->fini)
        r->ops->fini(r);
    TAILQ_REMOVE(&s->active, r, link);
    TAILQ_REMOVE(&r->client->line, r, in_line);
    s->n_active--;
    if (r->lane) {
        lane_free(s, r->lane);
        return;
    }
    r->client->n_requests--;
    if (r->client->receiving == r)
        r->client->receiving = NULL;
    r->phase = REQUEST_FREE;
}

/* How long the client's ring kept a reply: `gistctl trace` tells its reader's slowness from
 * ours. */
static void unblocked(struct sched *s, struct request *r)
{
    r->times.ring += clock_ns() - r->times.blocked_at;
    r->times.blocked_at = 0;
    if (r->phase == REQUEST_LAST)
        trace_out(&s->trace, r);
}

/* Of a part only the end of an answer. */
static int send_last(struct sched *s, struct request *r)
{
    if (r->lane && (r->last.kind != WIRE_DONE || !lane_speaks(r)))
        return 0;
    if (r->lane)
        r->last.u.done.index = r->lane->index;
    return reply_send(s, r, &r->last, NULL);
}

/* May free r, and mark its client as dead; frees no client. */
void request_deliver(struct sched *s, struct request *r)
{
    int e = 0;

    if (r->client->dead)
        return;
    if (r->ops->flush && lane_speaks(r))
        e = r->ops->flush(s, r);
    if (e == 0 && r->phase == REQUEST_LAST)
        e = send_last(s, r);
    if (e == -EAGAIN && !r->times.blocked_at)
        r->times.blocked_at = clock_ns();
    else if (e == 0 && r->times.blocked_at)
        unblocked(s, r);
    if (e == 0 && r->phase == REQUEST_LAST)
        request_drop(s, r);
    /* No reply of ours is too large or malformed; if one is all the same, its client must not wait
     * for it for ever. */
    if (e < 0 && e != -EAGAIN && !r->client->dead) {
        log_peer_error("client %" PRIu64 ", request %" PRIu64 " (%s): a reply can't be sent: %d",
                       r->client->id, r->id, r->ops->name, e);
        r->client->dead = true;
    }
}
