/* Whoever has the session by the time that a slice is made goes on with all of the text, or has
 * nothing to do with it: the ranking is looked at only while the session is there, and at rest. */
#include "daemon/part.h"

#include "daemon/client.h"
#include "daemon/ranking.h"
#include "daemon/sched.h"
#include "daemon/session.h"

#include <errno.h>
#include <stdlib.h>

/* A prompt that comes in parts is short; longer text is to be read, and points to nothing yet. */
#define PART_BYTES 2048u
#define PART_AFTER 16384u
/* What is to come before it is ranked for again, of what there was. */
#define PART_SHARE 4u

struct part {
    uint64_t session;
    bool ranked; /* that was begun, or is not worth it */
    struct ranking ranking;
};

static const struct request_ops request_part;

bool part_wants(const struct request *r, const struct wire_req *m)
{
    const struct session *x = r->session;

    return m->u.append.kind != WIRE_APPEND_TOKENS && x->parts.len > 0 &&
           x->parts.len <= PART_AFTER && hydrate_may_fetch(&x->memory);
}

int part_start(struct request *r)
{
    struct part *p = calloc(1, sizeof(*p));

    r->state = p;
    if (!p)
        return -ENOMEM;
    r->ops = &request_part;
    p->session = r->session->id;
    r->session->busy = NULL;
    r->session = NULL;
    r->memory = NULL;
    return 0;
}

/* Some of the text has come since the last one was ranked for: a share of it, or a text that comes
 * byte by byte is ranked for with each of them. */
static bool has_grown(const struct session *x)
{
    return x->parts.len > x->parts_ranked + x->parts_ranked / PART_SHARE;
}

/* By the last words of what is there. An error is none: nothing is fetched. */
static void rank(struct sched *s, struct request *r, struct session *x)
{
    const struct encode_text *t = &x->parts;
    size_t len = t->len < PART_BYTES ? t->len : PART_BYTES, n = 0, got;
    struct part *p = r->state;
    struct vocab_encoder *e;
    uint32_t *ids = malloc(PART_BYTES * sizeof(*ids));
    int err = ids ? vocab_encoder_new(s->served.vocab, &e) : -ENOMEM;

    if (err == 0) {
        vocab_encoder_start(e, t->s + t->len - len, len, false);
        do {
            err = vocab_encoder_next(e, ids + n, PART_BYTES - n, &got);
            n += err < 0 ? 0 : got;
        } while (err == 0 && n < PART_BYTES);
        vocab_encoder_free(e);
    }
    if (err >= 0 && n > 0)
        (void)ranking_ready(s, r, &p->ranking, &x->memory, ids, (uint32_t)n);
    free(ids);
    x->parts_ranked = t->len;
}

static bool part_work(struct sched *s, struct request *r)
{
    struct part *p = r->state;
    struct session *x = client_find_session(r->client, p->session);

    if (x && !x->busy && !x->closing && !x->lost && x->parts.len > 0) {
        if (!p->ranked && has_grown(x))
            rank(s, r, x);
        p->ranked = true;
        if (!ranking_go(s, r, &p->ranking))
            return true;
        hydrate_fetch(&x->memory, p->ranking.job);
    }
    request_finish(s, r);
    return true;
}

/* Never called: but who has one counts as who uses the model, which the prompt will, and wakes it
 * (daemon/idle.h). */
static bool part_plan(struct sched *s, struct request *r, uint32_t max, struct forward_run *ret)
{
    (void)s;
    (void)r;
    (void)max;
    (void)ret;
    return false;
}

/* The text is there already. */
static void part_cancel(struct sched *s, struct request *r)
{
    request_finish(s, r);
}

static void part_fini(struct request *r)
{
    struct part *p = r->state;

    if (p)
        ranking_drop(r, &p->ranking);
    free(p);
}

static const struct request_ops request_part = {
    .name = "append", .work = part_work, .plan = part_plan, .cancel = part_cancel, .fini = part_fini
};
