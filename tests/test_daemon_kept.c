/* tests/test_daemon_kept.c - sessions that outlive their connection. Would catch: an answer that is
 * not that of one who stayed, token by token, for one who was killed in it, once or twice; a token
 * that others can use, or that says why it can't be used; an answer that is lost, or that fills the
 * memory, when nobody reads; pages that are not given back when the time is over; one user who
 * keeps so many that another can't keep any; a daemon that does not end for them.
 */

#include "tests/support/daemon_fixture.h"

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static struct daemon_fixture d;

static void start(const char *const *args)
{
    daemon_fixture_start(&d, DAEMON_FIXTURE_TINY, args);
}

/* --- an answer -------------------------------------------------------------------------------- */

#define IDS_MAX 2048u

struct got {
    uint32_t ids[IDS_MAX];
    size_t n_ids, len;
    char text[65536];
    uint64_t first;
    uint32_t n_resumed;
};

static int on_text(void *arg, uint32_t answer, const char *text, size_t len, const uint32_t *ids,
                   size_t n_ids)
{
    struct got *g = arg;

    (void)answer;
    assert_true(g->n_ids + n_ids <= IDS_MAX && g->len + len < sizeof(g->text));
    if (n_ids)
        memcpy(g->ids + g->n_ids, ids, n_ids * sizeof(*ids));
    g->n_ids += n_ids;
    memcpy(g->text + g->len, text, len);
    g->len += len;
    return 0;
}

static int on_one(void *arg, const char *text, size_t len, const uint32_t *ids, size_t n_ids)
{
    return on_text(arg, 0, text, len, ids, n_ids);
}

static void on_resumed(void *arg, uint64_t first)
{
    struct got *g = arg;

    g->first = first;
    g->n_resumed++;
}

static struct gist_sampling greedy(uint32_t n)
{
    return (struct gist_sampling){ .size = sizeof(struct gist_sampling),
                                   .max_tokens = n,
                                   .ignore_eog = 1 };
}

static const char prompt[] = "The quick brown fox jumps over the lazy dog, and then";

static gist_session *open_with(gist_conn *c, const struct gist_policy *policy)
{
    gist_session *s;

    assert_int_equal(gist_open(c, policy, &s), 0);
    assert_int_equal(gist_append_text(s, prompt, strlen(prompt), 0, NULL), 0);
    return s;
}

/* What one gets who stays. */
static void answer_alone(uint32_t n, struct got *ret)
{
    gist_conn *c = daemon_fixture_connect(&d);
    gist_session *s = open_with(c, NULL);
    struct gist_sampling p = greedy(n);

    memset(ret, 0, sizeof(*ret));
    assert_int_equal(gist_generate(s, &p, on_one, ret, NULL), 0);
    assert_int_equal(ret->n_ids, n);
    gist_disconnect(c);
}

static void same(const struct got *a, const struct got *b)
{
    assert_int_equal(a->n_ids, b->n_ids);
    assert_memory_equal(a->ids, b->ids, a->n_ids * sizeof(a->ids[0]));
    assert_int_equal(a->len, b->len);
    assert_memory_equal(a->text, b->text, a->len);
}

/* --- one who is killed in it ------------------------------------------------------------------ */

/* What he has done with, he says on a pipe: a piece of text when his callback returns from it. In
 * the one behind `stays` tokens he waits to be killed. */
struct victim {
    pid_t pid;
    int out; /* our end */
    unsigned char token[GIST_TOKEN_BYTES];
};

struct piece {
    size_t len, n_ids;
    char text[256];
    uint32_t ids[64];
};

struct reader {
    int out;
    size_t n_ids, stays;
};

static int on_piece(void *arg, uint32_t answer, const char *text, size_t len, const uint32_t *ids,
                    size_t n_ids)
{
    struct reader *r = arg;
    struct piece p = { .len = len, .n_ids = n_ids };

    (void)answer;
    if (len > sizeof(p.text) || n_ids > 64)
        _exit(3);
    if (r->n_ids >= r->stays) {
        p.n_ids = SIZE_MAX; /* here */
        (void)!write(r->out, &p, sizeof(p));
        for (;;)
            (void)pause();
    }
    memcpy(p.text, text, len);
    if (n_ids)
        memcpy(p.ids, ids, n_ids * sizeof(*ids));
    r->n_ids += n_ids;
    return write(r->out, &p, sizeof(p)) != (ssize_t)sizeof(p);
}

static int on_first_piece(void *arg, const char *text, size_t len, const uint32_t *ids,
                          size_t n_ids)
{
    return on_piece(arg, 0, text, len, ids, n_ids);
}

static void be_first(gist_conn *c, struct reader *r, const struct gist_sampling *p,
                     const struct gist_policy *policy, bool has_logprobs)
{
    struct gist_kept kept = { .size = sizeof(kept) };
    struct gist_sampling how = *p;
    gist_session *s = open_with(c, policy);

    if (has_logprobs)
        how.logprobs = 20;
    if (gist_keep(s, 0, &kept) < 0 ||
        write(r->out, kept.token, sizeof(kept.token)) != sizeof(kept.token))
        _exit(4);
    (void)gist_generate(s, &how, on_first_piece, r, NULL);
}

static void be_next(gist_conn *c, struct reader *r, const unsigned char *token)
{
    gist_session *s;

    if (gist_attach(c, token, NULL, &s, NULL) < 0)
        _exit(5);
    (void)gist_resume(s, NULL, on_piece, r, NULL);
}

/* token NULL: he opens the session and asks; else he comes back to it. */
static struct victim begin(const unsigned char *token, size_t stays, const struct gist_sampling *p,
                           const struct gist_policy *policy, bool has_logprobs)
{
    struct victim v;
    int fds[2];

    assert_int_equal(pipe(fds), 0);
    v.pid = fork();
    assert_true(v.pid >= 0);
    if (v.pid == 0) {
        struct reader r = { .out = fds[1], .stays = stays };
        gist_conn *c = daemon_fixture_connect(&d);

        if (token)
            be_next(c, &r, token);
        else
            be_first(c, &r, p, policy, has_logprobs);
        _exit(6); /* he was not to come so far */
    }
    (void)close(fds[1]);
    v.out = fds[0];
    if (token)
        memcpy(v.token, token, sizeof(v.token));
    else
        assert_int_equal(read(v.out, v.token, sizeof(v.token)), sizeof(v.token));
    return v;
}

/* Waits until he has what he may have, kills him, and adds that. */
static void kill_in_it(struct victim *v, struct got *g)
{
    struct piece p;
    int status;

    for (;;) {
        assert_int_equal(read(v->out, &p, sizeof(p)), sizeof(p));
        if (p.n_ids == SIZE_MAX)
            break;
        (void)on_text(g, 0, p.text, p.len, p.ids, p.n_ids);
    }
    assert_int_equal(kill(v->pid, SIGKILL), 0);
    assert_int_equal(waitpid(v->pid, &status, 0), v->pid);
    assert_true(WIFSIGNALED(status));
    (void)close(v->out);
}

/* The rest, by somebody who stays. */
static void go_on(const unsigned char *token, struct got *g, struct gist_attached *ret)
{
    const struct gist_resume how = { .size = sizeof(how), .on_resumed = on_resumed };
    gist_conn *c = daemon_fixture_connect(&d);
    struct gist_result result;
    gist_session *s;

    *ret = (struct gist_attached){ .size = sizeof(*ret) };
    if (gist_attach(c, token, NULL, &s, ret) < 0)
        fail_msg("%s", gist_error(c));
    assert_int_equal(ret->answers, 1);
    if (gist_resume(s, &how, on_text, g, &result) < 0)
        fail_msg("%s", gist_error(c));
    assert_int_equal(result.reason, GIST_LENGTH);
    assert_int_equal(result.usage.generated_tokens, g->n_ids);
    assert_int_equal(g->n_resumed, 1);
    gist_close(s);
    assert_true(daemon_fixture_all_free(c, DAEMON_FIXTURE_PATIENCE_MS));
    gist_disconnect(c);
}

/* Twice, and then by one who stays to the end: nothing is missing, and nothing comes twice. */
static void killed_twice(void **state)
{
    static struct got alone, got;
    const struct gist_sampling p = greedy(600);
    struct gist_attached at;
    struct victim first, next;

    (void)state;
    start(NULL);
    answer_alone(600, &alone);
    memset(&got, 0, sizeof(got));
    first = begin(NULL, 100, &p, NULL, false);
    kill_in_it(&first, &got);
    assert_true(got.n_ids >= 100 && got.n_ids < 600);
    next = begin(first.token, 50, NULL, NULL, false);
    kill_in_it(&next, &got);
    assert_true(got.n_ids >= 150 && got.n_ids < 600);
    go_on(next.token, &got, &at);
    same(&got, &alone);
    assert_int_equal(at.unread, got.first);
    daemon_fixture_stop(&d);
}

/* Each token with the likeliest beside it takes a frame of some 300 bytes: what nobody reads is
 * full long before the answer ends. It waits, takes no more, and comes to its end when somebody
 * reads. */
static void waits_for_a_reader(void **state)
{
    static const char *const args[] = { "--detach-bytes", "72K", NULL };
    static struct got alone, got;
    const struct gist_sampling p = greedy(900);
    struct gist_stats st;
    struct gist_attached at;
    struct victim v;
    uint32_t before = 0, now;
    gist_conn *c;

    (void)state;
    start(args);
    answer_alone(900, &alone);
    memset(&got, 0, sizeof(got));
    v = begin(NULL, 10, &p, NULL, true);
    kill_in_it(&v, &got);
    c = daemon_fixture_connect(&d);
    for (;;) { /* until it has come to a stand */
        for (int i = 0; i < 50; i++)
            assert_int_equal(gist_ping(c), 0);
        (void)usleep(20000);
        assert_int_equal(gist_stats(c, &st), 0);
        assert_int_equal(st.n_sessions, 1);
        now = st.sessions[0].generated_tokens;
        assert_int_equal(st.sessions[0].busy, 1); /* it does not end */
        if (st.sessions[0].left_s > 0 && now == before && now > 100)
            break;
        before = now;
    }
    assert_true(now < 900);
    assert_int_equal(st.sessions[0].client, 0);
    assert_int_equal(st.sessions[0].kept_s, 600);
    gist_disconnect(c);
    go_on(v.token, &got, &at);
    same(&got, &alone);
    daemon_fixture_stop(&d);
}

/* From a place that he names: all, the middle, what is not there yet; and when it has ended. */
static void from_a_place(void **state)
{
    static struct got alone, got;
    struct gist_kept kept = { .size = sizeof(kept) };
    struct gist_resume how = { .size = sizeof(how),
                               .flags = GIST_SET_FROM,
                               .on_resumed = on_resumed };
    const struct gist_sampling p = greedy(200);
    struct gist_attached at = { .size = sizeof(at) };
    struct gist_result result;
    gist_session *s;
    gist_conn *c;

    (void)state;
    start(NULL);
    answer_alone(200, &alone);
    c = daemon_fixture_connect(&d);
    s = open_with(c, NULL);
    assert_int_equal(gist_resume(s, &how, on_text, &got, NULL), -EINVAL);
    assert_non_null(strstr(gist_error(c), "is not kept"));
    assert_int_equal(gist_keep(s, 60, &kept), 0);
    assert_int_equal(kept.seconds, 60);
    assert_int_equal(kept.bytes, 256 << 10);
    assert_int_equal(gist_resume(s, &how, on_text, &got, NULL), -ENOENT);
    assert_int_equal(gist_generate(s, &p, on_one, &got, NULL), 0);
    same(&got, &alone);
    gist_disconnect(c);
    c = daemon_fixture_connect(&d);
    assert_int_equal(gist_attach(c, kept.token, NULL, &s, &at), 0);
    assert_int_equal(at.written, 200);
    assert_int_equal(at.unread, 200);
    assert_int_equal(at.first, 0);
    assert_int_equal(at.seconds, 60);
    for (uint32_t from = 0; from <= 200; from += 50) {
        memset(&got, 0, sizeof(got));
        how.from = from;
        assert_int_equal(gist_resume(s, &how, on_text, &got, &result), 0);
        assert_true(got.first <= from);
        assert_int_equal(got.n_ids, 200 - got.first);
        assert_memory_equal(got.ids, alone.ids + got.first, got.n_ids * sizeof(got.ids[0]));
        assert_int_equal(result.reason, GIST_LENGTH);
        assert_int_equal(result.usage.generated_tokens, 200);
    }
    how.from = 201;
    assert_int_equal(gist_resume(s, &how, on_text, &got, NULL), -EINVAL);
    assert_non_null(strstr(gist_error(c), "behind 201 tokens: it has 200"));
    gist_disconnect(c);
    daemon_fixture_stop(&d);
}

/* The session is what it was: the next answer is the one that would have come. */
static void goes_on_as_it_was(void **state)
{
    static struct got alone, got;
    struct gist_kept kept = { .size = sizeof(kept) };
    const struct gist_sampling p = greedy(60);
    gist_session *s, *copy;
    gist_conn *c, *other;

    (void)state;
    start(NULL);
    c = daemon_fixture_connect(&d);
    s = open_with(c, NULL);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(gist_generate(s, &p, on_one, &alone, NULL), 0);
        assert_int_equal(gist_append_text(s, " And?", 5, 0, NULL), 0);
    }
    gist_close(s);
    s = open_with(c, NULL);
    assert_int_equal(gist_keep(s, 0, &kept), 0);
    assert_int_equal(gist_generate(s, &p, on_one, &got, NULL), 0);
    gist_disconnect(c);
    c = daemon_fixture_connect(&d);
    assert_int_equal(gist_attach(c, kept.token, NULL, &s, NULL), 0);
    assert_int_equal(gist_append_text(s, " And?", 5, 0, NULL), 0);
    assert_int_equal(gist_fork(s, "copy", &copy), 0); /* which is not kept */
    assert_int_equal(gist_generate(s, &p, on_one, &got, NULL), 0);
    same(&got, &alone);
    got.n_ids -= 60;
    got.len = 0;
    assert_int_equal(gist_generate(copy, &p, on_one, &got, NULL), 0);
    assert_memory_equal(got.ids, alone.ids, 120 * sizeof(alone.ids[0]));
    /* Another connection takes it: this one has it no more, and the copy it has. */
    other = daemon_fixture_connect(&d);
    assert_int_equal(gist_attach(other, kept.token, NULL, &s, NULL), 0);
    gist_close(s);
    assert_int_equal(gist_ping(other), 0);
    gist_close(copy);
    assert_true(daemon_fixture_all_free(other, DAEMON_FIXTURE_PATIENCE_MS));
    gist_disconnect(c);
    gist_disconnect(other);
    daemon_fixture_stop(&d);
}

struct ended {
    struct got got;
    bool ended;
    int err;
};

static int on_ended_text(void *arg, const char *text, size_t len, const uint32_t *ids, size_t n)
{
    struct ended *e = arg;

    return on_text(&e->got, 0, text, len, ids, n);
}

static void on_end(void *arg, int err, const struct gist_result *result)
{
    struct ended *e = arg;

    (void)result;
    e->ended = true;
    e->err = err;
}

/* Who closes it and disconnects at once has closed it. */
static void closed_at_once(void **state)
{
    struct gist_kept kept = { .size = sizeof(kept) };
    gist_conn *c, *other;
    struct gist_stats st;
    gist_session *s;

    (void)state;
    start(NULL);
    other = daemon_fixture_connect(&d);
    for (int i = 0; i < 50; i++) {
        c = daemon_fixture_connect(&d);
        assert_int_equal(gist_open(c, NULL, &s), 0);
        assert_int_equal(gist_keep(s, 0, &kept), 0);
        gist_close(s);
        gist_disconnect(c);
        do
            assert_int_equal(gist_stats(other, &st), 0);
        while (st.n_clients > 1);
        assert_int_equal(st.n_sessions, 0);
        assert_int_equal(gist_attach(other, kept.token, NULL, &s, NULL), -ENOENT);
    }
    gist_disconnect(other);
    daemon_fixture_stop(&d);
}

/* In the middle of an answer another connection takes the session: the first one hears that, and
 * the two have all of the answer between them. */
static void taken_over(void **state)
{
    static struct got alone;
    static struct ended first;
    struct gist_kept kept = { .size = sizeof(kept) };
    const struct gist_sampling p = greedy(900);
    gist_session *s, *theirs;
    gist_conn *c, *other;

    (void)state;
    start(NULL);
    answer_alone(900, &alone);
    c = daemon_fixture_connect(&d);
    s = open_with(c, NULL);
    assert_int_equal(gist_keep(s, 0, &kept), 0);
    assert_int_equal(gist_generate_start(s, &p, on_ended_text, on_end, &first, NULL), 0);
    while (first.got.n_ids < 20)
        assert_true(gist_dispatch(c) >= 0);
    other = daemon_fixture_connect(&d);
    assert_int_equal(gist_attach(other, kept.token, NULL, &theirs, NULL), 0);
    assert_int_equal(gist_session_id(theirs), gist_session_id(s));
    while (!first.ended)
        assert_true(gist_dispatch(c) >= 0);
    if (first.err != -ECANCELED) /* it had all of it: then there is nothing to take */
        assert_int_equal(first.err, 0);
    else
        assert_non_null(strstr(gist_error(c), "is another connection's now"));
    assert_int_equal(gist_append_text(s, "x", 1, 0, NULL), -ENOENT);
    assert_int_equal(
        gist_resume(theirs, &(struct gist_resume){ .size = sizeof(struct gist_resume), .from = 20 },
                    on_text, &first.got, NULL),
        0);
    assert_int_equal(first.got.ids[first.got.n_ids - 1], alone.ids[899]);
    gist_disconnect(c);
    gist_disconnect(other);
    daemon_fixture_stop(&d);
}

/* Another connection takes it while text is sent to it, a long one piece by piece: that is given up
 * or has ended, the session is whole, and who had it has nothing of it. */
static void taken_while_it_reads(void **state)
{
    static char text[200000];
    struct gist_kept kept = { .size = sizeof(kept) };
    static struct ended e;
    gist_conn *c, *other;
    gist_session *s, *theirs;
    struct gist_attached at = { .size = sizeof(at) };

    (void)state;
    start(NULL);
    memset(text, 'x', sizeof(text));
    other = daemon_fixture_connect(&d);
    for (size_t i = 0; i < 40; i++) {
        e = (struct ended){ .err = 0 };
        c = daemon_fixture_connect(&d);
        s = open_with(c, NULL);
        assert_int_equal(gist_keep(s, 0, &kept), 0);
        assert_int_equal(
            gist_append_text_start(s, text, i % 2 ? sizeof(text) : 400, 0, on_end, &e, NULL), 0);
        if (i % 4 > 1)
            (void)gist_dispatch(c);
        assert_int_equal(gist_attach(other, kept.token, NULL, &theirs, &at), 0);
        if (i % 3)
            gist_disconnect(c);
        assert_int_equal(gist_append_text(theirs, prompt, strlen(prompt), 0, NULL), 0);
        if (i % 3 == 0)
            gist_disconnect(c);
        gist_close(theirs);
    }
    assert_true(daemon_fixture_all_free(other, DAEMON_FIXTURE_PATIENCE_MS));
    gist_disconnect(other);
    daemon_fixture_stop(&d);
}

/* --- one loop --------------------------------------------------------------------------------- */

struct loop {
    struct got got;
    struct gist_kept kept;
    struct gist_attached attached;
    gist_session *s;
    struct gist_result result;
    int err;
    bool ended;
};

static void on_kept(void *arg, int err, const struct gist_kept *kept)
{
    struct loop *l = arg;

    l->err = err;
    if (kept)
        l->kept = *kept;
    l->ended = true;
}

static void on_attached(void *arg, int err, gist_session *s, const struct gist_attached *attached)
{
    struct loop *l = arg;

    l->err = err;
    l->s = s;
    if (attached)
        l->attached = *attached;
    l->ended = true;
}

static void on_loop_resumed(void *arg, uint64_t first)
{
    struct loop *l = arg;

    on_resumed(&l->got, first);
}

static int on_loop_text(void *arg, uint32_t answer, const char *text, size_t len,
                        const uint32_t *ids, size_t n_ids)
{
    struct loop *l = arg;

    return answer == 1 ? on_text(&l->got, answer, text, len, ids, n_ids) : 0;
}

static void on_loop_end(void *arg, int err, const struct gist_result *result)
{
    struct loop *l = arg;

    l->err = err;
    if (result)
        l->result = *result;
    l->ended = true;
}

static int turn(gist_conn *c, struct loop *l)
{
    while (!l->ended)
        assert_true(gist_dispatch(c) >= 0);
    l->ended = false;
    return l->err;
}

/* Without a call that waits, and several answers at once: each comes back as itself. */
static void in_a_loop(void **state)
{
    static struct got alone;
    static struct loop l;
    const struct gist_resume how = { .size = sizeof(how),
                                     .flags = GIST_SET_FROM,
                                     .on_resumed = on_loop_resumed };
    const struct gist_sampling p = greedy(100);
    gist_session *s;
    gist_conn *c;

    (void)state;
    start(NULL);
    answer_alone(100, &alone);
    c = daemon_fixture_connect(&d);
    s = open_with(c, NULL);
    assert_int_equal(gist_keep_start(s, 0, NULL, &l, NULL), -EINVAL);
    assert_int_equal(gist_keep_start(s, 100000, on_kept, &l, NULL), 0);
    assert_int_equal(turn(c, &l), 0);
    assert_int_equal(l.kept.seconds, 600); /* what the daemon allows */
    assert_int_equal(gist_generate_several_start(s, &p, 3, NULL, NULL, on_loop_end, &l, NULL), 0);
    while (gist_ping(c) == 0) { /* until the daemon has begun */
        struct gist_stats st;

        assert_int_equal(gist_stats(c, &st), 0);
        if (l.ended || st.generated_tokens_total > 110)
            break;
    }
    gist_disconnect(c); /* which ends the request */
    l = (struct loop){ .kept = l.kept };
    c = daemon_fixture_connect(&d);
    assert_int_equal(gist_attach_start(c, l.kept.token, NULL, on_attached, &l, NULL), 0);
    assert_int_equal(turn(c, &l), 0);
    assert_int_equal(l.attached.answers, 3);
    assert_int_equal(l.attached.first, 0);
    assert_int_equal(gist_resume_start(l.s, &how, on_loop_text, on_loop_end, &l, NULL), 0);
    assert_int_equal(turn(c, &l), 0);
    assert_int_equal(l.got.n_resumed, 1);
    assert_int_equal(l.result.usage.generated_tokens, 300);
    same(&l.got, &alone);
    gist_disconnect(c);
    daemon_fixture_stop(&d);
}

/* Who has it and does not read holds up nobody but himself; what he is sent then is how it ended.
 */
static void cancelled_by_another(void **state)
{
    static const char *const args[] = { "--detach-bytes", "72K", NULL };
    struct gist_sampling p = greedy(100);
    struct gist_kept kept = { .size = sizeof(kept) };
    static struct loop l;
    struct gist_stats st;
    gist_conn *c, *other;
    gist_session *s;

    (void)state;
    p.logprobs = 20;
    start(args);
    c = daemon_fixture_connect(&d);
    other = daemon_fixture_connect(&d);
    s = open_with(c, NULL);
    assert_int_equal(gist_keep(s, 0, &kept), 0);
    assert_int_equal(gist_generate_several_start(s, &p, 8, NULL, NULL, on_loop_end, &l, NULL), 0);
    do
        assert_int_equal(gist_stats(other, &st), 0);
    while (!st.sessions[0].busy);
    /* It can't have ended: nobody reads, and 800 tokens have no room. */
    assert_int_equal(gist_cancel_session(other, gist_session_id(s)), 0);
    assert_int_equal(turn(c, &l), -ECANCELED);
    assert_true(l.result.usage.generated_tokens < 800);
    assert_int_equal(gist_append_text(s, "x", 1, 0, NULL), 0);
    gist_disconnect(other);
    gist_disconnect(c);
    daemon_fixture_stop(&d);
}

/* --- tokens ----------------------------------------------------------------------------------- */

static const char unknown[] = "no session is kept for this token";

/* Whatever is wrong, it is one and the same. */
static void refused(gist_conn *c, const unsigned char *token, const char *realm)
{
    static char first[512];
    gist_session *s;

    assert_int_equal(gist_attach(c, token, realm, &s, NULL), -ENOENT);
    assert_non_null(strstr(gist_error(c), unknown));
    if (!first[0])
        (void)snprintf(first, sizeof(first), "%s", gist_error(c));
    assert_string_equal(gist_error(c), first);
}

static void wrong_tokens(void **state)
{
    const struct gist_policy policy = { .size = sizeof(policy),
                                        .flags = GIST_PRIVATE,
                                        .realm = "mine" };
    struct gist_kept kept = { .size = sizeof(kept) }, again = { .size = sizeof(again) };
    unsigned char token[GIST_TOKEN_BYTES];
    gist_session *s;
    gist_conn *c;

    (void)state;
    start(NULL);
    c = daemon_fixture_connect(&d);
    s = open_with(c, &policy);
    assert_int_equal(gist_keep(s, 0, &kept), 0);
    for (size_t i = 0; i < sizeof(token); i++) {
        memcpy(token, kept.token, sizeof(token));
        token[i] ^= 1u << (i % 8);
        refused(c, token, "mine");
    }
    refused(c, kept.token, NULL);
    refused(c, kept.token, "mine ");
    refused(c, kept.token, "min");
    assert_int_equal(gist_keep(s, 0, &again), 0); /* another token, and only that */
    assert_memory_not_equal(again.token, kept.token, sizeof(kept.token));
    refused(c, kept.token, "mine");
    gist_disconnect(c);
    c = daemon_fixture_connect(&d);
    refused(c, kept.token, "mine");
    assert_int_equal(gist_attach(c, again.token, "mine", &s, NULL), 0);
    gist_close(s);
    assert_int_equal(gist_ping(c), 0);
    refused(c, again.token, "mine");
    gist_disconnect(c);
    daemon_fixture_stop(&d);
}

/* When its time is over, or when it is cancelled, with an answer under way: nothing of it is left.
 */
static void over(bool cancelled)
{
    const struct gist_sampling p = greedy(900);
    struct gist_stats st;
    struct victim v;
    struct got *g = calloc(1, sizeof(*g));
    gist_conn *c;

    v = begin(NULL, 10, &p, NULL, true);
    kill_in_it(&v, g);
    c = daemon_fixture_connect(&d);
    do
        assert_int_equal(gist_stats(c, &st), 0);
    while (st.n_sessions > 0 && st.sessions[0].left_s == 0);
    if (st.n_sessions > 0)
        assert_true(st.sessions[0].left_s <= st.sessions[0].kept_s);
    if (cancelled) {
        assert_int_equal(st.n_sessions, 1); /* of the other one two seconds may have passed */
        assert_int_equal(gist_cancel_session(c, st.sessions[0].id), 0);
    }
    assert_true(daemon_fixture_all_free(c, DAEMON_FIXTURE_PATIENCE_MS));
    refused(c, v.token, NULL);
    assert_int_equal(gist_stats(c, &st), 0);
    assert_int_equal(st.n_sessions, 0);
    assert_int_equal(st.owners[0].text_bytes, 0);
    gist_disconnect(c);
    free(g);
}

static void time_is_over(void **state)
{
    static const char *const args[] = { "--detach-seconds", "2", "--detach-bytes", "72K", NULL };

    (void)state;
    start(args);
    over(false);
    daemon_fixture_stop(&d);
}

static void is_cancelled(void **state)
{
    (void)state;
    start(NULL);
    over(true);
    daemon_fixture_stop(&d);
}

/* The daemon ends with sessions that nobody has, one of them in the middle of an answer; the next
 * one knows nothing of them. */
static void daemon_ends(void **state)
{
    const struct gist_sampling p = greedy(900);
    struct gist_kept kept = { .size = sizeof(kept) };
    struct victim v;
    struct got *g = calloc(1, sizeof(*g));
    gist_conn *c;

    (void)state;
    start(NULL);
    c = daemon_fixture_connect(&d);
    assert_int_equal(gist_keep(open_with(c, NULL), 0, &kept), 0);
    gist_disconnect(c);
    v = begin(NULL, 10, &p, NULL, true);
    kill_in_it(&v, g);
    daemon_fixture_stop(&d);
    start(NULL);
    c = daemon_fixture_connect(&d);
    refused(c, v.token, NULL);
    refused(c, kept.token, NULL);
    gist_disconnect(c);
    daemon_fixture_stop(&d);
    free(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(killed_twice),         cmocka_unit_test(waits_for_a_reader),
        cmocka_unit_test(from_a_place),         cmocka_unit_test(goes_on_as_it_was),
        cmocka_unit_test(closed_at_once),       cmocka_unit_test(taken_over),
        cmocka_unit_test(taken_while_it_reads), cmocka_unit_test(in_a_loop),
        cmocka_unit_test(cancelled_by_another), cmocka_unit_test(wrong_tokens),
        cmocka_unit_test(time_is_over),         cmocka_unit_test(is_cancelled),
        cmocka_unit_test(daemon_ends),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
