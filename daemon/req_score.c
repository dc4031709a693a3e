/* daemon/req_score.c - Score: log-probabilities of a text's own tokens, or whole rows of logits.
 *
 * The ids are cut into windows that do not overlap, and each is read from nothing into a sequence
 * of the request's own, as part of the batches. It runs in the background of everybody's sessions.
 *
 *     ids    |------ window 0 ------|------ window 1 ------|--- window 2 ---|
 *                                    ^ pos: read up to here; logprobs up to and with pos are known
 *            |--- sent ---|
 *
 * LOGPROBS are kept in an array and go out when there is room. LOGITS are written straight into the
 * arena; when there is no room for a row it is not kept: the sequence is taken back to before it,
 * and it is computed again later.
 */

#include "base/clock.h"
#include "daemon/reply.h"
#include "daemon/room.h"
#include "daemon/sched.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Log-probabilities sent at once, but for the last ones. */
#define ROWS_A_REPLY 256u

struct score {
    struct encode encode;
    struct seq seq;
    struct memory memory; /* of seq */
    struct policy policy;
    enum wire_score_want want;
    uint32_t window;
    size_t unknown;      /* ids that may not be the vocabulary's: the last ones */
    size_t n, pos, sent; /* ids in all, read, sent */
    float *logprobs;     /* (n) LOGPROBS only */
    size_t logprobs_len;
    bool opened; /* seq and memory */
    uint64_t reading_ns;
};

/* --- start and work: as Append's, with windows ------------------------------------------------ */

/* The ids stay where they were collected, and are looked through by slices (work). */
static int read_ids(struct sched *s, struct request *r, struct score *sc)
{
    if (!request_whole_ids(s, r, r->parts->len))
        return 0;
    encode_take_ids(&sc->encode, r->parts);
    sc->unknown = sc->encode.n_ids;
    return 0;
}

static int read_policy(const struct sched *s, const struct wire_req *m, struct policy *ret,
                       struct why *why)
{
    return policy_read(&m->u.score.memory, m->u.score.has_segment ? &m->u.score.segment : NULL,
                       s->config->segment, &s->served, ret, why);
}

/* The window that was asked for. Without one: the context, or what of it a budget that compresses
 * nothing holds. */
static uint32_t window_of(const struct sched *s, const struct wire_req *m,
                          const struct policy *policy)
{
    uint32_t most = policy_tokens_max(policy), context = s->served.context_max;

    if (m->u.score.has_window)
        return m->u.score.window;
    return context < most ? context : most;
}

static bool check_window(struct sched *s, struct request *r, uint32_t window,
                         const struct policy *policy)
{
    uint32_t limit = policy_tokens_max(policy);
    struct ladder l = { 0 };
    uint64_t keys;

    if (window == 0) {
        request_fail(s, r, WIRE_E_BAD_REQUEST, (struct request_numbers){ 0, 0, limit },
                     "the window is 0 tokens; 1 to %u are allowed", limit);
        return false;
    }
    if (window > limit) {
        request_fail(
            s, r, WIRE_E_CONTEXT_LENGTH_EXCEEDED, (struct request_numbers){ 0, window, limit },
            "context_length_exceeded: windows of %u tokens were asked for; the limit is %u%s",
            window, limit, policy_longer(policy, s->served.context_max));
        return false;
    }
    ladder_climb(policy, &l, 0, window, &keys, NULL);
    if (keys <= policy->budget)
        return true;
    request_fail(s, r, WIRE_E_CONTEXT_LENGTH_EXCEEDED,
                 (struct request_numbers){ 0, keys, policy->budget },
                 "context_length_exceeded: windows of %u tokens hold %" PRIu64
                 " keys when compressed this way; the budget is %u%s",
                 window, keys, policy->budget, policy_longer(policy, s->served.context_max));
    return false;
}

static bool check(struct sched *s, struct request *r, const struct wire_req *m)
{
    size_t row = s->served.model->n_vocab * sizeof(float);
    struct policy policy;
    struct why why = { "" };

    if (read_policy(s, m, &policy, &why) < 0) {
        request_fail(s, r, WIRE_E_BAD_REQUEST, REQUEST_NO_NUMBERS, "%.300s", why.text);
        return false;
    }
    /* The one that is not named is checked when it is known how much of it there is. */
    if (m->u.score.has_window && !check_window(s, r, m->u.score.window, &policy))
        return false;
    if (m->u.score.want == WIRE_SCORE_LOGITS && reply_bulk_max(r) < row)
        request_fail(
            s, r, WIRE_E_LIMIT, (struct request_numbers){ 0, row, reply_bulk_max(r) },
            "a row of logits has %zu bytes, but this connection's arena holds %u (--arena-bytes)",
            row, reply_bulk_max(r));
    return r->phase != REQUEST_LAST;
}

static void finish(struct sched *s, struct request *r)
{
    r->last = (struct wire_rep){ .kind = WIRE_DONE };
    r->last.u.done.reason = WIRE_REASON_END_OF_TEXT;
    r->last.u.done.usage = r->usage;
    request_finish(s, r);
}

static int start_whole(struct sched *s, struct request *r, const struct wire_req *m)
{
    struct score *sc = calloc(1, sizeof(*sc));
    int e;

    r->state = sc;
    r->priority = WIRE_BACKGROUND;
    if (!sc)
        return -ENOMEM;
    sc->want = m->u.score.want;
    (void)read_policy(s, m, &sc->policy, NULL); /* was checked */
    sc->window = window_of(s, m, &sc->policy);
    e = encode_init(&sc->encode, &r->client->held, s->served.vocab, SIZE_MAX);
    if (e < 0)
        return e;
    return m->u.score.kind == WIRE_SCORE_TOKENS ? read_ids(s, r, sc)
                                                : encode_take_text(&sc->encode, r->parts, false);
}

static int score_start(struct sched *s, struct request *r, const struct wire_req *m,
                       const uint8_t *bulk)
{
    if (!check(s, r, m) || !request_collect(s, r, bulk, m->bulk_len))
        return 0;
    if (!m->u.score.more)
        return start_whole(s, r, m);
    finish(s, r);
    return 0;
}

static size_t window_end(const struct score *sc)
{
    size_t end = (sc->pos / sc->window + 1) * sc->window;

    return end < sc->n ? end : sc->n;
}

/* Pages for the window that begins at pos, or for what may be read of it before something is
 * compressed. */
static bool reserve_window(struct sched *s, struct request *r, struct score *sc)
{
    uint32_t n = (uint32_t)(window_end(sc) - sc->pos), room = memory_room(&sc->memory);

    n = n < room ? n : room;
    if (seq_reserve(&sc->seq, n) == 0)
        return true;
    /* In vain for now: score_plan asks again. */
    if (room_comes(s, r, sc->seq.account, seq_wants(&sc->seq, n)))
        return false;
    request_fail_pages(s, r, sc->seq.account, seq_wants(&sc->seq, n),
                       "reading a window's next %u tokens", n);
    return false;
}

static void prepare(struct sched *s, struct request *r, struct score *sc)
{
    uint32_t longest;
    void *p = NULL;
    int e;

    sc->n = sc->encode.n_ids;
    if (sc->n == 0) {
        finish(s, r);
        return;
    }
    longest = sc->n < sc->window ? (uint32_t)sc->n : sc->window;
    if (!check_window(s, r, longest, &sc->policy))
        return;
    e = seq_open(&sc->seq, &s->served.pool, &r->client->account, sc->window, sc->policy.seg_len, 0);
    if (e == 0) {
        e = memory_init(&sc->memory, &sc->policy, &s->served, &sc->seq);
        sc->opened = true;
        r->memory = &sc->memory;
    }
    if (e == 0 && sc->want == WIRE_SCORE_LOGPROBS) {
        e = held_resize(&r->client->held, &p, &sc->logprobs_len, sc->n * sizeof(*sc->logprobs));
        sc->logprobs = p;
    }
    if (e < 0) {
        request_fail_memory(s, r, e);
        return;
    }
    if (sc->logprobs)
        sc->logprobs[0] = NAN;
    sc->reading_ns = clock_ns();
    r->phase = REQUEST_RUN;
    (void)reserve_window(s, r, sc);
}

static bool score_work(struct sched *s, struct request *r)
{
    struct score *sc = r->state;
    int e;

    if (sc->unknown > 0 &&
        !request_known_slice(s, r, sc->encode.ids, sc->encode.n_ids, &sc->unknown))
        return true;
    e = encode_step(&sc->encode);
    if (e < 0)
        request_fail_memory(s, r, e);
    else if (e == 1)
        prepare(s, r, sc);
    return true;
}

/* --- reading ---------------------------------------------------------------------------------- */

/* A reply for n rows of logits: room for it in the arena, or not. */
static int begin_rows(struct sched *s, struct request *r, uint32_t n, uint8_t **ret_bulk)
{
    struct score *sc = r->state;
    uint32_t n_vocab = s->served.model->n_vocab;
    struct wire_rep rep = { .id = r->id,
                            .kind = WIRE_SCORE_ROWS,
                            .bulk_len = (uint64_t)n * n_vocab * sizeof(float) };

    rep.u.score_rows.first = (uint32_t)sc->pos;
    rep.u.score_rows.n = n;
    rep.u.score_rows.n_vocab = n_vocab;
    return reply_begin(s, r, &rep, ret_bulk);
}

/* Rows of logits that one reply takes: half the arena, so that the client reads one half while the
 * other is filled; one row at least. */
static uint32_t rows_at_once(struct sched *s, const struct request *r)
{
    size_t row = s->served.model->n_vocab * sizeof(float), n = reply_bulk_max(r) / 2 / row;

    if (n > SCHED_LOGITS_ROWS)
        n = SCHED_LOGITS_ROWS;
    return n ? (uint32_t)n : 1;
}

static bool score_plan(struct sched *s, struct request *r, uint32_t max, struct forward_run *ret)
{
    struct score *sc = r->state;
    size_t left = window_end(sc) - sc->pos;
    uint8_t *bulk;

    if (r->cancelled || !request_room(s, r, &max) || !reserve_window(s, r, sc))
        return false;
    /* Nobody looks at the cancels while logits of all these rows are made. */
    if (max > pace_budget(&s->pace, true))
        max = pace_budget(&s->pace, true);
    if (sc->want == WIRE_SCORE_LOGITS) {
        if (max > rows_at_once(s, r))
            max = rows_at_once(s, r);
        if (max > left)
            max = (uint32_t)left;
        if (begin_rows(s, r, max, &bulk) < 0)
            return false; /* the reader is behind: nothing is computed for the bin */
    }
    *ret = (struct forward_run){ .seq = &sc->seq,
                                 .tokens = sc->encode.ids + sc->pos,
                                 .n_tokens = left < max ? (uint32_t)left : max,
                                 .want = FORWARD_WANT_ALL };
    return true;
}

/* Of the n tokens from pos on, which have just been read. False: the request has failed. */
static bool take_logprobs(struct sched *s, struct request *r, uint32_t first, uint32_t n)
{
    struct score *sc = r->state;
    float *to = sc->logprobs + sc->pos + 1;
    /* The row behind a window's last token speaks of none. */
    uint32_t known = sc->pos + n == window_end(sc) ? n - 1 : n;
    int e = forward_logprobs(&s->served.forward, first, known, sc->encode.ids + sc->pos + 1, to);

    if (e < 0) {
        request_fail_step(s, r, e);
        return false;
    }
    if (!request_finite(s, r, to, known))
        return false;
    sc->pos += n;
    if (sc->pos < sc->n && known < n)
        sc->logprobs[sc->pos] = NAN;
    return true;
}

/* False: another reply of this client took the room, and the step's tokens are read again later; or
 * the request has failed. */
static bool take_logits(struct sched *s, struct request *r, uint32_t first, uint32_t n)
{
    struct score *sc = r->state;
    uint8_t *bulk;

    if (begin_rows(s, r, n, &bulk) < 0) {
        memory_rewind(&sc->memory, sc->seq.n_tokens - n);
        (void)reserve_window(s, r, sc); /* can't fail: these pages were just given back */
        return false;
    }
    if (!request_take_logits(s, r, first, n, (float *)(void *)bulk))
        return false; /* what stands in the arena was not committed */
    reply_commit(r);
    sc->pos += n;
    return true;
}

/* How the tokens of a window that has been read were kept. */
static void add_account(struct request *r, const struct score *sc)
{
    struct wire_usage u = { .prompt_tokens = sc->memory.n_ids };

    memory_account(&sc->memory, &u);
    r->usage.raw_tokens += u.raw_tokens;
    r->usage.gist_tokens += u.gist_tokens;
    r->usage.gists += u.gists;
}

static void score_rows(struct sched *s, struct request *r, uint32_t first, uint32_t n_out,
                       uint32_t n)
{
    struct score *sc = r->state;

    (void)n_out;
    if (!(sc->want == WIRE_SCORE_LOGPROBS ? take_logprobs : take_logits)(s, r, first, n))
        return;
    s->totals.prompt_tokens += n;
    r->usage.computed_tokens += n;
    r->usage.prompt_tokens = (uint32_t)sc->n;
    r->usage.prompt_ns = clock_ns() - sc->reading_ns;
    if (sc->pos < sc->n && sc->pos % sc->window)
        return;
    add_account(r, sc);
    memory_rewind(&sc->memory,
                  0); /* at the end too: pages are free before the reader has read all */
    if (sc->pos == sc->n)
        finish(s, r);
    else
        (void)reserve_window(s, r, sc);
}

/* --- sending ---------------------------------------------------------------------------------- */

static int send_logprobs(struct sched *s, struct request *r, struct score *sc, uint32_t n)
{
    int e = reply_scores(s, r, sc->encode.ids + sc->sent, sc->logprobs + sc->sent, sc->sent, n);

    if (e == 0)
        sc->sent += n;
    return e;
}

static int score_flush(struct sched *s, struct request *r)
{
    struct score *sc = r->state;
    uint32_t most = reply_bulk_max(r) / 2 / 8;
    int e = 0;

    if (!sc || !sc->logprobs || r->last.kind == WIRE_ERROR)
        return 0;
    while (e == 0) {
        size_t known = sc->pos < sc->n ? sc->pos + 1 : sc->n;
        size_t n = known - sc->sent;

        if (n == 0 || (n < ROWS_A_REPLY && r->phase != REQUEST_LAST))
            break;
        e = send_logprobs(s, r, sc, n < most ? (uint32_t)n : most);
    }
    return e;
}

static void close_seq(struct score *sc)
{
    if (sc->opened) {
        memory_fini(&sc->memory);
        seq_close(&sc->seq);
    }
    sc->opened = false;
}

static void score_undo(struct sched *s, struct request *r)
{
    struct score *sc = r->state;

    (void)s;
    if (sc)
        close_seq(sc);
}

static void score_fini(struct request *r)
{
    struct score *sc = r->state;
    void *p;

    if (!sc)
        return;
    close_seq(sc);
    encode_fini(&sc->encode);
    p = sc->logprobs;
    (void)held_resize(&r->client->held, &p, &sc->logprobs_len, 0);
    free(sc);
}

const struct request_ops request_score = {
    .name = "score",
    .takes_bulk = request_collects,
    .start = score_start,
    .work = score_work,
    .plan = score_plan,
    .rows = score_rows,
    .flush = score_flush,
    .undo = score_undo,
    .fini = score_fini,
};
