/* tests/test_http_open.c - jobs whose session waits to be opened. Would catch: a deadline that does
 * not count there, a client that leaves or a program that ends and is not heard of until the
 * session is open, a daemon that went away under an idle connection, and one that is stopped
 * meanwhile.
 */
#include "http/job.h"
#include "http/read.h"
#include "http/say.h"
#include "tests/support/fake_daemon.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#define BODY                                                                                       \
    "{\"messages\": [{\"role\": \"user\", \"content\": \"Why?\"}], \"max_tokens\": 2, \"gistd\": " \
    "{\"deadline\": 3600}}"

struct turn {
    struct pool pool;
    struct tokens tokens;
    struct lives lives;
    struct ask ask;
    struct job job;
};

static void begin(struct turn *t, const char *path, read_fn *read, const struct voice *voice)
{
    struct problem p = { .kind = PROBLEM_NONE };

    *t = (struct turn){ .pool = { .max = 0 } };
    pool_init(&t->pool, path, 1);
    tokens_init(&t->tokens);
    lives_init(&t->lives, &t->pool, 1, 1, 60);
    ask_init(&t->ask);
    if (field_parse(BODY, strlen(BODY), &t->ask.root, &p) < 0 || read(&t->ask, &p) < 0)
        fail_msg("%s", p.text);
    t->job = (struct job){ .ask = &t->ask,
                           .voice = voice,
                           .pool = &t->pool,
                           .tokens = &t->tokens,
                           .client_fd = -1,
                           .stop_fd = -1,
                           .label = "test" };
    assert_int_equal(job_init(&t->job), 0);
}

static void end(struct turn *t)
{
    job_fini(&t->job);
    ask_fini(&t->ask);
    lives_fini(&t->lives);
    assert_int_equal(t->pool.n_out, 0);
    pool_fini(&t->pool);
    tokens_fini(&t->tokens);
}

static void open_session(struct fake_daemon *d)
{
    fake_last(d, (struct wire_rep){ .kind = WIRE_SESSION_OPENED,
                                    .u.session_opened = { .session = 77, .context_max = 512 } });
}

static void answer(struct fake_daemon *d)
{
    fake_expect(d, WIRE_OPEN_SESSION);
    open_session(d);
    fake_expect(d, WIRE_APPEND);
    fake_last(
        d, (struct wire_rep){ .kind = WIRE_APPENDED, .u.appended = { 5, { .prompt_tokens = 5 } } });
    fake_expect(d, WIRE_GENERATE);
    fake_done(d, d->req.id, WIRE_REASON_LENGTH);
    fake_expect(d, WIRE_CLOSE_SESSION);
    fake_last(d, (struct wire_rep){ .kind = WIRE_SESSION_CLOSED });
}

/* --- the deadline ----------------------------------------------------------------------------- */

static void script_late(struct fake_daemon *d, void *arg)
{
    (void)arg;
    fake_expect(d, WIRE_OPEN_SESSION);
    FAKE_CHECK(d->req.deadline_ms > 0 && d->req.deadline_ms <= 3600u * 1000);
    fake_error(d, WIRE_E_DEADLINE, "late");
    FAKE_CHECK(!fake_take(d));
}

static void test_deadline(void **state)
{
    struct fake_daemon daemon;
    struct turn t;

    (void)state;
    fake_start(&daemon, script_late, NULL);
    begin(&t, daemon.path, read_chat_completions, &say_chat);
    assert_int_equal(job_wait(&t.job, -1), JOB_FAILED);
    assert_int_equal(problem_status(&t.job.problem), 504);
    end(&t);
    assert_int_equal(fake_stop(&daemon), 0);
}

/* --- who leaves ------------------------------------------------------------------------------- */

static void script_waits(struct fake_daemon *d, void *arg)
{
    (void)arg;
    fake_expect(d, WIRE_OPEN_SESSION);
    FAKE_CHECK(!fake_take(d)); /* the connection is dropped, and nothing else asked for */
}

static void test_client_gone(void **state)
{
    struct fake_daemon daemon;
    struct turn t;
    int fds[2];

    (void)state;
    fake_start(&daemon, script_waits, NULL);
    begin(&t, daemon.path, read_chat_completions, &say_chat);
    assert_int_equal(job_wait(&t.job, 0), JOB_QUIET); /* it has asked, and waits */
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    t.job.client_fd = fds[0];
    close(fds[1]);
    assert_int_equal(job_wait(&t.job, -1), JOB_GONE);
    end(&t);
    close(fds[0]);
    assert_int_equal(fake_stop(&daemon), 0);
}

static void test_stopping(void **state)
{
    struct fake_daemon daemon;
    struct turn t;
    int fds[2];

    (void)state;
    fake_start(&daemon, script_waits, NULL);
    begin(&t, daemon.path, read_chat_completions, &say_chat);
    assert_int_equal(job_wait(&t.job, 0), JOB_QUIET);
    assert_int_equal(pipe(fds), 0);
    t.job.stop_fd = fds[0];
    assert_int_equal(write(fds[1], "x", 1), 1);
    assert_int_equal(job_wait(&t.job, -1), JOB_FAILED);
    assert_int_equal(problem_status(&t.job.problem), 503);
    end(&t);
    close(fds[0]);
    close(fds[1]);
    assert_int_equal(fake_stop(&daemon), 0);
}

/* --- a daemon that went away ------------------------------------------------------------------ */

static void script_dies(struct fake_daemon *d, void *arg)
{
    (void)arg;
    answer(d);
    fake_expect(d, WIRE_OPEN_SESSION);
}

static void script_again(struct fake_daemon *d, void *arg)
{
    (void)arg;
    answer(d);
    FAKE_CHECK(!fake_take(d));
}

/* Under the connection of the last answer: another one is made. One that is new and dies is not
 * tried again. */
static void test_renewed(void **state)
{
    struct fake_daemon one, two;
    struct ask ask;
    struct turn t;

    (void)state;
    fake_start(&one, script_dies, NULL);
    fake_start(&two, script_again, NULL);
    begin(&t, one.path, read_chat_completions, &say_chat);
    assert_int_equal(job_wait(&t.job, -1), JOB_DONE);
    ask = t.ask;
    job_fini(&t.job);
    t.pool.path = two.path;
    t.job = (struct job){ .ask = &t.ask,
                          .voice = &say_chat,
                          .pool = &t.pool,
                          .tokens = &t.tokens,
                          .client_fd = -1,
                          .stop_fd = -1 };
    assert_int_equal(job_init(&t.job), 0);
    assert_int_equal(job_wait(&t.job, -1), JOB_DONE);
    assert_int_equal(t.job.choices[0].reason, GIST_LENGTH);
    assert_ptr_equal(ask.root, t.ask.root);
    end(&t);
    assert_int_equal(fake_stop(&one), 0);
    assert_int_equal(fake_stop(&two), 0);
}

static void script_dies_at_once(struct fake_daemon *d, void *arg)
{
    (void)arg;
    fake_expect(d, WIRE_OPEN_SESSION);
}

static void test_not_renewed(void **state)
{
    struct fake_daemon daemon;
    struct turn t;

    (void)state;
    fake_start(&daemon, script_dies_at_once, NULL);
    begin(&t, daemon.path, read_chat_completions, &say_chat);
    assert_int_equal(job_wait(&t.job, -1), JOB_FAILED);
    assert_int_equal(problem_status(&t.job.problem), 503);
    end(&t);
    assert_int_equal(fake_stop(&daemon), 0);
}

/* --- a live one that is stopped --------------------------------------------------------------- */

static void script_cancelled(struct fake_daemon *d, void *arg)
{
    uint64_t id;

    fake_expect(d, WIRE_OPEN_SESSION);
    id = d->req.id;
    fake_expect(d, WIRE_CANCEL);
    if (*(const bool *)arg) { /* too late */
        fake_reply(d,
                   (struct wire_rep){ .id = id,
                                      .last = true,
                                      .kind = WIRE_SESSION_OPENED,
                                      .u.session_opened = { .session = 77, .context_max = 512 } },
                   NULL, 0);
    } else {
        fake_reply(d,
                   (struct wire_rep){ .id = id,
                                      .last = true,
                                      .kind = WIRE_ERROR,
                                      .u.error = { .code = WIRE_E_CANCELLED, .text = "so" } },
                   NULL, 0);
    }
    fake_last(d, (struct wire_rep){ .kind = WIRE_CANCELLED, .u.cancelled.found = !*(bool *)arg });
    fake_drain(d);
}

static void stop_live(bool late)
{
    struct problem p = { .kind = PROBLEM_NONE };
    struct fake_daemon daemon;
    uint64_t one = 1;
    struct turn t;

    fake_start(&daemon, script_cancelled, &late);
    begin(&t, daemon.path, read_turn, &say_page);
    assert_int_equal(live_take(&t.lives, "", NULL, 0, &t.job.live, &p), 0);
    t.job.lives = &t.lives;
    assert_int_equal(job_wait(&t.job, 0), JOB_QUIET);
    assert_int_equal(write(t.job.live->stop_fd, &one, sizeof(one)), sizeof(one));
    while (job_wait(&t.job, -1) == JOB_OUTPUT)
        t.job.out.len = t.job.out_at = 0;
    assert_int_equal(t.job.problem.kind, PROBLEM_STOPPED);
    assert_int_equal(t.lives.n, 1); /* nothing was lost with it */
    assert_false(t.lives.list->busy);
    assert_int_equal(t.lives.list->n_turns, 0);
    end(&t);
    assert_int_equal(fake_stop(&daemon), 0);
}

static void test_stopped(void **state)
{
    (void)state;
    stop_live(false);
    stop_live(true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_deadline),    cmocka_unit_test(test_client_gone),
        cmocka_unit_test(test_stopping),    cmocka_unit_test(test_renewed),
        cmocka_unit_test(test_not_renewed), cmocka_unit_test(test_stopped),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
