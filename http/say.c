/* http/say.c - what the voices share. Whatever could not be made sets out.lost, which ends the
 * stream (http/job.c): half an event would be worse. */

#include "http/say.h"

#include <stdlib.h>
#include <string.h>

static void add_json(struct text *t, struct json_object *body)
{
    if (body)
        json_write(t, body);
    else
        t->lost = true;
    json_free(body);
}

void say_event(struct job *j, const char *event, struct json_object *body)
{
    if (event)
        text_print(&j->out, "event: %s\n", event);
    text_add(&j->out, "data: ", 6);
    add_json(&j->out, body);
    text_add(&j->out, "\n\n", 2);
}

void say_line(struct job *j, struct json_object *body)
{
    add_json(&j->out, body);
    text_add(&j->out, "\n", 1);
}

void say_comment(struct job *j)
{
    if (j->state == JOB_READING && j->n_all > 0)
        text_print(&j->out, ": reading the prompt, %u of %u tokens\n\n", j->n_read, j->n_all);
    else
        text_print(&j->out, ": still here\n\n");
}

void say_nothing(struct job *j)
{
    (void)j;
}

struct job_choice *say_choice(struct job *j)
{
    return &j->choices[j->choice];
}

uint32_t say_cached(const struct job *j)
{
    return j->usage.shared + j->usage.restored;
}

struct json_object *say_gistd(const struct job *j)
{
    const struct job_usage *u = &j->usage;

    return json_make(
        "{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "computed", (int64_t)u->computed, "shared",
        (int64_t)u->shared, "restored", (int64_t)u->restored, "raw", (int64_t)u->raw, "gist_tokens",
        (int64_t)u->gist_tokens, "gists", (int64_t)u->gists, "ratio", (int64_t)u->ratio, "hydrated",
        (int64_t)u->hydrated, "missed", (int64_t)u->missed);
}

struct json_object *say_text(const struct job_choice *c)
{
    return json_make("s%", c->text.bytes ? c->text.bytes : "", c->text.len);
}

struct json_object *say_take_logprobs(struct job *j)
{
    struct json_object *said = j->said;

    j->said = NULL;
    return said;
}

struct json_object *say_calls(const struct job_choice *c,
                              struct json_object *(*one)(const struct json_object *call))
{
    struct json_object *list = json_make("[]");
    int r = list ? 0 : -1;

    for (size_t i = 0; r == 0 && i < json_len(c->calls); i++)
        r = json_add(list, one(json_at(c->calls, i)));
    if (r == 0)
        return list;
    json_free(list);
    return NULL;
}

struct json_object *say_arguments(const struct json_object *call)
{
    return json_share(json_get(call, "arguments"));
}

struct json_object *say_arguments_text(const struct json_object *call)
{
    struct text t = { 0 };
    struct json_object *v;

    json_write(&t, json_get(call, "arguments"));
    v = t.bytes && !t.lost ? json_make("s%", t.bytes, t.len) : NULL;
    text_fini(&t);
    return v;
}

struct json_object *say_openai_refusal(const struct problem *p)
{
    return json_make("{s:{s:s, s:s, s:s?, s:s?}}", "error", "message", p->text, "type",
                     problem_openai_type(p), "param", p->param[0] ? p->param : NULL, "code",
                     problem_openai_code(p));
}
