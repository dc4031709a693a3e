/* http/say_openai.c - chat completions and completions. */
#include "http/say.h"

#include <stdio.h>

/* A context or pool that is full cuts an answer off as max_tokens does. */
static const char *finish_reason(enum gist_reason r)
{
    return r == GIST_END_OF_TEXT || r == GIST_STOP ? "stop" : "length";
}

/* Whoever calls waits for what comes of it. */
static const char *chat_reason(const struct job_choice *c)
{
    bool ended = c->reason == GIST_END_OF_TEXT || c->reason == GIST_STOP;

    return c->calls && ended ? "tool_calls" : finish_reason(c->reason);
}

static struct json_object *usage(const struct job *j)
{
    const struct job_usage *u = &j->usage;

    return json_make("{s:I, s:I, s:I, s:{s:I}, s:o}", "prompt_tokens", (int64_t)u->prompt,
                     "completion_tokens", (int64_t)u->generated, "total_tokens",
                     (int64_t)u->prompt + (int64_t)u->generated, "prompt_tokens_details",
                     "cached_tokens", (int64_t)say_cached(j), "gistd", say_gistd(j));
}

/* The same in each chunk: clients tell by `id` what belongs together. */
static struct json_object *head(const struct job *j, const char *prefix, const char *object)
{
    char id[48];

    (void)snprintf(id, sizeof(id), "%s-%s", prefix, j->id);
    return json_make("{s:s, s:s, s:I, s:s}", "id", id, "object", object, "created",
                     (int64_t)j->created_s, "model", j->model);
}

/* A chunk with one choice, which it takes over. Who asked for usage gets a null of it in each chunk
 * before the last, as from OpenAI. */
static void chunk(struct job *j, struct json_object *o, struct json_object *choice)
{
    int r = json_set(o, "choices", json_make("[o]", choice));

    if (j->ask->with_usage)
        r |= json_set_null(o, "usage");
    j->out.lost |= r != 0;
    say_event(j, NULL, o);
}

/* Numbers come in a chunk of their own, without choices, and only to who asked: others read the
 * first choice of every chunk. */
static void end_with_usage(struct job *j, struct json_object *o)
{
    if (j->ask->with_usage) {
        j->out.lost |=
            json_set(o, "choices", json_make("[]")) != 0 || json_set(o, "usage", usage(j)) != 0;
        say_event(j, NULL, o);
    } else {
        json_free(o);
    }
    text_print(&j->out, "data: [DONE]\n\n");
}

/* A status can't be taken back any more. Clients know an object `error` in a chunk, and end at
 * [DONE]. */
static void stream_error(struct job *j)
{
    say_event(j, NULL, say_openai_refusal(&j->problem));
    text_print(&j->out, "data: [DONE]\n\n");
}

/* All answers, each made by one(), behind a head. */
static struct json_object *whole(const struct job *j, struct json_object *o,
                                 struct json_object *(*one)(const struct job *, size_t))
{
    struct json_object *choices = json_make("[]");
    int r = 0;

    for (size_t i = 0; i < j->n_choices; i++)
        r |= json_add(choices, one(j, i));
    r |= json_set(o, "choices", choices);
    r |= json_set(o, "usage", usage(j));
    if (r == 0)
        return o;
    json_free(o);
    return NULL;
}

/* --- chat ------------------------------------------------------------------------------------- */

static struct json_object *chat_logprobs(struct json_object *content)
{
    return json_make("{s:o, s:n}", "content", content, "refusal");
}

static void chat_chunk(struct job *j, struct json_object *delta, const char *reason)
{
    struct json_object *said = say_take_logprobs(j),
                       *o = json_make("{s:I, s:o, s:n, s:s?}", "index", (int64_t)j->choice, "delta",
                                      delta, "logprobs", "finish_reason", reason);

    if (said)
        o = json_with(o, "logprobs", chat_logprobs(said));
    chunk(j, head(j, "chatcmpl", "chat.completion.chunk"), o);
}

static void chat_choice(struct job *j)
{
    chat_chunk(j, json_make("{s:s, s:s}", "role", "assistant", "content", ""), NULL);
}

static void chat_text(struct job *j, const char *text, size_t len)
{
    chat_chunk(j, json_make("{s:s%}", "content", text, len), NULL);
}

static struct json_object *chat_call(const struct json_object *call)
{
    char id[80];

    (void)snprintf(id, sizeof(id), "call_%s", json_text(json_get(call, "id")));
    return json_make("{s:s, s:s, s:{s:s, s:o}}", "id", id, "type", "function", "function", "name",
                     json_text(json_get(call, "name")), "arguments", say_arguments_text(call));
}

/* All of it at once: half a call is of use to nobody. */
static void chat_say_call(struct job *j, const struct json_object *call)
{
    struct json_object *o = chat_call(call);

    if (json_set(o, "index", json_make("I", (int64_t)json_len(say_choice(j)->calls))) < 0)
        j->out.lost = true;
    chat_chunk(j, json_make("{s:[o]}", "tool_calls", o), NULL);
}

static void chat_choice_end(struct job *j)
{
    chat_chunk(j, json_make("{}"), chat_reason(say_choice(j)));
}

static void chat_end(struct job *j)
{
    end_with_usage(j, head(j, "chatcmpl", "chat.completion.chunk"));
}

static struct json_object *chat_one(const struct job *j, size_t i)
{
    const struct job_choice *c = &j->choices[i];
    struct json_object *message =
                           json_make("{s:s, s:n, s:n}", "role", "assistant", "content", "refusal"),
                       *o;

    if (!c->calls || c->text.len > 0)
        message = json_with(message, "content", say_text(c));
    if (c->calls)
        message = json_with(message, "tool_calls", say_calls(c, chat_call));
    o = json_make("{s:I, s:o, s:n, s:s}", "index", (int64_t)i, "message", message, "logprobs",
                  "finish_reason", chat_reason(c));
    return c->logprobs ? json_with(o, "logprobs", chat_logprobs(json_share(c->logprobs))) : o;
}

static struct json_object *chat_whole(const struct job *j)
{
    return whole(j, head(j, "chatcmpl", "chat.completion"), chat_one);
}

const struct voice say_chat = { .stream_type = "text/event-stream",
                                .begin = say_nothing,
                                .choice = chat_choice,
                                .text = chat_text,
                                .call = chat_say_call,
                                .choice_end = chat_choice_end,
                                .end = chat_end,
                                .keep_alive = say_comment,
                                .error = stream_error,
                                .whole = chat_whole,
                                .refusal = say_openai_refusal };

/* --- completions ------------------------------------------------------------------------------ */

/* Behind what stands before it in the answer; content is taken over. */
static struct json_object *text_logprobs(struct json_object *content, size_t offset)
{
    struct json_object *o = logprobs_flat(content, offset);

    json_free(content);
    return o;
}

static void text_chunk(struct job *j, const char *text, size_t len, const char *reason)
{
    struct json_object *said = say_take_logprobs(j),
                       *o = json_make("{s:I, s:s%, s:n, s:s?}", "index", (int64_t)j->choice, "text",
                                      text, len, "logprobs", "finish_reason", reason);

    if (said)
        o = json_with(o, "logprobs", text_logprobs(said, say_choice(j)->n_text));
    chunk(j, head(j, "cmpl", "text_completion"), o);
}

static void text_text(struct job *j, const char *text, size_t len)
{
    text_chunk(j, text, len, NULL);
}

static void text_choice_end(struct job *j)
{
    text_chunk(j, "", 0, finish_reason(say_choice(j)->reason));
}

static void text_end(struct job *j)
{
    end_with_usage(j, head(j, "cmpl", "text_completion"));
}

static struct json_object *text_one(const struct job *j, size_t i)
{
    const struct job_choice *c = &j->choices[i];
    size_t before = j->ask->echo ? j->ask->prompts[i / j->ask->n].len : 0;
    struct json_object *o =
        json_make("{s:I, s:o, s:n, s:s}", "index", (int64_t)i, "text", say_text(c), "logprobs",
                  "finish_reason", finish_reason(c->reason));

    return c->logprobs ? json_with(o, "logprobs", text_logprobs(json_share(c->logprobs), before))
                       : o;
}

static struct json_object *text_whole(const struct job *j)
{
    return whole(j, head(j, "cmpl", "text_completion"), text_one);
}

const struct voice say_completions = { .stream_type = "text/event-stream",
                                       .begin = say_nothing,
                                       .choice = say_nothing,
                                       .text = text_text,
                                       .choice_end = text_choice_end,
                                       .end = text_end,
                                       .keep_alive = say_comment,
                                       .error = stream_error,
                                       .whole = text_whole,
                                       .refusal = say_openai_refusal };
