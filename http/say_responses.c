/* http/say_responses.c - OpenAI's responses: one message of one text, calls behind it, and events
 * with numbers. There is a message when something is said, or nothing is called.
 */
#include "http/say.h"

#include <stdio.h>
#include <string.h>

static bool is_cut(const struct job *j)
{
    enum gist_reason r = j->choices[0].reason;

    return r != GIST_END_OF_TEXT && r != GIST_STOP;
}

/* There is one message, so its id is the answer's. */
static const char *item_id(const struct job *j, char ret[48])
{
    (void)snprintf(ret, 48, "msg_%s", j->id);
    return ret;
}

/* A list of those that are wanted, and else an empty one; v is taken over. */
static struct json_object *list_of(struct json_object *v)
{
    return v ? v : json_make("[]");
}

static struct json_object *all_logprobs(const struct job *j)
{
    return list_of(json_share(j->choices[0].logprobs));
}

/* The one part of the message; without its text where it has just begun. */
static struct json_object *part(const struct job *j, bool with_text)
{
    return json_make("{s:s, s:o, s:[], s:o}", "type", "output_text", "text",
                     with_text ? say_text(&j->choices[0]) : json_make("s", ""), "annotations",
                     "logprobs", with_text ? all_logprobs(j) : json_make("[]"));
}

/* The message; parts are taken over. */
static struct json_object *item(const struct job *j, const char *status, struct json_object *parts)
{
    char id[48];

    return json_make("{s:s, s:s, s:s, s:s, s:o}", "id", item_id(j, id), "type", "message", "status",
                     status, "role", "assistant", "content", parts);
}

static struct json_object *usage(const struct job *j)
{
    const struct job_usage *u = &j->usage;

    return json_make("{s:I, s:{s:I}, s:I, s:{s:I}, s:I, s:o}", "input_tokens", (int64_t)u->prompt,
                     "input_tokens_details", "cached_tokens", (int64_t)say_cached(j),
                     "output_tokens", (int64_t)u->generated, "output_tokens_details",
                     "reasoning_tokens", (int64_t)0, "total_tokens",
                     (int64_t)u->prompt + (int64_t)u->generated, "gistd", say_gistd(j));
}

static struct json_object *tools(const struct job *j)
{
    return j->ask->n_tools > 0 ? json_share(json_get(j->ask->root, "tools")) : json_make("[]");
}

/* output is taken over. What is null here is put in by who has it. */
static struct json_object *response(const struct job *j, const char *status,
                                    struct json_object *output)
{
    uint32_t max = j->ask->sampling.max_tokens; /* 0: none */
    struct json_object *o;
    char id[48];

    (void)snprintf(id, sizeof(id), "resp_%s", j->id);
    o = json_make("{s:s, s:s, s:I, s:s, s:n, s:n, s:n, s:n, s:{}, s:s, s:o, s:b, s:n, s:f, s:f,"
                  " s:s, s:o, s:s, s:n}",
                  "id", id, "object", "response", "created_at", (int64_t)j->created_s, "status",
                  status, "error", "incomplete_details", "instructions", "max_output_tokens",
                  "metadata", "model", j->model, "output", output, "parallel_tool_calls", 0,
                  "previous_response_id", "temperature", (double)j->ask->sampling.temperature,
                  "top_p", (double)j->ask->sampling.top_p, "tool_choice",
                  j->ask->n_tools == 0 ? "none"
                  : j->ask->must_call  ? "required"
                                       : "auto",
                  "tools", tools(j), "truncation", "disabled", "usage");
    return max ? json_with(o, "max_output_tokens", json_make("I", (int64_t)max)) : o;
}

static struct json_object *running(const struct job *j)
{
    return response(j, "in_progress", json_make("[]"));
}

static struct json_object *done_item(const struct job *j)
{
    return item(j, is_cut(j) ? "incomplete" : "completed", json_make("[o]", part(j, true)));
}

/* Behind the `fc_` or `call_` of either of its names. */
static const char *call_id(const struct json_object *call, const char *prefix, char ret[80])
{
    (void)snprintf(ret, 80, "%s_%s", prefix, json_text(json_get(call, "id")));
    return ret;
}

/* arguments are taken over. */
static struct json_object *call_item(const struct json_object *call, const char *status,
                                     struct json_object *arguments)
{
    char id[80], name[80];

    return json_make("{s:s, s:s, s:s, s:s, s:o, s:s}", "type", "function_call", "id",
                     call_id(call, "fc", id), "call_id", call_id(call, "call", name), "name",
                     json_text(json_get(call, "name")), "arguments", arguments, "status", status);
}

static struct json_object *done_call(const struct json_object *call)
{
    return call_item(call, "completed", say_arguments_text(call));
}

static bool has_message(const struct job *j)
{
    return !j->choices[0].calls || j->choices[0].text.len > 0;
}

static struct json_object *whole(const struct job *j)
{
    struct json_object *output = json_make("[]"), *o;
    int r = has_message(j) ? json_add(output, done_item(j)) : 0;

    r |= json_join(output, say_calls(&j->choices[0], done_call));
    if (r < 0) {
        json_free(output);
        return NULL;
    }
    o = json_with(response(j, is_cut(j) ? "incomplete" : "completed", output), "usage", usage(j));
    return is_cut(j) ? json_with(o, "incomplete_details",
                                 json_make("{s:s}", "reason", "max_output_tokens"))
                     : o;
}

/* --- events ----------------------------------------------------------------------------------- */

/* body without its type and number. */
static void event(struct job *j, const char *type, struct json_object *body)
{
    if (json_set(body, "type", json_make("s", type)) < 0 ||
        json_set(body, "sequence_number", json_make("I", (int64_t)j->n_events++)) < 0)
        j->out.lost = true;
    say_event(j, type, body);
}

/* What events about the text have in common. */
static struct json_object *place(const struct job *j, bool in_part)
{
    char id[48];

    if (in_part)
        return json_make("{s:s, s:i, s:i}", "item_id", item_id(j, id), "output_index", 0,
                         "content_index", 0);
    return json_make("{s:i}", "output_index", 0);
}

static void event_with(struct job *j, const char *type, struct json_object *body, const char *name,
                       struct json_object *v)
{
    if (json_set(body, name, v) < 0)
        j->out.lost = true;
    event(j, type, body);
}

static void begin(struct job *j)
{
    event_with(j, "response.created", json_make("{}"), "response", running(j));
    event_with(j, "response.in_progress", json_make("{}"), "response", running(j));
}

/* Late, with the first text: where the answer is calls alone there is no message. */
static void begin_text(struct job *j)
{
    if (!j->in_text) {
        event_with(j, "response.output_item.added", place(j, false), "item",
                   item(j, "in_progress", json_make("[]")));
        event_with(j, "response.content_part.added", place(j, true), "part", part(j, false));
    }
    j->in_text = true;
}

static void text(struct job *j, const char *bytes, size_t len)
{
    struct json_object *o = place(j, true);

    begin_text(j);
    if (json_set(o, "logprobs", list_of(say_take_logprobs(j))) < 0)
        j->out.lost = true;
    event_with(j, "response.output_text.delta", o, "delta", json_make("s%", bytes, len));
}

static void end_text(struct job *j)
{
    struct json_object *o = place(j, true);

    begin_text(j);
    if (json_set(o, "logprobs", all_logprobs(j)) < 0)
        j->out.lost = true;
    event_with(j, "response.output_text.done", o, "text", say_text(&j->choices[0]));
    event_with(j, "response.content_part.done", place(j, true), "part", part(j, true));
    event_with(j, "response.output_item.done", place(j, false), "item", done_item(j));
}

static struct json_object *call_place(const struct json_object *call, int at)
{
    char id[80];

    return json_make("{s:s, s:i}", "item_id", call_id(call, "fc", id), "output_index", at);
}

/* The four events that a client expects of a call, at once: its arguments came whole. */
static void say_call(struct job *j, const struct json_object *call, int at)
{
    event_with(j, "response.output_item.added", json_make("{s:i}", "output_index", at), "item",
               call_item(call, "in_progress", json_make("s", "")));
    event_with(j, "response.function_call_arguments.delta", call_place(call, at), "delta",
               say_arguments_text(call));
    event_with(j, "response.function_call_arguments.done", call_place(call, at), "arguments",
               say_arguments_text(call));
    event_with(j, "response.output_item.done", json_make("{s:i}", "output_index", at), "item",
               done_call(call));
}

/* Calls are told at the end: what is said behind one belongs to the message before it. */
static void no_call_yet(struct job *j, const struct json_object *call)
{
    (void)j, (void)call;
}

/* Everything is said again in the last event: a client may listen to that one alone. */
static void end(struct job *j)
{
    const struct json_object *calls = j->choices[0].calls;

    if (has_message(j))
        end_text(j);
    for (size_t i = 0; i < json_len(calls); i++)
        say_call(j, json_at(calls, i), (int)i + has_message(j));
    event_with(j, is_cut(j) ? "response.incomplete" : "response.completed", json_make("{}"),
               "response", whole(j));
}

static void error(struct job *j)
{
    event(j, "error",
          json_make("{s:s?, s:s, s:n}", "code", problem_openai_code(&j->problem), "message",
                    j->problem.text, "param"));
}

const struct voice say_responses = { .stream_type = "text/event-stream",
                                     .keeps_text = true,
                                     .begin = begin,
                                     .choice = say_nothing,
                                     .text = text,
                                     .call = no_call_yet,
                                     .choice_end = say_nothing,
                                     .end = end,
                                     .keep_alive = say_comment,
                                     .error = error,
                                     .whole = whole,
                                     .refusal = say_openai_refusal };
