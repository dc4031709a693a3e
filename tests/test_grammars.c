/* tests/test_grammars.c - compiled grammars that are kept. Would catch: one that is compiled again,
 * or that is another user's, or another text's of the same digest; one that goes while it is used;
 * memory of one in use that nobody is charged for, that is charged twice, or that stays charged. */
#include "daemon/grammars.h"
#include "tests/support/built_vocab.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct vocab *vocab;
static struct grammars all;
static struct held_account owner, client, other;
static struct why why;

static int get(uid_t uid, struct held_account *a, const char *text, struct grammars_entry **ret)
{
    const struct grammars_ask ask = { uid, a, WIRE_GRAMMAR_GBNF, text, strlen(text) };

    return grammars_get(&all, vocab, &ask, ret, &why);
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
    assert_true(used > a->grammar->bytes);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_found, begin, end),
        cmocka_unit_test_setup_teardown(test_other_user, begin, end),
        cmocka_unit_test_setup_teardown(test_same_digest, begin, end),
        cmocka_unit_test_setup_teardown(test_charged, begin, end),
        cmocka_unit_test_setup_teardown(test_room, begin, end),
    };
    int r;

    vocab = built_vocab_tiny();
    r = cmocka_run_group_tests(tests, NULL, NULL);
    vocab_close(vocab);
    return r;
}
