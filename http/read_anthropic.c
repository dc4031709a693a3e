/* http/read_anthropic.c - messages and count_tokens. */
#include "http/read.h"

#include "http/tools.h"

#include <string.h>

static const char *const text_parts[] = { "text", NULL };

/* "" of what is no block or has no type: no type is called that. */
static const char *type_of(const struct json_object *block)
{
    const struct json_object *type =
        json_kind(block) == JSON_OBJECT ? json_get(block, "type") : NULL;

    return json_kind(type) == JSON_STRING ? json_text(type) : "";
}

/* Looked for first: a message of texts alone is read by read_content, as other APIs' are. */
static bool has_block(const struct json_object *content, const char *type)
{
    for (size_t i = 0; json_kind(content) == JSON_ARRAY && i < json_len(content); i++)
        if (strcmp(type_of(json_at(content, i)), type) == 0)
            return true;
    return false;
}

/* Which call it belongs to is not told to the model: templates have results in the order of calls.
 */
static int read_result(struct ask *a, const struct json_object *block, struct problem *p)
{
    const char *text;

    if (read_content(a, json_get(block, "content"), text_parts, "content", &text, p) < 0)
        return -1;
    return ask_message(a, "tool", text, p);
}

/* Blocks of calls or of results. Texts beside them are one message, behind results and before
 * calls, which is the order that they have to have. */
static int read_blocks(struct ask *a, const char *role, const struct json_object *content,
                       struct problem *p)
{
    struct text said = { 0 }, calls = { 0 };
    const char *name, *text;
    int r = 0;

    for (size_t i = 0; r == 0 && i < json_len(content); i++) {
        const struct json_object *block = json_at(content, i);
        const char *type = type_of(block);

        name = text = NULL;
        if (strcmp(type, "tool_result") == 0) {
            r = read_result(a, block, p);
        } else if (strcmp(type, "tool_use") == 0) {
            r = field_text(block, "name", &name, p);
            if (r == 0)
                r = tools_call(&calls, name, json_get(block, "input"), p);
        } else if (strcmp(type, "text") == 0) {
            r = field_text(block, "text", &text, p);
            text_add(&said, text ? text : "", text ? strlen(text) : 0);
        } else {
            r = problem_set(p, PROBLEM_UNSUPPORTED, "content",
                            "`content` has a part of type \"%s\": the model reads text alone",
                            type);
        }
    }
    if (r == 0 && (said.len > 0 || said.lost))
        r = ask_message(a, role, said.lost ? NULL : mem_copy(&a->mem, said.bytes, said.len), p);
    text_fini(&said);
    if (r == 0)
        return tools_calls(a, &calls, p);
    text_fini(&calls);
    return r;
}

static int read_message(struct ask *a, const struct json_object *m, struct problem *p)
{
    const char *role = "", *text = "";
    const struct json_object *content;
    bool blocks;

    if (json_kind(m) != JSON_OBJECT)
        return problem_set(p, PROBLEM_INVALID, "messages",
                           "`messages` holds %s: an object is expected", field_type(m));
    content = json_get(m, "content");
    blocks = has_block(content, "tool_use") || has_block(content, "tool_result");
    if (field_text(m, "role", &role, p) < 0 ||
        (!blocks && read_content(a, content, text_parts, "content", &text, p) < 0))
        return -1;
    if (strcmp(role, "user") != 0 && strcmp(role, "assistant") != 0 && strcmp(role, "system") != 0)
        return problem_set(p, PROBLEM_INVALID, "messages",
                           "a message has the role \"%s\": \"user\" or \"assistant\" is expected",
                           role);
    return blocks ? read_blocks(a, role, content, p) : ask_message(a, role, text, p);
}

/* "auto" and "none" are no obligation. */
static int read_tools(struct ask *a, const struct json_object *o, struct problem *p)
{
    const struct json_object *choice;
    const char *type = "auto", *name = NULL;

    if (field_object(o, "tool_choice", &choice, p) < 0 ||
        (choice &&
         (field_text(choice, "type", &type, p) < 0 || field_text(choice, "name", &name, p) < 0)))
        return -1;
    if (strcmp(type, "none") == 0)
        return 0;
    if (tools_read(a, o, "input_schema", p) < 0)
        return -1;
    if (strcmp(type, "any") == 0 || (strcmp(type, "tool") == 0 && name))
        return tools_must(a, strcmp(type, "tool") == 0 ? name : NULL, p);
    return strcmp(type, "auto") == 0
               ? 0
               : problem_set(p, PROBLEM_INVALID, "tool_choice",
                             "`tool_choice` is not understood: \"auto\", \"any\", \"none\" or "
                             "\"tool\" with a name is expected");
}

/* Behind all else. */
static int read_tools_end(struct ask *a, const struct json_object *o, struct problem *p)
{
    const struct json_object *choice;
    bool one = false;

    if (field_object(o, "tool_choice", &choice, p) < 0 ||
        (choice && field_bool(choice, "disable_parallel_tool_use", &one, p) < 0) ||
        (one && tools_one(a, p) < 0))
        return -1;
    return tools_check(a, p);
}

/* The last message is the assistant's: the answer goes on with it. */
static void take_prefill(struct ask *a)
{
    struct ask_prompt *prompt = a->prompts;
    const struct gist_message *last = &prompt->msgs[prompt->n_msgs - 1];

    if (prompt->n_msgs < 2 || strcmp(last->role, "assistant") != 0)
        return;
    prompt->text = last->text;
    prompt->len = strlen(last->text);
    prompt->n_msgs--;
}

/* What a message and the count of its tokens have in common, so that the count is of what would be
 * read. */
static int read_both(struct ask *a, struct problem *p)
{
    const struct json_object *o = a->root, *list, *system = json_get(o, "system");
    const char *text;

    if (read_common(a, o, p) < 0 || read_tools(a, o, p) < 0 ||
        field_refuse(o, "mcp_servers", NULL, p) < 0 || field_array(o, "messages", &list, p) < 0 ||
        read_content(a, system, text_parts, "system", &text, p) < 0 ||
        (*text && ask_message(a, "system", text, p) < 0))
        return -1;
    if (!list || json_len(list) == 0)
        return problem_set(p, PROBLEM_INVALID, "messages",
                           "`messages` is missing or empty: at least one message is needed");
    for (size_t i = 0; i < json_len(list); i++)
        if (read_message(a, json_at(list, i), p) < 0)
            return -1;
    if (ask_chat(a, p) < 0)
        return -1;
    take_prefill(a);
    return read_tools_end(a, o, p);
}

/* "adaptive" leaves it to the model, and this one has none. */
static int read_thinking(const struct json_object *o, struct problem *p)
{
    const struct json_object *thinking;
    const char *type = "disabled";

    if (field_object(o, "thinking", &thinking, p) < 0 ||
        (thinking && field_text(thinking, "type", &type, p) < 0))
        return -1;
    if (strcmp(type, "disabled") != 0 && strcmp(type, "adaptive") != 0)
        return problem_set(p, PROBLEM_UNSUPPORTED, "thinking",
                           "`thinking` is not supported: leave it out");
    return 0;
}

/* Beside `effort` and the like, which ask for nothing here. */
static int read_formats(struct ask *a, const struct json_object *o, struct problem *p)
{
    const struct json_object *config;

    if (read_format(a, o, "output_format", NULL, p) < 0 ||
        field_object(o, "output_config", &config, p) < 0)
        return -1;
    return config ? read_format(a, config, "format", NULL, p) : 0;
}

int read_messages(struct ask *a, struct problem *p)
{
    struct gist_sampling *s = &a->sampling;
    const struct json_object *o = a->root;

    s->temperature = 1;
    if (field_real(o, "temperature", 0, 1, &s->temperature, p) < 0 ||
        field_real(o, "top_p", 0, 1, &s->top_p, p) < 0 ||
        field_count(o, "top_k", 0, 1u << 20, &s->top_k, p) < 0 || read_thinking(o, p) < 0 ||
        read_formats(a, o, p) < 0 || read_stops(a, o, "stop_sequences", p) < 0 ||
        field_count(o, "max_tokens", 1, 1u << 30, &s->max_tokens, p) < 0)
        return -1;
    if (!s->max_tokens)
        return problem_set(p, PROBLEM_INVALID, "max_tokens",
                           "`max_tokens` is missing: say how long the answer may be");
    return read_both(a, p);
}

/* Read as the message would be, since its tools and system text count as well. */
int read_count_tokens(struct ask *a, struct problem *p)
{
    int r = read_both(a, p);

    a->count_only = true;
    a->stream = false;
    return r;
}
