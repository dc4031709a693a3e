/* http/say_ollama.c - chat and generate: a line of JSON for each piece.
 *
 * Its clients read every line as JSON: there is nothing to say that would keep a connection alive.
 */
#include "http/say.h"

#include "base/clock.h"

#include <time.h>

/* The time of this very piece, as Ollama has it. */
static struct json_object *head(const struct job *j)
{
    char when[48];
    struct tm tm;
    struct timespec t;

    (void)clock_gettime(CLOCK_REALTIME, &t);
    (void)gmtime_r(&t.tv_sec, &tm);
    (void)strftime(when, sizeof(when), "%Y-%m-%dT%H:%M:%SZ", &tm);
    return json_make("{s:s, s:s}", "model", j->model, "created_at", when);
}

/* A chat's message, or a text; text is taken over. */
static struct json_object *piece(const struct job *j, bool chat, struct json_object *text,
                                 bool done)
{
    struct json_object *o = head(j);
    int r;

    if (chat)
        r = json_set(o, "message", json_make("{s:s, s:o}", "role", "assistant", "content", text));
    else
        r = json_set(o, "response", text);
    if (r == 0)
        r = json_set(o, "done", json_make("b", done));
    if (r == 0)
        return o;
    json_free(o);
    return NULL;
}

/* The line that ends a stream, and all of an answer without one: numbers stand in it, times in
 * nanoseconds. */
static struct json_object *last(const struct job *j, bool chat, struct json_object *text)
{
    const struct job_usage *u = &j->usage;
    const struct job_choice *c = j->choices;
    const char *reason = j->ask->n_prompts == 0                                    ? "load"
                         : c->reason == GIST_END_OF_TEXT || c->reason == GIST_STOP ? "stop"
                                                                                   : "length";
    struct json_object *o = piece(j, chat, text, true), *rest;

    rest = json_make("{s:s, s:I, s:i, s:I, s:I, s:I, s:I, s:o}", "done_reason", reason,
                     "total_duration", (int64_t)(clock_ns() - j->begun_ns), "load_duration", 0,
                     "prompt_eval_count", (int64_t)u->prompt, "prompt_eval_duration",
                     (int64_t)u->prompt_ns, "eval_count", (int64_t)u->generated, "eval_duration",
                     (int64_t)u->generate_ns, "gistd", say_gistd(j));
    if (json_merge(o, rest) == 0)
        return o;
    json_free(o);
    return NULL;
}

/* o with log-probabilities, where there are some; both are taken over. */
static struct json_object *with_logprobs(struct json_object *o, struct json_object *logprobs)
{
    return logprobs ? json_with(o, "logprobs", logprobs) : o;
}

static void say_piece(struct job *j, bool chat, const char *text, size_t len)
{
    say_line(
        j, with_logprobs(piece(j, chat, json_make("s%", text, len), false), say_take_logprobs(j)));
}

static void chat_text(struct job *j, const char *text, size_t len)
{
    say_piece(j, true, text, len);
}

static void generate_text(struct job *j, const char *text, size_t len)
{
    say_piece(j, false, text, len);
}

static struct json_object *one_call(const struct json_object *c)
{
    return json_make("{s:{s:s, s:o}}", "function", "name", json_text(json_get(c, "name")),
                     "arguments", say_arguments(c));
}

/* o, whose message gets the calls, which it takes over. */
static struct json_object *with_calls(struct json_object *o, struct json_object *calls)
{
    struct json_object *message = (struct json_object *)(uintptr_t)json_get(o, "message");

    if (json_set(message, "tool_calls", calls) == 0)
        return o;
    json_free(o);
    return NULL;
}

static void chat_call(struct job *j, const struct json_object *c)
{
    say_line(j,
             with_calls(piece(j, true, json_make("s", ""), false), json_make("[o]", one_call(c))));
}

static void chat_end(struct job *j)
{
    say_line(j, last(j, true, json_make("s", "")));
}

static void generate_end(struct job *j)
{
    say_line(j, last(j, false, json_make("s", "")));
}

static struct json_object *whole(const struct job *j, bool chat)
{
    return with_logprobs(last(j, chat, say_text(j->choices)), json_share(j->choices->logprobs));
}

static struct json_object *chat_whole(const struct job *j)
{
    struct json_object *o = whole(j, true);

    return j->choices->calls ? with_calls(o, say_calls(j->choices, one_call)) : o;
}

static struct json_object *generate_whole(const struct job *j)
{
    return whole(j, false);
}

static struct json_object *refusal(const struct problem *p)
{
    return json_make("{s:s}", "error", p->text);
}

static void error(struct job *j)
{
    say_line(j, refusal(&j->problem));
}

const struct voice say_ollama_chat = { .stream_type = "application/x-ndjson",
                                       .begin = say_nothing,
                                       .choice = say_nothing,
                                       .text = chat_text,
                                       .call = chat_call,
                                       .choice_end = say_nothing,
                                       .end = chat_end,
                                       .keep_alive = say_nothing,
                                       .error = error,
                                       .whole = chat_whole,
                                       .refusal = refusal };

const struct voice say_ollama_generate = { .stream_type = "application/x-ndjson",
                                           .begin = say_nothing,
                                           .choice = say_nothing,
                                           .text = generate_text,
                                           .choice_end = say_nothing,
                                           .end = generate_end,
                                           .keep_alive = say_nothing,
                                           .error = error,
                                           .whole = generate_whole,
                                           .refusal = refusal };
