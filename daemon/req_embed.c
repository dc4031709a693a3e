/* daemon/req_embed.c - Embed: what the model makes of texts, a row of numbers each.
 *
 * Each text is read from nothing in a lane (daemon/lanes.h) with a session of its own, of which
 * nothing is kept. The row is the last token's hidden state behind the final norm, or the mean of
 * all tokens'; it goes out when all are done, in order.
 */

#include "base/clock.h"
#include "daemon/lanes.h"
#include "daemon/reply.h"
#include "daemon/room.h"
#include "daemon/sched.h"
#include "daemon/texts.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

struct embed {
    struct lanes lanes;
    struct texts texts;
    struct policy policy; /* of a text's session */
    enum wire_pooling pooling;
    bool normalise, begun;
    void *place; /* of the next two, which are made when all ids are known */
    size_t place_len;
    float *rows;        /* (n, n_embd) */
    uint32_t *n_tokens; /* (n) */
    uint32_t sent;      /* rows */
    uint64_t reading_ns;
};

/* --- start ------------------------------------------------------------------------------------ */

/* As a session has it of which nothing was said: all is kept, and the window is the limit. */
static int read_policy(const struct sched *s, struct policy *ret)
{
    return policy_read(&(struct wire_memory){ 0 }, NULL, s->config->segment, &s->served, ret, NULL);
}

static int start_whole(struct sched *s, struct request *r, const struct wire_req *m,
                       const struct texts_said *said)
{
    const struct vocab *v = s->served.vocab;
    bool bos = said->kind == WIRE_SCORE_TEXT && vocab_add_bos(v) && vocab_bos(v) != VOCAB_NONE;
    struct embed *em = calloc(1, sizeof(*em));
    uint32_t before = vocab_bos(v);

    r->state = em;
    r->priority = m->u.embed.priority;
    if (!em)
        return -ENOMEM;
    em->pooling = m->u.embed.pooling;
    em->normalise = m->u.embed.normalise;
    (void)read_policy(s, &em->policy); /* what nobody asked for is never refused */
    return texts_start(s, r, &em->texts, said, bos ? &before : NULL);
}

/* Without a state only a part came. */
static void finish(struct sched *s, struct request *r)
{
    struct embed *em = r->state;

    if (em)
        r->usage.prompt_ns = clock_ns() - em->reading_ns;
    r->last = (struct wire_rep){ .kind = WIRE_EMBEDDING };
    r->last.u.embedding.usage = r->usage;
    request_finish(s, r);
}

static int embed_start(struct sched *s, struct request *r, const struct wire_req *m,
                       const uint8_t *bulk)
{
    const struct texts_said said = { "text", m->u.embed.lens, m->u.embed.n, m->u.embed.kind,
                                     m->u.embed.special };
    size_t row = s->served.model->n_embd * sizeof(float);

    if (!request_collect(s, r, bulk, m->bulk_len))
        return 0;
    if (m->u.embed.more) {
        finish(s, r);
        return 0;
    }
    if (!texts_check(s, r, &said))
        return 0;
    if (!s->served.backend->ops->hidden) {
        request_fail(s, r, WIRE_E_UNSUPPORTED, REQUEST_NO_NUMBERS,
                     "the backend %s does not give the hidden states that embeddings are made of",
                     s->served.backend->ops->name);
        return 0;
    }
    if (reply_bulk_max(r) >= row)
        return start_whole(s, r, m, &said);
    request_fail(s, r, WIRE_E_LIMIT, (struct request_numbers){ 0, row, reply_bulk_max(r) },
                 "an embedding has %zu bytes, but this connection's arena holds %u (--arena-bytes)",
                 row, reply_bulk_max(r));
    return 0;
}

/* --- work: encode, then read ------------------------------------------------------------------ */

static int lane_begin(struct sched *s, struct request *whole, struct lane *l);
static const struct request_ops embed_lane;

/* All of them before any is read: an answer for some is none. */
static bool check_fit(struct sched *s, struct request *r, const struct embed *em)
{
    uint32_t limit = policy_tokens_max(&em->policy);

    for (uint32_t i = 0; i < em->texts.n; i++) {
        uint32_t n = texts_count(&em->texts, i);

        if (n <= limit - em->texts.has_before)
            continue;
        request_fail(s, r, WIRE_E_CONTEXT_LENGTH_EXCEEDED, (struct request_numbers){ 0, n, limit },
                     "context_length_exceeded: text %u of %u has %u tokens; the limit is %u", i + 1,
                     em->texts.n, n, limit);
        return false;
    }
    return true;
}

static void prepare(struct sched *s, struct request *r, struct embed *em)
{
    uint32_t n = em->texts.n, n_embd = s->served.model->n_embd;
    int e;

    if (!check_fit(s, r, em))
        return;
    e = held_resize(&r->client->held, &em->place, &em->place_len,
                    n * (n_embd * sizeof(*em->rows) + sizeof(*em->n_tokens)));
    if (e < 0) {
        request_fail_memory(s, r, e);
        return;
    }
    em->rows = em->place;
    em->n_tokens = (uint32_t *)(em->rows + (size_t)n * n_embd);
    for (uint32_t i = 0; i < n; i++)
        em->n_tokens[i] = texts_count(&em->texts, i) + em->texts.has_before;
    lanes_init(&em->lanes, &embed_lane, lane_begin, n);
    em->reading_ns = clock_ns();
}

/* Not even one can begin. */
static void fail_lane(struct sched *s, struct request *r, const struct embed *em, int e)
{
    uint32_t n = em->n_tokens[em->lanes.n_begun], need = seq_n_pages(n);

    if (e != -ENOSPC)
        request_fail_memory(s, r, e);
    else if (!room_comes(s, r, &r->client->account, need))
        request_fail_pages(s, r, &r->client->account, need, "reading a text of %u tokens", n);
}

/* Twice something to wait for: texts are encoded, then lanes read. What is in between is made
 * once. */
static bool embed_work(struct sched *s, struct request *r)
{
    struct embed *em = r->state;
    int e;

    if (!em->place) {
        if (texts_work(s, r, &em->texts))
            prepare(s, r, em);
        return true;
    }
    e = lanes_work(s, r, &em->lanes);
    if (e < 0)
        fail_lane(s, r, em, e);
    else if (r->phase == REQUEST_WORK && lanes_ended(&em->lanes))
        finish(s, r);
    return e > 0 || r->phase == REQUEST_LAST;
}

/* --- a lane ----------------------------------------------------------------------------------- */

/* All its pages at once: what waits in the middle for those of others might wait for ever. */
static int lane_begin(struct sched *s, struct request *whole, struct lane *l)
{
    struct embed *em = whole->state;
    const struct texts_one *t = &em->texts.list[l->index];
    int e;

    l->at = t->first;
    l->end = t->end;
    /* Private: what was embedded is found by nobody. */
    e = session_new(&s->served, whole->client, 0, SESSION_PRIVATE, &em->policy, &l->session);
    if (e < 0)
        return e;
    l->request.state = calloc(s->served.model->n_embd, sizeof(double)); /* the sum */
    if (!l->request.state)
        return -ENOMEM;
    e = seq_reserve(&l->session->seq, (uint32_t)(l->end - l->at));
    if (e < 0) {
        free(l->request.state);
        l->request.state = NULL;
    }
    return e;
}

/* No row is made of outputs that nobody wants: for the last token's state only the last run of a
 * text has one. */
static bool embed_lane_plan(struct sched *s, struct request *r, uint32_t max,
                            struct forward_run *ret)
{
    const struct lane *l = r->lane;
    uint32_t left = (uint32_t)(l->end - l->at);
    const struct embed *em;

    if (request_unwanted(r) || !request_room(s, r, &max))
        return false;
    em = l->whole->state;
    *ret = (struct forward_run){ .seq = &l->session->seq,
                                 .tokens = em->texts.encode.ids + l->at,
                                 .n_tokens = left < max ? left : max };
    if (em->pooling == WIRE_POOLING_MEAN)
        ret->want = FORWARD_WANT_ALL;
    else
        ret->want = left <= max ? FORWARD_WANT_LAST : FORWARD_WANT_NONE;
    return true;
}

/* Of a step's n outputs from `first` on: as many at once as fit where logits go. In doubles: a mean
 * of thousands of floats would lose the last of them. */
static int add_rows(struct sched *s, uint32_t first, uint32_t n, double *sum)
{
    uint32_t n_embd = s->served.model->n_embd;
    size_t most = (size_t)SCHED_LOGITS_ROWS * s->served.model->n_vocab / n_embd;
    float *x = s->logits;

    if (most == 0)
        return -ENOTSUP; /* a model with next to no vocabulary */
    for (uint32_t done = 0, k; done < n; done += k) {
        int e;

        k = n - done < most ? n - done : (uint32_t)most;
        e = forward_hidden(&s->served.forward, first + done, k, x);
        if (e < 0)
            return e;
        for (uint32_t i = 0; i < k; i++)
            for (uint32_t j = 0; j < n_embd; j++)
                sum[j] += (double)x[(size_t)i * n_embd + j];
    }
    return 0;
}

/* To unit length the mean's 1 / n makes no difference, so it is left out there. A row of zeros
 * stays one. */
static void pool_rows(const struct embed *em, const double *sum, uint32_t n, uint32_t n_embd,
                      float *to)
{
    double scale = em->pooling == WIRE_POOLING_MEAN ? 1.0 / n : 1, squares = 0;

    for (uint32_t j = 0; j < n_embd; j++)
        squares += sum[j] * sum[j];
    if (em->normalise)
        scale = squares > 0 ? 1 / sqrt(squares) : 0;
    for (uint32_t j = 0; j < n_embd; j++)
        to[j] = (float)(sum[j] * scale);
}

static void embed_lane_rows(struct sched *s, struct request *r, uint32_t first, uint32_t n_out,
                            uint32_t n)
{
    struct lane *l = r->lane;
    struct embed *em = l->whole->state;
    uint32_t n_embd = s->served.model->n_embd;
    float *to = em->rows + (size_t)l->index * n_embd;
    int e = add_rows(s, first, n_out, r->state);

    l->at += n;
    l->whole->usage.computed_tokens += n;
    l->whole->usage.prompt_tokens += n;
    s->totals.prompt_tokens += n;
    if (e < 0) {
        request_fail_step(s, r, e);
        return;
    }
    if (l->at < l->end)
        return;
    pool_rows(em, r->state, em->n_tokens[l->index], n_embd, to);
    if (!request_finite(s, r, to, n_embd))
        return;
    r->last = (struct wire_rep){ .kind = WIRE_EMBEDDING };
    request_finish(s, r);
}

static void embed_lane_fini(struct request *r)
{
    free(r->state);
}

static const struct request_ops embed_lane = {
    .name = "embed",
    .plan = embed_lane_plan,
    .rows = embed_lane_rows,
    .fini = embed_lane_fini,
};

/* --- sending ---------------------------------------------------------------------------------- */

static int send_rows(struct sched *s, struct request *r, struct embed *em, uint32_t n)
{
    uint32_t n_embd = s->served.model->n_embd;
    struct wire_rep rep = { .id = r->id,
                            .kind = WIRE_EMBEDDING,
                            .bulk_len = (uint64_t)n * n_embd * sizeof(float) };
    int e;

    rep.u.embedding.first = em->sent;
    rep.u.embedding.n = n;
    rep.u.embedding.n_embd = n_embd;
    rep.u.embedding.n_tokens = em->n_tokens + em->sent;
    e = reply_send(s, r, &rep, em->rows + (size_t)em->sent * n_embd);
    if (e == 0)
        em->sent += n;
    return e;
}

/* Half the arena at most, so that the client reads one half while the other is filled; one row at
 * least, which was found to fit (embed_start). */
static int embed_flush(struct sched *s, struct request *r)
{
    size_t row = s->served.model->n_embd * sizeof(float);
    uint32_t most = (uint32_t)(reply_bulk_max(r) / 2 / row);
    struct embed *em = r->state;
    int e = 0;

    if (r->phase != REQUEST_LAST || r->last.kind != WIRE_EMBEDDING || !em)
        return 0;
    most = most ? most : 1;
    while (e == 0 && em->sent < em->texts.n) {
        uint32_t n = em->texts.n - em->sent;

        e = send_rows(s, r, em, n < most ? n : most);
    }
    return e;
}

static void embed_undo(struct sched *s, struct request *r)
{
    struct embed *em = r->state;

    (void)s;
    if (em)
        lanes_leave(&em->lanes);
}

static void embed_fini(struct request *r)
{
    struct embed *em = r->state;

    if (!em)
        return;
    lanes_leave(&em->lanes);
    texts_fini(&em->texts);
    (void)held_resize(&r->client->held, &em->place, &em->place_len, 0);
    free(em);
}

const struct request_ops request_embed = {
    .name = "embed",
    .takes_bulk = request_collects,
    .start = embed_start,
    .work = embed_work,
    .plan = lanes_plan,
    .flush = embed_flush,
    .undo = embed_undo,
    .fini = embed_fini,
};
