/* daemon/req_generate.c - Generate: an answer, token by token.
 *
 *     the session's kept logits, or its pending token read by the model
 *                 |
 *                 v
 *       sample -> end of text? -----------------------> Done END_OF_TEXT, the token is not kept
 *         ^         |
 *         |       pending token of the session; its text to the answer
 *         |         |
 *         |       a stop string? max_tokens? ---------> Done STOP, LENGTH
 *         |         |
 *         +---- read it with the next step ------------> Done CONTEXT_FULL, POOL_FULL: can't
 *
 * What the client saw is in the session, tokens of a stop string are not (but for one that begins
 * before it). After a cancel too.
 *
 * Tokens behind the pending one may be guessed (daemon/draft.h) and read with it. Each row of
 * logits is sampled from as if it were alone; what it gives is compared with the guess, and where
 * the two are the same the next row's logits are there already. Everything that is looked at before
 * a token is read is looked at between two rows as well (goes_on), so that an answer ends, waits
 * and hydrates where it would without guesses.
 *
 * With a grammar only tokens that go on in it are sampled from, and the answer ends where nothing
 * can follow. It is compiled by a thread of its own, before the first token. */

#include "base/clock.h"
#include "daemon/answer.h"
#include "daemon/draft.h"
#include "daemon/form.h"
#include "daemon/generate.h"
#include "daemon/kept.h"
#include "daemon/logprobs.h"
#include "daemon/lookup.h"
#include "daemon/masker.h"
#include "daemon/ranking.h"
#include "daemon/reply.h"
#include "daemon/room.h"
#include "daemon/sched.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct generate {
    struct sampler sampler;
    struct answer answer;
    struct {
        bool made, finite;
        uint32_t id;
    } drawn; /* of the row that is given next */
    bool has_logprobs;
    struct logprobs logprobs;
    struct form form;
    uint32_t budget_left, budget_at; /* tokens, behind so many; of an answer with a grammar */
    uint32_t max_tokens;             /* 0: no limit */
    bool ignore_eog;
    uint32_t n_more; /* tokens of the answer when it was last looked what else they point to */
    bool brings;     /* what they point to comes */
    bool asks;       /* what the text asks about is to be there first */
    uint32_t n_asks; /* tokens of the text's end that ask, and are being ranked for */
    struct ranking ranking;      /* of what is packed, for these or the answer's own */
    struct hydrate_job *hydrate; /* under way; NULL: none */
    uint64_t first_ns;           /* when the first token was there; 0: not yet */
    uint32_t gave_way;           /* for others, at so many tokens and one; 0: never */

    /* What it may guess, tokens or DRAFT_AUTO; 0: nothing. Then what of the step that runs is
     * guessed, behind the pending token. */
    uint32_t draft;
    struct lookup lookup;
    uint32_t ids[1 + DRAFT_MAX], n_drafts, class;
};

/* --- start ------------------------------------------------------------------------------------ */

/* 0 is a value of these, so what was not said is told by has_*; temperature 0 is greedy. */
static void read_params(const struct wire_req *m, struct sampler_params *ret)
{
    *ret = (struct sampler_params){
        .temperature = m->u.generate.temperature,
        .top_k = m->u.generate.top_k,
        .top_p = m->u.generate.has_top_p ? m->u.generate.top_p : 1,
        .min_p = m->u.generate.min_p,
        .repeat_penalty = m->u.generate.has_repeat_penalty ? m->u.generate.repeat_penalty : 1,
        .repeat_last_n = m->u.generate.repeat_last_n,
        .seed = m->u.generate.seed,
    };
}

static bool check_stops(struct sched *s, struct request *r, const struct wire_req *m)
{
    for (uint32_t i = 0; i < m->u.generate.n_stops; i++) {
        size_t len = strlen(m->u.generate.stops[i]);

        if (len >= 1 && len <= ANSWER_STOP_MAX)
            continue;
        request_fail(s, r, WIRE_E_BAD_REQUEST, (struct request_numbers){ 0, len, ANSWER_STOP_MAX },
                     "a stop string has %zu bytes; 1 to %u are allowed", len, ANSWER_STOP_MAX);
        return false;
    }
    if (m->u.generate.n_stops <= ANSWER_STOPS_MAX)
        return true;
    request_fail(s, r, WIRE_E_BAD_REQUEST,
                 (struct request_numbers){ 0, m->u.generate.n_stops, ANSWER_STOPS_MAX },
                 "%u stop strings in one request; %u are allowed", m->u.generate.n_stops,
                 ANSWER_STOPS_MAX);
    return false;
}

/* The repetition penalty also counts what stood in the session before: a prompt's own words are the
 * first that a model repeats. */
static void push_recent(struct generate *g, const struct session *session)
{
    uint32_t n = session->memory.n_ids, want = g->sampler.params.repeat_last_n;

    for (uint32_t i = n > want ? n - want : 0; i < n; i++)
        if (session->seq.tokens[i] != SEQ_FILLER)
            sampler_push(&g->sampler, session->seq.tokens[i]);
    if (session->has_pending)
        sampler_push(&g->sampler, session->pending);
}

/* What can't be asked for, alone or together. */
static bool check(struct sched *s, struct request *r, const struct wire_req *m)
{
    bool has_text = m->bulk_len > 0 || r->parts->len > 0;
    struct sampler_params params;
    struct why why = { "" };

    read_params(m, &params);
    if (sampler_check(&params, &why) < 0)
        request_fail(s, r, WIRE_E_BAD_REQUEST, REQUEST_NO_NUMBERS, "%.300s", why.text);
    else if (m->u.generate.has_logprobs && m->u.generate.logprobs > LOGPROBS_TOP_MAX)
        request_fail(s, r, WIRE_E_BAD_REQUEST,
                     (struct request_numbers){ 0, m->u.generate.logprobs, LOGPROBS_TOP_MAX },
                     "log-probabilities of %u tokens beside each were asked for; %u are allowed",
                     m->u.generate.logprobs, LOGPROBS_TOP_MAX);
    else if (m->u.generate.has_draft && m->u.generate.draft > DRAFT_MAX &&
             m->u.generate.draft != DRAFT_AUTO)
        request_fail(
            s, r, WIRE_E_BAD_REQUEST, (struct request_numbers){ 0, m->u.generate.draft, DRAFT_MAX },
            "%u tokens are to be guessed ahead; %u at most are", m->u.generate.draft, DRAFT_MAX);
    else if (has_text && m->u.generate.grammar == WIRE_GRAMMAR_NONE)
        request_fail(s, r, WIRE_E_BAD_REQUEST, REQUEST_NO_NUMBERS,
                     "a Generate with data must say what kind of grammar it is");
    else if (m->u.generate.grammar && m->u.generate.ignore_eog)
        request_fail(s, r, WIRE_E_BAD_REQUEST, REQUEST_NO_NUMBERS,
                     "an answer by a grammar ends where the grammar does: ignore_eog can't be used "
                     "with one");
    else
        return check_stops(s, r, m);
    return false;
}

/* The one bulk of a Generate is its grammar. */
static bool generate_takes(const struct sched *s, const struct request *r, const struct wire_req *m)
{
    return m->u.generate.grammar != WIRE_GRAMMAR_NONE && request_collects(s, r, m);
}

static int init_logprobs(struct sched *s, struct request *r, const struct wire_req *m)
{
    struct generate *g = r->state;

    g->has_logprobs = m->u.generate.has_logprobs;
    if (!g->has_logprobs)
        return 0;
    return logprobs_init(&g->logprobs, &r->client->held, s->served.model->n_vocab,
                         m->u.generate.logprobs, g->answer.cap_ids);
}

int generate_begin(struct sched *s, struct request *r, const struct wire_req *m)
{
    struct generate *g = calloc(1, sizeof(*g));
    struct sampler_params params;
    int e;

    r->state = g;
    e = g ? answer_init(&g->answer, s->served.token_max, m->u.generate.stops, m->u.generate.n_stops)
          : -ENOMEM;
    if (e == 0)
        e = init_logprobs(s, r, m);
    if (e < 0)
        return e;
    read_params(m, &params);
    sampler_init(&g->sampler, &params);
    push_recent(g, r->session);
    g->max_tokens = m->u.generate.max_tokens;
    g->ignore_eog = m->u.generate.ignore_eog;
    g->draft = draft_setting(s->draft, m->u.generate.has_draft ? m->u.generate.draft : DRAFT_AUTO);
    form_take(&g->form, m->u.generate.grammar, r->parts);
    r->usage.prompt_tokens = session_len(r->session);
    memory_account(&r->session->memory, &r->usage);
    if (!r->session->row_valid && !g->form.kind)
        r->phase = REQUEST_RUN; /* the pending token is read first */
    return 0;
}

/* r->ops changes before anything of r->state is made: what ends the request from here on is the
 * other kind's. */
int generate_taken(struct sched *s, struct request *r, const struct wire_req *m)
{
    if (session_len(r->session) == 0) {
        request_fail(s, r, WIRE_E_BAD_REQUEST, REQUEST_NO_NUMBERS,
                     "the session is empty: append something first");
        return 0;
    }
    if (m->u.generate.n > 1) {
        r->ops = &request_answers;
        return r->ops->start(s, r, m, NULL);
    }
    return generate_begin(s, r, m);
}

static int generate_start(struct sched *s, struct request *r, const struct wire_req *m,
                          const uint8_t *bulk)
{
    if (!check(s, r, m) || !request_collect(s, r, bulk, m->bulk_len))
        return 0;
    if (m->u.generate.more) {
        r->last = (struct wire_rep){ .kind = WIRE_DONE };
        request_finish(s, r);
        return 0;
    }
    if (!request_take_session(s, r, m->u.generate.session))
        return 0;
    return r->session->client->kept ? kept_generate(s, r, m) : generate_taken(s, r, m);
}

/* --- how much may come ------------------------------------------------------------------------ */

/* Further than this nobody looks whether the budget is used up, and so often it is looked anew. */
#define BUDGET_AHEAD 4096u
#define BUDGET_EVERY 64u

/* What an answer by a grammar has to end in. Pages are not among it: others may give some back. */
static struct form_limit limit_of(struct request *r)
{
    struct generate *g = r->state;
    const struct session *session = r->session;
    uint32_t n = r->usage.generated_tokens, room = session->seq.max_tokens, budget;
    struct form_limit limit = { g->max_tokens ? g->max_tokens - n : UINT32_MAX, false };

    room = room > session_len(session) ? room - session_len(session) : 0;
    if (n == 0 || n - g->budget_at >= BUDGET_EVERY) {
        g->budget_left = memory_left(&session->memory, session->has_pending, BUDGET_AHEAD);
        g->budget_at = n;
    }
    budget = g->budget_left > n - g->budget_at ? g->budget_left - (n - g->budget_at) : 0;
    if (g->budget_left < BUDGET_AHEAD && budget < room)
        room = budget;
    if (room < limit.left)
        limit = (struct form_limit){ room, true };
    return limit;
}

/* --- tokens ----------------------------------------------------------------------------------- */

static void end_answer(struct request *r)
{
    struct generate *g = r->state;

    answer_end(&g->answer);
    if (g->first_ns)
        r->usage.generate_ns = clock_ns() - g->first_ns;
}

static void done(struct sched *s, struct request *r, enum wire_reason reason)
{
    struct generate *g = r->state;

    if (form_whole(&g->form) && reason != WIRE_REASON_STOP)
        reason = WIRE_REASON_END_OF_TEXT; /* whatever ended it, it is one of the grammar */
    end_answer(r);
    r->last = (struct wire_rep){ .kind = WIRE_DONE };
    r->last.u.done.reason = reason;
    r->last.u.done.stop = reason == WIRE_REASON_STOP ? g->answer.stop + 1 : 0;
    r->last.u.done.usage = r->usage;
    request_finish(s, r);
}

/* Ends the request, or leaves it in phase RUN with a pending token. */
static void accept_token(struct sched *s, struct request *r, uint32_t id)
{
    struct generate *g = r->state;
    struct session *session = r->session;
    const uint8_t *bytes;
    uint32_t dropped;
    size_t len;

    /* Part of the session at once, though the model has not read it: whatever ends the answer from
     * here on, the client has seen this token. */
    session->has_pending = true;
    session->pending = id;
    session_drop_row(session);
    r->usage.generated_tokens++;
    s->totals.generated_tokens++;
    sampler_push(&g->sampler, id);
    bytes = vocab_bytes(s->served.vocab, id, &len);
    if (g->has_logprobs)
        logprobs_push(&g->logprobs, id);
    dropped = answer_push(&g->answer, id, bytes, len);
    if (g->has_logprobs)
        logprobs_drop(&g->logprobs, dropped);
    if (g->answer.stopped) {
        session_truncate(session, session_len(session) - dropped);
        done(s, r, WIRE_REASON_STOP);
    } else if (!form_push(s, r, &g->form, id)) {
        return;
    } else if (form_over(&g->form)) {
        done(s, r, WIRE_REASON_END_OF_TEXT); /* nothing can follow: no token need say so */
    } else if (g->max_tokens && r->usage.generated_tokens >= g->max_tokens) {
        done(s, r, WIRE_REASON_LENGTH);
    } else {
        r->phase = REQUEST_RUN;
    }
}

/* The next token is this one. */
static void take(struct sched *s, struct request *r, uint32_t id)
{
    struct generate *g = r->state;

    if (!g->first_ns) {
        g->first_ns = clock_ns();
        r->usage.first_token_ns = g->first_ns - r->arrived_ns;
    }
    if (vocab_is_eog(s->served.vocab, id) && !g->ignore_eog) {
        session_truncate(r->session, session_len(r->session));
        done(s, r, WIRE_REASON_END_OF_TEXT);
        return;
    }
    accept_token(s, r, id);
}

/* The pending token was pushed when it was taken, so the grammar's state is known. */
static void generate_foresee(struct sched *s, struct request *r)
{
    struct generate *g = r->state;

    if (g->form.match)
        masker_add(s->masker, &g->form, limit_of(r));
}

/* The token of a row, if that has numbers only. */
static void draw(const struct sched *s, struct request *r, const struct sampler_crew *crew,
                 float *logits, struct sampler_candidate *scratch)
{
    struct generate *g = r->state;
    const struct sampler_math *math = s->served.info.sampling;
    uint32_t n = s->served.model->n_vocab;

    g->drawn.made = true;
    g->drawn.finite = quant_finite(QUANT_F32, logits, n);
    if (!g->drawn.finite)
        return;
    if (g->has_logprobs) /* candidates are not needed before the pick, and have the size */
        logprobs_look(&g->logprobs, math, logits, (float *)scratch);
    if (g->form.match)
        form_apply(&g->form, logits, n);
    g->drawn.id = sampler_pick_by(&g->sampler, math, crew, logits, n, scratch);
}

/* With a grammar only if it is known already what may come. */
static void generate_draw(const struct sched *s, struct request *r, float *logits,
                          struct sampler_candidate *scratch)
{
    const struct generate *g = r->state;

    if (!g->form.match || form_is_found(&g->form))
        draw(s, r, NULL, logits, scratch);
}

/* All of the host's threads, for one answer. */
static void run_crew(void *to, void (*fn)(void *arg, uint32_t part, uint32_t who), void *arg,
                     uint32_t n)
{
    backend_run(to, fn, arg, n);
}

static void sample(struct sched *s, struct request *r, float *logits)
{
    const struct sampler_crew crew = { run_crew, s->served.backend };
    struct generate *g = r->state;

    if (!g->drawn.made) {
        if (g->form.match && !form_is_found(&g->form))
            form_find(&g->form, limit_of(r));
        if (!g->form.match || form_is_found(&g->form))
            draw(s, r, s->served.info.threads > 1 ? &crew : NULL, logits, s->candidates);
    }
    if (g->form.match && !form_may_go_on(s, r, &g->form))
        return;
    g->drawn.made = false;
    if (g->drawn.finite)
        take(s, r, g->drawn.id);
    else
        request_fail_finite(s, r);
}

/* An answer that has no more room goes on without what its prompt brought back, one by one. Each
 * token asks: once, if it is not full. */
static bool context_full(struct session *session)
{
    struct memory *m = &session->memory;
    bool full = memory_full(m, session->has_pending);

    while (full && hydrate_less(m))
        full = memory_full(m, session->has_pending);
    return full || session_len(session) >= session->seq.max_tokens;
}

/* The same where there are no pages. */
static bool takes_page(struct session *session)
{
    int r = seq_reserve(&session->seq, 1);

    while (r < 0 && hydrate_less(&session->memory))
        r = seq_reserve(&session->seq, 1);
    return r == 0;
}

/* Once for a token: who comes back to no more pages than it had ends. */
static bool gives_way(struct sched *s, struct request *r, uint64_t n)
{
    struct generate *g = r->state;

    if (g->gave_way == r->usage.generated_tokens + 1 || !room_gives_way(s, r, n))
        return false;
    g->gave_way = r->usage.generated_tokens + 1;
    return true;
}

/* Of the next token. False: it waits, or has ended: with what was said, and more of it can be had
 * once there is room. */
static bool has_page(struct sched *s, struct request *r)
{
    struct seq *q = &r->session->seq;
    bool has = seq_reserve(q, 1) == 0;
    uint64_t n = has ? 0 : seq_wants(q, 1);

    if (!has && room_comes(s, r, q->account, n))
        return false;
    if (!has && !takes_page(r->session)) {
        if (served_lost(&s->served)) /* a page could not be copied */
            request_fail_step(s, r, -EIO);
        else if (!room_waits(s, r, n) && !gives_way(s, r, n))
            done(s, r, WIRE_REASON_POOL_FULL);
        return false;
    }
    r->paused = false;
    return true;
}

/* Who has said nothing is told by numbers what is missing. */
bool generate_cut(struct sched *s, struct request *r)
{
    if (r->usage.generated_tokens == 0)
        return false;
    done(s, r, WIRE_REASON_POOL_FULL);
    return true;
}

/* A long text may end with a question, which was read as the text was. Before it is answered it is
 * read again, behind what it points to. False: there is nothing of the kind. */
static bool ask(struct sched *s, struct request *r)
{
    struct generate *g = r->state;
    struct session *session = r->session;
    struct memory *m = &session->memory;
    const uint32_t *ids;

    if (g->n_asks == 0)
        g->n_asks = session_ask(session);
    if (g->n_asks == 0)
        return false;
    ids = session->seq.tokens + session_len(session) - g->n_asks;
    if (hydrate_can(m) && !ranking_ready(s, r, &g->ranking, m, ids, g->n_asks)) {
        trace_waits(&r->times);
        return true;
    }
    g->hydrate = hydrate_begin(m, ids, g->n_asks, 1, g->ranking.job);
    ranking_drop(r, &g->ranking);
    g->n_asks = 0;
    g->asks = true;
    r->phase = REQUEST_RUN;
    return true;
}

/* What an answer stands on may change while it is written: counted is the text before it, of which
 * what the answer has made of its own is none. */
static void account_again(struct request *r)
{
    uint32_t n = r->usage.prompt_tokens;

    r->usage.prompt_tokens = session_len(r->session);
    memory_account(r->memory, &r->usage);
    r->usage.prompt_tokens = n;
    if (r->usage.gist_tokens > n)
        r->usage.gist_tokens = n;
    r->usage.raw_tokens = n - r->usage.gist_tokens;
}

/* False: what the question points to is under way, or the question itself is read again. */
static bool is_asked(struct request *r)
{
    struct generate *g = r->state;

    if (g->hydrate)
        trace_waits(&r->times);
    if (g->hydrate && hydrate_go(g->hydrate) == -EAGAIN)
        return false;
    trace_waited(&r->times, &r->times.hydrate);
    g->hydrate = NULL;
    if (memory_behind(r->memory))
        return false;
    if (g->asks)
        memory_account(r->memory, &r->usage);
    else if (g->brings)
        account_again(r);
    g->asks = g->brings = false;
    return true;
}

static bool is_more_due(const struct request *r)
{
    const struct generate *g = r->state;

    return r->usage.generated_tokens >= g->n_more + HYDRATE_EVERY;
}

/* Something may come back, or is there that may not be wanted any more. */
static bool may_hydrate(const struct memory *m)
{
    return m->ladder.n_at[1] > 0 || hydrate_is_on(m);
}

/* Now and then: the words of the answer so far may point to something that is not there. False:
 * that is being ranked. */
static bool ask_more(struct sched *s, struct request *r)
{
    struct generate *g = r->state;
    struct memory *m = r->memory;
    uint32_t n = r->usage.generated_tokens - g->n_more;

    if (!is_more_due(r) || g->hydrate || memory_behind(m))
        return true;
    if (n > m->n_ids)
        n = m->n_ids;
    if (hydrate_can_more(m) &&
        !ranking_ready(s, r, &g->ranking, m, m->seq->tokens + m->n_ids - n, n)) {
        trace_waits(&r->times);
        return false;
    }
    g->n_more = r->usage.generated_tokens;
    g->hydrate = hydrate_more(m, n, g->ranking.job);
    ranking_drop(r, &g->ranking);
    g->brings = g->hydrate || hydrate_is_on(m);
    return true;
}

/* The first token, from the logits that the last append left. */
static bool generate_work(struct sched *s, struct request *r)
{
    struct generate *g = r->state;
    int e;

    if (r->ranking && (!ranking_go(s, r, &g->ranking) || r->phase == REQUEST_RUN))
        return true;
    if (g->form.kind) {
        e = form_make(s, r, &g->form);
        if (e == 0 && form_fits(s, r, &g->form, limit_of(r)) && !r->session->row_valid)
            r->phase = REQUEST_RUN; /* the pending token is read first */
        return e != -EAGAIN;
    }
    if (ask(s, r))
        return true;
    if (context_full(r->session)) {
        done(s, r, WIRE_REASON_CONTEXT_FULL);
        return true;
    }
    /* A copy: sampling changes logits in place, and an answer that ends with its first token leaves
     * the row for the next one. */
    memcpy(s->logits, r->session->row, s->served.model->n_vocab * sizeof(*s->logits));
    sample(s, r, s->logits);
    return true;
}

static bool generate_plan(struct sched *s, struct request *r, uint32_t max, struct forward_run *ret)
{
    struct generate *g = r->state;
    struct session *session = r->session;

    (void)max;
    if (r->cancelled || !answer_has_room(&g->answer))
        return false;
    if (!ask_more(s, r) || !is_asked(r))
        return false;
    if (context_full(session)) {
        done(s, r, WIRE_REASON_CONTEXT_FULL);
        return false;
    }
    if (!has_page(s, r))
        return false;
    g->n_drafts = 0;
    *ret = (struct forward_run){
        .seq = &session->seq, .tokens = &session->pending, .n_tokens = 1, .want = FORWARD_WANT_LAST
    };
    return true;
}

static void generate_token(struct sched *s, struct request *r, float *logits)
{
    struct generate *g = r->state;

    r->session->has_pending = false; /* it was read */
    r->usage.computed_tokens++;
    r->usage.drafted_tokens += g->n_drafts; /* with the first row of a step, and only there */
    s->totals.drafted_tokens += g->n_drafts;
    g->n_drafts = 0;
    sample(s, r, logits);
}

/* --- guesses ---------------------------------------------------------------------------------- */

/* Ids that are taken into the table a step: some 0.3 ms. */
#define INDEX_SLICE 32768u

/* Of what an answer without a limit comes to. */
#define INDEX_ANSWER 2048u

/* The table is made when the answer has begun, so that its first token does not wait for it, and
 * holds all that the session does. Without memory for it there are no guesses, and no error. False:
 * it is not ready. */
static bool index_text(struct request *r, uint32_t n)
{
    struct generate *g = r->state;
    const struct seq *seq = &r->session->seq;

    if (!g->lookup.rows && lookup_init(&g->lookup, &r->client->held,
                                       n + (g->max_tokens ? g->max_tokens : INDEX_ANSWER)) < 0) {
        g->draft = 0;
        return false;
    }
    return lookup_add(&g->lookup, seq->tokens, n, INDEX_SLICE);
}

/* How many may follow the pending token, as far as answer and memory are concerned: until
 * max_tokens, the session's end, and before anything is due; room counts the pending one, too.
 * Pages must be free; none is taken from what may be of use again. */
static uint32_t draft_room(struct sched *s, struct request *r, uint32_t max)
{
    struct generate *g = r->state;
    struct seq *seq = &r->session->seq;
    uint32_t room = memory_room(r->memory), left = seq->max_tokens - seq->n_tokens;

    if (g->max_tokens && max > g->max_tokens - r->usage.generated_tokens - 1)
        max = g->max_tokens - r->usage.generated_tokens - 1;
    if (room > left)
        room = left;
    if (may_hydrate(r->memory) && room > g->n_more + HYDRATE_EVERY - r->usage.generated_tokens)
        room = g->n_more + HYDRATE_EVERY - r->usage.generated_tokens;
    if (max + 1 > room)
        max = room > 0 ? room - 1 : 0;
    while (max > 0 &&
           (seq_wants(seq, 1 + max) > s->served.pool.n_free || seq_reserve(seq, 1 + max) < 0))
        max--;
    return max;
}

static void generate_draft(struct sched *s, struct request *r, uint32_t n_rows, uint32_t max,
                           struct forward_run *run)
{
    struct generate *g = r->state;
    struct session *session = r->session;
    struct seq *seq = &session->seq;
    uint32_t n = seq->n_tokens + 1, match = 0, k;

    if (g->draft == 0)
        return;
    seq->tokens[n - 1] = session->pending; /* where the step puts it anyway */
    if (!index_text(r, n))
        return;
    if (max > g->draft)
        max = g->draft;
    k = lookup_find(&g->lookup, seq->tokens, n, s->served.model->n_vocab, max, g->ids + 1, &match);
    g->class = draft_class(match);
    if (k > 0 && g->draft == DRAFT_AUTO)
        k = draft_length(&session->drafts, &s->draft_cost, g->class, n_rows, k);
    if (k > 0)
        k = draft_room(s, r, k);
    if (k == 0)
        return;
    g->n_drafts = k;
    g->ids[0] = session->pending;
    run->tokens = g->ids;
    run->n_tokens = 1 + k;
    run->n_drafts = k;
    run->want = FORWARD_WANT_ALL;
}

/* What generate_plan looks at before a token is read, with the same effects; where it would wait or
 * end the answer, that is left to the next step. */
static bool goes_on(struct sched *s, struct request *r)
{
    struct generate *g = r->state;
    struct session *session = r->session;

    if (r->cancelled || !answer_has_room(&g->answer) || memory_behind(r->memory) ||
        (is_more_due(r) && may_hydrate(r->memory)) || !ask_more(s, r))
        return false;
    return !memory_full(r->memory, session->has_pending) &&
           session_len(session) < session->seq.max_tokens;
}

static bool generate_follows(struct sched *s, struct request *r, uint32_t guess)
{
    struct generate *g = r->state;
    bool right;

    if (r->phase != REQUEST_RUN)
        return false;
    right = r->session->pending == guess;
    draft_learn(&r->session->drafts, g->class, right);
    if (!right || !goes_on(s, r))
        return false;
    r->usage.accepted_tokens++;
    s->totals.accepted_tokens++;
    return true;
}

static const struct draft_ops drafts = { .add = generate_draft, .follows = generate_follows };

static bool generate_asks(struct sched *s, struct request *r, uint32_t *ids,
                          struct sampler_ask *ret)
{
    const struct generate *g = r->state;

    return !g->form.match && !g->has_logprobs &&
           sampler_ask(&g->sampler, s->served.model->n_vocab, ids, ret);
}

static void generate_picked(struct sched *s, struct request *r, const struct sampler_found *found,
                            struct sampler_candidate *c)
{
    struct generate *g = r->state;

    r->session->has_pending = false; /* it was read */
    r->usage.computed_tokens++;
    if (found->n_bad)
        request_fail_finite(s, r);
    else
        take(s, r, sampler_take(&g->sampler, found, c));
}

/* --- sending ---------------------------------------------------------------------------------- */

static int generate_flush(struct sched *s, struct request *r)
{
    struct generate *g = r->state;
    uint32_t n_ids;
    size_t n;
    int e;

    while (g) {
        /* With log-probabilities a frame has room for so many. */
        n = answer_ready(&g->answer, REPLY_TEXT_MAX,
                         g->has_logprobs ? LOGPROBS_A_FRAME : UINT32_MAX, &n_ids);
        if (n == 0 && n_ids == 0)
            break;
        e = reply_text(s, r, g->answer.text, n, g->answer.ids, n_ids, n_ids,
                       g->has_logprobs ? &g->logprobs : NULL);
        if (e < 0)
            return e;
        answer_sent(&g->answer, n, n_ids);
        if (g->has_logprobs)
            logprobs_sent(&g->logprobs, n_ids);
    }
    return 0;
}

static void stop_hydrate(struct request *r)
{
    struct generate *g = r->state;

    if (!g)
        return;
    ranking_drop(r, &g->ranking);
    hydrate_drop(g->hydrate);
    g->hydrate = NULL;
}

/* Cancelled: what was said stays said, and goes out before the error. */
static void generate_undo(struct sched *s, struct request *r)
{
    struct generate *g = r->state;

    (void)s;
    stop_hydrate(r);
    if (g && g->answer.text)
        end_answer(r);
    /* A token that was read, but whose logits are of no use, is to be read again by who goes on. */
    if (g && r->session)
        session_truncate(r->session, session_len(r->session));
}

static void generate_fini(struct request *r)
{
    struct generate *g = r->state;

    stop_hydrate(r);
    if (!g)
        return;
    answer_fini(&g->answer);
    logprobs_fini(&g->logprobs);
    lookup_fini(&g->lookup);
    form_fini(&g->form, r);
    free(g);
}

const struct request_ops request_generate = {
    .name = "generate",
    .takes_bulk = generate_takes,
    .start = generate_start,
    .work = generate_work,
    .decode = true,
    .plan = generate_plan,
    .token = generate_token,
    .foresee = generate_foresee,
    .draw = generate_draw,
    .drafts = &drafts,
    .asks = generate_asks,
    .picked = generate_picked,
    .flush = generate_flush,
    .undo = generate_undo,
    .fini = generate_fini,
};
