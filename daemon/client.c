#include "daemon/client.h"

#include "daemon/kept.h"
#include "daemon/log.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

/* Three accounts, one above the other: pages and text of a client count for its owner, and an
 * owner's text for the daemon. What can fail comes first, so that nothing is to be undone. */
int client_new(const struct mailbox_letter *adopt, struct owner *owner, uint32_t max_pages,
               size_t max_held, struct client **ret)
{
    struct client *c = calloc(1, sizeof(*c));

    if (!c || unit_join(&owner->units, adopt->unit, c) < 0) {
        free(c);
        return -ENOMEM;
    }
    c->id = adopt->client;
    c->pid = adopt->pid;
    c->uid = adopt->uid;
    c->chan = adopt->chan;
    c->owner = owner;
    c->account = (struct pool_account){ .limit = max_pages, .owner = &owner->pages };
    c->held = (struct held_account){ .limit = max_held, .above = &owner->held };
    for (int i = 0; i < CLIENT_PARTS__N; i++)
        c->parts[i].account = &c->held;
    TAILQ_INIT(&c->sessions);
    TAILQ_INIT(&c->line);
    TAILQ_INIT(&c->keeps);
    TAILQ_INSERT_TAIL(&owner->clients, c, of_owner);
    *ret = c;
    return 0;
}

/* Sessions go first: they give pages and text back to the accounts, which have to be empty then. */
void client_free(struct client *c)
{
    struct session *s;

    if (!c)
        return;
    assert(c->n_requests == 0 && c->n_lanes == 0 && c->n_keeps == 0 && !c->kept);
    while ((s = TAILQ_FIRST(&c->sessions))) {
        TAILQ_REMOVE(&c->sessions, s, link);
        session_free(s);
    }
    assert(c->account.used == 0);
    for (int i = 0; i < CLIENT_PARTS__N; i++)
        encode_text_fini(&c->parts[i]);
    assert(c->held.used == 0);
    unit_leave(&c->owner->units, c);
    TAILQ_REMOVE(&c->owner->clients, c, of_owner);
    chan_close(c->chan);
    free(c);
}

struct journal_about client_about(const struct client *c, enum journal_message message)
{
    return (struct journal_about){
        .message = message, .client = c->id, .pid = c->pid, .uid = c->uid, .name = c->name
    };
}

/* Logged once, whatever follows: it is only marked here, since frames of it may be being looked at.
 * The control thread closes the socket when the scheduler has buried it. */
void client_broke(struct client *c, const char *what)
{
    const struct journal_about about = client_about(c, JOURNAL_BROKE);

    if (c->dead)
        return;
    log_peer_about(LOG_LEVEL_WARNING, &about,
                   "client %" PRIu64 " (pid %d, %s) broke the protocol and is closed: %s", c->id,
                   (int)c->pid, c->name, what);
    c->dead = c->broke = true;
}

bool client_sees(const struct client *c, const struct client *other, uid_t stand_in)
{
    return c == other || owner_sees(c->uid, other->uid, stand_in);
}

/* Its own, then those that it is attached to: an id is of the daemon, so no kept session has that
 * of another. A session that is being opened is nobody's to name yet (opening.h). */
struct session *client_find_session(struct client *c, uint64_t id)
{
    struct session *s;
    struct kept *k;

    TAILQ_FOREACH (s, &c->sessions, link)
        if (s->id == id && !s->opening)
            return s;
    TAILQ_FOREACH (k, &c->keeps, link)
        if (kept_session(k)->id == id)
            return kept_session(k);
    return NULL;
}

/* Ends with the last open one: a table of free requests is not worth the cache lines it lies in. */
struct request *client_find_request(struct client *c, uint64_t id)
{
    uint32_t left = c->n_requests;

    for (uint32_t i = 0; left > 0; i++) {
        if (c->requests[i].phase == REQUEST_FREE)
            continue;
        if (c->requests[i].id == id)
            return &c->requests[i];
        left--;
    }
    return NULL;
}

struct request *client_free_request(struct client *c)
{
    for (uint32_t i = 0; i < CLIENT_REQUESTS_ALL; i++)
        if (c->requests[i].phase == REQUEST_FREE)
            return &c->requests[i];
    return NULL;
}
