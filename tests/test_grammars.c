/* tests/test_grammars.c - compiled grammars that are kept. Would catch: one that is compiled again,
 * or that is another user's, or another text's of the same digest; one that goes while it is used;
 * memory of one in use that nobody is charged for, that is charged twice, or that stays charged;
 * compiling that is done for nobody, or for one user alone; one that was given up and is counted by
 * nobody; one that another realm finds; a third user who waits for all that two others have. */
#include "base/clock.h"
#include "daemon/grammars.h"
#include "tests/support/built_vocab.h"

#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>

#include <cmocka.h>

static struct vocab *vocab;
static struct grammars all;
static struct held_account owner, client, other;
static struct why why;

static int ask(uid_t uid, struct held_account *a, const char *text, struct grammars_entry **ret)
{
    const struct grammars_ask x = { uid, a, WIRE_GRAMMAR_GBNF, text, strlen(text), NULL };

    return grammars_get(&all, &x, ret);
}

/* Until it is done: the bell says when it is worth another look. */
static int wait_for(struct grammars_entry *e, struct held_account *a)
{
    struct pollfd bell = { .fd = grammars_bell(&all), .events = POLLIN };
    eventfd_t n;
    int r;

    while ((r = grammars_ready(&all, e, a, &why)) == -EAGAIN) {
        assert_int_equal(poll(&bell, 1, 60000), 1);
        (void)eventfd_read(bell.fd, &n);
    }
    return r;
}

static int get(uid_t uid, struct held_account *a, const char *text, struct grammars_entry **ret)
{
    struct grammars_entry *e;
    int r = ask(uid, a, text, &e);

    if (r < 0)
        return r;
    r = wait_for(e, a);
    if (r < 0)
        grammars_put(&all, e);
    else
        *ret = e;
    return r;
}

static struct grammars_entry *got(uid_t uid, struct held_account *a, const char *text)
{
    struct grammars_entry *e = NULL;

    assert_int_equal(get(uid, a, text, &e), 0);
    return e;
}

static int begin(void **state)
{
    (void)state;
    grammars_init(&all);
    assert_int_equal(grammars_start(&all, vocab), 0);
    owner = (struct held_account){ .limit = 1 << 20 };
    client = other = (struct held_account){ .limit = 1 << 20, .above = &owner };
    return 0;
}

static int end(void **state)
{
    (void)state;
    grammars_fini(&all);
    return (int)(owner.used + client.used + other.used);
}

static void test_found(void **state)
{
    struct grammars_entry *a = got(1, &client, "root ::= \"a\""), *b, *c;

    (void)state;
    b = got(1, &other, "root ::= \"a\"");
    c = got(2, &client, "root ::= \"a\"");
    assert_ptr_equal(a, b);
    assert_ptr_not_equal(a, c);
    assert_int_equal(all.n_compiled, 2);
    assert_int_equal(all.n_found, 1);
    grammars_put(&all, a);
    grammars_put(&all, b);
    grammars_put(&all, c);
    grammars_put(&all, NULL);
}

/* Of one user, but of others whom he serves. */
static void test_realms(void **state)
{
    static const char text[] = "root ::= \"a\"";
    const char *realms[] = { "ada", "bob", "ada", NULL, "" };
    struct grammars_entry *e[5];

    (void)state;
    for (unsigned i = 0; i < 5; i++) {
        const struct grammars_ask x = { 1,    &client,          WIRE_GRAMMAR_GBNF,
                                        text, sizeof(text) - 1, realms[i] };

        assert_int_equal(grammars_get(&all, &x, &e[i]), 0);
        assert_int_equal(wait_for(e[i], &client), 0);
    }
    assert_ptr_not_equal(e[0], e[1]);
    assert_ptr_equal(e[0], e[2]);
    assert_ptr_not_equal(e[0], e[3]);
    assert_ptr_equal(e[3], e[4]);
    for (unsigned i = 0; i < 5; i++)
        grammars_put(&all, e[i]);
}

/* Also one whose digest was made equal: it is charged to its user alone. */
static void test_other_user(void **state)
{
    struct grammars_entry *a = got(1, &client, "root ::= \"a\""), *b, *c;

    (void)state;
    b = got(2, &client, "root ::= \"a\"");
    b->digest = a->digest;
    c = got(1, &client, "root ::= \"a\"");
    assert_ptr_equal(c, a);
    grammars_put(&all, a);
    grammars_put(&all, b);
    grammars_put(&all, c);
}

/* The newest of those with a digest is found first. */
static void test_same_digest(void **state)
{
    struct grammars_entry *b = got(1, &client, "root ::= \"b\""), *a;

    (void)state;
    a = got(1, &client, "root ::= \"a\"");
    a->digest = b->digest;
    assert_ptr_equal(got(1, &client, "root ::= \"b\""), b);
    grammars_put(&all, a);
    grammars_put(&all, b);
    grammars_put(&all, b);
}

static void test_charged(void **state)
{
    struct grammars_entry *a = got(1, &client, "root ::= [a-z]{1,50}"), *b, *none = NULL;
    size_t used = owner.used;

    (void)state;
    assert_true(used > a->job.grammar->bytes);
    assert_int_equal(client.used, 0); /* it may leave before the others that use it */
    b = got(1, &other, "root ::= [a-z]{1,50}");
    assert_int_equal(owner.used, used);
    owner.limit = used + 1000;
    assert_int_equal(get(1, &client, "root ::= [a-z]{1,51}", &none), -EDQUOT);
    assert_null(none);
    assert_ptr_equal(client.by, &owner);
    assert_true(client.refused > 1000);
    grammars_put(&all, a);
    assert_int_equal(owner.used, used);
    grammars_put(&all, b);
    assert_int_equal(owner.used, 0);
    grammars_put(&all, got(1, &client, "root ::= [a-z]{1,51}")); /* now there is room */
    assert_int_equal(all.n_compiled, 2);
}

static void test_room(void **state)
{
    struct grammars_entry *kept = got(1, &client, "root ::= \"kept\"");
    char text[32];

    (void)state;
    for (unsigned i = 0; i < GRAMMARS_MAX + 10; i++) {
        (void)snprintf(text, sizeof(text), "root ::= \"%u\"", i);
        grammars_put(&all, got(1, &client, text));
        assert_true(all.n <= GRAMMARS_MAX);
    }
    assert_ptr_equal(got(1, &client, "root ::= \"kept\""), kept);
    grammars_put(&all, kept);
    grammars_put(&all, kept);
}

/* Whoever asks for one that is being compiled waits for that one. */
static void test_at_once(void **state)
{
    struct grammars_entry *a, *b, *c;

    (void)state;
    assert_int_equal(ask(1, &client, "root ::= [a-z]{1,500}", &a), 0);
    assert_int_equal(ask(1, &other, "root ::= [a-z]{1,500}", &b), 0);
    assert_int_equal(ask(2, &client, "root ::= [a-z]{1,500}", &c), 0);
    assert_ptr_equal(a, b);
    assert_ptr_not_equal(a, c);
    assert_int_equal(wait_for(c, &client), 0);
    assert_int_equal(wait_for(b, &other), 0);
    assert_int_equal(wait_for(a, &client), 0);
    assert_int_equal(all.n_compiled, 2);
    assert_true(owner.used > a->job.grammar->bytes + c->job.grammar->bytes);
    grammars_put(&all, a);
    grammars_put(&all, b);
    grammars_put(&all, c);
}

/* Asks for many and gives them up. False: too many were compiled meanwhile, on a machine where the
 * compiler's thread had its turn and this one had not. */
static bool are_given_up(unsigned round)
{
    uint64_t n_compiled = all.n_compiled;
    struct grammars_entry *e[20];
    unsigned n = (unsigned)all.n;
    char text[64];

    for (unsigned i = 0; i < 20; i++) {
        (void)snprintf(text, sizeof(text), "root ::= [a-z]{%u,%u}", round, 2000 + i);
        assert_int_equal(ask(1, &client, text, &e[i]), 0);
    }
    for (unsigned i = 0; i < 20; i++)
        grammars_put(&all, e[i]);
    assert_int_equal(owner.used, 0);
    (void)snprintf(text, sizeof(text), "root ::= \"%u\"", round);
    grammars_put(&all, got(1, &client, text));
    /* One may have been begun, and then one more. */
    return all.n <= n + 3 && all.n_compiled <= n_compiled + 3;
}

/* Nobody waits any more: what was not begun is not compiled, and what was is kept or goes; the end
 * may come in the middle of it. */
static void test_given_up(void **state)
{
    struct grammars_entry *e;
    unsigned round = 0;

    (void)state;
    while (!are_given_up(round))
        assert_true(++round < 100);
    assert_int_equal(ask(1, &client, "root ::= [a-z]{1,3000}", &e), 0);
    grammars_put(&all, e);
}

/* One that was given up in the middle is counted like any other when it is done. */
static void test_given_up_counts(void **state)
{
    uint64_t end = clock_ns() + 60 * CLOCK_S;
    struct grammars_entry *e;
    char text[64];
    size_t bytes = 0;

    (void)state;
    for (unsigned i = 0; all.n == 0; i++) { /* until one was begun */
        assert_true(clock_ns() < end);
        (void)snprintf(text, sizeof(text), "root ::= [a-z]{1,%u}", 4000 + i % 1000);
        assert_int_equal(ask(1, &client, text, &e), 0);
        (void)sched_yield();
        grammars_put(&all, e);
    }
    grammars_put(&all, got(1, &client, "root ::= \"a\"")); /* behind it */
    TAILQ_FOREACH (e, &all.list, link) {
        assert_true(e->made);
        bytes += e->job.grammar->bytes;
    }
    assert_true(all.bytes > bytes);
}

/* A sentence for each who waited, and nothing of it is kept. */
static void test_failed(void **state)
{
    struct grammars_entry *a, *b;

    (void)state;
    assert_int_equal(ask(1, &client, "root ::= (", &a), 0);
    assert_int_equal(ask(1, &client, "root ::= (", &b), 0);
    assert_int_equal(wait_for(a, &client), -EINVAL);
    assert_non_null(strstr(why.text, "line 1, column 11"));
    why.text[0] = '\0';
    assert_int_equal(wait_for(b, &client), -EINVAL);
    assert_non_null(strstr(why.text, "line 1, column 11"));
    grammars_put(&all, a);
    assert_int_equal(all.n, 1);
    grammars_put(&all, b);
    assert_int_equal(all.n, 0);
    assert_int_equal(all.bytes, 0);
}

/* Who floods it waits for his own: another user's is compiled next, and of several who flood it
 * together none goes on before the other one had his turn. Grammars have numbers in the order in
 * which they were compiled. False: too few were left when the other one came. */
static bool in_turns(unsigned n_users, unsigned round)
{
    struct grammars_entry *e[20], *x;
    unsigned n = 10 * n_users, n_waited = 0, n_before = 0;
    bool waited[20];
    char text[64];

    assert_true(n <= 20);
    for (unsigned i = 0; i < n; i++) {
        (void)snprintf(text, sizeof(text), "root ::= [a-z]{%u,%u}", round, 2000 / n_users + i);
        assert_int_equal(ask(1 + i % n_users, &client, text, &e[i]), 0);
    }
    (void)snprintf(text, sizeof(text), "root ::= \"%u\"", round);
    assert_int_equal(ask(n_users + 1, &other, text, &x), 0);
    for (unsigned i = 0; i < n; i++)
        waited[i] = !compiler_done(all.compiler, &e[i]->job);
    assert_int_equal(wait_for(x, &other), 0);
    for (unsigned i = 0; i < n; i++) {
        assert_int_equal(wait_for(e[i], &client), 0);
        n_waited += waited[i];
        n_before += waited[i] && e[i]->job.grammar->id < x->job.grammar->id;
        grammars_put(&all, e[i]);
    }
    /* The one that was under way, and what it was put behind: one of each of the others. */
    assert_true(n_before <= n_users);
    grammars_put(&all, x);
    return n_waited > 2 * n_users;
}

static void test_turns(void **state)
{
    (void)state;
    for (unsigned n_users = 1; n_users <= 2; n_users++)
        for (unsigned round = 100 * n_users; !in_turns(n_users, round); round++)
            assert_true(round < 100 * n_users + 99);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_found, begin, end),
        cmocka_unit_test_setup_teardown(test_realms, begin, end),
        cmocka_unit_test_setup_teardown(test_other_user, begin, end),
        cmocka_unit_test_setup_teardown(test_same_digest, begin, end),
        cmocka_unit_test_setup_teardown(test_charged, begin, end),
        cmocka_unit_test_setup_teardown(test_room, begin, end),
        cmocka_unit_test_setup_teardown(test_at_once, begin, end),
        cmocka_unit_test_setup_teardown(test_given_up, begin, end),
        cmocka_unit_test_setup_teardown(test_given_up_counts, begin, end),
        cmocka_unit_test_setup_teardown(test_failed, begin, end),
        cmocka_unit_test_setup_teardown(test_turns, begin, end),
    };
    int r;

    vocab = built_vocab_tiny();
    r = cmocka_run_group_tests(tests, NULL, NULL);
    vocab_close(vocab);
    return r;
}
