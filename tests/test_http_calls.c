/* tests/test_http_calls.c - tools in requests and calls in answers. Would catch: a call that is
 * told as text, or text as a call, wherever an answer's pieces are cut; a byte of an answer that is
 * lost; tools of one API that look otherwise to the model than another's; a reference of a tool's
 * schema that points elsewhere.
 */
#include "http/calls.h"
#include "http/read.h"
#include "http/tools.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* --- calls ------------------------------------------------------------------------------------ */

static const struct ask_tool offered[] = { { "f", NULL, false }, { "weather", NULL, false } };

struct told {
    char text[1024]; /* calls stand in it as [name {..}] */
};

static void on_text(void *arg, const char *text, size_t len)
{
    struct told *t = arg;

    assert_true(len > 0);
    (void)strncat(t->text, text, len);
}

static void on_call(void *arg, const char *name, struct json_object *arguments)
{
    struct told *t = arg;
    struct text args = { 0 };

    json_write(&args, arguments);
    (void)strcat(t->text, "[");
    (void)strcat(t->text, name);
    (void)strcat(t->text, args.bytes);
    (void)strcat(t->text, "]");
    text_fini(&args);
    json_free(arguments);
}

static const struct {
    const char *answer, *told;
    bool whole;
} answers[] = {
    { "", "", false },
    { "Hello.", "Hello.", false },
    { " \n", " \n", false },
    { "a < b, <tool> and <tool_cal", "a < b, <tool> and <tool_cal", false },
    { "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"x\": 1}}\n</tool_call>", "[f{\"x\":1}]",
      false },
    { "I look. \n<tool_call>{\"name\":\"f\",\"arguments\":{}}</tool_call>\n", "I look.[f{}]",
      false },
    { "<tool_call>\n{\"name\": \"f\", \"arguments\": {}}\n</tool_call>\n<tool_call>\n{\"name\": "
      "\"weather\", \"arguments\": {\"c\": \"</tool_call>\\\"\"}}\n</tool_call>",
      "[f{}][weather{\"c\":\"</tool_call>\\\"\"}]", false },
    /* The last tag may be missing, arguments may be a text, or have the other name. */
    { "<tool_call>\n{\"name\": \"f\", \"arguments\": {}}", "[f{}]", false },
    { "<tool_call>{\"name\": \"f\", \"arguments\": \"{\\\"x\\\": 1}\"}</tool_call>", "[f{\"x\":1}]",
      false },
    { "<tool_call>{\"name\": \"f\", \"parameters\": {}}</tool_call> Done.", "[f{}] Done.", false },
    /* What only looks like one. */
    { "<tool_call>\n{\"name\": \"g\", \"arguments\": {}}\n</tool_call>",
      "<tool_call>\n{\"name\": \"g\", \"arguments\": {}}\n</tool_call>", false },
    { "x <tool_call>{\"name\": \"f\"}</tool_call> y",
      "x <tool_call>{\"name\": \"f\"}</tool_call> y", false },
    { "<tool_call>{\"name\": \"f\", \"arguments\": [1]}</tool_call>",
      "<tool_call>{\"name\": \"f\", \"arguments\": [1]}</tool_call>", false },
    { "<tool_call>{\"name\": \"f\", \"arguments\": {}",
      "<tool_call>{\"name\": \"f\", \"arguments\": {}", false },
    { "<tool_call></tool_call>", "<tool_call></tool_call>", false },
    { "<tool_call>f()</tool_call>\n<tool_call>{\"name\":\"f\",\"arguments\":{}}</tool_call>",
      "<tool_call>f()</tool_call>[f{}]", false },
    /* A quote without an end hides a tag only until the answer's end. */
    { "<tool_call>\"</tool_call> <tool_call>{\"name\":\"f\",\"arguments\":{}}</tool_call>",
      "<tool_call>\"</tool_call>[f{}]", false },
    { "<tool_call><tool_call>{\"name\":\"f\",\"arguments\":{}}</tool_call>",
      "<tool_call><tool_call>{\"name\":\"f\",\"arguments\":{}}</tool_call>", false },
    /* The whole answer, as Llama 3.1 has it. */
    { "{\"name\": \"weather\", \"parameters\": {\"c\": null}}", "[weather{\"c\":null}]", false },
    { "\n {\"name\": \"f\", \"arguments\": {}} \n", "[f{}]", false },
    { "{\"name\": \"f\", \"arguments\": {}} and more",
      "{\"name\": \"f\", \"arguments\": {}} and more", false },
    { "{\"a\": 1}", "{\"a\": 1}", false },
    { "{ <tool_call>{\"name\":\"f\",\"arguments\":{}}</tool_call>", "{[f{}]", false },
    { "{\"name\":\"f\",\"arguments\":{\"x\":\"}\"}}; {\"name\":\"f\",\"parameters\":{}}\n",
      "[f{\"x\":\"}\"}][f{}]", false },
    { "{\"name\":\"f\",\"arguments\":{}} {\"name\":\"g\",\"arguments\":{}}",
      "{\"name\":\"f\",\"arguments\":{}} {\"name\":\"g\",\"arguments\":{}}", false },
    { "```json\n{\n  \"name\": \"f\",\n  \"arguments\": {\n    \"c\": \"```\"\n  }\n}\n```\n",
      "[f{\"c\":\"```\"}]", false },
    { "```\n{\"name\":\"f\",\"arguments\":{}}", "[f{}]", false },
    { "```json\n{\"a\": 1}\n```", "```json\n{\"a\": 1}\n```", false },
    { "```", "```", false },
    { "```\n", "```\n", false },
    { "```js\nf()\n```", "```js\nf()\n```", false },
    { "```json\n[1]\n```", "```json\n[1]\n```", false },
    /* Where one must be made, behind a tag that was the prompt's. */
    { "{\"name\": \"f\", \"arguments\": {}}", "[f{}]", true },
    { "{\"name\": \"f\", \"argu", "{\"name\": \"f\", \"argu", true },
};

/* Calls, or an answer in a format, in which nothing is a call. */
static const struct {
    enum gist_tools form;
    const char *answer, *told;
} held[] = {
    { GIST_TOOLS_TAGGED, "", "" },
    { GIST_TOOLS_TAGGED, "{\"name\": \"f\", \"arguments\": {}}",
      "{\"name\": \"f\", \"arguments\": {}}" },
    { GIST_TOOLS_TAGGED, "\"<tool_call>{\"name\":\"f\",\"arguments\":{}}</tool_call>",
      "\"<tool_call>{\"name\":\"f\",\"arguments\":{}}</tool_call>" },
    { GIST_TOOLS_TAGGED, "<tool", "<tool" },
    { GIST_TOOLS_TAGGED, "<tools> ", "<tools> " },
    { GIST_TOOLS_TAGGED,
      "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": \"</tool_call>\"}}\n</tool_call>\n"
      "<tool_call>\n{\"name\": \"weather\", \"arguments\": {}}\n</tool_call>",
      "[f{\"a\":\"</tool_call>\"}][weather{}]" },
    /* Cut. */
    { GIST_TOOLS_TAGGED, "<tool_call>\n{\"name\": \"f\", \"argu",
      "<tool_call>\n{\"name\": \"f\", \"argu" },
    { GIST_TOOLS_BARE, "{\"name\": \"weather\", \"parameters\": {\"x\": [1]}}",
      "[weather{\"x\":[1]}]" },
    { GIST_TOOLS_BARE, "{\"name\": \"weather\", \"parameters\": {\"x\"",
      "{\"name\": \"weather\", \"parameters\": {\"x\"" },
    { GIST_TOOLS_BARE, "{\"name\": \"weather\", \"age\": 1}",
      "{\"name\": \"weather\", \"age\": 1}" },
    { GIST_TOOLS_BARE, "{\"name\":\"f\",\"parameters\":{}}", "{\"name\":\"f\",\"parameters\":{}}" },
    { GIST_TOOLS_BARE, "<tool_call>{\"name\":\"f\",\"arguments\":{}}</tool_call>",
      "<tool_call>{\"name\":\"f\",\"arguments\":{}}</tool_call>" },
    { GIST_TOOLS_BARE, "{\"na", "{\"na" },
};

#define N_ANSWERS (sizeof(answers) / sizeof(*answers))
#define N_HELD    (sizeof(held) / sizeof(*held))

static void cut(size_t i, size_t at, size_t step)
{
    struct told t = { "" };
    struct calls c = {
        .tools = offered, .n_tools = 2, .on_text = on_text, .on_call = on_call, .arg = &t
    };
    bool is_held = i >= N_ANSWERS;
    const char *answer = is_held ? held[i - N_ANSWERS].answer : answers[i].answer,
               *told = is_held ? held[i - N_ANSWERS].told : answers[i].told;
    size_t len = strlen(answer);

    if (is_held)
        calls_begin_held(&c, held[i - N_ANSWERS].form);
    else
        calls_begin(&c, answers[i].whole);
    calls_add(&c, answer, at);
    for (size_t from = at; from < len; from += step)
        calls_add(&c, answer + from, step < len - from ? step : len - from);
    calls_end(&c);
    calls_fini(&c);
    if (strcmp(t.text, told) != 0)
        fail_msg("answer %zu, cut at %zu and then every %zu\nexpected %s\nfound    %s", i, at, step,
                 told, t.text);
}

static void wherever_they_are_cut(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_ANSWERS + N_HELD; i++)
        for (size_t at = 0;
             at <= strlen(i < N_ANSWERS ? answers[i].answer : held[i - N_ANSWERS].answer); at++) {
            cut(i, at, 1);
            cut(i, at, 1000);
        }
}

/* Text that can't be part of a call does not wait for the end. */
static void text_is_told_at_once(void **state)
{
    struct told t = { "" };
    struct calls c = {
        .tools = offered, .n_tools = 2, .on_text = on_text, .on_call = on_call, .arg = &t
    };

    (void)state;
    calls_begin(&c, false);
    calls_add(&c, "One two", 7);
    assert_string_equal(t.text, "One two");
    calls_add(&c, " <tool", 6);
    assert_string_equal(t.text, "One two");
    calls_add(&c, "s>", 2);
    assert_string_equal(t.text, "One two <tools>");
    calls_add(&c, "<tool_call>{\"name\":\"f\",\"arguments\":{}}</tool_call>", 51);
    assert_string_equal(t.text, "One two <tools>[f{}]");
    calls_end(&c);
    calls_fini(&c);
}

/* An answer in a format is told as it comes, from where it can't be a call. */
static void a_format_is_told_at_once(void **state)
{
    static const char call[] = "{\"name\": \"f\", \"";
    struct told t = { "" };
    struct calls c = {
        .tools = offered, .n_tools = 2, .on_text = on_text, .on_call = on_call, .arg = &t
    };

    (void)state;
    calls_begin_held(&c, GIST_TOOLS_TAGGED);
    calls_add(&c, "{", 1);
    assert_string_equal(t.text, "{");
    calls_end(&c);
    t.text[0] = '\0';
    calls_begin_held(&c, GIST_TOOLS_BARE);
    calls_add(&c, call, strlen(call));
    assert_string_equal(t.text, "");
    calls_add(&c, "a", 1);
    assert_string_equal(t.text, "{\"name\": \"f\", \"a");
    calls_add(&c, "ge", 2);
    assert_string_equal(t.text, "{\"name\": \"f\", \"age");
    calls_end(&c);
    calls_fini(&c);
}

/* --- requests --------------------------------------------------------------------------------- */

static int ask(struct ask *a, read_fn *read, const char *body, struct problem *p)
{
    *p = (struct problem){ .kind = PROBLEM_NONE };
    ask_init(a);
    if (field_parse(body, strlen(body), &a->root, p) < 0)
        fail_msg("%s: %s", p->text, body);
    return read(a, p);
}

#define CITY                                                                                       \
    "{\"type\":\"object\",\"properties\":{\"c\":{\"$ref\":\"#/$defs/c\"}},\"$defs\":{\"c\":{"      \
    "\"type\":\"string\"}}}"

static void same_conversation(const struct ask *a)
{
    static const char *const expect[][2] = {
        { "tools",
          "{\"type\": \"function\", \"function\": {\"name\": \"weather\", \"description\": "
          "\"d\", \"parameters\": {\"type\": \"object\", \"properties\": {\"c\": {\"$ref\": "
          "\"#/$defs/c\"}}, \"$defs\": {\"c\": {\"type\": \"string\"}}}}}" },
        { "user", "Weather?" },
        { "assistant", "I look." },
        { "calls", "weather {\"c\": \"Paris\"}\nweather {}" },
        { "tool", "22" },
        { "tool", "23" },
        { "user", "So?" },
    };
    const struct ask_prompt *p = a->prompts;

    assert_int_equal(p->n_msgs, sizeof(expect) / sizeof(*expect));
    for (size_t i = 0; i < p->n_msgs; i++) {
        assert_string_equal(p->msgs[i].role, expect[i][0]);
        assert_string_equal(p->msgs[i].text, expect[i][1]);
    }
    assert_int_equal(a->n_tools, 1);
}

/* Three APIs, one conversation. */
static void every_api(void **state)
{
    static const char tool[] =
        "\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"weather\","
        "\"description\":\"d\",\"parameters\":" CITY "}}]";
    static const char openai[] =
        "{%s,\"messages\":[{\"role\":\"user\",\"content\":\"Weather?\"},{\"role\":\"assistant\","
        "\"content\":\"I look.\",\"tool_calls\":[{\"id\":\"1\",\"type\":\"function\",\"function\":{"
        "\"name\":\"weather\",\"arguments\":\"{\\\"c\\\":\\\"Paris\\\"}\"}},{\"id\":\"2\",\"type\":"
        "\"function\",\"function\":{\"name\":\"weather\",\"arguments\":\"\"}}]},{\"role\":\"tool\","
        "\"tool_call_id\":\"1\",\"content\":\"22\"},{\"role\":\"tool\",\"tool_call_id\":\"2\","
        "\"content\":\"23\"},{\"role\":\"user\",\"content\":\"So?\"}]}";
    static const char ollama[] =
        "{%s,\"messages\":[{\"role\":\"user\",\"content\":\"Weather?\"},{\"role\":\"assistant\","
        "\"content\":\"I "
        "look.\",\"tool_calls\":[{\"function\":{\"name\":\"weather\",\"arguments\":{"
        "\"c\":\"Paris\"}}},{\"function\":{\"name\":\"weather\",\"arguments\":{}}}]},{\"role\":"
        "\"tool\",\"tool_name\":\"weather\",\"content\":\"22\"},{\"role\":\"tool\",\"content\":"
        "\"23\""
        "},{\"role\":\"user\",\"content\":\"So?\"}]}";
    static const char anthropic[] =
        "{\"max_tokens\":9,\"tools\":[{\"name\":\"weather\",\"description\":\"d\",\"input_"
        "schema\":" CITY
        "}],\"messages\":[{\"role\":\"user\",\"content\":\"Weather?\"},{\"role\":\"assistant\","
        "\"content\":[{\"type\":\"text\",\"text\":\"I look.\"},{\"type\":\"tool_use\",\"id\":\"1\","
        "\"name\":\"weather\",\"input\":{\"c\":\"Paris\"}},{\"type\":\"tool_use\",\"id\":\"2\","
        "\"name\":\"weather\",\"input\":{}}]},{\"role\":\"user\",\"content\":[{\"type\":"
        "\"tool_result\",\"tool_use_id\":\"1\",\"content\":\"22\"},{\"type\":\"tool_result\","
        "\"tool_use_id\":\"2\",\"content\":[{\"type\":\"text\",\"text\":\"23\"}]},{\"type\":"
        "\"text\","
        "\"text\":\"So?\"}]}]}";
    char body[4096];
    struct problem p;
    struct ask a;

    (void)state;
    (void)snprintf(body, sizeof(body), openai, tool);
    assert_int_equal(ask(&a, read_chat_completions, body, &p), 0);
    same_conversation(&a);
    ask_fini(&a);
    (void)snprintf(body, sizeof(body), ollama, tool);
    assert_int_equal(ask(&a, read_ollama_chat, body, &p), 0);
    same_conversation(&a);
    ask_fini(&a);
    assert_int_equal(ask(&a, read_messages, anthropic, &p), 0);
    same_conversation(&a);
    ask_fini(&a);
}

static const struct {
    const char *more;
    bool must, one, held;
    const char *only, *wrong;
} chosen[] = {
    { "", false, false, false, NULL, NULL },
    { ",\"tool_choice\":\"auto\"", false, false, false, NULL, NULL },
    { ",\"tool_choice\":\"required\"", true, false, false, NULL, NULL },
    { ",\"tool_choice\":{\"type\":\"function\",\"function\":{\"name\":\"g\"}}", true, false, false,
      "g", NULL },
    { ",\"parallel_tool_calls\":false", false, true, false, NULL, NULL },
    { ",\"tool_choice\":{\"type\":\"function\",\"function\":{\"name\":\"h\"}}", false, false, false,
      NULL, "not one of `tools`" },
    { ",\"tool_choice\":\"maybe\"", false, false, false, NULL, "not understood" },
    { ",\"response_format\":{\"type\":\"json_object\"}", false, false, true, NULL, NULL },
    { ",\"response_format\":{\"type\":\"json_object\"},\"parallel_tool_calls\":false", false, false,
      true, NULL, NULL },
    { ",\"grammar\":\"root ::= [a]\"", false, false, true, NULL, NULL },
    { ",\"response_format\":{\"type\":\"json_object\"},\"tool_choice\":\"required\"", true, false,
      false, NULL, NULL },
    { ",\"logprobs\":true", false, false, false, NULL, NULL },
};

static void choices(void **state)
{
    char body[1024];
    struct problem p;
    struct ask a;

    (void)state;
    for (size_t i = 0; i < sizeof(chosen) / sizeof(*chosen); i++) {
        int r;

        (void)snprintf(body, sizeof(body),
                       "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],\"tools\":[{\"type\":"
                       "\"function\",\"function\":{\"name\":\"f\"}},{\"type\":\"function\","
                       "\"function\":{\"name\":\"g\"}}]%s}",
                       chosen[i].more);
        r = ask(&a, read_chat_completions, body, &p);
        if (chosen[i].wrong) {
            assert_int_equal(r, -1);
            assert_non_null(strstr(p.text, chosen[i].wrong));
        } else {
            assert_int_equal(r, 0);
            assert_int_equal(a.must_call, chosen[i].must);
            assert_int_equal(a.held, chosen[i].held);
            assert_int_equal(a.one_call, chosen[i].held && strstr(chosen[i].more, "parallel"));
            assert_true(a.held == (a.sampling.grammar != GIST_ANY_TEXT));
            assert_int_equal(a.sampling.n_stop, chosen[i].one);
            assert_true((a.only != NULL) == (chosen[i].only != NULL));
            if (a.only)
                assert_string_equal(a.only->name, chosen[i].only);
        }
        ask_fini(&a);
    }
}

/* Not to be called is not to be offered. */
static void no_tool(void **state)
{
    struct problem p;
    struct ask a;

    (void)state;
    assert_int_equal(
        ask(&a, read_chat_completions,
            "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],\"tool_choice\":"
            "\"none\",\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\"}}]}",
            &p),
        0);
    assert_int_equal(a.prompts->n_msgs, 1);
    ask_fini(&a);
}

static void bad_tools(void **state)
{
    static const char *const bad[] = {
        "[1]",
        "[{}]",
        "[{\"type\":\"function\",\"function\":{\"name\":\"a b\"}}]",
        "[{\"type\":\"function\",\"function\":{\"name\":\"a\\nb\"}}]",
        "[{\"type\":\"web_search\"}]",
        "[{\"type\":\"function\",\"function\":[]}]",
        "[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"parameters\":1}}]"
    };
    char body[512];
    struct problem p;
    struct ask a;

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        (void)snprintf(body, sizeof(body),
                       "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],\"tools\":%s}",
                       bad[i]);
        if (ask(&a, read_chat_completions, body, &p) == 0)
            fail_msg("taken: %s", bad[i]);
        assert_int_equal(problem_status(&p), 400);
        ask_fini(&a);
    }
}

/* References of each tool's schema are to places that have moved. */
static void the_schema_of_a_call(void **state)
{
    static const char body[] =
        "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],\"tool_choice\":\"required\","
        "\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"now\"}},{\"type\":\"function\","
        "\"function\":{\"name\":\"weather\",\"parameters\":" CITY "}}]}";
    struct problem p;
    struct ask a;

    (void)state;
    assert_int_equal(ask(&a, read_chat_completions, body, &p), 0);
    assert_string_equal(
        tools_schema(&a.mem, &a, GIST_TOOLS_TAGGED),
        "{\"anyOf\": [{\"type\": \"object\", \"properties\": {\"name\": {\"const\": \"now\"}, "
        "\"arguments\": {\"type\": \"object\", \"additionalProperties\": false}}, \"required\": "
        "[\"name\", \"arguments\"], \"additionalProperties\": false}, {\"type\": \"object\", "
        "\"properties\": {\"name\": {\"const\": \"weather\"}, \"arguments\": {\"type\": "
        "\"object\", "
        "\"properties\": {\"c\": {\"$ref\": \"#/anyOf/1/properties/arguments/$defs/c\"}}, "
        "\"$defs\": "
        "{\"c\": {\"type\": \"string\"}}}}, \"required\": [\"name\", \"arguments\"], "
        "\"additionalProperties\": false}]}");
    a.only = &a.tools[1];
    assert_non_null(
        strstr(tools_schema(&a.mem, &a, GIST_TOOLS_BARE), "\"#/properties/parameters/$defs/c\""));
    ask_fini(&a);
}

/* What is strict is held to its schema; the rest to be an object. */
static void the_form_of_an_answer(void **state)
{
    static const char body[] = "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],%s,\"tools\":"
                               "[{\"type\":\"function\","
                               "\"function\":{\"name\":\"f\",\"strict\":true}},{\"type\":"
                               "\"function\",\"function\":{\"name\":"
                               "\"g\",\"strict\":null,\"parameters\":" CITY
                               "}},{\"type\":\"function\",\"function\":{\"name\":"
                               "\"h\",\"strict\":true,\"parameters\":" CITY "}}]}";
    char text[1024];
    struct problem p;
    struct ask a;

    (void)state;
    (void)snprintf(text, sizeof(text), body, "\"response_format\":{\"type\":\"json_object\"}");
    assert_int_equal(ask(&a, read_chat_completions, text, &p), 0);
    assert_string_equal(
        tools_or_format(&a.mem, &a, GIST_TOOLS_TAGGED),
        "{\"form\": \"tagged\", \"one\": false, \"tools\": [{\"name\": \"f\", \"parameters\": "
        "{\"type\": \"object\", \"additionalProperties\": false}}, {\"name\": \"g\"}, {\"name\": "
        "\"h\", \"parameters\": " CITY "}], \"schema\": {\"type\": \"object\"}}");
    ask_fini(&a);
    (void)snprintf(text, sizeof(text), body,
                   "\"parallel_tool_calls\":false,\"grammar\":\"root ::= \\\"a\\\"\"");
    assert_int_equal(ask(&a, read_chat_completions, text, &p), 0);
    assert_non_null(strstr(tools_or_format(&a.mem, &a, GIST_TOOLS_BARE),
                           "{\"form\": \"bare\", \"one\": true, "));
    assert_non_null(strstr(tools_or_format(&a.mem, &a, GIST_TOOLS_BARE),
                           "], \"grammar\": \"root ::= \\\"a\\\"\"}"));
    ask_fini(&a);
}

/* What the assistant has begun to say is no beginning of a call or a format. */
static void no_beginning(void **state)
{
    struct problem p;
    struct ask a;

    (void)state;
    assert_int_equal(
        ask(&a, read_messages,
            "{\"max_tokens\":9,\"output_format\":{\"type\":\"json_schema\",\"schema\":{\"type\":"
            "\"object\"}},\"tools\":[{\"name\":\"f\",\"input_schema\":{\"type\":\"object\"}}],"
            "\"messages\":[{\"role\":\"user\",\"content\":\"x\"},{\"role\":\"assistant\","
            "\"content\":\"It\"}]}",
            &p),
        -1);
    assert_non_null(strstr(p.text, "cannot go on with the assistant's last message"));
    ask_fini(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(wherever_they_are_cut),
        cmocka_unit_test(text_is_told_at_once),
        cmocka_unit_test(a_format_is_told_at_once),
        cmocka_unit_test(every_api),
        cmocka_unit_test(choices),
        cmocka_unit_test(no_tool),
        cmocka_unit_test(bad_tools),
        cmocka_unit_test(the_schema_of_a_call),
        cmocka_unit_test(the_form_of_an_answer),
        cmocka_unit_test(no_beginning),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
