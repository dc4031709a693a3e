/* http/read_openai.c - chat completions, completions and responses. */
#include "http/read.h"

#include "http/tools.h"

#include <string.h>

/* Of a chat the whole rest of the context, of a completion what OpenAI says. */
#define COMPLETION_TOKENS 16u

static const char *const text_parts[] = { "text", "input_text", "output_text", NULL };

/* OpenAI's fields, and those of llama-server's that say more: ignore_eos, top_k, min_p,
 * repeat_penalty. */
static int read_sampling(struct ask *a, const struct json_object *o, struct problem *p)
{
    struct gist_sampling *s = &a->sampling;
    bool go_on = false; /* behind the end of the text, for measurements */

    s->temperature = 1;
    if (field_bool(o, "ignore_eos", &go_on, p) < 0 ||
        field_real(o, "temperature", 0, 2, &s->temperature, p) < 0 ||
        field_real(o, "top_p", 0, 1, &s->top_p, p) < 0 ||
        field_count(o, "top_k", 0, 1u << 20, &s->top_k, p) < 0 ||
        field_real(o, "min_p", 0, 1, &s->min_p, p) < 0 ||
        field_real(o, "repeat_penalty", 0, 10, &s->repeat_penalty, p) < 0 ||
        field_count(o, "repeat_last_n", 0, 1u << 20, &s->repeat_last_n, p) < 0)
        return -1;
    s->ignore_eog = go_on;
    /* A penalty over no tokens would be none; 64 is what llama-server and Ollama look back. */
    if (s->repeat_penalty != 0 && s->repeat_last_n == 0)
        s->repeat_last_n = 64;
    if (field_refuse(o, "presence_penalty", "use `repeat_penalty`", p) < 0 ||
        field_refuse(o, "frequency_penalty", "use `repeat_penalty`", p) < 0 ||
        field_refuse(o, "logit_bias", NULL, p) < 0)
        return -1;
    return 0;
}

/* A name, of which "auto" and "none" are no obligation, or one function. */
static int read_tool_choice(struct ask *a, const struct json_object *choice, struct problem *p)
{
    const char *word = json_kind(choice) == JSON_STRING ? json_text(choice) : "", *name = NULL;
    const struct json_object *function = NULL;

    if (!choice || strcmp(word, "auto") == 0 || strcmp(word, "none") == 0)
        return 0;
    if (strcmp(word, "required") == 0)
        return tools_must(a, NULL, p);
    if (json_kind(choice) == JSON_OBJECT &&
        (field_object(choice, "function", &function, p) < 0 ||
         field_text(function ? function : choice, "name", &name, p) < 0))
        return -1;
    if (!name)
        return problem_set(p, PROBLEM_INVALID, "tool_choice",
                           "`tool_choice` is not understood: \"none\", \"auto\", \"required\" or a "
                           "function's name is expected");
    return tools_must(a, name, p);
}

/* Before the messages. Tools that are not to be called are not offered. */
static int read_tools(struct ask *a, const struct json_object *o, struct problem *p)
{
    const struct json_object *choice = json_get(o, "tool_choice");

    if (field_refuse(o, "functions", "use `tools`", p) < 0)
        return -1;
    if (json_kind(choice) == JSON_STRING && strcmp(json_text(choice), "none") == 0)
        return 0;
    return tools_read(a, o, "parameters", p) < 0 ? -1 : read_tool_choice(a, choice, p);
}

/* Behind all else. */
static int read_tools_end(struct ask *a, const struct json_object *o, struct problem *p)
{
    bool several = true;

    if (field_bool(o, "parallel_tool_calls", &several, p) < 0 || (!several && tools_one(a, p) < 0))
        return -1;
    return tools_check(a, p);
}

/* A number here, and not true or false as in a chat. 0 asks for the chosen tokens alone, so "not
 * said" is another value. */
static int read_text_logprobs(struct ask *a, const struct json_object *o, struct problem *p)
{
    uint32_t n = UINT32_MAX;

    if (json_kind(json_get(o, "logprobs")) == JSON_BOOL)
        return field_refuse(o, "logprobs", "say of how many tokens, from 0 to 20", p);
    if (field_count(o, "logprobs", 0, READ_LOGPROBS_MAX, &n, p) < 0)
        return -1;
    if (n != UINT32_MAX)
        read_want_logprobs(a, n);
    return 0;
}

/* Of llama-server: GBNF, in place of a format. */
static int read_grammar(struct ask *a, const struct json_object *o, struct problem *p)
{
    const char *text = NULL;

    if (field_text(o, "grammar", &text, p) < 0 || !text || !*text)
        return p->kind ? -1 : 0;
    if (a->sampling.grammar != GIST_ANY_TEXT)
        return problem_set(p, PROBLEM_INVALID, "grammar",
                           "`grammar` and `response_format` are both there: leave one out");
    a->sampling.grammar = GIST_GBNF;
    a->sampling.grammar_text = text;
    a->sampling.grammar_len = strlen(text);
    return 0;
}

static int read_stream_options(struct ask *a, const struct json_object *o, struct problem *p)
{
    const struct json_object *options;

    if (field_object(o, "stream_options", &options, p) < 0)
        return -1;
    return options ? field_bool(options, "include_usage", &a->with_usage, p) : 0;
}

/* --- messages --------------------------------------------------------------------------------- */

/* The template's roles; "developer" is what "system" is called by newer models. */
static int read_role(const struct json_object *m, const char **ret, struct problem *p)
{
    const char *role = NULL;

    if (field_text(m, "role", &role, p) < 0)
        return -1;
    if (role && strcmp(role, "developer") == 0)
        role = "system";
    if (role && (strcmp(role, "system") == 0 || strcmp(role, "user") == 0 ||
                 strcmp(role, "assistant") == 0 || strcmp(role, "tool") == 0)) {
        *ret = role;
        return 0;
    }
    if (!role)
        return problem_set(p, PROBLEM_INVALID, "messages", "a message has no `role`");
    return problem_set(p, PROBLEM_INVALID, "messages",
                       "a message has the role \"%s\": \"system\", \"user\", \"assistant\" or "
                       "\"tool\" is expected",
                       role);
}

static int read_message(struct ask *a, const struct json_object *m, const char *name,
                        struct problem *p)
{
    const char *role = NULL, *text;

    if (json_kind(m) != JSON_OBJECT)
        return problem_set(p, PROBLEM_INVALID, name, "`%s` holds %s: an object is expected", name,
                           field_type(m));
    if (read_role(m, &role, p) < 0 ||
        read_content(a, json_get(m, "content"), text_parts, "content", &text, p) < 0)
        return -1;
    /* Calls are a turn also where nothing is said beside them. */
    if ((*text || json_len(json_get(m, "tool_calls")) == 0) && ask_message(a, role, text, p) < 0)
        return -1;
    return strcmp(role, "assistant") == 0 ? tools_read_calls(a, m, p)
                                          : field_refuse(m, "tool_calls", NULL, p);
}

static int read_messages_of(struct ask *a, const struct json_object *list, const char *name,
                            struct problem *p)
{
    for (size_t i = 0; i < json_len(list); i++)
        if (read_message(a, json_at(list, i), name, p) < 0)
            return -1;
    return 0;
}

/* Tools before messages, since their message comes first; what excludes what is checked at the end.
 */
int read_chat_completions(struct ask *a, struct problem *p)
{
    const struct json_object *o = a->root, *list;

    if (read_common(a, o, p) < 0 || read_sampling(a, o, p) < 0 || read_tools(a, o, p) < 0 ||
        read_format(a, o, "response_format", "json_schema", p) < 0 || read_grammar(a, o, p) < 0 ||
        read_logprobs(a, o, p) < 0 || field_refuse(o, "audio", NULL, p) < 0 ||
        read_stops(a, o, "stop", p) < 0 || read_stream_options(a, o, p) < 0 ||
        field_count(o, "n", 1, ASK_CHOICES_MAX, &a->n, p) < 0 ||
        field_count(o, "max_tokens", 1, 1u << 30, &a->sampling.max_tokens, p) < 0 ||
        field_count(o, "max_completion_tokens", 1, 1u << 30, &a->sampling.max_tokens, p) < 0 ||
        field_array(o, "messages", &list, p) < 0)
        return -1;
    if (read_messages_of(a, list, "messages", p) < 0 || ask_chat(a, p) < 0)
        return -1;
    return read_tools_end(a, o, p);
}

/* --- completions ------------------------------------------------------------------------------ */

static int read_prompt(struct ask *a, const struct json_object *v, struct ask_prompt *to,
                       struct problem *p)
{
    if (json_kind(v) == JSON_STRING && json_len(v) > 0) {
        to->text = json_text(v);
        to->len = json_len(v);
        return 0;
    }
    if (json_kind(v) == JSON_ARRAY && json_len(v) > 0) {
        to->n_ids = json_len(v);
        return field_ids(v, "prompt", &a->mem, &to->ids, p);
    }
    return problem_set(p, PROBLEM_INVALID, "prompt",
                       "`prompt` is %s: a string, an array of strings or of token ids is expected",
                       !v                                                          ? "missing"
                       : json_kind(v) == JSON_ARRAY || json_kind(v) == JSON_STRING ? "empty"
                                                                                   : field_type(v));
}

/* A list of ids is one prompt, a list of anything else has one each. */
static int read_prompts(struct ask *a, const struct json_object *v, struct problem *p)
{
    bool several =
        json_kind(v) == JSON_ARRAY && json_len(v) > 0 && json_kind(json_at(v, 0)) != JSON_INTEGER;
    size_t n = several ? json_len(v) : 1;

    if (n > ASK_PROMPTS_MAX)
        return problem_set(p, PROBLEM_INVALID, "prompt",
                           "`prompt` has %zu prompts: at most %u are allowed in one request", n,
                           ASK_PROMPTS_MAX);
    a->prompts = mem_new(&a->mem, n, sizeof(*a->prompts));
    if (!a->prompts)
        return problem_no_memory(p);
    a->n_prompts = n;
    for (size_t i = 0; i < n; i++)
        if (read_prompt(a, several ? json_at(v, i) : v, &a->prompts[i], p) < 0)
            return -1;
    return 0;
}

/* Their text would have to be asked for, and the client knows it. */
static int refuse_echo_of_ids(const struct ask *a, struct problem *p)
{
    for (size_t i = 0; a->echo && i < a->n_prompts; i++)
        if (a->prompts[i].n_ids > 0)
            return problem_set(p, PROBLEM_UNSUPPORTED, "echo",
                               "`echo` is not supported with token ids: send the prompt as text");
    return 0;
}

int read_completions(struct ask *a, struct problem *p)
{
    const struct json_object *o = a->root;
    uint32_t best_of = 1;

    a->sampling.max_tokens = COMPLETION_TOKENS;
    if (read_common(a, o, p) < 0 || read_sampling(a, o, p) < 0 || read_stops(a, o, "stop", p) < 0 ||
        read_stream_options(a, o, p) < 0 || field_refuse(o, "suffix", NULL, p) < 0 ||
        read_text_logprobs(a, o, p) < 0 ||
        read_format(a, o, "response_format", "json_schema", p) < 0 || read_grammar(a, o, p) < 0 ||
        field_count(o, "n", 1, ASK_CHOICES_MAX, &a->n, p) < 0 ||
        field_count(o, "best_of", 1, ASK_CHOICES_MAX, &best_of, p) < 0 ||
        field_bool(o, "echo", &a->echo, p) < 0 ||
        field_count(o, "max_tokens", 1, 1u << 30, &a->sampling.max_tokens, p) < 0 ||
        read_prompts(a, json_get(o, "prompt"), p) < 0)
        return -1;
    /* Answers that are written to be thrown away would cost as much as those that are told. */
    if (best_of > a->n)
        return problem_set(p, PROBLEM_UNSUPPORTED, "best_of",
                           "`best_of` above `n` is not supported: leave it out");
    if (a->n_prompts * a->n > ASK_CHOICES_MAX)
        return problem_set(p, PROBLEM_INVALID, "n",
                           "%zu prompts with %u answers each: at most %u answers are allowed",
                           a->n_prompts, a->n, ASK_CHOICES_MAX);
    return refuse_echo_of_ids(a, p);
}

/* --- responses -------------------------------------------------------------------------------- */

/* A call and what came of it are items of their own. Calls that follow each other are of one turn,
 * but here each has its own: a conversation that is sent again is then the same. */
static int read_call_item(struct ask *a, const struct json_object *item, struct problem *p)
{
    struct text line = { 0 };
    const char *name = NULL;

    if (field_text(item, "name", &name, p) < 0 ||
        tools_call(&line, name, json_get(item, "arguments"), p) < 0) {
        text_fini(&line);
        return -1;
    }
    return tools_calls(a, &line, p);
}

/* Without a type it is a message, as clients write the short form. */
static int read_item(struct ask *a, const struct json_object *item, struct problem *p)
{
    const char *type = "message", *text;

    if (json_kind(item) == JSON_OBJECT && field_text(item, "type", &type, p) < 0)
        return -1;
    if (strcmp(type, "function_call") == 0)
        return read_call_item(a, item, p);
    if (strcmp(type, "function_call_output") == 0)
        return read_content(a, json_get(item, "output"), text_parts, "output", &text, p) < 0
                   ? -1
                   : ask_message(a, "tool", text, p);
    if (strcmp(type, "message") != 0)
        return problem_set(p, PROBLEM_UNSUPPORTED, "input",
                           "`input` has an item of type \"%s\": messages and calls of functions "
                           "are supported",
                           type);
    return read_message(a, item, "input", p);
}

/* Instructions are the system's message, ahead of all that the conversation brings. */
static int read_input(struct ask *a, const struct json_object *o, struct problem *p)
{
    const struct json_object *input = json_get(o, "input");
    const char *instructions = NULL;

    if (field_text(o, "instructions", &instructions, p) < 0 ||
        (instructions && ask_message(a, "system", instructions, p) < 0))
        return -1;
    if (json_kind(input) == JSON_STRING)
        return ask_message(a, "user", json_text(input), p) < 0 ? -1 : ask_chat(a, p);
    if (json_kind(input) != JSON_ARRAY || json_len(input) == 0)
        return problem_set(p, PROBLEM_INVALID, "input",
                           "`input` is %s: a string or an array of messages is expected",
                           input ? json_kind(input) == JSON_ARRAY ? "empty" : field_type(input)
                                 : "missing");
    for (size_t i = 0; i < json_len(input); i++)
        if (read_item(a, json_at(input, i), p) < 0)
            return -1;
    return ask_chat(a, p);
}

/* Its clients ask for them by the name of what they are to be included in. */
static int read_included(struct ask *a, const struct json_object *o, struct problem *p)
{
    const struct json_object *list;
    uint32_t n = 0;
    bool wanted = false;

    if (field_array(o, "include", &list, p) < 0 ||
        field_count(o, "top_logprobs", 0, READ_LOGPROBS_MAX, &n, p) < 0)
        return -1;
    for (size_t i = 0; i < json_len(list); i++)
        wanted |= json_kind(json_at(list, i)) == JSON_STRING &&
                  strcmp(json_text(json_at(list, i)), "message.output_text.logprobs") == 0;
    if (n > 0 && !wanted)
        return problem_set(p, PROBLEM_INVALID, "top_logprobs",
                           "`top_logprobs` needs \"include\": [\"message.output_text.logprobs\"]");
    if (wanted)
        read_want_logprobs(a, n);
    return 0;
}

int read_responses(struct ask *a, struct problem *p)
{
    const struct json_object *o = a->root, *text;

    if (read_common(a, o, p) < 0 || read_sampling(a, o, p) < 0 || read_tools(a, o, p) < 0 ||
        field_object(o, "text", &text, p) < 0 ||
        (text && read_format(a, text, "format", NULL, p) < 0) ||
        field_refuse(o, "previous_response_id",
                     "send the whole conversation: what is known of it costs nothing", p) < 0 ||
        field_refuse(o, "conversation", "send the whole conversation", p) < 0 ||
        field_refuse(o, "prompt", NULL, p) < 0 || field_refuse(o, "background", NULL, p) < 0 ||
        read_included(a, o, p) < 0 ||
        field_count(o, "max_output_tokens", 1, 1u << 30, &a->sampling.max_tokens, p) < 0)
        return -1;
    return read_input(a, o, p) < 0 ? -1 : read_tools_end(a, o, p);
}
