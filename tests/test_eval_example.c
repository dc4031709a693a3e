/* tests/test_eval_example.c - lines of public sets. Would catch: a layout that is taken for
 * another, a question that stays in the text, a metric that is not the set's, code that is scored
 * with its fence, a ranking that counts an id twice.
 */

#include "eval/example.h"

#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct example parse(const char *line, const char *name)
{
    struct example e;

    assert_int_equal(example_parse(line, name, &e), 0);
    return e;
}

static void expect_score(const struct example *e, const char *answer, double want)
{
    assert_true(fabs(example_score(e, answer) - want) < 1e-6);
}

static void test_ruler(void **state)
{
    const char *line = "{\"index\": 0, \"input\": \"Memorize.\\nThe number is 7.\\nWhat is it?\", "
                       "\"outputs\": [\"7\", \"8\"], \"answer_prefix\": \"It is\"}";
    struct example e = parse(line, "niah_multivalue");

    (void)state;
    assert_string_equal(e.text, "Memorize.\nThe number is 7.");
    assert_string_equal(e.question, "What is it? It is");
    expect_score(&e, "It is 7.", 0.5); /* all of them are wanted */
    example_fini(&e);
    e = parse(line, "ruler/qa_1");
    expect_score(&e, "It is 7.", 1);
    example_fini(&e);
}

static void test_longbench(void **state)
{
    struct example e = parse("{\"context\": \"C\", \"input\": \"Who?\", \"answers\": [\"the old "
                             "fox\", \"a dog\"], \"dataset\": \"hotpotqa_e\"}",
                             "x");

    (void)state;
    assert_int_equal(e.metric, EXAMPLE_F1);
    assert_string_equal(e.text, "C");
    assert_string_equal(e.question, "Answer in a few words: Who?");
    expect_score(&e, "An old red fox", 0.8); /* the best of the answers */
    expect_score(&e, "dog", 1);
    example_fini(&e);
    e = parse("{\"context\": \"C\", \"input\": \"\", \"answers\": [\"one two\"]}",
              "data/gov_report");
    assert_int_equal(e.metric, EXAMPLE_ROUGE_L); /* the file says it */
    expect_score(&e, "one three", 0.5);
    example_fini(&e);
    e = parse("{\"context\": \"C\", \"input\": \"\", \"answers\": [\"x\"], \"dataset\": \"new\"}",
              "x");
    assert_int_equal(e.metric, EXAMPLE_SUBEM);
    example_fini(&e);
}

static void test_code(void **state)
{
    struct example e =
        parse("{\"context\": [{\"path\": \"a.py\", \"snippet\": \"def a(): pass\"}], "
              "\"import_statement\": \"import a\", \"cropped_code\": \"x = 1\", "
              "\"next_line\": \"y = a.a()\"}",
              "python");

    (void)state;
    assert_string_equal(e.text, "# a.py\ndef a(): pass\n\nimport a\n");
    assert_true(strncmp(e.question, "x = 1\n", 6) == 0);
    expect_score(&e, "```python\n# next\ny = a.a()\n```", 1);
    expect_score(&e, "```", 0);
    expect_score(&e, "", 0);
    example_fini(&e);
}

static void test_helmet(void **state)
{
    struct example e = parse("{\"ctxs\": [{\"title\": \"T\", \"text\": \"one\"}, {\"text\": "
                             "\"two\"}], \"question\": \"Q?\", \"answers\": [\"Paris\"]}",
                             "nq");

    (void)state;
    assert_string_equal(e.text, "T: one\n\ntwo\n\n");
    expect_score(&e, "It is paris!", 1);
    example_fini(&e);
    e = parse("{\"context\": \"{}\", \"question\": \"k\", \"answer\": \"v\"}", "json_kv");
    assert_non_null(strstr(e.question, "the key \"k\""));
    expect_score(&e, "V", 1);
    example_fini(&e);
}

static void test_ranking(void **state)
{
    struct example e = parse("{\"query\": \"q\", \"ctxs\": [{\"id\": \"10\", \"text\": \"a\", "
                             "\"label\": 0}, {\"id\": \"1\", \"text\": \"b\", \"label\": 3}, "
                             "{\"id\": \"2\", \"text\": \"c\", \"label\": 1}]}",
                             "msmarco");
    double ideal = 3 + 1 / log2(3);

    (void)state;
    assert_non_null(strstr(e.text, "[ID: 10] a\n"));
    expect_score(&e, "1 > 2 > 10", 1);
    expect_score(&e, "Ranking: [2] > [1] > 1 > 2", (1 + 3 / log2(3)) / ideal);
    expect_score(&e, "10 > 10 > 1", 3 / log2(3) / ideal);
    expect_score(&e, "none", 0);
    example_fini(&e);
    e = parse("{\"query\": \"q\", \"ctxs\": [{\"text\": \"a\", \"label\": 3}, "
              "{\"id\": 7, \"text\": \"b\", \"label\": 1}]}",
              "msmarco"); /* nothing names the first one */
    assert_string_equal(e.text, "a\n\n[ID: 7] b\n\n");
    expect_score(&e, "[7]", 1 / (3 + 1 / log2(3)));
    example_fini(&e);
}

static void test_refused(void **state)
{
    static const char *const lines[] = { "",
                                         "no JSON",
                                         "[]",
                                         "{}",
                                         "{\"input\": \"x\"}",
                                         "{\"input\": \"x\", \"outputs\": []}",
                                         "{\"input\": 3, \"outputs\": [\"x\"]}",
                                         "{\"ctxs\": {}, \"query\": \"x\"}",
                                         "{\"context\": [], \"input\": \"x\", \"answers\": []}" };
    struct example e = { 0 };

    (void)state;
    for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++)
        assert_int_equal(example_parse(lines[i], "x", &e), -EINVAL);
    example_fini(&e);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ruler),   cmocka_unit_test(test_longbench),
        cmocka_unit_test(test_code),    cmocka_unit_test(test_helmet),
        cmocka_unit_test(test_ranking), cmocka_unit_test(test_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
