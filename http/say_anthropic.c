/* http/say_anthropic.c - messages: a message of one text, and the events that its clients put
 * together again in just this order.
 *
 * Comments and no pings come before message_start: what an answer begins with tells how long its
 * prompt is, which is not known earlier.
 */
#include "http/say.h"

#include <stdio.h>

static const char *stop_reason(const struct job *j)
{
    switch (j->choices[0].reason) {
    case GIST_END_OF_TEXT:
        return "end_turn";
    case GIST_STOP:
        return "stop_sequence";
    default:
        return "max_tokens";
    }
}

/* Which of several it was nobody says. */
static const char *stop_sequence(const struct job *j)
{
    return j->choices[0].reason == GIST_STOP && j->ask->sampling.n_stop == 1 ? j->ask->stops[0]
                                                                             : NULL;
}

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

static struct json_object *whole(const struct job *j)
{
    return message(j, json_make("[{s:s, s:o}]", "type", "text", "text", say_text(&j->choices[0])),
                   stop_reason(j), stop_sequence(j));
}

static void begin(struct job *j)
{
    say_event(j, "message_start",
              json_make("{s:s, s:o}", "type", "message_start", "message",
                        message(j, json_make("[]"), NULL, NULL)));
    say_event(j, "content_block_start",
              json_make("{s:s, s:i, s:{s:s, s:s}}", "type", "content_block_start", "index", 0,
                        "content_block", "type", "text", "text", ""));
}

static void text(struct job *j, const char *bytes, size_t len)
{
    say_event(j, "content_block_delta",
              json_make("{s:s, s:i, s:{s:s, s:s%}}", "type", "content_block_delta", "index", 0,
                        "delta", "type", "text_delta", "text", bytes, len));
}

static void end(struct job *j)
{
    say_event(j, "content_block_stop",
              json_make("{s:s, s:i}", "type", "content_block_stop", "index", 0));
    say_event(j, "message_delta",
              json_make("{s:s, s:{s:s, s:s?}, s:o}", "type", "message_delta", "delta",
                        "stop_reason", stop_reason(j), "stop_sequence", stop_sequence(j), "usage",
                        usage(j)));
    say_event(j, "message_stop", json_make("{s:s}", "type", "message_stop"));
}

static void keep_alive(struct job *j)
{
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
                                    .choice_end = say_nothing,
                                    .end = end,
                                    .keep_alive = keep_alive,
                                    .error = error,
                                    .whole = whole,
                                    .refusal = refusal };

const struct voice say_count_tokens = { .whole = count, .refusal = refusal };
