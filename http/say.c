#include "http/say.h"

#include <stdlib.h>
#include <string.h>

static int add_bytes(const char *bytes, size_t len, void *arg)
{
    struct text *t = arg;

    text_add(t, bytes, len);
    return t->lost ? -1 : 0;
}

static void add_json(struct text *t, json_t *body)
{
    if (!body || json_dump_callback(body, add_bytes, t, JSON_COMPACT) < 0)
        t->lost = true;
    json_decref(body);
}

void say_event(struct job *j, const char *event, json_t *body)
{
    if (event)
        text_print(&j->out, "event: %s\n", event);
    text_add(&j->out, "data: ", 6);
    add_json(&j->out, body);
    text_add(&j->out, "\n\n", 2);
}

void say_line(struct job *j, json_t *body)
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

json_t *say_gistd(const struct job *j)
{
    const struct job_usage *u = &j->usage;

    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "computed",
                     (json_int_t)u->computed, "shared", (json_int_t)u->shared, "restored",
                     (json_int_t)u->restored, "raw", (json_int_t)u->raw, "gist_tokens",
                     (json_int_t)u->gist_tokens, "gists", (json_int_t)u->gists, "ratio",
                     (json_int_t)u->ratio, "hydrated", (json_int_t)u->hydrated, "missed",
                     (json_int_t)u->missed);
}

json_t *say_text(const struct job_choice *c)
{
    return json_stringn(c->text.bytes ? c->text.bytes : "", c->text.len);
}

json_t *say_openai_refusal(const struct problem *p)
{
    return json_pack("{s:{s:s, s:s, s:s?, s:s?}}", "error", "message", p->text, "type",
                     problem_openai_type(p), "param", p->param[0] ? p->param : NULL, "code",
                     problem_openai_code(p));
}
