/* daemon/req_choices.c - ScoreChoices: what the model makes of several continuations of a session.
 *
 * Each is read in a lane (daemon/lanes.h) behind a fork of the session, which shares its pages: the
 * text before is not read again. A continuation's first token needs no run where the session has
 * logits, and its last one never does: that many of one token cost nothing but a look at the row.
 *
 *     ids    | p a a a | p b b | p c |        a continuation of 3 tokens, of 2, of 1; p: the
 *                                             session's pending token, where it has one
 *     read     p a a     p b     p            log p of each token comes from the one before it
 *
 * All go out at the end, without p.
 */

#include "base/clock.h"
#include "daemon/lanes.h"
#include "daemon/logprobs.h"
#include "daemon/reply.h"
#include "daemon/room.h"
#include "daemon/sched.h"
#include "daemon/texts.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct choices {
    struct lanes lanes;
    struct texts texts; /* p before each */
    void *place;        /* of the next three, which are made when all ids are known */
    size_t place_len;
    double *sums;       /* (n) */
    float *logprobs;    /* (n_ids) of each id; of p none */
    uint32_t *n_tokens; /* (n) */
    size_t sent;        /* of the ids, when p is no more among them */
    uint64_t reading_ns;
};

/* --- start ------------------------------------------------------------------------------------ */

static int choices_start(struct sched *s, struct request *r, const struct wire_req *m,
                         const uint8_t *bulk)
{
    const struct texts_said said = { "continuation", m->u.score_choices.lens, m->u.score_choices.n,
                                     m->u.score_choices.kind, m->u.score_choices.special };
    struct choices *ch;

    if (!request_collect(s, r, bulk, m->bulk_len))
        return 0;
    if (m->u.score_choices.more) {
        r->last = (struct wire_rep){ .kind = WIRE_CHOSEN };
        request_finish(s, r);
        return 0;
    }
    if (!texts_check(s, r, &said) || !request_take_session(s, r, m->u.score_choices.session))
        return 0;
    if (session_len(r->session) == 0) {
        request_fail(s, r, WIRE_E_BAD_REQUEST, REQUEST_NO_NUMBERS,
                     "the session is empty: append something first");
        return 0;
    }
    ch = calloc(1, sizeof(*ch));
    r->state = ch;
    if (!ch)
        return -ENOMEM;
    return texts_start(s, r, &ch->texts, &said,
                       r->session->has_pending ? &r->session->pending : NULL);
}

/* --- work: encode, then look at the row ------------------------------------------------------- */

/* What the longest of them leads to is looked at before anything is read. */
static bool check_fit(struct sched *s, struct request *r, const struct choices *ch)
{
    const struct policy *p = &r->memory->policy;
    uint32_t had = session_len(r->session), limit = r->session->seq.max_tokens, n = 0;
    uint64_t keys;

    for (uint32_t i = 0; i < ch->texts.n; i++)
        n = texts_count(&ch->texts, i) > n ? texts_count(&ch->texts, i) : n;
    memory_peak(r->memory, (uint64_t)n + r->session->has_pending, &keys, NULL);
    if (n <= limit - had && keys <= p->budget)
        return true;
    request_fail(s, r, WIRE_E_CONTEXT_LENGTH_EXCEEDED, (struct request_numbers){ had, n, limit },
                 "context_length_exceeded: the session has %u tokens and the longest continuation "
                 "%u more; the limit is %u%s",
                 had, n, n <= limit - had ? p->budget : limit,
                 policy_longer(p, s->served.context_max));
    return false;
}

/* Of first tokens, where the session has logits: no run is needed. */
static bool take_row(struct sched *s, struct request *r, struct choices *ch)
{
    const float *row = r->session->row;
    uint32_t n_vocab = s->served.model->n_vocab;
    double log_sum;

    if (ch->texts.has_before)
        return true;
    if (!request_finite(s, r, row, n_vocab))
        return false;
    log_sum = logprobs_sum(s->served.info.sampling, row, n_vocab, (float *)s->candidates);
    for (uint32_t i = 0; i < ch->texts.n; i++) {
        size_t k = ch->texts.list[i].first;

        ch->logprobs[k] = (float)((double)row[ch->texts.encode.ids[k]] - log_sum);
    }
    return true;
}

static int lane_begin(struct sched *s, struct request *whole, struct lane *l);
static const struct request_ops choices_lane;

static void prepare(struct sched *s, struct request *r, struct choices *ch)
{
    size_t n_ids = ch->texts.encode.n_ids;
    uint32_t n = ch->texts.n;
    int e;

    if (!check_fit(s, r, ch))
        return;
    e = held_resize(&r->client->held, &ch->place, &ch->place_len,
                    n * (sizeof(*ch->sums) + sizeof(*ch->n_tokens)) +
                        n_ids * sizeof(*ch->logprobs));
    if (e < 0) {
        request_fail_memory(s, r, e);
        return;
    }
    /* Doubles first: what is behind them needs less alignment. */
    ch->sums = ch->place;
    ch->logprobs = (float *)(ch->sums + n);
    ch->n_tokens = (uint32_t *)(ch->logprobs + n_ids);
    if (!take_row(s, r, ch))
        return;
    r->usage.prompt_tokens = session_len(r->session);
    memory_account(r->memory, &r->usage);
    lanes_init(&ch->lanes, &choices_lane, lane_begin, n);
    ch->reading_ns = clock_ns();
    /* What is due for the session's memory is done once, and not in every fork of it. */
    if (memory_behind(r->memory))
        r->phase = REQUEST_RUN;
}

/* --- reading ---------------------------------------------------------------------------------- */

static int lane_begin(struct sched *s, struct request *whole, struct lane *l)
{
    const struct choices *ch = whole->state;
    const struct texts_one *c = &ch->texts.list[l->index];
    uint32_t n;
    int e;

    (void)s;
    /* Read are all but the last: what comes behind that is nobody's question. */
    l->at = c->first;
    l->end = c->end - 1;
    if (l->at == l->end)
        return 1;
    e = session_fork_bare(whole->session, &l->session);
    if (e < 0)
        return e;
    l->session->has_pending = false; /* p is read like any other */
    n = (uint32_t)(l->end - l->at);
    if (memory_room(&l->session->memory) < n)
        return 0; /* pages come and go */
    return seq_reserve(&l->session->seq, n);
}

/* Not even one can begin: it waits, or fails. */
static void fail_lane(struct sched *s, struct request *r, const struct choices *ch, int e)
{
    const struct texts_one *c = &ch->texts.list[ch->lanes.n_begun];
    const struct seq *q = &r->session->seq;
    uint32_t n = (uint32_t)(c->end - c->first), need = seq_wants(q, n) + 1;
    uint32_t all = q->n_pages + seq_wants(q, n - 1);
    bool short_of; /* entries */

    if (e != -ENOSPC) {
        request_fail_memory(s, r, e);
        return;
    }
    /* A fork costs its client as many entries as the session has, and then those of the text. */
    short_of = q->account->limit - q->account->used < all;
    if (short_of)
        need = all;
    if (!room_to_share(s, r, q->account, all) &&
        (short_of || (!room_comes(s, r, q->account, need) && !room_waits(s, r, need))) &&
        !room_gives_way(s, r, need))
        request_fail_pages(s, r, q->account, need,
                           "reading %u tokens behind the session's %u in a fork of it", n,
                           session_count(r->session));
}

static bool choices_lane_plan(struct sched *s, struct request *r, uint32_t max,
                              struct forward_run *ret)
{
    const struct lane *l = r->lane;
    uint32_t left = (uint32_t)(l->end - l->at), most = pace_budget(&s->pace, true), n;
    const struct choices *ch;

    if (request_unwanted(r) || !request_room(s, r, &max))
        return false;
    ch = l->whole->state;
    /* Nobody looks at the cancels while logits of all these rows are made, whose they are. */
    most = most > s->n_scoring ? most - s->n_scoring : 0;
    if (max > most)
        max = most;
    if (max == 0)
        return false;
    *ret = (struct forward_run){ .seq = &l->session->seq,
                                 .tokens = ch->texts.encode.ids + l->at,
                                 .n_tokens = left < max ? left : max,
                                 .want = FORWARD_WANT_ALL };
    if (seq_reserve(ret->seq, ret->n_tokens) == 0) {
        r->paused = false;
        s->n_scoring += ret->n_tokens;
        return true;
    }
    n = seq_wants(ret->seq, ret->n_tokens);
    if (!(lane_is_first(l) && room_comes(s, r, ret->seq->account, n)) && !room_waits(s, r, n))
        request_fail_pages(s, r, ret->seq->account, n, "reading %u more tokens", ret->n_tokens);
    return false;
}

static const uint32_t *choices_lane_next(const struct request *r)
{
    const struct choices *ch = r->lane->whole->state;

    return ch->texts.encode.ids + r->lane->at + 1;
}

/* logprobs has the n ids behind those that were read, each by the token before it. */
static void choices_lane_scored(struct sched *s, struct request *r, uint32_t n,
                                const float *logprobs)
{
    struct lane *l = r->lane;
    struct choices *ch = l->whole->state;

    memcpy(ch->logprobs + l->at + 1, logprobs, n * sizeof(*logprobs));
    l->at += n;
    l->whole->usage.computed_tokens += n;
    s->totals.prompt_tokens += n;
    if (l->at < l->end)
        return;
    r->last = (struct wire_rep){ .kind = WIRE_CHOSEN };
    request_finish(s, r);
}

static const struct request_ops choices_lane = {
    .name = "score",
    .plan = choices_lane_plan,
    .next = choices_lane_next,
    .scored = choices_lane_scored,
};

/* --- the end ---------------------------------------------------------------------------------- */

/* Ids and log-probabilities move together: p is nobody's. */
static void close_up(struct choices *ch)
{
    size_t to = 0;

    for (uint32_t i = 0; i < ch->texts.n; i++) {
        const struct texts_one *c = &ch->texts.list[i];

        ch->n_tokens[i] = texts_count(&ch->texts, i);
        ch->sums[i] = 0;
        for (size_t k = c->first + ch->texts.has_before; k < c->end; k++, to++) {
            ch->texts.encode.ids[to] = ch->texts.encode.ids[k];
            ch->logprobs[to] = ch->logprobs[k];
            ch->sums[i] += (double)ch->logprobs[k];
        }
    }
    ch->texts.encode.n_ids = to;
}

static void finish(struct sched *s, struct request *r, struct choices *ch)
{
    uint32_t best = 0, mean = 0;

    close_up(ch);
    for (uint32_t i = 1; i < ch->texts.n; i++) {
        if (ch->sums[i] > ch->sums[best])
            best = i;
        /* By the token, so that a longer continuation is no worse for its length. */
        if (ch->sums[i] / ch->n_tokens[i] > ch->sums[mean] / ch->n_tokens[mean])
            mean = i;
    }
    r->usage.prompt_ns = clock_ns() - ch->reading_ns;
    r->last = (struct wire_rep){ .kind = WIRE_CHOSEN };
    r->last.u.chosen.n_tokens = ch->n_tokens;
    r->last.u.chosen.sums = ch->sums;
    r->last.u.chosen.n = ch->texts.n;
    r->last.u.chosen.best = best;
    r->last.u.chosen.best_mean = mean;
    r->last.u.chosen.usage = r->usage;
    request_finish(s, r);
}

/* Encoding, then lanes; `place` tells the one from the other. */
static bool choices_work(struct sched *s, struct request *r)
{
    struct choices *ch = r->state;
    int e;

    if (!ch->place) {
        if (texts_work(s, r, &ch->texts))
            prepare(s, r, ch);
        return true;
    }
    e = lanes_work(s, r, &ch->lanes);
    if (e < 0) {
        fail_lane(s, r, ch, e);
        return r->phase == REQUEST_LAST;
    }
    r->paused = false;
    if (r->phase == REQUEST_WORK && lanes_ended(&ch->lanes))
        finish(s, r, ch);
    return e > 0 || r->phase == REQUEST_LAST;
}

static int send_rows(struct sched *s, struct request *r, struct choices *ch, uint32_t n)
{
    int e =
        reply_scores(s, r, ch->texts.encode.ids + ch->sent, ch->logprobs + ch->sent, ch->sent, n);

    if (e == 0)
        ch->sent += n;
    return e;
}

static int choices_flush(struct sched *s, struct request *r)
{
    struct choices *ch = r->state;
    uint32_t most = reply_bulk_max(r) / 2 / 8;
    int e = 0;

    if (r->phase != REQUEST_LAST || r->last.kind != WIRE_CHOSEN || !ch)
        return 0;
    while (e == 0 && ch->sent < ch->texts.encode.n_ids) {
        size_t n = ch->texts.encode.n_ids - ch->sent;

        e = send_rows(s, r, ch, n < most ? (uint32_t)n : most);
    }
    return e;
}

static void choices_undo(struct sched *s, struct request *r)
{
    struct choices *ch = r->state;

    (void)s;
    if (ch)
        lanes_leave(&ch->lanes);
}

static void choices_fini(struct request *r)
{
    struct choices *ch = r->state;

    if (!ch)
        return;
    lanes_leave(&ch->lanes);
    texts_fini(&ch->texts);
    (void)held_resize(&r->client->held, &ch->place, &ch->place_len, 0);
    free(ch);
}

const struct request_ops request_score_choices = {
    .name = "score",
    .takes_bulk = request_collects,
    .start = choices_start,
    .work = choices_work,
    .plan = lanes_plan,
    .flush = choices_flush,
    .undo = choices_undo,
    .fini = choices_fini,
};
