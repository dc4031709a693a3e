/* tests/test_waking.c - requests that wait for a model that was given back (--idle), in a scheduler
 * in this process. Would catch: a deadline that passes while the model loads and is told only when
 * it is there; a request that is told twice.
 */

#include "base/clock.h"
#include "daemon/sched.h"
#include "tests/support/alone.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static struct alone a;
static struct chan *chan;
static struct wire_rep rep;

/* The model comes back when the deadline is over, and not before. */
int __real_served_wake(struct served *b, const struct config *c, struct keep *keep,
                       const struct model_progress *progress, struct why *why);
int __wrap_served_wake(struct served *b, const struct config *c, struct keep *keep,
                       const struct model_progress *progress, struct why *why);

int __wrap_served_wake(struct served *b, const struct config *c, struct keep *keep,
                       const struct model_progress *progress, struct why *why)
{
    while (a.sched->deadline_ns > 0 && clock_ns() < a.sched->deadline_ns)
        clock_pause();
    return __real_served_wake(b, c, keep, progress, why);
}

static uint64_t open_session(uint64_t id)
{
    struct wire_req m = { .id = id, .kind = WIRE_OPEN_SESSION, .u.open_session.label = "" };

    assert_int_equal(alone_ask(&a, chan, &m, NULL, &rep), WIRE_SESSION_OPENED);
    return rep.u.session_opened.session;
}

static void start_append(uint64_t id, uint64_t session, uint32_t deadline_ms)
{
    static const char text[] = "What is a ring buffer?";
    struct wire_req m = { .id = id, .kind = WIRE_APPEND, .bulk_len = sizeof(text) - 1 };

    m.deadline_ms = deadline_ms;
    m.u.append.session = session;
    alone_send(&a, chan, &m, text);
}

static void a_deadline_is_told_while_the_model_loads(void **state)
{
    struct wire_req hello = { .id = 1, .kind = WIRE_HELLO };
    uint64_t late, patient;
    bool told = false;

    (void)state;
    alone_open(&a, "none", 1);
    a.config.idle = 1000;
    alone_begin(&a);
    chan = alone_adopt(&a, 1, NULL);
    hello.u.hello.client = "by hand";
    hello.u.hello.hears_loading = true;
    assert_int_equal(alone_ask(&a, chan, &hello, NULL, &rep), WIRE_WELCOME);
    late = open_session(2);
    patient = open_session(3);
    while (!a.sched->idle.down) {
        a.sched->idle.pressed = true;
        assert_true(sched_turn(a.sched));
    }
    start_append(4, late, 50);
    start_append(5, patient, 0);
    for (;;) {
        (void)alone_reply(&a, chan, &rep);
        if (rep.kind == WIRE_LOADING) {
            assert_true(rep.u.loading.percent < 100 || told);
            continue;
        }
        if (rep.id == 5)
            break;
        assert_int_equal(rep.id, 4);
        assert_false(told);
        assert_int_equal(rep.kind, WIRE_ERROR);
        assert_int_equal(rep.u.error.code, WIRE_E_DEADLINE);
        told = true;
    }
    assert_int_equal(rep.kind, WIRE_APPENDED);
    assert_true(told);
    alone_end(&a);
    chan_close(chan);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_deadline_is_told_while_the_model_loads),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
