/* tests/test_config.c - options from flags, environment and file. Would catch: a wrong order of
 * precedence, a value that is taken though it is not allowed, a sentence that does not say where
 * the value came from, an option of the table that --help, the example file or a man page does not
 * have. With UPDATE=1 it writes the lists of the man pages anew.
 */

#include "daemon/config.h"
#include "tests/support/manual.h"
#include "tests/support/scratch.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static int load(struct config *c, struct why *why, char *const *env, ...)
{
    char *argv[16] = { (char *)"gistd" };
    int argc = 1;
    va_list ap;

    va_start(ap, env);
    while ((argv[argc] = va_arg(ap, char *)))
        argc++;
    va_end(ap);
    why->text[0] = '\0';
    return config_load(c, argc, argv, env, why);
}

static void write_text(const char *path, const char *text)
{
    FILE *f = fopen(path, "w");

    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
}

static void test_precedence(void **state)
{
    char file[SCRATCH_PATH_MAX];
    char *empty[] = { NULL };
    char *env[] = { (char *)"GISTD_THREADS=3", (char *)"GISTD_SEGMENT=256", NULL };
    struct config c;
    struct why why;

    (void)state;
    write_text(scratch_path(file, "a.conf"), "# a comment\n\n  threads = 2\nsegment=128\n"
                                             "batch-tokens =\t64\nmodel = /a b/c.gguf\n");
    assert_int_equal(load(&c, &why, empty, "--config", file, NULL), 0);
    assert_int_equal(c.threads, 2);
    assert_int_equal(c.segment, 128);
    assert_string_equal(c.model, "/a b/c.gguf");
    assert_string_equal(c.file, file);
    assert_int_equal(c.kv_bytes, 0); /* what there is room for */
    assert_int_equal(load(&c, &why, env, "--threads=4", "--config", file, NULL), 0);
    assert_int_equal(c.threads, 4);       /* flag over environment */
    assert_int_equal(c.segment, 256);     /* environment over file */
    assert_int_equal(c.batch_tokens, 64); /* file over default */
}

static void test_kinds(void **state)
{
    char *env[] = { (char *)"HOME=/nonexistent", NULL };
    struct config c;
    struct why why;

    (void)state;
    assert_int_equal(load(&c, &why, env, "--kv-bytes", "2G", "--mlock", "--pin", "no", "--cpu=avx2",
                          "--socket-mode", "0660", "--kv-type", "f32", NULL),
                     0);
    assert_true(c.kv_bytes == 2ull << 30 && c.mlock && !c.pin && c.cpu == 1);
    assert_true(c.socket_mode == 0660 && c.kv_type == CONFIG_KV_F32);
    assert_int_equal(load(&c, &why, env, "--mlock", "--check-config", NULL), 0);
    assert_true(c.mlock && c.action == CONFIG_CHECK);
}

static void test_sentences(void **state)
{
    static const struct {
        const char *text, *expect;
    } files[] = {
        { "threads = 2\nkv-bytes = lots\n", ":2: found \"lots\", allowed:" },
        { "threads\n", ":1: found \"threads\", expected key = value" },
        { "thread = 2\n", ":1: there is no option \"thread\"" },
        { "cpu = sse\n",
          "found \"sse\", allowed: one of scalar|avx2|avxvnni|avx512|avx512bf16|auto" },
        { "pin = 1\n", "allowed: yes or no" },
        { "threads = -1\n", "allowed: 0 to 256" },
        { "threads = 18446744073709551617\n", "allowed: 0 to 256" },
        { "kv-bytes = 99999999999T\n", "option kv-bytes" },
        { "socket-mode = 0999\n", "octal" },
    };
    char file[SCRATCH_PATH_MAX];
    char *env[] = { (char *)"GISTD_CPU=", (char *)"HOME=/nonexistent", NULL };
    char *none[] = { (char *)"HOME=/nonexistent", NULL };
    struct config c;
    struct why why;

    (void)state;
    scratch_path(file, "b.conf");
    for (size_t i = 0; i < sizeof(files) / sizeof(*files); i++) {
        write_text(file, files[i].text);
        assert_int_equal(load(&c, &why, none, "--config", file, NULL), -EINVAL);
        if (!strstr(why.text, files[i].expect) || !strstr(why.text, file))
            fail_msg("it said: %s", why.text);
    }
    assert_int_equal(load(&c, &why, env, NULL), -EINVAL);
    assert_non_null(strstr(why.text, "the environment variable GISTD_CPU"));
    assert_int_equal(load(&c, &why, none, "--threads", "x", NULL), -EINVAL);
    assert_non_null(strstr(why.text, "the flag --threads"));
    assert_int_equal(load(&c, &why, none, "--threads", NULL), -EINVAL);
    assert_non_null(strstr(why.text, "needs a value"));
    assert_int_equal(load(&c, &why, none, "serve", NULL), -EINVAL);
}

/* The example file is itself a config file, and says the defaults. */
static void test_example(void **state)
{
    char *env[] = { (char *)"HOME=/nonexistent", NULL };
    char file[SCRATCH_PATH_MAX], line[512];
    struct config c, defaults;
    struct why why;
    FILE *f = fopen(scratch_path(file, "example.conf"), "w+");

    (void)state;
    assert_non_null(f);
    config_print_example(f);
    assert_int_equal(fclose(f), 0);
    config_defaults(&defaults);
    assert_int_equal(load(&c, &why, env, "--config", file, NULL), 0);
    (void)snprintf(defaults.file, sizeof(defaults.file), "%s", file);
    assert_memory_equal(&c, &defaults, sizeof(c));
    f = fopen(file, "r");
    while (fgets(line, sizeof(line), f)) {
        char *eq = strchr(line, '=');

        if (line[0] != '#' || line[1] == ' ' || !eq)
            continue;
        eq[-1] = '\0';
        eq[strcspn(eq, "\n")] = '\0';
        assert_int_equal(config_set(&c, line + 1, eq[1] ? eq + 2 : "", "test", &why), 0);
    }
    (void)fclose(f);
    assert_memory_equal(&c, &defaults, sizeof(c));
}

/* --- man pages -------------------------------------------------------------------------------- */

static void check_page(const char *path, bool flags)
{
    char *list = NULL;
    size_t len;
    FILE *f = open_memstream(&list, &len);

    config_print_mdoc(f, flags);
    assert_int_equal(fclose(f), 0);
    manual_check(path, ".\\\" begin of the options, made from daemon/options.def\n",
                 ".\\\" end of the options\n", list, "the options of daemon/options.def");
    free(list);
}

static void test_man_pages(void **state)
{
    (void)state;
    check_page("docs/man/gistd.8", true);
    check_page("docs/man/gistd.conf.5", false);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_precedence), cmocka_unit_test(test_kinds),
        cmocka_unit_test(test_sentences),  cmocka_unit_test(test_example),
        cmocka_unit_test(test_man_pages),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
