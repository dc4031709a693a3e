/* daemon/req_misc.c - the requests that are answered at once. */

#include "base/clock.h"
#include "daemon/kept.h"
#include "daemon/reply.h"
#include "daemon/sched.h"

/* --- Hello, Ping, Cancel ---------------------------------------------------------------------- */

/* What a client may rely on is said one by one, and not by a version: `outputs`, `several` and the
 * like are of what older daemons did not have. */
static int hello_start(struct sched *s, struct request *r, const struct wire_req *m,
                       const uint8_t *bulk)
{
    const struct served *b = &s->served;

    (void)bulk;
    request_label(r->client->name, sizeof(r->client->name), m->u.hello.client);
    r->client->greeted = true;
    r->client->hears_loading = m->u.hello.hears_loading;
    r->last = (struct wire_rep){ .kind = WIRE_WELCOME };
    r->last.u.welcome.version = GISTD_VERSION;
    r->last.u.welcome.model = b->model->name;
    r->last.u.welcome.model_digest = b->model->digest;
    r->last.u.welcome.n_vocab = b->model->n_vocab;
    r->last.u.welcome.context_max = b->context_max;
    r->last.u.welcome.chat = b->chat != NULL;
    r->last.u.welcome.outputs = true;
    r->last.u.welcome.several = r->last.u.welcome.realms = true;
    r->last.u.welcome.deadlines = r->last.u.welcome.calls = true;
    r->last.u.welcome.keep_seconds = s->config->detach_seconds;
    r->last.u.welcome.tools = b->chat ? chat_tools(b->chat) : 0;
    r->last.u.welcome.segment_default = s->config->segment;
    request_finish(s, r);
    return 0;
}

static int ping_start(struct sched *s, struct request *r, const struct wire_req *m,
                      const uint8_t *bulk)
{
    (void)m;
    (void)bulk;
    r->last = (struct wire_rep){ .kind = WIRE_PONG };
    request_finish(s, r);
    return 0;
}

/* Somebody else's work may be ended by who may see it: the same user, root and the daemon's own. */
static struct request *at_work_on(const struct sched *s, const struct client *asks, uint64_t id)
{
    const struct session *x = request_see_session(s, asks, id);

    return x ? x->busy : NULL;
}

/* Only marks it: a sequence may be in the middle of a step, which sched_attend ends soon. */
static int cancel_start(struct sched *s, struct request *r, const struct wire_req *m,
                        const uint8_t *bulk)
{
    struct request *target = m->u.cancel.session
                                 ? at_work_on(s, r->client, m->u.cancel.session)
                                 : client_find_request(r->client, m->u.cancel.request);
    bool found = target && target != r && target->phase != REQUEST_LAST;

    (void)bulk;
    /* From the first one on: how long a cancel takes is measured by it. */
    if (found && !target->cancelled)
        target->times.cancel_at = clock_ns();
    if (found)
        target->cancelled = true;
    r->last = (struct wire_rep){ .kind = WIRE_CANCELLED };
    r->last.u.cancelled.found =
        (m->u.cancel.session &&
         kept_cancel(request_see_session(s, r->client, m->u.cancel.session))) ||
        found;
    request_finish(s, r);
    return 0;
}

const struct request_ops request_hello = { .name = "hello", .start = hello_start };
const struct request_ops request_ping = { .name = "ping", .start = ping_start };
const struct request_ops request_cancel = { .name = "cancel", .start = cancel_start };
