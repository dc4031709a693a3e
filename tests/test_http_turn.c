/* tests/test_http_turn.c - turns that their client has left. Would catch: one that goes on and ends
 * because another key leaves many, a place that the wrong one makes, and a turn that another key,
 * or a client that counts otherwise, comes back to.
 */
#include "http/turn.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define PLACES 2u

struct rig {
    struct lives lives;
    struct turns turns;
    int wake_fd;
};

static void open_rig(struct rig *r)
{
    r->wake_fd = open("/dev/null", O_WRONLY | O_CLOEXEC);
    assert_true(r->wake_fd >= 0);
    lives_init(&r->lives, NULL, PLACES, 3, 60);
    turns_init(&r->turns, &r->lives, PLACES, 60, r->wake_fd);
}

static void close_rig(struct rig *r)
{
    turns_fini(&r->turns);
    assert_int_equal(r->lives.n, 0);
    lives_fini(&r->lives);
    close(r->wake_fd);
}

static struct turn *new_turn(const char *session, uint32_t n_turns)
{
    struct turn *t = turn_new();

    assert_non_null(t);
    t->begun = t->ask.detachable = true;
    (void)snprintf(t->job.session, sizeof(t->job.session), "%s", session);
    t->job.n_turns = n_turns;
    t->job.ask = &t->ask;
    return t;
}

static void leave_ended(struct rig *r, const char *who, const char *session)
{
    struct turn *t = new_turn(session, 0);

    t->job.state = JOB_ENDED;
    turns_leave(&r->turns, t, who);
}

/* One that waits for its answer: nobody asks the daemon for that here. */
static void leave_running(struct rig *r, const char *who)
{
    static int daemon;
    struct problem p = { .kind = PROBLEM_NONE };
    struct turn *t = new_turn("", 0);

    assert_int_equal(live_take(&r->lives, who, NULL, 0, &t->job.live, &p), 0);
    (void)snprintf(t->job.session, sizeof(t->job.session), "%s", t->job.live->id);
    t->job.lives = &r->lives;
    t->job.conn = (gist_conn *)(void *)&daemon;
    t->job.state = JOB_ANSWERING;
    t->job.waiting = true;
    turns_leave(&r->turns, t, who);
}

static bool is_there(const struct rig *r, const char *session)
{
    for (const struct turn *t = r->turns.list; t; t = t->next)
        if (strcmp(t->job.session, session) == 0)
            return true;
    return false;
}

static void test_places(void **state)
{
    struct rig r;

    (void)state;
    open_rig(&r);
    leave_running(&r, "b");
    leave_ended(&r, "a", "1");
    leave_ended(&r, "a", "2");
    leave_ended(&r, "a", "3");
    assert_int_equal(r.turns.n, PLACES);
    assert_int_equal(r.lives.n, 1); /* the answer of b goes on */
    assert_true(is_there(&r, "3") && !is_there(&r, "1") && !is_there(&r, "2"));
    leave_running(&r, "c");
    assert_int_equal(r.lives.n, 2);
    leave_ended(&r, "a", "4"); /* no place: none has ended but this one */
    assert_false(is_there(&r, "4"));
    assert_int_equal(r.lives.n, 2);
    close_rig(&r);
}

/* Of what has ended each key keeps its own. */
static void test_each_their_own(void **state)
{
    struct rig r;

    (void)state;
    open_rig(&r);
    leave_ended(&r, "b", "b");
    leave_ended(&r, "a", "1");
    leave_ended(&r, "a", "2");
    assert_true(is_there(&r, "b") && is_there(&r, "2") && !is_there(&r, "1"));
    close_rig(&r);
}

static struct turn *take(struct rig *r, const char *who, const char *path)
{
    struct problem p = { .kind = PROBLEM_NONE };

    return turns_take(&r->turns, who, path, &p);
}

static void test_whose(void **state)
{
    struct turn *t;
    struct rig r;

    (void)state;
    open_rig(&r);
    leave_ended(&r, "a", "1");
    assert_null(take(&r, "b", "1/0"));
    assert_null(take(&r, "", "1/0"));
    assert_null(take(&r, "a", "1/1"));
    assert_null(take(&r, "a", "1/"));
    assert_null(take(&r, "a", "1"));
    assert_null(take(&r, "a", "/0"));
    t = take(&r, "a", "1/0");
    assert_non_null(t);
    assert_null(take(&r, "a", "1/0"));
    turn_free(t);
    close_rig(&r);
}

/* What is not there is not deleted, however often. */
static void delete_nothing(struct rig *r, const char *who, unsigned n)
{
    const struct live_ask ask = {
        .lives = &r->lives, .turns = &r->turns, .who = who, .tail = "nothing"
    };
    struct json_object *said = NULL;

    for (unsigned i = 0; i < n; i++) {
        struct problem p = { .kind = PROBLEM_NONE };

        assert_int_equal(turns_delete(&ask, &said, &p), -1);
        assert_int_equal(p.kind, PROBLEM_GONE);
    }
}

/* Deleted by a client that has all of the answer, before its exchange is over. */
static void test_deleted(void **state)
{
    struct problem p = { .kind = PROBLEM_NONE };
    struct json_object *said = NULL;
    struct live_ask ask;
    struct live *s;
    char id[LIVE_ID_LEN + 1];
    struct rig r;

    (void)state;
    open_rig(&r);
    assert_int_equal(live_take(&r.lives, "a", NULL, 0, &s, &p), 0);
    (void)snprintf(id, sizeof(id), "%s", s->id);
    assert_true(live_put(&r.lives, s, true));
    ask = (struct live_ask){ .lives = &r.lives, .turns = &r.turns, .who = "a", .tail = id };
    assert_int_equal(turns_delete(&ask, &said, &p), 0);
    json_free(said);
    delete_nothing(&r, "b", TURNS_DELETED);
    leave_ended(&r, "a", id);
    assert_false(is_there(&r, id));
    leave_ended(&r, "b", id); /* another one of that name */
    assert_true(is_there(&r, id));
    close_rig(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_places),
        cmocka_unit_test(test_each_their_own),
        cmocka_unit_test(test_whose),
        cmocka_unit_test(test_deleted),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
