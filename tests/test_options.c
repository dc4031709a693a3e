/* tests/test_options.c - a program's options, from a table of every kind. Would catch: a value that
 * is taken though it is not allowed, a sentence that does not say where the value came from, a flag
 * that is misread, what is printed and does not read back as itself, an option or an action that a
 * list lacks, a default file that is looked for in the wrong place.
 */

#include "base/options.h"
#include "tests/support/scratch.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

struct all {
    OPTIONS_FIELD_TEXT(text)
    OPTIONS_FIELD_SIZE(size)
    OPTIONS_FIELD_SIZE(any_size)
    OPTIONS_FIELD_COUNT(count)
    OPTIONS_FIELD_BIG(big)
    OPTIONS_FIELD_REAL(real)
    OPTIONS_FIELD_CHOICE(choice)
    OPTIONS_FIELD_YES(yes)
    OPTIONS_FIELD_MODE(mode)
    OPTIONS_FIELD_LIST(list)
    OPTIONS_FIELD_WEIGHTS(weights)
};

static const struct options_item items[] = {
    OPTIONS_ITEM(struct all, text, "text", TEXT, "WORD", "", 0, 5, "", "Some text. Or none."),
    OPTIONS_ITEM(struct all, size, "size", SIZE, "SIZE", "64K", 1024, 1 << 30, "", "A size."),
    OPTIONS_ITEM(struct all, any_size, "any-size", SIZE, "TOKENS", "0", 0, INT64_MAX, "", "Any."),
    OPTIONS_ITEM(struct all, count, "count", COUNT, "N", "7", 2, 4294967295, "", "A count."),
    OPTIONS_ITEM(struct all, big, "big", BIG, "N", "1", 0, INT64_MAX, "", "A large one."),
    OPTIONS_ITEM(struct all, real, "real", REAL, "X", "0.5", 1e-3, 10, "", "A real number."),
    OPTIONS_ITEM(struct all, choice, "choice", CHOICE, "NAME", "two", 0, 0, "one|two|three",
                 "One."),
    OPTIONS_ITEM(struct all, yes, "yes-or-no", YES, "YES", "no", 0, 0, "", "Whether."),
    OPTIONS_ITEM(struct all, mode, "mode", MODE, "MODE", "0640", 0, 0777, "", "Permissions."),
    OPTIONS_ITEM(struct all, list, "list", LIST, "N...", "4 8", 2, 64, "", "Numbers."),
    OPTIONS_ITEM(struct all, weights, "weights", WEIGHTS, "A=X", "", 0, 9, "", "Weights."),
};
static const struct options_action actions[] = { { "stop", 1, "Stop.", NULL },
                                                 { "help", 2, "Help.", NULL },
                                                 { "try", 3, "Try. Or not.", "text" } };
static const struct options options = {
    "prog", "settings", "Read this.", items, sizeof(items) / sizeof(items[0]), actions, 3
};

static void defaults(struct all *a)
{
    memset(a, 0, sizeof(*a));
    options_set_defaults(&options, a);
}

static void test_defaults(void **state)
{
    char name[16];
    struct all a;

    (void)state;
    defaults(&a);
    assert_true(a.text[0] == '\0' && a.size == 65536 && a.any_size == 0 && a.count == 7);
    assert_true(a.big == 1 && a.real == 0.5 && a.choice == 1 && !a.yes && a.mode == 0640);
    assert_true(a.list.n == 2 && a.list.v[0] == 4 && a.list.v[1] == 8 && a.weights.n == 0);
    assert_string_equal(options_choice(&options, "choice", 2, name, sizeof(name)), "three");
    assert_string_equal(options_choice(&options, "choice", 3, name, sizeof(name)), "");
    assert_string_equal(options_choice(&options, "count", 0, name, sizeof(name)), "");
}

static void test_values(void **state)
{
    static const struct {
        const char *name, *value, *refused; /* what is allowed, or NULL: taken */
    } cases[] = {
        { "text", "12345", NULL },
        { "text", "123456", "allowed: at most 5 bytes" },
        { "size", "1k", NULL },
        { "size", "1G", NULL },
        { "size", "2G", "allowed: 1K to 1G, in bytes or with K, M, G or T" },
        { "size", "K", "allowed: 1K" },
        { "size", "1KB", "allowed: 1K" },
        { "size", "", "allowed: 1K" },
        { "any-size", "8388607T", NULL },
        { "any-size", "8388608T", "allowed: 0 or more, as a number or with K, M, G or T" },
        { "any-size", "99999999999T", "allowed: 0 or more" },
        { "any-size", "9223372036854775807", NULL },
        { "any-size", "9223372036854775808", "allowed: 0 or more" },
        { "count", "2", NULL },
        { "count", "0004", NULL },
        { "count", "4294967295", NULL },
        { "count", "4294967296", "allowed: 2 to 4294967295" },
        { "count", "18446744073709551618", "allowed: 2 to" },
        { "count", "1", "allowed: 2 to" },
        { "count", " 3", "allowed: 2 to" },
        { "count", "-3", "allowed: 2 to" },
        { "count", "3K", "allowed: 2 to" },
        { "big", "9223372036854775807", NULL },
        { "big", "9223372036854775808", "allowed: a whole number below 2^63" },
        { "real", "1e-3", NULL },
        { "real", "+1", "allowed: a number from 0.001 to 10" },
        { "real", "0x1", "allowed: a number" },
        { "real", "nan", "allowed: a number" },
        { "real", "1e999", "allowed: a number" },
        { "real", "1 2", "allowed: a number" },
        { "choice", "three", NULL },
        { "choice", "thre", "allowed: one of one|two|three" },
        { "choice", "", "allowed: one of" },
        { "yes-or-no", "yes", NULL },
        { "yes-or-no", "1", "allowed: yes or no" },
        { "mode", "777", NULL },
        { "mode", "1000", "allowed: octal permission bits, 0 to 0777" },
        { "mode", "0888", "allowed: octal" },
        { "list", "2,3 64", NULL },
        { "list", "", "allowed: 1 to 8 ascending numbers from 2 to 64" },
        { "list", "3 2", "allowed: 1 to 8" },
        { "list", "2 2", "allowed: 1 to 8" },
        { "list", "2 3 4 5 6 7 8 9 10", "allowed: 1 to 8" },
        { "weights", "a=1 b-c=0.5", NULL },
        { "weights", "a", "allowed: up to 16 of NAME=NUMBER, each name once, numbers from 0 to 9" },
        { "weights", "a=1,a=2", "allowed: up to 16" },
        { "weights", "=1", "allowed: up to 16" },
        { "weights", "a=10", "allowed: up to 16" },
    };
    struct all a, before;

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        struct why why = { "" };
        int r;

        defaults(&a);
        before = a;
        r = options_set(&options, &a, cases[i].name, cases[i].value, "here", &why);
        if (r != (cases[i].refused ? -EINVAL : 0))
            fail_msg("%s = %s: %d, %s", cases[i].name, cases[i].value, r, why.text);
        if (!cases[i].refused)
            continue;
        if (!strstr(why.text, cases[i].refused) || !strstr(why.text, ", from here: found \""))
            fail_msg("%s = %s: %s", cases[i].name, cases[i].value, why.text);
        assert_memory_equal(&a, &before, sizeof(a));
    }
}

static void write_text(const char *path, const char *text, size_t len)
{
    FILE *f = fopen(path, "w");

    assert_non_null(f);
    assert_int_equal(fwrite(text, 1, len, f), len);
    assert_int_equal(fclose(f), 0);
}

static void test_files(void **state)
{
    static const struct {
        const char *text, *says;
    } bad[] = {
        { "count\n", ":1: found \"count\", expected key = value" },
        { "\n# x\ncount = 1\n", ":3: found \"1\", allowed: 2 to" },
        { "counts = 4\n", ":1: there is no option \"counts\"; prog --help lists them" },
    };
    static const char good[] = "# text = x\n\n \ttext =  a b \r\ncount=9\nlist = 2\ncount = 10";
    char path[SCRATCH_PATH_MAX];
    struct why why = { "" };
    struct all a;

    (void)state;
    defaults(&a);
    scratch_path(path, "settings");
    write_text(path, good, strlen(good));
    assert_int_equal(options_load_file(&options, &a, path, &why), 0);
    assert_string_equal(a.text, "a b");
    assert_true(a.count == 10 && a.list.n == 1 && a.list.v[0] == 2);
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        why.text[0] = '\0';
        write_text(path, bad[i].text, strlen(bad[i].text));
        assert_int_equal(options_load_file(&options, &a, path, &why), -EINVAL);
        if (!strstr(why.text, bad[i].says) || !strstr(why.text, path))
            fail_msg("it said: %s", why.text);
    }
    why.text[0] = '\0';
    write_text(path, "text = a\0b\n", 11);
    assert_int_equal(options_load_file(&options, &a, path, &why), -EINVAL);
    assert_non_null(strstr(why.text, ":1: found a zero byte"));
    why.text[0] = '\0';
    assert_int_equal(options_load_file(&options, &a, "/nonexistent/x", &why), -ENOENT);
    assert_string_equal(why.text, "settings /nonexistent/x: No such file or directory");
}

/* Both passes over a line of words; text gets the sentence. */
static int flags(struct all *a, const char *line, int *ret_action, char *ret_file, struct why *why)
{
    char copy[256], *argv[16] = { (char *)"prog" }, *save;
    int argc = 1, r;

    why->text[0] = '\0';
    ret_file[0] = '\0';
    defaults(a);
    (void)snprintf(copy, sizeof(copy), "%s", line);
    for (char *w = strtok_r(copy, " ", &save); w; w = strtok_r(NULL, " ", &save))
        argv[argc++] = w;
    r = options_scan_flags(&options, argc, argv, ret_action, ret_file, why);
    return r < 0 ? r : options_load_flags(&options, a, argc, argv, why);
}

/* Names that no machine has in /etc. */
static void test_default_file(void **state)
{
    char home[SCRATCH_PATH_MAX], file[SCRATCH_PATH_MAX], found[OPTIONS_TEXT_MAX + 1];
    char other[SCRATCH_PATH_MAX];
    FILE *f;

    (void)state;
    assert_int_equal(mkdir(scratch_path(home, ".config"), 0700), 0);
    assert_int_equal(mkdir(scratch_path(file, ".config/gistd"), 0700), 0);
    f = fopen(scratch_path(file, ".config/gistd/none-such.conf"), "w");
    assert_non_null(f);
    assert_int_equal(fclose(f), 0);
    options_find_file(home, NULL, "none-such.conf", found);
    assert_string_equal(found, file);
    (void)scratch_path(other, "empty");
    options_find_file(other, home, "none-such.conf", found); /* the first alone counts */
    assert_string_equal(found, "");
    *strrchr(home, '/') = '\0';
    options_find_file(NULL, home, "none-such.conf", found);
    assert_string_equal(found, file);
    options_find_file("relative", home, "none-such.conf", found);
    assert_string_equal(found, file);
    options_find_file(NULL, home, "another.conf", found);
    assert_string_equal(found, "");
    options_find_file(NULL, NULL, "none-such.conf", found);
    assert_string_equal(found, "");
}

static void test_flags(void **state)
{
    static const struct {
        const char *line, *says;
    } bad[] = {
        { "--count x", "option count, from the flag --count: found \"x\"" },
        { "--count", "flag --count needs a value; prog --help says which" },
        { "--config", "flag --config needs a value" },
        { "--counts=4", "there is no flag \"--counts=4\"; prog --help lists them" },
        { "--stop=1", "flag --stop takes no value" },
        { "--try", "flag --try needs a value" },
        { "--", "found \"--\" on the command line" },
        { "-x", "found \"-x\" on the command line, expected --OPTION" },
        { "word", "found \"word\"" },
    };
    char file[OPTIONS_TEXT_MAX + 1], path[OPTIONS_TEXT_MAX + 2];
    char *argv[] = { (char *)"prog", (char *)"--config", path };
    struct why why;
    struct all a;
    int action;

    (void)state;
    assert_int_equal(
        flags(&a, "--count=9 --text a=b --yes-or-no --count 8 --config f", &action, file, &why), 0);
    assert_true(a.count == 8 && a.yes && action == 0);
    assert_string_equal(a.text, "a=b");
    assert_string_equal(file, "f");
    assert_int_equal(flags(&a, "--yes-or-no no --stop --help", &action, file, &why), 0);
    assert_true(!a.yes && action == 1 && file[0] == '\0');
    assert_int_equal(flags(&a, "--try here --stop", &action, file, &why), 0);
    assert_int_equal(action, 3); /* the first, which also sets an option */
    assert_string_equal(a.text, "here");
    assert_int_equal(flags(&a, "--try=a", &action, file, &why), 0);
    assert_string_equal(a.text, "a");
    assert_int_equal(flags(&a, "-h", &action, file, &why), 0);
    assert_int_equal(action, 2);
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        assert_int_equal(flags(&a, bad[i].line, &action, file, &why), -EINVAL);
        if (!strstr(why.text, bad[i].says))
            fail_msg("for %s it said: %s", bad[i].line, why.text);
    }
    memset(path, 'x', sizeof(path) - 1);
    path[sizeof(path) - 1] = '\0';
    assert_int_equal(options_scan_flags(&options, 3, argv, &action, file, &why), -EINVAL);
    path[sizeof(path) - 2] = '\0';
    assert_int_equal(options_scan_flags(&options, 3, argv, &action, file, NULL), 0);
    assert_string_equal(file, path);
}

/* What is printed reads back as the same, and so does the example once its lines count. */
static void test_print(void **state)
{
    char path[SCRATCH_PATH_MAX], line[256], file[OPTIONS_TEXT_MAX + 1], *key;
    struct all a, b;
    struct why why;
    int action;
    FILE *f;

    (void)state;
    assert_int_equal(flags(&a,
                           "--text a=b --size 5K --real 0.30000000000000004 --choice one "
                           "--yes-or-no --mode 7 --list 2,9 --weights a=0.1,b=2",
                           &action, file, &why),
                     0);
    f = fopen(scratch_path(path, "printed"), "w");
    options_print(&options, &a, f);
    assert_int_equal(fclose(f), 0);
    defaults(&b);
    assert_int_equal(options_load_file(&options, &b, path, &why), 0);
    assert_memory_equal(&a, &b, sizeof(a));

    f = fopen(path, "w+");
    options_print_example(&options, f);
    rewind(f);
    defaults(&b);
    a = b;
    for (size_t n = 0; fgets(line, sizeof(line), f);) {
        if (line[0] != '#' || line[1] == ' ')
            continue;
        line[strcspn(line, "\n")] = '\0';
        key = strchr(line, '=');
        assert_non_null(key);
        key[-1] = '\0';
        assert_string_equal(line + 1, items[n++].name);
        assert_int_equal(options_set(&options, &b, line + 1, key[1] ? key + 2 : "", "x", &why), 0);
    }
    (void)fclose(f);
    assert_memory_equal(&a, &b, sizeof(a));
}

static char *mdoc(enum options_list_of what)
{
    char *text = NULL;
    size_t len;
    FILE *f = open_memstream(&text, &len);

    options_print_mdoc(&options, f, what);
    assert_int_equal(fclose(f), 0);
    return text;
}

static void test_lists(void **state)
{
    char *keys = mdoc(OPTIONS_OF_KEYS), *list = mdoc(OPTIONS_OF_FLAGS), *help = NULL;
    char *numbers = mdoc(OPTIONS_OF_FLAGS_AND_NUMBERS), word[64];
    size_t len;
    FILE *f = open_memstream(&help, &len);

    (void)state;
    options_print_help(&options, f);
    assert_int_equal(fclose(f), 0);
    for (size_t i = 0; i < options.n_items; i++) {
        (void)snprintf(word, sizeof(word), ".It Ic %s\n", items[i].name);
        assert_non_null(strstr(keys, word));
        (void)snprintf(word, sizeof(word), ".It Fl \\-%s Ar ", items[i].name);
        assert_true(strstr(list, word) && strstr(numbers, word));
        (void)snprintf(word, sizeof(word), "  --%s ", items[i].name);
        assert_non_null(strstr(help, word));
    }
    assert_non_null(strstr(help, "  --choice one|two|three  (default two)\n        One.\n"));
    assert_non_null(strstr(help, "  --config FILE\n        Read this.\n  --stop\n        Stop.\n"));
    assert_non_null(strstr(help, "  --try WORD\n        Try. Or not.\n"));
    assert_non_null(strstr(keys, "Some text.\nOr none.\nAllowed: at most 5 bytes.\n"));
    assert_non_null(strstr(keys, "Allowed: one of one|two|three.\nThe default is two.\n"));
    assert_null(strstr(keys, "config"));
    assert_null(strstr(list, "Allowed"));
    assert_non_null(strstr(list, ".It Fl \\-config Ar FILE\nRead this.\n.It Fl \\-stop\nStop.\n"));
    assert_non_null(strstr(list, ".It Fl \\-try Ar WORD\nTry.\nOr not.\n"));
    assert_non_null(strstr(numbers, "A count.\nAllowed: 2 to 4294967295.\nThe default is 7.\n"));
    assert_null(strstr(numbers, "Allowed: at most"));
    free(keys);
    free(list);
    free(numbers);
    free(help);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults), cmocka_unit_test(test_values),
        cmocka_unit_test(test_files),    cmocka_unit_test(test_default_file),
        cmocka_unit_test(test_flags),    cmocka_unit_test(test_print),
        cmocka_unit_test(test_lists),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
