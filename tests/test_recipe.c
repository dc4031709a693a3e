/* tests/test_recipe.c - options of a training run from flags and file. Would catch: a flag that
 * does not come before the file, a value that is taken though it is not allowed, a sentence that
 * does not say where the value came from, a printed recipe that does not read back as itself,
 * choices out of step with the engine's enums, a man page that lacks an option. */

#include "engine/file/adapter.h"
#include "tests/support/manual.h"
#include "tests/support/scratch.h"
#include "train/recipe.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static int load(struct recipe *r, struct why *why, ...)
{
    char *argv[16] = { (char *)"gist-train" };
    int argc = 1;
    va_list ap;

    va_start(ap, why);
    while ((argv[argc] = va_arg(ap, char *)))
        argc++;
    va_end(ap);
    why->text[0] = '\0';
    return recipe_load(r, argc, argv, why);
}

static void write_text(const char *path, const char *text)
{
    FILE *f = fopen(path, "w");

    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
}

static void test_defaults(void **state)
{
    struct recipe r;
    struct why why;

    (void)state;
    assert_int_equal(load(&r, &why, NULL), 0);
    assert_true(r.segment == 512 && r.sequence == 2048 && r.sinks == 4 && r.steps == 1000);
    assert_true(r.ratios.n == 4 && r.ratios.v[0] == 4 && r.ratios.v[3] == 32);
    assert_true(r.lr == 1e-3 && r.loss_lm == 1 && r.loss_ae == 0 && !r.loss_tie && r.seed == 1);
    assert_true(r.weights.n == 0 && r.model[0] == '\0' && r.action == RECIPE_RUN);
}

static void test_precedence_and_kinds(void **state)
{
    char file[SCRATCH_PATH_MAX];
    struct recipe r;
    struct why why;

    (void)state;
    write_text(scratch_path(file, "a.recipe"),
               "# a comment\n\n  steps = 7\nlr=2.5e-4\nmodel = /a b/c=d.gguf\nratios = 8, 16\n"
               "weights = recall-json=2.5 man=0\nseed = 9223372036854775806\nloss-tie = yes\n");
    assert_int_equal(load(&r, &why, "--steps=9", "--config", file, "--checkpointing", "--mask",
                          "in-segment", "--loss-tie", "no", NULL),
                     0);
    assert_int_equal(r.steps, 9); /* flag over file */
    assert_true(r.lr == 2.5e-4 && r.checkpointing && !r.loss_tie && r.seed == INT64_MAX - 1ull);
    assert_string_equal(r.model, "/a b/c=d.gguf");
    assert_true(r.ratios.n == 2 && r.ratios.v[0] == 8 && r.ratios.v[1] == 16);
    assert_true(r.weights.n == 2 && r.weights.v[0].weight == 2.5 && r.weights.v[1].weight == 0);
    assert_string_equal(r.weights.v[0].name, "recall-json");
    assert_string_equal(r.file, file);
    assert_int_equal(r.mask, ADAPTER_IN_SEGMENT);
    assert_int_equal(load(&r, &why, "--help", NULL), 0);
    assert_int_equal(r.action, RECIPE_HELP);
    assert_int_equal(load(&r, &why, "--show", "--steps", "3", NULL), 0);
    assert_true(r.action == RECIPE_SHOW && r.steps == 3);
}

static void test_choices(void **state)
{
    char name[64];

    (void)state;
    for (uint32_t i = 0; i < ADAPTER_METHOD__N; i++)
        assert_string_equal(recipe_choice("method", i, name, sizeof(name)),
                            adapter_method_name((enum adapter_method)i));
    for (uint32_t i = 0; i < ADAPTER_MASK__N; i++)
        assert_string_equal(recipe_choice("mask", i, name, sizeof(name)),
                            adapter_mask_name((enum adapter_mask)i));
    assert_string_equal(recipe_choice("precision", RECIPE_BF16, name, sizeof(name)), "bf16");
    assert_string_equal(recipe_choice("precision", 3, name, sizeof(name)), "");
}

static void test_sentences(void **state)
{
    static const struct {
        const char *text, *expect;
    } files[] = {
        { "steps = 2\nlr = lots\n", ":2: found \"lots\", allowed: a number from 0 to 10" },
        { "lr = -1\n", "allowed: a number" },
        { "lr = nan\n", "allowed: a number" },
        { "lr = 0x1\n", "allowed: a number" },
        { "lr = 1e-3 x\n", "allowed: a number" },
        { "lr = 1e999\n", "allowed: a number" },
        { "steps\n", ":1: found \"steps\", expected key = value" },
        { "step = 2\n", ":1: there is no option \"step\"" },
        { "steps = 0\n", "allowed: 1 to 100000000" },
        { "steps = 99999999999999999999\n", "allowed: 1 to" },
        { "steps = 1K\n", "allowed: 1 to" },
        { "seed = 9223372036854775808000\n", "allowed: a whole number below 2^63" },
        { "method = fine\n", "allowed: one of fine-kv|coarse-kv|coarse-rec" },
        { "loss-tie = 1\n", "allowed: yes or no" },
        { "ratios =\n", "allowed: 1 to 8 ascending numbers from 2 to 64" },
        { "ratios = 8 4\n", "allowed: 1 to 8 ascending numbers" },
        { "ratios = 2 3 4 5 6 7 8 9 10\n", "allowed: 1 to 8 ascending numbers" },
        { "ratios = 4 6\n", "option ratios: found 6, allowed: divisors of segment, which is 512" },
        { "weights = a\n", "allowed: up to 16 of NAME=NUMBER" },
        { "weights = a=1 a=2\n", "each name once" },
        { "weights = =1\n", "each name once" },
        { "segment = 100\n", "option segment: found 100, allowed: a multiple of 16" },
        { "sequence = 512\n", "option sequence: found 512, allowed: a multiple of segment" },
        { "sequence = 1100\n", "option sequence: found 1100" },
        { "segment = 48\n", "allowed: 64 to 8192" },
        { "sinks = 17\n", "allowed: 0 to 16" },
        { "loss-lm = 0\n", "all are 0; set at least one above 0" },
        { "loss-lm = 0\nloss-ae = 1\nloss-tie = yes\n", "option loss-tie: found yes" },
    };
    char file[SCRATCH_PATH_MAX];
    struct recipe r;
    struct why why;

    (void)state;
    scratch_path(file, "b.recipe");
    for (size_t i = 0; i < sizeof(files) / sizeof(*files); i++) {
        write_text(file, files[i].text);
        assert_int_equal(load(&r, &why, "--config", file, NULL), -EINVAL);
        if (!strstr(why.text, files[i].expect))
            fail_msg("for %s it said: %s", files[i].text, why.text);
    }
    assert_int_equal(load(&r, &why, "--steps", "x", NULL), -EINVAL);
    assert_non_null(strstr(why.text, "the flag --steps"));
    assert_int_equal(load(&r, &why, "--steps", NULL), -EINVAL);
    assert_non_null(strstr(why.text, "needs a value"));
    assert_int_equal(load(&r, &why, "--help=1", NULL), -EINVAL);
    assert_int_equal(load(&r, &why, "--stps", "1", NULL), -EINVAL);
    assert_non_null(strstr(why.text, "there is no flag \"--stps\""));
    assert_int_equal(load(&r, &why, "train", NULL), -EINVAL);
    assert_int_equal(load(&r, &why, "--config", "/nonexistent/r", NULL), -ENOENT);
    assert_non_null(strstr(why.text, "/nonexistent/r"));
}

/* What is printed is a recipe file of the same recipe. */
static void test_print(void **state)
{
    char file[SCRATCH_PATH_MAX];
    struct recipe a, b;
    struct why why;
    FILE *f;

    (void)state;
    assert_int_equal(load(&a, &why, "--lr", "0.00030000000000000003", "--ratios", "4 16",
                          "--weights", "a=0.1,b-c=3", "--out", "/x y", "--beta2", "0.999", "--seed",
                          "1234567890123456789", "--loss-tie", "--mask=in-segment", NULL),
                     0);
    f = fopen(scratch_path(file, "printed"), "w");
    assert_non_null(f);
    recipe_print(&a, f);
    assert_int_equal(fclose(f), 0);
    assert_int_equal(load(&b, &why, "--config", file, NULL), 0);
    memset(b.file, 0, sizeof(b.file));
    assert_memory_equal(&a, &b, sizeof(a));
}

/* Help and man page have every option. */
static void test_lists(void **state)
{
    static const char *const names[] = {
#define OPTION(field, name, ...) name,
#include "train/recipe.def"
#undef OPTION
    };
    char *help = NULL, *mdoc = NULL, flag[80];
    size_t len;
    FILE *f = open_memstream(&help, &len);

    (void)state;
    recipe_print_help(f);
    assert_int_equal(fclose(f), 0);
    f = open_memstream(&mdoc, &len);
    recipe_print_mdoc(f);
    assert_int_equal(fclose(f), 0);
    for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
        (void)snprintf(flag, sizeof(flag), "\n  --%s", names[i]);
        if (i)
            assert_non_null(strstr(help, flag));
        (void)snprintf(flag, sizeof(flag), ".It Fl \\-%s ", names[i]);
        assert_non_null(strstr(mdoc, flag));
    }
    free(help);
    free(mdoc);
}

/* With UPDATE in the environment the page gets the list. */
static void test_man_page(void **state)
{
    char *list = NULL;
    size_t len;
    FILE *f = open_memstream(&list, &len);

    (void)state;
    recipe_print_mdoc(f);
    assert_int_equal(fclose(f), 0);
    manual_check("docs/man/gist-train.1",
                 ".\\\" begin of the options, made from train/recipe.def\n",
                 ".\\\" end of the options\n", list, "the options of train/recipe.def");
    free(list);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults), cmocka_unit_test(test_precedence_and_kinds),
        cmocka_unit_test(test_choices),  cmocka_unit_test(test_sentences),
        cmocka_unit_test(test_print),    cmocka_unit_test(test_lists),
        cmocka_unit_test(test_man_page),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
