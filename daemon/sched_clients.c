/* Who is served, by the letters of the control thread: what they say is noted at once, also between
 * two layers, and acted upon between steps. */
#include "daemon/sched_inner.h"

#include "daemon/kept.h"
#include "daemon/log.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <sys/epoll.h>

/* Each ring of a bell is an edge and wakes once, and no bell is ever read: that would be a system
 * call a bell before each sleep, while somebody may wait for this very CPU. An eventfd counts rings
 * for ever, and who fills one up of his own (a client) is heard no more. */
int sched_hear(struct sched *s, int bell)
{
    struct epoll_event ev = { .events = EPOLLIN | EPOLLET };

    return epoll_ctl(s->epoll, EPOLL_CTL_ADD, bell, &ev) < 0 ? -errno : 0;
}

/* NULL: there is no memory for it. The channel is taken in either case: who was told by the control
 * thread that it is connected must see the channel's end, or it would wait for an answer for ever.
 */
static struct client *welcome(struct sched *s, const struct mailbox_letter *l)
{
    struct owner *owner = owner_ref(&s->owners, l->uid);
    struct client *c;

    if (!owner || client_new(l, owner, s->served.client_pages, s->config->client_text_bytes, &c)) {
        owner_unref(&s->owners, owner);
        chan_close(l->chan);
        return NULL;
    }
    chan_wait_by_edges(c->chan);
    if (sched_hear(s, chan_doorbell(c->chan)) < 0) {
        client_free(c);
        owner_unref(&s->owners, owner);
        return NULL;
    }
    return c;
}

static void adopt(struct sched *s, const struct mailbox_letter *l)
{
    struct mailbox_letter gone = { .kind = MAILBOX_GONE, .client = l->client };
    struct client *c = welcome(s, l);

    free(l->unit);
    /* GONE all the same: the control thread counts it among the clients until it hears that. */
    if (!c) {
        log_peer_error("client %" PRIu64 " (pid %d): no memory to serve it", l->client,
                       (int)l->pid);
        mailbox_put(s->outbox, &gone);
        return;
    }
    TAILQ_INSERT_TAIL(&s->clients, c, link);
    s->n_clients++;
    log_debug("client %" PRIu64 " (pid %d, uid %u%s%s) connected", c->id, (int)c->pid,
              (unsigned)c->uid, c->unit->name[0] ? ", " : "", c->unit->name);
}

/* Its requests, sessions, pages and channel are free after this. Requests first, since they point
 * to sessions and charge the client's accounts, which assert that they are empty in the end. Never
 * in the middle of a step: the model may be writing to its pages (reap is called between steps). */
void sched_bury(struct sched *s, struct client *c)
{
    struct mailbox_letter gone = { .kind = MAILBOX_GONE, .client = c->id };
    struct owner *owner = c->owner;
    bool connected = c->chan;

    kept_leave(s, c);
    for (uint32_t i = 0; i < CLIENT_REQUESTS_ALL; i++)
        if (c->requests[i].phase != REQUEST_FREE)
            request_drop(s, &c->requests[i]);
    while (!TAILQ_EMPTY(&c->line)) /* parts of them */
        request_drop(s, TAILQ_FIRST(&c->line));
    log_debug("client %" PRIu64
              " (pid %d, %s) is gone: its %u sessions are closed, its %u pages free",
              c->id, (int)c->pid, c->name, c->n_sessions, c->account.used);
    /* The turn passes to the next and not to the first: a client that comes and goes would else
     * give those at the head of the list the turns of all behind it. */
    if (s->turn == c)
        s->turn = TAILQ_NEXT(c, link);
    if (s->latest == c)
        s->latest = NULL;
    TAILQ_REMOVE(&s->clients, c, link);
    s->n_clients--;
    s->n_sessions -= c->n_sessions;
    /* The peer may keep its duplicate of the doorbell, and with it the entry in the epoll set,
     * which would wake us for ever when it rings. */
    if (connected)
        (void)epoll_ctl(s->epoll, EPOLL_CTL_DEL, chan_doorbell(c->chan), NULL);
    client_free(c);
    owner_unref(&s->owners, owner);
    /* Last: when the control thread has it, another client may take this one's place. */
    if (connected)
        mailbox_put(s->outbox, &gone);
}

/* A list of at most max-clients, looked through once in a client's life: no table is worth it. */
static struct client *find_client(struct sched *s, uint64_t id)
{
    struct client *c;

    TAILQ_FOREACH (c, &s->clients, link)
        if (c->id == id)
            return c;
    return NULL; /* buried already: the two letters crossed */
}

/* Called between two layers, so nothing is done here but to note it: who is dead is buried, and who
 * wants to stop is obeyed, when the step is over or given up. */
bool sched_take_letters(struct sched *s)
{
    struct mailbox_letter l;
    struct client *c;

    if (!mailbox_pending(s->inbox))
        return false;
    while (mailbox_take(s->inbox, &l)) {
        switch (l.kind) {
        case MAILBOX_ADOPT:
            adopt(s, &l);
            break;
        case MAILBOX_DEAD:
            c = find_client(s, l.client);
            if (c)
                c->dead = true;
            break;
        case MAILBOX_STOP:
            s->stopping = true;
            break;
        case MAILBOX_METRICS: /* one is under way at a time */
            s->scrape = l.metrics;
            break;
        case MAILBOX_PRESSURE: /* pages go between steps */
            s->idle.pressed = true;
            mailbox_put(s->outbox, &l);
            break;
        default:
            assert(!"a letter for the other side");
        }
    }
    return true;
}
