/* http/read_anthropic.c - messages and count_tokens. */
#include "http/read.h"

#include <string.h>

static const char *const text_parts[] = { "text", NULL };

static int read_message(struct ask *a, const struct json_object *m, struct problem *p)
{
    const char *role = "", *text;

    if (json_kind(m) != JSON_OBJECT)
        return problem_set(p, PROBLEM_INVALID, "messages",
                           "`messages` holds %s: an object is expected", field_type(m));
    if (field_text(m, "role", &role, p) < 0 ||
        read_content(a, json_get(m, "content"), text_parts, "content", &text, p) < 0)
        return -1;
    if (strcmp(role, "user") != 0 && strcmp(role, "assistant") != 0 && strcmp(role, "system") != 0)
        return problem_set(p, PROBLEM_INVALID, "messages",
                           "a message has the role \"%s\": \"user\" or \"assistant\" is expected",
                           role);
    return ask_message(a, role, text, p);
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

static int read_both(struct ask *a, struct problem *p)
{
    const struct json_object *o = a->root, *list, *system = json_get(o, "system"), *choice;
    const char *text, *type = "";

    if (read_common(a, o, p) < 0 || field_object(o, "tool_choice", &choice, p) < 0 ||
        (choice && field_text(choice, "type", &type, p) < 0))
        return -1;
    if (strcmp(type, "none") != 0 &&
        field_refuse(o, "tools", "say \"tool_choice\": {\"type\": \"none\"}", p) < 0)
        return -1;
    if (field_refuse(o, "mcp_servers", NULL, p) < 0 || field_array(o, "messages", &list, p) < 0 ||
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
    return 0;
}

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

int read_count_tokens(struct ask *a, struct problem *p)
{
    int r = read_both(a, p);

    a->count_only = true;
    a->stream = false;
    return r;
}
