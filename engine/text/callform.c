/* One build of all parts, each a rule: the format, the arguments of each tool, calls. What would
 * confuse a reader is looked for in the format alone, which is compiled once more for it. */
#include "engine/text/callform.h"

#include "base/json_escape.h"
#include "engine/text/gbnf.h"
#include "engine/text/match.h"
#include "engine/text/schema_inner.h"
#include "engine/text/trie.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define OPEN_TAG  "<tool_call>"
#define CLOSE_TAG "</tool_call>"
#define HEAD_MAX  512u
#define OF_MAX    64u

/* Steps of telling a format from calls: some 0.1 s. */
#define APART_WORK_MAX (64u << 20)

struct callform {
    struct schema s;
    struct json_object *root, *tools;
    const char *arguments; /* what they are called */
    bool tagged, one;
    char of[CALLFORM_TOOLS_MAX][OF_MAX]; /* how sentences about a tool begin */
};

static const char *text_of(struct json_object *x)
{
    return json_object_is_type(x, json_type_string) ? json_object_get_string(x) : NULL;
}

static const char *name_of(const struct callform *c, size_t i)
{
    return text_of(schema_get(json_object_array_get_idx(c->tools, i), "name"));
}

/* --- reading ---------------------------------------------------------------------------------- */

/* What a later version may say is not passed over. */
static bool knows(struct callform *c, struct json_object *x, const char *what,
                  const char *const *keys)
{
    if (!json_object_is_type(x, json_type_object)) {
        expr_fail(&c->s.build, -EINVAL, "%s: an object is expected", what);
        return false;
    }
    json_object_object_foreach(x, k, v)
    {
        size_t i = 0;

        (void)v;
        while (keys[i] && strcmp(keys[i], k) != 0)
            i++;
        if (!keys[i]) {
            expr_fail(&c->s.build, -ENOTSUP, "%s: \"%.60s\" is not known", what, k);
            return false;
        }
    }
    return true;
}

static void read_tool(struct callform *c, size_t i)
{
    static const char *const keys[] = { "name", "parameters", NULL };
    struct json_object *tool = json_object_array_get_idx(c->tools, i);
    const char *name;

    if (!knows(c, tool, "a tool", keys))
        return;
    name = name_of(c, i);
    if (!name || !*name)
        expr_fail(&c->s.build, -EINVAL, "a tool has no name");
    else
        (void)snprintf(c->of[i], OF_MAX, "the tool %.50s: ", name);
}

/* False: it failed. */
static bool read_all(struct callform *c)
{
    static const char *const keys[] = { "form", "tools", "one", "schema", "grammar", NULL };
    struct expr_build *b = &c->s.build;
    struct json_object *one;
    const char *form;
    size_t n;

    if (!knows(c, c->root, "the calls", keys))
        return false;
    form = text_of(schema_get(c->root, "form"));
    c->tagged = form && strcmp(form, "tagged") == 0;
    if (!c->tagged && (!form || strcmp(form, "bare") != 0))
        expr_fail(b, -EINVAL, "the calls: \"form\" is \"tagged\" or \"bare\"");
    c->arguments = c->tagged ? "arguments" : "parameters";
    one = schema_get(c->root, "one");
    if (one && !json_object_is_type(one, json_type_boolean))
        expr_fail(b, -EINVAL, "the calls: \"one\" is true or false");
    c->one = !c->tagged || json_object_get_boolean(one);
    c->tools = schema_get(c->root, "tools");
    n = json_object_is_type(c->tools, json_type_array) ? json_object_array_length(c->tools) : 0;
    if (n == 0 || n > CALLFORM_TOOLS_MAX)
        expr_fail(b, -EINVAL, "the calls: \"tools\" is an array of 1 to %u tools",
                  CALLFORM_TOOLS_MAX);
    for (size_t i = 0; i < n && !b->err; i++)
        read_tool(c, i);
    return !b->err;
}

/* --- calls ------------------------------------------------------------------------------------ */

/* As a token where the vocabulary has one, as models have learned it. */
static uint32_t tag(struct expr_build *b, const char *text)
{
    static const uint8_t special[] = { TRIE_SPECIAL };

    return expr_or2(b, expr_text(b, text),
                    expr_seq2(b, expr_bytes(b, special, sizeof(special)), expr_text(b, text)));
}

/* Up to the arguments, spaced as templates write it. Not by json-c, which leaves out what it has no
 * memory for, and says nothing. A name that is too long fills all of ret. */
static void head_of(const struct callform *c, size_t i, char ret[HEAD_MAX])
{
    size_t n = (size_t)snprintf(ret, HEAD_MAX, "{\"name\": \"");
    char escape[JSON_ESCAPE_MAX];

    for (const char *at = name_of(c, i); *at && n < HEAD_MAX - 1; at++)
        n += json_escape((unsigned char)*at, escape)
                 ? (size_t)snprintf(ret + n, HEAD_MAX - n, "%s", escape)
                 : (size_t)snprintf(ret + n, HEAD_MAX - n, "%c", *at);
    if (n < HEAD_MAX - 1)
        (void)snprintf(ret + n, HEAD_MAX - n, "\", \"%s\": ", c->arguments);
}

static uint32_t arguments(struct callform *c, size_t i)
{
    struct json_object *tool = json_object_array_get_idx(c->tools, i), *schema = NULL;

    if (!json_object_object_get_ex(tool, "parameters", &schema))
        return jsontext_object(&c->s.json);
    return expr_call(&c->s.build, schema_root(&c->s, schema, c->of[i]));
}

static uint32_t a_call(struct callform *c)
{
    struct expr_build *b = &c->s.build;
    size_t mark = expr_mark(b), n = json_object_array_length(c->tools);
    char head[HEAD_MAX];
    uint32_t rule;

    for (size_t i = 0; i < n && !b->err; i++) {
        head_of(c, i, head);
        if (strlen(head) >= HEAD_MAX - 1)
            expr_fail(b, -E2BIG, "%sthe name is too long", c->of[i]);
        expr_put(b, expr_seq2(b, expr_text(b, head), arguments(c, i)));
    }
    rule =
        expr_rule(b, "a call"); /* behind the tools': of rules without a text the first is told */
    expr_define(b, rule, expr_seq2(b, expr_any_of(b, mark), expr_text(b, "}")));
    return expr_call(b, rule);
}

static uint32_t calls(struct callform *c)
{
    struct expr_build *b = &c->s.build;
    uint32_t one = a_call(c);
    size_t mark = expr_mark(b);

    if (!c->tagged)
        return one;
    expr_put(b, tag(b, OPEN_TAG));
    expr_put(b, expr_text(b, "\n"));
    expr_put(b, one);
    expr_put(b, expr_text(b, "\n"));
    expr_put(b, tag(b, CLOSE_TAG));
    one = expr_seq(b, mark);
    if (c->one)
        return one;
    return expr_seq2(b, one, expr_repeat(b, expr_seq2(b, expr_text(b, "\n"), one), 0, EXPR_NO_MAX));
}

/* --- a format --------------------------------------------------------------------------------- */

/* False: there is none. */
static bool format(struct callform *c, uint32_t *ret_rule)
{
    struct json_object *schema = NULL, *grammar = NULL;
    bool has_schema = json_object_object_get_ex(c->root, "schema", &schema),
         has_grammar = json_object_object_get_ex(c->root, "grammar", &grammar);

    if (has_schema && has_grammar)
        expr_fail(&c->s.build, -EINVAL, "the calls: a schema and a grammar of the same answer");
    else if (has_grammar && !text_of(grammar))
        expr_fail(&c->s.build, -EINVAL, "the calls: \"grammar\" is a string");
    else if (has_schema)
        *ret_rule = schema_root(&c->s, schema, NULL);
    else if (has_grammar)
        *ret_rule =
            gbnf_rules(&c->s.build, text_of(grammar), (size_t)json_object_get_string_len(grammar));
    return has_schema || has_grammar;
}

static bool begins_with(struct match *m, const struct grammar *g, const char *text)
{
    match_start(m, g);
    /* A limit is no proof that it does not. */
    return match_push(m, (const uint8_t *)text, strlen(text)) != -EINVAL;
}

/* Every rule has a text, so what its texts may begin with some text does begin with. */
static void tell_apart(struct callform *c, uint32_t rule)
{
    struct expr_build *b = &c->s.build;
    struct match *m = b->err ? NULL : malloc(sizeof(*m));
    size_t n = c->tagged ? 1 : json_object_array_length(c->tools);
    struct grammar *g = NULL;
    char head[HEAD_MAX] = OPEN_TAG;
    uint64_t work = 0;

    if (!m)
        expr_fail(b, -ENOMEM, "no memory for a grammar");
    else
        (void)grammar_compile(b, rule, &g);
    for (size_t i = 0; i < n && !b->err; i++) {
        if (!c->tagged)
            head_of(c, i, head);
        if (begins_with(m, g, head))
            expr_fail(b, -ENOTSUP,
                      "the format has texts that begin with %.100s, as calls of tools do: nobody "
                      "could tell which of them an answer is",
                      head);
        work += m->work;
        if (work > APART_WORK_MAX)
            expr_fail(b, -E2BIG,
                      "the grammar is too ambiguous: its texts take too long to tell "
                      "from calls");
    }
    grammar_free(g);
    free(m);
}

/* --- all -------------------------------------------------------------------------------------- */

static uint32_t answer(struct callform *c)
{
    struct expr_build *b = &c->s.build;
    uint32_t of_format = 0, rule, any;
    bool has = format(c, &of_format);

    if (has && !b->err)
        tell_apart(c, of_format);
    any = calls(c);
    if (has)
        any = expr_or2(b, any, expr_call(b, of_format));
    rule = expr_rule(b, "the answer");
    expr_define(b, rule, any);
    return rule;
}

int callform_compile(const char *text, size_t len, struct grammar **ret, struct why *why)
{
    struct callform *c = calloc(1, sizeof(*c));
    uint32_t rule;
    int e;

    if (!c)
        return why_set(why, -ENOMEM, "no memory for a grammar");
    /* Schemas are two levels deeper here. */
    e = schema_parse("what may be called", text, len, SCHEMA_DEPTH_MAX + 3, &c->root, why);
    if (e == 0) {
        if (schema_init(&c->s, why) == 0 && read_all(c)) {
            rule = answer(c);
            if (!c->s.build.err)
                (void)grammar_compile(&c->s.build, rule, ret);
        }
        e = c->s.build.err;
        schema_fini(&c->s);
        json_object_put(c->root);
    }
    free(c);
    return e;
}
