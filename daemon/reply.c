#include "daemon/reply.h"

#include "daemon/kept.h"
#include "daemon/lanes.h"
#include "daemon/logprobs.h"
#include "daemon/sched.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#define BROKE "it gave back more replies than it got"

int reply_begin(struct sched *s, struct request *r, const struct wire_rep *rep, uint8_t **ret_bulk)
{
    struct client *c = r->client;
    uint8_t *frame;
    size_t len, again;
    int e;

    /* The size first, so that the frame is packed where the client reads it. What a hostile client
     * writes over it meanwhile is its own loss. */
    e = wire_rep_pack(&s->packed, rep, NULL, 0, &len);
    if (e < 0)
        return e;
    e = len > CHAN_FRAME_MAX
            ? -EMSGSIZE
            : chan_reserve(c->chan, (uint32_t)len, (uint32_t)rep->bulk_len, &frame, ret_bulk);
    /* Whoever finds no room says so by the client: the scheduler listens for spans that come back
     * (chan_arm). */
    if (e == -EAGAIN)
        c->blocked = true;
    else if (e == -EPROTO)
        client_broke(c, BROKE);
    return e < 0 ? e : wire_rep_pack(&s->packed, rep, frame, len, &again);
}

/* Packed for its length alone. */
bool reply_fits(struct sched *s, const struct wire_rep *rep)
{
    size_t len;

    return wire_rep_pack(&s->packed, rep, NULL, 0, &len) >= 0 && len <= CHAN_FRAME_MAX;
}

/* Only now may the client see it. */
void reply_commit(struct request *r)
{
    chan_commit(r->client->chan);
}

/* For frames that waited in a backlog: protobuf's fields may come in any order, so the id is put
 * before them. */
int reply_frame(struct request *r, const uint8_t *frame, size_t len)
{
    struct chan *chan = r->client->chan;
    uint8_t id[WIRE_ID_MAX], *to, *bulk;
    size_t n = wire_put_id(id, r->id);
    int e = chan_reserve(chan, (uint32_t)(n + len), 0, &to, &bulk);

    if (e == -EAGAIN)
        r->client->blocked = true;
    else if (e == -EPROTO)
        client_broke(r->client, BROKE);
    if (e < 0)
        return e;
    memcpy(mempcpy(to, id, n), frame, len);
    chan_commit(chan);
    return 0;
}

/* What a kept session's answer says goes to its backlog, from which a connection takes it. */
int reply_send(struct sched *s, struct request *r, const struct wire_rep *rep, const void *bulk)
{
    uint8_t *to;
    int e;

    if (r->client->kept)
        return kept_reply(s, r->client->kept, rep);
    e = reply_begin(s, r, rep, &to);
    if (e < 0)
        return e;
    if (bulk)
        memcpy(to, bulk, rep->bulk_len);
    reply_commit(r);
    return 0;
}

int reply_text(struct sched *s, struct request *r, const char *text, size_t n, const uint32_t *ids,
               uint32_t n_ids, uint32_t n_tokens, const struct logprobs *l)
{
    /* U+FFFD takes three bytes: room for a text of nothing but zeros. */
    char copy[3 * REPLY_TEXT_MAX + 1], *to = copy;
    struct wire_rep rep = { .id = r->id, .kind = WIRE_TEXT };

    assert(n <= REPLY_TEXT_MAX);
    for (size_t i = 0; i < n; i++) {
        if (text[i])
            *to++ = text[i];
        else
            to = mempcpy(to, "\xef\xbf\xbd", 3);
    }
    *to = '\0';
    rep.u.text.text = copy;
    rep.u.text.n_tokens = n_tokens;
    rep.u.text.tokens = ids;
    rep.u.text.n_ids = n_ids;
    /* Which of several answers it is of. */
    rep.u.text.index = r->lane ? r->lane->index : 0;
    if (l && n_ids > 0) {
        rep.u.text.logprobs = l->own;
        rep.u.text.n_top = l->n_top;
        rep.u.text.top_ids = l->top_ids;
        rep.u.text.top_logprobs = l->top_logprobs;
    }
    return reply_send(s, r, &rep, NULL);
}

/* Written where the client reads them, without a copy of both in between: ids (n), then
 * log-probabilities (n). */
int reply_scores(struct sched *s, struct request *r, const uint32_t *ids, const float *logprobs,
                 size_t first, uint32_t n)
{
    struct wire_rep rep = { .id = r->id, .kind = WIRE_SCORE_ROWS, .bulk_len = (uint64_t)n * 8 };
    uint8_t *bulk;
    int e;

    rep.u.score_rows.first = (uint32_t)first;
    rep.u.score_rows.n = n;
    rep.u.score_rows.n_vocab = s->served.model->n_vocab;
    e = reply_begin(s, r, &rep, &bulk);
    if (e < 0)
        return e;
    memcpy(bulk, ids, n * sizeof(*ids));
    memcpy(bulk + n * sizeof(*ids), logprobs, n * sizeof(*logprobs));
    reply_commit(r);
    return 0;
}

uint32_t reply_bulk_max(const struct request *r)
{
    return wire_bulk_max(r->client->chan);
}
