/* http/tools.c - tools of a request as lines of JSON, one a tool, spaced as models have seen them,
 * and calls as lines of a name and its arguments. What becomes of the lines is the template's. */

#include "http/tools.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static int wrong(struct problem *p, const char *what)
{
    return problem_set(p, PROBLEM_INVALID, "tools", "a tool of `tools` %s", what);
}

/* It stands in lines that are split at spaces, and in JSON without being escaped. */
static bool is_name(const char *name)
{
    for (const char *c = name; *c; c++)
        if ((unsigned char)*c <= ' ' || *c == '"' || *c == '\\')
            return false;
    return *name && strlen(name) <= TOOLS_NAME_MAX;
}

/* What a tool says of itself, out of what is around it. */
static int find_function(const struct json_object *tool, const struct json_object **ret,
                         struct problem *p)
{
    const char *type = "function";

    if (json_kind(tool) != JSON_OBJECT)
        return wrong(p, "is no object");
    if (field_text(tool, "type", &type, p) < 0)
        return -1;
    /* "custom" is what Anthropic calls those that have a schema. */
    if (strcmp(type, "function") != 0 && strcmp(type, "custom") != 0)
        return problem_set(p, PROBLEM_UNSUPPORTED, "tools",
                           "a tool of `tools` has the type \"%s\": functions alone are "
                           "supported",
                           type);
    *ret = tool;
    /* Responses and Anthropic write a tool without an object around it. */
    if (!json_get(tool, "function"))
        return 0;
    return field_object(tool, "function", ret, p);
}

/* The line that a template lists. */
static void add_line(struct text *t, const struct ask_tool *tool, const char *description)
{
    struct json_object *o =
        json_make("{s:s, s:{s:s, s:s, s:o}}", "type", "function", "function", "name", tool->name,
                  "description", description ? description : "", "parameters",
                  tool->parameters ? json_share(tool->parameters)
                                   : json_make("{s:s, s:{}}", "type", "object", "properties"));

    if (t->len > 0)
        text_add(t, "\n", 1);
    json_write_spaced(t, o, NULL);
    t->lost |= !o;
    json_free(o);
}

static int read_tool(struct ask *a, const struct json_object *tool, const char *parameters,
                     struct text *lines, struct problem *p)
{
    struct ask_tool *to = &a->tools[a->n_tools];
    const struct json_object *f = NULL;
    const char *description = NULL;

    if (find_function(tool, &f, p) < 0 || field_text(f, "name", &to->name, p) < 0 ||
        field_bool(f, "strict", &to->strict, p) < 0 ||
        field_text(f, "description", &description, p) < 0 ||
        field_object(f, parameters, &to->parameters, p) < 0)
        return -1;
    if (!to->name || !is_name(to->name))
        return wrong(p, to->name ? "has a name with spaces or quotes, or one that is too long"
                                 : "has no `name`");
    a->n_tools++;
    add_line(lines, to, description);
    return 0;
}

int tools_read(struct ask *a, const struct json_object *o, const char *parameters,
               struct problem *p)
{
    const struct json_object *list;
    struct text lines = { 0 };
    const char *text;
    int r = 0;

    if (field_array(o, "tools", &list, p) < 0)
        return -1;
    if (!list || json_len(list) == 0)
        return 0;
    if (json_len(list) > TOOLS_MAX)
        return problem_set(p, PROBLEM_INVALID, "tools", "there are %zu tools: at most %u are read",
                           json_len(list), TOOLS_MAX);
    a->tools = mem_new(&a->mem, json_len(list), sizeof(*a->tools));
    if (!a->tools)
        return problem_no_memory(p);
    for (size_t i = 0; i < json_len(list) && r == 0; i++)
        r = read_tool(a, json_at(list, i), parameters, &lines, p);
    /* NULL is "out of memory" to ask_message. */
    text = r == 0 && !lines.lost ? mem_copy(&a->mem, lines.bytes, lines.len) : NULL;
    if (r == 0)
        r = ask_message(a, "tools", text, p);
    text_fini(&lines);
    return r;
}

/* Made sure of by a grammar (tools_schema), and not left to the model. */
int tools_must(struct ask *a, const char *name, struct problem *p)
{
    size_t i = 0;

    if (a->n_tools == 0)
        return problem_set(p, PROBLEM_INVALID, "tool_choice",
                           "`tool_choice` asks for a call, and there are no `tools`");
    while (name && i < a->n_tools && strcmp(a->tools[i].name, name) != 0)
        i++;
    if (i == a->n_tools)
        return problem_set(p, PROBLEM_INVALID, "tool_choice",
                           "`tool_choice` names \"%s\", which is not one of `tools`", name);
    a->must_call = true;
    a->only = name ? &a->tools[i] : NULL;
    return 0;
}

/* A format or a grammar is made so. Else the text of a call ends there, and so does the answer; a
 * call without its end is one all the same (calls.h). */
int tools_one(struct ask *a, struct problem *p)
{
    if (a->n_tools == 0 || a->must_call)
        return 0;
    if (a->sampling.grammar != GIST_ANY_TEXT) {
        a->one_call = true;
        return 0;
    }
    if (a->sampling.n_stop == ASK_STOPS_MAX)
        return problem_set(p, PROBLEM_INVALID, NULL,
                           "%u texts that end the answer and one call at most: leave one text out",
                           ASK_STOPS_MAX);
    a->stops[a->sampling.n_stop++] = TOOLS_CLOSE;
    a->ends_call = true;
    a->sampling.stop = a->stops;
    return 0;
}

/* --- calls of earlier answers ----------------------------------------------------------------- */

int tools_call(struct text *t, const char *name, const struct json_object *arguments,
               struct problem *p)
{
    struct json_object *parsed = NULL;
    char why[160];
    int r = -EINVAL;

    if (!name || !is_name(name))
        return problem_set(p, PROBLEM_INVALID, "messages", "a call has no `name` of a tool");
    if (t->len > 0)
        text_add(t, "\n", 1);
    text_print(t, "%s ", name);
    /* A text that is no JSON is what some model once said. */
    if (json_kind(arguments) == JSON_STRING && json_len(arguments) > 0)
        r = json_read(json_text(arguments), json_len(arguments), JSON_SAID, &parsed, why);
    t->lost |= r == -ENOMEM;
    if (r == 0)
        json_write_spaced(t, parsed, NULL);
    else if (json_kind(arguments) == JSON_NULL ||
             (json_kind(arguments) == JSON_STRING && json_len(arguments) == 0))
        text_add(t, "{}", 2);
    else
        json_write_spaced(t, arguments, NULL);
    json_free(parsed);
    return 0;
}

int tools_calls(struct ask *a, struct text *t, struct problem *p)
{
    int r = 0;

    if (t->len > 0 || t->lost)
        r = ask_message(a, "calls", t->lost ? NULL : mem_copy(&a->mem, t->bytes, t->len), p);
    text_fini(t);
    return r;
}

/* Ids of calls are passed over: no template has a place for them. */
int tools_read_calls(struct ask *a, const struct json_object *m, struct problem *p)
{
    const struct json_object *list, *function;
    struct text lines = { 0 };
    int r = field_array(m, "tool_calls", &list, p);

    for (size_t i = 0; r == 0 && list && i < json_len(list); i++) {
        const char *name = NULL;

        r = field_object(json_at(list, i), "function", &function, p);
        if (r == 0 && function)
            r = field_text(function, "name", &name, p);
        if (r == 0)
            r = tools_call(&lines, name, function ? json_get(function, "arguments") : NULL, p);
    }
    if (r == 0)
        return tools_calls(a, &lines, p);
    text_fini(&lines);
    return -1;
}

/* --- the answer ------------------------------------------------------------------------------- */

/* Where a call is made the format has no text to be about. */
int tools_check(struct ask *a, struct problem *p)
{
    if (a->n_tools == 0)
        return 0;
    a->held = !a->must_call && a->sampling.grammar != GIST_ANY_TEXT;
    if (a->must_call)
        a->sampling.grammar = GIST_ANY_TEXT;
    if (a->prompts && a->prompts->len > 0 && (a->must_call || a->held))
        return problem_set(p, PROBLEM_UNSUPPORTED, "messages",
                           "an answer that %s cannot go on with the assistant's last message: "
                           "leave that out",
                           a->must_call ? "must call a tool"
                                        : "may call a tool, or else has a format,");
    return 0;
}

/* References of a tool's schema are to places of its own: they go where it stands now. */
static void put_schema(struct text *t, const struct ask_tool *tool, const char *arguments,
                       const char *place)
{
    struct text refs = { 0 };

    text_print(&refs, "%s/properties/%s", place, arguments);
    text_print(t, "{\"type\": \"object\", \"properties\": {\"name\": {\"const\": ");
    json_write_text(t, tool->name);
    text_print(t, "}, \"%s\": ", arguments);
    if (tool->parameters && refs.bytes)
        json_write_spaced(t, tool->parameters, refs.bytes);
    else
        text_print(t, "{\"type\": \"object\", \"additionalProperties\": false}");
    text_print(t, "}, \"required\": [\"name\", \"%s\"], \"additionalProperties\": false}",
               arguments);
    t->lost |= refs.lost;
    text_fini(&refs);
}

/* An alternative for each tool; with one that was named, that alone, and no choice around it. */
char *tools_schema(struct mem *m, const struct ask *a, enum gist_tools form)
{
    const char *arguments = tools_arguments(form);
    struct text t = { 0 };
    char place[32], *ret;

    if (a->only) {
        put_schema(&t, a->only, arguments, "");
    } else {
        text_print(&t, "{\"anyOf\": [");
        for (size_t i = 0; i < a->n_tools; i++) {
            (void)snprintf(place, sizeof(place), "/anyOf/%zu", i);
            if (i > 0)
                text_print(&t, ", ");
            put_schema(&t, &a->tools[i], arguments, place);
        }
        text_print(&t, "]}");
    }
    ret = t.lost ? NULL : mem_copy(m, t.bytes, t.len);
    text_fini(&t);
    return ret;
}

const char *tools_arguments(enum gist_tools form)
{
    return form == GIST_TOOLS_BARE ? "parameters" : "arguments";
}

/* What there is no schema for may be any object; a strict tool without one has no arguments. */
static void put_tool(struct text *t, const struct ask_tool *tool)
{
    text_print(t, "{\"name\": ");
    json_write_text(t, tool->name);
    if (tool->strict) {
        text_print(t, ", \"parameters\": ");
        if (tool->parameters)
            json_write(t, tool->parameters);
        else
            text_print(t, "{\"type\": \"object\", \"additionalProperties\": false}");
    }
    text_print(t, "}");
}

char *tools_or_format(struct mem *m, const struct ask *a, enum gist_tools form)
{
    struct text t = { 0 };
    char *ret;

    text_print(&t, "{\"form\": \"%s\", \"one\": %s, \"tools\": [",
               form == GIST_TOOLS_BARE ? "bare" : "tagged", a->one_call ? "true" : "false");
    for (size_t i = 0; i < a->n_tools; i++) {
        if (i > 0)
            text_print(&t, ", ");
        put_tool(&t, &a->tools[i]);
    }
    text_print(&t, "], ");
    if (a->sampling.grammar == GIST_GBNF) {
        text_print(&t, "\"grammar\": ");
        json_write_text(&t, a->sampling.grammar_text);
    } else {
        text_print(&t, "\"schema\": ");
        text_add(&t, a->sampling.grammar_text, a->sampling.grammar_len);
    }
    text_print(&t, "}");
    ret = t.lost ? NULL : mem_copy(m, t.bytes, t.len);
    text_fini(&t);
    return ret;
}
