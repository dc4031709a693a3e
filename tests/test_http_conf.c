/* tests/test_http_conf.c - gist-http's options, and who may ask. Would catch: a flag that does not
 * override the file, an option that the manual does not have, a key that is nearly right and taken,
 * or lost with the rest of its file, a host or a page that only looks like an allowed one. With
 * UPDATE=1 it writes the manual's list.
 */
#include "http/guard.h"
#include "tests/support/fault.h"
#include "tests/support/manual.h"
#include "tests/support/scratch.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

static char path[SCRATCH_PATH_MAX];

static int load(struct conf *c, struct why *why, const char *flag)
{
    char *argv[] = { (char *)"gist-http", (char *)"--config", path, (char *)(uintptr_t)flag };

    why->text[0] = '\0';
    return conf_load(c, flag ? 4 : 3, argv, why);
}

static void write_file(const char *text, mode_t mode)
{
    FILE *f = fopen(path, "w");

    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
    assert_int_equal(chmod(path, mode), 0);
}

static void test_options(void **state)
{
    struct conf c;
    struct why why;

    (void)state;
    (void)scratch_path(path, "http.conf");
    write_file("max-body = 2M\nlisten = [::1]:80\n", 0644);
    assert_int_equal(load(&c, &why, NULL), 0);
    assert_int_equal(c.max_body, 2 << 20);
    assert_string_equal(c.listen, "[::1]:80");
    assert_int_equal(c.keep_alive_s, 10);
    assert_int_equal(load(&c, &why, "--max-body=3M"), 0);
    assert_int_equal(c.max_body, 3 << 20);
    assert_int_equal(load(&c, &why, "--max-body=1"), -EINVAL);
    assert_non_null(strstr(why.text, "max-body"));
    write_file("colour = blue\n", 0644);
    assert_int_equal(load(&c, &why, NULL), -EINVAL);
    assert_non_null(strstr(why.text, "colour"));
}

static void test_lists(void **state)
{
    const char *at = " a, bc,,d ";
    char one[8];

    (void)state;
    assert_true(conf_next(&at, one, sizeof(one)));
    assert_string_equal(one, "a");
    assert_true(conf_next(&at, one, sizeof(one)));
    assert_string_equal(one, "bc");
    assert_true(conf_next(&at, one, sizeof(one)));
    assert_string_equal(one, "d");
    assert_false(conf_next(&at, one, sizeof(one)));
    assert_false(conf_next(&at, one, sizeof(one)));
}

static int open_keys(struct guard *g, struct conf *c, const char *text, mode_t mode,
                     struct why *why)
{
    memset(c, 0, sizeof(*c));
    why->text[0] = '\0';
    write_file(text, mode);
    (void)snprintf(c->api_keys, sizeof(c->api_keys), "%.1000s", path);
    return guard_open(g, c, why);
}

static void test_keys(void **state)
{
    struct guard g;
    struct conf c;
    struct why why;

    (void)state;
    (void)scratch_path(path, "keys");
    assert_int_equal(open_keys(&g, &c, "# keys\n\nann 12345678\nbob\tabcdefgh \r\n", 0600, &why),
                     0);
    assert_int_equal(g.n_keys, 2);
    assert_string_equal(guard_who(&g, "Bearer 12345678", NULL), "ann");
    assert_string_equal(guard_who(&g, "bearer  abcdefgh", NULL), "bob");
    assert_string_equal(guard_who(&g, NULL, "abcdefgh"), "bob");
    assert_null(guard_who(&g, NULL, NULL));
    assert_null(guard_who(&g, "Bearer ", NULL));
    assert_null(guard_who(&g, "Bearer 1234567", NULL));
    assert_null(guard_who(&g, "Bearer 123456789", NULL));
    assert_null(guard_who(&g, "Basic 12345678", NULL));
    assert_null(guard_who(&g, NULL, "# keys"));
    guard_close(&g);
    assert_int_equal(open_keys(&g, &c, "ann 12345678\n", 0640, &why), -EPERM);
    assert_int_equal(open_keys(&g, &c, "ann 12345678\n", 0604, &why), -EPERM);
    assert_int_equal(open_keys(&g, &c, "ann short\n", 0600, &why), -EINVAL);
    assert_int_equal(open_keys(&g, &c, "ann 12345678 more\n", 0600, &why), -EINVAL);
    assert_int_equal(open_keys(&g, &c, "# nobody\n", 0600, &why), -EINVAL);
    (void)snprintf(c.api_keys, sizeof(c.api_keys), "/nowhere/at/all");
    why.text[0] = '\0';
    assert_int_equal(guard_open(&g, &c, &why), -ENOENT);
    assert_non_null(strstr(why.text, "/nowhere/at/all"));
}

/* A file that is read in part is refused, and says why, whatever fails. */
static void test_keys_are_read_to_the_end(void **state)
{
    bool fired = true;
    struct guard g;
    struct fault f;
    struct conf c;
    struct why why;

    (void)state;
    (void)scratch_path(path, "keys");
    assert_int_equal(open_keys(&g, &c, "ann 12345678\nbob abcdefgh\n", 0600, &why), 0);
    guard_close(&g);
    for (uint64_t n = 1; fired; n++) {
        int r;

        why.text[0] = '\0';
        fault_arm(n);
        r = guard_open(&g, &c, &why);
        fired = fault_disarm(&f);
        if (r == 0)
            assert_int_equal(g.n_keys, 2);
        else
            assert_non_null(strstr(why.text, path));
        guard_close(&g);
    }
}

static void test_hosts_and_pages(void **state)
{
    static const char *const ours[] = { "localhost", "LocalHost:80", "127.0.0.1", "10.0.0.7:1",
                                        "[::1]",     "[fe80::1]:80", "one.test",  "two.test:80" };
    static const char *const others[] = { "",          "evil.test",    "localhost.evil.test",
                                          "one.test.", "one.testing",  "localhost:80:80",
                                          "[::1",      "[localhost]x", "127.0.0.1.evil.test" };
    struct conf c = { .hosts = "one.test, two.test", .origins = "https://page.test" };
    struct guard g = { .conf = &c };

    (void)state;
    for (size_t i = 0; i < sizeof(ours) / sizeof(ours[0]); i++)
        assert_true(guard_host(&g, ours[i]));
    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++)
        assert_false(guard_host(&g, others[i]));
    assert_true(guard_origin(&g, "http://localhost:3000"));
    assert_true(guard_origin(&g, "https://[::1]"));
    assert_true(guard_origin(&g, "https://page.test"));
    assert_false(guard_origin(&g, "http://page.test"));
    assert_false(guard_origin(&g, "null"));
    assert_false(guard_origin(&g, "http://10.0.0.7"));
    assert_false(guard_origin(&g, "http://localhost.evil.test"));
}

static void test_manual(void **state)
{
    char *list = NULL;
    size_t len;
    FILE *f = open_memstream(&list, &len);

    (void)state;
    assert_non_null(f);
    conf_print_mdoc(f);
    assert_int_equal(fclose(f), 0);
    manual_check("docs/man/gist-http.1", ".\\\" begin of the options, made from http/options.def\n",
                 ".\\\" end of the options\n", list, "what http/options.def makes");
    free(list);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_options),
        cmocka_unit_test(test_lists),
        cmocka_unit_test(test_keys),
        cmocka_unit_test(test_keys_are_read_to_the_end),
        cmocka_unit_test(test_hosts_and_pages),
        cmocka_unit_test(test_manual),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
