/* http/say_anthropic.c - messages: a message of one text, and the events that its clients put
 * together again in just this order.
 *
 * Comments and no pings come before message_start: what an answer begins with tells how long its
 * prompt is, which is not known earlier.
 */
#include "http/say.h"

#include <stdio.h>

/* Which of the ask's stops it was, from 1; 0: none, or it is not known: an older daemon does not
 * say it, and then it is known of one alone. */
static uint32_t stop_number(const struct job *j)
{
    const struct job_choice *c = &j->choices[0];

    return c->reason != GIST_STOP ? 0 : j->ask->sampling.n_stop == 1 ? 1 : c->stop;
}

/* One of the client's own, if it is known. */
static const char *stop_sequence(const struct job *j)
{
    uint32_t number = stop_number(j), n = j->ask->sampling.n_stop - j->ask->ends_call;

    return number > 0 && number <= n && !j->choices[0].calls ? j->ask->stops[number - 1] : NULL;
}

/* The end of a call that turned out to be none. */
static bool ended_call(const struct job *j)
{
    return j->ask->ends_call && stop_number(j) == j->ask->sampling.n_stop;
}

/* A context or a pool that is full cuts an answer off as max_tokens does. */
static const char *stop_reason(const struct job *j)
{
    bool calls = j->choices[0].calls != NULL;

    switch (j->choices[0].reason) {
    case GIST_END_OF_TEXT:
        return calls ? "tool_use" : "end_turn";
    case GIST_STOP:
        return calls ? "tool_use" : ended_call(j) ? "end_turn" : "stop_sequence";
    default:
        return "max_tokens";
    }
}

/* Anthropic's input_tokens leave out what a cache had; u->prompt is all of the prompt. */
static struct json_object *usage(const struct job *j)
{
    const struct job_usage *u = &j->usage;

    return json_make("{s:I, s:i, s:I, s:I, s:o}", "input_tokens",
                     (int64_t)u->prompt - (int64_t)say_cached(j), "cache_creation_input_tokens", 0,
                     "cache_read_input_tokens", (int64_t)say_cached(j), "output_tokens",
                     (int64_t)u->generated, "gistd", say_gistd(j));
}

/* content is taken over. */
static struct json_object *message(const struct job *j, struct json_object *content,
                                   const char *reason, const char *sequence)
{
    char id[48];

    (void)snprintf(id, sizeof(id), "msg_%s", j->id);
    return json_make("{s:s, s:s, s:s, s:s, s:o, s:s?, s:s?, s:o}", "id", id, "type", "message",
                     "role", "assistant", "model", j->model, "content", content, "stop_reason",
                     reason, "stop_sequence", sequence, "usage", usage(j));
}

/* input is taken over. */
static struct json_object *use(const struct json_object *call, struct json_object *input)
{
    char id[80];

    (void)snprintf(id, sizeof(id), "toolu_%s", json_text(json_get(call, "id")));
    return json_make("{s:s, s:s, s:s, s:o}", "type", "tool_use", "id", id, "name",
                     json_text(json_get(call, "name")), "input", input);
}

static struct json_object *whole_use(const struct json_object *call)
{
    return use(call, say_arguments(call));
}

static struct json_object *whole(const struct job *j)
{
    const struct job_choice *c = &j->choices[0];
    struct json_object *content = json_make("[]");
    int r = 0;

    if (!c->calls || c->text.len > 0)
        r = json_add(content, json_make("{s:s, s:o}", "type", "text", "text", say_text(c)));
    r |= json_join(content, say_calls(c, whole_use));
    if (r == 0)
        return message(j, content, stop_reason(j), stop_sequence(j));
    json_free(content);
    return NULL;
}

static void begin(struct job *j)
{
    say_event(j, "message_start",
              json_make("{s:s, s:o}", "type", "message_start", "message",
                        message(j, json_make("[]"), NULL, NULL)));
}

/* n_events counts blocks; one of text is open while in_text says so. */
static void begin_block(struct job *j, struct json_object *block)
{
    say_event(j, "content_block_start",
              json_make("{s:s, s:I, s:o}", "type", "content_block_start", "index",
                        (int64_t)j->n_events, "content_block", block));
}

static void end_block(struct job *j)
{
    say_event(j, "content_block_stop",
              json_make("{s:s, s:I}", "type", "content_block_stop", "index", (int64_t)j->n_events));
    j->n_events++;
    j->in_text = false;
}

static void begin_text(struct job *j)
{
    if (!j->in_text)
        begin_block(j, json_make("{s:s, s:s}", "type", "text", "text", ""));
    j->in_text = true;
}

static void text(struct job *j, const char *bytes, size_t len)
{
    begin_text(j);
    say_event(j, "content_block_delta",
              json_make("{s:s, s:I, s:{s:s, s:s%}}", "type", "content_block_delta", "index",
                        (int64_t)j->n_events, "delta", "type", "text_delta", "text", bytes, len));
}

/* All of its arguments in one delta, behind a block that begins without any: that is how clients
 * put them together. */
static void call(struct job *j, const struct json_object *c)
{
    if (j->in_text)
        end_block(j);
    begin_block(j, use(c, json_make("{}")));
    say_event(j, "content_block_delta",
              json_make("{s:s, s:I, s:{s:s, s:o}}", "type", "content_block_delta", "index",
                        (int64_t)j->n_events, "delta", "type", "input_json_delta", "partial_json",
                        say_arguments_text(c)));
    end_block(j);
}

static void end(struct job *j)
{
    /* An answer of nothing is an empty text. */
    if (j->n_events == 0)
        begin_text(j);
    if (j->in_text)
        end_block(j);
    say_event(j, "message_delta",
              json_make("{s:s, s:{s:s, s:s?}, s:o}", "type", "message_delta", "delta",
                        "stop_reason", stop_reason(j), "stop_sequence", stop_sequence(j), "usage",
                        usage(j)));
    say_event(j, "message_stop", json_make("{s:s}", "type", "message_stop"));
}

static void keep_alive(struct job *j)
{
    /* Before message_start a ping would be the first event, which their clients don't expect. */
    if (j->begun)
        say_event(j, "ping", json_make("{s:s}", "type", "ping"));
    else
        say_comment(j);
}

static struct json_object *refusal(const struct problem *p)
{
    return json_make("{s:s, s:{s:s, s:s}}", "type", "error", "error", "type",
                     problem_anthropic_type(p), "message", p->text);
}

static void error(struct job *j)
{
    say_event(j, "error", refusal(&j->problem));
}

static struct json_object *count(const struct job *j)
{
    return json_make("{s:I}", "input_tokens", (int64_t)j->usage.prompt);
}

const struct voice say_messages = { .stream_type = "text/event-stream",
                                    .begin = begin,
                                    .choice = say_nothing,
                                    .text = text,
                                    .call = call,
                                    .choice_end = say_nothing,
                                    .end = end,
                                    .keep_alive = keep_alive,
                                    .error = error,
                                    .whole = whole,
                                    .refusal = refusal };

const struct voice say_count_tokens = { .whole = count, .refusal = refusal };
