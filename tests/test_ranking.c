/* tests/test_ranking.c - what is packed is ranked in slices between steps, in a scheduler in this
 * process, turn by turn. Would catch: other segments that come back, or another answer, than by a
 * ranking in one go, for a prompt, a question at the end of a long text, a chat in one append, and
 * an answer's own words; a step that others wait for longer than for one slice; slices that nobody
 * is charged for, or an owner who is taken to want nothing while they are made; a request that is
 * cancelled between two of them, or a session that is closed, and what is left of it; another one's
 * answer that waits for pages, and ends as if nobody were at work while a prompt is ranked for.
 */
#include "daemon/rank.h"
#include "daemon/sched.h"
#include "tests/support/alone.h"
#include "tests/support/scratch.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define SEGMENT 64u
#define BYTE_0  3u /* the model's id of byte 0 */
#define N_TEXT  (6 * SEGMENT + 10)
#define N_ASKED 20u
#define N_SAID  80u /* two rankings of its own words */

static struct alone a;
static struct chan *chan;
static uint64_t last_id;
static struct wire_rep rep;
static uint32_t text[N_TEXT];

/* --- slices ----------------------------------------------------------------------------------- */

static bool slices;       /* each is a segment, and none is short enough to be ranked at once */
static uint32_t n_slices; /* so far, */
static uint32_t n_in_step, most_in_step; /* since the last step, and the most of any */
static uint64_t steps;
static uint64_t charged_ns;
static const struct portion *charged[2]; /* the last two */

bool __real_rank_go(struct rank_job *j, uint32_t n);
bool __wrap_rank_go(struct rank_job *j, uint32_t n);
uint64_t __real_rank_left(const struct rank_job *j);
uint64_t __wrap_rank_left(const struct rank_job *j);
void __real_portion_spent(struct portion *x, uint64_t ns, double ns_per_row);
void __wrap_portion_spent(struct portion *x, uint64_t ns, double ns_per_row);

bool __wrap_rank_go(struct rank_job *j, uint32_t n)
{
    n_in_step = a.sched && a.sched->totals.steps == steps ? n_in_step + 1 : 1;
    steps = a.sched ? a.sched->totals.steps : 0;
    if (n_in_step > most_in_step)
        most_in_step = n_in_step;
    n_slices++;
    return __real_rank_go(j, slices ? 0 : n);
}

uint64_t __wrap_rank_left(const struct rank_job *j)
{
    return slices ? UINT64_MAX : __real_rank_left(j);
}

void __wrap_portion_spent(struct portion *x, uint64_t ns, double ns_per_row)
{
    charged_ns += ns;
    charged[0] = charged[1];
    charged[1] = x;
    __real_portion_spent(x, ns, ns_per_row);
}

/* --- by hand ---------------------------------------------------------------------------------- */

static void start(const char *store)
{
    unsigned seed = 3;

    alone_open(&a, store, 1);
    alone_begin(&a);
    chan = alone_hello(&a, 1);
    last_id = 1;
    n_slices = n_in_step = most_in_step = 0;
    for (uint32_t i = 0; i < N_TEXT; i++)
        text[i] = BYTE_0 + (i % 4 ? 32 + (uint32_t)rand_r(&seed) % 90 : ' ');
}

static void stop(void)
{
    chan_close(chan);
    alone_end(&a);
    a.sched = NULL;
    slices = false;
}

static uint64_t open_as(const struct wire_memory *memory, enum wire_priority priority)
{
    struct wire_req m = { .id = ++last_id,
                          .kind = WIRE_OPEN_SESSION,
                          .u.open_session.label = "",
                          .u.open_session.priority = priority,
                          .u.open_session.has_segment = true,
                          .u.open_session.segment = SEGMENT,
                          .u.open_session.memory = *memory };

    assert_int_equal(alone_ask(&a, chan, &m, NULL, &rep), WIRE_SESSION_OPENED);
    return rep.u.session_opened.session;
}

static uint64_t open_session(uint32_t hydrate)
{
    const struct wire_memory memory = { .compressor = WIRE_SELECT,
                                        .has_ratio = true,
                                        .ratio = 8,
                                        .has_hydrate = true,
                                        .hydrate = hydrate,
                                        .adapter = "" };

    return open_as(&memory, WIRE_INTERACTIVE);
}

static uint64_t start_append(uint64_t session, const uint32_t *ids, uint32_t n)
{
    struct wire_req m = { .id = ++last_id, .kind = WIRE_APPEND, .bulk_len = n * sizeof(*ids) };

    m.u.append.session = session;
    m.u.append.kind = WIRE_APPEND_TOKENS;
    alone_send(&a, chan, &m, ids);
    return m.id;
}

static uint64_t start_answer(struct chan *to, uint64_t session, uint32_t n)
{
    struct wire_req m = { .id = ++last_id, .kind = WIRE_GENERATE };

    m.u.generate.session = session;
    m.u.generate.max_tokens = n;
    m.u.generate.ignore_eog = true;
    alone_send(&a, to, &m, NULL);
    return m.id;
}

/* What an answer said, and what it stood on. */
struct said {
    uint32_t n, ids[N_SAID], hydrated, missed;
};

static void take(struct said *said)
{
    if (rep.kind == WIRE_TEXT)
        for (uint32_t i = 0; i < rep.u.text.n_ids && said->n < N_SAID; i++)
            said->ids[said->n++] = rep.u.text.tokens[i];
    if (rep.kind != WIRE_DONE)
        return;
    said->hydrated = rep.u.done.usage.hydrated_tokens;
    said->missed = rep.u.done.usage.missed_tokens;
}

/* The last reply of this request. said: NULL, or what was said until then. */
static enum wire_rep_kind wait_for(uint64_t id, struct said *said)
{
    do {
        (void)alone_reply(&a, chan, &rep);
        if (said && rep.id == id)
            take(said);
    } while (rep.id != id || !rep.last);
    if (rep.kind == WIRE_ERROR)
        printf("%s\n", rep.u.error.text);
    return rep.kind;
}

static void append(uint64_t session, const uint32_t *ids, uint32_t n)
{
    assert_int_equal(wait_for(start_append(session, ids, n), NULL), WIRE_APPENDED);
}

static struct said answer(uint64_t session)
{
    struct said said = { .n = 0 };

    assert_int_equal(wait_for(start_answer(chan, session, N_SAID), &said), WIRE_DONE);
    assert_int_equal(said.n, N_SAID);
    return said;
}

static void close_session(uint64_t session)
{
    struct wire_req m = { .id = ++last_id, .kind = WIRE_CLOSE_SESSION };

    m.u.close_session.session = session;
    assert_int_equal(alone_ask(&a, chan, &m, NULL, &rep), WIRE_SESSION_CLOSED);
}

/* --- the same --------------------------------------------------------------------------------- */

/* Text, and then a prompt. */
static void ask_behind(uint64_t session)
{
    append(session, text, N_TEXT);
    append(session, text + 3 * SEGMENT + 21, N_ASKED);
}

/* Both in one append, as plain text. */
static void ask_in_one(uint64_t session)
{
    uint32_t all[N_TEXT + 2 + N_ASKED], n = N_TEXT - 30;

    memcpy(all, text, n * sizeof(*text));
    all[n++] = BYTE_0 + '\n';
    all[n++] = BYTE_0 + '\n';
    memcpy(all + n, text + 3 * SEGMENT + 21, N_ASKED * sizeof(*text));
    append(session, all, n + N_ASKED);
}

/* As a gateway sends it: behind a text of before, another one and a question. */
static void ask_in_chat(uint64_t session)
{
    const struct wire_chat_message messages[] = { { "user", N_TEXT }, { "user", N_ASKED } };
    struct wire_req m = { .kind = WIRE_APPEND, .bulk_len = N_TEXT + N_ASKED };
    char bulk[N_TEXT + N_ASKED];

    append(session, text, 3 * SEGMENT);
    for (uint32_t i = 0; i < N_TEXT; i++)
        bulk[i] = (char)(text[i] - BYTE_0);
    memcpy(bulk + N_TEXT, bulk + 2 * SEGMENT + 10, N_ASKED);
    m.id = ++last_id;
    m.u.append.session = session;
    m.u.append.kind = WIRE_APPEND_CHAT;
    m.u.append.messages = messages;
    m.u.append.n_messages = 2;
    m.u.append.open_answer = true;
    assert_int_equal(alone_ask(&a, chan, &m, bulk, &rep), WIRE_APPENDED);
}

static void (*const asks[])(uint64_t) = { ask_behind, ask_in_one, ask_in_chat };
#define ASKS (sizeof(asks) / sizeof(*asks))

static struct said asked(const char *store, void (*ask)(uint64_t), bool sliced)
{
    struct said said;
    uint64_t session;

    start(store);
    slices = sliced;
    session = open_session(2);
    ask(session);
    said = answer(session);
    close_session(session);
    stop();
    return said;
}

static void as_in_one_go(void **state)
{
    char store[SCRATCH_PATH_MAX];

    (void)state;
    for (size_t i = 0; i < 2 * ASKS; i++) {
        struct said whole, sliced;
        uint32_t n_whole;

        (void)scratch_path(store, i % 2 ? "whole" : "none");
        whole = asked(i % 2 ? store : "none", asks[i / 2], false);
        n_whole = n_slices;
        (void)scratch_path(store, i % 2 ? "sliced" : "none");
        sliced = asked(i % 2 ? store : "none", asks[i / 2], true);
        assert_true(whole.hydrated > 0);
        assert_true(n_whole >= 3);                /* for the question, and twice for the answer */
        assert_true(n_slices >= n_whole * 2 * 4); /* two looks at all that is packed */
        assert_memory_equal(&sliced, &whole, sizeof(whole));
    }
}

/* --- others ----------------------------------------------------------------------------------- */

static struct request *find(uint64_t id)
{
    struct request *r;

    TAILQ_FOREACH (r, &a.sched->active, link)
        if (r->id == id)
            return r;
    return NULL;
}

static struct request *ranking_of(uint64_t id)
{
    struct request *r = find(id);

    return r && r->ranking ? r : NULL;
}

/* What is there for another client is taken, so that its answer goes on. */
static void drain(struct chan *other)
{
    struct chan_msg msg;

    while (chan_recv(other, &msg) == 0)
        chan_release(other);
}

/* Another client's answer, which is being written, and is not at its end for long. */
static struct chan *begin_theirs(uint64_t *ret_id)
{
    struct chan *first = chan, *other = alone_hello(&a, 2);
    const struct request *r;
    uint64_t session;

    chan = other;
    session = open_session(0);
    append(session, text, SEGMENT);
    *ret_id = start_answer(other, session, 600);
    chan = first;
    while (!(r = find(*ret_id)) || r->usage.generated_tokens < 4) {
        assert_true(sched_turn(a.sched));
        drain(other);
    }
    return other;
}

static bool is_charged(const struct request *r)
{
    const struct portion *owner = &r->client->owner->portion, *unit = &r->client->unit->portion;

    return owner->waited && unit->waited && charged[0] == owner && charged[1] == unit;
}

/* Somebody else's answer has a token between any two slices, and those are charged to who has them
 * made, and wants something all the while. */
static void others_go_on(void **state)
{
    uint64_t session, id, theirs;
    uint32_t n_ranking = 0;
    struct chan *other;

    (void)state;
    start("none");
    slices = true;
    session = open_session(2);
    ask_behind(session);
    other = begin_theirs(&theirs);
    n_slices = most_in_step = n_in_step = 0;
    charged_ns = 0;
    id = start_answer(chan, session, N_SAID);
    do {
        assert_true(sched_turn(a.sched));
        drain(other);
        while (chan_readable(chan))
            (void)alone_reply(&a, chan, &rep);
        if (!ranking_of(id))
            continue;
        n_ranking++;
        assert_true(n_slices == 0 || is_charged(ranking_of(id)));
    } while (rep.id != id || !rep.last);
    assert_int_equal(rep.kind, WIRE_DONE);
    assert_non_null(find(theirs)); /* it was there all the time */
    assert_true(n_slices >= 2 * 2 * 6);
    assert_int_equal(n_ranking, n_slices); /* a turn for each */
    assert_int_equal(most_in_step, 1);
    assert_true(charged_ns > 0);
    chan_close(other);
    stop();
}

/* After a few slices of the n-th ranking of it. */
static void until_slices(uint64_t id, uint32_t nth)
{
    for (uint32_t n = 0; n < nth; n++) {
        while (!ranking_of(id))
            assert_true(sched_turn(a.sched));
        if (n + 1 == nth)
            break;
        while (ranking_of(id))
            assert_true(sched_turn(a.sched));
    }
    for (int i = 0; i < 3; i++)
        assert_true(sched_turn(a.sched));
    assert_non_null(ranking_of(id));
}

/* A background answer that has used up its client's pages waits while others are at work, and who
 * is ranked for is: though no step is made. */
static void is_at_work(void **state)
{
    const struct wire_memory whole = { .adapter = "" };
    struct chan *first, *other;
    uint64_t session, id, theirs;
    struct session *x;

    (void)state;
    start("none");
    slices = true;
    session = open_session(2);
    append(session, text, N_TEXT);
    first = chan;
    chan = other = alone_hello(&a, 2);
    theirs = open_as(&whole, WIRE_BACKGROUND);
    append(theirs, text, POOL_PAGE_TOKENS - 1);
    x = TAILQ_FIRST(&TAILQ_LAST(&a.sched->clients, client_list)->sessions);
    assert_int_equal(x->id, theirs);
    x->seq.account->limit = x->seq.account->used;
    chan = first;
    id = start_append(session, text + 3 * SEGMENT + 21, N_ASKED);
    until_slices(id, 1);
    theirs = start_answer(other, theirs, N_SAID);
    while (!find(theirs))
        assert_true(sched_turn(a.sched));
    assert_int_equal(wait_for(id, NULL), WIRE_APPENDED);
    assert_non_null(find(theirs));
    chan = other; /* now nobody is */
    assert_int_equal(wait_for(theirs, NULL), WIRE_DONE);
    assert_int_equal(rep.u.done.reason, WIRE_REASON_POOL_FULL);
    chan_close(other);
    chan = first;
    stop();
}

static void spent_as_rows(void **state)
{
    struct portion x = { .had = 5 };

    (void)state;
    portion_spent(&x, 900, 0); /* not known yet */
    assert_int_equal(x.had, 5);
    portion_spent(&x, 50, 1000);
    assert_int_equal(x.had, 5);
    portion_spent(&x, 50, 1000);
    assert_int_equal(x.had, 6);
    portion_spent(&x, 2999, 1000);
    assert_int_equal(x.had, 8);
    portion_spent(&x, 1, 1000);
    assert_int_equal(x.had, 9);
    assert_int_equal(x.spent_ns, 0);
}

/* --- given up --------------------------------------------------------------------------------- */

static void cancel(uint64_t request)
{
    struct wire_req m = { .id = ++last_id, .kind = WIRE_CANCEL };

    m.u.cancel.request = request;
    alone_send(&a, chan, &m, NULL);
}

/* A question that is cancelled while it is ranked for is asked anew, with the same answer; and who
 * cancels an answer can have another one. */
static void cancelled(void **state)
{
    struct said whole, again;
    uint64_t session, id;

    (void)state;
    whole = asked("none", ask_behind, false);
    start("none");
    slices = true;
    session = open_session(2);
    append(session, text, N_TEXT);
    for (int i = 0; i < 2; i++) {
        id = start_append(session, text + 3 * SEGMENT + 21, N_ASKED);
        until_slices(id, 1);
        cancel(id);
        assert_int_equal(wait_for(id, NULL), WIRE_ERROR);
        assert_int_equal(rep.u.error.code, WIRE_E_CANCELLED);
    }
    append(session, text + 3 * SEGMENT + 21, N_ASKED);
    again = answer(session);
    assert_memory_equal(&again, &whole, sizeof(whole));
    id = start_answer(chan, session, N_SAID);
    until_slices(id, 2);
    cancel(id);
    assert_int_equal(wait_for(id, NULL), WIRE_ERROR);
    (void)answer(session);
    stop();
}

/* The question at a text's end, too; and all of it goes with its client. */
static void cancelled_in_one(void **state)
{
    struct mailbox_letter dead = { .kind = MAILBOX_DEAD, .client = 1 };
    struct said whole, again;
    uint64_t session, id;

    (void)state;
    whole = asked("none", ask_in_one, false);
    start("none");
    slices = true;
    session = open_session(2);
    ask_in_one(session);
    id = start_answer(chan, session, N_SAID);
    until_slices(id, 1);
    cancel(id);
    assert_int_equal(wait_for(id, NULL), WIRE_ERROR);
    (void)answer(session);
    close_session(session);
    session = open_session(2);
    ask_in_one(session);
    again = answer(session);
    assert_memory_equal(&again, &whole, sizeof(whole));
    id = start_answer(chan, session, N_SAID);
    until_slices(id, 1);
    mailbox_put(&a.to, &dead);
    while (a.sched->n_clients > 0)
        (void)sched_turn(a.sched);
    assert_int_equal(a.sched->n_active, 0);
    stop();
}

/* A part of a prompt has no session: that may go while it is ranked for. */
static void part_without_session(void **state)
{
    struct wire_req m = { .kind = WIRE_APPEND, .bulk_len = 40 };
    char store[SCRATCH_PATH_MAX], bulk[40];
    uint64_t session, other;

    (void)state;
    start(scratch_path(store, "parts"));
    slices = true;
    session = open_session(2);
    append(session, text, N_TEXT);
    for (uint32_t i = 0; i < sizeof(bulk); i++)
        bulk[i] = (char)(text[3 * SEGMENT + i] - BYTE_0);
    m.id = ++last_id;
    m.u.append.session = session;
    m.u.append.more = true;
    alone_send(&a, chan, &m, bulk);
    until_slices(m.id, 1);
    close_session(session);
    other = open_session(2); /* perhaps where that was */
    append(other, text, SEGMENT);
    assert_null(ranking_of(m.id));
    stop();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(as_in_one_go),
        cmocka_unit_test(others_go_on),
        cmocka_unit_test(is_at_work),
        cmocka_unit_test(spent_as_rows),
        cmocka_unit_test(cancelled),
        cmocka_unit_test(cancelled_in_one),
        cmocka_unit_test(part_without_session),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
