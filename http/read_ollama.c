/* http/read_ollama.c - chat and generate. */
#include "http/read.h"

#include "http/tools.h"

#include <string.h>

/* What Ollama takes where a request says nothing. */
static int read_options(struct ask *a, const struct json_object *o, struct problem *p)
{
    struct gist_sampling *s = &a->sampling;
    const struct json_object *v, *predict;

    a->stream = true;
    s->temperature = 0.8f;
    s->top_k = 40;
    s->top_p = 0.9f;
    s->repeat_penalty = 1.1f;
    s->repeat_last_n = 64;
    s->flags |= GIST_SET_REPEAT_PENALTY;
    if (read_common(a, o, p) < 0 || field_object(o, "options", &v, p) < 0)
        return -1;
    if (!v)
        return 0;
    if (field_real(v, "temperature", 0, 100, &s->temperature, p) < 0 ||
        field_count(v, "top_k", 0, 1u << 20, &s->top_k, p) < 0 ||
        field_real(v, "top_p", 0, 1, &s->top_p, p) < 0 ||
        field_real(v, "min_p", 0, 1, &s->min_p, p) < 0 ||
        field_real(v, "repeat_penalty", 0, 10, &s->repeat_penalty, p) < 0 ||
        field_count(v, "repeat_last_n", 0, 1u << 20, &s->repeat_last_n, p) < 0 ||
        field_refuse(v, "presence_penalty", "use `repeat_penalty`", p) < 0 ||
        field_refuse(v, "frequency_penalty", "use `repeat_penalty`", p) < 0 ||
        field_refuse(v, "mirostat", NULL, p) < 0 || read_stops(a, v, "stop", p) < 0)
        return -1;
    if (json_kind(json_get(v, "seed")) == JSON_INTEGER) {
        a->has_seed = true;
        a->sampling.seed = (uint64_t)json_integer(json_get(v, "seed"));
    }
    /* -1: until the end of the text; -2: until the context is full. */
    predict = json_get(v, "num_predict");
    if (json_kind(predict) == JSON_INTEGER && json_integer(predict) < 0)
        return 0;
    return field_count(v, "num_predict", 0, 1u << 30, &s->max_tokens, p);
}

/* "json", or a schema. */
static int read_format_of(struct ask *a, const struct json_object *o, struct problem *p)
{
    const struct json_object *v = json_get(o, "format");
    const char *name = "";

    if (json_kind(v) == JSON_OBJECT)
        return read_schema(a, v, p);
    if (field_text(o, "format", &name, p) < 0)
        return -1;
    if (strcmp(name, "json") == 0)
        return read_schema(a, NULL, p);
    return *name ? problem_set(p, PROBLEM_INVALID, "format",
                               "`format` is \"%s\": \"json\" or a JSON Schema is expected", name)
                 : 0;
}

static int read_others(struct ask *a, const struct json_object *o, struct problem *p)
{
    if (read_format_of(a, o, p) < 0 || field_refuse(o, "think", NULL, p) < 0 ||
        field_refuse(o, "images", NULL, p) < 0 || read_logprobs(a, o, p) < 0)
        return -1;
    return 0;
}

/* Contents are texts alone here, never lists of parts; pictures would be beside them. */
static int read_message(struct ask *a, const struct json_object *m, struct problem *p)
{
    const char *role = "", *text = "";

    if (json_kind(m) != JSON_OBJECT)
        return problem_set(p, PROBLEM_INVALID, "messages",
                           "`messages` holds %s: an object is expected", field_type(m));
    if (field_text(m, "role", &role, p) < 0 || field_text(m, "content", &text, p) < 0 ||
        field_refuse(m, "images", NULL, p) < 0)
        return -1;
    if (strcmp(role, "system") != 0 && strcmp(role, "user") != 0 &&
        strcmp(role, "assistant") != 0 && strcmp(role, "tool") != 0)
        return problem_set(p, PROBLEM_INVALID, "messages",
                           "a message has the role \"%s\": \"system\", \"user\", \"assistant\" or "
                           "\"tool\" is expected",
                           role);
    if ((*text || json_len(json_get(m, "tool_calls")) == 0) && ask_message(a, role, text, p) < 0)
        return -1;
    return strcmp(role, "assistant") == 0 ? tools_read_calls(a, m, p)
                                          : field_refuse(m, "tool_calls", NULL, p);
}

/* No message at all asks for the model to be loaded, which it is: the ask has no prompt. */
int read_ollama_chat(struct ask *a, struct problem *p)
{
    const struct json_object *o = a->root, *list;

    if (read_options(a, o, p) < 0 || read_others(a, o, p) < 0 ||
        field_array(o, "messages", &list, p) < 0)
        return -1;
    if (json_len(list) > 0 && tools_read(a, o, "parameters", p) < 0)
        return -1;
    for (size_t i = 0; i < json_len(list); i++)
        if (read_message(a, json_at(list, i), p) < 0)
            return -1;
    return a->prompts ? ask_chat(a, p) < 0 ? -1 : tools_check(a, p) : 0;
}

/* Without the chat template: the prompt is the model's text, and special tokens in it count
 * (http/job.c). */
static int read_raw(struct ask *a, const char *prompt, struct problem *p)
{
    a->prompts = mem_new(&a->mem, 1, sizeof(*a->prompts));
    if (!a->prompts)
        return problem_no_memory(p);
    a->prompts->text = prompt;
    a->prompts->len = strlen(prompt);
    a->n_prompts = 1;
    return 0;
}

/* A chat of one turn, unless it is raw. Without a prompt it asks whether the model is there. */
int read_ollama_generate(struct ask *a, struct problem *p)
{
    const char *prompt = "", *system = "";
    const struct json_object *o = a->root;
    bool raw = false;

    if (read_options(a, o, p) < 0 || read_others(a, o, p) < 0 ||
        field_refuse(o, "suffix", NULL, p) < 0 || field_refuse(o, "template", NULL, p) < 0 ||
        field_refuse(o, "tools", "use /api/chat", p) < 0 ||
        field_refuse(o, "context", "use /api/chat and send the conversation", p) < 0 ||
        field_bool(o, "raw", &raw, p) < 0 || field_text(o, "prompt", &prompt, p) < 0 ||
        field_text(o, "system", &system, p) < 0)
        return -1;
    if (!*prompt)
        return 0;
    if (raw)
        return read_raw(a, prompt, p);
    if ((*system && ask_message(a, "system", system, p) < 0) ||
        ask_message(a, "user", prompt, p) < 0)
        return -1;
    return ask_chat(a, p);
}
